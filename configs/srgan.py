"""SRGAN (Ledig et al., CVPR 2017): realistic super-resolution, by an adversary added to a pixel loss.

    python launch.py --config=configs/srgan.py            quick: x2 on embedded phantoms
    python launch.py --config=configs/srgan.py --config.model.generator.weights=RUN
                                                          as there, starting from a network trained on pixels
                                                          alone, a run of configs/super_resolution.py
Unlike the paper, a PatchGAN sees the image alone, since super-resolution lacks local texture, and it takes
any image size, where a VGG with two dense layers takes one; L1 on pixels replaces VGG's features, which are
those of photographs. The adversary weighs 1e-3 there, beside features; here `loss.adversarial`.
Presets x3 and x4 as in configs/super_resolution.py.
"""

from pixmed_jax.defaults import ADVERSARIAL, experiment, merged

# fmt: off
QUICK = merged(ADVERSARIAL, {
    "data": {"condition": "low_resolution", "scale": 2, "load_scale": 1.0},
    "model": {"generator": {"name": "srresnet", "width": 32, "blocks": 4, "weights": ""},
              "discriminator": {"name": "patchgan", "width": 32, "layers": 3, "norm": "instance",
                                "conditional": False}},
    "loss": {"l1": 1.0, "adversarial": 0.03},
    "train": {"batch_size": 8},
})
TEST = {
    "data": {"size": 32, "patients": 12},
    "model": {"generator": {"width": 8, "blocks": 1}, "discriminator": {"width": 8, "layers": 1}},
    "train": {"batch_size": 4, "steps": 6}, "log": {"every": 2, "grid_every": 4}, "checkpoint": {"every": 2},
}
# fmt: on

get_config = experiment(
    "srgan", QUICK, x3={"data": {"size": 96, "scale": 3}}, x4={"data": {"scale": 4}}, test=TEST
)
