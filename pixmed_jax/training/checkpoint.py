"""Checkpoints that can be trusted: orbax stores the arrays, a manifest per step says what belongs to it.

    checkpoints/1200/...            written by orbax into a temporary folder, then renamed
    checkpoints/1200/manifest.json  written last: {"step", "score", "config", "classes", "grey", "limits",
                                    "planes", "files", "sha256"}, the last of all the
                                    others

A step without its manifest was not finished and does not exist for us; a step whose files, or whose manifest
itself, have changed is reported and passed over. Orbax alone would take an empty folder for the newest step
and restore a flipped bit without a word.
"""

import errno
import hashlib
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any, NamedTuple

import jax

from pixmed_jax import texts
from pixmed_jax.errors import PixmedError, listing
from pixmed_jax.training.quiet import listen_past_orbax, quiet

MANIFEST = "manifest.json"
_LARGEST = 2**26  # bytes of a manifest: a step has one file per array at most


class Saved(NamedTuple):
    """A finished step: where it is, and what its manifest says.

    `classes` names the label maps' values 1 .. K, `grey` is false for images with colours, `limits` are the
    values in the data's units that 0 and 1 stand for (the median over its slices), `files` holds the sha256
    of each file, `planes` are those that a network has seen which is told the plane. With `config` that is
    all it takes to use the model elsewhere.
    """

    path: Path
    step: int
    score: float
    config: dict[str, Any]
    classes: tuple[str, ...]
    grey: bool
    limits: tuple[float, float]
    files: dict[str, str]
    planes: tuple[str, ...] = ()


class Writer:
    """Saves states in the background; keeps the newest `keep` steps and the one with the highest score.

    Steps newer than the one written last go: a resume passes over none but damaged ones, and the run writes
    them again.
    """

    def __init__(
        self,
        directory: Path,
        *,
        keep: int,
        config: dict[str, Any],
        classes: tuple[str, ...],
        grey: bool,
        limits: tuple[float, float] = (0.0, 255.0),
        planes: tuple[str, ...] = (),
    ):
        self._directory = directory
        self._keep = keep
        self._contents = {
            "config": config,
            "classes": list(classes),
            "grey": grey,
            "limits": list(limits),
            "planes": list(planes),
        }
        self._pending: tuple[int, float] | None = None
        if jax.process_index() == 0:
            for left in directory.glob("*.orbax-checkpoint-tmp*"):  # by a run that was killed in a save
                shutil.rmtree(left, ignore_errors=True)
        self._ocp = ocp = _orbax()
        self._checkpointer = ocp.AsyncCheckpointer(ocp.StandardCheckpointHandler())
        listen_past_orbax()

    def save(self, step: int, state: Any, score: float) -> None:
        """Start writing `state`; returns once it is copied out of the device, before it is on disk."""
        self.finish()
        path = (self._directory / str(step)).absolute()
        try:
            if jax.process_index() == 0:
                # Before orbax starts: a save that fails at once leaves threads that hold up exit for minutes.
                self._directory.mkdir(parents=True, exist_ok=True)
                if not os.access(self._directory, os.W_OK | os.X_OK):
                    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self._directory))
                if path.is_dir():  # left by a run that was killed, or damaged
                    shutil.rmtree(path)
            self._checkpointer.save(path, args=self._ocp.args.StandardSave(state))
        except Exception as error:  # what orbax and TensorStore raise is of many classes
            raise _save_failed(step, error) from error
        self._pending = (step, score)  # only now: nothing may be made of a save that did not start

    def poll(self) -> None:
        """`finish`, if that takes no waiting: the sooner a step counts, the less a kill costs."""
        if self._pending is not None and (self._directory / str(self._pending[0])).exists():
            self.finish()  # orbax has renamed its temporary folder, so all is written

    def finish(self) -> None:
        """Wait for the save under way, if any, and make it count. Raises PixmedError naming the step."""
        if self._pending is None:
            return
        (step, score), self._pending = self._pending, None
        try:
            self._checkpointer.wait_until_finished()
            if jax.process_index() == 0:
                _write_manifest(self._directory / str(step), {"step": step, "score": score, **self._contents})
                self._prune(step)
        except Exception as error:
            raise _save_failed(step, error) from error

    def close(self) -> None:
        """Finish the save under way and let go of orbax. Raises PixmedError if that save fails."""
        self.finish()
        self._checkpointer.close()

    def _prune(self, written: int) -> None:
        """Delete what is not kept; `written` is the step that was just finished."""
        saved = finished(self._directory)
        known = [one for one in saved if one.step <= written]
        best = max(known, key=lambda s: (s.score, s.step))
        kept = {best.step, *(one.step for one in known[-self._keep :])}
        for old in saved:
            if old.step not in kept:
                (old.path / MANIFEST).unlink()  # first, so that a kill in between leaves no half step
                shutil.rmtree(old.path)


def check_room(directory: Path, state: Any, keep: int, *, fresh: bool = False) -> None:
    """Raise PixmedError if a disk has no room for the checkpoints that a run is going to keep.

    That is the newest `keep`, the best, and the one that is being written, less those that are there. With
    `fresh` those that are there go before, and leave their room.
    """
    bytes_each = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    missing = keep + 2 if fresh else max(1, keep + 2 - len(_manifests(directory)))
    existing = next(path for path in (directory, *directory.absolute().parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if fresh:
        free += sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())
    if free < missing * bytes_each:
        raise PixmedError(
            f"{directory}: {free / 1e6:,.0f} MB {'will be' if fresh else 'are'} free, and {missing} "
            f"checkpoints of {bytes_each / 1e6:,.0f} MB will be written; free space, lower checkpoint.keep, "
            "or give another --workdir"
        )


def finished(directory: Path) -> list[Saved]:
    """All finished steps of a run's `checkpoints` folder, oldest first; their files are not checked.

    A step whose manifest cannot be read is told on stderr and left out.
    """
    steps = []
    for path in _manifests(directory):
        try:
            steps.append(_read_manifest(path.parent))
        except PixmedError as error:
            print(f"checkpoint {path.parent.name} is passed over: {error}", file=sys.stderr)
    return sorted(steps, key=lambda saved: saved.step)


def damage(saved: Saved) -> str | None:
    """What is wrong with a step's files, naming the first one that is; None when all match the manifest."""
    for name, digest in saved.files.items():
        path = saved.path / name
        try:
            if sha256(path) != digest:
                return f"{path} has changed since it was written"
        except OSError:
            return f"{path} is missing"
    return None


def newest_intact(directory: Path) -> Saved | None:
    """The newest finished step whose files are all intact; each damaged one on the way is told on stderr.

    None when there is no finished step at all; PixmedError when there are some, and every one is damaged, or
    when several have lost their manifests.
    """
    before = _manifests(directory)
    for saved in reversed(finished(directory)):
        fault = damage(saved)
        if fault is None:
            return saved
        if not (saved.path / MANIFEST).exists():  # a training beside has just deleted it, for newer ones
            return newest_intact(directory)
        print(f"checkpoint {saved.step} is passed over: {fault}", file=sys.stderr)
    if _manifests(directory) != before:
        return newest_intact(directory)
    if before:
        raise PixmedError(
            f"{directory}: every checkpoint is damaged; put a good copy back, or start over with --fresh"
        )
    unfinished = sorted({path.parent.name for path in directory.glob("*/*") if path.parent.name.isdigit()})
    if len(unfinished) > 1:  # a kill during the first save leaves one
        raise PixmedError(
            f"{directory}: no checkpoint has its {MANIFEST} ({listing(unfinished)}); put them back, or start "
            "over with --fresh"
        )
    for name in unfinished:
        print(f"checkpoint {name} is passed over: no {MANIFEST}, so it was not finished", file=sys.stderr)
    return None


def best(directory: Path) -> Saved | None:
    """The intact step with the highest score."""
    intact = [saved for saved in finished(directory) if damage(saved) is None]
    return max(intact, key=lambda saved: (saved.score, saved.step), default=None)


def open_step(path: Path) -> Saved:
    """The finished and intact step at `path`, a folder with a manifest."""
    saved = _read_manifest(path)
    fault = damage(saved)
    if fault is not None:
        raise PixmedError(f"{path}: {fault}; take another step of this run")
    return saved


def restore(saved: Saved, target: Any) -> Any:
    """The state at a step, placed and typed like `target`, a tree of arrays or shapes with shardings.

    `target` may be a part of what was saved (a dict of some of a state's fields): only that part is read.
    """
    ocp = _orbax()
    handler = ocp.PyTreeCheckpointHandler()
    listen_past_orbax()
    try:
        with quiet("absl"), ocp.Checkpointer(handler) as checkpointer:
            stored = checkpointer.metadata(saved.path.absolute()).item_metadata.tree
            _check_fits(saved, stored, target)
            return checkpointer.restore(
                saved.path.absolute(),
                args=ocp.args.PyTreeRestore(
                    item=target,
                    restore_args=ocp.checkpoint_utils.construct_restore_args(target),
                    partial_restore=True,
                ),
            )
    except PixmedError:
        raise
    except Exception:  # pages of orbax's and TensorStore's own, of many classes
        fault = damage(saved)
        if fault is None:
            raise
    raise PixmedError(f"{saved.path}: {fault}, while it was read; run it again")


def sha256_of_tree(tree: Any) -> str:
    """One digest of every leaf's path, type, shape and bytes: equal if and only if the trees are."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(jax.device_get(tree)):
        digest.update(f"{jax.tree_util.keystr(path)} {leaf.dtype} {leaf.shape}".encode())
        digest.update(leaf.tobytes())
    return digest.hexdigest()


def _orbax() -> Any:
    """Imported late: whoever opens an exported model needs none of it."""
    import orbax.checkpoint

    return orbax.checkpoint


def _check_fits(saved: Saved, stored: Any, target: Any) -> None:
    """Orbax casts silently to another dtype, and its messages about shapes run over pages."""
    have = {plain(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(stored)}
    wrong = []
    for path, leaf in jax.tree_util.tree_leaves_with_path(target):
        found = have.get(plain(path))
        if found is None:
            wrong.append(f"{plain(path)} is missing")
        elif tuple(found.shape) != tuple(leaf.shape) or found.dtype != leaf.dtype:
            wrong.append(
                f"{plain(path)} is {found.dtype}{list(found.shape)}, not {leaf.dtype}{list(leaf.shape)}"
            )
    if wrong:
        raise PixmedError(
            f"{saved.path}: does not fit the model of its config: {listing(wrong, 5)}; "
            "it was written by another version or edited; start over with --fresh"
        )


def plain(path: tuple) -> str:
    """A key path without the difference between a NamedTuple's field, a dict's key and a list's index."""
    return ".".join(str(getattr(k, "name", getattr(k, "key", getattr(k, "idx", k)))) for k in path)


def _manifests(directory: Path) -> list[Path]:
    return [path for path in directory.glob(f"*/{MANIFEST}") if path.parent.name.isdigit()]


def sha256(path: Path) -> str:
    """64 hexadecimal digits of a file's contents."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_manifest(path: Path, contents: dict[str, Any]) -> None:
    files = sorted(p for p in path.rglob("*") if p.is_file() and p.name != MANIFEST)
    contents["files"] = {p.relative_to(path).as_posix(): sha256(p) for p in files}
    contents["sha256"] = sha256_of_contents(contents)
    draft = path / f"{MANIFEST}.draft"
    with draft.open("w") as file:
        json.dump(contents, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path / MANIFEST)


def sha256_of_contents(contents: dict[str, Any]) -> str:
    """Of a manifest, its own entry "sha256" left out."""
    others = {key: value for key, value in contents.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(others, sort_keys=True).encode()).hexdigest()


def _read_manifest(path: Path) -> Saved:
    try:
        return read_saved(path / MANIFEST)
    except FileNotFoundError as error:
        raise PixmedError(
            f"{path}: no {MANIFEST}, so no finished checkpoint; give a folder that has one"
        ) from error
    except ValueError as error:
        raise PixmedError(
            f"{path / MANIFEST}: unreadable ({error}); delete {path} to fall back on an older step"
        ) from error


def read_saved(path: Path) -> Saved:
    """What a manifest says. Errors: FileNotFoundError, and ValueError for whatever else is wrong."""
    try:
        contents = texts.read_object(path, _LARGEST)
        # Manifests of older versions have no digest of their own.
        if contents.get("sha256", "") not in ("", sha256_of_contents(contents)):
            raise ValueError("changed since it was written")
        files = {str(k): str(v) for k, v in contents["files"].items()}
        outside = [name for name in files if Path(name).is_absolute() or ".." in Path(name).parts]
        if outside:
            raise ValueError(f"names files outside its folder: {listing(outside)}")
        low, high = contents.get("limits", (0, 255))
        return Saved(
            path=path.parent,
            step=int(contents["step"]),
            score=float(contents["score"]),
            config=dict(contents["config"]),
            classes=tuple(map(str, contents["classes"])),
            grey=bool(contents["grey"]),
            limits=(float(low), float(high)),
            files=files,
            planes=tuple(map(str, contents.get("planes", ()))),
        )
    except FileNotFoundError:
        raise
    except (KeyError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(error) from error


def _save_failed(step: int, error: Exception) -> PixmedError:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return PixmedError(
        f"checkpoint {step} could not be saved: {reason}; older steps are intact; free space, rerun"
    )
