"""What augmentations there are, and what settings of them make no sense. Imports nothing heavy.

A section of a config is {operation: {"p": probability, "range": (low, high)}}; the flips have no range, and
"elastic" has "sigma" beside it. An operation of probability 0 is not computed at all. The defaults, all off,
and the set for slices of heads (`OFF` and `HEADS` in `pixmed_jax.defaults`) follow nnU-Net (Isensee et al.
2021, Supplementary Note 4) with smaller turns and scales, so that a head stays in its picture. A mirrored
head is a plausible one (a sagittal one then looks the other way), one upside down is not.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from pixmed_jax import config as configs
from pixmed_jax.defaults import OFF
from pixmed_jax.errors import PixmedError

Settings = Mapping[str, Mapping[str, Any]]


class Limits(NamedTuple):
    """What a range may hold, and in which unit; without a unit there is no range."""

    low: float = 0.0
    high: float = 0.0
    unit: str = ""


# Geometry first, then grey values, each in the order in which it is done. The order is part of what a key
# means: new operations go to the end.
OPERATIONS = {
    "rotation": Limits(-180, 180, "degrees, counter-clockwise"),
    "scaling": Limits(0.25, 4, "times as large"),
    "translation": Limits(-0.5, 0.5, "of the side, each way by itself"),
    "shear": Limits(-45, 45, "degrees"),
    "flip_left_right": Limits(),
    "flip_up_down": Limits(),
    "elastic": Limits(0, 0.25, "of the side, standard deviation of the shifts"),
    "gamma": Limits(0.1, 10, "exponent"),
    "contrast": Limits(0, 4, "times the distance from the mean"),
    "brightness": Limits(-1, 1, "of the grey range, added"),
    "bias_field": Limits(0, 2, "largest logarithm of the factor"),
    "noise": Limits(0, 1, "of the grey range, standard deviation"),
}
GEOMETRY = tuple(OPERATIONS)[:7]
_FOLDS = 0.25  # of sigma: the slope of the shifts, which folds the picture at 1, then deviates by 0.18
_LEAKS = 0.8  # Karras et al. 2020, Section 2.2
_SECTIONS = ("data.augment.", "train.augment_discriminator.")


def enabled(settings: Settings | None) -> dict[str, Mapping[str, Any]]:
    """The operations that can happen at all, in their fixed order; runs of older versions have none."""
    return {name: settings[name] for name in OPERATIONS if settings and settings.get(name, {}).get("p")}


def briefly(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Flat settings to be read: without operations of probability 0, a section of none but these as "off"."""
    augments = [key for key in flat if key.startswith(_SECTIONS)]
    never = tuple(key[:-1] for key in augments if key.endswith(".p") and not flat[key])
    found = {key: value for key, value in flat.items() if not key.startswith(never)}
    for section in _SECTIONS:
        if any(key.startswith(section) for key in augments) and not any(k.startswith(section) for k in found):
            found[section[:-1]] = "off"
    return dict(sorted(found.items()))


def check(settings: Settings | None, key: str) -> None:
    """Raise PixmedError for the first setting in the section `key` that makes no sense."""
    for name, setting in (settings or {}).items():
        at = f"{key}.{name}"
        if name not in OPERATIONS:
            raise PixmedError(f"{at}: no such operation{configs.nearest(name, OPERATIONS) or '; remove it'}")
        known = OFF[name]
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


def _check_range(found: Any, limits: Limits, key: str) -> None:
    pair = isinstance(found, list | tuple) and len(found) == 2 and all(_is_number(x) for x in found)
    if not pair or not limits.low <= found[0] <= found[1] <= limits.high:
        allowed = f"{limits.low:g} to {limits.high:g} ({limits.unit})"
        raise PixmedError(f"{key}={found!r}: give (lowest, highest), both within {allowed}")


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
