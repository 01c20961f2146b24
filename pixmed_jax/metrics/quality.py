"""How close one picture is to another: MSE, PSNR, SSIM and MS-SSIM of files of any size, grey or colour.

Pairs are [H, W] or [H, W, C] of one shape and type: uint8 or uint16, whose full range stands for [0, 1], or
float in [0, 1]. Each metric returns one number, in float64 and over a data range of 1; channels are averaged.
`metrics` scores many slices of one size over regions, with the same window; here nothing is compiled, since
every file may have a size of its own.
Errors: PixmedError for pictures that differ in shape or type, or are smaller than a metric's windows.
"""

from collections.abc import Callable, Mapping

import numpy as np
from scipy.ndimage import correlate1d

from pixmed_jax.errors import PixmedError
from pixmed_jax.losses import SIGMA, WINDOW

MOST_DB = 100.0  # PSNR of equal pictures, which would be infinite
_K1, _K2 = 0.01, 0.03  # Wang et al. 2004, Section III-B
# Exponents of the scales, the finest first (Wang, Simoncelli & Bovik 2003, Section 3.2).
SCALES = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
SMALLEST = (WINDOW - 1) * 2 ** (len(SCALES) - 1) + 1  # whose coarsest scale still holds a window


def mse(a: np.ndarray, b: np.ndarray) -> float:
    a, b = _pair(a, b)
    return float(np.square(a - b).mean())


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """10 log10(1 / MSE) in dB, at most 100."""
    return min(MOST_DB, -10 * float(np.log10(max(mse(a, b), 10 ** (-MOST_DB / 10)))))


def ssim(a: np.ndarray, b: np.ndarray) -> float:
    """Mean structural similarity (Wang et al. 2004) of the 11x11 windows that lie inside the picture."""
    a, b = _pair(a, b, WINDOW, "SSIM")
    luminance, structure = _similarity(a, b)
    return float((luminance * structure).mean())


def ms_ssim(a: np.ndarray, b: np.ndarray) -> float:
    """SSIM over five scales (Wang, Simoncelli & Bovik 2003, Equation 7), each half as large as the last.

    As in its authors' code, maps are averaged before they are multiplied, and a scale is made of means of
    2 x 2 pixels, the last row or column repeated where it is odd. A negative mean counts as 0: its power
    would be complex.
    """
    a, b = _pair(a, b, SMALLEST, f"MS-SSIM of {len(SCALES)} scales")
    channels = np.ones(a.shape[2])
    for scale, exponent in enumerate(SCALES):
        luminance, structure = _similarity(a, b)
        last = scale == len(SCALES) - 1
        means = (luminance * structure if last else structure).mean((0, 1))
        channels *= np.maximum(means, 0) ** exponent
        a, b = _halved(a), _halved(b)
    return float(channels.mean())


METRICS: Mapping[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "psnr": psnr,
    "ssim": ssim,
    "ms_ssim": ms_ssim,
    "mse": mse,
}


def _pair(a: np.ndarray, b: np.ndarray, least: int = 1, what: str = "") -> tuple[np.ndarray, np.ndarray]:
    """Both as [H, W, C] float64 in [0, 1]."""
    if a.shape != b.shape or a.dtype != b.dtype or a.ndim not in (2, 3):
        raise PixmedError(
            f"pictures of {_kind(a)} and {_kind(b)}: give two of one height, width, channels and type"
        )
    if min(a.shape[:2]) < least:
        raise PixmedError(
            f"a picture of {_kind(a)}: {what} needs {least} x {least} pixels or more; leave it out"
        )
    return _unit(a), _unit(b)


def _kind(a: np.ndarray) -> str:
    return f"{' x '.join(map(str, a.shape))} {a.dtype}"


def _unit(a: np.ndarray) -> np.ndarray:
    a = a[..., None] if a.ndim == 2 else a
    return a.astype(np.float64) / (np.iinfo(a.dtype).max if a.dtype.kind == "u" else 1)


def _similarity(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The two factors of SSIM at each window, [H - 10, W - 10, C]: luminance, and contrast and structure."""
    c1, c2 = _K1**2, _K2**2
    mean_a, mean_b = _windowed(a), _windowed(b)
    var_a, var_b = _windowed(a * a) - mean_a**2, _windowed(b * b) - mean_b**2
    covariance = _windowed(a * b) - mean_a * mean_b
    luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    return luminance, (2 * covariance + c2) / (var_a + var_b + c2)


def _windowed(x: np.ndarray) -> np.ndarray:
    """The Gaussian mean over each window that lies inside."""
    half = WINDOW // 2
    window = np.exp(-0.5 * ((np.arange(WINDOW) - half) / SIGMA) ** 2)
    window /= window.sum()
    inner = slice(half, -half)
    return correlate1d(correlate1d(x, window, 0)[inner], window, 1)[:, inner]


def _halved(x: np.ndarray) -> np.ndarray:
    x = np.pad(x, ((0, x.shape[0] % 2), (0, x.shape[1] % 2), (0, 0)), mode="edge")
    return (x[::2, ::2] + x[1::2, ::2] + x[::2, 1::2] + x[1::2, 1::2]) / 4
