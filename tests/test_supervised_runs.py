"""Classifiers and segmenters from config to report: trained, loaded, scored again by hand, and refused."""

import csv
import json
import re
import shutil

import jax
import numpy as np
import pytest
import runs
from test_cards import faults

import pixmed_jax
from pixmed_jax import inference
from pixmed_jax.data.sources import open_dataset
from pixmed_jax.errors import PixmedError
from pixmed_jax.evaluation import supervised
from pixmed_jax.evaluation.evaluate import evaluate, summary
from pixmed_jax.export.export import export
from pixmed_jax.metrics import classification, segmentation
from pixmed_jax.models.densenet import IMAGENET_MEAN
from pixmed_jax.sampling import sample
from pixmed_jax.training import build
from pixmed_jax.training.dry_run import dry_run, network_sizes
from pixmed_jax.training.loop import train

NAMES = ("classifier", "segmenter")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """{name: (workdir, evaluation)}; the phantoms are those of the GAN's run."""
    runs.trained(tmp_path_factory)
    folder = tmp_path_factory.mktemp("supervised")
    result = {}
    for name in NAMES:
        assert train(runs.preset(tmp_path_factory, name), folder / name) == 0
        result[name] = (folder / name, evaluate(folder / name))
    return result


def slices_of_test(workdir):
    stored = json.loads((workdir / "config.json").read_text())
    dataset = open_dataset(**stored["data"], seed=stored["seed"])
    return dataset.load(dataset.rows["test"], dataset.size)[1]


@pytest.mark.parametrize("name", NAMES)
def test_what_is_evaluated_is_on_record(trained, name):
    workdir, result = trained[name]
    split = json.loads((workdir / "split.json").read_text())
    assert json.loads((workdir / "evaluation.json").read_text()) == json.loads(json.dumps(result))
    assert (result["n"], result["patients"]) == (len(split["test"]), len(set(split["test"].values())))
    assert (result["step"], result["split"], result["size"]) == (6, "test", 32)
    assert result["trained_on"] == {"real": len(split["train"]), "synthetic": 0}
    assert "\n" not in summary(result) and f"{result['n']} test slices" in summary(result)
    held_out = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    first = {"classifier": "held_out/accuracy", "segmenter": "held_out/dice"}[name]
    assert [r["step"] for r in held_out if first in r] == [0, 2, 4, 6]
    card = json.loads((workdir / "model_card.json").read_text())
    assert faults(card) == [] and card["results"]["rows"][0]["value"] == result[first.split("/")[1]]
    known = {row["name"]: row["low"] for row in card["results"]["rows"]}
    assert name == "segmenter" or (known["AUROC"] is None and known["accuracy"] is not None)
    assert sorted(p.name for p in (workdir / "grids").iterdir()) == [f"step_00000{i}.png" for i in (0, 4, 6)]


def test_a_classifier_is_scored_by_its_own_logits(trained):
    workdir, result = trained["classifier"]
    slices = slices_of_test(workdir)
    network = pixmed_jax.load_network(workdir)
    assert (network.predicts, network.classes) == ("labels", ("meningioma", "glioma", "pituitary"))
    logits = network(slices.images, batch_size=3).astype(np.float64)
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    values = classification.measure(p, slices.labels)
    for name in classification.SCALARS:
        assert result[name] == pytest.approx(float(values[name]), rel=1e-4), name
        low, high = result["intervals"][name]
        # Two patients: means and shares have an interval, the others are resampled, for which it takes six.
        assert low <= high if name in ("accuracy", "log_loss") else (low, high) == (None, None), name
    assert result["patients"] == 2 and set(result["intervals"]["recall"]) == set(network.classes)
    for name in classification.OF_LABELS:
        of_labels = set(map(tuple, result["intervals"][name].values()))
        # Of each label one patient; one label may be said of both.
        assert of_labels == {(None, None)} or name == "precision", name
        told = [result[name][label] for label in network.classes]
        known = [None if np.isnan(value) else pytest.approx(value, rel=1e-4) for value in values[name]]
        assert told == known, name
    table = np.array([list(row.values()) for row in result["confusion"].values()])
    assert table.sum() == result["n"] and np.trace(table) == round(result["accuracy"] * result["n"])
    assert table.sum(1).tolist() == np.bincount(slices.labels, minlength=3).tolist()


def test_a_segmenter_is_scored_by_its_own_masks(trained):
    workdir, result = trained["segmenter"]
    slices = slices_of_test(workdir)
    network = pixmed_jax.load_network(workdir)
    found = network(slices.images).argmax(-1) > 0
    assert result["dice"] == pytest.approx(segmentation.dice(found, slices.masks > 0).mean())
    far = segmentation.hausdorff95(found, slices.masks > 0)
    expected = None if np.isnan(far).all() else pytest.approx(np.nanmean(far))
    assert result["hausdorff95"] == expected
    assert result["missed"] == int((~(found & (slices.masks > 0)).any((1, 2))).sum())
    assert result["invented"] == 0


def test_a_tumour_is_missed_if_none_of_its_pixels_is_found(trained):
    """As a reader counts: what is found elsewhere in the slice does not help. Dice 0 beside "missed: 0" would
    contradict itself."""
    workdir, _ = trained["segmenter"]
    stored = json.loads((workdir / "config.json").read_text())
    dataset = open_dataset(**stored["data"], seed=stored["seed"])
    slices = slices_of_test(workdir)
    logits = np.zeros((*slices.masks.shape, 2))
    logits[..., 0] = 1  # nothing is found
    logits[0, :2, :2, 1] = 9  # but for a corner here, far from the tumour
    logits[1][slices.masks[1] > 0, 1] = 9  # all of it here
    assert not slices.masks[0, :2, :2].any()
    measured = supervised._judge_masks(logits, slices, dataset, slices.masks).measured
    assert measured["missed"] == len(slices.masks) - 1


def test_a_network_of_several_classes_is_scored_on_each(trained):
    """All tumours are found, and in the first slice one class is taken for the other."""
    workdir, _ = trained["segmenter"]
    stored = json.loads((workdir / "config.json").read_text())
    dataset = open_dataset(**stored["data"], seed=stored["seed"])._replace(classes=("red", "green"))
    slices = slices_of_test(workdir)
    maps = np.where(slices.masks > 0, 1 + np.arange(len(slices.masks))[:, None, None] % 2, 0)
    logits = np.eye(3)[maps]
    logits[0] = logits[0][..., [0, 2, 1]]
    judged = supervised._judge_masks(logits, slices, dataset, maps)
    assert judged.measured["dice"] == 1
    reds = len(maps[::2])
    assert judged.measured["dice_of"] == {"red": pytest.approx((reds - 1) / reds), "green": 1}
    assert set(judged.cases) >= {"dice", "dice_red", "dice_green"}


def test_every_case_is_on_record(trained):
    """The table's means are the evaluation's, and its rows the split's."""
    for name in NAMES:
        workdir, result = trained[name]
        with (workdir / "cases.csv").open(newline="") as table:
            cases = list(csv.DictReader(table))
        split = json.loads((workdir / "split.json").read_text())["test"]
        assert {case["file"]: case["patient_group"] for case in cases} == split
        if name == "segmenter":
            assert np.mean([float(case["dice"]) for case in cases]) == pytest.approx(result["dice"])
            far = [float(case["hausdorff95"]) for case in cases if case["hausdorff95"]]
            assert (np.mean(far) if far else None) == pytest.approx(result["hausdorff95"])
            continue
        right = [case["said"] == case["label"] for case in cases]
        assert np.mean(right) == pytest.approx(result["accuracy"])
        surely = [float(case[f"p_{case['label']}"]) for case in cases]
        assert -np.mean(np.log(surely)) == pytest.approx(result["log_loss"], rel=1e-5)


def test_two_splits_are_judged_as_one(trained, tmp_path):
    """The means over both are those of each, weighted by their slices."""
    workdir = shutil.copytree(trained["segmenter"][0], tmp_path / "run")
    of = {split: evaluate(workdir, split=split) for split in ("val", "test", "val+test")}
    assert of["val+test"]["n"] == of["val"]["n"] + of["test"]["n"]
    total = sum(of[split]["dice"] * of[split]["n"] for split in ("val", "test"))
    assert of["val+test"]["dice"] == pytest.approx(total / of["val+test"]["n"])
    with pytest.raises(PixmedError, match=r"split='val\+exam': 'exam' is not one of train, val, test"):
        evaluate(workdir, split="val+exam")


@pytest.mark.parametrize("name", NAMES)
def test_the_page_holds_numbers_and_pictures_and_needs_no_other_file(trained, name):
    workdir, result = trained[name]
    page = (workdir / "report" / "index.html").read_text()
    values = [
        result[n] for n in (classification.SCALARS if name == "classifier" else ("dice", "hausdorff95"))
    ]
    for value in values:
        assert ("–" if value is None else f"{value:.3f}") in page
    sources = re.findall(r'src="([^"]+)"', page)
    assert len(sources) >= 5 and all(source.startswith("data:image/") for source in sources)
    assert "<script" not in page and not re.search(r"https?://", page)
    assert f"{result['n']} slices of {result['patients']} patients" in page
    words = ("Confusion matrix", "Calibration") if name == "classifier" else ("From the worst to the best",)
    assert all(word in page for word in words)


def test_a_synthetic_folder_may_be_gone_when_the_run_is_evaluated(trained, tmp_path_factory, tmp_path):
    """Sampled from a generator of the same split, as its training split alone allows."""
    made = sample(runs.trained(tmp_path_factory), split="train", number=5, output=str(tmp_path / "made"))
    workdir = tmp_path / "run"
    changed = runs.preset(
        tmp_path_factory,
        "classifier",
        data__synthetic_dir=str(made),
        data__synthetic="replace",
        train__steps=2,
    )
    assert train(changed, workdir) == 0
    made.rename(tmp_path / "elsewhere")
    result = evaluate(workdir)
    assert result["trained_on"] == {"real": 0, "synthetic": 5}
    assert result["n"] == trained["classifier"][1]["n"]
    assert "0 real\n and 5 synthetic slices" in (workdir / "report" / "index.html").read_text()

    of_test = sample(runs.trained(tmp_path_factory), split="test", number=2, output=str(tmp_path / "leak"))
    changed["data"]["synthetic_dir"] = str(of_test)
    with pytest.raises(PixmedError, match="of this run's test split"):
        train(changed, tmp_path / "other")
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("name", NAMES)
def test_an_exported_network_judges_the_same(trained, name):
    workdir = trained[name][0]
    exported = workdir / "export"
    assert [*export(workdir, onnx=False)] == [f"{name}.safetensors", f"{name}.stablehlo"]
    images = slices_of_test(workdir).images
    logits = [pixmed_jax.load_network(path)(images) for path in (exported, workdir)]
    assert logits[0].tobytes() == logits[1].tobytes()


@pytest.mark.parametrize("name", NAMES)
def test_neither_samples_nor_generators_judge(trained, tmp_path_factory, name):
    with pytest.raises(PixmedError, match=f"holds a {name}, which makes no images"):
        sample(trained[name][0])
    with pytest.raises(PixmedError, match="holds a generator, which judges no images"):
        pixmed_jax.load_network(runs.trained(tmp_path_factory))
    with pytest.raises(PixmedError, match=r"needs \[N, 32, 32, C\]"):
        pixmed_jax.load_network(trained[name][0])(np.zeros((1, 16, 16, 1), np.uint8))


@pytest.mark.parametrize(
    ("name", "changes", "told"),
    [
        ("classifier", {"data__condition": "tumor"}, "learns to tell labels; set data.condition=label"),
        ("segmenter", {"data__condition": "anatomy"}, "learns to tell masks; set data.condition=tumor"),
        ("segmenter", {"data__size": 33}, "data.size=33 cannot be halved 1 times"),
        ("classifier", {"data__size": 36}, "data.size=36 cannot be halved 3 times"),
        ("classifier", {"model__network__name": "vgg"}, "use one of densenet, layout, segmenter"),
        ("classifier", {"loss__class_weights": [1, 2]}, "the data have 3 classes; give 3"),
        ("classifier", {"train__accumulate": 3}, "cannot be cut into train.accumulate=3"),
        ("classifier", {"train__dtype": "float8"}, "is not one of float32, bfloat16"),
    ],
)
def test_settings_that_do_not_fit_are_refused(tmp_path_factory, name, changes, told):
    with pytest.raises(PixmedError, match=re.escape(told)) as caught:
        build.make_task(runs.preset(tmp_path_factory, name, **changes), classes=3)
    assert "\n" not in str(caught.value)


def test_the_papers_network_has_its_size(tmp_path_factory):
    """Keras's 18,092,928 weights and 1,920 x 3 + 3 of the top; 4.29 GMACs at 224x224, as torchvision says."""
    sizes = network_sizes(runs.preset(tmp_path_factory, "classifier", "paper"), 3)["network"]
    assert sizes.parameters == 18_092_928 + 1920 * 3 + 3
    assert sizes.macs == pytest.approx(4.29e9, rel=2e-3)


def test_one_class_cannot_be_told_apart(tmp_path_factory):
    with pytest.raises(PixmedError, match="a classifier needs two or more"):
        build.make_task(runs.preset(tmp_path_factory, "classifier"), classes=1)


def test_a_run_starts_from_the_weights_of_a_file(tmp_path_factory, tmp_path, draw):
    import h5py

    changed = runs.preset(tmp_path_factory, "classifier", model__network__weights=str(tmp_path / "w.h5"))
    task = build.make_task(changed, classes=3)
    state = task.init(jax.random.PRNGKey(0), inference.example_batch(changed, 3))
    with pytest.raises(PixmedError, match=r"w.h5: no such file; set model.network.weights"):
        build.start(changed, state)
    with pytest.raises(PixmedError, match=r"w.h5: no such file; set model.network.weights"):
        dry_run(changed, tmp_path / "run")
    with h5py.File(tmp_path / "w.h5", "w") as file:
        for kind, names in (
            ("params", {"kernel": "kernel", "scale": "gamma", "bias": "beta"}),
            ("batch_stats", {"mean": "moving_mean", "var": "moving_variance"}),
        ):
            for layer, inner in draw(lambda: state.variables)[kind].items():
                for leaf, value in inner.get("batch", inner).items():
                    file[f"{layer}/{layer}/{names[leaf]}:0"] = value
    assert dry_run(changed, tmp_path / "run") == 0
    new = build.start(changed, state)
    for tree in (new.variables, new.ema):
        with h5py.File(tmp_path / "w.h5") as file:
            assert np.array_equal(tree["params"]["bn"]["batch"]["scale"], file["bn/bn/gamma:0"])
        assert np.array_equal(
            tree["params"]["predictions"]["kernel"], state.variables["params"]["predictions"]["kernel"]
        )
    shared = {x.unsafe_buffer_pointer() for x in jax.tree.leaves(new.variables)}
    assert not shared & {x.unsafe_buffer_pointer() for x in jax.tree.leaves(new.ema)}  # the step donates both
    # Such weights want their own normalisation of the input, and others do not.
    network, _, _ = build.network(changed, 3)
    assert network.imagenet and len(IMAGENET_MEAN) == 3
    changed["model"]["network"]["weights"] = ""
    assert not build.network(changed, 3)[0].imagenet and build.start(changed, state) is state


def test_the_rate_falls_along_a_cosine_and_norms_do_not_decay():
    """Adam's first steps are as long as the rate; a kernel without gradient shrinks by rate x decay."""
    step = build._adamw(learning_rate=0.1, b1=0.9, b2=0.999, weight_decay=0.5, decay_steps=4)
    params = {"kernel": np.ones((2, 2)), "scale": np.ones(2)}
    state = step.init(params)
    zero = jax.tree.map(np.zeros_like, params)
    for rate in (0.1, 0.1 * (1 + np.cos(np.pi / 4)) / 2, 0.05, 0.1 * (1 + np.cos(3 * np.pi / 4)) / 2, 0):
        updates, state = step.update(zero, state, params)
        np.testing.assert_allclose(updates["kernel"], -rate * 0.5, rtol=1e-5, atol=1e-9)
        assert not np.any(updates["scale"])
