"""Row 5: told to stop, a training saves within one step and says so; other stages leave nothing."""

import re
import signal
from pathlib import Path

import pytest
import runs
from children import Child, child, launch, train  # noqa: F401 (fixtures)
from straight import STEPS, assert_same_end, config, kept, resumed_from, uninterrupted  # noqa: F401 (fixtures)

from pixmed_jax.training import checkpoint

pytestmark = pytest.mark.slow
PHASES = {
    "compiling": ("jax.stages:Lowered.compile", 0),
    "evaluation": ("pixmed_jax.training.heldout:HeldOut.look", 1),
    "saving": ("pixmed_jax.training.checkpoint:_write_manifest", 0),
}


def stopped_at(process: Child, workdir: Path, status: int) -> int:
    assert process.code() == status, process.err
    step = int(re.search(rf"stopped at step (\d+) of {STEPS}, saved", process.out)[1])
    assert checkpoint.newest_intact(workdir / "checkpoints").step == step
    return step


@pytest.mark.parametrize(
    ("phase", "number"),
    [("compiling", signal.SIGTERM), ("evaluation", signal.SIGINT), ("saving", signal.SIGTERM)],
)
def test_told_to_stop_in_the_middle_of(phase, number, child, config, tmp_path):
    """It says so at once, although native code is busy, and saves one step later."""
    at, after = PHASES[phase]
    process = child(train, config, tmp_path / "run", at=at, after=after).until_halted()
    process.send(number)
    process.until_told(f"{number.name}: stopping after this step")
    assert process.is_halted
    told = re.findall(rf"step (\d+)/{STEPS}", process.out)
    under_way = (
        int(told[-1]) + (phase == "saving") if told else 0
    )  # a save is finished before its step is told
    process.go_on()
    assert stopped_at(process, tmp_path / "run", 128 + number) <= under_way + 1


def test_told_to_stop_in_a_step(child, config, uninterrupted, tmp_path):
    """SIGTERM and SIGINT save at the step that is reported, and the next start goes on there."""
    workdir, resumed = tmp_path / "run", 0
    for number, step in ((signal.SIGTERM, 7), (signal.SIGINT, 27)):
        process = child(train, config, workdir).until_told(f"step {step}/{STEPS}")
        process.send(number)
        stopped = stopped_at(process, workdir, 128 + number)
        assert step <= stopped < STEPS
        assert resumed_from(process) == resumed
        resumed = stopped
    process = child(train, config, workdir)
    assert process.code() == 0, process.err
    assert resumed_from(process) == resumed
    assert_same_end(workdir, uninterrupted)


@pytest.mark.parametrize("phase", PHASES)
def test_a_second_signal_ends_at_once(phase, child, config, tmp_path):
    at, after = PHASES[phase]
    process = child(train, config, tmp_path / "run", at=at, after=after).until_halted()
    process.send(signal.SIGINT)
    process.until_told("once more to stop without saving")
    process.send(signal.SIGTERM)
    assert process.code() == 128 + signal.SIGTERM
    assert process.is_halted  # it was not waited for
    assert "saved" not in process.out
    assert kept(tmp_path / "run") == []


STAGES = {
    "sample": ("pixmed_jax.sample_files:write_pair", ["--sample.number=6", "--sample.split=val"]),
    "evaluate": ("pixmed_jax.evaluation.fidelity:measure", []),
}


@pytest.mark.parametrize(("mode", "number"), [("sample", signal.SIGTERM), ("evaluate", signal.SIGINT)])
def test_stages_that_are_told_to_stop_leave_nothing(mode, number, child, tmp_path, tmp_path_factory):
    workdir = runs.copied(tmp_path_factory, tmp_path / "run")
    before = runs.tree_bytes(workdir)
    at, words = STAGES[mode]
    arguments = [f"--workdir={workdir}", f"--mode={mode}", *words]
    process = child(launch, *arguments, at=at, after=2 if mode == "sample" else 0).until_halted()
    process.send(number)
    process.until_told(f"{number.name}: stopping")
    process.go_on()
    assert process.code() == 128 + number
    assert "Traceback" not in process.err
    assert (
        process.err.splitlines()[-1] == f"launch.py: stopped by {number.name}; nothing half-written is left"
    )
    assert runs.tree_bytes(workdir) == before
