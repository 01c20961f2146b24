"""Thousands of steps of a small network: memory, open files, threads and files on disk stay what they are.

    python benchmarks/soak.py [--steps=6000] [--workdir=DIR]

Trains the `test` preset's networks on phantoms with a save, a look at held-out slices, a picture and a record
every few steps, and prints what the process holds as it goes. Exit status 1 if the most that it holds in the
last third is more than in the middle one: over 5 % of memory, or any file or thread.
"""

import argparse
import os
import statistics
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any
from unittest.mock import patch

ROWS = 24


def held() -> tuple[float, int, int]:
    """Memory in MB without pages of files, which come and go as the system likes; open files; threads."""
    status = Path("/proc/self/status").read_text()
    (kilobytes,) = (line.split()[1] for line in status.splitlines() if line.startswith("RssAnon"))
    files = len(list(Path("/proc/self/fd").iterdir()))
    return int(kilobytes) / 1024, files, threading.active_count()


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--workdir", type=Path)
    given = parser.parse_args()
    os.environ.setdefault("JAX_PLATFORMS", "cpu")

    import measure

    from pixmed_jax.training import loop

    config = measure.preset("ghost:test")
    config["train"]["steps"], config["checkpoint"]["every"] = given.steps, 20
    config["log"] = {"every": 5, "grid_every": 60}
    rows: list[tuple[int, float, int, int]] = []

    def reporting(self: Any, step: int, values: Any) -> float:
        if step % max(5, given.steps // ROWS // 5 * 5) == 0:
            rows.append((step, *held()))
            print("step {:6}  {:7.1f} MB  {:3} files  {:3} threads".format(*rows[-1]), flush=True)
        return 1.0

    with tempfile.TemporaryDirectory() as folder:
        workdir = given.workdir or Path(folder) / "run"
        config["data"]["dir"] = str(workdir.parent / "data")
        with patch.object(loop.Bar, "report", reporting):
            status = loop.train(config, workdir)
        kept = sorted(path.name for path in (workdir / "checkpoints").iterdir())
    print(f"status {status}; checkpoints kept: {', '.join(kept)}")
    thirds = [rows[i * len(rows) // 3 : (i + 1) * len(rows) // 3] for i in range(3)]
    # Files and threads come and go with every save, so their medians count.
    middle, last = (
        [max(row[1] for row in part), *(statistics.median(row[i] for row in part) for i in (2, 3))]
        for part in thirds[1:]
    )
    grown, files, threads = last[0] / middle[0] - 1, last[1] - middle[1], last[2] - middle[2]
    print(f"last third against the middle: {grown:+.1%} MB at most, {files:+g} files, {threads:+g} threads")
    return int(status != 0 or grown > 0.05 or files > 0 or threads > 0)


if __name__ == "__main__":
    sys.exit(main())
