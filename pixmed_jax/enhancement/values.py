"""Pictures as they are stored, uint8 or uint16 of which the full range stands for [0, 1], and as floats."""

import numpy as np


def unit(image: np.ndarray) -> np.ndarray:
    """Stored values -> [H, W, C] float32 in [0, 1]."""
    image = image[..., None] if image.ndim == 2 else image
    return image.astype(np.float32) / np.float32(np.iinfo(image.dtype).max)


def stored(image: np.ndarray, like: np.ndarray) -> np.ndarray:
    """The way back, in the type of `like` and with its number of axes."""
    top = np.iinfo(like.dtype).max
    values = np.rint(np.clip(image, 0, 1).astype(np.float64) * top).astype(like.dtype)
    return values[..., 0] if like.ndim == 2 else values
