"""A run that is killed or told to stop, at any moment, ends as the run that was left alone.

Every start is a process of its own, through `launch.py`.
"""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import runs

from pixmed_jax.training import checkpoint

pytestmark = pytest.mark.slow
STEPS, EVERY = 60, 5


@pytest.fixture(scope="module")
def start(tmp_path_factory) -> Callable[..., subprocess.Popen]:
    """Starts a training in a workdir."""
    runs.trained(tmp_path_factory)  # the data and the compiled networks are there
    environment = {
        **os.environ,
        "JAX_COMPILATION_CACHE_DIR": str(runs.use_cache(tmp_path_factory)),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "PYTHONWARNINGS": "",
    }
    settings = {
        **runs.TINY,
        "data.dir": str(runs.shared(tmp_path_factory) / "data"),
        "train.steps": STEPS,
        "log.every": 1,
        "log.grid_every": STEPS,
        "checkpoint.every": EVERY,
    }

    def start(workdir: Path, **changes: object) -> subprocess.Popen:
        given = {**settings, **{key.replace("__", "."): value for key, value in changes.items()}}
        words = [
            f"--config.{key}={tuple(v) if isinstance(v, list) else v}".replace(" ", "")
            for key, v in given.items()
        ]
        return subprocess.Popen(
            [sys.executable, "launch.py", "--config=configs/ghost.py:test", f"--workdir={workdir}", *words],
            cwd=runs.ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


def read_until(process: subprocess.Popen, text: str) -> str:
    """All lines up to the first that holds `text`."""
    lines = []
    for line in process.stdout:
        lines.append(line)
        if text in line:
            return "".join(lines)
    raise AssertionError(f"ended without {text!r}: {''.join(lines)} {process.stderr.read()}")


def finish(process: subprocess.Popen) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def kill(process: subprocess.Popen) -> None:
    process.kill()
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL  # it had not ended by itself


def digest(workdir: Path) -> str:
    state = runs.state(workdir)
    assert int(state.step) == STEPS
    return checkpoint.sha256_of_tree(state)


def records(workdir: Path) -> list[dict]:
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "images_per_second"} for line in lines]


@pytest.fixture(scope="module")
def uninterrupted(start, tmp_path_factory) -> Path:
    workdir = tmp_path_factory.mktemp("uninterrupted") / "run"
    code, _, err = finish(start(workdir))
    assert code == 0, err
    return workdir


def test_killed_three_times(start, uninterrupted, tmp_path):
    workdir = tmp_path / "run"
    process = start(workdir)
    read_until(process, f"step 3/{STEPS}")
    kill(process)  # before the first save

    process = start(workdir)
    read_until(process, f"step 12/{STEPS}")  # after two saves
    kill(process)

    process = start(workdir)
    out = read_until(process, "resuming")
    first = int(re.search(r"from step (\d+)", out)[1])
    assert first >= EVERY
    before, deadline = set((workdir / "checkpoints").iterdir()), time.monotonic() + 60
    while time.monotonic() < deadline:  # until orbax has begun to write another step
        with contextlib.suppress(FileNotFoundError):
            if set((workdir / "checkpoints").iterdir()) - before:
                break
    kill(process)

    code, out, err = finish(start(workdir))
    assert code == 0, err
    assert int(re.search(r"from step (\d+)", out)[1]) >= first
    assert digest(workdir) == digest(uninterrupted)
    assert records(workdir) == records(uninterrupted)
    steps = [saved.step for saved in checkpoint.finished(workdir / "checkpoints")]
    assert steps == [saved.step for saved in checkpoint.finished(uninterrupted / "checkpoints")]


def test_told_to_stop(start, uninterrupted, tmp_path):
    """SIGTERM and SIGINT save at the step that is reported, and the next start goes on there."""
    workdir, resumed = tmp_path / "run", 0
    for number, status, step in ((signal.SIGTERM, 143, 7), (signal.SIGINT, 130, 27)):
        process = start(workdir)
        out = read_until(process, f"step {step}/{STEPS}")
        process.send_signal(number)
        code, rest, err = finish(process)
        assert code == status, err
        assert f"{number.name}: stopping after this step" in err
        if resumed:
            assert f"from step {resumed}" in out
        resumed = int(re.search(rf"stopped at step (\d+) of {STEPS}, saved", rest)[1])
        assert step <= resumed < STEPS
        assert checkpoint.newest_intact(workdir / "checkpoints").step == resumed
    code, out, err = finish(start(workdir))
    assert code == 0, err
    assert f"from step {resumed}" in out
    assert digest(workdir) == digest(uninterrupted)


def test_a_save_counts_long_before_the_next_one(start, tmp_path):
    """A kill between two saves costs the steps since the last one, not those since the one before."""
    workdir = tmp_path / "run"
    process = start(workdir, train__steps=100_000, checkpoint__every=300)
    read_until(process, "step 590/")  # hundreds of steps later the first save is on disk
    kill(process)
    assert [saved.step for saved in checkpoint.finished(workdir / "checkpoints")] == [300]
