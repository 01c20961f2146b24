"""What a dry run refuses and prints; the rest is tested with what it checks, as in test_loop.py."""

import os
import subprocess
import sys

import pytest
import runs

from pixmed_jax.errors import PixmedError
from pixmed_jax.training.dry_run import dry_run


@pytest.fixture
def on_two_devices(tmp_path, tmp_path_factory):
    """A dry run of so many images in a batch, in a process with two devices."""
    runs.trained(tmp_path_factory)  # makes the phantoms

    def start(batch_size: int) -> subprocess.CompletedProcess:
        words = [
            *("--config=configs/ghost.py:test", f"--config.train.batch_size={batch_size}", "--dry_run"),
            *(f"--config.data.dir={runs.shared(tmp_path_factory) / 'data'}", f"--workdir={tmp_path / 'run'}"),
        ]
        flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=2"
        environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONWARNINGS": "", "XLA_FLAGS": flags}
        command = [sys.executable, str(runs.ROOT / "launch.py"), *words]
        return subprocess.run(
            command, cwd=runs.ROOT, env=environment, capture_output=True, text=True, timeout=300
        )

    return start


def test_a_batch_is_checked_against_the_devices_that_are_there(on_two_devices):
    """Before any slice is read, as in a training; one that they can share goes through."""
    process = on_two_devices(3)
    assert process.returncode == 1 and process.stderr == (
        "launch.py: train.batch_size=3 cannot be cut for 2 devices; take a multiple of 2\n"
    )
    assert "slices" not in process.stdout
    process = on_two_devices(4)
    assert process.returncode == 0, process.stderr
    assert "the activations of 4 images at a time" in process.stdout.splitlines()[-1]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"train__batch_size": 4, "train__accumulate": 3},
            r"^train\.batch_size=4 cannot be cut into train\.accumulate=3 equal parts; give a number that",
        ),
        ({"data__channels": 2}, r"^data\.channels=2: give 1 for grey images or 3 for colours$"),
    ],
)
def test_what_no_data_could_cure_is_told_before_any_is_read(
    changes, told, tmp_path, tmp_path_factory, capsys
):
    config = runs.config(tmp_path_factory, data__dir=str(tmp_path / "nothing"), **changes)
    with pytest.raises(PixmedError, match=told):
        dry_run(config, tmp_path / "run")
    assert "slices" not in capsys.readouterr().out
