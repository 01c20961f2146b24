"""An exported folder: the checkpoint's images, without orbax; a damaged one is refused in a line."""

import json
import shutil
import struct
import subprocess
import sys

import jax
import numpy as np
import pytest
import runs
from safetensors.numpy import load_file, save_file
from test_inference import label_maps

import pixmed_jax
from pixmed_jax import inference
from pixmed_jax.errors import PixmedError
from pixmed_jax.export import export as stage
from pixmed_jax.export import folder
from pixmed_jax.training import checkpoint

WEIGHTS = "generator.safetensors"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return runs.trained(tmp_path_factory)


@pytest.fixture(scope="module")
def generate(run, draw):
    return runs.loud(pixmed_jax.load(run), draw)


def written(generate, saved, path, dtype="float32"):
    """As the stage does it, with weights that are heard."""
    path.mkdir()
    folder.write_weights(path / WEIGHTS, generate._variables, dtype)
    folder.write_config(path, saved, WEIGHTS, dtype=dtype)
    return path


@pytest.fixture(scope="module")
def exported(generate, run, tmp_path_factory):
    return written(generate, inference.find(run), tmp_path_factory.mktemp("exported") / "export")


def test_images_are_the_checkpoints_bit_for_bit(generate, exported):
    elsewhere = pixmed_jax.load(exported)
    maps = label_maps(3)
    assert elsewhere(maps, seed=7).tobytes() == generate(maps, seed=7).tobytes()
    for name in ("config", "classes", "grey", "limits", "step", "size"):
        assert getattr(elsewhere, name) == getattr(generate, name)
    assert json.loads((exported / "config.json").read_text())["version"] == pixmed_jax.__version__


def test_float16_is_half_the_size_and_computes_in_float32(generate, run, exported, tmp_path):
    half = written(generate, inference.find(run), tmp_path / "half", "float16")
    elsewhere = pixmed_jax.load(half)
    assert {leaf.dtype for leaf in jax.tree.leaves(elsewhere._variables)} == {np.dtype(np.float32)}
    error = np.abs(elsewhere(label_maps(3)) - generate(label_maps(3))).max()
    assert 0 < error < 0.01  # weights are rounded to 11 bits; these are larger than trained ones
    small, large = ((p / WEIGHTS).stat().st_size for p in (half, exported))
    assert small < 0.7 * large


def test_weights_that_float16_cannot_hold_are_refused(tmp_path):
    with pytest.raises(PixmedError, match=r"params\.a hold NaN or infinity; export another step, or with"):
        folder.write_weights(tmp_path / WEIGHTS, {"params": {"a": np.float32([1, 7e4])}}, "float16")
    with pytest.raises(PixmedError, match=r"export\.dtype='int8' is not one of float32, float16"):
        stage.export(tmp_path / "run", dtype="int8")
    assert not list(tmp_path.iterdir())


def test_orbax_is_not_needed(generate, exported):
    """In a fresh process, in which importing it fails."""
    program = f"""
import sys
sys.modules["orbax"] = sys.modules["orbax.checkpoint"] = sys.modules["tensorstore"] = None
import numpy as np, pixmed_jax
print(pixmed_jax.load({str(exported)!r})(np.ones((1, 32, 32), np.uint8)).tobytes().hex())
"""
    told = subprocess.run(
        [sys.executable, "-c", program], cwd=runs.ROOT, capture_output=True, text=True, timeout=120
    )
    assert told.returncode == 0, told.stderr
    images = np.frombuffer(bytes.fromhex(told.stdout.strip()), np.float32)
    np.testing.assert_allclose(images, generate(np.ones((1, 32, 32), np.uint8)).ravel(), atol=1e-6)


# ---------------------------------------------------------------- hostile folders
def edited(path, change, sign=True):
    """Change config.json as somebody would who also brings its sha256 up to date."""
    contents = json.loads((path / "config.json").read_text())
    change(contents)
    if sign:
        contents["sha256"] = checkpoint.sha256_of_contents(contents)
    (path / "config.json").write_text(json.dumps(contents))


def arrays_edited(path, change):
    """Change the weights as somebody would who also brings their sha256 up to date."""
    arrays = load_file(path / WEIGHTS)
    change(arrays)
    save_file(arrays, path / WEIGHTS)
    edited(path, lambda c: c["files"].update({WEIGHTS: checkpoint.sha256(path / WEIGHTS)}))


def flipped(path):
    data = bytearray((path / WEIGHTS).read_bytes())
    data[-5] ^= 1
    (path / WEIGHTS).write_bytes(data)


def cut(path):
    (path / WEIGHTS).write_bytes((path / WEIGHTS).read_bytes()[:-4])


def header_of(path, length):
    (path / WEIGHTS).write_bytes(struct.pack("<Q", length) + (path / WEIGHTS).read_bytes()[8:])


def sparse(path):
    with (path / WEIGHTS).open("r+b") as file:
        file.truncate(1 << 40)


BIAS = "params.decoder_1.bias"
HOSTILE = {
    "flipped bit": (flipped, "has changed since it was written"),
    "cut": (cut, "no readable safetensors"),
    "long header": (lambda p: header_of(p, 2**40), "a header of 1099511627776 bytes"),
    "short header": (lambda p: header_of(p, 3), "no readable safetensors"),
    "terabyte": (sparse, "no readable safetensors"),
    "empty": (lambda p: (p / WEIGHTS).write_bytes(b""), "no readable safetensors"),
    "no array": (lambda p: arrays_edited(p, lambda a: a.pop(BIAS)), f"{BIAS} is missing"),
    "one more": (lambda p: arrays_edited(p, lambda a: a.update(x=a[BIAS])), "x is unknown"),
    "another shape": (
        lambda p: arrays_edited(p, lambda a: a.update({BIAS: np.zeros(2, np.float32)})),
        rf"{BIAS} is \[2\], not \[1\]",
    ),
    "another type": (
        lambda p: arrays_edited(p, lambda a: a.update({BIAS: np.zeros(1, np.int64)})),
        f"{BIAS} is I64",
    ),
    "not a number": (
        lambda p: arrays_edited(p, lambda a: a.update({BIAS: np.float32([np.nan])})),
        f"{BIAS} hold NaN",
    ),
    "edited config": (lambda p: edited(p, lambda c: c.update(step=7), sign=False), "changed since it was"),
    "no JSON": (lambda p: (p / "config.json").write_bytes(b"\xff{"), "config.json: unreadable"),
    "deep JSON": (lambda p: (p / "config.json").write_text("[" * 10**6), "config.json: unreadable"),
    "no config": (lambda p: edited(p, lambda c: c.pop("config")), "config.json: unreadable"),
    "file outside": (lambda p: edited(p, lambda c: c.update(files={"../x": ""})), "outside its folder"),
    "another file": (lambda p: edited(p, lambda c: c.update(files={"config.json": ""})), "as weights"),
    "no network": (lambda p: edited(p, lambda c: c["config"].pop("model")), "describes no network"),
    "a number for a section": (lambda p: edited(p, lambda c: c["config"].update(data=3)), "no network"),
    "a wider network": (
        lambda p: edited(p, lambda c: c["config"]["model"]["generator"].update(width=5)),
        "does not fit",
    ),
    "larger images": (
        lambda p: edited(p, lambda c: c["config"]["data"].update(size=2**40)),
        r"config\.data\.size",
    ),
    "endless levels": (
        lambda p: edited(p, lambda c: c["config"]["model"]["discriminator"].update(layers=10**9)),
        r"config\.model\.discriminator\.layers=1000000000",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_folders_are_refused_in_a_line(name, exported, tmp_path):
    change, told = HOSTILE[name]
    path = tmp_path / "export"
    shutil.copytree(exported, path)
    change(path)
    with pytest.raises(PixmedError, match=told) as error:
        pixmed_jax.load(path)
    assert "\n" not in str(error.value) and str(path) in str(error.value)


def test_a_folder_without_its_weights_is_no_exported_model(exported, tmp_path):
    shutil.copy(exported / "config.json", tmp_path)
    with pytest.raises(PixmedError, match="no finished and intact checkpoint there, nor an exported model"):
        pixmed_jax.load(tmp_path)
