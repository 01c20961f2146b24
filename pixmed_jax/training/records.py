"""What a training tells while it runs: metrics.jsonl, TensorBoard events, a progress bar or plain lines."""

import json
import math
import socket
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console, ConsoleOptions
from rich.measure import Measurement
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Column
from rich.text import Text
from tensorboardX import summary
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.record_writer import RecordWriter

from pixmed_jax import writing
from pixmed_jax.errors import PixmedError

_BAR = 20  # columns of the bar, where a line has room
_GAP = "  "


class Records:
    """Appends to the records of a run that stands at `step`; what a killed run wrote beyond it is dropped.

    Without a folder nothing is kept: of several processes only one writes. TensorBoard's events are written
    by the caller's own thread: that of SummaryWriter dies of a full disk and then keeps all waiting for it.
    Errors: PixmedError where the records cannot be written.
    """

    def __init__(self, workdir: Path | None, step: int):
        self._file = None
        if workdir is None:
            return
        self._path = workdir / "metrics.jsonl"
        with self._told():
            kept = [line for line in _lines(self._path) if _step(line) <= step] if step else []
            writing.write_text(self._path, "".join(f"{line}\n" for line in kept))
            name = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}"
            self._events = RecordWriter(str(workdir / name))
            self._event(Event(file_version="brain.Event:2"))
            self._file = self._path.open("a", encoding="utf-8")
            start = SessionLog(status=SessionLog.START)
            self._event(Event(step=step + 1, session_log=start))  # drops what a killed run drew beyond it

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        if self._file is None:
            return
        finite = {name: value if math.isfinite(value) else None for name, value in values.items()}
        with self._told():
            self._file.write(json.dumps({"step": step, **finite}) + "\n")  # null: JSON knows no NaN
            self._file.flush()
            for name, value in values.items():
                self._event(Event(step=step, summary=summary.scalar(name, value)))
            self._events.flush()

    def picture(self, step: int, name: str, picture: Image.Image) -> None:
        if self._file is not None:
            with self._told():
                shown = summary.image(name, np.asarray(picture), dataformats="HWC")
                self._event(Event(step=step, summary=shown))
                self._events.flush()

    def _event(self, event: Event) -> None:
        event.wall_time = time.time()
        self._events.write(event.SerializeToString())

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise PixmedError(
                f"{self._path}: cannot be written ({error.strerror}); free space, and rerun to resume"
            ) from error

    def close(self) -> None:
        if self._file is not None:
            for file in (self._file, self._events):
                with suppress(OSError):  # what could not be written has been told
                    file.close()


def _lines(path: Path) -> list[str]:
    """The complete lines of a file that may end in half a line."""
    if not path.exists():
        return []
    return [line for line in path.read_text("utf-8", "replace").split("\n")[:-1] if line.endswith("}")]


def _step(line: str) -> float:
    """The step of a record; infinite for a line that is none."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return math.inf


class _Fitting:
    """Of some words as many as fit on a line."""

    def __init__(self, words: Sequence[str]):
        self._words = words

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(0, len(_GAP.join(self._words)))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        count = len(self._words)
        while len(_GAP.join(self._words[:count])) > options.max_width:
            count -= 1
        yield Text(_GAP.join(self._words[:count]), no_wrap=True)


class _Told(ProgressColumn):
    """What was reported last; it gives way where a line is short, and steps and the time left do not."""

    def render(self, task: Task) -> _Fitting:
        return _Fitting(task.fields["told"])


class Bar:
    """Steps done, images/s, losses and the time left: a bar on a terminal, one line per report elsewhere.

    every: the steps from one report to the next, which is all there is to tell before the first.
    """

    def __init__(self, step: int, steps: int, batch_size: int, *, every: int, shown: bool = True):
        self._steps, self._batch_size, self._shown = steps, batch_size, shown
        self._images, self._seconds = 0, 0.0  # of training since the last report
        self._bar: Progress | None = None
        if shown and sys.stderr.isatty():
            self._bar = Progress(
                TextColumn("training"),
                BarColumn(_BAR),
                MofNCompleteColumn(table_column=Column(no_wrap=True)),  # rich narrows what may wrap
                _Told(),
                TimeRemainingColumn(table_column=Column(no_wrap=True)),
                console=Console(stderr=True),
            )
            self._bar.start()
            told = [f"metrics every {every} steps"]
            self._task = self._bar.add_task("training", total=steps, completed=step, told=told)

    def advance(self, step: int, seconds: float) -> None:
        """One more step is done and took `seconds`; compiling, grids and saves are no training time."""
        self._images += self._batch_size
        self._seconds += seconds
        if self._bar is not None:
            self._bar.update(self._task, completed=step)

    def report(self, step: int, values: Mapping[str, float]) -> float:
        """Tell `values`; returns images/s since the last report."""
        rate = self._images / max(self._seconds, 1e-9)
        self._images, self._seconds = 0, 0.0
        told = [f"{rate:.1f} images/s", *(f"{name} {value:.3f}" for name, value in values.items())]
        if self._bar is not None:
            self._bar.update(self._task, told=told)
        elif self._shown:
            left = (self._steps - step) * self._batch_size / max(rate, 1e-9)
            print(_GAP.join([f"step {step}/{self._steps}", *told, f"{_duration(left)} left"]), flush=True)
        return rate

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"
