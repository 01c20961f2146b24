"""Tiles: no seams where they overlap by the reach, seams where they do not, one shape for all."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pixmed_jax.enhancement.tiles import tiled
from pixmed_jax.models.srresnet import SRResNet

NETWORK = SRResNet(scale=2, width=4, blocks=1)  # reaches 5 pixels
RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def run(draw):
    variables = draw(lambda: NETWORK.init(jax.random.PRNGKey(0), jnp.zeros((1, 8, 8, 1)), train=True))
    compiled = jax.jit(lambda x: NETWORK.apply(variables, x, train=True))
    return lambda x: np.asarray(compiled(x))


@pytest.mark.parametrize(("height", "width"), [(53, 24), (20, 61), (49, 50)])
def test_tiles_equal_the_whole(run, height, width):
    image = RNG.uniform(size=(height, width, 1)).astype(np.float32)
    whole = run(image[None])[0]
    shapes = set()

    def watched(part):
        shapes.add(part.shape)
        return run(part)

    found = tiled(watched, image, scale=2, reach=NETWORK.reach, side=24)
    assert found.shape == (2 * height, 2 * width, 1)
    np.testing.assert_allclose(found, whole, atol=1e-6 * max(1, np.abs(whole).max()))
    ((_, high, wide, _),) = shapes  # one compilation
    assert max(high, wide) <= 24  # memory for one tile


def test_less_overlap_than_the_reach_is_seen(run):
    image = RNG.uniform(size=(49, 50, 1)).astype(np.float32)
    found = tiled(run, image, scale=2, reach=2, side=24)
    assert np.abs(found - run(image[None])[0]).max() > 1e-3


@pytest.mark.parametrize(
    ("length", "side", "reach"), [(1, 8, 2), (8, 8, 2), (9, 8, 2), (100, 8, 2), (31, 5, 9)]
)
def test_every_pixel_is_made_once_and_far_enough_from_a_cut(length, side, reach):
    """Each pixel tells how far it lies from the end of its tile, unless the image itself ends there."""

    def distance(part):
        places = np.arange(part.shape[1])
        inner = np.minimum(
            np.where(part[0, 0, 0, 0] == 0, 99, places),
            np.where(part[0, -1, 0, 0] == length - 1, 99, places[::-1]),
        )
        return np.stack([part[0, :, :, 0], np.broadcast_to(inner[:, None], part.shape[1:3])], -1)[None]

    rows = np.arange(length, dtype=np.float32)[:, None, None].repeat(1, 1)
    found = tiled(lambda part: distance(part)[..., :1], rows, scale=1, reach=reach, side=side)
    np.testing.assert_array_equal(found[:, 0, 0], np.arange(length))
    margins = tiled(lambda part: distance(part)[..., 1:], rows, scale=1, reach=reach, side=side)
    assert margins.min() >= reach


@pytest.mark.parametrize(
    ("length", "side", "reach", "count", "widest"),
    [(512, 288, 32, 2, 288), (513, 288, 32, 3, 214), (100, 10, 10, 4, 40), (40, 10, 10, 1, 40)],
)
def test_as_few_tiles_as_will_do_and_none_that_is_overlap_for_the_most(length, side, reach, count, widest):
    """Of 512 pixels two of 288 keep 256 each; of 100 with a reach of 10, four of 40 keep 20, or 30."""
    seen = []

    def run(image):
        seen.append(image.shape[2])
        return image

    image = np.arange(length, dtype=np.float32)[None, :, None].repeat(8, 0)
    np.testing.assert_array_equal(tiled(run, image, scale=1, reach=reach, side=side), image)
    assert len(seen) == count and max(seen) == widest
