"""PixMed-Enhancer (Bioengineering 2025, 12(3):235): ghost modules in a conditional GAN's encoder.

    python launch.py --config=configs/ghost.py            quick: embedded phantoms, minutes on two CPU cores
    python launch.py --config=configs/ghost.py:paper --config.data.dir=DIR
                                                          the paper, literally: 256x256, batch 64, 400 epochs
    python launch.py --config=configs/ghost.py:test       seconds: for trying out an installation

Your own slices: --config.data.source=folder --config.data.dir=DIR, DIR holding images/ and masks/ (and
meta.csv with labels and patients). BUILD_NOTES.md says how the paper was read where it is silent.
"""

from ml_collections import ConfigDict

PRESETS = {
    "quick": {},
    "test": {
        "data": {"size": 32, "patients": 12},
        "model": {"generator": {"width": 8, "levels": 5}, "discriminator": {"width": 8}},
        "train": {"steps": 6, "batch_size": 4},
        "log": {"every": 2, "grid_every": 4},
        "checkpoint": {"every": 3},
    },
    "paper": {
        "data": {"source": "folder", "size": 256, "channels": 3, "condition": "tumor", "class_channels": False},
        "model": {"generator": {"width": 64, "levels": 8}, "discriminator": {"width": 64}},
        "loss": {"l1": 0.0},
        "optimizer": {"learning_rate": 1e-3},
        "train": {"batch_size": 64, "steps": 0, "epochs": 400},
        "log": {"every": 10, "grid_every": 500},
        "checkpoint": {"every": 500},
    },
}


def get_config(preset: str = "quick") -> ConfigDict:
    if preset not in PRESETS:
        raise ValueError(f"configs/ghost.py has no preset {preset!r}; it has {', '.join(PRESETS)}")
    config = ConfigDict({"name": "ghost", "preset": preset, "seed": 0})
    config.data = {"source": "phantom", "dir": "", "patients": 240, "size": 64, "load_scale": 286 / 256}
    config.data.update({"channels": 1, "condition": "tumor+head", "class_channels": True})
    config.data.update({"images": "images", "masks": "masks", "meta": "meta.csv", "file_column": "file"})
    config.data.update({"label_column": "label", "patient_column": "patient_group", "allow_empty_masks": False})
    config.data.split = {"by": "patient", "fractions": (0.8, 0.1, 0.1)}
    config.model = {"generator": {"width": 32, "levels": 6, "ghost_levels": (1, 2, 3, 4), "ghost_ratio": 2}}
    config.model.generator.update({"ghost_kernel": 3, "cheap_kernel": 3, "norm": "batch", "dropout": 0.5})
    config.model.discriminator = {"width": 32, "layers": 3, "norm": "batch"}
    config.loss = {"bce": "adversarial", "ssim": 1.0, "l1": 0.0, "mse": 0.0}
    config.optimizer = {"learning_rate": 1e-3, "b1": 0.5, "b2": 0.999}
    config.train = {"batch_size": 16, "accumulate": 1, "steps": 600, "epochs": 0, "ema_decay": 0.99}
    config.train.update({"dtype": "float32", "max_skipped": 10})
    config.log = {"every": 20, "grid_every": 100}
    config.checkpoint = {"every": 200, "keep": 2}
    config.update(PRESETS[preset])
    return config
