"""Which data a config means: a source, its split, and its slices as arrays.

`open_dataset` reads an index only; `Dataset.load` decodes chosen rows at one size.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from pixmed_jax.data import classes, folder
from pixmed_jax.data.pipeline import Arrays
from pixmed_jax.data.regions import class_names, label_map
from pixmed_jax.data.slices import Slices, Source, load
from pixmed_jax.data.splits import split as split_rows
from pixmed_jax.errors import PixmedError


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
    size: int
    load_size: int
    channels: int

    def load(self, rows: np.ndarray, size: int) -> tuple[Arrays, Slices]:
        """The given rows of the source at size x size."""
        slices = load(self.source, rows, size)
        maps, _ = label_map(
            slices.masks,
            slices.images,
            condition=self.condition,
            label_names=slices.label_names,
            class_channels=self.class_channels,
        )
        return Arrays(slices.images, maps, slices.labels), slices

    def spread(self, name: str, count: int) -> np.ndarray:
        """Up to `count` rows of split `name`, to look at: labels in turn, and patients in turn in each."""
        turns: Counter[tuple[int, str]] = Counter()
        places: Counter[int] = Counter()
        order = []
        for row in self.rows[name]:
            who = (int(self.source.labels[row]), self.source.groups[row])
            order.append((turns[who], int(row)))  # a patient's first slice before anyone's second
            turns[who] += 1
        ranked = []
        for _, row in sorted(order):
            label = int(self.source.labels[row])
            ranked.append((places[label], label, row))
            places[label] += 1
        return np.array([row for _, _, row in sorted(ranked)[:count]])

    def description(self) -> dict[str, dict[str, str]]:
        """{split: {file: patient group}}, the record of who was trained on."""
        files, groups = self.source.files, self.source.groups
        return {name: {files[i]: groups[i] for i in rows} for name, rows in self.rows.items()}


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
    allow_empty_masks: bool = False,
    axis: str = "stored",
    intensity: str = "auto",
    patients: int = 240,
    condition: str = "tumor",
    class_channels: bool = False,
    split: Mapping[str, Any],
    seed: int,
) -> Dataset:
    """`config.data` as keyword arguments; `patients` counts for phantoms only."""
    if source == "phantom":
        from pixmed_jax.data import phantom_builder  # imports TFDS, which only phantoms need

        index = phantom_builder.source(data_dir=dir or None, patients=patients)
    elif source == "folder":
        index = folder.source(
            dir,
            images=images,
            masks=masks,
            meta=meta,
            file_column=file_column,
            label_column=label_column,
            patient_column=patient_column,
            split_column=split_column,
            allow_empty_masks=allow_empty_masks,
            axis=axis,
            rule=intensity,
        )
    elif source == "brain_tumor_mri":
        from pixmed_jax.data import brain_tumor_mri_builder

        index = brain_tumor_mri_builder.source(data_dir=dir or None, rule=intensity)
    elif source == "classes":
        index = classes.source(dir, rule=intensity)
    else:
        known = "phantom, folder, brain_tumor_mri, classes"
        raise PixmedError(f"data.source={source!r} is unknown; use one of {known}")
    return Dataset(
        source=index,
        rows=split_rows(index, seed=seed, given=index.given or None, **split),
        classes=class_names(condition, index.label_names, class_channels),
        condition=condition,
        class_channels=class_channels,
        size=size,
        load_size=max(size, round(size * load_scale)),
        channels=channels,
    )
