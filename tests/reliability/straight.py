"""What the runs that are killed and the runs that are stopped are compared with."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import runs
from children import Child, train

from pixmed_jax.training import checkpoint

STEPS, EVERY = 60, 5


@pytest.fixture(scope="session")
def config(tmp_path_factory) -> dict[str, Any]:
    changes = {"log__every": 1, "log__grid_every": STEPS, "checkpoint__every": EVERY}
    return runs.config(tmp_path_factory, train__steps=STEPS, **changes)


@pytest.fixture(scope="session")
def uninterrupted(config, tmp_path_factory) -> Path:
    workdir = runs.shared(tmp_path_factory) / "uninterrupted"
    with runs.lock(workdir.with_suffix(".lock")):
        if not workdir.exists():
            assert train(config, workdir.with_name("not_yet_interrupted")) == 0
            workdir.with_name("not_yet_interrupted").rename(workdir)
    return workdir


def kept(workdir: Path) -> list[int]:
    return [saved.step for saved in checkpoint.finished(workdir / "checkpoints")]


def records(workdir: Path) -> list[dict]:
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "images_per_second"} for line in lines]


def resumed_from(child: Child) -> int:
    found = re.search(r"from step (\d+)", child.out)
    return int(found[1]) if found else 0


def assert_same_end(workdir: Path, uninterrupted: Path) -> None:
    """Parameters, both optimisers, statistics, average, key, step: one sha256 of them all."""
    state, expected = runs.state(workdir), runs.state(uninterrupted)
    assert int(state.step) == STEPS
    parts = {"key", "ema", "generator", "discriminator", "generator_optimizer", "discriminator_optimizer"}
    assert parts <= set(state._fields)
    assert checkpoint.sha256_of_tree(state) == checkpoint.sha256_of_tree(expected)
    assert kept(workdir) == kept(uninterrupted)
