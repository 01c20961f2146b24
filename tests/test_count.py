"""Sizes of single layers, by hand: every kernel weight once per position that it is applied at."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from pixmed_jax.models.count import Size, parameter_count, reserved, size
from pixmed_jax.models.layers import Conv, ConvTranspose, Depthwise, Norm


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        # 4x4x3x5 = 240 weights at each of 2 x 3 x 4 output pixels of 5 float32
        (Conv(5, 4, stride=2, use_bias=False), Size(240, 240 * 24, 24 * 5 * 4)),
        # 3x3x3x5 = 135 weights and 5 biases; padding 1 keeps 6x8 pixels, and a bias is no MAC
        (Conv(5, 3), Size(140, 135 * 96, 96 * 5 * 4)),
        # 1x1 without padding
        (Conv(5, 1, pad=0, use_bias=False), Size(15, 15 * 96, 96 * 5 * 4)),
        # 4x4x5x3 = 240 weights at the 2 x 6 x 8 INPUT pixels; the output has 12x16
        (ConvTranspose(5), Size(245, 240 * 96, 2 * 12 * 16 * 5 * 4)),
        # 3x3 for each of 3 x 2 output maps
        (Depthwise(3, 2, use_bias=False), Size(54, 54 * 96, 96 * 6 * 4)),
        # Flax's own, as a network of one's own may have them: 3x3x3x5 at 3x4 pixels, then as above
        (nn.Conv(5, (3, 3), strides=2), Size(140, 135 * 24, 24 * 5 * 4)),
        # in three groups each of 6 maps is made of 1: 3x3x1x6 = 54 weights and 6 biases
        (nn.Conv(6, (3, 3), feature_group_count=3), Size(60, 54 * 96, 96 * 6 * 4)),
        # 4x4x3x5 at the 96 INPUT pixels of 2 x 6 x 8; the output has 12x16
        (nn.ConvTranspose(5, (4, 4), strides=(2, 2)), Size(245, 240 * 96, 2 * 12 * 16 * 5 * 4)),
        # its kernel may be stored the other way round, [k, k, out, in]
        (
            nn.ConvTranspose(5, (4, 4), strides=(2, 2), transpose_kernel=True),
            Size(245, 240 * 96, 2 * 12 * 16 * 5 * 4),
        ),
        # 3x5 weights at every pixel
        (nn.Dense(5), Size(20, 15 * 96, 96 * 5 * 4)),
        # a scale and a bias, no MAC
        (Norm("batch", True), Size(6, 0, 96 * 3 * 4)),
        # half the bytes
        (Conv(5, 3, dtype=jnp.bfloat16), Size(140, 135 * 96, 96 * 5 * 2)),
    ],
)
def test_one_layer(module, expected):
    assert size(module, lambda module: module.init(jax.random.key(0), jnp.zeros((2, 6, 8, 3)))) == expected


def test_layers_inside_a_network_add_up_and_nothing_is_computed():
    class Two(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array) -> jax.Array:
            assert isinstance(x, jax.core.Tracer)
            return Conv(2, 3, use_bias=False)(nn.relu(Conv(4, 4, stride=2)(x)))

    found = size(Two(), lambda module: module.init(jax.random.key(0), jnp.zeros((1, 4, 4, 1))))
    # 4x4x1x4 at 2x2, then 3x3x4x2 at 2x2
    assert found == Size(64 + 4 + 72, (64 + 72) * 4, 4 * (4 + 2) * 4)


def test_reserved_bytes_of_a_donated_sum():
    """Two arguments of 4 MB and a result of 4 MB, which takes the place of the donated argument."""
    like = jax.ShapeDtypeStruct((1000, 1000), jnp.float32)
    kept = reserved(jax.jit(lambda a, b: a + b).lower(like, like).compile())
    donated = reserved(jax.jit(lambda a, b: a + b, donate_argnums=0).lower(like, like).compile())
    assert kept == pytest.approx(12e6, rel=1e-3)
    assert donated == pytest.approx(8e6, rel=1e-3)


def test_parameters_of_a_tree():
    assert parameter_count({"a": jnp.zeros((2, 3)), "b": [jnp.zeros(()), jnp.zeros(4)]}) == 11
