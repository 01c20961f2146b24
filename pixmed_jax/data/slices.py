"""What every source of data offers, and how its slices become arrays of one size.

A `Source` is an index: it knows names, labels and patients of all slices and reads one of them on demand.
`load` reads the chosen rows into a `Slices`: plain arrays in host memory.

Layout: images NHWC uint8 or uint16 (full range of the type stands for [0, 1]), masks NHW uint8 where
0 is background and v > 0 is the tumour class `label_names[v - 1]` (all 1 for a source without labels).
"""

from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeVar

import numpy as np
from PIL import Image

from pixmed_jax.data.decode import MAX_SIDE
from pixmed_jax.errors import NAMED, PixmedError, listing
from pixmed_jax.progress import watched

T = TypeVar("T")
PLANES = ("axial", "coronal", "sagittal")
_UNEQUAL = 1.02  # a pixel whose sides differ by less counts as square
# Image [S, S, C], mask [S, S], whether the tumour was lost, limits, side of a pixel in mm.
Prepared = tuple[np.ndarray, np.ndarray, bool, tuple[float, float], float]


class Source(NamedTuple):
    """An index of slices; nothing is decoded before `read`.

    files:       N unique names, in a fixed order (relative paths for a folder).
    labels:      N ints, index into `label_names`.
    label_names: the tumour classes; `("tumor",)` where the data name none.
    groups:      N patient groups; slices of one patient share one.
    planes:      N strings such as "axial", or "" where unknown.
    given:       N of "train", "val", "test", or names of folds, where the data bring their own, else empty.
    limits:      row -> the values (in the file's units) that stored 0 and the type's maximum stand for, as in
                 `intensity`; None where that is the range of the type for all.
    pixel:       row -> the side in mm of a pixel of what `read` gives, None where unknown; None for all.
    masked:      false for data that have no masks: `read` then gives masks of zeros.
    tumorless:   names of the slices that the index passed over since they show no tumour.
    several:     whether a slice's mask shows several classes, so that its label does not say what is in it.
    counted:     whether nobody named the labels, and each is the class that its slice's mask has most of.
    read:        row -> (image [H, W] or [H, W, C] uint8 | uint16, mask [H, W] uint8 as above).
                 Raises PixmedError for a slice that cannot be used.
    """

    files: tuple[str, ...]
    labels: np.ndarray
    label_names: tuple[str, ...]
    groups: tuple[str, ...]
    planes: tuple[str, ...]
    read: Callable[[int], tuple[np.ndarray, np.ndarray]]
    given: tuple[str, ...] = ()
    limits: Callable[[int], tuple[float, float]] | None = None
    pixel: Callable[[int], float | None] | None = None
    masked: bool = True
    several: bool = False
    tumorless: frozenset[str] = frozenset()
    counted: bool = False

    def take(self, rows: Sequence[int]) -> "Source":
        """The source of these rows alone, in their order."""
        limits, pixel = self.limits, self.pixel
        return self._replace(
            files=tuple(self.files[row] for row in rows),
            labels=self.labels[list(rows)],
            groups=tuple(self.groups[row] for row in rows),
            planes=tuple(self.planes[row] for row in rows),
            given=tuple(self.given[row] for row in rows) if self.given else (),
            read=lambda row: self.read(rows[row]),
            limits=(lambda row: limits(rows[row])) if limits else None,
            pixel=(lambda row: pixel(rows[row])) if pixel else None,
        )


def plane_values(names: Sequence[str]) -> np.ndarray:
    """[N] int32: planes as a network is told them, 1 .. of PLANES, 0 where unknown."""
    return np.array([1 + PLANES.index(name) if name else 0 for name in names], np.int32)


class Slices(NamedTuple):
    """Slices of one size in host memory; all fields have N rows (`label_names` apart)."""

    images: np.ndarray  # [N, S, S, C] uint8 | uint16
    masks: np.ndarray  # [N, S, S] uint8, 0 = background, v = label_names[v - 1]
    labels: np.ndarray  # [N] int32
    label_names: tuple[str, ...]
    groups: tuple[str, ...]
    files: tuple[str, ...]
    # [N, 2] float64, low < high: the values in the files' units that black and white stand for; where a file
    # is stored inverted, its range as it is shown, since what is made of it is not.
    limits: np.ndarray
    pixels: np.ndarray  # [N] float64: the side of a pixel in mm, at this size; NaN where unknown


def load(
    source: Source,
    rows: Sequence[int] | np.ndarray,
    size: int,
    *,
    class_channels: bool = False,
    workers: int = 2,
) -> Slices:
    """Read `rows`, in their order, as `size` x `size` slices.

    A slice that is not square is padded with 0 around its centre first. Images are resized bicubically with
    antialiasing, masks to the nearest pixel. RGB whose channels agree counts as grey (C = 1). Every row is
    tried; then one PixmedError lists all slices that cannot be read, that lose their tumour in the resize
    (`lost`) or that differ in kind (grey or RGB, 8 or 16 bit) from most.
    class_channels: whether the classes in a mask are told apart.
    """
    rows = [int(row) for row in rows]

    def prepare(row: int) -> Prepared | PixmedError:
        try:
            return _prepare(source, row, size, class_channels)
        except PixmedError as error:
            return error

    # Decoding and resizing leave the interpreter lock, so threads are enough; `map` keeps the order.
    with ThreadPoolExecutor(workers) as pool:
        results = list(watched(pool.map(prepare, rows), len(rows), "reading slices"))
    files = tuple(source.files[row] for row in rows)
    loaded = [result for result in results if not isinstance(result, PixmedError)]
    if len(loaded) < len(rows):
        faults = [str(result) for result in results if isinstance(result, PixmedError)]
        raise PixmedError(f"{len(faults)} of {len(rows)} slices cannot be used: {listing(faults, NAMED)}")
    if not loaded:
        raise PixmedError("no slices to load; choose a split that has some")
    images, masks, losses, limits, pixels = zip(*loaded, strict=True)
    if source.masked and any(losses):
        names = [name for name, gone in zip(files, losses, strict=True) if gone]
        raise PixmedError(
            f"{len(names)} slices lose a tumour at {size} x {size} ({listing(names)}); set a larger data.size"
        )
    _check_same_kind(images, files)
    return Slices(
        images=np.stack(images),
        masks=np.stack(masks),
        labels=source.labels[rows].astype(np.int32),
        label_names=source.label_names,
        groups=tuple(source.groups[row] for row in rows),
        files=files,
        limits=np.array(limits, np.float64),
        pixels=np.array(pixels, np.float64),
    )


def _prepare(source: Source, row: int, size: int, class_channels: bool) -> Prepared:
    image, mask = source.read(row)
    low, high = sorted(source.limits(row)) if source.limits else (0.0, float(np.iinfo(image.dtype).max))
    image, whole = squared(grey_if_equal(image)), squared(mask)
    mask = resized(whole, size)
    gone, _ = lost(whole, mask, int(source.labels[row]) + 1 if class_channels else 0)
    side = source.pixel(row) if source.pixel else None
    pixel = np.nan if side is None else side * len(whole) / size
    return image if len(image) == size else bicubic(image, size, size), mask, gone, (low, high), pixel


def grey_if_equal(image: np.ndarray) -> np.ndarray:
    """[H, W] or [H, W, C] -> [H, W, C], with C = 1 where all channels agree."""
    image = image[..., None] if image.ndim == 2 else image
    return image[..., :1] if np.array_equal(image, np.broadcast_to(image[..., :1], image.shape)) else image


def squared(image: np.ndarray) -> np.ndarray:
    """[H, W, ...] -> the same with zeros around it, of equal sides."""
    height, width = image.shape[:2]
    if height == width:
        return image
    top, left = max(0, width - height) // 2, max(0, height - width) // 2
    around = ((top, max(0, width - height) - top), (left, max(0, height - width) - left))
    return np.pad(image, (*around, *((0, 0),) * (image.ndim - 2)))


def resized(mask: np.ndarray, size: int) -> np.ndarray:
    """[S, S] -> [size, size]."""
    return mask if mask.shape == (size, size) else nearest(mask, size, size)


def lost(mask: np.ndarray, small: np.ndarray, own: int = 0) -> tuple[bool, bool]:
    """Whether a resize of a mask lost its tumour, and whether it lost any class.

    own: the class that the slice is labelled with, without which its label would be untrue; 0: any will do.
    """
    if small is mask:
        return False, False
    before, after = (set(np.flatnonzero(np.bincount(m.ravel()))) for m in (mask, small))
    assert after <= before, f"the resize made the mask values {after - before}"
    gone = before - after - {0}
    return bool(gone) and (after <= {0} or own in gone), bool(gone)


def bicubic(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """[H, W, C] uint8 | uint16, smoothed before it shrinks."""
    # Mode "F" is the one that takes 8 and 16 bits alike; pillow filters bicubic for the scale when shrinking.
    channels = [Image.fromarray(channel.astype(np.float32)) for channel in np.moveaxis(image, -1, 0)]
    made = [np.asarray(channel.resize((width, height), Image.Resampling.BICUBIC)) for channel in channels]
    # Bicubic overshoots at edges, and a cast without the clip would turn white into black there.
    return np.rint(np.stack(made, -1).clip(0, np.iinfo(image.dtype).max)).astype(image.dtype)


def nearest(mask: np.ndarray, height: int, width: int) -> np.ndarray:
    """[H, W] uint8: no value is new."""
    return np.asarray(Image.fromarray(mask).resize((width, height), Image.Resampling.NEAREST))


def square_sides(shape: Sequence[int], pixel: tuple[float, float], name: str) -> tuple[int, int]:
    """(height, width) that a picture [H, W, ...] has once its pixels are square, the shorter side's size.

    pixel: their height and width now, in any unit. Sides that differ by a rounding are taken for equal.
    """
    (height, width), least = shape[:2], min(pixel)
    if max(pixel) < _UNEQUAL * least:
        return height, width
    sides = round(height * pixel[0] / least), round(width * pixel[1] / least)
    if max(sides) > MAX_SIDE:
        raise PixmedError(
            f"{name}: pixels of {pixel[0]:g} x {pixel[1]:g} mm would make pictures of {sides[0]} x {sides[1]}"
            "; resample it, or cut it along another data.axis"
        )
    return sides


def check_channels(found: int, channels: int) -> None:
    """Refuse images of so many channels for a network of `channels`; grey ones are repeated."""
    if found not in (1, 3):
        raise PixmedError(
            f"images have {found} channels, and networks take 1 or 3; save one or three of them as files of "
            "their own"
        )
    if found not in (1, channels):
        raise PixmedError(f"images have {found} channels and data.channels={channels}; set it to {found}")


def kind_of(image: np.ndarray) -> str:
    """Depth and channels of an image [H, W, C] in words: images of a data set have to agree in them."""
    channels = {1: "grey", 3: "RGB"}.get(image.shape[-1], f"of {image.shape[-1]} channels")
    return f"{image.dtype.itemsize * 8} bit {channels}"


def _check_same_kind(images: Sequence[np.ndarray], files: Sequence[str]) -> None:
    """All slices have the bit depth and the channels of the most frequent kind."""
    kinds = [kind_of(image) for image in images]
    (usual, count), *others = Counter(kinds).most_common()
    if others:
        odd = [f"{name} {kind}" for name, kind in zip(files, kinds, strict=True) if kind != usual]
        raise PixmedError(
            f"{count} slices are {usual} but {len(odd)} are not ({listing(odd)}); convert or remove them"
        )
