"""Sampling: a whole dataset or none, the same bytes for the same seed, and nothing foreign touched."""

import copy
import json
import re
from collections import Counter
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import runs
from PIL import Image
from runs import pixels, rows
from test_cards import faults

from pixmed_jax import conditions, inference, sample_files, sampling
from pixmed_jax import config as configs
from pixmed_jax.data import folder
from pixmed_jax.data.slices import load as load_slices
from pixmed_jax.data.sources import open_dataset
from pixmed_jax.data.tissues import survey
from pixmed_jax.errors import PixmedError
from pixmed_jax.sampling import sample
from pixmed_jax.training.start import begin

TELLING = ("manifest.csv", "data_sheet.json", "data_sheet.md")  # of the whole sampling, not of one image


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return runs.trained(tmp_path_factory)


@pytest.fixture(scope="module")
def generator(run, draw):
    return runs.loud(inference.load(run), draw)


@pytest.fixture(autouse=True)
def loaded_once(monkeypatch, generator):
    """Loading takes most of a sampling's time, and test_inference.py tests it."""
    monkeypatch.setattr(sampling.inference, "load", lambda workdir, step=None: generator)


@pytest.fixture(scope="module")
def held_out(run):
    """(label maps, slices) of the run's test split."""
    config = runs.checkpoint.finished(run / "checkpoints")[-1].config
    dataset = open_dataset(**config["data"], seed=config["seed"])
    arrays, slices = dataset.load(dataset.rows["test"], dataset.size)
    return np.asarray(arrays.maps), slices


def test_another_runs_sampling_is_not_replaced_unasked(run, generator, tmp_path, monkeypatch):
    """The same options say nothing of whose slices they were drawn from."""
    output = sample(run, output=str(tmp_path / "out"), number=2)
    (output / ".DS_Store").write_text("of a file manager")
    (output / "images" / "._00000.png").write_text("likewise")
    assert sample_files.is_ours(output)
    sample(run, output=str(output), number=2)  # the same again
    before = runs.tree_bytes(output)
    other = copy.copy(generator)
    other.config = {**generator.config, "seed": 5}
    monkeypatch.setattr(sampling.inference, "load", lambda workdir, step=None: other)
    with pytest.raises(PixmedError, match=r"holds another sampling \(of another run, config [0-9a-f]{12}\)"):
        sample(run, output=str(output), number=2)
    assert runs.tree_bytes(output) == before
    sample(run, output=str(output), number=2, fresh=True)
    (output / ".git").mkdir()
    assert not sample_files.is_ours(output)


def test_what_is_written(run, generator, held_out, tmp_path):
    maps, slices = held_out
    output = sample(run, output=str(tmp_path / "out"), seed=3)
    names = [f"{i:05d}.png" for i in range(len(maps))]
    assert sorted(p.name for p in output.iterdir()) == [
        "conditions",
        "data_sheet.json",
        "data_sheet.md",
        "images",
        "manifest.csv",
        "masks",
        "trained_on.json",
    ]
    split = json.loads((run / "split.json").read_text())
    trained_on = json.loads((output / "trained_on.json").read_text())
    assert trained_on["files"] == split["train"] and not set(split["test"]) & set(split["train"])
    for part in ("images", "masks", "conditions"):
        assert sorted(p.name for p in (output / part).iterdir()) == names
    assert (output / "manifest.csv").read_text().splitlines()[0] == (
        "file,mask,label,patient_group,source,seed,step,config,low,high,pixel,"
        "edit,parameters,tumor_source,tumor_group,grade"
    )
    sheet = json.loads((output / "data_sheet.json").read_text())
    assert faults(sheet, "data_sheet") == []
    assert sheet["contents"]["images"] == len(maps) and "--sample.seed=3" in sheet["command"]
    images = generator(maps, seed=3)
    for i, row in enumerate(rows(output)):
        assert row["file"] == row["mask"] == names[i]
        assert row["label"] == slices.label_names[slices.labels[i]]
        assert (row["patient_group"], row["source"]) == (slices.groups[i], slices.files[i])
        assert int(row["seed"]) == inference.image_seeds(3, len(maps))[i]
        assert (row["low"], row["high"], row["pixel"]) == ("0", "255", "")  # the phantom's slices have 8 bits
        assert (row["step"], row["config"]) == (str(generator.step), configs.digest(generator.config))
        image = pixels(output / "images" / names[i])
        assert image.dtype == np.uint8 and image.shape == (32, 32)
        np.testing.assert_array_equal(image, np.round(images[i, ..., 0] * 255))
        np.testing.assert_array_equal(pixels(output / "conditions" / names[i]), maps[i])
        np.testing.assert_array_equal(
            pixels(output / "masks" / names[i]), np.where(slices.masks[i] > 0, 255, 0)
        )


def test_a_sampling_says_what_it_is_for(run, tmp_path, capsys):
    """In the terminal, and the data sheet alike; masks from elsewhere are nobody's that is known."""
    out = str(tmp_path / "out")
    for options, told, trains in (
        (
            {},
            "not to train with: 2 are patients' own maps, painted again, for measuring only; 2 are of",
            False,
        ),
        ({"split": "train"}, "not to train with: 2 are patients' own maps", False),
        (
            {"edit": "move"},
            "not to train with: 2 are of held-out slices, which networks are tested on",
            False,
        ),
        ({"split": "train", "edit": "move"}, "to train with, not to share", True),
        ({"masks": f"{out}/conditions", "output": f"{out}2"}, "of masks whose patients nobody knows", True),
    ):
        output = sample(run, number=2, fresh=True, **{"output": out, **options})
        line = capsys.readouterr().out.splitlines()[-1]
        assert line.startswith(told)
        command = f"python launch.py --workdir={run} --mode=sample --sample.number=500 --sample.split=train "
        assert (command + "--sample.edit=mixed" in line) is not trains
        sheet = json.loads((output / "data_sheet.json").read_text())
        assert (sheet["loading"] is not None) is trains
        page = (output / "data_sheet.md").read_text()
        assert ("configs/segmenter.py" in page) is trains and ("Training slices for" in page) is trains
        assert ("Training: " in page) is not trains
    sample(run, number=2, output=out, fresh=True, quiet=True)
    assert capsys.readouterr().out == ""


def test_same_seed_same_bytes_other_seed_other_images(run, held_out, tmp_path):
    first, again, other = (
        runs.tree_bytes(sample(run, output=str(tmp_path / name), seed=seed))
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert first == again and len(first) == 3 * len(held_out[0]) + 4  # pictures, and files that tell of them
    for name in first:
        same = name.startswith(("masks", "conditions", "trained_on"))
        assert (first[name] == other[name]) is same, name


def test_a_longer_sampling_begins_with_the_shorter(run, tmp_path):
    short = runs.tree_bytes(sample(run, output=str(tmp_path / "short"), number=3, batch_size=8))
    long = runs.tree_bytes(sample(run, output=str(tmp_path / "long"), number=11, batch_size=8))
    assert all(long[name] == data for name, data in short.items() if name.startswith("images"))


def test_more_images_than_masks(run, held_out, tmp_path):
    number = len(held_out[0])
    output = sample(run, output=str(tmp_path / "out"), number=number + 2)
    table = rows(output)
    assert len(table) == number + 2
    assert [row["source"] for row in table[number:]] == [row["source"] for row in table[:2]]
    for i in range(2):  # of the same mask, but not the same image
        name, again = table[i]["file"], table[number + i]["file"]
        assert (output / "masks" / name).read_bytes() == (output / "masks" / again).read_bytes()
        assert (output / "images" / name).read_bytes() != (output / "images" / again).read_bytes()
    assert len({row["seed"] for row in table}) == number + 2


def test_the_order_of_labels():
    labels = ("b", "a", "b", "b", "c")
    assert conditions.ordered(labels, 7, balance=False).tolist() == [0, 1, 2, 3, 4, 0, 1]
    balanced = conditions.ordered(labels, 9, balance=True)
    assert [labels[i] for i in balanced] == ["a", "b", "c"] * 3
    assert balanced[1::3].tolist() == [0, 2, 3]  # every mask of a label before any for a second time


@pytest.mark.parametrize("balance", [False, True])
def test_a_few_of_many_are_of_all_patients(balance):
    """Slices are indexed patient by patient, and patients label by label."""
    labels = tuple(np.repeat(["a", "b"], [600, 400]))
    patient = np.arange(1000) // 10
    few = conditions.ordered(labels, 100, balance, seed=3)
    assert len(set(few)) == 100
    # Of 100 patients 100 draws reach about 63 (1 - 1/e); the first 100 in their order are of 10.
    assert 50 <= len(set(patient[few])) <= 75
    of_a = sum(labels[i] == "a" for i in few)
    assert of_a == 50 if balance else 45 <= of_a <= 75
    np.testing.assert_array_equal(few, conditions.ordered(labels, 100, balance, seed=3))
    np.testing.assert_array_equal(few, conditions.ordered(labels, 130, balance, seed=3)[:100])
    assert (few != conditions.ordered(labels, 100, balance, seed=4)).any()
    again = conditions.ordered(labels, 2000, balance, seed=3)
    if not balance:
        assert (np.bincount(again) == 2).all()


def test_a_number_of_a_split_is_drawn_and_all_of_it_comes_in_order(run, tmp_path):
    """By default the whole split as it is indexed; a number of it in an order of the seed."""
    whole = [row["source"] for row in rows(sample(run, split="train", output=str(tmp_path / "all")))]
    assert whole == sorted(whole)
    few = [row["source"] for row in rows(sample(run, split="train", number=9, output=str(tmp_path / "few")))]
    assert len(set(few)) == 9 and few != whole[:9]
    other = sample(run, split="train", number=9, seed=1, output=str(tmp_path / "other"))
    assert [row["source"] for row in rows(other)] != few


def test_balance(run, tmp_path):
    table = rows(sample(run, split="train", balance=True, number=6, output=str(tmp_path / "out")))
    assert sorted(row["label"] for row in table) == sorted(["glioma", "meningioma", "pituitary"] * 2)


def test_our_own_reader_reads_it(run, held_out, tmp_path):
    output = sample(run, output=str(tmp_path / "out"))
    _, slices = held_out
    source = folder.source(output, meta="manifest.csv")
    assert len(source.files) == len(slices.files)
    assert [source.label_names[i] for i in source.labels] == [slices.label_names[i] for i in slices.labels]
    assert source.groups == slices.groups
    image, mask = source.read(0)
    np.testing.assert_array_equal(image, pixels(output / "images" / source.files[0]))
    np.testing.assert_array_equal(mask > 0, slices.masks[0] > 0)
    assert set(np.unique(mask)) == {0, source.labels[0] + 1}


def test_the_conditions_of_a_sampling_sample_again(run, tmp_path):
    first = sample(run, output=str(tmp_path / "first"), seed=3)
    second = sample(run, masks=str(first / "conditions"), output=str(tmp_path / "second"), seed=3)
    a, b = runs.tree_bytes(first), runs.tree_bytes(second)
    assert a.keys() == b.keys() and all(b[name] == a[name] for name in a if name not in TELLING)
    assert [row["label"] for row in rows(second)] == [row["label"] for row in rows(first)]
    assert [row["source"] for row in rows(second)] == [row["file"] for row in rows(first)]


# ---------------------------------------------------------------- edits
EDITED = ("edit", "parameters", "tumor_source", "tumor_group", "grade")


def test_without_an_edit_the_manifest_says_so(run, held_out, tmp_path):
    _, slices = held_out
    for i, row in enumerate(rows(sample(run, output=str(tmp_path / "out")))):
        told = ["none", "", slices.files[i], slices.groups[i], "reconstruction"]
        assert [row[name] for name in EDITED] == told


@pytest.mark.parametrize("edit", ["move", "scale", "warp", "swap", "deform", "mixed"])
def test_edited_masks_are_what_is_written(run, generator, tmp_path, edit, capsys):
    """On the 36 training slices: few slices have a partner for a swap."""
    output = sample(run, split="train", edit=edit, number=10, seed=4, output=str(tmp_path / "out"))
    told = capsys.readouterr().out
    plain = sample(run, split="train", output=str(tmp_path / "plain"))
    before = {row["source"]: row for row in rows(plain)}
    new = 0
    for i, row in enumerate(rows(output)):
        condition = pixels(output / "conditions" / row["file"])
        np.testing.assert_array_equal(
            pixels(output / "masks" / row["mask"]), np.where((condition > 0) & (condition < 4), 255, 0)
        )
        # The label and the group of the anatomy and of the tumour are those of their files.
        assert row["label"] == before[row["tumor_source"]]["label"]
        assert set(np.unique(condition)) <= {0, 4, 1 + generator.classes.index(row["label"])}
        assert row["patient_group"] == before[row["source"]]["patient_group"]
        assert row["tumor_group"] == before[row["tumor_source"]]["patient_group"]
        assert row["edit"] == edit or edit == "mixed"
        assert (row["patient_group"] != row["tumor_group"]) == (row["edit"] == "swap")
        assert row["parameters"] and row["grade"] == "recombined"
        image = generator(condition[None], seeds=np.array([int(row["seed"])], np.uint32), batch_size=8)
        written = pixels(output / "images" / row["file"])
        assert np.abs(written - image[0, ..., 0] * 255).max() < 1
        new += not np.array_equal(condition, pixels(plain / "conditions" / before[row["source"]]["file"]))
        assert i == int(row["file"][:5])
    assert new == 10
    line = r"^10 edits; (\d+) draws were implausible and drawn again, most often: (.+)$"
    refused = re.search(line, told, re.MULTILINE)
    assert refused or edit == "deform"
    if refused:
        counts = [int(count) for count in re.findall(r"\((\d+)\)", refused[2])]
        assert counts == sorted(counts, reverse=True) and 1 <= len(counts) <= 3
        assert sum(counts) == int(refused[1]) or len(counts) == 3


def test_copied_pixels_are_of_the_very_maps_that_the_network_paints(run, held_out, tmp_path):
    options = {"number": 8, "edit": "mixed", "seed": 5, "batch_size": 3}
    by = {
        painter: sample(run, **options, painter=painter, output=str(tmp_path / painter))
        for painter in ("network", "copy_paste")
    }
    tables = {painter: rows(output) for painter, output in by.items()}
    assert {row["edit"] for row in tables["network"]} >= {"deform", "move"}
    _, slices = held_out
    for network, copied in zip(*tables.values(), strict=True):
        assert copied == {**network, "step": "0", "painter": "copy_paste"}
        file = copied["file"]
        for name in ("masks", "conditions"):
            first, second = (output / name / file for output in by.values())
            assert first.read_bytes() == second.read_bytes()
        got = pixels(by["copy_paste"] / "images" / file).astype(float)
        source = slices.images[slices.files.index(copied["source"])][..., 0].astype(float)
        if copied["edit"] in ("move", "scale", "warp"):
            # Most of the slice is as it was, bit for bit; what the network paints is nowhere so.
            assert np.mean(got == source) > 0.6 and np.mean(got != source) > 0.001
            assert np.mean(pixels(by["network"] / "images" / file) == source) < 0.6
        elif copied["edit"] == "deform":
            assert 1 - np.corrcoef(np.sort(got.ravel()), np.sort(source.ravel()))[0, 1] < 0.01
    sheet = json.loads((by["copy_paste"] / "data_sheet.json").read_text())
    assert [(one["question"], one["answer"]) for one in sheet["privacy"]["answers"]] == [
        ("New?", "no"),
        ("Safe to share?", "no"),
    ]
    assert sheet["settings"]["painter"] == "copy_paste" and "--sample.painter=copy_paste" in sheet["command"]
    text = (by["copy_paste"] / "data_sheet.md").read_text()
    assert "no network painted them" in text and "a generator drew them" not in text
    with pytest.raises(PixmedError, match=r"holds another sampling .*--fresh to replace it"):
        sample(run, **options, output=str(by["copy_paste"]))


def test_pixels_are_copied_before_anything_is_trained(run, tmp_path):
    """By what a training writes before its first step, to the byte what the trained run's folder gives."""
    begun = tmp_path / "begun"
    begin(runs.checkpoint.finished(run / "checkpoints")[-1].config, begun)
    assert not (begun / "checkpoints").exists()
    assert json.loads((begun / "split.json").read_text()) == json.loads((run / "split.json").read_text())
    options = {"number": 4, "edit": "mixed", "split": "train", "painter": "copy_paste"}
    first, second = (sample(of, **options, output=str(tmp_path / of.name / "out")) for of in (run, begun))
    assert runs.tree_bytes(first) == runs.tree_bytes(second)
    assert {row["step"] for row in rows(second)} == {"0"}


def test_copied_pixels_need_masks(tmp_path, tmp_path_factory):
    config = runs.config(tmp_path_factory, data__condition="label")
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(
        PixmedError, match=r"copy_paste cuts out what masks show, and data\.condition='label'"
    ):
        sample(tmp_path, edit="move", painter="copy_paste")


def test_refusals_are_a_total_and_three_reasons():
    """A reason is one, whichever edit gave it."""
    refused = Counter({"swap: wrong plane": 4, "move: torn apart": 3, "warp: torn apart": 2})
    refused |= Counter({"swap: too small": 2, "scale: too large": 1})
    assert sampling._told_of_refused(7, "edits", refused) == (
        "7 edits; 12 draws were implausible and drawn again, most often: torn apart (5), wrong plane (4), "
        "too small (2)"
    )


def test_an_edited_slice_has_the_limits_and_the_format_of_its_anatomy(run, tmp_path, monkeypatch):
    given = conditions.of_split(run, "train", inference.load(run))
    own = np.array([(-i, 1000.0 + i) for i in range(len(given.files))])
    monkeypatch.setattr(conditions, "of_split", lambda *_: given._replace(limits=own))
    output = sample(
        run, split="train", edit="swap", number=4, seed=4, format="png16", output=str(tmp_path / "out")
    )
    for row in rows(output):
        assert row["tumor_source"] != row["source"]
        i = given.files.index(row["source"])
        assert (row["low"], row["high"]) == (str(-i), str(1000 + i))
        assert pixels(output / "images" / row["file"]).dtype == np.uint16


@pytest.mark.parametrize("counted", [True, False])
def test_labels_that_were_counted_are_counted_on_the_map_that_was_painted(
    run, generator, tmp_path, monkeypatch, counted
):
    """Labels contradict the maps here, as counts of a full-sized mask may after a resize or an edit."""
    opened = conditions.open_of_run

    def contradicting(workdir, config):
        dataset = opened(workdir, config)
        labels = (dataset.source.labels + 1) % 3
        return dataset._replace(source=dataset.source._replace(labels=labels, counted=counted))

    monkeypatch.setattr(conditions, "open_of_run", contradicting)
    output = sample(run, output=str(tmp_path / "out"), edit="scale", number=4)
    for row in rows(output):
        values = pixels(output / "conditions" / row["file"])
        tumor = values[(values > 0) & (values <= 3)]  # of one class
        assert (row["label"] == generator.classes[tumor[0] - 1]) is counted


def test_the_class_with_most_pixels_of_a_map():
    blank = np.zeros((1, 3, 4))
    given = conditions.Conditions(
        blank, ("b",), ("",), ("",), np.zeros((1, 2)), np.zeros(1), tumors=("a", "b")
    )
    shown = np.array([[0, 2, 2, 3], [1, 1, 1, 3], [3, 3, 3, 3]], np.uint8)  # 3 is the head
    assert given.label_of(shown, 0) == "a"
    assert given.label_of(np.where(shown < 3, 0, shown), 0) == "b"  # no tumour: what the slice is called
    assert given._replace(tumors=()).label_of(shown, 0) == "b"


@pytest.mark.parametrize("heads", [True, False])
def test_slices_of_no_heads_are_edited_without_a_brain(run, monkeypatch, heads):
    """Condition "tumor": whether there are brains to stay in is asked of the slices, all together."""
    config = json.loads((run / "config.json").read_text())
    dataset = open_dataset(**{**config["data"], "condition": "tumor"}, seed=config["seed"])
    known = dataset.source.read

    def cells(row):
        """Bright discs on a dark ground, all of them in the mask."""
        y, x = np.mgrid[:64, :64]
        where = np.random.default_rng(row).integers(8, 56, (6, 2))
        shown = np.any([np.hypot(y - a, x - b) < 4 for a, b in where], axis=0)
        return np.where(shown, 200, 5).astype(np.uint8), shown.astype(np.uint8)

    source = dataset.source._replace(read=known if heads else cells)
    monkeypatch.setattr(conditions, "open_of_run", lambda *_: dataset._replace(source=source))
    given = conditions.of_split(run, "test", None)
    scenes = [given.scene(i) for i in range(len(given.maps))]
    assert [bool(len(scene.where.look)) for scene in scenes] == [heads] * len(scenes)
    assert [scene.where.brain.all() for scene in scenes] == [not heads] * len(scenes)


def test_a_scene_is_of_its_own_slice(run, monkeypatch):
    """A swap goes by the plane, and what is soft or dark around a tumour says where the brain ends."""
    opened = conditions.open_of_run

    def planes_by_name(*of):
        dataset = opened(*of)
        return dataset._replace(source=dataset.source._replace(planes=dataset.source.files))

    monkeypatch.setattr(conditions, "open_of_run", planes_by_name)
    dataset = opened(run, json.loads((run / "config.json").read_text()))
    for split in ("train", "test"):
        given = conditions.of_split(run, split, None)
        slices = dataset.load(dataset.of(split), dataset.size)[1]
        for i in range(4):
            scene = given.scene(i)
            assert scene.plane == slices.files[i]
            grey, tumor = slices.images[i, ..., 0].astype(np.float32), slices.masks[i] > 0
            for mine, known in zip(scene.where, survey(grey, given.maps[i] > 0, tumor), strict=True):
                np.testing.assert_array_equal(mine, known)


def test_whom_a_network_has_seen_is_not_drawn_as_held_out(run, tmp_path):
    """As where a table of patients has changed since: painted again, their own maps would pass for new."""
    split = json.loads((run / "split.json").read_text())
    split["train"] |= dict(list(split["test"].items())[:1])
    (tmp_path / "split.json").write_text(json.dumps(split))
    (tmp_path / "config.json").write_bytes((run / "config.json").read_bytes())
    with pytest.raises(PixmedError, match=r"was trained on 1 patients that are in test now"):
        conditions.of_split(tmp_path, "test", None)


def test_masks_of_the_runs_own_slices_are_refused(run, generator, tmp_path, monkeypatch):
    """Those of its test patients are among them, and nothing would say so."""
    (tmp_path / "data" / "masks").mkdir(parents=True)
    data = {**generator.config["data"], "dir": str(tmp_path / "data")}
    monkeypatch.setattr(generator, "config", {**generator.config, "data": data})
    with pytest.raises(
        PixmedError, match=r"masks of this run's own slices, of its test patients too; leave it"
    ):
        sample(run, masks=str(tmp_path / "data" / ".." / "data" / "masks"), output=str(tmp_path / "out"))


def test_a_removed_tumour(run, tmp_path):
    output = sample(run, split="train", edit="remove", number=4, output=str(tmp_path / "out"))
    for row in rows(output):
        assert [row[name] for name in ("label", *EDITED)] == [
            *("no_tumor", "remove", "", "", "", "recombined"),
        ]
        assert not pixels(output / "masks" / row["mask"]).any()
        assert set(np.unique(pixels(output / "conditions" / row["file"]))) == {0, 4}
    source = folder.source(output, meta="manifest.csv", allow_empty_masks=True)
    assert source.label_names == ("no_tumor",) and not source.read(0)[1].any()


def test_edits_follow_the_seed_and_the_place(run, tmp_path):
    """Not the number of images, and not what was refused before."""
    first, again, other, longer = (
        runs.tree_bytes(
            sample(run, split="train", edit="mixed", seed=seed, number=number, output=str(tmp_path / name))
        )
        for name, seed, number in (("a", 1, 4), ("b", 1, 4), ("c", 2, 4), ("d", 1, 9))
    )
    assert first == again
    assert all(longer[name] == data for name, data in first.items() if name not in TELLING)
    conditions = [name for name in first if name.startswith("conditions")]
    assert any(first[name] != other[name] for name in conditions)


def test_edits_that_cannot_be(run, tmp_path):
    with pytest.raises(PixmedError, match=r"sample\.edit='turn' is not one of none, swap, move"):
        sample(run, edit="turn", output=str(tmp_path / "out"))
    with pytest.raises(PixmedError, match=r"painter=copy_paste copies pixels .*give sample\.edit=mixed"):
        sample(run, painter="copy_paste", output=str(tmp_path / "out"))
    with pytest.raises(PixmedError, match=r"sample\.painter='me' is not one of network, copy_paste"):
        sample(run, painter="me", edit="move", output=str(tmp_path / "out"))
    with pytest.raises(PixmedError, match=r"sample\.edit=move .*leave sample\.masks out"):
        sample(run, edit="move", masks=str(tmp_path), output=str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_sampling_of_a_version_without_edits_is_replaced(run, tmp_path):
    """Its settings are not on record, so only where that is said."""
    output = sample(run, number=2, output=str(tmp_path / "out"))
    lines = [",".join(line.split(",")[:8]) for line in (output / "manifest.csv").read_text().splitlines()]
    (output / "manifest.csv").write_text("\n".join(lines) + "\n")
    (output / "data_sheet.json").unlink()
    with pytest.raises(PixmedError, match=r"holds another sampling \(of an older version\)"):
        sample(run, number=2, output=str(output))
    assert len(rows(sample(run, number=3, output=str(output), fresh=True))) == 3


# ---------------------------------------------------------------- folders of masks
class Echo:
    """Stands for a generator: its images are the label maps, scaled."""

    size, grey, step, limits = 8, True, 7, (0.0, 255.0)
    data: ClassVar = {"source": "folder", "size": 8, "condition": "tumor", "split": {"by": "patient"}}
    config: ClassVar = {"name": "echo", "preset": "quick", "data": data}
    takes_maps = True

    def __init__(self, *classes: str):
        self.classes = classes

    def __call__(self, maps, *, seeds, batch_size):
        return (maps / len(self.classes)).astype(np.float32)[..., None]


def masks_folder(path: Path, *masks: np.ndarray) -> str:
    path.mkdir()
    for i, mask in enumerate(masks):
        Image.fromarray(mask.astype(np.uint8)).save(path / f"m{i}.png")
    return str(path)


def box(height: int, width: int, value: int) -> np.ndarray:
    """A filled rectangle in the middle half."""
    mask = np.zeros((height, width), np.uint8)
    mask[height // 4 : -(height // 4), width // 4 : -(width // 4)] = value
    return mask


def use(monkeypatch, *classes: str) -> None:
    monkeypatch.setattr(sampling.inference, "load", lambda workdir, step=None: Echo(*classes))


def test_binary_masks_of_another_size(monkeypatch, tmp_path):
    use(monkeypatch, "tumor")
    given = masks_folder(tmp_path / "masks", box(32, 32, 255), box(16, 16, 1), box(16, 8, 255))
    output = sample(tmp_path, masks=given, output=str(tmp_path / "out"))
    assert [row["label"] for row in rows(output)] == ["tumor"] * 3
    for name in ("00000.png", "00001.png"):
        np.testing.assert_array_equal(pixels(output / "conditions" / name), box(8, 8, 1))
    tall = np.zeros((8, 8), np.uint8)
    tall[2:6, 3:5] = 1  # padded to a square, not stretched
    np.testing.assert_array_equal(pixels(output / "conditions" / "00002.png"), tall)


def test_a_mask_of_several_classes_has_the_label_of_the_largest(monkeypatch, tmp_path):
    """As the slices of a split have, whose masks are counted too."""
    use(monkeypatch, "a", "b", "head")
    mask = box(8, 8, 2)
    mask[0, 0], mask[0, 1:] = 1, 3  # the head is no label, however large
    output = sample(tmp_path, masks=masks_folder(tmp_path / "masks", mask), output=str(tmp_path / "out"))
    assert [row["label"] for row in rows(output)] == ["b"]


def test_binary_masks_take_the_label_given(monkeypatch, tmp_path):
    use(monkeypatch, "a", "b")
    given = masks_folder(tmp_path / "masks", box(8, 8, 255), box(8, 8, 1))
    output = sample(tmp_path, masks=given, label="b", output=str(tmp_path / "out"))
    for row in rows(output):
        assert row["label"] == "b"
        np.testing.assert_array_equal(pixels(output / "conditions" / row["file"]), box(8, 8, 2))


@pytest.mark.parametrize(
    ("classes", "mask", "label", "told"),
    [
        (
            ("a", "b"),
            box(8, 8, 255),
            "",
            "m0.png: is a binary mask, and this model knows a, b; give sample.label",
        ),
        (("a", "b"), box(8, 8, 255), "c", "sample.label='c' is not one of a, b"),
        (("a", "b", "head"), box(8, 8, 255), "a", "m0.png: shows the tumour but not the head"),
        (("a", "tissue_1", "tissue_2"), box(8, 8, 1), "a", "m0.png: shows the tumour but not the anatomy"),
        (("a", "b", "tissue_1"), box(8, 8, 4), "", "has values .* knows 0 to 3: a, b, tissue_1"),
        (("a", "b", "tissue_1"), box(8, 8, 1), "tissue_1", "sample.label='tissue_1' is not one of a, b"),
        (("a", "b"), box(8, 8, 3), "", r"m0.png: has values \[0, 3\]; this model knows 0 to 2: a, b"),
        (("a", "b"), np.pad(np.full((2, 2), 255, np.uint8), 49), "b", r"m0.png: loses its b at .* 8 x 8"),
    ],
)
def test_masks_that_do_not_fit_the_model(monkeypatch, tmp_path, classes, mask, label, told):
    use(monkeypatch, *classes)
    given = masks_folder(tmp_path / "masks", mask)
    with pytest.raises(PixmedError, match=told) as error:
        sample(tmp_path, masks=given, label=label, output=str(tmp_path / "out"))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_volumes_of_masks_give_their_slices_with_a_tumour(monkeypatch, tmp_path):
    """NIfTI stores [x, y, z], where x runs along the rows of a picture."""
    nibabel = pytest.importorskip("nibabel")
    use(monkeypatch, "a", "b", "head")
    given = tmp_path / "masks"
    given.mkdir()
    volume = np.zeros((8, 8, 4), np.uint8)
    volume[1:7, 1:7] = 3  # the head, in every slice
    volume[2:4, 3:6, 1] = 1
    volume[5, 2, 3] = 2
    nibabel.save(nibabel.Nifti1Image(volume, np.diag([-1.0, -1, 1, 1])), given / "case.7.nii.gz")
    np.save(given / "flat.npy", volume[..., 3])
    Image.fromarray(volume[..., 1]).save(given / "m.png")
    monkeypatch.setattr(Echo, "config", {**Echo.config, "data": {**Echo.data, "axis": "stored"}})
    output = sample(tmp_path, masks=str(given), number=5, output=str(tmp_path / "out"))
    names = ["00000_case.7_001", "00001_case.7_003", "00002", "00003", "00004_case.7_001"]
    expected = [volume[..., 1].T, volume[..., 3].T, volume[..., 3], volume[..., 1], volume[..., 1].T]
    table = rows(output)
    assert [row["file"] for row in table] == [f"{name}.png" for name in names]
    sources = ["case.7.nii.gz#001", "case.7.nii.gz#003", "flat.npy", "m.png", "case.7.nii.gz#001"]
    assert [row["source"] for row in table] == sources
    assert [row["label"] for row in table] == ["a", "b", "b", "a", "a"]
    for name, map_ in zip(names, expected, strict=True):
        np.testing.assert_array_equal(pixels(output / "conditions" / f"{name}.png"), map_)
        tumor = np.where((map_ == 1) | (map_ == 2), 255, 0)
        np.testing.assert_array_equal(pixels(output / "masks" / f"{name}.png"), tumor)
    again = folder.source(output, meta="manifest.csv", patient_column="")
    assert again.files == tuple(f"{name}.png" for name in names)


def test_axes_of_volumes_of_masks(monkeypatch, tmp_path):
    use(monkeypatch, "a")
    monkeypatch.setattr(Echo, "config", {**Echo.config, "data": {**Echo.data, "axis": "0"}})
    volume = np.zeros((5, 8, 8), np.uint8)
    volume[3, 2:5, 1:4] = 255
    (tmp_path / "masks").mkdir()
    np.save(tmp_path / "masks" / "v.npy", volume)
    output = sample(tmp_path, masks=str(tmp_path / "masks"), output=str(tmp_path / "out"))
    assert [row["source"] for row in rows(output)] == ["v.npy#003"]
    np.testing.assert_array_equal(pixels(output / "masks" / "00000_v_003.png"), volume[3])
    monkeypatch.setattr(Echo, "config", {**Echo.config, "data": {**Echo.data, "axis": "axial"}})
    with pytest.raises(PixmedError, match=r"v\.npy: says nothing of planes"):
        sample(tmp_path, masks=str(tmp_path / "masks"), output=str(tmp_path / "out"))
    monkeypatch.setattr(Echo, "config", {"data": {}})
    for volume, told in (
        (np.zeros((8, 8, 5)), "no slice shows a tumour"),
        (np.full((8, 8, 5), 0.5), "holds 0.5"),
    ):
        np.save(tmp_path / "masks" / "v.npy", volume)
        with pytest.raises(PixmedError, match=rf"v\.npy: {told}"):
            sample(tmp_path, masks=str(tmp_path / "masks"), output=str(tmp_path / "out"))


def test_maps_of_anatomy_give_masks_of_the_tumour(monkeypatch, tmp_path):
    use(monkeypatch, "a", "b", "tissue_1", "tissue_2")
    map_ = box(8, 8, 4)
    map_[3, 3], map_[4, 4] = 2, 3
    given = masks_folder(tmp_path / "masks", map_)
    output = sample(tmp_path, masks=given, output=str(tmp_path / "out"))
    np.testing.assert_array_equal(pixels(output / "masks" / "00000.png"), np.where(map_ == 2, 255, 0))
    np.testing.assert_array_equal(pixels(output / "conditions" / "00000.png"), map_)
    assert rows(output)[0]["label"] == "b"


def test_every_faulty_mask_is_named(monkeypatch, tmp_path):
    use(monkeypatch, "tumor")
    given = masks_folder(tmp_path / "masks", box(8, 8, 7), box(8, 8, 1), box(8, 8, 9))
    (tmp_path / "masks" / "m3.png").write_bytes(b"no picture")
    with pytest.raises(PixmedError) as error:
        sample(tmp_path, masks=given, output=str(tmp_path / "out"))
    assert [name in str(error.value) for name in ("m0.png", "m1.png", "m2.png", "m3.png")] == [1, 0, 1, 1]


def test_of_many_values_a_few_are_named(monkeypatch, tmp_path):
    """A JPEG has hundreds."""
    use(monkeypatch, "a", "b")
    given = masks_folder(tmp_path / "masks", np.arange(256).reshape(16, 16))
    with pytest.raises(PixmedError, match=r"has values \[0, 1, 2, 3, 4, 5, 6, 7 and 248 more\]; this model"):
        sample(tmp_path, masks=given, output=str(tmp_path / "out"))


def test_masks_with_one_fault_are_counted_and_told_once(monkeypatch, tmp_path):
    use(monkeypatch, "a", "tissue_1")
    given = masks_folder(tmp_path / "masks", *[box(8, 8, 255)] * 30, box(8, 8, 7))
    with pytest.raises(PixmedError) as error:
        sample(tmp_path, masks=given, output=str(tmp_path / "out"))
    told = str(error.value)
    assert told.startswith(f"{given}: 30 of 31 files (m0.png, m1.png, m10.png and 27 more): shows the tumour")
    assert told.count("shows the tumour") == 1 and "m30.png: has values [0, 7]" in told
    for remedy in ("--mode=demo", "data.condition=tumor", "conditions/ of a sampling (0 background, 1 a,"):
        assert remedy in told
    assert len(told) < 600 + len(given)


def test_no_masks(monkeypatch, tmp_path):
    use(monkeypatch, "tumor")
    (tmp_path / "empty").mkdir()
    for given, told in (("empty", "holds no mask pictures"), ("nowhere", "no such folder")):
        with pytest.raises(PixmedError, match=told):
            sample(tmp_path, masks=str(tmp_path / given), output=str(tmp_path / "out"))


def test_colour_images_stay_colour(monkeypatch, tmp_path):
    use(monkeypatch, "tumor")
    colour = np.stack([np.full((8, 8), v) for v in (0.2, 0.4, 1.0)], -1).astype(np.float32)
    monkeypatch.setattr(Echo, "__call__", lambda self, maps, **_: np.repeat(colour[None], len(maps), 0))
    given = masks_folder(tmp_path / "masks", box(8, 8, 1))
    for grey, expected in ((False, [51, 102, 255]), (True, 136)):  # 136 = 255 * 1.6 / 3
        monkeypatch.setattr(Echo, "grey", grey)
        output = sample(tmp_path, masks=given, output=str(tmp_path / "out"))
        np.testing.assert_array_equal(pixels(output / "images" / "00000.png")[0, 0], expected)


# ---------------------------------------------------------------- what is in the way
@pytest.fixture
def masks(monkeypatch, tmp_path):
    use(monkeypatch, "tumor")
    return masks_folder(tmp_path / "masks", *[box(8, 8, 1)] * 5)


def test_a_foreign_folder_is_not_touched(masks, tmp_path):
    for name, file in (("photos", "holiday.jpg"), ("project", "manifest.csv")):
        target = tmp_path / name
        target.mkdir()
        (target / file).write_text("mine,all,mine\n")
        (target / "thesis.txt").write_text("mine")
        before = runs.tree_bytes(target)
        with pytest.raises(PixmedError, match=r"holds other files; give an empty folder"):
            sample(tmp_path, masks=masks, output=str(target))
        assert runs.tree_bytes(target) == before


def test_a_sampling_with_files_of_the_user_is_not_touched(masks, tmp_path):
    target = sample(tmp_path, masks=masks, output=str(tmp_path / "out"))
    (target / "notes.txt").write_text("mine")
    before = runs.tree_bytes(target)
    with pytest.raises(PixmedError, match="holds other files"):
        sample(tmp_path, masks=masks, output=str(target), seed=1)
    assert runs.tree_bytes(target) == before


def test_a_folder_beside_the_output_is_not_touched(masks, tmp_path):
    """The draft has a name that somebody may have taken."""
    beside = tmp_path / "out.draft"
    beside.mkdir()
    (beside / "thesis.txt").write_text("mine")
    sample(tmp_path, masks=masks, output=str(tmp_path / "out"))
    assert (beside / "thesis.txt").read_text() == "mine"


def test_an_older_sampling_is_replaced_as_a_whole(masks, tmp_path):
    sample(tmp_path, masks=masks, number=5, output=str(tmp_path / "out"))
    output = sample(tmp_path, masks=masks, number=2, output=str(tmp_path / "out"), fresh=True)
    assert len(list((output / "images").iterdir())) == len(rows(output)) == 2


def test_the_same_edits_once_more_replace_those_before(run, tmp_path):
    words = {"split": "train", "edit": "mixed", "number": 5, "output": str(tmp_path / "out")}
    first = runs.tree_bytes(sample(run, **words))
    assert runs.tree_bytes(sample(run, **words)) == first
    with pytest.raises(PixmedError, match=r"holds another sampling \(.*--sample\.edit=mixed"):
        sample(run, **words | {"edit": "swap"})


@pytest.mark.parametrize(
    "other", [{"number": 3}, {"seed": 1}, {"format": "png16"}, {"step": "4"}, {"masks": "others"}]
)
def test_a_sampling_of_other_settings_is_only_replaced_where_that_is_said(masks, tmp_path, other):
    words = {"masks": masks, "output": str(tmp_path / "out"), "number": 2}
    output = sample(tmp_path, **words)
    before = runs.tree_bytes(output)
    sample(tmp_path, **words)  # of the same settings: nothing is lost
    assert runs.tree_bytes(output) == before
    if "masks" in other:
        (tmp_path / "masks").rename(tmp_path / "others")
        for path in (tmp_path / "others").iterdir():
            path.rename(path.with_name(f"other_{path.name}"))
        other = {"masks": str(tmp_path / "others")}
    told = r"holds another sampling \(--sample\.masks=MASKS --sample\.number=2 .*--fresh to replace it"
    with pytest.raises(PixmedError, match=told):
        sample(tmp_path, **{**words, **other})
    assert runs.tree_bytes(output) == before
    sample(tmp_path, **{**words, **other}, fresh=True)
    assert "step" in other or runs.tree_bytes(output) != before


def test_a_sampling_of_labels_with_spaces_is_the_same_again(monkeypatch, tmp_path):
    use(monkeypatch, "a tumour", "b")
    masks = masks_folder(tmp_path / "masks", box(8, 8, 255))
    for _ in range(2):
        sample(tmp_path, masks=masks, label="a tumour", output=str(tmp_path / "out"))


def test_the_same_settings_at_a_later_step_replace(masks, tmp_path, monkeypatch):
    """As after more training."""
    for step in (7, 8):
        monkeypatch.setattr(Echo, "step", step)
        output = sample(tmp_path, masks=masks, output=str(tmp_path / "out"))
    assert {row["step"] for row in rows(output)} == {"8"}


def test_an_output_that_is_a_file(masks, tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(PixmedError, match="out"):
        sample(tmp_path, masks=masks, output=str(tmp_path / "out"))
    assert (tmp_path / "out").read_text() == "mine"


def test_the_current_folder_as_output(masks, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    sample(tmp_path, masks=masks, output=".")
    assert len(rows(tmp_path / "here")) == 5


@pytest.mark.parametrize(
    "fault", [KeyboardInterrupt(), OSError(28, "No space left on device")], ids=["killed", "full"]
)
@pytest.mark.parametrize("older", [False, True])
def test_stopped_half_way(masks, tmp_path, monkeypatch, fault, older):
    """Neither half a dataset nor the loss of an older one; a later sampling is as if nothing had been."""
    target = tmp_path / "out"
    whole = runs.tree_bytes(sample(tmp_path, masks=masks, output=str(tmp_path / "whole"), seed=2))
    if older:
        sample(tmp_path, masks=masks, output=str(target), seed=1)
    before = runs.tree_bytes(target)
    write = sample_files.write_pair

    def failing(folder, name, *args):
        if name == "00003.png":
            raise fault
        write(folder, name, *args)

    with monkeypatch.context() as patch:
        patch.setattr(sample_files, "write_pair", failing)
        expected = PixmedError if isinstance(fault, OSError) else KeyboardInterrupt
        with pytest.raises(expected, match="No space left" if expected is PixmedError else None):
            sample(tmp_path, masks=masks, output=str(target), seed=2, fresh=True)
    assert target.exists() is older and runs.tree_bytes(target) == before
    sample(tmp_path, masks=masks, output=str(target), seed=2, fresh=True)
    assert runs.tree_bytes(target) == whole
    assert sorted(p.name for p in tmp_path.iterdir()) == ["masks", "out", "whole"]


@pytest.mark.parametrize("option", [{"number": -1}, {"seed": -1}, {"batch_size": 0}])
def test_numbers_out_of_range(masks, tmp_path, option):
    ((name, value),) = option.items()
    with pytest.raises(PixmedError, match=rf"sample\.{name}={value}"):
        sample(tmp_path, masks=masks, output=str(tmp_path / "out"), **option)
    assert not (tmp_path / "out").exists()


def test_an_unknown_split(run, tmp_path):
    with pytest.raises(PixmedError, match=r"sample\.split='exam' is not one of train, val, test"):
        sample(run, split="exam", output=str(tmp_path / "out"))


def test_the_default_output_is_in_the_run(masks, tmp_path):
    assert sample(tmp_path, masks=masks) == tmp_path / "samples"
    assert len(rows(tmp_path / "samples")) == 5


# ---------------------------------------------------------------- values in the data's own units
def volume_run(monkeypatch, root: Path, rule: str, side: float = 1.0) -> np.ndarray:
    """A generator that draws the real slices of a CT-like volume; returns their values [2, 8, 8].

    side: of a pixel, in mm.
    """
    nibabel = pytest.importorskip("nibabel")
    values = np.random.default_rng(0).integers(-1024, 3000, (8, 8, 3)).astype(np.int16)
    mask = np.zeros((8, 8, 3), np.uint8)
    mask[2:5, 2:4, 1:] = 1
    for name, voxels in (("images", values), ("masks", mask)):
        (root / name).mkdir(parents=True)
        nibabel.save(nibabel.Nifti1Image(voxels, np.diag([-side, -side, 3, 1])), root / name / "case.nii.gz")
    source = folder.source(root, rule=rule)
    slices = load_slices(source, range(2), 8)
    told = slices.groups, slices.files, slices.limits, slices.pixels
    given = conditions.Conditions(slices.masks, ("tumor",) * 2, *told)
    use(monkeypatch, "tumor")
    monkeypatch.setattr(Echo, "__call__", lambda self, maps, **_: slices.images.astype(np.float32) / 65535)
    monkeypatch.setattr(conditions, "of_split", lambda *_: given)
    return values[:, :, 1:].transpose(2, 1, 0)


@pytest.mark.parametrize("rule", ["-1024,3000", "-1500,3500"])
def test_values_come_back_to_the_grey_level(monkeypatch, tmp_path, rule):
    """File -> [0, 1] -> generator -> file; read back by nibabel and pillow alone."""
    values = volume_run(monkeypatch, tmp_path / "data", rule)
    low, high = map(float, rule.split(","))
    half = 0.51 * (high - low) / 65535  # a grey level is twice that; NIfTI's slope has 24 bits
    nibabel = pytest.importorskip("nibabel")
    output = sample(tmp_path, output=str(tmp_path / "nifti"), format="nifti")
    assert [row["source"] for row in rows(output)] == ["case.nii.gz#001", "case.nii.gz#002"]
    for row, expected in zip(rows(output), values, strict=True):
        assert row["file"].endswith(".nii.gz")
        got = nibabel.load(output / "images" / row["file"]).get_fdata()
        assert got.shape == (8, 8, 1)
        np.testing.assert_allclose(got[..., 0].T, expected, rtol=0, atol=half)
        mask = np.asarray(nibabel.load(output / "masks" / row["mask"]).dataobj)
        assert np.unique(mask).tolist() == [0, 1]
    output = sample(tmp_path, output=str(tmp_path / "png16"), format="png16")
    for row, expected in zip(rows(output), values, strict=True):
        assert (float(row["low"]), float(row["high"])) == (low, high)
        stored = pixels(output / "images" / row["file"])
        np.testing.assert_allclose(low + stored / 65535 * (high - low), expected, rtol=0, atol=half)


@pytest.mark.parametrize(("upscale", "side"), [(1, 0.47), (2, 0.235)])
def test_a_nifti_sample_is_as_large_as_the_slice_of_its_anatomy(monkeypatch, tmp_path, upscale, side):
    volume_run(monkeypatch, tmp_path / "data", "-1024,3000", 0.47)
    nibabel = pytest.importorskip("nibabel")
    output = sample(tmp_path, output=str(tmp_path / "nifti"), format="nifti", upscale=upscale)
    for row in rows(output):
        assert float(row["pixel"]) == pytest.approx(side)
        for name in ("images", "masks"):
            header = nibabel.load(output / name / row["file"]).header
            assert header.get_zooms() == pytest.approx((side, side, 1.0))
            assert header.get_data_shape()[:2] == (8 * upscale, 8 * upscale)
    output = sample(tmp_path, output=str(tmp_path / "png"))
    assert [float(row["pixel"]) for row in rows(output)] == [pytest.approx(0.47)] * 2


def test_limits_are_told_with_all_their_digits():
    """Percentiles and slopes of a file have many, and pictures are read back by them."""
    told = sample_files.Units((-1024.0009765625, 1234567.875), 0.46875).told()
    assert told == ("-1024.0009765625", "1234567.875", "0.46875")
    assert sample_files.Units((0.0, 255.0), None).told() == ("0", "255", "")


@pytest.mark.parametrize(("format", "dtype", "most"), [("png", np.uint8, 255), ("png16", np.uint16, 65535)])
def test_what_lies_beyond_black_and_white_is_written_as_these(tmp_path, format, dtype, most):
    """Whatever enlarges a picture may overshoot, and a cast alone would turn white into black."""
    image = np.array([[-0.2, 0.0], [1.0, 1.2]], np.float32)
    sample_files._write_image(tmp_path / "x.png", image, sample_files.Units((0, 255), None), format)
    written = pixels(tmp_path / "x.png")
    assert written.dtype == dtype and written.tolist() == [[0, 0], [most, most]]


def test_a_step_that_is_named_is_the_same_again(run, generator, tmp_path):
    """Its number is on the sheet; another one there is another sampling."""
    options = {"output": str(tmp_path / "out"), "number": 1, "quiet": True}
    first = runs.tree_bytes(sample(run, step=str(generator.step), **options))
    assert runs.tree_bytes(sample(run, step=str(generator.step), **options)) == first
    with pytest.raises(PixmedError, match="holds another sampling"):
        sample(run, step=str(generator.step + 1), **options)


def test_percentiles_of_each_volume_are_in_the_manifest(monkeypatch, tmp_path):
    volume_run(monkeypatch, tmp_path / "data", "percentiles")
    nibabel = pytest.importorskip("nibabel")
    whole = np.asarray(nibabel.load(tmp_path / "data" / "images" / "case.nii.gz").dataobj)
    output = sample(tmp_path, output=str(tmp_path / "out"))
    for row in rows(output):
        found = [float(row["low"]), float(row["high"])]
        np.testing.assert_allclose(found, np.percentile(whole, (0.5, 99.5)), rtol=1e-12)


def test_our_own_reader_reads_nifti_samples(monkeypatch, tmp_path):
    values = volume_run(monkeypatch, tmp_path / "data", "-1024,3000")
    output = sample(tmp_path, output=str(tmp_path / "out"), format="nifti")
    source = folder.source(output, meta="manifest.csv", rule="-1024,3000")
    assert source.files == ("00000.nii.gz", "00001.nii.gz") and set(source.groups) == {"case.nii.gz"}
    image, mask = source.read(0)
    np.testing.assert_array_equal(np.rint(image / 65535 * 4024 - 1024), values[0])
    assert mask[2:4, 2:5].all() and mask.sum() == 6


def test_a_format_that_does_not_fit(masks, tmp_path, monkeypatch):
    with pytest.raises(PixmedError, match=r"sample\.format='gif' is not one of png, png16, nifti"):
        sample(tmp_path, masks=masks, output=str(tmp_path / "out"), format="gif")
    monkeypatch.setattr(Echo, "grey", False)
    with pytest.raises(PixmedError, match=r"sample\.format=png16: this model makes colours; use png"):
        sample(tmp_path, masks=masks, output=str(tmp_path / "out"), format="png16")


def test_masks_from_elsewhere_take_the_limits_of_the_checkpoint(masks, tmp_path, monkeypatch):
    monkeypatch.setattr(Echo, "limits", (-100.0, 2000.5))
    output = sample(tmp_path, masks=masks, output=str(tmp_path / "out"), format="png16")
    assert {(row["low"], row["high"]) for row in rows(output)} == {("-100", "2000.5")}
    assert pixels(output / "images" / "00000.png").dtype == np.uint16


@pytest.mark.parametrize("value", [1, 2])
def test_masks_of_the_tumour_alone_are_no_label_maps(monkeypatch, tmp_path, value):
    """A model that was told tissues would be told a head without any."""
    use(monkeypatch, "a", "b", "tissue_1")
    given = masks_folder(tmp_path / "masks", box(8, 8, value))
    with pytest.raises(PixmedError, match=r"m0\.png: shows the tumour but not the anatomy"):
        sample(tmp_path, masks=given, output=str(tmp_path / "out"))


def test_masks_of_0_and_1_are_told_for_what_they_are_taken(monkeypatch, tmp_path, capsys):
    use(monkeypatch, "a", "b")
    given = masks_folder(tmp_path / "masks", box(8, 8, 1))
    sample(tmp_path, masks=given, output=str(tmp_path / "out"))
    assert "masks of 0 and 1 are taken for a; give sample.label" in capsys.readouterr().err
    (tmp_path / "masks" / "._m0.png").write_bytes(b"of macOS")
    sample(tmp_path, masks=given, label="a", output=str(tmp_path / "out"), fresh=True)
    assert "are taken for" not in capsys.readouterr().err


def test_masks_are_not_written_over(run, tmp_path):
    first = sample(run, number=2, output=str(tmp_path / "first"))
    before = runs.tree_bytes(first)
    masks = first / "conditions"
    for output in (first, masks, masks / "out"):
        with pytest.raises(PixmedError, match=r"sample\.masks=.* give another sample\.output"):
            sample(run, masks=str(masks), output=str(output))
    assert runs.tree_bytes(first) == before


@pytest.mark.parametrize("name", ["images/my_notes.txt", "masks/corrected/00000.png", "conditions/00009.png"])
def test_files_of_the_users_own_in_an_earlier_sampling_are_kept(run, tmp_path, name):
    output = sample(run, number=2, output=str(tmp_path / "out"))
    (output / name).parent.mkdir(exist_ok=True)
    (output / name).write_text("mine")
    with pytest.raises(PixmedError, match="holds other files; give an empty folder"):
        sample(run, number=2, output=str(output))
    assert (output / name).read_text() == "mine"


def test_a_label_chooses_among_a_splits_masks(run, tmp_path):
    every = {row["label"] for row in rows(sample(run, split="train", output=str(tmp_path / "all")))}
    assert len(every) > 1
    chosen = min(every)
    output = sample(run, split="train", label=chosen, number=5, output=str(tmp_path / "one"))
    assert [row["label"] for row in rows(output)] == [chosen] * 5
    with pytest.raises(PixmedError, match=r"no slice of sample\.split=train has it; they have"):
        sample(run, split="train", label="none such", output=str(tmp_path / "none"))


def test_what_would_be_ignored_is_refused(run, tmp_path):
    with pytest.raises(PixmedError, match=r"sample\.upscaler=lanczos: enlarges nothing"):
        sample(run, upscaler="lanczos", output=str(tmp_path / "out"))
