"""Faults that generators are known for, found by numbers: each against real slices of other patients.

    checkerboard  energy at periods of 2 and 4 pixels above that of frequencies beside them: the mark of
                  transposed convolutions (Odena et al. 2016). log10, the worst of eight frequencies.
    seams         a row or column where neighbouring pixels differ more than beside it: tiles that do not
                  meet. log10, the worst place.
    sharpness     energy beyond half the Nyquist frequency, log10: less is blur, more is noise.
    white, black  share of pixels clipped at 1, and at 0 amid bright tissue.
    tilt, shift, scale, upright, facing, brightness, contrast
                  an augmentation that leaked into what is generated (Karras et al. 2020, Section 2.2): the
                  Wasserstein distance of the statistic's distribution to that of the real slices.

A value is how far the generated images are from the real test slices; "signed" says of sharpness which way,
below 0 is blurrier. Its limit comes from real slices of
training patients, whole patients and as many slices, in their place: the mean of 20 such draws and five of
their standard deviations, and at least a margin. Beyond it the artefact counts as found. Patients are drawn
with replacement: else draws of few patients would be all alike, and hide how far sets of patients differ.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy import ndimage

from pixmed_jax.progress import watched

# The least excess over the test slices that counts as found, whatever the real draws say.
MARGINS = {
    "checkerboard": 0.3,  # twice the energy
    "seams": 0.1,  # a quarter more difference
    "sharpness": 0.1,
    "white": 0.005,  # of the pixels
    "black": 0.005,
    "tilt": 0.01,  # of the second moments
    "shift": 0.01,  # of the side
    "scale": 0.01,  # of the side
    "upright": 0.05,  # of a correlation
    "facing": 0.05,
    "brightness": 0.02,  # of the grey range
    "contrast": 0.02,
}
# As means over images, rather than as distributions; true if only more of it is a fault.
_MEANS = {"checkerboard": True, "seams": True, "sharpness": False, "white": True, "black": True}
_DRAWS, _SPREADS, _LEAST = 20, 5, 8
DARK = 0.05  # the object (of slices of heads, the head) is what is brighter
_TISSUE = 0.1  # mean of the 5x5 pixels around one that is amid tissue


def measure(
    generated: np.ndarray,
    real: np.ndarray,
    train: np.ndarray,
    train_groups: np.ndarray,
    *,
    seed: int = 0,
) -> dict[str, Any]:
    """The entry "artefacts": {name: {"value", "floor", "limit", "found"}, "found": [names], "n"}; "sharpness"
    has "signed" as well.

    Images [N, S, S] in [0, 1]; `train` are real slices of other patients, `train_groups` these.
    """
    n = len(real)
    if n < _LEAST or len(train) < _LEAST:
        why = f"{n} slices against {len(train)}: too few; {_LEAST} are needed"
        return {**{name: {"value": None, "why": why} for name in MARGINS}, "found": None, "n": n}
    rng = np.random.default_rng(seed)
    draws = [_drawn_patients(train_groups, n, rng) for _ in range(_DRAWS)]
    used, places = np.unique(np.concatenate(draws), return_inverse=True)
    typical = train[used].mean(0)
    of_real, of_train = describe(real, typical), describe(train[used], typical)
    floors = [
        distances({k: v[rows] for k, v in of_train.items()}, of_real)
        for rows in np.split(places, np.cumsum([len(rows) for rows in draws])[:-1])
    ]
    of_generated = describe(generated, typical)
    values = distances(of_generated, of_real)
    result: dict[str, Any] = {}
    for name, margin in MARGINS.items():
        by_chance = np.array([floor[name] for floor in floors])
        limit = max(margin, float(by_chance.mean() + _SPREADS * by_chance.std()))
        result[name] = {
            "value": values[name],
            "floor": float(by_chance.mean()),
            "limit": limit,
            "found": bool(values[name] > limit),
        }
    result["sharpness"]["signed"] = float(of_generated["sharpness"].mean() - of_real["sharpness"].mean())
    return {**result, "found": [name for name in MARGINS if result[name]["found"]], "n": n}


def found(entry: Mapping[str, Any]) -> list[str]:
    """What an entry "artefacts" found, in words: the names, of sharpness which way and how far.

    Entries of earlier versions do not know which way.
    """
    signed = entry.get("sharpness", {}).get("signed")
    words = {}
    if signed is not None:
        words["sharpness"] = f"{way(signed)} than real slices (sharpness {signed:+.2f})"
    return [words.get(name, name) for name in entry.get("found") or ()]


def way(signed: float) -> str:
    """Which way a difference of sharpness goes, generated less real, in a word."""
    return "blurrier" if signed < 0 else "sharper"


def _drawn_patients(groups: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """n rows: patients as they are drawn, each time with all their slices, the last one cut off."""
    rows = {name: np.flatnonzero(groups == name) for name in np.unique(groups)}
    names, drawn = list(rows), np.zeros(0, int)
    while len(drawn) < n:
        drawn = np.concatenate([drawn, rows[names[rng.integers(len(names))]]])
    return drawn[:n]


def distances(one: Mapping[str, np.ndarray], real: Mapping[str, np.ndarray]) -> dict[str, float]:
    """How far a set of images is from the real ones, by what `describe` says of both."""
    result = {}
    for name in MARGINS:
        a, b = one[name], real[name]
        if name in _MEANS:
            more = a.mean(0) - b.mean(0)  # of each frequency or place
            result[name] = float((more if _MEANS[name] else np.abs(more)).max())
        else:
            result[name] = float(max(wasserstein(x, y) for x, y in zip(a.T, b.T, strict=True)))
    return result


def wasserstein(a: np.ndarray, b: np.ndarray) -> float:
    """Mean distance of two samples' quantiles, at 200 places."""
    at = (np.arange(200) + 0.5) / 200
    return float(np.abs(np.quantile(a, at) - np.quantile(b, at)).mean())


def describe(images: np.ndarray, typical: np.ndarray) -> dict[str, np.ndarray]:
    """{name: [N, places]} of images [N, S, S]; `typical` [S, S] is the mean real slice."""
    rows: dict[str, list[np.ndarray]] = {name: [] for name in MARGINS}
    for image in watched(images, len(images), "looking for artefacts"):
        for name, value in {**_grain(image), **_clipped(image), **_pose(image, typical)}.items():
            rows[name].append(np.atleast_1d(value))
    return {name: np.stack(values) for name, values in rows.items()}


def power(image: np.ndarray) -> np.ndarray:
    """[S, S] energy of each frequency, 0 in the middle; a Hann window keeps the border out of it."""
    window = np.hanning(len(image) + 1)[:-1]
    return np.abs(np.fft.fftshift(np.fft.fft2((image - image.mean()) * np.outer(window, window)))) ** 2


def radial(image: np.ndarray) -> np.ndarray:
    """[S // 2 + 1] mean energy at each distance from frequency 0, in cycles per side."""
    size = len(image)
    frequency = np.arange(size) - size // 2
    radius = np.rint(np.hypot(frequency[:, None], frequency[None])).astype(int)
    of_radius = np.bincount(radius.ravel(), power(image).ravel()) / np.bincount(radius.ravel())
    return of_radius[: size // 2 + 1]


def _grain(image: np.ndarray) -> dict[str, np.ndarray]:
    size = len(image)
    energy = power(image) + 1e-12 * size**2
    half, quarter = size // 2, size // 4
    peaks = [(0, half), (half, 0), (half, half), (0, quarter), (quarter, 0), (quarter, quarter)]
    peaks += [(half, quarter), (quarter, half)]
    excess = []
    for dy, dx in peaks:
        y, x = (np.arange(-4, 5) + size // 2 + dy) % size, (np.arange(-4, 5) + size // 2 + dx) % size
        around = energy[np.ix_(y, x)]
        inner = around[3:6, 3:6].mean()  # the window spreads a line over three frequencies
        ring = (around.sum() - around[2:7, 2:7].sum()) / (81 - 25)
        excess.append(np.log10(inner / ring))
    steps = [np.abs(np.diff(image, axis=axis)).mean(1 - axis) + 1e-3 for axis in (0, 1)]
    seams = []
    for step in steps:
        near = np.stack([np.roll(step, k) for k in (-3, -2, 2, 3)])[:, 3:-3]
        seams.append(np.log10(step[3:-3] / np.median(near, axis=0)))
    beyond = np.hypot(*np.meshgrid(*(np.arange(size) - half,) * 2)) > quarter
    return {
        "checkerboard": np.array(excess),
        "seams": np.concatenate(seams),
        "sharpness": np.log10(energy[beyond].mean() / size**2),
    }


def _clipped(image: np.ndarray) -> dict[str, np.ndarray]:
    amid = ndimage.uniform_filter(image, 5) > _TISSUE
    return {
        "white": np.mean(image >= 1 - 0.5 / 255),
        "black": np.mean(amid & (image <= 0.5 / 255)),
    }


def _pose(image: np.ndarray, typical: np.ndarray) -> dict[str, np.ndarray]:
    size = len(image)
    y, x = (np.mgrid[:size, :size] + 0.5) / size - 0.5
    inside = image > DARK
    shown = inside if inside.any() else np.ones_like(inside)
    cy, cx = y[shown].mean(), x[shown].mean()
    dy, dx = y[shown] - cy, x[shown] - cx
    spread = (dy**2).mean() + (dx**2).mean() + 1e-12

    def odd_like(axis: int) -> float:
        """Correlation of what mirroring changes in this image and in the typical one: < 0 if mirrored."""
        odd, usual = image - np.flip(image, axis), typical - np.flip(typical, axis)
        return float((odd * usual).sum() / (np.linalg.norm(odd) * np.linalg.norm(usual) + 1e-12))

    values = image[shown]
    return {
        "tilt": np.array(2 * (dy * dx).mean() / spread),
        "shift": np.array([cy, cx]),
        "scale": np.sqrt(spread),
        "upright": np.array(odd_like(0)),
        "facing": np.array(odd_like(1)),
        "brightness": values.mean(),
        "contrast": values.std(),
    }
