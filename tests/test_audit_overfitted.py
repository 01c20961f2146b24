"""The audit of networks that were really trained: on 20 slices too often, and on many patients.

Both runs are the same generator, made to copy (L1 x 100, no dropout, neither crops nor enlargement), for the
same 300 steps of 4 and on the same phantoms. One has 20 slices of 5 patients, which it sees 60 times, the
other 476 of 119, seen two or three times.
"""

import json

import pytest
import runs

from pixmed_jax.evaluation.audit import audit, summary
from pixmed_jax.training.loop import train

pytestmark = pytest.mark.slow
COPYING = {
    **{"data.size": 32, "data.patients": 150, "data.condition": "tumor", "data.load_scale": 1.0},
    **{"model.generator.levels": 4, "model.generator.width": 16, "model.generator.ghost_levels": []},
    **{"model.generator.dropout": 0.0, "model.generator.norm": "instance"},
    **{"model.discriminator.width": 8, "model.discriminator.norm": "instance"},
    **{"loss.l1": 100.0, "loss.ssim": 0.0, "optimizer.learning_rate": 2e-3},
    **{"train.steps": 300, "train.ema_decay": 0.99},
    **{"log.every": 300, "log.grid_every": 300, "checkpoint.every": 300},
}


def audited(factory, fractions):
    workdir = factory.mktemp("copying") / "run"
    assert train(runs.config(factory, **COPYING, **{"data.split.fractions": fractions}), workdir) == 0
    found = audit(workdir, number=40)
    return found["memorisation"], summary(found)


def test_who_was_trained_on_20_slices_is_caught(tmp_path_factory):
    found, told = audited(tmp_path_factory, [0.0275, 0.7725, 0.2])
    assert found["n_train"] == 20
    assert "New? no." in told and "Safe to share? no." in told
    # Of maps of strangers it makes training slices again, and of training maps their very slices.
    assert found["copies"] > 0 and found["near_share_interval"][0] > 3 * found["false_positive_rate"]
    assert found["auc_interval"][0] > 0.5 and found["p"] < 0.05
    drawn = found["recognition"]
    assert drawn["auc_interval"][0] > 0.9 and drawn["training"]["recognised"] > 0.9
    assert drawn["held_out"]["recognised"] < 0.5
    json.dumps(found, allow_nan=False)


def test_who_was_trained_on_many_patients_passes(tmp_path_factory):
    found, told = audited(tmp_path_factory, [0.8, 0.0067, 0.1933])
    assert found["n_train"] == 476
    assert "New? yes." in told
    assert found["copies"] == 0
    assert found["auc_interval"][0] <= 0.5 and found["recognition"]["auc_interval"][0] <= 0.5
