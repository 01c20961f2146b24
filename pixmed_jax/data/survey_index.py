"""The part of a survey that needs names, headers and a table alone: which images, masks, labels, patients."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from pixmed_jax.data import arrays, pairs, tables, volumes
from pixmed_jax.data.classes import SPLIT_FOLDERS
from pixmed_jax.data.faults import Fault, not_utf8
from pixmed_jax.data.pairs import Item
from pixmed_jax.data.survey_records import Record
from pixmed_jax.errors import PixmedError, listing
from pixmed_jax.progress import watched

REPLACE = "export or download them again"
OTHER_SIZE = "masks have another size than their image"


class Index(NamedTuple):
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
            name = f"{record.file}: {reason_of(error, self.root / record.file)}"
            self.notes[len(self.records)] = [("images cannot be read", name, REPLACE)]
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
                    notes.append((OTHER_SIZE, f"{record.mask}: {told}", "export both at one size"))
                    break
            except PixmedError as error:
                name = f"{record.mask}: {reason_of(error, _one(paths))}"
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


def index_pairs(index: Index, images: str, masks: str) -> tuple[str, ...]:
    """Fill in the index; returns the classes that the masks' files name."""
    root = index.root
    image_paths, mask_paths, faults = pairs.scan_both(root, images, masks, "check_data")
    entries, classes, pair_faults = pairs.pair(image_paths, mask_paths)
    masks_of = {entry.stem: entry.masks for entry in entries}
    lone = []
    in_order = sorted(image_paths.items(), key=lambda entry: entry[1])
    for stem, paths in watched(in_order, len(in_order), "reading headers"):
        record = Record(_relative(paths[0], root) if len(paths) == 1 else f"{images}/{stem}")
        if mask_paths and not masks_of.get(stem):
            record.defects.append(pairs.NO_MASK)
            lone.append(record.file)
        index.add(record, paths, masks_of.get(stem, ()))
    pair_faults = [f._replace(names=lone) if f.what == pairs.NO_MASK else f for f in pair_faults]
    index.faults.extend([*faults, *pair_faults])
    return classes


def index_classes(index: Index) -> None:
    root, others = index.root, Counter[str]()
    files = arrays.files_below(root)
    index.faults.extend(not_utf8(files, root))
    for path in files:
        if not volumes.is_image(path):
            others[path.suffix or path.name] += 1
            continue
        *folders, _ = path.relative_to(root).parts
        split = SPLIT_FOLDERS.get(folders[0].lower(), "") if folders else ""
        classes = folders[1:] if split else folders
        record = Record(_relative(path, root), split=split, label=classes[0] if classes else "")
        index.add(record, (path,), ())
    seen = f" but files of {listing(sorted(others))}" if others else ""
    told = Fault("no masks: this is a folder of images", [], "add images/ and masks/ to train on it")
    names = [record.file.partition("#")[0] for record in index.records]
    if beside := [name for name in names if pairs.is_mask(pairs.stem_of(name))]:
        how = (
            "give check_data.images=. and check_data.masks=., or part them as docs/your-data.md says of BraTS"
        )
        told = Fault(f"masks are beside the images, such as {beside[0]}", [], how)
    if not index.records:
        told = Fault(f"no {pairs.FORMATS} files{seen}", [], "set --data")
    index.faults.append(told)


def _relative(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()


def read_table(
    root: Path, meta: str, within: Path, records: list[Record], file_column: str, columns: dict[str, str]
) -> list[Fault]:
    """Fill in the fields {field: column} of the records; returns what is wrong with the table.

    Its file column holds paths relative to `within`.
    """
    table = tables.table_of(root, meta)
    if table is None:
        others = sorted(path.name for path in root.glob("*.csv") if not arrays.hidden(path, root))
        what = f"no {meta}, but {listing(others)}"
        return [Fault(what, [], "name it by check_data.meta, and data.meta to train")] if others else []
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
    matched = tables.match(rows, files, file_column, list(known.values()), known.get("patient", ""))
    for name, column in known.items():
        told = dict(zip(wholes, matched.values[column], strict=True))
        for record in records:
            setattr(record, name, told[record.whole])
    return faults + matched.faults


def reason_of(error: PixmedError, path: Path) -> str:
    return str(error).removeprefix(f"{path}: ").split(";")[0]
