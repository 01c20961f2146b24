"""Implicit shapes of which phantom heads are made: signed distances, and how they join.

Points are [3, N] float32 in mm, distances [N] in mm, negative inside; intensities [N].
"""

import numpy as np

EDGE = 1.2  # mm over which one tissue passes into the next
Point = tuple[float, float, float]


def ellipsoid(p: np.ndarray, centre: Point, radii: Point) -> np.ndarray:
    """Distance of points [3, N] to an ellipsoid (first order, exact on the surface)."""
    to_first = np.zeros(p.shape[1], np.float32)
    to_second = np.zeros(p.shape[1], np.float32)
    for axis in range(3):
        scaled = (p[axis] - np.float32(centre[axis])) * np.float32(1 / radii[axis])
        squared = scaled * scaled
        to_first += squared
        to_second += squared * np.float32(1 / radii[axis] ** 2)
    length = np.sqrt(to_first)
    return length * (length - 1) / np.sqrt(to_second + 1e-9)


def tube(p: np.ndarray, start: Point, end: Point, start_radius: float, end_radius: float) -> np.ndarray:
    """Distance of points [3, N] to a tube whose radius changes along its way."""
    axis = np.subtract(end, start)
    along = sum((p[i] - np.float32(start[i])) * np.float32(axis[i] / (axis @ axis)) for i in range(3))
    np.clip(along, 0, 1, out=along)
    squared = sum((p[i] - np.float32(start[i]) - along * np.float32(axis[i])) ** 2 for i in range(3))
    return np.sqrt(squared) - (start_radius + along * np.float32(end_radius - start_radius))


def join(a: np.ndarray, b: np.ndarray, smooth: float) -> np.ndarray:
    """Union of two distances, its crease filled over `smooth` mm."""
    crease = np.maximum(smooth - np.abs(a - b), 0)
    return np.minimum(a, b) - crease * crease * np.float32(0.25 / smooth)


def cover(distance: np.ndarray, edge: float = EDGE) -> np.ndarray:
    """1 inside, 0 outside, linear over `edge` mm across the border."""
    return np.clip(0.5 - distance * np.float32(1 / edge), 0, 1)


def paint(canvas: np.ndarray, distance: np.ndarray, value: np.ndarray | float, edge: float = EDGE) -> None:
    """Lay `value` over the canvas where `distance` is negative."""
    canvas += cover(distance, edge) * (value - canvas)
