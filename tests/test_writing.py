"""Texts and folders appear whole or not at all; who replaces one leaves what is not his."""

import os
import re
from pathlib import Path

import pytest

from pixmed_jax import writing
from pixmed_jax.errors import PixmedError
from pixmed_jax.signals import Stopped


def test_two_processes_may_write_one_file_at_once(tmp_path, monkeypatch):
    """As two starts of a utility experiment do at its end: one writes while the other is about to rename."""
    rename = Path.replace

    def interrupted(draft: Path, target: Path) -> Path:
        monkeypatch.setattr(Path, "replace", rename)
        monkeypatch.setattr(os, "getpid", lambda: -1)
        writing.write_text(tmp_path / "page.html", "theirs")
        return rename(draft, target)

    monkeypatch.setattr(Path, "replace", interrupted)
    writing.write_text(tmp_path / "page.html", "ours")
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("page.html", "ours")]


def test_a_folder_with_other_files_is_not_replaced(tmp_path):
    """Hidden ones aside, which file managers leave."""
    for name in ("page.html", "weights.onnx", ".DS_Store"):
        (tmp_path / name).write_text("x")
    writing.check_holds(tmp_path, ("page.html", "*.onnx"))
    writing.check_holds(tmp_path / "none", ())
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(PixmedError, match=r"would be replaced, and holds other files \(thesis\.tex\); move"):
        writing.check_holds(tmp_path, ("page.html", "*.onnx"))
    with pytest.raises(PixmedError, match=r"thesis\.tex: is no folder; give another --output"):
        writing.check_holds(tmp_path / "thesis.tex", (), "--output")


def test_a_failed_write_leaves_the_old_text(tmp_path, monkeypatch):
    path = tmp_path / "config.json"
    writing.write_text(path, "old")

    def half(self, text, **kwargs):
        with self.open("w") as file:
            file.write(text[:2])
        raise OSError("disk full")

    monkeypatch.setattr(type(path), "write_text", half)
    with pytest.raises(OSError, match="disk full"):
        writing.write_text(path, "new contents")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_signal_between_old_and_new_leaves_one_of_them_whole(tmp_path, monkeypatch):
    """Wherever it strikes: while the old folder moves aside, before the new one has its name, and after."""
    for strike in range(4):
        target = tmp_path / f"out{strike}"
        target.mkdir()
        (target / "old.txt").write_text("old")
        (target / "more.txt").write_text("old")
        calls = []

        def interrupted(self, *args, real=Path.rename, strike=strike, calls=calls):
            if len(calls) == strike:
                calls.append("struck")
                raise Stopped(15)
            calls.append(self)
            return real(self, *args)

        monkeypatch.setattr(Path, "rename", interrupted)
        try:
            with writing.replaced(target) as draft:
                (draft / "new.txt").write_text("new")
        except Stopped:
            pass
        monkeypatch.undo()
        names = {path.name for path in target.iterdir()}
        assert names in ({"old.txt", "more.txt"}, {"new.txt"})
        assert [path.name for path in tmp_path.iterdir() if path.name.startswith(f".out{strike}")] == []


def test_a_kill_between_old_and_new_is_mended_at_the_next_start(tmp_path):
    aside = tmp_path / ".out.123.old"
    aside.mkdir()
    (aside / "old.txt").write_text("old")
    with pytest.raises(RuntimeError), writing.replaced(tmp_path / "out"):
        raise RuntimeError
    assert (tmp_path / "out" / "old.txt").read_text() == "old" and not aside.exists()


def test_targets_whose_names_begin_alike_leave_each_other_alone(tmp_path):
    """Each has its own lock, so each may only touch its own drafts."""
    left = tmp_path / ".out.b.123.old"
    left.mkdir()
    (left / "old.txt").write_text("the only one")
    with writing.replaced(tmp_path / "out.c") as draft:
        (draft / "new.txt").write_text("c")
        with writing.replaced(tmp_path / "out") as other:
            (other / "new.txt").write_text("out")
    assert (tmp_path / "out.c" / "new.txt").read_text() == "c"
    assert (tmp_path / "out" / "new.txt").read_text() == "out"
    with pytest.raises(RuntimeError), writing.replaced(tmp_path / "out.b"):
        raise RuntimeError
    assert (tmp_path / "out.b" / "old.txt").read_text() == "the only one"


def test_what_a_link_names_is_replaced_and_not_the_link(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "disk" / "results")
    for text in ("first", "second"):
        with writing.replaced(tmp_path / "out") as draft:
            (draft / "a.txt").write_text(text)
        assert (tmp_path / "disk" / "results" / "a.txt").read_text() == text
    assert (tmp_path / "out").is_symlink()


def test_a_mounted_disk_is_refused_before_anything_is_lost(tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_text("earlier")
    monkeypatch.setattr(writing.os.path, "ismount", lambda path: Path(path) == tmp_path)
    with (
        pytest.raises(PixmedError, match=r"is a mounted disk.*name a folder in it"),
        writing.replaced(tmp_path),
    ):
        pytest.fail("filled")
    assert (tmp_path / "a.txt").read_text() == "earlier"


def test_what_is_in_use_is_told_by_its_own_name(tmp_path):
    """Not by that of the folder that it is in, where others are free."""
    with writing.replaced(tmp_path / "out", "--output"):
        told = f"{tmp_path / 'out'}: in use by process"
        with pytest.raises(writing.InUseError, match=told), writing.replaced(tmp_path / "out", "--output"):
            pytest.fail("filled twice")
        with writing.replaced(tmp_path / "other", "--output"):
            pass
    with writing.locked(tmp_path / "run" / "training"):
        told = f"{tmp_path / 'run'}: in use by process"
        with pytest.raises(writing.InUseError, match=told), writing.locked(tmp_path / "run" / "training"):
            pytest.fail("trained twice")


def test_a_lock_says_who_holds_it_and_nothing_of_whom_it_was_taken_over_from(tmp_path, capsys):
    file = tmp_path / ".run.lock"
    file.write_text("process 123 on a host whose name is long since 2026-01-01 00:00:00 " + 100 * "x")
    with writing.locked(tmp_path / "run"):
        assert re.fullmatch(rf"process {os.getpid()} on \S+ since [-0-9]{{10}} [:0-9]{{8}}", file.read_text())
    assert f"{file}: left by process 123 on a host" in capsys.readouterr().err
    assert not file.exists()
