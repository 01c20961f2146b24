"""How good generated slices are without a look at which real one each should be: the page and its entries.

Puts together what `distribution`, `mask_fidelity` and `artefacts` measure, and draws it. The networks that
judge are trained on real training slices and kept in the run's folder.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from pixmed_jax import charts, pictures
from pixmed_jax.judges import features, mask_fidelity, published
from pixmed_jax.judges.kept import digest, kept
from pixmed_jax.metrics import artefacts, distribution

_ROWS, _ODD, _POINTS, _SPECTRA = 6, 3, 400, 200
_TRAIN = 500  # training slices that Inception looks at, or as many as are generated: a tenth of a second each
_COLOURS = {"real, training": "0.72", "real, test": "#2468b0", "generated": "#e6553c"}
# Of each number its name on the page, and whether more of it is better.
NUMBERS = {
    "kid": ("KID", False),
    "fid": ("FID", False),
    "precision": ("precision", True),
    "recall": ("recall", True),
    "density": ("density", True),
    "coverage": ("coverage", True),
}
NAMES = {
    "checkerboard": "checkerboard, log10 of energy",
    "seams": "seams, log10 of difference",
    "sharpness": "sharpness, log10 of energy (below 0: blurrier)",
    "white": "clipped white, share of pixels",
    "black": "black holes in tissue, share of pixels",
    "tilt": "tilt of the object",
    "shift": "place of the object, of the side",
    "scale": "size of the object, of the side",
    "upright": "upright rather than upside down",
    "facing": "facing as real ones do, not mirrored",
    "brightness": "brightness of the object",
    "contrast": "contrast of the object",
}


class Slices(NamedTuple):
    """images [N, S, S] in [0, 1], masks [N, S, S] bool (None where the condition is no map), groups [N]."""

    images: np.ndarray
    masks: np.ndarray | None
    groups: np.ndarray


def measure(
    generated: np.ndarray,
    real: Slices,
    train: Slices,
    *,
    lookup: np.ndarray | None = None,
    inception: features.Encode | None = None,
    folder: Path | None = None,
    seed: int = 0,
) -> tuple[dict[str, Any], dict[str, str]]:
    """Entries of evaluation.json, and pictures for the page, each the address of an <img>.

    generated: [N, S, S]; image i was made for real slice i. lookup: [N, S, S], what is made of the same maps
    without a network. inception: its features, in the place of those of an encoder of the training slices.
    folder: where the judging networks are kept.
    """
    if inception is None:
        encode = features.encoder(train.images, folder=folder)
        of_generated, of_real, of_train = (encode(x) for x in (generated, real.images, train.images))
        of_lookup = None if lookup is None else encode(lookup)
        train_groups = train.groups
    else:
        count = max(len(generated), _TRAIN)
        rows = np.sort(distribution.whole_patients(train.groups, count, np.random.default_rng(seed)))
        of_train = _of_real(inception, train.images[rows], "train", folder)
        of_real, of_generated = _of_real(inception, real.images, "real", folder), inception(generated)
        of_lookup = None if lookup is None else _of_real(inception, lookup, "lookup", folder)
        train_groups = train.groups[rows]
    entries: dict[str, Any] = distribution.compare(
        of_generated,
        of_real,
        of_train,
        groups=real.groups,
        train_groups=train_groups,
        features=features.NAME if inception is None else published.INCEPTION,
        matched=real.masks is not None,
        lookup=of_lookup,
        singular=inception is not None,
        seed=seed,
    )
    sets = {"real, training": train.images, "real, test": real.images, "generated": generated}
    drawn = {
        "scatter": _scatter(of_train, of_real, of_generated),
        "spectra": _spectra(sets),
        "odd": _odd(generated, of_generated, real.images, of_real),
    }
    if real.masks is None or train.masks is None:
        entries["mask_dice"] = mask_fidelity.no_masks("the generator is told a label, and no mask")
    else:
        segment = mask_fidelity.segmenter(train.images, train.masks, folder=folder)
        entries["mask_dice"], found = mask_fidelity.measure(
            segment, generated, real.images, real.masks, real.groups, lookup=lookup
        )
        drawn["masks"] = _masks(generated, real, found)
    entries["artefacts"] = artefacts.measure(generated, real.images, train.images, train.groups, seed=seed)
    return entries, drawn


def _of_real(inception: features.Encode, images: np.ndarray, name: str, folder: Path | None) -> np.ndarray:
    """Features of slices that are the same in every evaluation of the run."""
    like = {"features": np.zeros((len(images), published.WIDTH))}
    key = digest(images, published.INCEPTION, "1")
    found = kept(folder, f"inception-{name}", key, like, lambda: {"features": inception(images)})
    return np.asarray(found["features"])


# ---------------------------------------------------------------- for the page
def told(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """Rows of the page's tables, as texts; `beside` are the headings of what stands beside the generated."""
    rows = []
    beside = {"floor": "training patients", "halves": "halves of the test patients"}
    if distribution.SAME in evaluation["kid"]:
        of_maps = {distribution.SAME: "other slices of the same patients", distribution.LOOKUP: "class means"}
        beside = of_maps | beside
    for name, (title, more) in NUMBERS.items():
        of = evaluation[name]
        low, high = of.get("low"), of.get("high")
        between = "" if low is None else f"{_text(low)} to {_text(high)}"
        cells = [_text(of["value"]), between, *(_text(of.get(key)) for key in beside)]
        rows.append((title, "more" if more else "less", cells))
    marks = [
        _mark(name, of)
        for name, of in evaluation["artefacts"].items()
        if isinstance(of, Mapping) and of["value"] is not None
    ]
    return {
        "numbers": rows,
        "beside": list(beside.values()),
        "matched": distribution.SAME in evaluation["kid"],
        "artefacts": marks,
        "dark": f"{artefacts.DARK:.0%}".replace("%", " %"),
        "found": artefacts.found(evaluation["artefacts"]),
        "photographs": evaluation["kid"]["features"] != features.NAME,
        "whys": sorted({evaluation[name]["why"] for name in NUMBERS if "why" in evaluation[name]}),
    }


def _mark(name: str, of: Mapping[str, Any]) -> tuple[str, ...]:
    """The row of an artefact: title, value, floor, limit, and "found" with how, or ""."""
    value, way = of["value"], ""
    if "signed" in of:
        value, way = of["signed"], f": {artefacts.way(of['signed'])}"
    numbers = [f"{number:z.4f}" for number in (value, of["floor"], of["limit"])]
    return (NAMES[name], *numbers, f"found{way}" if of["found"] else "")


def _text(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"


def _scatter(train: np.ndarray, real: np.ndarray, generated: np.ndarray) -> str:
    """The two main directions of the real features."""
    known = np.concatenate([train, real])
    _, _, axes = np.linalg.svd(known - known.mean(0), full_matrices=False)
    figure = Figure(figsize=(4.6, 3.6), layout="constrained")
    plot = figure.subplots()
    for (name, colour), of in zip(_COLOURS.items(), (train, real, generated), strict=True):
        x, y = ((_some(of, _POINTS) - known.mean(0)) @ axes[:2].T).T
        plot.scatter(x, y, s=9, color=colour, alpha=0.7, linewidths=0, label=name)
    charts.styled(plot, x="first direction of the features", y="second", legend="upper right")
    return charts.chart_uri(figure)


def _spectra(sets: Mapping[str, np.ndarray]) -> str:
    figure = Figure(figsize=(4.6, 3.6), layout="constrained")
    plot = figure.subplots()
    for name, images in sets.items():
        energy = np.mean([artefacts.radial(image) for image in _some(images, _SPECTRA)], axis=0)
        plot.plot(np.arange(1, len(energy)), energy[1:] + 1e-12, color=_COLOURS[name], label=name)
    plot.set_yscale("log")
    charts.styled(
        plot, x="cycles per side of the image (right: the finest there is)", y="energy", legend="upper right"
    )
    return charts.chart_uri(figure)


def _some(of: np.ndarray, most: int) -> np.ndarray:
    """Evenly spaced ones, `most` at most."""
    return of[np.linspace(0, len(of) - 1, min(len(of), most)).round().astype(int)]


def _odd(generated: np.ndarray, of_generated: np.ndarray, real: np.ndarray, of_real: np.ndarray) -> str:
    """The generated slices that are farthest from every real one, beside the nearest real one."""
    apart = distribution.distances(of_generated, of_real)
    rows = np.argsort(-apart.min(1), kind="stable")[:_ODD]
    columns = {"generated": generated[rows], "nearest real": real[apart[rows].argmin(1)]}
    return pictures.data_uri(pictures.grid(columns, [f"distance\n{apart[row].min():.1f}" for row in rows]))


def _masks(generated: np.ndarray, real: Slices, found: mask_fidelity.Found) -> str:
    """Evenly spaced by how well the mask was found on the generated image, the worst first."""
    assert real.masks is not None
    given = real.masks
    dice = mask_fidelity.segmentation.dice(found.generated, given)
    rows = _some(np.argsort(dice, kind="stable"), _ROWS)
    columns = {
        "real, given": pictures.outlined(real.images[rows], given[rows]),
        "real, found": pictures.outlined(real.images[rows], found.real[rows]),
        "generated, given": pictures.outlined(generated[rows], given[rows]),
        "generated, found": pictures.outlined(generated[rows], found.generated[rows]),
    }
    return pictures.data_uri(pictures.grid(columns, [f"Dice {dice[row]:.2f}" for row in rows]))
