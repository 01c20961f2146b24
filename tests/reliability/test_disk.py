"""Rows 9 and 10: a full disk, and a save that fails, are told at once and by name; old steps stay."""

import contextlib
import errno
import shutil
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest
import runs
from children import child, launch  # noqa: F401 (fixtures)
from states import CONFIG, make_state, steps

from pixmed_jax import inference, sampling
from pixmed_jax.errors import PixmedError
from pixmed_jax.training import checkpoint, loop, records
from pixmed_jax.training.loop import train


@pytest.fixture
def disk(tmp_path):
    """A disk of 4 MB, for who may mount one; the test of a limited file does without."""
    path = tmp_path / "disk"
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(path)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("only root may mount a small disk")
    yield path
    subprocess.run(["umount", "-l", str(path)], check=True)


def fill(disk: Path) -> None:
    with contextlib.suppress(OSError), (disk / "filler").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


@pytest.mark.slow
def test_a_disk_that_fills_up_before_a_save(disk, tmp_path_factory, monkeypatch):
    """Steps 2 and 4 are saved, then the disk is full: step 6 is named, and what is there stays."""
    look = loop.HeldOut.look

    def looking(self, variables):
        if (disk / "run" / "checkpoints" / "4" / checkpoint.MANIFEST).exists():
            fill(disk)
        return look(self, variables)

    runs.trained(tmp_path_factory)
    with monkeypatch.context() as patch:
        patch.setattr(loop.HeldOut, "look", looking)
        patch.setattr(checkpoint.Writer, "poll", checkpoint.Writer.finish)  # so that 4 is there in time
        patch.setattr(records.Records, "scalars", lambda *_: None)  # which would tell first
        patch.setattr(records.Records, "picture", lambda *_: None)
        with pytest.raises((PixmedError, OSError), match=r"checkpoint 6 could|No space left") as error:
            train(runs.config(tmp_path_factory, log__grid_every=100), disk / "run")
    assert isinstance(error.value, PixmedError) or error.value.errno == errno.ENOSPC
    assert "\n" not in str(error.value)
    assert max(steps(disk / "run" / "checkpoints")) == 4
    (disk / "filler").unlink()
    assert train(runs.config(tmp_path_factory, log__grid_every=100), disk / "run") == 0
    expected = runs.state(runs.trained(tmp_path_factory))
    assert checkpoint.sha256_of_tree(runs.state(disk / "run")) == checkpoint.sha256_of_tree(expected)


def test_a_disk_that_fills_up_before_a_line_of_the_records(disk):
    kept = records.Records(disk, 0)
    kept.scalars(1, {"loss": 0.5})
    fill(disk)
    with pytest.raises(PixmedError, match=r"metrics\.jsonl: cannot be written \(No space left") as error:
        for step in range(2, 500):  # a block of the disk may have room for a few lines
            kept.scalars(step, {"loss": 0.5})
    assert "\n" not in str(error.value)
    kept.close()
    (disk / "filler").unlink()
    again = records.Records(disk, 1)
    again.scalars(2, {"loss": 0.25})
    again.close()
    assert (disk / "metrics.jsonl").read_text() == '{"step": 1, "loss": 0.5}\n{"step": 2, "loss": 0.25}\n'


def test_events_that_cannot_be_written_hold_up_nobody(tmp_path):
    """TensorBoard's own writer has a thread, which would die, and a queue, which would then wait for ever."""
    kept = records.Records(tmp_path, 0)
    kept._events.close()
    kept._events._writer = Path("/dev/full").open("wb")  # noqa: SIM115 (the loop closes it)
    with pytest.raises(PixmedError, match="No space left"):
        for step in range(1, 100):
            kept.scalars(step, {"loss": 0.5})
    kept.close()


def test_a_disk_that_fills_up_while_sampling(disk, tmp_path, tmp_path_factory):
    run = runs.trained(tmp_path_factory)
    output = disk / "samples"
    sampling.sample(run, split="val", number=2, output=str(output))
    before = runs.tree_bytes(output)
    fill(disk)
    with pytest.raises(PixmedError, match=r"samples: cannot be written \(No space left.*free space"):
        sampling.sample(run, split="val", number=40, output=str(output), fresh=True)
    assert runs.tree_bytes(output) == before
    assert sorted(path.name for path in disk.iterdir()) == ["filler", "samples"]


def test_room_is_looked_for_before_the_first_step(tmp_path, tmp_path_factory, monkeypatch):
    old = runs.copied(tmp_path_factory, tmp_path / "old")
    before = runs.tree_bytes(old)
    Usage = namedtuple("Usage", "total used free")
    monkeypatch.setattr(checkpoint.shutil, "disk_usage", lambda path: Usage(10**9, 10**9, 100_000))
    with pytest.raises(
        PixmedError, match=r"0 MB are free, and 4 checkpoints of .* MB will be written"
    ) as error:
        train(runs.config(tmp_path_factory), tmp_path / "run")
    assert "checkpoint.keep" in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()
    with pytest.raises(PixmedError, match=r"MB will be free, and 11 checkpoints of "):
        train(
            runs.config(tmp_path_factory, checkpoint__keep=9), old, fresh=True
        )  # which would delete what is there
    assert runs.tree_bytes(old) == before


def test_room_for_what_is_already_there_is_not_asked_for_again(folder, monkeypatch):
    Usage = namedtuple("Usage", "total used free")
    state = make_state()
    size = sum(leaf.nbytes for leaf in checkpoint.jax.tree.leaves(state))
    monkeypatch.setattr(checkpoint.shutil, "disk_usage", lambda path: Usage(0, 0, 2 * size))
    checkpoint.check_room(folder, state, keep=3)  # three of five are there
    with pytest.raises(PixmedError, match="3 checkpoints"):
        checkpoint.check_room(folder, state, keep=4)
    held = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    for free, told in ((5 * size - held, False), (5 * size - held - 1, True)):  # a fresh run deletes them
        monkeypatch.setattr(checkpoint.shutil, "disk_usage", lambda path, free=free: Usage(0, 0, free))
        with pytest.raises(PixmedError, match="5 checkpoints") if told else contextlib.nullcontext():
            checkpoint.check_room(folder, state, keep=3, fresh=True)


def test_where_all_are_there_one_more_is_written_before_one_goes(folder, monkeypatch):
    Usage = namedtuple("Usage", "total used free")
    state = make_state()
    size = sum(leaf.nbytes for leaf in checkpoint.jax.tree.leaves(state))
    monkeypatch.setattr(checkpoint.shutil, "disk_usage", lambda path: Usage(0, 0, size - 1))
    with pytest.raises(PixmedError, match="1 checkpoints"):
        checkpoint.check_room(folder, state, keep=1)  # three of three are there


# ---------------------------------------------------------------- a save that fails
def full(*args, **kwargs):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("method", ["save", "wait_until_finished"])
def test_a_failed_save_names_its_step(folder, monkeypatch, method):
    """Orbax reports a full disk at once or only when waited for; neither may make a checkpoint."""
    (folder / "20").mkdir()
    (folder / "20" / "half").write_text("half")
    writer = checkpoint.Writer(folder, keep=1, config=CONFIG, classes=("a",), grey=True)
    with monkeypatch.context() as patch:
        patch.setattr(writer._checkpointer, "save", full if method == "save" else lambda *a, **k: None)
        patch.setattr(writer._checkpointer, method, full)
        with pytest.raises(PixmedError, match=r"checkpoint 20 .*No space left") as error:
            writer.save(20, make_state(), 0.0)
            writer.finish()
    assert "\n" not in str(error.value)
    writer.close()
    assert steps(folder) == [5, 10, 15]


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "checkpoints").write_text("a file where the folder should be")
    writer = checkpoint.Writer(tmp_path / "checkpoints", keep=1, config=CONFIG, classes=("a",), grey=True)
    with pytest.raises(PixmedError, match="checkpoint 3 could not be saved") as error:
        writer.save(3, make_state(), 0.0)
        writer.finish()
    assert "\n" not in str(error.value)


def test_a_folder_without_permission_is_told_before_orbax_starts(tmp_path, monkeypatch):
    """Asked of the system, which says yes of everything to root."""
    writer = checkpoint.Writer(tmp_path, keep=1, config=CONFIG, classes=("a",), grey=True)
    started = []
    monkeypatch.setattr(writer._checkpointer, "save", lambda *args, **kwargs: started.append(args))
    monkeypatch.setattr(checkpoint.os, "access", lambda path, mode: False)
    with pytest.raises(PixmedError, match=r"checkpoint 3 could not be saved: .*Permission denied"):
        writer.save(3, make_state(), 0.0)
    writer.close()
    assert not started


def test_a_save_that_fails_does_not_hold_up_the_exit(tmp_path):
    """Orbax's threads would wait ten minutes for a folder that never comes."""
    (tmp_path / "checkpoints").write_text("a file where the folder should be")
    program = f"""
from pathlib import Path
import numpy as np
from pixmed_jax.training.checkpoint import Writer
writer = Writer(Path({str(tmp_path / "checkpoints")!r}), keep=1, config={{}}, classes=("a",), grey=True)
try:
    writer.save(3, {{"x": np.ones(3, np.float32)}}, 0.0)
finally:
    writer.close()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert "PixmedError: checkpoint 3 could not be saved" in done.stderr


@pytest.mark.slow
def test_a_save_that_fails_in_the_background_ends_the_command_with_1(child, tmp_path, tmp_path_factory):
    """No file may have more than so many bytes: as a full disk does, that fails in orbax's own threads."""
    tiny = [f"--config.{key}={tuple(v) if isinstance(v, list) else v}" for key, v in runs.TINY.items()]
    words = [*tiny, f"--config.data.dir={runs.shared(tmp_path_factory) / 'data'}"]
    words += ["--config.train.steps=4", "--config.checkpoint.every=4", f"--workdir={tmp_path / 'run'}"]
    save = "pixmed_jax.training.checkpoint:Writer.save"
    process = child(launch, "--config=configs/ghost.py:test", *words, at=save, file_bytes=35_000)
    assert process.code() == 1, process.err
    (told,) = [line for line in process.err.splitlines() if line.startswith("launch.py: ")]
    assert told.startswith("launch.py: checkpoint 4 could not be saved: ")
    assert process.err.endswith(told + "\n")
    assert "Event loop is closed" not in process.err  # a page from each of TensorStore's threads
    assert steps(tmp_path / "run" / "checkpoints") == []


def test_a_sampled_folder_is_opened_after_a_failure(tmp_path, tmp_path_factory):
    """A run whose last save failed is an ordinary run of its earlier steps."""
    workdir = runs.copied(tmp_path_factory, tmp_path / "run")
    (workdir / "checkpoints" / "6" / checkpoint.MANIFEST).unlink()
    assert inference.find(workdir).step == 4
