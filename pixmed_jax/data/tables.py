"""Tables of one row per image, as CSV in UTF-8 that nobody has vetted.

Columns are parted by commas, semicolons or tabs. A row names its file with or without the suffix.
Errors: PixmedError, all faults of a table at once.
"""

import csv
import io
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from pixmed_jax import texts
from pixmed_jax.data.faults import Fault, named, raise_all
from pixmed_jax.data.pairs import composed, stem_of
from pixmed_jax.errors import PixmedError, listing

DEFAULT_META = "meta.csv"  # the one table that need not be there
_MAX_TABLE = 2**27
_MAX_HEADER = 2**16
_SEPARATORS = ",;\t"
NO_FILE = "rows without a file"
# What may be wrong with the row of a file, for all files and for one.
_OF_A_FILE = {
    "files with several rows": "has several rows",
    "rows with an empty label, patient or split": "has an empty label, patient or split",
    "files without a row": "has no row",
}
# What programs write into a cell of which nothing is known.
_NOBODY = ("", "nan", "na", "n/a", "none", "null", "unknown", "-", "?")
_NUMBER = re.compile(r"0*(\d+)(?:\.0*)?")
_NAMED = 20  # rows in a line: where one is wrong, most are, and in the same way


class Matched(NamedTuple):
    """What a table says of some files.

    values: {column: value per file, "" where there is none}.
    unusable: {file: what is wrong with its row}. absent: the files of rows that have none.
    """

    values: dict[str, list[str]]
    unusable: dict[str, str]
    absent: list[str]
    faults: list[Fault]


def table_of(root: Path, meta: str) -> Path | None:
    """The table of a folder: none where `meta` is empty, or the default one that is not there."""
    table = root / meta
    return table if meta and (meta != DEFAULT_META or table.exists()) else None


def columns_of(
    path: Path,
    files: Sequence[str],
    file_column: str,
    label_column: str,
    patient_column: str,
    split_column: str,
    *,
    keep_faulty: bool = False,
) -> Matched:
    """The columns asked for, in the order of `files`.

    keep_faulty: files that the table does not describe, and rows without a file, are the caller's to refuse.
    """
    found, rows = read_table(path, "data.meta")
    wanted = {"data.file_column": file_column, "data.label_column": label_column}
    wanted |= {"data.patient_column": patient_column, "data.split_column": split_column}
    missing = [f"'{column}' (set {key})" for key, column in wanted.items() if column and column not in found]
    if missing:
        parted = "; part its columns by commas, semicolons or tabs" if len(found) == 1 else ""
        raise PixmedError(f"{path}: no column {listing(missing)}; it has {listing(found)}{parted}")

    columns = [column for column in (label_column, patient_column, split_column) if column]
    matched = match(rows, files, file_column, columns, patient_column)
    left = {NO_FILE, *_OF_A_FILE} if keep_faulty else set()
    raise_all(path, [fault for fault in matched.faults if fault.what not in left], _NAMED)
    return matched


def read_table(path: Path, key: str) -> tuple[list[str], list[dict[str, str | None]]]:
    """(columns, rows) of a CSV file that `key` names."""
    try:
        stream = io.StringIO(texts.read(path, _MAX_TABLE), newline="")
        separator = _separator(stream.readline(_MAX_HEADER))
        stream.seek(0)
        reader = csv.DictReader(stream, delimiter=separator)
        return list(reader.fieldnames or []), list(reader)
    except (FileNotFoundError, ValueError, csv.Error) as error:
        raise PixmedError(f"{path}: cannot be read ({error}); set {key} to a CSV in UTF-8") from error


def _separator(header: str) -> str:
    """The one that parts most columns: where the comma is for decimals, spreadsheets write semicolons."""
    return max(_SEPARATORS, key=re.sub(r'"[^"]*("|$)', "", header).count)  # the first of equals


def match(
    rows: Sequence[dict[str, str | None]],
    files: Sequence[str],
    file_column: str,
    columns: Sequence[str],
    patient_column: str = "",
) -> Matched:
    """The rows of the files, by their names. patient_column: the one of `columns` that names patients."""
    by_file: dict[str, dict[str, str | None]] = {}
    escaping, unknown, twice, blank = [], [], [], []
    known = set(files)
    # By the name composed, with and without the suffix, where that is in no doubt.
    called = {name: {composed(name), composed(stem_of(name))} for name in files}
    times = Counter(each for names in called.values() for each in names)
    meant = {each: name for name, names in called.items() for each in names if times[each] == 1}
    for row in rows:
        written = row[file_column] or ""
        name = written if written in known else meant.get(composed(written), written)
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts or "\\" in name:
            escaping.append(repr(name))
        elif name not in known:
            unknown.append(name)
        elif name in by_file:
            twice.append(name)
        elif not all(_value(row[column], column == patient_column) for column in columns):
            blank.append(name)
        by_file[name] = row
    several, empty, without = _OF_A_FILE
    of_files = {several: twice, empty: blank, without: sorted(known - by_file.keys())}
    such = f", such as {min(files)}" if files else ""
    remedies = ("keep one row each", "fill them in", "add rows or set data.meta='' for none")
    faults = named("rows whose file is not a plain relative path", escaping, "use names below data.images")
    faults += named(
        NO_FILE,
        map(repr, unknown),
        f"name files below data.images{such}, remove the rows, or set data.images",
    )
    for (what, names), remedy in zip(of_files.items(), remedies, strict=True):
        faults += named(what, names, remedy)
    nothing: dict[str, str | None] = {}
    values = {
        c: [_value(by_file.get(name, nothing).get(c), c == patient_column) for name in files] for c in columns
    }
    faults += _spelt(values.get(patient_column, ()))
    return Matched(
        values,
        {name: _OF_A_FILE[what] for what, names in of_files.items() for name in names},
        list(dict.fromkeys(unknown)),
        faults,
    )


def _value(cell: str | None, names_patient: bool) -> str:
    """A cell without the space around it, which would make another patient; "" where it says nothing."""
    told = (cell or "").strip()
    return "" if names_patient and told.casefold() in _NOBODY else told


def _spelt(patients: Iterable[str]) -> list[Fault]:
    """Patients whose names differ by case or, if they are numbers, by how these are written: 3, 3.0 and 003.

    One of two patients that are one could be tested on and the other trained on.
    """
    spellings: dict[str, set[str]] = {}
    for name in set(patients) - {""}:
        number = _NUMBER.fullmatch(name)
        spellings.setdefault(number[1] if number else name.casefold(), set()).add(name)
    several = [" = ".join(sorted(names)) for names in spellings.values() if len(names) > 1]
    return named("patients written in several ways", several, "write each in one way")
