"""A progress bar for whatever takes long: on a terminal, with the time left, and only after two seconds."""

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from typing import TypeVar

from rich.console import Console
from rich.progress import Progress

_PATIENCE = 2.0  # seconds of silence before the bar appears

T = TypeVar("T")


def watched(items: Iterable[T], total: int, what: str) -> Iterator[T]:
    """Pass `items` on and count them, of `total`, on stderr."""
    started = time.monotonic()
    progress = Progress(console=Console(stderr=True), transient=True)
    bar = progress.add_task(what, total=total)
    with ExitStack() as shown:
        for item in items:
            slow = time.monotonic() - started > _PATIENCE
            if slow and sys.stderr.isatty() and not progress.live.is_started:
                shown.enter_context(progress)
            yield item
            progress.advance(bar)
