"""What a user would try first: a power of the grey values, histogram equalisation, and CLAHE.

Pictures are [H, W, C] float32 in [0, 1]. In colours the two equalisations work on the largest channel, the V
of HSV, and hue and saturation stay: equalised one by one, channels would change the colours.
Library: scikit-image (the extra "enhance"), for the equalisations.
"""

from collections.abc import Callable, Mapping

import numpy as np

from pixmed_jax.enhancement.method import Method, Output
from pixmed_jax.extras import library

GAMMA = 1 / 2.2  # the power that undoes the display's: what "gamma correction" means unasked
CLIP_LIMIT = 0.01  # scikit-image's own
_DARK = 1e-4  # below it a colour cannot be scaled


def gamma(power: float = GAMMA) -> Method:
    return Method("gamma", lambda image: Output(image**power), {"gamma": power})


def histogram() -> Method:
    """Grey values become their ranks (Gonzalez & Woods, Section 3.3)."""
    equalize = library("skimage.exposure", "enhance").equalize_hist
    return Method("histogram", lambda image: Output(_valued(image, equalize)))


def clahe(clip_limit: float = CLIP_LIMIT) -> Method:
    """Equalisation within 8 x 8 tiles whose contrast is limited (Zuiderveld 1994)."""
    equalize = library("skimage.exposure", "enhance").equalize_adapthist
    return Method(
        "clahe",
        lambda image: Output(_valued(image, lambda value: equalize(value, clip_limit=clip_limit))),
        {"clip_limit": clip_limit},
    )


BASELINES: Mapping[str, Callable[[], Method]] = {"gamma": gamma, "histogram": histogram, "clahe": clahe}


def _valued(image: np.ndarray, change: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """The picture with its largest channel changed, and the others in proportion."""
    value = image.max(axis=-1)
    if value.min() == value.max():  # one grey value has no histogram, and no tile either
        return image
    changed = change(value.astype(np.float64))
    if image.shape[-1] == 1:
        return changed[..., None].astype(np.float32)
    factor = changed / np.maximum(value, _DARK)
    return np.where(value[..., None] > _DARK, image * factor[..., None], changed[..., None]).astype(
        np.float32
    )
