"""Runs side by side: the tables and the page of real runs."""

import csv
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import runs
from test_report import Page

from pixmed_jax.errors import PixmedError
from pixmed_jax.evaluation import compare as module
from pixmed_jax.evaluation.compare import compare
from pixmed_jax.evaluation.evaluate import evaluate
from pixmed_jax.evaluation.rows import Row, read


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """A run, and a copy that claims another seed, an SSIM 0.1 higher and no ghost modules' worth of name."""
    base = tmp_path_factory.mktemp("compare")
    first = runs.copied(tmp_path_factory, base / "one")
    evaluate(first)
    second = Path(shutil.copytree(first, base / "two"))
    config = json.loads((second / "config.json").read_text())
    (second / "config.json").write_text(json.dumps({**config, "seed": 1}))
    evaluation = json.loads((second / "evaluation.json").read_text())
    evaluation["ssim"]["full"] += 0.1
    (second / "evaluation.json").write_text(json.dumps(evaluation))
    return first, second


def table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_tables_and_the_page_of_two_seeds(pair, tmp_path):
    page = compare(pair, tmp_path / "out")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        *("downstream.csv", "evidence.csv", "index.html", "losses.csv", "systems.csv")
    ]
    (line,) = table(tmp_path / "out" / "systems.csv")
    evaluation = json.loads((pair[0] / "evaluation.json").read_text())
    assert float(line["ssim_full"]) == pytest.approx(evaluation["ssim"]["full"] + 0.05)
    assert float(line["ssim_full_sd"]) == pytest.approx(0.1 / np.sqrt(2))
    assert (line["system"], line["seeds"], line["ssim_full_low"]) == ("one", "2", "")
    assert int(line["parameters"]) == evaluation["cost"]["networks"]["generator"]["parameters"]
    assert float(line["cpu_seconds"]) == evaluation["cost"]["inference"][0]["median"]
    assert int(line["step_bytes"]) > 4 * 3 * int(line["parameters"])  # weights and two moments at least
    # The strongest baseline is the same in both, and so is what lies between.
    best = max(evaluation["baselines"], key=lambda name: evaluation["baselines"][name]["ssim"]["full"])
    assert line["baseline"] == best
    assert float(line["baseline_ssim"]) == evaluation["baselines"][best]["ssim"]["full"]
    assert float(line["gain"]) == pytest.approx(evaluation["gains"][best]["value"])
    assert float(line["gain"]) < 0
    losses = table(tmp_path / "out" / "losses.csv")
    records = [json.loads(r) for r in (pair[0] / "metrics.jsonl").read_text().splitlines()]
    expected = {(r["step"], r["generator/1-ssim"]) for r in records if "generator/1-ssim" in r}
    assert {
        (int(r["step"]), float(r["value"]))
        for r in losses
        if (r["run"], r["loss"]) == ("one", "generator/1-ssim")
    } == expected
    text = page.read_text()
    assert "1 system ·" in Page(text).text and "one standard deviation over seeds" in text
    assert "over 2 seeds" in text and "http://" not in text and "https://" not in text
    assert "0.742" in text and "0.7420" not in text
    assert f"{evaluation['baselines'][best]['ssim']['full']:.3f}<small>" in text
    assert "one does not beat the" in text and "no network is needed for its SSIM" in text
    (line,) = table(tmp_path / "out" / "evidence.csv")
    assert float(line["diversity"]) == pytest.approx(evaluation["diversity"]["spread"]["ratio"])
    assert line["kid"] == "" and "too few" in evaluation["kid"]["why"]  # 8 slices of 4 patients are needed
    assert float(line["mask_dice_real"]) == pytest.approx(evaluation["mask_dice"]["real"])
    assert (line["judged_by"], line["seeds"]) == (evaluation["judged_by"], "2")
    assert line["new"] == "not measured" and "do not compare with each other" not in text


def test_runs_of_other_judges_are_set_apart(pair, tmp_path):
    """Each in a table of its own, with the slices that real ones reach there, and a word of warning."""
    other = Path(shutil.copytree(pair[0], tmp_path / "other"))
    evaluation = json.loads((other / "evaluation.json").read_text())
    evaluation["kid"]["floor"] = 0.123456
    evaluation |= {"judged_by": "f" * 16, "split": "val"}
    (other / "evaluation.json").write_text(json.dumps(evaluation))
    (other / "config.json").write_text(json.dumps({**read(other).config, "name": "other"}))
    page = compare([pair[0], other], tmp_path / "out").read_text()
    told = Page(page).text
    assert "The numbers of these 2 tables do not compare with each other" in told
    tables = re.findall(r"<table>(?:(?!</table>).)*variety.*?</table>", page, re.DOTALL)
    assert [re.findall(r"<tr><td>(\w+)</td>", one) for one in tables] == [["one"], ["other"]]
    assert "0.123" in tables[1] and "0.123" not in tables[0]
    lines = table(tmp_path / "out" / "evidence.csv")
    own = read(pair[0]).evaluation["judged_by"]
    assert [(line["judged_by"], line["split"]) for line in lines] == [(own, "test"), ("f" * 16, "val")]
    on = f"slices of {evaluation['patients']} patients; "
    for split in ("test", "val"):
        assert f"{evaluation['n']} {split} {on}" in told


def test_each_system_has_the_reference_of_what_it_is_given():
    """A line of two seeds of a system given maps, another of one, and one given a class, judged alike."""
    dice = {"mask_dice_real": 0.5, "mask_dice_lookup": 0.2}
    maps = [
        {"kid_real": 0.3, "kid_same": same, "kid_lookup": 0.6, "recall_same": 0.96, **dice}
        for same in (0.0, 0.02)
    ]
    label = {
        "kid_real": 0.1,
        "kid_same": None,
        "kid_lookup": None,
        "recall_real": 0.84,
        "mask_dice_real": None,
    }
    same, other, lookup = module.references([*maps, label])
    assert same == ("other slices of the same patients", {"kid": 0.01, "recall": 0.96, **{"mask_dice": 0.5}})
    assert other == ("other patients", {"kid": 0.1, "recall": 0.84})
    assert lookup == ("class means, no network", {"kid": 0.6, "mask_dice": 0.2})
    assert [words for words, _ in module.references(maps)] == [same[0], lookup[0]]
    assert module.references([{**label, **dice}]) == [
        ("other patients", {"kid": 0.1, "recall": 0.84, "mask_dice": 0.5})
    ]


def test_the_page_shows_them(pair, tmp_path):
    own = Path(shutil.copytree(pair[0], tmp_path / "own"))
    evaluation = json.loads((own / "evaluation.json").read_text())
    evaluation["kid"] |= {"value": 0.4, "low": 0.1, "high": 0.8, "floor": 0.3456, "draws": [0.4, 0.5]}
    evaluation["kid"] |= {"same_patients": 0.0123, "class_means": 0.6789, "apart": 0.5}
    evaluation["diversity"]["collapsed"] = False
    (own / "evaluation.json").write_text(json.dumps(evaluation))
    page = compare([own], tmp_path / "out").read_text()
    cells = re.findall(r'<tr class="dim"><td>([^<]+)</td><td class="number">([^<]*)</td>', page)
    assert cells[:2] == [
        ("other slices of the same patients", "0.0123"),
        ("class means, no network", "0.679"),
    ]
    assert "0.346" not in page
    (line,) = table(tmp_path / "out" / "evidence.csv")
    assert (line["kid_same"], line["kid_real"], line["kid_lookup"]) == ("0.0123", "0.3456", "0.6789")
    assert line["looks_real"] == "partly"


def test_the_same_masks_are_those_that_all_were_tested_on(pair):
    """The picture has a row for each common test slice, and a column for mask, real and each system."""
    rows = [Row(p.name, (read(p),)) for p in pair]
    tested = rows[0].first.split["test"]
    left = dict(list(tested.items())[:2])
    other = rows[1].first
    rows[1] = Row("two", (other._replace(split={**other.split, "test": left}),))
    picture = module.same_masks(rows)
    cell_size = 160 + 4  # 32 pixels enlarged fivefold, and a margin
    assert picture.size == (110 + 4 * cell_size, 22 + 2 * cell_size)


def test_without_a_slice_in_common_there_is_no_picture_of_any(pair, tmp_path):
    other = Path(shutil.copytree(pair[1], tmp_path / "other"))
    for name, change in (("config.json", {"name": "other"}), ("split.json", {"test": {"other.png": "p"}})):
        told = json.loads((other / name).read_text())
        (other / name).write_text(json.dumps({**told, **change}))
    page = compare((pair[0], other), tmp_path / "out").read_text()
    assert "<td>other<" in page
    assert "The same masks through every system" not in page and "no slice in common" not in page


def test_no_run_is_replaced_by_the_comparison(pair, tmp_path):
    """--workdir is a run's folder in every other mode."""
    both = [shutil.copytree(path, tmp_path / path.name) for path in pair]
    before = runs.tree_bytes(tmp_path)
    for output in (both[0], tmp_path):
        with pytest.raises(PixmedError, match="would be replaced, and holds other files"):
            compare(both, output)
    assert runs.tree_bytes(tmp_path) == before


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("config.json", "no run's folder"),
        ("evaluation.json", "run --mode=evaluate"),
        ("split.json", "run --mode=train"),
    ],
)
def test_what_is_no_finished_run(pair, tmp_path, name, told):
    broken = Path(shutil.copytree(pair[0], tmp_path / "broken"))
    (broken / name).unlink()
    with pytest.raises(PixmedError, match=told):
        compare([pair[0], broken], tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(PixmedError, match="workdirs: none given"):
        compare([], tmp_path / "out")
