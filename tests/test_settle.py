"""Styles settle on what is read: against styles whose distribution is known, and in a real, tiny run."""

import shutil
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import runs

from pixmed_jax import workdir as run_folder
from pixmed_jax.data.pipeline import Batch
from pixmed_jax.data.sources import open_dataset
from pixmed_jax.models.ghost_spade import Normal
from pixmed_jax.training import checkpoint, settle
from pixmed_jax.training.build import networks
from pixmed_jax.training.loop import train


class Reads(nn.Module):
    """Reads two numbers off an image as they stand there, each give or take 0.1; is told the map's mean."""

    def setup(self) -> None:
        self.prior = nn.Dense(4)
        self.other = nn.Dense(1)

    def __call__(self, condition: jax.Array) -> jax.Array:
        return self.prior(condition.mean((1, 2))), self.other(condition)

    def readings(self, condition: jax.Array, images: jax.Array) -> tuple[jax.Array, Normal]:
        read = images[:, 0, :2, 0]
        return condition.mean((1, 2)), Normal(read, jnp.full_like(read, 0.1))

    def expected(self, summaries: jax.Array) -> Normal:
        return Normal.told(self.prior(summaries))


def slices(seed: int, count: int = 6400) -> Batch:
    """Maps of two kinds, all -1 and all 1; to be read are N(-1, 0.3) and N(2, 0.3), and N(0, 1) of both."""
    rng = np.random.default_rng(seed)
    kind = rng.integers(0, 2, count)
    images = np.zeros((count, 2, 2, 1), np.float32)
    images[:, 0, 0, 0] = np.where(kind, 2, -1) + 0.3 * rng.normal(size=count)
    images[:, 0, 1, 0] = rng.normal(size=count)
    condition = np.ones((count, 2, 2, 1), np.float32) * (2 * kind[:, None, None, None] - 1)
    return Batch(images, condition, np.zeros(count, np.int32))


@pytest.fixture(scope="module")
def settled():
    batch = slices(0)
    variables = Reads().init(jax.random.key(0), batch.condition)
    parts = [jax.tree.map(lambda x, i=i: x[i : i + 640], batch) for i in range(0, 6400, 640)]
    return variables, settle.styles_of(Reads())(variables, parts, jax.random.key(1))


def test_what_a_map_expects_is_what_is_read_of_such_maps(settled):
    """The mean of what was drawn for each kind, and its spread with that of reading: hypot(0.3, 0.1) and
    hypot(1, 0.1)."""
    variables, (after, _) = settled
    told = Reads().apply(after, jnp.array([[-1.0], [1.0]]), method="expected")
    np.testing.assert_allclose(told.mean, [[-1, 0], [2, 0]], atol=0.12)
    np.testing.assert_allclose(told.deviation, [[0.316, 1.005]] * 2, rtol=0.1)
    assert jax.tree.all(jax.tree.map(jnp.array_equal, after["params"]["other"], variables["params"]["other"]))


def divergence(variables: Any, batch: Batch) -> float:
    """Kullback and Leibler's by the formula for normal distributions, over all slices."""
    told = Reads().apply(variables, batch.condition.mean((1, 2)), method="expected")
    off = batch.images[:, 0, :2, 0] - told.mean
    each = np.log(told.deviation / 0.1) + (0.1**2 + off**2) / 2 / told.deviation**2 - 0.5
    return float(each.sum(-1).mean())


def test_the_divergence_is_told_before_and_after(settled):
    variables, (after, metrics) = settled
    for name, of in (("divergence_before", variables), ("divergence", after)):
        assert float(metrics[name]) == pytest.approx(divergence(of, slices(0)), rel=1e-4)
    assert metrics["divergence"] < metrics["divergence_before"]


def test_few_slices_are_not_looked_at_oftener():
    """60 times each, 64 at once, as many are: 18 steps of Adam, of 0.001 at most, for 20 slices."""
    batch = slices(3, 20)
    variables = Reads().init(jax.random.key(0), batch.condition)
    after, _ = settle.styles_of(Reads())(variables, [batch], jax.random.key(1))
    moved = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), after, variables)["params"]
    assert max(jax.tree.leaves(moved["other"])) == 0
    assert 0.005 < max(jax.tree.leaves(moved["prior"])) < 0.018


def test_nothing_is_kept_of_a_fit_that_is_not_finite():
    batch = slices(3, 20)
    variables = Reads().init(jax.random.key(0), batch.condition)
    batch.images[5] = np.nan
    after, metrics = settle.styles_of(Reads())(variables, [batch], jax.random.key(1))
    assert np.isnan(metrics["divergence"])
    assert jax.tree.all(jax.tree.map(jnp.array_equal, after, variables))


def test_training_slices_as_they_are(tmp_path_factory, monkeypatch):
    """Each once, uncropped, of training patients alone; of many, whole batches, up to a number."""
    config = runs.preset(tmp_path_factory, "ghost_spade")
    dataset = open_dataset(**config["data"], seed=config["seed"])
    rows = dataset.rows["train"]
    whole, _ = dataset.load(rows, dataset.size)
    expected = {np.asarray(x).tobytes() for x in whole.images}
    (batch,) = settle.training_slices(dataset)
    assert len(batch.images) == len(rows) <= settle._LOOK
    found = {np.rint(255 * x).astype(np.uint8).tobytes() for x in batch.images}
    assert found == expected
    monkeypatch.setattr(settle, "_LOOK", 5)
    assert [len(of.images) for of in settle.training_slices(dataset)] == [5] * (len(rows) // 5)
    monkeypatch.setattr(settle, "_SLICES", 11)
    assert [len(of.images) for of in settle.training_slices(dataset)] == [5, 5]


def test_what_it_came_to_is_told_in_words():
    line = settle.told({"divergence_before": 3.396, "divergence": 0.148})
    assert "styles" in line and "0.148 nats apart now, 3.396 before" in line
    assert "stay as they are" in settle.told({"divergence_before": 1.0, "divergence": float("nan")})


@pytest.mark.slow
def test_a_run_settles_at_its_end_alone(tmp_path, tmp_path_factory, capsys):
    """What is saved last is settled, what is saved before is not; a run that was killed in between and goes
    on ends as if it had not been."""
    config = runs.preset(tmp_path_factory, "ghost_spade", train__steps=4)
    run, killed = tmp_path / "run", tmp_path / "killed"
    assert train(config, run) == 0
    (told,) = (line for line in run_folder.read_metrics(run) if "settled/divergence" in line)
    assert told["step"] == 4

    dataset = open_dataset(**config["data"], seed=config["seed"])
    (batch,) = settle.training_slices(dataset)
    generator, _ = networks(config)

    @jax.jit
    def off(variables: Any) -> jax.Array:
        summaries, read = generator.apply(variables, batch.condition, batch.images, method="readings")
        return read.divergence_from(generator.apply(variables, summaries, method="expected")).mean()

    last = runs.state(run)
    np.testing.assert_allclose(off(last.ema), told["settled/divergence"], rtol=1e-4)
    assert told["settled/divergence"] < told["settled/divergence_before"] - 0.5
    assert off(last.generator) > told["settled/divergence"] + 0.5

    shutil.copytree(run, killed)
    shutil.rmtree(killed / "checkpoints" / "4")
    assert off(runs.state(killed).ema) > told["settled/divergence"] + 0.5
    capsys.readouterr()
    step = checkpoint.newest_intact(killed / "checkpoints").step
    assert train(runs.preset(tmp_path_factory, "ghost_spade", train__steps=step), killed) == 0
    assert f"the styles of step {step} are not settled" in capsys.readouterr().out  # fewer steps than asked
    assert train(config, killed) == 0
    assert "not settled" not in capsys.readouterr().out
    assert train(config, killed) == 0
    assert "not settled" not in capsys.readouterr().out
    assert checkpoint.sha256_of_tree(runs.state(killed)) == checkpoint.sha256_of_tree(last)
