"""PatchGAN discriminator (Isola et al. 2017, Section 6.1.2): one logit per overlapping patch.

With three layers each logit sees 70x70 pixels; at width 64 and 3 + 3 input channels it has 2,768,705
parameters.

Several such networks may judge an image at several scales (pix2pixHD, Wang et al., CVPR 2018, Section 3.2),
and kernels may be held at a spectral norm of 1 (Miyato et al., ICLR 2018).
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from pixmed_jax.errors import PixmedError
from pixmed_jax.models.layers import Conv, Dtype, Norm


class PatchGAN(nn.Module):
    """Condition [N, S, S, K] and image [N, S, S, C] in [0, 1] -> logits [N, S / 2**layers - 2, same, 1].

    With `conditional` False it sees the image alone, and the condition may have any shape.
    It is only ever used in training, so its batch norm always takes the batch's own statistics.
    """

    width: int = 64
    layers: int = 3
    norm: str = "batch"
    spectral: bool = False
    conditional: bool = True
    axis_name: str | None = None
    dtype: Dtype = jnp.float32

    @nn.nowrap
    def check(self, size: int, key: str) -> None:
        """PixmedError for layers that leave nothing of images of `size`; key: their section of the config."""
        _check_layers(size, self.layers, self.layers, key)

    @nn.compact
    def __call__(self, condition: jax.Array, image: jax.Array) -> jax.Array:
        x = image.astype(self.dtype)
        if self.conditional:
            x = jnp.concatenate([condition.astype(self.dtype), x], axis=-1)
        for i in range(self.layers + 1):
            norm = "none" if i == 0 else self.norm
            x = Conv(
                min(8, 2**i) * self.width,
                4,
                stride=2 if i < self.layers else 1,
                spectral=self.spectral,
                use_bias=norm == "none",
                dtype=self.dtype,
                name=f"conv_{i + 1}",
            )(x)
            x = Norm(norm, True, self.axis_name, self.dtype, slope=0.2, name=f"norm_{i + 1}")(x)
        return Conv(1, 4, spectral=self.spectral, dtype=self.dtype, name="logits")(x).astype(jnp.float32)


class MultiScalePatchGAN(nn.Module):
    """Condition [N, S, S, K] and image [N, S, S, C] -> logits [N, P, 1] of `scales` PatchGANs.

    Each sees condition and image at half the size of the one before. A patch's logit at half the size is
    there four times, so that each scale weighs about as much as another.
    """

    scales: int = 2
    width: int = 64
    layers: int = 2
    norm: str = "instance"
    spectral: bool = False
    axis_name: str | None = None
    dtype: Dtype = jnp.float32

    @nn.nowrap
    def check(self, size: int, key: str) -> None:
        """As PatchGAN's, for the smallest of its scales."""
        _check_layers(size, self.layers, self.layers + self.scales - 1, key)

    @nn.compact
    def __call__(self, condition: jax.Array, image: jax.Array) -> jax.Array:
        logits = []
        for i in range(self.scales):
            network = PatchGAN(
                width=self.width,
                layers=self.layers,
                norm=self.norm,
                spectral=self.spectral,
                axis_name=self.axis_name,
                dtype=self.dtype,
                name=f"scale_{i}",
            )
            found = network(condition, image)
            found = jnp.repeat(jnp.repeat(found, 2**i, axis=1), 2**i, axis=2)
            logits.append(found.reshape(len(found), -1, 1))
            condition, image = (nn.avg_pool(x, (2, 2), (2, 2)) for x in (condition, image))
        return jnp.concatenate(logits, axis=1)


def _check_layers(size: int, layers: int, halvings: int, key: str) -> None:
    if size // 2**halvings < 3:  # two convolutions of 4x4 follow, each a pixel smaller
        raise PixmedError(f"{key}.layers={layers}: leaves nothing of data.size={size}; give fewer")
