"""Networks that restore, from config to report: trained, evaluated, scored again by hand, and refused."""

import csv
import json
import shutil

import jax
import numpy as np
import pytest
import runs
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from test_cards import faults

from pixmed_jax import inference, sampling
from pixmed_jax.data.degrade import low_resolution
from pixmed_jax.data.sources import open_dataset
from pixmed_jax.enhancement.interpolation import METHODS, enlarge
from pixmed_jax.errors import PixmedError
from pixmed_jax.evaluation import facts
from pixmed_jax.evaluation.compare import compare
from pixmed_jax.evaluation.evaluate import evaluate, summary
from pixmed_jax.evaluation.restoration import pattern
from pixmed_jax.training import build, warm_start
from pixmed_jax.training.dry_run import dry_run
from pixmed_jax.training.loop import train
from pixmed_jax.training.start import open_data


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """(workdir, evaluation) of a residual network; the phantoms are those of the GAN's run."""
    runs.trained(tmp_path_factory)
    folder = tmp_path_factory.mktemp("restoration") / "srresnet"
    assert train(runs.preset(tmp_path_factory, "super_resolution"), folder) == 0
    return folder, evaluate(folder)


@pytest.fixture(scope="module")
def held_out(run):
    """(slices, images [N, S, S, 1] in [0, 1]) of the run's test split."""
    stored = json.loads((run[0] / "config.json").read_text())
    dataset = open_dataset(**stored["data"], seed=stored["seed"])
    arrays, slices = dataset.load(dataset.rows["test"], dataset.size)
    return slices, np.asarray(arrays.images) / np.float32(255)


def test_scores_are_those_of_scikit_image(run, held_out):
    folder, result = run
    slices, real = held_out
    given = np.asarray(low_resolution(real, 2))
    contenders = {"network": inference.load_restorer(folder)(given)}
    contenders |= {name: np.asarray(enlarge(given, 2, name)) for name in METHODS}
    assert list(result["contenders"]) == list(contenders)
    for name, made in contenders.items():
        assert made.shape == real.shape and made.min() >= 0 and made.max() <= 1
        pairs = [(a[..., 0], b[..., 0]) for a, b in zip(made, real, strict=True)]
        psnr = [peak_signal_noise_ratio(b, a, data_range=1) for a, b in pairs]
        ssim = [
            structural_similarity(
                a, b, data_range=1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
            )
            for a, b in pairs
        ]
        told = result["contenders"][name]
        assert told["psnr"]["full"]["value"] == pytest.approx(np.mean(psnr), abs=1e-3)
        assert told["ssim"]["full"]["value"] == pytest.approx(np.mean(ssim), abs=1e-4)
        low, high = told["psnr"]["full"]["interval"]
        assert low < told["psnr"]["full"]["value"] < high
    with (folder / "cases.csv").open() as file:
        cases = list(csv.DictReader(file))
    assert [case["file"] for case in cases] == list(slices.files)
    own = [float(case["psnr_network"]) - float(case["psnr_bicubic"]) for case in cases]
    assert result["gains"]["bicubic"]["psnr"]["value"] == pytest.approx(np.mean(own), abs=1e-4)


def test_a_pattern_of_a_given_size_is_found_and_an_image_has_none():
    grey = np.random.default_rng(0).uniform(0.4, 0.6, (2, 96, 96))
    board = np.indices((96, 96)).sum(0) % 2 * 2 - 1.0
    found = pattern(np.stack([grey[0], grey[1] + board * 4 / 255]), 2)
    assert found[0] < 0.5 and found[1] == pytest.approx(4, abs=0.5)
    coarse = np.kron(board[:32, :32], np.ones((3, 3)))[None] * 4 / 255
    assert pattern(coarse, 3)[0] < 1e-9  # blocks as large as its pixels


def test_the_record_and_the_page(run):
    folder, result = run
    assert json.loads((folder / "evaluation.json").read_text()) == json.loads(json.dumps(result))
    split = json.loads((folder / "split.json").read_text())
    assert (result["n"], result["patients"]) == (len(split["test"]), len(set(split["test"].values())))
    assert (result["scale"], result["size"], result["step"], result["predicts"]) == (2, 32, 6, "images")
    assert "\n" not in summary(result) and "bicubic" in summary(result)
    page = (folder / "report" / "index.html").read_text()
    assert "16×16 to 32×32 pixels, ×2" in page and "<img" in page and "undefined" not in page
    for name in METHODS:
        assert f"<td>{name}</td>" in page
    card = json.loads((folder / "model_card.json").read_text())
    assert not faults(card) and card["model"]["makes"] == "restorations"
    assert card["results"]["rows"][0]["beside"].keys() == set(METHODS)
    given = {"images": np.full((1, 16, 16, 1), 0.5, np.float32)}
    exec(runs.code_of((folder / "model_card.md").read_text()).replace("DIR", str(folder)), given)
    assert given["images"].shape == (1, 32, 32, 1)
    scores = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert all(np.isfinite(s["held_out/psnr"]) for s in scores if "held_out/psnr" in s)


def test_a_gan_starts_from_a_supervised_run_and_is_evaluated_alike(run, tmp_path_factory, tmp_path):
    weights = shutil.copytree(run[0], tmp_path / "weights", ignore=shutil.ignore_patterns("report"))
    changed = runs.preset(tmp_path_factory, "srgan", model__generator__weights=str(weights))
    task = build.make_task(changed, classes=3)
    key = jax.random.PRNGKey(1)
    state = build.start(changed, jax.jit(task.init)(key, inference.example_batch(changed, 3)))
    first = inference.load_restorer(run[0])._variables["params"]
    for tree in (state.generator, state.ema):
        for a, b in zip(jax.tree.leaves(tree["params"]), jax.tree.leaves(first), strict=True):
            np.testing.assert_array_equal(a, b)
    nowhere = runs.preset(tmp_path_factory, "srgan", model__generator__weights="nowhere")
    with pytest.raises(PixmedError, match=r"weights=nowhere: no trained run there"):
        build.start(nowhere, state)
    with pytest.raises(PixmedError, match=r"weights=nowhere: no trained run there"):
        dry_run(nowhere, tmp_path / "srgan")
    assert dry_run(changed, tmp_path / "srgan") == 0
    changed["train"]["steps"] = 2
    assert train(changed, tmp_path / "srgan") == 0
    result = evaluate(tmp_path / "srgan")
    assert result["contenders"]["bicubic"] == run[1]["contenders"]["bicubic"]  # of the same patients
    assert set(result["cost"]["networks"]) == {"generator", "discriminator"}
    seen = json.loads((weights / "split.json").read_text())["train"]
    assert json.loads((tmp_path / "srgan" / "split.json").read_text())["behind"] == seen
    weights.rename(tmp_path / "gone")  # a resume needs it no more, and goes on with the record
    changed["train"]["steps"] = 3
    assert train(changed, tmp_path / "srgan") == 0
    assert json.loads((tmp_path / "srgan" / "split.json").read_text())["behind"] == seen


def test_weights_that_have_seen_who_tests_are_refused(run, tmp_path_factory, tmp_path):
    """The same patients under another seed of the split: some who test were trained on there."""
    names = {"model__generator__weights": str(run[0]), "train__steps": 2}
    other = runs.preset(tmp_path_factory, "srgan", data__split__seed=1, **names)
    seen = set(json.loads((run[0] / "split.json").read_text())["train"].values())
    dataset = open_dataset(**other["data"], seed=other["seed"])
    shared = sorted({dataset.source.groups[row] for row in dataset.rows["test"]} & seen)
    assert shared  # else this tests nothing
    told = rf"srresnet: was trained on {len(shared)} patients of this run's test split \({shared[0]}"
    for start in (train, dry_run):
        with pytest.raises(PixmedError, match=told) as caught:
            start(other, tmp_path / "other")
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "other").exists()


def test_who_was_seen_stays_on_the_record_of_what_starts_from_it(run, tmp_path_factory, tmp_path):
    """From run to run, in what is sampled, and where nobody knows."""
    first, second, third = (tmp_path / name for name in ("first", "second", "third"))
    for folder in (first, second, third):
        shutil.copytree(run[0], folder, ignore=shutil.ignore_patterns("report"))

    def record_of(started_from, folder):
        """The record of a training in `folder` that starts from another run's weights."""
        config = runs.preset(tmp_path_factory, "srgan", model__generator__weights=str(started_from))
        (folder / "config.json").write_text(json.dumps(config))
        told = warm_start.with_behind(config, open_data(config), None).description()
        (folder / "split.json").write_text(json.dumps(told))
        return told["behind"]

    record = json.loads((first / "split.json").read_text())
    for name in ("train", "val"):  # as if patients of another set had been there, too
        record[name][f"elsewhere_{name}.png"] = f"elsewhere {name}"
    (first / "split.json").write_text(json.dumps(record))
    assert record_of(first, second) == record["train"]
    (first / "split.json").write_text(
        json.dumps(record | {"train": {"a.png": "a"}, "behind": {"b.png": "b"}})
    )
    assert record_of(first, second) == {"a.png": "a", "b.png": "b"}
    ours = json.loads((second / "split.json").read_text())
    assert record_of(second, third) == sampling._trained_on(second) == {**ours["train"], **ours["behind"]}

    # Whoever turns up in the test split later is known from the record.
    (tested, *_), config = ours["test"].values(), json.loads((second / "config.json").read_text())
    (second / "split.json").write_text(json.dumps(ours | {"behind": {"other.png": tested}}))
    with pytest.raises(PixmedError, match=rf"come from 1 patients of this run's test split \({tested}\)"):
        evaluate(second)
    assert len(facts.open_data(second, config, "val").of("val"))

    (first / "split.json").unlink()
    for started_from, folder in ((first, second), (second, third)):
        named = rf"{started_from.name}/split\.json: does not say whom these weights have seen"
        with pytest.warns(UserWarning, match=named):
            assert record_of(started_from, folder) is None
        assert sampling._trained_on(folder) is None  # whoever would train on its samples is told nothing
        with pytest.warns(UserWarning, match=f"{folder.name}: nobody knows whom the weights have seen"):
            facts.open_data(folder, config, "test")


def test_a_restorer_takes_any_size_and_colours_channel_by_channel(run):
    restorer = inference.load_restorer(run[0])
    assert (restorer.scale, restorer.reach) == (2, 5)
    colour = np.random.default_rng(0).uniform(size=(2, 9, 14, 3)).astype(np.float32)
    made = restorer(colour)
    assert made.shape == (2, 18, 28, 3)
    np.testing.assert_allclose(made[1, ..., 2], restorer(colour[1:, ..., 2:])[0, ..., 0], atol=1e-6)


def test_what_it_is_not_is_refused(run, tmp_path_factory, tmp_path):
    for load in (inference.load, inference.load_network):
        with pytest.raises(PixmedError, match="holds a super_resolution"):
            load(run[0])
    with pytest.raises(PixmedError, match="holds a ghost, which restores no images"):
        inference.load_restorer(runs.trained(tmp_path_factory))
    with pytest.raises(PixmedError, match="restores images, which is not what is compared here"):
        compare([run[0]], tmp_path / "compare")
    with pytest.raises(PixmedError, match=r"evaluate\.features: .*own encoder"):
        evaluate(run[0], features="inception")


@pytest.mark.parametrize(
    ("name", "changes", "told"),
    [
        (
            "super_resolution",
            {"data__condition": "tumor"},
            "srresnet learns to tell images; set data.condition",
        ),
        ("srgan", {"data__condition": "label"}, "model.generator.name=srresnet takes low_resolution"),
    ],
)
def test_settings_that_do_not_fit_are_refused(tmp_path_factory, name, changes, told):
    with pytest.raises(PixmedError, match=told) as caught:
        build.make_task(runs.preset(tmp_path_factory, name, **changes), classes=3)
    assert "\n" not in str(caught.value)


def test_slices_without_masks_are_enough(run, held_out, tmp_path, tmp_path_factory):
    from PIL import Image

    for label, row in (("a", 0), ("a", 1), ("b", 2), ("b", 3)):
        (tmp_path / label).mkdir(exist_ok=True)
        Image.fromarray((held_out[1][row][..., 0] * 255).astype(np.uint8)).save(
            tmp_path / label / f"{row}.png"
        )
    changes = {
        "data__source": "classes",
        "data__dir": str(tmp_path),
        "data__split": {
            "by": "slice",
            "fractions": [0.5, 0.25, 0.25],
            "folds": 0,
            "fold": 0,
            "seed": 0,
            "crossing": "error",
        },
    }
    with pytest.warns(UserWarning, match="data.split.by=slice"):
        dataset = open_data(runs.preset(tmp_path_factory, "super_resolution", **changes))
    arrays, _ = dataset.load(dataset.rows["train"], 32)
    assert dataset.degrade and arrays.maps.ndim == 1
    told = "has no masks, and this model is trained on them"
    with pytest.warns(UserWarning), pytest.raises(PixmedError, match=told):
        open_data(runs.preset(tmp_path_factory, "segmenter", **changes))
