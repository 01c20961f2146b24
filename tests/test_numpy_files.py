"""NumPy's own files."""

import zipfile

import numpy as np
import pytest
from volume_files import PLACES, decoded

from pixmed_jax.data import volumes
from pixmed_jax.errors import PixmedError


@pytest.mark.parametrize("order", "CF")
def test_numpy_files(tmp_path, order):
    values = np.asarray(PLACES[..., 0], order=order)
    np.save(tmp_path / "a.npy", values)
    np.savez_compressed(tmp_path / "b.npz", image=values, other=np.zeros((3, 3)))
    np.savez(tmp_path / "c.npz", values)
    for name in ("a.npy", "b.npz", "c.npz"):
        np.testing.assert_array_equal(decoded(tmp_path / name)[0], PLACES[..., 0])


def test_a_directory_that_fills_the_memory_is_not_read(tmp_path):
    """Its length may stand in either of two records; names of 60,000 letters make it long with few files."""
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        for i in range(20):
            archive.writestr(f"{i:02}" * 30_000, b"")
    with pytest.raises(PixmedError, match=r"a\.npz: lists over 1048576 bytes of files; cut it into smaller"):
        volumes.open_array(tmp_path / "a.npz", "mask")


def test_which_array_of_several(tmp_path):
    np.savez(tmp_path / "a.npz", T1=PLACES, T2=PLACES)
    with pytest.raises(
        PixmedError, match=r"a\.npz: holds 2 arrays \(T1, T2\); name the one that counts mask"
    ):
        volumes.open_array(tmp_path / "a.npz", "mask")
