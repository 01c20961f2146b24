"""Pictures of something else than heads: told from slices of heads, and where masks may lie in them.

Images [N, S, S, C] of whole numbers, masks [N, S, S], 0 where nothing is marked.
"""

from typing import NamedTuple

import numpy as np

from pixmed_jax.data import edits
from pixmed_jax.data.regions import HEADED, heads, known_heads
from pixmed_jax.data.tissues import Survey, region_alone, survey
from pixmed_jax.data.values import coloured

LOOKED = 20  # slices, for whether there are brains
# Of the picture: what heads take, or the largest object where there is none. Of 120 real slices 0.3 to 0.8,
# of pictures without air around their object all, of microscopy in the dark less. The most is of what is lit:
# of 325 real slices 0.86 at most.
_HEADS = (0.1, 0.95)


class Headless(NamedTuple):
    """How many slices show no head, of how many that were looked at."""

    others: int
    looked: int

    @property
    def most(self) -> bool:
        """Whether that decides for all of them."""
        return self.others > self.looked / 2


def without_head(images: np.ndarray, masks: np.ndarray) -> Headless:
    """Of slices that are evenly spaced."""
    some = np.unique(np.linspace(0, len(images) - 1, LOOKED).astype(int))
    surveys = (
        survey(images[i].mean(axis=-1), head, masks[i] > 0)
        for i, head in zip(some, heads(images[some]), strict=True)
    )
    others = sum(no_head(images[i], masks[i], of) for i, of in zip(some, surveys, strict=True))
    return Headless(others, len(some))


def no_head(image: np.ndarray, tumor: np.ndarray, where: Survey) -> bool:
    """Whether a slice [S, S, C] is of something else: in colour, of another size, or without a brain."""
    share = where.head.mean()
    # What fills a picture that is not square fills all but its bars.
    fits = _HEADS[0] <= share <= _HEADS[1] * pictured(image).head.mean()
    return coloured(image) or not fits or edits.refusal(tumor, where) == edits.NO_BRAIN


def heads_of(maps: np.ndarray, images: np.ndarray, masks: np.ndarray, condition: str) -> np.ndarray:
    """bool [N, S, S]: the heads, as `known_heads`; none at all where most pictures are of something else."""
    if condition not in HEADED and without_head(images, masks).most:  # what a map shows has to be one
        return np.zeros(images.shape[:3], bool)
    return known_heads(maps, images, condition)


def scored(maps: np.ndarray, images: np.ndarray, masks: np.ndarray, condition: str) -> dict[str, np.ndarray]:
    """{region: bool [N, S, S]} where images are compared: the whole, the head if there is one, the tumour."""
    return {
        "full": np.ones(images.shape[:3], bool),
        "head": heads_of(maps, images, masks, condition),
        "tumor": masks > 0,
    }


def pictured(image: np.ndarray) -> Survey:
    """Where masks of something else may lie in a picture [S, S, C]: wherever no bar made it square."""
    lit = image.max(axis=-1) > 0
    return region_alone(np.outer(_span(lit.max(axis=1)), _span(lit.max(axis=0))))


def _span(lit: np.ndarray) -> np.ndarray:
    """bool [S]: from the first to the last that is lit, without those that a bar darkened when resized."""
    places, span = np.flatnonzero(lit), np.zeros_like(lit)
    if places.size:
        first, last = places[0], places[-1]
        span[first + (first > 0) : last + 1 - (last < len(lit) - 1)] = True
    return span
