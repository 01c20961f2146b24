"""A generator of the project's own: ghost modules on both sides, the map telling every scale what to paint.

The encoder is the paper's, narrower: ghost modules of stride 2 over the label map, and one of stride 1 at
full size. Its features at each scale are a guide there: they say by how much the decoder's normalised
features are scaled and shifted (SPADE, Park et al., CVPR 2019, Section 3, where the bare map does that
through a wide convolution at every scale). The decoder enlarges by repeating pixels and then convolves, so
that each pixel of the result is reached by equally many weights: transposed convolutions leave a
checkerboard (Odena et al., Distill 2016). Noise is added before every norm, with a strength that each
feature learns (StyleGAN, Karras et al., CVPR 2019, Section 3.2), for what the map leaves open.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from pixmed_jax.models.ghost import GhostModule
from pixmed_jax.models.layers import Conv, Dtype, Norm


class GhostSPADE(nn.Module):
    """Condition [N, S, S, K] -> image [N, S, S, out_channels] in [0, 1]; S is a multiple of 2**levels.

    Scale i has min(most, 2**i * width) features at S / 2**i, i = 0 .. levels. `noise` switches the noise on,
    in training and in sampling alike; its random stream is "noise".
    """

    out_channels: int = 1
    width: int = 16
    levels: int = 5
    most: int = 128
    ghost_ratio: int = 2
    axis_name: str | None = None
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, condition: jax.Array, *, train: bool, noise: bool = True) -> jax.Array:
        if condition.shape[1] % 2**self.levels or condition.shape[2] % 2**self.levels:
            raise ValueError(f"{condition.shape[1:3]} is not a multiple of 2**{self.levels} levels")
        features = [min(self.most, 2**i * self.width) for i in range(self.levels + 1)]

        x = condition
        guides = []
        for i, width in enumerate(features):
            x = GhostModule(
                width,
                ratio=self.ghost_ratio,
                stride=1 if i == 0 else 2,
                norm="none" if i in (0, self.levels) else "instance",
                train=train,
                axis_name=self.axis_name,
                dtype=self.dtype,
                name=f"encoder_{i}",
            )(x)
            guides.append(x)  # [N, S / 2**i, same, width]

        for i in reversed(range(self.levels)):
            x = jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
            x = GuidedGhost(
                features[i], ratio=self.ghost_ratio, noise=noise, dtype=self.dtype, name=f"decoder_{i}"
            )(x, guides[i])
        x = Conv(self.out_channels, 3, dtype=self.dtype, name="image")(x)
        return nn.sigmoid(x.astype(jnp.float32))


class GuidedGhost(nn.Module):
    """x [N, H, W, C], guide [N, H, W, G] -> [N, H, W, features]: a ghost module whose norm is guided."""

    features: int
    ratio: int = 2
    noise: bool = True
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, guide: jax.Array) -> jax.Array:
        x = GhostModule(
            self.features, ratio=self.ratio, stride=1, norm="none", dtype=self.dtype, name="ghost"
        )(x)
        if self.noise:
            strength = self.param("noise", nn.initializers.zeros, (self.features,)).astype(self.dtype)
            drawn = jax.random.normal(self.make_rng("noise"), (*x.shape[:-1], 1), self.dtype)
            x = x + strength * drawn
        x = Norm("instance", True, dtype=self.dtype, name="norm")(x)
        told = Conv(2 * self.features, 1, pad=0, dtype=self.dtype, name="guide")(guide)
        scale, shift = told[..., : self.features], told[..., self.features :]
        return nn.leaky_relu(x * (1 + scale) + shift, 0.2)
