"""What a training tells while it runs: metrics.jsonl, TensorBoard events, a progress bar or plain lines."""

import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from tensorboardX import SummaryWriter


class Records:
    """Appends to the records of a run that stands at `step`; what a killed run wrote beyond it is dropped.

    Without a folder nothing is kept: of several processes only one writes.
    """

    def __init__(self, workdir: Path | None, step: int):
        self._file = None
        if workdir is None:
            return
        path = workdir / "metrics.jsonl"
        kept = [line for line in _lines(path) if json.loads(line)["step"] <= step] if step else []
        path.write_text("".join(f"{line}\n" for line in kept))
        self._file = path.open("a")
        self._events = SummaryWriter(str(workdir), purge_step=step + 1)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        if self._file is None:
            return
        finite = {name: value if math.isfinite(value) else None for name, value in values.items()}
        self._file.write(json.dumps({"step": step, **finite}) + "\n")  # null: JSON knows no NaN
        self._file.flush()
        for name, value in values.items():
            self._events.add_scalar(name, value, step)

    def picture(self, step: int, name: str, picture: Image.Image) -> None:
        if self._file is not None:
            self._events.add_image(name, np.asarray(picture), step, dataformats="HWC")

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._events.close()


def _lines(path: Path) -> list[str]:
    """The complete lines of a file that may end in half a line."""
    if not path.exists():
        return []
    return [line for line in path.read_text().split("\n")[:-1] if line.endswith("}")]


class Bar:
    """Steps done, images/s, losses and the time left: a bar on a terminal, one line per report elsewhere."""

    def __init__(self, step: int, steps: int, batch_size: int, *, shown: bool = True):
        self._steps, self._batch_size, self._shown = steps, batch_size, shown
        self._images, self._seconds = 0, 0.0  # of training since the last report
        self._bar: Progress | None = None
        if shown and sys.stderr.isatty():
            self._bar = Progress(
                TextColumn("training"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[told]}"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
            )
            self._bar.start()
            self._task = self._bar.add_task("training", total=steps, completed=step, told="compiling")

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
        told = "  ".join([f"{rate:.1f} images/s", *(f"{name} {value:.3f}" for name, value in values.items())])
        if self._bar is not None:
            self._bar.update(self._task, told=told)
        elif self._shown:
            left = (self._steps - step) * self._batch_size / max(rate, 1e-9)
            print(f"step {step}/{self._steps}  {told}  {_duration(left)} left", flush=True)
        return rate

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"
