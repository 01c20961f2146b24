"""Rows 6, 7, 8: what is damaged is found, named and passed over; nothing starts over unasked."""

import json
import shutil

import pytest
import runs
from states import CONFIG, largest, make_state, steps, target, write

from pixmed_jax.errors import PixmedError
from pixmed_jax.training import checkpoint
from pixmed_jax.training.loop import train


def test_only_a_manifest_makes_a_step(folder):
    (folder / "15" / checkpoint.MANIFEST).unlink()  # written by orbax, not finished by us
    (folder / "20").mkdir()
    shutil.copytree(folder / "10", folder / "25.orbax-checkpoint-tmp-0")
    shutil.copytree(folder / "10", folder / "notes")
    assert steps(folder) == [5, 10]
    assert checkpoint.newest_intact(folder).step == 10


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


def test_truncated_and_missing_files(folder, capsys):
    path = largest(folder / "15")
    path.write_bytes(path.read_bytes()[:-1])
    assert checkpoint.newest_intact(folder).step == 10
    assert f"{path} has changed" in capsys.readouterr().err
    path.unlink()
    assert checkpoint.newest_intact(folder).step == 10
    assert f"{path} is missing" in capsys.readouterr().err


def test_every_step_damaged(folder):
    for step in ("5", "10", "15"):
        largest(folder / step).unlink()
    with pytest.raises(PixmedError, match="every checkpoint is damaged"):
        checkpoint.newest_intact(folder)
    assert checkpoint.best(folder) is None


def test_a_flipped_bit_anywhere_in_the_manifest(folder, capsys):
    """The manifest speaks for the other files, and its own sha256 for itself."""
    path = folder / "15" / checkpoint.MANIFEST
    good = path.read_bytes()
    harmless = 0
    for place in range(0, len(good), 7):
        for bit in (1, 16):
            path.write_bytes(good[:place] + bytes([good[place] ^ bit]) + good[place + 1 :])
            (*_, newest) = checkpoint.finished(folder)
            told = capsys.readouterr().err
            if newest.step == 15:  # white space, or the name of the digest itself
                harmless += 1
                assert newest._replace(path=None) == checkpoint.Saved(
                    None, 15, 0.2, CONFIG, ("a", "head"), True, (0.0, 255.0), newest.files
                )
                assert checkpoint.damage(newest) is None
            else:
                assert newest.step == 10
                assert told.startswith("checkpoint 15 is passed over") and str(path) in told
                assert told.count("\n") == 1
    assert harmless < len(good) // 7


def test_a_manifest_of_an_older_version_counts(folder):
    path = folder / "15" / checkpoint.MANIFEST
    contents = json.loads(path.read_text())
    del contents["sha256"]
    path.write_text(json.dumps(contents))
    assert checkpoint.newest_intact(folder).step == 15


def test_each_file_cut_short_emptied_or_missing(folder, capsys):
    for path in sorted(p for p in (folder / "15").rglob("*") if p.is_file()):
        contents = path.read_bytes()
        for left in {len(contents) // 2, 0, None} - {len(contents)}:
            path.unlink()
            if left is not None:
                path.write_bytes(contents[:left])
            assert checkpoint.newest_intact(folder).step == 10, (path, left)
            told = capsys.readouterr().err
            # A step without a manifest was never finished, which is no fault to tell of.
            assert str(path) in told or (path.name == checkpoint.MANIFEST and left is None)
            assert told.count("\n") <= 1
            path.write_bytes(contents)
    assert checkpoint.newest_intact(folder).step == 15


def test_what_a_killed_save_leaves_is_cleared_by_the_next_run(folder):
    shutil.copytree(folder / "10", folder / "20.orbax-checkpoint-tmp-0")
    (folder / "20").mkdir()
    write(folder, {20: 0.5})
    assert steps(folder) == [5, 10, 15, 20]
    assert sorted(p.name for p in folder.iterdir()) == ["10", "15", "20", "5"]


def test_a_damaged_run_goes_on_one_step_earlier(tmp_path, tmp_path_factory, capsys):
    """The whole way: a flipped bit, a run, and the end that it would have had."""
    workdir = runs.copied(tmp_path_factory, tmp_path / "run")
    newest, *_ = sorted(steps(workdir / "checkpoints"), reverse=True)
    path = largest(workdir / "checkpoints" / str(newest))
    contents = bytearray(path.read_bytes())
    contents[len(contents) // 3] ^= 1
    path.write_bytes(contents)
    capsys.readouterr()
    assert train(runs.config(tmp_path_factory), workdir) == 0
    told = capsys.readouterr()
    assert f"checkpoint 6 is passed over: {path} has changed" in told.err
    assert "from step 4" in told.out
    expected = runs.state(runs.trained(tmp_path_factory))
    assert checkpoint.sha256_of_tree(runs.state(workdir)) == checkpoint.sha256_of_tree(expected)


@pytest.mark.parametrize("fault", ["arrays", "manifests", "no manifests"])
def test_with_every_checkpoint_bad_nothing_starts_over_unasked(fault, tmp_path, tmp_path_factory):
    workdir = runs.copied(tmp_path_factory, tmp_path / "run")
    for step in (workdir / "checkpoints").iterdir():
        manifest = step / checkpoint.MANIFEST
        if fault == "arrays":
            largest(step).write_bytes(b"")
        elif fault == "manifests":
            manifest.write_text(manifest.read_text()[:-40])
        else:
            manifest.unlink()
    before = runs.tree_bytes(workdir / "checkpoints") | {"": (workdir / "metrics.jsonl").read_bytes()}
    with pytest.raises(PixmedError, match="--fresh") as error:
        train(runs.config(tmp_path_factory), workdir)
    assert "\n" not in str(error.value) and "checkpoints: " in str(error.value)
    after = runs.tree_bytes(workdir / "checkpoints") | {"": (workdir / "metrics.jsonl").read_bytes()}
    assert after == before
    if fault == "no manifests":  # one way is enough for the other half of the promise
        assert train(runs.config(tmp_path_factory, train__steps=1), workdir, fresh=True) == 0
        assert steps(workdir / "checkpoints") == [1]


def test_two_steps_without_their_manifests_are_no_killed_first_save(folder):
    shutil.rmtree(folder / "15")
    for step in ("5", "10"):
        (folder / step / checkpoint.MANIFEST).unlink()
    with pytest.raises(PixmedError, match=r"no checkpoint has its manifest\.json \(10, 5\); put them back"):
        checkpoint.newest_intact(folder)


def test_one_step_without_its_manifest_is_a_killed_first_save(folder, capsys):
    for step in ("5", "10"):
        shutil.rmtree(folder / step)
    (folder / "15" / checkpoint.MANIFEST).unlink()
    (folder / "20").mkdir()  # empty: no step at all
    assert checkpoint.newest_intact(folder) is None
    assert capsys.readouterr().err == (
        "checkpoint 15 is passed over: no manifest.json, so it was not finished\n"
    )


def test_what_is_read_is_what_was_saved(folder):
    state = make_state(15)
    back = checkpoint.restore(checkpoint.newest_intact(folder), target(state))
    assert checkpoint.sha256_of_tree(back) == checkpoint.sha256_of_tree(state)
