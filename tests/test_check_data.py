"""The check of a folder: every planted fault is named, copies are listed, nothing stops it, nothing is half
written, and the page trusts no text."""

import base64
import csv
import io
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from PIL import Image

from pixmed_jax import check_data as stage
from pixmed_jax import check_data_page
from pixmed_jax.check_data import check_data
from pixmed_jax.data import folder, phantom
from pixmed_jax.data.sources import open_dataset
from pixmed_jax.data.survey import survey
from pixmed_jax.errors import PixmedError

ROOT = Path(__file__).parents[1]
REAL = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="module")
def slices() -> list[phantom.PhantomSlice]:
    """Two slices each of six patients, 64 x 64."""
    return [s for patient in range(6) for s in phantom.patient_slices(patient, size=64, count=2)]


def put(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def pairs(root: Path, slices, *, split: str = "") -> Path:
    """A faultless folder in the layout of pairs."""
    rows = ["file,label,patient_group,set"]
    for i, s in enumerate(slices):
        put(root / "images" / f"{i:02}.png", s.image)
        put(root / "masks" / f"{i:02}.png", s.mask * np.uint8(255))
        home = ("test", "val", "train")[i // 2 % 3]
        rows.append(f"{i:02}.png,{phantom.LABEL_NAMES[s.label]},p{i // 2},{home}")
    (root / "meta.csv").write_text("\n".join(rows))
    return root


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def kinds(root: Path, **options: str) -> dict[str, list[str]]:
    """{what is wrong: names}."""
    return {fault.what: fault.names for fault in survey(root, **options).faults}


class Page(HTMLParser):
    def __init__(self, page: str):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += f" {data}"


def test_a_faultless_folder(tmp_path, slices):
    root = pairs(tmp_path / "data", slices)
    lines = check_data(str(root), str(tmp_path / "run")).splitlines()
    assert lines[0] == f"{root}: 12 images; 0 are copies of others in it"
    assert lines[-1] == "defects: 0"
    out = tmp_path / "run" / "check_data"
    assert {p.name for p in out.iterdir()} == {"report.html", "files.csv", "duplicates.csv"}
    assert (out / "duplicates.csv").read_text() == "file,other,transform,similarity\n"
    rows = table(out / "files.csv")
    assert [row["file"] for row in rows] == [f"images/{i:02}.png" for i in range(12)]
    for row, s in zip(rows, slices, strict=True):
        assert row["label"] == phantom.LABEL_NAMES[s.label]
        assert (row["width"], row["height"], row["kind"], row["defects"]) == ("64", "64", "8 bit grey", "")
        assert int(row["tumour_pixels"]) == s.mask.sum()
        assert (int(row["minimum"]), int(row["maximum"])) == (s.image.min(), s.image.max())
        assert float(row["mean"]) == pytest.approx(s.image.mean(), abs=0.005)
    assert [row["patient"] for row in rows] == [f"p{i // 2}" for i in range(12)]


def test_all_defects_of_pixels_are_listed_and_the_rest_is_read(tmp_path, slices):
    root = pairs(tmp_path, slices)
    images, masks = root / "images", root / "masks"
    (images / "00.png").write_bytes((images / "00.png").read_bytes()[:200])
    (masks / "01.png").write_bytes(b"<html>")
    put(images / "02.png", np.full((64, 64), 9, np.uint8))
    put(masks / "03.png", np.zeros((64, 64), np.uint8))
    put(masks / "04.png", np.full((64, 64), 255, np.uint8))
    put(masks / "05.png", np.linspace(0, 255, 4096).astype(np.uint8).reshape(64, 64))
    put(masks / "06.png", np.eye(32, dtype=np.uint8) * np.uint8(255))
    put(images / "07.png", slices[7].image.repeat(2, 0))
    put(masks / "07.png", slices[7].mask.repeat(2, 0) * np.uint8(255))
    put(images / "08.png", np.stack([slices[8].image, slices[8].image // 2, slices[8].image], -1))
    put(images / "09.png", slices[9].image.astype(np.uint16) * 100)
    (masks / "10.png").unlink()
    put(masks / "99.png", slices[0].mask)
    found = kinds(root)
    assert found.pop("images cannot be read")[0].startswith("images/00.png: cannot be decoded")
    assert found.pop("masks cannot be read") == ["masks/01.png: not a whole PNG, JPEG, TIFF or BMP image"]
    assert found.pop("images are constant") == ["images/02.png: every pixel is 9"]
    assert found.pop("masks are empty") == ["masks/03.png"]
    assert found.pop("masks have no background") == ["masks/04.png"]
    interpolated = found.pop("masks hold values that are no class (interpolated?)")
    assert interpolated == ["masks/05.png: values 0, 1, 2, 3, 4, 5, 6, 7 and 248 more"]
    assert found.pop("masks have another size than their image") == [
        "masks/06.png: 32 x 32 for an image of 64 x 64"
    ]
    assert found.pop("images of another size than most, 64 x 64") == ["images/07.png: 64 x 128"]
    assert found.pop("images of another kind than most, 8 bit grey") == [
        "images/08.png: 8 bit RGB",
        "images/09.png: 16 bit grey",
    ]
    assert found.pop("images without a mask") == ["images/10.png"]
    assert found.pop("masks without an image") == ["99.png"]
    assert found == {}
    by_file = {record.file: record for record in survey(root).records}
    assert by_file["images/10.png"].defects == ["images without a mask"]
    assert by_file["images/11.png"].tumour_pixels == slices[11].mask.sum()
    assert by_file["images/00.png"].height == 0 and by_file["images/00.png"].kind == ""
    last = check_data(str(root), str(tmp_path / "run")).splitlines()[-1]
    assert last.startswith("defects: 12: ") and "masks are empty (1)" in last


def test_a_link_to_itself_is_a_defect(tmp_path, slices):
    root = pairs(tmp_path, slices)
    (root / "images" / "00.png").unlink()
    (root / "images" / "00.png").symlink_to(root / "images" / "00.png")
    assert kinds(root) == {"images cannot be read": ["images/00.png: not a file"]}


def test_rgb_with_equal_channels_is_grey_and_class_masks_are_masks(tmp_path, slices):
    root = pairs(tmp_path, slices)
    put(root / "images" / "00.png", np.repeat(slices[0].image[..., None], 3, -1))
    put(root / "masks" / "01.png", slices[1].mask * np.uint8(2))  # three labels: 2 is one of them
    assert len({s.label for s in slices}) == 3
    assert kinds(root) == {}


def volumes(root: Path) -> dict[str, np.ndarray]:
    """Heads of three patients as NIfTI, .npy and .mat, 24 x 20 x 6, with a tumour in slices 2 and 3.

    NIfTI stores [x, y, z], where x runs along the rows of a picture.
    """
    made = {}
    for patient, name in enumerate(("a.nii.gz", "b.npy", "c.mat")):
        flat = [s.image for s in phantom.patient_slices(patient, size=64, count=6)]
        values = np.stack([image[8:56:2, 12:52:2] for image in flat], -1).astype(np.int16) * 5 - 100
        mask = np.zeros(values.shape, np.uint8)
        mask[5:9, 6:10, 2:4] = 1
        mask[5, 6, 3] = 0
        for kind, array in (("images", values), ("masks", mask)):
            path = root / kind / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if name.endswith(".npy"):
                np.save(path, array)
            elif name.endswith(".mat"):
                scipy.io.savemat(path, {"image" if kind == "images" else "mask": array})
            else:
                nibabel = pytest.importorskip("nibabel")
                nibabel.save(nibabel.Nifti1Image(array.swapaxes(0, 1), np.diag([-1.0, -1, 1, 1])), path)
        made[name] = values
    return made


def test_volumes_are_read_slice_by_slice(tmp_path):
    root = tmp_path / "data"
    made = volumes(root)
    text = check_data(str(root), str(tmp_path / "run"))
    first, *_, last = text.splitlines()
    assert first == (f"{root}: 18 images (18 of them slices of 3 volumes); 0 are copies of others in it")
    assert last == "defects: 1: no labels (1)"
    rows = table(tmp_path / "run" / "check_data" / "files.csv")
    assert [row["file"] for row in rows] == [f"images/{name}#{k:03}" for name in made for k in range(6)]
    for row in rows:
        name, k = row["file"].removeprefix("images/").split("#")
        values = made[name][..., int(k)]
        assert (float(row["minimum"]), float(row["maximum"])) == (values.min(), values.max())
        assert float(row["mean"]) == pytest.approx(values.mean(), abs=0.005)
        assert row["kind"] == "16 bit grey from int16" and row["mask"] == f"masks/{name}"
        assert int(row["tumour_pixels"]) == {2: 16, 3: 15}.get(int(k), 0)
        assert row["patient"] == f"images/{name}"
    assert {(row["width"], row["height"]) for row in rows} == {("20", "24")}
    page = Page((tmp_path / "run" / "check_data" / "report.html").read_text())
    assert "18 images, slices of 3 volumes among them (12 without a tumour" in page.text
    assert "no label 6 " in " ".join(page.text.split())  # as training counts them
    assert sum(tag == "img" and attrs.get("alt") == "no label" for tag, attrs in page.tags) == 6
    names = {record.file.removeprefix("images/") for record in survey(root).records if record.tumour_pixels}
    assert names == set(folder.source(root).files)


def test_masks_beside_their_images_are_told_from_images(tmp_path, slices):
    """As a folder comes whose masks are called NAME_seg: half of its pictures would be no pictures."""
    for i, s in enumerate(slices[:3]):
        put(tmp_path / f"{i}.png", s.image)
        put(tmp_path / f"{i}_seg.png", s.mask * np.uint8(255))
    assert "masks are beside the images, such as 0_seg.png" in kinds(tmp_path)
    found = kinds(tmp_path, images=".", masks=".")
    assert set(found) == {"no labels", "no patients"}
    assert len(survey(tmp_path, images=".", masks=".").records) == 3


def test_pictures_of_volumes_are_as_wide_as_in_the_patient(tmp_path):
    """24 x 20 pixels of 2 x 1 mm, as a training makes them square too."""
    from volume_files import nifti

    root = tmp_path / "data"
    values = np.random.default_rng(0).integers(0, 200, (20, 24, 2)).astype(np.int16)
    nifti(root / "images" / "a.nii", values, np.diag([1.0, 2, 1, 1]))
    nifti(root / "masks" / "a.nii", (values > 150).astype(np.uint8), np.diag([1.0, 2, 1, 1]))
    found = survey(root)
    uri = check_data_page._picture(found, found.records[0])
    with Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))) as picture:
        assert picture.width / picture.height == pytest.approx(20 / 48, abs=0.02)


def test_volumes_that_copy_each_other_and_pictures(tmp_path):
    root = tmp_path / "data"
    made = volumes(root)
    np.save(root / "images" / "d.npy", made["b.npy"][::-1].astype(np.float32) / 7)  # upside down, other units
    np.save(root / "masks" / "d.npy", np.load(root / "masks" / "b.npy")[::-1])
    thin = np.repeat(np.random.default_rng(0).integers(0, 999, (24, 20, 1)), 6, axis=2)
    np.save(root / "images" / "e.npy", thin)  # slices of one volume are alike, and no copies
    np.save(root / "masks" / "e.npy", np.load(root / "masks" / "b.npy"))
    check_data(str(root), str(tmp_path / "run"))
    rows = table(tmp_path / "run" / "check_data" / "duplicates.csv")
    assert {(r["file"], r["other"], r["transform"]) for r in rows} >= {
        (f"images/d.npy#{k:03}", f"images/b.npy#{k:03}", "flip_top_bottom") for k in range(6)
    }
    assert all(r["file"].split("#")[0] != r["other"].split("#")[0] for r in rows)
    kept = open_dataset(
        source="folder", dir=str(root), leave_out=str(tmp_path / "run" / "check_data" / "duplicates.csv"),
        allow_empty_masks=True, size=24, load_scale=1.0, channels=1, seed=0,
        split={"fractions": (0.4, 0.3, 0.3)}, condition="tumor",
    )  # fmt: skip
    assert not any(name.startswith("d.npy") for name in kept.source.files)


def test_defects_of_volumes_are_told_once_each(tmp_path):
    root = tmp_path / "data"
    made = volumes(root)
    for name in ("d", "e", "f", "g", "h"):
        np.save(root / "images" / f"{name}.npy", made["b.npy"])
        np.save(root / "masks" / f"{name}.npy", np.load(root / "masks" / "b.npy"))
    np.save(root / "masks" / "d.npy", np.zeros((24, 20, 6), np.uint8))
    np.save(root / "masks" / "e.npy", np.ones((24, 20, 5), np.uint8))
    np.save(root / "images" / "f.npy", np.where(np.arange(6) == 3, np.nan, made["b.npy"]))
    np.save(root / "masks" / "g.npy", np.load(root / "masks" / "b.npy") * 77 + np.uint8(3))
    path = root / "images" / "h.npy"
    path.write_bytes(path.read_bytes()[:500])
    np.save(root / "images" / "k.npy", np.zeros((24, 20, 6), np.uint8))
    np.save(root / "masks" / "k.npy", np.load(root / "masks" / "b.npy"))
    put(root / "images" / "m.png", np.arange(480, dtype=np.uint8).reshape(24, 20))
    np.save(root / "masks" / "m.npy", np.load(root / "masks" / "b.npy"))
    found = {what: names for what, names in kinds(root).items() if not what.startswith("images of another")}
    assert found == {
        "no labels": [],
        "mask volumes are empty": ["masks/d.npy"],
        "masks have another size than their image": [
            "masks/e.npy: 5 slices of 24x20 for an image of 6 slices of 24x20",
        ],
        "images cannot be read": [
            "images/f.npy: 480 values are NaN or infinite",
            "images/h.npy: 372 bytes cannot hold the 5760 its header says",
        ],
        "masks cannot be read": ["masks/m.npy: 15 pixels lie in several channels (3 and 4)"],
        "masks have no background": ["masks/g.npy"],
        "masks hold values that are no class (interpolated?)": ["masks/g.npy: values 3, 80"],
        "volumes are constant": ["images/k.npy: every value is 0"],
    }
    records = {record.file: record for record in survey(root).records}
    assert records["images/f.npy#003"].defects == ["images cannot be read"]
    assert records["images/e.npy#000"].tumour_pixels == -1 and records["images/m.png"].tumour_pixels == -1


def test_a_series_is_a_volume_and_its_patient_is_hashed(tmp_path):
    pytest.importorskip("pydicom")
    from volume_files import nifti, series

    values = np.random.default_rng(0).integers(0, 1000, (12, 10, 4)).astype(np.int16)
    affine = np.diag([2.0, 2, 5, 1])
    series(tmp_path / "images" / "one", values, affine)
    mask = np.zeros_like(values, np.uint8)
    mask[1:3, 1:3, 2] = 1
    nifti(tmp_path / "masks" / "one.nii.gz", mask, affine)
    found = survey(tmp_path)
    assert [record.file for record in found.records] == [f"images/one#{k:03}" for k in range(4)]
    assert [record.tumour_pixels for record in found.records] == [0, 0, 4, 0]
    (patient,) = {record.patient for record in found.records}
    assert patient.startswith("patient-") and "1234567" not in patient
    assert found.bytes == sum(path.stat().st_size for path in (tmp_path / "images" / "one").iterdir())
    axial = survey(tmp_path, axis="sagittal").records
    assert len(axial) == 12 and (axial[0].height, axial[0].width) == (4, 10)
    with pytest.raises(PixmedError, match=r"axis='z' is not one of stored"):
        survey(tmp_path, axis="z")


def test_a_mask_for_each_class(tmp_path, slices):
    root = pairs(tmp_path, slices)
    for i, s in enumerate(slices):
        (root / "masks" / f"{i:02}.png").unlink()
        ring = np.zeros_like(s.mask)
        ring[0] = 1
        put(root / "masks" / f"{i:02}_core.png", s.mask * np.uint8(255))
        put(root / "masks" / f"{i:02}_edge.png", ring * np.uint8(255))
    assert kinds(root) == {}
    first = survey(root).records[0]
    assert first.mask == "masks/00_core.png masks/00_edge.png"
    assert first.tumour_pixels == slices[0].mask.sum() + 64
    assert check_data(str(root), str(tmp_path / "run")).splitlines()[-1] == "defects: 0"
    put(root / "masks" / "00_edge.png", slices[0].mask * np.uint8(255))
    assert "lie in several channels" in kinds(root)["masks cannot be read"][0]


def test_masks_that_bring_their_own_classes(tmp_path, slices):
    """1, 2 and 4, as in BraTS, where no table names labels: as `data.masks` reads them."""
    root = pairs(tmp_path, slices)
    values = [1, 2, 4] * 4
    for i, s in enumerate(slices):
        put(root / "masks" / f"{i:02}.png", s.mask * np.uint8(values[i]))
    assert set(kinds(root, meta="")) == {"no labels", "no patients"}
    put(root / "masks" / "00.png", slices[0].mask * np.uint8(99))
    assert len(kinds(root, meta="")["masks hold values that are no class (interpolated?)"]) > 0


def test_masks_that_mark_the_background_are_told(tmp_path, slices):
    root = pairs(tmp_path, slices)
    for i, s in enumerate(slices):
        put(root / "masks" / f"{i:02}.png", np.where(s.mask > 0, 0, 255).astype(np.uint8))
    (told,) = [what for what in kinds(root) if what.startswith("half of the masks mark more than 9")]
    assert told.endswith("% of their picture")


def test_masks_whose_values_are_not_their_labels(tmp_path, slices):
    """1, 2 and 4, as in BraTS: with a table of two labels 4 is none of them, of four each is another."""
    root = pairs(tmp_path, slices)
    for i, s in enumerate(slices):
        mask = s.mask * np.uint8((1, 2, 4)[i % 3])
        put(root / "masks" / f"{i:02}.png", mask)
    lines = (root / "meta.csv").read_text().splitlines()
    for count, what, first in (
        (2, "masks hold values that no label names", "masks/02.png: values 0, 4"),
        (4, "masks do not hold the value of their label", "images/02.png: 4 where 'grade 3' is 3"),
    ):
        rows = [line.split(",") for line in lines[1:]]
        graded = [",".join([r[0], f"grade {i % count + 1}", *r[2:]]) for i, r in enumerate(rows)]
        (root / "meta.csv").write_text("\n".join([lines[0], *graded]))
        (fault,) = survey(root).faults
        assert (fault.what, fault.names[0]) == (what, first)
        assert "data.label_column=''" in fault.remedy and "smoothing" not in fault.remedy


def test_the_classes_of_masks_are_named_where_no_table_labels_slices(tmp_path, slices):
    """By value, by colour and by file; each slice is labelled as training labels it."""
    root = pairs(tmp_path / "data", slices)
    ring = np.zeros_like(slices[0].mask)
    ring[0] = 1
    colours = np.array([(0, 0, 0), (255, 0, 0), (0, 255, 0)], np.uint8)

    def check(told: str, classes: set[str]) -> None:
        text = check_data(str(root), str(tmp_path / "run"), label_column="")
        assert f"masks: 0 = background, {told}" in text.splitlines()
        assert text.splitlines()[-1] == "defects: 0"
        page = Page((tmp_path / "run" / "check_data" / "report.html").read_text(encoding="utf-8")).text
        assert f"masks: 0 = background, {told}" in page and "no label" not in page
        labels = {
            row["file"][7:]: row["label"] for row in table(tmp_path / "run" / "check_data" / "files.csv")
        }
        source = folder.source(root, label_column="")
        assert labels == dict(zip(source.files, (source.label_names[i] for i in source.labels), strict=True))
        assert set(labels.values()) == classes

    masks = [s.mask * np.uint8((1, 2, 4)[i % 3]) for i, s in enumerate(slices)]
    for i, mask in enumerate(masks):
        put(root / "masks" / f"{i:02}.png", np.maximum(mask, ring))
    check("1 = class 1, 2 = class 2, 4 = class 4", {"class 1", "class 2", "class 4"})
    for i, s in enumerate(slices):
        put(root / "masks" / f"{i:02}.png", colours[s.mask * (1 + i % 2) | ring])
    check("1 = red, 2 = green", {"red", "green"})
    for i, s in enumerate(slices):
        (root / "masks" / f"{i:02}.png").unlink()
        put(root / "masks" / f"{i:02}_core.png", s.mask * np.uint8(255))
        put(root / "masks" / f"{i:02}_edema.png", ring * np.uint8(255))
    source = folder.source(root, label_column="")
    check("1 = core, 2 = edema", {source.label_names[i] for i in source.labels})


def test_sizes_without_a_usual_one_are_one_defect(tmp_path, slices):
    root = pairs(tmp_path, slices)
    for i, s in enumerate(slices[:-2]):  # the last two agree
        put(root / "images" / f"{i:02}.png", s.image[i:])
        put(root / "masks" / f"{i:02}.png", s.mask[i:] * np.uint8(255))
    assert kinds(root) == {"images have 10 sizes": []}


def test_terminal_and_page_count_alike(tmp_path, slices):
    """One name of a defect in both folders."""
    root = pairs(tmp_path / "data", slices)
    for kind, twice in (("images", (0, 1)), ("masks", (2,))):
        for i in twice:
            Image.open(root / kind / f"{i:02}.png").save(root / kind / f"{i:02}.tif")
    assert [fault.what for fault in survey(root).faults] == ["files share their stem with another"] * 2
    last = check_data(str(root), str(tmp_path / "run")).splitlines()[-1]
    assert last == "defects: 3: files share their stem with another (3)"
    page = Page((tmp_path / "run" / "check_data" / "report.html").read_text(encoding="utf-8")).text
    assert " 3 defects" in " ".join(page.split())


def test_pictures_in_colour_need_a_setting(tmp_path, slices):
    root = pairs(tmp_path, slices)
    for i, s in enumerate(slices):
        put(root / "images" / f"{i:02}.png", np.stack([s.image, s.image // 2, s.image], -1))
    (fault,) = survey(root).faults
    assert (fault.what, fault.names) == ("images are in colour", []) and "data.channels=3" in fault.remedy
    (root / "masks").rename(tmp_path / "gone")
    (root / "images").rename(root / "glioma")  # of classes, `data.source=classes` makes grey ones
    assert "images are in colour" not in kinds(root)


def test_defects_of_the_table(tmp_path, slices):
    root = pairs(tmp_path, slices)
    whole = (root / "meta.csv").read_text().splitlines()
    (root / "meta.csv").write_text("\n".join([*whole[:-2], "10.png,,p5,train", "77.png,x,p7,test"]))
    found = kinds(root)
    assert found == {
        "rows without a file": ["'77.png'"],
        "rows with an empty label, patient or split": ["10.png"],
        "files without a row": ["11.png"],
    }
    assert survey(root).records[0].patient == "p0"
    found = kinds(root, patient_column="pid", label_column="set")
    assert "no column 'pid' in meta.csv" in found and "no patients" in found
    assert survey(root, label_column="set", patient_column="").records[0].label == "test"
    (root / "meta.csv").write_bytes(b"file,label\xff\xfe")
    assert any("cannot be read" in what for what in kinds(root))
    (root / "meta.csv").unlink()
    assert set(kinds(root)) == {"no labels", "no patients"}


def test_patients_in_two_splits(tmp_path, slices):
    root = pairs(tmp_path, slices)
    assert kinds(root, split_column="set") == {}
    text = (root / "meta.csv").read_text().replace("p5", "p0")
    (root / "meta.csv").write_text(text)
    assert kinds(root, split_column="set") == {"patients are in several splits": ["p0 (test + train)"]}
    (root / "meta.csv").write_text(text.replace("p0", "p5").replace(",val", ",train"))
    assert "no slice is val by column 'set'" in kinds(root, split_column="set")  # which a training refuses


def test_another_table_is_pointed_at(tmp_path, slices):
    root = pairs(tmp_path, slices)
    (root / "meta.csv").rename(root / "samples.csv")
    (fault,) = (fault for fault in survey(root).faults if "meta.csv" in fault.what)
    assert str(fault) == "no meta.csv, but samples.csv, name it by check_data.meta, and data.meta to train"
    assert kinds(root, meta="samples.csv") == {}


@pytest.fixture
def classes(tmp_path, slices):
    """Training/CLASS and Testing/CLASS, with three copies: across splits, across labels, within one class."""
    root = tmp_path / "classes"
    for i, s in enumerate(slices):
        split, label = ("Training", "Testing")[i % 2], ("glioma", "notumor")[i < 6]
        put(root / split / label / f"{i:02}.jpg", s.image)
    put(root / "Training" / "glioma" / "20.png", slices[7].image[:, ::-1])  # of Testing/glioma/07.jpg
    put(root / "Training" / "notumor" / "21.png", np.rot90(slices[8].image))  # of Training/glioma/08.jpg
    put(root / "Testing" / "notumor" / "22.png", slices[1].image)  # of Testing/notumor/01.jpg
    (root / "Training" / "._x.jpg").write_bytes(b"macOS")
    put(root / "Training" / ".ipynb_checkpoints" / "00-checkpoint.jpg", slices[0].image)
    return root


def test_a_folder_of_classes_and_its_copies(tmp_path, classes):
    lines = check_data(str(classes), str(tmp_path / "run")).splitlines()
    assert lines[0].endswith("15 images; 3 are copies of others in it")
    out = tmp_path / "run" / "check_data"
    rows = table(out / "duplicates.csv")
    assert {(r["file"], r["other"], r["transform"]) for r in rows} == {
        ("Training/glioma/20.png", "Testing/glioma/07.jpg", "flip_left_right"),
        ("Training/notumor/21.png", "Training/glioma/08.jpg", "rotate_270"),
        ("Testing/notumor/22.png", "Testing/notumor/01.jpg", "identity"),
    }
    assert all(re.fullmatch(r"(0\.9\d{3}|1\.0000)", r["similarity"]) for r in rows)
    files = {row["file"]: row for row in table(out / "files.csv")}
    assert (files["Testing/notumor/01.jpg"]["split"], files["Testing/notumor/01.jpg"]["label"]) == (
        "test",
        "notumor",
    )
    assert files["Training/glioma/20.png"]["defects"] == "copies of an image in another split"
    assert files["Training/notumor/21.png"]["defects"] == "copies of an image with another label"
    assert files["Testing/notumor/22.png"]["defects"] == ""
    text = " ".join(Page((out / "report.html").read_text()).text.split())
    assert "Training/glioma/20.png (train) = Testing/glioma/07.jpg (test)" in text
    assert "Labelled differently" in text
    assert "flip left right 1" in text
    assert "notumor 4 4 8" in text and "all 8 7 15" in text  # images by label and split


def test_classes_without_splits_and_bare_folders(tmp_path, slices):
    for i, s in enumerate(slices):
        put(tmp_path / "flat" / f"{i}.png", s.image)
        put(tmp_path / "deep" / "ab"[i % 2] / "more" / f"{i}.png", s.image)
    assert {(r.split, r.label) for r in survey(tmp_path / "deep").records} == {("", "a"), ("", "b")}
    assert {(r.split, r.label) for r in survey(tmp_path / "flat").records} == {("", "")}
    assert set(kinds(tmp_path / "flat")) == {
        "no masks: this is a folder of images",
        "no labels",
        "no patients",
    }


def test_images_without_masks_at_all(tmp_path, slices):
    put(tmp_path / "images" / "a.png", slices[0].image)
    assert set(kinds(tmp_path)) == {"no folder masks", "no labels", "no patients"}


def test_against_another_folder(tmp_path, slices, classes):
    other = pairs(tmp_path / "other", slices)
    text = check_data(str(classes), str(tmp_path / "run"), against=str(other))
    assert text.splitlines()[0].endswith(f"3 are copies of others in it, 15 of images in {other}")
    out = tmp_path / "run" / "check_data"
    between = {(r["file"], r["against"], r["transform"]) for r in table(out / "duplicates.csv")}
    assert len(between) == 15
    assert ("Testing/notumor/01.jpg", "images/01.png", "identity") in between
    assert ("Training/glioma/20.png", "images/07.png", "flip_left_right") in between
    assert ("Training/notumor/21.png", "images/08.png", "rotate_270") in between
    assert len(table(out / "duplicates_within.csv")) == 3
    assert "Copies in other" in Page((out / "report.html").read_text()).text
    check_data(str(classes), str(tmp_path / "run"))  # a list of an earlier check does not stay behind
    assert {p.name for p in out.iterdir()} == {"report.html", "files.csv", "duplicates.csv"}


def test_slices_of_one_patient_need_more_likeness(tmp_path, slices, monkeypatch):
    root = pairs(tmp_path / "data", slices)
    put(root / "images" / "01.png", slices[0].image)  # both p0
    put(root / "images" / "02.png", (slices[0].image * 0.6).astype(np.uint8))  # p1
    check_data(str(root), str(tmp_path / "run"))
    found = {(r["file"], r["other"]) for r in table(tmp_path / "run" / "check_data" / "duplicates.csv")}
    assert found == {(f"images/0{i}.png", f"images/0{j}.png") for i, j in ((1, 0), (2, 0), (2, 1))}
    monkeypatch.setattr(stage, "_SAME_PATIENT", 1.1)
    text = check_data(str(root), str(tmp_path / "run"))
    found = {(r["file"], r["other"]) for r in table(tmp_path / "run" / "check_data" / "duplicates.csv")}
    assert found == {(f"images/0{i}.png", f"images/0{j}.png") for i, j in ((2, 0), (2, 1))}
    assert "copies of an image of another patient (1)" in text


def test_the_page_needs_no_other_file_and_trusts_no_text(tmp_path, slices):
    hostile = "<script>alert(1)<"
    for i, s in enumerate(slices):
        put(tmp_path / "data" / f"{hostile}b>" / f"{i}&\"'><img src=x>.png", s.image)
    put(tmp_path / "data" / "other" / "\udcff.png", slices[0].image)  # bytes that are no UTF-8
    (tmp_path / "data" / "other" / "<b>.png").write_bytes(b"broken")
    check_data(str(tmp_path / "data"), str(tmp_path / "run"))
    page = Page((tmp_path / "run" / "check_data" / "report.html").read_text(encoding="utf-8"))
    assert not {"script", "b>", "iframe"} & {tag for tag, _ in page.tags}
    sources = [attributes["src"] for tag, attributes in page.tags if tag == "img"]
    assert len(sources) > 10 and all(source.startswith("data:image/") for source in sources)
    assert not [a for _, a in page.tags if any(name.startswith("on") for name in a)]
    links = {attributes["href"] for tag, attributes in page.tags if tag == "a"}
    assert links == {"files.csv", "duplicates.csv"}
    assert hostile in page.text


def test_nothing_to_read_is_an_error_that_leaves_nothing(tmp_path, slices):
    run = tmp_path / "run"
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.png").write_bytes(b"x")
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut" / "a.nii").write_bytes(b"x")
    pairs(tmp_path / "good", slices[:2])
    for data, against, told in (
        ("absent", None, "no such folder"),
        ("empty", None, "no PNG, JPEG, TIFF, BMP, DICOM, NIfTI, .mat, .npy or .npz files"),
        ("broken", None, "none of 1 images can be read: a.png: not a whole"),
        ("cut", None, "none of 1 images can be read: a.nii: not a NIfTI file"),
        ("good", "absent", "no such folder"),
    ):
        with pytest.raises(PixmedError, match=told) as caught:
            check_data(str(tmp_path / data), str(run), against=str(tmp_path / against) if against else None)
        assert "\n" not in str(caught.value)
    assert not run.exists()


def test_a_folder_of_somebody_else_is_not_replaced(tmp_path, slices):
    root, out = pairs(tmp_path / "data", slices[:2]), tmp_path / "run" / "check_data"
    out.mkdir(parents=True)
    (out / "thesis.txt").write_text("years of work")
    with pytest.raises(PixmedError, match="holds other files"):
        check_data(str(root), str(tmp_path / "run"))
    assert (out / "thesis.txt").read_text() == "years of work"


def test_a_failing_write_leaves_the_earlier_check(tmp_path, slices, monkeypatch):
    root, run = pairs(tmp_path / "data", slices[:2]), tmp_path / "run"
    check_data(str(root), str(run))
    before = {p.name: p.read_bytes() for p in (run / "check_data").iterdir()}

    def full(path, text):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(stage, "_write", full)
    with pytest.raises(PixmedError, match="No space left"):
        check_data(str(root), str(run))
    assert {p.name: p.read_bytes() for p in (run / "check_data").iterdir()} == before
    assert [p.name for p in run.iterdir()] == ["check_data"]


def test_the_same_data_give_the_same_bytes(tmp_path, classes):
    written = []
    for name in "ab":
        check_data(str(classes), str(tmp_path / name))
        written.append({p.name: p.read_bytes() for p in (tmp_path / name / "check_data").iterdir()})
        written[-1]["report.html"] = written[-1]["report.html"].replace(f"/{name}/check".encode(), b"")
    assert written[0].keys() == written[1].keys()
    assert [name for name in written[0] if written[0][name] != written[1][name]] == []


def test_from_the_command_line(tmp_path, slices):
    root = pairs(tmp_path / "data", slices[:6])
    words = ["--mode=check_data", f"--data={root}", f"--workdir={tmp_path / 'run'}"]

    def launch(*words: str) -> subprocess.CompletedProcess:
        command = [sys.executable, "-X", "importtime", str(ROOT / "launch.py"), *words]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)

    process = launch(*words, "--check_data.split_column=set")
    assert process.returncode == 0, process.stderr
    assert process.stdout.splitlines()[-1] == "defects: 0"
    imported = {line.rsplit("|", 1)[-1].strip() for line in process.stderr.splitlines()}
    assert "pixmed_jax.check_data" in imported
    assert not imported & {"jax", "flax", "tensorflow_datasets"}
    for wrong, code, told in (
        (words[:2], 2, "needs --data, the folder to read, and --workdir"),
        ([*words, "--check_data.maskss=x"], 2, "did you mean check_data.masks"),
        (["--config=configs/ghost.py:test", f"--data={root}"], 2, "training takes --config.data.dir"),
    ):
        process = launch(*wrong)
        assert process.returncode == code
        assert told in process.stderr.splitlines()[-1]


@pytest.mark.skipif(not REAL.is_dir(), reason="real data are not here")
def test_real_nuclei(tmp_path):
    root = str(REAL / "nuclei-dsb2018-256")
    lines = check_data(root, str(tmp_path / "named"), class_name="nucleus").splitlines()
    assert lines[-1] == "defects: 1: no patients (1)"
    text = (tmp_path / "named" / "check_data" / "report.html").read_text()
    assert "umour" not in text and "tumor" not in text and "nucleus" in Page(text).text
    lines = check_data(root, str(tmp_path)).splitlines()
    assert lines[0].endswith("334 images; 0 are copies of others in it")
    assert lines[-1] == "defects: 2: no labels (1); no patients (1)"


@pytest.mark.parametrize(("factor", "told"), [(16, "set data.intensity=0,4095"), (257, "")])
def test_twelve_bits_in_pictures_of_sixteen_are_told(tmp_path, slices, factor, told):
    """As scanners export them: by the range of the type they would train at a sixteenth of the brightness."""
    root = pairs(tmp_path / "data", slices)
    for path in (root / "images").iterdir():
        put(path, np.asarray(Image.open(path)).astype(np.uint16) * factor)
    text = check_data(str(root), str(tmp_path / "run"))
    page = Page((tmp_path / "run" / "check_data" / "report.html").read_text(encoding="utf-8")).text
    assert ("pictures of 16 bits whose values end at" in text) == bool(told)
    assert told in page
