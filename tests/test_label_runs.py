"""A run whose condition is the label alone, from training to its samples; and configs that cannot be."""

import csv
import json
import re
import shutil

import numpy as np
import pytest
import runs
from PIL import Image
from test_cards import faults

from pixmed_jax import inference
from pixmed_jax.data.sources import open_dataset
from pixmed_jax.errors import PixmedError
from pixmed_jax.evaluation import facts
from pixmed_jax.evaluation.audit import audit
from pixmed_jax.evaluation.evaluate import evaluate
from pixmed_jax.sampling import sample
from pixmed_jax.training.build import networks
from pixmed_jax.training.loop import train

DCGAN = {
    "data__condition": "label",
    "data__size": 16,
    "model__generator": {"name": "dcgan", "width": 4, "latent": 4, "norm": "batch"},
    "model__discriminator": {"name": "dcgan", "width": 4, "norm": "batch"},
    "loss__ssim": 0.0,
    "train__steps": 2,
}


def config(factory, **changes):
    plain = runs.config(factory)
    for key, value in {**DCGAN, **changes}.items():
        section, _, name = key.partition("__")
        plain[section][name] = value
    return plain


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("labels") / "run"
    assert train(config(tmp_path_factory), workdir) == 0
    return workdir


@pytest.fixture(scope="module")
def generate(run, draw):
    return runs.loud(inference.load(run), draw)


def test_the_dataset_gives_labels(tmp_path_factory):
    dataset = open_dataset(**config(tmp_path_factory)["data"], seed=0)
    arrays, slices = dataset.load(dataset.rows["train"], 16)
    assert dataset.classes == slices.label_names == ("meningioma", "glioma", "pituitary")
    assert arrays.maps.dtype == np.uint8 and arrays.maps.shape == (len(slices.labels),)
    np.testing.assert_array_equal(arrays.maps, slices.labels + 1)


def test_labels_become_images(generate):
    assert not generate.takes_maps and generate.classes == ("meningioma", "glioma", "pituitary")
    images = generate(np.array([1, 2, 3, 3]))
    assert images.shape == (4, 16, 16, 1)
    assert np.abs(images[2] - images[3]).max() > 0.01  # another seed
    np.testing.assert_array_equal(generate(np.array([1]), seed=0)[0], images[0])


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (np.zeros((2, 16, 16), np.uint8), "knows no maps; give labels [N], 1 to 3 for meningioma"),
        (np.array([0, 1]), "this model knows 1 to 3"),
        (np.array([4]), "this model knows 1 to 3"),
    ],
)
def test_what_is_no_label(generate, given, told):
    with pytest.raises(PixmedError, match=re.escape(told)):
        generate(given)


def test_a_sampling_of_labels_has_no_masks_and_nobodys_slices(run, generate, monkeypatch):
    monkeypatch.setattr(inference, "load", lambda *_: generate)
    output = sample(run, number=6, balance=True)
    sheet = json.loads((output / "data_sheet.json").read_text())
    assert "configs/classifier.py" in sheet["loading"]  # no segmenter, which needs masks
    names = ["data_sheet.json", "data_sheet.md", "images", "manifest.csv", "trained_on.json"]
    assert sorted(p.name for p in output.iterdir()) == names
    assert faults(json.loads((output / "data_sheet.json").read_text()), "data_sheet") == []
    with (output / "manifest.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["label"] for row in rows] == [
        "glioma",
        "meningioma",
        "pituitary",
    ] * 2  # the split has no meningioma
    for row in rows:
        assert [row[name] for name in ("mask", "patient_group", "source", "tumor_source", "tumor_group")] == [
            ""
        ] * 5
        label = 1 + generate.classes.index(row["label"])
        expected = generate(np.array([label]), seeds=np.array([row["seed"]], np.uint32))[0, ..., 0]
        stored = np.asarray(Image.open(output / "images" / row["file"]))
        assert np.abs(stored / 255 - expected).max() < 0.51 / 255 + 1e-5
    # An earlier sampling without masks is recognised and replaced.
    sample(run, number=2, label="meningioma", fresh=True)
    assert len(list((output / "images").iterdir())) == 2
    assert (output / "manifest.csv").read_text().count("meningioma") == 2
    with pytest.raises(PixmedError, match=r"label='cyst' is not one of meningioma, glioma"):
        sample(run, label="cyst")


def test_without_a_wish_the_labels_are_those_of_the_split(run, generate, monkeypatch):
    monkeypatch.setattr(inference, "load", lambda *_: generate)
    dataset = open_dataset(**generate.config["data"], seed=generate.config["seed"])
    with (sample(run, fresh=True) / "manifest.csv").open(newline="") as file:
        labels = [row["label"] for row in csv.DictReader(file)]
    expected = [dataset.source.label_names[dataset.source.labels[row]] for row in dataset.rows["test"]]
    assert labels == expected


@pytest.mark.parametrize("option", [{"masks": "somewhere"}, {"edit": "swap"}])
def test_masks_and_edits_are_refused(run, generate, monkeypatch, option):
    monkeypatch.setattr(inference, "load", lambda *_: generate)
    with pytest.raises(PixmedError, match=f"sample.{next(iter(option))}: this model knows no masks"):
        sample(run, **option)


def test_it_is_evaluated_beside_any_slice_of_its_class(run):
    result = evaluate(run)
    assert set(result["baselines"]) == {"mean_image", "same_label"}
    assert result["condition"] == {
        "name": "label",
        "classes": ["meningioma", "glioma", "pituitary"],
        "bytes_per_slice": 1.0,
    }
    page = (run / "report" / "index.html").read_text()
    assert "told the class alone" in page and "any training slice of that class" in page


def test_a_class_that_was_not_trained_on_is_evaluated(run, tmp_path, monkeypatch):
    """Any training slice stands beside it."""
    workdir, opened = shutil.copytree(run, tmp_path / "run"), facts.open_data

    def without(*given):
        dataset = opened(*given)
        train = dataset.rows["train"]
        tested = dataset.source.labels[dataset.rows["test"][0]]
        rows = train[dataset.source.labels[train] != tested]
        return dataset._replace(rows={**dataset.rows, "train": rows})

    monkeypatch.setattr(facts, "open_data", without)
    result = evaluate(workdir)
    assert 0 < result["baselines"]["same_label"]["mse"]["full"] < 1
    assert "of any class where none has it" in (workdir / "report" / "index.html").read_text()


@pytest.fixture
def narrow(run, tmp_path):
    """The run, as if no slice of a pituitary tumour had been trained on."""
    workdir = shutil.copytree(run, tmp_path / "narrow", ignore=shutil.ignore_patterns("samples"))
    config = json.loads((workdir / "config.json").read_text())
    source = open_dataset(**config["data"], seed=config["seed"]).source
    pituitary = source.label_names.index("pituitary")
    others = {file for file, label in zip(source.files, source.labels, strict=True) if label != pituitary}
    split = json.loads((workdir / "split.json").read_text())
    split["train"] = {file: of for file, of in split["train"].items() if file in others}
    (workdir / "split.json").write_text(json.dumps(split))
    return workdir


def test_a_class_that_was_not_trained_on_is_not_drawn(narrow, generate, monkeypatch, capsys):
    monkeypatch.setattr(inference, "load", lambda *_: generate)
    balanced = runs.rows(sample(narrow, number=6, balance=True))
    assert [row["label"] for row in balanced] == ["glioma", "meningioma"] * 3
    assert "no training slice has pituitary, so none of these is drawn" in capsys.readouterr().err
    of_split = runs.rows(sample(narrow, fresh=True))
    assert of_split and "pituitary" not in {row["label"] for row in of_split}
    refused = r"label='pituitary': no slice .* has it; give one of meningioma, glioma"
    with pytest.raises(PixmedError, match=refused) as error:
        sample(narrow, label="pituitary", fresh=True)
    assert "\n" not in str(error.value)
    assert len(runs.rows(sample(narrow, label="glioma", number=2, fresh=True))) == 2


@pytest.mark.parametrize("unknown", ["data", "behind", "record"])
def test_where_nobody_knows_what_was_trained_on_all_classes_are_drawn(
    narrow, generate, monkeypatch, capsys, unknown
):
    monkeypatch.setattr(inference, "load", lambda *_: generate)
    if unknown == "data":
        config = json.loads((narrow / "config.json").read_text())
        config["data"] |= {"source": "folder", "dir": str(narrow / "gone")}
        (narrow / "config.json").write_text(json.dumps(config))
    elif unknown == "behind":
        split = json.loads((narrow / "split.json").read_text())
        (narrow / "split.json").write_text(json.dumps({**split, "behind": {"a.png": "of another run"}}))
    else:
        (narrow / "split.json").unlink()
    drawn = runs.rows(sample(narrow, number=3, balance=True))
    assert [row["label"] for row in drawn] == ["glioma", "meningioma", "pituitary"]
    told = "slices of every class is unknown" in capsys.readouterr().err
    assert told is (unknown == "data")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"data__condition": "tumor"}, "data.condition=tumor: model.generator.name=dcgan takes label"),
        ({"loss__l1": 1.0}, "loss.l1=1.0: compares images with those of a mask"),
        ({"loss__bce": "both"}, "loss.bce=both: compares"),
        ({"data__size": 48}, "data.size=48: this generator makes 16, 32, 64"),
        ({"data__size": 8}, "data.size=8: this generator makes 16, 32, 64"),  # smaller than SSIM's window
        (
            {"model__generator": {"name": "gan"}},
            "model.generator.name='gan' is unknown; use one of dcgan, ghost_spade, srresnet, stylegan2, unet",
        ),
        ({"model__discriminator": {"name": "patchgan"}}, "model.discriminator.name=patchgan takes tumor"),
    ],
)
def test_configs_that_cannot_be(tmp_path_factory, changes, told):
    with pytest.raises(PixmedError, match=re.escape(told)):
        networks(config(tmp_path_factory, **changes))


def test_it_is_audited_without_maps(run):
    """No recognition, since nobody's map is drawn from; as many images as are asked for."""
    found = audit(run, number=7)["memorisation"]
    assert found["n"] == 7 and found["recognition"] is None and 0 <= found["auc"] <= 1
    assert "drawn from nobody’s map" in (run / "report" / "audit.html").read_text()
