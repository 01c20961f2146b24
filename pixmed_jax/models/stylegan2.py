"""StyleGAN2 (Karras et al. 2020, "Analyzing and Improving the Image Quality of StyleGAN"), given a class.

From the paper: weight (de)modulation (Section 2.2), the generator with output skips and the residual
discriminator (Section 4.1). From its official configurations: minibatch standard deviation, filters of
[1, 3, 3, 1], and for classes those of ADA (Karras et al. 2020, "Training Generative Adversarial Networks with
Limited Data"): an embedding beside the latent, and a projection discriminator.

Layout NHWC. Convolutions compute in `dtype`; parameters, styles, demodulation and the minibatch's deviation
stay float32. Learning rates are equalised: weights are stored as N(0, 1) and scaled where they are used.

With its defaults, 256x256 pixels, three channels and no class the generator has 30,034,338 parameters and the
discriminator 28,864,129, as in configuration F; with channel_base=16384 (ADA's settings for 256x256) they
have 24,767,458 and 24,001,089.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from pixmed_jax.models.convolutions import convolution, down, up
from pixmed_jax.models.layers import Dtype, check_doublings

_FILTER = (1 / 8, 3 / 8, 3 / 8, 1 / 8)  # the official [1, 3, 3, 1], of sum 1
_EPSILON = 1e-8


def _activate(x: jax.Array) -> jax.Array:
    """Leaky ReLU whose output has the variance of its input, as N(0, 1) weights without rates assume."""
    return nn.leaky_relu(x, 0.2) * math.sqrt(2)


def pixel_norm(x: jax.Array) -> jax.Array:
    """[..., C] of second moment 1."""
    return x * lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + _EPSILON)


# ---------------------------------------------------------------- filters
def _blur(x: jax.Array, pad: int, stride: int = 1) -> jax.Array:
    """[1, 3, 3, 1] along both axes of x [N, H, W, C] with `pad` zeros around it, every stride-th pixel kept.

    Four shifted multiply-adds an axis, which XLA fuses.
    """
    for axis in (1, 2):
        size = x.shape[axis] + 2 * pad - 3
        margin = [(0, 0)] * 4
        margin[axis] = (pad, pad)
        padded = jnp.pad(x, margin)
        views = [lax.slice_in_dim(padded, i, i + size, stride, axis) for i in range(4)]
        x = sum((view * tap for view, tap in zip(views, _FILTER, strict=True)), jnp.zeros((), x.dtype))
    return x


def upsample(x: jax.Array) -> jax.Array:
    """[N, H, W, C] -> [N, 2H, 2W, C] by [1, 3, 3, 1]: 3/4 of the nearer pixel, 1/4 of the other."""
    n, h, w, c = x.shape
    for axis, shape in ((1, (n, 2 * h, w, c)), (2, (n, 2 * h, 2 * w, c))):
        margin = [(0, 0)] * 4
        margin[axis] = (1, 1)
        padded = jnp.pad(x, margin)
        size = x.shape[axis]
        before, after = (lax.slice_in_dim(padded, i, i + size, axis=axis) for i in (0, 2))
        x = jnp.stack([(3 * x + before) / 4, (3 * x + after) / 4], axis + 1).reshape(shape)
    return x


def downsample(x: jax.Array) -> jax.Array:
    """[N, 2H, 2W, C] -> [N, H, W, C] by [1, 3, 3, 1]."""
    return _blur(x, 1, stride=2)


def _convolve(x: jax.Array, kernel: jax.Array, resample: str) -> jax.Array:
    """Convolution and the filter of its resampling: "up" doubles, "down" halves, "" keeps the size.

    `up` and `down` of the layers begin one pixel too late for these filters, hence the row and column of
    zeros before, which are cut off after.
    """
    before = ((0, 0), (1, 0), (1, 0), (0, 0))
    if resample == "up":  # the transposed kernel is [kh, kw, out, in]; the filter gains 2 along each axis
        return 4 * _blur(up(jnp.pad(x, before), kernel.transpose(0, 1, 3, 2))[:, 1:, 1:], 1)
    if resample == "down" and kernel.shape[0] == 1:
        x = downsample(x)
    elif resample == "down":
        return down(jnp.pad(_blur(x, 2), before), kernel)[:, 1:, 1:]
    return convolution(x, kernel, 1, kernel.shape[0] // 2)


# ---------------------------------------------------------------- layers
class EqualDense(nn.Module):
    """x W / sqrt(inputs) + b. `rate` multiplies the learning rate of both, not what they start as."""

    features: int
    rate: float = 1.0
    bias: float = 0.0

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = self.param("kernel", nn.initializers.normal(1 / self.rate), (x.shape[-1], self.features))
        start = nn.initializers.constant(self.bias / self.rate)
        bias = self.param("bias", start, (self.features,))
        return x.astype(jnp.float32) @ kernel * (self.rate / math.sqrt(x.shape[-1])) + bias * self.rate


class EqualConv(nn.Module):
    """Convolution of 1x1 or 3x3 with an equalised learning rate; `resample` is "", "up" or "down".

    Given `style` [N, inputs] it is modulated: every image has its own kernel, whose input channels are scaled
    by its style, and which `demodulate` then brings to norm 1 for each output channel (Equation 1 and 3).
    Scaling the input's and the output's channels around one kernel for all is the same, and needs no kernel
    for each image.
    """

    features: int
    kernel_size: int
    resample: str = ""
    demodulate: bool = True
    use_bias: bool = True
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, style: jax.Array | None = None) -> jax.Array:
        shape = (self.kernel_size, self.kernel_size, x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.normal(1), shape) / math.sqrt(math.prod(shape[:3]))
        x = x.astype(self.dtype)
        if style is not None:
            x = x * style[:, None, None].astype(self.dtype)
        y = _convolve(x, kernel.astype(self.dtype), self.resample)
        if style is not None and self.demodulate:
            power = jnp.square(style) @ jnp.square(kernel).sum((0, 1))  # [N, features]
            y = y * lax.rsqrt(power + _EPSILON)[:, None, None].astype(self.dtype)
        if not self.use_bias:
            return y
        return y + self.param("bias", nn.initializers.zeros, (self.features,)).astype(y.dtype)


class StyledConv(nn.Module):
    """Modulated 3x3 convolution, noise of learned strength, bias, activation (Figure 2d)."""

    features: int
    resample: str = ""
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, w: jax.Array, noise: bool) -> jax.Array:
        style = EqualDense(x.shape[-1], bias=1.0, name="style")(w)
        x = EqualConv(self.features, 3, self.resample, use_bias=False, dtype=self.dtype, name="conv")(
            x, style
        )
        strength = self.param("noise_strength", nn.initializers.zeros, ())
        if noise:
            grain = jax.random.normal(self.make_rng("noise"), (*x.shape[:3], 1))
            x = x + (strength * grain).astype(x.dtype)
        return _activate(x + self.param("bias", nn.initializers.zeros, (self.features,)).astype(x.dtype))


class Mapping(nn.Module):
    """Latent [N, Z], may be None, and classes [N, K] -> w [N, features]: equal dense layers with rate 0.01.

    The classes' embedding stands beside the latent, both with second moment 1.
    """

    features: int
    layers: int

    @nn.compact
    def __call__(self, latent: jax.Array | None, condition: jax.Array) -> jax.Array:
        parts = [] if latent is None else [pixel_norm(latent)]
        if condition.shape[-1]:
            parts.append(pixel_norm(EqualDense(self.features, name="embed")(condition)))
        x = jnp.concatenate(parts, axis=-1)
        for i in range(self.layers):
            x = _activate(EqualDense(self.features, rate=0.01, name=f"dense_{i + 1}")(x))
        return x


class Synthesis(nn.Module):
    """w of each layer [N, 2 log2(S) - 2, W] -> image [N, S, S, C], around [-1, 1] and without bounds.

    From a learned 4x4 on, each doubling has two styled convolutions and adds its own image to the upsampled
    one (Figure 7b). The last layer's w also makes the image, where the next doubling's first one begins.
    """

    size: int
    out_channels: int
    channel_base: int
    channel_max: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, w: jax.Array, noise: bool) -> jax.Array:
        constant = self.param("constant", nn.initializers.normal(1), (4, 4, _features(self, 4)))
        x = jnp.broadcast_to(constant, (w.shape[0], *constant.shape)).astype(self.dtype)
        image, layer = jnp.zeros((w.shape[0], 2, 2, self.out_channels)), 0
        for size in (2**i for i in range(2, self.size.bit_length())):
            for resample in ("up", "") if size > 4 else ("",):
                name = f"{size}_{'up' if resample else 'conv'}"
                x = StyledConv(_features(self, size), resample, self.dtype, name=name)(x, w[:, layer], noise)
                layer += 1
            style = EqualDense(x.shape[-1], bias=1.0, name=f"{size}_image_style")(w[:, layer])
            paint = EqualConv(self.out_channels, 1, demodulate=False, dtype=self.dtype, name=f"{size}_image")
            painted = paint(x, style).astype(jnp.float32)
            image = upsample(image) + painted
        return image


def _features(module: "Synthesis | StyleGAN2Discriminator", size: int) -> int:
    """Feature maps at `size`: halved with each doubling, once they would exceed the maximum."""
    return min(module.channel_max, module.channel_base // size)


class StyleGAN2Generator(nn.Module):
    """Classes [N, K], one-hot -> images [N, S, S, C] in [0, 1]; in training not clipped to that.

    Latent and noise come from the rng "noise". `style_mixing` is the probability that an image's layers from
    a random one on take the w of a second latent, in training only. Outside training each w is drawn by
    1 - `truncation` towards the running mean of its class: the collection "batch_stats" holds one w for each
    class, so truncation 0 makes the class's mean image. (The official code has one mean for all, which at 0
    forgets the class.) Without `noise` the mean w is taken and no noise added: nothing random is left.
    """

    size: int = 256
    out_channels: int = 3
    latent: int = 512
    width: int = 512
    mapping_layers: int = 8
    channel_base: int = 32768
    channel_max: int = 512
    style_mixing: float = 0.9
    truncation: float = 1.0
    mean_decay: float = 0.998
    axis_name: str | None = None
    dtype: Dtype = jnp.float32

    @nn.nowrap
    def check(self, size: int, key: str) -> None:
        """PixmedError for a size that it does not make."""
        check_doublings(size)

    def setup(self) -> None:
        if self.size < 8 or self.size & (self.size - 1):
            raise ValueError(f"StyleGAN2 draws images of 8, 16, 32 ... pixels a side, not {self.size}")
        self.mapping = Mapping(self.width, self.mapping_layers)
        self.synthesis = Synthesis(
            self.size, self.out_channels, self.channel_base, self.channel_max, self.dtype
        )

    def __call__(self, condition: jax.Array, *, train: bool, noise: bool = True) -> jax.Array:
        images = self.paint(self.styles(condition, train=train, noise=noise), noise=noise)
        return images if train else jnp.clip(images, 0, 1)

    def paint(self, w: jax.Array, *, noise: bool = True) -> jax.Array:
        """Styles [N, layers, W] -> images [N, S, S, C], [0, 1] but for what overshoots."""
        return (self.synthesis(w, noise) + 1) / 2

    @nn.compact
    def styles(self, condition: jax.Array, *, train: bool, noise: bool = True) -> jax.Array:
        """Classes [N, K] -> the w of each layer, [N, 2 log2(S) - 2, W] float32."""
        if condition.ndim != 2:
            raise ValueError(f"StyleGAN2 is told a class [N, K], not a condition of shape {condition.shape}")
        layers = 2 * int(math.log2(self.size)) - 2
        # Without classes all images are of one.
        shares = condition if condition.shape[-1] else jnp.ones((len(condition), 1))
        means = self.variable("batch_stats", "w", jnp.zeros, (shares.shape[-1], self.width))
        if not (train or noise):
            return jnp.repeat((shares @ means.value)[:, None], layers, axis=1)
        w = self._map(condition)
        if not train:
            mean = shares @ means.value
            return jnp.repeat((mean + self.truncation * (w - mean))[:, None], layers, axis=1)
        if not self.is_initializing():
            means.value = self._followed(means.value, w, shares)
        every = jnp.repeat(w[:, None], layers, axis=1)
        if not self.style_mixing:
            return every
        chance, place = jax.random.split(self.make_rng("noise"))
        first = jax.random.randint(place, (len(w), 1), 1, layers)
        mixed = jax.random.uniform(chance, (len(w), 1)) < self.style_mixing
        second = mixed & (jnp.arange(layers) >= first)  # [N, layers]
        return jnp.where(second[..., None], self._map(condition)[:, None], every)

    def _map(self, condition: jax.Array) -> jax.Array:
        latent = jax.random.normal(self.make_rng("noise"), (len(condition), self.latent))
        return self.mapping(latent, condition)

    def _followed(self, means: jax.Array, w: jax.Array, shares: jax.Array) -> jax.Array:
        """The running means [K, W] after images of w [N, W]; a class that a batch lacks keeps its own."""
        sums, counts = jnp.einsum("nk,nw->kw", shares, lax.stop_gradient(w)), shares.sum(0)[:, None]
        if self.axis_name is not None:
            sums, counts = lax.psum((sums, counts), self.axis_name)
        followed = self.mean_decay * means + (1 - self.mean_decay) * sums / jnp.maximum(counts, 1)
        return jnp.where(counts > 0, followed, means)


class StyleGAN2Discriminator(nn.Module):
    """Classes [N, K] and images [N, S, S, C] in [0, 1] -> logits [N, 1].

    Residual blocks from S to 4 (Figure 7c); then the deviation within groups of `group` consecutive images
    (the largest number up to it that divides the batch) as one more map, a convolution and a dense layer. The
    logit is the features' product with the class's embedding.
    """

    mapping_layers: int = 8
    channel_base: int = 32768
    channel_max: int = 512
    group: int = 4
    dtype: Dtype = jnp.float32

    @nn.nowrap
    def check(self, size: int, key: str) -> None:
        """PixmedError for a size that it does not take."""
        check_doublings(size, "discriminator takes")

    @nn.compact
    def __call__(self, condition: jax.Array, image: jax.Array) -> jax.Array:
        x = 2 * image.astype(self.dtype) - 1
        x = _activate(self._conv(_features(self, x.shape[1]), 1, "image")(x))
        for size in (2**i for i in reversed(range(3, x.shape[1].bit_length()))):
            past = self._conv(_features(self, size // 2), 1, f"{size}_past", "down", use_bias=False)(x)
            x = _activate(self._conv(_features(self, size), 3, f"{size}_conv")(x))
            x = _activate(self._conv(_features(self, size // 2), 3, f"{size}_down", "down")(x))
            x = (x + past) / math.sqrt(2)
        deviation = batch_deviation(x, self.group).astype(x.dtype)
        x = jnp.concatenate([x, deviation], axis=-1)
        x = _activate(self._conv(_features(self, 4), 3, "4_conv")(x))
        x = _activate(EqualDense(_features(self, 4), name="dense")(x.reshape(len(x), -1)))
        if not condition.shape[-1]:
            return EqualDense(1, name="logits")(x)
        x = EqualDense(_features(self, 4), name="logits")(x)
        classes = Mapping(_features(self, 4), self.mapping_layers, name="mapping")(None, condition)
        return (x * classes).sum(-1, keepdims=True) / math.sqrt(x.shape[-1])

    def _conv(
        self, features: int, size: int, name: str, resample: str = "", *, use_bias: bool = True
    ) -> EqualConv:
        return EqualConv(features, size, resample, use_bias=use_bias, dtype=self.dtype, name=name)


def batch_deviation(x: jax.Array, group: int) -> jax.Array:
    """One more map [N, H, W, 1] float32: the mean over features and pixels of their deviation within a group.

    A group is so many consecutive images, or the largest divisor of N below (Karras et al. 2018, "Progressive
    Growing of GANs", Section 3; in groups as in the official code). Batches that are cut for several devices
    keep their groups whole, if the group divides each part.
    """
    n, h, w, _ = x.shape
    group = max(size for size in range(1, min(group, n) + 1) if n % size == 0)
    grouped = x.astype(jnp.float32).reshape(n // group, group, -1)
    variance = jnp.square(grouped - grouped.mean(1, keepdims=True)).mean(1)
    deviation = jnp.sqrt(variance + _EPSILON).mean(-1)  # [N / group]
    return jnp.broadcast_to(jnp.repeat(deviation, group)[:, None, None, None], (n, h, w, 1))
