"""Dice and Hausdorff distances of masks against loops over their pixels."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from skimage.metrics import hausdorff_distance

from pixmed_jax.metrics import segmentation

RNG = np.random.default_rng(0)


def blobs(n: int, size: int = 24) -> np.ndarray:
    y, x = np.mgrid[:size, :size]
    centres, radii = RNG.integers(4, size - 4, (n, 2)), RNG.uniform(2, 6, n)
    return np.stack([(y - a) ** 2 + (x - b) ** 2 < r * r for (a, b), r in zip(centres, radii, strict=True)])


def test_dice_counts_pixels():
    a, b = blobs(6), blobs(6)
    for found, one, other in zip(segmentation.dice(a, b), a, b, strict=True):
        left, right = set(zip(*np.nonzero(one), strict=True)), set(zip(*np.nonzero(other), strict=True))
        assert found == pytest.approx(2 * len(left & right) / (len(left) + len(right)))


def test_dice_of_empty_masks():
    none, some = np.zeros((1, 4, 4), bool), np.eye(4, dtype=bool)[None]
    assert segmentation.dice(none, none) == 1
    assert segmentation.dice(none, some) == segmentation.dice(some, none) == 0


def border(mask: np.ndarray) -> np.ndarray:
    """[pixels, 2]: those with a side that is not in the mask."""
    padded = np.pad(mask, 1)
    return np.array(
        [
            (i, j)
            for i, j in zip(*np.nonzero(mask), strict=True)
            if not (padded[i, j + 1] and padded[i + 2, j + 1] and padded[i + 1, j] and padded[i + 1, j + 2])
        ]
    )


def test_hausdorff_distance_is_the_percentile_of_all_distances():
    a, b = blobs(8), blobs(8)
    a[0, :3, :3] = True  # touches the edge of the picture
    b[1] |= blobs(1)[0]  # in two pieces
    for found, one, other in zip(segmentation.hausdorff95(a, b), a, b, strict=True):
        apart = cdist(border(one), border(other))
        assert found == pytest.approx(np.percentile(np.concatenate([apart.min(0), apart.min(1)]), 95))
        assert found <= hausdorff_distance(one, other) + 1e-9


def test_a_mask_that_is_shifted_is_as_far_as_its_shift():
    mask = np.zeros((1, 20, 20), bool)
    mask[0, 5:9, 5:9] = True
    assert segmentation.hausdorff95(mask, np.roll(mask, 6, axis=2)) == pytest.approx(6)
    assert segmentation.hausdorff95(mask, mask) == 0


def test_no_distance_to_nothing():
    none, some = np.zeros((1, 4, 4), bool), np.eye(4, dtype=bool)[None]
    for pair in ((none, some), (some, none), (none, none)):
        assert np.isnan(segmentation.hausdorff95(*pair))[0]


def test_each_class_has_its_own_dice_in_the_slices_that_show_it():
    """Found as one they are perfect, and one class is taken for the other in half of its pixels."""
    true = np.zeros((3, 4, 4), np.uint8)
    true[0, 0], true[0, 1], true[1, 2] = 1, 2, 2
    found = true.copy()
    found[0, 1, :2] = 1
    found[1, 3] = 1
    got = segmentation.dice_of_classes(found, true, 2)
    nan = np.nan
    np.testing.assert_allclose(got, [[2 * 4 / (6 + 4), nan, nan], [2 * 2 / (2 + 4), 1, nan]])
