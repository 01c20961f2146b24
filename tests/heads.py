"""Label maps of one head with tumours where a test wants them, taken apart for edits."""

import numpy as np
from scipy import ndimage

from pixmed_jax.data.edits import Scene, take_apart
from pixmed_jax.data.tissues import Survey

SIZE, TUMORS = 64, 2  # of the tests' maps; their classes: tumours 1 and 2, tissues 3 .. 6 from dark to bright


def disc(row: float, column: float, radius: float) -> np.ndarray:
    y, x = np.mgrid[:SIZE, :SIZE]
    return np.hypot(y - row, x - column) <= radius


HEAD, SKULL, BRAIN, FLUID = disc(32, 32, 29), disc(32, 32, 26), disc(32, 32, 22), disc(26, 30, 4)
LOOK = np.array([0.6, 0.8], np.float32)


def healthy(seed: int = 0) -> np.ndarray:
    """Scalp 6, skull 3, cortex 4 or 5 in patches, and fluid."""
    map_ = np.where(HEAD, 6, 0).astype(np.uint8)
    map_[SKULL] = 3
    patches = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=HEAD.shape), 2) > 0
    map_[BRAIN] = np.where(patches, 4, 5)[BRAIN]
    map_[FLUID] = 3
    return map_


def survey(look: np.ndarray = LOOK, brain: np.ndarray = BRAIN) -> Survey:
    return Survey(HEAD, HEAD & ((SKULL & ~BRAIN) | FLUID), brain, look)


def ill(
    tumor: np.ndarray, value: int = 2, where: Survey | None = None, plane: str = "", seed: int = 0
) -> Scene:
    return take_apart(
        np.where(tumor, value, healthy(seed)).astype(np.uint8), TUMORS, where or survey(), plane
    )
