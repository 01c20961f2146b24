"""Which drawn label maps pass for slices: crumbs, classes, pieces, and the brain found in tissue classes."""

import numpy as np
import pytest

from pixmed_jax.data import phantom
from pixmed_jax.data.plausible import refusal, shades, surveyed, tidied
from pixmed_jax.data.regions import head
from pixmed_jax.data.tissues import survey, tissues

SIZE = 64
ANATOMY = ("a", "b", "tissue_1", "tissue_2", "tissue_3", "tissue_4")


def disc(row: float, column: float, radius: float) -> np.ndarray:
    y, x = np.mgrid[:SIZE, :SIZE]
    return np.hypot(y - row, x - column) <= radius


def slice_map(tumor: np.ndarray, value: int = 2) -> np.ndarray:
    """Scalp 6, skull 3, brain 5; a tumour."""
    map_ = np.where(disc(32, 32, 29), 6, 0).astype(np.uint8)
    map_[disc(32, 32, 26)] = 3
    map_[disc(32, 32, 22)] = 5
    map_[tumor] = value
    return map_


TUMOR, CORNERS = disc(36, 40, 5), disc(63, 0, 22) | disc(63, 63, 22)


@pytest.mark.parametrize(
    ("map_", "value", "reason"),
    [
        (slice_map(TUMOR), 2, ""),
        (slice_map(TUMOR), 1, "a tumour of another class"),
        (slice_map(disc(0, 0, -1)), 2, "no tumour"),
        (np.where(disc(38, 30, 3), 1, slice_map(TUMOR)), 2, "a tumour of another class"),
        (slice_map(TUMOR | disc(26, 24, 3)), 2, "a tumour in pieces"),
        (np.where(disc(3, 3, 9) & ~disc(32, 32, 31), 6, slice_map(TUMOR)), 2, ""),
        (np.where(CORNERS & ~disc(32, 32, 31), 6, slice_map(TUMOR)), 2, "a head in pieces"),
        (slice_map(disc(32, 32, 1)), 2, "too small"),
        (slice_map(disc(32, 32, 14)), 2, "too large"),
        (slice_map(disc(32, 59, 2)), 2, "no brain found"),  # none that has most of the tumour: in the scalp
    ],
)
def test_why_a_map_is_refused(map_, value, reason):
    assert refusal(map_.astype(np.uint8), value, ANATOMY) == reason


def test_conditions_without_tissues_or_head():
    outline = np.where(disc(32, 32, 26), 2, 0).astype(np.uint8)
    outline[TUMOR] = 1
    assert refusal(outline, 1, ("a", "head")) == ""
    assert refusal(np.where(disc(32, 32, 18), 1, outline).astype(np.uint8), 1, ("a", "head")) == "too large"
    assert refusal(np.where(TUMOR, 1, 0).astype(np.uint8), 1, ("a",)) == ""
    assert refusal(np.zeros((SIZE, SIZE), np.uint8), 1, ("a",)) == "no tumour"
    parts = np.where(TUMOR | disc(26, 24, 3), 1, 0).astype(np.uint8)
    assert refusal(parts, 1, ("a",)) == "a tumour in pieces"
    band = np.where((outline > 0) & (abs(np.arange(SIZE) - 32) < 2), 1, 2 * (outline > 0)).astype(np.uint8)
    assert refusal(band, 1, ("a", "head")) == ""  # a tumour from side to side parts no head


def test_crumbs_go():
    clean = slice_map(TUMOR)
    crumbs = clean.copy()
    crumbs[2:4, 2:4] = 6  # beside the head
    crumbs[20:22, 24:26] = 2  # a second tumour, of four pixels
    assert (tidied(crumbs, ANATOMY) == clean).all()
    np.testing.assert_array_equal(tidied(clean, ANATOMY), clean)
    empty = np.zeros((SIZE, SIZE), np.uint8)
    np.testing.assert_array_equal(tidied(empty, ANATOMY), empty)


def test_a_crumb_beside_the_tumour_becomes_what_is_around_both():
    """Mirrored at its border it would be tumour again; and the map that was drawn stays as it is."""
    clean = slice_map(TUMOR)
    crumbs = clean.copy()
    crumbs[2:4, 2:4] = 6  # beside the head
    crumbs[32:41, 29:34] = 2  # one column from the tumour
    drawn = crumbs.copy()
    np.testing.assert_array_equal(tidied(drawn, ANATOMY), clean)
    np.testing.assert_array_equal(drawn, crumbs)


def test_the_brain_is_found_in_classes_as_in_the_slice():
    """On phantoms: Dice of the brain found from four classes and that found from grey values."""
    overlaps = []
    for number in range(6):
        for one in phantom.patient_slices(number, size=SIZE, count=2):
            outline, mask = head(one.image), one.mask > 0
            anatomy = tissues(one.image, outline, mask, 4)
            map_ = np.where(mask, 1, np.where(anatomy > 0, anatomy + 2, 0)).astype(np.uint8)
            a, b = surveyed(map_, ANATOMY).brain, survey(one.image, outline, mask).brain
            overlaps.append(2 * (a & b).sum() / max((a.sum() + b.sum()), 1))
            np.testing.assert_array_equal(surveyed(map_, ANATOMY).head, map_ > 0)
    assert np.median(overlaps) > 0.95


def test_shades_fall_into_their_own_classes():
    """Painted by its shade, a class is found again by the limits of `tissues`."""
    for number in (2, 3, 4, 6):
        image = np.repeat(shades(number, 1)[2:], 8)[None].repeat(64, 0)
        limits = np.linspace(0.6, 1.3, number - 1)
        np.testing.assert_array_equal(np.searchsorted(limits, image[0]), np.repeat(np.arange(number), 8))
    assert shades(1, 2).tolist() == [0, 1, 1, 1]
