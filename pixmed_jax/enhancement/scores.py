"""How close a folder's results are to their references: each contender's metrics, means with intervals.

Pictures are [H, W, C] float32 in [0, 1]; what is known of a degradation are maps [H, W].
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from pixmed_jax.enhancement.method import Output
from pixmed_jax.errors import PixmedError
from pixmed_jax.metrics import clustered, quality
from pixmed_jax.texts import csv_table

BEFORE = "before"  # the contender that does nothing
_SMALLEST = {"ssim": quality.WINDOW, "ms_ssim": quality.SMALLEST}


class Score(NamedTuple):
    """What one contender reached in one slice; NaN for a metric that the slice is too small for."""

    file: str
    slice: int
    contender: str
    values: Mapping[str, float]


def compared(result: Output, reference: np.ndarray, known: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Every metric of a result against its reference, and `map_error` where a map of it is known."""
    image = np.clip(result.image, 0, 1).astype(np.float32)
    if image.shape != reference.shape:
        raise PixmedError(f"comes out as {image.shape}, and its reference is {reference.shape}; give another")
    values = {
        name: metric(image, reference) if min(image.shape[:2]) >= _SMALLEST.get(name, 1) else np.nan
        for name, metric in quality.METRICS.items()
    }
    for name in known.keys() & result.maps.keys():
        values["map_error"] = map_error(result.maps[name], known[name])
    return values


def map_error(found: np.ndarray, true: np.ndarray) -> float:
    """Root mean square of the difference over that of the true map, after the factor that fits best.

    Without the factor: how bright a scene is as a whole cannot be known from a picture of it.
    """
    found, true = found.astype(np.float64), true.astype(np.float64)
    factor = (true * found).sum() / max(np.square(found).sum(), 1e-12)
    return float(np.sqrt(np.square(factor * found - true).sum() / np.square(true).sum()))


def summary(scores: Sequence[Score], method: str) -> dict[str, dict[str, dict[str, Any]]]:
    """{contender: {metric: {mean, interval, n}}}, and but for the method itself gain and gain_interval.

    A gain is the method's value minus this contender's, slice by slice; intervals of 95 % are over files,
    the slices of a volume being one.
    """
    by_contender: dict[str, list[Score]] = {}
    for score in scores:
        by_contender.setdefault(score.contender, []).append(score)
    result: dict[str, dict[str, dict[str, Any]]] = {}
    for contender, own in by_contender.items():
        files = np.array([score.file for score in own])
        result[contender] = {}
        for metric in own[0].values:
            values = np.array([score.values[metric] for score in own])
            told = _mean(values, files, clustered.RANGES.get(metric, clustered.ANY))
            if told is None:
                continue
            if contender != method:
                ours = [score.values.get(metric, np.nan) for score in by_contender[method]]
                gain = _mean(np.array(ours) - values, files)
                told |= {"gain": gain["mean"], "gain_interval": gain["interval"]} if gain else {}
            result[contender][metric] = told
    return result


def _mean(
    values: np.ndarray, files: np.ndarray, within: tuple[float, float] = clustered.ANY
) -> dict[str, Any] | None:
    there = ~np.isnan(values)
    if not there.any():
        return None
    bounds = clustered.interval(values, files, within=within)
    return {"mean": float(values[there].mean()), "interval": bounds, "n": int(there.sum())}


def table(scores: Sequence[Score]) -> str:
    """All scores as CSV: file, slice, contender and the metrics."""
    names = list(dict.fromkeys(name for score in scores for name in score.values))
    rows: list[Sequence[object]] = [["file", "slice", "contender", *names]]
    for score in scores:
        values = [score.values.get(name, np.nan) for name in names]
        told = ["" if np.isnan(value) else f"{value:.6g}" for value in values]
        rows.append([score.file, score.slice, score.contender, *told])
    return csv_table(rows)
