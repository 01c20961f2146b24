"""Which label maps that a model drew may pass for slices: by the rules that edits of tumours obey.

The brain is looked for as in slices, in a picture that gives each tissue its usual shade; where a condition
knows no tissues the head stands for it, and where it knows no head the whole image.

Layout: label maps uint8 [S, S], `classes` naming the values 1 .. K (see `regions.py`).
All functions are pure.
"""

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from pixmed_jax.data import edits
from pixmed_jax.data.regions import is_tumor
from pixmed_jax.data.tissues import BRIGHT, DARK, Survey, region_alone, survey

_CROWN = 0.9  # of a head or of a tumour at least is one piece
_ALL = np.ones((3, 3))  # pixels that meet at a corner hang together


def tidied(label_map: np.ndarray, classes: Sequence[str]) -> np.ndarray:
    """The map without crumbs: what lies beside the head becomes background, beside the tumour what is around.

    Only the largest piece of either stays.
    """
    tumors = sum(map(is_tumor, classes))
    told = label_map.copy()
    told[~_largest(label_map > 0)] = 0
    tumor = (told > 0) & (told <= tumors)
    crumbs = tumor & ~_largest(tumor)
    return edits.without(told, crumbs, (told > tumors) if len(classes) > tumors else ~tumor)


def refusal(label_map: np.ndarray, value: int, classes: Sequence[str]) -> str:
    """Why a map cannot be a slice with a tumour of class `value`, in a few words; "" if it can."""
    tumors = sum(map(is_tumor, classes))
    tumor = np.where(label_map <= tumors, label_map, 0)
    if not tumor.any():
        return "no tumour"
    if set(np.unique(tumor)) - {0, value}:
        return "a tumour of another class"
    if len(classes) > tumors and _in_pieces(label_map > 0):
        return "a head in pieces"
    if _in_pieces(tumor > 0):
        return "a tumour in pieces"
    return edits.refusal(tumor, surveyed(label_map, classes))


def surveyed(label_map: np.ndarray, classes: Sequence[str]) -> Survey:
    """Where head and brain are, as far as the map says."""
    tumors = sum(map(is_tumor, classes))
    tissues = sum(name.startswith("tissue_") for name in classes)
    tumor = (label_map > 0) & (label_map <= tumors)
    head = label_map > 0 if len(classes) > tumors else np.ones_like(tumor)
    if not tissues:
        return region_alone(head)
    return survey(shades(tissues, tumors)[label_map], head, tumor)


def shades(tissues: int, tumors: int) -> np.ndarray:
    """[1 + K] float32: the intensity of each value, 1 being usual tissue's, a tumour's too."""
    own = [1.0]
    if tissues > 1:
        limits = np.linspace(DARK, BRIGHT, tissues - 1)
        own = [limits[0] - 0.2, *(limits[1:] + limits[:-1]) / 2, limits[-1] + 0.2]
    return np.array([0.0, *[1.0] * tumors, *own], np.float32)


def _largest(region: np.ndarray) -> np.ndarray:
    parts, _ = ndimage.label(region, _ALL)
    areas = np.bincount(parts.ravel())
    areas[0] = 0
    return region & (parts == areas.argmax())


def _in_pieces(region: np.ndarray) -> bool:
    return bool(_largest(region).sum() < _CROWN * region.sum())
