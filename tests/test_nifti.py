"""NIfTI files as nibabel writes them."""

import numpy as np
import pytest
from volume_files import PLACES, nibabel

from pixmed_jax.data import volumes


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
