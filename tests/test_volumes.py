"""Volumes: cut into pictures, paired in a folder, and what their masks mean."""

from pathlib import Path

import numpy as np
import pytest
from volume_files import PLACES, decoded, dicom, nibabel, nifti, series

from pixmed_jax.data import folder, intensity, volumes
from pixmed_jax.data.arrays import plain
from pixmed_jax.data.nifti import nifti_bytes
from pixmed_jax.data.slices import load
from pixmed_jax.errors import PixmedError

# ---------------------------------------------------------------- what is read


def test_pictures_are_the_radiologists(tmp_path):
    """In RAS axes x grows to the patient's right (our left), y to the front (up), z to the head (up)."""
    path = nifti(tmp_path / "a.nii", PLACES)
    axial = decoded(path, "axial")
    assert axial.shape == (3, 5, 4)
    assert axial[2, 0, 0] == 342  # slice z = 2: top left is front (y = 4) and right (x = 3)
    assert axial[0, 4, 3] == 0
    coronal = decoded(path, "coronal")
    assert coronal.shape == (5, 3, 4)
    assert coronal[1, 0, 0] == 312  # y = 1: top left is the head's end (z = 2) and right (x = 3)
    sagittal = decoded(path, "sagittal")
    assert sagittal.shape == (4, 3, 5)
    assert sagittal[3, 0, 0] == 342  # x = 3: top left is z = 2 and front (y = 4)


@pytest.mark.parametrize("codes", ["LAS", "LPS", "RSA", "PIR", "ASL"])
def test_a_volume_stored_in_other_axes_gives_the_same_pictures(tmp_path, codes):
    straight = nibabel.Nifti1Image(PLACES, np.eye(4))
    turn = nibabel.orientations.ornt_transform(
        nibabel.orientations.axcodes2ornt("RAS"), nibabel.orientations.axcodes2ornt(codes)
    )
    nibabel.save(straight.as_reoriented(turn), tmp_path / "turned.nii.gz")
    nibabel.save(straight, tmp_path / "straight.nii.gz")
    for plane in volumes.PLANES:
        np.testing.assert_array_equal(
            decoded(tmp_path / "turned.nii.gz", plane), decoded(tmp_path / "straight.nii.gz", plane)
        )
    depth = decoded(tmp_path / "turned.nii.gz").shape[0]  # "stored" is the file's own last axis
    assert depth == {"R": 4, "L": 4, "A": 5, "P": 5, "S": 3, "I": 3}[codes[2]]


def test_arrays_without_orientation_are_cut_as_they_are(tmp_path):
    np.save(tmp_path / "a.npy", PLACES)
    np.testing.assert_array_equal(decoded(tmp_path / "a.npy"), np.moveaxis(PLACES, 2, 0))
    np.testing.assert_array_equal(decoded(tmp_path / "a.npy", "0"), PLACES)
    with pytest.raises(PixmedError, match=r"a\.npy: says nothing of planes; set data\.axis"):
        decoded(tmp_path / "a.npy", "axial")
    with pytest.raises(PixmedError, match=r"data\.axis='z': give stored"):
        decoded(tmp_path / "a.npy", "z")


# ---------------------------------------------------------------- as a folder
def blob(shape: tuple[int, ...], *slices: int) -> np.ndarray:
    """A mask with a tumour in some of its last axis' slices."""
    mask = np.zeros(shape, np.uint8)
    for k in slices:
        mask[1:3, 1:3, k] = 1
    return mask


@pytest.fixture
def root(tmp_path):
    """Two volumes of 6 x 5 x 4, with a tumour in two slices and in one."""
    values = np.random.default_rng(0).integers(-100, 1500, (2, 6, 5, 4)).astype(np.int16)
    for name, pixels, slices in (("a", values[0], (1, 2)), ("b", values[1], (3,))):
        nifti(tmp_path / "images" / f"{name}.nii.gz", pixels, np.diag([-1.0, -1, 1, 1]))
        nifti(tmp_path / "masks" / f"{name}.nii.gz", blob((6, 5, 4), *slices), np.diag([-1.0, -1, 1, 1]))
    return tmp_path


def test_volumes_become_slices_of_one_patient_each(root, capsys):
    source = folder.source(root)
    assert source.files == ("a.nii.gz#001", "a.nii.gz#002", "b.nii.gz#003")
    assert source.groups == ("a.nii.gz", "a.nii.gz", "b.nii.gz")
    told = capsys.readouterr().err
    assert "5 of 8 slices show no tumour and are left out (data.allow_empty_masks=true keeps them)" in told
    assert "0 = background, 1 = tumor" in told
    image, mask = source.read(0)
    assert image.shape == mask.shape == (5, 6)
    np.testing.assert_array_equal(mask.T, blob((6, 5, 4), 1)[..., 1])
    assert len(folder.source(root, allow_empty_masks=True).files) == 8
    assert capsys.readouterr().err.count("background") == 0  # once for a dataset


def test_a_table_speaks_of_volumes(root):
    (root / "meta.csv").write_text(
        "file,label,patient_group,set\na.nii.gz,glioma,p1,train\nb.nii.gz,meningioma,p2,test\n"
    )
    source = folder.source(root, split_column="set")
    assert source.groups == ("p1", "p1", "p2") and source.given == ("train", "train", "test")
    assert [source.label_names[i] for i in source.labels] == ["glioma", "glioma", "meningioma"]
    assert source.read(2)[1].max() == 2


def test_fixed_limits_invert_to_the_grey_level(root):
    values = np.asarray(nibabel.load(root / "images" / "a.nii.gz").dataobj)
    source = folder.source(root, rule="-100,1500")
    stored = source.read(0)[0]
    assert stored.dtype == np.uint16 and source.limits(0) == (-100, 1500)
    back = intensity.decode(stored / 65535, source.limits(0))
    np.testing.assert_array_equal(np.rint(back), values[:, :, 1].T)
    slices = load(source, [0, 2], 6)
    assert slices.limits.tolist() == [[-100, 1500]] * 2 and slices.images.dtype == np.uint16


def test_percentiles_are_those_of_the_volume(root):
    source = folder.source(root)
    for row, name in ((0, "a"), (1, "a"), (2, "b")):
        values = np.asarray(nibabel.load(root / "images" / f"{name}.nii.gz").dataobj)
        assert source.limits(row) == pytest.approx(np.percentile(values, (0.5, 99.5)))


def test_a_window_and_inverted_greys(tmp_path):
    stored = np.arange(36, dtype=np.uint16).reshape(6, 6) * 10
    window = {"WindowCenter": 100, "WindowWidth": 101, "RescaleSlope": 1, "RescaleIntercept": -50}
    dicom(tmp_path / "images" / "a.dcm", stored, **window)
    dicom(tmp_path / "images" / "b.dcm", stored, **window, PhotometricInterpretation="MONOCHROME1")
    for name in "ab":
        np.save(tmp_path / "images" / "x.npy", stored)
        (tmp_path / "masks").mkdir(exist_ok=True)
        np.save(tmp_path / "masks" / f"{name}.npy", np.pad(np.ones((2, 2), np.uint8), 2))
    (tmp_path / "images" / "x.npy").unlink()
    source = folder.source(tmp_path, rule="window")
    unit = ((stored - 50.0) - 49.5) / 100  # C.11.2.1.2.1: from 100 - 0.5 - 50 over a width of 100
    np.testing.assert_array_equal(source.read(0)[0], np.rint(unit.clip(0, 1) * 65535))
    np.testing.assert_array_equal(source.read(1)[0], np.rint((1 - unit).clip(0, 1) * 65535))
    assert source.limits(0) == (49.5, 149.5) and source.limits(1) == (149.5, 49.5)
    # What is made of either is in one polarity, the one that is shown.
    assert load(source, [0, 1], 6).limits.tolist() == [[49.5, 149.5]] * 2
    written = [nifti_bytes(source.read(row)[0], source.limits(row)) for row in (0, 1)]
    for data, shown in zip(written, (unit, 1 - unit), strict=True):
        (tmp_path / "a.nii.gz").write_bytes(data)
        back = np.asarray(nibabel.load(tmp_path / "a.nii.gz").dataobj)[..., 0].T
        np.testing.assert_allclose(back, 49.5 + 100 * shown.clip(0, 1), atol=0.01)


def test_full_range_is_that_of_the_bits(tmp_path):
    stored = np.array([[0, 4095], [2048, 100]], np.uint16)
    stored = np.pad(stored, 1)
    dicom(tmp_path / "images" / "a.dcm", stored, BitsStored=12, HighBit=11)
    (tmp_path / "masks").mkdir()
    np.save(tmp_path / "masks" / "a.npy", np.pad(np.ones((2, 2)), 1))
    source = folder.source(tmp_path, rule="full")
    np.testing.assert_array_equal(source.read(0)[0], np.rint(stored / 4095 * 65535))
    nifti(tmp_path / "images" / "a.nii", stored[..., None].astype(np.float32))
    (tmp_path / "images" / "a.dcm").unlink()
    with pytest.raises(PixmedError, match=r"a\.nii: float32 values have no full range; set data\.intensity"):
        folder.source(tmp_path, rule="full").read(0)


@pytest.mark.parametrize("rule", ["wide", "1", "5,1", "nan,3", "1,2,3", ""])
def test_a_rule_that_is_none(root, rule):
    with pytest.raises(PixmedError, match=r"data\.intensity=.*give one of auto, full, percentiles, window"):
        folder.source(root, rule=rule)


def test_a_mask_stored_in_other_axes_still_fits(root):
    straight = nibabel.load(root / "masks" / "a.nii.gz")
    expected = [mask.copy() for _, mask in map(folder.source(root).read, range(2))]
    turn = nibabel.orientations.ornt_transform(
        nibabel.orientations.axcodes2ornt("LPS"), nibabel.orientations.axcodes2ornt("RAS")
    )
    nibabel.save(straight.as_reoriented(turn), root / "masks" / "a.nii.gz")
    source = folder.source(root)
    for row in range(2):
        np.testing.assert_array_equal(source.read(row)[1], expected[row])


def test_a_series_with_a_mask_volume_and_hashed_patients(tmp_path):
    values = np.random.default_rng(0).integers(0, 1000, (6, 5, 4)).astype(np.int16)
    affine = np.diag([2.0, 2, 5, 1])
    series(tmp_path / "images" / "one", values, affine)
    nifti(tmp_path / "masks" / "one.nii.gz", blob((6, 5, 4), 2), affine)
    source = folder.source(tmp_path, rule="0,1000")
    assert source.files == ("one#002",)
    assert source.groups[0].startswith("patient-") and "1234567" not in source.groups[0]
    nifti(tmp_path / "images" / "two.nii.gz", values, affine)
    nifti(tmp_path / "masks" / "two.nii.gz", blob((6, 5, 4), 2), affine)
    both = folder.source(tmp_path, rule="0,1000")
    np.testing.assert_array_equal(both.read(0)[0], both.read(1)[0])
    np.testing.assert_array_equal(both.read(0)[1], both.read(1)[1])
    (tmp_path / "masks" / "one.nii.gz").unlink()
    np.save(tmp_path / "masks" / "one.npy", blob((5, 6, 4), 2))
    with pytest.raises(PixmedError, match=r"one\.npy: does not say how it lies in the DICOM volume"):
        folder.source(tmp_path)


def test_ids_of_patients_differ_and_need_the_files(tmp_path):
    def groups(study: str) -> tuple[str, ...]:
        root = tmp_path / study
        for i, patient in enumerate(("7", "8", "7")):
            dicom(
                root / "images" / f"{i}.dcm", np.arange(36, dtype="u2").reshape(6, 6), PatientID=patient,
                StudyInstanceUID=study,
            )  # fmt: skip
            (root / "masks").mkdir(exist_ok=True)
            np.save(root / "masks" / f"{i}.npy", np.pad(np.ones((2, 2), np.uint8), 2))
        return folder.source(root).groups

    first, again, other = groups("1.2"), groups("1.2"), groups("1.3")
    assert first == again and first[0] == first[2] != first[1]
    assert not set(first) & set(other)  # no table of all ids helps: the study's number is hashed too


# ---------------------------------------------------------------- what masks mean
def flat(root: Path, masks: dict[str, np.ndarray], meta: str = "") -> folder.Source:
    """8 x 8 pictures a, b, ... with masks by file name."""
    (root / "images").mkdir(parents=True)
    (root / "masks").mkdir()
    for name, mask in masks.items():
        np.save(root / "masks" / f"{name}.npy", mask)
        np.save(root / "images" / f"{name[0]}.npy", np.arange(64, dtype=np.uint8).reshape(8, 8))
    if meta:
        (root / "meta.csv").write_text("file,label,patient_group\n" + meta)
    return folder.source(root)


def field(*values: int) -> np.ndarray:
    mask = np.zeros((8, 8), np.int64)
    for i, value in enumerate(values):
        mask[i, : i + 1] = value  # one pixel of the first, two of the second ...
    return mask


def test_classes_without_a_table(tmp_path, capsys):
    source = flat(tmp_path, {"a": field(1, 2, 4), "b": field(4, 1)})
    assert source.label_names == ("class 1", "class 2", "class 4")
    np.testing.assert_array_equal(source.read(0)[1], field(1, 2, 3))
    np.testing.assert_array_equal(source.read(1)[1], field(3, 1))
    assert source.labels.tolist() == [2, 0] and source.counted  # the class with most pixels
    assert "0 = background, 1 = class 1, 2 = class 2, 4 = class 4" in capsys.readouterr().err


def test_interpolated_masks_are_refused_with_their_values(tmp_path):
    source = flat(tmp_path, {"a": field(255), "b": field(3, 17, 255)})
    source.read(0)
    with pytest.raises(
        PixmedError, match=r"b\.npy: values 0, 3, 17, 255; a mask holds 0 and 1, or 0 and 255"
    ):
        source.read(1)
    source = flat(tmp_path / "half", {"a": field(1) / 2})
    with pytest.raises(PixmedError, match=r"a\.npy: holds 0\.5, and a mask holds whole numbers"):
        source.read(0)


def test_one_is_a_class_where_masks_hold_classes(tmp_path):
    table = "a.npy,glioma,p\nb.npy,meningioma,q\nc.npy,glioma,r\nd.npy,meningioma,s\n"
    source = flat(tmp_path, {"a": field(1, 2), "b": field(1), "c": field(1), "d": field(255)}, table)
    np.testing.assert_array_equal(source.read(2)[1], field(1))
    np.testing.assert_array_equal(source.read(3)[1], field(2))
    with pytest.raises(PixmedError, match=r"b\.npy: 1 is glioma in this folder, .* says meningioma"):
        source.read(1)


def test_values_that_are_not_the_labels_of_their_rows_are_refused(tmp_path):
    """Four grades and masks of 1, 2 and 4, as in BraTS; a few wrong labels are no such sign."""
    grades = ("grade 1", "grade 2", "grade 3", "grade 4")
    names = "abcdefghijklmnop"
    table = "".join(f"{name}.npy,{grades[i % 4]},{name}\n" for i, name in enumerate(names))
    own = {name: field(i % 4 + 1) for i, name in enumerate(names)}
    slips = dict.fromkeys(names[2:11:4], field(4))  # three of four of the third grade
    assert flat(tmp_path / "own", {**own, **slips}, table).label_names == grades
    told = (
        r"masks: 4 of 16 masks do not hold the value of their label \(c\.npy: 1, 2, 4 where 'grade 3' is 3\)"
        r"; set data\.label_column='' .*or save each mask with the value of its label"
    )
    brats = tmp_path / "brats"
    with pytest.raises(PixmedError, match=told) as error:
        flat(brats, dict.fromkeys(names, field(1, 2, 4)), table)
    assert "\n" not in str(error.value)
    with pytest.raises(PixmedError, match=told):
        folder.source(brats, keep_faulty=True)
    assert folder.source(brats, label_column="").label_names == ("class 1", "class 2", "class 4")


def test_classes_that_files_name_need_no_value_of_the_label(tmp_path):
    """A slice of a patient labelled core may show nothing but edema."""
    for i in range(8):
        for part, pixels in (
            ("images/x{}", field(7)),
            ("masks/x{}_core", field(0)),
            ("masks/x{}_edema", field(1)),
        ):
            path = tmp_path / (part.format(i) + ".npy")
            path.parent.mkdir(exist_ok=True)
            np.save(path, pixels)
    rows = "".join(f"x{i}.npy,{('core', 'edema')[i % 2]},p{i}\n" for i in range(8))
    (tmp_path / "meta.csv").write_text("file,label,patient_group\n" + rows)
    source = folder.source(tmp_path)
    assert source.label_names == ("core", "edema") and set(np.unique(source.read(0)[1])) == {0, 2}


@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize("value", [1, 255, 1.0])
def test_one_hot_channels(tmp_path, background, value):
    labels = field(2, 1, 2)
    hot = np.stack([labels == v for v in ((0, 1, 2) if background else (1, 2))], -1) * value
    source = flat(tmp_path, {"a": hot.astype(np.float32 if value == 1.0 else np.uint8)})
    np.testing.assert_array_equal(source.read(0)[1], labels)
    assert source.label_names == ("class 1", "class 2")


def test_one_hot_nifti_of_four_axes(tmp_path):
    labels = np.zeros((6, 5, 4), np.uint8)
    labels[1, 1:3, 2], labels[2, 2, 2] = 1, 2
    affine = np.diag([-1.0, -1, 1, 1])
    nifti(tmp_path / "images" / "a.nii.gz", PLACES.repeat(2, 0)[:6, :, [0, 1, 2, 2]], affine)
    nifti(tmp_path / "masks" / "a.nii.gz", np.stack([labels == 1, labels == 2], -1).astype(np.uint8), affine)
    source = folder.source(tmp_path)
    assert source.files == ("a.nii.gz#002",)
    np.testing.assert_array_equal(source.read(0)[1], labels[..., 2].T)


def test_one_hot_files(tmp_path):
    masks = {"a_edema": field(0, 255), "a_core": field(255), "b_core": field(0, 0, 255), "b_edema": field(0)}
    source = flat(tmp_path, masks)
    assert source.label_names == ("core", "edema")
    np.testing.assert_array_equal(source.read(0)[1], field(1, 2))
    np.testing.assert_array_equal(source.read(1)[1], field(0, 0, 1))
    (tmp_path / "masks" / "b_edema.npy").unlink()
    with pytest.raises(PixmedError, match=r"1 images without the mask of a class \(b\.npy lacks edema\)"):
        folder.source(tmp_path)


def test_one_hot_classes_do_not_overlap(tmp_path):
    hot = np.stack([field(0, 1), field(1, 1)], -1)
    with pytest.raises(PixmedError, match=r"a\.npy: 2 pixels lie in several channels \(1 and 2\)"):
        flat(tmp_path, {"a": hot}).read(0)


def test_volumes_and_pictures_do_not_mix_up_their_shapes(root):
    nifti(root / "masks" / "a.nii.gz", blob((6, 5, 3), 1), np.diag([-1.0, -1, 1, 1]))
    with pytest.raises(PixmedError, match=r"a\.nii\.gz 4 slices of 5x6 against 3 slices of 5x6"):
        folder.source(root)


# ---------------------------------------------------------------- where image and mask lie
MASK = (PLACES == 342).astype(np.uint8) + (PLACES == 331)


def both(root: Path, image_affine: np.ndarray, mask_affine: np.ndarray) -> Path:
    nifti(root / "images" / "a.nii", PLACES, image_affine)
    nifti(root / "masks" / "a.nii", MASK.astype(np.uint8), mask_affine)
    return root


LAS, RAS = np.diag([-1.0, 1, 1, 1]), np.eye(4)


@pytest.mark.parametrize("moved", [LAS, np.diag([1.0, 1, 2, 1]), RAS + np.eye(4, k=3) * 3])
def test_a_mask_that_lies_elsewhere_than_its_image_is_refused(tmp_path, moved):
    """A mask drawn on the voxels of a LAS image and saved with no affine would be turned about alone."""
    with pytest.raises(
        PixmedError, match=r"a\.nii: lies up to \S+ voxels from its image.*with the affine of"
    ):
        folder.source(both(tmp_path, RAS, moved))


def test_half_a_voxel_and_other_axes_are_no_other_place(tmp_path):
    near = RAS.copy()
    near[:3, 3] = 0.5
    source = folder.source(both(tmp_path / "near", RAS, near), rule="0,400")
    turned = nibabel.Nifti1Image(MASK.astype(np.uint8), RAS).as_reoriented(
        np.array([[0, -1], [1, 1], [2, 1]])
    )
    nibabel.save(turned, both(tmp_path / "turned", RAS, RAS) / "masks" / "a.nii")
    for read in (source.read, folder.source(tmp_path / "turned", rule="0,400").read):
        for row, value in ((0, 331), (1, 342)):  # slices 1 and 2 have tumours
            image, mask = read(row)
            assert image[mask > 0].tolist() == [round(65535 * value / 400)]


def test_pictures_have_square_pixels(tmp_path):
    """A ball in voxels of 1 x 1 x 5 mm is round in every plane."""
    x, y, z = np.mgrid[:64, :64, :12]
    ball = (x - 32) ** 2 + (y - 32) ** 2 + 25 * (z - 6) ** 2 < 20**2
    affine = np.diag([1.0, 1, 5, 1])
    nifti(tmp_path / "images" / "a.nii", (1000 * ball).astype(np.int16), affine)
    nifti(tmp_path / "masks" / "a.nii", ball.astype(np.uint8), affine)
    for axis, shape in (("axial", (64, 64)), ("coronal", (60, 64)), ("sagittal", (60, 64))):
        source = folder.source(tmp_path, axis=axis)
        image, mask = source.read(len(source.files) // 2)
        assert image.shape == mask.shape == shape
        height, width = (np.ptp(np.flatnonzero(mask.any(along))) + 1 for along in (1, 0))
        assert abs(height - width) <= 5  # a voxel's height
        assert np.mean((image > 32768) == (mask > 0)) > 0.97


def test_pixels_that_no_picture_could_hold_are_refused(tmp_path):
    affine = np.diag([1.0, 1, 1e6, 1])
    nifti(tmp_path / "images" / "a.nii", PLACES, affine)
    nifti(tmp_path / "masks" / "a.nii", MASK.astype(np.uint8), affine)
    source = folder.source(tmp_path, axis="coronal")
    with pytest.raises(PixmedError, match=r"pixels of 1e.06 x 1 mm would make pictures.*resample"):
        source.read(0)


def test_an_axis_of_channels_in_front_is_no_stack_of_lines(tmp_path):
    for kind, values in (("images", PLACES[None, :, :, 0]), ("masks", MASK[None, :, :, 1].astype(np.uint8))):
        (tmp_path / kind).mkdir()
        np.save(tmp_path / kind / "a.npy", values)
    with pytest.raises(PixmedError, match=r"a\.npy: gives 5 pictures of 1 x 4; set data\.axis"):
        folder.source(tmp_path)
    assert folder.source(tmp_path, axis="0").read(0)[0].shape == (4, 5)


def test_patients_are_as_many_as_files_say_and_keep_their_names(tmp_path, capsys):
    def one(name: str, patient: str, study: str) -> None:
        pixels = np.arange(16, dtype=np.uint16).reshape(4, 4)
        dicom(tmp_path / "images" / f"{name}.dcm", pixels, PatientID=patient, StudyInstanceUID=study)
        np.save(tmp_path / "masks" / f"{name}.npy", (pixels > 9).astype(np.uint8))

    (tmp_path / "masks").mkdir()
    for name, patient, study in (("a", "P1", "1.5"), ("b", "P1", "1.6"), ("c", "P2", "1.7")):
        one(name, patient, study)
    before = folder.source(tmp_path).groups
    assert before[0] == before[1] != before[2]
    one("d", "P3", "1.2")  # sorts before all of them
    assert folder.source(tmp_path).groups[:3] == before
    assert "for a patient each" not in capsys.readouterr().err
    volumes_root = both(tmp_path / "volumes", RAS, RAS)
    folder.source(volumes_root)
    assert "1 volumes are taken for a patient each" in capsys.readouterr().err


@pytest.mark.parametrize(("axis", "view"), [("axial", 30.0), ("coronal", 45.0), ("sagittal", 45.0)])
def test_a_pixel_is_as_long_as_the_field_of_view_says(tmp_path, axis, view):
    """24 x 20 x 15 voxels of 0.5 x 1.5 x 3 mm: 12 by 30 by 45 mm, each picture a square of 10 pixels."""
    mask = np.zeros((24, 20, 15), np.uint8)
    mask[6:16, 6:12, 5:10] = 1
    for name, values in (("images", np.arange(7200, dtype=np.int16).reshape(24, 20, 15)), ("masks", mask)):
        nifti(tmp_path / name / "a.nii.gz", values, affine=np.diag([0.5, 1.5, 3, 1]))
    source = folder.source(tmp_path, axis=axis, meta="")
    loaded = load(source, range(2), 10)
    assert loaded.pixels == pytest.approx([view / 10] * 2)
    assert source.take([1]).pixel is not None and source.take([1]).pixel(0) == source.pixel(1)


def test_pictures_and_arrays_say_no_lengths(tmp_path):
    for name, values in (("images", np.arange(64).reshape(8, 8)), ("masks", blob((8, 8, 1), 0)[..., 0])):
        (tmp_path / name).mkdir()
        np.save(tmp_path / name / "a.npy", values)
    loaded = load(folder.source(tmp_path, meta=""), [0], 4)
    assert np.isnan(loaded.pixels).all()


def test_a_single_slice_is_cut_in_the_one_way_there_is(tmp_path):
    """Whatever data.axis says of the volumes beside it; its pixels are those of the cut."""
    path = nifti(tmp_path / "a.nii", PLACES[:, :, :1], np.diag([2.0, 3, 5, 1]))
    for axis in ("stored", "0", "sagittal", "coronal", "axial"):
        np.testing.assert_array_equal(decoded(path, axis), decoded(path))
        assert volumes.pixel(volumes.open_array(path), axis) == (3, 2)
    assert decoded(path).shape == (1, 5, 4)
    whole = volumes.open_array(nifti(tmp_path / "b.nii", PLACES, np.diag([2.0, 3, 5, 1])))
    assert [volumes.pixel(whole, axis) for axis in ("axial", "coronal", "sagittal")] == [
        (3, 2),
        (5, 2),
        (5, 3),
    ]


def test_what_is_a_dicom_file_its_name_or_its_first_bytes_say(tmp_path):
    """Exports of a PACS have no suffix, or the last number of an identifier for one."""
    for name in ("IM0001", "1.2.840.1", "a.dcm"):
        path = dicom(tmp_path / name, np.zeros((2, 2), np.uint16))
        assert volumes.is_dicom(path) and volumes.is_volume(path)
    for name in ("IM0002", "1.2.840.2", "a.png", "a.nii"):
        (tmp_path / name).write_bytes(b"no DICOM")
        assert not volumes.is_dicom(tmp_path / name)


def test_of_volumes_too_large_for_the_cache_those_asked_for_last_are_kept(monkeypatch):
    monkeypatch.setattr(volumes, "MAX_BYTES", 1000)
    read = []

    def array(name: str, size: int):
        def values() -> np.ndarray:
            read.append(name)
            return np.zeros(size, np.uint8)

        return plain(name, (size, 1), np.dtype(np.uint8), values)

    cache, a, b, c, d = volumes.Cache(), *map(array, "abcd", (600, 300, 300, 900))
    for one in (a, a, d, a, b, a, c, a, b):  # b goes for c: a was asked for after it
        cache.read(one)
    assert read == ["a", "d", "a", "b", "c", "b"]


# ---------------------------------------------------------------- limits
def test_limits_of_mostly_background_are_its_extremes():
    """One bright voxel of a thousand is beyond both percentiles; one value alone has no limits."""
    values = np.zeros((10, 10, 10), np.int16)
    values[3, 4, 5] = 7
    assert intensity.percentiles(values, "n") == (0.0, 7.0)
    values[values == 0] = 7
    with pytest.raises(PixmedError, match="n: every value is 7; remove it"):
        intensity.percentiles(values, "n")


def test_extremes_clip_nothing_and_what_is_no_number_is_counted():
    values = np.array([[3.0, -2.0], [8.0, 5.0]])
    assert intensity.extremes(values, "n") == (-2.0, 8.0)
    with pytest.raises(PixmedError, match="n: every value is 3; remove it"):
        intensity.extremes(values[:1, :1], "n")
    for odd in (np.nan, np.inf, -np.inf):
        values[0, 0] = odd
        for limits in (intensity.extremes, intensity.percentiles):
            with pytest.raises(PixmedError, match="n: 1 values are NaN or infinite"):
                limits(values, "n")


@pytest.mark.parametrize("rule", ["-inf,5", "0,inf", "nan,5", "0,nan", "5,5", "6,5", "5", "0,1,2", "best"])
def test_limits_that_are_none(rule):
    with pytest.raises(PixmedError, match=f"data.intensity='{rule}': give one of auto, full"):
        intensity.parse(rule)


def test_grey_values_of_one_pair_of_limits_at_another():
    """0.5 of -100 .. 300 is 100, which is 0.25 of 0 .. 400 and beyond 200 .. 600."""
    unit = np.array([-1.0, 0.0, 0.5, 1.0, 2.0])
    found = intensity.rescaled(unit, (-100.0, 300.0), (0.0, 400.0))
    assert found.dtype == np.float32 and found.tolist() == [0.0, 0.0, 0.25, 0.75, 0.75]
    assert intensity.rescaled(unit, (-100.0, 300.0), (200.0, 600.0)).tolist() == [0, 0, 0, 0.25, 0.25]
    assert intensity.rescaled(unit, (-100.0, 300.0), (-90.0, 200.0))[[0, 3]].tolist() == [0.0, 1.0]
