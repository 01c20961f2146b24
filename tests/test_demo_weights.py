"""The weights that come with the project: small, whole, and good enough to be shown."""

import json
import os
import signal
import socket
import subprocess
import sys
import tomllib

import numpy as np
import pytest
import runs
from skimage.metrics import structural_similarity

import pixmed_jax
from pixmed_jax.data.phantom import LABEL_NAMES, patient_slices
from pixmed_jax.data.regions import label_map
from pixmed_jax.demo import serve
from pixmed_jax.demo.painter import open_painter
from pixmed_jax.demo.scene import Placement, placed
from pixmed_jax.demo.serve import WEIGHTS
from pixmed_jax.errors import OptionError, PixmedError
from pixmed_jax.training import checkpoint

PATIENTS = range(2000, 2006)  # the weights know 0 to 479


@pytest.fixture(scope="module")
def painter():
    return open_painter(WEIGHTS)


def test_they_are_small_and_whole():
    files = [path for path in WEIGHTS.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 4_000_000
    about = json.loads((WEIGHTS / "config.json").read_text())
    assert about["files"] == {"generator.safetensors": checkpoint.sha256(WEIGHTS / "generator.safetensors")}
    assert (about["dtype"], about["config"]["data"]["source"]) == ("float16", "phantom")
    card = (WEIGHTS / "README.md").read_text()
    for said in ("--config=configs/ghost_spade.py:demo", "--mode=export", "phantom", "Not for diagnosis"):
        assert said in card
    built = tomllib.loads((runs.ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    packed = {path for pattern in built["pixmed_jax"] for path in (runs.ROOT / "pixmed_jax").glob(pattern)}
    assert packed >= set(files)


def test_they_follow_anatomy_and_mask(painter):
    """On patients that nothing was trained on; the mean training image has an SSIM of 0.35."""
    slices = [s for patient in PATIENTS for s in patient_slices(patient, size=128, count=1)]
    images = np.stack([s.image for s in slices])[..., None]
    masks = np.stack([s.mask * np.uint8(s.label + 1) for s in slices])
    maps, names = label_map(masks, images, condition="anatomy", label_names=LABEL_NAMES, class_channels=True)
    generate = pixmed_jax.load(WEIGHTS)
    assert generate.classes == names
    made, real = generate(maps), images / np.float32(255)
    pairs = zip(made[..., 0], real[..., 0], strict=True)
    assert np.mean([structural_similarity(a, b, data_range=1.0) for a, b in pairs]) > 0.75
    for got, is_, mask in zip(made[..., 0], real[..., 0], masks > 0, strict=True):
        assert np.abs(got[mask].mean() - is_[mask].mean()) < 0.2


@pytest.mark.parametrize("label", ["meningioma", "pituitary"])
def test_a_tumour_is_where_it_was_drawn(painter, label):
    """It shines there, and nothing else does; where its kind grows, the segmenter finds it."""
    for scene in painter.scenes:
        tumor = placed(scene.tumor, Placement(150, 0, 0))
        drawn = painter.paint(scene, tumor, label, seed=0, number=1)
        healthy = painter.paint(scene, ~tumor & tumor, label, seed=0, number=1)
        contrast = (drawn.images[0] - healthy.images[0])[drawn.mask].mean()
        elsewhere = np.abs(drawn.images[0] - healthy.images[0])[~drawn.mask].mean()
        assert contrast > 0.15 and elsewhere < 0.01
        assert drawn.dice[0] > 0.7 or scene.label != label


def launch(*words: str, **environment: str) -> subprocess.Popen:
    command = [sys.executable, str(runs.ROOT / "launch.py"), "--mode=demo", *words]
    return subprocess.Popen(
        command,
        env={**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONWARNINGS": "", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_from_the_command_line(tmp_path_factory, tmp_path):
    """Served until Ctrl-C, which ends it as documented and leaves nothing; meanwhile its port is taken."""
    pytest.importorskip("gradio", reason='the page needs gradio: pip install -e ".[demo]"')
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = f"--demo.port={probe.getsockname()[1]}"
    cache = {"JAX_COMPILATION_CACHE_DIR": str(runs.cache(tmp_path_factory)), "TMPDIR": str(tmp_path)}
    with launch(port, **cache) as first:
        told = first.stdout.readline()
        assert "(Ctrl-C ends it)" in told and "http://127.0.0.1:" in told
        with launch(port, **cache) as second:
            line = second.communicate(timeout=120)[1]
        assert second.returncode == 1
        assert line == f"launch.py: {port[2:]}: in use; give another, or --demo.port=0 for any that is free\n"
        assert list(tmp_path.glob("pixmed-demo-*")) != []
        first.send_signal(signal.SIGINT)
        line = first.communicate(timeout=60)[1]
    assert first.returncode == 130 and line.count("\n") == 2 and "stopped by SIGINT" in line
    assert list(tmp_path.glob("pixmed-demo-*")) == []


def test_gradio_missing_is_one_line(monkeypatch):
    monkeypatch.setattr(serve.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(PixmedError, match=r'pip install "pixmed-jax\[demo\]"'):
        serve.demo(None)


def test_a_step_without_a_run_is_refused(monkeypatch):
    """The weights that come with the project are of one, and are not opened."""
    monkeypatch.setattr(serve, "open_painter", None)
    with pytest.raises(OptionError, match=r"demo\.step=77: .* one step; leave it out, or give --workdir"):
        serve.demo(None, step="77")
