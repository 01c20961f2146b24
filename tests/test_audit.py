"""The audit from a run's folder: what it writes, where it is told, and who learnt by heart is caught."""

import json
import re
import shutil

import numpy as np
import pytest
import runs
from test_cards import faults
from test_report import Page

from pixmed_jax.data.sources import open_dataset
from pixmed_jax.errors import PixmedError
from pixmed_jax.evaluation import audit as module
from pixmed_jax.evaluation.audit import audit, summary
from pixmed_jax.evaluation.evaluate import evaluate, grey_floats
from pixmed_jax.metrics.memorisation import measure


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    workdir = runs.copied(tmp_path_factory, tmp_path_factory.mktemp("audited") / "run")
    evaluate(workdir)
    return workdir


@pytest.fixture(scope="module")
def data(evaluated):
    """{split: (images [N, S, S], label maps)}"""
    config = json.loads((evaluated / "config.json").read_text())
    dataset = open_dataset(**config["data"], seed=config["seed"])
    loaded = {split: dataset.load(dataset.rows[split], dataset.size)[0] for split in ("train", "test")}
    return {split: (grey_floats(arrays), np.asarray(arrays.maps)) for split, arrays in loaded.items()}


class Double:
    """A generator of maps that answers as `draw` says."""

    takes_maps, step = True, 6

    def __init__(self, draw):
        self.draw = draw

    def __call__(self, maps, *, seed=0):
        return np.stack([self.draw(one) for one in maps])[..., None].astype(np.float32)


def by_heart(images, maps):
    """Knows the slice of each training map; of another map it draws the training slice with the nearest one,
    mirrored."""

    def draw(one):
        same = (maps == one).reshape(len(maps), -1).mean(axis=1)
        picture = images[same.argmax()]
        return picture if same.max() == 1 else picture[:, ::-1]

    return draw


@pytest.fixture
def sound(evaluated):
    return audit(evaluated)


def test_what_is_written(evaluated, sound, data):
    stored = json.loads((evaluated / "audit.json").read_text())
    assert stored == json.loads(json.dumps(sound))
    assert set(stored) == {
        *("step", "config", "split", "split_by", "condition", "seed", "size", "memorisation", "pairs"),
    }
    entry = stored["memorisation"]
    assert {"ratio", "copies", "auc", "auc_interval", "near", "p", "recognition"} <= set(entry)
    assert entry["n"] == entry["n_held_out"] == len(data["test"][0]) and entry["n_train"] == len(
        data["train"][0]
    )
    assert entry["recognition"]["training"]["n"] == len(data["train"][0])
    assert json.loads((evaluated / "evaluation.json").read_text())["memorisation"] == entry
    assert "New? " in summary(sound) and "Safe to share? " in summary(sound)
    card = json.loads((evaluated / "model_card.json").read_text())
    assert card["memorisation"]["rows"][0]["value"] == entry["copies"] and faults(card) == []


def test_the_page_and_the_reports_first_screen(evaluated, sound):
    page = (evaluated / "report" / "audit.html").read_text()
    entry = sound["memorisation"]
    text = Page(page).text
    for words in ("leaked through the weights", "drawing of that patient in any case", f"{entry['auc']:.3f}"):
        assert words in text
    assert not re.search(r"https?://|<script|\bnan\b", page)
    index = (evaluated / "report" / "index.html").read_text()
    assert 'href="audit.html"' in index and f"of {entry['n']} are copies" in Page(index).text
    evaluate(evaluated)  # again: the audit of the same step is not forgotten
    assert json.loads((evaluated / "evaluation.json").read_text())["memorisation"]["auc"] == entry["auc"]
    assert 'href="audit.html"' in (evaluated / "report" / "index.html").read_text()


def test_who_learnt_by_heart_is_caught(evaluated, data, monkeypatch, tmp_path_factory):
    """From held-out maps come mirrored training slices, from training maps the slices themselves."""
    workdir = runs.copied(tmp_path_factory, tmp_path_factory.mktemp("heart") / "run")
    monkeypatch.setattr(module.inference, "load", lambda *_: Double(by_heart(*data["train"])))
    found = audit(workdir)["memorisation"]
    assert found["copies"] == found["near"] == found["n"]
    assert found["ratio"] < 0.05
    assert found["recognition"]["auc"] == 1 and found["recognition"]["training"]["recognised"] == 1
    assert found["recognition"]["training"]["distance"]["median"] == pytest.approx(0, abs=1e-3)
    assert not (workdir / "evaluation.json").exists()  # which is for evaluate to write


def test_another_step_is_not_told_of_the_evaluated_one(evaluated, sound):
    before = (evaluated / "evaluation.json").read_text()
    evaluation = {**json.loads(before), "step": 4}
    (evaluated / "evaluation.json").write_text(json.dumps(evaluation))
    audit(evaluated, number=3)
    assert json.loads((evaluated / "evaluation.json").read_text()) == evaluation
    (evaluated / "evaluation.json").write_text(before)


@pytest.mark.parametrize("stopped", ["page", "told"])
def test_an_audit_that_was_stopped_is_not_done(evaluated, tmp_path, monkeypatch, stopped):
    """audit.json is what a study takes for done, so it comes after the page and the entry."""
    workdir = shutil.copytree(evaluated, tmp_path / "run")
    for path in (workdir / "audit.json", workdir / "report" / "audit.html"):
        path.unlink(missing_ok=True)

    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(*{"page": (module, "_charts"), "told": (module.entries, "tell")}[stopped], stop)
    with pytest.raises(KeyboardInterrupt):
        audit(workdir, number=3)
    assert not (workdir / "audit.json").exists()
    monkeypatch.undo()
    audit(workdir, number=3)
    entry = json.loads((workdir / "audit.json").read_text())["memorisation"]
    assert (workdir / "report" / "audit.html").exists()
    assert json.loads((workdir / "evaluation.json").read_text())["memorisation"] == entry
    card = json.loads((workdir / "model_card.json").read_text())
    assert card["memorisation"]["rows"][0]["value"] == entry["copies"]


def test_by_slice_the_page_and_the_card_know_no_patients(evaluated, tmp_path, monkeypatch):
    """Slices without patients are groups of their own, and 266 slices are no 266 patients."""
    workdir = shutil.copytree(evaluated, tmp_path / "run")
    config = json.loads((workdir / "config.json").read_text())
    dataset = open_dataset(**config["data"], seed=config["seed"])
    nameless = dataset._replace(source=dataset.source._replace(groups=dataset.source.files))
    config["data"]["split"]["by"] = "slice"
    (workdir / "config.json").write_text(json.dumps(config))
    monkeypatch.setattr(module.facts, "open_data", lambda *_: nameless)
    monkeypatch.setattr(module, "measure", lambda *args: harmless(measure(*args)))
    result = audit(workdir)
    assert result["memorisation"]["patients"] == {"train": None, "held_out": None}
    assert "New? not measured." in summary(result)
    text = Page((workdir / "report" / "audit.html").read_text()).text
    for words in (
        f"{len(dataset.rows['train'])} training slices of unknown patients",
        f"{len(dataset.rows['test'])} real slices of unknown patients",
        "the numbers are too good",
        "over slices",
    ):
        assert words in text
    assert "whom nobody can have copied" not in text and not re.search(r"\d patients", text)
    card = json.loads((workdir / "model_card.json").read_text())
    assert faults(card) == [] and card["memorisation"]["patients"] == {"train": None, "held_out": None}
    assert "patients whom nobody knows" in (workdir / "model_card.md").read_text()
    assert {a["question"]: a["answer"] for a in card["answers"]}["New?"] == "not measured"


def harmless(found):
    """As if nothing had been found."""
    none = {"copies": 0, "near_share_interval": (0.0, 0.0), "auc": 0.5, "auc_interval": (0.4, 0.6)}
    return found._replace(entry={**found.entry, **none})


def test_mistakes(evaluated, tmp_path):
    with pytest.raises(PixmedError, match=r"audit\.split='train' is not one of test, val"):
        audit(evaluated, split="train")
    with pytest.raises(PixmedError, match=r"audit\.number=0: give 1 or more"):
        audit(evaluated, number=0)
    with pytest.raises(PixmedError, match="is no run's folder"):
        audit(tmp_path)
