"""Configs as plain dicts: flattening, comparing, hashing, nearest names. Imports nothing heavy.

Inside the project a config is what JSON gives back (nested dicts, lists for tuples), so that a stage started
from a run's `config.json` sees the same values as the training that wrote it.
"""

import difflib
import hashlib
import json
from collections.abc import Iterable, Mapping
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

    A key of `LATER` that one of them lacks has the value that it had before there was a choice.
    """
    a, b = ({**LATER, **flatten(some)} for some in (old, new))
    return {key: (a.get(key), b.get(key)) for key in sorted(a | b) if a.get(key) != b.get(key)}


def is_free(key: str) -> bool:
    """Whether a run may be resumed with another value of `key`."""
    return any(key == free or (free.endswith(".") and key.startswith(free)) for free in FREE)


def digest(config: Mapping[str, Any]) -> str:
    """12 hexadecimal digits that name a config; what `about` says of its data changes nothing in a run."""
    own = {key: value for key, value in config.items() if key != "about"}
    return hashlib.sha256(json.dumps(own, sort_keys=True).encode()).hexdigest()[:12]


def nearest(name: str, known: Iterable[str]) -> str:
    """A question such as "; did you mean a or b?" for a mistyped name, empty when nothing comes close."""
    known = list(known)
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    leaf = name.rsplit(".", 1)[-1]
    close += [k for k in known if k.rsplit(".", 1)[-1] == leaf and k not in close]
    return f"; did you mean {' or '.join(close[:3])}?" if close else ""
