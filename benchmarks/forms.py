"""Which form of a layer is fast on this device: python benchmarks/forms.py [--batch 64 --dtype bfloat16].

A convolution is one of three functions of two arrays (module convolutions): along its output, its image or
its kernel. Each is timed as XLA has it and in the forms of modules products and convolutions, for the layers
of the networks here in which one side has few channels, where XLA's own were found slow on CPUs and on a GPU,
and for some with many. Forms must agree before one is timed. Beside the times stand the least that the layer
could take by its bytes and by its operations, at this machine's measured rates. The last line is the time of
all layers as XLA has them, over that of the fastest form of each: what choosing would gain at most. In a step
XLA fuses what stands around a form, and may turn the order: `profile_step.py` has the last word.
"""

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import measure
import numpy as np

from pixmed_jax.models import convolutions, products

TOLERANCE = {"float32": 3e-3, "bfloat16": 2e-2}  # relative, by norm; float32 convolutions of a GPU are tf32
GIVEN = {"output": ("image", "kernel"), "image": ("output", "kernel"), "kernel": ("image", "output")}
QUEUED = 20  # calls in a row on an accelerator


class Layer(NamedTuple):
    """Image [N, side, side, channels], kernel [size, size, channels, features]."""

    name: str
    side: int
    channels: int
    features: int
    size: int
    stride: int


LAYERS = (
    Layer("U-Net's last", 256, 3, 128, 4, 2),  # a transposed one: its image is what it makes
    Layer("U-Net's first", 256, 3, 32, 3, 2),
    Layer("PatchGAN's first", 256, 6, 64, 4, 2),
    Layer("PatchGAN's logits", 31, 512, 1, 4, 1),
    Layer("GhostSPADE's last", 256, 16, 1, 3, 1),
    Layer("GhostSPADE's maps", 256, 7, 8, 3, 1),
    Layer("its PatchGAN's first", 256, 8, 48, 4, 2),
    Layer("U-Net's decoder 2", 128, 64, 256, 4, 2),
    Layer("U-Net's decoder 3", 64, 128, 512, 4, 2),
    Layer("U-Net's decoder 4", 32, 256, 1024, 4, 2),
    Layer("U-Net's encoder 2", 128, 64, 64, 3, 2),
    Layer("PatchGAN's second", 128, 64, 128, 4, 2),
    Layer("PatchGAN's third", 64, 128, 256, 4, 2),
)


def forms(layer: Layer) -> dict[str, dict[str, Callable]]:
    """By what is made, the functions of two arrays that make it."""
    side, size = layer.side, layer.size
    if layer.stride == 2:
        how = convolutions.halving(side, side, size)
        ours: dict[str, dict[str, Callable]] = {
            "output": {"patches": products.down, "blocks": convolutions.of_blocks},
            "image": {
                "stamps": partial(products.up, kernel_first=False),
                "stamps, kernel first": partial(products.up, kernel_first=True),
                "phases": convolutions.by_phases,
            },
            "kernel": {
                "patches": partial(products.down_kernel, size=size, whole=True),
                "by taps": partial(products.down_kernel, size=size, whole=False),
                "blocks": partial(convolutions.of_blocks_kernel, size=size),
            },
        }
    else:
        how = convolutions.Geometry((side, side), size, 1, (1, 1))
        ours = {
            "output": {"to few": partial(products.to_few, pad=1)},
            "image": {"from few": partial(products.from_few, sides=(side, side), pad=1)},
            "kernel": {"of few": partial(products.few_kernel, size=size, pad=1)},
        }
    return {
        made: {"XLA": partial(stock, how=how), **ours[made]} for made, stock in convolutions.STOCK.items()
    }


def arrays(layer: Layer, batch: int, dtype: str) -> dict[str, jax.Array]:
    """Random ones of a layer's three shapes."""
    out = layer.side // 2 if layer.stride == 2 else layer.side + 3 - layer.size
    shapes = {
        "image": (batch, layer.side, layer.side, layer.channels),
        "kernel": (layer.size, layer.size, layer.channels, layer.features),
        "output": (batch, out, out, layer.features),
    }
    keys = jax.random.split(jax.random.key(0), 3)
    return {
        name: jax.random.normal(key, shape, dtype)
        for key, (name, shape) in zip(keys, shapes.items(), strict=True)
    }


def milliseconds(call: Callable[[], Any], rounds: int) -> float:
    """Median; on an accelerator of QUEUED calls in a row."""
    times = 1 if measure.on_cpu() else QUEUED
    found = []
    for _ in range(rounds):
        began = time.perf_counter()
        for _ in range(times):
            result = call()
        jax.block_until_ready(result)
        found.append((time.perf_counter() - began) / times * 1e3)
    return float(np.median(found))


def rate(contender: tuple[Callable[[], Any], float]) -> float:
    """Of one of measure's two contenders, an operation or a byte a second."""
    call, amount = contender
    call()
    began = time.perf_counter()
    call()
    return amount / (time.perf_counter() - began)


def compared(layer: Layer, batch: int, dtype: str, rounds: int) -> Iterator[tuple[str, dict[str, float]]]:
    """(what is made, {form: ms})."""
    of = arrays(layer, batch, dtype)
    for made, functions in forms(layer).items():
        inputs = [of[name] for name in GIVEN[made]]
        found, known = {}, None
        for name, function in functions.items():
            compiled = jax.jit(function).lower(*inputs).compile()
            result = np.asarray(compiled(*inputs).astype(jnp.float32))
            known = result if known is None else known
            apart = np.linalg.norm(result - known) / np.linalg.norm(known)
            assert result.shape == of[made].shape and apart < TOLERANCE[dtype], f"{layer} {name}: {apart}"
            found[name] = milliseconds(partial(compiled, *inputs), rounds)
        yield made, found


def main() -> None:
    options = measure.arguments(__doc__, batch=64, dtype="bfloat16", rounds=5, layers="")
    flops, copied = rate(measure.gemm_call(options.dtype)), rate(measure.copy_call())
    print(f"{measure.machine()}; batch {options.batch}, {options.dtype}")
    print(f"limits: {flops / 1e12:.2f} TFLOP/s, {copied / 1e9:.0f} GB/s; times are ms")
    rows = []
    for layer in LAYERS:
        if options.layers and layer.name not in options.layers.split(","):
            continue
        of = arrays(layer, options.batch, options.dtype)
        work = 2.0 * of["output"].size * layer.size**2 * layer.channels
        floor = {
            "bytes": sum(x.nbytes for x in of.values()) / copied * 1e3,
            "operations": work / flops * 1e3,
        }
        shape = f"{layer.side}x{layer.side}x{layer.channels}, {layer.size}x{layer.size} -> {layer.features}"
        print(
            f"{layer.name} ({shape}); by bytes {floor['bytes']:.3f}, by operations {floor['operations']:.3f}"
        )
        for made, found in compared(layer, options.batch, options.dtype, options.rounds):
            print(f"  {made:7}" + ", ".join(f"{name} {ms:.3f}" for name, ms in found.items()), flush=True)
            rows.append({"layer": layer.name, "made": made, "floor": floor, "forms": found})
    stock = sum(row["forms"]["XLA"] for row in rows)
    best = sum(min(row["forms"].values()) for row in rows)
    measure.write_json(options.json, {"ratio": stock / best, "rows": rows, "machine": measure.machine()})
    print(f"all as XLA has them over the fastest of each ({stock:.2f} and {best:.2f} ms): {stock / best:.3f}")


if __name__ == "__main__":
    main()
