"""Ninety hostile files: one line each, no patient's name, and memory that does not follow their claims."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("h5py")
pytest.importorskip("nibabel")
pytest.importorskip("pydicom")

import hostile
from volume_files import nifti

from pixmed_jax.data import volumes

MEGABYTES = 100  # of memory that all of them together may cost; the bombs unpack to 512 and more each


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """{name: [seconds, growth of the memory's peak, message]} from a process that does nothing else."""
    where = tmp_path_factory.mktemp("hostile")
    for name in hostile.FILES:
        hostile.write(where / name, name)
    path = os.pathsep.join([str(Path(__file__).parents[2]), *sys.path])
    told = subprocess.run(
        [sys.executable, hostile.__file__, str(where)],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert "warning" not in told.stderr.lower()
    assert hostile.SECRET not in told.stderr
    return json.loads(told.stdout)


@pytest.mark.parametrize("name", hostile.FILES)
def test_refused_in_one_line_with_file_and_reason(results, name):
    file, _, said = hostile.FILES[name]
    message = results[name][2]
    assert message is not None
    assert f"images/{file}: " in message
    assert re.search(said, message)
    assert "\n" not in message and hostile.SECRET not in message
    assert "MemoryError" not in message  # refused, and not just failed for want of memory


def test_memory_is_bounded(results):
    assert max(growth for _, growth, _ in results.values()) < MEGABYTES


def test_a_bomb_behind_the_voxels_is_never_unpacked(tmp_path):
    """What the header does not speak of is not read."""
    values = np.arange(512, dtype=np.int16).reshape(8, 8, 8)
    (tmp_path / "a.nii.gz").write_bytes(hostile.gz(hostile.header() + values.tobytes(order="F"), bomb=4000))
    np.testing.assert_array_equal(volumes.open_array(tmp_path / "a.nii.gz").read(), values)
    nifti(tmp_path / "b.nii.gz", values)
