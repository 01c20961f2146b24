"""Where a training step's time goes: python benchmarks/profile_step.py [--config ghost:paper --batch 64].

Compiles the step of a preset as training does, for slices of noise, and traces a few. Kernels are summed by
the operation of the compiled program that they belong to, with its result and the place in our code that it
comes from; `--hlo F` keeps the program. On a GPU convolutions are told apart by their fewest channels, since
those with few are slow there. The last line is the time of a step over that of its kernels: 1 is a device
that is never idle.
"""

import re
import tempfile
import time
from collections import ChainMap, Counter
from pathlib import Path
from typing import Any

import hlo
import jax
import measure
import numpy as np
import step as steps
from jax.profiler import ProfileData

from pixmed_jax.data.pipeline import Arrays
from pixmed_jax.training import mesh as meshes
from pixmed_jax.training.task import jit_init

_TRACED, _QUEUED = 5, 20  # steps
_FEW = 8  # channels


def kind(name: str, known: hlo.Computation) -> str:
    operation = known.get(name)
    if operation is None or not operation.convolution:
        return "all else"
    if operation.groups > 1:
        return "depthwise convolutions"
    types = [operation.result, *(known[x].result for x in operation.operands[:2] if x in known)]
    fewest = min(int(n) for of in types for n in re.findall(r"(\d+)\]", of)[:1])
    return f"convolutions of {_FEW} channels or fewer" if fewest <= _FEW else "convolutions"


def traced(run: Any) -> Counter[tuple[str, str]]:
    """Milliseconds a step by (operation, kernel)."""
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            run(_TRACED)
        (path,) = Path(folder).rglob("*.xplane.pb")
        planes = list(ProfileData.from_file(str(path)).planes)
    spent: Counter[tuple[str, str]] = Counter()
    for plane in planes:
        for line in plane.lines:
            if measure.on_cpu() or ("GPU" in plane.name and "Stream" in line.name):
                for event in line.events:
                    operation = next((str(value) for key, value in event.stats if key == "hlo_op"), "")
                    if operation:
                        spent[operation, event.name] += event.duration_ns / 1e6 / _TRACED
    return spent


def main() -> None:
    options = measure.arguments(
        __doc__, config="ghost:paper", size=0, batch=0, dtype="float32", top=40, hlo=""
    )
    config = steps.changed(measure.preset(options.config), vars(options))
    data, batch = config["data"], config["train"]["batch_size"]
    mesh = meshes.make_mesh(batch)
    everywhere = meshes.replicated(mesh)
    with measure.told("compiling the step"):
        made = steps.of(config, mesh)
        step = made.lowered.compile()
    slices, maps, labels = made.arrays
    noise = np.random.default_rng(0).integers(0, 256, slices.shape, dtype=np.uint8)
    arrays = Arrays(noise, np.ones(maps.shape, np.uint8), np.zeros(labels.shape, np.int32))
    arrays = jax.device_put(arrays, everywhere)
    rows = np.arange(batch, dtype=np.int32) % len(noise)
    state = jit_init(made.task.init, out_shardings=everywhere)(jax.random.PRNGKey(0), made.example)
    text = step.as_text()
    if options.hlo:
        Path(options.hlo).write_text(text)

    def run(steps: int) -> None:
        nonlocal state
        for _ in range(steps):
            state, metrics = step(state, arrays, rows)
        jax.block_until_ready((state, metrics))

    run(2)
    took, queued = [], 1 if measure.on_cpu() else _QUEUED
    for _ in range(_TRACED):
        began = time.perf_counter()
        run(queued)
        took.append((time.perf_counter() - began) / queued * 1e3)
    computations, _ = hlo.parse(text)
    spent, known = traced(run), dict(ChainMap(*computations.values()))
    # Within a command buffer the kernel alone says which operation it is of.
    by_kernel = {re.sub(r"[.-]", "_", name): name for name in known}
    by_operation: Counter[str] = Counter()
    for (operation, kernel), ms in spent.items():
        by_operation[operation if operation in known else by_kernel.get(kernel, kernel)] += ms

    print(
        f"{measure.machine()}; {options.config}, {data['size']}x{data['size']}, batch {batch}, "
        f"{options.dtype}; ms"
    )
    for name, ms in by_operation.most_common(options.top):
        operation = known.get(name)
        told = f"{operation.result[:60]}  {operation.place[-70:]}" if operation else ""
        print(f"{ms:8.3f}  {name[:44]:44}  {told}")
    kinds: Counter[str] = Counter()
    for name, ms in by_operation.items():
        kinds[kind(name, known)] += ms
    kernels = sum(kinds.values())
    if not measure.on_cpu():  # where most convolutions are products
        print("; ".join(f"{name} {ms:.2f}" for name, ms in kinds.most_common()) + f"; all {kernels:.2f} ms")
    median = float(np.median(took))
    measure.write_json(
        options.json,
        {"ratio": median / kernels, "ms": took, "kinds": kinds, "operations": by_operation.most_common()},
    )
    print(f"a step of {median:.2f} ms over its kernels: {median / kernels:.3f}")


if __name__ == "__main__":
    main()
