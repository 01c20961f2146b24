"""What becomes one row, what a cell says, what is doubted, and whose numbers compare."""

from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from pixmed_jax.evaluation.rows import (
    Row,
    Run,
    above_the_lowest,
    arm,
    cell,
    doubts,
    evidence_numbers,
    ghost_pairs,
    grouped,
    judged_alike,
)


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
            judge("f", "/one/pasted/samples,/two/nobody"),
        ]
    )
    assert [(row.name, len(row.runs), arm(row.first)) for row in rows] == [
        ("a", 2, "real + dcgan"),
        ("c", 1, "real + ghost"),
        ("d", 1, "ghost alone"),
        ("e", 1, "real"),
        ("f", 1, "real + pasted + nobody"),
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


# ---------------------------------------------------------------- evidence
def judged(
    name="a", *, seed=0, by="slices", features="encoder", kid=0.5, found=(), audit=None, **more
) -> Run:
    evidence = {
        "n": 40,
        "patients": 10,
        "judged_by": by,
        "kid": {"value": kid, "low": kid - 0.2, "high": kid + 0.3, "floor": 0.1, "features": features},
        "recall": {"value": 0.4, "floor": 0.8},
        "mask_dice": {"generated": 0.6, "real": 0.75, "intervals": {"generated": [0.5, 0.7]}},
        "diversity": {"spread": {"ratio": 0.9, "low": 0.85, "high": 0.95}, "collapsed": False},
        "artefacts": {"found": list(found), **{name: {"found": True} for name in found}},
        "memorisation": audit or {"copies": None, "why": "not measured; run --mode=audit"},
    }
    return run(name, seed=seed, **{**evidence, **more})


def audited(copies=0, auc=0.5) -> dict:
    return {
        **{"copies": copies, "near": 0, "near_expected": 1.0, "near_share_interval": (0.0, 0.0), "n": 50},
        **{"false_positive_rate": 0.01, "auc": auc, "auc_interval": (auc - 0.1, auc + 0.1)},
        **{"patients": {"train": 20, "held_out": 10}, "recognition": None},
    }


def test_the_evidence_of_one_seed():
    line = evidence_numbers(Row("a", (judged(found=["seams"], audit=audited(copies=3, auc=0.75)),)))
    expected = {
        **{"system": "a", "judged_by": "slices", "features": "encoder", "n": 40, "patients": 10, "seeds": 1},
        **{"kid": 0.5, "kid_sd": None, "kid_low": pytest.approx(0.3), "kid_high": 0.8, "kid_real": 0.1},
        **{"recall": 0.4, "recall_low": None, "recall_real": 0.8, "fid": None, "fid_real": None},
        **{"mask_dice": 0.6, "mask_dice_low": 0.5, "mask_dice_high": 0.7, "mask_dice_real": 0.75},
        **{"diversity": 0.9, "diversity_low": 0.85, "diversity_high": 0.95},
        **{"copies": 3, "audited": 50, "auc": 0.75, "auc_low": 0.65, "auc_high": 0.85, "map_auc": None},
        **{"artefacts": "seams", "looks_real": "partly", "follows_the_mask": "partly"},
        **{"new": "no", "safe_to_share": "no", "train_slices": 1},
    }
    assert {key: line[key] for key in expected} == expected


def test_the_evidence_of_several_seeds():
    """Values have their spread and no interval, words say how many seeds they are true of."""
    seeds = [
        judged("a", kid=0.1, found=["seams", "tilt"], audit=audited()),
        judged("b", seed=1, kid=0.2, found=["tilt"], audit=audited(copies=2)),
        judged("c", seed=2, kid=0.6),
    ]
    line = evidence_numbers(Row("a", tuple(seeds)))
    assert line["kid"] == pytest.approx(0.3) and line["kid_sd"] == pytest.approx(0.07**0.5)
    assert line["kid_low"] is None and line["seeds"] == 3
    assert line["artefacts"] == "seams (1 of 3), tilt (2 of 3)"
    assert line["new"] == "yes (1 of 3), no (1 of 3), not measured (1 of 3)"
    assert (line["copies"], line["audited"]) == (2, 100)


def test_how_far_a_system_is_above_the_lowest():
    """Draw by draw, of the means over seeds: a's are 0.3 or 0.5 above b's, however both vary together.

    The largest difference of all pairs is 0.1 from its mean in every draw, one standard deviation.
    """
    shared = np.tile([-1.0, 0.0, 1.0, 2.0], 25)  # of patients
    apart = np.repeat([0.3, 0.5], 50)

    def row(name, kids, draws, **more):
        of = [judged(name, kid=kid) for kid in kids]
        for each, drawn in zip(of, draws, strict=True):
            each.evaluation["kid"]["draws"] = drawn.tolist()
            each.evaluation["seed"] = 0
            each.evaluation.update(more)
        return Row(name, tuple(of))

    b = row("b", [0.1, 0.3], [shared - 0.1, shared + 0.1])
    a = row("a", [0.7], [shared + apart])
    reach = 0.1 * stats.t.ppf(0.975, 9) / 1.959964 * np.sqrt(10 / 9)  # of ten patients
    above = {"kid_above": 0.5, "kid_above_low": 0.5 - reach, "kid_above_high": 0.5 + reach}
    assert above_the_lowest([a, b]) == [pytest.approx(above), {}]
    assert above_the_lowest([b, a]) == [{}, pytest.approx(above)]
    # Not where others were drawn, or nobody.
    assert above_the_lowest([a, row("b", [0.1], [shared], seed=1)]) == [{}, {}]
    assert above_the_lowest([a, row("b", [0.1], [shared[:50]])]) == [{}, {}]
    assert above_the_lowest([a, Row("c", (judged("c"),))]) == [{}, {}]


def test_of_equal_systems_none_is_shown_to_lie_above_the_lowest():
    """Six whose KIDs are of one law; the lowest is chosen for that, so the difference to it is large."""
    rng = np.random.default_rng(0)
    shown = {2: 0, 6: 0}
    for _ in range(150):
        kids, noise = rng.normal(size=6), rng.normal(size=(6, 300))
        for count in shown:
            rows = []
            for i in range(count):
                of = judged(str(i), kid=kids[i], patients=16, seed=0)
                of.evaluation["kid"]["draws"] = (kids[i] + noise[i]).tolist()
                rows.append(Row(str(i), (of._replace(evaluation={**of.evaluation, "seed": 0}),)))
            shown[count] += any(line.get("kid_above_low", -1) > 0 for line in above_the_lowest(rows))
    assert max(shown.values()) <= 0.08 * 150  # each pair at 95 % by itself: 30 % of six


def test_a_system_that_is_worse_is_still_shown_to_be():
    noise = np.random.default_rng(1).normal(size=(6, 300))
    rows = []
    for i in range(6):
        of = judged(str(i), kid=8.0 * (i == 3), patients=16)
        of.evaluation["kid"]["draws"] = (8.0 * (i == 3) + noise[i]).tolist()
        rows.append(Row(str(i), (of._replace(evaluation={**of.evaluation, "seed": 0}),)))
    shown = [line.get("kid_above_low", 0) > 0 for line in above_the_lowest(rows)]
    assert shown == [i == 3 for i in range(6)]


def test_what_was_not_measured():
    """An evaluation from before these measures, and one of too few slices."""
    line = evidence_numbers(Row("a", (run(n=3, patients=1),)))
    assert line["artefacts"] is None and line["copies"] is None and line["kid"] is None
    assert line["looks_real"] == line["new"] == "not measured"
    few = judged(artefacts={"seams": {"value": None, "why": "few"}, "found": None})
    assert evidence_numbers(Row("a", (few,)))["artefacts"] is None
    assert evidence_numbers(Row("a", (judged(),)))["artefacts"] == "none"


def test_numbers_compare_among_those_that_the_same_slices_judged():
    same, other = judged("a"), judged("b", by="other slices")
    inception, unsaid = judged("c", features="Inception"), judged("d", by=None)
    rows = [Row(of.path.name, (of,)) for of in (same, other, inception, unsaid, judged("e", by=None))]
    rows.append(Row("f", (judged("f"), judged("g", seed=1, by="other slices"))))
    parts = [[row.name for row in part] for part in judged_alike(rows)]
    assert parts == [["a", "f"], ["b", "g"], ["c"], ["d"], ["e"]]
