"""PixMed-Enhancer (Bioengineering 2025, 12(3):235): ghost modules in a conditional GAN's encoder.

    python launch.py --config=configs/ghost.py            quick: embedded phantoms, minutes on two CPU cores
    python launch.py --config=configs/ghost.py:paper --config.data.dir=DIR
                                                          the paper, literally: 256x256, batch 64, 400 epochs
    python launch.py --config=configs/ghost.py:test       seconds: for trying out an installation
Your own slices: --config.data.source=folder --config.data.dir=DIR, DIR holding images/ and masks/ (and
meta.csv with labels and patients). BUILD_NOTES.md says how the paper was read where it is silent.
"""

from ml_collections import ConfigDict

# fmt: off
QUICK = {
    "name": "ghost", "preset": "quick", "seed": 0,
    "data": {
        "source": "phantom", "patients": 240, "dir": "",
        "images": "images", "masks": "masks", "meta": "meta.csv",
        "file_column": "file", "label_column": "label", "patient_column": "patient_group",
        "split_column": "", "class_name": "tumor", "allow_empty_masks": False,
        "leave_out": "", "axis": "stored", "intensity": "auto",
        "split": {"by": "patient", "fractions": (0.8, 0.1, 0.1), "folds": 0, "fold": 0,
                  "crossing": "error"},
        "size": 64, "load_scale": 286 / 256, "channels": 1,
        "condition": "anatomy", "class_channels": True, "tissues": 4,
    },
    "model": {
        "generator": {"width": 32, "levels": 6, "ghost_levels": (1, 2, 3, 4), "ghost_ratio": 2,
                      "ghost_kernel": 3, "cheap_kernel": 3, "norm": "instance", "dropout": 0.5},
        "discriminator": {"width": 32, "layers": 3, "norm": "instance"},
    },
    "loss": {"bce": "adversarial", "ssim": 1.0, "l1": 0.0, "mse": 0.0},
    "optimizer": {"learning_rate": 5e-4, "b1": 0.5, "b2": 0.999},
    "train": {"batch_size": 4, "accumulate": 1, "steps": 2400, "epochs": 0, "ema_decay": 0.995,
              "dtype": "float32", "max_skipped": 10, "resident_gb": 4.0},
    "log": {"every": 50, "grid_every": 400}, "checkpoint": {"every": 400, "keep": 2},
}
PAPER = {
    "data": {"source": "folder", "size": 256, "channels": 3, "condition": "tumor", "class_channels": False},
    "model": {"generator": {"width": 64, "levels": 8, "norm": "batch"},
              "discriminator": {"width": 64, "norm": "batch"}},
    "optimizer": {"learning_rate": 1e-3},
    "train": {"batch_size": 64, "steps": 0, "epochs": 400}, "log": {"every": 10},
}
TEST = {
    "data": {"size": 32, "patients": 12, "condition": "tumor+head"},
    "model": {"generator": {"width": 8, "levels": 5, "norm": "batch"},
              "discriminator": {"width": 8, "layers": 2, "norm": "batch"}},
    "train": {"batch_size": 4, "steps": 6}, "log": {"every": 2, "grid_every": 4}, "checkpoint": {"every": 2},
}
PRESETS = {"quick": {}, "paper": PAPER, "test": TEST}
# fmt: on


def get_config(preset: str = "quick") -> ConfigDict:
    if preset not in PRESETS:
        raise ValueError(f"no preset {preset!r}, there are {', '.join(PRESETS)}")
    config = ConfigDict(QUICK)
    config.update({**PRESETS[preset], "preset": preset})
    return config
