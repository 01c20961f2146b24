"""Folders of classes: labels, the set's own split, masks of zeros, and what is refused."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pixmed_jax.data import classes
from pixmed_jax.data.slices import load
from pixmed_jax.data.splits import split
from pixmed_jax.data.survey import survey
from pixmed_jax.errors import PixmedError

REAL = Path(__file__).parents[2] / "shared" / "data" / "brain-tumor-mri-224"


def put(path: Path, value: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((np.arange(64).reshape(8, 8) + value).astype(np.uint8)).save(path)


@pytest.fixture
def root(tmp_path):
    for half, count in (("Training", 40), ("Testing", 5)):
        for i in range(count):
            for label in ("glioma", "notumor"):
                put(tmp_path / half / label / f"{label[0]}{i:02}.png", i)
    return tmp_path


def test_labels_files_and_masks_of_zeros(root):
    source = classes.source(root)
    assert source.label_names == ("glioma", "notumor")
    assert source.files[0] == "Testing/glioma/g00.png" and len(source.files) == 90
    assert [f.split("/")[1] for f in source.files] == [source.label_names[i] for i in source.labels]
    image, mask = source.read(3)
    np.testing.assert_array_equal(image, np.arange(64).reshape(8, 8) + 3)
    assert mask.shape == (8, 8) and not mask.any()
    slices = load(source, range(5), 8)  # without masks is no fault here
    assert slices.masks.max() == 0 and slices.limits.tolist() == [[0, 255]] * 5


def test_the_sets_own_split(root):
    source = classes.source(root)
    with pytest.raises(PixmedError, match=r"name no patients.*data\.split\.by=slice"):
        split(source, given=source.given)
    with pytest.warns(UserWarning, match=r"split\.by=slice"):
        rows = split(source, by="slice", given=source.given)
    files = {name: {source.files[i] for i in found} for name, found in rows.items()}
    assert files["test"] == {f for f in source.files if f.startswith("Testing/")}
    assert 0 < len(files["val"]) < 25 and all(f.startswith("Training/") for f in files["val"])
    put(root / "Training" / "glioma" / "new.png")  # a file more moves no other
    again = classes.source(root)
    moved = {f for f, g in zip(again.files, again.given, strict=True) if g == "val"} ^ files["val"]
    assert moved <= {"Training/glioma/new.png"}


def test_a_table_tells_the_patients(root):
    """And check_data agrees: the classes are the folders', so it misses no column of labels."""
    files = classes.source(root).files
    whose = [f"{file.split('/')[0]}-{i // 2}" for i, file in enumerate(files)]
    rows = [f"{file},{who}" for file, who in zip(files, whose, strict=True)]
    (root / "meta.csv").write_text("\n".join(["file,patient_group", *rows]))
    source = classes.source(root)
    assert source.files == files and source.groups == tuple(whose)
    home = dict(zip(source.groups, source.given, strict=True))  # validation is drawn by patient, too
    assert set(home.values()) == {"train", "val", "test"} and [home[g] for g in source.groups] == [
        *source.given
    ]
    found = split(source, given=source.given, seed=0)
    assert {name: len(of) for name, of in found.items()} == dict(Counter(source.given))
    found = [fault.what for fault in survey(root).faults]
    assert not [what for what in found if what.startswith("no ") and "masks" not in what]
    (root / "meta.csv").write_text("\n".join(["file,patient_group", *rows[1:]]))
    with pytest.raises(PixmedError, match=r"meta\.csv: 1 files without a row"):
        classes.source(root)
    assert classes.source(root, meta="").groups == files
    with pytest.raises(PixmedError, match=r"who\.csv: cannot be read"):
        classes.source(root, meta="who.csv")


def test_colours_that_are_made_grey_are_told(root, capsys):
    classes.source(root, grey=True)
    assert "colour" not in capsys.readouterr().err
    for path in root.rglob("*.png"):
        Image.open(path).convert("RGB").save(path)
    classes.source(root, grey=True)
    assert "colour" not in capsys.readouterr().err
    Image.new("RGB", (8, 8), (200, 20, 20)).save(root / "Testing" / "glioma" / "g00.png")
    classes.source(root, grey=True)
    assert "pictures in colour are made grey; data.channels=3 leaves them" in capsys.readouterr().err
    classes.source(root, grey=False)
    assert capsys.readouterr().err == ""


def test_files_deeper_than_a_class_are_none_of_it(root):
    files = classes.source(root).files
    put(root / "Testing" / "glioma" / "originals" / "g00.png")
    assert classes.source(root).files == files


def test_hidden_folders_and_files_are_no_class(root):
    files = classes.source(root).files
    put(root / "Training" / ".ipynb_checkpoints" / "g00-checkpoint.png")
    put(root / "Testing" / "glioma" / "._g00.png")
    put(root / ".cache" / "glioma" / "g00.png")
    source = classes.source(root)
    assert source.label_names == ("glioma", "notumor") and source.files == files
    hidden = root.rename(root.parent / ".data")  # where the user keeps a folder is no matter
    assert classes.source(hidden).files == files


def test_a_folder_of_its_own_validates(root):
    for i in range(3):
        put(root / "valid" / "glioma" / f"v{i}.png")
    source = classes.source(root)
    found = {file for file, name in zip(source.files, source.given, strict=True) if name == "val"}
    assert found == {f"valid/glioma/v{i}.png" for i in range(3)}  # and no training image besides


@pytest.mark.parametrize("rule", ["auto", "percentiles"])
def test_limits_of_an_image_that_was_read_cost_no_second_decoding(root, rule, monkeypatch):
    source = classes.source(root, rule=rule)
    expected = source.limits(7)
    source = classes.source(root, rule=rule)
    source.read(7)
    monkeypatch.setattr(classes.decode, "read_image", None)
    assert source.limits(7) == expected


def test_without_halves_there_is_no_split_of_its_own(tmp_path):
    for label in "ab":
        put(tmp_path / label / "1.png")
    assert classes.source(tmp_path).given == ()


def test_limits_invert_what_a_rule_did(root):
    source = classes.source(root, rule="10,60")
    image, _ = source.read(0)
    expected = (np.arange(64).reshape(8, 8)).clip(10, 60)
    np.testing.assert_array_equal(np.rint(image / 65535 * 50 + 10), expected)
    assert source.limits(0) == (10, 60)


def test_what_is_no_folder_of_classes(tmp_path):
    with pytest.raises(PixmedError, match=r"nowhere: no such folder; set data\.dir"):
        classes.source(tmp_path / "nowhere")
    put(tmp_path / "only" / "1.png")
    with pytest.raises(PixmedError, match="images of 1 classes"):
        classes.source(tmp_path)
    put(tmp_path / "Training" / "a" / "1.png")
    with pytest.raises(PixmedError, match="has only beside a training and a test folder"):
        classes.source(tmp_path)
    with pytest.raises(PixmedError, match=r"data\.intensity=window"):
        classes.source(tmp_path, rule="window")
    for label in "ab":
        put(tmp_path / "c" / label / "1.png")
    (tmp_path / "c" / "a" / "2.jpg").write_bytes(b"<html>")
    with pytest.raises(PixmedError, match=r"1 files are unusable \(.*2\.jpg: not a whole PNG"):
        classes.source(tmp_path / "c")


@pytest.mark.skipif(not REAL.is_dir(), reason="real data are not here")
def test_real_set():
    source = classes.source(REAL)
    assert source.label_names == ("glioma", "meningioma", "notumor", "pituitary")
    assert len(source.files) == 6200
    assert set(source.given) == {"train", "val", "test"}


def test_tinted_pictures_are_one_kind_with_the_others_where_grey_is_asked_for(tmp_path):
    """Luminance as JPEG has it: a red of 200 is 60, and a colour of equal parts is itself."""
    every = np.arange(256, dtype=np.uint8).reshape(16, 16)
    for i in range(3):
        put(tmp_path / "a" / f"{i}.png")
    red = np.zeros((8, 8, 3), np.uint8)
    red[..., 0] = 200
    (tmp_path / "b").mkdir()
    Image.fromarray(red).save(tmp_path / "b" / "red.png")
    Image.fromarray(np.stack([every] * 3, -1)).save(tmp_path / "b" / "white.png")
    coloured, source = classes.source(tmp_path), classes.source(tmp_path, grey=True)
    with pytest.raises(PixmedError, match=r"4 slices are 8 bit grey but 1 are not \(b/red.png"):
        load(coloured, range(5), 8)
    images = load(source, range(5), 8).images
    assert images.shape == (5, 8, 8, 1) and (images[3] == 60).all()
    np.testing.assert_array_equal(source.read(4)[0], every)


def test_a_name_that_is_no_utf_8(root):
    put(root / "Training" / "glioma" / "m\udce9.png", 7)
    with pytest.raises(PixmedError, match=r"1 file names are not UTF-8 \(Training/glioma/m\\xe9\.png\), ren"):
        classes.source(root)


def test_a_validation_folder_without_a_test_folder_is_not_shuffled_in(root):
    (root / "Testing").rename(root / "val")
    with pytest.raises(PixmedError, match="none to test on; call the latter test"):
        classes.source(root)
