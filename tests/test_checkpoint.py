"""Checkpoints: what was saved comes back bit for bit, and what is not whole is not taken for a checkpoint."""

import errno
import functools
import json
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pixmed_jax.errors import PixmedError
from pixmed_jax.training import checkpoint, mesh

CONFIG = {"name": "x", "data": {"size": 4}}


def make_state(seed: int = 0, width: int = 16):
    """A dict like the fields of a training state: floats, integers, a key and an empty group."""
    key = jax.random.PRNGKey(seed)
    return {
        "step": jnp.int32(seed),
        "key": key,
        "generator": {"params": {"kernel": jax.random.normal(key, (3, width)), "bias": jnp.ones(width)}},
        "ema": {"params": {"kernel": jnp.full((3, width), 0.5 + seed)}},
        "optimizer": (jnp.zeros((2, 2)), ()),
    }


def write(folder: Path, scores: dict[int, float], keep: int = 10) -> Path:
    """Checkpoints of the states `make_state(step)` at the given steps, with the given scores."""
    writer = checkpoint.Writer(folder, keep=keep, config=CONFIG, classes=("a", "head"), grey=True)
    for step, score in scores.items():
        writer.save(step, make_state(step), score)
    writer.close()
    return folder


def target(tree):
    return mesh.like(tree, mesh.replicated(mesh.make_mesh(jax.device_count())))


def steps(folder: Path) -> list[int]:
    return [saved.step for saved in checkpoint.finished(folder)]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return write(tmp_path_factory.mktemp("written"), {5: 0.1, 10: 0.3, 15: 0.2})


@pytest.fixture
def folder(written, tmp_path):
    """Three steps, 5, 10 and 15, that a test may damage."""
    return Path(shutil.copytree(written, tmp_path / "checkpoints"))


def test_restored_is_saved(written):
    saved = checkpoint.newest_intact(written)
    assert (saved.step, saved.score, saved.config) == (15, 0.2, CONFIG)
    assert (saved.classes, saved.grey) == (("a", "head"), True)
    state = make_state(15)
    back = checkpoint.restore(saved, target(state))
    assert jax.tree.structure(back) == jax.tree.structure(state)
    assert checkpoint.sha256_of_tree(back) == checkpoint.sha256_of_tree(state)


def test_digest_of_a_tree_sees_every_difference():
    base = {"a": np.zeros((2, 3), np.float32)}
    others = [
        {"b": np.zeros((2, 3), np.float32)},
        {"a": np.zeros((3, 2), np.float32)},
        {"a": np.zeros((2, 3), np.int32)},
        {"a": np.array([[0, 0, 0], [0, 0, -0.0]], np.float32)},  # equal as numbers, not as bits
    ]
    digests = [checkpoint.sha256_of_tree(tree) for tree in [base, *others]]
    assert len(set(digests)) == len(digests)
    assert checkpoint.sha256_of_tree({"a": jnp.zeros((2, 3))}) == digests[0]


def test_a_donated_state_does_not_reach_into_a_save(tmp_path):
    """`save` returns before the arrays are on disk, while the next steps overwrite their memory."""

    @functools.partial(jax.jit, donate_argnums=0)
    def step(state):
        return jax.tree.map(lambda x: x + 1, state)

    state = step({"w": jnp.zeros((1500, 1000)), "n": jnp.zeros(3, jnp.int32)})
    before = checkpoint.sha256_of_tree(jax.tree.map(np.array, state))
    writer = checkpoint.Writer(tmp_path, keep=1, config=CONFIG, classes=("a",), grey=True)
    writer.save(1, state, 0.0)
    for _ in range(30):
        state = step(state)
    jax.block_until_ready(state)
    writer.close()
    back = checkpoint.restore(checkpoint.newest_intact(tmp_path), target(state))
    assert float(back["w"].min()) == float(back["w"].max()) == 1
    assert checkpoint.sha256_of_tree(back) == before


def test_keeps_the_newest_and_the_best(tmp_path):
    scores = {1: 0.1, 2: 0.9, 3: 0.2, 4: 0.3, 5: 0.25}
    folder = write(tmp_path, scores, keep=2)
    assert steps(folder) == [2, 4, 5]
    assert sorted(p.name for p in folder.iterdir()) == ["2", "4", "5"]
    assert checkpoint.best(folder).step == 2
    assert checkpoint.newest_intact(folder).step == 5


def test_of_equal_scores_the_newer_is_the_best(tmp_path):
    assert checkpoint.best(write(tmp_path, {1: 0.5, 2: 0.5})).step == 2


def test_only_a_manifest_makes_a_step(folder):
    (folder / "15" / checkpoint.MANIFEST).unlink()  # written by orbax, not finished by us
    (folder / "20").mkdir()
    shutil.copytree(folder / "10", folder / "25.orbax-checkpoint-tmp-0")
    shutil.copytree(folder / "10", folder / "notes")
    assert steps(folder) == [5, 10]
    assert checkpoint.newest_intact(folder).step == 10


def test_no_steps_at_all(tmp_path):
    assert checkpoint.newest_intact(tmp_path / "missing") is None
    assert checkpoint.best(tmp_path) is None


def test_a_finished_save_counts_without_another_save(tmp_path):
    """A kill long after a save, but before the next one, must not lose it."""
    writer = checkpoint.Writer(tmp_path, keep=2, config=CONFIG, classes=("a",), grey=True)
    writer.save(1, make_state(), 0.0)
    writer._checkpointer.wait_until_finished()
    writer.poll()
    assert steps(tmp_path) == [1]
    writer.close()


def test_one_flipped_bit_in_any_file(folder, capsys):
    files = [p for p in (folder / "15").rglob("*") if p.is_file() and p.name != checkpoint.MANIFEST]
    assert len(files) >= 5
    tried = 0
    for path in files:
        contents = path.read_bytes()
        if not contents:
            continue
        tried += 1
        middle = len(contents) // 2
        path.write_bytes(contents[:middle] + bytes([contents[middle] ^ 4]) + contents[middle + 1 :])
        assert checkpoint.newest_intact(folder).step == 10, path
        told = capsys.readouterr().err
        assert str(path) in told and "15" in told and told.count("\n") == 1
        with pytest.raises(PixmedError, match=path.name):
            checkpoint.open_step(folder / "15")
        path.write_bytes(contents)
    assert tried >= 5
    assert checkpoint.newest_intact(folder).step == 15


def largest(step: Path) -> Path:
    files = (p for p in step.rglob("*") if p.is_file() and p.name != checkpoint.MANIFEST)
    return max(files, key=lambda p: p.stat().st_size)


def test_truncated_and_missing_files(folder, capsys):
    path = largest(folder / "15")
    path.write_bytes(path.read_bytes()[:-1])
    assert checkpoint.newest_intact(folder).step == 10
    assert f"{path} has changed" in capsys.readouterr().err
    path.unlink()
    assert checkpoint.newest_intact(folder).step == 10
    assert f"{path} is missing" in capsys.readouterr().err


def test_the_best_is_intact(folder):
    assert checkpoint.best(folder).step == 10
    largest(folder / "10").unlink()
    assert checkpoint.best(folder).step == 15


def test_every_step_damaged(folder):
    for step in ("5", "10", "15"):
        largest(folder / step).unlink()
    with pytest.raises(PixmedError, match="every checkpoint is damaged"):
        checkpoint.newest_intact(folder)
    assert checkpoint.best(folder) is None


def test_a_part_of_a_state(written):
    state = make_state(15)
    back = checkpoint.restore(checkpoint.newest_intact(written), target({"ema": state["ema"]}))
    assert list(back) == ["ema"]
    assert checkpoint.sha256_of_tree(back) == checkpoint.sha256_of_tree({"ema": state["ema"]})


def change(state, **fields):
    return {**state, **fields}


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"step": jnp.float32(0)}, r"step is int32\[\], not float32\[\]"),
        ({"step": jnp.zeros(1, jnp.int32)}, r"step is int32\[\], not int32\[1\]"),
        (
            {"ema": {"params": {"kernel": jnp.zeros((3, 8))}}},
            r"kernel is float32\[3, 16\], not float32\[3, 8\]",
        ),
        ({"more": jnp.zeros(2)}, "more is missing"),
    ],
)
def test_what_does_not_fit_is_refused(written, fields, told):
    wanted = target(change(make_state(), **fields))
    with pytest.raises(PixmedError, match=told) as error:
        checkpoint.restore(checkpoint.newest_intact(written), wanted)
    assert "\n" not in str(error.value)


def edited(**changes) -> str:
    good = {"step": 5, "score": 0.1, "config": CONFIG, "classes": ["a"], "grey": True, "files": {}}
    return json.dumps({**good, **changes})


@pytest.mark.parametrize(
    "text",
    [
        "not json",
        "",
        "[]",
        "null",
        '{"step": 5}',
        edited(files={"../../secret": "0" * 64}),
        edited(files={"/etc/passwd": "0" * 64}),
        edited(files=["a"]),
        edited(step="five"),
        edited(step=[1]),
        edited(step=float("inf")),
        edited(score=None),
        edited(config=7),
        edited(classes=3),
        "[" * 100_000,
        b"\xff\xfe\x00",
    ],
    ids=str,
)
def test_hostile_manifests(folder, text, capsys):
    """Passed over with a word on stderr when a step is looked for, refused when it is asked for."""
    path = folder / "15" / checkpoint.MANIFEST
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    assert [saved.step for saved in checkpoint.finished(folder)] == [5, 10]
    told = capsys.readouterr().err
    assert told.startswith("checkpoint 15 is passed over") and str(path) in told and told.count("\n") == 1
    assert checkpoint.newest_intact(folder).step == 10
    with pytest.raises(PixmedError) as error:
        checkpoint.open_step(folder / "15")
    assert str(path) in str(error.value) and "\n" not in str(error.value)
    for step in ("5", "10"):
        (folder / step / checkpoint.MANIFEST).write_text("{}")
    with pytest.raises(PixmedError, match="every checkpoint is damaged"):
        checkpoint.newest_intact(folder)


def test_a_folder_without_manifest_is_no_step(tmp_path):
    with pytest.raises(PixmedError, match="no finished checkpoint"):
        checkpoint.open_step(tmp_path)


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
