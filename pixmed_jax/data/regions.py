"""Where the head is, and the label maps that condition a generator.

A tumour mask alone does not say where the head lies or how large it is; its outline, found here from the
slice without any network, is the cheapest condition that does. Its tissues (`tissues.py`) say far more.

Layout: images [H, W] or [N, S, S, C], uint8 or uint16; masks [N, S, S] uint8, 0 = background,
v = label_names[v - 1]; label maps [N, S, S] uint8, encoded as `label_map` says.
Errors: PixmedError for a condition that does not exist.
"""

import math
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from scipy import ndimage

from pixmed_jax.data import degrade
from pixmed_jax.data.tissues import MOST, tissues
from pixmed_jax.errors import PixmedError, listing
from pixmed_jax.progress import watched

MAPS = ("tumor", "tumor+head", "anatomy")  # conditions that are made of masks
CONDITIONS = (*MAPS, "label", *degrade.CONDITIONS)


def head(image: np.ndarray) -> np.ndarray:
    """bool [H, W]: the head, or the largest object, with all that it encloses, air and ventricles too."""
    size = max(image.shape)
    radius = max(1, size // 32)
    bright = np.percentile(image, 99)
    # Air is far darker than tissue, except in a noisy slice: there, stay well above the usual dark pixel.
    # Pixels near zero do not count: they lie outside of the scanner's field.
    field = image[image > 0.01 * bright]
    dark = field[field < field.mean()] if field.size else field
    noise = np.median(dark) if dark.size else 0.0
    body: np.ndarray = image > np.clip(1.6 * noise, 0.1 * bright, 0.2 * bright)
    body = ndimage.binary_opening(body, iterations=max(1, size // 128))  # specks of noise go
    if not body.any():
        return body
    # A closing (nose, ears, dark skull), then an opening (streaks of motion and flow), both by discs. What
    # the picture's edge cuts goes on behind it, or the opening would round it off there.
    margin = 4 * radius + 1
    grown = grown_by(2 * radius, np.pad(body, margin, mode="edge"))
    _bridge(grown, margin, size // 4)
    core = ~grown_by(3 * radius, ~ndimage.binary_fill_holes(grown))
    region = grown_by(radius, core)
    labels, _ = ndimage.label(region[margin:-margin, margin:-margin])
    areas = np.bincount(labels.ravel(), minlength=2)
    return np.asarray(labels == 1 + areas[1:].argmax())


def grown_by(radius: int, region: np.ndarray) -> np.ndarray:
    """bool [H, W]: all pixels at most `radius` from one of a region [H, W].

    Each pixel's distance to the region along its column, held against the half height of a disc so many
    columns away: exactly what a Euclidean distance transform says, in a quarter of its time.
    """
    far = 2**14
    place = np.arange(len(region), dtype=np.int16)[:, None]
    above = np.maximum.accumulate(np.where(region, place, -far), axis=0)
    below = np.minimum.accumulate(np.where(region, place, 2 * far - 1)[::-1], axis=0)[::-1]
    apart = np.minimum(place - above, below - place)
    grown = apart <= radius
    for away in range(1, min(radius, region.shape[1] - 1) + 1):
        reached = apart <= math.isqrt(radius**2 - away**2)
        grown[:, away:] |= reached[:, :-away]
        grown[:, :-away] |= reached[:, away:]
    return np.asarray(grown)


def _bridge(grown: np.ndarray, margin: int, widest: int) -> None:
    """Join, behind each edge of the picture, what the edge cuts apart.

    Between parts of a head lies what is dark in it (airways, marrow, a neck far from the coil), open to the
    edge: it is then enclosed. Air between two objects is not, and stays what it is.
    """
    for turn in range(4):
        turned = np.rot90(grown, turn)  # a view
        inside = np.flatnonzero(turned[margin])
        gaps = np.flatnonzero((np.diff(inside) > 1) & (np.diff(inside) <= widest))
        for left, right in zip(inside[gaps], inside[gaps + 1], strict=True):
            turned[:margin, left:right] = True


def heads(images: np.ndarray) -> np.ndarray:
    """bool [N, S, S]: the head of each slice of images [N, S, S, C]."""
    return np.stack(list(_each(lambda row: head(images[row].mean(axis=-1)), len(images), "outlining heads")))


def _each(found: Callable[[int], np.ndarray], count: int, what: str) -> Iterator[np.ndarray]:
    """What a function finds for each row, in their order, by several threads at once."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # most of the work leaves the interpreter lock
        yield from watched(pool.map(found, range(count)), count, what)


def known_heads(maps: np.ndarray, images: np.ndarray, condition: str) -> np.ndarray:
    """bool [N, S, S]: the heads, read from the label maps of `condition` where these show them."""
    return maps > 0 if condition in ("tumor+head", "anatomy") else heads(images)


def is_tumor(name: str) -> bool:
    """Whether a class of a label map is a tumour, and not anatomy around it."""
    return name != "head" and not name.startswith("tissue_")


def tumors(condition: str, classes: int, tissue_classes: int) -> int:
    """How many of so many classes of a condition's label maps are tumours; they come first."""
    return classes - {"tumor": 0, "tumor+head": 1, "anatomy": tissue_classes}[condition]


def class_names(
    condition: str, label_names: Sequence[str], class_channels: bool, tissue_classes: int = 4
) -> tuple[str, ...]:
    """What the values 1 .. K of a label map stand for; 0 is background.

    With `class_channels` a tumour keeps the value of its class in `label_names`; without, every tumour is 1,
    "tumor", or the only name in `label_names`. Condition "tumor+head" appends "head", the head without its
    tumour; "anatomy" appends "tissue_1" .. , the same from dark to bright. Condition "label" is no map: a
    slice's label is all of it. Nor are the conditions of `degrade`, whose networks are told no class at all.
    """
    if condition not in CONDITIONS:
        raise PixmedError(f"data.condition={condition!r} is unknown; use one of {listing(CONDITIONS)}")
    own = class_channels or condition not in MAPS or len(label_names) == 1
    names = tuple(label_names) if own else ("tumor",)
    taken = [name for name in names if not is_tumor(name)]
    if taken:
        raise PixmedError(f"the label {taken[0]!r} is the name of a class of anatomy; rename it in data.meta")
    if condition == "anatomy":
        if not 1 <= tissue_classes <= MOST:
            raise PixmedError(f"data.tissues={tissue_classes}: give 1 to {MOST}")
        return (*names, *(f"tissue_{i + 1}" for i in range(tissue_classes)))
    return (*names, "head") if condition == "tumor+head" else names


def label_map(
    masks: np.ndarray,
    images: np.ndarray,
    *,
    condition: str = "tumor",
    label_names: Sequence[str] = ("tumor",),
    class_channels: bool = False,
    tissue_classes: int = 4,
) -> tuple[np.ndarray, tuple[str, ...]]:
    """(maps, names): the condition of a generator, where a map's value v stands for `names[v - 1]`.

    The names are those of `class_names`. `images` [N, S, S, C] are not read for "tumor".
    """
    names = class_names(condition, label_names, class_channels, tissue_classes)
    maps = masks.astype(np.uint8) if class_channels else (masks > 0).astype(np.uint8)
    tumors = sum(map(is_tumor, names))
    if condition == "tumor":
        return maps, names

    def around(row: int) -> np.ndarray:
        """The anatomy of one slice, uint8 [S, S], 0 outside of the head."""
        image = images[row].mean(axis=-1)
        outline = head(image)
        if condition == "tumor+head":
            return outline.astype(np.uint8)
        return tissues(image, outline, masks[row] > 0, tissue_classes)

    for map_, anatomy in zip(maps, _each(around, len(maps), "finding anatomy"), strict=True):
        free = (map_ == 0) & (anatomy > 0)
        map_[free] = tumors + anatomy[free]
    return maps, names
