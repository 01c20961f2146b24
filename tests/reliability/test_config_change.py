"""Row 13: what a resumed run may change is lengths and rates, told; models and data are refused with both."""

import pytest
import runs
from test_workdir import change, prepare, trained

from pixmed_jax import config as configs
from pixmed_jax import workdir
from pixmed_jax.errors import PixmedError

CONFIG = change()
FREE = {
    "train.steps", "train.epochs", "train.max_skipped", "train.resident_gb", "optimizer.learning_rate",
    "log.every", "log.grid_every", "checkpoint.every", "checkpoint.keep",
    "about.data", "about.licence", "about.contact",
}  # fmt: skip


def test_free_keys_may_change_and_are_told(tmp_path, capsys):
    folder = trained(tmp_path / "run")
    prepare(folder, change(train={"steps": 9}))
    assert "train.steps: 5 -> 9" in capsys.readouterr().err
    assert workdir.read_config(folder)["train"] == {"steps": 9}


def test_another_config_is_refused_with_both_values(tmp_path):
    folder = trained(tmp_path / "run")
    with pytest.raises(PixmedError, match=r"seed: 0 -> 1") as error:
        prepare(folder, change(seed=1, train={"steps": 9}))
    assert "--fresh" in str(error.value) and "train.steps" not in str(error.value)
    assert workdir.read_config(folder) == CONFIG


def test_a_run_that_saved_nothing_yet_binds_nobody(tmp_path):
    folder = prepare(tmp_path / "run")  # say, the first try stopped at a typing error in another key
    prepare(folder, change(seed=1))
    assert workdir.read_config(folder)["seed"] == 1


def test_every_key_is_either_free_or_refused(tmp_path, tmp_path_factory, capsys):
    """All of a real config, one after the other."""
    config = runs.config(tmp_path_factory)
    flat = configs.flatten(config)
    assert set(flat) >= FREE and len(flat) > 80
    assert configs.is_free("optimizer.decay_steps")  # of networks alone; where the steps go, it has to follow
    folder = prepare(tmp_path / "run", config)
    (folder / "checkpoints" / "1").mkdir(parents=True)
    (folder / "checkpoints" / "1" / "manifest.json").write_text("{}")
    for key, value in flat.items():
        other = not value if isinstance(value, bool) else [0.5] if isinstance(value, list) else f"{value}1"
        changed = configs.plain(config)
        *path, leaf = key.split(".")
        section = changed
        for name in path:
            section = section[name]
        section[leaf] = other
        told = f"{key}: {value!r} -> {other!r}"
        if key in {*FREE, "data.dir"}:  # loop.py has the data compared
            workdir.prepare(folder, changed, fresh=False)
            assert told in capsys.readouterr().err
            workdir.prepare(folder, config, fresh=False)
            capsys.readouterr()
            continue
        with pytest.raises(PixmedError, match="another config") as error:
            workdir.prepare(folder, changed, fresh=False)
        assert told in str(error.value) and "\n" not in str(error.value)
        assert workdir.read_config(folder) == config


def test_a_run_without_manifests_is_still_bound(tmp_path):
    """Its steps may be finished ones that have lost them."""
    folder = trained(tmp_path / "run")
    (folder / "checkpoints" / "1" / "manifest.json").rename(folder / "checkpoints" / "1" / "arrays")
    with pytest.raises(PixmedError, match=r"seed: 0 -> 1"):
        prepare(folder, change(seed=1))
