"""Slices of pictures and volumes, decoded one by one, with their masks: `look`, then `index`, then `read`.

`masks` defines what mask values mean, `intensity` how values become [0, 1]. Volumes are decoded once
for all their slices (`volumes.Cache`).
Errors: PixmedError.
"""

import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from pixmed_jax.data import arrays, decode, intensity, volumes
from pixmed_jax.data import masks as encodings
from pixmed_jax.data.faults import named, raise_all
from pixmed_jax.data.intensity import Limits
from pixmed_jax.data.pairs import Item, path_of, slice_name
from pixmed_jax.data.slices import bicubic, nearest, square_sides
from pixmed_jax.errors import PixmedError, listing
from pixmed_jax.progress import watched

_TOLD: set[str] = set()  # a dataset's mapping is told once, however often it is opened


def tell(line: str) -> None:
    if line not in _TOLD:
        _TOLD.add(line)
        print(line, file=sys.stderr)


class Reader:
    """Decodes slices of the items; `look` first, then `index`, then `read`."""

    def __init__(
        self,
        items: Sequence[Item],
        axis: str,
        rule: str | Limits,
        classes: Sequence[str],
        allow_empty: bool,
        keep_faulty: bool = False,
        whole: bool = False,
    ):
        """whole: the rule "auto" clips nothing of a volume, since its values will be given back."""
        self._items = items
        self._axis = axis
        self._rule = rule
        self._classes = tuple(classes)
        self._allow_empty = allow_empty
        self._keep_faulty = keep_faulty
        self._whole = whole
        self._cache = volumes.Cache()
        self._limits: dict[int, Limits] = {}
        self._counts: list[list[dict[int, int]] | None] = []
        self._colours: dict[int, str] = {}
        self.encoding = encodings.Encoding(("tumor",))

    def look(self, where: Path, label_names: Sequence[str], class_name: str = "tumor") -> None:
        """Read all masks once and recognise their encoding; faults of single pictures are left to `read`."""
        with ThreadPoolExecutor(2) as pool:
            found = pool.map(self._count, range(len(self._items)))
            results = list(watched(found, len(self._items), "reading masks"))
        broken = [
            str(result)
            for item, result in zip(self._items, results, strict=True)
            if isinstance(result, PixmedError) and item.shape[0] > 1 and not self._keep_faulty
        ]
        raise_all(where, named("mask volumes are unusable", broken, "replace them"))
        self._counts = [None if isinstance(result, PixmedError) else result for result in results]
        values = [set(counts) for slices in self._counts for counts in slices or ()]
        try:
            self._colours = encodings.colours(values, label_names)
        except PixmedError as error:
            raise PixmedError(f"{where}: {error}") from error
        if self._colours:
            named_colours = ", ".join(f"{name} = {i}" for i, name in enumerate(self._colours.values(), 1))
            tell(f"{where}: colours: black = 0, {named_colours}")
            self._counts = [
                slices and [encodings.numbers(found, self._colours) for found in slices]
                for slices in self._counts
            ]
            values = [set(counts) for slices in self._counts for counts in slices or ()]
        if self._classes and label_names and set(self._classes) != set(label_names):
            raise PixmedError(
                f"{where}: its files name the classes {listing(self._classes)}, and the table's labels are "
                f"{listing(label_names)}; set data.label_column='' to learn the classes of the masks"
            )
        hot = [i for i, item in enumerate(self._items) if self._is_hot(item)]
        classes = self._classes or (tuple(self._colours.values()) if len(self._colours) > 1 else ())
        if hot and not classes:
            most = max((max(v, default=0) for i in hot for v in self._counts[i] or ()), default=1)
            classes = tuple(label_names) or tuple(f"class {v}" for v in range(1, most + 1))
        self.encoding = encodings.recognise(values, label_names, classes, class_name)
        tell(f"{where}: {encodings.describe(self.encoding, values)}")

    def _count(self, i: int) -> list[dict[int, int]] | PixmedError:
        try:
            item = self._items[i]
            return [dict(encodings.counts(self.raw_mask(i, k))) for k in range(item.shape[0])]
        except PixmedError as error:
            return error

    def kept(self, i: int) -> list[int]:
        """The slices of an item that count; a picture always does."""
        counts, depth = self._counts[i], self._items[i].shape[0]
        if depth == 1 or self._allow_empty or counts is None:
            return list(range(depth))
        return [k for k, found in enumerate(counts) if set(found) - {0}]

    def main_class(self, i: int, k: int) -> int:
        """The label of a slice that no table labels: the class with most pixels."""
        counts = self._counts[i]
        if not self.encoding.own or counts is None:
            return 0
        return max(range(len(self.encoding.values)), key=lambda c: counts[k].get(self.encoding.values[c], 0))

    def shown(self, i: int, k: int) -> int | None:
        """How many classes the mask of a slice shows; None where it could not be read."""
        counts = self._counts[i]
        return None if counts is None else len(set(counts[k]) - {0})

    def mostly_marked(self) -> str:
        """`encodings.mostly_marked` of the masks that could be read."""
        return encodings.mostly_marked([counts for slices in self._counts for counts in slices or ()])

    def check_labels(self, where: Path, rows: Sequence[tuple[int, int]], labels: np.ndarray) -> None:
        """Refuse masks that are `misread` by the labels of their rows; files may name it."""
        if self._classes:
            return
        shown = []
        for (i, k), label in zip(rows, labels.tolist(), strict=True):
            if (counts := self._counts[i]) is not None:
                shown.append((slice_name(self._items[i], k), set(counts[k]), label))
        _, held, own = zip(*shown, strict=True) if shown else ((), (), ())
        if odd := encodings.misread(held, own, self.encoding):
            name, values, label = shown[odd[0]]
            told = encodings.told_misread(values, label, self.encoding)
            raise PixmedError(
                f"{where}: {len(odd)} of {len(shown)} masks do not hold the value of their label ({name}: "
                f"{told}); {encodings.MISREAD}"
            )

    def index(self, rows: Sequence[tuple[int, int]], labels: np.ndarray) -> None:
        self._rows, self._labels = list(rows), labels
        self._counts = []

    def limits(self, row: int) -> Limits:
        """`Source.limits`; costs a decoding unless the slice was just read."""
        i, k = self._rows[row]
        if i not in self._limits:
            self.image(i, k)
        return self._limits[i]

    def pixel_sides(self, i: int) -> tuple[float, float]:
        """Height and width of an item's pixels in millimetres; 1 and 1 where nobody knows."""
        image = self._items[i].image
        return (1.0, 1.0) if isinstance(image, Path) else volumes.pixel(image, self._axis)

    def pixel(self, row: int) -> float | None:
        """`Source.pixel`: pictures, and arrays that say nothing of space, have none."""
        image = self._items[self._rows[row][0]].image
        if isinstance(image, Path) or image.affine is None or not image.sized:
            return None
        return min(self.pixel_sides(self._rows[row][0]))

    def read(self, row: int) -> tuple[np.ndarray, np.ndarray]:
        """`Source.read`."""
        i, k = self._rows[row]
        item = self._items[i]
        image, raw = self.image(i, k), self.raw_mask(i, k)
        image_name, mask_name = path_of(item.image), path_of(item.masks[0])
        if image.min() == image.max() and item.shape[0] == 1:
            raise PixmedError(
                f"{image_name}: every pixel is {image.min()}; remove the pair or export it again"
            )
        mask = encodings.decode(raw, self.encoding, int(self._labels[row]), mask_name)
        if not mask.any() and not self._allow_empty:
            raise PixmedError(
                f"{mask_name}: no tumour pixel; remove the pair or set data.allow_empty_masks=true"
            )
        if mask.all():
            raise PixmedError(f"{mask_name}: no background pixel; export the mask again or set data.masks")
        if isinstance(item.image, Path):
            return image, mask
        sides = square_sides(image.shape, self.pixel_sides(i), image_name)
        if sides == image.shape[:2]:
            return image, mask
        return bicubic(np.atleast_3d(image), *sides).reshape(*sides, *image.shape[2:]), nearest(mask, *sides)

    def image(self, i: int, k: int) -> np.ndarray:
        """One slice, uint8 | uint16, and its item's limits in `_limits`."""
        if self._items[i].fault:
            raise PixmedError(self._items[i].fault)
        image = self._items[i].image
        if isinstance(image, Path):
            values = decode.read_image(image)
            bounds = intensity.type_range(values.dtype)
            keep = self._rule in ("auto", "full")
            if i not in self._limits:
                self._limits[i] = self._find_limits(values[None], bounds, None, str(image), keep)
            return values if keep else intensity.encode(values, self._limits[i])
        pictures = volumes.stack(image, self._cache.read(image), self._axis)
        plain = (image.slope, image.intercept) == (1, 0) and not image.inverted
        full = self._rule == "full" or (self._rule == "auto" and image.dtype == np.uint8)
        if i not in self._limits:
            low, high = self._find_limits(pictures, image.full, image.window, image.name, full, image)
            self._limits[i] = (high, low) if image.inverted else (low, high)
        if full and plain and image.full == intensity.type_range(image.dtype.newbyteorder("=")):
            return np.array(pictures[k], image.dtype.newbyteorder("="), order="C")
        values = self.values(i, k)
        if not np.isfinite(values).all():
            raise intensity.not_finite(values, slice_name(self._items[i], k))
        return intensity.encode(values, self._limits[i])

    def values(self, i: int, k: int) -> np.ndarray:
        """One slice in its file's own units: as stored in a picture, float64 of a volume."""
        image = self._items[i].image
        if isinstance(image, Path):
            return decode.read_image(image)
        pictures = volumes.stack(image, self._cache.read(image), self._axis)
        return np.asarray(pictures[k].astype(np.float64) * image.slope + image.intercept)

    def _find_limits(
        self,
        pictures: np.ndarray,
        full: Limits | None,
        window: Limits | None,
        name: str,
        use_full: bool,
        scaled: arrays.Array | None = None,
    ) -> Limits:
        if not isinstance(self._rule, str):
            return self._rule
        if use_full:
            if full is None:
                raise PixmedError(
                    f"{name}: {pictures.dtype} values have no full range; set data.intensity to percentiles "
                    "or to two numbers"
                )
            return full
        if self._rule == "window":
            if window is None:
                raise PixmedError(
                    f"{name}: names no display window; set data.intensity to percentiles or to two numbers"
                )
            return window
        found = intensity.extremes if self._whole and self._rule == "auto" else intensity.percentiles
        ends = found(pictures, name)
        slope, intercept = (scaled.slope, scaled.intercept) if scaled else (1.0, 0.0)
        low, high = sorted(slope * end + intercept for end in ends)
        return low, high

    def raw_mask(self, i: int, k: int) -> np.ndarray:
        """[H, W] uint8, values as stored; those of one-hot masks, and after `look` of colours, as 1 .. K.

        Before `look`, masks in colours are uint32.
        """
        item = self._items[i]
        if item.fault:
            raise PixmedError(item.fault)
        planes = [self._plane(mask, k) for mask in item.masks]
        if len({plane.shape for plane in planes}) > 1:
            raise PixmedError(f"{path_of(item.masks[0])}: the masks of its image differ in size")
        if len(planes) > 1:
            return encodings.from_one_hot(np.stack(planes, axis=-1), path_of(item.masks[0]))
        (plane,) = planes
        if plane.ndim == 3:
            return encodings.from_one_hot(plane, path_of(item.masks[0]))
        return plane

    def _plane(self, mask: Path | arrays.Array, k: int) -> np.ndarray:
        """[H, W] or [H, W, K] uint8."""
        if isinstance(mask, Path):
            plane = decode.read_mask(mask, colours=True)
            return encodings.from_colours(plane, self._colours, str(mask)) if self._colours else plane
        values = volumes.stack(mask, self._cache.read(mask), self._axis)[k]
        if (mask.slope, mask.intercept) != (1, 0):
            values = values * mask.slope + mask.intercept
        return np.ascontiguousarray(encodings.as_uint8(values, mask.name))

    def _is_hot(self, item: Item) -> bool:
        return len(item.masks) > 1 or any(
            isinstance(mask, arrays.Array) and len(volumes.stack_shape(mask, self._axis)) == 4
            for mask in item.masks
        )
