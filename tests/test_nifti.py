"""NIfTI files as nibabel writes them."""

import numpy as np
import pytest
from volume_files import PLACES, nibabel

from pixmed_jax.data import volumes
from pixmed_jax.data.arrays import AS_STORED
from pixmed_jax.errors import PixmedError


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("dtype", ["int16", "uint8", "float32", "float64", ">i2"])
def test_nifti_is_read_in_its_own_type(tmp_path, suffix, dtype):
    values = (PLACES % 256).astype(dtype)
    header = nibabel.Nifti1Header(endianness=">" if dtype[0] == ">" else "<")
    header.set_data_dtype(dtype)
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4), header), tmp_path / f"a{suffix}")
    array = volumes.open_array(tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(array.read(), values)
    assert array.dtype == values.dtype


def test_nifti_2_and_extensions_between_header_and_voxels(tmp_path):
    image = nibabel.Nifti2Image(PLACES, np.eye(4))
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"x" * 5000))
    nibabel.save(image, tmp_path / "a.nii")
    np.testing.assert_array_equal(volumes.open_array(tmp_path / "a.nii").read(), PLACES)


def test_a_file_says_by_what_its_numbers_are_scaled_and_shifted(tmp_path):
    """As CT is stored: 0 is -1024; the full range of the type is told in the same units."""
    image = nibabel.Nifti1Image(PLACES.astype(np.uint16), np.eye(4))
    image.header.set_slope_inter(2, -1024)
    nibabel.save(image, tmp_path / "a.nii")
    array = volumes.open_array(tmp_path / "a.nii")
    assert (array.slope, array.intercept, array.full) == (2, -1024, (-1024, 2 * 65535 - 1024))
    np.testing.assert_array_equal(array.read(), PLACES)
    np.testing.assert_array_equal(nibabel.load(tmp_path / "a.nii").get_fdata(), 2 * PLACES - 1024.0)


def test_an_affine_that_flattens_the_head_says_nothing(tmp_path):
    image = nibabel.Nifti1Image(PLACES, None)
    image.header.set_sform(np.diag([2.0, 0, 3, 1]), 1)
    nibabel.save(image, tmp_path / "a.nii")
    np.testing.assert_array_equal(volumes.open_array(tmp_path / "a.nii").affine, AS_STORED)


@pytest.mark.parametrize("offset", [0, 347, 2**21])
def test_voxels_that_begin_in_the_header_or_far_behind_it_are_refused(tmp_path, offset):
    nibabel.save(nibabel.Nifti1Image(PLACES, np.eye(4)), tmp_path / "a.nii")
    stored = bytearray((tmp_path / "a.nii").read_bytes())
    stored[108:112] = np.float32(offset).tobytes()
    (tmp_path / "a.nii").write_bytes(bytes(stored))
    with pytest.raises(PixmedError, match=f"a.nii: voxels at byte {offset}, not 348 to 1048576"):
        volumes.open_array(tmp_path / "a.nii")
