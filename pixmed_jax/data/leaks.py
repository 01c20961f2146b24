"""Whether whoever is tested on has been seen in training, by way of sampled slices or of other weights.

Patients are compared, or files where the run's own split is by slice. Names are compared as they are; a
patient who has another name in another dataset is not recognised. Who was seen is {file: patient}.
"""

import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from pixmed_jax.data.slices import Source
from pixmed_jax.errors import listing


def told(seen: Mapping[str, str], source: Source, tested: Mapping[str, np.ndarray], by: str) -> str:
    """The first of the splits, {name: rows}, that holds somebody who was seen, as messages put it; "" if none
    does.
    """
    what = "slices" if by == "slice" else "patients"
    for split, rows in tested.items():
        if found := shared(seen, source, rows, by):
            return f"{len(found)} {what} of this run's {split} split ({listing(found, 5)})"
    return ""


def shared(seen: Mapping[str, str], source: Source, rows: np.ndarray, by: str) -> list[str]:
    """Who is among the rows of `source` and among those seen, sorted.

    A file whose patient nobody names is compared by its own name.
    """
    ours, nameless = source.files if by == "slice" else source.groups, _nameless(seen, by)
    theirs = {us for file, us in zip(source.files, ours, strict=True) if file in nameless}
    if by != "slice":
        theirs |= set(seen.values()) - {""}
    return sorted({ours[row] for row in rows} & theirs)


def warn_of_unknown(root: Path, who: str, seen: Mapping[str, str], source: Source, by: str) -> None:
    """A warning, if nobody can tell whether `who`, trained in `root`, has seen slices of `source`."""
    nameless = _nameless(seen, by)
    if nameless and not set(source.files) & nameless:
        unknown = "it was trained on slices of unknown patients"
        why = "their patients are unknown here" if by == "slice" else unknown
        warnings.warn(
            f"{root}: nobody can tell whether {who} has seen this run's val and test slices: {why}, "
            "and no file has a name that it was trained on",
            stacklevel=3,
        )


def _nameless(seen: Mapping[str, str], by: str) -> set[str]:
    """Files that only their names can be told by."""
    return {file for file, group in seen.items() if by == "slice" or group in ("", file)}
