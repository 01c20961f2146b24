"""The one exception that users meet.

Its message is a single line: the file or key, the reason, the remedy. `launch.py` prints that line and
exits with status 1; a traceback therefore always means a fault of ours.
"""

from collections.abc import Sequence

NAMED = 64  # files in a line, at most, where each of them has to be looked at


class PixmedError(Exception):
    """A fault in what was given (files, configs, folders), told in one line.

    Names from files may hold line ends, and whatever a terminal obeys; such characters are shown as escapes.
    """

    def __init__(self, line: str):
        super().__init__("".join(c if c.isprintable() else repr(c)[1:-1] for c in line))


def listing(items: Sequence[str], limit: int = 20) -> str:
    """`a, b, c`, cut after `limit` items with a count of the rest."""
    shown = ", ".join(items[:limit])
    return shown if len(items) <= limit else f"{shown} and {len(items) - limit} more"
