"""Discriminator that segments (OASIS, Schönfeld et al., ICLR 2021, Section 3.1): each pixel's class, or fake.

A U-Net says of every pixel which of the map's classes it shows, background first, or, last, that it is
generated. It is not told the map, as a PatchGAN is: the loss knows it (`losses.ADVERSARIAL`, "segmentation"),
so what a generator is rewarded for is a slice in which the map can be read.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from pixmed_jax.models.layers import Dtype
from pixmed_jax.models.segmenter import Segmenter


class SegmentationDiscriminator(nn.Module):
    """Condition [N, S, S, K] and image [N, S, S, C] -> logits [N, S, S, 1 + K + 1].

    S is a multiple of 2**(levels - 1).
    """

    width: int = 16
    levels: int = 4
    norm: str = "instance"
    axis_name: str | None = None
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, condition: jax.Array, image: jax.Array) -> jax.Array:
        return Segmenter(
            classes=condition.shape[-1] + 1,
            width=self.width,
            levels=self.levels,
            norm=self.norm,
            axis_name=self.axis_name,
            dtype=self.dtype,
            name="unet",
        )(image, train=True)
