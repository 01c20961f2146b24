"""Convolutions as operations on arrays, each in the form that is fast where it is compiled for.

Layout NHWC; kernels HWIO, in the dtype of what they are applied to. XLA's stock lowerings of the strided and
transposed convolution's gradients and of the depthwise convolution are slow on CPUs, and on CUDA GPUs those
of few channels (BUILD_NOTES.md has the timings), so each has further forms there, chosen when the computation
is lowered; the results agree to rounding.

<convolution(x, kernel), y> is linear in each of the three, so it has three gradients: along y, which is the
convolution itself, along x and along the kernel. Each of them is linear in the other two, and what the three
are is all that the gradients of any of them need, to any order. They are written out, since autodiff would
ask XLA for other orders of dimensions, for which it has naive loops in a branch or a loop (`lax.cond`,
`lax.scan`), 50 to 100 times slower.
"""

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_batching import custom_vmap

from pixmed_jax.models import filtering, products

_NHWC = ("NHWC", "HWIO", "NHWC")

# Where the forms for CPUs change places (BUILD_NOTES.md has the table); pixels of the smaller image.
_MATRIX_PIXELS = 1024  # up to here one matrix product beats XLA's convolution; one that halves does so ...
_SMALL_PIXELS, _LARGE_KERNEL = 64, 2**20  # ... up to here, or by kernels of more numbers than that
_FEW_ROWS = 64  # up to here, images together, a product reads its kernel faster as its left factor
_WHOLE_PIXELS = 256  # up to here a kernel's gradient is one product, above it one for two taps ...
_FEW_CHANNELS = 8  # ... unless the input has so few channels that each would be a sliver
# Up to here a convolution of stride 1, or an enlarging one, is one product, then sums; one that halves images
# of as few channels is one product.
_FEW_FEATURES = 4
_NARROW = 8  # up to here cuDNN is slow at channels of the larger image
# Minimal filtering pays from so many channels, pixels of all images (half along a kernel's gradient), and
# multiply-adds of the plain convolution; below those what it saves in a training is spent on compiling it.
_FILTERED_CHANNELS, _FILTERED_ROWS, _FILTERED_WORK = 32, 512, 2**27
# Between so many pixels of all images, for that work at least, a kernel pays that was filtered beforehand:
# with fewer reading it takes longest, with more its filtering is paid for anyway.
_FEWEST_PREPARED, _MOST_PREPARED = 64, 256


class Geometry(NamedTuple):
    """What the shapes of two of the three arrays do not tell of the third."""

    sides: tuple[int, int]  # of the image that is convolved
    size: int  # of the kernel
    stride: int
    pad: tuple[int, int]  # before and after, along both axes

    @property
    def outputs(self) -> tuple[int, int]:
        """The sides of what comes of it."""
        height, width = ((side + sum(self.pad) - self.size) // self.stride + 1 for side in self.sides)
        return height, width

    @property
    def halves(self) -> bool:
        """Whether a 2H x 2W image becomes one of H x W."""
        even = not any(side % 2 for side in self.sides)
        return even and self.size in (3, 4) and (self.stride, self.pad) == (2, (1, self.size - 3))


def halving(height: int, width: int, size: int) -> Geometry:
    return Geometry((height, width), size, 2, (1, size - 3))  # 4x4 pads (1, 1); 3x3 needs (1, 0)


# ---------------------------------------------------------------- XLA's own
def _output_stock(x: jax.Array, kernel: jax.Array, how: Geometry) -> jax.Array:
    return lax.conv_general_dilated(x, kernel, (how.stride,) * 2, (how.pad,) * 2, dimension_numbers=_NHWC)


def _to_image_stock(y: jax.Array, kernel: jax.Array, how: Geometry) -> jax.Array:
    like = jax.ShapeDtypeStruct((y.shape[0], *how.sides, kernel.shape[2]), y.dtype)
    (made,) = jax.linear_transpose(lambda x: _output_stock(x, kernel, how), like)(y)
    return made


def _to_kernel_stock(x: jax.Array, y: jax.Array, how: Geometry) -> jax.Array:
    return _along_kernel(partial(_output_stock, how=how), x, y, how.size)


def _along_kernel(output: Callable, x: jax.Array, y: jax.Array, size: int) -> jax.Array:
    """The gradient of <output(x, kernel), y> along the kernel."""
    like = jax.ShapeDtypeStruct((size, size, x.shape[-1], y.shape[-1]), x.dtype)
    (made,) = jax.linear_transpose(lambda kernel: output(x, kernel), like)(y)
    return made


STOCK = {"output": _output_stock, "image": _to_image_stock, "kernel": _to_kernel_stock}  # by what is made


# ---------------------------------------------------------------- forms for a CPU
def _one_pixel(how: Geometry) -> bool:
    return (how.size, how.stride, how.pad) == (1, 1, (0, 0))


def _few(features: int, how: Geometry) -> bool:
    symmetric = how.pad[0] == how.pad[1]
    return how.size > 1 and how.stride == 1 and symmetric and features <= _FEW_FEATURES


def _filtered(n: int, channels: int, features: int, dtype: Any, how: Geometry, least_rows: int) -> bool:
    """Whether minimal filtering pays for n images (a symbol, the batch of an exported network, is 1)."""
    height, width = how.outputs
    halves = how.halves and height % 2 == width % 2 == 0
    possible = how.size == 4 and (halves or (how.stride == 1 and how.pad[0] == how.pad[1] <= 3))
    if not possible or dtype != jnp.float32 or min(channels, features) < _FILTERED_CHANNELS:
        return False
    rows = height * width * (n if isinstance(n, int) else 1)
    return rows >= least_rows and rows * how.size**2 * channels * features >= _FILTERED_WORK


def _output_cpu(x: jax.Array, kernel: jax.Array, how: Geometry) -> jax.Array:
    _, _, channels, features = kernel.shape
    height, width = how.outputs
    if _filtered(x.shape[0], channels, features, x.dtype, how, _FILTERED_ROWS):
        return filtering.down(x, kernel) if how.halves else filtering.convolution(x, kernel, how.pad[0])
    if _one_pixel(how):
        return products.of_one_pixel(x, kernel)
    if _few(features, how):
        return products.to_few(x, kernel, how.pad[0])
    most = _MATRIX_PIXELS if kernel.size > _LARGE_KERNEL else _SMALL_PIXELS
    if how.halves and (height * width <= most or channels <= _FEW_FEATURES):
        return products.down(x, kernel)
    return _output_stock(x, kernel, how)


def _to_image_cpu(y: jax.Array, kernel: jax.Array, how: Geometry) -> jax.Array:
    _, _, channels, features = kernel.shape
    n, height, width, _ = y.shape
    if _filtered(n, channels, features, y.dtype, how, _FILTERED_ROWS):
        if how.halves:
            return filtering.up(y, kernel)
        return filtering.to_image(y, kernel, how.pad[0])
    if _one_pixel(how):
        return products.of_one_pixel(y, kernel.swapaxes(2, 3))
    if _few(features, how):
        return products.from_few(y, kernel, how.sides, how.pad[0])
    if not how.halves:
        return _spread(y, kernel, how)
    many = height * width > _MATRIX_PIXELS
    few = isinstance(n, int) and n * height * width <= _FEW_ROWS
    if few or (many and channels <= _FEW_FEATURES):
        return products.up(y, kernel, kernel_first=True)
    return by_phases(y, kernel) if many else products.up(y, kernel, kernel_first=False)


def _to_kernel_cpu(x: jax.Array, y: jax.Array, how: Geometry) -> jax.Array:
    channels, features = x.shape[-1], y.shape[-1]
    height, width = how.outputs
    if _filtered(x.shape[0], channels, features, x.dtype, how, _FILTERED_ROWS // 2):
        if how.halves:
            return filtering.down_kernel(x, y)
        return filtering.to_kernel(x, y, how.pad[0])
    if _one_pixel(how):
        return products.of_one_pixel_kernel(x, y)
    if _few(features, how):
        return products.few_kernel(x, y, how.size, how.pad[0])
    if how.halves:
        whole = height * width <= _WHOLE_PIXELS or channels <= _FEW_CHANNELS
        return products.down_kernel(x, y, how.size, whole)
    return _by_images(x, y, how)


def _spread(y: jax.Array, kernel: jax.Array, how: Geometry) -> jax.Array:
    """Along the image, in general: y with gaps of the stride, by the kernel turned about."""
    before = how.size - 1 - how.pad[0]
    pads = [
        (before, side + how.size - 2 - (steps - 1) * how.stride - before)
        for side, steps in zip(how.sides, y.shape[1:3], strict=True)
    ]
    turned = kernel[::-1, ::-1].swapaxes(2, 3)
    return lax.conv_general_dilated(
        y, turned, (1, 1), pads, lhs_dilation=(how.stride,) * 2, dimension_numbers=_NHWC
    )


def _by_images(x: jax.Array, y: jax.Array, how: Geometry) -> jax.Array:
    """Along the kernel, in general: a convolution over the images in the place of channels, by y."""
    pads = [
        (how.pad[0], how.size + (steps - 1) * how.stride - side - how.pad[0])
        for side, steps in zip(x.shape[1:3], y.shape[1:3], strict=True)
    ]
    made = lax.conv_general_dilated(
        x.transpose(3, 1, 2, 0),
        y.transpose(1, 2, 0, 3),
        (1, 1),
        pads,
        rhs_dilation=(how.stride,) * 2,
        dimension_numbers=_NHWC,
    )
    return made.transpose(1, 2, 0, 3)


def by_phases(y: jax.Array, kernel: jax.Array) -> jax.Array:
    """The four phases of an image twice as large are 2x2 convolutions of y, computed as one."""
    n, h, w, c = y.shape
    features = kernel.shape[2]
    weights = _of_four(kernel)[::-1, ::-1].reshape(
        2, 2, 2, 2, features, c
    )  # [t, phase y, s, phase x, out, in]
    weights = weights.transpose(0, 2, 5, 1, 3, 4).reshape(2, 2, c, 4 * features)
    padded = jnp.pad(y, ((0, 0), (1, 1), (1, 1), (0, 0)))
    blocks = lax.conv_general_dilated(padded, weights, (1, 1), "VALID", dimension_numbers=_NHWC)
    blocks = blocks.reshape(n, h + 1, w + 1, 2, 2, features)
    return products.interleaved([[blocks[:, a : a + h, b : b + w, a, b] for b in (0, 1)] for a in (0, 1)])


def _of_four(kernel: jax.Array) -> jax.Array:
    """[3 or 4, same, I, O] -> [4, 4, I, O]: a missing fourth tap is zero."""
    missing = (0, 4 - len(kernel))
    return jnp.pad(kernel, (missing, missing, (0, 0), (0, 0)))


# ---------------------------------------------------------------- forms for a CUDA GPU
# cuDNN pads few channels to many. Blocks of 2x2 pixels have four times as many, and what halves an image is a
# 2x2 convolution of stride 1 over its blocks.
def _output_cuda(x: jax.Array, kernel: jax.Array, how: Geometry) -> jax.Array:
    _, _, channels, features = kernel.shape
    if _few(features, how):
        return products.to_few(x, kernel, how.pad[0])
    if _narrow(channels, how):
        return of_blocks(x, kernel)
    return _output_stock(x, kernel, _even_pads(how))


def _to_image_cuda(y: jax.Array, kernel: jax.Array, how: Geometry) -> jax.Array:
    _, _, channels, features = kernel.shape
    if _few(features, how):
        return products.from_few(y, kernel, how.sides, how.pad[0])
    if _narrow(channels, how):
        if channels > _FEW_FEATURES:
            return by_phases(y, kernel)
        # Behind the barrier, what makes y is not computed once more within the product.
        return products.up(lax.optimization_barrier(y), kernel, kernel_first=True)
    return _to_image_stock(y, kernel, _even_pads(how))


def _to_kernel_cuda(x: jax.Array, y: jax.Array, how: Geometry) -> jax.Array:
    if _few(y.shape[-1], how):
        return products.few_kernel(x, y, how.size, how.pad[0])
    if how.halves and x.shape[-1] < _NARROW:  # as many are enough here
        return of_blocks_kernel(x, y, how.size)
    return _to_kernel_stock(x, y, _even_pads(how))


def _narrow(channels: int, how: Geometry) -> bool:
    return how.halves and channels <= _NARROW


def _even_pads(how: Geometry) -> Geometry:
    """A 3x3 kernel that halves never reads a second border, but cuDNN takes equal ones without a copy."""
    return how._replace(pad=(1, 1)) if how.halves else how


def of_blocks(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """`down`, of stride 1 over blocks: x [N, 2H, 2W, I], kernel [3 or 4, same, I, O] -> [N, H, W, O]."""
    _, _, channels, features = kernel.shape
    kernel = _of_four(kernel).reshape(2, 2, 2, 2, channels, features).transpose(0, 2, 1, 3, 4, 5)
    kernel = kernel.reshape(2, 2, 4 * channels, features)
    return lax.conv_general_dilated(_blocks(x), kernel, (1, 1), "VALID", dimension_numbers=_NHWC)


def of_blocks_kernel(x: jax.Array, y: jax.Array, size: int) -> jax.Array:
    return _along_kernel(of_blocks, x, y, size)


def _blocks(x: jax.Array) -> jax.Array:
    """[N, 2H, 2W, C], padded by 1 -> [N, H + 1, W + 1, 4C]: of each 2x2 pixels one."""
    n, height, width, channels = x.shape
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    x = x.reshape(n, height // 2 + 1, 2, width // 2 + 1, 2, channels)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(n, height // 2 + 1, width // 2 + 1, 4 * channels)


# ---------------------------------------------------------------- the three, and their gradients
def _chosen(made: str, cpu: Callable, cuda: Callable) -> Callable:
    """By platform, when it is lowered; differentiable by the rules below.

    Under `jax.vmap`, as networks draw images that do not depend on each other, the images of all are one
    batch: the forms are chosen by what is really computed, and no further axis is dragged through them.
    """
    forms = {"cpu": cpu, "cuda": cuda, "default": STOCK[made]}

    # JAX knows what it has traced by the function's identity, and a step asks for the same one several times.
    @lru_cache(maxsize=1024)
    def of(how: Geometry) -> Callable:
        platforms = {platform: partial(form, how=how) for platform, form in forms.items()}
        plain = partial(lax.platform_dependent, **platforms)
        merged = custom_vmap(plain)

        @merged.def_vmap
        def _(size: int, mapped: list[bool], first: jax.Array, second: jax.Array) -> tuple[jax.Array, bool]:
            if mapped == [True, False] and made != "kernel":
                images = operation(first.reshape(-1, *first.shape[2:]), second, how)
                return images.reshape(size, -1, *images.shape[1:]), True
            return jax.vmap(plain, [0 if this else None for this in mapped])(first, second), True

        return merged

    @partial(jax.custom_vjp, nondiff_argnums=(2,))
    def operation(first: jax.Array, second: jax.Array, how: Geometry) -> jax.Array:
        return cast(jax.Array, of(how)(first, second))

    return operation


_output = _chosen("output", _output_cpu, _output_cuda)
_to_image = _chosen("image", _to_image_cpu, _to_image_cuda)
_to_kernel = _chosen("kernel", _to_kernel_cpu, _to_kernel_cuda)


def _rule(operation: Any, gradients: Callable) -> None:
    operation.defvjp(
        lambda first, second, how: (operation(first, second, how), (first, second)),
        lambda how, saved, g: gradients(*saved, g, how),
    )


_rule(_output, lambda x, kernel, y, how: (_to_image(y, kernel, how), _to_kernel(x, y, how)))
_rule(_to_image, lambda y, kernel, x, how: (_output(x, kernel, how), _to_kernel(x, y, how)))
_rule(_to_kernel, lambda x, y, kernel, how: (_to_image(y, kernel, how), _output(x, kernel, how)))


# ---------------------------------------------------------------- what layers call
def convolution(x: jax.Array, kernel: jax.Array, stride: int, pad: int) -> jax.Array:
    """x [N, H, W, I], padded by `pad` on each side, with a kernel [k, k, I, O]."""
    return _output(x, kernel, Geometry((x.shape[1], x.shape[2]), len(kernel), stride, (pad, pad)))


def down(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Convolution of stride 2: x [N, 2H, 2W, I], kernel [3 or 4, same, I, O] -> [N, H, W, O]."""
    return _output(x, kernel, halving(x.shape[1], x.shape[2], len(kernel)))


def up(y: jax.Array, kernel: jax.Array) -> jax.Array:
    """Transposed convolution of stride 2: y [N, H, W, O], kernel [3 or 4, same, I, O] -> [N, 2H, 2W, I].

    It is adjoint to `down`: <down(x, k), y> == <x, up(y, k)>.
    """
    return _to_image(y, kernel, halving(2 * y.shape[1], 2 * y.shape[2], len(kernel)))


def prepares(kernel: jax.Array, smaller: tuple[int, ...]) -> bool:
    """Whether `down` to images of N, H, W, and `up` from them, take less time on a CPU by a kernel that was
    filtered beforehand (filtering.prepared).
    """
    n, height, width = smaller
    how = halving(2 * height, 2 * width, len(kernel))
    return n * height * width <= _MOST_PREPARED and _filtered(
        n, kernel.shape[2], kernel.shape[3], kernel.dtype, how, _FEWEST_PREPARED
    )


def enlarging(kernel: jax.Array) -> jax.Array:
    """[3, 3, I, O] -> [4, 4, O, I], by which `up` [N, H, W, I] -> [N, 2H, 2W, O] is the convolution of stride
    1, padded by 1, of the image whose pixels were repeated twice along both axes.

    Taps that meet the same pixel are added. So there are 4 products where the enlarged image has 9, and it is
    never there.
    """
    for axis in (0, 1):
        first, middle, last = (lax.index_in_dim(kernel, tap, axis) for tap in range(3))
        kernel = jnp.concatenate([last, middle + last, first + middle, first], axis)
    return kernel.swapaxes(2, 3)


# ---------------------------------------------------------------- depthwise convolution
def _depthwise_stock(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=_NHWC, feature_group_count=x.shape[-1]
    )


def _shifted(x: jax.Array, size: int, low: int) -> list[jax.Array]:
    """For each tap of the kernel, row by row, the pixels that it is applied to; `low` rows of zeros above."""
    _, h, w, _ = x.shape
    margin = (low, size - 1 - low)
    x = jnp.pad(x, ((0, 0), margin, margin, (0, 0)))
    return [x[:, i : i + h, j : j + w] for i in range(size) for j in range(size)]


@jax.custom_vjp
def _depthwise_cpu(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """k*k shifted multiply-adds, which XLA fuses into one pass over the image."""
    size, _, _, features = kernel.shape
    x = jnp.repeat(x, features // x.shape[3], axis=3)
    views, taps = _shifted(x, size, (size - 1) // 2), kernel.reshape(size * size, features)
    return sum((view * tap for view, tap in zip(views, taps, strict=True)), jnp.zeros((), x.dtype))


def _depthwise_gradients(saved: tuple[jax.Array, jax.Array], g: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Autodiff would keep k*k shifted copies of the image for the kernel's gradient; this keeps the image.

    The barrier keeps XLA from sharing the shifts with the forward pass, which would bring the copies back.
    """
    x, kernel, g = lax.optimization_barrier((*saved, g))
    n, h, w, c = x.shape
    size, _, _, features = kernel.shape
    multiplier, low = features // c, (size - 1) // 2
    taps = kernel.reshape(size * size, features)[::-1]
    to_image = sum(
        (view * tap for view, tap in zip(_shifted(g, size, size - 1 - low), taps, strict=True)),
        jnp.zeros((), x.dtype),
    )
    to_image = to_image.reshape(n, h, w, c, multiplier).sum(-1)
    views = _shifted(jnp.repeat(x, multiplier, axis=3), size, low)
    to_kernel = jnp.stack([(view * g).sum((0, 1, 2)) for view in views])
    return to_image, to_kernel.reshape(kernel.shape)


_depthwise_cpu.defvjp(lambda x, kernel: (_depthwise_cpu(x, kernel), (x, kernel)), _depthwise_gradients)


def depthwise(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """One filter per output channel: x [N, H, W, C], kernel [k, k, 1, C * m] -> [N, H, W, C * m]."""
    return lax.platform_dependent(x, kernel, cpu=_depthwise_cpu, default=_depthwise_stock)
