"""Copies and near-copies of slices, within one set and between two.

A copy is found when it was mirrored, rotated by a multiple of 90 degrees, resized (also to another aspect),
encoded again, or brightened, darkened, sharpened or smoothed. It is not found when it was cropped, shifted by
more than about one percent, or rotated by any other angle.

What is compared is texture: the image less its local mean, divided by its local standard deviation. Against
plain intensities it has two advantages. It hardly changes with brightness, contrast and gamma; and
neighbouring slices of one patient, which share the head's outline and most of its brightness, share little of
it. Every pair is first compared at 32 x 32 pixels under all eight symmetries of the square (matrix products),
the similar ones again at 96 x 96; the similarity is the correlation there. A copy agrees everywhere, a
neighbouring slice in the skull more than elsewhere, so the least similar parts are asked as well. Slices of
one patient less than 2 mm apart pass as copies nevertheless.

Layout: images [H, W] or [H, W, 3], uint8 or uint16; textures int8, 0 everywhere for an image too flat to be
compared, which then is nobody's copy. Memory: 14 kB an image and some 300 MB at most.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy import ndimage

from pixmed_jax.progress import watched

# The symmetries of the square by pillow's names (`Image.Transpose`); rotations are counter-clockwise.
TRANSFORMS = (
    "identity",
    "flip_left_right",
    "flip_top_bottom",
    "rotate_180",
    "rotate_90",
    "rotate_270",
    "transpose",
    "transverse",
)
# On 2,578 slices of 169 patients, other slices of a patient reach 0.82 (0.65 in their parts), and copies made
# by mirroring, resizing and JPEG 0.98 (0.88); those that were sharpened into drawings go down to 0.82 (0.65).
COPY = 0.85
_PARTS = 0.7
_PART = 16  # pixels a side; the tenth of the parts that is least similar has to reach _PARTS
_CANDIDATE = 0.7  # at 32 x 32, where copies have 0.85 and more
_FINE, _COARSE = 96, 32
_FLOOR = 0.2  # of the image's standard deviation: below it, contrast is noise and not amplified
_FLAT = 0.1  # root mean square of a texture; slices have 0.5
_STEP = 32  # int8 levels per unit of texture
_TILE = 2048  # images a side compared at once: 16 MB of scores
_BATCH = 512  # pairs compared at 96 x 96 at once: 38 MB
_MOST = 100  # others told of one file, or a set of n equal images would have n^2 pairs
_PAIR = np.dtype(
    [("file", np.int64), ("other", np.int64), ("transform", np.int8), ("similarity", np.float32)]
)


class Texture(NamedTuple):
    """What is kept of one image, or, stacked, of N images."""

    coarse: np.ndarray  # [32, 32] int8
    fine: np.ndarray  # [96, 96] int8


class Copy(NamedTuple):
    """Row `file` of the first set is row `other` of the second; within one set, `file` is the later row."""

    file: int
    other: int
    transform: str  # what turns `file` into `other`, one of TRANSFORMS
    similarity: float  # correlation of the textures, COPY to 1


def texture(image: np.ndarray) -> Texture:
    """The texture of one image."""
    picture = Image.fromarray(image if image.dtype == np.uint8 else image.astype(np.float32))
    grey = picture if picture.mode in ("L", "F") else picture.convert("L")
    fine = np.asarray(grey.resize((_FINE, _FINE), Image.Resampling.BILINEAR), np.float32)
    ratio = _FINE // _COARSE
    coarse = fine.reshape(_COARSE, ratio, _COARSE, ratio).mean(axis=(1, 3))
    return Texture(_normalise(coarse, 2.5), _normalise(fine, 2.0))


def stack(textures: Sequence[Texture]) -> Texture:
    """N textures as one."""
    return Texture(np.stack([t.coarse for t in textures]), np.stack([t.fine for t in textures]))


def copies(files: Texture, others: Texture | None = None) -> list[Copy]:
    """All pairs of copies between two sets of N and M textures; within `files` without `others`.

    A pair occurs once, under its best transform; of more than 100 copies of one file the most similar are
    told. Sorted by rows.
    """
    within = others is None
    second = files if others is None else others
    first_coarse, second_coarse = _unit(files.coarse), _unit(second.coarse)
    starts = range(0, len(files.coarse), _TILE)
    tiles = [(i, j) for i in starts for j in range(0, i + 1 if within else len(second.coarse), _TILE)]
    found: dict[int, np.ndarray] = {}  # by the tile's first row
    for i, j in watched(tiles, len(tiles), "looking for copies"):
        targets = second_coarse[j : j + _TILE].reshape(-1, _COARSE**2)
        pairs = [found.get(i, np.zeros(0, _PAIR))]
        for number, name in enumerate(TRANSFORMS):
            turned = transform(first_coarse[i : i + _TILE], name).reshape(-1, _COARSE**2)
            rows, columns = np.nonzero(turned @ targets.T > _CANDIDATE)
            rows, columns = rows + i, columns + j
            if within:
                rows, columns = rows[columns < rows], columns[columns < rows]
            pairs.append(_compare(files.fine, second.fine, rows, columns, number))
        found[i] = _best(np.concatenate(pairs))
    return [
        Copy(int(p["file"]), int(p["other"]), TRANSFORMS[p["transform"]], float(p["similarity"]))
        for part in found.values()
        for p in part
    ]


def transform(images: np.ndarray, name: str) -> np.ndarray:
    """[..., H, W] under one of TRANSFORMS."""
    if name in ("transpose", "transverse", "rotate_90", "rotate_270"):
        images = images.swapaxes(-1, -2)
    if name in ("flip_top_bottom", "rotate_180", "rotate_90", "transverse"):
        images = images[..., ::-1, :]
    if name in ("flip_left_right", "rotate_180", "rotate_270", "transverse"):
        images = images[..., ::-1]
    return images


def _normalise(image: np.ndarray, sigma: float) -> np.ndarray:
    """[S, S] float32 -> its texture, int8."""
    detail = image - ndimage.gaussian_filter(image, sigma, truncate=2.5)
    contrast = np.sqrt(ndimage.gaussian_filter(detail**2, sigma, truncate=2.5))
    # Half a grey level more, or the rounding of a nearly black image would become its texture.
    detail /= contrast + _FLOOR * image.std() + 0.5
    detail -= detail.mean()
    if detail.std() < _FLAT:
        return np.zeros(image.shape, np.int8)
    return np.rint(np.clip(detail * _STEP, -127, 127)).astype(np.int8)


def _unit(textures: np.ndarray) -> np.ndarray:
    """[N, S, S] int8 -> float32 of length 1 each; flat ones stay 0."""
    values = textures.astype(np.float32)
    lengths = np.sqrt((values**2).sum(axis=(1, 2), keepdims=True))
    return values / np.maximum(lengths, 1)


def _compare(
    first: np.ndarray, second: np.ndarray, rows: np.ndarray, columns: np.ndarray, number: int
) -> np.ndarray:
    """Those of the pairs of fine textures that are copies under a transform."""
    parts = [np.zeros(0, _PAIR)]
    for start in range(0, len(rows), _BATCH):
        part = np.zeros(len(rows[start : start + _BATCH]), _PAIR)
        part["file"], part["other"] = rows[start : start + _BATCH], columns[start : start + _BATCH]
        part["transform"] = number
        a, b = transform(_unit(first[part["file"]]), TRANSFORMS[number]), _unit(second[part["other"]])
        part["similarity"] = np.einsum("nhw,nhw->n", a, b)
        near = part["similarity"] >= COPY
        parts.append(part[near][_least_part(a[near], b[near]) >= _PARTS])
    return np.concatenate(parts)


def _least_part(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The lowest tenth of the correlations in the parts of pairs [N, S, S], without parts that are air."""
    cut = (len(a), _FINE // _PART, _PART, _FINE // _PART, _PART)
    a, b = a.reshape(cut), b.reshape(cut)
    energy = np.sqrt((a * a).sum(axis=(2, 4)) * (b * b).sum(axis=(2, 4))).reshape(
        len(a), (_FINE // _PART) ** 2
    )
    heard = energy > 0.25 * energy.mean(axis=1, keepdims=True)
    correlation = (a * b).sum(axis=(2, 4)).reshape(energy.shape) / np.maximum(energy, 1e-12)
    ordered = np.sort(np.where(heard, correlation, np.inf), axis=1)
    return np.take_along_axis(ordered, heard.sum(axis=1, keepdims=True) // 10, axis=1)[:, 0]


def _best(pairs: np.ndarray) -> np.ndarray:
    """Each pair once, under its best transform (the first of equals), and a file's most similar ones only."""
    order = np.lexsort((pairs["transform"], -pairs["similarity"], pairs["other"], pairs["file"]))
    pairs = pairs[order]
    new = (np.diff(pairs["file"], prepend=-1) != 0) | (np.diff(pairs["other"], prepend=-1) != 0)
    pairs = pairs[new]
    pairs = pairs[np.lexsort((-pairs["similarity"], pairs["file"]))]
    _, first, of_file = np.unique(pairs["file"], return_index=True, return_inverse=True)
    pairs = pairs[np.arange(len(pairs)) - first[of_file] < _MOST]
    return pairs[np.lexsort((pairs["other"], pairs["file"]))]
