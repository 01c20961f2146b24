"""Two processes on this machine train as one process with two devices does, and leave one ordinary run."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import runs

import pixmed_jax
from pixmed_jax.data.sources import open_dataset

pytestmark = pytest.mark.slow


def command(factory, workdir: Path, *more: str) -> list[str]:
    tiny = [f"--config.{key}={tuple(v) if isinstance(v, list) else v}" for key, v in runs.TINY.items()]
    return [
        *(sys.executable, str(runs.ROOT / "launch.py"), "--config=configs/ghost.py:test", *tiny),
        *(f"--config.data.dir={runs.shared(factory) / 'data'}", "--config.log.every=1"),
        *(f"--workdir={workdir}", *more),
    ]


def start(factory, arguments: list[str], devices: int = 1) -> subprocess.Popen:
    environment = {
        **os.environ,
        "JAX_COMPILATION_CACHE_DIR": str(runs.use_cache(factory)),
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
    }
    return subprocess.Popen(
        arguments,
        cwd=runs.ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def pair(factory, workdir: Path, *more: str) -> list[subprocess.Popen]:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    return [
        start(factory, command(factory, workdir, f"--distributed=localhost:{port},2,{i}", *more))
        for i in (0, 1)
    ]


def metrics(workdir: Path) -> list[dict]:
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def test_two_processes_equal_two_devices_and_one_goes_on_alone(tmp_path, tmp_path_factory):
    one = start(tmp_path_factory, command(tmp_path_factory, tmp_path / "one"), devices=2)
    output = one.communicate(timeout=300)
    assert one.returncode == 0, output
    both = pair(tmp_path_factory, tmp_path / "two")
    outputs = [process.communicate(timeout=300) for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    assert "trained 6 steps" in outputs[0][0]
    assert "step" not in outputs[1][0]  # only one of them tells

    found, expected = metrics(tmp_path / "two"), metrics(tmp_path / "one")
    assert [line["step"] for line in found] == [line["step"] for line in expected]
    for a, b in zip(found, expected, strict=True):
        for name in b.keys() - {"images_per_second"}:
            np.testing.assert_allclose(a[name], b[name], rtol=1e-5, atol=1e-5, err_msg=f"{name} {a['step']}")

    config = json.loads((tmp_path / "two" / "config.json").read_text())
    dataset = open_dataset(**config["data"], seed=0)
    arrays, _ = dataset.load(dataset.rows["test"], dataset.size)
    maps = np.asarray(arrays.maps)
    images = [pixmed_jax.load(tmp_path / name)(maps) for name in ("one", "two")]
    np.testing.assert_allclose(images[1], images[0], atol=1e-5)

    alone = start(
        tmp_path_factory, command(tmp_path_factory, tmp_path / "two", "--config.train.steps=7"), devices=1
    )
    output = alone.communicate(timeout=300)
    assert alone.returncode == 0, output
    assert "resuming" in output[0] and "from step 6" in output[0]


def test_a_signal_to_one_process_stops_both_at_the_same_step(tmp_path, tmp_path_factory):
    both = pair(tmp_path_factory, tmp_path / "run", "--config.train.steps=100000")
    deadline = time.monotonic() + 240
    path = tmp_path / "run" / "metrics.jsonl"
    while not path.exists() or '"step": 2' not in path.read_text():
        assert time.monotonic() < deadline and both[0].poll() is None, both[0].communicate()
        time.sleep(0.2)
    both[1].send_signal(signal.SIGTERM)
    outputs = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [143, 143], outputs
    assert "saved; the same command resumes" in outputs[0][0]
