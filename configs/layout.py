"""Layouts: new label maps of anatomy and tumour, drawn from the tumour's class, not from a patient's map.

    python launch.py --config=configs/layout.py           quick: embedded phantoms, minutes on two CPU cores
    python launch.py --config=configs/layout.py --config.data.source=folder --config.data.dir=DIR
A variational autoencoder with a mixture as its prior (models/layout_vae.py). What it draws, a generator of
the same condition, size and classes paints: --mode=sample --sample.layout=RUN. Slices are mirrored at random,
so that it sees twice as many. --config.data.planes=True tells it the plane too, where the data know it.
"""

from pixmed_jax.defaults import SUPERVISED, experiment, merged

# fmt: off
QUICK = merged(SUPERVISED, {
    "data": {"condition": "anatomy", "planes": False, "augment": {"flip_left_right": {"p": 0.5}}},
    "model": {"network": {"name": "layout", "width": 32, "latent": 64, "modes": 40, "grain": 0.4}},
    "loss": {"code": 1.0, "tumor": 4.0},
    "optimizer": {"weight_decay": 0.0},
    "train": {"batch_size": 16, "steps": 3000}, "log": {"grid_every": 500}, "checkpoint": {"every": 500},
})
TEST = {
    "data": {"size": 32, "patients": 12, "condition": "tumor+head"},
    "model": {"network": {"width": 4, "latent": 4, "modes": 3}},
    "train": {"batch_size": 4, "steps": 6}, "log": {"every": 2, "grid_every": 4}, "checkpoint": {"every": 2},
}
# fmt: on

get_config = experiment("layout", QUICK, test=TEST)
