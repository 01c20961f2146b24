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
    on = enabled(settings)
    shown: dict[str, list[tuple[str, float]]] = {}  # operation -> what is written on a cell, and its value
    for name, setting in on.items():
        low, high = setting.get("range", (1.0, 1.0))
        shown[name] = [(f"{end:g}" if "range" in setting else "", end) for end in (low or high, high)]
    one_each: list[dict[str, float]] = [{}] + [{name: end} for name in on for _, end in shown[name]]
    values = {
        name: np.array([of_cell.get(name, augment.NEUTRAL[name]) for of_cell in one_each], np.float32)
        for name in on
    }
    if "translation" in values:
        values["translation"] = np.stack([values["translation"]] * 2, -1)
    images, maps = _transformed(image, label_map, values, sigma=augment.sigma_of(settings), size=size)

    texts = ["", *(text for name in on for text, _ in shown[name])]
    cells, maps = _cells(images, maps, classes, texts), _coloured(maps, classes)
    rows: list[dict[str, np.ndarray]] = [{"slice": np.stack([cells[0], maps[0]])}, {}]
    for place, name in enumerate(on):
        first, second = 1 + 2 * place, 2 + 2 * place
        below = cells[second] if "range" in on[name] else maps[second]
        rows[name not in GEOMETRY][name.replace("_", " ")] = np.stack([cells[first], below])

    keys = augment.image_keys(jax.random.key(1), _DRAWS)
    drawn = jax.vmap(lambda key: augment.draw(key, settings))(keys)
    images, maps = _transformed(image, label_map, drawn, sigma=augment.sigma_of(settings), size=size)
    cells, maps = _cells(images, maps, classes, [""] * _DRAWS), _coloured(maps, classes)
    rows.append({f"together, {i + 1}": np.stack([cells[i], maps[i]]) for i in range(_DRAWS)})
    return _stacked([pictures.grid(row) for row in rows if row])


def _transformed(
    image: np.ndarray, label_map: np.ndarray, values: Mapping[str, Any], *, sigma: float, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """One slice under many values, [N, size, size, C] and [N, size, size]; each has its own key."""
    floats = jnp.asarray(image, jnp.float32) / np.iinfo(image.dtype).max
    corner = jnp.full(2, (image.shape[0] - size) // 2)

    @jax.jit
    def transform(values: augment.Values, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        image, there = augment.transform(
            floats, jnp.asarray(label_map), values, key, size=size, corner=corner, sigma=sigma
        )
        return jnp.clip(image, 0, 1), there

    keys = augment.image_keys(jax.random.key(0), len(next(iter(values.values()))))
    # One after the other: each is small, and a batch of all of them would be compiled for their number.
    pairs = [transform(*jax.tree.map(lambda x, i=i: x[i], (values, keys))) for i in range(len(keys))]
    return np.stack([pair[0] for pair in pairs]), np.stack([pair[1] for pair in pairs])


def _cells(images: np.ndarray, maps: np.ndarray, classes: Sequence[str], texts: Sequence[str]) -> np.ndarray:
    """[N, S, S, C] and [N, S, S] -> [N, cell, cell, 3], with the maps' outlines and a text each."""
    colours = pictures.palette(classes)
    outlined = [value for value, name in enumerate(classes, 1) if not name.startswith("tissue_")]
    font = ImageFont.load_default(13)
    cells = []
    for image, label_map, text in zip(pictures.grey(images), maps, texts, strict=True):
        grey = Image.fromarray(np.rint(image * 255).astype(np.uint8))
        cell = np.array(grey.resize((_CELL, _CELL), Image.Resampling.BICUBIC).convert("RGB"))
        large = np.asarray(Image.fromarray(label_map).resize((_CELL, _CELL), Image.Resampling.NEAREST))
        for value in outlined:
            region = large == value
            cell[region & ~ndimage.binary_erosion(region)] = colours[value]
        drawn = Image.fromarray(cell)
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
