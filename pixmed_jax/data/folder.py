"""A folder of image/mask pairs as a `Source`, in the layout of the Kaggle brain tumour sets.

    directory/images/NAME.png     grey or RGB, 8 or 16 bit; PNG, JPEG, TIFF or BMP
    directory/masks/NAME.png      same stem, or NAME_mask; same height and width
    directory/meta.csv            optional: one row per image with its file, tumour label and patient

Subfolders are fine: a file is known by its path relative to `images`, which is also what the table's file
column holds. Mask values: {0, 1} or {0, 255} is a binary mask and takes the slice's label; with K > 1
labels {0..K} is used as it is, v standing for `label_names[v - 1]`.
Indexing reads headers only and reports all faults at once; `Source.read` decodes and judges one pair.
Errors: PixmedError.
"""

import csv
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from pixmed_jax.data import decode
from pixmed_jax.data.slices import Source
from pixmed_jax.errors import PixmedError, listing

DEFAULT_META = "meta.csv"
NO_MASK = "images without a mask"
MAX_LABELS = 254  # a mask is uint8 and 255 is the foreground of a binary one


class Fault(NamedTuple):
    """What is wrong with some files; without names, with the folder or table as a whole."""

    what: str
    names: list[str]
    remedy: str

    def __str__(self) -> str:
        found = f"{len(self.names)} {self.what} ({listing(self.names)})" if self.names else self.what
        return f"{found}, {self.remedy}"


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
) -> Source:
    """Index a folder; files are sorted by name, labels by the alphabet.

    A folder without meta.csv has the one label "tumor" and every file as its own group: `groups == files`
    then says that no patient is known, and `splits.split` refuses to split such a source by patient.
    `meta=""` ignores the table; `label_column=""` or `patient_column=""` says that it has no such column.
    `split_column` names one with train, val or test, for data that bring their own split.
    `allow_empty_masks` lets `read` return slices without a tumour.
    """
    root = Path(directory)
    if not root.is_dir():
        raise PixmedError(f"{root}: no such folder; set data.dir")
    image_paths, image_faults = scan(root / images, "data.images")
    mask_paths, mask_faults = scan(root / masks, "data.masks")
    paired, pair_faults = pair(image_paths, mask_paths)
    files = tuple(str(path.relative_to(root / images).as_posix()) for path, _ in paired)
    _raise_all(root, [*image_faults, *mask_faults, *pair_faults, *_size_faults(paired)])

    table = root / meta
    given: tuple[str, ...] = ()
    if not meta or (meta == DEFAULT_META and not table.exists()):
        labels, groups = ["tumor"] * len(files), files
    else:
        columns = _table(table, files, file_column, label_column, patient_column, split_column)
        labels = columns[label_column] if label_column else ["tumor"] * len(files)
        groups = tuple(columns[patient_column]) if patient_column else files
        given = tuple(columns[split_column]) if split_column else ()
    label_names = tuple(sorted(set(labels)))
    if len(label_names) > MAX_LABELS:
        raise PixmedError(
            f"{table}: column '{label_column}' names {len(label_names)} labels, over {MAX_LABELS}; "
            "set data.label_column to the tumour classes"
        )
    label_ids = np.array([label_names.index(label) for label in labels], np.int32)
    return Source(
        files=files,
        labels=label_ids,
        label_names=label_names,
        groups=groups,
        planes=("",) * len(files),
        read=partial(_read, paired, label_ids, len(label_names), allow_empty_masks),
        given=given,
    )


def _raise_all(where: Path, faults: Sequence[Fault]) -> None:
    if faults:
        raise PixmedError(f"{where}: " + "; ".join(map(str, faults)))


def _named(what: str, names: Iterable[str], remedy: str) -> list[Fault]:
    """No fault, or one that counts and lists its names."""
    found = sorted(names)
    return [Fault(what, found, remedy)] if found else []


def scan(folder: Path, key: str) -> tuple[dict[str, Path], list[Fault]]:
    """{relative path without suffix: path} of the images in a folder, and what is wrong with it."""
    if not folder.is_dir():
        return {}, [Fault(f"no folder {folder.name}", [], f"set {key}")]
    paths: dict[str, Path] = {}
    twice, others = [], set()
    for path in sorted(folder.rglob("*")):
        if path.name.startswith(".") or path.is_dir():  # hidden files: .DS_Store, and "._NAME" of macOS
            continue
        name = path.relative_to(folder)
        if path.suffix.lower() not in decode.SUFFIXES:
            others.add(path.suffix or path.name)
        elif (stem := name.with_suffix("").as_posix()) in paths:
            twice.append(f"{folder.name}/{name.as_posix()}")
        else:
            paths[stem] = path
    faults = _named("files share their stem with another", twice, "keep one of each")
    if not paths:
        seen = f" but files of {listing(sorted(others))}" if others else ""
        faults.append(Fault(f"no PNG, JPEG, TIFF or BMP files in {folder.name}{seen}", [], f"set {key}"))
    return paths, faults


def pair(
    image_paths: dict[str, Path], mask_paths: dict[str, Path]
) -> tuple[list[tuple[Path, Path]], list[Fault]]:
    """(image, mask) by stem, sorted by the image's name, and the files left alone."""
    if not image_paths or not mask_paths:  # that fault is known; thousands of lone files add nothing
        return [], []
    partners: dict[str, list[Path]] = {stem: [] for stem in image_paths}
    lone_masks = []
    for stem, path in mask_paths.items():
        owner = stem if stem in partners else stem.removesuffix("_mask")
        if owner in partners:
            partners[owner].append(path)
        else:
            lone_masks.append(path.name)
    lone_images = [image_paths[stem].name for stem, found in partners.items() if not found]
    contested = [path.name for found in partners.values() if len(found) > 1 for path in found]
    faults = _named(NO_MASK, lone_images, "add the masks or remove the images")
    faults += _named("masks without an image", lone_masks, "add the images or remove the masks")
    faults += _named("masks for an image that has another", contested, "keep one of each")
    return [(image_paths[stem], found[0]) for stem, found in partners.items() if found], faults


def _size_faults(paired: Sequence[tuple[Path, Path]]) -> list[Fault]:
    """Pairs whose headers disagree, and files whose header cannot be used."""
    broken, unequal = [], []
    for both in paired:
        try:
            (height, width), (mask_height, mask_width) = map(decode.read_size, both)
        except PixmedError as error:
            broken.append(str(error))
            continue
        if (height, width) != (mask_height, mask_width):
            unequal.append(f"{both[0].name} {height}x{width} against {mask_height}x{mask_width}")
    return [
        *_named("masks differ in height x width from their image", unequal, "export both at one size"),
        *_named("files are unusable", broken, "replace them"),
    ]


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


def _read(
    paired: Sequence[tuple[Path, Path]], labels: np.ndarray, n_labels: int, allow_empty: bool, row: int
) -> tuple[np.ndarray, np.ndarray]:
    """`Source.read` of a folder."""
    image_path, mask_path = paired[row]
    image, mask = decode.read_image(image_path), decode.read_mask(mask_path)
    if image.min() == image.max():
        raise PixmedError(f"{image_path}: every pixel is {image.min()}; remove the pair or export it again")
    values = np.flatnonzero(np.bincount(mask.ravel()))
    if set(values) <= {0, 1} or set(values) <= {0, 255}:
        mask = (mask > 0) * np.uint8(labels[row] + 1)
    elif values[-1] > n_labels:
        raise PixmedError(
            f"{mask_path}: values {listing([str(v) for v in values])}; a mask holds 0 and 1, or 0 and 255"
            + (f", or 0 to {n_labels} for {n_labels} labels" if n_labels > 1 else "")
            + "; save it as PNG without smoothing, or set data.masks or data.label_column"
        )
    if not mask.any() and not allow_empty:
        raise PixmedError(f"{mask_path}: no tumour pixel; remove the pair or set data.allow_empty_masks=true")
    if mask.all():
        raise PixmedError(f"{mask_path}: no background pixel; export the mask again or set data.masks")
    return image, mask
