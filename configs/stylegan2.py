"""StyleGAN2 (Karras et al., CVPR 2020), given the tumour's class; no mask goes in or comes out.

python launch.py --config=configs/stylegan2.py        quick: embedded phantoms at 64x64, minutes on two CPU
                                                      cores; few features, R1 and path length as in full
python launch.py --config=configs/stylegan2.py:paper --config.data.dir=DIR
    256x256 with the settings that ADA (Karras et al., NeurIPS 2020, official "paper256") took for that size:
    half of configuration F's features (channel_base 16384: 24.8 and 24.0 million parameters without classes),
    mapping of 8 layers, batch 64 with deviations in groups of 8, Adam 2.5e-3 with momenta 0 and 0.99, R1 with
    gamma 1 in every 16th step, path length with weight 2 in every 4th, style mixing 0.9, average over 20,000
    images (0.5 ** (64 / 20000)). There 25 million images; here 400 epochs of your own.
--config.model.generator.truncation=0.7 draws each image nearer to its class's mean: less variety, fewer
failures (Section 2.1; 1: none). Training itself does not know it.
"""

from pixmed_jax.defaults import ADVERSARIAL, experiment, merged

# fmt: off
QUICK = merged(ADVERSARIAL, {
    "data": {"condition": "label", "load_scale": 1.0},
    "model": {
        "generator": {"name": "stylegan2", "latent": 64, "width": 64, "mapping_layers": 2,
                      "channel_base": 1024, "channel_max": 64, "style_mixing": 0.9, "truncation": 1.0,
                      "mean_decay": 0.998},
        "discriminator": {"name": "stylegan2", "mapping_layers": 2, "channel_base": 1024,
                          "channel_max": 64, "group": 4},
    },
    "loss": {"r1": 1.0, "r1_every": 16, "path_length": 2.0, "path_every": 4},
    "optimizer": {"learning_rate": 2.5e-3, "b1": 0.0, "b2": 0.99},
    "train": {"batch_size": 8, "steps": 8000, "ema_decay": 0.995},
})
PAPER = {
    "data": {"source": "folder", "size": 256},
    "model": {"generator": {"latent": 512, "width": 512, "mapping_layers": 8, "channel_base": 16384,
                            "channel_max": 512},
              "discriminator": {"mapping_layers": 8, "channel_base": 16384, "channel_max": 512, "group": 8}},
    "train": {"batch_size": 64, "steps": 0, "epochs": 400, "ema_decay": 0.9978}, "log": {"every": 10},
}
# fmt: on

get_config = experiment("stylegan2", QUICK, paper=PAPER)
