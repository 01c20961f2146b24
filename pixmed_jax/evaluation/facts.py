"""On whom a run is judged: the data of its config, and what every evaluation.json begins with."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pixmed_jax import config as configs
from pixmed_jax import workdir as run_folder
from pixmed_jax.data.sources import Dataset, open_dataset
from pixmed_jax.data.splits import SPARE
from pixmed_jax.data.synthetic import refuse_leaks
from pixmed_jax.errors import PixmedError
from pixmed_jax.evaluation import provenance


def open_data(workdir: Path, config: Mapping[str, Any], split: str) -> Dataset:
    """Real slices alone: synthetic ones only train, so that their folder need not be there any more.

    Spare patients may be behind those, since only val and test were looked at when the run took their folder:
    PixmedError then, and where the run's record of them is gone.
    """
    data = config["data"]
    dataset = open_dataset(**{**data, "synthetic_dir": ""}, seed=config["seed"])
    if SPARE in split.split("+") and data.get("synthetic_dir"):
        record = provenance.read_split(workdir)
        if record is None:
            raise PixmedError(
                f"{workdir / run_folder.SPLIT}: missing or unreadable, so nobody knows whether spare "
                "patients are behind the synthetic slices; leave spare out of the split"
            )
        if behind := record.get("behind"):
            tested = {SPARE: dataset.of(SPARE)}
            refuse_leaks(Path(data["synthetic_dir"]), behind, dataset.source, tested, data["split"]["by"])
    return dataset


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
