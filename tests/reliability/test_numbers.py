"""Rows 14 and 15: numbers that are not finite are skipped, counted and never saved; bfloat16 stays finite."""

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import runs
from test_loop import records, toy_state, use_toy

from pixmed_jax.errors import PixmedError
from pixmed_jax.training import checkpoint
from pixmed_jax.training.loop import train

LOSSES = ("generator/1-ssim", "generator/adversarial", "discriminator/real", "discriminator/fake")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return runs.trained(tmp_path_factory)


def test_stops_when_losses_stay_nan(run, tmp_path, tmp_path_factory, monkeypatch):
    use_toy(monkeypatch, bad=range(8, 100))
    config = runs.config(
        tmp_path_factory, train__steps=40, train__max_skipped=3, log__every=1, checkpoint__every=2
    )
    with pytest.raises(PixmedError, match="not finite since step 8 ") as error:
        train(config, tmp_path / "run")
    assert "3 steps skipped" in str(error.value) and "\n" not in str(error.value)
    assert records(tmp_path / "run")[-1]["step"] == 10  # the third bad step, not the fortieth
    assert records(tmp_path / "run")[-1]["loss"] is None
    # The files of the eighth batch of four: the second epoch does not begin before slice 40.
    split = json.loads((run / "split.json").read_text())
    order = np.random.default_rng([0, 0]).permutation(len(split["train"]))
    eighth = {list(split["train"])[i] for i in order[28:32]}
    named = str(error.value).split("its batch was ")[1].split(";")[0]
    assert set(named.split(", ")) == eighth
    steps = checkpoint.finished(tmp_path / "run" / "checkpoints")
    assert [saved.step for saved in steps] == [6, 8]
    for saved in steps:
        assert float(toy_state(saved).ema) == min(saved.step, 7)  # not NaN, and step 8 added nothing


def test_a_few_bad_steps_are_skipped(run, tmp_path, tmp_path_factory, monkeypatch, capsys):
    use_toy(monkeypatch, bad=(3, 4, 7))
    config = runs.config(tmp_path_factory, train__steps=8, train__max_skipped=3, log__every=1)
    assert train(config, tmp_path / "run") == 0
    state = toy_state(checkpoint.newest_intact(tmp_path / "run" / "checkpoints"))
    assert (int(state.step), int(state.skipped), int(state.skipped_in_row), float(state.ema)) == (8, 3, 0, 5)
    assert "skipped 2" in capsys.readouterr().out


@pytest.mark.slow
def test_bfloat16_stays_finite_and_near_float32(tmp_path, tmp_path_factory):
    """500 steps of both; means over the last hundred."""
    ends = {}
    for dtype in ("float32", "bfloat16"):
        workdir = tmp_path / dtype
        changes = {"log__every": 5, "log__grid_every": 1000, "checkpoint__every": 1000}
        assert (
            train(runs.config(tmp_path_factory, train__steps=500, train__dtype=dtype, **changes), workdir)
            == 0
        )
        told = [line for line in records(workdir) if "discriminator/real" in line]
        assert len(told) == 100 and told[-1]["step"] == 500
        assert all(math.isfinite(value) for line in told for value in line.values())
        assert all(line["skipped"] == 0 for line in told)
        ends[dtype] = {name: np.mean([line[name] for line in told[-20:]]) for name in LOSSES}
        state = runs.state(workdir)
        leaves = jax.tree.leaves(state)
        assert all(np.isfinite(x).all() for x in leaves)
        # Parameters and Adam's means are float32 in earnest: they have digits that bfloat16 has not.
        large = [np.asarray(x) for x in leaves if x.size > 100]
        assert large and all(x.dtype == np.float32 for x in large)
        assert all((x.astype(jnp.bfloat16).astype(np.float32) != x).mean() > 0.5 for x in large)
    for name in LOSSES:
        assert ends["bfloat16"][name] == pytest.approx(ends["float32"][name], rel=0.1), name
