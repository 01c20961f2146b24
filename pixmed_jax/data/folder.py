"""A folder of image/mask pairs as a `Source`, in the layout of the Kaggle brain tumour sets.

    directory/images/NAME.png     grey or RGB, 8 or 16 bit; PNG, JPEG, TIFF or BMP; or any file of `volumes`
    directory/masks/NAME.png      same stem, or NAME_mask, or NAME_CLASS for each class; same height and width
    directory/meta.csv            optional: one row per image with its file, tumour label and patient

Subfolders are fine: a file is known by its path relative to `images`, which is also what the table's file
column holds. A volume gives slices called NAME.nii.gz#012; its mask is a volume of the same shape. A folder
of DICOM files may be a series (`pairs`). What mask values mean is said in `masks`, how values become [0, 1]
in `intensity`.
Indexing reads the headers of images and all masks; `Source.read` decodes and judges one pair.
Patients: the table's column; else a DICOM file's PatientID, hashed; else each volume is one.
Errors: PixmedError, all faults of an index at once.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pixmed_jax.data import arrays, intensity, volumes
from pixmed_jax.data.faults import raise_all
from pixmed_jax.data.pairs import (
    LONE,
    Entry,
    Item,
    incomplete,
    open_pairs,
    pair,
    scan_both,
    slice_name,
    stem_of,
)
from pixmed_jax.data.reader import Reader, tell
from pixmed_jax.data.slices import Source
from pixmed_jax.data.tables import DEFAULT_META, Matched, columns_of, table_of
from pixmed_jax.errors import PixmedError

MAX_LABELS = 254  # a mask is uint8 and 255 is the foreground of a binary one


def source(
    directory: str | Path,
    *,
    images: str = "images",
    masks: str = "masks",
    meta: str = DEFAULT_META,
    file_column: str = "file",
    label_column: str = "label",
    patient_column: str = "patient_group",
    split_column: str = "",
    class_name: str = "tumor",
    allow_empty_masks: bool = False,
    axis: str = "stored",
    rule: str = "auto",
    keep_faulty: bool = False,
) -> Source:
    """Index a folder; files are sorted by name, labels by the alphabet.

    A folder without meta.csv has the one label `class_name`, or the classes that its masks hold, and no
    patients but those that DICOM files and volumes bring. `groups == files` then says that no patient is
    known, and `splits.split` refuses to split such a source by patient.
    `meta=""` ignores the table; `label_column=""` or `patient_column=""` says that it has no such column.
    `split_column` names one with train, val or test, or with folds, for data that bring their own split.
    `allow_empty_masks` keeps slices without a tumour: pictures are refused and slices of volumes left out
    otherwise. `axis` is how volumes are cut (`volumes.stack`), `rule` one of `intensity`.
    `keep_faulty` leaves it to `Source.read` to tell of unusable files, of masks of another size, and of
    what is missing: each image without a mask or a row, each mask and row without an image counts as a slice.
    """
    root = Path(directory)
    if not root.is_dir():
        raise PixmedError(f"{root}: no such folder; set data.dir")
    parsed = intensity.parse(rule)
    image_paths, mask_paths, faults = scan_both(root, images, masks, "data")
    entries, classes, pair_faults = pair(image_paths, mask_paths)
    items, item_faults = open_pairs(root / images, entries, axis)
    if keep_faulty:
        pair_faults, item_faults = [fault for fault in pair_faults if fault.what not in LONE], []
    raise_all(root, [*faults, *pair_faults, *item_faults])

    columns: dict[str, list[str]] = {}
    table = table_of(root, meta)
    if table:
        pictures = [item.name for item, entry in zip(items, entries, strict=True) if entry.image]
        asked = file_column, label_column, patient_column, split_column
        told = columns_of(table, pictures, *asked, keep_faulty=keep_faulty)
        items, columns = _described(items, told, entries, root / images, table.name)
    reader = Reader(items, axis, parsed, classes, allow_empty_masks, keep_faulty)
    labels = columns.get(label_column, [])
    label_names = tuple(sorted(set(labels) - {""}))
    if len(label_names) > MAX_LABELS:
        raise PixmedError(
            f"{table}: column '{label_column}' names {len(label_names)} labels, over {MAX_LABELS}; "
            "set data.label_column to the tumour classes"
        )
    reader.look(root / masks, label_names, class_name)

    rows = [(i, k) for i, item in enumerate(items) for k in reader.kept(i)]
    _tell_skipped(root, items, rows)
    files = tuple(slice_name(items[i], k) for i, k in rows)
    groups = columns.get(patient_column) or groups_of(items)
    if patient_column not in columns and (
        lone := sum(group == item.name for group, item in zip(groups, items, strict=True))
    ):
        tell(f"{root}: {lone} volumes are taken for a patient each; data.meta can say whose they are")
    own = [label_names.index(label) if label else 0 for label in labels] or None
    label_ids = np.array([own[i] if own else reader.main_class(i, k) for i, k in rows], np.int32)
    reader.check_labels(root / masks, rows, label_ids)
    classes_shown = [reader.shown(i, k) for i, k in rows]
    if set(classes_shown) == {0}:
        tell(f"{root / masks}: all {len(rows)} masks are empty; is it the folder meant by data.masks?")
    if reader.encoding.own and len(reader.encoding.names) > 1 and 0 in classes_shown:
        tell(
            f"{root}: {classes_shown.count(0)} slices without a tumour are labelled "
            f"{reader.encoding.names[0]!r}, since nothing names their label; give data.meta if labels matter"
        )
    if told_marked := reader.mostly_marked():
        tell(f"{root / masks}: {told_marked}; if that is the background, invert them")
    reader.index(rows, label_ids)
    return Source(
        files=files,
        labels=label_ids,
        label_names=reader.encoding.names,
        groups=tuple(groups[i] or file for (i, _), file in zip(rows, files, strict=True)),
        planes=tuple(axis if axis in volumes.PLANES and items[i].shape[0] > 1 else "" for i, _ in rows),
        read=reader.read,
        given=tuple(columns[split_column][i] for i, _ in rows) if split_column in columns else (),
        limits=reader.limits,
        pixel=reader.pixel,
        several=any((count or 0) > 1 for count in classes_shown),
        tumorless=frozenset(
            slice_name(item, k) for i, item in enumerate(items) for k in range(item.shape[0])
        ).difference(files),
        counted=own is None and bool(reader.encoding.own),
    )


def _described(
    items: Sequence[Item], told: Matched, entries: Sequence[Entry], folder: Path, table: str
) -> tuple[list[Item], dict[str, list[str]]]:
    """The items with what the table lacks of them as their fault, and rows without a file; all columns."""
    found = [
        item
        if item.fault or item.name not in told.unusable
        else incomplete(item.name, folder / item.name, f"{told.unusable[item.name]} in {table}")
        for item in items
    ]
    masks = [entry.stem for entry in entries if not entry.image]
    counted = {name for stem in masks for name in (stem, stem.rpartition("_")[0])}
    found += [
        incomplete(name, folder / name, f"is missing, and {table} has it")
        for name in told.absent
        if stem_of(name) not in counted  # of whom there is a mask
    ]
    return found, {
        column: values + [""] * (len(found) - len(values)) for column, values in told.values.items()
    }


def groups_of(items: Sequence[Item]) -> list[str]:
    """A patient group per item, or "" where only the file itself is known.

    PatientID is hashed with the number of the patient's first study, which nobody knows who does not have
    the files, so that it cannot be found by trying all ids, and other patients' files do not change it.
    """
    headers = [item.image if isinstance(item.image, arrays.Array) else None for item in items]
    salts: dict[str, str] = {}
    for header in headers:
        if header and header.patient and header.study:
            salts[header.patient] = min(header.study, salts.get(header.patient, header.study))
    groups = []
    for item, header in zip(items, headers, strict=True):
        group = item.name if item.shape[0] > 1 else ""
        if header and header.patient:
            told = f"{salts.get(header.patient, '')}/{header.patient}"
            group = "patient-" + hashlib.sha256(told.encode()).hexdigest()[:10]
        groups.append(group)
    return groups


def _tell_skipped(root: Path, items: Sequence[Item], rows: Sequence[tuple[int, int]]) -> None:
    total = sum(item.shape[0] for item in items)
    if len(rows) == total:
        return
    told = f"{total - len(rows)} of {total} slices show no tumour and are left out"
    if not rows:
        raise PixmedError(f"{root}: {told}; set data.masks, or data.allow_empty_masks=true")
    tell(f"{root}: {told} (data.allow_empty_masks=true keeps them)")
