"""Zero-DCE (Guo et al., CVPR 2020): a small network draws, for each pixel, the curve that makes it brighter.

DCE-Net (Section 3.2): seven 3x3 convolutions of 32 features with symmetric skips and no norm, the last giving
one map A_n in [-1, 1] for each of eight iterations and each channel, 79,416 parameters of colours. Each
iteration applies the curve LE(x) = x + A_n x (1 - x) (Section 3.1, Equation 2), which keeps [0, 1], its ends,
and the order of grey values.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from pixmed_jax.models.layers import Conv, Dtype

_LAYERS = 7


class ZeroDCE(nn.Module):
    """Image [N, H, W, C] in [0, 1] -> the enhanced one, float32 in [0, 1]; any H and W, C = out_channels.

    While training, (enhanced, curves [N, H, W, iterations, C]): the curves' smoothness is part of the loss.
    """

    out_channels: int = 1
    width: int = 32
    iterations: int = 8
    dtype: Dtype = jnp.float32

    @property
    def reach(self) -> int:
        """Pixels, on each side, that an output pixel can depend on."""
        return _LAYERS

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool) -> Any:
        def conv(x: jax.Array, features: int, number: int) -> jax.Array:
            init = nn.initializers.normal(0.02)
            return Conv(features, 3, pad=1, dtype=self.dtype, kernel_init=init, name=f"conv{number}")(x)

        first = nn.relu(conv(image, self.width, 1))
        second = nn.relu(conv(first, self.width, 2))
        third = nn.relu(conv(second, self.width, 3))
        x = nn.relu(conv(third, self.width, 4))
        x = nn.relu(conv(jnp.concatenate([third, x], -1), self.width, 5))
        x = nn.relu(conv(jnp.concatenate([second, x], -1), self.width, 6))
        maps = nn.tanh(conv(jnp.concatenate([first, x], -1), self.iterations * self.out_channels, 7))
        curves = maps.astype(jnp.float32).reshape(*image.shape[:3], self.iterations, self.out_channels)
        enhanced = image.astype(jnp.float32)
        for n in range(self.iterations):
            curve = jax.lax.index_in_dim(curves, n, axis=3, keepdims=False)
            enhanced = enhanced + curve * enhanced * (1 - enhanced)
        return (enhanced, curves) if train else enhanced
