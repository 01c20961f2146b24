"""Slices of edited label maps without a network: pixels are read where the map's were (copy-paste).

What a generator's slices have to be worth more than: TumorCP (Yang et al. 2021) and Simple Copy-Paste (Ghiasi
et al. 2021) set cut-out objects into other pictures. Here it is done by the edits of edits.py, so that a
generator and copying are given the very same maps. A tumour comes with a soft rim; where one was, the brain
around it is mirrored into the hole; set into another head, it takes on how bright that head's brain is.

Images [S, S, C] float32 in [0, 1].
"""

from collections.abc import Callable

import numpy as np
from scipy import ndimage

from pixmed_jax.data.edits import Edited, Scene, hole_of, without

_RIM = 1 / 128  # of the side: the width over which a pasted tumour passes into what is around it
_MOST = 2.0  # times as bright, or as dark, as a tumour is made for another head


def pasted(drawn: Edited, image: Callable[[int], np.ndarray], scene: Callable[[int], Scene]) -> np.ndarray:
    """The slice that an edited map shows; `image(i)` and `scene(i)` are those of slice i."""
    theirs = image(drawn.tumor_row)
    if drawn.edit == "none":
        return theirs
    if drawn.edit == "deform" and drawn.points is not None:
        return _pixels_at(drawn.points, theirs)
    own = scene(drawn.row)
    healthy = without(image(drawn.row), hole_of(own.tumor, own.where), own.where.brain)
    if drawn.points is None:  # no tumour is set
        return healthy
    donor = scene(drawn.tumor_row)
    tumor = _pixels_at(drawn.points, theirs)
    if drawn.row != drawn.tumor_row:
        here, there = _usual(healthy, own), _usual(theirs, donor)
        if here and there:
            tumor = tumor * np.clip(here / there, 1 / _MOST, _MOST)
    region = drawn.map != own.anatomy  # which has no tumour
    share = ndimage.gaussian_filter(region.astype(np.float32), _RIM * len(region))[..., None]
    return np.clip(healthy * (1 - share) + tumor * share, 0, 1).astype(np.float32)


def _pixels_at(points: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Each pixel that of its point, between pixels linear; beyond the edge the edge goes on."""
    channels = np.moveaxis(image, -1, 0)
    read = [ndimage.map_coordinates(channel, points, order=1, mode="nearest") for channel in channels]
    return np.stack(read, axis=-1)


def _usual(image: np.ndarray, scene: Scene) -> float:
    """How bright a slice's healthy brain is; 0 where none was found."""
    inside = image[scene.where.brain & (scene.tumor == 0)]
    return float(np.median(inside)) if inside.size else 0.0
