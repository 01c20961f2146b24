"""Slices that a list leaves out, before anything is split."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pixmed_jax.check_data import check_data
from pixmed_jax.data import folder, phantom
from pixmed_jax.data.sources import open_dataset
from pixmed_jax.errors import PixmedError

OPTIONS = {"size": 32, "load_scale": 1.0, "channels": 1, "seed": 0}


@pytest.fixture
def root(tmp_path) -> Path:
    """Twelve slices of six patients; patient i's slices are row 2i and 2i + 1."""
    rows = ["file,label,patient_group"]
    for patient in range(6):
        for i, s in enumerate(phantom.patient_slices(patient, size=64, count=2)):
            name = f"{2 * patient + i:02}.png"
            for kind, pixels in (("images", s.image), ("masks", s.mask * np.uint8(255))):
                (tmp_path / "data" / kind).mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(tmp_path / "data" / kind / name)
            rows.append(f"{name},{phantom.LABEL_NAMES[s.label]},p{patient}")
    (tmp_path / "data" / "meta.csv").write_text("\n".join(rows))
    return tmp_path / "data"


def opened(root: Path, table: str, text: str | None = None):
    path = root.parent / table
    if text is not None:
        path.write_text(text)
    return open_dataset(source="folder", dir=str(root), leave_out=str(path), split={}, **OPTIONS)


def files(dataset) -> list[str]:
    return list(dataset.source.files)


@pytest.mark.parametrize("prefix", ["", "images/"])
def test_named_files_are_gone_and_the_others_unchanged(root, capsys, prefix):
    whole = folder.source(root)
    dataset = opened(root, "list.csv", f"why,file\nx,{prefix}03.png\ny,{prefix}00.png\nz,{prefix}03.png\n")
    kept = [i for i in range(12) if i not in (0, 3)]
    assert files(dataset) == [f"{i:02}.png" for i in kept]
    assert dataset.source.groups == tuple(whole.groups[i] for i in kept)
    assert dataset.source.labels.tolist() == whole.labels[kept].tolist()
    for row, i in enumerate(kept):
        np.testing.assert_array_equal(dataset.source.read(row)[0], whole.read(i)[0])
        np.testing.assert_array_equal(dataset.source.read(row)[1], whole.read(i)[1])
    assert sorted(np.concatenate(list(dataset.rows.values())).tolist()) == list(range(10))
    assert "list.csv: 2 of 12 slices are left out" in capsys.readouterr().err


def test_slices_of_volumes_are_left_out_and_keep_their_limits(tmp_path):
    root = tmp_path / "data"
    for patient in range(4):
        values = np.random.default_rng(patient).normal(size=(16, 16, 4)).astype(np.float32) * (patient + 1)
        mask = np.zeros((16, 16, 4), np.uint8)
        mask[4:9, 5:9] = 1
        for kind, array in (("images", values), ("masks", mask)):
            (root / kind).mkdir(parents=True, exist_ok=True)
            np.save(root / kind / f"p{patient}.npy", array)
    whole = folder.source(root)
    dataset = opened(root, "list.csv", "file\np0.npy#001\np2.npy#000\n")
    assert len(whole.files) == 16 and len(dataset.source.files) == 14
    assert dataset.source.groups[:2] == ("p0.npy", "p0.npy") and dataset.source.masked
    for row, name in enumerate(dataset.source.files):
        i = whole.files.index(name)
        np.testing.assert_array_equal(dataset.source.read(row)[0], whole.read(i)[0])
        assert dataset.source.limits(row) == whole.limits(i)
    assert len({dataset.source.limits(row) for row in range(14)}) == 4
    _, slices = dataset.load(np.array([13, 0]), 16)
    assert slices.files == ("p3.npy#003", "p0.npy#000")
    np.testing.assert_array_equal(slices.limits, [whole.limits(15), whole.limits(0)])


def test_a_list_may_name_slices_that_show_no_tumour(tmp_path, capsys):
    """check_data compares all slices of a volume, and writes such lists."""
    root = tmp_path / "data"
    for patient in range(4):
        values = np.random.default_rng(patient).integers(0, 999, (16, 16, 4))
        mask = np.zeros((16, 16, 4), np.uint8)
        mask[4:9, 5:9, 1:3] = 1
        for kind, array in (("images", values), ("masks", mask)):
            (root / kind).mkdir(parents=True, exist_ok=True)
            np.save(root / kind / f"p{patient}.npy", array)
    np.save(root / "images" / "p3.npy", np.load(root / "images" / "p1.npy")[::-1])
    check_data(str(root), str(tmp_path / "run"))
    dataset = opened(root, "run/check_data/duplicates.csv")
    assert files(dataset) == [f"p{i}.npy#{k:03}" for i in range(3) for k in (1, 2)]
    assert "2 of 8 slices are left out" in capsys.readouterr().err
    with pytest.raises(PixmedError, match=r"1 files are not in the data \(p3\.npy#004\)"):
        opened(root, "list.csv", "file\np3.npy#003\np3.npy#004\n")


def test_given_splits_follow_their_slices(root):
    table = root / "meta.csv"
    head, *rows = table.read_text().splitlines()
    sets = ["train"] * 8 + ["val"] * 2 + ["test"] * 2
    table.write_text("\n".join([f"{head},set", *(f"{r},{s}" for r, s in zip(rows, sets, strict=True))]))
    (root.parent / "list.csv").write_text("file\n00.png\n08.png\n")
    dataset = open_dataset(
        source="folder",
        dir=str(root),
        leave_out=str(root.parent / "list.csv"),
        split_column="set",
        split={},
        **OPTIONS,
    )
    names = {split: [files(dataset)[i] for i in rows] for split, rows in dataset.rows.items()}
    assert names["train"] == [f"{i:02}.png" for i in range(1, 8)]
    assert (names["val"], names["test"]) == (["09.png"], ["10.png", "11.png"])


def test_an_empty_list_leaves_all(root):
    assert len(files(opened(root, "list.csv", "file,other,transform,similarity\n"))) == 12


def test_a_list_of_check_data_leaves_one_of_each(root, tmp_path):
    """Each copy is left out and each original kept, also where the copy is named as the other."""
    for i, original in enumerate((2, 5)):
        for kind in ("images", "masks"):
            picture = Image.open(root / kind / f"{original:02}.png")
            picture.transpose(Image.Transpose.ROTATE_90).save(root / kind / f"{12 + i}.png")
    table = root / "meta.csv"
    table.write_text(table.read_text() + "\n12.png,glioma,p8\n13.png,glioma,p9\n")
    check_data(str(root), str(tmp_path / "run"))
    dataset = opened(root, "run/check_data/duplicates.csv")
    assert files(dataset) == [f"{i:02}.png" for i in range(12)]

    other = tmp_path / "other"
    (other / "x").mkdir(parents=True)
    (root / "images" / "07.png").rename(other / "x" / "public.png")
    Image.open(other / "x" / "public.png").transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(
        root / "images" / "07.png"
    )
    check_data(str(root), str(tmp_path / "run"), against=str(other))
    there = opened(root, "run/check_data/duplicates.csv")
    check_data(str(other), str(tmp_path / "run"), against=str(root))  # this is now the second set
    back = opened(root, "run/check_data/duplicates.csv")
    assert files(there) == files(back) == [f"{i:02}.png" for i in range(14) if i != 7]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("file\n00.png\n98.png\n99.png\n", r"2 files are not in the data \(98\.png, 99\.png\); remove"),
        ("file,against\n99.png,98.png\n", r"1 files are not in the data \(99\.png\); remove"),
        ("file,against\n00.png,03.png\n", "both its columns are in these data.*keep the column of this set"),
        ("name\n00.png\n", "no column 'file'; set data.leave_out"),
        ("file\n" + "".join(f"{i:02}.png\n" for i in range(12)), "names all 12 slices"),
        (None, "list.csv: cannot be read .*set data.leave_out to a CSV"),
    ],
    ids=["unknown", "unknown on both sides", "known on both sides", "column", "all", "missing"],
)
def test_faults_of_the_list(root, text, told):
    with pytest.raises(PixmedError, match=told):
        opened(root, "list.csv", text)
