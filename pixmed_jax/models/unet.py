"""U-Net generator of pix2pix (Isola et al. 2017, Section 6.1.1), its encoder ghosted as in PixMed-Enhancer.

With the defaults, 256x256 pixels and three channels in and out it has 52,437,699 parameters (the paper's
"52.44 MB"); without ghost modules it is pix2pix's U-Net-256 with 54,413,955. As there, only the last layer
has a bias.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from pixmed_jax.errors import PixmedError, listing
from pixmed_jax.models.ghost import GhostModule
from pixmed_jax.models.layers import Conv, ConvTranspose, Dtype, Norm, check_halvings


class UNet(nn.Module):
    """Condition [N, S, S, K] -> image [N, S, S, out_channels] in [0, 1]; S is a multiple of 2**levels.

    Level i of the encoder has min(8, 2**i) * width features at S / 2**(i + 1). Levels named in `ghost_levels`
    (counted from 1) are ghost modules, the others 4x4 convolutions. The outermost and the innermost encoder
    level have no norm. The first three decoder levels have dropout, which is the paper's only noise: `noise`
    switches it on, in training and in sampling alike.
    """

    out_channels: int = 3
    width: int = 64
    levels: int = 8
    ghost_levels: tuple[int, ...] = (1, 2, 3, 4)
    ghost_ratio: int = 2
    ghost_kernel: int = 3
    cheap_kernel: int = 3
    norm: str = "batch"
    dropout: float = 0.5
    axis_name: str | None = None
    dtype: Dtype = jnp.float32

    @nn.nowrap
    def check(self, size: int, key: str) -> None:
        """PixmedError for levels that images of `size` do not have, or that there are not; key: their
        section of the config.
        """
        check_halvings(size, self.levels, f"{key}.levels={self.levels}")
        outside = [str(of) for of in self.ghost_levels if not 1 <= of <= self.levels]
        if outside:
            raise PixmedError(
                f"{key}.ghost_levels: {listing(outside)} is none of the levels 1 to {self.levels}"
            )

    @nn.compact
    def __call__(self, condition: jax.Array, *, train: bool, noise: bool = True) -> jax.Array:
        if condition.shape[1] % 2**self.levels or condition.shape[2] % 2**self.levels:
            raise ValueError(f"{condition.shape[1:3]} is not a multiple of 2**{self.levels} levels")
        features = [min(8, 2**i) * self.width for i in range(self.levels)]

        x = condition
        skips = []
        for i, width in enumerate(features):
            norm = "none" if i in (0, self.levels - 1) else self.norm
            if i + 1 in self.ghost_levels:
                x = GhostModule(
                    width,
                    ratio=self.ghost_ratio,
                    kernel_size=self.ghost_kernel,
                    cheap_kernel_size=self.cheap_kernel,
                    norm=norm,
                    train=train,
                    axis_name=self.axis_name,
                    dtype=self.dtype,
                    name=f"encoder_{i + 1}",
                )(x)
            else:
                x = Conv(width, 4, stride=2, use_bias=False, dtype=self.dtype, name=f"encoder_{i + 1}")(x)
                x = Norm(norm, train, self.axis_name, self.dtype, slope=0.2, name=f"encoder_{i + 1}_norm")(x)
            skips.append(x)  # [N, S / 2**(i + 1), same, width]

        x = nn.relu(skips.pop())  # the innermost is the decoder's own input
        for i in reversed(range(self.levels - 1)):
            x = ConvTranspose(features[i], use_bias=False, dtype=self.dtype, name=f"decoder_{i + 2}")(x)
            x = Norm(self.norm, train, self.axis_name, self.dtype, slope=0.0, name=f"decoder_{i + 2}_norm")(x)
            if i >= self.levels - 4:
                x = nn.Dropout(self.dropout, deterministic=not noise)(x)
            # Activated before they are joined: on a CPU what is joined would be written once more for it.
            x = jnp.concatenate([x, nn.relu(skips[i])], -1)  # [N, S / 2**(i + 1), same, 2 * width]
        x = ConvTranspose(self.out_channels, dtype=self.dtype, name="decoder_1")(x)
        return (jnp.tanh(x.astype(jnp.float32)) + 1) / 2
