"""SRCNN and the residual network: sizes against the papers, any shape, no checkerboard; that they learn."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from pixmed_jax import losses
from pixmed_jax.data.degrade import low_resolution
from pixmed_jax.data.pipeline import Batch
from pixmed_jax.enhancement.interpolation import enlarge
from pixmed_jax.models.count import parameter_count, size
from pixmed_jax.models.srcnn import SRCNN
from pixmed_jax.models.srresnet import SRResNet, icnr, pixel_shuffle
from pixmed_jax.training import supervised

RNG = np.random.default_rng(0)


def shapes(network, height=6, width=10, channels=1):
    image = jnp.zeros((1, height, width, channels))
    return jax.eval_shape(lambda: network.init(jax.random.PRNGKey(0), image, train=True))["params"]


# ---------------------------------------------------------------- sizes
@pytest.mark.parametrize(("kernels", "weights"), [((9, 1, 5), 8_032), ((9, 5, 5), 57_184)])
def test_srcnn_has_the_papers_parameters(kernels, weights):
    """TPAMI 2016, Section 4.3.3 and Table: 8,032 and 57,184, which leave the 64 + 32 + 1 biases out."""
    assert parameter_count(shapes(SRCNN(scale=2, kernels=kernels))) == weights + 97


def test_the_residual_network_has_its_size():
    """16 blocks of two 3x3 convolutions of 64 features, one before and one after, and the sub-pixel layer."""
    network = SRResNet(scale=4)
    conv = 9 * 64 * 64 + 64
    expected = 9 * 64 + 64 + 33 * conv + 9 * 64 * 16 + 16
    found = size(network, lambda m: m.init(jax.random.key(0), jnp.zeros((1, 8, 8, 1)), train=True))
    assert found.parameters == expected
    assert found.macs == 64 * (9 * 64 + 33 * 9 * 64 * 64 + 9 * 64 * 16)


@pytest.mark.parametrize("network", [SRCNN, SRResNet])
@pytest.mark.parametrize(("scale", "channels"), [(2, 1), (3, 3), (4, 1)])
def test_any_height_and_width(network, scale, channels):
    module = network(scale=scale, out_channels=channels)
    image = jax.ShapeDtypeStruct((2, 5, 7, channels), jnp.float32)
    params = shapes(module, channels=channels)
    found = jax.eval_shape(lambda p, x: module.apply({"params": p}, x, train=False), params, image)
    assert (found.shape, found.dtype) == ((2, 5 * scale, 7 * scale, channels), jnp.float32)


# ---------------------------------------------------------------- sub-pixels
def test_pixel_shuffle_by_hand():
    x = jnp.arange(2 * 2 * 8, dtype=jnp.float32).reshape(1, 2, 2, 8)
    y = np.asarray(pixel_shuffle(x, 2))
    assert y.shape == (1, 4, 4, 2)
    for row, column, channel in np.ndindex(4, 4, 2):
        source = x[0, row // 2, column // 2, 4 * channel + 2 * (row % 2) + column % 2]
        assert y[0, row, column, channel] == source


def test_no_checkerboard_at_the_start():
    """What a fresh network adds is constant over the pixels that come of one; without ICNR it is not."""
    kernel = icnr(3, jax.nn.initializers.normal(1.0))(jax.random.key(0), (3, 3, 4, 18))
    blocks = np.asarray(kernel).reshape(3, 3, 4, 2, 9)
    assert np.ptp(blocks, axis=-1).max() == 0 and blocks.std() > 0.5
    network = SRResNet(scale=2, width=4, blocks=1)
    image = jnp.asarray(RNG.uniform(0.3, 0.7, (1, 8, 8, 1)), jnp.float32)
    variables = network.init(jax.random.PRNGKey(0), image, train=True)
    added = np.asarray(network.apply(variables, image, train=True) - enlarge(image, 2, "bicubic"))
    assert np.abs(added).max() > 1e-5
    blocks = added.reshape(8, 2, 8, 2)
    assert np.ptp(blocks, axis=(1, 3)).max() < 1e-6


@pytest.mark.parametrize("network", [SRCNN(2, kernels=(5, 1, 3)), SRResNet(2, width=4, blocks=2)])
def test_no_pixel_depends_on_more_than_the_reach(network, draw):
    image = RNG.uniform(0.3, 0.7, (1, 30, 30, 1)).astype(np.float32)
    variables = draw(lambda: network.init(jax.random.PRNGKey(0), jnp.asarray(image), train=True))
    other = image.copy()
    other[0, 15, 15] += 0.2
    run = jax.jit(lambda x: network.apply(variables, x, train=True))
    rows, columns = np.nonzero(np.abs(np.asarray(run(image)) - np.asarray(run(other)))[0, ..., 0] > 1e-6)
    farthest = max(np.abs(places // 2 - 15).max() for places in (rows, columns))
    assert network.reach - 2 <= farthest <= network.reach


# ---------------------------------------------------------------- training
def discs(count: int, side: int) -> np.ndarray:
    """Discs with edges of a pixel's width, which interpolation blurs."""
    y, x = np.mgrid[:side, :side]
    images = []
    for _ in range(count):
        cy, cx, r = *RNG.uniform(4, side - 4, 2), RNG.uniform(3, side / 2)
        images.append(0.2 + 0.5 * np.clip(r - np.hypot(y - cy, x - cx) + 0.5, 0, 1))
    return np.array(images, np.float32)[..., None]


def test_a_residual_network_learns_to_beat_bicubic_on_images_that_it_has_not_seen():
    network = SRResNet(scale=2, width=12, blocks=1)
    task = supervised.make_task(network, optax.adam(2e-3), kind="images", l1=1.0)

    def batch(images):
        images = jnp.asarray(images)
        return Batch(images, low_resolution(images, 2), jnp.zeros(len(images), jnp.int32))

    step, state = jax.jit(task.step), task.init(jax.random.PRNGKey(0), batch(discs(8, 24)))
    for _ in range(150):
        state, metrics = step(state, batch(discs(8, 24)))
    assert set(metrics) == {"network/l1", "network/gradient_norm", "network/statistics_norm"}
    unseen = batch(discs(16, 24))
    made = task.predict(state.ema, task.inputs(unseen), None)
    assert made.min() >= 0 and made.max() <= 1
    scores = task.score(made, unseen)
    assert list(scores) == ["psnr", "ssim"] and task.predicts == "images"
    bicubic = losses.psnr_of_each(enlarge(unseen.condition, 2, "bicubic"), unseen.images)
    assert (scores["psnr"] - bicubic).mean() > 1.0
