"""A folder of slices looked at before any training: what it holds, all its defects, and its copies.

    W/check_data/report.html            the page to look at; needs no other file
    W/check_data/files.csv              one row per image or slice of a volume: FILE_COLUMNS
    W/check_data/duplicates.csv         file, other, transform, similarity (see data/duplicates.py)
    W/check_data/duplicates_within.csv  the same columns; only where a second folder is given

`transform` turns `file` into `other`. Given a second folder, duplicates.csv holds the pairs between the two,
`file` relative to the first and `other` to the second, and pairs within the first are in
duplicates_within.csv; given one folder, duplicates.csv holds those. Within a folder `file` is the later of
the two by name, so leaving out every `file` (`data.leave_out`) leaves no pair. Defects and pictures of the
second folder are not reported; check it for itself.

The output appears whole or not at all. Errors: PixmedError if a folder has nothing that can be read.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pixmed_jax import check_data_page, writing
from pixmed_jax.data import duplicates, intensity
from pixmed_jax.data.duplicates import Copy
from pixmed_jax.data.survey import NO_LABELS, survey
from pixmed_jax.data.survey_masks import label_by_masks
from pixmed_jax.data.survey_records import Record, Survey
from pixmed_jax.texts import csv_table

FILE_COLUMNS = (
    "file", "mask", "split", "label", "patient", "height", "width", "kind", "minimum", "maximum", "mean",
    "tumour_pixels", "defects",
)  # fmt: skip
COPY_COLUMNS = Copy._fields
_DARK = 4  # a type's range in units of the brightest value: from here on slices are flagged as too dark
NAMES = {"report.html", "files.csv", "duplicates.csv", "duplicates_within.csv"}
_SAME_PATIENT = 0.97  # similarity from which two slices of one patient count as copies


def check_data(
    data: str, workdir: str, *, against: str | None = None, class_name: str = "", **options: str
) -> str:
    """Read, compare, write `workdir`/check_data; returns the lines to print.

    class_name: what the masks show where no label says it, for the page; a tumour by default.
    `options` are those of `survey`, for both folders.
    """
    target = Path(workdir).absolute() / "check_data"
    writing.check_holds(target, NAMES)
    root, other_root = Path(data).absolute(), Path(against).absolute() if against else None
    found = survey(root, **options)
    second = survey(other_root, **options) if other_root else None
    within = [c for c in duplicates.copies(found.textures) if not _neighbours(found, c)]
    between = duplicates.copies(found.textures, second.textures) if second else []
    _flag_copies(found, within)
    _flag_dark(found)
    meaning = label_by_masks(found)
    if class_name or (meaning and options.get("label_column") == ""):
        found.faults[:] = [fault for fault in found.faults if fault.what != NO_LABELS]

    tables = {"files.csv": [FILE_COLUMNS, *(_row(record) for record in found.records)]}
    names = [record.file for record in found.records]
    if second:
        other_names = [record.file for record in second.records]
        columns = ("file", "against", *COPY_COLUMNS[2:])
        tables["duplicates.csv"] = [columns, *_named(between, names, other_names)]
        tables["duplicates_within.csv"] = [COPY_COLUMNS, *_named(within, names, names)]
    else:
        tables["duplicates.csv"] = [COPY_COLUMNS, *_named(within, names, names)]
    page = check_data_page.page(found, second, within, between, target, class_name, meaning)

    with writing.replaced(target) as draft:
        for name, rows in tables.items():
            _write(draft / name, csv_table(rows))
        _write(draft / "report.html", page)
    return "\n".join(_summary(found, second, within, between, target, meaning))


def _summary(
    found: Survey,
    second: Survey | None,
    within: Sequence[Copy],
    between: Sequence[Copy],
    target: Path,
    meaning: str,
) -> Iterable[str]:
    counts = Counter[str]()
    for fault in found.faults:  # one name may come with several remedies
        counts[fault.what] += len(fault.names) or 1
    copied, known = len({c.file for c in within}), len({c.file for c in between})
    volumes = len({record.item for record in found.records if record.is_slice})
    yield (
        f"{found.root}: {len(found.records):,} images"
        + (
            f" ({sum(r.is_slice for r in found.records):,} of them slices of {volumes:,} volumes)"
            if volumes
            else ""
        )
        + f"; {copied:,} are copies of others in it"
        + (f", {known:,} of images in {second.root}" if second else "")
    )
    if meaning:
        yield f"masks: {meaning}"
    yield f"written: {target / 'report.html'} and the tables beside it"
    listed = ": " + "; ".join(f"{what} ({count:,})" for what, count in counts.items()) if counts else ""
    yield f"defects: {sum(counts.values()):,}{listed}"


def _neighbours(found: Survey, copy: Copy) -> bool:
    """Whether a pair may as well be two slices of one patient: a millimetre apart they are alike by 0.9.

    Slices of one volume are never copies, however thin they are.
    """
    file, other = found.records[copy.file], found.records[copy.other]
    if file.is_slice and file.item == other.item:
        return True
    return bool(file.patient) and file.patient == other.patient and copy.similarity < _SAME_PATIENT


def _flag_copies(found: Survey, within: Sequence[Copy]) -> None:
    """Copies that are defects, since what is told of the two images differs."""
    for thing, what, remedy in (
        ("split", "copies of an image in another split", "leave them out of one: see Copies"),
        ("label", "copies of an image with another label", "look which label is right"),
        ("patient", "copies of an image of another patient", "give both one patient"),
    ):
        names: dict[int, str] = {}
        for copy in within:
            file, other = found.records[copy.file], found.records[copy.other]
            told, other_told = getattr(file, thing), getattr(other, thing)
            if told and other_told and told != other_told:
                names.setdefault(copy.file, f"{file.file} ({told}) = {other.file} ({other_told})")
        found.flag(what, remedy, names)


def _flag_dark(found: Survey) -> None:
    """Scanners' 12 bits in pictures of 16: by the range of the type, all of them are nearly black."""
    deep = {i: record for i, record in enumerate(found.records) if record.bits == 16 and not record.stored}
    top = int(max((record.maximum for record in deep.values()), default=intensity.TOP))
    if top * _DARK < intensity.TOP:
        what = f"pictures of 16 bits whose values end at {top:,}"
        names = {i: record.file for i, record in deep.items()}
        found.flag(what, f"set data.intensity=0,{2 ** top.bit_length() - 1}", names)


def _row(record: Record) -> tuple[Any, ...]:
    shown = {
        "kind": record.kind_as_stored,
        "minimum": f"{record.minimum:.6g}",
        "maximum": f"{record.maximum:.6g}",
        "mean": f"{record.mean:.2f}",
        "tumour_pixels": "" if record.tumour_pixels < 0 else record.tumour_pixels,
        "defects": "; ".join(record.defects),
    }
    return tuple(shown.get(name, getattr(record, name)) for name in FILE_COLUMNS)


def _named(
    copies: Iterable[Copy], names: Sequence[str], other_names: Sequence[str]
) -> Iterable[tuple[str, str, str, str]]:
    return [(names[c.file], other_names[c.other], c.transform, f"{c.similarity:.4f}") for c in copies]


def _write(path: Path, text: str) -> None:
    # A file's name may hold bytes that are no UTF-8; they are shown, not passed on.
    writing.write_text(path, text.encode("utf-8", "backslashreplace").decode())
