"""The head phantom: the same bytes each time, one anatomy in all planes, tumours where they belong, and its
dataset on disk equal to the generator whatever happened to the process that wrote it."""

import signal
import subprocess
import sys
import tempfile

import numpy as np
import pytest
from scipy import ndimage

from pixmed_jax.data import phantom, phantom_anatomy, phantom_builder, phantom_tissue
from pixmed_jax.errors import PixmedError

SMALL = {"patients": 3, "count": 2, "size": 64}


@pytest.fixture(scope="module")
def patients():
    """Slices of the first 24 patients, 80 x 80, three each (one per plane)."""
    return [phantom.patient_slices(number, size=80, count=3) for number in range(24)]


def of_kind(kind, many=4):
    """The first patients with that tumour."""
    found = (phantom.anatomy(number) for number in range(100))
    return [a for a in found if a.tumour.kind == kind][:many]


def tumour_voxels(a):
    """Points [N, 3] of the tumour on a 2 mm lattice, with the distance [N] to the skull's inner surface and
    the noise-free intensity [N]."""
    steps = np.arange(-1.6, 1.6, 2 / a.tumour.radii.max())
    lattice = np.stack(np.meshgrid(steps, steps, steps), -1).reshape(-1, 3)
    points = lattice * a.tumour.radii.max() + a.tumour.centre
    value, mask = phantom.tissue(a, points)
    standard = phantom_tissue.to_standard(points[mask].T.astype(np.float32), a.size, a.narrowing)
    cavity = phantom_tissue.cavity_at(standard, phantom_tissue.mirrored(standard))[0]
    return points[mask], cavity, value[mask]


def same(one, other):
    return all(
        np.array_equal(a.image, b.image) and np.array_equal(a.mask, b.mask) and a[2:] == b[2:]
        for a, b in zip(one, other, strict=True)
    )


# ------------------------------------------------------------------------------ determinism


def test_same_seed_and_patient_give_the_same_bytes():
    np.random.seed(1)
    first = phantom.patient_slices(3, seed=5, size=64)
    phantom_anatomy.noise_volume.cache_clear()
    np.random.seed(2)
    assert same(first, phantom.patient_slices(3, seed=5, size=64))


def test_other_seed_and_other_patient_give_other_bytes():
    first = phantom.patient_slices(3, seed=5, size=64)[0].image
    assert (first != phantom.patient_slices(3, seed=6, size=64)[0].image).mean() > 0.3
    assert (first != phantom.patient_slices(4, seed=5, size=64)[0].image).mean() > 0.3


def test_slices_of_one_patient_differ():
    slices = phantom.patient_slices(3, size=64, count=6)
    images = {s.image.tobytes() for s in slices}
    assert len(images) == 6
    assert sorted(s.plane for s in slices) == sorted(2 * phantom.PLANES)


# ------------------------------------------------------------------------------ anatomy


def read_along(a, plane, through, points, seed):
    """What the image of a slice shows at points [N, 3] that lie in it."""
    size = 160
    grid = phantom.plane_points(a, plane, through, size)
    image = phantom._scan(a, grid, phantom.tissue(a, grid)[0], np.random.default_rng(seed))
    origin, right, down = grid[0, 0], grid[0, 1] - grid[0, 0], grid[1, 0] - grid[0, 0]
    columns = (points - origin) @ right / (right @ right)
    rows = (points - origin) @ down / (down @ down)
    rebuilt = origin + columns[:, None] * right + rows[:, None] * down
    np.testing.assert_allclose(rebuilt, points, atol=0.05)  # the points do lie in the slice
    return ndimage.map_coordinates(image.astype(float), [rows, columns], order=1)


@pytest.mark.parametrize(
    ("one", "other", "direction"),
    [("axial", "coronal", [1, 0, 0]), ("axial", "sagittal", [0, 1, 0]), ("coronal", "sagittal", [0, 0, 1])],
)
def test_two_planes_show_the_same_tissue_where_they_cross(one, other, direction):
    for number in (0, 3, 4):
        a = phantom.anatomy(number)
        through = a.tumour.centre
        # In the scanner's frame, where the planes stand; their common line runs along one of its axes.
        line = a.pose.T @ through + np.arange(-60, 61, 2.0)[:, None] * np.array(direction)
        line = line @ a.pose.T
        first = read_along(a, one, through, line, 1)
        second = read_along(a, other, through, line, 2)
        assert np.corrcoef(first, second)[0, 1] > 0.95
        assert np.median(np.abs(first - second)) < 8
        stranger = phantom.anatomy(number + 40)._replace(pose=a.pose)
        assert np.corrcoef(first, read_along(stranger, other, through, line, 2))[0, 1] < 0.9


def test_air_is_black_scalp_is_bright_skull_is_dark():
    for a in of_kind("pituitary"):  # nothing grows at the vertex
        height = np.arange(0.0, 140.0, 0.2)
        value, _ = phantom.tissue(a, np.stack([0 * height, 0 * height, height], -1))
        skin = np.flatnonzero(value)[-1]
        assert 78 < height[skin] < 115
        assert value[skin - 30 : skin].max() > 0.45  # fat, within 6 mm of the skin
        assert value[skin - 85 : skin].min() < 0.09  # bone, darker than any fluid
        assert not value[skin + 1 :].any()  # air


def test_front_is_up_and_faces_look_left():
    # The nose reaches further than anything else in the middle sagittal slice, to the left; no seed moves it.
    a = phantom.anatomy(1)._replace(pose=np.eye(3), bias=np.zeros(3))
    sagittal = phantom.tissue(a, phantom.plane_points(a, "sagittal", np.zeros(3), 120))[0] > 0
    left_most = sagittal.argmax(1)[sagittal.any(1)]
    right_most = sagittal[:, ::-1].argmax(1)[sagittal.any(1)]
    nose = np.flatnonzero(sagittal.argmax(1) == left_most.min())[0]
    assert 60 < nose < 100 and left_most.min() < right_most.min() + 20
    eyes = phantom.tissue(a, phantom.plane_points(a, "axial", np.array([0, 0, -33.0]), 120))[0]
    front, back = eyes[:40], eyes[80:]
    assert ((front > 0.03) & (front < 0.2)).sum() > 60 + ((back > 0.1) & (back < 0.2)).sum() / 4


# ------------------------------------------------------------------------------ tumours


def test_every_slice_holds_its_tumour_within_the_head(patients):
    assert {s.label for slices in patients for s in slices} == {0, 1, 2}
    for slices in patients:
        assert len({s.label for s in slices}) == 1
        for s in slices:
            assert s.image.dtype == s.mask.dtype == np.uint8
            assert set(np.unique(s.mask)) == {0, 1}
            assert s.mask.mean() >= phantom.MIN_TUMOUR
            head = ndimage.binary_fill_holes(ndimage.gaussian_filter(s.image.astype(float), 1) > 25)
            assert not (s.mask & ~head).any()
            assert 0.15 < head.mean() < 0.85
            assert np.median(s.image[:4]) < 15  # air


def test_label_is_the_kind_of_the_patients_tumour(patients):
    for number, slices in enumerate(patients):
        assert phantom.LABEL_NAMES[slices[0].label] == phantom.anatomy(number).tumour.kind


def test_meningiomas_are_bright_and_sit_on_dura_or_falx():
    found = of_kind("meningioma", many=10)
    assert {a.tumour.on_falx for a in found} == {False, True}
    for a in found:
        points, cavity, value = tumour_voxels(a)
        assert cavity.max() < 0.5  # never through the bone
        if a.tumour.on_falx:
            side = np.sign(a.tumour.centre[0]) * points[:, 0]
            assert -8 < side.min() < 3  # reaches the midline, hardly crosses it
        else:
            assert cavity.max() > -2.5
        assert np.median(value) > 1.25 * a.white
        assert value.std() < 0.2 * value.mean()  # homogeneous


def test_gliomas_keep_within_the_brain_and_have_a_bright_rim_around_a_dark_core():
    for a in of_kind("glioma"):
        points, cavity, value = tumour_voxels(a)
        assert cavity.max() < -a.gap
        radius = np.linalg.norm((points - a.tumour.centre) / a.tumour.radii, axis=1)
        core, rim = value[radius < 0.3], value[(radius > 0.8) & (radius < 0.95)]
        assert core.mean() < 0.85 * rim.mean()
        assert np.percentile(rim, 90) > a.white


def test_pituitary_tumours_are_small_and_in_the_midline_over_the_sella():
    for a in of_kind("pituitary"):
        points, _, value = tumour_voxels(a)
        assert abs(points[:, 0].mean()) < 4
        assert np.linalg.norm(points - phantom_anatomy.SELLA, axis=1).min() < 6
        assert np.abs(points[:, 1] - phantom_anatomy.SELLA[1]).max() < 16
        assert 8 * len(points) < 20_000  # mm^3
        assert np.median(value) > a.white


def test_a_slice_too_small_is_refused():
    with pytest.raises(PixmedError, match=r"^size: .*16.*give 32 or more$"):
        phantom.patient_slices(0, size=16)


# ------------------------------------------------------------------------------ the dataset on disk


def assert_equals_generator(source, seed=0):
    assert source.files == tuple(f"phantom-{n:04d}-{i}.png" for n in range(3) for i in range(2))
    assert source.groups == tuple(f"phantom-{n:04d}" for n in range(3) for _ in range(2))
    assert source.label_names == phantom.LABEL_NAMES
    made = [s for number in range(3) for s in phantom.patient_slices(number, seed=seed, size=64, count=2)]
    assert source.planes == tuple(s.plane for s in made)
    np.testing.assert_array_equal(source.labels, [s.label for s in made])
    for row, s in enumerate(made):
        image, mask = source.read(row)
        np.testing.assert_array_equal(image, s.image)
        np.testing.assert_array_equal(mask, s.mask * (s.label + 1))
        assert image.dtype == mask.dtype == np.uint8


def shard(data_dir):
    (file,) = data_dir.rglob("*.array_record*")
    return file


def test_a_start_leaves_no_temporary_folder(tmp_path, monkeypatch):
    """TFDS, left to itself, leaves an empty one each time."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    phantom_builder.source(data_dir=str(tmp_path / "data"), **SMALL)
    assert not list((tmp_path / "temporary").iterdir())


def test_dataset_equals_the_generator_and_is_made_once(tmp_path, monkeypatch):
    assert_equals_generator(phantom_builder.source(data_dir=str(tmp_path), **SMALL))
    written = shard(tmp_path).stat().st_mtime_ns
    with monkeypatch.context() as patched:
        patched.setattr(phantom_builder, "patient_slices", None)  # a call would fail
        again = phantom_builder.source(data_dir=str(tmp_path), **SMALL)
    assert_equals_generator(again)
    assert shard(tmp_path).stat().st_mtime_ns == written
    assert_equals_generator(phantom_builder.source(data_dir=str(tmp_path), seed=9, **SMALL), seed=9)


KILLED = """
import os, signal, sys
from pixmed_jax.data import phantom_builder as builder
make = builder.patient_slices
def make_or_die(patient, **kwargs):
    if patient == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return make(patient, **kwargs)
builder.patient_slices = make_or_die
builder.source(data_dir=sys.argv[1], patients=3, count=2, size=64)
"""


def test_a_dataset_whose_writer_was_killed_is_made_anew(tmp_path):
    killed = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert list(tmp_path.rglob("*1.0.0*"))  # it had begun
    assert_equals_generator(phantom_builder.source(data_dir=str(tmp_path), **SMALL))


@pytest.mark.parametrize("lost", ["dataset_info.json", "*.array_record*"])
def test_a_dataset_copied_in_part_is_made_anew(tmp_path, lost):
    phantom_builder.source(data_dir=str(tmp_path), **SMALL)
    (file,) = tmp_path.rglob(lost)
    file.unlink()
    assert_equals_generator(phantom_builder.source(data_dir=str(tmp_path), **SMALL))


def test_a_damaged_dataset_is_told_in_one_line(tmp_path):
    phantom_builder.source(data_dir=str(tmp_path), **SMALL)
    content = bytearray(shard(tmp_path).read_bytes())
    content[len(content) // 2] ^= 1
    shard(tmp_path).write_bytes(content)
    with pytest.raises(PixmedError, match=r"^[^\n]*1\.0\.0: its files are damaged; delete the folder[^\n]*$"):
        phantom_builder.source(data_dir=str(tmp_path), **SMALL)


def test_a_faster_process_is_no_fault(tmp_path, monkeypatch):
    make = phantom_builder.patient_slices

    def overtaken(patient, **kwargs):
        monkeypatch.setattr(phantom_builder, "patient_slices", make)
        phantom_builder.source(data_dir=str(tmp_path), **SMALL)
        return make(patient, **kwargs)

    monkeypatch.setattr(phantom_builder, "patient_slices", overtaken)
    assert_equals_generator(phantom_builder.source(data_dir=str(tmp_path), **SMALL))


def test_a_folder_that_cannot_be_written_is_told_in_one_line(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(
        PixmedError, match=r"^[^\n]*cannot be written \(Not a directory\); set data\.dir to another folder$"
    ):
        phantom_builder.source(data_dir=str(tmp_path / "file"), **SMALL)


@pytest.mark.parametrize(("key", "value"), [("patients", 0), ("count", 0), ("size", 31), ("seed", -1)])
def test_a_number_too_small_is_refused(tmp_path, key, value):
    with pytest.raises(PixmedError, match=rf"^{key}: {value} is too small"):
        phantom_builder.source(data_dir=str(tmp_path), **(SMALL | {key: value}))


USED = """
import sys
from pixmed_jax.data import phantom
assert "tensorflow_datasets" not in sys.modules
from pixmed_jax.data import phantom_builder
phantom_builder.source(data_dir=sys.argv[1], patients=1, count=1, size=32).read(0)
assert "tensorflow" not in sys.modules
"""


def test_neither_tensorflow_nor_noise(tmp_path):
    used = subprocess.run([sys.executable, "-c", USED, str(tmp_path)], capture_output=True, text=True)
    assert (used.returncode, used.stdout, used.stderr) == (0, "", "")


def test_the_same_head_before_its_tumour_grew():
    """The same planes and masks; elsewhere the same head, but for what the tumour pushed aside."""
    for patient in (2, 5, 7):
        ill = phantom.patient_slices(patient, size=96, count=3)
        well = phantom.patient_slices(patient, size=96, count=3, healthy=True)
        for a, b in zip(ill, well, strict=True):
            assert (a.plane, a.label) == (b.plane, b.label)
            np.testing.assert_array_equal(a.mask, b.mask)
            gap = np.abs(a.image.astype(int) - b.image)
            far = ndimage.distance_transform_edt(a.mask == 0) > 40
            assert gap[far].mean() < 1 < 10 < gap[a.mask > 0].mean()
