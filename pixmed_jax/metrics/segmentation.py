"""How well a mask was found: Dice and the 95 % Hausdorff distance, per image.

Masks [N, H, W] bool. Distances are in pixels, since slices do not say their spacing.
"""

import numpy as np
from scipy import ndimage


def dice(found: np.ndarray, true: np.ndarray) -> np.ndarray:
    """[N] float64: 2 |A and B| / (|A| + |B|); 1 where both are empty."""
    both = (found & true).sum((1, 2))
    either = found.sum((1, 2)) + true.sum((1, 2))
    return np.where(either > 0, 2 * both / np.maximum(either, 1), 1.0)


def hausdorff95(found: np.ndarray, true: np.ndarray) -> np.ndarray:
    """[N] float64, NaN where either mask is empty.

    The 95th percentile of the distances from each border pixel of one mask to the nearest of the other, those
    of both directions pooled (Taha & Hanbury 2015, Section 4.4.1; pooled as in MedPy).
    """
    result = np.full(len(found), np.nan)
    for i, (a, b) in enumerate(zip(found, true, strict=True)):
        if a.any() and b.any():
            edges = _border(a), _border(b)
            far = [ndimage.distance_transform_edt(~edge) for edge in edges]
            result[i] = np.percentile(np.concatenate([far[1][edges[0]], far[0][edges[1]]]), 95)
    return result


def _border(mask: np.ndarray) -> np.ndarray:
    """Pixels of the mask with a neighbour, above, below, left or right, that is not; outside is not."""
    return mask & ~ndimage.binary_erosion(mask)


def dice_of_classes(found: np.ndarray, true: np.ndarray, classes: int) -> np.ndarray:
    """[classes, N]: the Dice of each class 1 .. classes of label maps [N, S, S]; NaN in slices without it."""
    each = [
        np.where((true == k).any((1, 2)), dice(found == k, true == k), np.nan) for k in range(1, 1 + classes)
    ]
    return np.stack(each)
