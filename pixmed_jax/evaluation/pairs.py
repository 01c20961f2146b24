"""A sampled folder held against the patients behind it, each grade of pairs by its own question.

Sampled pairs (no patient's map was given): are images and layouts new? Copies and membership as in
`memorisation.py`, of the images by texture and of the label maps by the overlap of classes.

Recombined pairs and reconstructions are of patients: how close does each image stay to the slice and to the
patient that its anatomy is from, and is that patient nearer than everybody else? Distances are those of
`likeness.py`, 0 for the slice itself.

Images [N, S, S] float in [0, 1], label maps [N, S, S] uint8.
Errors: PixmedError for a folder that was not sampled, or whose models have seen the held-out patients.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from pixmed_jax import texts
from pixmed_jax.data import decode, synthetic, tables
from pixmed_jax.data.values import floats
from pixmed_jax.errors import PixmedError, listing
from pixmed_jax.metrics.likeness import likeness
from pixmed_jax.metrics.memorisation import Found, Real, measure
from pixmed_jax.metrics.overlap import overlap

CLOSENESS = ("file", "grade", "edit", "patient_group", "to_source", "to_patient", "to_others", "recognised")


class Pairs(NamedTuple):
    """What a folder holds: the manifest's rows, images, and label maps where the condition is a map."""

    rows: list[dict[str, str]]
    images: np.ndarray
    maps: np.ndarray | None
    trained_on: Mapping[str, str]  # {file: patient}
    contents: str = ""  # a digest of the folder

    def of(self, grades: Sequence[str]) -> "Pairs":
        """Those of some grades."""
        chosen = [i for i, row in enumerate(self.rows) if row["grade"] in grades]
        maps = None if self.maps is None else self.maps[chosen]
        rows = [self.rows[i] for i in chosen]
        return self._replace(rows=rows, images=self.images[chosen], maps=maps)


class Slices(NamedTuple):
    """Real slices: images, patients, label maps or labels, files; N of each."""

    images: np.ndarray
    groups: np.ndarray
    maps: np.ndarray
    files: tuple[str, ...]


class Judged(NamedTuple):
    """The entry of audit.json, and what its pictures and tables need."""

    entry: dict[str, Any]
    sampled: Pairs
    images: Found | None
    layouts: Found | None
    close: list[dict[str, Any]]  # a row of CLOSENESS for each pair of a patient


def read(root: Path, label_names: Sequence[str], classes: int, size: int) -> Pairs:
    """A sampled folder at the size of the run."""
    masked = (root / "conditions").is_dir()
    source = synthetic.read(root, label_names, labelled=False, masked=False, trust=True).source
    _, entries = tables.read_table(root / synthetic.MANIFEST, "audit.samples")
    rows = [{key: value or "" for key, value in entry.items()} for entry in entries]
    if any("grade" not in row for row in rows):
        raise PixmedError(f"{root}: its manifest names no grades; sample again")
    images, maps = [], []
    for i, row in enumerate(rows):
        image, _ = source.read(i)
        grey = floats(image)
        grey = grey.mean(axis=-1) if grey.ndim == 3 else grey
        if grey.shape[0] % size or grey.shape[0] != grey.shape[1]:
            path = root / "images" / row["file"]
            raise PixmedError(f"{path}: is no multiple of {size} x {size}; sample again")
        images.append(np.asarray(Image.fromarray(grey).resize((size, size), Image.Resampling.BOX)))
        if masked:
            maps.append(_map(root / "conditions" / row["file"], classes, size))
    behind = synthetic.trained_on(root, trust=True)
    stacked = np.stack(maps) if masked else None
    return Pairs(rows, np.stack(images), stacked, behind, synthetic.contents(root))


def _map(path: Path, classes: int, size: int) -> np.ndarray:
    label_map = decode.read_mask(path)
    step = label_map.shape[0] // size
    if label_map.shape != (step * size, step * size) or label_map.max() > classes:
        raise PixmedError(f"{path}: no label map of this run's size and classes; sample again")
    return label_map[::step, ::step]


def judge(pairs: Pairs, train: Slices, held_out: Slices, folder: str) -> Judged:
    """Every grade by its question; `folder` is what the entry calls it."""
    entry: dict[str, Any] = {"folder": folder, "contents": pairs.contents, "n": len(pairs.rows)}
    sampled = pairs.of((synthetic.SAMPLED,))
    images = layouts = None
    if sampled.rows:
        known = sorted(set(pairs.trained_on.values()) & set(held_out.groups) - {""})
        if known:
            raise PixmedError(
                f"audit.samples={folder}: its models have seen {len(known)} of the held-out patients "
                f"({listing(known)}); train them with this run's data.split and seed"
            )
        real = Real(train.images, train.groups), Real(held_out.images, held_out.groups)
        images = measure(sampled.images, None, *real)
        if sampled.maps is not None:
            real = Real(train.maps, train.groups), Real(held_out.maps, held_out.groups)
            layouts = measure(sampled.maps, None, *real, overlap)
        entry["sampled"] = {
            "layout": next((row["layout"] for row in sampled.rows if row.get("layout")), None),
            "images": images.entry,
            "layouts": layouts and layouts.entry,
        }
    close = closeness(pairs.of((synthetic.RECOMBINED, synthetic.RECONSTRUCTION)), train, held_out)
    if close:
        entry["of_patients"] = summed(close)
    return Judged(entry, sampled, images, layouts, close)


def closeness(pairs: Pairs, train: Slices, held_out: Slices) -> list[dict[str, Any]]:
    """For each pair the distances to its source slice, and to that patient's and to all others' nearest."""
    files = np.array([*train.files, *held_out.files])
    groups = np.concatenate([train.groups, held_out.groups])
    place = {file: i for i, file in enumerate(files)}
    strangers = [row["source"] for row in pairs.rows if row["source"] not in place]
    if strangers:
        raise PixmedError(
            f"audit.samples: {len(strangers)} pairs are of slices that are neither trained on nor held out "
            f"here ({listing(strangers)}); give a folder that this run sampled, and its audit.split"
        )
    if not pairs.rows:
        return []
    real = np.concatenate([train.images, held_out.images])
    distances = np.maximum(1 - likeness(pairs.images, real, "pairs against real slices"), 0)
    told = []
    for row, of in zip(pairs.rows, distances, strict=True):
        source = place[row["source"]]
        own = groups == groups[source]
        patient, others = of[own].min(), of[~own].min() if (~own).any() else np.inf
        values = (of[source], patient, others)
        named = (row["file"], row["grade"], row["edit"], row["patient_group"], *map(float, values))
        told.append(dict(zip(CLOSENESS, (*named, bool(patient < others)), strict=True)))
    return told


def summed(close: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """{edit: how many, how often its patient is the nearest of all, and the medians of the distances}."""
    edits = sorted({row["edit"] for row in close})
    parts = {edit: [row for row in close if row["edit"] == edit] for edit in edits}
    if len(edits) > 1:
        parts["all"] = list(close)
    return {
        edit: {
            "n": len(rows),
            "recognised": float(np.mean([row["recognised"] for row in rows])),
            **{name: float(np.median([row[name] for row in rows])) for name in CLOSENESS[4:7]},
        }
        for edit, rows in parts.items()
    }


def table(close: Sequence[Mapping[str, Any]]) -> str:
    """closeness.csv."""
    rows = ([f"{v:.4f}" if isinstance(v, float) else v for v in row.values()] for row in close)
    return texts.csv_table([CLOSENESS, *rows])


def summary(entry: Mapping[str, Any]) -> str:
    """For the terminal."""
    lines = [f"{entry['n']} pairs in {entry['folder']}"]
    for name in ("images", "layouts"):
        found = entry.get("sampled", {}).get(name)
        if found:
            copies = "not measured"
            if found["copies"] is not None:
                copies = f"{found['copies']} of {found['n']} (of strangers at most "
                copies += f"{found['copies_expected']:.1f} expected)"
            lines.append(
                f"sampled {name}: memorisation ratio {found['ratio']:.3f}, copies {copies}, who was trained "
                f"on is guessed with an AUC of {found['auc']:.2f}"
            )
    for edit, of in entry.get("of_patients", {}).items():
        lines.append(
            f"{edit}: {of['n']} pairs, {of['recognised']:.0%} nearest to the patient of their anatomy; "
            f"median distance {of['to_source']:.3f} to its slice, {of['to_others']:.3f} to anybody else"
        )
    return "\n".join(lines)
