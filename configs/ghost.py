"""PixMed-Enhancer (Bioengineering 2025, 12(3):235): ghost modules in a conditional GAN's encoder.

    python launch.py --config=configs/ghost.py            quick: embedded phantoms, minutes on two CPU cores
    python launch.py --config=configs/ghost.py:paper --config.data.dir=DIR
                                                          the paper, literally: 256x256, batch 64, 400 epochs
    python launch.py --config=configs/ghost.py:test       seconds: for trying out an installation
Your own slices: --config.data.source=folder --config.data.dir=DIR, DIR holding images/ and masks/ (and
meta.csv with labels and patients). BUILD_NOTES.md says what was chosen where the paper is silent.

The paper's ablations are presets too: `no_ghost` (Table 4: the same U-Net of plain convolutions), and the
generator's losses of Figure 6, `bce` (adversarial alone) and `mse` (pixels alone); `quick` is BCE + SSIM. At
full size: --config=configs/ghost.py:paper --config.model.generator.ghost_levels='()' or --config.loss.ssim=0.
Append +augment to any preset of any experiment (:paper+augment) to augment the training slices.
"""

from pixmed_jax.defaults import ADVERSARIAL, experiment, merged

# fmt: off
GENERATOR = {"name": "unet", "width": 32, "levels": 6, "ghost_levels": (1, 2, 3, 4), "ghost_ratio": 2,
             "ghost_kernel": 3, "cheap_kernel": 3, "norm": "instance", "dropout": 0.5}
DISCRIMINATOR = {"name": "patchgan", "width": 32, "layers": 3, "norm": "instance"}
QUICK = merged(ADVERSARIAL, {
    "data": {"condition": "anatomy"},
    "model": {"generator": GENERATOR, "discriminator": DISCRIMINATOR},
    "loss": {"ssim": 1.0},
    "optimizer": {"learning_rate": 5e-4},
})
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
# fmt: on

get_config = experiment(
    "ghost",
    QUICK,
    paper=PAPER,
    test=TEST,
    no_ghost={"model": {"generator": {"ghost_levels": ()}}},
    bce={"loss": {"ssim": 0.0}},
    mse={"loss": {"bce": "none", "ssim": 0.0, "mse": 1.0}},
)
