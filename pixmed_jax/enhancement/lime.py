"""LIME: low-light enhancement by illumination map estimation (Guo, Li & Ling, IEEE TIP 26(2), 2017).

A picture is L = R o T (Equation 1): what was there, R, times the light that fell on it, T. The map is first
guessed as the largest channel of each pixel, T^ (Equation 3), and then refined so that it keeps the scene's
structure and loses its texture:

    min_T  |T - T^|^2 + alpha |W o grad T|_1                                             (Equation 8)

`exact` solves that by alternating directions (Algorithm 1), `fast` solves what the paper approximates it by,
one sparse linear system (Equations 17 to 19). The enhanced picture is L / T^gamma.

What is not in the paper: light that is weak against the noise is not divided out. With the gain
g = T^-gamma, the picture is L (1 + strength w (g - 1)), w = T^2 / (T^2 + floor^2); `floor` 0 is the paper.
Slices are black around the head, and there the plain quotient shows nothing but noise.

Layout: pictures [H, W, C], maps [H, W], float32 in [0, 1]; grey is C = 1. Everything can be jitted, batched
with vmap, and differentiated in the picture and in all numbers.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from pixmed_jax.errors import PixmedError

SOLVERS, STRATEGIES = ("fast", "exact"), (1, 2, 3)
# 0.15 is of the authors' demonstration (fast, strategy 3), which says that the exact solver's is smaller, and
# smaller from strategy to strategy. The exact ones were set on darkened pictures (BUILD_NOTES.md).
ALPHA = {
    "fast": {1: 0.15, 2: 0.15, 3: 0.15},
    "exact": {1: 1.5, 2: 0.03, 3: 0.015},
}
EPSILON = 1e-3  # "a very small constant": a quarter of a grey value of 8 bits
_ITERATIONS = {"fast": 30, "exact": 50}  # of conjugate gradients on each grid, twice; the paper's own limit
_COLOUR_GAMMA, _GREY_GAMMA, _FLOOR = 0.6, 0.45, 4.0  # what `chosen` chooses
_MU, _RHO = 1.0, 1.2  # penalty of the first iteration, and its growth (rho > 1)
_COARSEST = 8  # pixels of the coarsest grid's shorter side, at least
_DARK = 1e-3  # light below it counts as that much: the paper's epsilon under the quotient
_SAMPLED = 2**13
_OUTSIDE = 1e-6  # weight of what pads a picture to whole coarse pixels: next to nothing


class Chosen(NamedTuple):
    """Settings that follow from the picture where nobody gives them."""

    gamma: jax.Array
    floor: jax.Array


def initial_map(image: jax.Array) -> jax.Array:
    """Equation 3: the largest channel; of a grey picture the picture itself."""
    return image.max(-1)


def noise_level(light: jax.Array) -> jax.Array:
    """Standard deviation of the noise of [H, W], from what second differences both ways leave of it.

    Immerkaer's mask (1996), by the median instead of the mean, since edges pass the mask too. Of some ten
    thousand pixels, evenly spaced: sorting all of a picture takes longer than the solver. What is black with
    all its neighbours, as around a skull-stripped brain, was masked and holds no noise.
    """
    if min(light.shape) < 3:
        return jnp.zeros(())
    rows = light[:-2] - 2 * light[1:-1] + light[2:]
    both = rows[:, :-2] - 2 * rows[:, 1:-1] + rows[:, 2:]
    around = light[:-2] + light[1:-1] + light[2:]
    around = around[:, :-2] + around[:, 1:-1] + around[:, 2:]
    stride = max(1, math.isqrt(both.size // _SAMPLED))
    kept = jnp.where(around > 0, jnp.abs(both), jnp.nan)[::stride, ::stride]
    return jnp.nan_to_num(jnp.nanmedian(kept)) / (0.6745 * 6)  # root of the mask's sum of squares


def chosen(image: jax.Array, gamma: float | jax.Array, floor: float | jax.Array) -> Chosen:
    """`gamma` and `floor` where they are given (gamma > 0, floor >= 0), or what suits the picture.

    gamma 0.6 of colours and 0.45 of grey: the largest of three channels is nearer to the light than a single
    one, of which more is the scene's. The floor is 4 times the noise of the map. Both were set on darkened
    photographs and slices (BUILD_NOTES.md).
    """
    gamma, floor = jnp.asarray(gamma, jnp.float32), jnp.asarray(floor, jnp.float32)
    own = _COLOUR_GAMMA if image.shape[-1] == 3 else _GREY_GAMMA
    noise = jax.lax.stop_gradient(noise_level(initial_map(image)))
    return Chosen(jnp.where(gamma > 0, gamma, own), jnp.where(floor >= 0, floor, _FLOOR * noise))


@functools.partial(jax.jit, static_argnames=("solver", "strategy", "iterations", "sigma"))
def enhance(
    image: jax.Array,
    *,
    gamma: float | jax.Array = 0.0,
    strength: float | jax.Array = 1.0,
    floor: float | jax.Array = -1.0,
    alpha: float | jax.Array | None = None,
    solver: str = "fast",
    strategy: int = 2,
    sigma: float = 2.0,
    iterations: int = 0,
) -> tuple[jax.Array, jax.Array, Chosen]:
    """(the enhanced picture, not clipped; its illumination map; what was chosen).

    gamma: how much of the light is divided out: 0 chooses, 1 all of it.
    strength: 0 is the picture as it was, 1 the enhanced one.
    floor: light that counts as weak; below 0 chooses, 0 is the paper.
    alpha: how smooth the map is; None is that of `ALPHA`.
    strategy, sigma, iterations: see `weights` and the solvers; 0 iterations are the solver's own. The
        authors' demonstration takes strategy 3; on darkened pictures 2 was better (BUILD_NOTES.md).
    """
    light = illumination(
        image, alpha=alpha, solver=solver, strategy=strategy, sigma=sigma, iterations=iterations
    )
    settings = chosen(image, gamma, floor)
    gain = jnp.maximum(light, _DARK) ** -settings.gamma
    seen = jnp.square(light) / (jnp.square(light) + jnp.square(settings.floor) + 1e-12)
    factor = 1 + strength * seen * (gain - 1)
    return image * factor[..., None], light, settings


@functools.partial(jax.jit, static_argnames=("solver", "strategy", "iterations", "sigma"))
def illumination(
    image: jax.Array,
    *,
    alpha: float | jax.Array | None = None,
    solver: str = "fast",
    strategy: int = 2,
    sigma: float = 2.0,
    iterations: int = 0,
) -> jax.Array:
    """The refined map T of a picture, [H, W] in [0, 1]."""
    if solver not in SOLVERS or strategy not in STRATEGIES:
        raise PixmedError(
            f"solver={solver!r}, strategy={strategy}: give one of {', '.join(SOLVERS)} and of "
            f"{', '.join(map(str, STRATEGIES))}"
        )
    solve = {"fast": fast, "exact": exact}[solver]
    alpha = ALPHA[solver][strategy] if alpha is None else alpha
    iterations = iterations or _ITERATIONS[solver]
    found = solve(initial_map(image), alpha, strategy, sigma=sigma, iterations=iterations)
    return jnp.clip(found, 0, 1)


# ---------------------------------------------------------------- gradients and weights (Section II-C)
def gradients(x: jax.Array, *, periodic: bool) -> jax.Array:
    """Forward differences down and to the right, [2, H, W].

    At the last row and column they are 0, or go round to the first (`periodic`), as the Fourier transform
    of the exact solver has it.
    """
    down, right = jnp.roll(x, -1, 0) - x, jnp.roll(x, -1, 1) - x
    if not periodic:
        down, right = down.at[-1].set(0), right.at[:, -1].set(0)
    return jnp.stack([down, right])


def weights(gradient: jax.Array, strategy: int, sigma: float, *, periodic: bool) -> jax.Array:
    """W of the gradient of T^, [2, H, W], by strategy

    1  1 everywhere: total variation
    2  1 / (|grad T^| + e), Equation 21: strong edges are cheap
    3  1 / (|G * grad T^| + e), Equation 22: edges are cheap that are not texture, whose gradients cancel
       within the Gaussian window G of `sigma`; its sum, the numerator there, is 1
    """
    if strategy == 1:
        return jnp.ones_like(gradient)
    if strategy == 3:
        gradient = _blurred(gradient, sigma, periodic)
    return 1 / (jnp.abs(gradient) + EPSILON)


def _blurred(x: jax.Array, sigma: float, periodic: bool) -> jax.Array:
    """[2, H, W] with a Gaussian window of 2.5 sigma to each side; beyond a border that is not periodic is 0.

    Shifted sums, which XLA fuses: a convolution of one channel is many times slower on a CPU.
    """
    radius = max(1, round(2.5 * sigma))
    taps = [math.exp(-0.5 * (k / sigma) ** 2) for k in range(-radius, radius + 1)]
    mode = "wrap" if periodic else "constant"
    for axis in (1, 2):
        pad = [(0, 0)] * 3
        pad[axis] = (radius, radius)
        padded = jnp.pad(x, pad, mode=mode)
        size = x.shape[axis]
        parts = [jax.lax.slice_in_dim(padded, k, k + size, axis=axis) for k in range(2 * radius + 1)]
        x = sum((tap / sum(taps) * part for tap, part in zip(taps, parts, strict=True)), jnp.zeros_like(x))
    return x


# ---------------------------------------------------------------- the exact solver (Algorithm 1)
def exact(
    first: jax.Array, alpha: float | jax.Array, strategy: int, *, sigma: float, iterations: int
) -> jax.Array:
    """T of Equation 8 by the augmented Lagrangian: T, G = grad T, multipliers Z and penalty mu in turn.

    All `iterations` are run: a loop of a known length can be differentiated backwards, and the penalty's
    growth brings grad T and G together by then.
    """
    height, width = first.shape
    weight = alpha * weights(gradients(first, periodic=True), strategy, sigma, periodic=True)
    rows, columns = jnp.fft.fftfreq(height)[:, None], jnp.fft.rfftfreq(width)[None]
    laplacian = 4 - 2 * jnp.cos(2 * jnp.pi * rows) - 2 * jnp.cos(2 * jnp.pi * columns)  # sum of |F(D_d)|^2

    def iterate(state: tuple, _: None) -> tuple[tuple, None]:
        g, z, mu = state
        pull = mu * g - z
        right = 2 * first + _adjoint(pull)
        t = jnp.fft.irfft2(jnp.fft.rfft2(right) / (2 + mu * laplacian), s=first.shape)  # Equation 13
        slope = gradients(t, periodic=True)
        g = _shrunk(slope + z / mu, weight / mu)  # Equation 15
        z = z + mu * (slope - g)  # Equation 16
        return (g, z, _RHO * mu), None

    zero = jnp.zeros((2, height, width), first.dtype)
    (g, z, mu), _ = jax.lax.scan(iterate, (zero, zero, jnp.asarray(_MU, first.dtype)), length=iterations)
    right = 2 * first + _adjoint(mu * g - z)
    return jnp.fft.irfft2(jnp.fft.rfft2(right) / (2 + mu * laplacian), s=first.shape)


def _adjoint(field: jax.Array) -> jax.Array:
    """D^T of a field [2, H, W]: what `gradients(periodic=True)` is multiplied with from the left."""
    return jnp.roll(field[0], 1, 0) - field[0] + jnp.roll(field[1], 1, 1) - field[1]


def _shrunk(x: jax.Array, threshold: jax.Array) -> jax.Array:
    """Equation 14: towards 0 by the threshold."""
    return jnp.sign(x) * jnp.maximum(jnp.abs(x) - threshold, 0)


# ---------------------------------------------------------------- the sped-up solver (Equations 17 to 19)
class System(NamedTuple):
    """I + sum_d D_d^T diag(w_d) D_d over a grid: each pixel's own weight, and those of its links.

    mass, down, right: [H, W]; `down` links a pixel with the one below, and is 0 in the last row.
    """

    mass: jax.Array
    down: jax.Array
    right: jax.Array


def fast(
    first: jax.Array, alpha: float | jax.Array, strategy: int, *, sigma: float, iterations: int
) -> jax.Array:
    """T of (I + sum_d D_d^T diag(w_d) D_d) t = t^ with w_d = alpha W_d / (|grad_d T^| + e).

    Weights differ by five orders of magnitude, so plain conjugate gradients would need thousands of steps for
    what is smooth over the whole picture. They begin with the solution on a grid half as fine, and that with
    the next, whose pixels are the sums of four and whose links carry what the fine ones carry in series and
    side by side. The gradient is that of the solution, not of the steps to it.
    """
    slope = gradients(first, periodic=False)
    links = alpha * weights(slope, strategy, sigma, periodic=False) / (jnp.abs(slope) + EPSILON)
    height, width = first.shape
    levels = max(0, int(math.log2(min(height, width) / _COARSEST)))
    rows, columns = ((0, -n % 2**levels) for n in first.shape)
    # What pads the picture to whole coarse pixels hangs on its last row and column by links of its own, which
    # lead nowhere and change nothing; without any, the border would be cut off on coarse grids.
    system = System(
        jnp.pad(jnp.ones_like(first), (rows, columns), constant_values=_OUTSIDE),
        jnp.pad(_continued(links[0], rows[1], 0), ((0, 0), columns)),
        jnp.pad(_continued(links[1], columns[1], 1), (rows, (0, 0))),
    )
    solution = jax.lax.custom_linear_solve(
        functools.partial(_applied, system),
        jnp.pad(first, (rows, columns)),
        lambda _, right_side: _solved(jax.lax.stop_gradient(system), right_side, levels, iterations),
        symmetric=True,
    )
    return solution[:height, :width]


def _continued(links: jax.Array, count: int, axis: int) -> jax.Array:
    """Links along an axis, with `count` more of them at its end; the last pixel has none."""
    inner = jax.lax.slice_in_dim(links, 0, links.shape[axis] - 1, axis=axis)
    beyond = [(0, 0), (0, 0)]
    beyond[axis] = (0, count)
    inner = jnp.pad(inner, beyond, mode="edge") if count else inner
    beyond[axis] = (0, 1)
    return jnp.pad(inner, beyond)


def _applied(system: System, x: jax.Array) -> jax.Array:
    """The system times [H, W]."""
    down = system.down[:-1] * (x[1:] - x[:-1])
    right = system.right[:, :-1] * (x[:, 1:] - x[:, :-1])
    flow = jnp.pad(down, ((1, 0), (0, 0))) - jnp.pad(down, ((0, 1), (0, 0)))
    flow += jnp.pad(right, ((0, 0), (1, 0))) - jnp.pad(right, ((0, 0), (0, 1)))
    return system.mass * x + flow


def _solved(system: System, right_side: jax.Array, levels: int, iterations: int) -> jax.Array:
    """A cascade, and one more over what it has left, as far as that leads towards the solution."""
    x = _cascade(system, right_side, levels, iterations)
    residual = right_side - _applied(system, x)
    way = _cascade(system, residual, levels, iterations)
    length = (residual * way).sum() / jnp.maximum((way * _applied(system, way)).sum(), 1e-30)
    return x + length * way


def _cascade(system: System, right_side: jax.Array, levels: int, iterations: int) -> jax.Array:
    """Solve on every grid from the coarsest to the finest, each beginning with the last one's solution."""
    grids = [(system, right_side)]
    for _ in range(levels):
        system, right_side = grids[-1]
        grids.append((_coarser(system), _blocks(right_side)))
    coarsest, right_side = grids[-1]
    x = right_side / coarsest.mass
    for level, (system, right_side) in reversed(list(enumerate(grids))):
        x = _conjugate_gradients(system, right_side, x, iterations)
        x = jnp.repeat(jnp.repeat(x, 2, 0), 2, 1) if level else x
    return x


def _coarser(system: System) -> System:
    return System(_blocks(system.mass), _joined(system.down), _joined(system.right.T).T)


def _blocks(x: jax.Array) -> jax.Array:
    """Sums of 2 x 2 pixels."""
    height, width = x.shape
    return x.reshape(height // 2, 2, width // 2, 2).sum((1, 3))


def _joined(links: jax.Array) -> jax.Array:
    """Links down between blocks of 2 x 2 pixels: half of one within, the one across, half of one within the
    next, as resistances in series; the block's two columns side by side."""
    within, across = links[0::2], links[1::2]
    following = jnp.concatenate([within[1:], within[-1:]])
    tiny = 1e-20
    series = 1 / (0.5 / (within + tiny) + 1 / (across + tiny) + 0.5 / (following + tiny))
    series = jnp.where(across > 0, series, 0)
    return series[:, 0::2] + series[:, 1::2]


def _conjugate_gradients(system: System, right_side: jax.Array, x: jax.Array, iterations: int) -> jax.Array:
    """So many steps from x, preconditioned by the diagonal."""
    above, left = jnp.pad(system.down[:-1], ((1, 0), (0, 0))), jnp.pad(system.right[:, :-1], ((0, 0), (1, 0)))
    inverse = 1 / (system.mass + system.down + above + system.right + left)

    def step(_: int, state: tuple) -> tuple:
        x, residual, direction, size = state
        image = _applied(system, direction)
        length = size / jnp.maximum((direction * image).sum(), 1e-30)
        x, residual = x + length * direction, residual - length * image
        new = (residual * inverse * residual).sum()
        direction = inverse * residual + new / jnp.maximum(size, 1e-30) * direction
        return x, residual, direction, new

    residual = right_side - _applied(system, x)
    direction = inverse * residual
    start = (x, residual, direction, (residual * direction).sum())
    return jax.lax.fori_loop(0, iterations, step, start)[0]
