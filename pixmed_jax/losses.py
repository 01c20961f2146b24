"""Losses as pure functions of arrays, each a float32 scalar (mean over everything unless said otherwise).

Images are NHWC float in [0, 1]; logits are those of the discriminator, one per patch.
"""

import functools
import math
from collections.abc import Callable, Mapping

import dm_pix
import jax
import jax.numpy as jnp
import numpy as np
import optax

WINDOW, SIGMA = 11, 1.5  # Wang et al. 2004, Section III-C
_EPSILON = 1e-6  # keeps log() finite where tanh saturates


# ---------------------------------------------------------------- adversarial (paper, Eq. 1 and 2)
def discriminator_bce(logits: jax.Array, real: bool) -> jax.Array:
    """-log D(y) for real images, -log(1 - D(G(x))) for generated ones: one half of Eq. 1."""
    return optax.sigmoid_binary_cross_entropy(logits, jnp.full_like(logits, real)).mean()


def generator_bce(logits: jax.Array) -> jax.Array:
    """-log D(G(x)): the non-saturating form of Eq. 1's other side: to fool the critic costs nothing."""
    return optax.sigmoid_binary_cross_entropy(logits, jnp.ones_like(logits)).mean()


def discriminator_least_squares(logits: jax.Array, real: bool) -> jax.Array:
    """(D - 1)^2 for real images, D^2 for generated ones: twice a half of LSGAN's Eq. 9 (Mao et al. 2017)."""
    return jnp.square(logits - real).mean()


def generator_least_squares(logits: jax.Array) -> jax.Array:
    """(D - 1)^2 / 2: LSGAN's Eq. 9 with c = 1."""
    return jnp.square(logits - 1).mean() / 2


# By the name of `loss.gan`: the discriminator's loss of (logits, real), the generator's of the fake's logits.
ADVERSARIAL = {
    "bce": (discriminator_bce, generator_bce),
    "least_squares": (discriminator_least_squares, generator_least_squares),
}


# ---------------------------------------------------------------- regularisers (StyleGAN2, Section 3)
# Their published weights mean images in [-1, 1], twice as wide as ours: a slope along an image is half of
# what it is in [0, 1], that of an image twice.
def r1(discriminate: Callable[[jax.Array], jax.Array], real: jax.Array, gamma: float = 1.0) -> jax.Array:
    """gamma / 2 times the mean of |d D / d x|^2 over the real images (Mescheder et al. 2018, Equation 9).

    `discriminate` takes images to logits [N, ...], of which each image's mean is meant.
    """

    def total(images: jax.Array) -> jax.Array:
        logits = discriminate(images)
        return logits.astype(jnp.float32).sum() * (len(logits) / logits.size)

    gradient = jax.grad(total)(real) / 2
    return gamma / 2 * jnp.square(gradient.astype(jnp.float32)).sum() / len(real)


def path_lengths(paint: Callable[[jax.Array], jax.Array], styles: jax.Array, key: jax.Array) -> jax.Array:
    """|J^T y| of each image, [N]: J the slopes of its pixels along its styles [N, layers, W], y random noise.

    StyleGAN2, Equation 4. As in the official code y is N(0, 1) over the root of the number of pixels, and the
    square is averaged over layers.
    """
    images, pull = jax.vjp(paint, styles)
    noise = jax.random.normal(key, images.shape) / math.sqrt(images.shape[1] * images.shape[2])
    (slopes,) = pull(2 * noise.astype(images.dtype))
    return jnp.sqrt(jnp.square(slopes).sum(-1).mean(-1) + 1e-12)  # without it the root has no slope at 0


# ---------------------------------------------------------------- between images
def pixel_bce(generated: jax.Array, real: jax.Array) -> jax.Array:
    """Binary cross-entropy of grey values read as probabilities (Eq. 2's other reading).

    Its minimum is at generated == real, but it is the entropy of the image there, not 0.
    """
    p = jnp.clip(generated, _EPSILON, 1 - _EPSILON)
    return -(real * jnp.log(p) + (1 - real) * jnp.log1p(-p)).mean()


def l1(generated: jax.Array, real: jax.Array) -> jax.Array:
    """Mean absolute difference of images in [0, 1], any shape; a scalar."""
    return jnp.abs(generated - real).mean()


def mse(generated: jax.Array, real: jax.Array) -> jax.Array:
    """Mean squared difference of images in [0, 1], any shape; a scalar."""
    return jnp.square(generated - real).mean()


def ssim_map(a: jax.Array, b: jax.Array) -> jax.Array:
    """Structural similarity per pixel (Wang et al. 2004): Gaussian window 11x11, sigma 1.5, range 1.

    [N, H, W, C] -> [N, H - 10, W - 10, C]: only windows that lie inside the image. The filter is handed to
    dm-pix, since the gradient of its default is five times slower on a CPU.
    """
    height, width = a.shape[-3:-1]
    if min(height, width) < WINDOW:
        raise ValueError(f"SSIM needs images of at least {WINDOW}x{WINDOW} pixels, got {height}x{width}")

    a, b = a.astype(jnp.float32), b.astype(jnp.float32)
    return jax.lax.platform_dependent(a, b, cpu=_ssim_map_cpu, default=_ssim_map_by_shifts)


def _ssim_map_cpu(a: jax.Array, b: jax.Array) -> jax.Array:
    return dm_pix.ssim(a, b, max_val=1.0, filter_fn=_blurred, return_map=True)


def _blurred(x: jax.Array) -> jax.Array:
    """The window over [N, H, W, C] as two banded matrices.

    HIGHEST wherever it runs: variances are differences of near-equal numbers, which tf32 would drown.
    """
    rows, columns = (gaussian_band(side) for side in x.shape[1:3])
    return jnp.einsum("ih,nhwc,jw->nijc", rows, x, columns, precision=jax.lax.Precision.HIGHEST)


# On a GPU exact products take thrice as long as eleven weighted shifts along each axis; the gradient of those
# by autodiff is 22 padded arrays for each windowed mean. Columns and channels are one axis here. Barriers say
# what is written to memory: else it is made again for each of the eleven that read it.
@jax.custom_vjp
def _ssim_map_by_shifts(a: jax.Array, b: jax.Array) -> jax.Array:
    return _similarity_and_slopes(a, b)[0]


def _similarity_and_slopes(a: jax.Array, b: jax.Array) -> tuple[jax.Array, tuple]:
    n, height, _, channels = a.shape
    rows = list(zip(*(_shifts(x.reshape(n, height, -1), 1) for x in (a, b)), strict=True))
    of_rows = [
        _weighted([x for x, _ in rows]),
        _weighted([y for _, y in rows]),
        _weighted([x * x + y * y for x, y in rows]),
        _weighted([x * y for x, y in rows]),
    ]
    means = [_weighted(_shifts(x, 2, channels)) for x in jax.lax.optimization_barrier(of_rows)]
    similarity, slopes = _similarity(*means)
    return similarity.reshape(n, height - WINDOW + 1, -1, channels), (a, b, slopes)


def _along_images(saved: tuple, g: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The window is symmetric, so its gradient is the window over a cotangent with a border of zeros."""
    a, b, slopes = saved
    channels, border = a.shape[-1], WINDOW - 1
    pads = ((0, 0), (border, border), (border * channels, border * channels))
    x = [jnp.pad(g.reshape(slope.shape) * slope, pads) for slope in slopes]
    x = [_weighted(_shifts(padded, 1)) for padded in jax.lax.optimization_barrier(x)]
    x = [_weighted(_shifts(rows, 2, channels)) for rows in jax.lax.optimization_barrier(x)]
    along_a, along_b, squares, product = (along.reshape(a.shape) for along in x)
    return along_a + 2 * a * squares + b * product, along_b + 2 * b * squares + a * product


_ssim_map_by_shifts.defvjp(_similarity_and_slopes, _along_images)


def _shifts(x: jax.Array, axis: int, step: int = 1) -> list[jax.Array]:
    length = x.shape[axis] - (WINDOW - 1) * step
    return [jax.lax.slice_in_dim(x, i * step, i * step + length, axis=axis) for i in range(WINDOW)]


def _weighted(parts: list[jax.Array]) -> jax.Array:
    weights = gaussian_band(WINDOW)[0].tolist()
    return sum((w * x for w, x in zip(weights[1:], parts[1:], strict=True)), weights[0] * parts[0])


def _similarity(
    mean_a: jax.Array, mean_b: jax.Array, squares: jax.Array, product: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    """SSIM (its Eq. 13) by the windowed means of a, b, a a + b b and a b; its slopes along these four."""
    c1, c2 = 0.01**2, 0.03**2
    of_means, of_squares = mean_a * mean_b, mean_a * mean_a + mean_b * mean_b
    below_light, below_rest = of_squares + c1, squares - of_squares + c2
    light, rest = (2 * of_means + c1) / below_light, (2 * (product - of_means) + c2) / below_rest

    def along(mean: jax.Array, other: jax.Array) -> jax.Array:
        of_light, of_rest = (other - mean * light) / below_light, (mean * rest - other) / below_rest
        return 2 * (of_light * rest + light * of_rest)

    similarity = light * rest
    slopes = along(mean_a, mean_b), along(mean_b, mean_a), -similarity / below_rest, 2 * light / below_rest
    return similarity, slopes


def ssim(a: jax.Array, b: jax.Array) -> jax.Array:
    """Mean SSIM; 1 for equal images. The paper's loss is 1 - SSIM (Eq. 3)."""
    return ssim_map(a, b).mean()


def ssim_of_each(a: jax.Array, b: jax.Array) -> jax.Array:
    """Mean SSIM of each pair, [N]."""
    return ssim_map(a, b).mean((1, 2, 3))


def psnr_of_each(a: jax.Array, b: jax.Array) -> jax.Array:
    """10 log10(1 / MSE) of each pair in dB, [N], at most 100."""
    return -10 * jnp.log10(jnp.maximum(jnp.square(a - b).mean((1, 2, 3)), 1e-10))


# By the name under which a metric tells it.
BETWEEN: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
    "pixel_bce": pixel_bce,
    "1-ssim": lambda a, b: 1 - ssim(a, b),
    "l1": l1,
    "mse": mse,
}


def between(
    made: jax.Array, real: jax.Array, weights: Mapping[str, float]
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """(weighted sum, {name: value}) of the terms of `BETWEEN` whose weight is not 0; no other is computed."""
    values = {name: BETWEEN[name](made, real) for name, weight in weights.items() if weight}
    return sum((weights[name] * value for name, value in values.items()), jnp.zeros(())), values


# ---------------------------------------------------------------- without a reference (Zero-DCE, Section 3.3)
_SPATIAL, _EXPOSED = 4, 16  # pixels a side of the regions that are compared, and that are to be well exposed


def spatial_consistency(enhanced: jax.Array, image: jax.Array) -> jax.Array:
    """Equation 4: neighbouring regions of 4x4 pixels keep their difference; mean over regions, four each."""
    slopes = []
    for x in (enhanced, image):
        mean = _regions(x.mean(-1), _SPATIAL)
        padded = jnp.pad(mean, ((0, 0), (1, 1), (1, 1)), mode="edge")  # beyond the border nothing differs
        neighbours = (padded[:, :-2, 1:-1], padded[:, 2:, 1:-1], padded[:, 1:-1, :-2], padded[:, 1:-1, 2:])
        slopes.append(jnp.abs(jnp.stack([mean - other for other in neighbours])))
    return jnp.square(slopes[0] - slopes[1]).sum(0).mean()


def exposure(enhanced: jax.Array, level: float) -> jax.Array:
    """Equation 5: how far the mean of each region of 16x16 pixels is from the level."""
    return jnp.abs(_regions(enhanced.mean(-1), _EXPOSED) - level).mean()


def colour_constancy(enhanced: jax.Array) -> jax.Array:
    """Equation 6: the squared differences between the channels' means, summed over pairs; 0 of grey."""
    means = enhanced.mean((1, 2))
    gaps = means[:, :, None] - means[:, None, :]
    return jnp.square(gaps).sum((1, 2)).mean() / 2  # each pair is there twice


def smoothness(curves: jax.Array) -> jax.Array:
    """Equation 7 of curves [N, H, W, iterations, C]: squared slopes down and to the right, over channels.

    The mean over pixels of (|down| + |right|)^2, summed over channels, averaged over iterations.
    """
    down = jnp.abs(curves[:, 1:, :-1] - curves[:, :-1, :-1])
    right = jnp.abs(curves[:, :-1, 1:] - curves[:, :-1, :-1])
    return jnp.square(down + right).mean((0, 1, 2)).sum(-1).mean()


def _regions(x: jax.Array, side: int) -> jax.Array:
    """Means of whole regions of [N, H, W]; smaller images are one region."""
    n, height, width = x.shape
    rows, columns = min(side, height), min(side, width)
    x = x[:, : height // rows * rows, : width // columns * columns]
    return x.reshape(n, height // rows, rows, width // columns, columns).mean((2, 4))


@functools.cache
def gaussian_band(size: int) -> np.ndarray:
    """[size - 10, size]: row i holds the normalised window over pixels i .. i + 10."""
    offsets = np.arange(WINDOW) - WINDOW // 2
    window = np.exp(-0.5 * (offsets / SIGMA) ** 2)
    band = np.zeros((size - WINDOW + 1, size), np.float32)
    for i in range(len(band)):
        band[i, i : i + WINDOW] = window / window.sum()
    return band
