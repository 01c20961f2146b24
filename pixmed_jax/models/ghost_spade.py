"""A generator of the project's own: ghost modules on both sides, the map telling every scale what to paint.

The encoder is the paper's, narrower: ghost modules of stride 2 over the label map, and one of stride 1 at
full size. Its features at each scale are a guide there: they say by how much the decoder's normalised
features are scaled and shifted (SPADE, Park et al., CVPR 2019, Section 3, where the bare map does that
through a wide convolution at every scale). The decoder enlarges by repeating pixels and then convolves, so
that each pixel of the result is reached by equally many weights: transposed convolutions leave a
checkerboard (Odena et al., Distill 2016).

What the map leaves open, such as how bright a scanner shows each tissue, is a style: a vector that shifts and
scales every norm along with the guide. In training it is read off the real slice; in sampling it is drawn
from what slices of such a map may have, a normal distribution that the network tells from the map. The
divergence of what is read from what would be drawn holds the two together, so that to be near one slice and
to differ from draw to draw are not at odds (a conditional variational autoencoder, Sohn et al., NeurIPS 2015;
SPADE's image encoder has one distribution for all maps, and a style of one plane's slices does not suit
another's). What a map expects is settled when all else is trained (training/settle.py).
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from pixmed_jax.models.ghost import GhostModule
from pixmed_jax.models.layers import Conv, Dtype, Norm, check_halvings

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
    dtype: Dtype = jnp.float32

    @nn.nowrap
    def check(self, size: int, key: str) -> None:
        """PixmedError for levels that images of `size` do not have; key: their section of the config."""
        check_halvings(size, self.levels, f"{key}.levels={self.levels}")

    def setup(self) -> None:
        self.painter = Painter(
            self.out_channels, self.width, self.levels, self.most, self.ghost_ratio, self.dtype
        )
        self.prior = StylePrior(self.style)
        self.reader = StyleReader(self.style, min(4, self.levels), self.width, self.dtype)

    def __call__(self, condition: jax.Array, *, train: bool) -> jax.Array:
        guides = self.painter.guides(condition)
        images = self.painter(guides, self._drawn(self.prior(summary(guides))))
        if self.is_initializing() and self.style:
            self.reader(condition, images)
        return images

    def reconstruct(self, condition: jax.Array, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Condition [N, ...], real images [M <= N, ...] -> images [N, ...], divergences [M].

        The first M are painted in the style of the real images of their conditions, the others in one that is
        drawn. The divergence is that of each style read from those expected of its map, in nats.
        """
        guides, read = self.painter.guides(condition), self.reader(condition[: len(images)], images)
        expected = self.prior(summary(guides))
        first = Normal(*(of[: len(images)] for of in expected))
        # What is expected is learnt from what is read alone: a discriminator would pull it elsewhere.
        others = (jax.lax.stop_gradient(of[len(images) :]) for of in expected)
        style = Normal(*(jnp.concatenate(both) for both in zip(read, others, strict=True)))
        return self.painter(guides, self._drawn(style)), read.divergence_from(first)

    def repaint(self, condition: jax.Array, images: jax.Array) -> jax.Array:
        """Condition [N, ...], the real image of each -> images in the style that is read off it."""
        return self.painter(self.painter.guides(condition), self.reader(condition, images).mean)

    def readings(self, condition: jax.Array, images: jax.Array) -> tuple[jax.Array, "Normal"]:
        """Condition [N, ...], the real image of each -> all that `expected` needs, [N, F], and the styles."""
        return summary(self.painter.guides(condition)), self.reader(condition, images)

    def expected(self, summaries: jax.Array) -> "Normal":
        """Summaries of conditions [N, F] -> the styles that slices of such maps have."""
        return self.prior(summaries)

    def _drawn(self, of: "Normal") -> jax.Array:
        return of.mean + of.deviation * jax.random.normal(self.make_rng("noise"), of.mean.shape)


class Normal(NamedTuple):
    """Normal distributions of styles, each number for itself: mean and deviation, [N, style] each."""

    mean: jax.Array
    deviation: jax.Array

    @classmethod
    def told(cls, numbers: jax.Array) -> "Normal":
        """Means and logarithms of deviations, side by side, [N, 2 * style]."""
        style = numbers.shape[-1] // 2
        return cls(numbers[:, :style], jnp.exp(jnp.clip(numbers[:, style:], -5, 5)))

    def divergence_from(self, other: "Normal") -> jax.Array:
        """Kullback and Leibler's, [N], in nats."""
        deviation = self.deviation / other.deviation
        off = (self.mean - other.mean) / other.deviation
        return ((jnp.square(deviation) + jnp.square(off) - 1) / 2 - jnp.log(deviation)).sum(-1)


def summary(guides: list[jax.Array]) -> jax.Array:
    """Guides of a condition -> their means over the slice, [N, F] float32."""
    return jnp.concatenate([guide.astype(jnp.float32).mean((1, 2)) for guide in guides], axis=-1)


class StylePrior(nn.Module):
    """Summaries of conditions [N, F] -> the styles that slices of such maps have."""

    style: int

    @nn.compact
    def __call__(self, summaries: jax.Array) -> Normal:
        if not self.style:
            return Normal.told(jnp.zeros((len(summaries), 0)))
        x = nn.relu(nn.Dense(64, name="hidden")(summaries))
        # Zeros, so that at first all maps expect N(0, 1).
        return Normal.told(nn.Dense(2 * self.style, kernel_init=nn.initializers.zeros, name="style")(x))


class StyleReader(nn.Module):
    """Condition [N, S, S, K] and image [N, S, S, C] -> the style of the image, as far as it can be read."""

    style: int
    levels: int
    width: int
    dtype: Dtype

    @nn.compact
    def __call__(self, condition: jax.Array, image: jax.Array) -> Normal:
        x = jnp.concatenate([condition.astype(self.dtype), image.astype(self.dtype)], axis=-1)
        for i in range(self.levels):
            maps = 2 ** min(i, 2) * self.width
            x = Conv(maps, 3, stride=2, dtype=self.dtype, kernel_init=_he, name=f"conv_{i}")(x)
            x = nn.leaky_relu(x, 0.2)
        return Normal.told(nn.Dense(2 * self.style, name="style")(x.astype(jnp.float32).mean((1, 2))))


class Painter(nn.Module):
    """The network that paints: guides of a condition, style [N, style] -> image [N, S, S, out_channels]."""

    out_channels: int
    width: int
    levels: int
    most: int
    ghost_ratio: int
    dtype: Dtype

    def setup(self) -> None:
        features = [min(self.most, 2**i * self.width) for i in range(self.levels + 1)]
        self.encoder = [
            GhostModule(
                width,
                ratio=self.ghost_ratio,
                stride=1 if i == 0 else 2,
                norm="none" if i in (0, self.levels) else "instance",
                dtype=self.dtype,
            )
            for i, width in enumerate(features)
        ]
        self.decoder = [
            GuidedGhost(width, ratio=self.ghost_ratio, dtype=self.dtype) for width in features[:-1]
        ]
        self.image = Conv(self.out_channels, 3, dtype=self.dtype)

    def guides(self, condition: jax.Array) -> list[jax.Array]:
        """Condition [N, S, S, K] -> features [N, S / 2**i, same, width] of each scale i."""
        if condition.shape[1] % 2**self.levels or condition.shape[2] % 2**self.levels:
            raise ValueError(f"{condition.shape[1:3]} is not a multiple of 2**{self.levels} levels")
        guides = [condition]
        for module in self.encoder:
            guides.append(module(guides[-1]))
        return guides[1:]

    def __call__(self, guides: list[jax.Array], style: jax.Array) -> jax.Array:
        *others, x = guides
        for module, guide in zip(reversed(self.decoder), reversed(others), strict=True):
            x = module(x, guide, style)
        return nn.sigmoid(self.image(x).astype(jnp.float32))


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
