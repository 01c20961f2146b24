"""The training step of a preset, as `loop.train` compiles it, for devices that need not be here."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from pixmed_jax import inference
from pixmed_jax.data import regions
from pixmed_jax.data.phantom_anatomy import LABEL_NAMES
from pixmed_jax.data.pipeline import Arrays, Batch
from pixmed_jax.training import mesh as meshes
from pixmed_jax.training.build import make_task
from pixmed_jax.training.loop import jit_step
from pixmed_jax.training.task import Task

_SLICES = 64


class Step(NamedTuple):
    lowered: Any
    task: Task
    example: Batch
    arrays: Arrays  # shapes of the slices on the device


def of(config: dict[str, Any], mesh: Mesh) -> Step:
    """For 64 resident slices with as many classes as phantoms have."""
    data = config["data"]
    side = round(data["size"] * data["load_scale"])
    names = regions.class_names(data["condition"], LABEL_NAMES, data["class_channels"], data["tissues"])
    maps = (_SLICES, side, side) if data["condition"] in regions.MAPS else (_SLICES,)
    everywhere = meshes.replicated(mesh)
    arrays = Arrays(
        jax.ShapeDtypeStruct((_SLICES, side, side, 1), np.uint8, sharding=everywhere),
        jax.ShapeDtypeStruct(maps, np.uint8, sharding=everywhere),
        jax.ShapeDtypeStruct((_SLICES,), np.int32, sharding=everywhere),
    )
    task = make_task(config)
    example = inference.example_batch(config, len(names))
    state = meshes.like(jax.eval_shape(task.init, jax.random.PRNGKey(0), example), everywhere)
    rows = jax.ShapeDtypeStruct((config["train"]["batch_size"],), np.int32, sharding=meshes.sharded(mesh))
    lowered = jit_step(task, config, len(names), mesh).lower(state, arrays, rows)
    return Step(lowered, task, example, arrays)


def changed(config: dict[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """A preset with the size, batch and type of a command line, where these are given."""
    data, train = config["data"], config["train"]
    data["size"] = options["size"] or data["size"]
    train["batch_size"] = options["batch"] or train["batch_size"]
    train["dtype"] = options["dtype"]
    return config
