"""SRCNN (Dong, Loy, He and Tang 2014, ECCV; 2016, TPAMI 38:295): three convolutions on the enlarged image.

Patch extraction, non-linear mapping, reconstruction (Section 3.1): f1-f2-f3 = 9-1-5 with 64 and 32 features,
8,032 weights of one channel and 97 biases; 9-5-5 (Section 4.3.3) has 57,184 weights. Unlike there, the
convolutions are padded, so that no border is lost, and weights start as He et al. 2015 have them and not from
N(0, 0.001), which takes the 8e8 backpropagations of the paper to leave.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from pixmed_jax.enhancement.interpolation import METHODS, enlarge
from pixmed_jax.models.layers import Conv, Dtype


class SRCNN(nn.Module):
    """Image [N, h, w, C] in [0, 1] -> [N, scale h, scale w, out_channels]; any h and w.

    In [0, 1], but while training: a clipped value has no gradient.
    """

    scale: int
    out_channels: int = 1
    widths: tuple[int, int] = (64, 32)
    kernels: tuple[int, int, int] = (9, 1, 5)
    dtype: Dtype = jnp.float32

    @property
    def reach(self) -> int:
        """Pixels of the input, on each side, that an output pixel can depend on."""
        return METHODS["bicubic"][1] + -(-sum(size // 2 for size in self.kernels) // self.scale)

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool) -> jax.Array:
        def conv(features: int, size: int, name: str) -> Any:
            init = nn.initializers.he_normal()
            return Conv(features, size, pad=size // 2, dtype=self.dtype, kernel_init=init, name=name)

        x = enlarge(image, self.scale, "bicubic")
        x = nn.relu(conv(self.widths[0], self.kernels[0], "extract")(x))
        x = nn.relu(conv(self.widths[1], self.kernels[1], "map")(x))
        made = conv(self.out_channels, self.kernels[2], "reconstruct")(x).astype(jnp.float32)
        return made if train else jnp.clip(made, 0, 1)
