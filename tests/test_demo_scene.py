"""What a drawn mask means: sliders move and scale it as they say, and it never leaves the head."""

import base64

import numpy as np
import pytest
from demo_models import SIDE, disc, scene
from hypothesis import given, settings
from hypothesis import strategies as st

from pixmed_jax.demo.scene import AS_DRAWN, Placement, advice, composed, pack, placed, room, unpack
from pixmed_jax.errors import PixmedError

TUMOR = disc(16, 16, 5)


def middle(tumor: np.ndarray) -> np.ndarray:
    return np.argwhere(tumor).mean(axis=0)


def test_untouched_sliders_change_nothing():
    np.testing.assert_array_equal(placed(TUMOR, AS_DRAWN), TUMOR)
    assert AS_DRAWN == (100, 0, 0)


@pytest.mark.parametrize(
    ("right", "down", "steps"), [(25, 0, (0, 8)), (-12.5, 25, (8, -4)), (0, -20, (-6, 0))]
)
def test_sliders_move_by_so_much_of_the_side(right, down, steps):
    """Of 32 pixels: 25 % are 8, 20 % are 6.4."""
    there = placed(TUMOR, Placement(100, right, down))
    np.testing.assert_array_equal(there, np.roll(TUMOR, steps, axis=(0, 1)))


@pytest.mark.parametrize("size", [50, 150, 200])
def test_a_slider_scales_the_width_about_the_middle(size):
    there = placed(TUMOR, Placement(size, 0, 0))
    np.testing.assert_allclose(middle(there), middle(TUMOR), atol=0.5)
    assert np.ptp(np.argwhere(there)[:, 0]) + 1 == pytest.approx(11 * size / 100, abs=1.5)
    assert there.sum() == pytest.approx(TUMOR.sum() * (size / 100) ** 2, rel=0.15)


def test_no_slider_goes_beyond_its_ends():
    far = Placement(1e9, 1e9, -1e9)
    np.testing.assert_array_equal(placed(TUMOR, far), placed(TUMOR, Placement(300, 50, -50)))


def test_nothing_drawn_stays_nothing():
    assert not placed(np.zeros((SIDE, SIDE), bool), Placement(200, 10, 10)).any()


def test_a_tumour_is_set_into_the_head_and_nowhere_else():
    here, across_the_skin = scene(), disc(16, 29, 6)
    label_map = composed(here, across_the_skin, 1)
    head = here.anatomy > 0
    assert (across_the_skin & ~head).any()  # or nothing is cut off
    np.testing.assert_array_equal(label_map == 1, across_the_skin & head)
    others = ~(across_the_skin & head)
    np.testing.assert_array_equal(label_map[others], here.anatomy[others])
    assert label_map.dtype == np.uint8


def test_a_model_that_knows_no_head_takes_tumours_anywhere():
    nowhere = scene()._replace(anatomy=np.zeros((SIDE, SIDE), np.uint8))
    assert room(nowhere).all()
    corner = disc(0, 0, 4)
    np.testing.assert_array_equal(composed(nowhere, corner, 2), 2 * corner)


@pytest.mark.parametrize(
    ("tumor", "told"),
    [
        (disc(15, 15, 3), ""),
        (np.zeros((SIDE, SIDE), bool), ""),
        (disc(15, 26, 2), "over air or skull"),
        (disc(15, 15, 8), "too large"),
        (disc(15, 15, 0), "too small"),
    ],
)
def test_advice(tumor, told):
    assert advice(scene(), tumor) == told
    assert advice(scene()._replace(where=None), tumor) == ""


@settings(max_examples=40, deadline=None)
@given(side=st.integers(1, 19), seed=st.integers(0, 99))
def test_masks_travel_as_text(side, seed):
    tumor = np.random.default_rng(seed).random((side, side)) < 0.5
    np.testing.assert_array_equal(unpack(pack(tumor), side), tumor)


def test_the_text_of_a_mask():
    """What canvas.js writes: row by row, the first pixel is the highest bit of the first byte."""
    tumor = np.zeros((4, 4), bool)
    tumor[0, 0] = tumor[2, 1] = True
    assert pack(tumor) == base64.b64encode(bytes([0b10000000, 0b01000000])).decode() == "gEA="


@pytest.mark.parametrize("text", ["", "gEA", "gEA=gEA=", "g E A =", "gEBA", "ä" * 4, "\x00" * 4, "A" * 10**7])
def test_a_text_that_is_no_mask(text):
    with pytest.raises(PixmedError, match="reload the page"):
        unpack(text, 4)
