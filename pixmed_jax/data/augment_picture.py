"""A picture of what augmentation does to one slice: each operation at the ends of its range, and all of them.

An operation whose range begins where it does nothing is shown at its strongest twice, by two keys. Images are
shown with the outline of what the map calls a tumour or a head; tissues are left to the last rows.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from pixmed_jax import pictures
from pixmed_jax.data import augment
from pixmed_jax.data.augment_settings import Settings, enabled

_CELL, _COLUMNS = 144, 8


def picture(
    image: np.ndarray, label_map: np.ndarray, classes: Sequence[str], settings: Settings, *, size: int
) -> Image.Image:
    """One slice [L, L, C] uint8 | uint16 with its map [L, L], in windows of size x size."""
    floats = jnp.asarray(image, jnp.float32) / np.iinfo(image.dtype).max
    corner = jnp.full(2, (image.shape[0] - size) // 2)
    always = {name: {**setting, "p": 1.0} for name, setting in enabled(settings).items()}

    def at(name: str, value: float, seed: int) -> np.ndarray:
        only = {name: {**always[name], "range": (value, value)}}
        return _cell(*_augmented(floats, label_map, only, size, corner, 1, seed), classes, f"{value:g}")[0]

    # In a window of its own, the slice as it is: the crop is part of augmenting.
    whole = slice(int(corner[0]), int(corner[0]) + size)
    shown, map_there = np.asarray(floats)[None, whole, whole], label_map[None, whole, whole]
    columns = {"slice": [_cell(shown, map_there, classes, "")[0], _map(map_there, classes)[0]]}
    for name, setting in always.items():
        low, high = setting.get("range", (1.0, 1.0))
        low = high if low == 0 else low
        columns[name.replace("_", " ")] = [at(name, low, 0), at(name, high, 1)]
    names = list(columns)
    parts = [
        pictures.grid({name: np.stack(columns[name]) for name in names[i : i + _COLUMNS]})
        for i in range(0, len(names), _COLUMNS)
    ]
    images, maps = _augmented(floats, label_map, settings, size, corner, _COLUMNS, 2)
    together, below = _cell(images, maps, classes, ""), _map(maps, classes)
    draws = {f"together, {i + 1}": np.stack([together[i], below[i]]) for i in range(_COLUMNS)}
    return _stacked([*parts, pictures.grid(draws)])


def _augmented(
    image: jax.Array,
    label_map: np.ndarray,
    settings: Settings,
    size: int,
    corner: jax.Array,
    count: int,
    seed: int,
) -> tuple[np.ndarray, np.ndarray]:
    def repeated(x: Any) -> jax.Array:
        return jnp.broadcast_to(jnp.asarray(x), (count, *x.shape))

    keys = augment.image_keys(jax.random.key(seed), count)
    pairs = augment.pairs(
        repeated(image), repeated(label_map), keys, settings, size=size, corners=repeated(corner)
    )
    return np.asarray(pairs[0]), np.asarray(pairs[1])


def _cell(images: np.ndarray, maps: np.ndarray, classes: Sequence[str], text: str) -> np.ndarray:
    """[N, S, S, C] and [N, S, S] -> [N, cell, cell, 3], with the maps' outlines and a line of text."""
    colours = pictures.palette(classes)
    outlined = [value for value, name in enumerate(classes, 1) if not name.startswith("tissue_")]
    cells = []
    for image, label_map in zip(pictures.grey(images), maps, strict=True):
        grey = Image.fromarray(np.rint(image * 255).astype(np.uint8))
        cell = np.array(grey.resize((_CELL, _CELL), Image.Resampling.BICUBIC).convert("RGB"))
        large = np.asarray(Image.fromarray(label_map).resize((_CELL, _CELL), Image.Resampling.NEAREST))
        for value in outlined:
            region = large == value
            cell[region & ~ndimage.binary_erosion(region)] = colours[value]
        drawn = Image.fromarray(cell)
        if text:
            font = ImageFont.load_default(13)
            ImageDraw.Draw(drawn).text((4, _CELL - 4), text, (255, 255, 255), font, anchor="ls")
        cells.append(np.asarray(drawn) / 255)
    return np.stack(cells)


def _map(maps: np.ndarray, classes: Sequence[str]) -> np.ndarray:
    coloured = np.rint(pictures.colours(maps, classes) * 255).astype(np.uint8)
    cells = [Image.fromarray(x).resize((_CELL, _CELL), Image.Resampling.NEAREST) for x in coloured]
    return np.stack([np.asarray(cell) / 255 for cell in cells])


def _stacked(parts: Sequence[Image.Image]) -> Image.Image:
    """One below the other, on the ground of the widest."""
    whole = Image.new(
        "RGB", (max(p.width for p in parts), sum(p.height for p in parts)), parts[0].getpixel((0, 0))
    )
    top = 0
    for part in parts:
        whole.paste(part, (0, top))
        top += part.height
    return whole
