"""What is wrong with some files, told together: all faults of a folder or table in one error.

Errors: PixmedError.
"""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from pixmed_jax.errors import NAMED, PixmedError, listing


class Fault(NamedTuple):
    """What is wrong with some files; without names, with the folder or table as a whole."""

    what: str
    names: list[str]
    remedy: str

    def __str__(self) -> str:
        return self.told(NAMED)

    def told(self, limit: int) -> str:
        """With up to `limit` of the names."""
        found = f"{len(self.names)} {self.what} ({listing(self.names, limit)})" if self.names else self.what
        return f"{found}, {self.remedy}"


def raise_all(where: Path, faults: Sequence[Fault], limit: int = NAMED) -> None:
    if faults:
        raise PixmedError(f"{where}: " + "; ".join(fault.told(limit) for fault in faults))


def not_utf8(files: Iterable[Path], root: Path) -> list[Fault]:
    """Of names that no table and no report could repeat, as archives of other systems leave them."""
    names = [os.fsencode(path.relative_to(root)) for path in files]
    told = [name.decode(errors="backslashreplace") for name in names]
    broken = [text for text, name in zip(told, names, strict=True) if text.encode() != name]
    return named("file names are not UTF-8", broken, "rename them")


def named(what: str, names: Iterable[str], remedy: str) -> list[Fault]:
    """No fault, or one that counts and lists its names."""
    found = sorted(names)
    return [Fault(what, found, remedy)] if found else []
