"""Everything about a folder of slices that can be told before training, read once.

Unlike `data.folder` it never stops at a fault: what cannot be used is listed, and the rest is read on.
Layouts:
    pairs     DIR/images/... with DIR/masks/... and DIR/meta.csv as in `data.folder`; both are optional
    classes   DIR/Training/CLASS/..., DIR/Testing/CLASS/..., DIR/CLASS/... or DIR/...: labels and splits are
              the folders' names

Files are named by their path relative to DIR. Only pictures are read: volumes, and slices in the formats of
`data.volumes`, are counted in one fault. Errors: PixmedError where there is nothing to read.
"""

from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pixmed_jax.data import decode, duplicates, folder, pairs, tables, volumes
from pixmed_jax.data import masks as encodings
from pixmed_jax.data.faults import Fault
from pixmed_jax.errors import PixmedError, listing
from pixmed_jax.progress import watched

SPLIT_FOLDERS = {"train": "train", "training": "train", "test": "test", "testing": "test"}
SPLIT_FOLDERS |= {"val": "val", "valid": "val", "validation": "val"}


@dataclass
class Record:
    """One image. Fields keep their defaults where a thing is unknown or cannot be read."""

    file: str  # relative to the folder surveyed
    masks: tuple[str, ...] = ()  # likewise; several where each class has its own
    split: str = ""
    label: str = ""
    patient: str = ""
    height: int = 0  # 0: the image cannot be read
    width: int = 0
    bits: int = 0  # per channel, 8 or 16
    colour: bool = False  # channels differ; RGB files whose channels agree are grey
    minimum: int = 0
    maximum: int = 0
    mean: float = 0.0
    tumour_pixels: int = -1  # -1: no mask, or none that can be read
    mask_values: frozenset[int] = frozenset()
    defects: list[str] = field(default_factory=list)

    @property
    def mask(self) -> str:
        return " ".join(self.masks)

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

    def flag(self, what: str, remedy: str, names: dict[int, str]) -> None:
        """Note a fault of records, given as {row: the name with what there is to say}."""
        for row in names:
            self.records[row].defects.append(what)
        if names:
            self.faults.append(Fault(what, list(names.values()), remedy))


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
) -> Survey:
    """Read a folder. The options are those of `folder.source`; for classes only the table's are used."""
    if not root.is_dir():
        raise PixmedError(f"{root}: no such folder; set --data or --against")
    pairs = (root / images).is_dir()
    records, faults = _index_pairs(root, images, masks) if pairs else _index_classes(root)
    if not records:
        raise PixmedError(f"{root}: " + "; ".join(map(str, faults)))
    columns = {"label": label_column, "patient": patient_column, "split": split_column}
    within = root / images if pairs else root
    faults += _read_table(root, meta, within, records, file_column, columns) if meta else []

    def read(record: Record) -> tuple[duplicates.Texture | None, list[tuple[str, str, str]]]:
        return _read(root, record)

    # Decoding leaves the interpreter lock, so threads are enough; `map` keeps the order.
    with ThreadPoolExecutor(2) as pool:
        results = list(watched(pool.map(read, records), len(records), f"reading {root.name}"))
    readable = [texture for texture, _ in results if texture is not None]
    if not readable:
        raise PixmedError(
            f"{root}: none of {len(records)} images can be read: {listing([n[0][1] for _, n in results], 3)}"
        )
    blank = duplicates.Texture(*(np.zeros_like(part) for part in readable[0]))
    textures = duplicates.stack([blank if texture is None else texture for texture, _ in results])
    found = Survey(root, records, textures, faults)
    notes: dict[tuple[str, str], dict[int, str]] = {}
    for row, (_, faults_of_row) in enumerate(results):
        for what, name, remedy in faults_of_row:
            notes.setdefault((what, remedy), {})[row] = name
    for (what, remedy), names in notes.items():
        found.flag(what, remedy, names)
    _flag_values(found)
    _flag_odd_ones(found)
    _flag_unknown(found)
    return found


def read_mask(root: Path, record: Record) -> np.ndarray:
    """[H, W] uint8, values as stored; those of one mask for each class as 1 .. K."""
    masks = [decode.read_mask(root / name) for name in record.masks]
    if len({mask.shape for mask in masks}) > 1:
        raise PixmedError(f"{root / record.masks[0]}: the masks of its image differ in size")
    if len(masks) > 1:
        return encodings.from_one_hot(np.stack(masks, axis=-1), str(root / record.masks[0]))
    return masks[0]


def _index_pairs(root: Path, images: str, masks: str) -> tuple[list[Record], list[Fault]]:
    image_paths, faults = pairs.scan(root / images, "check_data.images")
    mask_paths, mask_faults = pairs.scan(root / masks, "check_data.masks")
    paired, _, pair_faults = pairs.pair(image_paths, mask_paths)
    masks_of = {stem: [paths[0] for paths in found if _is_picture(paths[0])] for stem, _, found in paired}
    records, lone = [], []
    for stem, (path, *_) in sorted(image_paths.items(), key=lambda entry: entry[1]):
        record = Record(_relative(path, root), tuple(_relative(p, root) for p in masks_of.get(stem, ())))
        if mask_paths and stem not in masks_of:
            record.defects.append(pairs.NO_MASK)
            lone.append(record.file)
        if _is_picture(path):
            records.append(record)
    pair_faults = [f._replace(names=lone) if f.what == pairs.NO_MASK else f for f in pair_faults]
    found = [path for paths in (*image_paths.values(), *mask_paths.values()) for path in paths]
    return records, [*faults, *mask_faults, *pair_faults, *_not_read(root, found)]


def _index_classes(root: Path) -> tuple[list[Record], list[Fault]]:
    records, others, unread = [], Counter[str](), []
    for path in sorted(root.rglob("*")):
        if path.name.startswith(".") or path.is_dir():
            continue
        if not _is_picture(path):
            others[path.suffix or path.name] += 1
            unread += [path] if volumes.is_volume(path) else []
            continue
        *folders, _ = path.relative_to(root).parts
        split = SPLIT_FOLDERS.get(folders[0].lower(), "") if folders else ""
        classes = folders[1:] if split else folders
        records.append(Record(_relative(path, root), split=split, label=classes[0] if classes else ""))
    seen = f" but files of {listing(sorted(others))}" if others else ""
    faults = [Fault("no masks: this is a folder of images", [], "add images/ and masks/ to train on it")]
    if not records:
        faults = [Fault(f"no PNG, JPEG, TIFF or BMP files{seen}", [], "set --data")]
    return records, [*faults, *_not_read(root, unread)]


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in decode.SUFFIXES


def _not_read(root: Path, paths: Iterable[Path]) -> list[Fault]:
    """One fault for all files that hold something other than a picture."""
    names = [_relative(path, root) for path in paths if not _is_picture(path)]
    what = f"{len(names)} files are no pictures and are not checked ({listing(names)})"
    return [Fault(what, [], "save their slices as PNG to check them too")] if names else []


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
    files = [_relative(root / record.file, within) for record in records]
    values, row_faults = tables.match(rows, files, file_column, list(known.values()))
    for name, column in known.items():
        for record, value in zip(records, values[column], strict=True):
            setattr(record, name, value)
    return faults + row_faults


def _read(root: Path, record: Record) -> tuple[duplicates.Texture | None, list[tuple[str, str, str]]]:
    """Fill in what the pixels of one record say; returns (texture, [(what is wrong, name, remedy)])."""
    notes = []
    texture = None
    try:
        image = decode.read_image(root / record.file)
    except PixmedError as error:
        reason = _reason(error, root / record.file)
        notes.append(("images cannot be read", f"{record.file}: {reason}", "export or download them again"))
    else:
        record.height, record.width = image.shape[:2]
        record.bits = image.dtype.itemsize * 8
        record.colour = image.ndim == 3 and bool((image != image[..., :1]).any())
        record.minimum, record.maximum = int(image.min()), int(image.max())
        record.mean = float(image.mean())
        if record.minimum == record.maximum:
            name = f"{record.file}: every pixel is {record.minimum}"
            notes.append(("images are constant", name, "remove them or export them again"))
        texture = duplicates.texture(image)
    if record.masks:
        notes += _read_mask(root, record)
    return texture, notes


def _read_mask(root: Path, record: Record) -> list[tuple[str, str, str]]:
    try:
        mask = read_mask(root, record)
    except PixmedError as error:
        reason = _reason(error, root / record.masks[0])
        return [("masks cannot be read", f"{record.mask}: {reason}", "export them again as PNG")]
    notes = []
    if record.height and mask.shape != (record.height, record.width):
        name = f"{record.mask}: {_by(*mask.shape)} for an image of {_by(record.height, record.width)}"
        notes.append(("masks have another size than their image", name, "export both at one size"))
    record.mask_values = frozenset(encodings.counts(mask))
    if not mask.any():
        remedy = "remove the pairs, or train with data.allow_empty_masks=true"
        notes.append(("masks are empty", record.mask, remedy))
    elif mask.all():
        notes.append(("masks have no background", record.mask, "export them again"))
    if record.height and mask.shape == (record.height, record.width):
        record.tumour_pixels = int(np.count_nonzero(mask))
    return notes


def _reason(error: PixmedError, path: Path) -> str:
    return str(error).removeprefix(f"{path}: ").split(";")[0]


def _by(height: int, width: int) -> str:
    return f"{width} x {height}"


def _flag_values(found: Survey) -> None:
    """Masks that `masks` cannot decode, by the values of all."""
    names = sorted({record.label for record in found.records} - {""})
    values = [set(record.mask_values) for record in found.records]
    several = [v for record, v in zip(found.records, values, strict=True) if len(record.masks) > 1]
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
        odd = {r: f"{found.records[r].file}: {value}" for r, value in values.items() if value != usual}
        found.flag(f"images of another {thing} than most, {usual}", remedy, odd)


def _flag_unknown(found: Survey) -> None:
    """Labels and patients that are not told, and patients in two splits."""
    records = found.records
    if not any(record.label for record in records):
        found.faults.append(Fault("no labels", [], "name them in meta.csv or by one folder per class"))
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
