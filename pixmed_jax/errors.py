"""The one exception that users meet.

Its message is a single line: the file or key, the reason, the remedy. `launch.py` prints that line and
exits with status 1, or with 2 where it is an option's value that is mistyped; a traceback therefore always
means a fault of ours.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any

from pixmed_jax.config import nearest

NAMED = 64  # files in a line, at most, where each of them has to be looked at


class PixmedError(Exception):
    """A fault in what was given (files, configs, folders), told in one line.

    Names from files may hold line ends, and whatever a terminal obeys; such characters are shown as escapes.
    """

    def __init__(self, line: str):
        super().__init__("".join(c if c.isprintable() else repr(c)[1:-1] for c in line))


class OptionError(PixmedError):
    """A value that there is not, of an option of a mode."""


def one_of(option: str, value: Any, known: Iterable[Any], *, given: str = "") -> None:
    """OptionError for a value that is not among those known, with the nearest of them.

    given: what the option was set to, where that names several.
    """
    if value not in (known := list(known)):
        told = f"{option}={given!r}: {value!r}" if given else f"{option}={value!r}"
        names = [str(name) for name in known]
        raise OptionError(f"{told} is not one of {', '.join(names)}{nearest(str(value), names)}")


def at_least(least: int, mode: str, **values: float) -> None:
    """OptionError for options of a mode below `least`, or that are no numbers."""
    for name, value in values.items():
        if not least <= value < math.inf:
            raise OptionError(f"{mode}.{name}={value}: give {least} or more")


def listing(items: Sequence[str], limit: int = 20) -> str:
    """`a, b, c`, cut after `limit` items with a count of the rest."""
    shown = ", ".join(items[:limit])
    return shown if len(items) <= limit else f"{shown} and {len(items) - limit} more"
