"""How a task does while it trains: its score on validation patients, and a picture of what it predicts."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from PIL import Image

from pixmed_jax import inference, pictures
from pixmed_jax.data.pipeline import Arrays
from pixmed_jax.data.sources import Dataset
from pixmed_jax.data.values import floats
from pixmed_jax.training.task import Task

_ROWS, _SCORED = 6, 64  # held-out slices shown in a grid, and scored
_OF_A_LABEL = 5  # images shown of each label, where the label is all the condition there is
_PREDICT_BATCH = 8


class HeldOut:
    """Slices of validation patients: every grid shows the same, every score is over the same."""

    def __init__(self, dataset: Dataset, task: Task):
        rows = dataset.spread("val", _SCORED)
        arrays, self._slices = dataset.load(rows, dataset.size)
        self._images, self._maps, self._labels = (np.asarray(x) for x in arrays)
        self._dataset, self._task = dataset, task
        self._seeds = inference.image_seeds(0, len(rows))
        self._predict = inference.jit_predict(task, lambda arrays: task.inputs(dataset.batch(arrays)))
        self._score = jax.jit(lambda outputs, arrays: task.score(outputs, dataset.batch(arrays)))
        self._given = jax.jit(lambda arrays: dataset.batch(arrays).condition)

    def look(self, variables: Any) -> tuple[dict[str, float], Callable[[], Image.Image]]:
        """The mean of each score, and a function that draws the picture."""
        arrays = Arrays(self._images, self._maps, self._labels)
        outputs = inference.in_batches(self._predict, variables, arrays, self._seeds, _PREDICT_BATCH)
        scores = self._score(outputs, arrays)
        return {name: float(np.mean(values)) for name, values in scores.items()}, lambda: self._draw(outputs)

    def _draw(self, outputs: np.ndarray) -> Image.Image:
        if self._task.predicts == "labels":
            return pictures.judged(
                *(x[:_ROWS] for x in (self._real(slice(_ROWS)), self._labels, outputs)),
                names=self._slices.label_names,
            )
        if self._task.predicts == "masks":
            masks = {"mask": self._maps[:_ROWS], "predicted mask": outputs[:_ROWS].argmax(-1)}
            shown = {name: pictures.colours(maps, self._dataset.classes) for name, maps in masks.items()}
            names = [self._name(row) for row in range(len(outputs[:_ROWS]))]
            return pictures.grid({"image": self._real(slice(_ROWS)), **shown}, names)
        first = slice(0, _ROWS)
        if self._task.predicts == "layouts":
            drawn = np.array_split(outputs.argmax(-1)[: 3 * (len(outputs) // 3)], 3)
            columns = {
                "a real map": self._maps[first],
                **{f"{i + 1}. drawn map": of[first] for i, of in enumerate(drawn)},
            }
            shown = {name: pictures.colours(maps, self._dataset.classes) for name, maps in columns.items()}
            return pictures.grid(shown)
        real, made = self._real(first), self._shown(outputs[first])
        if self._dataset.degrade:
            arrays = Arrays(self._images[first], self._maps[first], self._labels[first])
            given = pictures.enlarged(self._shown(np.asarray(self._given(arrays))), self._dataset.size)
            columns = {"given": given, "made": made, "real": real}
        elif not self._dataset.masked:
            return self._draw_labels(outputs)
        else:
            maps = pictures.colours(self._maps[first], self._dataset.classes)
            columns = {"label map": maps, "real": real, "generated": made}
        columns["difference"] = pictures.difference(made, real)
        return pictures.grid(columns, [self._name(row) for row in range(len(real))])

    def _draw_labels(self, outputs: np.ndarray) -> Image.Image:
        """A row for each label: a real slice, then images generated for that label."""
        rows = [np.flatnonzero(self._labels == label)[:_OF_A_LABEL] for label in np.unique(self._labels)]
        count = min(map(len, rows))  # a rare label has few
        table = np.array([of_label[:count] for of_label in rows])  # [labels, count]
        columns = {"real": self._real(table[:, 0])}
        for i in range(count):
            columns[f"generated {i + 1}"] = self._shown(outputs[table[:, i]])
        return pictures.grid(columns, [self._name(row) for row in table[:, 0]])

    def _real(self, rows: slice | np.ndarray) -> np.ndarray:
        """Real images in [0, 1]."""
        return self._shown(floats(self._images[rows]))

    def _shown(self, images: np.ndarray) -> np.ndarray:
        return pictures.shown(images, self._images.shape[-1] == 1)

    def _name(self, row: int) -> str:
        return self._slices.label_names[self._labels[row]]
