"""What the page shows of a painting: images with outlines, in HTML, and the mask for the canvas, in JSON.

Pictures are data URIs and outlines are SVG paths, so that nothing is written to disk and everything can be
shown or hidden in the browser.
"""

import json
from collections.abc import Sequence
from typing import Any

import contourpy
import numpy as np
from PIL import Image
from scipy import ndimage

from pixmed_jax import pages, pictures
from pixmed_jax.demo.painter import Painting
from pixmed_jax.demo.scene import Scene, composed, pack, room, unpack
from pixmed_jax.errors import PixmedError


def rendered(painting: Painting, advice: str) -> str:
    """The images, what was read in them, and `advice`, a sentence about the mask or nothing."""
    tiles = []
    for i, image in enumerate(painting.images):
        values = np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)
        found = "" if painting.found is None else outline(painting.found[i])
        dice = None if painting.dice is None else float(painting.dice[i])
        tiles.append({"image": _uri(values), "found": found, "dice": dice})
    return pages.render(
        "pixmed_jax.demo",
        "painting.html.j2",
        tiles=tiles,
        side=painting.images.shape[1],
        outline=outline(painting.mask),
        painting=painting,
        milliseconds=round(painting.seconds * 1000),
        advice=advice,
    )


def _uri(values: np.ndarray) -> str:
    return pictures.data_uri(Image.fromarray(values), small=False)  # which is three times as fast


def outline(mask: np.ndarray) -> str:
    """The border of a mask [S, S] bool as an SVG path, in pixels of the picture, its corners rounded."""
    smooth = ndimage.gaussian_filter(np.pad(mask, 1).astype(np.float32), 0.7)
    lines: Any = contourpy.contour_generator(z=smooth, line_type="Separate").lines(0.5)
    # The middle of pixel i lies at i + 0.5, and the padding has moved everything by one.
    return "".join("M" + "L".join(f"{x - 0.5:.1f} {y - 0.5:.1f}" for x, y in line) + "Z" for line in lines)


def canvas(scene: Scene, drawn: np.ndarray, shown: np.ndarray, colours: np.ndarray, stroke: int) -> str:
    """What the canvas is given: the anatomy as a picture, the tumour as drawn, and as placed by the sliders.

    `colours` [K + 1, 3] are those of `pictures.palette`, of which the tumour's comes last. `stroke` is the
    number of the stroke that this answers: the canvas ignores an answer to an older one.
    """
    return json.dumps(
        {
            "side": len(drawn),
            "anatomy": _uri(colours[scene.anatomy]),
            "colour": "#" + "".join(f"{int(part):02x}" for part in colours[-1]),
            "drawn": pack(drawn),
            "shown": pack(shown & room(scene)),
            "stroke": stroke,
        }
    )


def thumbnail(scene: Scene, classes: Sequence[str]) -> str:
    """A scene's label map as a data URI."""
    label_map = composed(scene, scene.tumor, 1 + classes.index(scene.label))
    return pictures.data_uri(Image.fromarray(pictures.palette(classes)[label_map]))


def read_canvas(text: str, side: int) -> tuple[np.ndarray, int]:
    """(tumour as drawn, number of the stroke) of what the canvas sent; PixmedError for anything else."""
    try:
        sent: Any = json.loads(text)
        drawn, stroke = str(sent["drawn"]), int(sent["stroke"])
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        raise PixmedError("mask: not what this page draws; reload the page") from error
    return unpack(drawn, side), stroke
