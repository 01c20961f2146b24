"""How close generated images are to real ones: SSIM, PSNR and MSE per image, whole or inside a region.

Images [N, S, S] float in [0, 1], regions [N, S, S] bool; each metric returns [N] float64, NaN for an image
whose region is empty. Over a region SSIM is the mean of the SSIM map there (windows reach beyond it).
"""

import warnings
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from pixmed_jax import losses
from pixmed_jax.progress import watched

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


def interval(
    values: np.ndarray, groups: np.ndarray, *, seed: int = 0, draws: int = 2000
) -> tuple[float, float] | None:
    """95 % bootstrap interval of the mean, resampling whole patient groups; None if all values are NaN."""
    kept = ~np.isnan(values)
    if not kept.any():
        return None
    _, patient = np.unique(groups[kept], return_inverse=True)
    sums, counts = np.bincount(patient, values[kept]), np.bincount(patient)
    picks = np.random.default_rng(seed).integers(0, len(sums), (draws, len(sums)))
    means = sums[picks].sum(axis=1) / counts[picks].sum(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def resampled(
    groups: np.ndarray,
    statistic: Callable[[np.ndarray], Mapping[str, np.ndarray]],
    *,
    seed: int = 0,
    draws: int = 1000,
) -> dict[str, np.ndarray]:
    """95 % bootstrap bounds [2, ...] of statistics that are no means, resampling whole patient groups.

    `statistic` takes how often each of N images was drawn, [N]; draws in which it is NaN are left out.
    """
    _, patient = np.unique(groups, return_inverse=True)
    count = patient.max() + 1
    rng = np.random.default_rng(seed)
    found: dict[str, list[np.ndarray]] = {}
    for _ in watched(range(draws), draws, "resampling patients"):
        times = np.bincount(rng.integers(0, count, count), minlength=count)
        for name, value in statistic(times[patient]).items():
            found.setdefault(name, []).append(value)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of slices that are NaN throughout
        return {name: np.nanpercentile(np.array(v), [2.5, 97.5], axis=0) for name, v in found.items()}


def _mean_over(values: np.ndarray, region: np.ndarray) -> np.ndarray:
    """Mean of values [N, S, S] where region, per image."""
    pixels = region.sum(axis=(1, 2))
    totals = np.where(region, values, 0).sum(axis=(1, 2), dtype=np.float64)
    return np.where(pixels > 0, totals / np.maximum(pixels, 1), np.nan)
