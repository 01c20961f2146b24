"""Configs as plain dicts: flattening, comparing, hashing, nearest names. Imports nothing heavy.

Inside the project a config is what JSON gives back (nested dicts, lists for tuples), so that a stage started
from a run's `config.json` sees the same values as the training that wrote it.
"""

import difflib
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

# What may change when a run is resumed: lengths, rates, how often something is told or kept, and what cards
# say of its origin.
FREE = (
    "train.steps",
    "train.epochs",
    "train.max_skipped",
    "train.resident_gb",
    "optimizer.learning_rate",
    "optimizer.decay_steps",
    "log.",
    "checkpoint.",
    "about.",
)
# Where things lie. The same data in another place are the same run's, if its record says that they are the
# same (same_data.py); the weights that a run has started from are not read again.
PLACES = ("data.dir", "data.images", "data.masks", "data.meta", "data.leave_out", "data.synthetic_dir")
_PATHS = (*PLACES, "model.generator.weights", "model.network.weights")
_INSIDE = ("data.images", "data.masks", "data.meta")  # by a relative name: which files of data.dir are meant
# Keys that came later, and what a run means that has not got them.
LATER = {"data.enhance": "none"}


def plain(config: Any) -> dict[str, Any]:
    """A ConfigDict as JSON would return it."""
    return json.loads(json.dumps(config.to_dict() if hasattr(config, "to_dict") else config))


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}"""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """{key: (old value, new value)} of all keys that differ; None stands for a missing key.

    A key of `LATER` that one of them lacks has the value that it had before there was a choice. Two spellings
    of one path are one path.
    """
    a, b = ({**LATER, **flatten(some)} for some in (old, new))
    pairs = {key: (a.get(key), b.get(key)) for key in sorted(a | b)}
    return {
        key: (x, y)
        for key, (x, y) in pairs.items()
        if x != y and not (_ends(key, _PATHS) and x and y and same_place(x, y))
    }


def paths(config: Mapping[str, Any]) -> Iterator[tuple[str, Path]]:
    """(key, path) of what a run of this config reads: data, tables and weights."""
    flat = flatten(config)
    for key in _PATHS:
        value = flat.get(key)
        for name in folders(value) if value and key == "data.synthetic_dir" else [value]:
            if name:
                path = Path(flat["data.dir"], name) if key in _INSIDE else Path(name)
                yield key, path / "checkpoints" if key == "model.generator.weights" else path


def same_place(a: str, b: str) -> bool:
    """Whether two paths, seen from the current folder, are one."""
    return os.path.realpath(a) == os.path.realpath(b)


def is_place(key: str, old: Any, new: Any) -> bool:
    """Whether these two values of `key` may be two places of the same data, which a run's record has to tell.

    `key` may have sections before it, as in a config that holds others. An empty `data.dir` is the place
    where TFDS keeps its data; elsewhere an empty value means that there are none.
    """
    if _ends(key, ("data.dir",)):
        return True
    if not (_ends(key, PLACES) and old and new):
        return False
    return not _ends(key, _INSIDE) or Path(old).is_absolute() or Path(new).is_absolute()


def moved(config: Mapping[str, Any], directory: str) -> dict[str, Any]:
    """The config with its data in `directory`, and there too what absolute paths name in the old one."""
    data = dict(config["data"])
    if data["dir"]:
        old, new = (Path(place).absolute() for place in (data["dir"], directory))
        for name in (key.removeprefix("data.") for key in PLACES):
            if name != "dir" and data.get(name):
                places = folders(data[name]) if name == "synthetic_dir" else [data[name]]
                data[name] = ",".join(_moved(place, old, new) for place in places)
    return {**config, "data": {**data, "dir": directory}}


def _moved(place: str, old: Path, new: Path) -> str:
    """As it was written, unless it lies in what moved."""
    path = Path(place)
    inside = path.is_absolute() and path.is_relative_to(old)
    return str(new / path.relative_to(old)) if inside else place


def folders(text: str) -> list[str]:
    """Those of data.synthetic_dir, which takes several with commas between; one may have a comma itself."""
    if Path(text).is_dir():
        return [text]
    return [part.strip() for part in text.split(",") if part.strip()]


def _ends(key: str, names: Iterable[str]) -> bool:
    return any(key == name or key.endswith(f".{name}") for name in names)


def is_free(key: str) -> bool:
    """Whether a run may be resumed with another value of `key`."""
    return any(key == free or (free.endswith(".") and key.startswith(free)) for free in FREE)


def digest(config: Mapping[str, Any]) -> str:
    """12 hexadecimal digits that name a config; where its data lie, and what `about` says of them, changes
    nothing in a run.
    """
    own = {key: value for key, value in config.items() if key != "about"}
    if isinstance(data := own.get("data"), Mapping):
        own["data"] = {
            key: "" if is_place(f"data.{key}", value, value) else value for key, value in data.items()
        }
    return hashlib.sha256(json.dumps(own, sort_keys=True).encode()).hexdigest()[:12]


def nearest(name: str, known: Iterable[str]) -> str:
    """A question such as "; did you mean a or b?" for a mistyped name, empty when nothing comes close."""
    known = list(known)
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    leaf = name.rsplit(".", 1)[-1]
    close += [k for k in known if k.rsplit(".", 1)[-1] == leaf and k not in close]
    return f"; did you mean {' or '.join(close[:3])}?" if close else ""
