"""Layers and weights that every network here is made of.

Layout NHWC; kernels HWIO. Layers compute in `dtype`, parameters and normalisation statistics stay float32.
How a convolution is computed is for module convolutions to say, a norm's gradient for normalisation.
"""

from collections.abc import Callable
from functools import reduce
from itertools import accumulate
from operator import add

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from pixmed_jax.errors import PixmedError
from pixmed_jax.models import filtering
from pixmed_jax.models.convolutions import convolution, depthwise, down, enlarging, prepares, up
from pixmed_jax.models.normalisation import How, activated, normalised, standardised

Dtype = jnp.dtype | type

# The collection of what is made of kernels once, for images that come one at a time, on a CPU. A network
# applied with mutable=[PREPARED] returns it, and computes by it where it is given beside the parameters.
PREPARED = "prepared"

NORMS = ("batch", "instance", "none")  # kinds of `Norm`
_ITERATIONS = 8  # of the power method
_MOMENTUM = 0.9  # of a batch norm's running averages
_TINY = 1e-12

# pix2pix (Isola 2017, Section 6.2), after DCGAN: weights from N(0, 0.02), norm scales from N(1, 0.02).
kernel_init = nn.initializers.normal(0.02)


def _scale_init(key: jax.Array, shape: tuple[int, ...], dtype: Dtype = jnp.float32) -> jax.Array:
    return 1.0 + 0.02 * jax.random.normal(key, shape, dtype)


# ---------------------------------------------------------------- sizes of images
def check_halvings(size: int, times: int, setting: str) -> None:
    """PixmedError for images of a `data.size` that cannot be halved so many times, as a setting asks."""
    if size % 2**times:
        raise PixmedError(
            f"data.size={size} cannot be halved {times} times, as {setting} asks; take a multiple of "
            f"{2**times}, or lower it"
        )


def check_doublings(size: int, network: str = "generator makes") -> None:
    """PixmedError for images of a `data.size` that 4x4 pixels, doubled some times, do not come to."""
    if size < 16 or size & (size - 1):
        raise PixmedError(f"data.size={size}: this {network} 16, 32, 64, 128 or 256 pixels")


# ---------------------------------------------------------------- weights
def spectrally_normalised(kernel: jax.Array) -> jax.Array:
    """A kernel [k, k, I, O] over its largest singular value as a matrix [k * k * I, O] (Miyato et al., ICLR
    2018, Section 2.1).

    There the singular vectors go on from step to step. Here power iteration begins anew each time, from the
    same vector, so that a discriminator has no state beside its weights; it takes little beside convolutions.
    It stops a little early, so what is left as the largest singular value may be 1.1 (BUILD_NOTES.md).
    """
    matrix = kernel.reshape(-1, kernel.shape[-1])
    fixed = lax.stop_gradient(matrix)
    right = _unit(jax.random.normal(jax.random.key(0), (matrix.shape[1],)))
    left = jnp.zeros(())
    for _ in range(_ITERATIONS):  # sums: as products with a vector they are slower, and a GPU tunes each
        left = _unit((fixed * right).sum(1))
        right = _unit((fixed * left[:, None]).sum(0))
    return kernel / jnp.maximum((matrix * left[:, None] * right).sum(), _TINY)


def _unit(vector: jax.Array) -> jax.Array:
    return vector / jnp.maximum(jnp.linalg.norm(vector), _TINY)


# ---------------------------------------------------------------- modules
class Conv(nn.Module):
    """Convolution, padded by `pad` on each side; with stride 2 a kernel of 3 or 4 halves an even image.

    With `enlarge` it is that of the image enlarged twofold by repeating pixels; for kernels of 3 and pad 1.
    With `spectral` the kernel's largest singular value is about 1, whatever its parameters.
    """

    features: int
    kernel_size: int
    stride: int = 1
    pad: int = 1
    enlarge: bool = False
    spectral: bool = False
    use_bias: bool = True
    dtype: Dtype = jnp.float32
    kernel_init: Callable[..., jax.Array] = kernel_init

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (self.kernel_size, self.kernel_size, x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape)
        kernel = (spectrally_normalised(kernel) if self.spectral else kernel).astype(self.dtype)
        x = x.astype(self.dtype)
        if self.enlarge:
            if (self.kernel_size, self.stride, self.pad) != (3, 1, 1):
                raise ValueError("only a 3x3 convolution of stride 1 and pad 1 enlarges")
            made = _prepared(self, True, lambda: enlarging(kernel))
            y = up(x, enlarging(kernel) if made is None else made)
        elif self.stride == 2 and self.kernel_size in (3, 4):
            pays = prepares(kernel, (x.shape[0], x.shape[1] // 2, x.shape[2] // 2))
            made = _prepared(self, pays, lambda: filtering.prepared(kernel, "down"))
            y = down(x, kernel) if made is None else filtering.down_prepared(x, made)
        else:
            y = convolution(x, kernel, self.stride, self.pad)
        return _biased(self, y)


class ConvTranspose(nn.Module):
    """Transposed 4x4 convolution of stride 2: [N, H, W, C] -> [N, 2H, 2W, features]."""

    features: int
    use_bias: bool = True
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = self.param("kernel", kernel_init, (4, 4, self.features, x.shape[-1])).astype(self.dtype)
        x = x.astype(self.dtype)
        made = _prepared(self, prepares(kernel, x.shape[:3]), lambda: filtering.prepared(kernel, "up"))
        return _biased(self, up(x, kernel) if made is None else filtering.up_prepared(x, made))


class Depthwise(nn.Module):
    """Depthwise convolution of stride 1 that makes `multiplier` maps of each input map."""

    kernel_size: int
    multiplier: int = 1
    use_bias: bool = True
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        features = x.shape[-1] * self.multiplier
        kernel = self.param("kernel", kernel_init, (self.kernel_size, self.kernel_size, 1, features))
        return _biased(self, depthwise(x.astype(self.dtype), kernel.astype(self.dtype)))


def _prepared(module: nn.Module, pays: bool, make: Callable[[], jax.Array]) -> jax.Array | None:
    """What was prepared of the module's kernel, if anything; made where it is asked for and pays."""
    if pays and module.is_mutable_collection(PREPARED) and not module.is_initializing():
        module.put_variable(PREPARED, "kernel", make())
    return module.get_variable(PREPARED, "kernel")


def _biased(module: nn.Module, y: jax.Array) -> jax.Array:
    if not module.use_bias:
        return y
    return _plus(y, module.param("bias", nn.initializers.zeros, (y.shape[-1],)).astype(y.dtype))


@jax.custom_vjp
def _plus(y: jax.Array, bias: jax.Array) -> jax.Array:
    """Its gradient along the bias is a sum over columns first: sums of three columns leave a GPU idle."""
    return y + bias


def _plus_gradients(bias: jax.Array, g: jax.Array) -> tuple[jax.Array, jax.Array]:
    *_, width, channels = g.shape
    columns = g.reshape(-1, width * channels).sum(0, dtype=jnp.float32)
    columns = jax.lax.optimization_barrier(columns)  # or XLA makes one sum of both
    return g, columns.reshape(width, channels).sum(0).astype(bias.dtype)


_plus.defvjp(lambda y, bias: (y + bias, bias), _plus_gradients)


@jax.custom_vjp
def joined(*parts: jax.Array) -> jax.Array:
    """Maps [N, H, W, C] of several layers -> those of all, [N, H, W, sum of C].

    A CPU joins with one thread, and makes what it joins with it, so there each part is padded, and they are
    added: two to four times as fast. Not where gradients are asked for: XLA would do it anew for each reader.
    """
    return lax.platform_dependent(*parts, cpu=_padded_and_added, default=_concatenated)


def _concatenated(*parts: jax.Array) -> jax.Array:
    return jnp.concatenate(parts, axis=-1)


def _padded_and_added(*parts: jax.Array) -> jax.Array:
    ends = list(accumulate(part.shape[-1] for part in parts))
    places = [
        (*((0, 0),) * (part.ndim - 1), (end - part.shape[-1], ends[-1] - end))
        for part, end in zip(parts, ends, strict=True)
    ]
    return reduce(add, (jnp.pad(part, place) for part, place in zip(parts, places, strict=True)))


def _split(ends: tuple[int, ...], g: jax.Array) -> tuple[jax.Array, ...]:
    return tuple(jnp.split(g, ends, axis=-1))


joined.defvjp(
    lambda *parts: (_concatenated(*parts), tuple(accumulate(part.shape[-1] for part in parts))[:-1]), _split
)


class Norm(nn.Module):
    """Normalisation by name, with learned scale and bias, and the activation of this `slope` below 0 (None is
    none); statistics are always float32.

    "batch" uses the batch's own statistics when `train` and running averages otherwise (with `axis_name`
    the statistics of all devices of that pmap axis); "instance" those of each image; "none" only activates.
    """

    kind: str
    train: bool
    axis_name: str | None = None
    dtype: Dtype = jnp.float32
    epsilon: float = 1e-5
    slope: float | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        if self.kind == "none":
            return activated(x, self.slope)
        how = How(
            tuple(range(1 if self.kind == "instance" else 0, x.ndim - 1)),
            self.epsilon,
            self.slope,
            dtype=self.dtype,
        )
        if self.kind == "batch":
            return _BatchNorm(how, self.train, self.axis_name, name="batch")(x)
        if self.kind == "instance":
            return _InstanceNorm(how, name="instance")(x)
        raise PixmedError(f"norm={self.kind!r} is unknown; use one of {', '.join(NORMS)}")


# Parameters and averages are named and drawn as those of Flax's modules of these names.
class _InstanceNorm(nn.Module):
    how: How

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y, _, _ = standardised(x, *_scale_and_bias(self, x), self.how)
        return y


class _BatchNorm(nn.Module):
    how: How
    train: bool
    axis_name: str | None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        features = x.shape[-1:]
        mean = self.variable("batch_stats", "mean", jnp.zeros, features)
        var = self.variable("batch_stats", "var", jnp.ones, features)
        scale, bias = _scale_and_bias(self, x)
        if not self.train:
            return normalised(x, mean.value, var.value, scale, bias, self.how)
        if self.is_initializing():
            return standardised(x, scale, bias, self.how)[0]
        y, *found = standardised(x, scale, bias, self.how._replace(axis_name=self.axis_name))
        for average, own in zip((mean, var), found, strict=True):
            average.value = _MOMENTUM * average.value + (1 - _MOMENTUM) * own
        return y


def _scale_and_bias(module: nn.Module, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    features = x.shape[-1:]
    return module.param("scale", _scale_init, features), module.param("bias", nn.initializers.zeros, features)
