"""What a training step costs as things grow: python benchmarks/scale.py [--vary size,batch --json F].

The quick preset's networks; one of image size, batch, parts of a batch, virtual devices and dataset size
varies at a time. For dataset sizes slices are made when they are asked for and the cap is 0.1 GiB; what lies
beyond it is streamed, and memory must stay flat. Peak memory is each process's own, JAX included. The last
line is the largest peak memory among the datasets beyond the cap over the smallest.
"""

import os
from typing import Any

import jax
import measure
import numpy as np

from configs.ghost import get_config
from pixmed_jax import config as configs
from pixmed_jax import inference
from pixmed_jax.data.slices import Source
from pixmed_jax.data.sources import Dataset
from pixmed_jax.training import mesh as meshes
from pixmed_jax.training.build import make_task
from pixmed_jax.training.feed import Feed
from pixmed_jax.training.loop import jit_step
from pixmed_jax.training.task import jit_init

BASE = {"size": 64, "batch": 8, "accumulate": 1, "devices": 1, "slices": 64}
VARIED = {
    "slices": (1000, 100_000, 1_000_000),
    "size": (64, 128, 256),
    "batch": (1, 4, 16, 64),
    "accumulate": (1, 2, 4, 8),
    "devices": (1, 2, 4, 8),
}
CAP = 0.1 * 2**30


def made_up(count: int, size: int) -> Dataset:
    """`count` slices of noise with a square tumour; slice i is made of i when it is read."""

    def read(row: int) -> tuple[np.ndarray, np.ndarray]:
        image = np.random.default_rng(row).integers(0, 256, (size, size), dtype=np.uint8)
        mask = np.zeros((size, size), np.uint8)
        mask[size // 3 : size // 2, size // 3 : size // 2] = 1
        return image, mask

    names = tuple(map(str, range(count)))
    source = Source(names, np.zeros(count, np.int32), ("tumor",), names, ("",) * count, read)
    return Dataset(
        source=source,
        rows={"train": np.arange(count)},
        classes=("tumor",),
        condition="tumor",
        class_channels=False,
        tissue_classes=0,
        size=size,
        load_size=round(size * 286 / 256),
        channels=1,
    )


def serve(size: int, batch: int, accumulate: int, devices: int, slices: int) -> None:
    assert jax.device_count() == devices
    config = get_config()
    config.data.size, config.data.condition = size, "tumor"
    config.train.batch_size, config.train.accumulate = batch, accumulate
    plain = configs.plain(config)
    task, mesh = make_task(plain), meshes.make_mesh(batch)
    state = jit_init(task.init, out_shardings=meshes.replicated(mesh))(
        jax.random.PRNGKey(0), inference.example_batch(plain, 1)
    )
    feed = Feed(made_up(slices, size), mesh, seed=0, batch_size=batch, resident=CAP)
    step = jit_step(task, plain, 1, mesh, streamed=feed.streamed).lower(state, *feed(0)).compile()
    count = 0

    def call() -> None:
        nonlocal state, count
        state, metrics = step(state, *feed(count))
        jax.block_until_ready((state, metrics))
        count += 1

    for _ in range(4):
        call()
    measure.serve(call, peak=measure.peak_memory(), streamed=feed.streamed)


def main() -> None:
    options = measure.arguments(__doc__, rounds=8, vary=",".join(VARIED))
    if measure.contender():
        serve(**{key: int(value) for key, value in (p.split("=") for p in measure.contender().split())})
        return
    rows: list[dict[str, Any]] = []
    print(f"{measure.machine()}; base: " + ", ".join(f"{k} {v}" for k, v in BASE.items()))
    for what in options.vary.split(","):
        for value in VARIED[what]:
            setting = {**BASE, what: value}
            os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={setting['devices']}"
            name = " ".join(f"{k}={v}" for k, v in setting.items())
            seconds, about = measure.compare([name], options.rounds)
            median, told = float(np.median(seconds[name])), about[name]
            rows.append({"varied": what, "value": value, "seconds": median, **told})
            print(
                f"{what:10}{value:>9,}  {median * 1e3:8.1f} ms  {setting['batch'] / median:7.1f} images/s"
                f"  {told['peak'] / 2**30:5.2f} GiB{'  streamed' if told['streamed'] else ''}",
                flush=True,
            )
    peaks = [row["peak"] for row in rows if row["streamed"]]
    ratio = max(peaks) / min(peaks) if peaks else None
    measure.write_json(options.json, {"ratio": ratio, "rows": rows, "machine": measure.machine()})
    if ratio is not None:
        print(f"largest over smallest peak memory beyond the cap (1 is flat): {ratio:.3f}")


if __name__ == "__main__":
    main()
