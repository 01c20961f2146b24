"""What every evaluation.json begins with: on whom a run was judged, at which step, under which config."""

from collections.abc import Mapping
from typing import Any

from pixmed_jax import config as configs
from pixmed_jax.data.sources import Dataset


def of(config: Mapping[str, Any], dataset: Dataset, split: str, step: int) -> dict[str, Any]:
    """Of a run judged on the slices of a split; `n` is how many these are."""
    rows = dataset.of(split)
    groups, files = ([names[row] for row in rows] for names in (dataset.source.groups, dataset.source.files))
    return {
        "n": len(rows),
        "patients": len(set(groups)),
        "patients_known": groups != files,
        "split": split,
        "split_by": config["data"]["split"]["by"],
        "step": step,
        "size": dataset.size,
        "config": configs.digest(config),
    }


def whom(result: Mapping[str, Any]) -> str:
    """On whom, for the terminal: "261 test slices of 19 patients"."""
    who = f"{result['patients']} patients" if result["patients_known"] else "unknown patients"
    return f"{result['n']} {result['split']} slices of {who}"
