"""Runs side by side: what becomes one row, what a cell says, what is doubted, and the page of real runs."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import runs

from pixmed_jax.errors import PixmedError
from pixmed_jax.evaluation import compare as module
from pixmed_jax.evaluation.compare import Row, Run, arm, cell, compare, doubts, ghost_pairs, grouped
from pixmed_jax.evaluation.evaluate import evaluate


def run(name="a", *, ssim=0.5, seed=0, levels=(1, 2), size=64, test=("x", "y"), **evaluation) -> Run:
    config = {
        "name": "ghost",
        "preset": "quick",
        "seed": seed,
        "data": {"size": size, "condition": "anatomy", "synthetic_dir": "", "synthetic": "add"},
        "model": {"generator": {"ghost_levels": list(levels), "ghost_ratio": 2}},
    }
    told = {
        "split": "test",
        "split_by": "patient",
        "ssim": {"full": ssim},
        "intervals": {"ssim": {"full": [ssim - 0.1, ssim + 0.2]}},
    }
    split = {"train": {"t": "p"}, "val": {}, "test": dict.fromkeys(test, "q")}
    return Run(Path(name), config, {**told, **evaluation}, split)


def judge(name, synthetic_dir="", how="add", seed=0, **evaluation) -> Run:
    of = run(name, seed=seed, **evaluation)
    data = {**of.config["data"], "synthetic_dir": synthetic_dir, "synthetic": how}
    return of._replace(config={**of.config, "data": data, "model": {"network": {"name": "densenet"}}})


# ---------------------------------------------------------------- rows and cells
def test_runs_that_differ_in_the_seed_alone_are_one_row():
    rows = grouped([run("a"), run("b", seed=1), run("c", levels=()), run("d", seed=2)])
    assert [(row.name, [of.path.name for of in row.runs]) for row in rows] == [
        ("a", ["a", "b", "d"]),
        ("c", ["c"]),
    ]


def test_seeds_of_an_arm_are_one_row_wherever_the_samples_lie():
    rows = grouped(
        [
            judge("a", "/one/dcgan/samples"),
            judge("b", "/two/dcgan/samples", seed=1),
            judge("c", "/one/ghost/samples"),
            judge("d", "/one/ghost/samples", how="replace"),
            judge("e"),
        ]
    )
    assert [(row.name, len(row.runs), arm(row.first)) for row in rows] == [
        ("a", 2, "real + dcgan"),
        ("c", 1, "real + ghost"),
        ("d", 1, "ghost alone"),
        ("e", 1, "real"),
    ]


def test_a_cell_of_one_seed_has_its_interval_of_several_their_spread():
    assert cell(Row("a", (run(ssim=0.5),)), "ssim", "full") == (0.5, None, 0.4, 0.7, 1)
    several = cell(Row("a", (run(ssim=0.5), run(ssim=0.7), run(ssim=0.9))), "ssim", "full")
    assert several.mean == pytest.approx(0.7) and several.spread == pytest.approx(0.2)  # n - 1
    assert (several.low, several.high, several.seeds) == (None, None, 3)
    assert cell(Row("a", (run(),)), "dice") == (None, None, None, None, 0)


def test_ghost_pairs_agree_in_all_but_their_levels():
    with_ghosts, without = run("a"), run("b", levels=())
    other = run("c", levels=(), size=32)
    rows = grouped([with_ghosts, without, other])
    assert ghost_pairs(rows) == [("a", "b")]


# ---------------------------------------------------------------- doubts
def test_comparable_runs_raise_no_doubt():
    assert doubts([run("a"), run("b", test=("y", "x"))]) == []


@pytest.mark.parametrize(
    ("other", "told"),
    [
        (run("b", test=("x", "z")), "different slices"),
        (run("b", size=32), "32, 64 pixels"),
        (run("b", split_by="slice"), "b: split by slice"),
        (run("b", split="train"), "b: evaluated on the slices that were trained on"),
    ],
)
def test_doubts(other, told):
    assert any(told in doubt for doubt in doubts([run("a"), other]))


# ---------------------------------------------------------------- the page
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
        *("downstream.csv", "index.html", "losses.csv", "systems.csv")
    ]
    (line,) = table(tmp_path / "out" / "systems.csv")
    evaluation = json.loads((pair[0] / "evaluation.json").read_text())
    assert float(line["ssim_full"]) == pytest.approx(evaluation["ssim"]["full"] + 0.05)
    assert float(line["ssim_full_sd"]) == pytest.approx(0.1 / np.sqrt(2))
    assert (line["system"], line["seeds"], line["ssim_full_low"]) == ("one", "2", "")
    assert int(line["parameters"]) == evaluation["cost"]["networks"]["generator"]["parameters"]
    assert float(line["cpu_seconds"]) == evaluation["cost"]["inference"][0]["median"]
    assert int(line["step_bytes"]) > 4 * 3 * int(line["parameters"])  # weights and two moments at least
    losses = table(tmp_path / "out" / "losses.csv")
    records = [json.loads(r) for r in (pair[0] / "metrics.jsonl").read_text().splitlines()]
    expected = {(r["step"], r["generator/1-ssim"]) for r in records if "generator/1-ssim" in r}
    assert {
        (int(r["step"]), float(r["value"]))
        for r in losses
        if (r["run"], r["loss"]) == ("one", "generator/1-ssim")
    } == expected
    text = page.read_text()
    assert "over 2 seeds" in text and "http://" not in text and "https://" not in text
    assert "0.742" in text and "0.7420" not in text


def test_the_same_masks_are_those_that_all_were_tested_on(pair):
    """The picture has a row for each common test slice, and a column for mask, real and each system."""
    rows = [Row(p.name, (module.read(p),)) for p in pair]
    tested = rows[0].first.split["test"]
    left = dict(list(tested.items())[:2])
    other = rows[1].first
    rows[1] = Row("two", (other._replace(split={**other.split, "test": left}),))
    picture = module.same_masks(rows)
    cell_size = 160 + 4  # 32 pixels enlarged fivefold, and a margin
    assert picture.size == (110 + 4 * cell_size, 22 + 2 * cell_size)


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
