"""A classifier of slices by tumour class: DenseNet (Huang et al., CVPR 2017), the paper's DenseNet201.

    python launch.py --config=configs/classifier.py       quick: embedded phantoms, a small DenseNet, minutes
                                                          on two CPU cores
    python launch.py --config=configs/classifier.py:paper --config.data.dir=DIR
                                                          DenseNet201 (18.1 M parameters) at 224x224; a GPU
Data: a folder of images by class (--config.data.source=classes --config.data.split.by=slice), or images with
masks and a table of labels (source=folder). --config.data.synthetic_dir=DIR adds the slices that
--mode=sample wrote there to the training split; --config.data.synthetic=replace takes them in its place.
--config.model.network.weights=FILE starts from ImageNet weights: Keras's .h5 or torchvision's .safetensors.
The paper does not say how its classifier was trained; batch 32, Adam 1e-4 and a cosine are our choice.
"""

from pixmed_jax.defaults import SUPERVISED, experiment, merged

# fmt: off
QUICK = merged(SUPERVISED, {
    "data": {"condition": "label"},
    "model": {"network": {"name": "densenet", "blocks": (3, 6, 6), "growth": 12, "stem": 24, "dropout": 0.0,
                          "weights": ""}},
    "loss": {"label_smoothing": 0.0, "class_weights": ()},
    "optimizer": {"decay_steps": 600},
    "train": {"batch_size": 16, "steps": 600}, "log": {"grid_every": 150}, "checkpoint": {"every": 150},
})
PAPER = {
    "data": {"source": "folder", "size": 224},
    "model": {"network": {"blocks": (6, 12, 48, 32), "growth": 32, "stem": 64}},
    "optimizer": {"learning_rate": 1e-4, "decay_steps": 4000},
    "train": {"batch_size": 32, "steps": 4000, "ema_decay": 0.999},
    "log": {"grid_every": 500}, "checkpoint": {"every": 500},
}
TEST = {
    "data": {"size": 32, "patients": 12},
    "model": {"network": {"blocks": (1, 1), "growth": 4, "stem": 8}},
    "train": {"batch_size": 4, "steps": 6}, "log": {"every": 2, "grid_every": 4}, "checkpoint": {"every": 2},
}
# fmt: on

get_config = experiment("classifier", QUICK, paper=PAPER, test=TEST)
