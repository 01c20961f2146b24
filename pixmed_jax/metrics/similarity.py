"""How close generated images are to real ones: SSIM, PSNR and MSE per image, whole or inside a region.

Images [N, S, S] float in [0, 1], regions [N, S, S] bool; each metric is [N] float64, NaN for an image whose
region is empty. Over a region SSIM is the mean of the SSIM map there (windows reach beyond it); PSNR is 10
log10(1 / MSE) in dB for a data range of 1, at most 100 dB; MSE is in units of the grey range squared.
"""

from collections.abc import Mapping

import jax
import numpy as np

from pixmed_jax import losses
from pixmed_jax.metrics.quality import MOST_DB

METRICS = ("ssim", "psnr", "mse")
_BORDER = losses.WINDOW // 2  # the SSIM map lacks half a window on each side
_ssim_map = jax.jit(losses.ssim_map)


def score(
    generated: np.ndarray, real: np.ndarray, regions: Mapping[str, np.ndarray]
) -> dict[str, dict[str, np.ndarray]]:
    """{metric: {region: [N]}} of all metrics over all regions; windows beyond the picture are left out."""
    found = {name: {where: np.full(len(real), np.nan) for where in regions} for name in METRICS}
    for i in range(len(real)):  # one at a time: one shape to compile, and memory that does not grow with N
        similar = np.asarray(_ssim_map(generated[i][None, ..., None], real[i][None, ..., None]))[0, ..., 0]
        squared = (generated[i].astype(np.float64) - real[i]) ** 2
        for where, region in regions.items():
            inner = region[i, _BORDER:-_BORDER, _BORDER:-_BORDER]
            if inner.any():
                found["ssim"][where][i] = similar[inner].mean(dtype=np.float64)
            if region[i].any():
                found["mse"][where][i] = squared[region[i]].mean()
    for where, mse in found["mse"].items():
        found["psnr"][where] = -10 * np.log10(np.maximum(mse, 10 ** (-MOST_DB / 10)))
    return found
