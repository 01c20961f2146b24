"""A residual network with sub-pixel upsampling: SRResNet (Ledig et al., CVPR 2017, Section 2.1) as in EDSR.

No batch norm (Lim et al. 2017, Section 3.1: it takes freedom in range away, and memory), all convolutions on
the small image, one sub-pixel layer at the end (Shi et al. 2016, Section 3.2), and the whole learns what has
to be added to the bicubically enlarged image (Kim et al. 2016, VDSR). Its last kernel starts small and equal
for the scale x scale pixels that come of one (ICNR, Aitken et al. 2017), so that no checkerboard is there at
the start; 16 blocks of 64 features are SRResNet's and EDSR-baseline's depth and width.
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from pixmed_jax.enhancement.interpolation import METHODS, enlarge
from pixmed_jax.models.layers import Conv, Dtype

_he = nn.initializers.he_normal()
# A block starts near the identity, or sixteen of them without a norm would multiply the signal.
_small = nn.initializers.variance_scaling(0.02, "fan_in", "truncated_normal")


def icnr(scale: int, init: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """`init` for one output pixel, repeated for the scale x scale that `pixel_shuffle` makes of it."""

    def kernel(key: jax.Array, shape: tuple[int, ...], dtype: Dtype = jnp.float32) -> jax.Array:
        *rest, features = shape
        return jnp.repeat(init(key, (*rest, features // scale**2), dtype), scale**2, axis=-1)

    return kernel


def pixel_shuffle(x: jax.Array, scale: int) -> jax.Array:
    """[N, h, w, C * k * k] -> [N, k h, k w, C]: channel (c, i, j) becomes row i, column j of its pixel."""
    n, height, width, features = x.shape
    x = x.reshape(n, height, width, features // scale**2, scale, scale)
    return x.transpose(0, 1, 4, 2, 5, 3).reshape(n, scale * height, scale * width, -1)


class SRResNet(nn.Module):
    """Image [N, h, w, C] in [0, 1] -> [N, scale h, scale w, out_channels]; any h and w.

    In [0, 1], but while training: a clipped value has no gradient.
    """

    scale: int
    out_channels: int = 1
    width: int = 64
    blocks: int = 16
    dtype: Dtype = jnp.float32

    @property
    def reach(self) -> int:
        """Pixels of the input, on each side, that an output pixel can depend on."""
        return max(METHODS["bicubic"][1], 2 * self.blocks + 3)

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool) -> jax.Array:
        first = Conv(self.width, 3, dtype=self.dtype, kernel_init=_he, name="first")(image)
        x = first
        for i in range(1, self.blocks + 1):
            y = Conv(self.width, 3, dtype=self.dtype, kernel_init=_he, name=f"block_{i}_a")(x)
            y = Conv(self.width, 3, dtype=self.dtype, kernel_init=_small, name=f"block_{i}_b")(nn.relu(y))
            x = x + y
        x = first + Conv(self.width, 3, dtype=self.dtype, kernel_init=_he, name="last")(x)
        init = icnr(self.scale, nn.initializers.normal(1e-3))
        features = self.out_channels * self.scale**2
        x = Conv(features, 3, dtype=self.dtype, kernel_init=init, name="subpixel")(nn.relu(x))
        detail = pixel_shuffle(x.astype(jnp.float32), self.scale)
        made = enlarge(image, self.scale, "bicubic") + detail
        return made if train else jnp.clip(made, 0, 1)
