"""Model cards and data sheets say what the run's files say, and invent nothing that nobody knows."""

import copy
import json
from importlib import resources
from pathlib import Path

import jsonschema
import pytest
import runs

from pixmed_jax import config as configs
from pixmed_jax import pages
from pixmed_jax.config import digest
from pixmed_jax.errors import PixmedError
from pixmed_jax.evaluation import cards, data_sheet, provenance

HOSTILE = "<script>alert(1)</script> | `x` [a](http://evil.example) *b*\n# heading"


def schema(name: str) -> jsonschema.Draft202012Validator:
    text = resources.files("pixmed_jax.evaluation").joinpath(f"{name}.schema.json").read_text("utf-8")
    jsonschema.Draft202012Validator.check_schema(json.loads(text))
    return jsonschema.Draft202012Validator(json.loads(text))


def faults(facts: dict, name: str = "model_card") -> list[str]:
    return [error.json_path for error in schema(name).iter_errors(facts)]


def of(value: float | None, floor: float | None = None) -> dict:
    return {"value": value, "floor": floor, "low": None, "high": None, "halves": None, "features": "encoder"}


def by_region(value: float) -> dict:
    return {"full": value, "head": value / 2, "tumor": None}


# An evaluation, an audit and a utility experiment as their stages write them, with numbers to be found again.
CLOSE = {"ssim": by_region(0.8125), "psnr": by_region(25.5), "mse": by_region(0.01)}
BASE = {"ssim": by_region(0.328), "psnr": by_region(18.02), "mse": by_region(0.02)}
SPREAD = {"generated": 0.4, "real": 0.5, "ratio": 0.8, "low": 0.7, "high": 0.9}
MEMORISED = {
    "ratio": 1.0, "copies": 3, "n": 261, "n_train": 2053, "n_held_out": 261,
    "patients": {"train": 130, "held_out": 19}, "near": 7, "near_expected": 2.5,
    "near_share_interval": [0.0, 0.02], "false_positive_rate": 0.01,
    "auc": 0.49, "auc_interval": [0.42, 0.57],
    "recognition": {"auc": 0.64, "auc_interval": [0.55, 0.71], "chance": 0.008,
                    "held_out": {"recognised": 0.93, "interval": [0.9, 0.96], "n": 261}},
}  # fmt: skip
EVALUATION = {
    "n": 261, "patients": 19, "split": "test", "split_by": "patient", "step": 6, "seed": 0, "size": 32,
    "condition": {"name": "tumor+head", "classes": ["glioma", "head"], "bytes_per_slice": 283.4},
    **CLOSE, "baselines": {"mean_image": BASE, "nearest_mask": BASE},
    "intervals": {"ssim": {"full": [0.801, 0.832], "head": [0.3, 0.5], "tumor": None},
                  "psnr": {"full": None, "head": None, "tumor": None}},
    "cost": {"networks": {"generator": {"parameters": 6820000}},
             "inference": [{"device": "cpu:cpu", "median": 0.0028, "low": 0.002, "high": 0.004}]},
    "kid": of(0.609, 0.303) | {"low": 0.135, "high": 1.28, "same_patients": 0.012, "class_means": 0.66,
                               "apart": 0.59},
    "fid": of(None), "precision": of(0.5, 0.7), "recall": of(0.33, 0.68) | {"same_patients": 0.96},
    "density": of(0.4, 1.0), "coverage": of(0.5, 0.9),
    "mask_dice": {"generated": 0.385, "real": 0.534, "other_mask": 0.04, "class_means": 0.21,
                  "intervals": {"generated": [0.209, 0.616], "real": None}},
    "lpips": {"value": None, "why": "not asked for"}, "artefacts": {"found": ["checkerboard"]},
    "diversity": {"collapsed": False, "spread": SPREAD},
}  # fmt: skip
UTILITY = {
    "primary": ["both", "augmented"], "seeds": 2, "split": "val+test+spare", "complete": True,
    "tested_on": {"10": {"patients": 39, "slices": 525}},
    "networks": {"segmenter": {"measures": {"dice": {"10": {
        "differences": {"both-augmented": {"value": -0.002, "low": -0.039, "high": 0.032, "low_all": -0.05,
                                           "high_all": 0.04, "of_seeds": [0.0, 0.0]}},
        "power": {"detectable": 0.031}}}}}},
}  # fmt: skip


@pytest.fixture
def run(tmp_path, tmp_path_factory) -> Path:
    """A run's folder with its texts alone."""
    config = runs.config(tmp_path_factory)
    split = {
        "train": {"a.png": "p1", "b.png": "p1", "c.png": "p2"},
        "val": {"d.png": "p3"},
        "test": {"e.png": "p4"},
    }
    of_config = {"config": digest(config)}
    contents = {
        "config.json": config,
        "split.json": split,
        "env.json": {"devices": ["cpu:cpu"], "cpus": 2, "processes": 1, "packages": {"jax": "0.10.2"}},
        "evaluation.json": {**EVALUATION, **of_config},
        "audit.json": {"step": 6, "memorisation": MEMORISED, **of_config},
        "utility.json": {**UTILITY, **of_config},
    }
    for name, what in contents.items():
        (tmp_path / name).write_text(json.dumps(what))
    lines = [{"step": step, "images_per_second": rate} for step, rate in ((2, 4.0), (6, 8.0), (8, 1.0))]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return tmp_path


def change(run: Path, file: str, **values) -> None:
    contents = json.loads((run / file).read_text())
    (run / file).write_text(json.dumps({**contents, **values}))


def test_a_card_says_what_the_runs_files_say(run):
    page = cards.write(run).read_text(encoding="utf-8")
    facts = json.loads((run / "model_card.json").read_text())
    assert faults(facts) == []
    assert facts["training_data"]["split"] == {
        "train": {"slices": 3, "patients": 2},
        "val": {"slices": 1, "patients": 1},
        "test": {"slices": 1, "patients": 1},
    }
    # Two steps of four images at 4 a second, four at 8; what came after step 6 is not of this checkpoint.
    assert facts["training"]["hours"] == pytest.approx((2 * 4 / 4 + 4 * 4 / 8) / 3600)
    assert facts["training"]["images_per_second"] == 6
    for line in (
        "| train | 3 | 2 |",
        "| SSIM, whole image | 0.812 | 0.801 to 0.832 | more | mean training image 0.328; nearest-mask "
        "training slice 0.328 |",
        "| KID, features: encoder | 0.609 | 0.135 to 1.28 | less | other slices of the same patients "
        "0.012; class means 0.660 |",
        "| precision | 0.500 | – | more | between real patients 0.700 |",
        "| Dice of a segmenter of real slices with the mask | 0.385 | 0.209 to 0.616 | more | on the real "
        "slices 0.534; on class means 0.210; with other patients' masks 0.040 |",
        "| copies of a training slice | 3 | – | less | images looked at 261 |",
        "| images near a training slice | 7 | – | less | expected of strangers 2.50 |",
        "| AUC of guessing who was trained on | 0.490 | 0.420 to 0.570 | less | a guess 0.500 |",
        "| segmenter's dice, 10 % of the patients, on 39 unseen ones: gain | -0.002 | -0.039 to 0.032 | more "
        "| the least that would be seen 0.031 |",
        "Artefacts found: checkerboard.",
        "One image takes 2.80 ms on cpu:cpu (2 to 4).",
        "Parameters: generator 6,820,000.",
        "Values of label maps: 0 background, 1 glioma, 2 head.",
    ):
        assert line in page, line
    assert "SSIM, in the mask" not in page  # nothing was measured there
    answers = {answer["question"]: answer["answer"] for answer in facts["answers"]}
    assert answers == {
        "Looks real?": "partly", "Follows the mask?": "partly", "New?": "no", "Helps?": "no",
        "Safe to share?": "no",
    }  # fmt: skip


def test_what_nobody_measured_says_so_with_its_command(run):
    for name in ("evaluation.json", "audit.json", "utility.json", "env.json", "metrics.jsonl", "split.json"):
        (run / name).unlink()
    page = cards.write(run).read_text(encoding="utf-8")
    facts = json.loads((run / "model_card.json").read_text())
    assert faults(facts) == []
    for mode in ("evaluate", "audit", "utility"):
        assert f"Not evaluated; run python launch.py --workdir=DIR --mode={mode}." in page
    for words in (
        "Which slices were trained on is unknown",
        "unknown hardware",
        "Licence of these weights: unknown",
    ):
        assert words in page
    assert {answer["answer"] for answer in facts["answers"]} == {"not measured"}


def test_what_is_of_another_step_or_config_does_not_count(run):
    page = cards.write(run, step=4).read_text(encoding="utf-8")
    assert "Not evaluated at this step, but at 6; run " in page and "0.812" not in page
    assert "The audit was of step 6; run " in page
    change(run, "evaluation.json", config="000000000000")
    change(run, "utility.json", config="000000000000")
    facts = cards.collect(run)
    assert facts["model"]["step"] == 6  # the audit's
    assert facts["results"]["missing"].startswith("Not evaluated; run ")
    assert facts["utility"]["missing"].startswith("The utility experiment was of another config; run ")
    assert faults(facts) == []


def test_origin_and_licence(run):
    """Those of the project's own data are known, those of a folder are what the user says, or unknown."""
    facts = provenance.of_data(json.loads((run / "config.json").read_text()), run)
    assert facts["licence"].startswith("Apache-2.0") and "phantoms" in facts["described"]
    config = json.loads((run / "config.json").read_text())
    config["data"]["source"] = "folder"
    (run / "config.json").write_text(json.dumps(config))
    facts = cards.collect(run)["training_data"]
    assert (facts["described"], facts["licence"]) == (None, None)
    page = cards.write(run).read_text()
    assert "Source unknown; set about.data in the config. Licence: unknown" in page
    about = {"data": "Ward 7, 2021", "licence": "CC BY 4.0", "contact": "a@b.example"}
    before = configs.digest(config)
    (run / "config.json").write_text(json.dumps({**config, "about": about}))
    page = cards.write(run).read_text()
    assert "Ward 7, 2021. Licence: CC BY 4.0." in page and "Contact: a@b.example" in page
    assert 'training_data_licence: "CC BY 4.0"' in page
    assert configs.digest({**config, "about": about}) == before and configs.is_free("about.licence")


def test_patients_that_are_files_are_not_counted(run):
    """Without a table each slice is its own group, which says nothing of patients."""
    assert provenance.counted({"a.png": "a.png", "b.png": "b.png"}) == {"slices": 2, "patients": None}
    change(run, "split.json", train={"a.png": "a.png"})
    assert "| train | 1 | unknown |" in cards.write(run).read_text()


def test_who_nobody_knows_is_not_counted(run, tmp_path):
    change(run, "evaluation.json", patients_known=False)
    assert "Judged on patients nobody can count, of the same source" in " ".join(cards.collect(run)["limits"])
    assert "None" not in cards.write(run).read_text()
    rows = [{**row, "patient_group": row["source"], "tumor_group": row["tumor_source"]} for row in ROWS]
    assert sheet(run, rows=rows)["contents"]["patients"] == {"anatomy": None, "tumor": None}


def test_hostile_text_is_shown_and_does_nothing(run):
    about = {"data": HOSTILE, "licence": HOSTILE, "contact": HOSTILE}
    change(run, "config.json", about=about, name=HOSTILE)
    page = cards.write(run).read_text(encoding="utf-8")
    _, front, body = page.split("---\n", 2)
    assert "<script>" not in front.replace('"<script>', "") and "\n# heading" not in page
    assert (
        "\\<script\\>alert(1)\\</script\\> \\| \\`x\\` \\[a\\](http://evil.example) \\*b\\* \\# heading"
        in body
    )
    assert "<script" not in body.replace("\\<script", "")


def test_limits_follow_from_the_facts(run):
    told = " ".join(cards.collect(run)["limits"])
    assert "3 slices of 2 patients" in told and "drawn phantoms" in told and "32 x 32" in told
    change(run, "evaluation.json", split="train+test", split_by="slice")
    config = json.loads((run / "config.json").read_text())
    config["data"] |= {"condition": "anatomy", "split": {**config["data"]["split"], "by": "slice"}}
    (run / "config.json").write_text(json.dumps(config))
    change(run, "evaluation.json", config=digest(config))
    told = " ".join(cards.collect(run)["limits"])
    for words in ("flatter", "slices that it was trained on", "recognisably that patient"):
        assert words in told


def test_no_run(tmp_path):
    with pytest.raises(PixmedError, match=r"config\.json: missing"):
        cards.write(tmp_path)


def spoilt(facts: dict, key: str, value) -> dict:
    """A copy with `key`, such as "results.rows.0.value", set, or removed where the value is ...."""
    facts = copy.deepcopy(facts)
    *path, last = [int(part) if part.isdigit() else part for part in key.split(".")]
    section = facts
    for part in path:
        section = section[part]
    if value is ...:
        del section[last]
    else:
        section[last] = value
    return facts


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("training_data.licence", ...),
        ("training_data.licence", ""),
        ("training_data.split.train", ...),
        ("training_data.split.train.patients", 0),
        ("use.out_of_scope", []),
        ("results.rows", []),
        ("results.rows.0.value", "0.8"),
        ("results.rows.0.beside", ...),
        ("results", {}),
        ("results.missing", "and numbers too"),
        ("memorisation", ...),
        ("utility", ...),
        ("answers.0.answer", "surely"),
        ("answers", []),
        ("limits", []),
        ("model.config", "no digest"),
        ("model.makes", "sounds"),
        ("invented", 1),
    ],
)
def test_the_schema_finds_planted_faults(run, key, value):
    facts = json.loads(json.dumps(cards.collect(run)))
    assert faults(facts) == []
    assert faults(spoilt(facts, key, value)) != []


WHOSE = ("source", "patient_group", "tumor_source", "tumor_group")
ROWS = [
    {"label": label, "edit": edit, "grade": "recombined", **dict(zip(WHOSE, whose, strict=True))}
    for label, edit, whose in (
        ("glioma", "move", ("a.png", "p1", "a.png", "p1")),
        ("glioma", "swap", ("b.png", "p1", "c.png", "p2")),
        ("no_tumor", "remove", ("c.png", "p2", "", "")),
    )
]
FOR_TRAINING = {"why": "", "traced": True, "contents": "of no audit"}
OPTIONS = {"label": "", "number": 3, "seed": 0, "balance": False, "edit": "mixed", "format": "png"}


def sheet(run: Path, **options) -> dict:
    given = {"step": 6, "masks": False, "split": "train", "rows": ROWS, "options": OPTIONS, **FOR_TRAINING}
    given |= options
    config = json.loads((run / "config.json").read_text())
    return json.loads(json.dumps(data_sheet.collect(run, config=config, **given)))


def test_a_data_sheet_says_what_is_in_the_folder(run, tmp_path):
    facts = sheet(run)
    assert faults(facts, "data_sheet") == []
    assert facts["contents"]["labels"] == {"glioma": 2, "no_tumor": 1}
    assert facts["contents"]["edits"] == {"move": 1, "remove": 1, "swap": 1}
    assert facts["contents"]["patients"] == {"anatomy": 2, "tumor": 2}
    assert facts["contents"]["grades"] == {"recombined": 3}
    assert list(facts["privacy"]["grades"]) == ["recombined"]
    assert "not to share" in facts["privacy"]["grades"]["recombined"]
    assert facts["command"] == (
        "python launch.py --workdir=RUN --mode=sample --sample.split=train --sample.number=3 "
        "--sample.edit=mixed --sample.format=png --sample.step=6"
    )
    assert facts["privacy"]["audited"]
    assert [answer["answer"] for answer in facts["privacy"]["answers"]] == ["no", "no"]
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "manifest.csv").write_text("file\n")
    config = json.loads((run / "config.json").read_text())
    data_sheet.write(
        tmp_path / "out", run, config=config, step=6, rows=ROWS, masks=False, split="train", options=OPTIONS,
        why="", traced=True,
    )  # fmt: skip
    page = (tmp_path / "out" / "data_sheet.md").read_text(encoding="utf-8")
    for words in (
        "Not for diagnosis",
        "| glioma | 2 |",
        "| recombined | 3 | parts of patients",
        "trained on 3 slices of 2 patients",
        facts["command"],
    ):
        assert words.lower() in page.lower(), words
    assert str(tmp_path) not in page  # a folder's place is nobody's business


def test_a_data_sheet_without_an_audit_or_a_split(run):
    (run / "audit.json").unlink()
    (run / "split.json").unlink()
    facts = sheet(run, masks=True, rows=[{**ROWS[0], "label": "", "patient_group": "", "tumor_group": ""}])
    assert faults(facts, "data_sheet") == []
    assert not facts["privacy"]["audited"] and facts["training_data"]["split"] is None
    assert facts["drawn_from"] == "masks" and "--sample.masks=MASKS" in facts["command"]
    assert facts["contents"]["patients"] == {"anatomy": None, "tumor": None}


def test_a_data_sheet_says_what_its_folder_is_for(run):
    """A command that trains with it is there only where training would take it."""
    trains = sheet(run)
    assert trains["use"]["intended"][0].startswith("Training slices")
    assert "configs/segmenter.py" in trains["loading"] and "synthetic_trust" not in trains["loading"]
    measures = sheet(run, why="8 are of held-out slices")
    assert measures["use"]["intended"][0].startswith("Measuring") and measures["loading"] is None
    assert measures["use"]["out_of_scope"][-1] == "Training: 8 are of held-out slices"
    assert not any("Training" in use for use in measures["use"]["intended"])
    assert sheet(run, options={**OPTIONS, "format": "nifti"})["loading"] is None  # which is not read there
    assert "--config.data.synthetic_trust=true" in sheet(run, traced=False)["loading"]
    assert sheet(run, masks=True)["use"]["intended"][0].endswith("and whose masks these are not")
    for facts in (trains, measures):
        assert faults(facts, "data_sheet") == []


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("loading", "rm -r THIS"),
        ("contents.images", 0),
        ("contents.labels", {}),
        ("training_data.licence", ...),
        ("privacy.answers", []),
        ("command", "rm -r RUN"),
        ("use.out_of_scope", []),
        ("generator.step", "newest"),
        ("extra", True),
    ],
)
def test_the_sheets_schema_finds_planted_faults(run, key, value):
    assert faults(spoilt(sheet(run), key, value), "data_sheet") != []


def test_markdown_escapes_what_it_is_given():
    assert pages._plain("a_b*c\n\n# d <e> | f") == r"a_b\*c \# d \<e\> \| f"
    assert pages._plain("_a_ trained_on.json") == r"\_a\_ trained_on.json"
