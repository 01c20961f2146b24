"""Row 20: one process at a time; the other is told which one, and a killed one's lock holds up nobody."""

import errno
import json
import os
import socket

import pytest
import runs
from children import child, train  # noqa: F401 (fixtures)

from pixmed_jax import sampling, writing
from pixmed_jax.errors import PixmedError
from pixmed_jax.evaluation.audit import audit
from pixmed_jax.evaluation.evaluate import evaluate
from pixmed_jax.parts import prepare
from pixmed_jax.training import loop


def test_a_second_holder_is_told_of_the_first(tmp_path):
    with writing.locked(tmp_path / "training"):
        with (
            pytest.raises(PixmedError, match=f"{tmp_path}: in use by process {os.getpid()} on ") as error,
            writing.locked(tmp_path / "training"),
        ):
            raise AssertionError("both hold it")
        assert socket.gethostname() in str(error.value) and "\n" not in str(error.value)
        assert f"delete {tmp_path / '.training.lock'}" in str(error.value)
        with writing.locked(tmp_path / "samples"):  # something else
            pass
    assert list(tmp_path.iterdir()) == []
    with writing.locked(tmp_path / "training"):
        pass


def test_a_lock_is_given_up_however_its_block_ends(tmp_path):
    with pytest.raises(KeyboardInterrupt), writing.locked(tmp_path / "training"):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_a_lock_that_was_left_is_explained_and_taken_over(tmp_path, capsys):
    (tmp_path / ".training.lock").write_text("process 7 on elsewhere since 2026-01-01 00:00:00")
    with writing.locked(tmp_path / "training"):
        who = "process 7 on elsewhere since 2026-01-01 00:00:00"
        told = f"{tmp_path / '.training.lock'}: left by {who}, which was killed; taken over\n"
        assert capsys.readouterr().err == told
        assert f"process {os.getpid()} " in (tmp_path / ".training.lock").read_text()


def test_a_file_system_without_locks_is_no_obstacle(tmp_path, monkeypatch):
    def none(descriptor, how):
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))

    monkeypatch.setattr(writing.fcntl, "flock", none)
    with writing.locked(tmp_path / "training"), writing.locked(tmp_path / "training"):
        pass


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("kept")
    with (
        pytest.raises(PixmedError, match="cannot be written"),
        writing.locked(tmp_path / "file" / "training"),
    ):
        pass


@pytest.mark.parametrize("name", ["training", "evaluation", "audit", "samples"])
def test_every_stage_that_writes_asks(name, tmp_path, tmp_path_factory, monkeypatch):
    workdir = runs.copied(tmp_path_factory, tmp_path / "run")
    stages = {
        "training": lambda: loop.train(runs.config(tmp_path_factory, train__steps=7), workdir),
        "evaluation": lambda: evaluate(workdir),
        "audit": lambda: audit(workdir),
        "samples": lambda: sampling.sample(workdir, number=1),
    }
    before = runs.tree_bytes(workdir)
    with (
        writing.locked(workdir / ("evaluation" if name == "audit" else name)),
        pytest.raises(PixmedError, match="in use by process"),
    ):
        stages[name]()
    assert runs.tree_bytes(workdir) == before


@pytest.mark.parametrize("held", ["systems/ghost", "systems/ghost/training"])
def test_a_study_is_shared_but_not_started_over_under_another(held, tmp_path):
    """Parts have locks of their own (tests/test_parts.py); what is being made is not deleted."""
    made = tmp_path / "systems" / "ghost" / "config.json"
    made.parent.mkdir(parents=True)
    made.touch()
    config, contents = {"run": ["ghost"]}, ("systems",)
    with writing.locked(tmp_path / held):
        prepare(tmp_path, config, "study", fresh=False, contents=contents)
        with pytest.raises(PixmedError, match="in use by process"):
            prepare(tmp_path, {"run": []}, "study", fresh=True, contents=contents)
    assert made.exists()
    prepare(tmp_path, {"run": []}, "study", fresh=True, contents=contents)
    assert not made.exists()


@pytest.mark.slow
def test_two_trainings_in_one_folder(child, tmp_path, tmp_path_factory, capsys):
    """The second refuses, and the first ends as if alone; of a killed one the next start tells."""
    workdir, config = tmp_path / "run", runs.config(tmp_path_factory)
    first = child(train, config, workdir, at="jax.stages:Lowered.compile").until_halted()
    for fresh in (False, True):  # above all, --fresh must not delete what the other is writing
        with pytest.raises(PixmedError, match=rf"in use by process {first.pid} on {socket.gethostname()}"):
            loop.train(config, workdir, fresh=fresh)
    first.kill()
    second = child(train, config, workdir)
    assert second.code() == 0, second.err
    assert f"left by process {first.pid} on {socket.gethostname()}" in second.err
    assert not list(workdir.glob(".*"))
    state = json.loads((workdir / "metrics.jsonl").read_text().splitlines()[-1])
    assert state["step"] == 6
