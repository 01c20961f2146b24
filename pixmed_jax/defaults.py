"""What every experiment shares: the sections of a config with their defaults, and how presets lie on them.

A file in `configs/` says what is its own: `get_config` is `experiment(name, QUICK, preset=...)` there.
"""

from collections.abc import Callable, Mapping
from typing import Any

from ml_collections import ConfigDict

# fmt: off
# Augmentation: p is the probability; data/augment_settings.py has limits, units and reasons.
OFF: dict[str, Any] = {
    "rotation": {"p": 0.0, "range": (-15.0, 15.0)},  # degrees, counter-clockwise
    "scaling": {"p": 0.0, "range": (0.9, 1.1)},
    "translation": {"p": 0.0, "range": (-0.05, 0.05)},  # of the side
    "shear": {"p": 0.0, "range": (-5.0, 5.0)},  # degrees
    "flip_left_right": {"p": 0.0},
    "flip_up_down": {"p": 0.0},
    "elastic": {"p": 0.0, "range": (0.0, 0.01), "sigma": 0.1},  # of the side
    "gamma": {"p": 0.0, "range": (0.7, 1.5)},
    "contrast": {"p": 0.0, "range": (0.75, 1.25)},
    "brightness": {"p": 0.0, "range": (-0.1, 0.1)},  # of the grey range
    "bias_field": {"p": 0.0, "range": (0.0, 0.4)},  # largest logarithm of the factor
    "noise": {"p": 0.0, "range": (0.0, 0.03)},  # of the grey range, standard deviation
}
# Preset "augment": what suits slices of heads.
HEADS: dict[str, Any] = {
    "rotation": {"p": 0.5}, "scaling": {"p": 0.5}, "translation": {"p": 0.5}, "shear": {"p": 0.2},
    "flip_left_right": {"p": 0.5}, "elastic": {"p": 0.2}, "gamma": {"p": 0.15}, "contrast": {"p": 0.15},
    "brightness": {"p": 0.15}, "bias_field": {"p": 0.15}, "noise": {"p": 0.15},
}
COMMON: dict[str, Any] = {
    "seed": 0,
    # For cards: where the data are from and how to cite them, their licence, whom to ask.
    "about": {"data": "", "licence": "", "contact": ""},
    "data": {
        "source": "phantom", "patients": 240, "dir": "",
        "images": "images", "masks": "masks", "meta": "meta.csv",
        "file_column": "file", "label_column": "label", "patient_column": "patient_group",
        "split_column": "", "class_name": "tumor", "allow_empty_masks": False, "leave_out": "",
        "faulty": "error", "faulty_most": 0.05,
        "axis": "stored", "intensity": "auto", "enhance": "none",
        "split": {"by": "patient", "fractions": (0.8, 0.1, 0.1), "folds": 0, "fold": 0, "seed": 0,
                  "crossing": "error", "keep": 1.0, "keep_seed": 0},
        "size": 64, "load_scale": 286 / 256, "channels": 1,
        "condition": "tumor", "class_channels": True, "tissues": 4,
        "augment": OFF,
    },
    "train": {"batch_size": 4, "accumulate": 1, "steps": 2400, "epochs": 0, "ema_decay": 0.995,
              "dtype": "float32", "max_skipped": 10, "resident_gb": 4.0},
    "log": {"every": 50, "grid_every": 400}, "checkpoint": {"every": 400, "keep": 2},
}
# Keys of `data` that say what a network is told and sees: each has its own. The others say which data.
VIEW = ("condition", "class_channels", "tissues", "channels", "load_scale")
ADVERSARIAL: dict[str, Any] = {
    "loss": {"gan": "bce", "bce": "adversarial", "ssim": 0.0, "l1": 0.0, "mse": 0.0, "kl": 0.0,
             "r1": 0.0, "r1_every": 16, "path_length": 0.0, "path_every": 4},
    "optimizer": {"learning_rate": 2e-4, "b1": 0.5, "b2": 0.999},
    "train": {"augment_discriminator": OFF},
}
SUPERVISED: dict[str, Any] = {
    # Neither cropped nor enlarged: what is judged is not either.
    "data": {"load_scale": 1.0, "synthetic_dir": "", "synthetic": "add", "synthetic_trust": False},
    "optimizer": {"learning_rate": 1e-3, "b1": 0.9, "b2": 0.999, "weight_decay": 1e-4, "decay_steps": 0},
}
# fmt: on


def experiment(
    name: str, quick: Mapping[str, Any], **presets: Mapping[str, Any]
) -> Callable[[str], ConfigDict]:
    """A config file's `get_config`: preset "quick" lies on COMMON, every other preset on "quick".

    Several may lie on each other, as in "paper+augment"; "augment" goes with every experiment.
    Raises ValueError for a preset that there is not, as ml_collections expects it.
    """

    def get_config(preset: str = "quick") -> ConfigDict:
        known = {"quick": {}, **presets, "augment": {"data": {"augment": HEADS}}}
        names = preset.split("+")
        for unknown in set(names) - set(known):
            raise ValueError(f"no preset {unknown!r}, there are {', '.join(known)}")
        layers = (known[name] for name in names)
        return ConfigDict(merged({"name": name, "preset": preset}, COMMON, quick, *layers))

    return get_config


def merged(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Nested dicts laid on each other: a later one's values count, sections are merged.

    A section whose `name` changes is another thing: nothing of the old one is left.
    """
    result: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.items():
            if isinstance(value, Mapping):
                below = result.get(key, {})
                replaced = "name" in below and value.get("name", below["name"]) != below["name"]
                result[key] = merged({} if replaced else below, value)
            else:
                result[key] = value
    return result
