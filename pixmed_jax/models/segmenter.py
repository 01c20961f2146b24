"""U-Net for segmentation (Ronneberger et al., MICCAI 2015, Figure 1), with padding and norms.

As there: two 3x3 convolutions per level, max pooling, 2x2 up-convolutions, skips joined, a 1x1 layer of
logits. Unlike there, convolutions are padded, so that the mask is as large as the image, and each is
followed by a norm; only the last has a bias. The defaults have the paper's 31 million parameters. (The
generator of models/unet.py is pix2pix's U-Net: one strided convolution per level.)
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from pixmed_jax.models.layers import Conv, Dtype, Norm, check_halvings

_he = nn.initializers.he_normal()  # N(0, 2 / fan-in), Section 3


class Segmenter(nn.Module):
    """Images [N, S, S, C] -> logits [N, S, S, 1 + classes] float32, class 0 the background.

    S is a multiple of 2**(levels - 1); level i has 2**i * width maps at S / 2**i. `dropout` is at the
    innermost level, in training only.
    """

    classes: int = 1
    width: int = 64
    levels: int = 5
    norm: str = "batch"
    dropout: float = 0.0
    axis_name: str | None = None
    dtype: Dtype = jnp.float32

    @nn.nowrap
    def check(self, size: int, key: str) -> None:
        """PixmedError for levels that images of `size` do not have; key: their section of the config."""
        check_halvings(size, self.levels - 1, f"{key}.levels={self.levels}")

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
        halvings = self.levels - 1
        if images.shape[1] % 2**halvings or images.shape[2] % 2**halvings:
            raise ValueError(f"{images.shape[1:3]} is not a multiple of 2**{halvings}")

        def twice(x: jax.Array, features: int, name: str) -> jax.Array:
            for i in (1, 2):
                x = Conv(
                    features, 3, use_bias=False, dtype=self.dtype, kernel_init=_he, name=f"{name}_conv{i}"
                )(x)
                x = Norm(self.norm, train, self.axis_name, self.dtype, slope=0.0, name=f"{name}_norm{i}")(x)
            return x

        x = images
        skips = []
        for i in range(halvings):
            x = twice(x, 2**i * self.width, f"down{i}")
            skips.append(x)
            x = nn.max_pool(x, (2, 2), (2, 2))
        x = twice(x, 2**halvings * self.width, f"down{halvings}")
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        for i in reversed(range(halvings)):
            features = 2**i * self.width
            # A 2x2 up-convolution of stride 2 is one matrix product: no output pixel has two sources.
            x = Conv(
                4 * features, 1, pad=0, use_bias=False, dtype=self.dtype, kernel_init=_he, name=f"up{i}"
            )(x)
            x = jnp.concatenate([skips[i], _spread(x)], axis=-1)
            x = twice(x, features, f"up{i}")
        return Conv(1 + self.classes, 1, pad=0, dtype=self.dtype, kernel_init=_he, name="logits")(x).astype(
            jnp.float32
        )


def _spread(x: jax.Array) -> jax.Array:
    """[N, H, W, 4 C] -> [N, 2H, 2W, C]: four channel groups become the pixels of a 2x2 block, row by row."""
    n, h, w, c = x.shape
    x = x.reshape(n, h, w, 2, 2, c // 4).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(n, 2 * h, 2 * w, c // 4)
