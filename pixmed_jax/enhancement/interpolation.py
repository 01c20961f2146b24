"""Enlargement without learning: nearest, bilinear, bicubic (Keys 1981, a = -1/2) and Lanczos (three lobes).

Layout: images [..., H, W, C] float in [0, 1] -> [..., k H, k W, C], k whole; bicubic and Lanczos overshoot at
edges and are clipped to [0, 1].
Alignment: pixels are squares and centres are half a pixel in, so the middle of output pixel i lies at
(i + 1/2) / k - 1/2 in the input and the picture as a whole does not move; OpenCV and Pillow do likewise,
`align_corners` does not. At the border a kernel takes the pixels that there are, their weights scaled to 1.
"""

import jax
import jax.numpy as jnp
import numpy as np

from pixmed_jax.errors import PixmedError

# By name: what JAX calls it, and how many input pixels on each side an output pixel can depend on.
METHODS = {
    "nearest": ("nearest", 0),
    "bilinear": ("linear", 1),
    "bicubic": ("cubic", 2),
    "lanczos": ("lanczos3", 3),
}


def enlarge(images: jax.Array | np.ndarray, scale: int, method: str) -> jax.Array:
    """Each side `scale` times as long."""
    if method not in METHODS:
        raise PixmedError(f"interpolation {method!r} is unknown; use one of {', '.join(METHODS)}")
    *batch, height, width, channels = images.shape
    shape = (*batch, scale * height, scale * width, channels)
    return jnp.clip(jax.image.resize(jnp.asarray(images), shape, METHODS[method][0]), 0, 1)
