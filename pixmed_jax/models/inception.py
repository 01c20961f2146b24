"""Inception (Szegedy et al. 2016) as in TensorFlow's graph of 2015, with which FID and KID are defined.

It is the classifier of photographs whose last pooling ("pool3", 2,048 numbers) Heusel et al. 2017 take as
features. What differs from the paper and from the Inception v3 of other libraries, and changes every number:
average pooling leaves its padding out of the count; the last block pools by maximum instead; images become
299 x 299 by the bilinear reading of TensorFlow 1, which takes pixel i from i * S / 299, without smoothing and
without half a pixel's shift; and values are (255 x - 128) / 128.

94 convolutions. Batch norm, whose scale is 1, is part of each one's kernel and bias here (`converted`):
21,768,352 numbers. Layers have the graph's names, with _ for /.
"""

from collections.abc import Mapping
from functools import reduce

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from pixmed_jax.errors import PixmedError

SIDE, FEATURES = 299, 2048
_EPSILON = 1e-3  # of batch norm
_PREFIX = "net.layers."


class Inception(nn.Module):
    """Images [N, S, S, C] in [0, 1], C 1 or 3 -> features [N, 2048] float32."""

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        x = prepared(images)
        x = _conv(x, "conv", 32, 3, stride=2)
        x = _conv(x, "conv_1", 32, 3, cropped=True)
        x = _max(_conv(x, "conv_2", 64, 3))
        x = _conv(x, "conv_3", 80, 1)
        x = _max(_conv(x, "conv_4", 192, 3, cropped=True))
        for name, pooled in (("mixed", 32), ("mixed_1", 64), ("mixed_2", 64)):
            x = _joined(
                _conv(x, f"{name}_conv", 64, 1),
                _tower(x, f"{name}_tower", (48, 1), (64, 5)),
                _tower(x, f"{name}_tower_1", (64, 1), (96, 3), (96, 3)),
                _conv(average(x), f"{name}_tower_2_conv", pooled, 1),
            )
        x = _joined(
            _conv(x, "mixed_3_conv", 384, 3, stride=2),
            _tower(x, "mixed_3_tower", (64, 1), (96, 3), (96, 3), stride=2),
            _max(x),
        )
        row, column = (1, 7), (7, 1)
        for name, w in (("mixed_4", 128), ("mixed_5", 160), ("mixed_6", 160), ("mixed_7", 192)):
            x = _joined(
                _conv(x, f"{name}_conv", 192, 1),
                _tower(x, f"{name}_tower", (w, 1), (w, row), (192, column)),
                _tower(x, f"{name}_tower_1", (w, 1), (w, column), (w, row), (w, column), (192, row)),
                _conv(average(x), f"{name}_tower_2_conv", 192, 1),
            )
        x = _joined(
            _tower(x, "mixed_8_tower", (192, 1), (320, 3), stride=2),
            _tower(x, "mixed_8_tower_1", (192, 1), (192, row), (192, column), (192, 3), stride=2),
            _max(x),
        )
        for name, pool in (("mixed_9", average), ("mixed_10", largest)):
            a = _conv(x, f"{name}_tower_conv", 384, 1)
            b = _tower(x, f"{name}_tower_1", (448, 1), (384, 3))
            x = _joined(
                _conv(x, f"{name}_conv", 320, 1),
                _conv(a, f"{name}_tower_mixed_conv", 384, (1, 3)),
                _conv(a, f"{name}_tower_mixed_conv_1", 384, (3, 1)),
                _conv(b, f"{name}_tower_1_mixed_conv", 384, (1, 3)),
                _conv(b, f"{name}_tower_1_mixed_conv_1", 384, (3, 1)),
                _conv(pool(x), f"{name}_tower_2_conv", 192, 1),
            )
        return x.mean((1, 2))  # 8 x 8 pixels


def prepared(images: jax.Array) -> jax.Array:
    """[N, S, S, C] in [0, 1] -> [N, 299, 299, 3] in [-1, 1], read as TensorFlow 1 did; grey is repeated."""
    along = jnp.asarray(_reading(images.shape[1])), jnp.asarray(_reading(images.shape[2]))
    x = jnp.einsum("ih,jw,nhwc->nijc", *along, images.astype(jnp.float32), precision="highest")
    x = (255 * x - 128) / 128
    return jnp.broadcast_to(x, (*x.shape[:-1], 3))


def _reading(size: int) -> np.ndarray:
    """[299, size]: how much of each pixel every new one is, two neighbours at most."""
    at = np.arange(SIDE) * (size / SIDE)
    low = at.astype(int)
    weights = np.zeros((SIDE, size), np.float32)
    weights[np.arange(SIDE), low] = 1 - (at - low)
    weights[np.arange(SIDE), np.minimum(low + 1, size - 1)] += at - low
    return weights


# Pooling by shifted images, which XLA fuses into one pass: its own windows take ten times as long on CPUs.
def average(x: jax.Array) -> jax.Array:
    """3 x 3 means of stride 1 over what there is: 4 pixels in a corner, 6 at an edge."""
    height, width = x.shape[1:3]
    count = np.outer(*(np.convolve(np.ones(n), np.ones(3), "same") for n in (height, width)))
    total = sum(_shifted(_margin(x, 0), height, width), jnp.zeros((), x.dtype))
    return total / jnp.asarray(count[..., None], x.dtype)


def largest(x: jax.Array) -> jax.Array:
    """3 x 3 maxima of stride 1."""
    return reduce(jnp.maximum, _shifted(_margin(x, -jnp.inf), *x.shape[1:3]))


def _max(x: jax.Array) -> jax.Array:
    """3 x 3 maxima of stride 2, not padded."""
    return reduce(jnp.maximum, _shifted(x, (x.shape[1] - 1) // 2, (x.shape[2] - 1) // 2, stride=2))


def _margin(x: jax.Array, value: float) -> jax.Array:
    return jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=value)


def _shifted(x: jax.Array, height: int, width: int, *, stride: int = 1) -> list[jax.Array]:
    """The pixels at each of the nine places of a window, [N, height, width, C] each."""
    rows, columns = stride * (height - 1) + 1, stride * (width - 1) + 1
    return [x[:, i : i + rows : stride, j : j + columns : stride] for i in range(3) for j in range(3)]


def _conv(
    x: jax.Array,
    name: str,
    features: int,
    size: int | tuple[int, int],
    *,
    stride: int = 1,
    cropped: bool = False,
) -> jax.Array:
    """With stride 2 not padded, else padded to the same size, unless what padding has touched is cropped.

    Without padding XLA takes five times as long on CPUs. Full precision, since a GPU would otherwise round
    factors to ten bits.
    """
    kernel = (size, size) if isinstance(size, int) else size
    conv = nn.Conv(
        features,
        kernel,
        strides=stride,
        padding="VALID" if stride == 2 else "SAME",
        precision="highest",
        name=name,
    )
    y = nn.relu(conv(x))
    return y[:, 1:-1, 1:-1] if cropped else y


def _tower(x: jax.Array, name: str, *layers: tuple[int, int | tuple[int, int]], stride: int = 1) -> jax.Array:
    """Convolutions one after the other, NAME_conv, NAME_conv_1 and so on; the last one has the stride."""
    for i, (features, size) in enumerate(layers):
        last = i + 1 == len(layers)
        x = _conv(x, f"{name}_conv{f'_{i}' if i else ''}", features, size, stride=stride if last else 1)
    return x


def _joined(*parts: jax.Array) -> jax.Array:
    return jnp.concatenate(parts, axis=-1)


def converted(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Parameters {"LAYER/kernel", "LAYER/bias"} from `net.layers.LAYER.{weight, beta, mean, var}`.

    There kernels are OIHW, and batch norm subtracts `mean`, divides by sqrt(`var` + 0.001), adds `beta`.
    """
    found = {}
    for name in arrays:
        layer, _, leaf = name.rpartition(".")
        if leaf != "weight":
            continue
        try:
            kernel, beta, mean, var = (
                arrays[f"{layer}.{leaf}"].astype(np.float64) for leaf in ("weight", "beta", "mean", "var")
            )
            scale = 1 / np.sqrt(var + _EPSILON)
            folded = (kernel * scale[:, None, None, None]).transpose(2, 3, 1, 0)
            shift = beta - mean * scale
        except (KeyError, ValueError) as error:
            raise PixmedError(f"{layer}: no convolution with its batch norm ({error})") from error
        own = layer.removeprefix(_PREFIX).replace(".", "_")
        found[f"{own}/kernel"], found[f"{own}/bias"] = folded.astype(np.float32), shift.astype(np.float32)
    return found
