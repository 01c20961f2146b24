"""GhostSPADE: its size by hand, its range, its noise, how maps reach the picture, and no checkerboard."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import drawn

from pixmed_jax.models import count
from pixmed_jax.models.ghost_spade import GhostSPADE
from pixmed_jax.models.segmentation_discriminator import SegmentationDiscriminator

SMALL = GhostSPADE(width=4, levels=2, most=8)


def init(module: GhostSPADE, size: int, classes: int):
    rngs = {"params": jax.random.key(0), "noise": jax.random.key(1)}
    return module.init(rngs, jnp.zeros((1, size, size, classes)), train=True)


@pytest.fixture(scope="module")
def variables():
    """Weights that let every layer be heard; the strength of the noise is 1 rather than 0."""
    tree = jax.eval_shape(lambda: init(SMALL, 16, 3))
    named = jax.tree_util.tree_map_with_path(
        lambda path, leaf: jnp.ones(leaf.shape) if path[-1].key == "noise" else None, tree
    )
    rest = drawn(
        lambda: jax.tree_util.tree_map_with_path(
            lambda path, leaf: jnp.zeros(leaf.shape) if path[-1].key != "noise" else None, tree
        )
    )
    return jax.tree.map(lambda a, b: b if a is None else a, named, rest, is_leaf=lambda x: x is None)


PAINT = jax.jit(
    lambda variables, condition, key, noise: SMALL.apply(
        variables, condition, train=False, noise=noise, rngs={"noise": key}
    ),
    static_argnums=3,
)


def test_size_by_hand():
    """Width 16, six scales, 7 classes: the encoder's ghost modules, then the decoder's with their guides."""
    size, classes, features = 256, 7, [16, 32, 64, 128, 256, 256]
    parameters = macs = 0
    for i, (before, maps) in enumerate(zip([classes, *features[:-1]], features, strict=True)):
        kernels = 9 * before * maps // 2 + 9 * maps // 2
        parameters += kernels + (2 * maps if 0 < i < 5 else 0)
        macs += kernels * (size >> i) ** 2
    for i in range(5):
        before, maps, guide = features[i + 1], features[i], features[i]
        kernels = 9 * before * maps // 2 + 9 * maps // 2 + guide * 2 * maps
        parameters += kernels + maps + 2 * maps + 2 * maps  # strengths of noise, the norm, the guide's bias
        macs += kernels * (size >> i) ** 2
    parameters += 9 * features[0] + 1
    macs += 9 * features[0] * size**2
    found = count.size(GhostSPADE(most=256), lambda module: init(module, size, classes))
    assert (found.parameters, found.macs) == (parameters, macs)
    assert parameters < 5e6 and macs < 6e9


def test_range_shape_and_sides():
    images = PAINT(jax.jit(lambda: init(SMALL, 16, 3))(), jnp.ones((2, 16, 16, 3)), jax.random.key(0), True)
    assert images.shape == (2, 16, 16, 1) and images.dtype == jnp.float32
    assert images.min() >= 0 and images.max() <= 1
    with pytest.raises(ValueError, match=r"\(16, 18\) is not a multiple of 2\*\*2 levels"):
        jax.eval_shape(lambda: SMALL.init(jax.random.key(0), jnp.zeros((1, 16, 18, 3)), train=True))


def test_noise_is_drawn_from_its_key_and_can_be_switched_off(variables):
    condition = jnp.asarray(np.random.default_rng(0).integers(0, 2, (1, 16, 16, 3)), jnp.float32)
    one, again, other = (PAINT(variables, condition, jax.random.key(k), True) for k in (0, 0, 1))
    assert (one == again).all() and jnp.abs(one - other).mean() > 1e-3
    still, too = (PAINT(variables, condition, jax.random.key(k), False) for k in (0, 1))
    assert (still == too).all()


def test_a_map_of_one_class_makes_no_pattern(variables):
    """Away from the border every pixel is reached alike: a transposed convolution would leave a grid."""
    image = np.asarray(PAINT(variables, jnp.ones((1, 96, 96, 3)), jax.random.key(0), False))[0, 40:56, 40:56]
    assert np.ptp(image) < 1e-5


def test_each_pixel_of_the_map_tells_its_place(variables):
    condition = np.zeros((1, 16, 16, 3), np.float32)
    changed = condition.copy()
    changed[0, 9, 5, 1] = 1
    a, b = (np.asarray(PAINT(variables, c, jax.random.key(0), False)) for c in (condition, changed))
    row, column = np.unravel_index(np.abs(a - b)[0, ..., 0].argmax(), (16, 16))
    assert abs(row - 9) <= 3 and abs(column - 5) <= 3


def test_the_discriminator_is_not_told_the_map():
    module = SegmentationDiscriminator(width=2, levels=2, norm="none")
    image, map_ = jnp.ones((1, 8, 8, 1)), jnp.ones((1, 8, 8, 3))
    tree = drawn(lambda: module.init(jax.random.key(0), map_, image))
    logits = module.apply(tree, map_, image)
    assert logits.shape == (1, 8, 8, 5)  # background, three classes, fake
    assert (logits == module.apply(tree, 0 * map_, image)).all()
