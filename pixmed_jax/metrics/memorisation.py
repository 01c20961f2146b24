"""Are generated images new, or training images again? Distances to training images, and attacks by them.

A distance is 1 - likeness (`likeness.py`): mirrored, shifted and slightly turned copies are as near as plain
ones. Three questions, each against real held-out images, which nobody can have copied:

Copies. How much nearer is the nearest training patient than the next five? A soft image is nearer to
everybody, a copy to one patient alone, so this quotient (`standing`, 1: nobody stands out) tells them apart
(Carlini et al. 2023, "Extracting Training Data from Diffusion Models", divide by the mean of near neighbours
likewise). `near` are the images below the quotient that one held-out image in a hundred falls below; `copies`
those that, on a logarithmic scale, are twice as far from the held-out images' median as that. How many
strangers would give, `copies_expected`, is a bound from the held-out images: with n of them no chance below
1 in n + 1 can be seen.

Membership. Chen et al. 2020 ("GAN-Leaks", the black-box attack): whoever holds an image guesses that it was
trained on if some generated image is near. AUC: the chance that a training image is nearer to the generated
ones than a held-out image is; 0.5 is a guess. A held-out image is only compared with images that were drawn
from the conditions of other patients (five folds), and training images with the same ones.

Recognition, where the generator takes label maps. An image drawn from a patient's own map may show that
patient, trained on or not. `recognised` is how often that patient is the nearest of all; the AUC here is the
attack of someone who also holds the map: is the redrawn image nearer to its slice if it was trained on?

Label maps that a model drew are asked the same, by another likeness (`overlap.py`).

Arrays: images [N, S, S] float in [0, 1], groups [N] str (patients, or slices where patients are unknown).
Intervals of 95 % are over patients: binomial ones of shares (`clustered.py`), of AUCs by resampling whole
patients on both sides, from `bootstrap.LEAST` held-out ones on.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from pixmed_jax.metrics import bootstrap, clustered
from pixmed_jax.metrics.likeness import likeness

RATE = 0.01  # of held-out images that fall below `near`
_NEXT = 5  # patients after the nearest
_FOLDS = 5
_DRAWS = 2000
_LEAST = 6  # patients; with fewer no rank test reaches 0.05


class Nearest(NamedTuple):
    """For each of N images the nearest of M others, [N] each."""

    rows: np.ndarray
    distance: np.ndarray  # to it
    standing: np.ndarray  # distance / mean distance of the next patients' nearest; NaN if there are none


class Real(NamedTuple):
    """Real slices [N, S, S] in [0, 1] and the patient group of each, [N]."""

    images: np.ndarray
    groups: np.ndarray


class Found(NamedTuple):
    """The entry of evaluation.json, and what its pictures need."""

    entry: dict[str, Any]
    generated: Nearest
    held_out: Nearest
    members: np.ndarray  # distances of training images to the nearest generated one
    others: np.ndarray  # of held-out images


def measure(
    generated: np.ndarray,
    groups: np.ndarray | None,
    train: Real,
    held_out: Real,
    alike: Callable[[np.ndarray, np.ndarray, str], np.ndarray] = likeness,
) -> Found:
    """Copies and membership. `groups`: patients whose conditions were drawn from, None for nobody's.

    alike: (queries, references, what is done) -> likenesses [N, M] up to 1.
    """
    to_train = alike(generated, train.images, "generated against training slices")
    null = alike(held_out.images, train.images, "held-out against training slices")
    null[held_out.groups[:, None] == train.groups[None]] = -1  # in a split by slice
    to_others = alike(generated, held_out.images, "generated against held-out slices")
    found, real = nearest(to_train, train.groups), nearest(null, train.groups)
    limits = thresholds(real.standing)
    entry: dict[str, Any] = {
        "ratio": float(np.median(found.distance) / np.median(real.distance)),
        "copies": None,
        "n": len(generated),
        "n_train": len(train.images),
        "n_held_out": len(held_out.images),
        "patients": {"train": len(set(train.groups)), "held_out": len(set(held_out.groups))},
        "distance": {"generated": _spread(found.distance), "held_out": _spread(real.distance)},
    }
    if limits is None:
        entry["why"] = "copies stand out from other patients, and all training slices are of one"
    else:
        near, certain, rate = limits
        whose = groups if groups is not None else np.arange(len(generated)).astype(str)
        below = found.standing < near
        strangers = int((real.standing < certain).sum())
        bounds = clustered.share(below.astype(float), whose) or (0.0, 1.0)
        entry |= {
            "copies": int((found.standing < certain).sum()),
            "copies_expected": (strangers + 1) / (len(real.standing) + 1) * len(generated),
            "held_out_copies": strangers,
            "near": int(below.sum()),
            "near_expected": rate * len(generated),
            "near_share_interval": bounds,
            "false_positive_rate": rate,
            "thresholds": {"near": near, "copy": certain},
            "standing": {"generated": _spread(found.standing), "held_out": _spread(real.standing)},
            **_p(found.standing, groups, real.standing, held_out.groups),
        }
    wins, members, others = _attack(to_train, to_others, groups, held_out.groups)
    entry |= auc(wins, held_out.groups, train.groups)
    return Found(entry, found, real, members, others)


class Redrawn(NamedTuple):
    """Images [N, S, S] drawn from the maps of real slices, and the rows of these."""

    images: np.ndarray
    rows: np.ndarray


def recognition(of_train: Redrawn, of_held_out: Redrawn, train: Real, held_out: Real) -> dict[str, Any]:
    """How often a redrawn slice is nearest to its own patient, and the attack by distance to its slice."""
    everyone = Real(
        np.concatenate([train.images, held_out.images]), np.concatenate([train.groups, held_out.groups])
    )
    shares: dict[str, Any] = {}
    own = {}
    for name, drawn, first in (("training", of_train, 0), ("held_out", of_held_out, len(train.images))):
        alike = likeness(drawn.images, everyone.images, f"redrawn {name.replace('_', '-')} slices")
        rows = first + drawn.rows
        own[name] = 1 - alike[np.arange(len(rows)), rows]
        hits = everyone.groups[alike.argmax(axis=1)] == everyone.groups[rows]
        low_high = clustered.share(hits.astype(float), everyone.groups[rows]) or (0.0, 1.0)
        shares[name] = {
            "recognised": float(hits.mean()),
            "interval": low_high,
            "distance": _spread(own[name]),
            "n": len(rows),
        }
    # [held-out, training]: is the redrawn training image nearer to its slice?
    wins = _wins(own["training"][None], own["held_out"][:, None])
    chance = 1 / len(set(everyone.groups))
    return {
        **shares,
        "chance": chance,
        **auc(wins, held_out.groups[of_held_out.rows], train.groups[of_train.rows]),
    }


def nearest(alike: np.ndarray, groups: np.ndarray) -> Nearest:
    """From likenesses [N, M] to images of `groups` [M]."""
    distances = np.maximum(1 - alike, 0)
    order = np.argsort(groups, kind="stable")
    starts = np.flatnonzero(np.r_[True, groups[order][1:] != groups[order][:-1]])
    of_patients = np.minimum.reduceat(distances[:, order], starts, axis=1)
    of_patients.sort(axis=1)
    rows = distances.argmin(axis=1)
    if of_patients.shape[1] == 1:
        return Nearest(rows, of_patients[:, 0], np.full(len(alike), np.nan))
    beyond = of_patients[:, 1 : 1 + _NEXT].mean(axis=1)
    return Nearest(rows, of_patients[:, 0], of_patients[:, 0] / np.maximum(beyond, 1e-6))


def thresholds(standing: np.ndarray) -> tuple[float, float, float] | None:
    """(near, copy, rate) from held-out images: `rate` of them, and of new strangers, fall below `near`.

    The k-th smallest of n values is undercut by one more with a probability of k / (n + 1); with few images
    the rate is what the smallest gives. Equality counts as above, so that n held-out images give k - 1.
    """
    if np.isnan(standing).any():
        return None
    ordered = np.sort(standing)
    k = max(1, int(RATE * (len(ordered) + 1)))
    near, median = float(ordered[k - 1]), float(np.median(ordered))
    return near, near**2 / median, k / (len(ordered) + 1)


def auc(wins: np.ndarray, held_out: np.ndarray, train: np.ndarray, seed: int = 0) -> dict[str, Any]:
    """{"auc", "auc_interval"} of wins [H, M] (1, or 0.5 for a draw), resampling patients on both sides; with
    fewer than `bootstrap.LEAST` held-out ones, or one trained on, it may be anything."""
    _, rows = np.unique(held_out, return_inverse=True)
    _, columns = np.unique(train, return_inverse=True)
    sums = np.zeros((rows.max() + 1, columns.max() + 1))
    by_rows = np.zeros((len(sums), wins.shape[1]))
    np.add.at(by_rows, rows, wins)
    np.add.at(sums.T, columns, by_rows.T)
    pairs = np.outer(np.bincount(rows), np.bincount(columns))
    rng = np.random.default_rng(seed)
    a = rng.multinomial(len(sums), np.full(len(sums), 1 / len(sums)), _DRAWS)
    b = rng.multinomial(sums.shape[1], np.full(sums.shape[1], 1 / sums.shape[1]), _DRAWS)
    drawn = ((a @ sums) * b).sum(axis=1) / ((a @ pairs) * b).sum(axis=1)
    # Held-out patients stand for all strangers; those trained on are all there are.
    enough = len(sums) >= bootstrap.LEAST and sums.shape[1] > 1
    low, high = np.percentile(drawn, [2.5, 97.5]) if enough else (0.0, 1.0)
    return {"auc": float(wins.mean()), "auc_interval": (float(low), float(high))}


def _attack(
    to_train: np.ndarray, to_others: np.ndarray, groups: np.ndarray | None, held_out: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Wins [H, M] of training over held-out images, and both sides' distances (those of the last fold)."""
    patients, index = np.unique(held_out, return_inverse=True)
    folds = np.random.default_rng(0).permutation(len(patients))[index] % min(_FOLDS, len(patients))
    wins = np.empty((len(held_out), to_train.shape[1]), np.float32)
    others = np.empty(len(held_out))
    members = np.empty(0)
    for fold in np.unique(folds):
        here = folds == fold
        strangers = np.ones(len(to_train), bool) if groups is None else ~np.isin(groups, held_out[here])
        if not strangers.any():
            strangers[:] = True  # a single patient: nobody else's condition to draw from
        members = 1 - to_train[strangers].max(axis=0)
        others[here] = 1 - to_others[strangers][:, here].max(axis=0)
        wins[here] = _wins(members[None], others[here][:, None])
    return wins, members, others


def _wins(members: np.ndarray, others: np.ndarray) -> np.ndarray:
    return np.asarray((members < others) + 0.5 * (members == others), np.float32)


def _p(
    generated: np.ndarray, groups: np.ndarray | None, held_out: np.ndarray, patients: np.ndarray
) -> dict[str, Any]:
    """How likely generated images stand as near by chance: a one-sided rank test, patients as units.

    With patients, Wilcoxon's signed-rank test of each patient's mean difference. Without, Mann and Whitney's
    test of all generated images against one slice of each patient: the median p of many draws, twice (which
    bounds it: Meinshausen et al. 2009).
    """
    if len(set(patients)) < _LEAST:
        return {"p": None, "p_why": f"a rank test needs {_LEAST} held-out patients"}
    if groups is not None:
        shared = sorted(set(groups) & set(patients))
        gaps = [generated[groups == g].mean() - held_out[patients == g].mean() for g in shared]
        if len(gaps) < _LEAST or not np.any(gaps):
            return {"p": None if len(gaps) < _LEAST else 1.0}
        return {"p": float(stats.wilcoxon(gaps, alternative="less").pvalue)}
    rng = np.random.default_rng(0)
    values = []
    for _ in range(99):
        one = [held_out[rng.choice(np.flatnonzero(patients == g))] for g in sorted(set(patients))]
        values.append(stats.mannwhitneyu(generated, one, alternative="less").pvalue)
    return {"p": float(min(1.0, 2 * np.median(values)))}


def _spread(values: np.ndarray) -> dict[str, float]:
    """Smallest, 5th percentile, median and 95th."""
    names = ("least", "p5", "median", "p95")
    return dict(zip(names, map(float, np.percentile(values, [0, 5, 50, 95])), strict=True))
