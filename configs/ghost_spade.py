"""GhostSPADE: the project's own generator, ghost modules on both sides and the map at every scale.

    python launch.py --config=configs/ghost_spade.py      quick: embedded phantoms, minutes on two CPU cores
    python launch.py --config=configs/ghost_spade.py --config.data.source=folder --config.data.dir=DIR
A fortieth of the paper's parameters, no transposed convolutions and noise at every scale (see
models/ghost_spade.py), against a discriminator that says of each pixel what it shows, or that it is fake.
"""

from pixmed_jax.defaults import ADVERSARIAL, experiment, merged

# fmt: off
QUICK = merged(ADVERSARIAL, {
    "data": {"condition": "anatomy"},
    "model": {"generator": {"name": "ghost_spade", "width": 16, "levels": 5, "most": 192,
                            "ghost_ratio": 2, "style": 8},
              "discriminator": {"name": "multiscale_patchgan", "scales": 2, "width": 24, "layers": 2,
                                "norm": "instance"}},
    "loss": {"ssim": 1.0, "kl": 0.03},
    "optimizer": {"learning_rate": 5e-4},
})
TEST = {
    "data": {"size": 32, "patients": 12, "condition": "tumor+head"},
    "model": {"generator": {"width": 4, "levels": 2}, "discriminator": {"width": 4, "layers": 1}},
    "train": {"batch_size": 4, "steps": 6}, "log": {"every": 2, "grid_every": 4}, "checkpoint": {"every": 2},
}
# fmt: on

get_config = experiment("ghost_spade", QUICK, test=TEST)
