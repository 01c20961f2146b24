"""Tables as text, and texts that are read back: of regular files, up to a size, JSON that may be cut short.

A folder that came from elsewhere may hold a link to a device or a pipe, whose size says 0 and whose end never
comes. Errors: FileNotFoundError where there is none, ValueError for whatever else is wrong.
"""

import csv
import io
import json
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any

LARGEST = 2**24  # bytes of a text, unless said otherwise


def read(path: Path, most: int = LARGEST) -> str:
    """A text in UTF-8, without the mark that spreadsheets begin it with."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise ValueError("no regular file")
        with path.open("rb") as file:
            contents = file.read(most + 1)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ValueError(error.strerror) from error
    if len(contents) > most:
        raise ValueError(f"over {most} bytes")
    return contents.decode("utf-8-sig")


def read_object(path: Path, most: int = LARGEST) -> dict[str, Any]:
    """A JSON object."""
    return _object(read(path, most))


def found_object(path: Path, most: int = LARGEST) -> dict[str, Any]:
    """Likewise; {} where there is none, or a damaged one, which is as good as none."""
    try:
        return read_object(path, most)
    except (FileNotFoundError, ValueError):
        return {}


def found_objects(path: Path, most: int) -> list[dict[str, Any]]:
    """One a line; lines that are none are left out, as a full disk or a kill may leave half of one."""
    try:
        lines = read(path, most).splitlines()
    except (FileNotFoundError, ValueError):
        return []
    objects = []
    for line in lines:
        try:
            objects.append(_object(line))
        except ValueError:
            continue
    return objects


def csv_table(rows: Iterable[Iterable[Any]]) -> str:
    """Lines of a CSV file; line ends are those of Unix wherever it is written."""
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if not isinstance(found, dict):
        raise ValueError("no JSON object")
    return found
