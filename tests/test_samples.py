"""A sampled folder in other people's code: the arrays are the files, and the examples run as written."""

import csv
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import runs
import tensorflow_datasets as tfds
from PIL import Image
from runs import pixels

import pixmed_jax
from pixmed_jax.data import samples_builder
from pixmed_jax.errors import PixmedError
from pixmed_jax.sampling import sample

EXAMPLES = runs.ROOT / "examples"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    output = tmp_path_factory.mktemp("sampled") / "out"
    return sample(
        runs.trained(tmp_path_factory),
        output=str(output),
        number=6,
        balance=True,
        edit="mixed",
        split="train",
    )


def entries(folder):
    with (folder / "manifest.csv").open(newline="") as table:
        return list(csv.DictReader(table))


def test_a_sequence_of_what_lies_in_the_folder(folder):
    samples = pixmed_jax.Samples(folder)
    assert len(samples) == 6 and samples.label_names == ("glioma", "meningioma", "pituitary")
    for row, entry in zip(samples, entries(folder), strict=True):
        image, mask = (pixels(folder / part / entry["file"]) for part in ("images", "masks"))
        assert row["image"].shape == (32, 32, 1) and row["image"].dtype == np.float32
        np.testing.assert_array_equal(row["image"][..., 0] * 255, image)
        assert row["mask"].dtype == np.uint8 and 0 < row["mask"].sum() < 32 * 32
        np.testing.assert_array_equal(row["mask"], mask // 255)
        assert samples.label_names[row["label"]] == entry["label"]
    assert [*samples.groups] == [entry["patient_group"] for entry in entries(folder)]
    np.testing.assert_array_equal(samples[-1]["image"], samples[5]["image"])
    with pytest.raises(IndexError):
        samples[6]
    first = pixmed_jax.Samples(folder, channels_first=True)[0]["image"]
    np.testing.assert_array_equal(first[0], samples[0]["image"][..., 0])
    stacked = samples.stacked()
    assert {key: of.shape for key, of in stacked.items()} == {
        "image": (6, 32, 32, 1),
        "mask": (6, 32, 32),
        "label": (6,),
    }


def test_what_is_not_to_train_with_is_warned_of(folder, tmp_path, tmp_path_factory):
    """The fixture's folder, which is, is opened without a word: pytest makes errors of warnings."""
    assert pixmed_jax.Samples(folder).not_for_training == ""
    run, own, held_out = (
        runs.trained(tmp_path_factory),
        "2 are patients' own maps",
        "2 are of held-out slices",
    )
    for split, edit, told, not_told in (
        ("test", "none", (own, held_out), ()),
        ("train", "none", (own,), (held_out,)),
        ("test", "move", (held_out,), (own,)),
    ):
        output = sample(run, output=str(tmp_path / f"{split}-{edit}"), number=2, split=split, edit=edit)
        with pytest.warns(UserWarning, match="not to train with") as caught:
            samples = pixmed_jax.Samples(output)
        for words in (str(caught[0].message), samples.not_for_training):
            assert all(of in words for of in told) and not any(of in words for of in not_told)
    (output / "trained_on.json").unlink()  # and nobody knows
    assert pixmed_jax.Samples(output).not_for_training == ""


def test_folders_that_are_none(folder, tmp_path):
    with pytest.raises(PixmedError, match=r"manifest\.csv: missing; give a folder that --mode=sample wrote"):
        pixmed_jax.Samples(tmp_path)
    (tmp_path / "manifest.csv").write_text("file,label\n00000.nii.gz,glioma\n")
    with pytest.raises(PixmedError, match="holds NIfTI files"):
        pixmed_jax.Samples(tmp_path)
    (tmp_path / "manifest.csv").write_text("file,label\n../../secret.png,glioma\n")
    with pytest.raises(PixmedError, match="names are not those of PNG files"):
        pixmed_jax.Samples(tmp_path)


def test_tfds_gives_the_same_and_another_sampling_is_another_dataset(folder, tmp_path):
    samples = pixmed_jax.Samples(folder)
    source = tfds.data_source(
        "pixmed_samples", split="train", builder_kwargs={"directory": str(folder)}, data_dir=tmp_path
    )
    found = {record["file"].decode(): record for record in source}
    assert set(found) == set(samples.files)
    for file, group, row in zip(samples.files, samples.groups, samples, strict=True):
        np.testing.assert_array_equal(found[file]["image"], row["image"])
        np.testing.assert_array_equal(found[file]["mask"], row["mask"])
        assert found[file]["label"] == row["label"] and found[file]["patient_group"].decode() == group
    before = samples_builder.PixmedSamples(directory=str(folder), data_dir=tmp_path).data_path
    text = (folder / "manifest.csv").read_text()
    try:
        (folder / "manifest.csv").write_text(text.replace("glioma", "other"))
        assert samples_builder.PixmedSamples(directory=str(folder), data_dir=tmp_path).data_path != before
    finally:
        (folder / "manifest.csv").write_text(text)


EXAMPLE = {"torch": "epoch 5: loss", "monai": "epoch 5: loss", "keras": "Epoch 5/5", "tfds": "00004"}
EXAMPLE["nnunet"] = "cases in"
OURS = ("tfds", "nnunet")  # which need nothing that is no dependency


@pytest.mark.parametrize("name", EXAMPLE)
def test_examples_run_as_written(folder, tmp_path, name):
    if name not in OURS and importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is no dependency; pip install {name} to run its example")
    file = f"with_{name.replace('torch', 'pytorch')}.py"
    more = [str(tmp_path / "out")] if name in OURS else []
    path = os.pathsep.join([str(runs.ROOT), *sys.path])
    environment = {**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu", "PYTHONPATH": path}
    command = [sys.executable, str(EXAMPLES / file), str(folder), *more]
    process = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert process.returncode == 0, process.stderr
    assert EXAMPLE[name] in process.stdout


def test_an_nnunet_dataset_is_of_the_samples_pixels(folder, tmp_path):
    """The layout of nnU-Net 2: NAME_0000.png and NAME.png of labels from 0, counted in dataset.json."""
    target = tmp_path / "Dataset501_Synthetic"
    command = [sys.executable, str(EXAMPLES / "with_nnunet.py"), str(folder), str(target)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(runs.ROOT), *sys.path])}
    subprocess.run(command, env=environment, check=True, capture_output=True, timeout=120)
    samples = pixmed_jax.Samples(folder)
    about = json.loads((target / "dataset.json").read_text())
    assert about["numTraining"] == len(samples) == len(list((target / "imagesTr").iterdir()))
    for file in samples.files:
        case = f"synthetic_{Path(file).stem}"
        image = np.asarray(Image.open(target / "imagesTr" / f"{case}_0000.png"))
        np.testing.assert_array_equal(image, np.asarray(Image.open(folder / "images" / file)))
        label = np.asarray(Image.open(target / "labelsTr" / f"{case}.png"))
        np.testing.assert_array_equal(label * 255, np.asarray(Image.open(folder / "masks" / file)))


def test_every_example_is_run():
    files = {f"with_{name.replace('torch', 'pytorch')}.py" for name in EXAMPLE}
    assert {path.name for path in EXAMPLES.glob("*.py")} == files
