"""MATLAB files of both kinds, as SciPy and MATLAB write them."""

import struct

import numpy as np
import pytest
import scipy.io
from volume_files import PLACES, h5py, mat73

from pixmed_jax.data import volumes
from pixmed_jax.errors import PixmedError


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "float32", "float64", "bool"])
def test_matlab_5(tmp_path, compressed, dtype):
    values = (PLACES % 2).astype(bool) if dtype == "bool" else (PLACES % 256).astype(dtype)
    extra = {"cells": np.array([[1, "a"]], object), "s": {"image": 1}, "scalar": 3.0, "text": "hello"}
    scipy.io.savemat(tmp_path / "a.mat", {**extra, "scan": values}, do_compression=compressed)
    array = volumes.open_array(tmp_path / "a.mat")
    np.testing.assert_array_equal(array.read(), values)
    assert array.dtype.itemsize == values.dtype.itemsize


@pytest.mark.parametrize("shape", [(7, 5), (40, 300), (6, 5, 4)])
def test_matlab_73(tmp_path, shape):
    values = np.random.default_rng(0).integers(-3000, 3000, shape).astype(np.int16)
    path = mat73(tmp_path / "a.mat", image=values)
    np.testing.assert_array_equal(volumes.open_array(path).read(), values)


def test_matlab_73_without_chunks_and_with_large_ones(tmp_path):
    values = np.arange(35, dtype=np.float64).reshape(7, 5)
    for i, options in enumerate(({}, {"chunks": (4, 4)}, {"chunks": (3, 7), "compression": 9})):
        with h5py.File(tmp_path / f"{i}.mat", "w", userblock_size=512) as file:
            file.create_dataset("image", data=values.T, **options)
        with (tmp_path / f"{i}.mat").open("r+b") as file:
            file.write(b"MATLAB 7.3 MAT-file")
        np.testing.assert_array_equal(volumes.open_array(tmp_path / f"{i}.mat").read(), values)


def test_a_file_of_zeros_is_refused_at_its_first_element(tmp_path):
    """Eight zeros would be an empty element: minutes of reading, of a file that takes no room."""
    path = tmp_path / "zeros.mat"
    scipy.io.savemat(path, {"x": np.ones((2, 2), np.uint8)})
    with path.open("r+b") as file:
        file.truncate(128)
        file.truncate(10**8)
    with pytest.raises(PixmedError, match=r"zeros\.mat: holds an element of kind 0 where variables are"):
        volumes.open_array(path)


def test_of_several_arrays_the_one_with_the_wanted_name_counts(tmp_path):
    """By its whole name; and four bytes lie in the element's own head, as MATLAB packs what is small."""
    path, small = tmp_path / "a.mat", np.array([[1, 2], [3, 4]], np.uint8)
    for compressed in (False, True):
        scipy.io.savemat(path, {"imag": PLACES, "image": small, "mask": 2 * small}, do_compression=compressed)
        np.testing.assert_array_equal(volumes.open_array(path).read(), small)
        np.testing.assert_array_equal(volumes.open_array(path, "mask").read(), 2 * small)
        with pytest.raises(PixmedError, match=r"holds 3 arrays \(imag, image, mask\); name the one"):
            volumes.open_array(path, "labels")


def test_an_empty_element_is_passed_over_and_a_wrong_size_is_refused(tmp_path):
    path, small = tmp_path / "a.mat", np.array([[1, 2], [3, 4]], np.uint8)
    scipy.io.savemat(path, {"image": small}, do_compression=False)
    whole = path.read_bytes()
    path.write_bytes(whole[:128] + struct.pack("<2I", 14, 0) + whole[128:])
    np.testing.assert_array_equal(volumes.open_array(path).read(), small)
    assert whole.count(struct.pack("<4I", 5, 8, 2, 2)) == 1
    path.write_bytes(whole.replace(struct.pack("<4I", 5, 8, 2, 2), struct.pack("<4I", 5, 8, 2, 3)))
    with pytest.raises(PixmedError, match="'image' is no 2 x 3 values; save it again"):
        volumes.open_array(path)
