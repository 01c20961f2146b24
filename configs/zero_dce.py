"""Zero-DCE (Guo et al., CVPR 2020): curves that brighten dark slices, learnt without a bright reference.

    python launch.py --config=configs/zero_dce.py        quick: embedded phantoms in low light, minutes on two
                                                         CPU cores
    python launch.py --config=configs/zero_dce.py:paper --config.data.dir=DIR
                                                         256x256, batch 8, colours; a GPU
Slices are darkened inside the step (data.condition=low_light); the loss never sees them bright, only the
scores do. What was trained serves
    python launch.py --mode=enhance --enhance.method=zero_dce --enhance.workdir=RUN --input=DIR --output=DIR
loss.level is the target mean brightness of a bright region: 0.6 in the paper, less for slices, which are
black around the head and rarely bright inside.
"""

from pixmed_jax.defaults import SUPERVISED, experiment, merged

# fmt: off
QUICK = merged(SUPERVISED, {
    "data": {"condition": "low_light"},
    "model": {"network": {"name": "zero_dce", "width": 32, "iterations": 8}},
    "loss": {"spatial": 1.0, "exposure": 1.0, "colour": 0.5, "smoothness": 20.0, "level": 0.35},
    "optimizer": {"learning_rate": 1e-3, "decay_steps": 1200, "weight_decay": 1e-4},
    "train": {"batch_size": 8, "steps": 1200},
})
PAPER = {
    "data": {"source": "folder", "size": 256, "channels": 3},
    "loss": {"level": 0.6},
    "optimizer": {"learning_rate": 1e-4, "decay_steps": 0},
    "train": {"steps": 50000},
    "log": {"grid_every": 5000}, "checkpoint": {"every": 5000},
}
TEST = {
    "data": {"size": 32, "patients": 12},
    "model": {"network": {"width": 4, "iterations": 2}},
    "train": {"batch_size": 4, "steps": 6}, "log": {"every": 2, "grid_every": 4}, "checkpoint": {"every": 2},
}
# fmt: on

get_config = experiment("zero_dce", QUICK, paper=PAPER, test=TEST)
