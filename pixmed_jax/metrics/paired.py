"""Is one way of training better than another? Paired differences, and what it takes to see them.

Scores are [S, P] float: of S seeds, each a training of its own, on the same P patients (the mean over a
patient's slices), all finite. The difference of two arms is taken seed by seed and patient by patient, so
what makes a patient hard for both falls out. Seeds and patients are both samples of what might have been:

    d[s, p] = effect + seed[s] + patient[p] + rest[s, p]

Intervals resample seeds and patients independently (the pigeonhole bootstrap, Owen 2007, Ann. Appl. Stat.
1:386). It is slightly too wide in the rest and, with two or three seeds, too narrow in these; with one seed
it is about patients alone.
"""

import math
from typing import NamedTuple

import numpy as np
from scipy.stats import norm

POWER = 0.8


class Bounds(NamedTuple):
    """A mean and its bootstrap interval."""

    value: float
    low: float
    high: float


class Components(NamedTuple):
    """Variances of the parts of a difference; `seeds` is None where one seed cannot tell it from nothing."""

    patients: float
    seeds: float | None
    rest: float


def bounds(scores: np.ndarray, *, level: float = 0.95, seed: int = 0, draws: int = 10_000) -> Bounds:
    """Mean of scores or differences [S, P], patients weighing alike, and its bootstrap interval."""
    count, patients = scores.shape
    rng = np.random.default_rng(seed)
    times = [rng.multinomial(n, np.full(n, 1 / n), draws) / n for n in (count, patients)]
    means = np.einsum("ds,sp,dp->d", times[0], scores, times[1])
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Bounds(float(scores.mean()), float(low), float(high))


def components(difference: np.ndarray) -> Components:
    """Variance components of a difference [S, P] by analysis of variance, none below 0."""
    count, patients = difference.shape
    if patients < 2:
        raise ValueError("one patient has no variance")
    mean = difference.mean()
    of_patients, of_seeds = difference.mean(0) - mean, difference.mean(1) - mean
    between = (of_patients**2).sum() / (patients - 1)
    if count == 1:
        return Components(float(between), None, 0.0)
    rest = difference - mean - of_patients - of_seeds[:, None]
    noise = (rest**2).sum() / ((count - 1) * (patients - 1))
    return Components(
        float(max(0.0, between - noise / count)),
        float(max(0.0, (of_seeds**2).sum() / (count - 1) - noise / patients)),
        float(noise),
    )


def detectable(of: Components, patients: int, seeds: int) -> float:
    """The effect that so many patients and seeds would show (interval of 95 % above 0) four times in five."""
    variance = of.patients / patients + (of.seeds or 0) / seeds + of.rest / (patients * seeds)
    return _factor() * math.sqrt(variance)


def patients_needed(of: Components, effect: float, seeds: int) -> int | None:
    """How many patients would show an effect of that size with so many seeds; None: no number would."""
    room = (effect / _factor()) ** 2 - (of.seeds or 0) / seeds
    return _ceil((of.patients + of.rest / seeds) / room) if room > 0 else None


def seeds_needed(of: Components, effect: float, patients: int) -> int | None:
    """Likewise, how many seeds with so many patients."""
    room = (effect / _factor()) ** 2 - of.patients / patients
    return _ceil(((of.seeds or 0) + of.rest / patients) / room) if room > 0 else None


def _factor() -> float:
    return float(norm.ppf(0.975) + norm.ppf(POWER))


def _ceil(number: float) -> int:
    return max(1, math.ceil(number - 1e-9))
