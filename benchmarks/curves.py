"""Do losses take the same course in bfloat16 as in float32?

    python benchmarks/curves.py [--config=ghost:quick] [--data=DIR] [--size=64] [--steps=1200] [--seeds=3]

Trains each seed twice, from the same weights on the same batches, once in each type, and prints each loss by
quarters of the training: its mean over the seeds (lowest to highest seed), and how much higher it is in
bfloat16, seed by seed, with a 95 % interval over the seeds (Student's t). A GAN's courses part after some
tens of steps whatever the type, so what can be equal are means. A CPU emulates bfloat16: the numbers are an
accelerator's, the times are not. Without --data on head phantoms. The last line counts the intervals that
hold no 0; one in twenty does so by chance.
"""

import json
import os
import tempfile
from pathlib import Path

import numpy as np
from scipy.stats import ttest_rel

QUARTERS = 4
TYPES = ("float32", "bfloat16")


def losses(workdir: Path) -> dict[str, np.ndarray]:
    """Means over each quarter of a run's records, [QUARTERS], by name."""
    with (workdir / "metrics.jsonl").open() as file:
        rows = [row for row in map(json.loads, file) if "images_per_second" in row]
    names = [name for name in rows[0] if "/" in name and "norm" not in name]
    parts = np.array_split(np.arange(len(rows)), QUARTERS)
    return {name: np.array([np.mean([rows[i][name] for i in part]) for part in parts]) for name in names}


def main() -> None:
    from pixmed_jax import allocator, compiled

    allocator.keep_freed_memory()  # both before JAX is imported
    compiled.keep()
    import measure

    from pixmed_jax.training import loop

    given = measure.arguments(__doc__, config="ghost:quick", data="", size=64, steps=1200, seeds=3)
    if given.seeds < 2:
        raise SystemExit("--seeds: two at least, or nothing says what one seed differs from another")

    found: dict[str, list[dict[str, np.ndarray]]] = {kind: [] for kind in TYPES}
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(given.seeds):
            for kind in TYPES:
                config = measure.preset(given.config)
                config["seed"] = seed
                config["data"]["size"] = given.size
                config["data"]["dir"] = str(Path(folder) / "data")
                if given.data:
                    config["data"].update(source="folder", dir=given.data)
                config["train"].update(steps=given.steps, epochs=0, dtype=kind)
                config["log"].update(every=max(1, given.steps // 120), grid_every=given.steps)
                config["checkpoint"]["every"] = given.steps
                workdir = Path(folder) / f"{kind}.{seed}"
                if loop.train(config, workdir):
                    raise SystemExit(f"{kind}, seed {seed}: stopped; nothing to compare")
                found[kind].append(losses(workdir))

    # [seeds, QUARTERS] of each loss and type
    told = {
        loss: {kind: np.stack([run[loss] for run in found[kind]]) for kind in TYPES}
        for loss in found["float32"][0]
    }
    apart = 0
    print(f"\n{'':28} quarter  float32                   bfloat16                  bfloat16 - float32")
    for loss, by_type in told.items():
        higher = (by_type["bfloat16"] - by_type["float32"]).mean(axis=0)
        intervals = np.stack(ttest_rel(by_type["bfloat16"], by_type["float32"]).confidence_interval(), -1)
        for q in range(QUARTERS):
            cells = [
                f"{x[:, q].mean():.4f} ({x[:, q].min():.4f} to {x[:, q].max():.4f})"
                for x in (by_type[kind] for kind in TYPES)
            ]
            low, high = intervals[q]
            apart += not low <= 0 <= high
            print(
                f"{loss:28} {q + 1:7}  {cells[0]}  {cells[1]}  {higher[q]:+.4f} ({low:+.4f} to {high:+.4f})"
            )
    settings = {name: value for name, value in vars(given).items() if name != "json"}
    values = {loss: {kind: x.tolist() for kind, x in by_type.items()} for loss, by_type in told.items()}
    measure.write_json(given.json, {"settings": settings | {"cpus": os.cpu_count()}, "losses": values})
    print(f"{apart} of {len(told) * QUARTERS} intervals hold no 0")


if __name__ == "__main__":
    main()
