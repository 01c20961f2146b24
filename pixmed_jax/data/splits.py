"""Which slices train, validate and test.

Slices of one patient look alike, so a patient belongs to one split only; `by="slice"` gives that up, with a
warning. A split is {"train", "val", "test"} -> sorted row numbers of the `Source` (int64), and depends on
names, labels and the seed alone, not on the order of the rows. Where only a share of the training patients
trains, "spare" has the others, who can be tested on as well. Folds that the data bring are called by the
names in their column, and counted from 0 in the order of these: numbers as numbers.
Errors: PixmedError.
"""

import math
import sys
import warnings
from collections.abc import Mapping, Sequence
from operator import eq

import numpy as np

from pixmed_jax.data.slices import Source
from pixmed_jax.errors import PixmedError, listing

SPLITS = ("train", "val", "test")
SPARE = "spare"
TRIALS = 8  # random orders tried; more gain little on 169 patients


def split(
    source: Source,
    *,
    fractions: Sequence[float] = (0.8, 0.1, 0.1),
    by: str = "patient",
    seed: int = 0,
    given: Sequence[str] | None = None,
    folds: int = 0,
    fold: int = 0,
    crossing: str = "error",
    keep: float = 1.0,
    keep_seed: int = 0,
) -> dict[str, np.ndarray]:
    """Rows of each split, with slice counts near `fractions` in total and for each label.

    by:    "patient" keeps the groups of the source whole, "slice" warns and moves slices one by one.
    given: "train", "val" or "test" per row, for a split made elsewhere, or with `folds` the name of a fold;
           fractions and seed are then unused.
    folds: cut the data into that many equal parts instead; part `fold` is the test split, the next one (the
           first after the last) the validation split, the others train. The parts depend on the seed, not on
           `fold`, so over all folds each slice is tested once. Where folds are given, these are the parts.
    crossing: what becomes of patients with slices in several given folds: "error", or "move", each to the
           fold that has most of its slices (the first of equals), with a warning.
    keep:  the share of the training patients (of slices, by slice) that train, drawn by `keep_seed`, each
           label keeping its share; the others are "spare". Validation and test do not depend on it.
    A fraction of 0 leaves its split empty.
    """
    if by not in ("patient", "slice"):
        raise PixmedError(f"data.split.by={by!r} is unknown; use patient or slice")
    if by == "slice":
        warnings.warn(
            "data.split.by=slice puts slices of one patient into several splits: scores will be too good",
            stacklevel=2,
        )
    elif nameless := sum(map(eq, source.groups, source.files)):
        raise PixmedError(
            f"the data name no patients of {nameless} of {len(source.files)} slices, so a split by patient "
            "is impossible; give data.meta with data.patient_column, or accept leakage with "
            "data.split.by=slice"
        )
    if crossing not in ("error", "move"):
        raise PixmedError(f"data.split.crossing={crossing!r} is unknown; use error or move")
    if folds or fold:
        _check_folds(folds, fold)
    names = np.array(source.files if by == "slice" else source.groups)
    if given is not None and folds:
        found, part = _given_folds(given, names, folds, crossing)
        chosen = _parts(part, folds, fold)
        tested, validated = found[fold], found[(fold + 1) % folds]
        for name in (tested, validated):
            if found.index(name) not in part:
                raise PixmedError(
                    f"the given fold {name!r} is empty once its patients are moved; leave it out"
                )
        print(f"given folds: {tested!r} is the test split, {validated!r} validates", file=sys.stderr)
    elif given is not None:
        chosen = _check_given(given, len(names))
    else:
        units, unit_of_row = _units(names, source)
        if folds:
            _check_units(len(units), folds, by, "take fewer data.split.folds")
            part = _assign(units, np.full(folds, 1 / folds), seed)
            chosen = _parts(part, folds, fold)[unit_of_row]
        else:
            chosen = _assign(units, _check_fractions(fractions, len(units), by), seed)[unit_of_row]
    rows = {name: np.flatnonzero(chosen == i) for i, name in enumerate(SPLITS)}
    if keep != 1:
        rows["train"], rows[SPARE] = _kept(rows["train"], names, source, keep, keep_seed)
    check_disjoint({name: names[r].tolist() for name, r in rows.items()})
    return rows


def _units(names: np.ndarray, source: Source) -> tuple[np.ndarray, np.ndarray]:
    """Slices per unit and label [U, L], and the unit of each row; units sorted: the rows' order is lost."""
    keys, unit_of_row = np.unique(names, return_inverse=True)
    units = np.zeros((len(keys), len(source.label_names)), np.int64)
    np.add.at(units, (unit_of_row, source.labels), 1)
    return units, unit_of_row


def _kept(
    rows: np.ndarray, names: np.ndarray, source: Source, keep: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """The training rows whose units are drawn to stay, and the others."""
    if not 0 < keep < 1:
        raise PixmedError(f"data.split.keep={keep}: give a share above 0 and up to 1")
    units, unit_of_row = _units(names[rows], source.take(rows.tolist()))
    if len(units) < 2:
        raise PixmedError(f"data.split.keep={keep}: there is one training patient; set it to 1")
    stays = _assign(units, np.array([keep, 1 - keep]), seed)[unit_of_row] == 0
    return rows[stays], rows[~stays]


def check_disjoint(groups_by_split: Mapping[str, Sequence[str]]) -> None:
    """Raise PixmedError that lists every patient found in more than one split."""
    homes: dict[str, list[str]] = {}
    for name, groups in groups_by_split.items():
        for group in set(groups):
            homes.setdefault(group, []).append(name)
    shared = [f"{group} ({' + '.join(names)})" for group, names in sorted(homes.items()) if len(names) > 1]
    if shared:
        raise PixmedError(
            f"{len(shared)} patients are in several splits: {listing(shared)}; move each to one split, "
            "or accept leakage with data.split.by=slice"
        )


def _check_given(given: Sequence[str], count: int) -> np.ndarray:
    """Index into SPLITS per row."""
    unknown = sorted(set(given) - set(SPLITS))
    if unknown or len(given) != count:
        raise PixmedError(
            f"the given split has {len(given)} values for {count} slices"
            + (f", among them {listing([repr(value) for value in unknown])}" if unknown else "")
            + "; give train, val or test for each slice"
            + (f", or set data.split.folds={len(set(given))} if these are folds" if unknown else "")
        )
    return np.array([SPLITS.index(value) for value in given], np.int64)


def _check_fractions(fractions: Sequence[float], n_units: int, by: str) -> np.ndarray:
    shares = np.array(fractions, np.float64)
    if shares.shape != (3,) or not (shares >= 0).all() or not math.isclose(shares.sum(), 1, abs_tol=1e-6):
        raise PixmedError(f"data.split.fractions={tuple(fractions)}: give three numbers >= 0 that sum to 1")
    _check_units(n_units, int(np.count_nonzero(shares)), by, "set a fraction in data.split.fractions to 0")
    return shares


def _parts(part: np.ndarray, folds: int, fold: int) -> np.ndarray:
    """Index into SPLITS, from the part that each row or unit is in."""
    return np.select([part == fold, part == (fold + 1) % folds], [2, 1], 0)


def _given_folds(
    given: Sequence[str], names: np.ndarray, folds: int, crossing: str
) -> tuple[list[str], np.ndarray]:
    """Names of the folds, and the fold per row; `names` are the units that one fold has to hold whole."""
    found = sorted(set(given), key=int if all(map(str.isdecimal, given)) else str)
    shown = listing([repr(name) for name in found])
    if len(given) != len(names):
        raise PixmedError(f"the given folds have {len(given)} values for {len(names)} slices; give one each")
    if set(found) <= set(SPLITS):
        raise PixmedError(
            "the data bring their own split, so there is nothing for data.split.folds to cut; "
            "set it to 0, or leave out data.split_column"
        )
    if len(found) != folds:
        raise PixmedError(f"the data bring {len(found)} folds ({shown}); set data.split.folds={len(found)}")
    part = np.array([found.index(name) for name in given], np.int64)
    units, unit_of_row = np.unique(names, return_inverse=True)
    counts = np.zeros((len(units), folds), np.int64)
    np.add.at(counts, (unit_of_row, part), 1)
    torn = np.flatnonzero(np.count_nonzero(counts, axis=1) > 1)
    if not len(torn):
        return found, part
    told = listing([f"{units[i]} ({' + '.join(found[k] for k in np.flatnonzero(counts[i]))})" for i in torn])
    if crossing == "error":
        raise PixmedError(
            f"{len(torn)} patients are in several of the given folds: {told}; correct the folds, or set "
            "data.split.crossing=move to put each into the fold that has most of its slices"
        )
    kept = counts.argmax(axis=1)[unit_of_row]
    warnings.warn(
        f"{len(torn)} patients were in several of the given folds and are moved, {(kept != part).sum()} "
        f"slices in all: {told}",
        stacklevel=3,
    )
    return found, kept


def _check_folds(folds: int, fold: int) -> None:
    if folds < len(SPLITS):
        raise PixmedError(
            f"data.split.folds={folds}: give 3 or more (test, val and train), or 0 for no folds"
        )
    if not 0 <= fold < folds:
        raise PixmedError(f"data.split.fold={fold}: give 0 to {folds - 1}")


def _check_units(n_units: int, wanted: int, by: str, remedy: str) -> None:
    if n_units < wanted:
        unit = "patients" if by == "patient" else "slices"
        raise PixmedError(f"{n_units} {unit} cannot fill {wanted} splits; add {unit} or {remedy}")


def _assign(units: np.ndarray, shares: np.ndarray, seed: int) -> np.ndarray:
    """Split per unit, from slices per unit and label [U, L]; every split with a share gets a unit.

    The best of a few random orders, by the chi-square distance between the slices that the splits hold and
    those that they should. Each unit goes to the split that is emptiest in its labels. Its own size plays no
    part in that: a rule that avoids overshooting sends the patients with many slices to the training set.
    """
    counts = np.column_stack([units, units.sum(axis=1)])  # all labels together count as one label more
    counts = counts[:, counts.any(axis=0)]
    open_splits = np.flatnonzero(shares)
    target = np.outer(shares[open_splits], counts.sum(axis=0))
    rng = np.random.default_rng(seed)
    best, best_distance = np.zeros(0, np.int64), math.inf
    for _ in range(TRIALS):
        held = np.zeros_like(target)
        chosen = np.zeros(len(counts), np.int64)
        for unit in rng.permutation(len(counts)):
            fullness = (held / target * counts[unit]).sum(axis=1)
            chosen[unit] = fullness.argmin()
            held[chosen[unit]] += counts[unit]
        distance = ((held - target) ** 2 / target).sum()
        if distance < best_distance:
            best, best_distance = open_splits[chosen], distance
    return best
