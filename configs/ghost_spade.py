"""GhostSPADE: the project's own generator, ghost modules on both sides, the map at every scale, and a style.

    python launch.py --config=configs/ghost_spade.py      quick: embedded phantoms, minutes on two CPU cores
    python launch.py --config=configs/ghost_spade.py --config.data.source=folder --config.data.dir=DIR
    python launch.py --config=configs/ghost_spade.py:long --config.data.source=folder --config.data.dir=DIR
                                                          17 times the images: 34 to 65 minutes of one core
    python launch.py --config=configs/ghost_spade.py:large --config.data.source=folder --config.data.dir=DIR
                                                          256x256: a minute of an H100, once compiled
    python launch.py --config=configs/ghost_spade.py:paper --config.data.dir=DIR
                                                          256x256 by the paper's schedule: a GPU
    python launch.py --config=configs/ghost_spade.py:demo the weights behind --mode=demo: 128x128, phantoms
A sixtieth of the paper's parameters, no transposed convolutions, a different slice at each draw of a map, in
a style fitting that map (models/ghost_spade.py); the discriminators are PatchGANs at two scales. After the
last step the styles' prior is fitted ("settled", training/settle.py); to settle a run that was stopped early,
set train.steps to its last step plus one. docs/ablations.md says what each part is worth.
"""

from pixmed_jax.defaults import ADVERSARIAL, experiment, merged

# fmt: off
QUICK = merged(ADVERSARIAL, {
    "data": {"condition": "anatomy"},
    "model": {"generator": {"name": "ghost_spade", "width": 16, "levels": 5, "most": 192, "ghost_ratio": 2,
                            "style": 8},
              "discriminator": {"name": "multiscale_patchgan", "scales": 2, "width": 24, "layers": 2,
                                "norm": "instance", "spectral": True}},
    "loss": {"ssim": 4.0, "kl": 0.01},
    "optimizer": {"learning_rate": 5e-4},
})
LONG = {
    "train": {"steps": 40_000, "ema_decay": 0.999},
    "log": {"grid_every": 4000}, "checkpoint": {"every": 2000},
}
FOR_256 = {"layers": 3, "width": 48}  # of the discriminator
LARGE = {  # as docs/results.md has it; spectral norm was not tried at this size
    "data": {"size": 256},
    "model": {"discriminator": {**FOR_256, "spectral": False}},
    "train": {"batch_size": 16, "steps": 5250, "ema_decay": 0.999, "dtype": "bfloat16"},
    "log": {"grid_every": 1000}, "checkpoint": {"every": 1000},
}
PAPER = {
    "data": {"source": "folder", "size": 256},
    "model": {"discriminator": FOR_256},
    "train": {"batch_size": 64, "steps": 0, "epochs": 400}, "log": {"every": 10},
}
TEST = {
    "data": {"size": 32, "patients": 12, "condition": "tumor+head"},
    "model": {"generator": {"width": 4, "levels": 2}, "discriminator": {"width": 4, "layers": 1}},
    "train": {"batch_size": 4, "steps": 6}, "log": {"every": 2, "grid_every": 4}, "checkpoint": {"every": 2},
}
DEMO = {  # phantoms, since the weights of patients cannot come with the project
    "data": {"size": 128, "patients": 480,
             "augment": {"rotation": {"p": 0.3}, "scaling": {"p": 0.3}, "translation": {"p": 0.3},
                         "flip_left_right": {"p": 0.5}, "elastic": {"p": 0.3}}},
    "train": {"steps": 6000, "ema_decay": 0.999}, "log": {"grid_every": 500}, "checkpoint": {"every": 500},
}
# fmt: on

get_config = experiment("ghost_spade", QUICK, long=LONG, large=LARGE, paper=PAPER, test=TEST, demo=DEMO)
