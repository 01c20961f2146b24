"""Convolutions as matrix products, and sums of what comes of them: forms for CPUs, some for GPUs as well.

Layout NHWC, kernels HWIO. A product of all pixels takes one of three orders: patches of the image by the
kernel (im2col); pixels by the kernel as it lies in memory, whose stamps are added where they overlap; or the
kernel by pixels, for few pixels or few features, where that order is the faster one.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp


def pixels(x: jax.Array) -> jax.Array:
    """[..., C] -> [all others, C]."""
    return x.reshape(-1, x.shape[-1])


# ---------------------------------------------------------------- 2H x 2W to H x W and back, padded by 1
def _patches(x: jax.Array, size: int) -> list[jax.Array]:
    """What the kernel's taps are applied to, of x [N, 2H, 2W, C], row by row of the kernel: for the first two
    taps [N, H, W, 2C], since two columns lie beside each other in memory, then for those that are left.
    """
    n, height, width, c = x.shape
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))).reshape(n, height + 2, width // 2 + 1, 2 * c)
    rows = [x[:, i : i + height : 2] for i in range(size)]
    return [part for row in rows for part in (row[:, :, :-1], row[:, :, 1:, : (size - 2) * c])]


def down(x: jax.Array, kernel: jax.Array) -> jax.Array:
    n, height, width, _ = x.shape
    columns = pixels(jnp.concatenate(_patches(x, kernel.shape[0]), axis=-1))
    return (columns @ pixels(kernel)).reshape(n, height // 2, width // 2, -1)


def up(y: jax.Array, kernel: jax.Array, kernel_first: bool) -> jax.Array:
    """Output rows 2m take kernel taps (1, 3) of input rows (m, m - 1), rows 2m + 1 taps (2, 0) of (m, m + 1).

    The kernel is read as it lies in memory, since rearranging it would take longer than to multiply by it.
    """
    n, h, w, _ = y.shape
    size, features = kernel.shape[0], kernel.shape[2]
    if kernel_first:
        planes = (pixels(kernel) @ pixels(y).T).reshape(size, size, features, n, h, w)
        planes = jnp.pad(planes, ((0, 0),) * 4 + ((1, 1), (1, 1)))

        def stamped(p: int, q: int, i: int, j: int) -> jax.Array:
            return jnp.moveaxis(planes[p, q, ..., i : i + h, j : j + w], 0, -1)
    else:
        stamps = (pixels(y) @ pixels(kernel).T).reshape(n, h, w, size, size, features)
        stamps = jnp.pad(stamps, ((0, 0), (1, 1), (1, 1)) + ((0, 0),) * 3)

        def stamped(p: int, q: int, i: int, j: int) -> jax.Array:
            return stamps[:, i : i + h, j : j + w, p, q]

    taps = [
        [(tap, shift) for tap, shift in pair if tap < size] for pair in (((1, 1), (3, 0)), ((2, 1), (0, 2)))
    ]

    def phase(a: int, b: int) -> jax.Array:
        return sum((stamped(p, q, i, j) for p, i in taps[a] for q, j in taps[b]), jnp.zeros((), y.dtype))

    return interleaved([[phase(a, b) for b in (0, 1)] for a in (0, 1)])


def interleaved(phases: Sequence[Sequence[jax.Array]]) -> jax.Array:
    """k x k of [N, H, W, C] -> [N, k H, k W, C]: [a][b] is of rows a, a + k .. and columns b, b + k .."""
    n, h, w, features = phases[0][0].shape
    rows = [jnp.stack(row, axis=3) for row in phases]  # each [n, h, w, k, features]
    return jnp.stack(rows, axis=2).reshape(n, len(phases) * h, len(phases) * w, features)


def down_kernel(x: jax.Array, y: jax.Array, size: int, whole: bool) -> jax.Array:
    """The gradient of <down(x, kernel), y> along the kernel: one product, or one for each pair of taps."""
    patches = _patches(x, size)
    if whole:
        patches = [jnp.concatenate(patches, axis=-1)]
    parts = [pixels(patch).T @ pixels(y) for patch in patches]
    return jnp.concatenate(parts).reshape(size, size, x.shape[-1], y.shape[-1])


# ---------------------------------------------------------------- few features, stride 1
def _taps(kernel: jax.Array) -> jax.Array:
    """[k * k * O, I]."""
    return pixels(kernel.swapaxes(2, 3))


def to_few(x: jax.Array, kernel: jax.Array, pad: int) -> jax.Array:
    """One product gives what each tap makes of each pixel; these images are then added, shifted."""
    n, h, w, _ = x.shape
    size, features = kernel.shape[0], kernel.shape[3]
    made = jnp.matmul(_taps(kernel), pixels(x).T, preferred_element_type=jnp.float32)
    made = jnp.pad(made.reshape(size, size, features, n, h, w), ((0, 0),) * 4 + ((pad, pad),) * 2)
    height, width = (side + 2 * pad - size + 1 for side in (h, w))
    parts = (made[i, j, ..., i : i + height, j : j + width] for i in range(size) for j in range(size))
    return jnp.moveaxis(sum(parts, jnp.zeros(())), 0, -1).astype(x.dtype)


def _shifted(y: jax.Array, sides: tuple[int, int], size: int, pad: int) -> jax.Array:
    """[k * k * O, N * H * W]: for each tap, what of y each pixel of the image has a part in."""
    h, w = sides
    y = jnp.moveaxis(y, -1, 0)
    y = jnp.pad(y, ((0, 0), (0, 0), *((size - 1 - pad,) * 2,) * 2))
    shifts = range(size - 1, -1, -1)
    shifted = jnp.stack([y[..., i : i + h, j : j + w] for i in shifts for j in shifts])
    return shifted.reshape(size * size * y.shape[0], -1)


def from_few(y: jax.Array, kernel: jax.Array, sides: tuple[int, int], pad: int) -> jax.Array:
    """The gradient of <to_few(x, kernel), y> along x."""
    shifted = _shifted(y, sides, kernel.shape[0], pad)
    return (shifted.T @ _taps(kernel)).reshape(y.shape[0], *sides, kernel.shape[2])


def few_kernel(x: jax.Array, y: jax.Array, size: int, pad: int) -> jax.Array:
    """The gradient of <to_few(x, kernel), y> along the kernel."""
    shifted = _shifted(y, (x.shape[1], x.shape[2]), size, pad)
    return (shifted @ pixels(x)).reshape(size, size, y.shape[-1], x.shape[-1]).swapaxes(2, 3)


# ---------------------------------------------------------------- one pixel
def of_one_pixel(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return x @ kernel[0, 0]


def of_one_pixel_kernel(x: jax.Array, y: jax.Array) -> jax.Array:
    return (pixels(x).T @ pixels(y))[None, None]
