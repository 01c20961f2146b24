"""How alike two images of heads are, whoever mirrored, turned, shifted, brightened or smoothed one of them.

What is compared is texture at 32 x 32 pixels: the image, softened a little, less its local mean, divided by
its local standard deviation, so that brightness, contrast and a soft picture matter little. The likeness of a
query to a reference is the greatest correlation of their textures over the query's poses: as it is or
mirrored left to right, turned by up to about 9 degrees and shifted by up to about 4 % of the side, in steps
of half a pixel of 32; and under the other symmetries of the square in whole pixels.

Layout: images [N, S, S] float in [0, 1]; textures [N, 32, 32] float32 of mean 0, all 0 for a flat image,
which then is like nobody. Memory: the result, and some 40 MB.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image
from scipy import ndimage

from pixmed_jax.data.duplicates import TRANSFORMS, transform
from pixmed_jax.progress import watched

SIDE = 32
_SIGMA = 2.5  # pixels of 32, of the local mean and contrast
# Softened by so much, copies between two poses stay near: their median standing fell from 0.3 to 0.2 (1 pixel
# of 64 off) and from 0.37 to 0.17 (softened as by a generator), that of 60 held-out slices stayed at 0.8.
_SOFT = 1.0
_FLOOR = 0.2  # of the image's standard deviation: below it, contrast is noise and not amplified
_FLAT = 1e-3  # of the grey range: a standard deviation below it is no picture
ANGLES = (-6.0, 0.0, 6.0)
SHIFTS = tuple((rows, columns) for rows in (-1, 0, 1) for columns in (-1, 0, 1))
_MIRRORS = ("identity", "flip_left_right")
# Angle in degrees, halves of a pixel down and to the right, symmetries: copies that lie half a pixel off in
# both directions would be found in half of the cases only.
_VIEWS = [
    (angle, half, TRANSFORMS if (angle, half) == (0, (0, 0)) else _MIRRORS)
    for angle in ANGLES
    for half in ((0, 0), (0, 1), (1, 0), (1, 1))
]
_QUERIES, _REFERENCES = 512, 4096  # compared at once: 8 MB of correlations


def textures(images: np.ndarray) -> np.ndarray:
    small = np.stack([_shrunk(image) for image in images]) if len(images) else np.zeros((0, SIDE, SIDE))
    return _normalised(small)


def likeness(queries: np.ndarray, references: np.ndarray, what: str = "comparing") -> np.ndarray:
    """[N, M] float32, -1 to 1, of images [N, S, S] and images [M, T, T]."""
    known = _unit(textures(references)).reshape(len(references), -1)
    result = np.full((len(queries), len(references)), -1.0, np.float32)
    steps = [(start, *view) for start in range(0, len(queries), _QUERIES) for view in _VIEWS]
    for start, angle, half, names in watched(steps, len(steps), what):
        here = slice(start, start + _QUERIES)
        for _, _, moved in _posed(queries[here], angle, half, names):
            for first in range(0, len(references), _REFERENCES):
                there = slice(first, first + _REFERENCES)
                found = result[here, there]
                np.maximum(found, moved @ known[there].T, out=found)
    return result


def aligned(query: np.ndarray, reference: np.ndarray) -> tuple[np.ndarray, str]:
    """The query [S, S] as it is most like the reference, and in words what was done to it."""
    known = _unit(textures(reference[None])).reshape(-1)
    best, pose = -2.0, (0.0, (0, 0), "identity", (0, 0))
    for angle, half, names in _VIEWS:
        for name, shift, moved in _posed(query[None], angle, half, names):
            if (alike := float(moved[0] @ known)) > best + 1e-6:  # the simplest of equal ones
                best, pose = alike, (angle, half, name, shift)
    angle, half, name, shift = pose
    unit, step = len(query) // SIDE, _half(len(query))
    done = transform(shifted(rotated(query[None], angle), half[0] * step, half[1] * step), name)
    done = shifted(done, shift[0] * unit, shift[1] * unit)[0]
    words = ["" if name == "identity" else name.replace("_", " "), f"turned {angle:+.0f}°" if angle else ""]
    words.append("shifted" if any((*half, *shift)) else "")
    return done, ", ".join(word for word in words if word) or "as it is"


def _posed(
    images: np.ndarray, angle: float, half: tuple[int, int], names: Sequence[str]
) -> Iterator[tuple[str, tuple[int, int], np.ndarray]]:
    """(symmetry, shift, unit textures [N, 1024]) of images turned, and moved by halves of a pixel of 32."""
    step = _half(images.shape[1])
    turned = textures(shifted(rotated(images, angle), half[0] * step, half[1] * step))
    for name in names:
        flipped = transform(turned, name)
        for shift in SHIFTS:
            yield name, shift, _unit(shifted(flipped, *shift)).reshape(len(images), -1)


def _half(side: int) -> int:
    """Pixels of `side` in half a pixel of 32."""
    return max(1, side // (2 * SIDE))


def rotated(images: np.ndarray, angle: float) -> np.ndarray:
    """[N, S, S] counter-clockwise by `angle` degrees around the centre; what comes from outside is 0."""
    if angle == 0:
        return images
    return np.asarray(
        ndimage.rotate(images, angle, axes=(2, 1), reshape=False, order=1, mode="constant", cval=0.0)
    )


def shifted(images: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """[N, S, S] down and to the right; what comes from outside is 0."""
    result = np.zeros_like(images)
    height, width = images.shape[1:]
    result[:, max(rows, 0) : height + min(rows, 0), max(columns, 0) : width + min(columns, 0)] = images[
        :, max(-rows, 0) : height + min(-rows, 0), max(-columns, 0) : width + min(-columns, 0)
    ]
    return result


def _shrunk(image: np.ndarray) -> np.ndarray:
    # Pillow's bilinear filter grows with the reduction, so that nothing is aliased.
    return np.asarray(
        Image.fromarray(image.astype(np.float32)).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    )


def _normalised(images: np.ndarray) -> np.ndarray:
    images = _softened(images, _SOFT)
    spread = images.std(axis=(1, 2), keepdims=True)
    detail = images - _softened(images, _SIGMA)
    detail = detail / (np.sqrt(_softened(detail**2, _SIGMA)) + _FLOOR * spread + 1e-6)
    detail -= detail.mean(axis=(1, 2), keepdims=True)
    return np.where(spread < _FLAT, 0, detail).astype(np.float32)


def _softened(images: np.ndarray, sigma: float) -> np.ndarray:
    return np.asarray(ndimage.gaussian_filter(images, (0, sigma, sigma), truncate=2.5))


def _unit(stack: np.ndarray) -> np.ndarray:
    """Each of length 1; what is 0 everywhere stays so."""
    lengths = np.sqrt((stack**2).sum(axis=(1, 2), keepdims=True))
    return np.asarray(stack / np.maximum(lengths, 1e-6), np.float32)
