"""Whether data are those that a run was begun with, wherever they lie now.

A run's record has the name, patient and split of each slice (split.json), and of some of them how bright they
are and where their masks lie (env.json), so that other data under the same names, such as another sequence of
the same patients or the masks of another reader, are told apart. Where a folder lies is no part of it: it may
be moved, or be on another machine.
Errors: PixmedError.
"""

import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pixmed_jax import config as configs
from pixmed_jax import workdir as run_folder
from pixmed_jax import writing
from pixmed_jax.data.sources import Dataset, open_dataset
from pixmed_jax.data.synthetic import PREFIX
from pixmed_jax.errors import PixmedError, listing

BRIGHTNESS, MARKED = "brightness", "marked"
_LOOKED_AT = 8  # slices
# What decoders of one file may differ by: a mean grey value by one grey level of 8 bits; a share of the
# picture, or a place in it, by a pixel or so of the border of masks that were made smaller.
_TOLERANCE = {BRIGHTNESS: 1 / 255, MARKED: 0.02}


def check(workdir: Path, dataset: Dataset, moved: Sequence[str]) -> None:
    """A run goes on with the slices that it was begun with, or its patients of today were never its own.

    moved: the keys whose data lie elsewhere now.
    """
    record = record_of(workdir)
    if record is not None:
        _compare(workdir, dataset.description(), record)
    elif moved:
        raise _unknown(workdir, listing(moved))
    _look(workdir, dataset)


def note(workdir: Path, dataset: Dataset) -> None:
    """Put into the record how some slices look, if it does not say so yet."""
    if BRIGHTNESS not in run_folder.read_environment(workdir):
        files = dataset.source.files
        some = np.unique(np.linspace(0, len(files) - 1, _LOOKED_AT).astype(int))
        run_folder.note(workdir, **looks(dataset, [files[row] for row in some]))


def looks(dataset: Dataset, files: Iterable[str]) -> dict[str, dict[str, list[float]]]:
    """{BRIGHTNESS: {file: [mean grey value in [0, 1]]}, MARKED: {file: [share of the picture, row and column
    of its middle in [0, 1]]}} of those of the files that the dataset has; nothing of masks that are not told.
    """
    row_of = {file: row for row, file in enumerate(dataset.source.files)}
    known = [file for file in files if file in row_of]
    if not known:
        return {}
    arrays, slices = dataset.load(np.array([row_of[file] for file in known]), dataset.size)
    images = np.asarray(arrays.images)
    means = images.reshape(len(known), -1).mean(axis=1) / np.iinfo(images.dtype).max
    found = {BRIGHTNESS: _rounded(known, means[:, None])}
    if dataset.masked:
        found[MARKED] = _rounded(known, [_where(mask > 0) for mask in slices.masks])
    return found


def _where(mask: np.ndarray) -> list[float]:
    """[share, row, column] of a mask; the middle of the picture where it is empty."""
    middle = np.argwhere(mask).mean(axis=0) / mask.shape if mask.any() else (0.5, 0.5)
    return [float(mask.mean()), *middle]


def _rounded(files: Sequence[str], values: Iterable[Iterable[float]]) -> dict[str, list[float]]:
    return {file: [round(float(each), 5) for each in of] for file, of in zip(files, values, strict=True)}


def move(workdir: Path, directory: str) -> None:
    """Have the run of `workdir` find its data in `directory` from now on; refused if they are others."""
    old = run_folder.read_config(workdir)
    place = old["data"]["dir"]
    if place and configs.same_place(place, directory):
        return
    record, config = run_folder.read_split(workdir), configs.moved(old, directory)
    if record is None:
        raise _unknown(workdir, directory)
    dataset = open_real(config)
    # Synthetic slices only train, and their folder need not be there; real ones may not have trained at all.
    replaced = bool(config["data"].get("synthetic_dir")) and config["data"]["synthetic"] == "replace"
    told, known = (
        {
            name: {file: group for file, group in files.items() if not file.startswith(PREFIX)}
            for name, files in of.items()
            if name != "behind" and not (replaced and name == "train")
        }
        for of in (dataset.description(), record)
    )
    _compare(workdir, told, known)
    _look(workdir, dataset)
    try:
        writing.write_json(workdir / run_folder.CONFIG, config)
    except OSError as error:
        raise PixmedError(
            f"{workdir}: cannot be written ({error.strerror}), to say that its data are in {directory}; give "
            "a copy of it"
        ) from error
    print(f"{workdir}: its data are in {directory} from now on, no longer in {place}", file=sys.stderr)


def open_real(config: Mapping[str, Any]) -> Dataset:
    """The data of a config without synthetic slices, which only train."""
    return open_dataset(**{**config["data"], "synthetic_dir": ""}, seed=config["seed"])


def open_of_run(workdir: Path, config: Mapping[str, Any]) -> Dataset:
    """As `open_real`, for a run that is trained: what it could not open may have moved, which is told."""
    try:
        return open_real(config)
    except PixmedError as error:
        place = config["data"]["dir"]
        if not place or Path(place).exists():
            raise PixmedError(f"{error}; or, if its data are elsewhere now, give --data=DIR") from error
        raise PixmedError(
            f"{place}: no such folder, and the data of {workdir} were there; say where they are: --data=DIR"
        ) from error


def _compare(workdir: Path, now: Mapping[str, Any], record: Mapping[str, Any]) -> None:
    here, was = (
        {(name, *entry) for name, files in of.items() for entry in (files or {}).items()}
        for of in (now, record)
    )
    if other := {file for _, file, _ in here ^ was}:
        raise changed(workdir, other, "slices are new, gone or in another split")


def _look(workdir: Path, dataset: Dataset) -> None:
    record = run_folder.read_environment(workdir)
    now = looks(dataset, record.get(BRIGHTNESS, {}))
    for what, limit in _TOLERANCE.items():
        was = record.get(what, {})
        known = {file: values for file, values in now.get(what, {}).items() if file in was}
        # Older records hold the brightness as a number.
        if other := [
            file for file, new in known.items() if np.abs(np.subtract(new, was[file])).max() > limit
        ]:
            told = "are others under the same names" if what == BRIGHTNESS else "have other masks"
            raise changed(workdir, other, f"of {len(known)} slices looked at {told}")


def changed(workdir: Path, files: Collection[str], told: str) -> PixmedError:
    """What to say of data that are no longer those of a run; told: of how many of its slices, and how."""
    return PixmedError(
        f"{workdir}: the data have changed since this run was begun: {len(files)} {told} "
        f"({listing(sorted(files), 5)}); put them back as they were, or give another --workdir"
    )


def record_of(workdir: Path) -> dict[str, Any] | None:
    """What split.json says, None where there is none; PixmedError where it is there and says nothing, as whom
    the run has seen is then known to nobody.
    """
    record = run_folder.read_split(workdir)
    if record is None and (workdir / run_folder.SPLIT).exists():
        raise PixmedError(
            f"{workdir / run_folder.SPLIT}: unreadable, so nobody knows whom this run was trained on; put a "
            "good copy back, or give another --workdir"
        )
    return record


def _unknown(workdir: Path, what: str) -> PixmedError:
    return PixmedError(
        f"{workdir / run_folder.SPLIT}: missing or unreadable, so nobody knows whether these are this run's "
        f"data ({what}); put them where they were"
    )
