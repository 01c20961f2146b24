"""LSGAN (Mao et al., ICCV 2017): DCGAN's networks under the least-squares loss, conditioned on the class.

    python launch.py --config=configs/lsgan.py            quick: embedded phantoms, minutes on two CPU cores
    python launch.py --config=configs/lsgan.py:paper --config.data.dir=DIR
                                                          that paper's settings (Section 4: batch 64, beta1
                                                          0.5, rate 1e-3 for scenes, latent 1024) at 256x256
Eq. 9: real is 1, generated is 0, and the generator aims at 1. The quick preset's discriminator has instance
norm and R1 (gamma 1): with batches of 16 and batch norm, heads stayed empty for 5,000 steps (BUILD_NOTES.md).
"""

from pixmed_jax.defaults import ADVERSARIAL, experiment, merged

# fmt: off
QUICK = merged(ADVERSARIAL, {
    "data": {"condition": "label", "load_scale": 1.0},
    "model": {"generator": {"name": "dcgan", "width": 32, "latent": 100, "norm": "batch"},
              "discriminator": {"name": "dcgan", "width": 32, "norm": "instance"}},
    "loss": {"gan": "least_squares", "r1": 1.0},
    "train": {"batch_size": 16, "steps": 10000},
})
PAPER = {
    "data": {"source": "folder", "size": 256},
    "model": {"generator": {"width": 64, "latent": 1024}, "discriminator": {"width": 64, "norm": "batch"}},
    "loss": {"r1": 0.0},
    "optimizer": {"learning_rate": 1e-3},
    "train": {"batch_size": 64, "steps": 0, "epochs": 400}, "log": {"every": 10},
}
# fmt: on

get_config = experiment("lsgan", QUICK, paper=PAPER)
