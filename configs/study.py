"""The whole comparison from scratch: the paper's systems and losses, and ours, on one page.

    python launch.py --config=configs/study.py            quick: embedded phantoms, two hours on two CPU cores
    python launch.py --config=configs/study.py --config.data.source=folder --config.data.dir=DIR
                                                          the same on your slices (--config.run="('ghost',)":
                                                          some of the systems only)
    python launch.py --config=configs/study.py:paper --config.data.dir=DIR
                                                          256x256, the papers' schedules, DenseNet201: a GPU
`data` here applies to all parts; `systems.NAME` and `downstream.NAME` are complete configs. Arms are systems
whose slices are added to real ones to train a classifier (and a segmenter, if the system draws from masks);
both are tested on unseen patients. Classifiers are left out where the data have one class. The command
resumes; the page is WORKDIR/compare/index.html.
"""

import runpy
from pathlib import Path

from ml_collections import ConfigDict

from pixmed_jax.defaults import COMMON, VIEW, merged

# fmt: off
SYSTEMS = {"ghost": ("ghost", "quick"), "no_ghost": ("ghost", "no_ghost"), "bce": ("ghost", "bce"),
           "mse": ("ghost", "mse"), "pix2pix": ("pix2pix", "quick"), "dcgan": ("dcgan", "quick"),
           "lsgan": ("lsgan", "quick"), "stylegan2": ("stylegan2", "quick"),
           "ghost_spade": ("ghost_spade", "quick")}
SHARED = {key: value for key, value in COMMON["data"].items() if key not in VIEW}
PAPER: dict[str, dict] = {"no_ghost": {"model": {"generator": {"ghost_levels": ()}}},
                          "bce": {"loss": {"ssim": 0.0}},
                          "mse": {"loss": {"bce": "none", "ssim": 0.0, "mse": 1.0}}}
TEST = {"data": {"size": 32}, "train": {"batch_size": 4, "steps": 2}, "log": {"every": 1, "grid_every": 2},
        "checkpoint": {"every": 2}}
# fmt: on


def get_config(preset: str = "quick") -> ConfigDict:
    if preset not in ("quick", "paper", "test"):
        raise ValueError(f"no preset {preset!r}, there are quick, paper, test")

    def part(file: str, of: str) -> dict:
        return runpy.run_path(str(Path(__file__).with_name(f"{file}.py")))["get_config"](of).to_dict()

    systems = {name: part(*of) for name, of in SYSTEMS.items()}
    data, seeds = SHARED, {"systems": (0,), "downstream": (0, 1)}
    if preset == "paper":
        systems = {n: merged(part(file, "paper"), PAPER.get(n, {})) for n, (file, _) in SYSTEMS.items()}
        seeds, data = {**seeds, "downstream": (0, 1, 2)}, {**SHARED, "source": "folder", "size": 256}
    if preset == "test":
        ghost = part("ghost", "test")
        systems = {"ghost": ghost, "no_ghost": merged(ghost, PAPER["no_ghost"]), "dcgan": systems["dcgan"]}
        systems = {n: merged(c, TEST) for n, c in systems.items()}
        data = {**SHARED, "size": 32, "patients": 12}
    arms = tuple(n for n in systems if n not in ("no_ghost", "bce", "mse"))
    return ConfigDict(
        {
            "name": "study", "preset": preset, "about": COMMON["about"], "data": data, "seeds": seeds,
            "run": tuple(systems), "systems": systems, "arms": arms,
            "downstream": {name: part(name, preset) for name in ("classifier", "segmenter")},
            "audit": {"number": 12 if preset == "test" else 300},
            "samples": {"number": 12 if preset == "test" else 600, "split": "train", "balance": True},
        }
    )  # fmt: skip
