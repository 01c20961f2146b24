"""Which data a config means: a source, its split, and its slices as arrays.

`open_dataset` reads an index only; `Dataset.load` decodes chosen rows at one size.
"""

import sys
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pixmed_jax.data import augment_settings, classes, folder, tables, usable
from pixmed_jax.data import degrade as degrading
from pixmed_jax.data.pipeline import Arrays, Batch, whole_batch
from pixmed_jax.data.regions import MAPS, class_names, label_map
from pixmed_jax.data.slices import PLANES, Slices, Source, load, plane_values
from pixmed_jax.data.splits import SPARE
from pixmed_jax.data.splits import split as split_rows
from pixmed_jax.data.synthetic import join
from pixmed_jax.enhancement.methods import prepared
from pixmed_jax.errors import PixmedError, listing, one_of


class Dataset(NamedTuple):
    """A source and the rows of its splits.

    `classes` names the values 1 .. K of the label maps; a network sees `size` x `size` pixels and `channels`
    channels, cropped from `load_size` while training.
    """

    source: Source
    rows: Mapping[str, np.ndarray]
    classes: tuple[str, ...]
    condition: str
    class_channels: bool
    tissue_classes: int
    size: int
    load_size: int
    channels: int
    degrade: degrading.Degrade | None = None  # what makes the condition, where that is a degraded image
    # {file: patient} that synthetic training slices come from, or that the weights have seen which a training
    # starts from; None where nobody knows these.
    behind: Mapping[str, str] | None = {}
    left_out: tuple[str, ...] = ()  # what was wrong with the slices that data.faulty=skip left out
    planes: tuple[str, ...] = ()  # those of the slices, where the network is told the plane

    def load(self, rows: np.ndarray, size: int) -> tuple[Arrays, Slices]:
        """The given rows of the source at size x size; labels are planes where the network is told these."""
        if not self.masked:
            slices = load(self.source._replace(masked=False), rows, size)  # nothing hangs on its masks
            return Arrays(slices.images, (slices.labels + 1).astype(np.uint8), slices.labels), slices
        slices = load(self.source, rows, size, class_channels=self.class_channels)
        maps, _ = label_map(
            slices.masks,
            slices.images,
            condition=self.condition,
            label_names=slices.label_names,
            class_channels=self.class_channels,
            tissue_classes=self.tissue_classes,
        )
        labels = plane_values([self.source.planes[row] for row in rows]) if self.planes else slices.labels
        return Arrays(slices.images, maps, labels), slices

    def batch(self, arrays: Arrays) -> Batch:
        """What a network is given of loaded slices, neither cropped nor changed."""
        return whole_batch(arrays, classes=len(self.classes), channels=self.channels, degrade=self.degrade)

    @property
    def masked(self) -> bool:
        """Whether the condition is made of masks."""
        return self.condition in MAPS

    def of(self, split: str) -> np.ndarray:
        """Rows of a split, or of several: "val+test". Where all train, nobody is spare."""
        names, rows = split.split("+"), {**self.rows, SPARE: self.rows.get(SPARE, np.zeros(0, np.int64))}
        for name in names:
            one_of("split", name, rows, given=split)
        return np.sort(np.concatenate([rows[name] for name in names]))

    def check(self) -> None:
        """Read every slice of every split once; PixmedError with all that cannot be used."""
        masked = self.source.masked and self.masked
        usable.check(
            self.source._replace(masked=masked),
            _sizes(self.size, self.load_size),
            channels=self.channels,
            class_channels=self.class_channels,
        )

    def spread(self, name: str, count: int) -> np.ndarray:
        """Up to `count` rows of a split, to look at: labels in turn, and patients in turn in each."""
        turns: Counter[tuple[int, str]] = Counter()
        places: Counter[int] = Counter()
        order = []
        for row in self.of(name):
            who = (int(self.source.labels[row]), self.source.groups[row])
            order.append((turns[who], int(row)))  # a patient's first slice before anyone's second
            turns[who] += 1
        ranked = []
        for _, row in sorted(order):
            label = int(self.source.labels[row])
            ranked.append((places[label], label, row))
            places[label] += 1
        return np.array([row for _, _, row in sorted(ranked)[:count]])

    def description(self) -> dict[str, Any]:
        """{split: {file: patient group}}, the record of who was trained on; "behind" that, if anybody."""
        files, groups = self.source.files, self.source.groups
        told = {name: {files[i]: groups[i] for i in rows} for name, rows in self.rows.items()}
        return told if self.behind == {} else {**told, "behind": self.behind and dict(self.behind)}


def open_dataset(
    *,
    source: str,
    size: int,
    load_scale: float,
    channels: int,
    dir: str = "",
    images: str = "images",
    masks: str = "masks",
    meta: str = "meta.csv",
    file_column: str = "file",
    label_column: str = "label",
    patient_column: str = "patient_group",
    split_column: str = "",
    class_name: str = "tumor",
    allow_empty_masks: bool = False,
    leave_out: str = "",
    synthetic_dir: str = "",
    synthetic: str = "add",
    synthetic_trust: bool = False,
    axis: str = "stored",
    intensity: str = "auto",
    enhance: str = "none",
    patients: int = 240,
    condition: str = "tumor",
    class_channels: bool = False,
    tissues: int = 4,
    scale: int = 2,
    planes: bool = False,
    faulty: str = "error",
    faulty_most: float = 0.05,
    split: Mapping[str, Any],
    augment: augment_settings.Settings | None = None,
    seed: int,
) -> Dataset:
    """`config.data` as keyword arguments; `patients` counts for phantoms only, `augment` is only checked.

    enhance: what brightens slices when they are read (enhancement/methods.py).
    planes: tell the network each slice's plane, in the place of its label.
    faulty: "error" leaves slices that cannot be used to who reads them; "skip" reads all once and leaves
    them out, if they are no more than `faulty_most` of all.
    """
    if faulty not in ("error", "skip"):
        raise PixmedError(f"data.faulty={faulty!r} is unknown; use error or skip")
    if not 0 <= faulty_most < 1:
        raise PixmedError(f"data.faulty_most={faulty_most}: give a share of the slices, from 0 to below 1")
    augment_settings.check(augment, "data.augment")
    degrading.check(condition, scale, size)
    if source not in SOURCES:
        raise PixmedError(f"data.source={source!r} is unknown; use one of {', '.join(SOURCES)}")
    index = SOURCES[source](
        dir=dir,
        images=images,
        masks=masks,
        meta=meta,
        file_column=file_column,
        label_column=label_column,
        patient_column=patient_column,
        split_column=split_column,
        class_name=class_name,
        allow_empty_masks=allow_empty_masks,
        axis=axis,
        intensity=intensity,
        patients=patients,
        channels=channels,
        keep_faulty=faulty == "skip",
    )
    index = prepared(index, enhance)
    if leave_out:
        index = _without(index, Path(leave_out), images)
    load_size = max(size, round(size * load_scale))
    faults: dict[int, str] = {}
    if faulty == "skip":
        masked = index.masked and condition in MAPS
        faults = usable.faults(
            index._replace(masked=masked),
            _sizes(size, load_size),
            channels=channels,
            class_channels=class_channels,
        )
        usable.check_share(index, faults, faulty_most)
    left_out = tuple(faults.values())
    index, faults = usable.with_known(index, faults, by=split.get("by", "patient"))
    # Of all that the index names: whom a network cannot use decides about nobody else's split.
    rows = split_rows(index, given=index.given or None, **{"seed": seed, **split})
    index, rows = usable.without(index, rows, faults)
    known = tuple(name for name in PLANES if name in set(index.planes))
    if planes and not known:
        raise PixmedError("data.planes=true: no slice's plane is known in these data; set it to false")
    behind: Mapping[str, str] = {}
    if synthetic_dir:  # after the split, in which they have no part
        index, rows, behind = join(
            index,
            rows,
            synthetic_dir,
            how=synthetic,
            by=split.get("by", "patient"),
            labelled=condition not in MAPS,
            trust=synthetic_trust,
            classes=class_channels and condition in MAPS,
        )
    return Dataset(
        source=index,
        rows=rows,
        classes=class_names(condition, index.label_names, class_channels, tissues),
        condition=condition,
        class_channels=class_channels,
        tissue_classes=tissues,
        size=size,
        load_size=load_size,
        channels=channels,
        degrade=degrading.degradation(condition, scale),
        behind=behind,
        left_out=left_out,
        planes=known if planes else (),
    )


def _phantom(*, dir: str, patients: int, **_: Any) -> Source:
    from pixmed_jax.data import phantom_builder  # imports TFDS, which only phantoms need

    return phantom_builder.source(data_dir=dir or None, patients=patients)


def _folder(*, dir: str, intensity: str, patients: int, channels: int, **options: Any) -> Source:
    return folder.source(_given(dir, "folder"), rule=intensity, **options)


def _brain_tumor_mri(*, dir: str, intensity: str, split_column: str, **_: Any) -> Source:
    from pixmed_jax.data import brain_tumor_mri_builder

    return brain_tumor_mri_builder.source(data_dir=dir or None, rule=intensity, split_column=split_column)


def _classes(
    *,
    dir: str,
    intensity: str,
    channels: int,
    meta: str,
    file_column: str,
    patient_column: str,
    **_: Any,
) -> Source:
    return classes.source(
        _given(dir, "classes"),
        rule=intensity,
        grey=channels == 1,
        meta=meta,
        file_column=file_column,
        patient_column=patient_column,
    )


def _given(dir: str, source: str) -> str:
    if not dir:
        raise PixmedError(f"data.source={source}: data.dir is empty; set it to the folder of your slices")
    return dir


# By the name in the config: what opens it, of the keys of `data` as keyword arguments.
SOURCES: dict[str, Callable[..., Source]] = {
    "phantom": _phantom,
    "folder": _folder,
    "brain_tumor_mri": _brain_tumor_mri,
    "classes": _classes,
}


def _sizes(size: int, load_size: int) -> list[int]:
    """Those that slices are loaded at, to train and to look at."""
    return sorted({size, load_size})


def _without(index: Source, path: Path, images: str) -> Source:
    """The source without the files that a list names: a CSV with a column `file`, such as check_data's.

    A file may be named as the source names it or with the folder of images before it. A list of copies
    between two sets leaves out those of its column `file`, or of `against` where this is the second set;
    where both sets have files of these names, nobody can tell which is meant. Slices of volumes that the
    index passes over may be in the list too.
    """
    columns, rows = tables.read_table(path, "data.leave_out")
    if "file" not in columns:
        raise PixmedError(f"{path}: no column 'file'; set data.leave_out to a list as check_data writes it")
    known = index.tumorless.union(index.files)
    named: dict[str, set[str]] = {}
    for column in ("file", "against") if "against" in columns else ("file",):
        names = {row[column] or "" for row in rows}
        named[column] = {name if name in known else name.removeprefix(f"{images}/") for name in names}
    ours = [names for names in named.values() if names <= known]
    if not ours:
        unknown = sorted(named["file"] - known)
        raise PixmedError(
            f"{path}: {len(unknown)} files are not in the data ({listing(unknown)}); remove them or set "
            "data.dir to the folder that was checked"
        )
    if ours[0] != ours[-1]:
        raise PixmedError(
            f"{path}: files of both its columns are in these data, since the two sets use the same names; "
            "keep the column of this set alone, as `file`"
        )
    total = len(index.files)
    kept = [row for row, name in enumerate(index.files) if name not in ours[0]]
    if not kept:
        raise PixmedError(f"{path}: names all {total} slices; set data.leave_out to a shorter list")
    print(f"{path}: {total - len(kept)} of {total} slices are left out", file=sys.stderr)
    return index.take(kept)
