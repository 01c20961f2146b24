"""On whom a run is judged: the data of its config, and what every evaluation.json begins with."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pixmed_jax import config as configs
from pixmed_jax import workdir as run_folder
from pixmed_jax.data.sources import Dataset, open_dataset
from pixmed_jax.data.splits import SPARE
from pixmed_jax.data.synthetic import refuse_leaks
from pixmed_jax.errors import PixmedError, listing


def open_data(workdir: Path, config: Mapping[str, Any], split: str) -> Dataset:
    """Real slices alone: synthetic ones only train, so that their folder need not be there any more.

    Spare patients may be behind those, since only val and test were looked at when the run took their folder:
    PixmedError then, and where the run's record of them is gone.
    """
    data = config["data"]
    dataset = open_dataset(**{**data, "synthetic_dir": ""}, seed=config["seed"])
    if SPARE in split.split("+") and data.get("synthetic_dir"):
        record = run_folder.read_split(workdir)
        if record is None:
            raise PixmedError(
                f"{workdir / run_folder.SPLIT}: missing or unreadable, so nobody knows whether spare "
                "patients are behind the synthetic slices; leave spare out of the split"
            )
        if behind := record.get("behind"):
            tested = {SPARE: dataset.of(SPARE)}
            refuse_leaks(Path(data["synthetic_dir"]), behind, dataset.source, tested, data["split"]["by"])
    check_unseen(workdir, config, dataset, split)
    return dataset


def check_unseen(workdir: Path, config: Mapping[str, Any], dataset: Dataset, split: str) -> None:
    """PixmedError, if a split but that of training holds whom the run's own record says it was trained on.

    Splits are drawn from the names in the data: one patient more or less, and everybody may be elsewhere.
    """
    tested = "+".join(name for name in split.split("+") if name != "train")
    record = run_folder.read_split(workdir)
    if not tested or record is None:
        return
    by_slice = config["data"]["split"]["by"] == "slice"
    names = dataset.source.files if by_slice else dataset.source.groups
    trained = set(record["train"]) if by_slice else set(record["train"].values())
    if shared := sorted({names[row] for row in dataset.of(tested)} & trained):
        raise PixmedError(
            f"{workdir}: was trained on {len(shared)} {'slices' if by_slice else 'patients'} that are in "
            f"{tested} now ({listing(shared, 5)}), so the data have changed since; put them back as they were"
        )


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
