"""What is written appears whole or not at all, and by one process at a time.

A text goes to a draft and is renamed; a folder is filled beside the one whose place it takes; what writes
holds a lock, `.NAME.lock` beside what it writes. So nobody meets half of anything, whenever a process ends.
Errors: PixmedError, with the flag that names another place; its kind InUseError where somebody else works.
"""

import fcntl
import functools
import json
import os
import re
import shutil
import socket
import sys
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, TypeVar

from pixmed_jax.errors import PixmedError, listing

# Of file managers and file systems, our own locks, and drafts of a write that was killed: of worth to nobody.
_BYSTANDERS = (".DS_Store", "._*", ".directory", "Thumbs.db", "desktop.ini", ".nfs*", ".*.lock", "*.draft")
T = TypeVar("T")


class InUseError(PixmedError):
    """Somebody else works on it."""


def draft_of(path: Path) -> Path:
    """Where this process writes `path` before it is renamed: several starts of one study write the same."""
    return path.with_name(f"{path.name}.{os.getpid()}.draft")


def write_text(path: Path, text: str) -> None:
    """UTF-8, whole or not at all: to a draft beside it, then renamed."""
    draft = draft_of(path)
    try:
        draft.write_text(text, encoding="utf-8")
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)  # half a file, of no use to anybody
        raise


def write_json(path: Path, contents: Any) -> None:
    """JSON of one space a level, whole or not at all."""
    write_text(path, json.dumps(contents, indent=1, ensure_ascii=False) + "\n")


@contextmanager
def locked(path: Path, flag: str = "--workdir", told: Path | None = None) -> Iterator[None]:
    """Have `path` (a run's training, its samples, ...) for this process alone; PixmedError if it is taken.

    told: what is then said to be in use; the folder that `path` is in, where it is none itself.

    The kernel lets go of the lock when its holder ends, however it ends: the file that a killed process
    leaves stops nobody, is told and taken over. Where a file system knows no locks, nothing is held.
    """
    file = path.with_name(f".{path.name}.lock")
    descriptor, held = _lock(file, flag, told or path.parent)
    try:
        if held:
            left = os.pread(descriptor, 1000, 0).decode("utf-8", "replace")
            if left:
                print(f"{file}: left by {left}, which was killed; taken over", file=sys.stderr)
            who = (
                f"process {os.getpid()} on {socket.gethostname()} since {time.strftime('%Y-%m-%d %H:%M:%S')}"
            )
            with suppress(OSError):  # a full disk; the lock itself takes no room
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, who.encode(), 0)
        yield
    finally:
        if held:
            file.unlink(missing_ok=True)  # before it is let go, so that nobody's new one is deleted
        os.close(descriptor)


def _lock(file: Path, flag: str, told: Path) -> tuple[int, bool]:
    """An open lock file, and whether it is locked: it is not where there are no locks."""
    while True:
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise PixmedError(
                f"{file.parent}: cannot be written ({error.strerror}); give another {flag}"
            ) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 1000, 0).decode("utf-8", "replace")
            os.close(descriptor)
            raise InUseError(
                f"{told}: in use by {holder or 'another process'}; wait for it or stop it (if there "
                f"is no such process any more, delete {file}), or give another {flag}"
            ) from None
        except OSError:
            return descriptor, False
        if file.exists() and os.path.samestat(os.fstat(descriptor), file.stat()):
            return descriptor, True
        os.close(descriptor)  # its last holder has just deleted it


def check_idle(folder: Path) -> None:
    """Refuse to delete a folder that somebody works in; whoever trains there is asked for by its own lock."""
    for file in sorted(folder.rglob(".*.lock")):
        if file != folder / ".training.lock":
            with locked(file.with_name(file.name[1 : -len(".lock")])):
                pass


def alone(name: str) -> Callable[[Callable[..., T]], Callable[..., T]]:
    """For a stage (workdir, ...): it holds the lock `name` of its workdir."""

    def decorate(stage: Callable[..., T]) -> Callable[..., T]:
        @functools.wraps(stage)
        def run(workdir: Path, *args: Any, **options: Any) -> T:
            if not workdir.is_dir():  # a fault that the stage tells; nothing is made for it
                return stage(workdir, *args, **options)
            with locked(workdir / name):
                return stage(workdir, *args, **options)

        return run

    return decorate


def is_bystander(name: str) -> bool:
    """Whether a file is of a file manager or a file system, or a lock: it goes with the folder it lies in."""
    return _fits(name, _BYSTANDERS)


def _fits(name: str, patterns: Collection[str]) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns)


def check_holds(folder: Path, names: Collection[str], flag: str = "--workdir") -> None:
    """Refuse to replace a folder that holds more than `names` (patterns), which is what was written there."""
    if folder.exists() and not folder.is_dir():
        raise PixmedError(f"{folder}: is no folder; give another {flag}")
    found = sorted(path.name for path in folder.iterdir()) if folder.exists() else []
    if others := [name for name in found if not (is_bystander(name) or _fits(name, names))]:
        raise PixmedError(
            f"{folder}: would be replaced, and holds other files ({listing(others)}); move them, or give "
            f"another {flag}"
        )


@contextmanager
def replaced(target: Path, flag: str = "--workdir") -> Iterator[Path]:
    """A folder to fill, which takes the place of `target` when the block is done and vanishes if it fails.

    At any moment either the old folder is there or the new one, whole, under its name or one that the next
    start gives back. What a link names is replaced, not the link. `target` is locked meanwhile; drafts that a
    killed process has left beside it are deleted. Whether it may be replaced at all is for the caller to ask
    (`check_holds`), before its work. flag: what names the folder on the command line.
    """
    target = Path(os.path.realpath(target))
    if os.path.ismount(target):
        raise PixmedError(
            f"{target}: is a mounted disk, which nothing can take the place of; name a folder in it"
        )
    with locked(target, flag, target):
        # No more than a number between: `.out.b.12.draft` is one of `out.b`, whose own lock is another.
        mine = re.compile(rf"\.{re.escape(target.name)}\.\d+\.(old|draft)")
        for left in sorted(target.parent.iterdir()):
            if (of := mine.fullmatch(left.name)) and of[1] == "old":
                _one_of(left, target)
            elif of:
                shutil.rmtree(left, ignore_errors=True)
        draft, aside = (target.with_name(f".{target.name}.{os.getpid()}.{what}") for what in ("draft", "old"))
        try:
            draft.mkdir()
            yield draft
            if target.exists():
                target.rename(aside)
            draft.rename(target)
        except OSError as error:
            raise PixmedError(
                f"{target}: cannot be written ({error.strerror}); free space, or give another {flag}"
            ) from error
        finally:
            _one_of(aside, target)
            shutil.rmtree(draft, ignore_errors=True)


def _one_of(old: Path, target: Path) -> None:
    """`target` as it is; where it is not there, the old one is it again."""
    if old.exists() and not target.exists():
        old.rename(target)
    shutil.rmtree(old, ignore_errors=True)
