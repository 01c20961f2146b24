"""What a training would be, without training: the config, the data, one batch, and the networks' sizes."""

from pathlib import Path
from typing import Any

import jax
import numpy as np

from pixmed_jax import config as configs
from pixmed_jax import inference, memory
from pixmed_jax.data.augment_settings import briefly
from pixmed_jax.data.pipeline import batch_rows
from pixmed_jax.data.slices import Source
from pixmed_jax.models import count
from pixmed_jax.training import mesh, supervised
from pixmed_jax.training.build import is_supervised, named_weights, network, networks
from pixmed_jax.training.start import check_slices, notices, opened


def dry_run(config: dict[str, Any], workdir: Path) -> int:
    """Print it all; returns 0. Raises PixmedError for what would stop the training at its start."""
    for key, value in briefly(configs.flatten(config)).items():
        print(f"{key} = {value!r}")
    devices = mesh.make_mesh(config["train"]["batch_size"])  # refuses a batch that these cannot share
    dataset, task, steps = opened(config)
    print(f"\nworkdir {workdir}, {len(dataset.source.files)} slices")
    for name, rows in dataset.rows.items():
        print(f"  {name:5} {len(rows):6} slices of {_patients(dataset.source, rows)}")
    for told in notices(config, dataset):
        print(told)
    check_slices(config, dataset)
    left_out = f", {len(dataset.left_out)} cannot and are left out" if dataset.left_out else ""
    print(f"every slice was read: {len(dataset.source.files)} can be used{left_out}")

    batch_size, train = config["train"]["batch_size"], dataset.rows["train"]
    with memory.told(batch_size, dataset.load_size, "lower train.batch_size or data.size"):
        rows = train[np.unique(batch_rows(config["seed"], 0, batch_size, len(train)))]
        arrays, _ = dataset.load(rows, dataset.load_size)
    images, maps = np.asarray(arrays.images), np.asarray(arrays.maps)
    print(
        f"first batch: images {list(images.shape)} {images.dtype} from {images.min()} to {images.max()}, "
        f"classes {', '.join(f'{k} {name}' for k, name in enumerate(dataset.classes, 1))}; "
        f"values {np.unique(maps).tolist()}"
    )
    print(f"{steps} steps of {batch_size} images, {steps * batch_size / len(train):.1f} epochs\n")

    part = batch_size // config["train"]["accumulate"]
    print(f"{'network':14}{'parameters':>14}{'MACs/image':>14}{'weights':>12}{'training':>12}")
    sizes = network_sizes(config, len(dataset.classes))
    for name, size in sizes.items():
        # Training holds weights, gradients, two Adam moments, activations, and an average of what predicts.
        copies = 4 if name == "discriminator" else 5
        training = copies * 4 * size.parameters + part * size.activations
        print(
            f"{name:14}{size.parameters:14,}{size.macs / 1e6:12,.1f} M{4 * size.parameters / 1e6:9,.1f} MB"
            f"{training / 1e6:9,.0f} MB"
        )
    example = inference.example_batch(config, len(dataset.classes))
    state = mesh.like(jax.eval_shape(task.init, jax.random.key(0), example), mesh.replicated(devices))
    if named_weights(config, state) is not None:
        print("weights to start from: read, and they fit")
    print(f"training: float32 state, and the activations of {part} images at a time kept for the gradient")
    return 0


def _patients(source: Source, rows: np.ndarray) -> str:
    """How many there are; a slice that is its own group is of nobody whom the data name."""
    known = [row for row in rows if source.groups[row] != source.files[row]]
    told = f"{len({source.groups[row] for row in known}):4} patients"
    if len(known) == len(rows):
        return told
    return f"{told}, {len(rows) - len(known)} of nobody known" if known else "unknown patients"


def network_sizes(config: dict[str, Any], classes: int) -> dict[str, count.Size]:
    """Size of each network of a config, for one image."""
    batch = inference.example_batch(config, classes)
    key = jax.random.key(0)
    keys = {"params": key, "dropout": key, "noise": key}
    if is_supervised(config):
        module, kind, loss = network(config, classes)
        inputs = supervised.AIMS[kind](**loss).inputs(batch)
        return {"network": count.size(module, lambda m: m.init(keys, inputs, train=True))}
    generator, discriminator = networks(config)
    return {
        "generator": count.size(generator, lambda m: m.init(keys, batch.condition, train=True)),
        "discriminator": count.size(discriminator, lambda m: m.init(key, batch.condition, batch.images)),
    }
