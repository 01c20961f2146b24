"""From a config's sub-dicts to a task: the one place where names in a config become networks."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import optax

from pixmed_jax import losses
from pixmed_jax.errors import PixmedError
from pixmed_jax.models.patchgan import PatchGAN
from pixmed_jax.models.unet import UNet
from pixmed_jax.training import gan
from pixmed_jax.training.task import Task

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


def networks(config: Mapping[str, Any], axis_name: str | None = None) -> tuple[UNet, PatchGAN]:
    """Generator and discriminator of a config."""
    size, levels = config["data"]["size"], config["model"]["generator"]["levels"]
    if size % 2**levels:
        raise PixmedError(
            f"data.size={size} cannot be halved model.generator.levels={levels} times; "
            f"take a multiple of {2**levels}, or fewer levels"
        )
    if config["loss"]["ssim"] and size < losses.WINDOW:
        raise PixmedError(f"data.size={size} is smaller than SSIM's window; take {losses.WINDOW} or more")
    batch_size, parts = config["train"]["batch_size"], config["train"]["accumulate"]
    if batch_size % parts:
        raise PixmedError(
            f"train.batch_size={batch_size} cannot be cut into train.accumulate={parts} equal parts"
        )
    if config["train"]["dtype"] not in DTYPES:
        raise PixmedError(f"train.dtype={config['train']['dtype']!r} is not one of {', '.join(DTYPES)}")
    common = {"dtype": DTYPES[config["train"]["dtype"]], "axis_name": axis_name}
    generator = UNet(
        out_channels=config["data"]["channels"], **common, **_hashable(config["model"]["generator"])
    )
    return generator, PatchGAN(**common, **_hashable(config["model"]["discriminator"]))


def make_task(config: Mapping[str, Any], axis_name: str | None = None) -> Task:
    """The task that a config describes."""
    generator, discriminator = networks(config, axis_name)
    return gan.make_task(
        generator,
        discriminator,
        optax.adam(**config["optimizer"]),
        **config["loss"],
        ema_decay=config["train"]["ema_decay"],
        accumulate=config["train"]["accumulate"],
        augment_discriminator=config["train"].get("augment_discriminator"),
        axis_name=axis_name,
    )


def _hashable(settings: Mapping[str, Any]) -> dict[str, Any]:
    """JSON has no tuples, and a Flax module's fields must be hashable."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in settings.items()}
