"""Rows 1 and 2: a run that is killed, at any moment, ends as the run that was left alone."""

import json
import random
import re
import time

import pytest
from children import child, train  # noqa: F401 (fixtures)
from straight import EVERY, STEPS, assert_same_end, config, kept, records, resumed_from, uninterrupted  # noqa: F401 (fixtures)

pytestmark = pytest.mark.slow
KILLS = 10


def test_killed_ten_times(child, config, uninterrupted, tmp_path):
    """At moments that a seed draws: before the first save, between saves, while orbax writes."""
    workdir, chance = tmp_path / "run", random.Random(1)
    checkpoints = workdir / "checkpoints"
    for number in range(KILLS):
        before = kept(workdir) if checkpoints.exists() else []
        process = child(train, config, workdir)
        if number % 2:  # as soon as orbax has begun to write another step
            there = set(checkpoints.iterdir()) if checkpoints.exists() else set()
            process.until(lambda there=there: checkpoints.exists() and set(checkpoints.iterdir()) - there)
        else:
            done = max(before, default=0)
            process.until_told(f"step {done + chance.randint(1, 2 * EVERY - 2) if number else 3}/{STEPS}")
        time.sleep(chance.uniform(0, 0.05))
        process.kill()
        first = resumed_from(process)
        assert first == max(before, default=0)  # nothing that was finished is lost
        told = re.findall(rf"step (\d+)/{STEPS}", process.out)
        assert all(int(step) > first for step in told)  # nor done again
        if number == 0:
            assert first == 0 and kept(workdir) == []
        if max(kept(workdir), default=0) >= STEPS - 2 * EVERY:
            break  # and no more to kill
    assert number >= 4
    process = child(train, config, workdir)
    assert process.code() == 0, process.err
    assert "is passed over" not in process.err or "not finished" in process.err
    assert_same_end(workdir, uninterrupted)
    assert records(workdir) == records(uninterrupted)
    assert not list(checkpoints.glob("*tmp*"))  # what orbax had begun is gone


def test_a_save_counts_long_before_the_next_one(child, config, tmp_path):
    """A kill between two saves costs the steps since the last one, not those since the one before."""
    changed = json.loads(json.dumps(config))
    changed["train"]["steps"], changed["checkpoint"]["every"] = 100_000, 300
    process = child(train, changed, tmp_path / "run").until_told("step 590/")
    process.kill()  # hundreds of steps after the first save
    assert kept(tmp_path / "run") == [300]
