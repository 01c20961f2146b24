"""Zero-DCE: the network's size and what a curve keeps, its losses by hand, and that it learns to brighten
what it has never seen bright."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from pixmed_jax import losses
from pixmed_jax.data.pipeline import Batch
from pixmed_jax.models.count import parameter_count
from pixmed_jax.models.zero_dce import ZeroDCE
from pixmed_jax.training import supervised

RNG = np.random.default_rng(0)
WEIGHTS = {"spatial": 1.0, "exposure": 1.0, "colour": 0.5, "smoothness": 20.0, "level": 0.5}


def test_the_network_has_the_papers_parameters():
    """79,416 (CVPR 2020, Section 3.2)."""
    network = ZeroDCE(out_channels=3)
    image = jnp.zeros((1, 8, 8, 3))
    variables = jax.eval_shape(lambda: network.init(jax.random.PRNGKey(0), image, train=True))
    assert parameter_count(variables["params"]) == 79_416


def test_curves_by_hand(draw):
    """What is applied is LE_n = LE_(n-1) + A_n LE_(n-1) (1 - LE_(n-1)), eight times."""
    network = ZeroDCE(width=4)
    image = RNG.random((2, 9, 7, 1)).astype(np.float32)
    variables = draw(lambda: network.init(jax.random.PRNGKey(0), jnp.asarray(image), train=True))
    enhanced, curves = network.apply(variables, image, train=True)
    assert curves.shape == (2, 9, 7, 8, 1) and np.abs(curves).max() <= 1 and np.std(curves) > 0.1
    x = image
    for n in range(8):
        x = x + np.asarray(curves)[:, :, :, n] * x * (1 - x)
    np.testing.assert_allclose(enhanced, x, atol=1e-5)
    np.testing.assert_array_equal(network.apply(variables, image, train=False), enhanced)
    assert enhanced.min() >= 0 and enhanced.max() <= 1
    ends = network.apply(variables, np.stack([np.zeros((9, 7, 1)), np.ones((9, 7, 1))]), train=False)
    np.testing.assert_allclose(ends[0], 0, atol=1e-6)  # black stays black and white stays white
    np.testing.assert_allclose(ends[1], 1, atol=1e-6)


def test_no_pixel_depends_on_more_than_the_reach(draw):
    network = ZeroDCE(width=4)
    image = RNG.uniform(0.3, 0.7, (1, 24, 24, 1)).astype(np.float32)
    variables = draw(lambda: network.init(jax.random.PRNGKey(0), jnp.asarray(image), train=True))
    other = image.copy()
    other[0, 12, 12] += 0.2
    run = jax.jit(lambda x: network.apply(variables, x, train=False))
    changed = np.nonzero(np.abs(np.asarray(run(image)) - np.asarray(run(other)))[0, ..., 0] > 1e-7)
    assert network.reach - 2 <= max(np.abs(places - 12).max() for places in changed) <= network.reach


# ---------------------------------------------------------------- losses
def test_spatial_consistency_by_hand():
    """Regions of 0.2 and 0.6 become 0.5 and 0.7: their gap changes from 0.4 to 0.2, seen from both sides."""
    image, enhanced = np.full((1, 4, 8, 1), 0.2), np.full((1, 4, 8, 1), 0.5)
    image[:, :, 4:], enhanced[:, :, 4:] = 0.6, 0.7
    found = losses.spatial_consistency(jnp.asarray(enhanced), jnp.asarray(image))
    assert float(found) == pytest.approx(0.2**2, abs=1e-6)
    assert float(losses.spatial_consistency(jnp.asarray(image) + 0.3, jnp.asarray(image))) < 1e-10


def test_a_gap_may_turn_round():
    """Equation 4 compares sizes: the darker of two regions may become the brighter by as much."""
    image = np.full((1, 8, 4, 1), 0.2, np.float32)
    image[:, 4:] = 0.6
    assert float(losses.spatial_consistency(jnp.asarray(image[:, ::-1]), jnp.asarray(image))) < 1e-10


def test_exposure_by_hand():
    image = np.zeros((1, 16, 32, 1), np.float32)
    image[:, :, 16:] = np.tile([0.5, 1.0], 8)[:, None]  # a mean of 0.75
    found = losses.exposure(jnp.asarray(image), 0.6)
    assert float(found) == pytest.approx((0.6 + 0.15) / 2, abs=1e-6)
    assert float(losses.exposure(jnp.full((1, 8, 8, 1), 0.4), 0.6)) == pytest.approx(
        0.2, abs=1e-6
    )  # one small region


def test_a_region_of_16_pixels_is_exposed_as_a_whole():
    """Halves of 0.2 and 1 in either direction are well exposed at 0.6 between them."""
    image = np.full((2, 16, 16, 1), 0.2, np.float32)
    image[0, 8:] = image[1, :, 8:] = 1.0
    assert float(losses.exposure(jnp.asarray(image), 0.6)) < 1e-6


def test_a_low_picture_has_regions_of_its_height_and_of_16_columns():
    image = np.full((1, 8, 16, 1), 0.2, np.float32)
    image[:, :, 8:] = 1.0
    assert float(losses.exposure(jnp.asarray(image), 0.6)) < 1e-6


def test_colour_constancy_by_hand():
    image = np.broadcast_to(np.float32([0.2, 0.5, 0.6]), (2, 5, 5, 3))
    expected = 0.3**2 + 0.4**2 + 0.1**2
    assert float(losses.colour_constancy(jnp.asarray(image))) == pytest.approx(expected, abs=1e-6)
    assert float(losses.colour_constancy(jnp.asarray(image[..., :1]))) == 0


def test_smoothness_by_hand():
    """A slope of 0.1 down and 0.2 to the right in one of two channels, in both of two iterations."""
    y, x = np.mgrid[:6, :5]
    curves = np.zeros((1, 6, 5, 2, 2), np.float32)
    curves[..., 0] = (0.1 * y + 0.2 * x)[None, ..., None]
    assert float(losses.smoothness(jnp.asarray(curves))) == pytest.approx(0.3**2, abs=1e-6)


@pytest.mark.parametrize("down", [0.1, -0.1])
def test_slopes_of_curves_count_by_their_size_and_are_summed_over_channels(down):
    """0.2 to the left in each of three channels, in both of two iterations: three times (0.1 + 0.2)^2."""
    y, x = np.mgrid[:6, :5]
    curves = np.broadcast_to((down * y - 0.2 * x)[None, ..., None, None], (1, 6, 5, 2, 3))
    assert float(losses.smoothness(jnp.asarray(curves))) == pytest.approx(3 * 0.3**2, abs=1e-6)


# ---------------------------------------------------------------- training
@pytest.mark.slow
def test_it_learns_to_brighten_without_a_bright_image():
    network = ZeroDCE(width=6, iterations=4)
    task = supervised.make_task(network, optax.adam(5e-3), kind="curves", **WEIGHTS)

    def batch(seed):
        rng = np.random.default_rng(seed)
        y, x = np.mgrid[:32, :32] / 32
        bright = np.stack([0.5 + 0.3 * np.sin(6 * x + a) * np.cos(5 * y + b) for a, b in rng.random((4, 2))])
        bright = bright[..., None].astype(np.float32)
        blind = jnp.full(bright.shape, jnp.nan)  # the loss must not look at it
        return Batch(blind, jnp.asarray(0.3 * bright), jnp.zeros(4, jnp.int32)), jnp.asarray(bright)

    step, state = jax.jit(task.step), task.init(jax.random.PRNGKey(0), batch(0)[0])
    for seed in range(60):
        state, metrics = step(state, batch(seed)[0])
    assert int(state.skipped) == 0
    names = {"spatial", "exposure", "colour", "smoothness", "gradient_norm", "statistics_norm"}
    assert set(metrics) == {f"network/{name}" for name in names}
    unseen, bright = batch(1000)
    made = task.predict(state.ema, task.inputs(unseen), None)
    scores = task.score(made, unseen._replace(images=bright))
    given = losses.psnr_of_each(unseen.condition, bright)
    assert task.predicts == "images" and (scores["psnr"] - given).min() > 5
