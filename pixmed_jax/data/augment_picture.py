"""A picture of what augmentation does to one slice: each operation at the ends of its range, and all of them.

An operation whose range begins where it does nothing is shown at its strongest twice, by two keys. Images are
shown with the outline of what the map calls a tumour or a head; tissues show in the coloured maps alone.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from pixmed_jax import pictures
from pixmed_jax.data import augment
from pixmed_jax.data.augment_settings import GEOMETRY, Settings, enabled
from pixmed_jax.data.sources import Dataset

_CELL, _DRAWS = 144, 8
_LOOKED_AT = 12  # training slices, of which the one with the largest tumour is shown


def of_training(dataset: Dataset, settings: Settings) -> Image.Image:
    """The picture of one of the slices that a generator is trained on."""
    arrays, slices = dataset.load(dataset.spread("train", _LOOKED_AT), dataset.load_size)
    row = np.count_nonzero(slices.masks, axis=(1, 2)).argmax()
    maps, classes = np.asarray(arrays.maps), dataset.classes
    if maps.ndim == 1:  # the label is all that the generator is told; the tumour still shows what moves
        maps, classes = slices.masks, slices.label_names
    return picture(np.asarray(arrays.images)[row], maps[row], classes, settings, size=dataset.size)


def picture(
    image: np.ndarray, label_map: np.ndarray, classes: Sequence[str], settings: Settings, *, size: int
) -> Image.Image:
    """One slice [L, L, C] uint8 | uint16 with its map [L, L], in windows of size x size."""
    floats = jnp.asarray(image, jnp.float32) / np.iinfo(image.dtype).max
    corner = jnp.full(2, (image.shape[0] - size) // 2)

    def drawn(settings: Settings, seed: int, text: str = "", count: int = 1) -> tuple[np.ndarray, np.ndarray]:
        images, maps = _augmented(floats, label_map, settings, size, corner, count, seed)
        return _cells(images, maps, classes, text), _coloured(maps, classes)

    def column(name: str, setting: Mapping[str, Any]) -> np.ndarray:
        if "range" not in setting:
            return np.concatenate(drawn({name: {"p": 1.0}}, 0))
        low, high = setting["range"]
        ends = (low if low else high, high)
        return np.concatenate(
            [
                drawn({name: {**setting, "p": 1.0, "range": (end, end)}}, seed, f"{end:g}")[0]
                for seed, end in enumerate(ends)
            ]
        )

    rows: list[dict[str, np.ndarray]] = [{"slice": np.concatenate(drawn({}, 0))}, {}]
    for name, setting in enabled(settings).items():
        rows[name not in GEOMETRY][name.replace("_", " ")] = column(name, setting)
    together = np.stack(drawn(settings, 2, count=_DRAWS))
    rows.append({f"together, {i + 1}": together[:, i] for i in range(_DRAWS)})
    return _stacked([pictures.grid(row) for row in rows if row])


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


def _cells(images: np.ndarray, maps: np.ndarray, classes: Sequence[str], text: str) -> np.ndarray:
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


def _coloured(maps: np.ndarray, classes: Sequence[str]) -> np.ndarray:
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
