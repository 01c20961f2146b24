"""Heads to draw into: phantoms of patients that no preset trains on, slices of a run's own test split, or
maps that a layout model draws, which are of nobody.

A phantom is taken twice, with and without its tumour, so its anatomy is what it was before the tumour grew. A
real slice has the tumour's place filled with the brain around it (`data/edits.py`), and so has a drawn map.
"""

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pixmed_jax import conditions, layouts
from pixmed_jax import workdir as run_folder
from pixmed_jax.data import edits
from pixmed_jax.data.phantom import LABEL_NAMES, PLANES, patient_slices
from pixmed_jax.data.plausible import surveyed
from pixmed_jax.data.regions import head, is_tumor, known_heads, label_map
from pixmed_jax.data.tissues import survey
from pixmed_jax.demo.scene import Scene
from pixmed_jax.errors import PixmedError
from pixmed_jax.inference import Generator
from pixmed_jax.same_data import open_of_run

# Chosen by eye: every plane and every class of tumour twice. Presets have at most 480 patients.
_PHANTOMS = ((1002, "axial"), (1011, "sagittal"), (1005, "coronal"), (1014, "axial"), (1009, "coronal"),
             (1000, "sagittal"))  # fmt: skip
_MOST = 6


def scenes(folder: Path, generator: Generator, layout: str = "") -> list[Scene]:
    """Maps of the layout model in the folder `layout`; without one, slices of the run in `folder` if they can
    be opened, phantoms if not; [] for a model without maps.
    """
    if not generator.takes_maps:
        if layout:
            raise PixmedError("demo.layout: this model knows no masks; leave it out")
        return []
    if layout:
        return of_layouts(layout, generator)
    if (folder / "checkpoints").is_dir():
        try:
            return of_run(folder, generator)
        except PixmedError as error:
            print(f"{error}; phantoms take the place of the run's slices", file=sys.stderr)
    return of_phantoms(generator)


def of_phantoms(generator: Generator) -> list[Scene]:
    return [_phantom(patient, plane, generator) for patient, plane in _PHANTOMS]


def _phantom(patient: int, plane: str, generator: Generator) -> Scene:
    data, tumors = generator.config["data"], tumor_names(generator.classes)
    slices = patient_slices(patient, size=generator.size, count=len(PLANES), healthy=True)
    taken = next(s for s in slices if s.plane == plane)
    nothing = np.zeros_like(taken.mask)
    maps, _ = label_map(
        nothing[None],
        taken.image[None, ..., None],
        condition=data["condition"],
        label_names=tumors,
        class_channels=len(tumors) > 1,
        tissue_classes=data.get("tissues", 4),
    )
    label = LABEL_NAMES[taken.label]
    tumor = taken.mask > 0
    where = survey(taken.image, head(taken.image), nothing > 0)
    return Scene(plane, maps[0], tumor, label if label in tumors else tumors[0], where)


def of_run(workdir: Path, generator: Generator) -> list[Scene]:
    """Slices of test patients, of every label in turn."""
    config = run_folder.read_config(workdir)
    dataset = open_of_run(workdir, config)
    rows = dataset.spread("test", _MOST)
    arrays, slices = dataset.load(rows, dataset.size)
    maps, tumors = np.asarray(arrays.maps), tumor_names(generator.classes)
    outlines = known_heads(maps, slices.images, dataset.condition)
    found = []
    for i, row in enumerate(rows):
        where = survey(slices.images[i].mean(axis=-1), outlines[i], slices.masks[i] > 0)
        apart = edits.take_apart(maps[i], len(tumors), where)
        label = tumors[max(int(apart.tumor.max()) - 1, 0)]
        found.append(Scene(dataset.source.planes[row], apart.anatomy, apart.tumor > 0, label, where))
    return found


def of_layouts(layout: str, generator: Generator) -> list[Scene]:
    """Maps of nobody, of every tumour and plane that the layout model knows in turn."""
    given = conditions.of_layouts(layouts.load(layout), "", "", _MOST, 0, generator, Counter())
    tumors, found = len(tumor_names(generator.classes)), []
    for one, label, told in zip(given.maps, given.labels, given.parameters, strict=True):
        where = surveyed(one, generator.classes)
        apart = edits.take_apart(one, tumors, where)
        name = told.removeprefix("plane=") or "drawn"
        found.append(Scene(name, apart.anatomy, apart.tumor > 0, label, where))
    return found


def tumor_names(classes: Sequence[str]) -> tuple[str, ...]:
    """The classes that can be drawn; of a model whose condition is the label, all."""
    return tuple(filter(is_tumor, classes))
