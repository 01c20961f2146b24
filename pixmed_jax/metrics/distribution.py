"""How alike two sets of images are, from their features: KID, FID, precision, recall, density, coverage.

Features [N, D]; `groups` [N] names the patient behind each. All arithmetic is float64.

    KID     unbiased squared MMD with the kernel (x . y / D + 1)^3 (Binkowski et al. 2018, Section 4). Of all
            pairs at once, which is what the mean over random subsets tends to, without its noise; negative
            values are right where two sets are alike.
    FID     Frechet distance of Gaussians (Heusel et al. 2017, Section 3). It falls as N grows, so only values
            of equal N compare; of fewer images than features it is the custom, and little but its bias.
    precision, recall    Kynkaanniemi et al. 2019, Equation 1, with k = 3 neighbours.
    density, coverage    Naeem et al. 2020, Equations 3 and 4, with k = 5.

None means anything alone. Beside each stands what real slices have in the place of the generated ones. Of
images that were made from a class alone: whole training patients, as many slices, against the same test
patients ("floor"), and two halves of the test patients ("halves"). Of images that were made from the test
patients' own maps these are no floor, since there both sets are of the same patients, whose luck cancels:
slices of one patient are alike, within a set and across. So other slices of the same patients stand beside
them ("same_patients"): of each patient half of the slices, in the place of the other half.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from scipy import stats

from pixmed_jax.progress import watched

NEIGHBOURS = {"precision": 3, "recall": 3, "density": 5, "coverage": 5}
_LEAST = 8  # slices of a set, below which nothing is said
_MOST = 2000  # slices of a set that are compared: 32 MB a kernel matrix, and a second or two
_DRAWS, _SPLITS = 300, 8

SAME = "same_patients"
LOOKUP = "class_means"

Statistic = Callable[[np.ndarray, np.ndarray], float]  # of how often each of x, and each of y, was drawn


# ---------------------------------------------------------------- KID
def kid(x: np.ndarray, y: np.ndarray, *, matched: bool = False) -> float:
    """Unbiased squared maximum mean discrepancy of features [N, D] and [M, D], N and M at least 2.

    matched: x[i] was made from what is known of y[i], its label map for one.
    """
    return _kid(x, y, matched)(np.ones(len(x)), np.ones(len(y)))


def _kid(x: np.ndarray, y: np.ndarray, matched: bool = False) -> Statistic:
    """KID by weights. Pairs of a slice with itself are left out however often the slice was drawn, and so are
    those of a slice with what was made from it: alike beyond chance, they would bring two sets nearer than
    any two that are independent (Gretton et al. 2012, JMLR 13:723, Equation 4, leaves them out too).
    """
    xx, yy, xy = _kernel(x, x), _kernel(y, y), _kernel(x, y)
    np.fill_diagonal(xx, 0)
    np.fill_diagonal(yy, 0)
    if matched:
        np.fill_diagonal(xy, 0)

    def apart(k: np.ndarray, a: np.ndarray, b: np.ndarray) -> float:
        return float(a @ k @ b / (a.sum() * b.sum() - a @ b))

    def across(a: np.ndarray, b: np.ndarray) -> float:
        return apart(xy, a, b) if matched else float(a @ xy @ b / (a.sum() * b.sum()))

    return lambda a, b: apart(xx, a, a) + apart(yy, b, b) - 2 * across(a, b)


def _kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return (x.astype(np.float64) @ y.T.astype(np.float64) / x.shape[1] + 1) ** 3


# ---------------------------------------------------------------- FID
def fid(x: np.ndarray, y: np.ndarray) -> float:
    """Squared Frechet distance of the Gaussians with the means and covariances (by N - 1) of two sets."""
    return _fid(x, y)(np.ones(len(x)), np.ones(len(y)))


def frechet(mean: np.ndarray, cov: np.ndarray, other_mean: np.ndarray, other_cov: np.ndarray) -> float:
    """|m - n|^2 + tr(C + D) - 2 tr((C D)^1/2), the root's trace from eigenvalues.

    C D has the eigenvalues of the symmetric C^1/2 D C^1/2, which rounding cannot make complex.
    """
    values, vectors = np.linalg.eigh(cov)
    root = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    shared = np.sqrt(np.linalg.eigvalsh(root @ other_cov @ root).clip(0)).sum()
    return float(((mean - other_mean) ** 2).sum() + np.trace(cov) + np.trace(other_cov) - 2 * shared)


def _fid(x: np.ndarray, y: np.ndarray) -> Statistic:
    x, y = x.astype(np.float64), y.astype(np.float64)
    if min(len(x), len(y)) <= x.shape[1]:
        return _fid_of_few(x, y)

    def moments(of: np.ndarray, w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        mean = w @ of / w.sum()
        return mean, (of - mean).T @ ((of - mean) * w[:, None]) / (w.sum() - 1)

    return lambda a, b: frechet(*moments(x, a), *moments(y, b))


def _fid_of_few(x: np.ndarray, y: np.ndarray) -> Statistic:
    """The same of fewer images than features, from products of images [N, M] instead of features [D, D].

    With C = A'A and D = B'B, A and B the centred images as rows, tr((C D)^1/2) is the sum of the singular
    values of A B'.
    """
    middle = np.concatenate([x, y]).mean(0)  # which moves nothing, and keeps digits
    x, y = x - middle, y - middle
    xx, yy, xy = x @ x.T, y @ y.T, x @ y.T

    def spread(products: np.ndarray, w: np.ndarray) -> tuple[float, float]:
        """(squared length of the mean, trace of the covariance)"""
        mean = float(w @ products @ w) / w.sum() ** 2
        return mean, float(w @ np.diag(products) - w.sum() * mean) / (w.sum() - 1)

    def statistic(a: np.ndarray, b: np.ndarray) -> float:
        (mean_x, trace_x), (mean_y, trace_y) = spread(xx, a), spread(yy, b)
        left, right = xy @ b / b.sum(), a @ xy / a.sum()
        between = float(a @ left / a.sum())
        rows, columns = a > 0, b > 0
        centred = (xy - left[:, None] - right[None] + between)[np.ix_(rows, columns)]
        centred *= np.sqrt(np.outer(a[rows] / (a.sum() - 1), b[columns] / (b.sum() - 1)))
        shared = np.linalg.svd(centred, compute_uv=False).sum()
        return mean_x + mean_y - 2 * between + trace_x + trace_y - 2 * float(shared)

    return statistic


# ---------------------------------------------------------------- neighbours
def neighbours(generated: np.ndarray, real: np.ndarray) -> dict[str, float]:
    """Precision, recall, density and coverage of generated features [M, D] among real ones [N, D].

    A ball reaches from each image to the k-th nearest other of its own set.
    """
    real_real, own = distances(real, real), distances(generated, generated)
    across = distances(generated, real)  # [M, N]

    def radii(distances: np.ndarray, k: int) -> np.ndarray:
        return np.sort(distances, axis=1)[:, k]  # column 0 is the image itself

    inside = across <= radii(real_real, NEIGHBOURS["density"])
    return {
        "precision": float((across <= radii(real_real, NEIGHBOURS["precision"])).any(1).mean()),
        "recall": float((across <= radii(own, NEIGHBOURS["recall"])[:, None]).any(0).mean()),
        "density": float(inside.sum(1).mean() / NEIGHBOURS["density"]),
        "coverage": float(inside.any(0).mean()),
    }


def distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """[N, M] Euclidean, exactly 0 between an array's row and itself."""
    x, y = x.astype(np.float64), y.astype(np.float64)
    squared = (x**2).sum(1)[:, None] + (y**2).sum(1)[None] - 2 * x @ y.T
    if x is y or np.array_equal(x, y):
        np.fill_diagonal(squared, 0)
    return np.sqrt(squared.clip(0))


# ---------------------------------------------------------------- the entries of evaluation.json
def compare(
    generated: np.ndarray,
    real: np.ndarray,
    train: np.ndarray,
    *,
    groups: np.ndarray,
    train_groups: np.ndarray,
    features: str,
    matched: bool,
    lookup: np.ndarray | None = None,
    singular: bool = False,
    seed: int = 0,
) -> dict[str, dict[str, Any]]:
    """{"kid", "fid", "precision", "recall", "density", "coverage"} of generated images beside their floors.

    Of matched images also beside other real slices of the same patients and, where given, `lookup`, [N, D]
    features of what is made of the same maps without a network. KID's entry then has in "apart" what two sets
    of as many other patients have on average: a unit, since the same patients' other slices have about 0.

    generated, real: features [N, D]; image i was generated for real slice i, so `groups` are those of both.
    train: features [M, D] of real slices of other patients, `train_groups` [M].
    features: what the features are, for the report. matched: image i was told more of slice i than its label.
    singular: FID also of fewer images than features.

    What too few slices say nothing of is None, and "why" says so of a value, or of the floor alone.
    """
    rng = np.random.default_rng(seed)
    if len(real) > _MOST:
        rows = np.sort(rng.choice(len(real), _MOST, replace=False))
        generated, real, groups = generated[rows], real[rows], groups[rows]
        lookup = None if lookup is None else lookup[rows]
    n, dims = real.shape
    told = {"features": features, "n": n}
    if why := too_few(groups):
        return {name: {**nothing(why), **told} for name in ("kid", "fid", *NEIGHBOURS)}

    others = [whole_patients(train_groups, n, rng) for _ in range(_SPLITS)]
    halves = [_halves(groups, rng) for _ in range(_SPLITS)]
    result: dict[str, dict[str, Any]] = {}
    same: list[tuple[np.ndarray, np.ndarray]] = []
    if matched:
        own_rng = np.random.default_rng([seed, 1])  # so that no other draw depends on it
        same = [other_slices(groups, own_rng) for _ in range(_SPLITS)]
    n_same = len(same[0][0]) if same else 0
    if same and too_few(groups[same[0][0]]):
        same = []
    for name, of, of_made, least in (
        ("kid", _kid, partial(_kid, matched=matched), _LEAST),
        ("fid", _fid, _fid, 2 * _LEAST if singular else dims + 1),
    ):
        told_of = {**told, "n_floor": min(n, len(train)), "n_halves": n // 2}
        if n < least:
            why = f"{n} slices do not determine the covariance of {dims} features; {least} are needed"
            result[name] = {**nothing(why), **told_of}
            continue
        value, draws = _resampled(of_made(generated, real), groups, rng, name)
        low, high = interval(value, draws)
        ones, split = [], []
        if len(train) >= least:
            ones = [of(train[rows], real)(np.ones(len(rows)), np.ones(n)) for rows in others]
        else:
            told_of["why"] = f"the floor: {len(train)} training slices, and {least} are needed"
        if n // 2 >= least:
            split = [of(real[a], real[b])(np.ones(len(a)), np.ones(len(b))) for a, b in halves]
        result[name] = {
            "value": value,
            "low": low,
            "high": high,
            "floor": float(np.mean(ones)) if ones else None,
            "halves": float(np.mean(split)) if split else None,
            **told_of,
        }
        if name == "kid":
            result[name]["draws"] = [float(f"{draw:.5g}") for draw in draws]
        if not matched:
            continue
        once = np.ones(n)
        of_same = [of_made(real[b], real[a])(once[a], once[a]) for a, b in same if n_same >= least]
        result[name] |= {
            SAME: float(np.mean(of_same)) if of_same else None,
            f"n_{SAME}": n_same,
            LOOKUP: None if lookup is None else of_made(lookup, real)(once, once),
        }
        if name == "kid":
            result[name]["apart"] = apart(real, groups)
    found = neighbours(generated, real)
    same_found = [neighbours(real[b], real[a]) for a, b in same]
    of_lookup = {} if lookup is None else neighbours(lookup, real)
    floors = [neighbours(train[rows], real) for rows in others if len(rows) > max(NEIGHBOURS.values())]
    for name, k in NEIGHBOURS.items():
        floor = float(np.mean([of[name] for of in floors])) if floors else None
        result[name] = {"value": found[name], "floor": floor, "k": k, **told}
        if matched:
            of_name = [of[name] for of in same_found]
            result[name] |= {SAME: float(np.mean(of_name)) if of_name else None, LOOKUP: of_lookup.get(name)}
    return result


def too_few(groups: np.ndarray) -> str:
    """Why nothing can be said of slices of these patients, or ""."""
    n, patients = len(groups), len(set(groups.tolist()))
    if n >= _LEAST and patients >= 4:
        return ""
    return f"{n} slices of {patients} patients are too few; {_LEAST} slices of 4 patients are needed"


def nothing(why: str) -> dict[str, Any]:
    """An entry without a number, and why."""
    return {"value": None, "low": None, "high": None, "floor": None, "halves": None, "why": why}


def _resampled(
    statistic: Statistic, groups: np.ndarray, rng: np.random.Generator, what: str
) -> tuple[float, list[float]]:
    """(value, bootstrap draws): patients are drawn, both sets of each together.

    Draw k is of the same patients in every evaluation of the same slices by the same seed, so the draws of
    two systems may be subtracted.
    """
    _, patient = np.unique(groups, return_inverse=True)
    count = patient.max() + 1
    ones = np.ones(len(groups))
    draws = []
    for _ in watched(range(_DRAWS), _DRAWS, f"resampling patients for {what}"):
        times = np.bincount(rng.integers(0, count, count), minlength=count)[patient].astype(float)
        if (times > 0).sum() > 1:
            draws.append(statistic(times, times))
    return statistic(ones, ones), draws


def other_slices(groups: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(rows, for each the row of another slice of the same patient): half of each patient's slices at random
    and the other half, so that no slice is in both; of an odd number one is left out.

    Were each slice replaced by the next, both sets would hold the same slices: recall 1, whatever they are.
    """
    rows = [rng.permutation(np.flatnonzero(groups == name)) for name in np.unique(groups)]
    pairs = np.concatenate([of[: len(of) // 2 * 2].reshape(-1, 2) for of in rows])
    return pairs[:, 0], pairs[:, 1]


def apart(real: np.ndarray, groups: np.ndarray) -> float | None:
    """The KID that two sets of as many other patients have on average; None where no patient has two slices.

    Slices of one patient are more alike than those of two, and such pairs are within the sets alone. It is
    what the mean over ever more pairs of sets tends to: no luck is in it, and it is not 0 by chance.
    """
    kernel, same = _kernel(real, real), groups[:, None] == groups[None]
    own = same & ~np.eye(len(groups), dtype=bool)
    if not own.any():
        return None
    share = own.sum() / (len(groups) * (len(groups) - 1))
    return float(2 * share * (kernel[own].mean() - kernel[~same].mean()))


def interval(value: float, draws: Sequence[float]) -> tuple[float, float]:
    """The 95 % interval of a value, or of a difference, of which there are draws.

    A patient who is drawn twice makes a set more uniform than it is, which moves all draws the same way: so
    the draws' spread is set around the value.
    """
    low, high = np.percentile(draws, [2.5, 97.5]) - np.mean(draws)
    return float(value + low), float(value + high)


def differences(
    values: Sequence[float], draws: Sequence[Sequence[float]], patients: int
) -> tuple[np.ndarray, np.ndarray]:
    """(low, high) [K, K] of value i less value j, of K systems with draws of the same patients.

    95 % hold for all pairs together, so for that one too which was chosen for its values.

    Half of a pair's interval is its draws' standard deviation times what the largest of all pairs, each in
    units of its own, stays below in 95 % of the draws (max t: Westfall and Young 1993, Section 2.6).
    Student's t widens it as few patients ask for, whose draws spread less than new patients would.
    """
    value, drawn = np.asarray(values, np.float64), np.asarray(draws, np.float64)
    centred = drawn - drawn.mean(axis=1, keepdims=True)
    apart = centred[:, None] - centred[None]  # [K, K, draws]
    spread = apart.std(axis=2)
    in_units = np.abs(apart) / np.where(spread > 0, spread, np.inf)[..., None]
    times = np.percentile(in_units.max(axis=(0, 1)), 95)
    few = stats.t.ppf(0.975, patients - 1) / stats.norm.ppf(0.975) * np.sqrt(patients / (patients - 1))
    difference, reach = value[:, None] - value[None], times * few * spread
    return difference - reach, difference + reach


def whole_patients(groups: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """Up to n rows: whole patients in a random order, the last one cut off."""
    names, patient = np.unique(groups, return_inverse=True)
    order = np.argsort(rng.permutation(len(names))[patient], kind="stable")
    return order[:n]


def _halves(groups: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Rows of two sets of patients, about as many slices in each."""
    order = whole_patients(groups, len(groups), rng)
    sorted_groups = groups[order]
    starts = np.flatnonzero(np.r_[True, sorted_groups[1:] != sorted_groups[:-1]])
    cut = starts[1:][np.abs(starts[1:] - len(order) / 2).argmin()]
    return order[:cut], order[cut:]
