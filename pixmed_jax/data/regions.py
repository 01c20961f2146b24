"""Where the head is, and the label maps that condition a generator.

A tumour mask alone does not say where the head lies or how large it is; its outline, found here from the
slice without any network, is the cheapest condition that does. Its tissues (`tissues.py`) say far more.

Layout: images [..., H, W] or [N, S, S, C], uint8 or uint16; masks [N, S, S] uint8, 0 = background,
v = label_names[v - 1]; label maps [N, S, S] uint8, encoded as `label_map` says.
Errors: PixmedError for a condition that does not exist.
"""

import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from scipy import ndimage

from pixmed_jax.data import degrade
from pixmed_jax.data.tissues import MOST, tissues
from pixmed_jax.errors import PixmedError, listing
from pixmed_jax.progress import watched

HEADED = ("tumor+head", "anatomy")  # conditions whose maps show a head
MAPS = ("tumor", *HEADED)  # conditions that are made of masks
CONDITIONS = (*MAPS, "label", *degrade.CONDITIONS)
_CROSS = ndimage.generate_binary_structure(2, 1)[None]  # a pixel's neighbours in its own image
_TOGETHER = 2**18  # pixels that are looked at together
MOST_CLASSES = 255  # of a label map or a label, uint8, of which 0 is the background


def head(images: np.ndarray) -> np.ndarray:
    """bool [..., H, W]: the head in each image, or its largest object, with the air and fluid it encloses."""
    stack = images.reshape(-1, *images.shape[-2:])
    size = max(stack.shape[1:])
    radius = max(1, size // 32)
    brights = np.percentile(stack.reshape(len(stack), -1), 99, axis=1)
    floors = np.array([_floor(image, bright) for image, bright in zip(stack, brights, strict=True)])
    bodies: np.ndarray = stack > floors[:, None, None]
    bodies = ndimage.binary_opening(bodies, _CROSS, max(1, size // 128))  # specks of noise go
    # A closing (nose, ears, dark skull), then an opening (streaks of motion and flow), both by discs. What
    # the picture's edge cuts goes on behind it, or the opening would round it off there.
    margin = 4 * radius + 1
    around = ((0, 0), (margin, margin), (margin, margin))
    grown = grown_by(2 * radius, np.pad(bodies, around, mode="edge"))
    for one in grown:
        _bridge(one, margin, size // 4)
    cores = ~grown_by(3 * radius, ~ndimage.binary_fill_holes(grown, _CROSS))
    regions = grown_by(radius, cores)[:, margin:-margin, margin:-margin]
    return np.stack([_largest(region) for region in regions]).reshape(images.shape)


def _floor(image: np.ndarray, bright: float) -> float:
    """What the pixels of a head exceed.

    Air is far darker than tissue, except in a noisy slice: there, stay well above the usual dark pixel.
    Pixels near zero do not count: they lie outside of the scanner's field.
    """
    field = image[image > 0.01 * bright]
    dark = field[field < field.mean()] if field.size else field
    noise = np.median(dark) if dark.size else 0.0
    return float(np.clip(1.6 * noise, 0.1 * bright, 0.2 * bright))


def _largest(region: np.ndarray) -> np.ndarray:
    """bool [H, W]: the largest of the parts of a region, if there is any."""
    labels, _ = ndimage.label(region)
    areas = np.bincount(labels.ravel(), minlength=2)
    return np.asarray(labels == 1 + areas[1:].argmax())


def grown_by(radius: int, regions: np.ndarray) -> np.ndarray:
    """bool [N, H, W]: all pixels at most `radius` from one of each region [N, H, W].

    Each pixel's distance to the region along its column, held against the half height of a disc so many
    columns away: exactly what a Euclidean distance transform says, in a quarter of its time.
    """
    far = 2**14
    place = np.arange(regions.shape[1], dtype=np.int16)[:, None]
    above = np.maximum.accumulate(np.where(regions, place, -far), axis=1)
    below = np.minimum.accumulate(np.where(regions, place, 2 * far - 1)[:, ::-1], axis=1)[:, ::-1]
    apart = np.minimum(place - above, below - place)
    grown = apart <= radius
    for away in range(1, min(radius, regions.shape[2] - 1) + 1):
        reached = apart <= math.isqrt(radius**2 - away**2)
        grown[..., away:] |= reached[..., :-away]
        grown[..., :-away] |= reached[..., away:]
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
    return _found(lambda rows: head(images[rows].mean(axis=-1)), images, "outlining heads")


def _found(find: Callable[[slice], np.ndarray], images: np.ndarray, what: str) -> np.ndarray:
    """What a function finds for rows of images [N, S, S, C], several threads at once.

    Small slices are many together: each by itself would take the interpreter longer than the work does, and
    its lock is what threads wait for.
    """
    rows = max(1, _TOGETHER // (images.shape[1] * images.shape[2]))
    parts = [slice(start, start + rows) for start in range(0, len(images), rows)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return np.concatenate(list(watched(pool.map(find, parts), len(parts), what)))


def known_heads(maps: np.ndarray, images: np.ndarray, condition: str) -> np.ndarray:
    """bool [N, S, S]: the heads, read from the label maps of `condition` where these show them."""
    return maps > 0 if condition in HEADED else heads(images)


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
    PixmedError for more classes than a map has values.
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
        names = (*names, *(f"tissue_{i + 1}" for i in range(tissue_classes)))
    elif condition == "tumor+head":
        names = (*names, "head")
    if condition in MAPS and len(names) > MOST_CLASSES:
        raise PixmedError(
            f"data.class_channels=true: {len(label_names)} labels and what data.condition={condition} shows "
            f"are {len(names)} classes, over {MOST_CLASSES}; set it to false, or join labels in data.meta"
        )
    return names


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

    def around(rows: slice) -> np.ndarray:
        """The anatomy of slices, uint8 [n, S, S], 0 outside of the head."""
        grey = images[rows].mean(axis=-1)
        outlines = head(grey)
        if condition == "tumor+head":
            return outlines.astype(np.uint8)
        return tissues(grey, outlines, masks[rows] > 0, tissue_classes)

    anatomy = _found(around, images, "finding anatomy")
    return np.where((maps == 0) & (anatomy > 0), tumors + anatomy, maps), names
