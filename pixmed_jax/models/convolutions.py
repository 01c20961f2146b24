"""Convolutions as operations on arrays, each in the form that is fast where it is compiled for.

Layout NHWC; kernels HWIO, in the dtype of what they are applied to. XLA's stock lowerings of the strided and
transposed convolution's gradients and of the depthwise convolution are slow on CPUs (BUILD_NOTES.md has the
timings), so each has a second form there, chosen when the computation is lowered; the results agree to
rounding.

`down` and `up` are adjoint to each other: <down(x, k), y> == <x, up(y, k)>, hence each is the other's
gradient with respect to its input, and both kernels' gradients are one function.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

_NHWC = ("NHWC", "HWIO", "NHWC")

# Where the forms for CPUs change places (BUILD_NOTES.md has the table); pixels of the smaller image.
_MATRIX_PIXELS = 1024  # up to here one matrix product beats XLA's convolution; one that halves does so ...
_SMALL_PIXELS, _LARGE_KERNEL = 64, 2**20  # ... up to here, or by kernels of more numbers than that
_FEW_ROWS = 64  # up to here, images together, a product reads its kernel faster as its left factor
_WHOLE_PIXELS = 256  # up to here a kernel's gradient is one product, above it one for each tap ...
_FEW_CHANNELS = 8  # ... unless the input has so few channels that each would be a sliver
_FEW_FEATURES = 4  # up to here a convolution of stride 1, or an enlarging one, is one product, then sums


def _pixels(x: jax.Array) -> jax.Array:
    """[..., C] -> [all others, C]."""
    return x.reshape(-1, x.shape[-1])


# ---------------------------------------------------------------- strided and transposed convolution
def _down_stock(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """The 2H x 2W -> H x W convolution itself: stride 2, padding 1 as far as the kernel needs it."""
    size = kernel.shape[0]
    pad = (1, size - 3)  # 4x4 pads (1, 1); 3x3 on an even image needs (1, 0)
    return lax.conv_general_dilated(x, kernel, (2, 2), (pad, pad), dimension_numbers=_NHWC)


def _patches(x: jax.Array, size: int) -> list[jax.Array]:
    """The [N, H, W, C] pixels of x [N, 2H, 2W, C] that each tap of the kernel is applied to, row by row."""
    _, height, width, _ = x.shape
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    return [x[:, i : i + height : 2, j : j + width : 2] for i in range(size) for j in range(size)]


def _down_cpu(x: jax.Array, kernel: jax.Array) -> jax.Array:
    n, height, width, _ = x.shape
    most = _MATRIX_PIXELS if kernel.size > _LARGE_KERNEL else _SMALL_PIXELS
    if height * width > 4 * most:
        return _down_stock(x, kernel)
    columns = _pixels(jnp.concatenate(_patches(x, kernel.shape[0]), axis=-1))
    return (columns @ _pixels(kernel)).reshape(n, height // 2, width // 2, -1)


def _up_stock(x: jax.Array, kernel: jax.Array) -> jax.Array:
    n, h, w, _ = x.shape
    like = jax.ShapeDtypeStruct((n, 2 * h, 2 * w, kernel.shape[2]), x.dtype)
    (y,) = jax.linear_transpose(lambda image: _down_stock(image, kernel), like)(x)
    return y


def _up_cpu(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Output rows 2m take kernel taps (1, 3) of input rows (m, m - 1), rows 2m + 1 taps (2, 0) of (m, m + 1).

    Up to 32x32 that is one matrix product, whose stamps of 4x4 pixels are then added where they overlap; the
    kernel is read as it lies in memory, since rearranging it would take longer than to multiply by it. Above,
    the four phases of the output are four 2x2 convolutions of the input, computed as one. Few pixels, or few
    features of many, are a product too, with the kernel on its left and the pixels along the rows of stamps.
    """
    n, h, w, c = x.shape
    size, features = kernel.shape[0], kernel.shape[2]
    many = h * w > _MATRIX_PIXELS
    few = isinstance(n, int) and n * h * w <= _FEW_ROWS  # the batch of an exported network is a symbol
    if few or (many and features <= _FEW_FEATURES):
        planes = (_pixels(kernel) @ _pixels(x).T).reshape(size, size, features, n, h, w)
        planes = jnp.pad(planes, ((0, 0),) * 4 + ((1, 1), (1, 1)))

        def stamped(p: int, q: int, i: int, j: int) -> jax.Array:
            return jnp.moveaxis(planes[p, q, ..., i : i + h, j : j + w], 0, -1)
    elif not many:
        stamps = (_pixels(x) @ _pixels(kernel).T).reshape(n, h, w, size, size, features)
        stamps = jnp.pad(stamps, ((0, 0), (1, 1), (1, 1)) + ((0, 0),) * 3)

        def stamped(p: int, q: int, i: int, j: int) -> jax.Array:
            return stamps[:, i : i + h, j : j + w, p, q]
    else:
        if size == 3:  # the missing fourth tap is zero
            kernel = jnp.pad(kernel, ((0, 1), (0, 1), (0, 0), (0, 0)))
        weights = kernel[::-1, ::-1].reshape(2, 2, 2, 2, features, c)  # [t, phase y, s, phase x, out, in]
        weights = weights.transpose(0, 2, 5, 1, 3, 4).reshape(2, 2, c, 4 * features)
        padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        blocks = lax.conv_general_dilated(padded, weights, (1, 1), "VALID", dimension_numbers=_NHWC)
        blocks = blocks.reshape(n, h + 1, w + 1, 2, 2, features)
        return _interleaved([[blocks[:, a : a + h, b : b + w, a, b] for b in (0, 1)] for a in (0, 1)])

    taps = [
        [(tap, shift) for tap, shift in pair if tap < size] for pair in (((1, 1), (3, 0)), ((2, 1), (0, 2)))
    ]

    def phase(a: int, b: int) -> jax.Array:
        return sum((stamped(p, q, i, j) for p, i in taps[a] for q, j in taps[b]), jnp.zeros((), x.dtype))

    return _interleaved([[phase(a, b) for b in (0, 1)] for a in (0, 1)])


def _interleaved(phases: list[list[jax.Array]]) -> jax.Array:
    """[N, H, W, C] each -> [N, 2H, 2W, C]: phase [a][b] is of rows a, a + 2 .. and columns b, b + 2 .."""
    n, h, w, features = phases[0][0].shape
    rows = [jnp.stack(pair, axis=3) for pair in phases]  # each [n, h, w, 2, features]
    return jnp.stack(rows, axis=2).reshape(n, 2 * h, 2 * w, features)


def _kernel_gradient_stock(x: jax.Array, y: jax.Array, size: int) -> jax.Array:
    like = jax.ShapeDtypeStruct((size, size, x.shape[-1], y.shape[-1]), x.dtype)
    (gradient,) = jax.linear_transpose(lambda kernel: _down_stock(x, kernel), like)(y)
    return gradient


def _kernel_gradient_cpu(x: jax.Array, y: jax.Array, size: int) -> jax.Array:
    _, h, w, features = y.shape
    patches, y = _patches(x, size), _pixels(y)
    if h * w <= _WHOLE_PIXELS or x.shape[-1] <= _FEW_CHANNELS:
        patches = [jnp.concatenate(patches, axis=-1)]
    parts = [_pixels(patch).T @ y for patch in patches]
    return jnp.stack(parts).reshape(size, size, x.shape[-1], features)


def _kernel_gradient(x: jax.Array, kernel: jax.Array, y: jax.Array) -> jax.Array:
    """Gradient of <down(x, kernel), y> with respect to the kernel."""
    size = kernel.shape[0]
    return lax.platform_dependent(
        x,
        y,
        cpu=partial(_kernel_gradient_cpu, size=size),
        default=partial(_kernel_gradient_stock, size=size),
    )


@jax.custom_vjp
def down(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Convolution of stride 2: x [N, 2H, 2W, I], kernel [3 or 4, same, I, O] -> [N, H, W, O]."""
    return lax.platform_dependent(x, kernel, cpu=_down_cpu, default=_down_stock)


@jax.custom_vjp
def up(y: jax.Array, kernel: jax.Array) -> jax.Array:
    """Transposed convolution of stride 2: y [N, H, W, O], kernel [3 or 4, same, I, O] -> [N, 2H, 2W, I]."""
    return lax.platform_dependent(y, kernel, cpu=_up_cpu, default=_up_stock)


def _forward(operation: Callable) -> Callable:
    return lambda x, kernel: (operation(x, kernel), (x, kernel))


down.defvjp(
    _forward(down),
    lambda saved, g: (up(g, saved[1]), _kernel_gradient(saved[0], saved[1], g)),
)
up.defvjp(
    _forward(up),
    lambda saved, g: (down(g, saved[1]), _kernel_gradient(g, saved[1], saved[0])),
)


def enlarged(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Convolution of stride 1, padded by 1, of an image whose pixels were repeated twice along both axes:
    x [N, H, W, I], kernel [3, 3, I, O] -> [N, 2H, 2W, O].

    Taps that meet the same pixel are added first. So it is a transposed convolution, of 4 products where the
    enlarged image has 9, and the enlarged image is never there.
    """
    for axis in (0, 1):
        first, middle, last = (lax.index_in_dim(kernel, tap, axis) for tap in range(3))
        kernel = jnp.concatenate([last, middle + last, first + middle, first], axis)
    return up(x, kernel.swapaxes(2, 3))


# ---------------------------------------------------------------- convolution
def _convolution_stock(x: jax.Array, kernel: jax.Array, stride: int, pad: int) -> jax.Array:
    return lax.conv_general_dilated(x, kernel, (stride,) * 2, ((pad, pad),) * 2, dimension_numbers=_NHWC)


# On a CPU the gradients of <convolution(x, kernel), y> are written out, each with the others as its own: in a
# branch or a loop (`lax.cond`, `lax.scan`) XLA has fast convolutions for NHWC and HWIO alone, and naive ones,
# 50 to 100 times slower, for the orders of dimensions that autodiff asks for.
@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _convolution_cpu(x: jax.Array, kernel: jax.Array, stride: int, pad: int) -> jax.Array:
    """The gradient along y: the convolution itself."""
    return _convolution_stock(x, kernel, stride, pad)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _to_image_cpu(
    y: jax.Array, kernel: jax.Array, shape: tuple[int, int], stride: int, pad: int
) -> jax.Array:
    """The gradient along x, whose height and width are `shape`: y spread by the stride, the kernel turned."""
    before = len(kernel) - 1 - pad
    pads = [
        (before, side + len(kernel) - 2 - (steps - 1) * stride - before)
        for side, steps in zip(shape, y.shape[1:3], strict=True)
    ]
    turned = kernel[::-1, ::-1].swapaxes(2, 3)
    return lax.conv_general_dilated(
        y, turned, (1, 1), pads, lhs_dilation=(stride,) * 2, dimension_numbers=_NHWC
    )


@partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _to_kernel_cpu(x: jax.Array, y: jax.Array, size: int, stride: int, pad: int) -> jax.Array:
    """The gradient along a kernel of `size`: a convolution over the images in the place of channels, by y."""
    pads = [
        (pad, size + (steps - 1) * stride - side - pad)
        for side, steps in zip(x.shape[1:3], y.shape[1:3], strict=True)
    ]
    made = lax.conv_general_dilated(
        x.transpose(3, 1, 2, 0),
        y.transpose(1, 2, 0, 3),
        (1, 1),
        pads,
        rhs_dilation=(stride,) * 2,
        dimension_numbers=_NHWC,
    )
    return made.transpose(1, 2, 0, 3)


_convolution_cpu.defvjp(
    lambda x, kernel, *how: (_convolution_cpu(x, kernel, *how), (x, kernel)),
    lambda stride, pad, saved, g: (
        _to_image_cpu(g, saved[1], saved[0].shape[1:3], stride, pad),
        _to_kernel_cpu(saved[0], g, len(saved[1]), stride, pad),
    ),
)
_to_image_cpu.defvjp(
    lambda y, kernel, *how: (_to_image_cpu(y, kernel, *how), (y, kernel)),
    lambda _, stride, pad, saved, g: (
        _convolution_cpu(g, saved[1], stride, pad),
        _to_kernel_cpu(g, saved[0], len(saved[1]), stride, pad),
    ),
)
_to_kernel_cpu.defvjp(
    lambda x, y, *how: (_to_kernel_cpu(x, y, *how), (x, y)),
    lambda _, stride, pad, saved, g: (
        _to_image_cpu(saved[1], g, saved[0].shape[1:3], stride, pad),
        _convolution_cpu(saved[0], g, stride, pad),
    ),
)


def _taps(kernel: jax.Array) -> jax.Array:
    """[k * k * O, I]."""
    return _pixels(kernel.swapaxes(2, 3))


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _to_few_cpu(x: jax.Array, kernel: jax.Array, pad: int) -> jax.Array:
    """One matrix product gives what each tap makes of each pixel; these images are then added, shifted."""
    n, h, w, _ = x.shape
    size, features = kernel.shape[0], kernel.shape[3]
    made = jnp.matmul(_taps(kernel), _pixels(x).T, preferred_element_type=jnp.float32)
    made = jnp.pad(made.reshape(size, size, features, n, h, w), ((0, 0),) * 4 + ((pad, pad),) * 2)
    height, width = (side + 2 * pad - size + 1 for side in (h, w))
    parts = (made[i, j, ..., i : i + height, j : j + width] for i in range(size) for j in range(size))
    return jnp.moveaxis(sum(parts, jnp.zeros(())), 0, -1).astype(x.dtype)


def _to_few_gradients(
    pad: int, saved: tuple[jax.Array, jax.Array], g: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Two products with the shifted g; autodiff would add an image of zeros for each pair of taps."""
    x, kernel = saved
    _, h, w, channels = x.shape
    size, features = kernel.shape[0], kernel.shape[3]
    g = jnp.moveaxis(g, -1, 0)
    g = jnp.pad(g, ((0, 0), (0, 0), *((size - 1 - pad,) * 2,) * 2))
    shifts = range(size - 1, -1, -1)
    shifted = jnp.stack([g[..., i : i + h, j : j + w] for i in shifts for j in shifts])
    shifted = shifted.reshape(size * size * features, -1)
    to_image = (shifted.T @ _taps(kernel)).reshape(x.shape)
    to_kernel = (shifted @ _pixels(x)).reshape(size, size, features, channels)
    return to_image, to_kernel.swapaxes(2, 3)


_to_few_cpu.defvjp(lambda x, kernel, pad: (_to_few_cpu(x, kernel, pad), (x, kernel)), _to_few_gradients)


def convolution(x: jax.Array, kernel: jax.Array, stride: int, pad: int) -> jax.Array:
    """x [N, H, W, I], padded by `pad` on each side, with a kernel [k, k, I, O].

    On a CPU a kernel of one pixel is a matrix product, gradients included, and so, in effect, is one of few
    features.
    """
    cpu: Callable = partial(_convolution_cpu, stride=stride, pad=pad)
    if (kernel.shape[0], stride, pad) == (1, 1, 0):
        cpu = _pointwise_cpu
    elif kernel.shape[0] > 1 and stride == 1 and kernel.shape[3] <= _FEW_FEATURES:
        cpu = partial(_to_few_cpu, pad=pad)
    default = partial(_convolution_stock, stride=stride, pad=pad)
    return lax.platform_dependent(x, kernel, cpu=cpu, default=default)


def _pointwise_cpu(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return x @ kernel[0, 0]


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
