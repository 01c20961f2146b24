"""A segmenter of tumours: U-Net (Ronneberger et al., MICCAI 2015), with padding and norms.

    python launch.py --config=configs/segmenter.py        quick: embedded phantoms, a narrow U-Net, minutes
                                                          on two CPU cores
    python launch.py --config=configs/segmenter.py:paper --config.data.dir=DIR
                                                          width 64 (31 M parameters) at 256x256; a GPU
DIR holds images/ and masks/, as for configs/ghost.py. --config.data.synthetic_dir=DIR adds the slices that
--mode=sample wrote there to the training split; --config.data.synthetic=replace takes them in its place.
--config.data.class_channels=True tells the tumours' classes apart too.
"""

from pixmed_jax.defaults import SUPERVISED, experiment, merged

# fmt: off
QUICK = merged(SUPERVISED, {
    "data": {"condition": "tumor", "class_channels": False},
    "model": {"network": {"name": "segmenter", "width": 16, "levels": 4, "norm": "instance", "dropout": 0.0}},
    "loss": {"dice": 1.0},
    "optimizer": {"decay_steps": 600},
    "train": {"batch_size": 8, "steps": 600}, "log": {"grid_every": 150}, "checkpoint": {"every": 150},
})
PAPER = {
    "data": {"source": "folder", "size": 256},
    "model": {"network": {"width": 64, "levels": 5}},
    "optimizer": {"learning_rate": 3e-4, "decay_steps": 10000},
    "train": {"batch_size": 16, "steps": 10000, "ema_decay": 0.999},
    "log": {"grid_every": 1000}, "checkpoint": {"every": 1000},
}
TEST = {
    "data": {"size": 32, "patients": 12},
    "model": {"network": {"width": 4, "levels": 2}},
    "train": {"batch_size": 4, "steps": 6}, "log": {"every": 2, "grid_every": 4}, "checkpoint": {"every": 2},
}
# fmt: on

get_config = experiment("segmenter", QUICK, paper=PAPER, test=TEST)
