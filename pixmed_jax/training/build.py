"""From a config's sub-dicts to a task: the one place where names in a config become networks."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import optax

from pixmed_jax import losses
from pixmed_jax.errors import PixmedError, listing
from pixmed_jax.models.dcgan import DCGANDiscriminator, DCGANGenerator
from pixmed_jax.models.patchgan import PatchGAN
from pixmed_jax.models.unet import UNet
from pixmed_jax.training import gan
from pixmed_jax.training.task import Task

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
# By the name in the config: the network, and whether a label is its condition, rather than a map.
GENERATORS: dict[str, tuple[type[nn.Module], bool]] = {"unet": (UNet, False), "dcgan": (DCGANGenerator, True)}
DISCRIMINATORS: dict[str, tuple[type[nn.Module], bool]] = {
    "patchgan": (PatchGAN, False),
    "dcgan": (DCGANDiscriminator, True),
}


def networks(config: Mapping[str, Any], axis_name: str | None = None) -> tuple[nn.Module, nn.Module]:
    """Generator and discriminator of a config."""
    data, train = config["data"], config["train"]
    batch_size, parts = train["batch_size"], train["accumulate"]
    if batch_size % parts:
        raise PixmedError(
            f"train.batch_size={batch_size} cannot be cut into train.accumulate={parts} equal parts"
        )
    if train["dtype"] not in DTYPES:
        raise PixmedError(f"train.dtype={train['dtype']!r} is not one of {', '.join(DTYPES)}")
    if config["loss"]["ssim"] and data["size"] < losses.WINDOW:
        raise PixmedError(
            f"data.size={data['size']} is smaller than SSIM's window; take {losses.WINDOW} or more"
        )
    common = {"dtype": DTYPES[train["dtype"]], "axis_name": axis_name}
    generator, generator_settings = _network("generator", GENERATORS, "unet", config)
    discriminator, discriminator_settings = _network("discriminator", DISCRIMINATORS, "patchgan", config)
    if generator is UNet:
        levels = generator_settings["levels"]
        if data["size"] % 2**levels:
            raise PixmedError(
                f"data.size={data['size']} cannot be halved model.generator.levels={levels} times; "
                f"take a multiple of {2**levels}, or fewer levels"
            )
    else:
        _check_label_losses(config["loss"])
        _check_power_of_two(data["size"])
        generator_settings["size"] = data["size"]
    return (
        generator(out_channels=data["channels"], **common, **generator_settings),
        discriminator(**common, **discriminator_settings),
    )


def _network(
    role: str, known: Mapping[str, tuple[type[nn.Module], bool]], default: str, config: Mapping[str, Any]
) -> tuple[type[nn.Module], dict[str, Any]]:
    """The class and the settings of `config.model.ROLE`; refused if it cannot take `data.condition`."""
    settings = _hashable(config["model"][role])
    name = settings.pop("name", default)  # runs of older versions name none
    if name not in known:
        raise PixmedError(f"model.{role}.name={name!r} is unknown; use one of {listing(sorted(known))}")
    network, takes_labels = known[name]
    condition = config["data"]["condition"]
    if takes_labels != (condition == "label"):
        wanted = "label" if takes_labels else "tumor, tumor+head or anatomy"
        raise PixmedError(
            f"data.condition={condition}: model.{role}.name={name} takes {wanted}; set data.condition"
        )
    return network, settings


def _check_label_losses(loss: Mapping[str, Any]) -> None:
    """A label does not say which real image a generated one should equal."""
    given = [f"loss.{name}={loss[name]}" for name in ("ssim", "l1", "mse") if loss[name]]
    if loss["bce"] != "adversarial":
        given.append(f"loss.bce={loss['bce']}")
    if given:
        raise PixmedError(
            f"{listing(given)}: compares images with those of a mask, and data.condition=label has none; "
            "set these to 0 and loss.bce=adversarial"
        )


def _check_power_of_two(size: int) -> None:
    if size < 8 or size & (size - 1):
        raise PixmedError(f"data.size={size}: this generator makes 8, 16, 32, 64, 128 or 256 pixels")


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
