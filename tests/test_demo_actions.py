"""What the page does when something on it is used, without a browser, a server or a network."""

import base64
import io
import json
import re
import zipfile

import nibabel
import numpy as np
import pytest
from demo_models import SIDE, disc, labels_only, painter, scene
from PIL import Image

from pixmed_jax import pages
from pixmed_jax.data import volumes
from pixmed_jax.demo import view
from pixmed_jax.demo.actions import Actions, Asked, with_seed
from pixmed_jax.demo.scene import AS_DRAWN, pack, room, unpack
from pixmed_jax.errors import PixmedError


@pytest.fixture
def actions():
    return Actions(painter())


@pytest.fixture
def asked(actions) -> Asked:
    return actions.first[0]


def shown(changes) -> np.ndarray:
    return unpack(json.loads(changes["mask"])["shown"], SIDE)


def drawn(changes) -> np.ndarray:
    return unpack(json.loads(changes["mask"])["drawn"], SIDE)


def pictures(changes) -> list[np.ndarray]:
    """The images in a page's HTML."""
    found = re.findall(r'src="data:image/png;base64,([^"]+)"', changes["images"])
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))) for data in found]


def with_mask(asked: Asked, tumor: np.ndarray, stroke: int = 1) -> Asked:
    return asked._replace(mask=json.dumps(json.loads(asked.mask) | {"drawn": pack(tumor), "stroke": stroke}))


def test_the_page_begins_with_the_first_head(actions):
    asked, first = actions.first
    assert (asked.head, asked.label, asked.number, asked.seed) == ("0", "glioma", 1, 0)
    (image,) = pictures(first)
    np.testing.assert_array_equal(shown(first), scene().tumor)
    assert set(np.unique(image[scene().tumor])) == {round(255 * 0.8 * 2 / 4)}  # an Echo of class 2 of 4
    assert first["images"].count("<path") == 2 and "Dice 1.00" in first["images"]


def test_a_slider_changes_what_is_shown_and_not_what_was_drawn(actions, asked):
    changes = actions.answer(asked._replace(right=25.0))
    np.testing.assert_array_equal(drawn(changes), scene().tumor)
    np.testing.assert_array_equal(shown(changes), np.roll(scene().tumor, 8, axis=1) & room(scene()))
    (image,) = pictures(changes)
    np.testing.assert_array_equal(image == 102, shown(changes))
    assert "size" not in changes  # the page's own


def test_a_stroke_is_drawn_into_what_the_sliders_show(actions, asked):
    moved = asked._replace(size=150.0, right=10.0)
    tumor = disc(20, 12, 4)
    changes = actions.drawn(with_mask(moved, tumor, stroke=5))
    np.testing.assert_array_equal(shown(changes), tumor)
    assert {name: changes[name] for name in ("size", "right", "down")} == AS_DRAWN._asdict()
    assert json.loads(changes["mask"])["stroke"] == 5  # which tells the canvas what it answers


def test_a_tumour_over_the_border_is_shown_as_far_as_the_head_goes(actions, asked):
    changes = actions.drawn(with_mask(asked, disc(16, 29, 6)))
    assert not (shown(changes) & ~room(scene())).any()
    assert "over air or skull" in changes["images"]


def test_another_head_brings_its_tumour_and_class(actions, asked):
    changes = actions.chosen(asked._replace(head="1", size=30.0))
    assert (changes["label"], changes["own"], changes["size"]) == ("meningioma", None, 100)
    np.testing.assert_array_equal(shown(changes), scene("meningioma", (18, 12)).tumor)
    assert set(np.unique(pictures(changes)[0][shown(changes)])) == {51}  # class 1


def test_the_class_colours_the_mask(actions, asked):
    colours = {json.loads(actions.answer(asked._replace(label=name))["mask"])["colour"]
               for name in ("meningioma", "glioma")}  # fmt: skip
    assert colours == {"#e6553c", "#46a0eb"}


def test_seed_and_number(actions, asked):
    four = pictures(actions.answer(asked._replace(number=4)))
    assert len(four) == 4 and len({image.tobytes() for image in four}) == 4
    changes = actions.again(asked._replace(seed=2**32 - 1))
    assert changes["seed"] == 0
    assert actions.again(asked)["seed"] == 1
    assert actions.answer(asked._replace(seed=None))["images"]  # the field was emptied
    assert pictures(actions.again(asked))[0].tobytes() != pictures(actions.answer(asked))[0].tobytes()


def test_healthy(actions, asked):
    changes = actions.drawn(with_mask(asked, np.zeros((SIDE, SIDE), bool)))
    assert "your mask" not in changes["images"] and "no tumour" in changes["images"]
    assert 102 not in pictures(changes)[0]


@pytest.mark.parametrize("form", ["png", "nifti"])
def test_images_and_masks_are_saved(actions, asked, form, tmp_path):
    file = actions.saved(asked._replace(number=4, seed=3, right=25.0), form)["file"]
    assert file["name"] == f"synthetic_glioma_seed3_{form}.zip"
    with zipfile.ZipFile(io.BytesIO(base64.b64decode(file["data"]))) as archive:
        archive.extractall(tmp_path)
    about = json.loads((tmp_path / "about.json").read_text())
    assert about["what"] == "synthetic images, not for diagnosis" and about["seed"] == 3
    images, masks = (sorted((tmp_path / name).iterdir()) for name in ("images", "masks"))
    assert [path.name for path in images] == [path.name for path in masks] and len(images) == 4
    changes = actions.answer(asked._replace(number=4, seed=3, right=25.0))
    for image, mask, seen in zip(images, masks, pictures(changes), strict=True):
        if form == "png":
            np.testing.assert_array_equal(np.asarray(Image.open(image)), seen)
            np.testing.assert_array_equal(np.asarray(Image.open(mask)), 255 * shown(changes))
        else:
            np.testing.assert_allclose(picture(image), seen, atol=0.51)  # units of the data: 0 to 255
            np.testing.assert_array_equal(picture(mask), shown(changes))
            assert nibabel.load(image).shape == (SIDE, SIDE, 1)


def picture(path) -> np.ndarray:
    """A picture of a NIfTI file, in its units."""
    array = volumes.open_array(path)
    return volumes.stack(array, array.read(), "stored")[0] * array.slope + array.intercept


# ---------------------------------------------------------------- uploads
def write(path, values: np.ndarray):
    Image.fromarray(values.astype(np.uint8)).save(path)
    return path


@pytest.mark.parametrize("lit", [1, 255])
def test_an_uploaded_mask_of_another_size(actions, asked, tmp_path, lit):
    """Twice as large, and wide: it is set into the middle of a square."""
    mask = np.zeros((32, 64), np.uint8)
    mask[8:24, 24:40] = lit
    changes = actions.uploaded(asked._replace(label="meningioma", size=40.0), write(tmp_path / "m.png", mask))
    expected = np.zeros((SIDE, SIDE), bool)
    expected[12:20, 12:20] = True
    np.testing.assert_array_equal(shown(changes), expected)
    assert (changes["label"], changes["size"]) == ("meningioma", 100)  # whoever uploads it chose the class
    assert "head" not in changes  # it lies in the head that is shown


def test_an_uploaded_label_map_brings_its_own_head(actions, asked, tmp_path):
    label_map = np.where(disc(16, 10, 9), 3, 0)
    label_map[disc(16, 10, 3)] = 1  # whose place becomes head again once it is moved
    changes = actions.uploaded(asked, write(tmp_path / "map.png", label_map))
    assert changes["head"] is None and changes["label"] == "meningioma"
    np.testing.assert_array_equal(changes["own"].anatomy, 3 * disc(16, 10, 9))
    np.testing.assert_array_equal(shown(changes), label_map == 1)
    # It stays until a head is chosen, and is what is drawn into.
    own = asked._replace(head=None, own=changes["own"], label="meningioma", mask=changes["mask"])
    np.testing.assert_array_equal(pictures(actions.answer(own))[0] == 153, label_map == 3)
    moved = actions.answer(own._replace(right=10.0))
    np.testing.assert_array_equal(pictures(moved)[0] == 51, np.roll(label_map == 1, 3, axis=1))
    assert actions.chosen(own._replace(head="0"))["own"] is None


def test_of_a_volume_the_slice_with_most_tumour(actions, asked, tmp_path):
    volume = np.zeros((SIDE, SIDE, 3), np.uint8)
    volume[10:14, 10:14, 0] = volume[8:20, 10:16, 1] = volume[12, 12, 2] = 1
    nibabel.Nifti1Image(volume, np.eye(4)).to_filename(tmp_path / "v.nii.gz")
    changes = actions.uploaded(asked, tmp_path / "v.nii.gz")
    assert shown(changes).sum() == 12 * 6


@pytest.mark.parametrize(
    ("name", "data", "told"),
    [
        ("a.png", b"\x89PNG\r\n\x1a\n" + b"x" * 500, "a.png: cannot be decoded"),
        ("a.png", b"", "a.png: 0 bytes, an empty file;"),
        ("a.npy", b"", "a.npy: 0 bytes, an empty file;"),
        ("a.svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>", "a.svg: is no mask; give a picture or a"),
        ("a.txt", b"a mask", "a.txt: is no mask; give a picture or a volume (.bmp, .dcm"),
        ("a.npy", b"\x93NUMPY\x01\x00" + b"\xff" * 200, "a.npy: "),
        ("a.nii.gz", b"\x1f\x8b" + b"\x00" * 100, "a.nii.gz: "),
        ("a", b"\x80\x04cos\nsystem\n", "a: "),
    ],
)
def test_hostile_files_are_told_in_a_line_without_their_folder(actions, asked, tmp_path, name, data, told):
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(PixmedError) as error:
        actions.uploaded(asked, path)
    line = str(error.value)
    assert line.startswith(told) and "\n" not in line and str(tmp_path) not in line


@pytest.mark.parametrize(
    ("values", "told"), [([0, 9], "m.png: has the values 0, 9"), ([0, 0], "m.png: shows no tumour")]
)
def test_masks_that_do_not_fit(actions, asked, tmp_path, values, told):
    with pytest.raises(PixmedError, match=told):
        actions.uploaded(asked, write(tmp_path / "m.png", np.resize(values, (SIDE, SIDE))))


# ---------------------------------------------------------------- other models, and what nobody draws
def test_a_model_that_is_told_the_class_alone():
    actions = Actions(labels_only())
    asked, first = actions.first
    assert asked.head is None and "your mask" not in first["images"] and "Dice" not in first["images"]
    changes = actions.answer(asked._replace(label="glioma", number=4))
    assert pictures(changes)[0][0, 0] == round(255 * 0.8)
    with zipfile.ZipFile(
        io.BytesIO(base64.b64decode(actions.saved(asked, "png")["file"]["data"]))
    ) as archive:
        assert [name.split("/")[0] for name in archive.namelist()] == ["images", "about.json"]


@pytest.mark.parametrize("mask", ["", "[]", "{}", '{"drawn": 3, "stroke": []}', "[" * 10**5, "null"])
def test_what_no_canvas_sends(actions, asked, mask):
    with pytest.raises(PixmedError, match="reload the page"):
        actions.answer(asked._replace(mask=mask))


@pytest.mark.parametrize(("typed", "taken"), [(-5, 0), (99999999999, 2**32 - 1)])
def test_a_seed_that_there_is_not(asked, typed, taken):
    corrected, changes, line = with_seed(asked._replace(seed=typed))
    assert (corrected.seed, changes) == (taken, {"seed": taken})
    assert line == f"seed: {typed} is not from 0 to 4294967295; {taken} is taken"
    for seed in (0, 2**32 - 1, None):  # and an empty field is 0
        assert with_seed(asked._replace(seed=seed)) == (asked._replace(seed=seed), {}, "")


def test_a_class_that_there_is_not(actions, asked):
    with pytest.raises(PixmedError, match="this model knows meningioma, glioma"):
        actions.answer(asked._replace(label="<b>"))


def test_an_outline_runs_along_the_border():
    """Of a square from pixel 8 to 15: its sides lie at 8 and 16."""
    mask = np.zeros((SIDE, SIDE), bool)
    mask[8:16, 8:16] = True
    points = np.array([point.split() for point in re.findall(r"[\d.]+ [\d.]+", view.outline(mask))], float)
    np.testing.assert_allclose([points.min(), points.max()], [8, 16], atol=0.11)
    assert view.outline(~mask | mask).count("M") == 1  # closed at the picture's edge too
    assert view.outline(mask & ~mask) == ""


def test_a_fault_is_text():
    """Whatever a file's name or a stranger's label puts into it."""
    told = pages.render("pixmed_jax.demo", "fault.html.j2", line="<img src=x>: no & such")
    assert told.strip() == '<p class="fault" role="alert">&lt;img src=x&gt;: no &amp; such</p>'
