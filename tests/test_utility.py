"""Utility: what the arms are, who is trained and tested on, what scores come to, a small one from nothing."""

import csv
import inspect
import json
import runpy
import shutil
from pathlib import Path

import numpy as np
import pytest
import runs

import pixmed_jax.utility as module
from pixmed_jax import config as configs
from pixmed_jax.defaults import HEADS, OFF, merged
from pixmed_jax.errors import PixmedError
from pixmed_jax.evaluation import utility as results
from pixmed_jax.evaluation.arms import ARMS, COMPARED, MEASURES, OF_PASTED, PRIMARY, Experiment
from pixmed_jax.same_data import open_of_run
from pixmed_jax.training.start import begin
from pixmed_jax.utility import parts, plan, utility

OPTIONS = {"shares": (50, 100), "seeds": 1, "number": 6, "edit": "move", "split": "val+test", "steps": 0}


def network(name, preset="test"):
    return configs.plain(runpy.run_path(str(runs.ROOT / "configs" / f"{name}.py"))["get_config"](preset))


NETWORKS = {"segmenter": network("segmenter"), "classifier": network("classifier")}


@pytest.fixture
def workdir(tmp_path, tmp_path_factory):
    """A generator's folder, as far as the experiment looks at it."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text(json.dumps(runs.config(tmp_path_factory)))
    return tmp_path / "run"


def changed(workdir, **changes):
    """The folder with other values in its config, by dotted key."""
    config = json.loads((workdir / "config.json").read_text())
    for key, value in changes.items():
        section, _, leaf = key.partition("__")
        config[section][leaf] = value
    (workdir / "config.json").write_text(json.dumps(config))
    return workdir


# ---------------------------------------------------------------- the plan
def test_arms_are_what_their_titles_say():
    """Comparisons of two arms speak of the one thing in which these differ."""
    made = {name: (arm.synthetic, arm.augmented, arm.folder) for name, arm in ARMS.items()}
    assert made == {
        "real": ("", False, "samples"),
        "oversampled": ("oversample", False, "samples"),
        "augmented": ("", True, "samples"),
        "synthetic": ("add", False, "samples"),
        "both": ("add", True, "samples"),
        "only": ("replace", False, "samples"),
        "pasted": ("add", True, "pasted"),
    }
    for arm in ARMS.values():
        assert ("classical augmentation" in arm.title) == arm.augmented
        assert ("synthetic" in arm.title or "copied" in arm.title) == bool(arm.synthetic)
        assert len(arm.short) <= len(arm.title)
    assert PRIMARY == ("both", "augmented") and OF_PASTED == ("pasted", "augmented")
    signs = {name: measure.sign for name, measure in MEASURES.items()}
    assert signs == {"dice": 1, "accuracy": 1, "log_loss": -1}


def test_the_parts_in_their_order(workdir):
    experiment, _ = plan(workdir, networks={"segmenter": NETWORKS["segmenter"]}, **OPTIONS)
    names = [part.name for part in parts(experiment, workdir)]
    one = ["real", "oversampled", "augmented", "synthetic", "both", "only", "pasted"]
    assert names == [
        "generator on 50 %, seed 0",
        *(f"segmenter on 50 %, {arm}, seed 0" for arm in one),
        "generator on 100 %, seed 0",
        *(f"segmenter on 100 %, {arm}, seed 0" for arm in one),
    ]
    needs = {part.name: part.needs for part in parts(experiment, workdir)}
    assert needs["segmenter on 50 %, real, seed 0"] == needs["segmenter on 50 %, augmented, seed 0"] == ""
    for arm in ("oversampled", "synthetic", "both", "only", "pasted"):
        assert needs[f"segmenter on 50 %, {arm}, seed 0"] == "generator on 50 %, seed 0"


def test_arms_differ_in_their_training_slices_and_in_nothing_else(workdir):
    """Whatever else differed would be measured with them: steps, seeds, patients, networks."""
    experiment, _ = plan(workdir, networks=NETWORKS, **{**OPTIONS, "seeds": 2})
    found: dict = {}
    for part in parts(experiment, workdir):
        if part.needs or "generator" not in part.name:
            name, share, arm, seed = part.workdir.name.split("-")
            found.setdefault((name, share, seed), {})[arm] = configs.flatten(part.config)
            assert part.split == "val+test" and not part.samples
    assert len(found) == 2 * 2 * 2
    for (_, share, seed), arms in found.items():
        assert set(arms) == set(ARMS)
        assert arms["real"]["data.split.keep"] == int(share) / 100
        assert arms["real"]["data.split.keep_seed"] == arms["real"]["seed"] == int(seed.removeprefix("seed"))
        for arm, config in arms.items():
            differing = {k for k in config if config[k] != arms["real"][k]}
            made = {"data.synthetic_dir"} if ARMS[arm].synthetic else set()
            how = {"data.synthetic"} if ARMS[arm].synthetic not in ("", "add") else set()
            augmented = {k for k in differing if k.startswith("data.augment.")}
            assert differing == made | how | augmented
            assert bool(augmented) is ARMS[arm].augmented is (config["data.augment.rotation.p"] > 0)
            if made:
                folder = Path(config["data.synthetic_dir"])
                of = "pasted" if arm == "pasted" else "samples"
                assert folder.parts[-2:] == (f"{share}-{seed}", of)


def test_pictures_in_colour_are_so_for_every_network(workdir):
    """The presets of segmenter and classifier are of grey ones, and refused the generator's slices."""
    changed(workdir, data__channels=3)
    experiment, _ = plan(workdir, networks=NETWORKS, **OPTIONS)
    assert {part.config["data"]["channels"] for part in parts(experiment, workdir)} == {3}


def test_arms_are_augmented_by_their_name_and_by_nothing_else(workdir):
    """Neither by what their generator nor by what their network would be trained under."""
    own = {"rotation": {"p": 1.0, "range": (-40.0, 40.0)}, "flip_up_down": {"p": 0.5}}
    mine = configs.plain(merged(OFF, HEADS, own))
    changed(workdir, data__augment=mine)
    networks = {"segmenter": merged(network("segmenter", "test+augment"), {"data": {"augment": mine}})}
    experiment, _ = plan(workdir, networks=networks, **OPTIONS)
    seen = set()
    for part in parts(experiment, workdir):
        if "generator" in part.name:
            assert configs.plain(part.config)["data"]["augment"] == mine  # the run's own is what is judged
            continue
        arm = part.workdir.name.split("-")[2]
        expected = merged(OFF, HEADS) if ARMS[arm].augmented else OFF
        assert configs.plain(part.config)["data"]["augment"] == configs.plain(expected), arm
        seen.add(arm)
    assert seen == set(ARMS)


def test_a_generator_is_trained_and_sampled_on_the_patients_of_its_arm(workdir):
    experiment, _ = plan(workdir, networks=NETWORKS, **{**OPTIONS, "seeds": 2})
    own = json.loads((workdir / "config.json").read_text())
    for part in parts(experiment, workdir):
        if part.workdir.parent.name == "generators":
            share, seed = part.workdir.name.split("-seed")
            split = {**own["data"]["split"], "keep": int(share) / 100, "keep_seed": int(seed)}
            data = {**own["data"], "split": split}
            assert configs.plain(part.config) == {**own, "seed": int(seed), "data": data}
            drawn = {"number": 6, "split": "train", "balance": True, "edit": "move", "seed": int(seed)}
            assert part.samples == {"samples": drawn, "pasted": {**drawn, "painter": "copy_paste"}}
            assert part.split == ""


def test_without_an_edit_copied_pixels_would_be_the_slices_themselves(workdir):
    experiment, _ = plan(workdir, networks=NETWORKS, **{**OPTIONS, "edit": "none"})
    every = list(parts(experiment, workdir))
    assert not any("pasted" in part.name for part in every)
    assert {tuple(part.samples) for part in every} == {(), ("samples",)}
    assert not any("pasted" in pair for pair in experiment.compared())
    assert set(experiment.compared()) < set(COMPARED)


@pytest.mark.parametrize(
    ("condition", "edit"), [("anatomy", "mixed"), ("tumor+head", "mixed"), ("tumor", "none")]
)
def test_edits_where_the_head_is_known(workdir, condition, edit):
    changed(workdir, data__condition=condition)
    experiment, _ = plan(workdir, networks=NETWORKS, **{**OPTIONS, "edit": "auto"})
    assert experiment.edit == edit


def test_a_generator_of_labels_has_no_segmenter(workdir):
    changed(workdir, data__condition="label")
    experiment, told = plan(workdir, networks=NETWORKS, **OPTIONS)
    assert list(experiment.networks) == ["classifier"]
    assert told == ["no segmenter: this generator draws from labels, so its slices have no masks"]
    with pytest.raises(PixmedError, match=r"no segmenter.*; so there is nothing to train"):
        plan(workdir, networks={"segmenter": NETWORKS["segmenter"]}, **OPTIONS)


def test_steps_for_every_network(workdir):
    experiment, _ = plan(workdir, networks=NETWORKS, **{**OPTIONS, "steps": 7})
    for config in experiment.networks.values():
        assert config["train"]["steps"] == config["optimizer"]["decay_steps"] == 7
    epochs = {"segmenter": {**NETWORKS["segmenter"], "train": {"steps": 0, "epochs": 3, "batch_size": 4}}}
    with pytest.raises(PixmedError, match=r"utility\.segmenter: its config counts epochs.*utility\.steps"):
        plan(workdir, networks=epochs, **OPTIONS)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"shares": ()}, r"utility\.shares=\(\): give per cents"),
        ({"shares": (0, 50)}, r"utility\.shares=\(0, 50\)"),
        ({"shares": (101,)}, r"utility\.shares=\(101,\)"),
        ({"seeds": 0}, r"utility\.seeds=0: give 1 or more"),
        ({"number": 0}, r"utility\.number=0: give 1 or more"),
    ],
)
def test_options_that_do_not_fit(workdir, options, told):
    with pytest.raises(PixmedError, match=told):
        utility(workdir, networks=NETWORKS, **{**OPTIONS, **options})
    assert not (workdir / "utility").exists()


def test_patients_who_are_trained_and_tested_on_are_told_before_anything_is_trained(workdir):
    config = json.loads((workdir / "config.json").read_text())
    config["data"]["split"]["by"] = "slice"
    (workdir / "config.json").write_text(json.dumps(config))
    with (
        pytest.warns(UserWarning, match="by=slice"),
        pytest.raises(PixmedError, match=r"are both trained on and in val\+test.*data\.split\.by=patient"),
    ):
        utility(workdir, networks=NETWORKS, **OPTIONS)
    assert not (workdir / "utility").exists()


@pytest.mark.parametrize(
    ("split", "told"), [("train+test", "both trained on and in train"), ("exam", "'exam' is not one of")]
)
def test_splits_that_cannot_be_tested_on(workdir, split, told):
    with pytest.raises(PixmedError, match=told):
        utility(workdir, networks=NETWORKS, **{**OPTIONS, "split": split})


def test_one_patient_is_too_few(workdir):
    config = json.loads((workdir / "config.json").read_text())
    config["data"]["split"]["fractions"] = [0.9, 0.02, 0.08]
    (workdir / "config.json").write_text(json.dumps(config))
    with pytest.raises(PixmedError, match=r"utility\.split=val: holds 1 patients; give one with two or more"):
        utility(workdir, networks=NETWORKS, **{**OPTIONS, "split": "val"})


def begun(tmp_path, name, **data):
    """The folder of a network that was begun, as far as the experiment looks at it."""
    (tmp_path / "config.json").write_text(json.dumps(merged(network(name), {"data": data})))
    return tmp_path


def test_without_a_generator_pixels_are_copied_for_the_segmenter_of_the_folder(tmp_path):
    own = merged(NETWORKS["segmenter"], {"model": {"network": {"width": 6}}})
    (tmp_path / "config.json").write_text(json.dumps(own))
    experiment, told = plan(tmp_path, networks=NETWORKS, **{**OPTIONS, "shares": (50,), "edit": "auto"})
    assert told == ["no generator: pixels are copied by edits of the masks"]
    assert experiment.edit == "mixed" and experiment.primary == ("pasted", "augmented")
    every = {part.name: part for part in parts(experiment, tmp_path)}
    one = ["real", "augmented", "pasted"]
    assert list(every) == [
        "copied pixels on 50 %, seed 0",
        *(f"segmenter on 50 %, {arm}, seed 0" for arm in one),
        *(f"classifier on 50 %, {arm}, seed 0" for arm in one),
    ]
    assert all(part.trains is ("copied" not in name) for name, part in every.items())
    copies = every["copied pixels on 50 %, seed 0"]
    drawn = {"number": 6, "split": "train", "balance": True, "edit": "mixed", "seed": 0}
    assert copies.samples == {"pasted": {**drawn, "painter": "copy_paste"}} and copies.split == ""
    pasted = every["segmenter on 50 %, pasted, seed 0"]
    assert pasted.needs == copies.name
    assert pasted.config["data"]["synthetic_dir"] == str(copies.workdir / "pasted")
    assert pasted.config["model"]["network"]["width"] == 6
    assert every["classifier on 50 %, real, seed 0"].config["model"] == NETWORKS["classifier"]["model"]
    assert list(experiment.compared()) == [experiment.primary, ("augmented", "real")]
    without = plan(tmp_path, networks={"classifier": NETWORKS["classifier"]}, **OPTIONS)[0]
    assert list(without.networks) == ["classifier"]


def test_a_segmenter_that_counts_epochs_takes_steps(tmp_path):
    own = merged(NETWORKS["segmenter"], {"train": {"steps": 0, "epochs": 3}})
    (tmp_path / "config.json").write_text(json.dumps(own))
    with pytest.raises(PixmedError, match=r"utility\.segmenter: its config counts epochs.*utility\.steps"):
        plan(tmp_path, networks=NETWORKS, **{**OPTIONS, "edit": "auto"})
    experiment, _ = plan(tmp_path, networks=NETWORKS, **{**OPTIONS, "edit": "auto", "steps": 5})
    assert {(of["train"]["steps"], of["train"]["epochs"]) for of in experiment.networks.values()} == {(5, 0)}


@pytest.mark.parametrize(
    ("name", "data", "edit", "told"),
    [
        ("classifier", {}, "auto", "trains neither a generator nor a segmenter"),
        ("segmenter", {"synthetic_dir": "made"}, "auto", r"data\.synthetic_dir is set"),
        ("segmenter", {}, "none", r"utility\.edit=none: copied pixels would be the real slices"),
        ("super_resolution", {}, "auto", "restores images and draws none"),
        ("srgan", {}, "auto", "restores images and draws none"),
    ],
)
def test_folders_in_which_nothing_can_be_copied(tmp_path, name, data, edit, told):
    with pytest.raises(PixmedError, match=told):
        utility(begun(tmp_path, name, **data), networks=NETWORKS, **{**OPTIONS, "edit": edit})
    assert not (tmp_path / "utility").exists()


def test_what_some_arms_could_not_be_trained_on_is_told_before_the_first(workdir, monkeypatch):
    """Not after hours: classes that sampled masks do not tell apart, and slices of which one network alone
    has a use."""
    opened = open_of_run(workdir, json.loads((workdir / "config.json").read_text()))
    several = opened._replace(source=opened.source._replace(several=True))
    told_apart = {name: merged(of, {"data": {"class_channels": True}}) for name, of in NETWORKS.items()}
    monkeypatch.setattr(module, "open_of_run", lambda *_: several)
    with pytest.raises(PixmedError, match=r"data\.class_channels=true: the masks show several classes"):
        plan(workdir, networks=told_apart, **OPTIONS)
    plan(workdir, networks=NETWORKS, **OPTIONS)
    plan(workdir, networks={"classifier": told_apart["classifier"]}, **OPTIONS)
    monkeypatch.setattr(module, "open_of_run", lambda *_: opened._replace(left_out=("a.png: no mask",)))
    experiment, told = plan(workdir, networks=NETWORKS, **OPTIONS)
    assert list(experiment.networks) == ["segmenter"]
    assert any(line.startswith("no classifier: data.faulty=skip leaves out 1 slices") for line in told)


# ---------------------------------------------------------------- what is made of the scores
PATIENTS = {"p1": ["a.png", "b.png"], "p2": ["c.png"]}  # held out
TRAINED = {"d.png": "p3", "e.png": "p4"}


@pytest.fixture
def finished(workdir):
    """An experiment of one segmenter, two seeds and one share, as far as its files say.

    The slices c, a and b have Dice 0.6, 0.1 and 0.3 in arm "real"; each other arm gains as GAINS says.
    """
    segmenter = {"segmenter": NETWORKS["segmenter"]}
    config = json.loads((workdir / "config.json").read_text())
    experiment = Experiment(config, segmenter, (100,), 2, number=6, edit="mixed", split="val+test")
    for seed in range(2):
        of_generator = workdir / "utility" / "generators" / f"100-seed{seed}"
        of_generator.mkdir(parents=True)
        (of_generator / "split.json").write_text(json.dumps({"train": TRAINED, "val": {}, "test": {}}))
        for arm in ARMS:
            folder = results.folder_of(workdir, "segmenter", 100, arm, seed)
            folder.mkdir(parents=True)
            train = {} if arm == "only" else dict(TRAINED)
            train |= {"synthetic/0.png": "p3"} if ARMS[arm].synthetic in ("add", "replace") else {}
            split = {"train": train, "val": {"c.png": "p2"}, "test": {"a.png": "p1", "b.png": "p1"}}
            (folder / "split.json").write_text(json.dumps(split))
            write_cases(folder, [dice + GAINS[arm][seed] for dice in (0.6, 0.1, 0.3)])
    return workdir, experiment


GAINS = {
    "real": (0.0, 0.0),
    "oversampled": (0.01, 0.01),
    "augmented": (0.1, 0.2),
    "synthetic": (0.02, 0.04),
    "both": (0.15, 0.3),
    "only": (-0.1, -0.1),
    "pasted": (0.14, 0.27),
}


HELD_OUT = (("c.png", "p2"), ("a.png", "p1"), ("b.png", "p1"))


def write_cases(folder, dice, slices=HELD_OUT):
    with (folder / "cases.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(("file", "patient_group", "label", "dice", "hausdorff95"))
        for (name, group), value in zip(slices, dice, strict=True):
            table.writerow((name, group, "x", value, ""))


def test_scores_and_differences_by_hand(finished):
    """Patient p1 has (0.1 + 0.3) / 2 and p2 0.6, so the mean over patients is 0.4, not the slices' 0.333."""
    workdir, experiment = finished
    result = results.write(workdir, experiment, complete=True)
    assert json.loads((workdir / "utility.json").read_text()) == json.loads(json.dumps(result))
    of = result["networks"]["segmenter"]["measures"]["dice"]["100"]
    for arm, (first, second) in GAINS.items():
        assert of["scores"][arm]["of_seeds"] == pytest.approx([0.4 + first, 0.4 + second])
        assert of["scores"][arm]["value"] == pytest.approx(0.4 + (first + second) / 2)
    assert set(of["differences"]) == {f"{a}-{b}" for a, b in COMPARED}
    for a, b in COMPARED:
        gains = np.subtract(GAINS[a], GAINS[b])
        d = of["differences"][f"{a}-{b}"]
        assert d["of_seeds"] == pytest.approx(gains) and d["value"] == pytest.approx(gains.mean())
        # All patients gain alike, so only the two seeds spread: Student's t of one degree, tan(0.95 pi / 2).
        reach = 12.706205 * gains.std(ddof=1) / np.sqrt(2)
        assert (d["low"], d["high"]) == pytest.approx((gains.mean() - reach, gains.mean() + reach))
    assert PRIMARY == ("both", "augmented")
    assert of["power"]["variance"]["patients"] == pytest.approx(0, abs=1e-12)
    assert of["power"]["variance"]["seeds"] == pytest.approx(np.var([0.05, 0.1], ddof=1))
    assert result["tested_on"] == {"100": {"patients": 2, "slices": 3}} and result["comparisons"] == 1
    assert result["trained_on"] == {"100": {"patients": [2, 2], "slices": [2, 2]}}
    page = (workdir / "report" / "utility.html").read_text()
    # Gains of 0.05 and 0.1 by two seeds: nobody could say where a third would lie.
    assert "<strong>no.</strong>" in page and "+0.075" in page and "Not finished" not in page
    results.write(workdir, experiment._replace(seeds=1), complete=False)
    assert "Not finished" in (workdir / "report" / "utility.html").read_text()


def test_slices_of_patients_whom_nobody_knows_are_not_called_patients(finished):
    """Where data name no patients each slice counts as one, and the split can only be by slice."""
    workdir, experiment = finished
    known = results.write(workdir, experiment, complete=True)
    page = (workdir / "report" / "utility.html").read_text()
    assert known["patients_known"] and "3 slices of 2 patients" in page and "2 patients and 2 seeds" in page
    assert "split is by slice" not in page
    for table in workdir.rglob("cases.csv"):
        rows = list(csv.DictReader(table.read_text().splitlines()))
        text = "".join(f"{of['file']},{of['file']},{of['label']},{of['dice']}\n" for of in rows)
        table.write_text("file,patient_group,label,dice\n" + text)
    config = {**experiment.config, "data": merged(experiment.config["data"], {"split": {"by": "slice"}})}
    unknown = results.write(workdir, experiment._replace(config=config), complete=True)
    page = (workdir / "report" / "utility.html").read_text()
    assert not unknown["patients_known"] and "3 slices of unknown patients" in page
    assert "3 slices and 2 seeds would show" in page and "may have been trained on" in page


def test_without_a_generator_the_answer_is_about_copied_pixels(finished):
    """The same scores: copied pixels gain 0.04 and 0.07 beside augmentation."""
    workdir, experiment = finished
    experiment = experiment._replace(config=NETWORKS["segmenter"])
    (workdir / "utility" / "generators").rename(workdir / "utility" / "copies")
    result = results.write(workdir, experiment, complete=True)
    of = result["networks"]["segmenter"]["measures"]["dice"]["100"]
    assert set(of["scores"]) == {"real", "augmented", "pasted"}
    assert result["primary"] == ["pasted", "augmented"] and result["generator"] is None
    assert list(of["differences"]) == ["pasted-augmented", "augmented-real"]
    assert of["differences"]["pasted-augmented"]["of_seeds"] == pytest.approx([0.04, 0.07])
    assert of["power"]["variance"]["seeds"] == pytest.approx(np.var([0.04, 0.07], ddof=1))
    said = results.summary(result)
    assert "copied pixels change a segmenter's dice by +0.055" in said and "which need no network" not in said
    page = (workdir / "report" / "utility.html").read_text()
    assert "does cutting and pasting help?" in page and "no generator" in page and "+0.055" in page
    assert "record. Synthetic slices were drawn" in page.replace("’s", "")
    assert "Pixels were copied from the patients of the arm" in page and "enerator was trained" not in page
    assert not (workdir / "model_card.json").exists()  # a segmenter's is about its own scores
    spoilt(workdir / "utility" / "copies" / "100-seed1", train={**TRAINED, "z.png": "p1"})
    with pytest.raises(PixmedError, match=r"its synthetic slices come from 1 of the patients .* \(p1\)"):
        results.write(workdir, experiment, complete=True)


def test_an_arms_interval_ends_where_the_measure_does():
    scores = {arm: np.array([[0.8, 0.99, 0.98]]) + 0.001 * i for i, arm in enumerate(ARMS)}
    judged = results._judged(scores, [PRIMARY], 1, "dice")
    assert all(of["high"] == 1 and of["low"] < of["value"] < 1 for of in judged["scores"].values())


def test_a_share_is_judged_by_the_patients_that_all_of_its_seeds_tested(finished):
    """Each seed spares others: q2 is spare in both, q1 and q3 in one. p1 has 0.2, p2 0.6 and q2 0.7, so the
    mean is 0.5; with q1 and q3 it would not be.
    """
    workdir, experiment = finished
    spare = ((("d.png", "q1"), ("e.png", "q2")), (("e.png", "q2"), ("f.png", "q3")))
    of_spare = ((0.9, 0.7), (0.7, 0.0))
    for seed in range(2):
        for arm in ARMS:
            folder = results.folder_of(workdir, "segmenter", 100, arm, seed)
            dice = [value + GAINS[arm][seed] for value in (0.6, 0.1, 0.3, *of_spare[seed])]
            write_cases(folder, dice, (*HELD_OUT, *spare[seed]))
    result = results.write(workdir, experiment, complete=True)
    assert result["tested_on"] == {"100": {"patients": 3, "slices": 4}}
    of = result["networks"]["segmenter"]["measures"]["dice"]["100"]
    for arm, gains in GAINS.items():
        assert of["scores"][arm]["of_seeds"] == pytest.approx(np.add(0.5, gains))
    assert "4 slices of 3 patients" in (workdir / "report" / "utility.html").read_text()
    one = results.write(workdir, experiment._replace(seeds=1), complete=False)
    assert one["tested_on"] == {"100": {"patients": 4, "slices": 5}}


def test_seeds_that_have_one_patient_in_common(finished):
    workdir, experiment = finished
    for arm in ARMS:
        write_cases(results.folder_of(workdir, "segmenter", 100, arm, 1), [0.5], HELD_OUT[:1])
    with pytest.raises(PixmedError, match=r"1 patients were tested with all 2 seeds of 100 %; give fewer"):
        results.write(workdir, experiment, complete=True)


def test_other_patients_to_test_on_train_nothing_anew(workdir):
    """Spare ones are the default; an experiment without them goes on, and is tested once more."""
    segmenter = {"segmenter": NETWORKS["segmenter"]}
    options = {key: value for key, value in OPTIONS.items() if key != "split"}
    default = inspect.signature(utility).parameters["split"].default
    before, now = (plan(workdir, networks=segmenter, **options, split=s)[0] for s in ("val+test", default))
    made = [[part._replace(split="") for part in parts(of, workdir)] for of in (before, now)]
    assert made[0] == made[1]
    assert {part.split for part in parts(now, workdir) if not part.samples} == {"val+test+spare"}


def spoilt(folder, **splits):
    path = folder / "split.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | splits))


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (
            lambda w: spoilt(w / "generators" / "100-seed1", train={**TRAINED, "z.png": "p1"}),
            r"its synthetic slices come from 1 of the patients it is tested on \(p1\)",
        ),
        (
            lambda w: spoilt(w / "generators" / "100-seed1", train={**TRAINED, "z.png": "p5"}),
            "trained on other slices than those behind its synthetic ones",
        ),
        (
            lambda w: spoilt(w / "networks" / "segmenter-100-real-seed0", train={"d.png": "p3"}),
            "trained on other slices than those behind its synthetic ones",
        ),
        (
            lambda w: spoilt(w / "networks" / "segmenter-100-only-seed0", train={"z.png": "p5"}),
            "trained on other slices than those behind its synthetic ones",
        ),
        (
            lambda w: write_cases(w / "networks" / "segmenter-100-both-seed1", [0.1, 0.2], HELD_OUT[:2]),
            "was tested on other slices than the rest",
        ),
    ],
)
def test_arms_whose_patients_do_not_match_are_refused(finished, spoil, told):
    workdir, experiment = finished
    spoil(workdir / "utility")
    with pytest.raises(PixmedError, match=told) as caught:
        results.write(workdir, experiment, complete=True)
    assert "\n" not in str(caught.value) and not (workdir / "utility.json").exists()


def test_the_accuracy_of_one_answer_for_all(finished):
    """Patients p1 (x, y) and p2 (y): always y is right for a half and for all of their slices."""
    workdir, experiment = finished
    folder = results.folder_of(workdir, "segmenter", 100, "real", 0)
    text = (folder / "cases.csv").read_text().replace("c.png,p2,x", "c.png,p2,y")
    (folder / "cases.csv").write_text(text.replace("b.png,p1,x", "b.png,p1,y"))
    assert results._chance(workdir, experiment, "segmenter", 100, PATIENTS) == 0.75


def test_values_of_a_classifier():
    case = {"label": "glioma", "said": "glioma", "p_glioma": "0.25", "p_pituitary": "0.75"}
    assert results._value(case, "accuracy") == 1 and results._value(case, "log_loss") == pytest.approx(
        np.log(4)
    )
    assert results._value({**case, "said": "pituitary"}, "accuracy") == 0
    assert results._value({**case, "p_glioma": "0"}, "log_loss") == pytest.approx(-np.log(1e-7))


# ---------------------------------------------------------------- all of it
@pytest.mark.slow
def test_an_experiment_from_nothing_and_gone_on_with(tmp_path_factory, tmp_path, capsys):
    """One share, a segmenter: every run is real. The same command again trains nothing, and with spare
    patients to test on it tests once more.
    """
    workdir = tmp_path / "run"
    shutil.copytree(runs.trained(tmp_path_factory), workdir)
    networks = {"segmenter": NETWORKS["segmenter"]}
    networks["segmenter"]["data"]["dir"] = str(runs.shared(tmp_path_factory) / "data")
    options = {**OPTIONS, "shares": (50,), "steps": 2}
    assert utility(workdir, networks=networks, **options) == 0
    said = capsys.readouterr().out
    assert "part 8 of 8" in said and "Helps?" in said
    result = json.loads((workdir / "utility.json").read_text())
    assert result["complete"] and result["tested_on"]["50"]["patients"] == 4
    assert result["trained_on"]["50"]["patients"] == [4]
    counts = {}
    for arm in ARMS:
        folder = results.folder_of(workdir, "segmenter", 50, arm, 0)
        counts[arm] = json.loads((folder / "evaluation.json").read_text())["trained_on"]
    real, made = {"real": 16, "synthetic": 0}, {"real": 16, "synthetic": 6}
    assert counts == {
        **{"real": real, "oversampled": real, "augmented": real},
        **{"synthetic": made, "both": made, "only": {"real": 0, "synthetic": 6}, "pasted": made},
    }
    painted, pasted = (workdir / "utility/generators/50-seed0" / name for name in ("samples", "pasted"))
    for name in ("masks", "conditions"):
        files = sorted(path.name for path in (painted / name).iterdir())
        assert len(files) == 6
        for file in files:  # the same maps, so that only who painted them differs
            assert (painted / name / file).read_bytes() == (pasted / name / file).read_bytes()
    for path in (pasted / "images").iterdir():
        assert path.read_bytes() != (painted / "images" / path.name).read_bytes()
    page = (workdir / "report" / "utility.html").read_text()
    assert "https://" not in page and page.count("data:image/png") == 2 and "data:image/svg" in page
    assert utility(workdir, networks=networks, **options) == 0
    assert "part 1" not in capsys.readouterr().out
    trained = {path: path.read_bytes() for path in (workdir / "utility").rglob("manifest.json")}
    assert utility(workdir, networks=networks, **{**options, "split": "val+test+spare"}) == 0
    result = json.loads((workdir / "utility.json").read_text())
    assert result["tested_on"]["50"]["patients"] == 4 + 4
    assert "Helps? not measured. The networks have learnt nothing" in capsys.readouterr().out  # in few steps
    assert trained == {path: path.read_bytes() for path in (workdir / "utility").rglob("manifest.json")}
    with pytest.raises(PixmedError, match=r"holds a utility experiment with another config \(number\)"):
        utility(workdir, networks=networks, **{**options, "number": 7})


@pytest.mark.slow
def test_copied_pixels_from_nothing(tmp_path_factory, tmp_path, capsys):
    """A segmenter's folder that was only begun: nothing is trained but the arms."""
    own = NETWORKS["segmenter"]
    own["data"]["dir"] = str(runs.shared(tmp_path_factory) / "data")
    begin(own, tmp_path)
    options = {**OPTIONS, "shares": (50,), "steps": 2, "edit": "auto"}
    networks = {"segmenter": own}
    assert utility(tmp_path, networks=networks, **options) == 0
    said = capsys.readouterr().out
    assert "no generator: pixels are copied" in said and "part 4 of 4" in said
    result = json.loads((tmp_path / "utility.json").read_text())
    assert result["complete"] and result["trained_on"]["50"]["patients"] == [4]
    copies = tmp_path / "utility" / "copies" / "50-seed0"
    assert len(list((copies / "pasted" / "images").iterdir())) == 6 and not (copies / "checkpoints").exists()
    assert not (tmp_path / "checkpoints").exists() and not (tmp_path / "model_card.json").exists()
    told = {}
    for arm in ("real", "augmented", "pasted"):
        folder = results.folder_of(tmp_path, "segmenter", 50, arm, 0)
        told[arm] = json.loads((folder / "evaluation.json").read_text())["trained_on"]
    real = {"real": 16, "synthetic": 0}
    assert told == {"real": real, "augmented": real, "pasted": {"real": 16, "synthetic": 6}}
    page = (tmp_path / "report" / "utility.html").read_text()
    assert page.count("data:image/png") == 1 and "data:image/svg" in page
    assert utility(tmp_path, networks=networks, **options) == 0
    assert "part 1" not in capsys.readouterr().out
