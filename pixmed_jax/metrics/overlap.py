"""How alike two label maps are, whoever mirrored or shifted one of them.

The likeness of a query to a reference is the mean, over the classes that either of them has, of the Dice of
that class: 1 for equal maps, 0 for maps that share nothing. The background does not count. The greatest over
the query's poses is taken: as it is or mirrored left to right, and shifted along each axis by two pixels or
not (3 % of SIDE).

Layout: label maps [N, S, S] uint8, 0 = background; larger ones than SIDE are compared at the nearest pixels.
"""

import numpy as np

from pixmed_jax.metrics.likeness import shifted
from pixmed_jax.progress import watched

SIDE = 64
_STEPS = (-2, 0, 2)  # pixels of SIDE
_QUERIES = 128  # compared at once


def overlap(queries: np.ndarray, references: np.ndarray, what: str = "comparing layouts") -> np.ndarray:
    """[N, M] float32, 0 to 1, of label maps [N, S, S] and [M, S, S]."""
    queries, references = _small(queries), _small(references)
    classes = sorted((set(np.unique(queries)) | set(np.unique(references))) - {0})
    result = np.zeros((len(queries), len(references)), np.float32)
    known = {value: _flat(references == value) for value in classes}
    poses = [(mirror, rows, columns) for mirror in (1, -1) for rows in _STEPS for columns in _STEPS]
    steps = [(start, *pose) for start in range(0, len(queries), _QUERIES) for pose in poses]
    for start, mirror, rows, columns in watched(steps, len(steps), what):
        here = slice(start, start + _QUERIES)
        posed = shifted(queries[here, :, ::mirror], rows, columns)
        total = np.zeros_like(result[here])
        count = np.zeros_like(total)
        for value, reference in known.items():
            query = _flat(posed == value)
            areas = query.sum(1)[:, None] + reference.sum(1)
            total += 2 * (query @ reference.T) / np.maximum(areas, 1)
            count += areas > 0
        np.maximum(result[here], total / np.maximum(count, 1), out=result[here])
    return result


def _flat(masks: np.ndarray) -> np.ndarray:
    return masks.reshape(len(masks), -1).astype(np.float32)


def _small(maps: np.ndarray) -> np.ndarray:
    step = max(1, maps.shape[1] // SIDE)
    return maps[:, step // 2 :: step, step // 2 :: step]
