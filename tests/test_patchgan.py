"""The discriminator: its size, and that a logit sees 70x70 pixels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pixmed_jax.errors import PixmedError
from pixmed_jax.models import count
from pixmed_jax.models.patchgan import MultiScalePatchGAN, PatchGAN


def test_parameters_at_the_papers_width():
    """pix2pix, Section 6.1.2: 64-128-256-512 maps and one logit, 4x4 each, norms on the middle three."""
    kernels = 16 * (6 * 64 + 64 * 128 + 128 * 256 + 256 * 512 + 512 * 1)
    by_hand = kernels + 64 + 1 + 2 * (128 + 256 + 512)  # biases where no norm follows, else scale and bias
    image = jnp.zeros((1, 256, 256, 3))
    size = count.size(PatchGAN(), lambda network: network.init(jax.random.key(0), image, image))
    assert size.parameters == by_hand == 2_768_705


def support(gradient: np.ndarray) -> tuple[range, range]:
    """Rows and columns in which any entry of [H, W, C] is not 0."""
    rows, columns = (np.flatnonzero(np.any(gradient, axes)) for axes in ((1, 2), (0, 2)))
    assert np.all(np.any(gradient, -1)[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]), "has holes"
    return range(rows[0], rows[-1] + 1), range(columns[0], columns[-1] + 1)


def test_a_logit_sees_70_pixels_a_side_of_condition_and_image(draw):
    """Its norm is left out here: batch statistics would tie every logit to every pixel."""
    network = PatchGAN(width=2, norm="none")
    inputs = np.random.default_rng(0).uniform(size=(2, 1, 96, 96, 3)).astype(np.float32)
    params = draw(lambda: network.init(jax.random.key(0), *inputs))

    @jax.jit
    def gradients(row: int, column: int) -> tuple[jax.Array, jax.Array]:
        return jax.grad(lambda pair: network.apply(params, *pair)[0, row, column, 0])(tuple(inputs))

    def seen(row: int, column: int) -> tuple[range, range]:
        of_condition, of_image = (support(np.asarray(gradient[0])) for gradient in gradients(row, column))
        assert of_condition == of_image
        return of_image

    # Layers of stride 2, 2, 2, 1, 1 and padding 1: logit i begins at 8 i - (1 + 2 + 4 + 8 + 8) = 8 i - 23.
    assert seen(4, 3) == (range(9, 9 + 70), range(1, 1 + 70))
    assert seen(0, 9) == (range(0, 47), range(49, 96))


def test_logits_at_the_papers_size():
    image = jnp.zeros((2, 256, 256, 3))
    network = PatchGAN(dtype=jnp.bfloat16)
    logits, _ = jax.eval_shape(lambda: network.init_with_output(jax.random.key(0), image, image))
    assert logits.shape == (2, 30, 30, 1)
    assert logits.dtype == jnp.float32


def convolved(x: np.ndarray, layer: dict, stride: int) -> np.ndarray:
    """A 4x4 convolution of [N, H, W, C] with a border of one zero, by its definition."""
    x = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    high, wide = ((side - 4) // stride + 1 for side in x.shape[1:3])
    y = sum(
        x[:, i : i + stride * high : stride, j : j + stride * wide : stride] @ layer["kernel"][i, j]
        for i in range(4)
        for j in range(4)
    )
    return y + layer.get("bias", 0)


def test_logits_by_numpy(draw):
    """pix2pix, Section 6.1.2: condition beside image, leaky ReLU of 0.2, batch norm of the middle layers."""
    network = PatchGAN(width=3, layers=2)
    condition, image = np.random.default_rng(0).uniform(size=(2, 3, 16, 16, 2)).astype(np.float32)
    params = draw(lambda: network.init(jax.random.key(0), condition, image))["params"]
    logits, _ = network.apply({"params": params}, condition, image, mutable=["batch_stats"])

    x = np.concatenate([condition, image], axis=-1).astype(np.float64)
    for i, stride in ((1, 2), (2, 2), (3, 1)):
        x = convolved(x, params[f"conv_{i}"], stride)
        if i > 1:
            norm = params[f"norm_{i}"]["batch"]
            x = (x - x.mean((0, 1, 2))) / np.sqrt(x.var((0, 1, 2)) + 1e-5) * norm["scale"] + norm["bias"]
        x = np.where(x > 0, x, 0.2 * x)
    expected = convolved(x, params["logits"], 1)
    assert logits.shape == (3, 2, 2, 1) and np.ptp(expected) > 0.1
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)


def test_batch_norm_takes_the_batchs_own_statistics(draw):
    network = PatchGAN(width=2, layers=1)
    condition, image = np.random.default_rng(0).uniform(size=(2, 4, 16, 16, 1)).astype(np.float32)
    params = {"params": draw(lambda: network.init(jax.random.key(0), condition, image))["params"]}

    @jax.jit
    def logits(condition: jax.Array, image: jax.Array) -> jax.Array:
        return network.apply(params, condition, image, mutable=["batch_stats"])[0]

    both = logits(condition, image)
    others = np.concatenate([image[:1], 1 - image[1:] ** 2])
    assert np.abs(both[0] - logits(condition, others)[0]).max() > 1e-2
    np.testing.assert_allclose(logits(condition[::-1], image[::-1]), both[::-1], atol=1e-5)
    assert np.abs(both - logits(condition[::-1], image)).max() > 1e-2  # it compares image and condition


def test_one_that_is_told_no_condition_sees_the_image_alone(draw):
    network = PatchGAN(width=2, layers=1, norm="none", conditional=False)
    image = np.random.default_rng(0).uniform(size=(2, 16, 16, 1)).astype(np.float32)
    small = np.ones((2, 4, 4, 3), np.float32)  # as of an image that is to be enlarged
    params = draw(lambda: network.init(jax.random.key(0), small, image))
    assert params["params"]["conv_1"]["kernel"].shape == (4, 4, 1, 2)
    np.testing.assert_array_equal(network.apply(params, small, image), network.apply(params, None, image))


@pytest.mark.parametrize(
    ("network", "least"), [(PatchGAN(layers=2), 12), (MultiScalePatchGAN(scales=2, layers=2), 24)]
)
def test_the_least_size_is_that_whose_smallest_scale_has_a_logit(network, least):
    """12 pixels become 6, 3, 2 and 1; of 11 nothing would be left."""
    network.check(least, "model.discriminator")
    with pytest.raises(PixmedError, match=rf"layers=2: leaves nothing of data\.size={least - 1}"):
        network.check(least - 1, "model.discriminator")


def test_batch_norm_of_several_devices_is_that_of_the_whole_batch(draw):
    """At every scale; two devices with two pairs each."""
    whole = MultiScalePatchGAN(scales=2, width=2, layers=1, norm="batch")
    split = whole.clone(axis_name="devices")
    pairs = np.random.default_rng(0).uniform(size=(2, 4, 16, 16, 1)).astype(np.float32)
    pairs *= np.arange(1, 5).reshape(4, 1, 1, 1)
    params = draw(lambda: whole.init(jax.random.key(0), *pairs))["params"]

    def judge(network: MultiScalePatchGAN, condition: jax.Array, image: jax.Array) -> jax.Array:
        return network.apply({"params": params}, condition, image, mutable=["batch_stats"])[0]

    expected = jax.jit(lambda *pair: judge(whole, *pair))(*pairs)
    halves = jax.jit(jax.vmap(lambda *pair: judge(split, *pair), axis_name="devices"))(
        *pairs.reshape(2, 2, 2, 16, 16, 1)
    )
    np.testing.assert_allclose(halves.reshape(expected.shape), expected, rtol=1e-4, atol=1e-5)
    alone = jax.jit(lambda *pair: judge(whole, *pair))(*pairs[:, :2])
    assert np.abs(alone - expected[:2]).max() > 1e-2  # the others are heard


def test_each_scale_judges_half_the_size_and_weighs_as_much(draw):
    """Against single networks with the same weights, on images whose 2x2 blocks NumPy averaged."""
    condition, image = np.random.default_rng(0).uniform(size=(2, 2, 32, 32, 1)).astype(np.float32)
    network = MultiScalePatchGAN(scales=2, width=2, layers=1)
    tree = draw(lambda: network.init(jax.random.key(0), condition, image))
    logits = network.apply(tree, condition, image)
    one = PatchGAN(width=2, layers=1, norm="instance")
    fine = one.apply({"params": tree["params"]["scale_0"]}, condition, image)
    halved = [x.reshape(2, 16, 2, 16, 2, 1).mean((2, 4)) for x in (condition, image)]
    coarse = np.asarray(one.apply({"params": tree["params"]["scale_1"]}, *halved))
    assert fine.shape == (2, 14, 14, 1) and coarse.shape == (2, 6, 6, 1)
    expected = np.concatenate([fine.reshape(2, -1), coarse.repeat(2, 1).repeat(2, 2).reshape(2, -1)], axis=1)
    np.testing.assert_allclose(logits[..., 0], expected, rtol=1e-5, atol=1e-6)


def test_under_spectral_norm_the_size_of_kernels_says_nothing(draw):
    condition, image = np.random.default_rng(0).uniform(size=(2, 2, 32, 32, 1)).astype(np.float32)
    network = MultiScalePatchGAN(scales=2, width=2, layers=1, spectral=True)
    tree = draw(lambda: network.init(jax.random.key(0), condition, image))
    logits = network.apply(tree, condition, image)
    larger = jax.tree.map(lambda x: 7 * x if x.ndim == 4 else x, tree)
    np.testing.assert_allclose(network.apply(larger, condition, image), logits, rtol=1e-4, atol=1e-5)
    plain = network.clone(spectral=False)
    assert np.abs(plain.apply(larger, condition, image) - plain.apply(tree, condition, image)).max() > 1
