"""GhostSPADE: its size by hand, its range, its style, how maps reach the picture, and no grid."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import drawn
from scipy import stats

from pixmed_jax.models import count
from pixmed_jax.models.ghost_spade import GhostSPADE, summary

SMALL = GhostSPADE(width=4, levels=2, most=8)


def init(module: GhostSPADE, size: int, classes: int):
    rngs = {"params": jax.random.key(0), "noise": jax.random.key(1)}
    return module.init(rngs, jnp.zeros((1, size, size, classes)), train=True)


@pytest.fixture(scope="module")
def variables():
    """Weights that let every layer be heard."""
    return drawn(lambda: init(SMALL, 16, 3))


PAINT = jax.jit(
    lambda variables, condition, key: SMALL.apply(variables, condition, train=False, rngs={"noise": key})
)


def expected_of(module: GhostSPADE, condition):
    return module.expected(summary(module.painter.guides(condition)))


def painted_in(module: GhostSPADE, condition, style):
    return module.painter(module.painter.guides(condition), style)


def test_size_by_hand():
    """Width 16, six scales, 7 classes: the encoder's ghost modules, the decoder's with their guides, the
    reader of styles, and the styles that a map expects."""
    size, classes, style, features = 256, 7, 8, [16, 32, 64, 128, 192, 192]
    parameters = macs = 0
    for i, (before, maps) in enumerate(zip([classes, *features[:-1]], features, strict=True)):
        kernels = 9 * before * maps // 2 + 9 * maps // 2
        parameters += kernels + (2 * maps if 0 < i < 5 else 0)
        macs += kernels * (size >> i) ** 2
    for i in range(5):
        before, maps, guide = features[i + 1], features[i], features[i]
        others = 9 * maps // 2 + guide * 2 * maps
        parameters += 9 * before * maps // 2 + others + 2 * maps + 2 * maps  # and the norm, the guide's bias
        parameters += style * 2 * maps
        # The enlarging convolution's taps meet each pixel in fours.
        macs += (4 * before * maps // 2 + others) * (size >> i) ** 2 + style * 2 * maps
    parameters += 9 * features[0] + 1
    macs += 9 * features[0] * size**2
    for i, (before, maps) in enumerate(((classes + 1, 16), (16, 32), (32, 64), (64, 64))):
        parameters += 9 * before * maps + maps
        macs += 9 * before * maps * (size >> i + 1) ** 2
    parameters += 64 * 2 * style + 2 * style
    macs += 64 * 2 * style
    for before, maps in ((sum(features), 64), (64, 2 * style)):
        parameters += before * maps + maps
        macs += before * maps
    found = count.size(GhostSPADE(most=192), lambda module: init(module, size, classes))
    assert (found.parameters, found.macs) == (parameters, macs)
    assert parameters < 1e6 and macs < 6e9  # a student's size and a teacher's work


def test_range_shape_and_sides():
    images = PAINT(jax.jit(lambda: init(SMALL, 16, 3))(), jnp.ones((2, 16, 16, 3)), jax.random.key(0))
    assert images.shape == (2, 16, 16, 1) and images.dtype == jnp.float32
    assert images.min() >= 0 and images.max() <= 1
    with pytest.raises(ValueError, match=r"\(16, 18\) is not a multiple of 2\*\*2 levels"):
        jax.eval_shape(lambda: SMALL.init(jax.random.key(0), jnp.zeros((1, 16, 18, 3)), train=True))


def test_the_style_is_drawn_from_its_key_and_all_that_is(variables):
    condition = jnp.asarray(np.random.default_rng(0).integers(0, 2, (1, 16, 16, 3)), jnp.float32)
    one, again, other = (PAINT(variables, condition, jax.random.key(k)) for k in (0, 0, 1))
    assert (one == again).all() and jnp.abs(one - other).mean() > 1e-3
    deaf = jax.tree_util.tree_map_with_path(
        lambda path, x: 0 * x if "decoder" in str(path) and "style" in str(path) else x, variables
    )
    one, other = (PAINT(deaf, condition, jax.random.key(k)) for k in (0, 1))
    assert (one == other).all()


def test_the_first_are_painted_in_the_style_of_their_images(variables):
    """Another image changes what is painted in its style, and nothing else."""
    rng = np.random.default_rng(0)
    condition = jnp.asarray(rng.integers(0, 2, (3, 16, 16, 3)), jnp.float32)
    images = jnp.asarray(rng.random((2, 16, 16, 1)), jnp.float32)
    run = jax.jit(
        lambda images: SMALL.apply(
            variables, condition, images, rngs={"noise": jax.random.key(0)}, method="reconstruct"
        )
    )
    (painted, divergence), (other, changed) = run(images), run(images.at[1].multiply(0.5))
    assert (np.abs(painted - other).max((1, 2, 3)) > 1e-3).tolist() == [False, True, False]
    assert painted.shape == (3, 16, 16, 1) and divergence.shape == (2,)
    assert divergence[0] == changed[0] and divergence[1] != changed[1]
    # Against the mean over many draws z of log q(z) - log p(z), p being what the map expects.
    mean, deviation = SMALL.apply(variables, condition[:2], images, method=lambda m, *x: m.reader(*x))
    expected = SMALL.apply(variables, condition[:2], method=expected_of)
    assert np.abs(expected.mean).min() > 1e-3 and np.abs(expected.deviation - 1).min() > 1e-3
    z = mean + deviation * rng.normal(size=(200_000, 1, 1))
    by_draws = stats.norm.logpdf(z, mean, deviation) - stats.norm.logpdf(z, *expected)
    np.testing.assert_allclose(divergence, by_draws.sum(-1).mean(0), rtol=0.02)


def test_styles_are_drawn_from_what_their_map_expects(variables):
    """N(0, 1) for every map at first; then by each map's own mean and deviation, in sampling and for those of
    a batch that no real image is given for."""
    rng = np.random.default_rng(2)
    condition = jnp.asarray(rng.integers(0, 2, (2, 16, 16, 3)), jnp.float32)
    images = jnp.asarray(rng.random((1, 16, 16, 1)), jnp.float32)
    fresh = SMALL.apply(jax.jit(lambda: init(SMALL, 16, 3))(), condition, method=expected_of)
    assert (fresh.mean == 0).all() and (fresh.deviation == 1).all()
    expected = SMALL.apply(variables, condition, method=expected_of)
    assert np.abs(np.diff(expected.mean, axis=0)).max() > 1e-2

    def off(log_deviation: float) -> list[np.ndarray]:
        """Two draws, and one beside a real image, less what the expected means paint."""
        sure = jax.tree.map(np.copy, variables)
        prior = sure["params"]["prior"]["style"]
        prior["kernel"][:, SMALL.style :] = 0
        prior["bias"][SMALL.style :] = log_deviation
        middle = SMALL.apply(sure, condition, expected.mean, method=painted_in)
        rngs = {"noise": jax.random.key(0)}
        beside, _ = SMALL.apply(sure, condition, images, rngs=rngs, method="reconstruct")
        draws = [PAINT(sure, condition, jax.random.key(k)) - middle for k in (0, 1)]
        return [*draws, beside[1:] - middle[1:]]

    for narrow, wide in zip(off(-4.0), off(-3.0), strict=True):
        assert 0 < np.abs(narrow).max() < 0.1
        np.testing.assert_allclose(np.linalg.norm(wide) / np.linalg.norm(narrow), np.e, rtol=0.1)


def test_what_a_map_expects_is_learnt_from_what_is_read_alone(variables):
    """No image moves the prior, not the drawn ones' either; the divergence does."""
    rng = np.random.default_rng(4)
    condition = jnp.asarray(rng.integers(0, 2, (3, 16, 16, 3)), jnp.float32)
    images = jnp.asarray(rng.random((2, 16, 16, 1)), jnp.float32)

    def told(params):
        rngs = {"noise": jax.random.key(0)}
        painted, divergence = SMALL.apply(
            {"params": params}, condition, images, rngs=rngs, method="reconstruct"
        )
        return jnp.square(painted).sum(), divergence.sum()

    def slopes(i):
        """The largest of each leaf."""
        gradient = jax.jit(jax.grad(lambda params: told(params)[i]))(variables["params"])
        return jax.tree.map(lambda x: float(np.abs(x).max()), gradient)

    by_images, by_divergence = slopes(0), slopes(1)
    assert max(jax.tree.leaves(by_images["prior"])) == 0 < min(jax.tree.leaves(by_images["painter"]))
    assert min(jax.tree.leaves(by_divergence["prior"])) > 0
    assert max(jax.tree.leaves(by_divergence["painter"]["image"])) == 0


def test_repainting_takes_the_mean_of_the_style_that_is_read(variables):
    rng = np.random.default_rng(1)
    condition = jnp.asarray(rng.integers(0, 2, (2, 16, 16, 3)), jnp.float32)
    images = jnp.asarray(rng.random((2, 16, 16, 1)), jnp.float32)
    painted = SMALL.apply(variables, condition, images, method="repaint")
    mean, _ = SMALL.apply(variables, condition, images, method=lambda m, *x: m.reader(*x))
    expected = SMALL.apply(variables, condition, mean, method=painted_in)
    np.testing.assert_allclose(painted, expected, rtol=1e-5)
    other = SMALL.apply(variables, condition, images.at[1].multiply(0.5), method="repaint")
    assert (np.abs(painted - other).max((1, 2, 3)) > 1e-3).tolist() == [False, True]


def test_a_map_of_one_class_makes_no_pattern(variables):
    """Away from the border every pixel is reached alike: a transposed convolution would leave a grid."""
    image = np.asarray(PAINT(variables, jnp.ones((1, 96, 96, 3)), jax.random.key(0)))[0, 40:56, 40:56]
    assert np.ptp(image) < 1e-5


def test_each_pixel_of_the_map_tells_its_place(variables):
    """What one pixel of the map changes, in one style, is most within three pixels of it, on average over 24
    of them."""
    rng = np.random.default_rng(9)
    style = jnp.asarray(rng.normal(size=(1, SMALL.style)), jnp.float32)
    paint = jax.jit(lambda condition: SMALL.apply(variables, condition, style, method=painted_in))
    condition = rng.integers(0, 2, (1, 16, 16, 3)).astype(np.float32)
    before = np.asarray(paint(condition))
    near, far = [], []
    for row, column in rng.integers(3, 13, (24, 2)):
        changed = condition.copy()
        changed[0, row, column, 1] = 1 - changed[0, row, column, 1]
        after = np.asarray(paint(changed))
        difference = np.abs(after - before)[0, ..., 0]
        around = np.zeros((16, 16), bool)
        around[row - 3 : row + 4, column - 3 : column + 4] = True
        near.append(difference[around].mean())
        far.append(difference[~around].mean())
    assert np.mean(near) > 2 * np.mean(far)
