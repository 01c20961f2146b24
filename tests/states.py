"""Checkpoints of a small state, for tests that damage them."""

import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from pixmed_jax.training import checkpoint, mesh

CONFIG = {"name": "x", "data": {"size": 4}}


def make_state(seed: int = 0, width: int = 16):
    """A dict like the fields of a training state: floats, integers, a key and an empty group."""
    key = jax.random.PRNGKey(seed)
    return {
        "step": jnp.int32(seed),
        "key": key,
        "generator": {"params": {"kernel": jax.random.normal(key, (3, width)), "bias": jnp.ones(width)}},
        "ema": {"params": {"kernel": jnp.full((3, width), 0.5 + seed)}},
        "optimizer": (jnp.zeros((2, 2)), ()),
    }


def write(folder: Path, scores: dict[int, float], keep: int = 10) -> Path:
    """Checkpoints of the states `make_state(step)` at the given steps, with the given scores."""
    writer = checkpoint.Writer(folder, keep=keep, config=CONFIG, classes=("a", "head"), grey=True)
    for step, score in scores.items():
        writer.save(step, make_state(step), score)
    writer.close()
    return folder


def target(tree):
    return mesh.like(tree, mesh.replicated(mesh.make_mesh(jax.device_count())))


def steps(folder: Path) -> list[int]:
    return [saved.step for saved in checkpoint.finished(folder)]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return write(tmp_path_factory.mktemp("written"), {5: 0.1, 10: 0.3, 15: 0.2})


@pytest.fixture
def folder(written, tmp_path):
    """Three steps, 5, 10 and 15, that a test may damage."""
    return Path(shutil.copytree(written, tmp_path / "checkpoints"))


def largest(step: Path) -> Path:
    files = (p for p in step.rglob("*") if p.is_file() and p.name != checkpoint.MANIFEST)
    return max(files, key=lambda p: p.stat().st_size)
