"""How well probabilities name the labels of images.

    accuracy            of the most probable label
    balanced_accuracy   mean recall over the labels, also called macro recall
    macro_precision     likewise; 0 for a label that is never named
    macro_f1            likewise, 2 TP / (2 TP + FP + FN)
    log_loss            mean of -ln p(label), natural logarithm, p at least 1e-7
    ece                 expected calibration error of the most probable label (Guo et al. 2017, Eq. 3)
    auroc               mean over the labels of one against the rest (Mann and Whitney's U, ties count half)
    recall, precision, f1, auroc_of     [L], of each label

A label that no image has is NaN, and the means leave it out. Probabilities [N, L] sum to 1; labels [N] int.
`weights` [N] counts each image so many times.
"""

import numpy as np

BINS = 15
_LEAST = 1e-7
SCALARS = (
    "accuracy",
    "balanced_accuracy",
    "macro_precision",
    "macro_f1",
    "log_loss",
    "ece",
    "auroc",
)
OF_LABELS = ("recall", "precision", "f1", "auroc_of")


def confusion(
    labels: np.ndarray, said: np.ndarray, count: int, weights: np.ndarray | None = None
) -> np.ndarray:
    """[L, L]: how many images of a row's label were given a column's."""
    return np.bincount(labels * count + said, weights, count * count).reshape(count, count)


def measure(
    probabilities: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """{name: scalar or [L]} of SCALARS and OF_LABELS, float64."""
    count = probabilities.shape[1]
    w = np.ones(len(labels)) if weights is None else weights.astype(np.float64)
    said = probabilities.argmax(1)
    table = confusion(labels, said, count, w)
    right, there, named = np.diag(table), table.sum(1), table.sum(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        recall = right / there  # 0 / 0 is NaN: no such image
        precision = np.where(there > 0, right / np.maximum(named, 1e-300), np.nan)
        f1 = np.where(there > 0, 2 * right / (there + named), np.nan)
    area = np.array([_auroc(probabilities[:, c], labels == c, w) for c in range(count)])
    return {
        "accuracy": right.sum() / w.sum(),
        "balanced_accuracy": _mean(recall),
        "macro_precision": _mean(precision),
        "macro_f1": _mean(f1),
        "log_loss": (w * losses(probabilities, labels)).sum() / w.sum(),
        "ece": _calibration_error(probabilities.max(1), said == labels, w),
        "auroc": _mean(area),
        "recall": recall,
        "precision": precision,
        "f1": f1,
        "auroc_of": area,
    }


def losses(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """[N]: -ln p(label), whose mean is the log loss."""
    return -np.log(np.clip(probabilities[np.arange(len(labels)), labels], _LEAST, 1))


def reliability(sure: np.ndarray, right: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """[BINS, 3]: weight, mean confidence and accuracy of the images in equal bins of confidence."""
    bins = np.clip(np.ceil(sure * BINS).astype(int) - 1, 0, BINS - 1)
    total = np.bincount(bins, weights, BINS)
    sums = [np.bincount(bins, weights * values, BINS) for values in (sure, right)]
    return np.stack([total, *(s / np.maximum(total, 1e-300) for s in sums)], 1)


def _calibration_error(sure: np.ndarray, right: np.ndarray, weights: np.ndarray) -> float:
    total, confidence, accuracy = reliability(sure, right, weights).T
    return float((total * np.abs(confidence - accuracy)).sum() / total.sum())


def _auroc(scores: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> float:
    _, rank = np.unique(scores, return_inverse=True)
    yes, no = np.bincount(rank, weights * positive), np.bincount(rank, weights * ~positive)
    pairs = yes.sum() * no.sum()
    return float((yes * (np.cumsum(no) - no / 2)).sum() / pairs) if pairs else np.nan


def _mean(values: np.ndarray) -> float:
    there = values[~np.isnan(values)]
    return float(there.mean()) if there.size else np.nan
