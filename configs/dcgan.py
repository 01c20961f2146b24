"""DCGAN (Radford et al., ICLR 2016), conditioned on the tumour's class: it sees no mask, and makes none.

python launch.py --config=configs/dcgan.py            quick: embedded phantoms, minutes on two CPU cores
python launch.py --config=configs/dcgan.py:paper --config.data.dir=DIR
                                                      that paper's settings (Section 4: batch 128, Adam
                                                      2e-4 with beta1 0.5, latent 100) at 256x256, two
                                                      levels above its 64x64
The quick preset's discriminator has instance norm and R1 (gamma 1): with batches of 16 and batch norm it
collapsed on phantoms (BUILD_NOTES.md).
"""

from pixmed_jax.defaults import ADVERSARIAL, experiment, merged

# fmt: off
QUICK = merged(ADVERSARIAL, {
    "data": {"condition": "label", "load_scale": 1.0},
    "model": {"generator": {"name": "dcgan", "width": 32, "latent": 100, "norm": "batch"},
              "discriminator": {"name": "dcgan", "width": 32, "norm": "instance"}},
    "loss": {"r1": 1.0},
    "train": {"batch_size": 16, "steps": 10000},
})
PAPER = {
    "data": {"source": "folder", "size": 256},
    "model": {"generator": {"width": 64}, "discriminator": {"width": 64, "norm": "batch"}},
    "loss": {"r1": 0.0},
    "train": {"batch_size": 128, "steps": 0, "epochs": 400}, "log": {"every": 10},
}
# fmt: on

get_config = experiment("dcgan", QUICK, paper=PAPER)
