"""Which augmentations there are, how configs set them, and what makes no sense. Imports nothing heavy.

A config's section is {operation: {"p": probability, "range": (low, high)}}; the flips have no range, and
"elastic" has "sigma" beside it. An operation of probability 0 is not computed at all. `MRI` is what is usual
for slices of heads: a mirrored head is a plausible one (a sagittal one then looks the other way), one upside
down is not; a scanner's grey values are arbitrary. It follows nnU-Net (Isensee et al. 2021, Supplementary
Note 4), with smaller turns and scales, so that a head stays in its picture.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from pixmed_jax import config as configs
from pixmed_jax.errors import PixmedError

Settings = Mapping[str, Mapping[str, Any]]


class Operation(NamedTuple):
    """`p` for slices of heads, the `range` that configs start with, `limits` of that range and its `unit`."""

    p: float
    range: tuple[float, float] | None = None
    limits: tuple[float, float] = (0.0, 0.0)
    unit: str = ""


# Their order is part of what a key means: new ones go to the end.
OPERATIONS = {
    "rotation": Operation(0.5, (-15.0, 15.0), (-180, 180), "degrees, counter-clockwise"),
    "scaling": Operation(0.5, (0.9, 1.1), (0.25, 4), "times as large"),
    "translation": Operation(0.5, (-0.05, 0.05), (-0.5, 0.5), "of the side, each way by itself"),
    "shear": Operation(0.2, (-5.0, 5.0), (-45, 45), "degrees"),
    "flip_left_right": Operation(0.5),
    "flip_up_down": Operation(0.0),
    "elastic": Operation(0.2, (0.0, 0.015), (0, 0.25), "of the side, standard deviation of the shifts"),
    "gamma": Operation(0.15, (0.7, 1.5), (0.1, 10), "exponent"),
    "contrast": Operation(0.15, (0.75, 1.25), (0, 4), "times the distance from the mean"),
    "brightness": Operation(0.15, (-0.1, 0.1), (-1, 1), "of the grey range, added"),
    "bias_field": Operation(0.15, (0.0, 0.4), (0, 2), "largest logarithm of the factor"),
    "noise": Operation(0.15, (0.0, 0.05), (0, 1), "of the grey range, standard deviation"),
}
_SIGMA = 0.1  # of the side: how far the shifts of an elastic deformation keep together
_FOLDS = 0.25  # of sigma: the slope of the shifts, which folds the picture at 1, then deviates by 0.18
_LEAKS = 0.8  # Karras et al. 2020, Section 2.2

MRI = {name: {"p": operation.p} for name, operation in OPERATIONS.items()}


def off() -> dict[str, dict[str, Any]]:
    """A config's section with every probability 0; a new one each time, or two sections would be one."""
    section: dict[str, dict[str, Any]] = {}
    for name, operation in OPERATIONS.items():
        section[name] = {"p": 0.0}
        if operation.range is not None:
            section[name]["range"] = operation.range
        if name == "elastic":
            section[name]["sigma"] = _SIGMA
    return section


def enabled(settings: Settings | None) -> dict[str, Mapping[str, Any]]:
    """The operations that can happen at all, in their fixed order; runs of older versions have none."""
    return {name: settings[name] for name in OPERATIONS if settings and settings.get(name, {}).get("p")}


def briefly(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Flat settings to be read: operations of probability 0 left out, a section of none but these as "off"."""
    sections = ("data.augment.", "train.augment_discriminator.")
    never = {
        key[: -len("p")] for key in flat if key.startswith(sections) and key.endswith(".p") and not flat[key]
    }
    found = {key: value for key, value in flat.items() if not key.startswith(tuple(never))}
    for section in sections:
        before, after = (any(key.startswith(section) for key in keys) for keys in (flat, found))
        if before and not after:
            found[section.removesuffix(".")] = "off"
    return dict(sorted(found.items()))


def check(settings: Settings | None, key: str) -> None:
    """Raise PixmedError for the first setting in the section `key` that makes no sense."""
    for name, setting in (settings or {}).items():
        at = f"{key}.{name}"
        if name not in OPERATIONS:
            raise PixmedError(f"{at}: no such operation{configs.nearest(name, OPERATIONS)}")
        known = off()[name]
        if not isinstance(setting, Mapping) or set(setting) != set(known):
            raise PixmedError(f"{at}={setting!r}: give {', '.join(known)} and nothing else")
        if not _is_number(setting["p"]) or not 0 <= setting["p"] <= 1:
            raise PixmedError(f"{at}.p={setting['p']!r}: give a probability from 0 to 1")
        if "range" in known:
            _check_range(setting["range"], OPERATIONS[name], f"{at}.range")
        if name == "elastic":
            _check_elastic(setting, at)


def check_discriminator(settings: Settings | None, key: str) -> None:
    """The same, and that a generator cannot pass an augmentation on unseen.

    The distribution of augmented images must determine that of the images (Karras et al. 2020, Section 2.2):
    they saw no leaks at probabilities up to 0.8. A mirror image looks like any other image, so a flip has to
    be the rarer case; theirs flips half of the images that it applies to.
    """
    check(settings, key)
    for name, setting in enabled(settings).items():
        most = _LEAKS / 2 if name.startswith("flip") else _LEAKS
        if setting["p"] > most:
            raise PixmedError(
                f"{key}.{name}.p={setting['p']}: the generator may learn to make augmented images; "
                f"give {most} or less"
            )


def _check_range(found: Any, operation: Operation, key: str) -> None:
    low, high = operation.limits
    pair = isinstance(found, list | tuple) and len(found) == 2 and all(_is_number(x) for x in found)
    if not pair or not low <= found[0] <= found[1] <= high:
        raise PixmedError(f"{key}={found!r}: give two values from {low:g} to {high:g} ({operation.unit})")


def _check_elastic(setting: Mapping[str, Any], key: str) -> None:
    sigma = setting["sigma"]
    if not _is_number(sigma) or not 0.02 <= sigma <= 1:
        raise PixmedError(f"{key}.sigma={sigma!r}: give 0.02 to 1 of the side")
    if setting["range"][1] > _FOLDS * sigma:
        raise PixmedError(
            f"{key}.range={setting['range']!r}: shifts beyond a quarter of sigma={sigma} fold the picture; "
            f"give at most {_FOLDS * sigma:g}, or a larger sigma"
        )


def _is_number(x: Any) -> bool:
    return isinstance(x, int | float) and not isinstance(x, bool) and math.isfinite(x)
