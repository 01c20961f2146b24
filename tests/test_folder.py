"""Folders of pairs: the index, every planted fault, and the meaning of mask values."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pixmed_jax.data import folder, pairs, tables
from pixmed_jax.data.splits import split
from pixmed_jax.data.survey import survey
from pixmed_jax.enhancement import files
from pixmed_jax.errors import PixmedError

REAL = Path(__file__).parents[2] / "shared" / "data" / "brain-tumor-segmentation-256"
META = "file,label,patient_group\na.png,glioma,p1\nb.png,meningioma,p1\nc.png,glioma,p2\n"


def put(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def image(height: int = 12, width: int = 10) -> np.ndarray:
    return np.arange(height * width).reshape(height, width).astype(np.uint8)


def mask(value: int = 255, height: int = 12, width: int = 10) -> np.ndarray:
    pixels = np.zeros((height, width), np.uint8)
    pixels[3:6, 4:8] = value
    return pixels


@pytest.fixture
def root(tmp_path):
    """Three pairs, two labels, two patients; written out of order."""
    for name in "cab":
        put(tmp_path / "images" / f"{name}.png", image())
        put(tmp_path / "masks" / f"{name}.png", mask())
    (tmp_path / "meta.csv").write_text(META)
    return tmp_path


def fault(root: Path, **options: object) -> str:
    with pytest.raises(PixmedError) as caught:
        folder.source(root, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(str(root))
    return message


def paths(folder: str, *stems: str) -> dict[str, pairs.Paths]:
    return {stem: (Path(folder, f"{stem}.png"),) for stem in stems}


def test_each_lone_file_is_one_fault_and_of_one_kind():
    """An image without any mask lacks no class of one; where no two names meet, all are alone."""
    entries, classes, faults = pairs.pair(paths("i", "a", "b"), paths("m", "b", "c"))
    assert [(fault.what, fault.names) for fault in faults] == [
        (pairs.NO_MASK, ["a.png"]),
        (pairs.NO_IMAGE, ["c.png"]),
    ]
    assert [(entry.stem, entry.fault) for entry in entries] == [
        *(("a", "has no mask"), ("b", ""), ("c", "has no image"))
    ]
    assert classes == ()
    entries, classes, faults = pairs.pair(paths("i", "a", "b"), paths("m", "c"))
    assert [(fault.what, fault.names) for fault in faults] == [
        (pairs.NO_MASK, ["a.png", "b.png"]),
        (pairs.NO_IMAGE, ["c.png"]),
    ]
    assert [entry.fault for entry in entries] == ["has no mask", "has no mask", "has no image"]


def test_the_classes_are_those_of_the_image_that_has_most():
    masks = paths("m", "x_a", "x_b", "y_b")
    entries, classes, faults = pairs.pair(paths("i", "x", "y"), masks)
    assert classes == ("a", "b")
    assert [(fault.what, fault.names) for fault in faults] == [(pairs.NO_CLASS, ["y.png lacks a"])]
    assert [entry.masks for entry in entries] == [[masks["x_a"], masks["x_b"]], [masks["y_b"]]]


def test_a_series_of_dicom_files_is_one_entry_whose_mask_may_be_called_mask():
    """Of a folder with single slices each has its own; their order is that of their names."""
    series = {f"{case}/{i}": (Path(f"i/{case}/{i}.dcm"),) for case in ("x", "y", "z") for i in (1, 2)}
    masks = paths("m", "x_mask", "y", "z/1", "z/2")
    entries, _, faults = pairs.pair(series, masks)
    assert not faults
    assert [(entry.stem, [path.stem for path in entry.image]) for entry in entries] == [
        *(("x", ["1", "2"]), ("y", ["1", "2"]), ("z/1", ["1"]), ("z/2", ["2"]))
    ]
    assert [entry.masks for entry in entries] == [[mask] for mask in masks.values()]


def test_index_is_sorted_and_follows_the_table(root):
    source = folder.source(root)
    assert source.files == ("a.png", "b.png", "c.png")
    assert source.label_names == ("glioma", "meningioma")
    assert source.labels.tolist() == [0, 1, 0] and not source.counted
    assert source.groups == ("p1", "p1", "p2")
    assert source.planes == ("", "", "")


def test_rows_of_the_table_may_come_in_any_order_and_with_a_byte_order_mark(root):
    head, *rows = META.splitlines()
    (root / "meta.csv").write_text("\ufeff" + "\n".join([head, *rows[::-1]]), encoding="utf-8")
    assert folder.source(root).labels.tolist() == [0, 1, 0]


@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("separator", [";", "\t", ","])
def test_columns_may_be_parted_as_spreadsheets_do(root, separator, mark):
    rows = [
        ["file", '"label, or; class\tso"', "patient_group"],
        ["a.png", "glioma", '"1,5; 2"'],
        ["b.png", "x y", "p1"],
        ["c.png", "glioma", "p2"],
    ]
    text = mark + "\r\n".join(separator.join(row) for row in rows)
    (root / "meta.csv").write_text(text, encoding="utf-8", newline="")
    source = folder.source(root, label_column="label, or; class\tso")
    assert source.label_names == ("glioma", "x y")
    assert source.groups == ("1,5; 2", "p1", "p2")


def test_a_header_of_one_column_and_one_without_end(tmp_path):
    path = tmp_path / "meta.csv"
    path.write_text("file\na;b.png\n")
    assert tables.read_table(path, "data.meta") == (["file"], [{"file": "a;b.png"}])
    path.write_text('"' + ";" * 200_000)
    with pytest.raises(PixmedError, match="field larger than field limit"):
        tables.read_table(path, "data.meta")


def test_a_table_may_leave_out_suffixes(tmp_path):
    """Of pictures in subfolders, of names with dots in them, and of volumes, whose suffix has two parts."""
    for name in ("x/a.png", "y/a.bmp", "case1.5.png"):
        put(tmp_path / "images" / name, image())
        put(tmp_path / "masks" / name, mask())
    for part, values in (("images", image()), ("masks", mask())):
        np.save(tmp_path / part / "v.npy", np.stack([values, values], -1))
    (tmp_path / "meta.csv").write_text(
        "file,label,patient_group\nv,c,p4\nx/a,a,p1\ny/a.bmp,b,p2\ncase1.5,c,p3\n"
    )
    source = folder.source(tmp_path)
    assert dict(zip(source.files, source.groups, strict=True)) == {
        "x/a.png": "p1",
        "y/a.bmp": "p2",
        "case1.5.png": "p3",
        "v.npy#000": "p4",
        "v.npy#001": "p4",
    }
    (tmp_path / "meta.csv").write_text(
        "file,label,patient_group\nx/a,a,p1\nx/a.png,a,p2\na,b,p2\ny/a.png,b,p3\n"
    )
    message = fault(tmp_path)
    assert "1 files with several rows (x/a.png)" in message
    assert "2 rows without a file ('a', 'y/a.png')" in message


def test_stems_in_doubt_name_nothing():
    """check_data goes on where two images share a stem, and does not choose between them."""
    rows = [{"file": "a"}, {"file": "a.png"}, {"file": "b"}]
    found = tables.match(rows, ["a.png", "a.bmp", "b.png"], "file", [])
    assert found.absent == ["a"]
    assert found.unusable == {"a.bmp": "has no row"}


def test_lists_of_a_table_are_cut_and_say_how_images_are_called(root):
    rows = "".join(f"scan {i},glioma,p1\n" for i in range(70))
    (root / "meta.csv").write_text("file,label,patient_group\n" + rows)
    message = fault(root)
    assert "70 rows without a file ('scan 0'," in message and " and 50 more)" in message
    assert "name files below data.images, such as a.png, remove the rows" in message
    assert len(message) < 700


def test_without_a_table_each_file_is_its_own_group(root):
    for options in ({"meta": ""}, {"label_column": "", "patient_column": ""}):
        source = folder.source(root, **options)
        assert source.label_names == ("tumor",)
        assert source.groups == source.files
    (root / "meta.csv").unlink()
    assert folder.source(root).groups == ("a.png", "b.png", "c.png")


def test_the_class_of_masks_that_nothing_names(root, capsys):
    source = folder.source(root, meta="", class_name="nucleus")
    assert source.label_names == ("nucleus",)
    assert "255 = nucleus" in capsys.readouterr().err
    assert folder.source(root, class_name="nucleus").label_names == ("glioma", "meningioma")


def test_suffixes_subfolders_and_hidden_files(tmp_path):
    put(tmp_path / "images" / "x" / "a.PNG", image())
    put(tmp_path / "masks" / "x" / "a_mask.tif", mask())
    put(tmp_path / "images" / "y" / "a.bmp", image())
    put(tmp_path / "masks" / "y" / "a.png", mask())
    (tmp_path / "images" / "._a.png").write_bytes(b"macOS")
    for name in ("images", "masks"):  # which a notebook leaves behind, and which would be one more pair
        put(tmp_path / name / ".ipynb_checkpoints" / "a-checkpoint.png", mask())
        put(tmp_path / name / "x" / ".trash" / "old" / "b.png", mask())
    source = folder.source(tmp_path)
    assert source.files == ("x/a.PNG", "y/a.bmp")
    np.testing.assert_array_equal(source.read(0)[0], image())


def test_names_that_are_not_utf8(tmp_path):
    """As of archives that were packed on another system; those of hidden files are nobody's business."""
    put(tmp_path / "images" / "a.png", image())
    put(tmp_path / "masks" / "a.png", mask())
    (tmp_path / "images" / os.fsdecode(b"._\xe9.png")).touch()
    assert folder.source(tmp_path).files == ("a.png",)
    put(tmp_path / "images" / os.fsdecode(b"caf\xe9.png"), image())
    told = r": 1 file names are not UTF-8 \(caf\\xe9\.png\), rename them"
    for read in (folder.source, lambda root: files.Folder(root / "images", "full", "--input")):
        with pytest.raises(PixmedError, match=told):
            read(tmp_path)


def test_indexing_decodes_no_pixel(root):
    path = root / "images" / "a.png"
    path.write_bytes(path.read_bytes()[:-30])  # whole header, broken pixels
    source = folder.source(root)
    with pytest.raises(PixmedError, match=r"a\.png: cannot be decoded"):
        source.read(0)


def test_lone_and_doubled_files_are_all_listed(root):
    put(root / "images" / "d.png", image())
    put(root / "images" / "e.png", image())
    put(root / "masks" / "f.png", mask())
    put(root / "masks" / "a_mask.png", mask())
    put(root / "images" / "b.bmp", image())
    message = fault(root)
    assert "2 images without a mask (d.png, e.png)" in message
    assert "1 masks without an image (f.png)" in message
    assert "2 masks for an image that has another (a.png, a_mask.png)" in message
    assert "1 files share their stem with another (images/b.png)" in message


def test_unequal_sizes_and_unusable_headers_are_all_listed(root):
    put(root / "masks" / "a.png", mask(height=10, width=12))
    put(root / "masks" / "b.png", mask(width=11))
    (root / "images" / "c.png").write_bytes(b"<html>")
    message = fault(root)
    assert "2 masks differ in size from their image" in message
    assert "a.png 12x10 against 10x12, b.png 12x10 against 12x11" in message
    assert "1 files are unusable" in message
    assert "c.png: not a whole PNG" in message


def test_missing_and_empty_folders_name_their_key(root):
    assert "set data.dir" in fault(root / "absent")
    message = fault(root, images="pictures", masks="labels")
    assert "no folder pictures, set data.images; no folder labels, set data.masks" in message
    (root / "films").mkdir()
    (root / "films" / "a.avi").write_bytes(b"")
    message = fault(root, images="films")
    assert "no PNG, JPEG, TIFF, BMP, DICOM, NIfTI, .mat, .npy or .npz files in films" in message
    assert "but files of .avi, set data.images" in message


def test_a_named_table_must_exist(root):
    assert "set data.meta" in fault(root, meta="metadata.csv")


def test_a_missing_column_names_those_found(root):
    message = fault(root, label_column="class", patient_column="pid")
    assert "'class' (set data.label_column), 'pid' (set data.patient_column)" in message
    assert "it has file, label, patient_group" in message
    (root / "meta.csv").write_text(META.replace(",", "|"))
    assert fault(root).endswith(
        "it has file|label|patient_group; part its columns by commas, semicolons or tabs"
    )


def test_faults_of_the_table_are_all_listed(root):
    (root / "meta.csv").write_text(
        "file,label,patient_group\na.png,glioma,p1\na.png,glioma,p2\nb.png,,p1\nz.png,glioma,p3\n"
        "../secret.png,glioma,p4\n/etc/passwd,glioma,p5\nx\\..\\a.png,glioma,p6\n"
    )
    message = fault(root)
    assert "3 rows whose file is not a plain relative path" in message
    assert "'../secret.png', '/etc/passwd'" in message
    assert "1 rows without a file ('z.png')" in message
    assert "1 files with several rows (a.png)" in message
    assert "1 rows with an empty label, patient or split (b.png)" in message
    assert "1 files without a row (c.png)" in message


@pytest.mark.parametrize(
    "content",
    [
        b"file,label,patient_group\na.png,x,p\0\nb.png,x,q\nc.png,x,r\n",
        b"file,label,patient_group\na.png," + b"x" * 200_000 + b",p\n",
        b"\xff\xfe\x00binary\x80",
        b"",
    ],
    ids=["NUL", "endless field", "binary", "empty"],
)
def test_tables_that_are_none(root, content):
    (root / "meta.csv").write_bytes(content)
    try:
        groups = folder.source(root).groups
    except PixmedError as error:
        assert str(error).startswith(f"{root / 'meta.csv'}: ") and "\n" not in str(error)
    else:
        assert b"\0" in content and groups == ("p\0", "q", "r")  # Python 3.11 and later read it


def test_a_table_without_end_is_not_read(root, monkeypatch):
    monkeypatch.setattr(tables, "_MAX_TABLE", 50)
    assert "over 50 bytes); set data.meta to a CSV" in fault(root)


def test_folders_that_contain_themselves_end(root):
    (root / "images" / "again").symlink_to(root / "images", target_is_directory=True)
    (root / "masks" / "again").symlink_to(root, target_is_directory=True)
    assert folder.source(root).files == ("a.png", "b.png", "c.png")


def test_a_label_column_of_free_text_is_refused(tmp_path):
    names = [f"{i:03}.png" for i in range(255)]
    for name in names:
        put(tmp_path / "images" / name, image(4, 4))
        put(tmp_path / "masks" / name, mask(255, 4, 4))
    (tmp_path / "meta.csv").write_text("file,label\n" + "".join(f"{n},{n}\n" for n in names))
    assert "names 255 labels, over 254; set data.label_column" in fault(tmp_path, patient_column="")


@pytest.mark.parametrize("value", [1, 255])
def test_a_binary_mask_takes_the_label_of_its_slice(root, value):
    for name in "ab":
        put(root / "masks" / f"{name}.png", mask(value))
    source = folder.source(root)
    for row, expected in ((0, 1), (1, 2)):
        pixels = source.read(row)[1]
        assert pixels.dtype == np.uint8
        np.testing.assert_array_equal(pixels, mask(expected))


def test_a_mask_of_classes_is_used_as_it_is(root):
    classes = mask(2)
    classes[9, 9] = 1
    put(root / "masks" / "a.png", classes)
    np.testing.assert_array_equal(folder.source(root).read(0)[1], classes)


def test_other_mask_values_are_shown(root):
    smooth = mask()
    smooth[3, 4:8] = [7, 90, 90, 254]
    put(root / "masks" / "a.png", smooth)
    with pytest.raises(PixmedError, match=r"a\.png: values 0, 7, 90, 254, 255; .*or 0 to 2 for 2 labels"):
        folder.source(root).read(0)
    put(root / "masks" / "a.png", mask(2))
    with pytest.raises(PixmedError, match="values 0, 2; a mask holds 0 and 1, or 0 and 255; save it"):
        folder.source(root, meta="").read(0)  # with one label there is no class 2


def test_empty_full_and_constant_slices(root):
    put(root / "masks" / "a.png", mask(0))
    put(root / "masks" / "b.png", np.full((12, 10), 255, np.uint8))
    put(root / "images" / "c.png", np.full((12, 10), 7, np.uint8))
    source = folder.source(root)
    for row, reason in enumerate(["no tumour pixel; .*data.allow_empty_masks", "no background", "is 7"]):
        with pytest.raises(PixmedError, match=reason):
            source.read(row)
    assert not folder.source(root, allow_empty_masks=True).read(0)[1].any()


@pytest.mark.skipif(not REAL.is_dir(), reason="real data are not here")
def test_real_set():
    source = folder.source(REAL)
    assert len(source.files) == 2578
    assert source.label_names == ("glioma", "meningioma", "pituitary")
    assert np.bincount(source.labels).tolist() == [1259, 594, 725]
    assert len(set(source.groups)) == 169


def test_a_split_column_is_read_and_a_leaking_patient_refused(root):
    table = root / "meta.csv"
    table.write_text("file,label,patient_group,set\na.png,x,p1,train\nb.png,x,p2,val\nc.png,x,p1,train\n")
    index = folder.source(root, split_column="set")
    rows = split(index, given=index.given)
    assert {name: r.tolist() for name, r in rows.items()} == {"train": [0, 2], "val": [1], "test": []}

    table.write_text(table.read_text().replace("c.png,x,p1,train", "c.png,x,p1,test"))
    index = folder.source(root, split_column="set")
    with pytest.raises(PixmedError, match=r"p1 \(train \+ test\)"):
        split(index, given=index.given)
    assert "no column 'fold' (set data.split_column)" in fault(root, split_column="fold")


def test_a_space_behind_a_name_is_no_other_patient_and_no_other_label(root):
    (root / "meta.csv").write_text(META.replace("glioma,p2", "glioma ,p1 "))
    source = folder.source(root)
    assert source.label_names == ("glioma", "meningioma")
    assert set(source.groups) == {"p1"}
    (root / "meta.csv").write_text(META.replace("p2", " "))
    assert "1 rows with an empty label, patient or split (c.png)" in fault(root)


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (("3", "3.0", "4"), "1 patients written in several ways (3 = 3.0), write each in one way"),
        (("003", "3", "30"), "(003 = 3)"),
        (("pat3", "Pat3", "pat4"), "(Pat3 = pat3)"),
    ],
)
def test_a_patient_written_in_two_ways_is_refused(root, names, told):
    """As a spreadsheet writes numbers: half of a patient would be trained on, the other half tested."""
    rows = zip(("a.png", "b.png", "c.png"), names, strict=True)
    (root / "meta.csv").write_text(
        "file,label,patient_group\n" + "".join(f"{file},glioma,{name}\n" for file, name in rows)
    )
    assert told in fault(root)


@pytest.mark.parametrize("empty", ["nan", "NaN", "N/A", "None", "null", "-", "unknown"])
def test_what_programs_write_for_nothing_names_no_patient(root, empty):
    """All such slices would be one patient's. A label may be called so: none is a class of its own."""
    table = "file,label,patient_group\na.png,none,1\nb.png,glioma,2\nc.png,glioma,{}\n"
    (root / "meta.csv").write_text(table.format("12"))
    assert folder.source(root).label_names == ("glioma", "none")
    (root / "meta.csv").write_text(table.format(empty))
    assert "1 rows with an empty label, patient or split (c.png)" in fault(root)


def test_masks_that_mark_the_background_are_told(root, capsys):
    folder.source(root)
    assert "invert them" not in capsys.readouterr().err
    for name in "abc":
        put(root / "masks" / f"{name}.png", 255 - mask())
    folder.source(root)
    assert "half of the masks mark more than 90% of their picture" in capsys.readouterr().err


def test_class_numbers_in_a_jpeg_are_refused(root):
    """Quality 100 makes 2 of some 1 beside a border."""
    (root / "masks" / "a.png").unlink()
    Image.fromarray(mask(1)).save(root / "masks" / "a.jpg", quality=100)
    read = folder.source(root).read
    with pytest.raises(PixmedError, match=r"a\.jpg: the mask holds class numbers, which JPEG blurs"):
        read(0)
    Image.fromarray(np.zeros((12, 10), np.uint8)).save(root / "masks" / "a.jpg")
    assert not folder.source(root, allow_empty_masks=True).read(0)[1].any()


@pytest.mark.parametrize("word", ["mask", "seg"])
def test_images_and_masks_may_be_in_one_folder(tmp_path, word):
    """As NAME and NAME_mask; each picture would else be its own mask."""
    for name in ("case_1", "case_2"):
        put(tmp_path / f"{name}.png", image())
        put(tmp_path / f"{name}_{word}.png", mask())
    source = folder.source(tmp_path, images=".", masks=".")
    assert source.files == ("case_1.png", "case_2.png") and source.label_names == ("tumor",)
    np.testing.assert_array_equal(source.read(0)[1] > 0, mask() > 0)
    for name in ("case_1", "case_2"):
        (tmp_path / f"{name}_{word}.png").unlink()
    told = "images and masks are to be in one folder, and nothing there is called NAME_mask or NAME_seg, set"
    assert told in fault(tmp_path, images=".", masks=".")


def test_names_of_two_systems_meet(tmp_path):
    """macOS writes an accent as a character of its own; table, images and masks may come from two systems."""
    apart, joined = "Mu\u0308ller", "M\u00fcller"
    for image_name, mask_name, row in ((apart, joined, joined), (joined, apart, apart + ".png")):
        root = tmp_path / str(image_name == apart)
        put(root / "images" / f"{image_name}.png", image())
        put(root / "masks" / f"{mask_name}_mask.png", mask())
        (root / "meta.csv").write_text(f"file,label,patient_group\n{row},glioma,p1\n", encoding="utf-8")
        source = folder.source(root)
        assert (source.files, source.groups) == ((f"{image_name}.png",), ("p1",))
        assert survey(root).faults == []
    put(root / "images" / f"{apart}.png", image())
    assert "files share their stem with another" in fault(root)


def test_masks_of_one_class_each_are_in_doubt(tmp_path):
    for name, kind in (("a", "glioma"), ("b", "meningioma")):
        put(tmp_path / "images" / f"{name}.png", image())
        put(tmp_path / "masks" / f"{name}_{kind}.png", mask())
    told = "2 images without the mask of a class (a.png lacks meningioma, b.png lacks glioma)"
    assert told in fault(tmp_path)


def test_classes_of_files_are_not_labels_of_the_table(tmp_path):
    for name in "ab":
        put(tmp_path / "images" / f"{name}.png", image())
        put(tmp_path / "masks" / f"{name}_core.png", mask())
        put(tmp_path / "masks" / f"{name}_edema.png", mask()[::-1])
    (tmp_path / "meta.csv").write_text("file,label,patient_group\na.png,LGG,p1\nb.png,HGG,p2\n")
    assert "name the classes core, edema, and the table's labels are HGG, LGG" in fault(tmp_path)
    source = folder.source(tmp_path, label_column="")
    assert (source.label_names, source.several) == (("core", "edema"), True)
    assert source.groups == ("p1", "p2")


def test_empty_masks_all_and_some(root, capsys):
    for name in "abc":
        put(root / "masks" / f"{name}.png", mask(0))
    folder.source(root, allow_empty_masks=True)
    assert "all 3 masks are empty; is it the folder" in capsys.readouterr().err
    put(root / "masks" / "a.png", mask(2) + mask(1)[::-1])
    folder.source(root, allow_empty_masks=True, meta="")
    assert "2 slices without a tumour are labelled 'class 1'" in capsys.readouterr().err
    folder.source(root, allow_empty_masks=True)
    assert "without a tumour" not in capsys.readouterr().err
