"""The objects of a mask, such as cells or metastases, each moved or resized by itself.

All together they could hardly be moved, as the outermost reach the edges, nor would they stay in the brain.
What an edge of the picture cuts stays where it is: anywhere else it would be a cut object. Objects keep a
pixel between them; one for which no place is found is left out.

Layout as in edits.py: masks uint8 [S, S], points float [2, S, S], the row and the column that each pixel of
the new mask is read from.
"""

from typing import NamedTuple

import numpy as np
from scipy import ndimage

_TRIES = 20  # places, or sizes, for each object
_TOUCHING = np.ones((3, 3), bool)  # pixels of one object touch by a side or a corner


class Inside(NamedTuple):
    """Where objects are in something: metastases in a brain."""

    region: np.ndarray  # bool [S, S], which they do not leave
    depth: np.ndarray  # [S, S], 0 where no middle may lie; each goes to where it is about as deep as it was
    apart: float  # pixels; parts with so many or fewer between them are one object


class Arranged(NamedTuple):
    """A new mask, where it is read, and how many of its `objects` found no place; the last one's change."""

    mask: np.ndarray
    points: np.ndarray
    objects: int
    left_out: int
    shift: np.ndarray  # [2], rows and columns
    factor: float


def labelled(mask: np.ndarray, apart: float = 0.0) -> tuple[np.ndarray, int]:
    """(the objects' numbers from 1, how many there are); parts with up to `apart` pixels between are one."""
    region = mask > 0
    labels, number = ndimage.label(region, _TOUCHING)
    if apart and number > 1:
        near = ndimage.distance_transform_edt(~region) <= apart / 2
        labels, number = ndimage.label(near, _TOUCHING)
        labels = np.where(region, labels, 0)
    return labels, int(number)


def arranged(
    mask: np.ndarray,
    picture: np.ndarray,
    rng: np.random.Generator,
    inside: Inside | None = None,
    *,
    moves: bool = False,
    factors: tuple[float, float] = (1.0, 1.0),
) -> Arranged:
    """Each object at another place, or of another size about its own middle; the largest choose first.

    picture: bool [S, S], all but the bars that made it square. inside: of what in it objects are, if they
    are. factors: the least and the most that one is made as wide.
    """
    labels, number = labelled(mask, inside.apart if inside else 0.0)
    cut = np.unique(labels[~ndimage.binary_erosion(picture, _TOUCHING)])
    owner = np.where(np.isin(labels, cut), labels, 0)
    free = (inside.region if inside else picture) & ~ndimage.binary_dilation(owner > 0, _TOUCHING)
    # A pixel p of object k is read from p / scales[k] + starts[k].
    scales, starts = np.ones(number + 1), np.zeros((2, number + 1))
    shift, factor, left_out = np.zeros(2, int), 1.0, 0
    areas = np.bincount(labels.ravel(), minlength=number + 1)
    boxes = ndimage.find_objects(labels)
    for k in sorted(set(range(1, number + 1)) - set(cut.tolist()), key=lambda of: -areas[of]):
        first = np.array([part.start for part in boxes[k - 1]])
        shape = labels[boxes[k - 1]] == k
        shifts: np.ndarray | None = None if moves else np.zeros((1, 2), int)
        if moves and inside:
            shifts = _shifts(shape, first, inside.depth)
        place = _place(shape, first, free, shifts, rng, factors=factors)
        if place is None:
            left_out += 1
            continue
        pixels, shift, factor, starts[:, k] = place
        owner[tuple(pixels)], scales[k] = k, factor
        near = tuple(slice(max(0, places.min() - 1), places.max() + 2) for places in pixels)
        free[near] &= ~ndimage.binary_dilation(owner[near] == k, _TOUCHING)
    new, nearest = np.zeros_like(mask), owner
    if owner.any():  # around an object the picture around it goes along, for its rim
        places = ndimage.distance_transform_edt(owner == 0, return_distances=False, return_indices=True)
        nearest = owner[tuple(places)]
    points = np.indices(mask.shape) / scales[nearest] + starts[:, nearest]
    new[owner > 0] = mask[tuple(_rounded(points[:, owner > 0]))]
    return Arranged(new, points, number, left_out, shift, factor)


class _Place(NamedTuple):
    pixels: np.ndarray  # [2, n], of the new mask
    shift: np.ndarray
    scale: float
    start: np.ndarray


def as_deep(depth: np.ndarray, middle: np.ndarray) -> np.ndarray:
    """[n, 2]: the places that are about as deep as `middle`."""
    level = depth[tuple(middle)]
    return np.argwhere((depth > 0) & (np.abs(depth - level) <= max(1.5, 0.2 * level)))


def _shifts(shape: np.ndarray, first: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """[n, 2]: those by which an object may be moved, as far as its middle says."""
    middle = np.rint(first + np.argwhere(shape).mean(axis=0)).astype(int)
    shifts = as_deep(depth, middle) - middle
    fits = (shifts >= -first) & (shifts <= np.array(depth.shape) - shape.shape - first)
    return shifts[fits.all(axis=1)]


def _place(
    shape: np.ndarray,
    first: np.ndarray,
    free: np.ndarray,
    shifts: np.ndarray | None,
    rng: np.random.Generator,
    *,
    factors: tuple[float, float],
) -> _Place | None:
    """A free place for an object, whose shape [h, w] lies at `first` in the old mask.

    shifts: [n, 2], by which it may be moved; None for all that keep it in the picture.
    """
    middle = first + (np.array(shape.shape) - 1) / 2
    most = np.array(free.shape) - shape.shape - first
    for _ in range(_TRIES if shifts is None or len(shifts) else 0):
        scale = round(float(np.exp(rng.uniform(*np.log(factors)))), 3)
        shift = rng.integers(-first, most + 1) if shifts is None else shifts[rng.integers(len(shifts))]
        start = middle - (middle + shift) / scale
        pixels = _pixels(shape, first, scale, start)
        inside = ((pixels >= 0) & (pixels < np.array(free.shape)[:, None])).all()
        if pixels.size and inside and free[tuple(pixels)].all():
            return _Place(pixels, shift, scale, start)
    return None


def _pixels(shape: np.ndarray, first: np.ndarray, scale: float, start: np.ndarray) -> np.ndarray:
    """[2, n]: the pixels that are read from an object."""
    low = np.floor((first - 1 - start) * scale).astype(int)
    high = np.ceil((first + shape.shape - start) * scale).astype(int)
    grid = np.mgrid[low[0] : high[0] + 1, low[1] : high[1] + 1].reshape(2, -1)
    old = _rounded(grid / scale + start[:, None]) - first[:, None]
    within = ((old >= 0) & (old < np.array(shape.shape)[:, None])).all(axis=0)
    grid, old = grid[:, within], old[:, within]
    return np.asarray(grid[:, shape[tuple(old)]])


def _rounded(points: np.ndarray) -> np.ndarray:
    return np.floor(points + 0.5).astype(int)
