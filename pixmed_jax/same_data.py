"""Whether data are those that a run was begun with, wherever they lie now.

A run's record has the name, patient and split of each slice (split.json) and how bright some of them are
(env.json, "brightness"), so that other data under the same names, such as another sequence of the same
patients, are told apart. Where a folder lies is no part of it: it may be moved, or be on another machine.
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

BRIGHTNESS = "brightness"
_LOOKED_AT = 8  # slices
# Mean grey value that decoders of one file may differ by; one grey level of 8 bits.
_TOLERANCE = 1 / 255


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
    """Put into the record how bright some slices are, if it does not say so yet."""
    if BRIGHTNESS not in run_folder.read_environment(workdir):
        files = dataset.source.files
        some = np.unique(np.linspace(0, len(files) - 1, _LOOKED_AT).astype(int))
        run_folder.note(workdir, **{BRIGHTNESS: brightness(dataset, [files[row] for row in some])})


def brightness(dataset: Dataset, files: Iterable[str]) -> dict[str, float]:
    """{file: mean grey value in [0, 1]} of those of the files that the dataset has."""
    row_of = {file: row for row, file in enumerate(dataset.source.files)}
    known = [file for file in files if file in row_of]
    if not known:
        return {}
    arrays, _ = dataset.load(np.array([row_of[file] for file in known]), dataset.size)
    images = np.asarray(arrays.images)
    means = images.reshape(len(known), -1).mean(axis=1) / np.iinfo(images.dtype).max
    return {file: round(float(mean), 5) for file, mean in zip(known, means, strict=True)}


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
    was = run_folder.read_environment(workdir).get(BRIGHTNESS, {})
    now = brightness(dataset, was)
    if other := [file for file, mean in now.items() if abs(mean - was[file]) > _TOLERANCE]:
        raise changed(workdir, other, f"of {len(now)} slices looked at are others under the same names")


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
