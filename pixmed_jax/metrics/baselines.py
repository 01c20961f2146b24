"""What no generator is needed for: each class of a map in its mean grey value, the mean training image, the
training slice with the nearest mask, or any.

A generator that does not beat these has learnt nothing about how a mask determines an image. Class means are
the strongest where classes are bands of the very slice's grey values, as tissues are: they show what the map
itself gives away.
"""

import numpy as np
from scipy import ndimage

BLURS = (0.0, 0.5, 0.7, 1.0)  # pixels, of which training slices choose one
_FITTED = 128  # training slices that choose it: a second at 256x256
_CHUNK = 256  # training slices compared at a time: bounds memory to about 70 MB at 256x256


def mean_image(images: np.ndarray) -> np.ndarray:
    """[N, S, S] any dtype -> [S, S] float64, accumulated without a float copy of the whole set."""
    return images.sum(axis=0, dtype=np.float64) / len(images)


def class_means(images: np.ndarray, maps: np.ndarray, classes: int) -> np.ndarray:
    """Mean value of each class of the label maps [N, S, S], 0 (background) .. `classes`, over the images
    [N, S, S, C] of any dtype: [classes + 1] float64, in the images' unit.

    A class that no map has gets the mean of all pixels. One image at a time is read as floats.
    """
    sums, counts = np.zeros(classes + 1), np.zeros(classes + 1)
    for image, own in zip(images, maps, strict=True):
        grey = image.mean(axis=-1, dtype=np.float64)
        sums += np.bincount(own.ravel(), grey.ravel(), minlength=classes + 1)
        counts += np.bincount(own.ravel(), minlength=classes + 1)
    return np.where(counts > 0, sums / np.maximum(counts, 1), sums.sum() / counts.sum())


def painted(maps: np.ndarray, means: np.ndarray, blur: float = 0.0) -> np.ndarray:
    """Label maps [N, S, S] with each class in its mean, blurred by a Gaussian of `blur` pixels: float32."""
    flat = means.astype(np.float32)[maps]
    return ndimage.gaussian_filter(flat, (0, blur, blur)) if blur else flat


def best_blur(images: np.ndarray, maps: np.ndarray, means: np.ndarray) -> float:
    """The blur of BLURS with which painted maps are closest to their training slices, by squared error."""
    rows = np.unique(np.linspace(0, len(maps) - 1, _FITTED).round().astype(int))
    real = images[rows].mean(axis=-1, dtype=np.float64)
    return min(BLURS, key=lambda blur: float(np.square(painted(maps[rows], means, blur) - real).mean()))


def nearest_masks(maps: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """For each label map [N, S, S] the index of the most alike of `candidates` [M, S, S], [N] int.

    Likeness is the number of pixels with the same class over the number where either has any: the Jaccard
    index, which for a lone tumour class is the usual intersection over union. Ties go to the lowest index.
    """
    likeness = np.zeros((len(maps), len(candidates)))
    flat = maps.reshape(len(maps), -1)
    classes = range(1, int(maps.max(initial=0)) + 1)
    for start in range(0, len(candidates), _CHUNK):
        part = candidates[start : start + _CHUNK].reshape(-1, flat.shape[1])
        same = sum(((flat == k).astype(np.float32) @ (part == k).astype(np.float32).T for k in classes), 0.0)
        both = (flat > 0).astype(np.float32) @ (part > 0).astype(np.float32).T
        either = (flat > 0).sum(axis=1)[:, None] + (part > 0).sum(axis=1)[None] - both
        likeness[:, start : start + len(part)] = same / np.maximum(either, 1)
    return likeness.argmax(axis=1)


def any_of_label(labels: np.ndarray, candidates: np.ndarray, seed: int = 0) -> np.ndarray:
    """For each label [N] the index of a random one of `candidates` [M] with that label, [N] int; of any label
    where none has it.
    """
    rng, every = np.random.default_rng(seed), np.arange(len(candidates))
    alike = {label: np.flatnonzero(candidates == label) for label in np.unique(labels)}
    return np.array([rng.choice(alike[label] if len(alike[label]) else every) for label in labels], int)
