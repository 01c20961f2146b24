"""Row 24: who reads while a training saves and deletes gets a whole step, or one line."""

import asyncio
import gc
import shutil
import sys
import threading

import jax.numpy as jnp
import pytest
from states import CONFIG, target

from pixmed_jax.errors import PixmedError
from pixmed_jax.training import checkpoint, quiet

STEPS = 25


def state(step: int) -> dict:
    """A megabyte that tells its step everywhere."""
    return {"step": jnp.int32(step), "w": [jnp.full((256, 128), step, jnp.float32) for _ in range(8)]}


def test_a_reader_while_saving_never_meets_half_a_step(tmp_path, capsys):
    """With one step kept, each save deletes the step that the reader may be reading."""
    writer = checkpoint.Writer(tmp_path, keep=1, config=CONFIG, classes=("a",), grey=True)
    writer.save(0, state(0), 0.0)
    writer.finish()
    done, found, faults = threading.Event(), [], []

    def read() -> None:
        while not done.is_set():
            try:
                saved = checkpoint.newest_intact(tmp_path)
                back = checkpoint.restore(saved, target(state(0)))
                values = {float(x) for leaf in back["w"] for x in (leaf.min(), leaf.max())}
                found.append((saved.step, int(back["step"]), values))
            except PixmedError as error:
                faults.append(str(error))
            except BaseException as error:
                found.append((repr(error), None, None))
                return

    reader = threading.Thread(target=read)
    reader.start()
    for step in range(1, STEPS):
        writer.save(step, state(step), float(step))
        writer.finish()
    done.set()
    reader.join()
    writer.close()
    assert len(found) > 3
    for step, inside, values in found:
        assert (inside, values) == (step, {float(step)})
    assert [step for step, *_ in found] == sorted(step for step, *_ in found)
    for fault in faults:
        assert "while it was read; run it again" in fault and "\n" not in fault
    assert "every checkpoint is damaged" not in "".join(faults)


def test_a_step_that_is_deleted_between_listing_and_checking(folder, monkeypatch, capsys):
    """The newest is gone when its files are looked at, and a newer one is there: no fault at all."""
    damage = checkpoint.damage

    def beside(saved):
        if saved.step == 15 and (folder / "15" / checkpoint.MANIFEST).exists():
            (folder / "15").rename(folder / "16")
            manifest = folder / "16" / checkpoint.MANIFEST
            manifest.rename(folder / "16" / "aside")
            contents = checkpoint.json.loads((folder / "16" / "aside").read_text())
            (folder / "16" / "aside").unlink()
            checkpoint._write_manifest(
                folder / "16",
                {k: v for k, v in contents.items() if k not in ("files", "sha256")} | {"step": 16},
            )
        return damage(saved)

    monkeypatch.setattr(checkpoint, "damage", beside)
    assert checkpoint.newest_intact(folder).step == 16
    assert capsys.readouterr().err == ""


def test_steps_that_were_replaced_while_they_were_listed(folder, monkeypatch):
    """All that were there are gone when their manifests are read, and a newer one is there instead."""
    listed = checkpoint.finished

    def late(directory):
        monkeypatch.setattr(checkpoint, "finished", listed)
        for step in ("5", "10"):
            shutil.rmtree(folder / step)
        return []

    monkeypatch.setattr(checkpoint, "finished", late)
    assert checkpoint.newest_intact(folder).step == 15


def test_a_step_that_is_deleted_while_it_is_read(folder, monkeypatch, caplog):
    """Orbax would answer with a page, its threads and coroutines with more."""
    heard = []
    monkeypatch.setattr(sys, "unraisablehook", heard.append)
    saved = checkpoint.newest_intact(folder)
    whole = {"ema": {"params": {"kernel": jnp.zeros((3, 16))}}}
    for path in sorted((folder / "15").rglob("*"), reverse=True):
        if path.is_file() and path.name != "_METADATA":
            path.unlink()
    with pytest.raises(PixmedError, match=r"is missing, while it was read; run it again") as error:
        checkpoint.restore(saved, target(whole))
    assert "\n" not in str(error.value)
    gc.collect()
    assert heard == []
    assert caplog.records == []


def test_what_fails_after_the_fault_was_told_stays_silent_and_nothing_else(caplog):
    """Reads of TensorStore's may end long after the one that was told of, whenever memory is tidied."""
    quiet.listen_past_orbax()

    async def fail(words: str) -> None:
        raise ValueError(words)

    async def begin() -> None:
        words = ("NOT_FOUND: 'k' does not exist [tensorstore_spec='{}']", "somebody else's")
        await asyncio.wait([asyncio.ensure_future(fail(each)) for each in words])

    asyncio.run(begin())
    gc.collect()
    assert [str(record.exc_info[1]) for record in caplog.records] == ["somebody else's"]
