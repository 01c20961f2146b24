"""Rows 16 and 17: all bad files, missing pairs and leaking patients are named before the first step."""

import json
from pathlib import Path

import numpy as np
import pytest
import runs
from test_folder import put
from test_loop import use_toy

from pixmed_jax.data import folder
from pixmed_jax.data.sources import open_dataset
from pixmed_jax.errors import PixmedError
from pixmed_jax.training.dry_run import dry_run
from pixmed_jax.training.loop import train

GOOD, BAD = 60, 40


def slice_of(number: int, size: int = 32) -> np.ndarray:
    return np.random.default_rng(number).integers(20, 230, (size, size)).astype(np.uint8)


def mask_of(number: int, size: int = 32) -> np.ndarray:
    mask = np.zeros((size, size), np.uint8)
    mask[8 : 14 + number % 5, 10:20] = 255
    return mask


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-60])


def flip(path: Path) -> None:
    contents = bytearray(path.read_bytes())
    contents[len(contents) // 2] ^= 16
    path.write_bytes(contents)


# What is wrong, and with which half of a pair.
FAULTS = {
    "empty": ("images", lambda path: path.write_bytes(b"")),
    "page": ("images", lambda path: path.write_text("<!doctype html><title>404</title>")),
    "cut": ("images", cut),
    "flipped": ("images", flip),
    "black": ("images", lambda path: put(path, np.zeros((32, 32), np.uint8))),
    "wide": ("images", lambda path: put(path, slice_of(1, 40))),
    "colour": ("images", lambda path: put(path, np.stack([slice_of(i) for i in range(3)], -1))),
    "deep": ("images", lambda path: put(path, slice_of(2).astype(np.uint16) * 200)),
    "float": ("images", lambda path: put(path.with_suffix(".tif"), slice_of(1).astype(np.float32))),
    "mask empty": ("masks", lambda path: path.write_bytes(b"")),
    "mask cut": ("masks", cut),
    "mask flipped": ("masks", flip),
    "mask tall": ("masks", lambda path: put(path, mask_of(1, 48))),
    "mask black": ("masks", lambda path: put(path, np.zeros((32, 32), np.uint8))),
    "mask white": ("masks", lambda path: put(path, np.full((32, 32), 255, np.uint8))),
    "mask noise": ("masks", lambda path: path.write_bytes(np.random.default_rng(0).bytes(900))),
}


def pairs(root: Path, names: list[str]) -> Path:
    """Pairs of 32 x 32, four to a patient, with a table."""
    rows = ["file,label,patient_group"]
    for number, name in enumerate(names):
        put(root / "images" / f"{name}.png", slice_of(number))
        put(root / "masks" / f"{name}.png", mask_of(number))
        rows.append(f"{name}.png,{'ab'[number // 4 % 2]},p{number // 4}")
    (root / "meta.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return root


@pytest.fixture(scope="module")
def mixed(tmp_path_factory) -> tuple[Path, list[str]]:
    """Sixty good pairs and forty bad ones among them, with the names of the bad."""
    kinds = list(FAULTS)
    bad = {f"x{i:03d}": kinds[i % len(kinds)] for i in range(BAD)}
    names = sorted([*(f"g{i:03d}" for i in range(GOOD)), *bad], key=lambda name: name[1:])
    root = pairs(tmp_path_factory.mktemp("mixed"), names)
    for name, kind in bad.items():
        part, damage = FAULTS[kind]
        if kind == "float":  # a name of its own in the table
            (root / part / f"{name}.png").unlink()
            table = (root / "meta.csv").read_text()
            (root / "meta.csv").write_text(table.replace(f"{name}.png", f"{name}.tif"))
        damage(root / part / f"{name}.png")
    return root, list(bad)


def config_of(factory, root: Path, **changes: object) -> dict:
    settings = {"data__source": "folder", "data__condition": "tumor", "data__load_scale": 1.0, **changes}
    return runs.config(factory, data__dir=str(root), **settings)


def named(message: str, bad: list[str]) -> list[str]:
    return [name for name in bad if name in message]


@pytest.mark.parametrize("resident", [4.0, 0.0])
def test_all_bad_files_are_named_before_the_first_step(
    resident, mixed, tmp_path, tmp_path_factory, monkeypatch
):
    """Headers first, since nothing else can be read without them; then every pixel of every split."""
    root, bad = mixed
    use_toy(monkeypatch)
    config = config_of(tmp_path_factory, root, train__resident_gb=resident)
    with pytest.raises(PixmedError) as error:
        train(config, tmp_path / "run")
    assert "\n" not in str(error.value)
    broken = named(str(error.value), bad)
    headers = {"empty", "page", "float", "wide", "mask empty", "mask cut", "mask tall", "mask noise"}
    assert len(broken) == sum(list(FAULTS)[i % len(FAULTS)] in headers for i in range(BAD))

    kept = pairs(tmp_path / "kept", [f"g{i:03d}" for i in range(GOOD)] + [n for n in bad if n not in broken])
    for name in bad:
        if name not in broken:
            part = FAULTS[list(FAULTS)[bad.index(name) % len(FAULTS)]][0]
            (kept / part / f"{name}.png").write_bytes((root / part / f"{name}.png").read_bytes())
    with pytest.raises(
        PixmedError, match=rf"{BAD - len(broken)} of {GOOD + BAD - len(broken)} slices"
    ) as error:
        train(config_of(tmp_path_factory, kept, train__resident_gb=resident), tmp_path / "run")
    assert "\n" not in str(error.value) and "data.faulty=skip" in str(error.value)
    assert sorted(named(str(error.value), bad) + broken) == bad
    assert not (tmp_path / "run").exists()


def test_a_dry_run_refuses_what_the_training_refuses(tmp_path, tmp_path_factory, capsys):
    """Pixels are looked at, of every slice and not of the first batch alone."""
    root = pairs(tmp_path / "data", [f"g{i:03d}" for i in range(GOOD)])
    bad = {"g007": cut, "g031": FAULTS["black"][1], "g055": FAULTS["deep"][1]}
    for name, damage in bad.items():
        damage(root / "images" / f"{name}.png")
    lines = []
    for start in (dry_run, train):
        with pytest.raises(PixmedError, match=rf"3 of {GOOD} slices cannot be used") as error:
            start(config_of(tmp_path_factory, root), tmp_path / "run")
        lines.append(str(error.value))
        assert named(lines[-1], list(bad)) == list(bad)
    assert lines[0] == lines[1]
    assert "every slice was read" not in capsys.readouterr().out
    assert dry_run(config_of(tmp_path_factory, root, data__faulty="skip"), tmp_path / "run") == 0
    told = f"every slice was read: {GOOD - 3} can be used, 3 cannot and are left out"
    assert told in capsys.readouterr().out.splitlines()
    assert not (tmp_path / "run").exists()


def test_a_tumour_lost_at_the_size_of_training_is_named_before(tmp_path, tmp_path_factory, capsys):
    """Slices are cropped from 36 x 36, where a dot goes that 32 x 32 keeps."""
    root = pairs(tmp_path / "data", [f"g{i:03d}" for i in range(GOOD)])
    dot = np.zeros((40, 40), np.uint8)
    dot[4, 4] = 255  # no centre of 36 lies in row 4
    for part, pixels in (("images", slice_of(7, 40)), ("masks", dot)):
        put(root / part / "g007.png", pixels)
    config = config_of(tmp_path_factory, root, data__size=32, data__load_scale=36 / 32)
    told = r"1 of 60 slices cannot be used: g007\.png: its tumour is lost at 36 x 36; repair"
    for start in (dry_run, train):
        with pytest.raises(PixmedError, match=told):
            start(config, tmp_path / "run")
    assert "every slice was read" not in capsys.readouterr().out
    config["data"]["faulty"] = "skip"
    assert dry_run(config, tmp_path / "run") == 0
    assert "every slice was read: 59 can be used, 1 cannot" in capsys.readouterr().out


def test_bad_files_are_skipped_by_policy_with_a_count(mixed, tmp_path, tmp_path_factory, monkeypatch, capsys):
    root, bad = mixed
    use_toy(monkeypatch)
    config = config_of(tmp_path_factory, root, data__faulty="skip", data__faulty_most=0.5)
    assert train(config, tmp_path / "run") == 0
    told = capsys.readouterr().err
    assert f"{BAD} of {GOOD + BAD} slices cannot be used" in told and "data.faulty=skip" in told
    assert named(told, bad) == bad
    split = json.loads((tmp_path / "run" / "split.json").read_text())
    assert {name for files in split.values() for name in files} == {f"g{i:03d}.png" for i in range(GOOD)}
    assert len(json.loads((tmp_path / "run" / "env.json").read_text())["left_out"]) == BAD


def test_what_is_missing_is_skipped_by_policy_with_a_count(tmp_path, tmp_path_factory, monkeypatch, capsys):
    """Images without a mask or a row, masks and rows without an image; a missing image counts once."""
    names = [f"g{i:03d}" for i in range(GOOD)]
    root = pairs(tmp_path / "data", names)
    (root / "masks" / "g003.png").unlink()
    (root / "images" / "g010.png").unlink()
    for part in ("images", "masks"):
        (root / part / "g020.png").unlink()
    table = (root / "meta.csv").read_text().splitlines()
    table = [line for line in table if not line.startswith("g030.png")]
    table = [line.replace("p10", "") if line.startswith("g040.png") else line for line in table]
    (root / "meta.csv").write_text("\n".join([*table, table[-1]]))  # the last one has two
    gone = ["g003", "g010", "g020", "g030", "g040", "g059"]
    use_toy(monkeypatch)
    config = config_of(tmp_path_factory, root, data__faulty="skip", data__faulty_most=0.1)
    assert train(config, tmp_path / "run") == 0
    told = capsys.readouterr().err
    assert f"6 of {GOOD} slices cannot be used" in told
    for name, why in {
        "g003": "images/g003.png: has no mask",
        "g010": "masks/g010.png: has no image",
        "g020": "images/g020.png: is missing, and meta.csv has it",
        "g030": "images/g030.png: has no row in meta.csv",
        "g040": "images/g040.png: has an empty label, patient or split in meta.csv",
        "g059": "images/g059.png: has several rows in meta.csv",
    }.items():
        assert why in told, name
    split = json.loads((tmp_path / "run" / "split.json").read_text())
    kept = {name.removesuffix(".png") for files in split.values() for name in files}
    assert kept == set(names) - set(gone)
    assert len(json.loads((tmp_path / "run" / "env.json").read_text())["left_out"]) == 6
    capped = config_of(tmp_path_factory, root, data__faulty="skip", data__faulty_most=0.05)["data"]
    with pytest.raises(PixmedError, match=rf"6 of {GOOD} slices .*more than data.faulty_most=0.05"):
        open_dataset(**capped, seed=0)
    with pytest.raises(PixmedError, match=r"1 images without a mask .*; 1 masks without an image"):
        open_dataset(**{**capped, "faulty": "error"}, seed=0)


def test_slices_that_lack_the_mask_of_a_class_are_skipped(tmp_path, tmp_path_factory):
    """Volumes and pictures alike; without a table, so that the masks' files name the classes."""
    root = tmp_path / "data"
    for i in range(12):
        put(root / "images" / f"a{i:02d}.png", slice_of(i))
        for name, moved in (("core", 0), ("edema", 12)):
            put(root / "masks" / f"a{i:02d}_{name}.png", np.roll(mask_of(i), moved, 0))
    (root / "masks" / "a03_edema.png").unlink()
    (root / "images" / "a05.png").unlink()
    (root / "images" / "v.npy").write_bytes(b"no header is read of what has no mask")
    data = config_of(tmp_path_factory, root, data__faulty="skip", data__faulty_most=0.5)["data"]
    data["split"]["by"] = "slice"
    with pytest.warns(UserWarning, match="scores will be too good"):
        dataset = open_dataset(**data, seed=0)
    assert dataset.source.label_names == ("core", "edema")
    assert set(dataset.source.files) == {f"a{i:02d}.png" for i in range(12)} - {"a03.png", "a05.png"}
    assert [line.rsplit("/", 1)[-1] for line in sorted(dataset.left_out)] == [
        "a03.png: lacks edema",
        "v.npy: has no mask",
        "a05_core.png: has no image",
        "a05_edema.png: has no image",
    ]


@pytest.mark.parametrize("faulty", ["error", "skip"])
def test_pictures_in_colour_are_named_before(faulty, tmp_path, tmp_path_factory, capsys):
    root = pairs(tmp_path / "data", [f"g{i:03d}" for i in range(GOOD)])
    for path in (root / "images").iterdir():
        put(path, np.stack([slice_of(i) for i in range(3)], -1))
    config = config_of(tmp_path_factory, root, data__faulty=faulty)
    with pytest.raises(PixmedError, match=r"images have 3 channels and data\.channels=1; set it to 3"):
        dry_run(config, tmp_path / "run")
    assert "every slice was read" not in capsys.readouterr().out
    config["data"]["channels"] = 3
    assert dry_run(config, tmp_path / "run") == 0


@pytest.mark.parametrize(
    "split",
    [{}, {"folds": 4, "fold": 1}, {"keep": 0.5}, {"by": "slice"}, {"seed": 5, "fractions": (0.6, 0.2, 0.2)}],
    ids=str,
)
@pytest.mark.filterwarnings("ignore:data.split.by=slice")  # one case asks for it, and it warns of leakage
def test_what_a_network_cannot_use_moves_nobody_to_another_split(split, tmp_path, tmp_path_factory):
    """A classifier keeps slices whose tumours are lost to a generator, more of them at a smaller size."""
    root = pairs(tmp_path, [f"g{i:03d}" for i in range(GOOD)])
    for i in (*range(8, 11), 20, 21, *range(40, 43), 52):
        dot = np.zeros((32, 32), np.uint8)
        dot[2, 2] = 255  # at 24 x 24 it is there, at 16 x 16 it is not
        put(root / "masks" / f"g{i:03d}.png", dot)
    homes, left_out = [], []
    for changes in ({"condition": "label"}, {}, {"size": 16}, {"size": 24}):
        data = config_of(tmp_path_factory, root, data__faulty="skip", data__faulty_most=0.2)["data"]
        changes = {"size": 32, **changes}
        dataset = open_dataset(**{**data, **changes, "split": {**data["split"], **split}}, seed=0)
        left_out.append(len(dataset.left_out))
        homes.append({f: name for name, files in dataset.description().items() for f in files})
        assert set(homes[-1]) == set(dataset.source.files)
        rows = np.concatenate(list(dataset.rows.values()))
        assert sorted(rows.tolist()) == list(range(GOOD - left_out[-1]))
    assert left_out == [0, 0, 9, 0]
    assert homes[2].items() <= homes[0].items() and homes[0] == homes[1] == homes[3]


def test_a_split_that_nobody_is_left_in_is_refused(tmp_path, tmp_path_factory):
    root = pairs(tmp_path, [f"g{i:03d}" for i in range(GOOD)])
    lines = (root / "meta.csv").read_text().splitlines()
    given = ["split", *["train"] * 40, *["val"] * 4, *["test"] * 16]
    (root / "meta.csv").write_text("\n".join(f"{a},{b}" for a, b in zip(lines, given, strict=True)))
    for i in range(40, 44):
        cut(root / "images" / f"g{i:03d}.png")
    options = {"data__faulty": "skip", "data__faulty_most": 0.1, "data__split_column": "split"}
    data = config_of(tmp_path_factory, root, **options)["data"]
    with pytest.raises(PixmedError, match=r"none of the 4 slices in val can be used \(.*g040\.png.*1 more"):
        open_dataset(**data, seed=0)


def test_more_bad_files_than_the_cap_are_refused(mixed, tmp_path_factory):
    root, bad = mixed
    data = config_of(tmp_path_factory, root, data__faulty="skip", data__faulty_most=0.3)["data"]
    with pytest.raises(
        PixmedError, match=rf"{BAD} of {GOOD + BAD} .*more than data.faulty_most=0.3"
    ) as error:
        open_dataset(**data, seed=0)
    assert named(str(error.value), bad) == bad and "\n" not in str(error.value)


def test_where_nothing_is_bad_the_policy_changes_nothing(tmp_path, tmp_path_factory):
    root = pairs(tmp_path, [f"g{i:03d}" for i in range(GOOD)])
    found = [
        open_dataset(**config_of(tmp_path_factory, root, data__faulty=faulty)["data"], seed=0)
        for faulty in ("error", "skip")
    ]
    assert found[0].description() == found[1].description()
    assert found[1].left_out == ()


@pytest.mark.parametrize(("key", "value"), [("faulty", "maybe"), ("faulty_most", 1.0), ("faulty_most", -0.1)])
def test_policies_that_do_not_exist(key, value, tmp_path, tmp_path_factory):
    data = config_of(tmp_path_factory, tmp_path, **{f"data__{key}": value})["data"]
    with pytest.raises(PixmedError, match=rf"data\.{key}={value!r}"):
        open_dataset(**data, seed=0)


# ---------------------------------------------------------------- pairs and patients
def test_every_missing_pair_is_listed(tmp_path):
    names = [f"g{i:03d}" for i in range(80)]
    root = pairs(tmp_path, names)
    for name in names[:30]:
        (root / "masks" / f"{name}.png").unlink()
    for name in names[40:65]:
        (root / "images" / f"{name}.png").unlink()
    with pytest.raises(PixmedError) as error:
        folder.source(root)
    message = str(error.value)
    assert "\n" not in message
    lone_images, lone_masks = message.split("masks without an image")
    assert "30 images without a mask" in lone_images
    assert named(lone_images, names) == names[:30]
    assert lone_images.endswith("25 ") and named(lone_masks, names) == names[40:65]


def test_every_leaking_patient_is_listed(tmp_path, tmp_path_factory):
    root = pairs(tmp_path, [f"g{i:03d}" for i in range(GOOD)])
    lines = (root / "meta.csv").read_text().splitlines()
    given = ["split"] + [("train", "val", "test", "train")[i % 4] for i in range(GOOD)]
    (root / "meta.csv").write_text("\n".join(f"{a},{b}" for a, b in zip(lines, given, strict=True)))
    data = config_of(tmp_path_factory, root, data__split_column="split")["data"]
    with pytest.raises(PixmedError, match="15 patients are in several splits") as error:
        open_dataset(**data, seed=0)
    assert "\n" not in str(error.value)
    for patient in range(15):
        assert f"p{patient} (train + val + test)" in str(error.value)
