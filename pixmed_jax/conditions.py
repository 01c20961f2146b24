"""What a sampling draws from: a split's label maps, masks from a folder, layouts that a model draws, labels.

Errors: PixmedError.
"""

import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pixmed_jax import inference, layouts
from pixmed_jax import workdir as run_folder
from pixmed_jax.data import arrays, edits, mask_files, volumes
from pixmed_jax.data.faults import not_utf8, raise_all
from pixmed_jax.data.pictured import pictured, without_head
from pixmed_jax.data.regions import HEADED, MAPS, is_tumor, known_heads
from pixmed_jax.data.slices import plane_values
from pixmed_jax.data.sources import Dataset
from pixmed_jax.data.synthetic import RECONSTRUCTION, SAMPLED
from pixmed_jax.data.tissues import Survey, survey
from pixmed_jax.data.values import floats
from pixmed_jax.errors import OptionError, PixmedError, listing, one_of
from pixmed_jax.evaluation.facts import check_unseen
from pixmed_jax.progress import watched
from pixmed_jax.same_data import open_of_run

_SCENES = 1024  # slices kept taken apart: 80 kB each at 128 x 128


class NoNetwork(NamedTuple):
    """What copied pixels need to know in the place of a generator: a run's config, trained or not.

    dataset: the run's, which is opened once; to open it reads every mask.
    """

    config: dict[str, Any]
    dataset: Dataset
    grey: bool
    step: int = 0
    takes_maps: bool = True
    limits: tuple[float, float] = (0.0, 1.0)

    @property
    def classes(self) -> tuple[str, ...]:
        return self.dataset.classes

    @property
    def size(self) -> int:
        return self.dataset.size


Painter = inference.Generator | NoNetwork


class Conditions(NamedTuple):
    """Label maps [N, S, S] uint8, or labels [N], to draw from; the label, patient group and file of each.

    `limits` [N, 2] are the values that 0 and 1 stand for in the images, `pixels` [N] the sides of their
    pixels in mm, NaN where unknown. `suffixes` go into the names of what is drawn from each: the volume and
    the slice. `scene` takes one of the maps apart for an edit, and `image` is its slice, [S, S, C] float32
    in [0, 1]; masks without their slices have neither. `tumors` are the classes of which a label is the one
    that its map has most of; empty where labels are named. `grade` is that of what is drawn from them as
    they are, `parameters` what else the manifest says of each.
    """

    maps: np.ndarray
    labels: tuple[str, ...]
    groups: tuple[str, ...]
    files: tuple[str, ...]
    limits: np.ndarray
    pixels: np.ndarray
    grade: str = ""
    scene: Callable[[int], edits.Scene] | None = None
    image: Callable[[int], np.ndarray] | None = None
    suffixes: tuple[str, ...] = ()
    parameters: tuple[str, ...] = ()
    tumors: tuple[str, ...] = ()

    def label_of(self, label_map: np.ndarray, row: int) -> str:
        """The label of a map that was drawn from the tumour of `row`."""
        return _most_of(label_map, self.tumors) or self.labels[row]


def _most_of(label_map: np.ndarray, tumors: Sequence[str]) -> str:
    """Which of `tumors`, the first classes of a map, has most pixels; of equals the first, of none ""."""
    counts = np.bincount(label_map.ravel(), minlength=1 + len(tumors))[1 : 1 + len(tumors)]
    return tumors[int(counts.argmax())] if counts.any() else ""


def no_network(workdir: Path) -> NoNetwork:
    """Of the folder of a run that is told masks, be it trained or only begun."""
    config = run_folder.read_config(workdir)
    data = config.get("data", {})
    if data.get("condition") not in MAPS:
        raise PixmedError(
            f"{workdir}: sample.painter=copy_paste cuts out what masks show, and data.condition="
            f"{data.get('condition')!r} has none; give a run of {', '.join(MAPS)}"
        )
    dataset = open_of_run(workdir, config)
    arrays, _ = dataset.load(dataset.rows["train"][:1], dataset.size)
    return NoNetwork(config, dataset, grey=arrays.images.shape[-1] == 1)


def of_split(workdir: Path, split: str, generator: Painter) -> Conditions:
    config = run_folder.read_config(workdir)
    dataset = generator.dataset if isinstance(generator, NoNetwork) else open_of_run(workdir, config)
    one_of("sample.split", split, dataset.rows)
    check_unseen(workdir, config, dataset, split)
    arrays, slices = dataset.load(dataset.rows[split], dataset.size)
    labels = tuple(slices.label_names[i] for i in slices.labels)
    maps, tumors = np.asarray(arrays.maps), sum(map(is_tumor, dataset.classes))
    if maps.ndim == 1:
        return of_labels(_of_seen(labels, _seen(run_folder.read_split(workdir), dataset)), generator)
    planes = [dataset.source.planes[row] for row in dataset.rows[split]]

    def found(i: int) -> Survey:
        (head,) = known_heads(maps[i : i + 1], slices.images[i : i + 1], dataset.condition)
        return survey(slices.images[i].mean(axis=-1), head, slices.masks[i] > 0)

    @lru_cache(1)
    def brainless() -> bool:
        """Whether the slices are of something else, whose masks are edited without a brain around them."""
        if dataset.condition in HEADED:  # what its map shows has to be a head
            return False
        seen = without_head(slices.images, slices.masks)
        if not seen.most:
            return False
        print(
            f"{seen.others} of {seen.looked} slices that were looked at show no head: masks are edited "
            "within the whole picture, and none is swapped",
            file=sys.stderr,
        )
        return True

    @lru_cache(_SCENES)
    def scene(i: int) -> edits.Scene:
        where = pictured(slices.images[i]) if brainless() else found(i)
        return edits.take_apart(maps[i], tumors, where, planes[i])

    def image(i: int) -> np.ndarray:
        return floats(slices.images[i])

    counted = dataset.source.counted and dataset.class_channels
    return Conditions(
        maps,
        labels,
        slices.groups,
        slices.files,
        slices.limits,
        slices.pixels,
        RECONSTRUCTION,
        scene,
        image,
        tumors=dataset.classes[:tumors] if counted else (),
    )


def of_classes(workdir: Path, label: str, generator: Painter) -> Conditions:
    """The class `label`, or each class once that training slices of the run in `workdir` have."""
    if label and label not in generator.classes:
        return of_labels((label,), generator)  # which refuses it
    record, seen = run_folder.read_split(workdir), None
    if record is not None:  # of an exported model nobody knows
        try:
            seen = _seen(record, open_of_run(workdir, run_folder.read_config(workdir)))
        except PixmedError as error:
            print(
                f"whether this run was trained on slices of every class is unknown: {error}", file=sys.stderr
            )
    if label and seen is not None and label not in seen:
        raise OptionError(
            f"sample.label={label!r}: no slice that this run was trained on has it; give one of "
            f"{', '.join(name for name in generator.classes if name in seen)}"
        )
    return of_labels((label,) if label else _of_seen(generator.classes, seen), generator)


def _seen(record: Mapping[str, Any] | None, dataset: Dataset) -> set[str] | None:
    """The labels of the slices that a run's record says it was trained on; None where its weights have seen
    others too, or that is unknown.
    """
    label_of = dict(zip(dataset.source.files, dataset.source.labels, strict=True))
    if record is None or record.get("behind", {}) != {} or not record["train"].keys() <= label_of.keys():
        return None
    return {dataset.source.label_names[label_of[file]] for file in record["train"]}


def _of_seen(labels: Sequence[str], seen: set[str] | None) -> tuple[str, ...]:
    """Those of the labels that were trained on; the others are told on stderr."""
    others = sorted(set(labels) - seen) if seen is not None else []
    kept = tuple(name for name in labels if name not in others)
    if not kept:
        raise PixmedError(f"sample.split: no training slice has {listing(others)}; give another split")
    if others:
        print(f"no training slice has {listing(others)}, so none of these is drawn", file=sys.stderr)
    return kept


def of_labels(labels: Sequence[str], generator: Painter) -> Conditions:
    """Labels alone."""
    unknown = [name for name in labels if name not in generator.classes]
    if unknown:
        raise OptionError(f"sample.label={unknown[0]!r} is not one of {', '.join(generator.classes)}")
    values = np.array([1 + generator.classes.index(name) for name in labels], np.uint8)
    return Conditions(values, tuple(labels), *_nobodys(len(values), generator))


def of_layouts(
    model: layouts.Layouts,
    label: str,
    plane: str,
    number: int,
    seed: int,
    generator: Painter,
    refused: Counter[str],
) -> Conditions:
    """`number` layouts, of class `label` and `plane`, or of all in turn; refused draws are counted."""
    given, ours = ((m.classes, m.size, m.config["data"]["condition"]) for m in (model, generator))
    if given != ours:
        raise PixmedError(
            f"the layout model draws {_told(*given)}, and this generator paints {_told(*ours)}; "
            "train both on the same data"
        )
    if label and label not in model.tumors:
        raise OptionError(f"sample.label={label!r} is not one of {', '.join(model.tumors)}")
    if plane and plane not in model.planes:
        known = f"is not one of {', '.join(model.planes)}" if model.planes else "is not known to this model"
        raise OptionError(f"sample.plane={plane!r} {known}; leave it out, or train with data.planes=true")
    if not number:
        raise OptionError("sample.number=0: say how many layouts to draw")
    labels = (label,) if label else model.tumors
    planes = (plane,) if plane else model.planes or ("",)
    kinds = [(name, of) for of in planes for name in labels]
    names, cut = zip(*(kinds[i % len(kinds)] for i in range(number)), strict=True)
    values = np.array([1 + model.tumors.index(name) for name in names])
    maps = layouts.plausible(model, values, plane_values(cut), seed, refused)
    told = tuple(f"plane={of}" if of else "" for of in cut)
    return Conditions(maps, names, *_nobodys(number, generator), parameters=told)


def _told(classes: tuple[str, ...], size: int, condition: str) -> str:
    return f"{condition} at {size} x {size} of {', '.join(classes)}"


def _nobodys(
    number: int, generator: Painter
) -> tuple[tuple[str, ...], tuple[str, ...], np.ndarray, np.ndarray, str]:
    """Groups, files, limits, pixels and grade of what is drawn from no patient, in the units of the
    checkpoint, which knows no lengths."""
    nothing = ("",) * number
    return nothing, nothing, np.tile(generator.limits, (number, 1)), np.full(number, np.nan), SAMPLED


def of_folder(folder: Path, label: str, generator: Painter) -> Conditions:
    """Label maps from a folder of mask pictures and volumes of any size; every faulty one is named."""
    if not folder.is_dir():
        raise PixmedError(f"sample.masks={folder}: no such folder; give one with masks")
    data = generator.config["data"]
    if data.get("dir") and folder.resolve() == (Path(data["dir"]) / data["masks"]).resolve():
        raise OptionError(
            f"sample.masks={folder}: holds the masks of this run's own slices, of its test patients too; "
            "leave it out and give sample.split=train"
        )
    tumors = [name for name in generator.classes if is_tumor(name)]
    if label and label not in tumors:
        raise OptionError(f"sample.label={label!r} is not one of {', '.join(tumors)}")
    paths = sorted(p for p in folder.iterdir() if volumes.is_image(p) and not arrays.hidden(p, folder))
    if not paths:
        raise PixmedError(f"{folder}: holds no mask pictures or volumes ({', '.join(mask_files.SUFFIXES)})")
    raise_all(folder, not_utf8(paths, folder))
    maps, files, suffixes = [], [], []
    faults: dict[str, list[str]] = {}  # {reason: files}
    for path in watched(paths, len(paths), "reading masks"):
        name = path.name
        try:
            axis = generator.config["data"].get("axis", "stored")
            for name, suffix, mask in mask_files.slices(path, axis, len(tumors)):
                maps.append(_as_map(mask, folder / name, label, generator))
                files.append(name)
                suffixes.append(suffix)
        except PixmedError as error:
            faults.setdefault(str(error).removeprefix(f"{folder / name}: "), []).append(name)
    if faults:
        reasons = [f"{_counted(names, len(paths))}: {reason}" for reason, names in faults.items()]
        raise PixmedError(f"{folder}: {listing(reasons)}")
    values = np.stack(maps)
    if not label and len(tumors) > 1:
        told = f"values are read as {', '.join(f'{k} = {name}' for k, name in enumerate(tumors, 1))}"
        if values.max() == 1:
            told = f"masks of 0 and 1 are taken for {tumors[0]}; give sample.label if it is another"
        print(f"{folder}: {told}", file=sys.stderr)
    labels = tuple(_most_of(one, tumors) for one in values)
    limits, unknown = np.tile(generator.limits, (len(files), 1)), np.full(len(files), np.nan)
    nobody = ("",) * len(files)
    return Conditions(values, labels, nobody, tuple(files), limits, unknown, suffixes=tuple(suffixes))


def _counted(names: Sequence[str], count: int) -> str:
    """One file by its name, several by how many of all they are."""
    return names[0] if len(names) == 1 else f"{len(names)} of {count} files ({listing(names, 3)})"


def _as_map(mask: np.ndarray, path: Path, label: str, generator: Painter) -> np.ndarray:
    """A mask file's values as the model's classes, at the model's size."""
    values, classes = set(np.unique(mask).tolist()), generator.classes
    binary = values <= {0, 255} or (label and values <= {0, 1})
    anatomy = "head" if "head" in classes else "anatomy"
    tumors = sum(map(is_tumor, classes))
    if (binary or max(values) <= tumors) and tumors < len(classes):
        raise PixmedError(
            f"{path}: shows the tumour but not the {anatomy}, which this model needs too; draw it into a "
            "head with --mode=demo, train with data.condition=tumor, or give label maps, such as the "
            "conditions/ of a sampling "
            f"(0 background, {', '.join(f'{i + 1} {name}' for i, name in enumerate(classes))})"
        )
    if binary and len(classes) > 1 and not label:
        raise PixmedError(
            f"{path}: is a binary mask, and this model knows {', '.join(classes)}; give sample.label"
        )
    if binary:
        mask = np.where(mask > 0, classes.index(label) + 1 if label else 1, 0)
    elif max(values) > len(classes):
        raise PixmedError(
            f"{path}: has values [{listing([str(value) for value in sorted(values)], 8)}]; this model knows "
            f"0 to {len(classes)}: {', '.join(classes)}"
        )
    fitted = mask_files.fitted(mask, generator.size)
    if lost := [classes[value - 1] for value in sorted(set(np.unique(mask)) - set(np.unique(fitted)) - {0})]:
        raise PixmedError(
            f"{path}: loses its {listing(lost)} at this model's {generator.size} x {generator.size} pixels; "
            "draw it larger or leave the file out"
        )
    return fitted


def ordered(labels: Sequence[str], number: int, balance: bool, seed: int | None = None) -> np.ndarray:
    """Which condition each of `number` images takes: all in turn, or with `balance` the labels in turn.

    seed: of the order in which they take their turns; None keeps them as they come. Slices are indexed by
    patient and often by label, so the first of many would be those of a few patients.
    """
    order = np.arange(len(labels))
    if seed is not None:
        order = np.random.default_rng([seed, 0, 1]).permutation(order)  # the stream of no image
    if not balance:
        return np.resize(order, number)
    taken = np.array(labels)[order]
    turns = [np.resize(order[taken == name], number) for name in sorted(set(labels))]
    return np.stack(turns, axis=1).ravel()[:number]
