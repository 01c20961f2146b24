"""Do generated images differ from each other as real ones do? Mode collapse, and one image per mask.

A difference is 1 - SSIM of two images: 0 for equal ones. Over the set, `spread` is the mean over pairs of
different patients and `closest` the mean difference to the most alike image of another patient, generated
and real on the same number of images: a set that collapsed has a low quotient of either, of `closest` even
where it collapsed to several modes. For one condition, `same_condition` is the mean over pairs of seeds;
real slices know only one picture of a mask, but several of a label.

Arrays: images [N, S, S] float in [0, 1]; groups [N] str.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pixmed_jax import losses
from pixmed_jax.metrics import clustered
from pixmed_jax.progress import watched

MOST = 64  # images compared with each other: 2,016 pairs
CONDITIONS, SEEDS = 64, 4
# Two sets of 16 slices of different phantoms differ by less than a fifth in either quotient; half of the real
# value, by the upper end of the interval, is then no matter of chance.
COLLAPSED = 0.5
_DRAWS = 1000

_similar = jax.jit(lambda images, by: losses.ssim_of_each(images, jnp.roll(images, -by, axis=0)))


def measure(
    generated: np.ndarray,
    real: np.ndarray,
    groups: Sequence[str],
    again: Callable[[int], np.ndarray] | None = None,
    *,
    labels: np.ndarray | None = None,
) -> dict[str, Any]:
    """The entry of evaluation.json; image i of both sets belongs to `groups[i]`.

    again: seed -> images [C, S, S] of the conditions of `spread_rows(groups, C)`. labels: of the real images,
    where a label is all the condition there is.
    """
    whose = np.array(groups)
    if len(set(whose)) < 2:
        return {"value": None, "why": "needs slices of two patients or more"}
    rows = spread_rows(whose, MOST)
    entry: dict[str, Any] = {"n": len(rows), "patients": len(set(whose[rows]))}
    matrices = {"generated": differences(generated[rows]), "real": differences(real[rows])}
    for name, value in _over_set(matrices, whose[rows]).items():
        entry[name] = value
    entry["collapsed"] = any(entry[name]["high"] < COLLAPSED for name in ("spread", "closest"))
    entry["same_condition"] = {"generated": None, "real": None, "why": "the generator was not asked again"}
    if again is not None:
        images = [again(seed) for seed in range(SEEDS)]
        apart = [np.mean(pairs(differences(np.stack(one)))) for one in zip(*images, strict=True)]
        entry["same_condition"] = {
            "generated": float(np.mean(apart)),
            "interval": clustered.interval(
                np.array(apart), whose[spread_rows(whose, len(apart))], within=(0.0, 2.0)
            ),
            **_of_labels(matrices["real"], whose[rows], None if labels is None else labels[rows]),
            "conditions": len(apart),
            "seeds": SEEDS,
        }
    return entry


def differences(images: np.ndarray) -> np.ndarray:
    """1 - SSIM of all pairs, [N, N]: of each image with the one so many places on, up to half way round."""
    stack = jnp.asarray(images, jnp.float32)[..., None]
    count = len(images)
    rows, apart = np.arange(count), np.zeros((count, count), np.float32)
    steps = range(1, count // 2 + 1)
    for by in watched(steps, len(steps), "comparing images with each other"):
        others = (rows + by) % count
        apart[rows, others] = apart[others, rows] = 1 - np.asarray(_similar(stack, by))
    return apart


def pairs(matrix: np.ndarray) -> np.ndarray:
    """The values above the diagonal."""
    return np.asarray(matrix[np.triu_indices(len(matrix), 1)])


def spread_rows(groups: np.ndarray, most: int) -> np.ndarray:
    """Up to `most` rows: every patient's first before anybody's second."""
    turns: dict[str, int] = {}
    order = []
    for row, group in enumerate(groups):
        order.append((turns.get(group, 0), row))
        turns[group] = turns.get(group, 0) + 1
    return np.sort([row for _, row in sorted(order)[:most]])


def even_rows(groups: np.ndarray, per_group: int, most: int) -> np.ndarray:
    """Up to `per_group` rows of each patient, evenly spaced: the first count no more than the last.

    At most `most`, evenly spaced again. A patient's slices come in an order, that of the scan for one, and
    the first are not like the others.
    """
    rows = []
    for name in np.unique(groups):
        own = np.flatnonzero(groups == name)
        places = (np.arange(min(per_group, len(own))) + 0.5) * len(own) / min(per_group, len(own))
        rows.append(own[places.astype(int)])
    every = np.sort(np.concatenate(rows))
    return every[np.linspace(0, len(every) - 1, min(most, len(every))).round().astype(int)]


def _over_set(matrices: dict[str, np.ndarray], groups: np.ndarray) -> dict[str, dict[str, float]]:
    """Generated, real and their quotient with its bootstrap interval over patients; see `bootstrap`."""
    names, patient = np.unique(groups, return_inverse=True)
    apart = patient[:, None] != patient[None]
    rng = np.random.default_rng(0)
    draws = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), _DRAWS)[:, patient]

    def spread(matrix: np.ndarray, weights: np.ndarray) -> np.ndarray:
        total = np.einsum("di,ij,dj->d", weights, np.where(apart, matrix, 0), weights, optimize=True)
        count = np.einsum("di,ij,dj->d", weights, apart.astype(float), weights, optimize=True)
        return np.asarray(total / np.maximum(count, 1e-9))

    def closest(matrix: np.ndarray, weights: np.ndarray) -> np.ndarray:
        nearest = np.where(apart, matrix, np.inf).min(axis=1)
        return np.asarray(weights @ nearest / weights.sum(axis=1))

    result = {}
    once = np.ones((1, len(groups)))
    for name, statistic in (("spread", spread), ("closest", closest)):
        values = {key: float(statistic(matrix, once)[0]) for key, matrix in matrices.items()}
        generated, real = (statistic(matrices[key], draws) for key in ("generated", "real"))
        low, high = np.percentile((generated / np.maximum(real, 1e-9))[real > 0], [2.5, 97.5])
        ratio = values["generated"] / max(values["real"], 1e-9)
        result[name] = {**values, "ratio": ratio, "low": float(low), "high": float(high)}
    return result


def _of_labels(matrix: np.ndarray, groups: np.ndarray, labels: np.ndarray | None) -> dict[str, Any]:
    if labels is None:
        return {"real": None, "why": "there is one real slice of a mask"}
    alike = (labels[:, None] == labels[None]) & (groups[:, None] != groups[None])
    if not alike.any():
        return {"real": None, "why": "no two patients share a label here"}
    return {"real": float(matrix[alike].mean())}
