"""LPIPS (Zhang et al., CVPR 2018, Equation 1): a distance of images that was fitted to people's judgements.

Activations of a classifier of photographs at five depths, those of each pixel scaled to length 1; squared
differences, weighted per channel by heads that were learnt, averaged over pixels, summed over depths.
Version 0.1's heads, linear ones on AlexNet (2,469,696 + 1,152 numbers) or VGG16 (14,714,688 + 1,472).
"""

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

# AlexNet's convolutions as (features, kernel, stride, padding, pooled before); each is a depth.
_ALEXNET = (
    (64, 11, 4, 2, False),
    (192, 5, 1, 2, True),
    (384, 3, 1, 1, True),
    (256, 3, 1, 1, False),
    (256, 3, 1, 1, False),
)
_VGG16 = (
    (64, 64),
    (128, 128),
    (256, 256, 256),
    (512, 512, 512),
    (512, 512, 512),
)  # the last of each is a depth
LEAST = {"alexnet": 31, "vgg16": 16}  # pixels a side: below, the deepest maps are empty
# Of [-1, 1], which is how the heads were learnt: the means and deviations of photographs.
_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
_EPSILON = 1e-10


class LPIPS(nn.Module):
    """Images [N, S, S, C] in [0, 1], C 1 or 3, and as many others -> distances [N] float32; 0 where equal."""

    network: str = "alexnet"

    @nn.compact
    def __call__(self, images: jax.Array, others: jax.Array) -> jax.Array:
        both = jnp.concatenate([images, others]).astype(jnp.float32)
        x = (2 * jnp.broadcast_to(both, (*both.shape[:-1], 3)) - 1 - jnp.array(_SHIFT)) / jnp.array(_SCALE)
        total = jnp.zeros(len(images))
        for i, maps in enumerate(_alexnet(x) if self.network == "alexnet" else _vgg16(x)):
            head = self.param(f"head_{i}", nn.initializers.uniform(1.0), (maps.shape[-1],))
            unit = maps / (jnp.linalg.norm(maps, axis=-1, keepdims=True) + _EPSILON)
            apart = (unit[: len(images)] - unit[len(images) :]) ** 2
            total += (apart * head).sum(-1).mean((1, 2))
        return total


def _alexnet(x: jax.Array) -> list[jax.Array]:
    depths = []
    for i, (features, size, stride, pad, pooled) in enumerate(_ALEXNET):
        if pooled:
            x = nn.max_pool(x, (3, 3), (2, 2))
        x = _conv(x, f"conv_{i}", features, size, stride, pad)
        depths.append(x)
    return depths


def _vgg16(x: jax.Array) -> list[jax.Array]:
    depths: list[jax.Array] = []
    count = 0
    for block in _VGG16:
        if depths:
            x = nn.max_pool(x, (2, 2), (2, 2))
        for features in block:
            x = _conv(x, f"conv_{count}", features, 3, 1, 1)
            count += 1
        depths.append(x)
    return depths


def _conv(x: jax.Array, name: str, features: int, size: int, stride: int, pad: int) -> jax.Array:
    """Full precision: a GPU would otherwise round factors to ten bits."""
    conv = nn.Conv(features, (size, size), strides=stride, padding=pad, precision="highest", name=name)
    return nn.relu(conv(x))


def converted(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Parameters from `NET_0/Conv_I/{kernel, bias}` and `NetLinLayer_I/Conv_0/kernel` [1, 1, C, 1]."""
    found = {}
    for name, array in arrays.items():
        net, layer, leaf = name.split("/")
        if net.startswith("NetLinLayer_"):
            found[f"head_{net.removeprefix('NetLinLayer_')}"] = array.reshape(-1)
        else:
            found[f"conv_{layer.removeprefix('Conv_')}/{leaf}"] = array
    return found
