"""Masks in colours: what each means, and every doubt."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pixmed_jax.data import folder, masks
from pixmed_jax.data.survey import survey
from pixmed_jax.errors import PixmedError

BLACK, RED, GREEN, BLUE, YELLOW = (0, 0, 0), (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0)


def field(*colours: tuple[int, int, int]) -> np.ndarray:
    """[8, 8, 3]: one pixel of the first colour, two of the second ... on black."""
    mask = np.zeros((8, 8, 3), np.uint8)
    for i, colour in enumerate(colours):
        mask[i, : i + 1] = colour
    return mask


def write(root: Path, drawn: dict[str, np.ndarray], meta: str = "", suffix: str = ".png") -> Path:
    for kind in ("images", "masks"):
        (root / kind).mkdir(parents=True, exist_ok=True)
    for name, mask in drawn.items():
        Image.fromarray(mask).save(root / "masks" / f"{name}{suffix}")
        Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(root / "images" / f"{name}.png")
    if meta:
        (root / "meta.csv").write_text("file,label,patient_group\n" + meta)
    return root


def numbers(*values: int) -> np.ndarray:
    """What `field` of as many colours stands for."""
    mask = np.zeros((8, 8), np.uint8)
    for i, value in enumerate(values):
        mask[i, : i + 1] = value
    return mask


def test_each_colour_is_a_class(tmp_path, capsys):
    """Channels first, as one-hot masks have them, then mixtures; not by the order in which they appear."""
    root = write(tmp_path, {"a": field(BLUE, RED), "b": field(YELLOW, BLUE), "c": field(GREEN, GREEN)})
    source = folder.source(root)
    assert source.label_names == ("red", "green", "blue", "yellow")
    for row, expected in enumerate((numbers(3, 1), numbers(4, 3), numbers(2, 2))):
        np.testing.assert_array_equal(source.read(row)[1], expected)
    assert [source.label_names[i] for i in source.labels] == ["red", "blue", "green"]  # most pixels
    assert "masks: colours: black = 0, red = 1, green = 2, blue = 3, yellow = 4" in capsys.readouterr().err


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_one_colour_is_the_tumour_of_its_slice(tmp_path, mode):
    drawn = {"a": field(RED), "b": field(RED, RED)}
    if mode == "RGBA":
        drawn = {name: np.array(Image.fromarray(mask).convert(mode)) for name, mask in drawn.items()}
    table = "a.png,glioma,p\nb.png,meningioma,q\n"
    source = folder.source(write(tmp_path, drawn, table))
    np.testing.assert_array_equal(source.read(0)[1], numbers(1))
    np.testing.assert_array_equal(source.read(1)[1], numbers(2, 2))
    assert folder.source(tmp_path, meta="").label_names == ("tumor",)


def test_white_and_black_masks_among_colours(tmp_path):
    """A grey file beside coloured ones is white on black, or a slice without a tumour."""
    drawn = {"a": field((255, 255, 255)), "b": field(RED), "c": field(), "d": numbers(255, 255)}
    source = folder.source(write(tmp_path, drawn), allow_empty_masks=True)
    assert source.label_names == ("red", "white")
    expected = (numbers(2), numbers(1), numbers(), numbers(2, 2))
    for row, mask in enumerate(expected):
        np.testing.assert_array_equal(source.read(row)[1], mask)


@pytest.mark.parametrize(
    ("drawn", "told"),
    [
        ({"a": field(RED, (128, 0, 0))}, r"the colours #ff0000, #800000; colours of classes are red, green"),
        ({"a": field(RED), "b": field((0, 128, 0))}, r"the colours #ff0000, #008000; "),
        ({"a": field(RED), "b": numbers(1, 1)}, r"the colours #ff0000, #010101; "),
        ({"a": np.full((8, 8, 3), RED, np.uint8)}, r"the colours #ff0000 and no black; "),
    ],
    ids=["smoothed", "two levels", "labels among colours", "no background"],
)
def test_doubt_is_an_error_that_shows_the_colours(tmp_path, drawn, told):
    with pytest.raises(PixmedError, match=rf"masks: masks hold {told}") as caught:
        folder.source(write(tmp_path, drawn))
    assert "\n" not in str(caught.value)
    faults = {fault.what.partition(",")[0]: fault for fault in survey(tmp_path).faults}
    assert any(what.startswith("masks hold the colours #ff0000") for what in faults)


def test_colours_as_jpeg_are_refused(tmp_path):
    with pytest.raises(PixmedError, match=r"the colours #.*and not as JPEG"):
        folder.source(write(tmp_path, {"a": field(RED, GREEN, BLUE, RED)}, suffix=".jpg"))


def test_which_colour_is_which_label_is_not_guessed(tmp_path):
    table = "a.png,glioma,p\nb.png,meningioma,q\n"
    root = write(tmp_path, {"a": field(RED), "b": field(GREEN)}, table)
    told = r"the colours red, green, and which of them is glioma, meningioma is not said; .*label_column=''"
    with pytest.raises(PixmedError, match=told):
        folder.source(root)
    assert [f.names for f in survey(root).faults] == [["masks/a.png", "masks/b.png"]]
    source = folder.source(root, label_column="")
    assert source.label_names == ("red", "green") and source.labels.tolist() == [0, 1]


def test_check_data_takes_colours_for_classes(tmp_path):
    root = write(tmp_path, {"a": field(BLUE, RED), "b": field(YELLOW)})
    assert {fault.what for fault in survey(root).faults} == {"no labels", "no patients"}
    assert [record.tumour_pixels for record in survey(root).records] == [3, 1]


def test_a_colour_that_the_other_masks_do_not_have():
    with pytest.raises(
        PixmedError, match=r"a\.png: holds the colours #00ff00 beside those of the other masks"
    ):
        masks.from_colours(np.array([[0, 0x100FF00]], np.uint32), {0xFF0000: "red"}, "a.png")


def test_a_scale_in_float32_leaves_whole_numbers():
    """255 x float32(1 / 255) is 1.00000006, as SPM writes masks."""
    scaled = np.array([[0, 255]]) * float(np.float32(1 / 255))
    assert scaled[0, 1] != 1
    assert masks.as_uint8(scaled, "m").tolist() == [[0, 1]]
    with pytest.raises(PixmedError, match=r"holds 0\.5, and a mask holds whole numbers"):
        masks.as_uint8(np.array([[0.5]]), "m")
