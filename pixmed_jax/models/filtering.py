"""Convolutions of 4x4 taps by minimal filtering, 9 products in the place of 16 (Winograd 1980, "Arithmetic
Complexity of Computations"; for images Lavin and Gray 2016, Section 4: their F(m x m, r x r) with m = r = 2).
Forms for CPUs.

Two outputs of two taps, y0 = x0 k0 + x1 k1 and y1 = x1 k0 + x2 k1, are three products and sums of them:

    m0 = (x0 - x1) k0    m1 = x1 (k0 + k1)    m2 = (x2 - x1) k1        y0 = m0 + m1    y1 = m1 + m2

Four taps of stride 2 are two taps of the even pixels and two of the odd ones; four of stride 1 are two pairs
of taps, two pixels apart. Along both axes, for tiles of 2x2 outputs, that is a 3x3 grid of images, a grid of
kernels, and products of their matrices, in parts: the two parities of rows (those of columns lie beside the
channels), or the four pairs of taps. Gradients are the same products with the sums the other way round.

Layout NHWC, kernels [4, 4, I, O] (HWIO). Sums of two numbers before a product round once more: a few 1e-7 of
the largest output in float32, too much in bfloat16.
"""

from functools import reduce
from operator import add

import jax
import jax.numpy as jnp
from jax import lax

from pixmed_jax.models.products import interleaved, pixels

Grid = list[list[jax.Array]]  # what belongs to the product [i][j]


def _filtered_image(x: jax.Array) -> Grid:
    """[N, 2 A + 1, 2 B + 1, C] -> grid of [N, A, B, C]."""

    def along(x: jax.Array, axis: int) -> list[jax.Array]:
        end = x.shape[axis] - 2
        first, middle, last = (lax.slice_in_dim(x, start, start + end, 2, axis) for start in range(3))
        return [first - middle, middle, last - middle]

    return [along(row, 2) for row in along(x, 1)]


def _of_pairs(first: jax.Array, second: jax.Array) -> list[jax.Array]:
    """Two taps as the products have them; to two outputs it is what a gradient along them has."""
    return [first, first + second, second]


def _filtered_kernel(taps: jax.Array) -> Grid:
    """[2, 2, ..] -> grid of [..]."""
    return [_of_pairs(*row) for row in _of_pairs(*taps)]


def _spread_outputs(y: jax.Array) -> Grid:
    """[N, 2 A, 2 B, O] -> grid of [N, A, B, O]."""

    def along(y: jax.Array, axis: int) -> list[jax.Array]:
        return _of_pairs(*(lax.slice_in_dim(y, start, None, 2, axis) for start in (0, 1)))

    return [along(row, 2) for row in along(y, 1)]


def _summed(products: Grid) -> Grid:
    """A 3x3 grid -> 2x2: the outputs of a tile; the gradients of the taps."""
    rows = [[a + b for a, b in zip(*products[i : i + 2], strict=True)] for i in (0, 1)]
    return [[row[0] + row[1], row[1] + row[2]] for row in rows]


def _products(images: list[Grid], kernels: list[Grid]) -> jax.Array:
    """Images [N, A, B, K] by kernels [K, O], each part by its own, summed -> [N, 2 A, 2 B, O]."""

    def product(i: int, j: int) -> jax.Array:
        return reduce(add, (x[i][j] @ k[i][j] for x, k in zip(images, kernels, strict=True)))

    return interleaved(_summed([[product(i, j) for j in range(3)] for i in range(3)]))


def _kernel_gradients(image: Grid, outputs: Grid) -> Grid:
    """[N, A, B, K] and [N, A, B, O] -> 2x2 taps of [K, O]."""
    return _summed(
        [
            [pixels(x).T @ pixels(y) for x, y in zip(*rows, strict=True)]
            for rows in zip(image, outputs, strict=True)
        ]
    )


# ---------------------------------------------------------------- stride 2, padded by 1
def _parities(x: jax.Array) -> list[Grid]:
    """x [N, 2H, 2W, C] -> for even and odd rows, once padded, a grid of [N, H / 2, W / 2, 2C]."""
    n, height, width, c = x.shape
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    x = x.reshape(n, height // 2 + 1, 2, width // 2 + 1, 2 * c)
    return [_filtered_image(x[:, :, parity]) for parity in (0, 1)]


def _parity_kernels(kernel: jax.Array) -> list[Grid]:
    _, _, c, features = kernel.shape
    taps = kernel.reshape(2, 2, 2, 2 * c, features)
    return [_filtered_kernel(taps[:, parity]) for parity in (0, 1)]


def down(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """x [N, 2H, 2W, I], H and W even, -> [N, H, W, O]."""
    return _products(_parities(x), _parity_kernels(kernel))


def _moved(part: jax.Array, by: int, axis: int) -> jax.Array:
    """One step on or back; zero where nothing comes from."""
    ahead, behind = max(by, 0), max(-by, 0)
    part = lax.slice_in_dim(part, behind, part.shape[axis] - ahead, axis=axis)
    pads = [(0, 0)] * part.ndim
    pads[axis] = (ahead, behind)
    return jnp.pad(part, pads)


def _unfiltered(even: list[jax.Array], odd: list[jax.Array], axis: int) -> list[jax.Array]:
    """Pixels 4 t to 4 t + 3 along an axis, from three products for tile t and each parity."""
    return [
        odd[0] + _moved(odd[2], 1, axis),
        even[1] - even[0] - even[2],
        odd[1] - odd[0] - odd[2],
        even[2] + _moved(even[0], -1, axis),
    ]


def up(y: jax.Array, kernel: jax.Array) -> jax.Array:
    """The gradient of <down(x, kernel), y> along x: y [N, H, W, O], H and W even, -> [N, 2H, 2W, I]."""
    n, height, width, _ = y.shape
    c, three = kernel.shape[2], range(3)
    spread = _spread_outputs(y)

    def products(kernels: Grid) -> list[Grid]:
        shape = (n, height // 2, width // 2, 2, c)
        made = [[(spread[i][j] @ kernels[i][j].T).reshape(shape) for j in three] for i in three]
        return [[[part[..., parity, :] for part in row] for row in made] for parity in (0, 1)]

    return _of_tiles([products(kernels) for kernels in _parity_kernels(kernel)])


def _of_tiles(products: list[list[Grid]]) -> jax.Array:
    """Products by parity of rows, by parity of columns, in a grid, of [N, A, B, C] -> [N, 4 A, 4 B, C]."""
    three = range(3)

    def rows(columns: int, j: int) -> list[jax.Array]:
        """The tile's rows, of products j and the columns of a parity."""
        even, odd = ([products[parity][columns][i][j] for i in three] for parity in (0, 1))
        return _unfiltered(even, odd, 1)

    evens, odds = ([rows(columns, j) for j in three] for columns in (0, 1))
    return interleaved(
        [_unfiltered([evens[j][row] for j in three], [odds[j][row] for j in three], 2) for row in range(4)]
    )


def down_kernel(x: jax.Array, y: jax.Array) -> jax.Array:
    """The gradient of <down(x, kernel), y> along the kernel."""
    outputs = _spread_outputs(y)
    taps = [_kernel_gradients(image, outputs) for image in _parities(x)]
    made = jnp.stack([jnp.stack([jnp.stack(parity[s]) for parity in taps]) for s in (0, 1)])
    return made.reshape(4, 4, x.shape[-1], y.shape[-1])


# ---------------------------------------------------------------- stride 2, by a kernel filtered beforehand
# One image has few pixels for a large kernel, whose filtering would take longer than what it saves. Here it
# is done once for all images that come one at a time. The kernel is the left factor, since it is read faster
# so, and the nine products are one of a batch.
def prepared(kernel: jax.Array, direction: str) -> jax.Array:
    """[4, 4, I, O] -> [9, O, 4I] for "down", [9, 4I, O] for "up": 2.25 times the kernel's size."""
    even, odd = _parity_kernels(kernel)
    parts = [jnp.concatenate([even[i][j], odd[i][j]]) for i in range(3) for j in range(3)]
    return jnp.stack([part.T for part in parts] if direction == "down" else parts)


def _nine(prepared: jax.Array, images: list[jax.Array], shape: tuple[int, ...]) -> jax.Array:
    """[9, M, K] by nine of [N, A, B, K] -> [3, 3, .., N, A, B, C], where `shape`, (.., C), is that of M."""
    made = jnp.einsum("gmk,grk->gmr", prepared, jnp.stack([pixels(image) for image in images]))
    return jnp.moveaxis(made.reshape(3, 3, *shape, *images[0].shape[:-1]), 1 + len(shape), -1)


def down_prepared(x: jax.Array, prepared: jax.Array) -> jax.Array:
    """`down` by what `prepared` made of the kernel."""
    even, odd = _parities(x)
    images = [jnp.concatenate([even[i][j], odd[i][j]], axis=-1) for i in range(3) for j in range(3)]
    made = _nine(prepared, images, prepared.shape[1:2])
    return interleaved(_summed([[made[i, j] for j in range(3)] for i in range(3)]))


def up_prepared(y: jax.Array, prepared: jax.Array) -> jax.Array:
    """`up` by what `prepared` made of the kernel."""
    spread = _spread_outputs(y)
    made = _nine(prepared, [part for row in spread for part in row], (2, 2, prepared.shape[1] // 4))
    parities, three = (0, 1), range(3)
    return _of_tiles(
        [
            [[[made[i, j, row, column] for j in three] for i in three] for column in parities]
            for row in parities
        ]
    )


# ---------------------------------------------------------------- stride 1
_PAIRS = [(u, v) for u in (0, 1) for v in (0, 1)]  # of rows and of columns


def _neighbours(x: jax.Array, outputs: tuple[int, int], pad: int) -> list[Grid]:
    """For each pair of taps a grid of [N, A, B, C], where 2 A and 2 B are the outputs, or one more."""
    a, b = ((side + 1) // 2 for side in outputs)
    pads = [(pad, 2 * half + 3 - side - pad) for half, side in zip((a, b), x.shape[1:3], strict=True)]
    grid = _filtered_image(jnp.pad(x, ((0, 0), *pads, (0, 0))))
    return [[[part[:, u : u + a, v : v + b] for part in row] for row in grid] for u, v in _PAIRS]


def _pair_kernels(kernel: jax.Array) -> list[Grid]:
    taps = kernel.reshape(2, 2, 2, 2, *kernel.shape[2:])
    return [_filtered_kernel(taps[u, :, v]) for u, v in _PAIRS]


def _applied(x: jax.Array, kernels: list[Grid], pad: int) -> jax.Array:
    height, width = (side + 2 * pad - 3 for side in x.shape[1:3])
    return _products(_neighbours(x, (height, width), pad), kernels)[:, :height, :width]


def convolution(x: jax.Array, kernel: jax.Array, pad: int) -> jax.Array:
    """x [N, H, W, I], padded on each side, -> [N, H + 2 pad - 3, W + 2 pad - 3, O]."""
    return _applied(x, _pair_kernels(kernel), pad)


def to_image(y: jax.Array, kernel: jax.Array, pad: int) -> jax.Array:
    """The gradient of <convolution(x, kernel, pad), y> along x: by the kernel turned about."""
    turned = [[[part.T for part in row[::-1]] for row in grid[::-1]] for grid in _pair_kernels(kernel)[::-1]]
    return _applied(y, turned, 3 - pad)


def to_kernel(x: jax.Array, y: jax.Array, pad: int) -> jax.Array:
    """The gradient of <convolution(x, kernel, pad), y> along the kernel."""
    _, height, width, features = y.shape
    outputs = _spread_outputs(jnp.pad(y, ((0, 0), (0, height % 2), (0, width % 2), (0, 0))))
    taps = [_kernel_gradients(image, outputs) for image in _neighbours(x, (height, width), pad)]
    made = jnp.stack([jnp.stack([jnp.stack(row) for row in grid]) for grid in taps])  # [u v, t, s, I, O]
    made = made.reshape(2, 2, 2, 2, *made.shape[3:]).swapaxes(1, 2)  # [u, t, v, s, I, O]
    return made.reshape(4, 4, x.shape[-1], features)
