"""The folder of a run, and what is allowed to happen to it.

    config.json env.json split.json metrics.jsonl events.out.* checkpoints/ grids/
    evaluation.json cases.csv audit.json utility.json reader.json model_card.{json,md} report/ judges/
    samples/ utility/ reader/ export/

Everything but arrays is text, written to a draft and renamed, so that a reader never meets half a file. What
writes holds a lock (`locked`), `.NAME.lock` beside what it writes.
"""

import fcntl
import functools
import json
import os
import platform
import re
import shutil
import socket
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from fnmatch import fnmatch
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

from pixmed_jax import config as configs
from pixmed_jax import texts
from pixmed_jax.errors import PixmedError, listing

CONFIG, SPLIT, METRICS, EVALUATION = "config.json", "split.json", "metrics.jsonl", "evaluation.json"
ENVIRONMENT, CASES, AUDIT, UTILITY, JUDGES = "env.json", "cases.csv", "audit.json", "utility.json", "judges"
EXPORT, READER = "export", "reader.json"
MODEL_CARD, _MODEL_PAGE = "model_card.json", "model_card.md"
_FOLDERS = ("checkpoints", "grids", "samples", "report", "utility", "reader", JUDGES, EXPORT)
_FILES = (CONFIG, ENVIRONMENT, SPLIT, METRICS, EVALUATION, CASES, AUDIT, UTILITY, MODEL_CARD, _MODEL_PAGE)
OUTPUTS = (*_FILES, READER, *_FOLDERS)
_SECTIONS = ("data", "train")  # of every config
# What is in some of these folders; --fresh refuses what a user has put beside it.
_CONTENTS = {
    "checkpoints": ("[0-9]*",),
    "grids": ("*.png",),
    "report": ("*.html", "closeness.csv"),
    "reader": ("key.csv", "page.html", "images"),
}
_OF_BEGUN = ("samples", "utility")  # what may be made in a folder that nothing is trained in
# Of file managers and file systems, our own locks, and drafts of a write that was killed: of worth to nobody.
_BYSTANDERS = (".DS_Store", "._*", ".directory", "Thumbs.db", "desktop.ini", ".nfs*", ".*.lock", "*.draft")
LARGEST_SPLIT, _LARGEST_METRICS = 2**27, 2**30  # bytes
T = TypeVar("T")
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "dm-pix", "numpy", "pixmed-jax")


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
def locked(path: Path, flag: str = "--workdir") -> Iterator[None]:
    """Have `path` (a run's training, its samples, ...) for this process alone; PixmedError if it is taken.

    The kernel lets go of the lock when its holder ends, however it ends: the file that a killed process
    leaves stops nobody, is told and taken over. Where a file system knows no locks, nothing is held.
    """
    file = path.with_name(f".{path.name}.lock")
    descriptor, held = _lock(file, flag)
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


def _lock(file: Path, flag: str) -> tuple[int, bool]:
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
                f"{file.parent}: in use by {holder or 'another process'}; wait for it or stop it (if there "
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
    with locked(target, flag):
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


def read_config(workdir: Path) -> dict[str, Any]:
    """The config a run was started with."""
    path = workdir / CONFIG
    try:
        config = texts.read_object(path)
        if "files" not in config and (wrong := _lacking(config)):
            raise ValueError(f"no section {listing(wrong)}")
    except FileNotFoundError as error:
        raise PixmedError(
            f"{path}: missing, so {workdir} is no run's folder; train with --config first"
        ) from error
    except ValueError as error:
        raise PixmedError(
            f"{path}: unreadable ({error}); restore it from any checkpoint's manifest.json"
        ) from error
    if "files" in config:  # export/folder.py says what else is in it
        raise PixmedError(f"{workdir}: is an exported model and no run; give the folder that was trained")
    return config


def _lacking(config: Mapping[str, Any]) -> list[str]:
    return [name for name in _SECTIONS if not isinstance(config.get(name), dict)]


def prepare(
    workdir: Path,
    config: Mapping[str, Any],
    *,
    fresh: bool,
    check: Callable[[Sequence[str]], None] = lambda moved: None,
) -> None:
    """Make `workdir` this run's folder: new, resumed with the same config, or emptied by `fresh`.

    check: of a run that is resumed, before anything is written: given the keys whose data lie elsewhere now,
    it refuses data that are not those of the run.
    """
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        probe = workdir / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise PixmedError(
            f"{workdir}: cannot be written ({error.strerror}); give another --workdir"
        ) from error
    if any(workdir.glob("*.safetensors")):  # of whichever network: export/folder.py names them
        raise PixmedError(
            f"{workdir}: holds an exported model, which a training would spoil; give another --workdir"
        )
    if (known := texts.found_object(workdir / CONFIG)) and _lacking(known):
        raise PixmedError(f"{workdir}: its {CONFIG} is of something else than a run; give another --workdir")
    # Steps without a manifest too: they may be finished ones that have lost it.
    trained = any(path.parent.name.isdigit() for path in (workdir / "checkpoints").glob("*/*"))
    used = trained or any((workdir / name).exists() for name in _OF_BEGUN)
    if (workdir / CONFIG).exists() and used and not fresh:
        _check_same(workdir, read_config(workdir), config, check)
    elif not (trained or (workdir / CONFIG).exists()) and (held := _results(workdir)):
        # Nothing says that a run wrote them, so --fresh does not delete them either.
        raise PixmedError(
            f"{workdir}: holds {listing(held)} without the {CONFIG} of a run; move them, or give another "
            "--workdir"
        )
    elif not (workdir / CONFIG).exists() and trained and not fresh:
        raise PixmedError(
            f"{workdir}: holds results of a run without their {CONFIG}; give another --workdir, "
            "or --fresh to delete them"
        )
    elif fresh:
        _clear(workdir, config)
    write_json(workdir / CONFIG, config)
    if fresh or not trained:
        write_json(workdir / ENVIRONMENT, environment())


def note(workdir: Path, **facts: Any) -> None:
    """Add to what a run's environment says."""
    write_json(workdir / ENVIRONMENT, read_environment(workdir) | facts)


def read_environment(workdir: Path) -> dict[str, Any]:
    """What a run was trained on and with; nothing where that is not told."""
    return texts.found_object(workdir / ENVIRONMENT)


def read_metrics(workdir: Path) -> list[dict[str, float]]:
    """The records of a training; none where there are none."""
    return texts.found_objects(workdir / METRICS, _LARGEST_METRICS)


def read_split(workdir: Path) -> dict[str, Any] | None:
    """{split: {file: patient group}}; None where that is unknown.

    "behind" are those whom synthetic training slices come from, and whom the weights have seen that the
    training started from; None where nobody knows that.
    """
    split = texts.found_object(workdir / SPLIT, LARGEST_SPLIT)
    return split if isinstance(split.get("train"), dict) else None


def trained_on(workdir: Path) -> dict[str, str] | None:
    """{file: patient group} of all that a run's weights have seen, and that is behind what they have seen;
    None where that is not on record.
    """
    split = read_split(workdir) or {"train": {}, "behind": None}
    behind = split.get("behind", {})
    return {**behind, **split["train"]} if isinstance(behind, dict) else None


def _check_same(
    workdir: Path, old: Mapping[str, Any], new: Mapping[str, Any], check: Callable[[Sequence[str]], None]
) -> None:
    changed = configs.differences(old, new)
    shown = {key: f"{key}: {was!r} -> {now!r}" for key, (was, now) in changed.items()}
    moved = [key for key, values in changed.items() if configs.is_place(key, *values)]
    refused = [text for key, text in shown.items() if not configs.is_free(key) and key not in moved]
    if refused:
        raise PixmedError(
            f"{workdir}: was {'trained' if (workdir / METRICS).exists() else 'begun'} with another config "
            f"({listing(refused)}); "
            "give another --workdir, or --fresh to start over in this one"
        )
    check(moved)
    for text in shown.values():
        print(f"{workdir}: resumed with {text}", file=sys.stderr)


def _results(workdir: Path) -> list[str]:
    """Names of what a run writes that are there."""
    events = sorted(path.name for path in workdir.glob("events.out.tfevents.*"))
    return [name for name in OUTPUTS if os.path.lexists(workdir / name)] + events


def _clear(workdir: Path, config: Mapping[str, Any]) -> None:
    """Delete what a run writes, and nothing else; its config last, so that it can be begun again.

    Raises PixmedError where that would be what `config` reads, or what a user has put there.
    """
    check_idle(workdir)
    results = [workdir / name for name in _results(workdir)]
    for key, path in configs.paths(config):
        place = Path(os.path.realpath(path))
        if any(Path(os.path.realpath(of)) in (place, *place.parents) for of in results):
            raise PixmedError(f"{key}: {path} is among what --fresh deletes; give another --workdir")
    for name, names in _CONTENTS.items():
        check_holds(workdir / name, names)
    for path in sorted(results, key=lambda path: path.name == CONFIG):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def environment() -> dict[str, Any]:
    """What this process runs on and with."""
    import jax

    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "devices": [f"{d.platform}:{d.device_kind}" for d in jax.devices()],
        "processes": jax.process_count(),
        "packages": {name: _version(name) for name in _PACKAGES},
    }


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
