"""A generator of the project's own: ghost modules on both sides, the map telling every scale what to paint.

The encoder is the paper's, narrower: ghost modules of stride 2 over the label map, and one of stride 1 at
full size. Its features at each scale are a guide there: they say by how much the decoder's normalised
features are scaled and shifted (SPADE, Park et al., CVPR 2019, Section 3, where the bare map does that
through a wide convolution at every scale). The decoder enlarges by repeating pixels and then convolves, so
that each pixel of the result is reached by equally many weights: transposed convolutions leave a
checkerboard (Odena et al., Distill 2016).

What the map leaves open, such as how bright a scanner shows each tissue, is a style: a vector that shifts and
scales every norm along with the guide. In training it is read off the real slice and held near N(0, 1) by its
divergence from there, so that to be near that slice and to differ from draw to draw are not at odds (a
variational autoencoder, Kingma and Welling, ICLR 2014, as in SPADE's image encoder); in sampling it is drawn.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from pixmed_jax.models.ghost import GhostModule
from pixmed_jax.models.layers import Conv, Dtype, Norm

_he = nn.initializers.he_normal()


class GhostSPADE(nn.Module):
    """Condition [N, S, S, K] -> image [N, S, S, out_channels] in [0, 1]; S is a multiple of 2**levels.

    Scale i has min(most, 2**i * width) features at S / 2**i, i = 0 .. levels. `style` is the length of the
    style vector, 0 for none; it is drawn from the random stream "noise".
    """

    out_channels: int = 1
    width: int = 16
    levels: int = 5
    most: int = 128
    ghost_ratio: int = 2
    style: int = 8
    axis_name: str | None = None
    dtype: Dtype = jnp.float32

    def setup(self) -> None:
        self.painter = Painter(
            self.out_channels, self.width, self.levels, self.most, self.ghost_ratio, self.dtype
        )
        self.reader = StyleReader(self.style, min(4, self.levels), self.width, self.dtype)

    def __call__(self, condition: jax.Array, *, train: bool) -> jax.Array:
        style = jax.random.normal(self.make_rng("noise"), (len(condition), self.style))
        images = self.painter(condition, style)
        if self.is_initializing() and self.style:
            self.reader(condition, images)
        return images

    def reconstruct(self, condition: jax.Array, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Condition [N, ...], real images [M <= N, ...] -> images [N, ...], divergences [M].

        The first M are painted in the style of the real images of their conditions, the others in one that is
        drawn. The divergence is that of each style read from N(0, 1), in nats.
        """
        drawn = jax.random.normal(self.make_rng("noise"), (len(condition), self.style))
        mean, deviation = self.reader(condition[: len(images)], images)
        read = mean + deviation * drawn[: len(images)]
        divergence = (jnp.square(mean) + jnp.square(deviation) - 1) / 2 - jnp.log(deviation)
        style = jnp.concatenate([read, drawn[len(images) :]])
        return self.painter(condition, style), divergence.sum(-1)

    def repaint(self, condition: jax.Array, images: jax.Array) -> jax.Array:
        """Condition [N, ...], the real image of each -> images in the style that is read off it."""
        mean, _ = self.reader(condition, images)
        return self.painter(condition, mean)


class StyleReader(nn.Module):
    """Condition [N, S, S, K] and image [N, S, S, C] -> mean and deviation of the style, [N, style] each."""

    style: int
    levels: int
    width: int
    dtype: Dtype

    @nn.compact
    def __call__(self, condition: jax.Array, image: jax.Array) -> tuple[jax.Array, jax.Array]:
        x = jnp.concatenate([condition.astype(self.dtype), image.astype(self.dtype)], axis=-1)
        for i in range(self.levels):
            maps = 2 ** min(i, 2) * self.width
            x = Conv(maps, 3, stride=2, dtype=self.dtype, kernel_init=_he, name=f"conv_{i}")(x)
            x = nn.leaky_relu(x, 0.2)
        told = nn.Dense(2 * self.style, name="style")(x.astype(jnp.float32).mean((1, 2)))
        return told[:, : self.style], jnp.exp(jnp.clip(told[:, self.style :], -5, 5))


class Painter(nn.Module):
    """The network that paints: condition [N, S, S, K], style [N, Z] -> image [N, S, S, out_channels]."""

    out_channels: int
    width: int
    levels: int
    most: int
    ghost_ratio: int
    dtype: Dtype

    @nn.compact
    def __call__(self, condition: jax.Array, style: jax.Array) -> jax.Array:
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
                dtype=self.dtype,
                name=f"encoder_{i}",
            )(x)
            guides.append(x)  # [N, S / 2**i, same, width]

        for i in reversed(range(self.levels)):
            x = GuidedGhost(features[i], ratio=self.ghost_ratio, dtype=self.dtype, name=f"decoder_{i}")(
                x, guides[i], style
            )
        x = Conv(self.out_channels, 3, dtype=self.dtype, name="image")(x)
        return nn.sigmoid(x.astype(jnp.float32))


class GuidedGhost(nn.Module):
    """x [N, H / 2, W / 2, C], guide [N, H, W, G], style [N, Z] -> [N, H, W, features]: a ghost module that
    enlarges, and whose norm is told what to do by guide and style."""

    features: int
    ratio: int = 2
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, guide: jax.Array, style: jax.Array) -> jax.Array:
        x = GhostModule(
            self.features,
            ratio=self.ratio,
            stride=1,
            enlarge=True,
            norm="none",
            dtype=self.dtype,
            name="ghost",
        )(x)
        x = Norm("instance", True, dtype=self.dtype, name="norm")(x)
        told = Conv(2 * self.features, 1, pad=0, dtype=self.dtype, name="guide")(guide)
        if style.shape[-1]:
            everywhere = nn.Dense(2 * self.features, use_bias=False, dtype=self.dtype, name="style")(style)
            told = told + everywhere[:, None, None]
        scale, shift = told[..., : self.features], told[..., self.features :]
        return nn.leaky_relu(x * (1 + scale) + shift, 0.2)
