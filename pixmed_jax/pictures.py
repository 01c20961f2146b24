"""Pictures for people: grids of masks and images, with headings.

Images here are [N, S, S] or [N, S, S, C] float in [0, 1], label maps [N, S, S] uint8, results PIL images.
"""

import base64
import io
import itertools
from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

# Chosen to differ in lightness as well as in hue.
_BACKGROUND, _HEAD = (0, 0, 0), (84, 90, 104)
_TUMORS = ((230, 85, 60), (70, 160, 235), (245, 200, 65), (60, 180, 130), (190, 120, 220))
_TISSUES = (52, 212)  # darkest and brightest grey
_MARGIN, _HEADING = 4, 22
_CELL = 144  # pixels a side that a cell gets at least
_PAGE = 900  # pixels across that a report gives a picture


def palette(classes: Sequence[str]) -> np.ndarray:
    """[K + 1, 3] uint8: background, then each class; tumours in strong colours, the head in a dull one.

    Tissues ("tissue_1" .. ) are greys, the first one darkest but lighter than the background.
    """
    strong = itertools.cycle(_TUMORS)
    tissues = [name for name in classes if name.startswith("tissue_")]
    greys = dict(zip(tissues, np.linspace(*_TISSUES, len(tissues)).round(), strict=True))

    def colour(name: str) -> tuple[float, ...]:
        if name in greys:
            return (greys[name],) * 3
        return _HEAD if name == "head" else next(strong)

    return np.array([_BACKGROUND, *map(colour, classes)], np.uint8)


def colours(maps: np.ndarray, classes: Sequence[str]) -> np.ndarray:
    """Label maps -> [N, S, S, 3] float in [0, 1]."""
    return palette(classes)[maps] / 255.0


def legend(classes: Sequence[str]) -> list[tuple[str, str]]:
    """[(class, its colour as CSS has it)]."""
    return [
        (name, f"rgb({', '.join(map(str, colour))})")
        for name, colour in zip(classes, palette(classes)[1:].tolist(), strict=True)
    ]


def difference(a: np.ndarray, b: np.ndarray, *, white: float = 0.5) -> np.ndarray:
    """|a - b| of the grey values as a heat map [N, S, S, 3]: black is equal, white `white` or more apart."""
    gap = np.abs(grey(a) - grey(b))
    return matplotlib.colormaps["inferno"](np.clip(gap / white, 0, 1))[..., :3]


def grey(images: np.ndarray) -> np.ndarray:
    """[N, S, S, C] -> [N, S, S], the mean of the channels."""
    return images.mean(axis=-1) if images.ndim == 4 else images


def shown(images: np.ndarray, only_grey: bool) -> np.ndarray:
    """Images [N, S, S, C] as people see them: [N, S, S] where the channels mean one grey value."""
    return grey(images) if only_grey else images


def enlarged(images: np.ndarray, size: int) -> np.ndarray:
    """Images [N, s, s, ..] at [N, size, size, ..], each pixel a square, so that one sees what there is."""
    times = size // images.shape[1]
    return images.repeat(times, axis=1).repeat(times, axis=2)


def grid(columns: Mapping[str, np.ndarray], rows: Sequence[str] = ()) -> Image.Image:
    """One column per entry, headed by its name; one row per image, with its own label where given.

    Columns named "... mask" or "... map" keep their pixels' edges. Pages show a wide picture narrower than it
    is, so its words are larger.
    """
    count, size = next(iter(columns.values())).shape[:2]
    scale = max(1, -(-_CELL // size))
    cell = size * scale
    across = len(columns) * (cell + _MARGIN)
    words = max(1.0, (110 + across) / _PAGE)
    heading, left = round(words * _HEADING), round(words * 110) if rows else _MARGIN
    canvas = Image.new("RGB", (left + across, heading + count * (cell + _MARGIN)), (24, 26, 30))
    draw = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(13 * words)
    for c, (name, images) in enumerate(columns.items()):
        x = left + c * (cell + _MARGIN)
        draw.text((x + cell / 2, heading / 2), name, fill=(225, 225, 225), font=font, anchor="mm")
        for r, image in enumerate(images):
            canvas.paste(
                _picture(image).resize((cell, cell), _resampling(name)), (x, heading + r * (cell + _MARGIN))
            )
    for r, name in enumerate(rows):
        y = heading + r * (cell + _MARGIN) + cell / 2
        draw.multiline_text((_MARGIN, y), name, fill=(170, 170, 170), font=font, anchor="lm")
    return canvas


def outlined(images: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Grey images [N, S, S] with the border of masks [N, S, S] bool drawn on them: [N, S, S, 3]."""
    padded = np.pad(masks, ((0, 0), (1, 1), (1, 1)))
    inside = padded[:, :-2, 1:-1] & padded[:, 2:, 1:-1] & padded[:, 1:-1, :-2] & padded[:, 1:-1, 2:]
    rgb = np.repeat(images[..., None], 3, axis=-1)
    rgb[masks & ~inside] = np.array(_TUMORS[0]) / 255
    return rgb


def disagreement(found: np.ndarray, true: np.ndarray) -> np.ndarray:
    """[N, S, S, 3]: green where both masks are, red where only the true one is, blue where only the other."""
    return np.stack([true & ~found, true & found, found & ~true], axis=-1) * 0.85


def judged(
    images: np.ndarray, labels: np.ndarray, logits: np.ndarray, *, names: Sequence[str], across: int = 6
) -> Image.Image:
    """Images [N, S, S] in rows: what a classifier calls each, how sure it is, and what it is if not that."""
    words, all_right = [], []
    for label, row in zip(labels, logits, strict=True):
        sure = np.exp(row - row.max())
        said = int(row.argmax())
        told = f"{names[said]} {sure[said] / sure.sum():.0%}"
        words.append(told if said == label else f"{told}\nis {names[label]}")
        all_right.append(said == label)
    return captioned(images, words, all_right, across=across)


def captioned(
    images: np.ndarray, words: Sequence[str], right: Sequence[bool], *, across: int = 6
) -> Image.Image:
    """Images [N, S, S] in rows, above each its words, in green or red."""
    tiles = list(map(_tile, images))
    across = min(across, len(tiles))
    heading = 2 * _HEADING - 6 if any("\n" in told for told in words) else _HEADING
    width, height = tiles[0].width + _MARGIN, tiles[0].height + heading
    canvas = Image.new("RGB", (_MARGIN + across * width, -(-len(tiles) // across) * height), (24, 26, 30))
    draw = ImageDraw.Draw(canvas)
    for i, (tile, told, good) in enumerate(zip(tiles, words, right, strict=True)):
        x, y = _MARGIN + i % across * width, i // across * height
        draw.multiline_text(
            (x + tile.width / 2, y + heading / 2),
            told,
            fill=(150, 220, 160) if good else (255, 140, 120),
            font=ImageFont.load_default(13),
            anchor="mm",
            align="center",
        )
        canvas.paste(tile, (x, y + heading))
    return canvas


def _tile(image: np.ndarray) -> Image.Image:
    side = image.shape[0] * max(1, -(-_CELL // image.shape[0]))
    return _picture(image).resize((side, side), Image.Resampling.BICUBIC)


def _resampling(name: str) -> Image.Resampling:
    return Image.Resampling.NEAREST if name.endswith(("mask", "map")) else Image.Resampling.BICUBIC


def _picture(image: np.ndarray) -> Image.Image:
    values = np.clip(np.round(image * 255), 0, 255).astype(np.uint8)
    if values.ndim == 3 and values.shape[-1] == 1:
        values = values[..., 0]
    return Image.fromarray(values).convert("RGB")


def data_uri(picture: Image.Image, form: str = "PNG", *, small: bool = True) -> str:
    """A picture as the address of an <img>, so that a page needs no other file; `small` takes time."""
    data = io.BytesIO()
    picture.save(data, format=form, optimize=small)
    return address(form.lower(), data.getvalue())


def address(form: str, data: bytes) -> str:
    """Of data of that form, which an <img> takes in the place of a file's."""
    return f"data:image/{form};base64," + base64.b64encode(data).decode()
