"""What no generator is needed for: the mean training image, the training slice with the nearest mask, or any.

A generator that does not beat these has learnt nothing about how a mask determines an image.
"""

import numpy as np

_CHUNK = 256  # training slices compared at a time: bounds memory to about 70 MB at 256x256


def mean_image(images: np.ndarray) -> np.ndarray:
    """[N, S, S] any dtype -> [S, S] float64, accumulated without a float copy of the whole set."""
    return images.sum(axis=0, dtype=np.float64) / len(images)


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
    """For each label [N] the index of a random one of `candidates` [M] with that label, [N] int."""
    rng = np.random.default_rng(seed)
    return np.array([rng.choice(np.flatnonzero(candidates == label)) for label in labels], int)
