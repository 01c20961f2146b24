"""Numbers outside of which a setting of a run, or of one of the project's networks, has no meaning.

They are refused by their keys before any data are looked at. Errors: PixmedError.
"""

import math
from collections.abc import Mapping
from typing import Any

from pixmed_jax import config as configs
from pixmed_jax.errors import PixmedError

Range = tuple[float, ...]  # least and most; a third element says that the most is excluded

_POSITIVE: Range = (1, math.inf)
_WEIGHT: Range = (0, math.inf, True)
_SHARE: Range = (0, 1, True)
_SEED: Range = (0, 2**63 - 1)
# By the keys of a config.
RUN: dict[str, Range] = {
    "seed": _SEED,
    "data.split.seed": _SEED,
    "data.split.keep_seed": _SEED,
    "data.size": (1, 8192),
    "data.load_scale": (1, math.inf, True),
    "train.batch_size": (1, 2**16),
    "train.accumulate": _POSITIVE,
    "train.max_skipped": _POSITIVE,
    "train.resident_gb": (0, math.inf),
    "train.ema_decay": _SHARE,
    "optimizer.learning_rate": _WEIGHT,
    "optimizer.b1": _SHARE,
    "optimizer.b2": _SHARE,
    "optimizer.weight_decay": _WEIGHT,
    "optimizer.decay_steps": (0, math.inf),
    "loss.label_smoothing": _SHARE,
    "loss.r1_every": _POSITIVE,
    "loss.path_every": _POSITIVE,
    "loss.ssim": _WEIGHT,
    "loss.l1": _WEIGHT,
    "loss.mse": _WEIGHT,
    "loss.kl": _WEIGHT,
    "loss.r1": _WEIGHT,
    "loss.path_length": _WEIGHT,
    "loss.adversarial": _WEIGHT,
    "loss.dice": _WEIGHT,
    "loss.code": _WEIGHT,
    "loss.tumor": _WEIGHT,
    "loss.spatial": _WEIGHT,
    "loss.exposure": _WEIGHT,
    "loss.colour": _WEIGHT,
    "loss.smoothness": _WEIGHT,
}
# By the fields of networks (config.model.ROLE.FIELD).
NETWORK: dict[str, Range] = {
    "width": _POSITIVE,
    "levels": _POSITIVE,
    "layers": _POSITIVE,
    "scales": _POSITIVE,
    "group": _POSITIVE,
    "growth": _POSITIVE,
    "stem": _POSITIVE,
    "latent": _POSITIVE,
    "modes": _POSITIVE,
    "iterations": _POSITIVE,
    "most": _POSITIVE,
    "channel_base": _POSITIVE,
    "channel_max": _POSITIVE,
    "ghost_ratio": _POSITIVE,
    "cheap_kernel": _POSITIVE,
    "ghost_kernel": (3, 4),  # with its border of one pixel, others halve no image
    "style": (0, math.inf),
    "style_mixing": (0, 1),
    "truncation": _WEIGHT,
    "mean_decay": _SHARE,
    "dropout": _SHARE,
}


def check(config: Mapping[str, Any]) -> None:
    """Refuse numbers that no training could make sense of, alone or together."""
    flat = configs.flatten(config)
    for key, allowed in RUN.items():
        _check(key, flat.get(key), allowed)
    loss, train = config["loss"], config["train"]
    if (channels := config["data"]["channels"]) not in (1, 3):
        raise PixmedError(f"data.channels={channels}: give 1 for grey images or 3 for colours")
    if train["batch_size"] % train["accumulate"]:
        raise PixmedError(
            f"train.batch_size={train['batch_size']} cannot be cut into train.accumulate="
            f"{train['accumulate']} equal parts; give a number that divides it"
        )
    if "generator" not in config["model"]:
        return
    if loss.get("bce") == "none" and not any(loss.get(name) for name in ("ssim", "l1", "mse")):
        raise PixmedError("loss.bce=none: leaves the generator nothing to learn by; set loss.ssim")
    if loss.get("kl") and train["batch_size"] // train["accumulate"] < 2:
        raise PixmedError(
            f"train.batch_size={train['batch_size']} in train.accumulate={train['accumulate']} parts: half "
            "of each is painted in drawn styles, so give two images or more to a part"
        )


def check_network(role: str, settings: Mapping[str, Any]) -> None:
    """Refuse numbers that none of the project's networks could be built with."""
    for name, value in settings.items():
        if name in NETWORK:
            _check(f"model.{role}.{name}", value, NETWORK[name])


def _check(key: str, value: Any, allowed: Range) -> None:
    """A value that is there and a number; JSON knows no other numbers than these two."""
    if not isinstance(value, int | float):
        return
    low, high, *excluded = allowed
    if not low <= value <= high or (excluded and value == high):
        ends = f"{low} or more" if high == math.inf else f"{low} to {high}"
        if excluded and high < math.inf:
            ends = f"from {low} to less than {high}"
        raise PixmedError(f"{key}={value}: give {ends}")
