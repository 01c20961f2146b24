"""Tables of one row per image, as CSV in UTF-8 that nobody has vetted.

Errors: PixmedError, all faults of a table at once.
"""

import csv
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from pixmed_jax.data.faults import Fault, named, raise_all
from pixmed_jax.errors import PixmedError, listing

_MAX_TABLE = 2**27


def columns_of(
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
    raise_all(path, faults)
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
        elif not all((row[column] or "").strip() for column in columns):
            blank.append(name)
        by_file[name] = row
    faults = named("rows whose file is not a plain relative path", escaping, "use names below data.images")
    faults += named("rows without a file", unknown, "remove them or set data.images")
    faults += named("files with several rows", twice, "keep one row each")
    faults += named("rows with an empty label, patient or split", blank, "fill them in")
    faults += named("files without a row", known - by_file.keys(), "add rows or set data.meta='' for none")
    empty: dict[str, str | None] = {}
    # A space behind a name is not another patient.
    return {c: [(by_file.get(name, empty).get(c) or "").strip() for name in files] for c in columns}, faults
