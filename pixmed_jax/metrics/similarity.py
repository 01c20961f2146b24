"""How close generated images are to real ones: SSIM, PSNR and MSE per image, whole or inside a region.

Images [N, S, S] float in [0, 1], regions [N, S, S] bool; each metric returns [N] float64, NaN for an image
whose region is empty. Over a region SSIM is the mean of the SSIM map there (windows reach beyond it).
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from pixmed_jax import losses

METRICS = ("ssim", "psnr", "mse")
_MOST_DB = 100.0  # PSNR of equal images, which would be infinite
_BORDER = 5  # the SSIM map lacks half a window on each side
_ssim_map = jax.jit(losses.ssim_map)


def ssim(a: np.ndarray, b: np.ndarray, region: np.ndarray) -> np.ndarray:
    """Mean of the SSIM map over each region, [N]; windows that reach beyond the picture are left out."""
    values = np.empty(len(a))
    inner = region[:, _BORDER:-_BORDER, _BORDER:-_BORDER]
    for i in range(len(a)):  # one at a time: one shape to compile, and memory that does not grow with N
        similarity = np.asarray(
            _ssim_map(jnp.asarray(a[i])[None, ..., None], jnp.asarray(b[i])[None, ..., None])
        )
        values[i] = _mean_over(similarity[..., 0], inner[i : i + 1])[0]
    return values


def mse(a: np.ndarray, b: np.ndarray, region: np.ndarray) -> np.ndarray:
    """Mean squared difference over each region, [N], in units of the grey range squared."""
    return _mean_over((a.astype(np.float64) - b) ** 2, region)


def psnr(a: np.ndarray, b: np.ndarray, region: np.ndarray) -> np.ndarray:
    """10 log10(1 / MSE) in dB for a data range of 1, at most 100 dB."""
    return -10 * np.log10(np.maximum(mse(a, b, region), 10 ** (-_MOST_DB / 10)))


def score(
    generated: np.ndarray, real: np.ndarray, regions: Mapping[str, np.ndarray]
) -> dict[str, dict[str, np.ndarray]]:
    """{metric: {region: [N]}} of all metrics over all regions."""
    functions = {"ssim": ssim, "psnr": psnr, "mse": mse}
    return {
        name: {where: functions[name](generated, real, region) for where, region in regions.items()}
        for name in METRICS
    }


def _mean_over(values: np.ndarray, region: np.ndarray) -> np.ndarray:
    """Mean of values [N, S, S] where region, per image."""
    pixels = region.sum(axis=(1, 2))
    totals = np.where(region, values, 0).sum(axis=(1, 2), dtype=np.float64)
    return np.where(pixels > 0, totals / np.maximum(pixels, 1), np.nan)
