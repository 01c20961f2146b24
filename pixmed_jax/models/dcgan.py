"""DCGAN (Radford, Metz, Chintala, ICLR 2016, Section 3), conditioned on a label.

The generator is Figure 1 of that paper for any size: a latent vector becomes 4x4 pixels, then each level of
transposed convolution doubles them and halves the features. The discriminator mirrors it. Batch norm in every
layer but the generator's last and the discriminator's first, ReLU against LeakyReLU, weights from N(0, 0.02).

The label joins as in conditional GANs (Mirza and Osindero 2014): one-hot beside the latent vector, and as one
constant channel for each label beside the image. LSGAN (Mao et al. 2017) is the same pair under other losses.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from pixmed_jax.models.layers import Conv, ConvTranspose, Dtype, Norm, check_doublings, kernel_init

_START = 4  # pixels a side of the smallest image, in both networks


def features(size: int, width: int) -> list[int]:
    """Features at 4, 8, .. size / 2 pixels: `width` at the last, twice as many at each before, at most 8x."""
    levels = size.bit_length() - _START.bit_length()
    if size != _START << levels or levels < 1:
        raise ValueError(f"images of {size} pixels: DCGAN makes 8, 16, 32 .. pixels")
    return [min(8, 2**i) * width for i in reversed(range(levels))]


class DCGANGenerator(nn.Module):
    """Condition [N, K] one-hot -> image [N, size, size, out_channels] in [0, 1].

    `noise` is there for the sake of other generators; without its latent vector this one has nothing to say.
    """

    size: int
    out_channels: int = 3
    width: int = 64
    latent: int = 100
    norm: str = "batch"
    axis_name: str | None = None
    dtype: Dtype = jnp.float32

    @nn.nowrap
    def check(self, size: int, key: str) -> None:
        """PixmedError for a size that it does not make."""
        check_doublings(size)

    @nn.compact
    def __call__(self, condition: jax.Array, *, train: bool, noise: bool = True) -> jax.Array:
        first, *others = features(self.size, self.width)
        # Uniform, as in Section 4 of the paper.
        z = jax.random.uniform(self.make_rng("noise"), (len(condition), self.latent), minval=-1, maxval=1)
        x = jnp.concatenate([z * noise, condition], axis=-1)
        x = nn.Dense(
            _START**2 * first, use_bias=False, kernel_init=kernel_init, dtype=self.dtype, name="project"
        )(x)
        x = x.reshape(-1, _START, _START, first)
        x = Norm(self.norm, train, self.axis_name, self.dtype, slope=0.0, name="project_norm")(x)
        for i, width in enumerate(others):
            x = ConvTranspose(width, use_bias=False, dtype=self.dtype, name=f"up_{i + 1}")(x)
            x = Norm(self.norm, train, self.axis_name, self.dtype, slope=0.0, name=f"up_{i + 1}_norm")(x)
        x = ConvTranspose(self.out_channels, dtype=self.dtype, name="image")(x)
        return (jnp.tanh(x.astype(jnp.float32)) + 1) / 2


class DCGANDiscriminator(nn.Module):
    """Condition [N, K] one-hot and image [N, S, S, C] in [0, 1] -> logits [N].

    It is only ever used in training, so its batch norm always takes the batch's own statistics.
    """

    width: int = 64
    norm: str = "batch"
    axis_name: str | None = None
    dtype: Dtype = jnp.float32

    @nn.nowrap
    def check(self, size: int, key: str) -> None:
        """PixmedError for a size that it does not take."""
        check_doublings(size, "discriminator takes")

    @nn.compact
    def __call__(self, condition: jax.Array, image: jax.Array) -> jax.Array:
        planes = jnp.broadcast_to(condition[:, None, None], (*image.shape[:3], condition.shape[-1]))
        x = jnp.concatenate([planes, 2 * image - 1], axis=-1).astype(self.dtype)
        for i, width in enumerate(reversed(features(image.shape[1], self.width))):
            norm = "none" if i == 0 else self.norm
            x = Conv(width, 4, stride=2, use_bias=norm == "none", dtype=self.dtype, name=f"down_{i + 1}")(x)
            x = Norm(norm, True, self.axis_name, self.dtype, slope=0.2, name=f"down_{i + 1}_norm")(x)
        x = x.reshape(len(x), -1)  # a 4x4 convolution of 4x4 pixels is a product
        return nn.Dense(1, kernel_init=kernel_init, dtype=self.dtype, name="logit")(x)[:, 0].astype(
            jnp.float32
        )
