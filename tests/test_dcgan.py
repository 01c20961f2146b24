"""DCGAN's two networks: their size against the published ones, and what decides an image and a logit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pixmed_jax.models.count import parameter_count
from pixmed_jax.models.dcgan import DCGANDiscriminator, DCGANGenerator, features

LABELS = 3


def one_hot(*labels: int) -> jax.Array:
    return jax.nn.one_hot(jnp.array(labels), LABELS)


@pytest.fixture(scope="module")
def generator(draw):
    module = DCGANGenerator(size=16, out_channels=2, width=4, latent=5, norm="batch")
    keys = {name: jax.random.key(0) for name in ("params", "noise")}
    variables = draw(lambda: module.init(keys, one_hot(0), train=True))

    def generate(labels: jax.Array, seed: int = 0, **options: bool) -> np.ndarray:
        rngs = {"noise": jax.random.key(seed)}
        return np.asarray(module.apply(variables, labels, train=False, rngs=rngs, **options))

    return generate


@pytest.fixture(scope="module")
def discriminator(draw):
    module = DCGANDiscriminator(width=4, norm="instance")
    variables = draw(lambda: module.init(jax.random.key(0), one_hot(0), jnp.zeros((1, 16, 16, 1))))
    return lambda labels, images: np.asarray(module.apply(variables, labels, images))


def test_parameters_of_the_64_pixel_networks():
    """PyTorch's DCGAN tutorial has 3,576,704 and 2,765,568, with no label and no bias at all."""
    labels, images = one_hot(0), jnp.zeros((1, 64, 64, 3))
    keys = {name: jax.random.key(0) for name in ("params", "noise")}
    g = jax.eval_shape(lambda: DCGANGenerator(size=64).init(keys, labels, train=True))["params"]
    of_label, of_bias = LABELS * 16 * 512, 3
    assert parameter_count(g) == 3_576_704 + of_label + of_bias
    d = jax.eval_shape(lambda: DCGANDiscriminator().init(jax.random.key(0), labels, images))["params"]
    of_label, of_bias = LABELS * 16 * 64, 64 + 1
    assert parameter_count(d) == 2_765_568 + of_label + of_bias


@pytest.mark.parametrize(
    ("size", "expected"), [(8, [64]), (64, [512, 256, 128, 64]), (256, [512, 512, 512, 256, 128, 64])]
)
def test_features(size, expected):
    assert features(size, 64) == expected


@pytest.mark.parametrize("size", [4, 48, 65])
def test_sizes_that_cannot_be_made(size):
    with pytest.raises(ValueError, match=f"{size} pixels"):
        features(size, 64)


def test_the_latent_vector_and_the_label_decide_an_image(generator):
    images = generator(one_hot(0, 1, 1))
    assert images.shape == (3, 16, 16, 2) and images.dtype == np.float32
    assert images.min() >= 0 and images.max() <= 1 and images.std() > 0.05
    assert np.abs(images[1] - images[2]).max() > 0.05  # same label, another vector
    np.testing.assert_array_equal(generator(one_hot(0, 1, 1)), images)
    assert np.abs(generator(one_hot(0, 1, 1), seed=1) - images).max() > 0.05
    still = generator(one_hot(0, 1, 1), noise=False)
    np.testing.assert_allclose(still[1], still[2], atol=1e-6)
    assert np.abs(still[0] - still[1]).max() > 0.05  # nothing but the label differs


def test_the_discriminator_sees_the_label_and_the_whole_image(discriminator):
    images = np.random.default_rng(0).uniform(size=(2, 16, 16, 1)).astype(np.float32)
    logits = discriminator(one_hot(0, 1), images)
    assert logits.shape == (2,) and logits.dtype == np.float32
    assert abs(discriminator(one_hot(2, 1), images)[0] - logits[0]) > 1e-3
    for corner in ((0, 0), (15, 0), (0, 15), (15, 15)):
        changed = images.copy()
        changed[(0, *corner)] = 1 - changed[(0, *corner)]
        after = discriminator(one_hot(0, 1), changed)
        assert abs(after[0] - logits[0]) > 1e-4, corner
        np.testing.assert_allclose(after[1], logits[1], atol=1e-6)


def test_the_last_layer_of_the_discriminator_is_a_product(draw):
    """At 8 pixels it is one convolution and a product: written out."""
    module = DCGANDiscriminator(width=2, norm="none")
    images = np.random.default_rng(0).uniform(size=(1, 8, 8, 1)).astype(np.float32)
    variables = draw(lambda: module.init(jax.random.key(0), one_hot(1), images))
    params = variables["params"]
    x = np.concatenate([np.broadcast_to(one_hot(1)[:, None, None], (1, 8, 8, LABELS)), 2 * images - 1], -1)
    x = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    kernel = params["down_1"]["kernel"]
    y = np.zeros((4, 4, 2))
    for i in range(4):
        for j in range(4):
            y[i, j] = np.einsum("hwc,hwcf->f", x[0, 2 * i : 2 * i + 4, 2 * j : 2 * j + 4], kernel)
    y += params["down_1"]["bias"]
    y = np.where(y > 0, y, 0.2 * y).ravel()
    expected = y @ params["logit"]["kernel"][:, 0] + params["logit"]["bias"][0]
    assert module.apply(variables, one_hot(1), images)[0] == pytest.approx(expected, rel=1e-5)
