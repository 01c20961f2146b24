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
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pixmed_jax.data import decode, duplicates, folder, pairs, tables, volumes
from pixmed_jax.data import masks as encodings
from pixmed_jax.data.classes import SPLIT_FOLDERS
from pixmed_jax.data.faults import Fault
from pixmed_jax.data.pairs import Item
from pixmed_jax.data.reader import Reader
from pixmed_jax.errors import PixmedError, listing
from pixmed_jax.progress import watched

NO_LABELS = "no labels"
_REPLACE = "export or download them again"
_EMPTY = "remove the pairs, or train with data.allow_empty_masks=true"
_OTHER_SIZE = "masks have another size than their image"


@dataclass
class Record:
    """One image, or one slice of a volume. Fields keep their defaults where a thing is unknown."""

    file: str  # relative to the folder surveyed; of a slice, with # and its number
    item: int = -1  # the picture or volume, for `Survey.reader`; -1: its header cannot be read
    index: int = 0  # which slice of a volume, of how many
    depth: int = 1
    masks: tuple[str, ...] = ()  # likewise; several where each class has its own
    split: str = ""
    label: str = ""
    patient: str = ""
    height: int = 0  # 0: the image cannot be read
    width: int = 0
    bits: int = 0  # per channel, 8 or 16, as training sees it
    stored: str = ""  # type of a volume's values; "" for pictures
    colour: bool = False  # channels differ; RGB files whose channels agree are grey
    minimum: float = 0  # in the file's own units
    maximum: float = 0
    mean: float = 0.0
    tumour_pixels: int = -1  # -1: no mask, or none that can be read
    mask_values: frozenset[int] = frozenset()
    defects: list[str] = field(default_factory=list)

    @property
    def mask(self) -> str:
        return " ".join(self.masks)

    @property
    def whole(self) -> str:
        """The file that the image is, or that its slice belongs to."""
        return self.file.removesuffix(f"#{self.index:03d}") if self.is_slice else self.file

    @property
    def is_slice(self) -> bool:
        return self.depth > 1

    @property
    def left_out(self) -> bool:
        """Whether training passes over it: slices of volumes that show no tumour."""
        return self.is_slice and self.tumour_pixels == 0

    @property
    def kind(self) -> str:
        return f"{self.bits} bit {'RGB' if self.colour else 'grey'}" if self.bits else ""

    @property
    def tumour_share(self) -> float | None:
        """Part of the image's pixels that its tumour takes."""
        return self.tumour_pixels / (self.height * self.width) if self.tumour_pixels >= 0 else None


class Survey(NamedTuple):
    root: Path
    records: list[Record]  # sorted by file
    textures: duplicates.Texture  # of the records, for `duplicates.copies`
    faults: list[Fault]  # each with all its names
    reader: Reader  # decodes the records by item and index
    bytes: int  # of the images' files

    def flag(self, what: str, remedy: str, names: dict[int, str]) -> None:
        """Note a fault of records, given as {row: the name with what there is to say}."""
        for row in names:
            self.records[row].defects.append(what)
        if names:
            self.faults.append(Fault(what, list(dict.fromkeys(names.values())), remedy))


def survey(
    root: Path,
    *,
    images: str = "images",
    masks: str = "masks",
    meta: str = folder.DEFAULT_META,
    file_column: str = "file",
    label_column: str = "label",
    patient_column: str = "patient_group",
    split_column: str = "",
    axis: str = "stored",
) -> Survey:
    """Read a folder. The options are those of `folder.source`; for classes only the table's are used."""
    volumes.check_axis(axis)
    if not root.is_dir():
        raise PixmedError(f"{root}: no such folder; set --data or --against")
    index = _Index(root, axis, [], [], [], {}, [])
    two_folders = (root / images).is_dir()
    if two_folders:
        _index_pairs(index, images, masks)
    else:
        _index_classes(index)
    records, faults = index.records, index.faults
    if not records:
        raise PixmedError(f"{root}: " + "; ".join(map(str, faults)))
    columns = {"label": label_column, "patient": patient_column, "split": split_column}
    within = root / images if two_folders else root
    faults += _read_table(root, meta, within, records, file_column, columns) if meta else []
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
    found = Survey(root, records, textures, faults, reader, sum(index.sizes))
    notes: dict[tuple[str, str], dict[int, str]] = {}
    for row, (_, faults_of_row) in enumerate(results):
        for what, name, remedy in faults_of_row:
            notes.setdefault((what, remedy), {})[row] = name
    for (what, remedy), names in notes.items():
        found.flag(what, remedy, names)
    _flag_volumes(found)
    _flag_values(found)
    _flag_odd_ones(found)
    _flag_unknown(found)
    return found


class _Index(NamedTuple):
    """What lies in a folder, by names and headers; `notes` are {row: [(what is wrong, name, remedy)]}."""

    root: Path
    axis: str
    items: list[Item]
    records: list[Record]
    faults: list[Fault]
    notes: dict[int, list[tuple[str, str, str]]]
    sizes: list[int]  # bytes of each image's files

    def add(self, record: Record, image: pairs.Paths, masks: Sequence[pairs.Paths]) -> None:
        """The records of an image, like `record`: one, or one for each slice of a volume."""
        notes = []
        self.sizes.append(sum(path.stat().st_size for path in image if path.is_file()))
        record.masks = tuple(_relative(_one(paths), self.root) for paths in masks)
        try:
            opened = pairs.open_entry(image, self.root / record.file, "image")
            shape = (1, 0, 0) if isinstance(opened, Path) else pairs.shape_of(opened, self.axis)
        except PixmedError as error:
            name = f"{record.file}: {_reason(error, self.root / record.file)}"
            self.notes[len(self.records)] = [("images cannot be read", name, _REPLACE)]
            self.records.append(record)
            return
        found = []
        for paths in masks:
            try:
                mask = volumes.aligned(pairs.open_entry(paths, _one(paths), "mask"), opened)
                size = (1, *shape[1:]) if isinstance(mask, Path) else pairs.shape_of(mask, self.axis)
                single = isinstance(opened, Path)
                if size[0] != shape[0] or (size != shape and not single):
                    what = "one picture" if single else f"an image of {pairs.sizes(shape)}"
                    told = f"{pairs.sizes(size)} for {what}"
                    notes.append((_OTHER_SIZE, f"{record.mask}: {told}", "export both at one size"))
                    break
            except PixmedError as error:
                name = f"{record.mask}: {_reason(error, _one(paths))}"
                notes.append(("masks cannot be read", name, "export them again"))
                break
            found.append(mask)
        name = _relative(_one(image), self.root) if len(image) == 1 else record.file
        whole = len(found) == len(masks)
        self.items.append(Item(name, opened, tuple(found) if whole else (), shape))
        for k in range(shape[0]):
            if notes:
                self.notes[len(self.records)] = notes
            file = f"{name}#{k:03d}" if shape[0] > 1 else name
            defects = list(record.defects)
            self.records.append(
                replace(record, file=file, item=len(self.items) - 1, index=k, depth=shape[0], defects=defects)
            )


def _one(paths: pairs.Paths) -> Path:
    """The path of a file, or of the folder of a series."""
    return paths[0] if len(paths) == 1 else paths[0].parent


def _index_pairs(index: _Index, images: str, masks: str) -> None:
    root = index.root
    image_paths, faults = pairs.scan(root / images, "check_data.images")
    mask_paths, mask_faults = pairs.scan(root / masks, "check_data.masks")
    paired, _, pair_faults = pairs.pair(image_paths, mask_paths)
    masks_of = {stem: found for stem, _, found in paired}
    lone = []
    in_order = sorted(image_paths.items(), key=lambda entry: entry[1])
    for stem, paths in watched(in_order, len(in_order), "reading headers"):
        record = Record(_relative(paths[0], root) if len(paths) == 1 else f"{images}/{stem}")
        if mask_paths and stem not in masks_of:
            record.defects.append(pairs.NO_MASK)
            lone.append(record.file)
        index.add(record, paths, masks_of.get(stem, ()))
    pair_faults = [f._replace(names=lone) if f.what == pairs.NO_MASK else f for f in pair_faults]
    index.faults.extend([*faults, *mask_faults, *pair_faults])


def _index_classes(index: _Index) -> None:
    root, others = index.root, Counter[str]()
    for path in sorted(root.rglob("*")):
        if path.name.startswith(".") or path.is_dir():
            continue
        if path.suffix.lower() not in decode.SUFFIXES and not volumes.is_volume(path):
            others[path.suffix or path.name] += 1
            continue
        *folders, _ = path.relative_to(root).parts
        split = SPLIT_FOLDERS.get(folders[0].lower(), "") if folders else ""
        classes = folders[1:] if split else folders
        record = Record(_relative(path, root), split=split, label=classes[0] if classes else "")
        index.add(record, (path,), ())
    seen = f" but files of {listing(sorted(others))}" if others else ""
    told = Fault("no masks: this is a folder of images", [], "add images/ and masks/ to train on it")
    if not index.records:
        told = Fault(f"no {pairs.FORMATS} files{seen}", [], "set --data")
    index.faults.append(told)


def _relative(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()


def _read_table(
    root: Path, meta: str, within: Path, records: list[Record], file_column: str, columns: dict[str, str]
) -> list[Fault]:
    """Fill in the fields {field: column} of the records; returns what is wrong with the table.

    Its file column holds paths relative to `within`.
    """
    table = root / meta
    if meta == folder.DEFAULT_META and not table.exists():
        return []
    try:
        found, rows = tables.read_table(table, "check_data.meta")
    except PixmedError as error:
        return [Fault(str(error), [], "all labels and patients are taken for unknown")]
    faults = []
    for name, column in {"file": file_column, **columns}.items():
        if column and column not in found:
            remedy = f"set check_data.{name}_column, or leave it empty; there are {listing(found)}"
            faults.append(Fault(f"no column '{column}' in {table.name}", [], remedy))
    if file_column not in found:
        return faults
    known = {name: column for name, column in columns.items() if column in found}
    wholes = list(dict.fromkeys(record.whole for record in records))
    files = [_relative(root / whole, within) for whole in wholes]
    values, row_faults = tables.match(rows, files, file_column, list(known.values()))
    for name, column in known.items():
        told = dict(zip(wholes, values[column], strict=True))
        for record in records:
            setattr(record, name, told[record.whole])
    return faults + row_faults


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
        reason = _reason(error, root / record.whole)
        notes.append(("images cannot be read", f"{record.whole}: {reason}", _REPLACE))
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
        reason = _reason(error, root / record.masks[0])
        return [("masks cannot be read", f"{record.mask}: {reason}", "export them again as PNG")]
    notes = []
    if record.height and mask.shape != (record.height, record.width):
        name = f"{record.mask}: {_by(*mask.shape)} for an image of {_by(record.height, record.width)}"
        notes.append((_OTHER_SIZE, name, "export both at one size"))
    record.mask_values = frozenset(encodings.counts(mask))
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


def _reason(error: PixmedError, path: Path) -> str:
    return str(error).removeprefix(f"{path}: ").split(";")[0]


def _by(height: int, width: int) -> str:
    return f"{width} x {height}"


def _flag_values(found: Survey) -> None:
    """Masks that `masks` cannot decode, by the values of all."""
    names = sorted({record.label for record in found.records} - {""})
    held_by: dict[str, set[int]] = {}  # of all slices of a volume together
    for record in found.records:
        held_by.setdefault(record.mask, set()).update(record.mask_values)
    values = [held_by[record.mask] for record in found.records]
    several = [v for record, v in zip(found.records, values, strict=True) if len(record.masks) > 1]
    try:
        coloured = bool(encodings.colours(values, names))
    except PixmedError as error:
        what, _, remedy = str(error).partition("; ")
        found.flag(
            what, remedy, {r: found.records[r].mask for r, v in enumerate(values) if max(v, default=0) > 255}
        )
        return
    if coloured:
        return
    classes = [f"class {v}" for v in range(1, max((max(v, default=0) for v in several), default=0) + 1)]
    known = {0, *encodings.recognise(values, names, classes).values}
    odd = {
        row: f"{found.records[row].mask}: values {listing([str(v) for v in sorted(held)], 8)}"
        for row, held in enumerate(values)
        if not (held <= {0, 1} or held <= {0, 255} or held <= known)
    }
    remedy = f"save them without smoothing, as 0 and 255 or 0 to {max(1, len(names))}"
    found.flag("masks hold values that are no class (interpolated?)", remedy, odd)


def _flag_odd_ones(found: Survey) -> None:
    """Images of another size or kind than most."""
    readable = {row: record for row, record in enumerate(found.records) if record.height}
    sizes = {row: _by(record.height, record.width) for row, record in readable.items()}
    kinds = {row: record.kind for row, record in readable.items()}
    for values, thing, remedy in (
        (sizes, "size", "they are padded to a square and resized in training; check that this is meant"),
        (kinds, "kind", "training refuses a mixture: convert them"),
    ):
        usual = Counter(values.values()).most_common(1)[0][0]
        odd = {r: f"{found.records[r].whole}: {value}" for r, value in values.items() if value != usual}
        found.flag(f"images of another {thing} than most, {usual}", remedy, odd)


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
