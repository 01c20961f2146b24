"""A large image through a network in overlapping tiles: memory for one tile, and no seams.

An output pixel depends on the input within `reach` pixels around it. So each tile is computed with so many
more pixels on each side, which are thrown away, and what is kept equals the untiled result (to rounding);
only at the image's own border does a tile end where the image does. All tiles have one size, for one
compilation: the last of a row or column begins earlier than it would have to.
"""

from collections.abc import Callable, Iterator

import numpy as np

SIDE = 256


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
    done = start = 0
    while done < length:
        start = min(start, max(0, length - side))
        end = min(length, start + side)
        kept = length if end == length else end - reach
        yield (start, end), (done, kept)
        done, start = kept, kept - reach
