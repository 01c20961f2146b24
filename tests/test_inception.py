"""Inception: its numbers counted, its forward pass in plain NumPy, TensorFlow 1's resizing by hand."""

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict
from plain import convolved, pooled

from pixmed_jax.errors import PixmedError
from pixmed_jax.models import inception
from pixmed_jax.models.inception import Inception, converted, prepared

SHAPES = {
    name: leaf.shape
    for name, leaf in flatten_dict(
        jax.eval_shape(Inception().init, jax.random.PRNGKey(0), np.zeros((1, 64, 64, 1)))["params"], sep="/"
    ).items()
}


def published(seed=0):
    """Random weights as the file of PyTorch has them: {"net.layers.LAYER.{weight, beta, mean, var}"}."""
    rng = np.random.default_rng(seed)
    found = {}
    for name, shape in SHAPES.items():
        layer, leaf = name.split("/")
        if leaf == "kernel":
            kernel = rng.normal(size=shape) * np.sqrt(2 / np.prod(shape[:-1]))
            found[f"net.layers.{layer}.weight"] = kernel.transpose(3, 2, 0, 1).astype(np.float32)
            for part, values in (("beta", 0.1), ("mean", 0.1)):
                found[f"net.layers.{layer}.{part}"] = rng.normal(0, values, shape[-1]).astype(np.float32)
            found[f"net.layers.{layer}.var"] = rng.uniform(0.5, 1.5, shape[-1]).astype(np.float32)
    return found


def plain(image, weights):
    """The features [2048] of an image [299, 299, 3] in [-1, 1], with batch norm of its own."""

    def conv(x, name, stride=1, pad=(0, 0)):
        kernel, beta, mean, var = (
            weights[f"net.layers.{name}.{leaf}"] for leaf in ("weight", "beta", "mean", "var")
        )
        y = convolved(x, kernel, stride=stride, pad=pad)
        return np.maximum((y - mean) / np.sqrt(var + 0.001) + beta, 0)

    def chain(x, name, pads, stride=1):
        for i, pad in enumerate(pads):
            x = conv(x, f"{name}_conv" + (f"_{i}" if i else ""), stride if i + 1 == len(pads) else 1, pad)
        return x

    none, three, row, column = (0, 0), (1, 1), (0, 3), (3, 0)
    x = conv(image, "conv", 2)
    x = conv(conv(x, "conv_1"), "conv_2", pad=three)
    x = pooled(x, np.max, stride=2)
    x = pooled(conv(conv(x, "conv_3"), "conv_4"), np.max, stride=2)
    assert x.shape == (35, 35, 192)
    for name in ("mixed", "mixed_1", "mixed_2"):
        mean = pooled(x, np.nanmean, pad=1)
        x = np.concatenate(
            [
                conv(x, f"{name}_conv"),
                chain(x, f"{name}_tower", [none, (2, 2)]),
                chain(x, f"{name}_tower_1", [none, three, three]),
                conv(mean, f"{name}_tower_2_conv"),
            ],
            axis=2,
        )
    x = np.concatenate(
        [
            conv(x, "mixed_3_conv", 2),
            chain(x, "mixed_3_tower", [none, three, none], 2),
            pooled(x, np.max, stride=2),
        ],
        axis=2,
    )
    assert x.shape == (17, 17, 768)
    for name in ("mixed_4", "mixed_5", "mixed_6", "mixed_7"):
        mean = pooled(x, np.nanmean, pad=1)
        x = np.concatenate(
            [
                conv(x, f"{name}_conv"),
                chain(x, f"{name}_tower", [none, row, column]),
                chain(x, f"{name}_tower_1", [none, column, row, column, row]),
                conv(mean, f"{name}_tower_2_conv"),
            ],
            axis=2,
        )
    x = np.concatenate(
        [
            chain(x, "mixed_8_tower", [none, none], 2),
            chain(x, "mixed_8_tower_1", [none, row, column, none], 2),
            pooled(x, np.max, stride=2),
        ],
        axis=2,
    )
    assert x.shape == (8, 8, 1280)
    for name, reduction in (("mixed_9", np.nanmean), ("mixed_10", np.nanmax)):
        near = pooled(x, reduction, pad=1)
        a, b = conv(x, f"{name}_tower_conv"), chain(x, f"{name}_tower_1", [none, three])
        x = np.concatenate(
            [
                conv(x, f"{name}_conv"),
                *(
                    conv(y, f"{name}_{tower}_mixed_conv{i}", pad=pad)
                    for tower, y in (("tower", a), ("tower_1", b))
                    for i, pad in (("", (0, 1)), ("_1", (1, 0)))
                ),
                conv(near, f"{name}_tower_2_conv"),
            ],
            axis=2,
        )
    return x.mean((0, 1))


def test_it_has_94_convolutions_and_21_768_352_numbers():
    """21,751,136 in kernels and one shift for each of 17,216 channels; counted in the published file."""
    kernels = [np.prod(shape) for name, shape in SHAPES.items() if name.endswith("kernel")]
    biases = [np.prod(shape) for name, shape in SHAPES.items() if name.endswith("bias")]
    assert (len(kernels), len(biases), sum(kernels), sum(biases)) == (94, 94, 21_751_136, 17_216)


def test_it_computes_what_plain_numpy_does():
    weights = published()
    params = unflatten_dict(converted(weights), sep="/")
    rng = np.random.default_rng(1)
    image = rng.random((299, 299, 3), np.float32)  # of that size, which resizing leaves alone
    features = np.asarray(jax.jit(Inception().apply)({"params": params}, image[None]))
    expected = plain((255 * image - 128) / 128, weights)
    assert features.shape == (1, 2048) and features.dtype == np.float32
    assert expected.std() > 0.1
    np.testing.assert_allclose(features[0], expected, atol=2e-4 * expected.max())


def read(images):
    """What `prepared` makes of the first channel, put back into [0, 1]."""
    x = np.asarray(prepared(images))
    assert x.shape == (len(images), 299, 299, 3)
    return (128 * x[..., 0] + 128) / 255


def test_images_are_read_at_i_s_by_299_without_half_a_pixel():
    """Pixel 150 of 299 from 4 pixels: at 150 * 4 / 299 = 2.00669, so 0.99331 of pixel 2 and 0.00669 of 3."""
    row = np.array([0.0, 0.1, 0.5, 0.9], np.float32)
    out = read(np.broadcast_to(row[None, None, :, None], (1, 4, 4, 1)))[0]
    assert out[7, 150] == pytest.approx(0.5 * (1 - 2 / 299) + 0.9 * 2 / 299, abs=1e-6)
    assert out[0, 0] == pytest.approx(0, abs=1e-6) and out[0, 37] == pytest.approx(3.7 * 4 / 299, abs=1e-6)
    # Beyond the last pixel there is only that: 3 * 299 / 4 = 224.25.
    np.testing.assert_allclose(out[5, 225:], 0.9, atol=1e-6)
    np.testing.assert_allclose(out[250], out[0], atol=1e-6)
    turned = read(np.broadcast_to(row[None, :, None, None], (1, 4, 4, 1)))[0]
    np.testing.assert_allclose(turned.T, out, atol=1e-6)


def test_large_images_are_not_smoothed_first():
    """Of 598 pixels every second one is read, and the others are not seen."""
    large = np.zeros((1, 598, 598, 1), np.float32)
    large[0, ::2, ::2] = 1
    np.testing.assert_allclose(read(large), 1, atol=1e-6)


def test_values_are_128_below_and_a_128th_and_grey_is_repeated():
    """TensorFlow's graph subtracts 128 from 0 to 255 and multiplies by 1 / 128."""
    grey = (
        np.array([0, 128, 255], np.float32)[:, None, None, None] / 255 * np.ones((3, 299, 299, 1), np.float32)
    )
    x = np.asarray(prepared(grey))
    assert x.shape == (3, 299, 299, 3)
    np.testing.assert_allclose(x[:, 11, 13], np.array([[-1] * 3, [0] * 3, [127 / 128] * 3]), atol=1e-6)
    colours = np.random.default_rng(3).random((1, 299, 299, 3), np.float32)
    np.testing.assert_allclose(np.asarray(prepared(colours)), (255 * colours - 128) / 128, atol=1e-5)


def test_a_mean_counts_only_what_is_there():
    x = np.random.default_rng(2).normal(size=(1, 5, 6, 2)).astype(np.float32)
    mean = np.asarray(inception.average(x))
    np.testing.assert_allclose(mean[0, 0, 0], x[0, :2, :2].mean((0, 1)), rtol=1e-5)
    np.testing.assert_allclose(mean[0, 4, 3], x[0, 3:, 2:5].mean((0, 1)), rtol=1e-5)
    np.testing.assert_allclose(mean[0, 2, 2], x[0, 1:4, 1:4].mean((0, 1)), rtol=1e-5)


def test_a_convolution_that_lacks_a_part_is_named():
    weights = {k: v for k, v in published().items() if k.startswith("net.layers.conv_1.")}
    assert set(converted(weights)) == {"conv_1/kernel", "conv_1/bias"}
    del weights["net.layers.conv_1.var"]
    with pytest.raises(PixmedError, match="conv_1"):
        converted(weights)
