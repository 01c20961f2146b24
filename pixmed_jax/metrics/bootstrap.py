"""How sure a number is that is no mean over slices: percentile bootstrap over whole patients (Efron 1979).

Slices of one patient are alike, so patients are drawn, each with all of its slices. Bounds are meant to be
95 %, and cover about 90 with 10 to 20 patients, fewer with less: with fewer than `LEAST` there are none.
Means and shares have better ones (`clustered.py`).
"""

import warnings
from collections.abc import Callable, Mapping

import numpy as np

from pixmed_jax.progress import watched

LEAST = 6  # patients: with fewer, most of what could be drawn is drawn, and hardly reaches beyond them


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
    NaN: one says nothing of how others differ. So they are of fewer than `LEAST` groups.
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
        return np.where((usable_without == 0).any(0) | (count < LEAST), np.nan, held)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of slices that are NaN throughout
        return {name: bounds(np.array(values)) for name, values in found.items()}
