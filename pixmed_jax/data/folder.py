"""A folder of image/mask pairs as a `Source`, in the layout of the Kaggle brain tumour sets.

    directory/images/NAME.png     grey or RGB, 8 or 16 bit; PNG, JPEG, TIFF or BMP; or any file of `volumes`
    directory/masks/NAME.png      same stem, or NAME_mask, or NAME_CLASS for each class; same height and width
    directory/meta.csv            optional: one row per image with its file, tumour label and patient

Subfolders are fine: a file is known by its path relative to `images`, which is also what the table's file
column holds. A volume gives slices called NAME.nii.gz#012; its mask is a volume of the same shape. A folder
of DICOM files is a series where the mask is one volume with the folder's name, and single slices where each
file has its own mask. What mask values mean is said in `masks`, how values become [0, 1] in `intensity`.
Indexing reads the headers of images and all masks; `Source.read` decodes and judges one pair.
Patients: the table's column; else a DICOM file's PatientID, hashed; else each volume is one.
Errors: PixmedError, all faults of an index at once.
"""

import csv
import hashlib
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from pixmed_jax.data import arrays, decode, dicom, intensity, volumes
from pixmed_jax.data import masks as encodings
from pixmed_jax.data.intensity import Limits
from pixmed_jax.data.slices import Source
from pixmed_jax.errors import PixmedError, listing
from pixmed_jax.progress import watched

DEFAULT_META = "meta.csv"
NO_MASK = "images without a mask"
FORMATS = "PNG, JPEG, TIFF, BMP, DICOM, NIfTI, .mat, .npy or .npz"
_MAX_TABLE = 2**27
MAX_LABELS = 254  # a mask is uint8 and 255 is the foreground of a binary one
_TOLD: set[str] = set()  # a dataset's mapping is told once, however often it is opened

Paths = tuple[Path, ...]  # of one picture or volume: a file, or the files of a DICOM series


class Fault(NamedTuple):
    """What is wrong with some files; without names, with the folder or table as a whole."""

    what: str
    names: list[str]
    remedy: str

    def __str__(self) -> str:
        found = f"{len(self.names)} {self.what} ({listing(self.names)})" if self.names else self.what
        return f"{found}, {self.remedy}"


class Item(NamedTuple):
    """A picture or a volume with its mask, or its masks for each class; `shape` is [slices, H, W].

    Pictures are known by their path, everything else by its header.
    """

    name: str
    image: Path | arrays.Array
    masks: tuple[Path | arrays.Array, ...]
    shape: tuple[int, int, int]


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
    allow_empty_masks: bool = False,
    axis: str = "stored",
    rule: str = "auto",
) -> Source:
    """Index a folder; files are sorted by name, labels by the alphabet.

    A folder without meta.csv has the one label "tumor", or the classes that its masks hold, and no patients
    but those that DICOM files and volumes bring. `groups == files` then says that no patient is known, and
    `splits.split` refuses to split such a source by patient.
    `meta=""` ignores the table; `label_column=""` or `patient_column=""` says that it has no such column.
    `split_column` names one with train, val or test, or with folds, for data that bring their own split.
    `allow_empty_masks` keeps slices without a tumour: pictures are refused and slices of volumes left out
    otherwise. `axis` is how volumes are cut (`volumes.stack`), `rule` one of `intensity`.
    """
    root = Path(directory)
    if not root.is_dir():
        raise PixmedError(f"{root}: no such folder; set data.dir")
    parsed = intensity.parse(rule)
    image_paths, image_faults = scan(root / images, "data.images")
    mask_paths, mask_faults = scan(root / masks, "data.masks")
    paired, classes, pair_faults = pair(image_paths, mask_paths)
    items, item_faults = _items(root / images, paired, axis)
    _raise_all(root, [*image_faults, *mask_faults, *pair_faults, *item_faults])
    reader = _Reader(items, axis, parsed, classes, allow_empty_masks)

    table = root / meta
    names = [item.name for item in items]
    columns: dict[str, list[str]] = {}
    if meta and not (meta == DEFAULT_META and not table.exists()):
        columns = _table(table, names, file_column, label_column, patient_column, split_column)
    labels = columns.get(label_column, [])
    label_names = tuple(sorted(set(labels)))
    if len(label_names) > MAX_LABELS:
        raise PixmedError(
            f"{table}: column '{label_column}' names {len(label_names)} labels, over {MAX_LABELS}; "
            "set data.label_column to the tumour classes"
        )
    reader.look(root / masks, label_names)

    rows = [(i, k) for i, item in enumerate(items) for k in reader.kept(i)]
    _tell_skipped(root, items, rows)
    files = tuple(_slice_name(items[i], k) for i, k in rows)
    groups = columns.get(patient_column) or _groups(items)
    own = [label_names.index(label) for label in labels] or None
    label_ids = np.array([own[i] if own else reader.main_class(i, k) for i, k in rows], np.int32)
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
    )


def _slice_name(item: Item, k: int) -> str:
    return item.name if item.shape[0] == 1 else f"{item.name}#{k:03d}"


def _groups(items: Sequence[Item]) -> list[str]:
    """A patient group per item, or "" where only the file itself is known.

    PatientID is hashed with the number of a study, which nobody knows who does not have the files, so that
    it cannot be found by trying all ids.
    """
    headers = [item.image if isinstance(item.image, arrays.Array) else None for item in items]
    salt = min((header.study for header in headers if header and header.study), default="")
    groups = []
    for item, header in zip(items, headers, strict=True):
        group = item.name if item.shape[0] > 1 else ""
        if header and header.patient:
            group = "patient-" + hashlib.sha256(f"{salt}/{header.patient}".encode()).hexdigest()[:10]
        groups.append(group)
    return groups


def _tell_skipped(root: Path, items: Sequence[Item], rows: Sequence[tuple[int, int]]) -> None:
    total = sum(item.shape[0] for item in items)
    if len(rows) == total:
        return
    told = f"{total - len(rows)} of {total} slices show no tumour and are left out"
    if not rows:
        raise PixmedError(f"{root}: {told}; set data.masks, or data.allow_empty_masks=true")
    _tell(f"{root}: {told} (data.allow_empty_masks=true keeps them)")


def _tell(line: str) -> None:
    if line not in _TOLD:
        _TOLD.add(line)
        print(line, file=sys.stderr)


class _Reader:
    """Decodes slices of the items; `look` first, then `index`, then `read`."""

    def __init__(
        self, items: Sequence[Item], axis: str, rule: str | Limits, classes: Sequence[str], allow_empty: bool
    ):
        self._items = items
        self._axis = axis
        self._rule = rule
        self._classes = tuple(classes)
        self._allow_empty = allow_empty
        self._cache = volumes.Cache()
        self._limits: dict[int, Limits] = {}
        self._counts: list[list[dict[int, int]] | None] = []
        self.encoding = encodings.Encoding(("tumor",))

    def look(self, where: Path, label_names: Sequence[str]) -> None:
        """Read all masks once and recognise their encoding; faults of single pictures are left to `read`."""
        with ThreadPoolExecutor(2) as pool:
            found = pool.map(self._count, range(len(self._items)))
            results = list(watched(found, len(self._items), "reading masks"))
        broken = [
            str(result)
            for item, result in zip(self._items, results, strict=True)
            if isinstance(result, PixmedError) and item.shape[0] > 1
        ]
        _raise_all(where, _named("mask volumes are unusable", broken, "replace them"))
        self._counts = [None if isinstance(result, PixmedError) else result for result in results]
        values = [set(counts) for slices in self._counts for counts in slices or ()]
        hot = [i for i, item in enumerate(self._items) if self._is_hot(item)]
        classes = self._classes
        if hot and not classes:
            most = max((max(v, default=0) for i in hot for v in self._counts[i] or ()), default=1)
            classes = tuple(label_names) or tuple(f"class {v}" for v in range(1, most + 1))
        self.encoding = encodings.recognise(values, label_names, classes)
        _tell(f"{where}: {encodings.describe(self.encoding, values)}")

    def _count(self, i: int) -> list[dict[int, int]] | PixmedError:
        try:
            item = self._items[i]
            return [dict(encodings.counts(self._raw_mask(item, k))) for k in range(item.shape[0])]
        except PixmedError as error:
            return error

    def kept(self, i: int) -> list[int]:
        """The slices of an item that count; a picture always does."""
        counts, depth = self._counts[i], self._items[i].shape[0]
        if depth == 1 or self._allow_empty or counts is None:
            return list(range(depth))
        return [k for k, found in enumerate(counts) if set(found) - {0}]

    def main_class(self, i: int, k: int) -> int:
        """The label of a slice that no table labels: the class with most pixels."""
        counts = self._counts[i]
        if not self.encoding.own or counts is None:
            return 0
        return max(range(len(self.encoding.values)), key=lambda c: counts[k].get(self.encoding.values[c], 0))

    def index(self, rows: Sequence[tuple[int, int]], labels: np.ndarray) -> None:
        self._rows, self._labels = list(rows), labels
        self._counts = []

    def limits(self, row: int) -> Limits:
        """`Source.limits`; costs a decoding unless the slice was just read."""
        i, k = self._rows[row]
        if i not in self._limits:
            self._image(i, k)
        return self._limits[i]

    def read(self, row: int) -> tuple[np.ndarray, np.ndarray]:
        """`Source.read`."""
        i, k = self._rows[row]
        item = self._items[i]
        image, raw = self._image(i, k), self._raw_mask(item, k)
        image_name, mask_name = _name(item.image), _name(item.masks[0])
        if image.min() == image.max() and item.shape[0] == 1:
            raise PixmedError(
                f"{image_name}: every pixel is {image.min()}; remove the pair or export it again"
            )
        mask = encodings.decode(raw, self.encoding, int(self._labels[row]), mask_name)
        if not mask.any() and not self._allow_empty:
            raise PixmedError(
                f"{mask_name}: no tumour pixel; remove the pair or set data.allow_empty_masks=true"
            )
        if mask.all():
            raise PixmedError(f"{mask_name}: no background pixel; export the mask again or set data.masks")
        return image, mask

    def _image(self, i: int, k: int) -> np.ndarray:
        """One slice, uint8 | uint16, and its item's limits in `_limits`."""
        image = self._items[i].image
        if isinstance(image, Path):
            values = decode.read_image(image)
            bounds = intensity.type_range(values.dtype)
            keep = self._rule in ("auto", "full")
            if i not in self._limits:
                self._limits[i] = self._find_limits(values[None], bounds, None, str(image), keep)
            return values if keep else intensity.encode(values, self._limits[i])
        pictures = volumes.stack(image, self._cache.read(image), self._axis)
        plain = (image.slope, image.intercept) == (1, 0) and not image.inverted
        full = self._rule == "full" or (self._rule == "auto" and image.dtype == np.uint8)
        if i not in self._limits:
            low, high = self._find_limits(pictures, image.full, image.window, image.name, full, image)
            self._limits[i] = (high, low) if image.inverted else (low, high)
        if full and plain and image.full == intensity.type_range(image.dtype.newbyteorder("=")):
            return np.array(pictures[k], image.dtype.newbyteorder("="), order="C")
        values = pictures[k].astype(np.float64) * image.slope + image.intercept
        if not np.isfinite(values).all():
            raise intensity.not_finite(values, _slice_name(self._items[i], k))
        return intensity.encode(values, self._limits[i])

    def _find_limits(
        self,
        pictures: np.ndarray,
        full: Limits | None,
        window: Limits | None,
        name: str,
        use_full: bool,
        scaled: arrays.Array | None = None,
    ) -> Limits:
        if not isinstance(self._rule, str):
            return self._rule
        if use_full:
            if full is None:
                raise PixmedError(
                    f"{name}: {pictures.dtype} values have no full range; set data.intensity to percentiles "
                    "or to two numbers"
                )
            return full
        if self._rule == "window":
            if window is None:
                raise PixmedError(
                    f"{name}: names no display window; set data.intensity to percentiles or to two numbers"
                )
            return window
        ends = intensity.percentiles(pictures, name)
        slope, intercept = (scaled.slope, scaled.intercept) if scaled else (1.0, 0.0)
        low, high = sorted(slope * end + intercept for end in ends)
        return low, high

    def _raw_mask(self, item: Item, k: int) -> np.ndarray:
        """[H, W] uint8, values as stored; those of one-hot masks as 1 .. K."""
        if len(item.masks) > 1:
            hot = np.stack([self._plane(mask, item, k) for mask in item.masks], axis=-1)
            return encodings.from_one_hot(hot, _name(item.masks[0]))
        plane = self._plane(item.masks[0], item, k)
        if plane.ndim == 3:
            return encodings.from_one_hot(plane, _name(item.masks[0]))
        return plane

    def _plane(self, mask: Path | arrays.Array, item: Item, k: int) -> np.ndarray:
        """[H, W] or [H, W, K] uint8."""
        if isinstance(mask, Path):
            return decode.read_mask(mask)
        values = volumes.stack(mask, self._cache.read(mask), self._axis)[k]
        if (mask.slope, mask.intercept) != (1, 0):
            values = values * mask.slope + mask.intercept
        return np.ascontiguousarray(encodings.as_uint8(values, mask.name))

    def _is_hot(self, item: Item) -> bool:
        first = item.masks[0]
        return len(item.masks) > 1 or (
            isinstance(first, arrays.Array) and len(volumes.stack_shape(first, self._axis)) == 4
        )


def _name(thing: Path | arrays.Array) -> str:
    return str(thing) if isinstance(thing, Path) else thing.name


def _raise_all(where: Path, faults: Sequence[Fault]) -> None:
    if faults:
        raise PixmedError(f"{where}: " + "; ".join(map(str, faults)))


def _named(what: str, names: Iterable[str], remedy: str) -> list[Fault]:
    """No fault, or one that counts and lists its names."""
    found = sorted(names)
    return [Fault(what, found, remedy)] if found else []


def scan(folder: Path, key: str) -> tuple[dict[str, Paths], list[Fault]]:
    """{relative path without suffix: path} of the images in a folder, and what is wrong with it."""
    if not folder.is_dir():
        return {}, [Fault(f"no folder {folder.name}", [], f"set {key}")]
    paths: dict[str, Paths] = {}
    twice, others = [], set()
    for path in sorted(folder.rglob("*")):
        if path.name.startswith(".") or path.is_dir():  # hidden files: .DS_Store, and "._NAME" of macOS
            continue
        name = path.relative_to(folder).as_posix()
        suffix = arrays.suffix(path)
        if suffix not in decode.SUFFIXES and not volumes.is_volume(path):
            others.add(path.suffix or path.name)
        elif (stem := _stem(name, suffix)) in paths:
            twice.append(f"{folder.name}/{name}")
        else:
            paths[stem] = (path,)
    faults = _named("files share their stem with another", twice, "keep one of each")
    if not paths:
        seen = f" but files of {listing(sorted(others))}" if others else ""
        faults.append(Fault(f"no {FORMATS} files in {folder.name}{seen}", [], f"set {key}"))
    return paths, faults


def _stem(name: str, suffix: str) -> str:
    known = suffix in decode.SUFFIXES or suffix in volumes.SUFFIXES
    return name[: -len(suffix)] if known else name


def _join_series(image_paths: dict[str, Paths], mask_paths: dict[str, Paths]) -> None:
    """Make one entry of the DICOM files in a folder whose mask is one file with the folder's name.

    A folder of DICOM masks beside it is then one volume too.
    """
    for paths, others in ((image_paths, mask_paths), (mask_paths, image_paths)):
        folders: dict[str, list[str]] = {}
        for stem, found in paths.items():
            if volumes.is_dicom(found[0]):
                folders.setdefault(str(PurePosixPath(stem).parent), []).append(stem)
        for name, stems in folders.items():
            if name in others or f"{name}_mask" in others:
                paths[name] = tuple(paths.pop(stem)[0] for stem in stems)


def pair(
    image_paths: dict[str, Paths], mask_paths: dict[str, Paths]
) -> tuple[list[tuple[str, Paths, list[Paths]]], tuple[str, ...], list[Fault]]:
    """(stem, image, masks) sorted by stem, the classes of several masks each, and the files left alone.

    The files of a DICOM series become one entry, here and in the arguments.
    """
    if not image_paths or not mask_paths:  # that fault is known; thousands of lone files add nothing
        return [], (), []
    _join_series(image_paths, mask_paths)
    partners: dict[str, dict[str, str]] = {stem: {} for stem in image_paths}  # class: stem of the mask
    lone_masks, contested = [], []
    for stem in sorted(mask_paths):
        owner, part = stem, ""
        if stem not in partners:
            owner, _, part = stem.rpartition("_")
            part = "" if part == "mask" else part
        if owner not in partners:
            lone_masks.append(mask_paths[stem][0].name)
        elif part in partners[owner]:
            contested += [mask_paths[stem][0].name, mask_paths[partners[owner][part]][0].name]
        else:
            partners[owner][part] = stem
    lone_images = [image_paths[stem][0].name for stem, found in partners.items() if not found]
    contested += [
        mask_paths[stem][0].name
        for found in partners.values()
        if "" in found and len(found) > 1
        for stem in found.values()
    ]
    kinds = {tuple(sorted(found)) for found in partners.values() if found}
    odd = []
    if not contested and any(len(kind) > 1 for kind in kinds) and len(kinds) > 1:
        every = set().union(*kinds)
        odd = [
            f"{image_paths[stem][0].name} lacks {listing(sorted(every - set(found)))}"
            for stem, found in partners.items()
            if every - set(found)
        ]
    faults = _named(NO_MASK, lone_images, "add the masks or remove the images")
    faults += _named("masks without an image", lone_masks, "add the images or remove the masks")
    faults += _named("masks for an image that has another", set(contested), "keep one of each")
    faults += _named("images without the mask of a class", odd, "add it, empty if need be")
    classes = tuple(name for name in max(kinds, key=len, default=()) if name != encodings.BACKGROUND)
    paired = [
        (stem, image_paths[stem], [mask_paths[found[part]] for part in _background_first(found)])
        for stem, found in sorted(partners.items())
        if found
    ]
    return paired, classes if len(max(kinds, key=len, default=())) > 1 else (), faults


def _background_first(parts: Iterable[str]) -> list[str]:
    return sorted(parts, key=lambda part: (part != encodings.BACKGROUND, part))


def _items(
    folder: Path, paired: Sequence[tuple[str, Paths, list[Paths]]], axis: str
) -> tuple[list[Item], list[Fault]]:
    """The pairs by their headers; those that disagree, and files whose header cannot be used."""
    items, broken, unequal = [], [], []
    for stem, image_paths, mask_paths in watched(paired, len(paired), "reading headers"):
        single = len(image_paths) == 1 and volumes.is_dicom(image_paths[0]) is False
        name = image_paths[0].relative_to(folder).as_posix() if single or len(image_paths) == 1 else stem
        try:
            image = _open(image_paths, folder / stem, "image")
            masks = tuple(
                volumes.aligned(_open(paths, paths[0].parent, "mask"), image) for paths in mask_paths
            )
            shape = _shape(image, axis)
            others = [_shape(mask, axis) for mask in masks]
        except PixmedError as error:
            broken.append(str(error))
            continue
        if any(other != shape for other in others):
            shown = [_sizes(s) for s in (shape, next(other for other in others if other != shape))]
            unequal.append(
                f"{image_paths[0].name if len(image_paths) == 1 else stem} {' against '.join(shown)}"
            )
        items.append(Item(name, image, masks, shape))
    return items, [
        *_named("masks differ in height x width from their image", unequal, "export both at one size"),
        *_named("files are unusable", broken, "replace them"),
    ]


def _open(paths: Paths, folder: Path, wanted: str) -> Path | arrays.Array:
    if len(paths) > 1:
        return dicom.open_series(folder, paths)
    if arrays.suffix(paths[0]) in decode.SUFFIXES:
        return paths[0]
    return volumes.open_array(paths[0], wanted)


def _shape(thing: Path | arrays.Array, axis: str) -> tuple[int, int, int]:
    """[slices, H, W] from the header."""
    if isinstance(thing, Path):
        return (1, *decode.read_size(thing))
    depth, height, width, *_ = volumes.stack_shape(thing, axis)
    return depth, height, width


def _sizes(shape: tuple[int, int, int]) -> str:
    depth, height, width = shape
    return f"{height}x{width}" if depth == 1 else f"{depth} slices of {height}x{width}"


def _table(
    path: Path,
    files: Sequence[str],
    file_column: str,
    label_column: str,
    patient_column: str,
    split_column: str,
) -> dict[str, list[str]]:
    """{column: value per file} of the columns asked for, in the order of `files`."""
    found, rows = read_table(path, "data.meta")
    wanted = {"data.file_column": file_column, "data.label_column": label_column}
    wanted |= {"data.patient_column": patient_column, "data.split_column": split_column}
    missing = [f"'{column}' (set {key})" for key, column in wanted.items() if column and column not in found]
    if missing:
        raise PixmedError(f"{path}: no column {listing(missing)}; it has {listing(found)}")

    columns = [column for column in (label_column, patient_column, split_column) if column]
    values, faults = match(rows, files, file_column, columns)
    _raise_all(path, faults)
    return values


def read_table(path: Path, key: str) -> tuple[list[str], list[dict[str, str | None]]]:
    """(columns, rows) of a CSV file that `key` names."""
    try:
        if path.stat().st_size > _MAX_TABLE:
            raise PixmedError(f"{path}: over {_MAX_TABLE} bytes; set {key} to a table of one row per image")
        with path.open(newline="", encoding="utf-8-sig") as stream:  # spreadsheets write a byte order mark
            reader = csv.DictReader(stream)
            return list(reader.fieldnames or []), list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise PixmedError(f"{path}: cannot be read ({error}); set {key} to a CSV in UTF-8") from error


def match(
    rows: Sequence[dict[str, str | None]], files: Sequence[str], file_column: str, columns: Sequence[str]
) -> tuple[dict[str, list[str]], list[Fault]]:
    """({column: value per file, "" where there is none}, what is wrong with the rows)."""
    by_file: dict[str, dict[str, str | None]] = {}
    escaping, unknown, twice, blank = [], [], [], []
    known = set(files)
    for row in rows:
        name = row[file_column] or ""
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts or "\\" in name:
            escaping.append(repr(name))
        elif name not in known:
            unknown.append(repr(name))
        elif name in by_file:
            twice.append(name)
        elif not all(row[column] for column in columns):
            blank.append(name)
        by_file[name] = row
    faults = _named("rows whose file is not a plain relative path", escaping, "use names below data.images")
    faults += _named("rows without a file", unknown, "remove them or set data.images")
    faults += _named("files with several rows", twice, "keep one row each")
    faults += _named("rows with an empty label, patient or split", blank, "fill them in")
    faults += _named("files without a row", known - by_file.keys(), "add rows or set data.meta='' for none")
    empty: dict[str, str | None] = {}
    return {c: [by_file.get(name, empty).get(c) or "" for name in files] for c in columns}, faults
