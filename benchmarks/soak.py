"""Thousands of steps of a small network: memory, open files, threads and files on disk stay what they are.

    python benchmarks/soak.py [--steps=6000] [--workdir=DIR]

Trains the `test` preset's networks on phantoms with a save, a look at held-out slices, a picture and a record
every few steps, and prints what the process holds as it goes. Exit status 1 if, from a third of the way on,
memory grows by more than 5 % or the number of open files or threads grows at all.
"""

import argparse
import os
import runpy
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any
from unittest.mock import patch

ROWS = 24


def held() -> tuple[float, int, int]:
    """Memory in MB, open files, threads. Pages of files are not counted: the system takes them when it likes."""
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

    from pixmed_jax import config as configs
    from pixmed_jax.training import loop

    path = Path(__file__).parents[1] / "configs" / "ghost.py"
    config = configs.plain(runpy.run_path(str(path))["get_config"]("test"))
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
    later = [row for row in rows if row[0] > given.steps // 3]
    grown, files, threads = later[-1][1] / later[0][1] - 1, *(later[-1][i] - later[0][i] for i in (2, 3))
    print(f"steps {later[0][0]} to {later[-1][0]}: memory {grown:+.1%}, files {files:+}, threads {threads:+}")
    return int(status != 0 or grown > 0.05 or files > 0 or threads > 0)


if __name__ == "__main__":
    sys.exit(main())
