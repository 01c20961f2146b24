"""Ghost module (Han et al., GhostNet, CVPR 2020, Section 3.1), the paper's encoder block (Section 3.1).

A convolution makes only 1/ratio of the feature maps, the intrinsic ones; a cheap depthwise convolution makes
the rest, the ghosts, out of them. With ratio 2 and stride 2 it costs 9/32 (1 + 1/C) of the multiplications of
the 4x4 convolution of C channels that it replaces in a U-Net.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from pixmed_jax.models.layers import Conv, Depthwise, Dtype, Norm, joined


class GhostModule(nn.Module):
    """[N, stride * H, stride * W, C] -> [N, H, W, features]: intrinsic maps and their ghosts, each normed and
    activated; stride 1 or 2. With `enlarge`, [N, H / 2, W / 2, C] enlarged by repeating pixels is taken in.

    As in GhostNet the ghosts are made from the activated intrinsic maps; a linear depthwise step on linear
    maps would collapse into one larger convolution. No bias, as everywhere in pix2pix's encoder.
    """

    features: int
    ratio: int = 2
    stride: int = 2
    enlarge: bool = False
    kernel_size: int = 3
    cheap_kernel_size: int = 3
    norm: str = "batch"
    train: bool = True
    axis_name: str | None = None
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        def finish(y: jax.Array, name: str) -> jax.Array:
            return Norm(self.norm, self.train, self.axis_name, self.dtype, slope=0.2, name=f"{name}_norm")(y)

        intrinsic_features = -(-self.features // self.ratio)
        intrinsic = Conv(
            intrinsic_features,
            self.kernel_size,
            stride=self.stride,
            enlarge=self.enlarge,
            use_bias=False,
            dtype=self.dtype,
            name="primary",
        )(x)
        intrinsic = finish(intrinsic, "primary")
        if self.ratio == 1:
            return intrinsic
        ghosts = Depthwise(
            self.cheap_kernel_size, self.ratio - 1, use_bias=False, dtype=self.dtype, name="cheap"
        )(intrinsic)
        ghosts = finish(ghosts, "cheap")
        return joined(intrinsic, ghosts)[..., : self.features]
