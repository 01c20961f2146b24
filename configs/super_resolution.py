"""Super-resolution: slices at 1 / `data.scale` of their sides (2, 3 or 4), back to full size.

    python launch.py --config=configs/super_resolution.py          quick: x2 on embedded phantoms, a narrow
                                                                   residual network, minutes on two CPU cores
    python launch.py --config=configs/super_resolution.py:srcnn    SRCNN 9-1-5 (Dong et al. 2014)
    python launch.py --config=configs/super_resolution.py:full --config.data.dir=DIR
                                                                   x4 at 256x256, 16 blocks of 64 features:
                                                                   SRResNet's (Ledig et al. 2017); a GPU
Presets x3 and x4 lie on others, as in :srcnn+x4; configs/srgan.py adds an adversary. Your own slices need no
masks: --config.data.source=folder --config.data.dir=DIR, DIR holding images/ and, if it has any, masks/.
What was trained serves --mode=upscale --upscale.workdir=RUN and --mode=sample --sample.upscaler=RUN.
"""

from pixmed_jax.defaults import SUPERVISED, experiment, merged

# fmt: off
RESNET = {"name": "srresnet", "width": 32, "blocks": 4}
QUICK = merged(SUPERVISED, {
    "data": {"condition": "low_resolution", "scale": 2},
    "model": {"network": RESNET},
    "loss": {"l1": 1.0, "mse": 0.0, "ssim": 0.0},
    "optimizer": {"learning_rate": 5e-4, "decay_steps": 2400, "weight_decay": 0.0},
    "train": {"batch_size": 8},
})
SRCNN = {
    "model": {"network": {"name": "srcnn", "widths": (64, 32), "kernels": (9, 1, 5)}},
    "optimizer": {"learning_rate": 2e-3},
}
# Sizes that the scales divide.
X3, X4 = {"data": {"size": 96, "scale": 3}}, {"data": {"scale": 4}}
FULL = {
    "data": {"source": "folder", "size": 256, "scale": 4},
    "model": {"network": {"width": 64, "blocks": 16}},
    "optimizer": {"learning_rate": 2e-4, "decay_steps": 100000},
    "train": {"batch_size": 16, "steps": 100000, "ema_decay": 0.999},
    "log": {"grid_every": 5000}, "checkpoint": {"every": 5000},
}
TEST = {
    "data": {"size": 32, "patients": 12},
    "model": {"network": {"width": 8, "blocks": 1}},
    "train": {"batch_size": 4, "steps": 6}, "log": {"every": 2, "grid_every": 4}, "checkpoint": {"every": 2},
}
# fmt: on

get_config = experiment(
    "super_resolution",
    QUICK,
    srcnn=SRCNN,
    x3=X3,
    x4=X4,
    full=FULL,
    test=TEST,
)
