"""pix2pix (Isola et al., CVPR 2017): U-Net, 70x70 PatchGAN, adversarial BCE + 100 L1, of images in [-1, 1].

    python launch.py --config=configs/pix2pix.py          quick: embedded phantoms, minutes on two CPU cores
    python launch.py --config=configs/pix2pix.py:paper --config.data.dir=DIR
                                                          that paper's settings at 256x256, Section 6.2:
                                                          batch 1, Adam 2e-4 with beta1 0.5, 200 epochs

pix2pix lets its rate fall to 0 over the second 100 epochs of 200; here it is constant. With one image in a
batch its batch norm is an instance norm, which is what `paper` says, and what works at the innermost level.
"""

from pixmed_jax.defaults import ADVERSARIAL, experiment, merged

# fmt: off
QUICK = merged(ADVERSARIAL, {
    "data": {"condition": "anatomy"},
    "model": {"generator": {"name": "unet", "width": 32, "levels": 6, "ghost_levels": (), "norm": "instance",
                            "dropout": 0.5},
              "discriminator": {"name": "patchgan", "width": 32, "layers": 3, "norm": "instance"}},
    "loss": {"l1": 200.0},  # 100 of images in [-1, 1], which differ by twice as much as ours in [0, 1]
    "optimizer": {"learning_rate": 5e-4},
})
PAPER = {
    "data": {"source": "folder", "size": 256, "channels": 3, "condition": "tumor", "class_channels": False},
    "model": {"generator": {"width": 64, "levels": 8}, "discriminator": {"width": 64}},
    "optimizer": {"learning_rate": 2e-4},
    "train": {"batch_size": 1, "steps": 0, "epochs": 200},
    "log": {"every": 100, "grid_every": 5000}, "checkpoint": {"every": 5000},
}
# fmt: on

get_config = experiment("pix2pix", QUICK, paper=PAPER)
