"""Interpolations against Pillow, which aligns and weighs as is said; what they do at edges."""

import numpy as np
import pytest
from PIL import Image

from pixmed_jax.enhancement.interpolation import METHODS, enlarge
from pixmed_jax.errors import PixmedError

PILLOW = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
IMAGE = np.random.default_rng(0).uniform(size=(9, 14, 2)).astype(np.float32)


@pytest.mark.parametrize("scale", [2, 3])
@pytest.mark.parametrize("method", METHODS)
def test_pillow_makes_the_same(method, scale):
    found = np.asarray(enlarge(IMAGE, scale, method))
    assert found.shape == (9 * scale, 14 * scale, 2)
    for c in range(2):
        picture = Image.fromarray(IMAGE[..., c]).resize((14 * scale, 9 * scale), PILLOW[method])
        np.testing.assert_allclose(found[..., c], np.clip(picture, 0, 1), atol=2e-5)


@pytest.mark.parametrize("method", METHODS)
def test_the_picture_does_not_move(method):
    """With aligned corners, or centres a half pixel off, a mirrored image would not be the mirror image."""
    found = np.asarray(enlarge(IMAGE, 2, method))
    np.testing.assert_allclose(enlarge(IMAGE[::-1, ::-1], 2, method), found[::-1, ::-1], atol=1e-5)
    assert abs(found.mean() - IMAGE.mean()) < 0.01


@pytest.mark.parametrize("method", METHODS)
def test_no_pixel_depends_on_more_than_its_reach(method):
    reach = METHODS[method][1]
    other = IMAGE.copy()
    other[4, 6] += 0.5 * (0.5 - other[4, 6]) + 0.1
    changed = (
        np.abs(np.asarray(enlarge(other, 2, method)) - np.asarray(enlarge(IMAGE, 2, method))).max(-1) > 1e-7
    )
    rows, columns = np.nonzero(changed)
    assert {rows.min() // 2, rows.max() // 2} == {4 - reach, 4 + reach}
    assert {columns.min() // 2, columns.max() // 2} == {6 - reach, 6 + reach}


def test_bicubic_and_lanczos_overshoot_and_are_clipped():
    edge = np.repeat(np.array([0.0, 1.0], np.float32), 6)[None, :, None].repeat(4, 0)
    for method in ("bicubic", "lanczos"):
        found = np.asarray(enlarge(edge, 2, method))
        assert found.min() == 0 and found.max() == 1


def test_an_unknown_method():
    with pytest.raises(PixmedError, match="interpolation 'cubic' is unknown; use one of nearest, bilinear"):
        enlarge(IMAGE, 2, "cubic")
