"""How sure a number is that comes of few patients: percentile bootstrap over whole patients (Efron 1979).

Slices of one patient are alike, so patients are drawn, each with all of its slices. Bounds are 95 %.
"""

import warnings
from collections.abc import Callable, Mapping

import numpy as np

from pixmed_jax.progress import watched


def interval(
    values: np.ndarray, groups: np.ndarray, *, seed: int = 0, draws: int = 2000
) -> tuple[float, float] | None:
    """95 % bootstrap interval of the mean, resampling whole patient groups; None of fewer than two with a
    value that is no NaN: one says nothing of how others differ."""
    kept = ~np.isnan(values)
    names, patient = np.unique(groups[kept], return_inverse=True)
    if len(names) < 2:
        return None
    sums, counts = np.bincount(patient, values[kept]), np.bincount(patient)
    picks = np.random.default_rng(seed).integers(0, len(sums), (draws, len(sums)))
    means = sums[picks].sum(axis=1) / counts[picks].sum(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def resampled(
    groups: np.ndarray,
    statistic: Callable[[np.ndarray], Mapping[str, np.ndarray]],
    *,
    seed: int = 0,
    draws: int = 1000,
) -> dict[str, np.ndarray]:
    """95 % bootstrap bounds [2, ...] of statistics that are no means, resampling whole patient groups.

    `statistic` takes how often each of N images was drawn, [N]; draws in which it is NaN are left out. Where
    it is NaN in every draw without a certain group (one patient has all slices of a class), the bounds are
    NaN: one says nothing of how others differ.
    """
    _, patient = np.unique(groups, return_inverse=True)
    count = patient.max() + 1
    rng = np.random.default_rng(seed)
    found: dict[str, list[np.ndarray]] = {}
    absent = []
    for _ in watched(range(draws), draws, "resampling patients"):
        times = np.bincount(rng.integers(0, count, count), minlength=count)
        absent.append(times == 0)
        for name, value in statistic(times[patient]).items():
            found.setdefault(name, []).append(value)
    without = np.array(absent, float).T

    def bounds(values: np.ndarray) -> np.ndarray:
        usable_without = np.tensordot(without, ~np.isnan(values), 1)  # [groups, ...], in how many draws
        held = np.nanpercentile(values, [2.5, 97.5], axis=0)
        return np.where((usable_without == 0).any(0), np.nan, held)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of slices that are NaN throughout
        return {name: bounds(np.array(values)) for name, values in found.items()}
