"""Checkpoints: what was saved comes back bit for bit, and what is not whole is not taken for a checkpoint."""

import functools
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from states import CONFIG, largest, make_state, steps, target, write

from pixmed_jax.errors import PixmedError
from pixmed_jax.training import checkpoint


def test_restored_is_saved(written):
    saved = checkpoint.newest_intact(written)
    assert (saved.step, saved.score, saved.config) == (15, 0.2, CONFIG)
    assert (saved.classes, saved.grey) == (("a", "head"), True)
    state = make_state(15)
    back = checkpoint.restore(saved, target(state))
    assert jax.tree.structure(back) == jax.tree.structure(state)
    assert checkpoint.sha256_of_tree(back) == checkpoint.sha256_of_tree(state)


def test_limits_planes_and_colours_come_back_too(tmp_path):
    """None of them by chance what is taken where a manifest says nothing."""
    known = {"classes": ("a",), "grey": False, "limits": (12.5, 1200.0), "planes": ("axial", "coronal")}
    writer = checkpoint.Writer(tmp_path, keep=1, config=CONFIG, **known)
    writer.save(1, {"x": jnp.zeros(1)}, 0.0)
    writer.close()
    saved = checkpoint.newest_intact(tmp_path)
    assert {name: getattr(saved, name) for name in known} == known


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


@pytest.mark.parametrize("keep", [1, 2])
def test_a_damaged_newest_step_takes_no_good_ones_place(tmp_path, keep):
    """Its run was resumed below it: what it saves there is the newest, and the best is one of the others."""
    folder = write(tmp_path, {4: 0.5, 8: 0.3, 12: 0.9}, keep=3)
    path = largest(folder / "12")
    path.write_bytes(path.read_bytes()[:-1])
    assert checkpoint.newest_intact(folder).step == 8
    write(folder, {9: 0.2}, keep=keep)  # told to stop, and saved
    assert checkpoint.newest_intact(folder).step == 9
    assert steps(folder) == ([4, 9] if keep == 1 else [4, 8, 9])
    write(folder, {12: 0.1}, keep=keep)  # it comes to where the damaged one was
    assert steps(folder) == ([4, 12] if keep == 1 else [4, 9, 12])
    assert checkpoint.newest_intact(folder).step == 12


def test_of_equal_scores_the_newer_is_the_best(tmp_path):
    assert checkpoint.best(write(tmp_path, {1: 0.5, 2: 0.5})).step == 2


def test_of_equal_scores_the_newer_is_kept(tmp_path):
    assert steps(write(tmp_path, {1: 0.5, 2: 0.5, 3: 0.1}, keep=1)) == [2, 3]


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


def test_the_best_is_intact(folder):
    assert checkpoint.best(folder).step == 10
    largest(folder / "10").unlink()
    assert checkpoint.best(folder).step == 15


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


def test_a_folder_without_manifest_is_no_step(tmp_path):
    with pytest.raises(PixmedError, match="no finished checkpoint"):
        checkpoint.open_step(tmp_path)


def test_a_manifest_is_whole_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    """Else a power cut leaves a step that counts and cannot be read."""
    asked, manifest = [], tmp_path / checkpoint.MANIFEST
    monkeypatch.setattr(
        checkpoint.os, "fsync", lambda file: asked.append((os.fstat(file).st_size, manifest.exists()))
    )
    checkpoint._write_manifest(tmp_path, {"step": 1})
    assert asked == [(manifest.stat().st_size, False)]


def test_a_manifest_that_is_cut_short_never_gets_its_name(tmp_path, monkeypatch):
    def cut(contents, file, **how):
        file.write("{")
        raise OSError("No space left on device")

    monkeypatch.setattr(checkpoint.json, "dump", cut)
    with pytest.raises(OSError, match="No space"):
        checkpoint._write_manifest(tmp_path, {"step": 1})
    assert not (tmp_path / checkpoint.MANIFEST).exists()
