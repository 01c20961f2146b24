"""What comes before a run's first step: its settings checked, its data opened and read, its folder made.

Errors: PixmedError for what the user can cure.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from pixmed_jax import config as configs
from pixmed_jax import same_data, writing
from pixmed_jax import workdir as run_folder
from pixmed_jax.data.pictured import LOOKED, without_head
from pixmed_jax.data.regions import HEADED
from pixmed_jax.data.sources import Dataset, open_dataset
from pixmed_jax.data.splits import SPARE
from pixmed_jax.errors import PixmedError, listing
from pixmed_jax.training import build, ranges, warm_start
from pixmed_jax.training.task import Task


class Opened(NamedTuple):
    """A config, its settings checked and its data opened."""

    dataset: Dataset
    task: Task
    steps: int


def begin(config: dict[str, Any], workdir: Path) -> None:
    """Make the folder of a run as a training does before its first step; one that is there stays as it is,
    but that it is told where its data are now.

    Raises PixmedError where that is another run's, or what `train` would say of config and data.
    """
    config = configs.plain(config)
    if (workdir / run_folder.CONFIG).exists() and (workdir / run_folder.SPLIT).exists():
        old = run_folder.read_config(workdir)
        changed = [
            key
            for key, values in configs.differences(old, config).items()
            if not configs.is_place(key, *values)
        ]
        if changed:
            raise PixmedError(
                f"{workdir}: was begun with another config ({listing(changed)}); give another --workdir"
            )
        if config["data"]["dir"]:
            same_data.move(workdir, config["data"]["dir"])
        return
    dataset = opened(config).dataset
    check_slices(config, dataset)
    with writing.locked(workdir / "training"):
        make_folder(config, workdir, dataset, fresh=False)


def opened(config: dict[str, Any], record: Mapping[str, Any] | None = None) -> Opened:
    """PixmedError for whatever would stop the training that can be told without reading the slices.

    record: that of a run which is gone on with, None for a new one.
    """
    ranges.check(config)
    dataset = warm_start.with_behind(config, open_data(config), record)
    steps = total_steps(config, len(dataset.rows["train"]))
    check_rates(config, steps)
    return Opened(dataset, build.make_task(config, classes=len(dataset.classes)), steps)


def make_folder(config: dict[str, Any], workdir: Path, dataset: Dataset, *, fresh: bool) -> None:
    """What a run's folder says before its first step: its config, and who is in which split."""
    same = partial(same_data.check, workdir, dataset)
    run_folder.prepare(workdir, config, fresh=fresh, check=same)
    same_data.note(workdir, dataset)
    writing.write_json(workdir / run_folder.SPLIT, dataset.description())
    if dataset.left_out:
        run_folder.note(workdir, left_out=dataset.left_out)


def open_data(config: dict[str, Any]) -> Dataset:
    """The dataset of a config; it has masks, if what the model is told is made of them, and slices to train
    and to validate on.
    """
    dataset = open_dataset(**config["data"], seed=config["seed"])
    if not dataset.source.masked and dataset.masked:
        raise PixmedError(
            f"data.source={config['data']['source']}: has no masks, and this model is trained on them; "
            "set data.source=folder and data.dir to images with masks"
        )
    if build.makes_layouts(config) and config["data"]["class_channels"] and dataset.source.several:
        raise PixmedError(
            "data.class_channels=true: the masks show several classes in one slice, and a layout has one; "
            "set data.class_channels=false here and for the generator, which then draw the tumour as a whole"
        )
    for name in ("train", "val"):
        if not len(dataset.rows[name]):
            cause, remedy = why_empty(config["data"], dataset, name)
            raise PixmedError(f"{cause}, and a training looks at both train and val; {remedy}")
    return dataset


def check_slices(config: dict[str, Any], dataset: Dataset) -> None:
    """Read every slice once; PixmedError with all that cannot be used."""
    if config["data"].get("faulty", "error") == "error":  # else all were read while the dataset was opened
        dataset.check()


def notices(config: dict[str, Any], dataset: Dataset) -> list[str]:
    """What to tell before a training that may not be meant: nobody, or none of a class, to test on; heads
    that are looked for in pictures of something else.
    """
    told, data = [], config["data"]
    if not len(dataset.rows["test"]):
        cause, remedy = why_empty(data, dataset, "test")
        told.append(
            f"{cause}, so nobody is there to test on after the training; {remedy} if that is not meant"
        )
    names, labels = dataset.source.label_names, dataset.source.labels
    # A slice of several classes counts as one of its largest, so others may be in it.
    whole = dataset.source.counted and dataset.source.several
    for split, rows in () if whole else dataset.rows.items():
        there = {names[label] for label in labels[rows]}
        if split != SPARE and there and (absent := [name for name in names if name not in there]):
            told.append(
                f"{split} has no slice of {listing(absent)}, so what is found there says nothing of it"
            )
    if data["condition"] in HEADED and data["source"] != "phantom":
        _, slices = dataset.load(dataset.spread("train", LOOKED), dataset.size)
        seen = without_head(slices.images, slices.masks)
        if seen.most:
            told.append(
                f"data.condition={data['condition']} looks for a head in each picture, and {seen.others} of "
                f"{seen.looked} that were looked at show none; if these are of something else, give "
                "--config.data.condition=tumor"
            )
    return told


def why_empty(data: Mapping[str, Any], dataset: Dataset, name: str) -> tuple[str, str]:
    """Why a split has no slices, and what gives it some."""
    if not dataset.source.given or data["split"]["folds"]:
        shares = tuple(data["split"]["fractions"])
        return f"data.split.fractions={shares}: leaves {name} empty", "give it a share above 0"
    if column := data["split_column"]:
        return f"data.split_column={column}: names no slice {name}", f"call some patients {name} there"
    return f"data.source={data['source']}: its own split has no slice in {name}", f"add a folder {name}"


def total_steps(config: dict[str, Any], train_slices: int) -> int:
    """`train.steps`, or what `train.epochs` comes to; exactly one of the two is not 0."""
    steps, epochs = config["train"]["steps"], config["train"]["epochs"]
    for name, value in (("steps", steps), ("epochs", epochs)):
        if value < 0:
            raise PixmedError(f"train.{name}={value}: give 1 or more, or 0 where the other one counts")
    if bool(steps) == bool(epochs):
        raise PixmedError(
            f"train.steps={steps} and train.epochs={epochs}: set exactly one of them, the other to 0"
        )
    return steps or -(-epochs * train_slices // config["train"]["batch_size"])


def check_rates(config: dict[str, Any], steps: int) -> None:
    """PixmedError for intervals of no step, and for steps that would change nothing."""
    decay = config["optimizer"].get("decay_steps", 0)
    if 0 < decay < steps:
        raise PixmedError(
            f"optimizer.decay_steps={decay}: the rate is 0 from there on, and the training has {steps} steps"
            "; set it to as many, or to 0 for a rate that stays"
        )
    for name, value in configs.flatten({key: config[key] for key in ("log", "checkpoint")}).items():
        if value < 1:
            raise PixmedError(f"{name}={value}: give 1 or more")
