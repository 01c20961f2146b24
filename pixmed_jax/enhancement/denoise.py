"""What LIME does about the noise that it has made visible (Guo, Li & Ling 2017, Section II-E).

Pictures are [H, W, C] float32 in [0, 1]. Library: scikit-image (the extra "enhance"); the paper takes BM3D.
"""

import jax.numpy as jnp
import numpy as np

from pixmed_jax.enhancement.lime import noise_level
from pixmed_jax.extras import library

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601


def recomposed(image: np.ndarray, light: np.ndarray) -> np.ndarray:
    """R o T + R_d o (1 - T), Equation 23: as it is where there was light, denoised where there was little.

    R_d is R with its luma Y denoised by non-local means and its chroma as it was: each channel moves by as
    much as Y does.
    """
    luma = image @ _LUMA if image.shape[-1] == 3 else image[..., 0]
    sigma = float(noise_level(jnp.asarray(luma)))
    denoise = library("skimage.restoration", "enhance").denoise_nl_means
    moved = denoise(luma, h=0.8 * sigma, sigma=sigma, fast_mode=True, patch_size=5, patch_distance=6) - luma
    return image + (moved * (1 - light))[..., None].astype(np.float32)
