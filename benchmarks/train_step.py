"""Training step against PyTorch: python benchmarks/train_step.py [--size 256 --batch 4 --rounds 10 --json F].

Both frameworks train the paper's pair of networks: same weights, same batch, one discriminator pass over the
generated images shared by both updates, Adam on both, running average of the generator. Losses and gradients
must agree before anything is timed. Ours is the training loop's own step, with crop and one-hot condition.
The last line is the ratio of images/s, ours over the best peer: above 1 is ahead.
"""

import argparse
import copy
from functools import partial
from typing import Any

import jax
import measure
import numpy as np
import optax
import peers
import torch

from configs.ghost import get_config
from pixmed_jax import config as configs
from pixmed_jax import inference
from pixmed_jax.data.pipeline import Arrays, Batch, make_batch
from pixmed_jax.training import gan
from pixmed_jax.training import mesh as meshes
from pixmed_jax.training.build import make_task, networks
from pixmed_jax.training.dry_run import network_sizes
from pixmed_jax.training.loop import jit_step
from pixmed_jax.training.task import jit_init

PARITY = "parity"  # the process that compares both sides' numbers
TOLERANCE = 5e-3  # relative, by norm: rounding moves a few activations across the kink of a leaky ReLU


def paper(size: int, batch: int, dtype: str) -> dict[str, Any]:
    config = get_config("paper")
    config.data.size = size
    config.train.batch_size = batch
    config.train.dtype = dtype
    return configs.plain(config)


def random_arrays(config: dict[str, Any], count: int) -> Arrays:
    numbers = np.random.default_rng(0)
    size = round(config["data"]["size"] * config["data"]["load_scale"])
    images = numbers.integers(0, 256, (count, size, size, 1), dtype=np.uint8)
    maps = np.zeros((count, size, size), np.uint8)
    maps[:, size // 3 : size // 2, size // 3 : size // 2] = 1
    return Arrays(images, maps, np.zeros(count, np.int32))


def example(config: dict[str, Any], arrays: Arrays, rows: np.ndarray) -> Batch:
    make = jax.jit(make_batch, static_argnames=("size", "classes", "channels"))
    data = config["data"]
    return make(arrays, rows, jax.random.key(0), size=data["size"], classes=1, channels=data["channels"])


def step_flop(config: dict[str, Any]) -> float:
    """FLOP of one image: the generator forward and back, the discriminator 7 times (module gan says why)."""
    sizes = network_sizes(config, 1)
    return 2.0 * (3 * sizes["generator"].macs + 7 * sizes["discriminator"].macs)


def peer_step(
    config: dict[str, Any], state: Any, dropout: float, *, channels_last: bool = False
) -> peers.Step:
    channels = config["data"]["channels"]
    settings = {k: config["model"]["generator"][k] for k in ("width", "levels", "ghost_levels", "norm")}
    generator = peers.UNet(channels, channels, **settings, dropout=dropout)
    settings = {k: config["model"]["discriminator"][k] for k in ("width", "layers", "norm")}
    discriminator = peers.PatchGAN(2 * channels, **settings)
    if state is not None:
        peers.load(generator, state.generator)
        peers.load(discriminator, state.discriminator)
    return peers.Step(
        generator,
        discriminator,
        optimizer=config["optimizer"],
        ema_decay=config["train"]["ema_decay"],
        dtype=config["train"]["dtype"],
        channels_last=channels_last,
    )


def assert_parity(config: dict[str, Any], arrays: Arrays, rows: np.ndarray) -> None:
    """One step without dropout: losses, and by plain gradient descent of rate 1 every kernel's gradient.

    On a CPU, in float32 and of a few images: a GPU's factors of ten bits would hide an error of a percent.
    """
    config, rows = copy.deepcopy(config), rows[:4]
    config["model"]["generator"]["dropout"] = 0.0
    config["train"]["dtype"] = "float32"
    task = gan.make_task(*networks(config), optax.sgd(1.0), gan.Losses(**config["loss"]))
    batch = example(config, arrays, rows)
    state = jit_init(task.init)(jax.random.PRNGKey(0), batch)
    after, metrics = jax.jit(task.step)(state, batch)
    peer = peer_step(config, state, 0.0)
    values = peer.losses(nchw(batch.condition), nchw(batch.images))
    for name, value in values.items():
        np.testing.assert_allclose(metrics[name], value.item(), rtol=1e-4, err_msg=name)
    for module, old, new in (
        (peer.generator, state.generator, after.generator),
        (peer.discriminator, state.discriminator, after.discriminator),
    ):
        for name, theirs in peers.gradients(module).items():
            before, later = old["params"], new["params"]
            for key in name.split("/"):
                before, later = before[key], later[key]
            ours = np.asarray(before, np.float64) - np.asarray(later, np.float64)
            # A step of rate 1 is read off rounded parameters: their last bit is part of the difference.
            rounding = np.finfo(np.float32).eps * np.linalg.norm(before)
            apart = np.linalg.norm(ours - theirs)
            assert apart <= TOLERANCE * np.linalg.norm(theirs) + rounding, f"gradient of {name}: {apart}"


def nchw(x: Any) -> torch.Tensor:
    return torch.from_numpy(np.asarray(x).transpose(0, 3, 1, 2).copy())


def steps() -> int:
    """Steps in a call: on a GPU several are queued, as in training, before anybody waits for them."""
    return 1 if measure.on_cpu() else 10


COMPILED = {
    "torch NCHW": None,
    "torch channels_last": (),
    "torch compiled": ("generate", "discriminate"),
    # A compiled backward cannot leave out the half that a shared discriminator pass does not ask for.
    "torch compiled generator": ("generate",),
}


def serve_ours(config: dict[str, Any], arrays: Arrays, rows: np.ndarray) -> None:
    task, mesh = make_task(config), meshes.make_mesh(len(rows))
    arrays = jax.device_put(arrays, meshes.replicated(mesh))
    batch = inference.example_batch(config, 1)
    state = jit_init(task.init, out_shardings=meshes.replicated(mesh))(jax.random.PRNGKey(0), batch)
    step = jit_step(task, config, 1, mesh).lower(state, arrays, rows).compile()

    def call() -> None:
        nonlocal state
        for _ in range(steps()):
            state, metrics = step(state, arrays, rows)
        jax.block_until_ready((state, metrics))

    measure.serve(
        call, temporaries=step.memory_analysis().temp_size_in_bytes, memory=measure.accelerator_memory
    )


def serve_torch(
    config: dict[str, Any], arrays: Arrays, rows: np.ndarray, compiled: tuple[str, ...] | None
) -> None:
    dropout = config["model"]["generator"]["dropout"]
    peer = peer_step(config, None, dropout, channels_last=compiled is not None)
    batch = example(config, arrays, rows)
    inputs = [nchw(batch.condition).to(peers.DEVICE), nchw(batch.images).to(peers.DEVICE)]
    if compiled is not None:
        inputs = [x.to(memory_format=torch.channels_last) for x in inputs]
        for part in compiled:
            setattr(peer, part, torch.compile(getattr(peer, part)))
        if compiled and peers.DEVICE == "cuda":
            peer.compare = torch.compile(partial(peers.ssim, blur=peers.shifts))

    def call() -> None:
        for _ in range(steps()):
            values = peer(*inputs)
        values["generator/1-ssim"].item()

    measure.serve(call, memory=peers.peak_memory)


def main() -> None:
    options = measure.arguments(
        __doc__, size=256, batch=4, rounds=10, dtype="float32", peers=",".join(COMPILED)
    )
    config = paper(options.size, options.batch, options.dtype)
    arrays, rows = random_arrays(config, 16), np.arange(options.batch, dtype=np.int32)
    side = measure.contender()
    if side == "ours":
        serve_ours(config, arrays, rows)
    elif side in COMPILED:
        serve_torch(config, arrays, rows, COMPILED[side])
    elif side == PARITY:
        assert_parity(config, arrays, rows)
        measure.serve(lambda: None)
    elif side:
        measure.limits(options.dtype)
    else:
        against_peers(config, arrays, rows, options)


def against_peers(
    config: dict[str, Any], arrays: Arrays, rows: np.ndarray, options: argparse.Namespace
) -> None:
    sides = ["ours", *options.peers.split(","), "gemm", "copy"]
    seconds, about = measure.compare(sides, options.rounds, check=PARITY)
    gemm_rate, copy_rate = (
        about[name]["amount"] / float(np.median(seconds.pop(name))) for name in ("gemm", "copy")
    )
    seconds = {name: values / steps() for name, values in seconds.items()}
    medians = {name: float(np.median(values)) for name, values in seconds.items()}
    rate = options.batch * step_flop(config) / medians["ours"]
    images = {name: options.batch / value for name, value in medians.items()}
    best = max((name for name in images if name != "ours"), key=images.__getitem__)

    print(f"\n{measure.machine()}, torch {torch.__version__}")
    print(f"{options.size}x{options.size}, batch {options.batch}, {options.dtype}")
    print(measure.table(seconds))
    print("images/s: " + ", ".join(f"{name} {value:.2f}" for name, value in images.items()))
    print(
        f"limits: GEMM {gemm_rate / 1e9:.0f} GFLOP/s, copy {copy_rate / 1e9:.1f} GB/s; "
        f"ours {rate / 1e9:.0f} GFLOP/s, {rate / gemm_rate:.0%} of the GEMM rate"
    )
    print(f"memory of our step: {about['ours']['temporaries'] / 1e9:.2f} GB of temporaries")
    peaks = {name: told["memory"] for name, told in about.items() if told.get("memory")}
    if peaks:
        print("GPU memory, GB: " + ", ".join(f"{name} {peak / 1e9:.2f}" for name, peak in peaks.items()))
    ratio = images["ours"] / images[best]
    measure.write_json(
        options.json,
        {
            "ratio": ratio, "ours": images["ours"], "peers": {n: v for n, v in images.items() if n != "ours"},
            "limit_share": rate / gemm_rate, "gemm_flops": gemm_rate, "copy_bytes_per_s": copy_rate,
            "temporaries_bytes": about["ours"]["temporaries"], "peak_bytes": peaks,
            "machine": measure.machine(),
        },
    )  # fmt: skip
    print(f"ratio to {best} (images/s, above 1 is ahead): {ratio:.3f}")


if __name__ == "__main__":
    main()
