"""On whom a run is judged: the data of its config, and what every evaluation.json and page begins with."""

import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pixmed_jax import config as configs
from pixmed_jax import workdir as run_folder
from pixmed_jax.data import leaks
from pixmed_jax.data.sources import Dataset
from pixmed_jax.data.splits import SPARE
from pixmed_jax.data.synthetic import PREFIX
from pixmed_jax.errors import PixmedError, listing
from pixmed_jax.same_data import changed, open_of_run, record_of
from pixmed_jax.training import build

# What and under which licence, where the project itself knows; `about` of the config says more, or other.
KNOWN = {
    "phantom": (
        "head phantoms that this project draws (pixmed_jax.data.phantom); of no real patient",
        "Apache-2.0, that of the code which draws them",
    ),
    "brain_tumor_mri": (
        "Jun Cheng, brain tumor dataset, figshare 1512427: T1-weighted contrast-enhanced MR slices",
        "CC BY 4.0",
    ),
}


def open_data(workdir: Path, config: Mapping[str, Any], split: str) -> Dataset:
    """Real slices alone: synthetic ones only train, so that their folder need not be there any more."""
    dataset = open_of_run(workdir, config)
    check_unseen(workdir, config, dataset, split)
    return dataset


def check_unseen(workdir: Path, config: Mapping[str, Any], dataset: Dataset, split: str) -> None:
    """PixmedError, if a split is empty, or one but that of training holds whom the run's own record says its
    weights have seen, or who is behind what they have seen.

    Splits are drawn from the names in the data: one patient more or less, and everybody may be elsewhere. And
    spare patients may be behind synthetic slices or the weights that the run started from, since only val and
    test were looked at when it took these: PixmedError then too, and where the record of them is gone.
    """
    if not len(dataset.of(split)):
        raise PixmedError(
            f"{workdir}: has no slices in its {split} split; give another as split, such as val"
        )
    record = record_of(workdir)
    tested = [name for name in split.split("+") if name != "train"]
    if not tested:
        _check_train(workdir, dataset, record or {"train": {}})
        return
    if record is None:
        if SPARE in tested and (config["data"].get("synthetic_dir") or build.warm_start(config)):
            raise PixmedError(
                f"{workdir / run_folder.SPLIT}: missing or unreadable, so nobody knows whether spare "
                "patients are behind what it was trained on; leave spare out of the split"
            )
        return
    by, behind = config["data"]["split"]["by"], record.get("behind", {})
    if behind is None:
        warnings.warn(
            f"{workdir}: nobody knows whom the weights have seen that it started from, so scores may be "
            "too good",
            stacklevel=2,
        )
    elif told := leaks.told(behind, dataset.source, {name: dataset.of(name) for name in tested}, by):
        raise PixmedError(
            f"{workdir}: the synthetic slices or weights that it was trained with come from {told}; leave "
            "these out of the split, or put the data back as they were"
        )
    joined, what = "+".join(tested), "slices" if by == "slice" else "patients"
    if shared := leaks.shared(record["train"], dataset.source, dataset.of(joined), by):
        raise PixmedError(
            f"{workdir}: was trained on {len(shared)} {what} that are in "
            f"{joined} now ({listing(shared, 5)}), so the data have changed since; put them back as they were"
        )


def _check_train(workdir: Path, dataset: Dataset, record: Mapping[str, Any]) -> None:
    """PixmedError, if other real slices are to train on than the run's record says."""
    was = {file for file in record["train"] if not file.startswith(PREFIX)}
    now = {dataset.source.files[row] for row in dataset.of("train")}
    if was and (other := was ^ now):
        raise changed(workdir, other, "slices of train are new or gone")


def of(config: Mapping[str, Any], dataset: Dataset, split: str, step: int) -> dict[str, Any]:
    """Of a run judged on the slices of a split; `n` is how many these are."""
    rows = dataset.of(split)
    return {
        "n": len(rows),
        "patients": len({dataset.source.groups[row] for row in rows}),
        "patients_known": patients_known(dataset, rows),
        "split": split,
        "split_by": config["data"]["split"]["by"],
        "step": step,
        "size": dataset.size,
        "config": configs.digest(config),
    }


def described(config: Mapping[str, Any]) -> dict[str, Any]:
    """For a page's head: "title"; "data", what these are as the config or the project says, else the folder's
    name; "phantoms", whether they are drawn, so that "real" and "patient" do not mean what they say.
    """
    source, folder = config["data"]["source"], Path(config["data"]["dir"]).name
    known, _ = KNOWN.get(source, (None, None))
    data = config.get("about", {}).get("data") or known or (f"folder {folder}" if folder else source)
    on = "drawn phantoms" if source == "phantom" else folder if source == "folder" and folder else source
    title = f"{config['name']} ({config['preset']}) on {on}"
    return {"title": title, "data": data, "phantoms": source == "phantom"}


def patients_known(dataset: Dataset, rows: Iterable[int]) -> bool:
    """Whether the data name the patients of these rows: where they do not, each slice is its own group."""
    return any(dataset.source.groups[row] != dataset.source.files[row] for row in rows)


def memorised(
    entry: Mapping[str, Any], config: Mapping[str, Any], dataset: Dataset, split: str
) -> dict[str, Any]:
    """An entry "memorisation" of slices of `split`, with how the data were split, on which its verdict hangs,
    and None for the number of patients where nobody knows it.
    """
    known = patients_known(dataset, dataset.of(f"train+{split}"))
    patients = entry["patients"] if known else dict.fromkeys(entry["patients"])
    return {**entry, "patients": patients, "split_by": config["data"]["split"]["by"]}


def whom(result: Mapping[str, Any]) -> str:
    """On whom, for the terminal: "261 test slices of 19 patients"."""
    who = f"{result['patients']} patients" if result["patients_known"] else "unknown patients"
    return f"{result['n']} {result['split']} slices of {who}"
