"""The U-Net segmenter: its size by hand, a forward pass in plain NumPy, and what its pixels can see."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pixmed_jax.models.segmenter import Segmenter


def test_size_by_hand_at_the_papers_width():
    """Ronneberger et al., Figure 1: (maps in, maps out) of each 3x3 convolution; 2x2 up-convolutions."""
    down = [(3, 64), (64, 64), (64, 128), (128, 128), (128, 256), (256, 256), (256, 512), (512, 512)]
    inside = [(512, 1024), (1024, 1024)]
    up = [(1024, 512), (512, 512), (512, 256), (256, 256), (256, 128), (128, 128), (128, 64), (64, 64)]
    threes = sum(9 * a * b + 2 * b for a, b in (*down, *inside, *up))  # scale and bias of a norm
    twos = sum(4 * 2 * c * c for c in (512, 256, 128, 64))
    ones = 64 * 2 + 2
    image = jnp.zeros((1, 64, 64, 3))
    found = jax.eval_shape(lambda: Segmenter().init(jax.random.key(0), image, train=False))
    sizes = [math.prod(leaf.shape) for leaf in jax.tree.leaves(found["params"])]
    # github.com/milesial/Pytorch-UNet has 31,037,698 of them, 960 being biases of its up-convolutions.
    assert sum(sizes) == threes + twos + ones == 31_037_698 - 960


def plain(variables, image: np.ndarray, levels: int) -> np.ndarray:
    """[H, W, C] -> logits, with loops."""
    params, stats = variables["params"], variables["batch_stats"]

    def conv(x, name):
        kernel = np.asarray(params[name]["kernel"], np.float64)
        k = kernel.shape[0]
        padded = np.pad(x, ((k // 2,) * 2, (k // 2,) * 2, (0, 0)))
        y = np.zeros((*x.shape[:2], kernel.shape[3]))
        for i, j in np.ndindex(*x.shape[:2]):
            y[i, j] = np.tensordot(padded[i : i + k, j : j + k], kernel, 3)
        return y + params[name].get("bias", 0)

    def twice(x, name):
        for i in (1, 2):
            x = conv(x, f"{name}_conv{i}")
            p, s = params[f"{name}_norm{i}"]["batch"], stats[f"{name}_norm{i}"]["batch"]
            x = np.maximum((x - s["mean"]) / np.sqrt(s["var"] + 1e-5) * p["scale"] + p["bias"], 0)
        return x

    def up(x, name):
        """A 2x2 transposed convolution of stride 2: each pixel stamps its own 2x2 block."""
        kernel = np.asarray(params[name]["kernel"], np.float64)[0, 0]  # [C, 4 F]
        features = kernel.shape[1] // 4
        y = np.zeros((2 * x.shape[0], 2 * x.shape[1], features))
        for i, j in np.ndindex(*x.shape[:2]):
            for a, b in np.ndindex(2, 2):
                at = slice((2 * a + b) * features, (2 * a + b + 1) * features)
                y[2 * i + a, 2 * j + b] = x[i, j] @ kernel[:, at]
        return y

    skips, x = [], image
    for i in range(levels - 1):
        x = twice(x, f"down{i}")
        skips.append(x)
        x = x.reshape(x.shape[0] // 2, 2, x.shape[1] // 2, 2, -1).max((1, 3))
    x = twice(x, f"down{levels - 1}")
    for i in reversed(range(levels - 1)):
        x = twice(np.concatenate([skips[i], up(x, f"up{i}")], -1), f"up{i}")
    return conv(x, "logits")


def test_forward_equals_plain_numpy(draw):
    network = Segmenter(classes=2, width=3, levels=3)
    images = np.random.default_rng(1).uniform(size=(2, 8, 12, 1)).astype(np.float32)
    variables = draw(lambda: network.init(jax.random.key(0), images, train=False))
    logits = np.asarray(network.apply(variables, images, train=False))
    assert logits.shape == (2, 8, 12, 3)
    assert logits.std() > 0.1, "the test would not hear a layer"
    by_hand = [plain(variables, image.astype(np.float64), 3) for image in images]
    np.testing.assert_allclose(logits, by_hand, rtol=1e-4, atol=1e-4)


def test_a_size_that_cannot_be_halved_is_refused():
    network = Segmenter(width=2, levels=4)
    with pytest.raises(ValueError, match=r"multiple of 2\*\*3"):
        jax.eval_shape(lambda: network.init(jax.random.key(0), jnp.zeros((1, 20, 24, 1)), train=False))


def test_dropout_acts_in_training_only(draw):
    network = Segmenter(width=4, levels=2, norm="instance", dropout=0.5)
    images = np.random.default_rng(1).uniform(size=(1, 8, 8, 1)).astype(np.float32)
    variables = draw(lambda: network.init(jax.random.key(0), images, train=False))
    once, again = (
        network.apply(variables, images, train=True, rngs={"dropout": jax.random.key(k)}) for k in (1, 2)
    )
    assert not np.array_equal(once, again)
    still = [network.apply(variables, images, train=False) for _ in range(2)]
    assert np.array_equal(*still)
