"""DICOM files and series as pydicom writes them; the standard and nibabel are the oracles."""

import numpy as np
import pytest
from volume_files import PLACES, decoded, dicom, nibabel, pydicom, series

from pixmed_jax.data import dicom as dicom_files
from pixmed_jax.data import volumes
from pixmed_jax.errors import PixmedError


def test_dicom_values(tmp_path):
    stored = np.array([[0, 1000], [2000, 4095]], np.uint16)
    path = dicom(
        tmp_path / "a.dcm", stored, BitsStored=12, HighBit=11, RescaleSlope=2, RescaleIntercept=-1024
    )
    array = volumes.open_array(path)
    assert (array.slope, array.intercept) == (2, -1024)
    assert array.full == (-1024, 2 * 4095 - 1024)
    np.testing.assert_array_equal(decoded(path)[0], stored)


def test_dicom_window_by_the_standard(tmp_path):
    """PS3.3 C.11.2.1.2.1, its own example: centre 2048, width 4096 maps 0 to 4095 onto the whole range."""
    path = dicom(tmp_path / "a.dcm", np.zeros((2, 2), np.uint16), WindowCenter=2048, WindowWidth=4096)
    assert volumes.open_array(path).window == (0, 4095)
    path = dicom(tmp_path / "b.dcm", np.zeros((2, 2), np.uint16), WindowCenter=[40, 5], WindowWidth=[400, 9])
    assert volumes.open_array(path).window == (-160, 239)
    exact = {"WindowCenter": 40, "WindowWidth": 400, "VOILUTFunction": "LINEAR_EXACT"}
    assert volumes.open_array(dicom(tmp_path / "c.dcm", np.zeros((2, 2), "u2"), **exact)).window == (
        -160,
        240,
    )
    assert volumes.open_array(dicom(tmp_path / "d.dcm", np.zeros((2, 2), "u2"))).window is None


def test_dicom_frames_colours_and_bits_above(tmp_path):
    frames = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    np.testing.assert_array_equal(decoded(dicom(tmp_path / "a.dcm", frames)), frames)
    overlay = np.array([[0x1003, 0x0FFF]], np.uint16)
    path = dicom(tmp_path / "b.dcm", overlay, BitsStored=12, HighBit=11)
    assert decoded(path).tolist() == [[[3, 4095]]]
    colour = np.arange(18, dtype=np.uint8).reshape(2, 3, 3)
    path = dicom(tmp_path / "c.dcm", np.zeros((2, 3), np.uint8))
    data = pydicom.dcmread(path)
    data.SamplesPerPixel, data.PhotometricInterpretation, data.PlanarConfiguration = 3, "RGB", 0
    data.PixelData = colour.tobytes()
    data.save_as(path)
    np.testing.assert_array_equal(decoded(path)[0], colour)


def test_dicom_packed_by_run_length(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 4096, (16, 16)).astype(np.uint16)
    path = dicom(tmp_path / "a.dcm", pixels)
    data = pydicom.dcmread(path)
    data.compress(pydicom.uid.RLELossless)
    data.save_as(path)
    np.testing.assert_array_equal(decoded(path)[0], pixels)


@pytest.mark.parametrize("codes", ["LPS", "RAS", "ASL", "LIP"])
def test_a_series_and_a_nifti_file_of_the_same_head_agree(tmp_path, codes):
    """The independent path: nibabel turns the volume and knows its affine, DICOM gets it through LPS."""
    straight = nibabel.Nifti1Image(PLACES, np.diag([2.0, 3, 5, 1]))
    turn = nibabel.orientations.ornt_transform(
        nibabel.orientations.axcodes2ornt("RAS"), nibabel.orientations.axcodes2ornt(codes)
    )
    turned = straight.as_reoriented(turn)
    values = np.asarray(turned.dataobj)[..., :4]
    series(tmp_path / "s", values.astype(np.int16), turned.affine)
    nibabel.save(nibabel.Nifti1Image(values, turned.affine), tmp_path / "a.nii")
    array = dicom_files.open_series(tmp_path / "s", sorted((tmp_path / "s").iterdir()))
    for axis in ("stored", "axial", "sagittal", "coronal"):
        pictures = volumes.stack(array, array.read(), axis)
        np.testing.assert_array_equal(pictures, decoded(tmp_path / "a.nii", axis))


def test_pixels_are_as_large_as_the_file_says_however_it_is_kept(tmp_path):
    """PS3.3 10.7.1.3, first from row to row: one slice, frames, and a series that lies nowhere."""
    pixels = np.arange(24, dtype=np.uint8).reshape(4, 6)
    one = dicom(tmp_path / "a.dcm", pixels, PixelSpacing=[1.0, 0.5])
    frames = dicom(tmp_path / "b.dcm", np.stack([pixels, pixels]))
    data = pydicom.dcmread(frames)
    measures, shared = pydicom.Dataset(), pydicom.Dataset()
    measures.PixelSpacing = [1.0, 0.5]
    shared.PixelMeasuresSequence = [measures]
    data.SharedFunctionalGroupsSequence = [shared]
    data.save_as(frames)
    places = [
        dicom(tmp_path / "s" / f"{i}.dcm", pixels, PixelSpacing=[1.0, 0.5], InstanceNumber=i) for i in (1, 2)
    ]
    for array in (*map(volumes.open_array, (one, frames)), dicom_files.open_series(tmp_path / "s", places)):
        assert array.sized and not array.placed and volumes.pixel(array, "stored") == (1.0, 0.5)
        np.testing.assert_array_equal(volumes.stack(array, array.read(), "stored")[0], pixels)
    unknown = volumes.open_array(dicom(tmp_path / "c.dcm", pixels))
    assert not unknown.sized and volumes.pixel(unknown, "stored") == (1.0, 1.0)


def test_slices_of_a_series_that_are_scaled_differently(tmp_path):
    for i, slope in enumerate((1.0, 4.0)):
        dicom(
            tmp_path / f"{i}.dcm", np.full((2, 2), 10, np.uint16), RescaleSlope=slope, RescaleIntercept=-1,
            InstanceNumber=i,
        )  # fmt: skip
    array = dicom_files.open_series(tmp_path, sorted(tmp_path.iterdir()))
    assert array.read()[0, 0].tolist() == [9, 39]
    assert (array.slope, array.intercept) == (1, 0)


def placed(root, *slices) -> None:
    """Slices of one series: (z, image orientation)."""
    for i, (z, turn) in enumerate(slices):
        dicom(
            root / f"{i}.dcm",
            np.full((4, 4), i, np.int16),
            ImagePositionPatient=[0, 0, float(z)],
            ImageOrientationPatient=turn,
            PixelSpacing=[1, 1],
        )


AXIAL, CORONAL = [1, 0, 0, 0, 1, 0], [1, 0, 0, 0, 0, -1]


@pytest.mark.parametrize(
    ("slices", "told"),
    [
        ([(0, AXIAL), (1, AXIAL), (2, CORONAL)], "cut in several directions"),
        ([(0, AXIAL), (1, AXIAL), (0, AXIAL), (1, AXIAL)], "several slices lie at one place"),
    ],
)
def test_what_is_no_volume_is_refused(tmp_path, slices, told):
    placed(tmp_path, *slices)
    with pytest.raises(PixmedError, match=told):
        dicom_files.open_series(tmp_path, sorted(tmp_path.iterdir()))


def test_a_hair_of_tilt_is_a_volume_still(tmp_path):
    placed(tmp_path, (0, AXIAL), (1, [1, 0, 1e-6, 0, 1, 0]), (2.5, AXIAL))
    assert dicom_files.open_series(tmp_path, sorted(tmp_path.iterdir())).shape == (4, 4, 3)


@pytest.mark.parametrize(
    "odd",
    [
        {"pixels": np.zeros((4, 5), np.uint16)},
        {"pixels": np.zeros((4, 4), np.int16)},
        {"pixels": np.zeros((4, 4), np.uint8)},
        {"pixels": np.zeros((2, 4, 4), np.uint16)},
        {"PhotometricInterpretation": "MONOCHROME1"},
    ],
    ids=["size", "sign", "depth", "frames", "inverted"],
)
def test_a_slice_unlike_the_others_is_named(tmp_path, odd):
    """Inverted among others, or of another sign, its values would mean something else."""
    for i, changes in enumerate(({}, odd, {})):
        elements = {"pixels": np.zeros((4, 4), np.uint16), "InstanceNumber": i, **changes}
        dicom(tmp_path / f"{i}.dcm", **elements)
    with pytest.raises(PixmedError, match=r"1\.dcm: differs from the rest of its series in size or kind"):
        dicom_files.open_series(tmp_path, sorted(tmp_path.iterdir()))


def test_two_series_in_a_folder_are_no_volume(tmp_path):
    for i in range(2):
        dicom(tmp_path / f"{i}.dcm", np.zeros((4, 4), np.uint16), SeriesInstanceUID=f"1.2.{i}")
    with pytest.raises(PixmedError, match="2 DICOM series in one folder"):
        dicom_files.open_series(tmp_path, sorted(tmp_path.iterdir()))
    for i in range(2):  # and files of several frames, which are volumes already, are no slices of one
        dicom(tmp_path / f"{i}.dcm", np.zeros((2, 4, 4), np.uint16))
    with pytest.raises(PixmedError, match=r"0\.dcm: differs from the rest of its series"):
        dicom_files.open_series(tmp_path, sorted(tmp_path.iterdir()))


@pytest.mark.parametrize("known", [{}, {"ImagePositionPatient": [0, 0, 1]}])
def test_slices_whose_place_is_unknown_follow_their_numbers(tmp_path, known):
    """Not their names, and 10 follows 9; how they lie in the patient is then unknown too."""
    for name, number in (("a", 10), ("b", 2), ("c", 9)):
        dicom(tmp_path / f"{name}.dcm", np.full((2, 2), number, np.uint16), InstanceNumber=number, **known)
    array = dicom_files.open_series(tmp_path, sorted(tmp_path.iterdir()))
    assert array.read()[0, 0].tolist() == [2, 9, 10]
    assert not array.placed


def test_the_full_range_of_signed_and_of_falling_values(tmp_path):
    """Twelve bits with a sign are -2048 to 2047; a negative slope turns the ends around."""
    pixels = np.zeros((2, 2), np.int16)
    signed = dicom(tmp_path / "a.dcm", pixels, BitsStored=12, HighBit=11)
    assert volumes.open_array(signed).full == (-2048, 2047)
    falling = dicom(
        tmp_path / "b.dcm", pixels, BitsStored=12, HighBit=11, RescaleSlope=-2, RescaleIntercept=1
    )
    assert volumes.open_array(falling).full == (-2 * 2047 + 1, 2 * 2048 + 1)
