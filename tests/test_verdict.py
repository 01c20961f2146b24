"""Each question's answer at its thresholds, what is said without a measurement, and the report's refresh."""

import json

import numpy as np
import pytest

from pixmed_jax import command_line
from pixmed_jax.evaluation import entries, verdict
from pixmed_jax.metrics import paired

SOUND = {
    **{"copies": 0, "near": 5, "near_expected": 5.0, "near_share_interval": (0.002, 0.02), "n": 500},
    **{"false_positive_rate": 0.01, "auc": 0.52, "auc_interval": (0.45, 0.58), "recognition": None},
    "patients": {"train": 130, "held_out": 6},
}
SPREAD = {"spread": {"ratio": 0.93}, "collapsed": False}


def told(question, evaluation):
    (found,) = [a for a in verdict.answers(evaluation) if a.question.startswith(question)]
    return found


def test_five_questions_and_what_measures_them():
    found = verdict.answers({})
    assert [a.question for a in found] == [
        *("Looks real?", "Follows the mask?", "New?", "Helps?", "Safe to share?"),
    ]
    assert {a.answer for a in found} == {"not measured"}
    commands = (*("--mode=evaluate",) * 2, "--mode=audit", "--mode=utility", "--mode=audit")
    for one, command in zip(found, commands, strict=True):
        assert command in one.sentence and one.page == ""


@pytest.mark.parametrize(
    ("kid", "answer"), [(0.004, "yes"), (0.0041, "partly"), (0.02, "partly"), (0.021, "no")]
)
def test_looks_real(kid, answer):
    found = {"kid": {"value": kid, "low": 0.001, "high": 0.03, "floor": 0.002}, "diversity": SPREAD}
    one = told("Looks", found)
    assert one.answer == answer
    assert f"{kid:.4f}" in one.sentence and "0.0020" in one.sentence and "0.93 times" in one.sentence
    collapsed = told("Looks", {**found, "diversity": {**SPREAD, "collapsed": True}})
    assert collapsed.answer == "no" and "collapsed" in collapsed.sentence
    assert told("Looks", {"diversity": {**SPREAD, "collapsed": True}}).answer == "no"  # whatever KID says


def test_readers_who_tell_them_apart_stand_against_a_yes():
    found = {"kid": {"value": 0.001, "low": 0.0, "high": 0.03, "floor": 0.002}, "diversity": SPREAD}
    seen = {"auc": 0.7, "low": 0.55, "high": 0.8, "readers": 2, "n": {"real": 30, "generated": 30}}
    one = told("Looks", {**found, "readers": seen})
    assert (one.answer, one.page) == ("partly", "reader.html")
    assert "2 readers told 30 from 30 real slices with an AUC of 0.70 (0.55 to 0.80" in one.sentence
    one = told("Looks", {**found, "readers": {**seen, "telling": 1}})
    assert "0.5 is chance, 1 of them by an interval of their own above it)" in one.sentence
    one = told("Looks", {**found, "readers": {**seen, "low": 0.49, "readers": 1}})
    assert one.answer == "yes" and "1 reader told 30" in one.sentence
    one = told("Looks", {**found, "readers": {**seen, "auc": 1.0, "low": None, "high": None}})
    assert one.answer == "yes"
    assert "with an AUC of 1.00 (too few patients for an interval; 0.5 is chance)" in one.sentence
    assert told("Looks", {**found, "readers": {"auc": None, "why": "not measured"}}).page == ""


@pytest.mark.parametrize(
    ("low", "floor", "halves", "answer"),
    [
        (-0.1, -0.01, None, "yes"),  # real sets are no distance apart: chance may explain 0.08
        (-0.1, -0.01, -0.02, "yes"),
        (0.0, -0.01, None, "yes"),
        (0.02, -0.01, None, "no"),
        (0.02, -0.01, 0.08, "yes"),  # halves have half the patients, and differ twice as much
        (0.02, -0.01, 0.07, "partly"),
        (0.02, 0.001, 0.03, "partly"),
        (0.02, 0.05, 0.001, "yes"),
    ],
)
def test_real_sets_that_are_close_by_chance(low, floor, halves, answer):
    """A KID of 0.08: the unit is the larger distance between real sets, and none where both are below 0."""
    kid = {"value": 0.08, "low": low, "high": 0.2, "floor": floor, "halves": halves}
    one = told("Looks", {"kid": kid, "diversity": SPREAD})
    assert one.answer == answer
    assert f"{max(floor, (halves or 0) / 2):.4f} between real patients" in one.sentence


def test_few_patients_do_not_make_it_real():
    kid = {"value": 0.001, "low": 0.0, "high": 0.01, "floor": 0.002}
    one = told("Looks", {"kid": kid, "diversity": SPREAD, "patients": 5})
    assert one.answer == "not measured" and "5 patients are too few" in one.sentence
    assert told("Looks", {"kid": kid, "diversity": SPREAD, "patients": 6}).answer == "yes"
    assert told("Looks", {"kid": {**kid, "value": 1.0}, "diversity": SPREAD, "patients": 5}).answer == "no"


@pytest.mark.parametrize(
    ("found", "answer", "words"),
    [
        ({"recall": {"value": 0.5, "floor": 0.7}}, "yes", ""),
        ({"recall": {"value": 0.48, "floor": 0.7}}, "partly", "recall 0.48, 0.70 between real patients"),
        ({"recall": {"value": None, "why": "few"}}, "yes", ""),
        ({"recall": {"value": 0.1, "floor": None}}, "yes", ""),  # nothing to hold it against
        (
            {"artefacts": {"seams": {"found": False}, "tilt": {"found": True}, "found": ["tilt"], "n": 9}},
            "partly",
            "artefacts: tilt",
        ),
        (
            {"artefacts": {"sharpness": {"found": True, "signed": -0.189}, "found": ["sharpness"], "n": 9}},
            "partly",
            "artefacts: blurrier than real slices (sharpness -0.19)",
        ),
        ({"artefacts": {"tilt": {"value": None, "why": "few"}, "found": None, "n": 3}}, "yes", ""),
    ],
)
def test_what_stands_against_a_low_kid(found, answer, words):
    kid = {"value": 0.001, "low": 0.0, "high": 0.01, "floor": 0.002}
    one = told("Looks", {"kid": kid, "diversity": SPREAD, **found})
    assert one.answer == answer and words in one.sentence
    worse = told("Looks", {"kid": {**kid, "value": 1.0}, "diversity": SPREAD, **found})
    assert worse.answer == "no"  # a fault betters nothing


# What is given the test patients' maps: KID of other slices of theirs, and how far others are on average.
MAPS = {"value": 0.05, "low": -0.1, "high": 0.2, "floor": 0.3, "halves": 1.0, "class_means": 0.6}
MAPS |= {"same_patients": 0.01, "apart": 0.4}


@pytest.mark.parametrize(
    ("kid", "answer", "words"),
    [
        ({}, "yes", "0.0100 of other slices of the same patients; other patients are 0.4000 away on average"),
        ({"high": 0.201}, "partly", ""),
        ({"value": 2.0, "high": 2.5, "class_means": 9.0}, "partly", ""),
        ({"value": 2.01, "high": 2.5, "class_means": 9.0}, "no", ""),
        # Closer than other patients are, and no closer than what needs no network.
        (
            {"value": 0.29, "low": 0.21, "high": 0.4, "class_means": 0.29},
            "no",
            "0.2900 of class means, which",
        ),
        ({"value": 0.29, "low": 0.19, "high": 0.4, "class_means": 0.29}, "partly", "0.2900 of class means"),
        ({"class_means": 0.2}, "not measured", "hardly tell them from slices"),
        ({"class_means": None}, "yes", ""),
        ({"same_patients": None}, "not measured", "too few patients with several slices"),
        ({"apart": 0.0}, "not measured", "too few patients with several slices"),
        ({"floor": -1.0, "halves": -1.0}, "yes", ""),  # say nothing here
        ({"value": 2.01, "high": 3, "floor": 100.0, "class_means": 9}, "no", ""),
    ],
)
def test_what_is_given_maps_is_held_against_the_same_patients(kid, answer, words):
    found = {"condition": {"name": "anatomy"}, "kid": {**MAPS, **kid}, "diversity": SPREAD}
    one = told("Looks", found)
    assert one.answer == answer and words in one.sentence and "between real patients" not in one.sentence
    assert told("Looks", {**found, "condition": {"name": "label"}}).sentence != one.sentence


def test_what_is_given_maps_has_the_variety_of_the_same_patients():
    recall = {"value": 0.6, "floor": 0.67, "same_patients": 0.96}
    found = {"condition": {"name": "tumor"}, "kid": MAPS, "recall": recall, "diversity": SPREAD}
    one = told("Looks", found)
    assert one.answer == "partly" and "recall 0.60, 0.96 of other slices of the same patients" in one.sentence
    assert told("Looks", {**found, "recall": {**recall, "value": 0.68}}).answer == "yes"


def test_an_evaluation_from_before_they_were_looked_at():
    kid = {name: MAPS[name] for name in ("value", "low", "high", "floor", "halves")}
    one = told("Looks", {"condition": {"name": "anatomy"}, "kid": kid, "diversity": SPREAD})
    assert one.answer == "not measured" and "evaluate again" in one.sentence


def test_what_is_null_says_why():
    none = {"value": None, "why": "needs 50 slices"}
    assert told("Looks", {"kid": none}).sentence == "KID: needs 50 slices."
    one = told("Follows", {"mask_dice": {"generated": None, "real": None, "why": "needs masks"}})
    assert (one.answer, one.sentence) == ("not measured", "Needs masks.")
    assert "knows no masks" in told("Follows", {"condition": {"name": "label"}}).sentence


@pytest.mark.parametrize(
    ("dice", "answer"), [(0.73, "yes"), (0.71, "partly"), (0.57, "partly"), (0.55, "no")]
)
def test_follows_the_mask(dice, answer):
    share = {"value": dice / 0.8, "low": dice / 0.8 - 0.1, "high": dice / 0.8 + 0.1}
    one = told("Follows", {"mask_dice": {"generated": dice, "real": 0.8, "share": share}})
    assert f"{dice / 0.8:.2f} times that ({share['low']:.2f} to {share['high']:.2f} over" in one.sentence
    assert one.answer == answer and f"{dice:.3f}" in one.sentence and "0.800" in one.sentence
    assert "class means" not in one.sentence
    beside = {"generated": dice, "real": 0.8, "share": share, "class_means": 0.362}
    one = told("Follows", {"mask_dice": beside})
    assert one.answer == answer and "; 0.362 on class means, which need no network" in one.sentence


@pytest.mark.parametrize(
    ("generated", "real", "other", "answer", "words"),
    [
        (0.29, 0.29, 0.1, "not measured", "finds hardly any of it in real slices"),
        (0.35, 0.35, 0.36, "no", "0.360 with other patients' masks"),
        (0.3, 0.3, 0.1, "yes", ""),
        (0.35, 0.35, 0.1, "yes", ""),
    ],
)
def test_a_segmenter_that_finds_nothing_is_no_judge(generated, real, other, answer, words):
    share = {"value": generated / real, "low": 0.9 * generated / real, "high": 1.1 * generated / real}
    found = {"generated": generated, "real": real, "other_mask": other, "share": share}
    one = told("Follows", {"mask_dice": found})
    assert one.answer == answer and words in one.sentence


@pytest.mark.parametrize(
    ("dice", "low", "answer", "words"),
    [
        (0.8, 0.71, "yes", "1.00 times that (0.71 to 1.30 over patients)"),
        (0.8, 0.69, "partly", "too few patients for a yes"),
        (0.8, None, "not measured", "no interval over patients"),
        (0.6, 0.1, "partly", "0.75 times that (0.10 to 1.30 over patients)."),
        (0.6, None, "partly", "0.600 on generated images"),
        (0.5, None, "no", "0.500 on generated images"),
    ],
)
def test_follows_is_a_yes_only_where_its_interval_leaves_out_that_a_third_is_lost(dice, low, answer, words):
    share = None if low is None else {"value": dice / 0.8, "low": low, "high": 1.3}
    one = told("Follows", {"mask_dice": {"generated": dice, "real": 0.8, "share": share}})
    assert one.answer == answer and words in one.sentence


DRAWN = {
    "auc": 0.5,
    "auc_interval": (0.4, 0.6),
    "chance": 0.01,
    "held_out": {"recognised": 0.1},
}


@pytest.mark.parametrize(
    ("changes", "new", "safe"),
    [
        ({}, "yes", "partly"),
        ({"copies": 1}, "no", "no"),
        ({"near_share_interval": (0.011, 0.05)}, "partly", "no"),
        ({"near_share_interval": (0.031, 0.09)}, "no", "no"),
        ({"auc": 0.55, "auc_interval": (0.51, 0.59)}, "partly", "no"),
        ({"auc": 0.7, "auc_interval": (0.49, 0.9)}, "yes", "partly"),
        ({"auc": 0.7, "auc_interval": (0.6, 0.8)}, "no", "no"),
        ({"recognition": DRAWN}, "yes", "partly"),
        ({"patients": {"held_out": 5}}, "not measured", "not measured"),
        ({"patients": {"held_out": 5}, "copies": 1}, "no", "no"),
        ({"recognition": {**DRAWN, "auc": 0.9, "auc_interval": (0.8, 1.0)}}, "no", "no"),
        ({"recognition": {**DRAWN, "held_out": {"recognised": 0.9}}}, "yes", "no"),
    ],
)
def test_new_and_safe(changes, new, safe):
    evaluation = {"memorisation": {**SOUND, **changes}}
    assert (told("New", evaluation).answer, told("Safe", evaluation).answer) == (new, safe)
    assert told("New", evaluation).page == "audit.html"


@pytest.mark.parametrize("patients", [{"train": 130, "held_out": 60}, {"train": None, "held_out": None}])
def test_by_slice_nothing_is_new_or_safe_and_what_is_found_still_is(patients):
    """Held-out slices are of patients who were trained on: attacks by them fail whatever was learnt."""
    found = {**SOUND, "split_by": "slice", "patients": patients}
    for question in ("New", "Safe"):
        one = told(question, {"memorisation": found})
        assert one.answer == "not measured"
        for words in ("the split is by slice", "data.patient_column", "data.split.by=patient"):
            assert words in one.sentence.lower()
    one = told("Safe", {"memorisation": {**found, "copies": 1}})
    assert (one.answer, one.sentence) == ("no", "Training slices can be told from others.")
    near = {**found, "near_share_interval": (0.011, 0.05)}
    assert [told(q, {"memorisation": near}).answer for q in ("New", "Safe")] == ["partly", "no"]
    shown = {**DRAWN, "held_out": {"recognised": 0.9}}
    one = told("Safe", {"memorisation": {**found, "recognition": shown}})
    whose = "slice" if patients["train"] is None else "patient"
    assert one.answer == "no" and f"drawn from a {whose}'s own map show that {whose}" in one.sentence
    one = told("New", {"memorisation": {**found, "recognition": shown}})
    assert f"with the {whose}'s own map" in one.sentence


def test_the_command_is_of_the_script_that_was_started(tmp_path, monkeypatch):
    """A network of one's own is known to its own script alone."""
    monkeypatch.setattr(command_line, "_started", tmp_path / "my_network.py")
    new = verdict.shown(verdict.answers({}), tmp_path / "run")[2]
    assert new["command"] == f"python {tmp_path}/my_network.py --workdir={tmp_path}/run --mode=audit"


def test_the_page_has_the_whole_command(tmp_path):
    """With the folder of the run, and no full stop inside of what is copied."""
    of = {one["question"]: one for one in verdict.shown(verdict.answers({}), tmp_path / "my run")}
    new = of["New?"]
    assert (new["words"], new["rest"]) == ("Not measured; run ", ".")
    assert new["command"] == f"python launch.py '--workdir={tmp_path}/my run' --mode=audit"
    utility = {"utility": {"why": "of another config; run --mode=utility --fresh"}}
    found = {one["question"]: one for one in verdict.shown(verdict.answers(utility), tmp_path)}
    assert found["Helps?"]["command"].endswith(" --mode=utility --fresh")
    (said,) = verdict.shown([verdict.Answer("New?", "yes", "0 of 5 are copies.", "")], tmp_path)
    assert (said["words"], said["command"], said["rest"]) == ("0 of 5 are copies.", "", "")


def test_a_copy_is_told_beside_what_strangers_would_give():
    found = {**SOUND, "copies": 1, "copies_expected": 1.91}
    one = told("New", {"memorisation": found})
    assert one.answer == "no"
    assert "1 of 500 are copies of a training slice (of unrelated slices at most 1.9 are exp" in one.sentence


def test_refresh_changes_the_verdict_and_nothing_else(tmp_path):
    (tmp_path / "report").mkdir()
    page = tmp_path / "report" / "index.html"
    assert not entries.refresh(tmp_path)
    (tmp_path / "evaluation.json").write_text(json.dumps({"memorisation": SOUND}))
    page.write_text("before no verdict after")
    assert not entries.refresh(tmp_path) and page.read_text() == "before no verdict after"
    page.write_text(f"before\n{entries.START}old{entries.END}\nafter é")
    assert entries.refresh(tmp_path)
    first = page.read_text()
    assert f"<code>python launch.py --workdir={tmp_path} --mode=utility</code>." in first
    assert first.startswith("before\n<!-- verdict -->") and first.endswith(
        "<!-- end of the verdict -->\nafter é"
    )
    assert "0 of 500 are copies" in first and "old" not in first
    assert entries.refresh(tmp_path) and page.read_text() == first


def test_only_the_audit_of_this_step_counts(tmp_path):
    assert "run --mode=audit" in entries.audited(tmp_path, 6, "abc")["why"]
    (tmp_path / "audit.json").write_text(json.dumps({"step": 6, "config": "abc", "memorisation": SOUND}))
    assert entries.audited(tmp_path, 6, "abc")["n"] == 500
    assert "audit was of step 6" in entries.audited(tmp_path, 8, "abc")["why"]
    assert entries.audited(tmp_path, 6, "other")["copies"] is None


def gain(value=0.01, low=-0.01, high=0.03, **changes):
    """A comparison; the interval of all together is wider by 0.01 on both sides."""
    one = {"network": "segmenter", "measure": "dice", "share": 10, "value": value, "low": low, "high": high}
    return {**one, "low_all": low - 0.01, "high_all": high + 0.01, "detectable": 0.04, **changes}


@pytest.mark.parametrize(
    ("found", "answer"),
    [
        ([gain()], "no"),
        ([gain(low=0.005)], "no"),  # leaves out 0 alone, but not among all comparisons
        ([gain(low=0.01)], "no"),  # an interval that ends at 0 does not leave it out
        ([gain(low=0.011)], "yes"),
        ([gain(), gain(low=0.011, share=100)], "yes"),
        ([gain(value=-0.03, low=-0.05, high=-0.011), gain(low=0.011, share=100)], "partly"),
        ([gain(value=-0.03, low=-0.05, high=-0.011), gain(low=0.005, share=100)], "no"),
        ([gain(value=-0.03, low=-0.05, high=-0.001)], "no"),
    ],
)
def test_helps(found, answer):
    utility = {"found": found, "patients": 39, "seeds": 3, "split": "val+test", "complete": True}
    one = told("Helps", {"utility": utility})
    assert one.answer == answer and one.page == "utility.html"
    assert (
        f"{found[0]['value']:+.3f} ({found[0]['low']:+.3f} to {found[0]['high']:+.3f}) with 10 %"
        in one.sentence
    )
    assert "; 39 patients and 3 seeds would show 0.040" in one.sentence
    others = {**utility, "found": [{**f, "patients": 39 + i} for i, f in enumerate([*found, gain()])]}
    assert f"; 39 to {39 + len(found)} patients and 3 seeds" in told("Helps", {"utility": others}).sentence
    assert "not finished" not in one.sentence
    assert "not finished" in told("Helps", {"utility": {**utility, "complete": False}}).sentence
    unlike = {**utility, "found": [*found, gain(detectable=0.125, share=5)]}
    assert "3 seeds would show 0.040 to 0.125 at the least" in told("Helps", {"utility": unlike}).sentence


def test_of_many_shares_the_ends_are_told_and_what_is_clear():
    """A gain, a loss and a hint between them, and no share that shows nothing."""
    clear = {20: {"low": 0.011}, 30: {"value": -0.03, "low": -0.05, "high": -0.011}, 50: {"low": 0.005}}
    found = [gain(share=share, **clear.get(share, {})) for share in (10, 20, 30, 40, 50, 60, 100)]
    one = told("Helps", {"utility": {"found": found, "patients": 39, "seeds": 3, "complete": True}})
    assert [share for share in range(0, 101, 10) if f") with {share} %" in one.sentence] == [
        *(10, 20, 30, 50, 100)
    ]
    assert "of 7 comparisons 1 show a gain and 1 a loss beyond chance" in one.sentence
    found[2] = gain(value=-0.03, low=-0.05, high=-0.01, share=30)  # ends at 0
    one = told("Helps", {"utility": {"found": found, "patients": 39, "seeds": 3, "complete": True}})
    assert "1 show a gain and 0 a loss" in one.sentence and "with 30 %" not in one.sentence


def test_a_folder_of_masks_from_elsewhere_is_of_nobody_known():
    (one,) = verdict.of_folder({})
    assert (one.question, one.answer, one.page) == ("Safe to share?", "not measured", "#pairs")


def test_one_seed_says_nothing_and_what_is_uncorrected_is_called_a_hint():
    utility = {"patients": 39, "split": "val+test", "complete": True}
    for found in ([gain(low=0.2, value=0.3, high=0.4)], [gain(value=-0.3, low=-0.4, high=-0.2)], [gain()]):
        one = told("Helps", {"utility": {**utility, "seeds": 1, "found": found}})
        assert one.answer == "not measured" and "--utility.seeds=4 adds seeds" in one.sentence
        assert f"{found[0]['value']:+.3f}" in one.sentence
        assert (
            "adds seeds" not in told("Helps", {"utility": {**utility, "seeds": 2, "found": found}}).sentence
        )
    hinted = told("Helps", {"utility": {**utility, "seeds": 3, "found": [gain(low=0.005), gain()]}})
    assert hinted.answer == "no"
    assert "a hint, no more: 1 gain leaves out 0 alone, but not among all comparisons" in hinted.sentence
    two = told("Helps", {"utility": {**utility, "seeds": 3, "found": [gain(low=0.005)] * 2}})
    assert "2 gains leave out 0 alone" in two.sentence


@pytest.mark.parametrize(
    ("found", "answer"),
    [
        ([gain(low=0.011, pasted=gain(-0.02, -0.04, -0.011))], "partly"),
        ([gain(low=0.011, pasted=gain(-0.02, -0.04, -0.005))], "yes"),  # not among all comparisons
        ([gain(low=0.011, pasted=gain(-0.02, -0.04, -0.011)), gain(low=0.011, share=100)], "yes"),
        ([gain(pasted=gain(0.05, 0.04, 0.06))], "no"),  # better than copying is no gain by itself
    ],
)
def test_a_gain_that_copied_pixels_surpass_is_no_yes(found, answer):
    utility = {"found": found, "patients": 39, "seeds": 3, "split": "val+test", "complete": True}
    one = told("Helps", {"utility": utility})
    assert one.answer == answer
    of = found[0]["pasted"]
    words = f"a segmenter's by {of['value']:+.3f} ({of['low']:+.3f} to {of['high']:+.3f}) with 10 %"
    assert f"compared with pixels copied by the same edits, which need no network, {words}" in one.sentence
    without = [{**f, "pasted": {}} for f in found]
    assert "copied" not in told("Helps", {"utility": {**utility, "found": without}}).sentence


@pytest.mark.parametrize("seeds", [1, 2, 3])
def test_without_an_effect_it_hardly_ever_helps(seeds):
    """Eight comparisons of 60 patients; seeds, patients and the rest spread as in docs/results.md."""
    rng = np.random.default_rng(seeds)
    answers = []
    for _ in range(150):
        found = []
        for share in range(8):
            parts = ((0.02, (seeds, 1)), (0.08, (1, 60)), (0.12, (seeds, 60)))
            d = sum(of * rng.normal(size=shape) for of, shape in parts)
            bounds, wide = paired.bounds(d), paired.bounds(d, level=1 - 0.05 / 8)
            together = {"low_all": wide.low, "high_all": wide.high}
            found.append(gain(bounds.value, bounds.low, bounds.high, share=share, **together))
        utility = {"found": found, "patients": 60, "seeds": seeds, "split": "test", "complete": True}
        answers.append(told("Helps", {"utility": utility}).answer)
    assert sum(answer in ("yes", "partly") for answer in answers) <= 0.08 * len(answers)


@pytest.mark.parametrize("change", [{}, {"low": 0.011, "value": 0.02}])
def test_networks_that_learnt_nothing_show_nothing(change):
    blind = gain(best=0.06, least=verdict.SEGMENTS, **change)
    facts = {"patients": 39, "seeds": 3, "split": "val+test", "complete": True}
    one = told("Helps", {"utility": {"found": [blind], **facts}})
    assert one.answer == "not measured" and "--utility.steps" in one.sentence
    assert "segmenter: dice is at best 0.060 with 10 % of the patients" in one.sentence
    seen = gain(best=0.31, least=verdict.SEGMENTS, share=100)
    one = told("Helps", {"utility": {"found": [blind, seen], **facts}})
    assert one.answer == "no" and "of 1 comparison 0 show a gain" in one.sentence


def test_only_the_experiment_of_this_config_counts(tmp_path):
    assert "run --mode=utility" in entries.used(tmp_path, "abc")["why"]
    of = {"differences": {"both-augmented": gain() | {"of_seeds": [0.1]}}, "power": {"detectable": 0.02}}
    result = {
        **{"config": "abc", "primary": ["both", "augmented"], "patients": 39, "seeds": 3, "split": "test"},
        **{"complete": True, "networks": {"segmenter": {"measures": {"dice": {"10": of}, "other": {}}}}},
    }
    (tmp_path / "utility.json").write_text(json.dumps(result))
    (found,) = entries.used(tmp_path, "abc")["found"]
    assert (found["network"], found["measure"], found["share"], found["detectable"]) == (
        *("segmenter", "dice", 10, 0.02),
    )
    assert found["patients"] == 39 and found["pasted"] == {}
    of["differences"]["both-pasted"] = gain(-0.02) | {"of_seeds": [-0.02]}
    (tmp_path / "utility.json").write_text(json.dumps(result))
    (beside,) = entries.used(tmp_path, "abc")["found"]
    assert beside["pasted"] == gain(-0.02) and beside["value"] == 0.01
    (tmp_path / "utility.json").write_text(json.dumps(result | {"tested_on": {"10": {"patients": 120}}}))
    assert entries.used(tmp_path, "abc")["found"][0]["patients"] == 120
    assert "of another config" in entries.used(tmp_path, "abd")["why"]
    assert found["least"] == verdict.SEGMENTS
    of = of | {"scores": {"real": {"value": 0.3}, "both": {"value": 0.4}}}
    networks = {"classifier": {"measures": {"accuracy": {"10": of}}, "chance": {"10": 0.45}}}
    (tmp_path / "utility.json").write_text(json.dumps(result | {"networks": networks}))
    (found,) = entries.used(tmp_path, "abc")["found"]
    assert (found["best"], found["least"]) == (0.4, 0.45)
    assert told("Helps", {"utility": entries.used(tmp_path, "abc")}).answer == "not measured"
