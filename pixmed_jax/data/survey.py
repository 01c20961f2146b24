"""Everything about a folder of slices that can be told before training, read once.

Unlike `data.folder` it never stops at a fault: what cannot be used is listed, and the rest is read on.
Layouts:
    pairs     DIR/images/... with DIR/masks/... and DIR/meta.csv as in `data.folder`; both are optional
    classes   DIR/Training/CLASS/..., DIR/Testing/CLASS/..., DIR/CLASS/... or DIR/...: labels and splits are
              the folders' names

Files are named by their path relative to DIR. Each slice of a volume is a record of its own, called
NAME.nii.gz#012 as in training, which takes the same `axis`; a volume is decoded once, and no more than
`arrays.MAX_BYTES` of decoded volumes are kept. Errors: PixmedError where there is nothing to read.
"""

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from pixmed_jax.data import duplicates, folder, tables, volumes
from pixmed_jax.data import masks as encodings
from pixmed_jax.data.faults import Fault
from pixmed_jax.data.pairs import Item
from pixmed_jax.data.reader import Reader
from pixmed_jax.data.splits import SPLITS
from pixmed_jax.data.survey_index import (
    OTHER_SIZE,
    REPLACE,
    Index,
    index_classes,
    index_pairs,
    read_table,
    reason_of,
)
from pixmed_jax.data.survey_masks import flag_values
from pixmed_jax.data.survey_records import Record, Survey
from pixmed_jax.errors import PixmedError, listing, one_of
from pixmed_jax.progress import watched

NO_LABELS = "no labels"
_EMPTY = "remove the pairs, or train with data.allow_empty_masks=true"


def survey(
    root: Path,
    *,
    images: str = "images",
    masks: str = "masks",
    meta: str = tables.DEFAULT_META,
    file_column: str = "file",
    label_column: str = "label",
    patient_column: str = "patient_group",
    split_column: str = "",
    axis: str = "stored",
) -> Survey:
    """Read a folder. The options are those of `folder.source`; for classes only the table's are used."""
    one_of("check_data.axis", axis, volumes.AXES)
    if not root.is_dir():
        raise PixmedError(f"{root}: no such folder; set --data or --against")
    index = Index(root, axis, [], [], [], {}, [])
    two_folders = (root / images).is_dir()
    classes: tuple[str, ...] = ()
    if two_folders:
        classes = index_pairs(index, images, masks)
    else:
        index_classes(index)
    records, faults = index.records, index.faults
    if not records:
        raise PixmedError(f"{root}: " + "; ".join(map(str, faults)))
    columns = {"label": label_column if two_folders else "", "patient": patient_column, "split": split_column}
    within = root / images if two_folders else root
    faults += read_table(root, meta, within, records, file_column, columns) if meta else []
    if not any(record.patient for record in records):
        groups = folder.groups_of(index.items)
        for record in records:
            record.patient = groups[record.item] if record.item >= 0 else ""
    reader = Reader(index.items, axis, "auto", (), True)

    def read(row: int) -> tuple[duplicates.Texture | None, list[tuple[str, str, str]]]:
        texture, faults_of_row = _read(root, reader, records[row], index.items)
        return texture, [*index.notes.get(row, ()), *faults_of_row]

    # Decoding leaves the interpreter lock, so threads are enough; `map` keeps the order.
    with ThreadPoolExecutor(2) as pool:
        results = list(watched(pool.map(read, range(len(records))), len(records), f"reading {root.name}"))
    readable = [texture for texture, _ in results if texture is not None]
    if not readable:
        raise PixmedError(
            f"{root}: none of {len(records)} images can be read: {listing([n[0][1] for _, n in results], 3)}"
        )
    blank = duplicates.Texture(*(np.zeros_like(part) for part in readable[0]))
    textures = duplicates.stack([blank if texture is None else texture for texture, _ in results])
    found = Survey(root, records, textures, faults, reader, sum(index.sizes), classes)
    notes: dict[tuple[str, str], dict[int, str]] = {}
    for row, (_, faults_of_row) in enumerate(results):
        for what, name, remedy in faults_of_row:
            notes.setdefault((what, remedy), {})[row] = name
    for (what, remedy), names in notes.items():
        found.flag(what, remedy, names)
    _flag_volumes(found)
    flag_values(found)
    _flag_odd_ones(found)
    if two_folders:  # a folder of classes is read in grey where that is asked for
        _flag_colour(found)
    _flag_unknown(found)
    if two_folders and split_column:
        _flag_splits(found, split_column)
    return found


def _read(
    root: Path, reader: Reader, record: Record, items: Sequence[Item]
) -> tuple[duplicates.Texture | None, list[tuple[str, str, str]]]:
    """Fill in what the pixels of one record say; returns (texture, [(what is wrong, name, remedy)])."""
    if record.item < 0:
        return None, []
    notes = []
    texture = None
    image = items[record.item].image
    try:
        pixels = reader.image(record.item, record.index)
        values = pixels if isinstance(image, Path) else reader.values(record.item, record.index)
    except PixmedError as error:
        reason = reason_of(error, root / record.whole)
        notes.append(("images cannot be read", f"{record.whole}: {reason}", REPLACE))
    else:
        record.height, record.width = pixels.shape[:2]
        record.bits = pixels.dtype.itemsize * 8
        record.stored = "" if isinstance(image, Path) else image.dtype.name
        record.colour = pixels.ndim == 3 and bool((pixels != pixels[..., :1]).any())
        record.minimum, record.maximum = values.min().item(), values.max().item()
        record.mean = float(values.mean())
        if record.minimum == record.maximum and not record.is_slice:
            name = f"{record.file}: every pixel is {record.minimum:g}"
            notes.append(("images are constant", name, "remove them or export them again"))
        grey = pixels.mean(axis=-1) if pixels.ndim == 3 and pixels.dtype != np.uint8 else pixels
        texture = duplicates.texture(grey)
    if items[record.item].masks:
        notes += _read_mask(root, reader, record)
    return texture, notes


def _read_mask(root: Path, reader: Reader, record: Record) -> list[tuple[str, str, str]]:
    try:
        mask = reader.raw_mask(record.item, record.index)
    except PixmedError as error:
        reason = reason_of(error, root / record.masks[0])
        return [("masks cannot be read", f"{record.mask}: {reason}", "export them again as PNG")]
    notes = []
    if record.height and mask.shape != (record.height, record.width):
        name = f"{record.mask}: {_by(*mask.shape)} for an image of {_by(record.height, record.width)}"
        notes.append((OTHER_SIZE, name, "export both at one size"))
    record.mask_counts = encodings.counts(mask)
    if not mask.any() and not record.is_slice:
        notes.append(("masks are empty", record.mask, _EMPTY))
    elif mask.all():
        notes.append(("masks have no background", record.mask, "export them again"))
    if record.height and mask.shape == (record.height, record.width):
        record.tumour_pixels = int(np.count_nonzero(mask))
    return notes


def _flag_volumes(found: Survey) -> None:
    """Volumes without a tumour in any slice, and those of one value."""
    by_item: dict[int, list[int]] = {}
    for row, record in enumerate(found.records):
        if record.is_slice and record.height:
            by_item.setdefault(record.item, []).append(row)
    empty: dict[int, str] = {}
    constant: dict[int, str] = {}
    for rows in by_item.values():
        some = [found.records[row] for row in rows]
        if all(record.left_out for record in some):
            empty |= dict.fromkeys(rows, some[0].mask)
        if min(record.minimum for record in some) == max(record.maximum for record in some):
            constant |= dict.fromkeys(rows, f"{some[0].whole}: every value is {some[0].minimum:g}")
    found.flag("mask volumes are empty", _EMPTY, empty)
    found.flag("volumes are constant", "remove them or export them again", constant)


def _by(height: int, width: int) -> str:
    return f"{width} x {height}"


def _flag_odd_ones(found: Survey) -> None:
    """Images of another size or kind than most."""
    readable = {row: record for row, record in enumerate(found.records) if record.height}
    sizes = {row: _by(record.height, record.width) for row, record in readable.items()}
    kinds = {row: record.kind for row, record in readable.items()}
    for values, thing, remedy in (
        (sizes, "size", "they are padded to a square and resized in training; check that this is meant"),
        (kinds, "kind", "training refuses a mixture: convert them"),
    ):
        usual, count = Counter(values.values()).most_common(1)[0]
        if thing == "size" and 2 * count <= len(values):  # cut-outs, each of its own size
            found.faults.append(Fault(f"images have {len(set(values.values()))} sizes", [], remedy))
            continue
        odd = {r: f"{found.records[r].whole}: {value}" for r, value in values.items() if value != usual}
        found.flag(f"images of another {thing} than most, {usual}", remedy, odd)


def _flag_colour(found: Survey) -> None:
    """Images that a training at its defaults would refuse."""
    colour = Counter(record.colour for record in found.records if record.height)
    if colour[True] > colour[False]:
        found.faults.append(Fault("images are in colour", [], "train with --config.data.channels=3"))


def _flag_splits(found: Survey, column: str) -> None:
    """A column that calls slices train or test, and leaves a training without one of its two halves."""
    told = {record.split for record in found.records}
    missing = [name for name in ("train", "val") if name not in told]
    if told & {*SPLITS} and missing:
        what = f"no slice is {listing(missing)} by column '{column}'"
        found.faults.append(Fault(what, [], "a training looks at train and val; call some patients so there"))


def _flag_unknown(found: Survey) -> None:
    """Labels and patients that are not told, and patients in two splits."""
    records = found.records
    if not any(record.label for record in records):
        found.faults.append(Fault(NO_LABELS, [], "name them in meta.csv or by one folder per class"))
    if not any(record.patient for record in records):
        remedy = "name them in meta.csv: slices of one patient in two splits make every score too good"
        found.faults.append(Fault("no patients", [], remedy))
    homes: dict[str, set[str]] = {}
    for record in records:
        if record.patient and record.split:
            homes.setdefault(record.patient, set()).add(record.split)
    torn = {patient: sorted(splits) for patient, splits in sorted(homes.items()) if len(splits) > 1}
    names = [f"{patient} ({' + '.join(splits)})" for patient, splits in torn.items()]
    if torn:
        found.faults.append(Fault("patients are in several splits", names, "move each to one split"))
        for record in records:
            if record.patient in torn:
                record.defects.append("patients are in several splits")
