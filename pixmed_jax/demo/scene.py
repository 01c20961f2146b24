"""What a drawn mask means: a tumour moved and scaled by sliders, set into an anatomy, packed for the page.

Layout: tumours bool [S, S]; label maps uint8 [S, S], 0 = background, encoded as in `data/regions.py`. On the
way to and from the page a tumour is the base64 text of its bits, row by row, the first pixel in the highest
bit: its length alone says whether it fits, and no decoder meets what a page sends.
All functions are pure. Errors: PixmedError for text that is no tumour of that side.
"""

import base64
import binascii
from typing import NamedTuple

import numpy as np

from pixmed_jax.data.edits import moved, refusal, scaled
from pixmed_jax.data.tissues import Survey
from pixmed_jax.errors import PixmedError

SIZES = (25.0, 300.0)  # per cent of the drawn width
SHIFTS = (-50.0, 50.0)  # per cent of the side


class Scene(NamedTuple):
    """A head to draw into, and the tumour that it starts with."""

    name: str
    anatomy: np.ndarray  # label map without tumours; all 0 for a model that is told the tumour alone
    tumor: np.ndarray
    label: str  # the tumour's class
    where: Survey | None = None  # where things are in the slice, if it is known


class Placement(NamedTuple):
    """How a tumour differs from the drawn one: its width, and its way to the right and down, in per cent."""

    size: float = 100.0
    right: float = 0.0
    down: float = 0.0


AS_DRAWN = Placement()


def placed(tumor: np.ndarray, to: Placement) -> np.ndarray:
    """The tumour scaled about its own middle, then moved; what leaves the picture is not seen."""
    if not tumor.any() or to == AS_DRAWN:
        return tumor
    size, right, down = (
        float(np.clip(value, *limits)) for value, limits in zip(to, (SIZES, SHIFTS, SHIFTS), strict=True)
    )
    side = len(tumor) / 100
    grown = scaled(tumor.astype(np.uint8), size / 100)
    return moved(grown, round(down * side), round(right * side)) > 0


def room(scene: Scene) -> np.ndarray:
    """bool [S, S]: where a tumour can be, the head; everywhere if the model knows of none."""
    head = scene.anatomy > 0
    return head if head.any() else np.ones_like(head)


def composed(scene: Scene, tumor: np.ndarray, value: int) -> np.ndarray:
    """The label map of the scene's anatomy with the tumour in it, as far as the head goes."""
    return np.where(tumor & room(scene), value, scene.anatomy).astype(np.uint8)


def advice(scene: Scene, tumor: np.ndarray) -> str:
    """Why a patient would not have this tumour, in a few words; "" if one may, or if none can tell."""
    seen = tumor & room(scene)
    if scene.where is None or not seen.any() or not scene.where.brain.any():
        return ""
    return refusal(seen, scene.where)


def pack(tumor: np.ndarray) -> str:
    return base64.b64encode(np.packbits(tumor).tobytes()).decode()


def unpack(text: str, side: int) -> np.ndarray:
    """The tumour in a text that anybody may have sent."""
    expected = -(-side * side // 8)
    try:
        data = base64.b64decode(text, validate=True) if len(text) <= 4 * expected else b""
    except (binascii.Error, ValueError) as error:
        raise PixmedError("mask: not what this page draws; reload the page") from error
    if len(data) != expected:
        raise PixmedError(f"mask: {len(data)} bytes instead of {expected}; reload the page")
    bits = np.unpackbits(np.frombuffer(data, np.uint8), count=side * side)
    return bits.reshape(side, side).astype(bool)
