"""Files of masks that somebody hands over, of whatever format and size: pictures, and volumes by the slice.

Layout: masks [H, W] uint8, the values as stored; one-hot channels become 0 = background and 1 .. K.
Errors: PixmedError in one line that names the file.
"""

import os
from pathlib import Path

import numpy as np

from pixmed_jax.data import arrays, decode, volumes
from pixmed_jax.data.masks import as_uint8, from_one_hot
from pixmed_jax.data.slices import nearest, square_sides
from pixmed_jax.errors import PixmedError

SUFFIXES = tuple(sorted(decode.SUFFIXES | volumes.SUFFIXES))


def slices(path: Path, axis: str, tumors: int) -> list[tuple[str, str, np.ndarray]]:
    """(name, suffix for what is drawn of it, mask) of a picture, or of a volume's slices with a tumour.

    The tumour of a volume is 255, or the values 1 to `tumors`, or the channels of a one-hot mask.
    """
    if path.suffix.lower() in decode.SUFFIXES:
        return [(path.name, "", decode.read_mask(path))]
    if not volumes.is_volume(path):
        raise PixmedError(f"{path}: is no mask; give a picture or a volume ({', '.join(SUFFIXES)})")
    array = volumes.open_array(path, "mask")
    pictures = volumes.stack(array, array.read(), axis)
    deep = len(pictures) > 1
    known = arrays.suffix(path) in volumes.SUFFIXES
    stem = path.name[: -len(arrays.suffix(path))] if known else path.name
    stem = os.fsencode(stem)[:200].decode(errors="ignore")  # names of files end at 255 bytes
    found = []
    for k, stored in enumerate(pictures):
        values = (
            stored if (array.slope, array.intercept) == (1, 0) else stored * array.slope + array.intercept
        )
        mask = as_uint8(np.ascontiguousarray(values), str(path))
        mask = from_one_hot(mask, str(path)) if mask.ndim == 3 else mask
        mask = nearest(mask, *square_sides(mask.shape, volumes.pixel(array, axis), str(path)))
        if deep and not ((mask == 255) | ((mask > 0) & (mask <= tumors))).any():
            continue
        name = f"{path.name}#{k:03d}" if deep else path.name
        found.append((name, f"_{stem}_{k:03d}" if deep else "", mask))
    if not found:
        raise PixmedError(f"{path}: no slice shows a tumour; leave it out, or check the run's data.axis")
    return found


def fitted(mask: np.ndarray, size: int) -> np.ndarray:
    """The mask in the middle of a square, at [size, size], by nearest neighbour: no value is new."""
    side = max(mask.shape)
    square = np.zeros((side, side), np.uint8)
    top, left = (side - mask.shape[0]) // 2, (side - mask.shape[1]) // 2
    square[top : top + mask.shape[0], left : left + mask.shape[1]] = mask
    return nearest(square, size, size)
