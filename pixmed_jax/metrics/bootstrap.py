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

    `statistic` takes how often each of N images was drawn, [N]; draws in which it is NaN are left out.
    """
    _, patient = np.unique(groups, return_inverse=True)
    count = patient.max() + 1
    rng = np.random.default_rng(seed)
    found: dict[str, list[np.ndarray]] = {}
    for _ in watched(range(draws), draws, "resampling patients"):
        times = np.bincount(rng.integers(0, count, count), minlength=count)
        for name, value in statistic(times[patient]).items():
            found.setdefault(name, []).append(value)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of slices that are NaN throughout
        return {name: np.nanpercentile(np.array(v), [2.5, 97.5], axis=0) for name, v in found.items()}
