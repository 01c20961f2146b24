"""A sampled folder held against the patients behind it: each grade by its own question."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
import runs
from PIL import Image
from test_cards import faults
from test_report import Page

from pixmed_jax.data import synthetic
from pixmed_jax.data.sources import open_dataset
from pixmed_jax.errors import PixmedError
from pixmed_jax.evaluation import data_sheet, pairs, verdict
from pixmed_jax.evaluation.audit import audit, summary
from pixmed_jax.evaluation.evaluate import grey_floats
from pixmed_jax.evaluation.pairs import CLOSENESS, Pairs, Slices, closeness, judge, read
from pixmed_jax.metrics.likeness import likeness
from pixmed_jax.sampling import sample

CLASSES, SIZE = 4, 32


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return runs.copied(tmp_path_factory, tmp_path_factory.mktemp("pairs") / "run")


@pytest.fixture(scope="module")
def dataset(run):
    config = json.loads((run / "config.json").read_text())
    return open_dataset(**config["data"], seed=config["seed"])


@pytest.fixture(scope="module")
def real(dataset):
    """{split: Slices}"""
    told = {}
    for split in dataset.rows:
        arrays, slices = dataset.load(dataset.rows[split], SIZE)
        told[split] = Slices(
            grey_floats(arrays), np.array(slices.groups), np.asarray(arrays.maps), slices.files
        )
    return told


def written(root: Path, images: np.ndarray, maps: np.ndarray, rows: list[dict], trained_on: dict) -> Path:
    """A sampled folder, as --mode=sample writes it."""
    for folder in ("images", "conditions"):
        (root / folder).mkdir(parents=True)
    for i, (image, map_) in enumerate(zip(images, maps, strict=True)):
        Image.fromarray(np.round(image * 255).astype(np.uint8)).save(root / "images" / f"{i}.png")
        palette = Image.fromarray(map_, mode="P")
        palette.putpalette([0, 0, 0] * 256)
        palette.save(root / "conditions" / f"{i}.png")
    with (root / "manifest.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, ["file", "label", *rows[0]])
        table.writeheader()
        table.writerows({"file": f"{i}.png", "label": "glioma", **row} for i, row in enumerate(rows))
    (root / "trained_on.json").write_text(json.dumps({"step": 1, "config": "x", "files": trained_on}))
    return root


def sampled(root: Path, of: Slices, count: int = 8, trained_on: dict | None = None, **columns: str) -> Path:
    row = {"grade": "sampled", "edit": "none", "layout": "layout@6", **columns}
    return written(root, of.images[:count], of.maps[:count], [row] * count, trained_on or {})


def loaded(folder: Path) -> Pairs:
    return read(folder, ("meningioma", "glioma", "pituitary"), CLASSES, SIZE)


def test_training_slices_in_the_guise_of_samples_are_caught(real, tmp_path):
    """Images and label maps both, mirrored; those of patients nobody knows pass."""
    train = real["train"]
    mirrored = train._replace(images=train.images[:, :, ::-1], maps=train.maps[:, :, ::-1])
    found = judge(loaded(sampled(tmp_path / "a", mirrored)), train, real["test"], "a").entry
    for part in ("images", "layouts"):
        assert found["sampled"][part]["copies"] == 8 and found["sampled"][part]["ratio"] < 0.1
    others = judge(loaded(sampled(tmp_path / "b", real["val"])), train, real["test"], "b").entry
    for part in ("images", "layouts"):
        assert others["sampled"][part]["copies"] == 0 and others["sampled"][part]["ratio"] > 0.7
    assert others["sampled"]["layout"] == "layout@6" and "of_patients" not in others
    assert "copies 8 of 8" in pairs.summary(found) and "copies 0 of 8" in pairs.summary(others)


def test_models_that_have_seen_the_held_out_patients_are_refused(real, tmp_path):
    patient = real["test"].groups[0]
    folder = sampled(tmp_path / "a", real["val"], trained_on={"x.png": patient})
    with pytest.raises(PixmedError, match=rf"have seen 1 of the held-out patients \({patient}\)"):
        judge(loaded(folder), real["train"], real["test"], "a")


def test_a_pair_that_left_its_slice_but_not_its_patient_is_recognised(real):
    """It shows another slice of that patient, in another plane than the one it is said to be from."""
    train, test = real["train"], real["test"]
    alike = likeness(train.images, train.images)
    same = train.groups[:, None] == train.groups
    image, source = np.unravel_index(np.where(same, alike, 2).argmin(), alike.shape)
    assert (
        alike[image, source] < np.where(same, -1, alike)[image].max()
    )  # strangers are nearer than that slice
    row = {"file": "0.png", "grade": "recombined", "edit": "move", "source": train.files[source]}
    pair = Pairs([{**row, "patient_group": "?"}], train.images[image : image + 1], None, {})
    (told,) = closeness(pair, train, test)
    assert told["recognised"] and told["to_patient"] == pytest.approx(0, abs=1e-5)
    assert told["to_source"] > told["to_others"]


def test_closeness_by_loops(real):
    train, test = real["train"], real["test"]
    images = np.concatenate([train.images[:2], test.images[:1], train.images[5:6][:, :, ::-1]])
    sources = [train.files[0], train.files[7], test.files[0], train.files[5]]
    edits = ["move", "swap", "move", "none"]
    rows = [
        {"file": f"{i}.png", "grade": "recombined", "edit": edit, "source": source, "patient_group": "?"}
        for i, (edit, source) in enumerate(zip(edits, sources, strict=True))
    ]
    told = closeness(Pairs(rows, images, None, {}), train, test)
    everyone = np.concatenate([train.images, test.images])
    groups = [*train.groups, *test.groups]
    files = [*train.files, *test.files]
    alike = likeness(images, everyone)
    for i, row in enumerate(told):
        own = groups[files.index(sources[i])]
        patient = min(1 - alike[i, j] for j in range(len(files)) if groups[j] == own)
        others = min(1 - alike[i, j] for j in range(len(files)) if groups[j] != own)
        assert row["to_source"] == pytest.approx(max(0, 1 - alike[i, files.index(sources[i])]), abs=1e-6)
        assert (row["to_patient"], row["to_others"]) == pytest.approx(
            (max(0, patient), max(0, others)), abs=1e-6
        )
        assert row["recognised"] == (patient < others)
    assert [row["recognised"] for row in told] == [True, train.groups[1] == train.groups[7], True, True]
    sums = pairs.summed(told)
    assert list(sums) == ["move", "none", "swap", "all"] and [of["n"] for of in sums.values()] == [2, 1, 1, 4]
    assert sums["move"]["to_source"] == pytest.approx(0, abs=1e-5)
    lines = pairs.table(told).splitlines()
    assert lines[0] == ",".join(CLOSENESS) and len(lines) == 5


def test_an_audit_of_edited_pairs(run, tmp_path):
    output = sample(run, split="train", edit="mixed", number=6, output=str(tmp_path / "mixed"))
    result = audit(run, samples=str(output))
    entry = result["pairs"]
    assert entry["n"] == 6 and entry["folder"] == "mixed" and "sampled" not in entry
    assert sum(of["n"] for edit, of in entry["of_patients"].items() if edit != "all") == 6
    with (run / "report" / "closeness.csv").open(newline="") as file:
        assert {row["grade"] for row in csv.DictReader(file)} == {"recombined"}
    text = Page((run / "report" / "audit.html").read_text()).text
    assert "its patient is the nearest of all" in text and "6 pairs in mixed" in summary(result)


def test_an_audit_of_sampled_pairs_is_told_on_the_next_sheet(run, real, tmp_path):
    folder = sampled(tmp_path / "drawn", real["val"])
    result = audit(run, samples=str(folder))
    assert json.loads((run / "audit.json").read_text())["pairs"] == json.loads(json.dumps(result["pairs"]))
    page = (run / "report" / "audit.html").read_text()
    assert "layouts are by layout@6" in Page(page).text and page.count("<img") >= 5
    config = json.loads((run / "config.json").read_text())
    row = dict.fromkeys(("source", "patient_group", "tumor_source", "tumor_group"), "")
    row |= {"label": "glioma", "edit": "none", "grade": "sampled"}

    def sheet(contents):
        options = {"number": 1, "format": "png", "layout": "layout@6"}
        given = {"step": 6, "masks": False, "split": "test", "rows": [row], "options": options}
        given |= {"why": "", "traced": True, "contents": contents}
        facts = json.loads(json.dumps(data_sheet.collect(run, config=config, **given)))
        assert faults(facts, "data_sheet") == []
        return facts["privacy"]

    told = sheet(synthetic.contents(folder))
    assert told["audited"] and [answer["question"] for answer in told["answers"]] == [
        *("New?", "Safe to share?", "Label maps: New?", "Label maps: Safe to share?"),
    ]
    assert "0 of 8 are copies" in told["answers"][2]["sentence"]
    # Of a layout model of the same name and step: one map is another.
    maps = real["val"].maps.copy()
    maps[0, :3] = 0
    another = sampled(tmp_path / "another", real["val"]._replace(maps=maps))
    assert (another / "manifest.csv").read_bytes() == (folder / "manifest.csv").read_bytes()
    other = sheet(synthetic.contents(another))
    assert not other["audited"] and {answer["answer"] for answer in other["answers"]} == {"not measured"}


def test_a_folder_of_copies_is_told_first_and_in_no_green_word(run, real, tmp_path):
    """Training slices in the guise of samples, of a generator that copies nothing itself."""
    result = audit(run, samples=str(sampled(tmp_path / "copies", real["train"])))
    assert result["memorisation"]["copies"] == 0
    answers = {a.question: a.answer for a in verdict.of_folder(result["pairs"])}
    assert answers == dict.fromkeys(
        ("New?", "Safe to share?", "Label maps: New?", "Label maps: Safe to share?"), "no"
    )
    told, own = summary(result).split("The generator itself, not these pairs:\n")
    assert told.startswith("The pairs in copies:\nNew? no. 8 of 8 are copies of a training slice")
    assert "Safe to share? no." in told and " yes." not in told and " partly." not in told
    assert own.startswith("New? ") and "8 of 8" not in own
    page = (run / "report" / "audit.html").read_text()
    of_folder, of_generator = page.split("<h2>The generator itself</h2>")
    assert re.findall(r'<td class="([^"]*)">', of_folder) == ["no"] * 4
    assert "8 of 8 are copies" in of_folder and "8 of 8" not in of_generator.split("<h2>Copies</h2>")[0]


def test_the_verdict_on_edited_pairs_and_on_masks_of_ones_own():
    close = {"n": 6, "recognised": 0.5, "to_source": 0.1, "to_patient": 0.1, "to_others": 0.2}
    (one,) = verdict.of_folder({"folder": "x", "n": 6, "of_patients": {"move": close}})
    assert (one.question, one.answer) == ("Of patients: Safe to share?", "no")
    assert "in 50% of them that patient is the nearest of all" in one.sentence
    (none,) = verdict.of_folder({"folder": "x", "n": 6})
    assert none.answer == "not measured" and "whose they are is not known" in none.sentence


def test_folders_that_cannot_be_judged(run, real, tmp_path):
    with pytest.raises(PixmedError, match="no such folder"):
        audit(run, samples=str(tmp_path / "nowhere"))
    old = sampled(tmp_path / "old", real["val"])
    text = (old / "manifest.csv").read_text()
    (old / "manifest.csv").write_text(text.replace("grade", "rank"))
    with pytest.raises(PixmedError, match="names no grades; sample again"):
        loaded(old)
    foreign = sampled(
        tmp_path / "foreign", real["val"], grade="recombined", source="elsewhere.png", patient_group="p"
    )
    with pytest.raises(PixmedError, match=r"8 pairs are of slices that are neither .*\(elsewhere\.png"):
        judge(loaded(foreign), real["train"], real["test"], "foreign")
    large = sampled(tmp_path / "large", real["val"]._replace(maps=real["val"].maps * 9))
    with pytest.raises(PixmedError, match="no label map of this run's size and classes"):
        loaded(large)


def test_enlarged_pairs_are_judged_at_the_runs_size(real, tmp_path):
    twice = real["val"]._replace(
        images=real["val"].images.repeat(2, 1).repeat(2, 2), maps=real["val"].maps.repeat(2, 1).repeat(2, 2)
    )
    got, plain = loaded(sampled(tmp_path / "a", twice)), loaded(sampled(tmp_path / "b", real["val"]))
    np.testing.assert_array_equal(got.maps, plain.maps)
    np.testing.assert_allclose(got.images, plain.images, atol=1e-6)
