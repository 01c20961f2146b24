"""Pictures as they are stored, uint8 or uint16 of which the full range stands for [0, 1], and as floats."""

from typing import Any

import numpy as np


def floats(images: Any) -> np.ndarray:
    """Stored values -> float32 in [0, 1], of the same shape."""
    images = np.asarray(images)
    return images.astype(np.float32) / np.float32(np.iinfo(images.dtype).max)


def unit(image: np.ndarray) -> np.ndarray:
    """Stored values -> [H, W, C] float32 in [0, 1]."""
    return floats(image[..., None] if image.ndim == 2 else image)


def coloured(image: np.ndarray) -> bool:
    """Whether a stored picture [H, W, C] shows colours, more than JPEG gives to grey ones."""
    return image.ndim == 3 and float(np.ptp(floats(image), axis=-1).mean()) > 0.02


def stored(image: np.ndarray, like: np.ndarray) -> np.ndarray:
    """The way back, in the type of `like` and with its number of axes."""
    top = np.iinfo(like.dtype).max
    values = np.rint(np.clip(image, 0, 1).astype(np.float64) * top).astype(like.dtype)
    return values[..., 0] if like.ndim == 2 else values
