"""What orbax, TensorStore and asyncio say, in pages, beside a fault that is told in one line: not shown."""

import contextlib
import logging
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any


class _PastOrbax:
    """An unraisable hook that leaves out what orbax and TensorStore say of a save or read that has failed.

    Each of these is a page, from a thread of its own or whenever memory is tidied, in the middle of the line
    that tells of the fault: a thread that nobody listens to any more, a coroutine that is no longer awaited.
    """

    def __init__(self, hook: Callable[[Any], Any]):
        self._hook = hook

    def __call__(self, told: Any) -> None:
        thread = isinstance(told.exc_value, RuntimeError) and str(told.exc_value) == "Event loop is closed"
        coroutine = isinstance(told.object, types.CoroutineType)
        if not thread and not (coroutine and "orbax" in Path(told.object.cr_code.co_filename).parts):
            self._hook(told)


def _not_of_tensorstore(record: logging.LogRecord) -> bool:
    """False for what asyncio logs of a read by TensorStore that has failed and that nobody asked about."""
    error = record.exc_info[1] if record.exc_info else None
    return "tensorstore_spec=" not in str(error)


def listen_past_orbax() -> None:
    """For the rest of the process, since threads of a failed save or read may outlive it."""
    if not isinstance(sys.unraisablehook, _PastOrbax):
        sys.unraisablehook = _PastOrbax(sys.unraisablehook)
    logging.getLogger("asyncio").addFilter(_not_of_tensorstore)  # once, however often it is added


@contextlib.contextmanager
def quiet(*loggers: str) -> Iterator[None]:
    """What these log below a fault that is raised anyway, in pages, is not shown."""

    def nothing(record: logging.LogRecord) -> bool:
        return False

    try:
        for name in loggers:
            logging.getLogger(name).addFilter(nothing)
        yield
    finally:
        for name in loggers:
            logging.getLogger(name).removeFilter(nothing)
