"""A large image through a network in overlapping tiles: memory for one tile, and no seams.

An output pixel depends on the input within `reach` pixels around it. So each tile is computed with so many
more pixels on each side, which are thrown away, and what is kept equals the untiled result (to rounding);
only at the image's own border does a tile end where the image does. All tiles of an image have one size, for
one compilation: as few as go, and then as small as so many can be.
"""

import math
from collections.abc import Callable, Iterator

import numpy as np

SIDE = 288  # 512 pixels take two with the overlaps that there are, not three


def tiled(
    run: Callable[[np.ndarray], np.ndarray], image: np.ndarray, *, scale: int, reach: int, side: int = SIDE
) -> np.ndarray:
    """[H, W, C] -> [scale H, scale W, C] by `run`, [1, h, w, C] -> [1, scale h, scale w, C].

    side: of a tile, its overlaps included; more where these would leave less than half of it.
    """
    height, width, channels = image.shape
    side = max(side, 4 * reach)
    result = np.empty((scale * height, scale * width, channels), np.float32)
    for (top, bottom), (up, down) in _spans(height, side, reach):
        for (left, right), (near, far) in _spans(width, side, reach):
            made = run(image[None, top:bottom, left:right])[0]
            kept = made[
                scale * (up - top) : scale * (down - top), scale * (near - left) : scale * (far - left)
            ]
            result[scale * up : scale * down, scale * near : scale * far] = kept
    return result


def _spans(length: int, side: int, reach: int) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """(from, to) of each tile along an axis, and of what is kept of it; these cover 0 to `length` once."""
    count = max(1, math.ceil((length - 2 * reach) / (side - 2 * reach)))
    side = math.ceil((length + 2 * reach * (count - 1)) / count)
    done = 0
    for i in range(count):
        start = min(i * (side - 2 * reach), length - side)  # the last one may have more overlap
        kept = length if i == count - 1 else start + side - reach
        yield (start, start + side), (done, kept)
        done = kept
