"""What lies inside the head, read from the slice's own intensities without a network.

Tissue classes are ranges of the intensity relative to the slice's usual tissue. Clusters of each slice alone
(quantiles, k-means) were tried and left: on one slice a class is white matter, on the next one fat. With
fixed ratios a class is the same kind of tissue everywhere, as far as intensities allow (T1-weighted: 1 air,
bone and fluid; the middle ones grey and white matter; the last one fat, marrow and what takes up contrast).

Layout: images [..., H, W] uint8, uint16 or float; heads, tumours and brains bool; tissues uint8, alike.
Lengths scale with the image: they were chosen at 128 pixels a side.
"""

from typing import NamedTuple

import numpy as np
from scipy import ndimage, spatial

MOST = 16
# Of the intensity of usual tissue: below DARK lie air, bone and fluid, above BRIGHT fat and contrast agent.
DARK, BRIGHT = 0.6, 1.3
_BIAS = 0.18  # width of the bias field's kernel, of the side of the image
_COMPACT = 0.87  # a brain's area over that of its convex hull; with the face it is less
_REACH = 1.6  # how far a brain reaches from its middle, in radii of the largest disc within


class Survey(NamedTuple):
    """Where things are in one slice; bool [H, W] but for `look`."""

    head: np.ndarray
    dark: np.ndarray  # of the head: air, bone and fluid
    brain: np.ndarray  # with ventricles and tumour; nothing where no brain was found
    look: np.ndarray  # [D] float32 of length 1: the head's shades, coarse; dot products tell likeness


def region_alone(region: np.ndarray) -> Survey:
    """Of something without a brain to be found, or a map that does not show it: `region` stands for all."""
    return Survey(region, np.zeros_like(region), region, np.zeros(0, np.float32))


def relative(images: np.ndarray, heads: np.ndarray, tumors: np.ndarray) -> np.ndarray:
    """float32 [..., H, W]: intensity without bias field; 1 is the median of each head's healthy tissue."""
    stack = images.reshape(-1, *images.shape[-2:]).astype(np.float32)
    known = (heads & ~tumors).reshape(stack.shape)
    judged = np.stack([_judged(*pair) for pair in zip(stack, known, strict=True)])
    stack = stack / _bias_field(stack, judged)
    stack = _smoothed(stack, max(stack.shape[1:]) / 256)
    for values, where in zip(stack, known, strict=True):
        inside = values[where]
        if inside.size:
            # Air and bone would pull it down.
            usual = np.median(inside[inside >= 0.5 * np.median(inside)])
            values /= np.float32(max(usual, 1e-6))
        else:
            values[:] = 0
    return stack.reshape(images.shape)


def _judged(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """bool [H, W]: the tissue by which the bias field is judged."""
    inside = values[known]
    return known & (values > 0.25 * np.median(inside)) if inside.size else known


def _bias_field(stack: np.ndarray, tissue: np.ndarray) -> np.ndarray:
    """float32 [N, H, W] near 1: the coil's sensitivity, the tissue's wide geometric mean on a coarse grid."""
    side = max(stack.shape[1:])
    step = max(1, side // 32)
    weights = tissue[:, ::step, ::step].astype(np.float32)
    logs = np.log(np.where(weights > 0, stack[:, ::step, ::step], 1))
    width = _BIAS * side / step
    fields = _smoothed(logs * weights, width) / np.maximum(_smoothed(weights, width), 1e-3)
    for field, weight in zip(fields, weights, strict=True):
        field -= (field * weight).sum() / max(weight.sum(), 1)
    fields = _stretched(_stretched(fields, 1, stack.shape[1]), 2, stack.shape[2]).astype(np.float32)
    # Clipped to a factor of 2: beyond the tissue the mean means nothing.
    return np.exp(np.clip(fields, -0.7, 0.7))


def _stretched(stack: np.ndarray, axis: int, length: int) -> np.ndarray:
    """Interpolated linearly, end to end. As a matrix product it would wait for the other threads' ones."""
    places = np.linspace(0, stack.shape[axis] - 1, length)
    before = places.astype(np.int64)
    after = np.minimum(before + 1, stack.shape[axis] - 1)
    part = (places - before).reshape(-1, *(1,) * (stack.ndim - 1 - axis))
    return np.asarray(stack.take(before, axis) * (1 - part) + stack.take(after, axis) * part)


def _smoothed(stack: np.ndarray, width: float) -> np.ndarray:
    """Each image of a stack [N, H, W] by a Gaussian."""
    return np.asarray(ndimage.gaussian_filter(stack, (0, width, width)))


def tissues(images: np.ndarray, heads: np.ndarray, tumors: np.ndarray, number: int) -> np.ndarray:
    """uint8 [..., H, W]: 0 outside of a head, inside 1 .. `number` from dark to bright, smoothed to regions.

    The limits are DARK, BRIGHT and equal steps between; the tumour is classed too, but judges nothing.
    """
    stack, inside = relative(images, heads, tumors), heads.reshape(-1, *heads.shape[-2:])
    classes = np.searchsorted(np.linspace(DARK, BRIGHT, number - 1), stack).reshape(inside.shape)
    # Each pixel takes the class that its surroundings have most of.
    width = max(inside.shape[1:]) / 180
    best, found = np.full(inside.shape, -1.0, np.float32), np.zeros(inside.shape, np.uint8)
    for value in range(number):
        votes = _smoothed(((classes == value) & inside).astype(np.float32), width)
        ahead = votes > best
        best[ahead], found[ahead] = votes[ahead], value + 1
    return np.where(inside, found, 0).astype(np.uint8).reshape(images.shape)


def survey(image: np.ndarray, head: np.ndarray, tumor: np.ndarray) -> Survey:
    """Head, dark and brain of a slice. No brain is found where it would lack most of the tumour."""
    shades = relative(image, head, tumor)
    dark = head & (shades < DARK)
    found = brain(head & ((shades >= DARK) & (shades < BRIGHT) | tumor))
    whole = (found & tumor).sum() >= 0.5 * tumor.sum()
    found = _in_reach(found) | (tumor & head) if whole else np.zeros_like(head)
    return Survey(head, dark, found, _look(shades, head))


def _look(shades: np.ndarray, head: np.ndarray) -> np.ndarray:
    """The shades on a 32 x 32 grid over the head's middle, without mean, as a vector of length 1.

    The grid is 3.2 radii wide, of a disc of the head's area; its outermost parts do not count.
    """
    if not head.any():
        return np.zeros(0, np.float32)
    steps = (np.arange(32) + 0.5) / 10 - 1.6
    radius = np.sqrt(head.sum() / np.pi)
    y, x = (middle + steps * radius for middle in np.argwhere(head).mean(axis=0))
    blurred = ndimage.gaussian_filter(np.clip(shades, 0, 2) * head, max(head.shape) / 64)
    grid = ndimage.map_coordinates(blurred, np.meshgrid(y, x, indexing="ij"), order=1)
    values = grid[np.hypot(steps[:, None], steps) < 1.1]
    values -= values.mean()
    return np.asarray(values / max(float(np.linalg.norm(values)), 1e-6))


def brain(soft: np.ndarray) -> np.ndarray:
    """bool [H, W]: the brain among all soft tissue [H, W]: what is bulky and compact, ventricles included.

    Bone and fat around the brain part it from scalp and face, save for bridges (nerves, vessels, blur): these
    are cut by openings, each wider than the last, until what is left is nearly convex.
    """
    pixel = max(soft.shape) / 128
    soft = ndimage.binary_opening(soft, iterations=max(1, round(pixel)))
    holes, _ = ndimage.label(~soft)
    areas = np.bincount(holes.ravel())
    small = areas < 0.02 * soft.size  # ventricles, vessels
    small[0] = False
    soft |= small[holes]
    depth = _depth(soft)
    best, best_shape = np.zeros_like(soft), 0.0
    for radius in np.arange(3, 17, 2) * pixel:
        parts, count = ndimage.label(depth > radius)
        if not count:
            break
        weights = np.bincount(parts.ravel(), depth.ravel())
        weights[0] = 0
        part = soft & (ndimage.distance_transform_edt(parts != weights.argmax()) <= radius)
        shape = _compactness(part)
        if shape > best_shape:
            best, best_shape = part, shape
        if shape > _COMPACT:
            break
    return np.asarray(ndimage.binary_fill_holes(best))


def _in_reach(region: np.ndarray) -> np.ndarray:
    """What of a brain lies round its largest disc: a neck as bright as the brain hangs on to it."""
    if not region.any():
        return region
    depth = _depth(region)
    middle = np.unravel_index(depth.argmax(), depth.shape)
    y, x = np.ogrid[: region.shape[0], : region.shape[1]]
    parts, _ = ndimage.label(region & (np.hypot(y - middle[0], x - middle[1]) <= _REACH * depth.max()))
    return np.asarray(parts == parts[middle])


def _depth(region: np.ndarray) -> np.ndarray:
    """Distance to the region's border in pixels; the edge of the image is border."""
    return ndimage.distance_transform_edt(np.pad(region, 1))[1:-1, 1:-1]


def _compactness(region: np.ndarray) -> float:
    """Area over that of the convex hull; 1 for what is too thin to have one."""
    points = np.argwhere(region & ~ndimage.binary_erosion(region))
    corners = np.concatenate([points + offset for offset in ((0, 0), (0, 1), (1, 0), (1, 1))])
    return float(region.sum() / spatial.ConvexHull(corners).volume)
