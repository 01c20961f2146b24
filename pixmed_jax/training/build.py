"""From a config's sub-dicts to a task: the one place where names in a config become networks."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from pixmed_jax import losses
from pixmed_jax.data import degrade, regions
from pixmed_jax.data.regions import MAPS
from pixmed_jax.data.slices import PLANES
from pixmed_jax.errors import PixmedError, listing
from pixmed_jax.models.dcgan import DCGANDiscriminator, DCGANGenerator
from pixmed_jax.models.densenet import DenseNet, read_weights
from pixmed_jax.models.ghost_spade import GhostSPADE
from pixmed_jax.models.layers import NORMS
from pixmed_jax.models.layout_vae import LayoutVAE
from pixmed_jax.models.patchgan import MultiScalePatchGAN, PatchGAN
from pixmed_jax.models.segmenter import Segmenter
from pixmed_jax.models.srcnn import SRCNN
from pixmed_jax.models.srresnet import SRResNet
from pixmed_jax.models.stylegan2 import StyleGAN2Discriminator, StyleGAN2Generator
from pixmed_jax.models.unet import UNet
from pixmed_jax.models.zero_dce import ZeroDCE
from pixmed_jax.training import checkpoint, gan, ranges, supervised
from pixmed_jax.training.task import Task

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
_SMALL = ("low_resolution",)
# By the name in the config: the network, and the conditions that it takes.
GENERATORS: dict[str, tuple[type[nn.Module], tuple[str, ...]]] = {
    "unet": (UNet, MAPS),
    "ghost_spade": (GhostSPADE, MAPS),
    "dcgan": (DCGANGenerator, ("label",)),
    "stylegan2": (StyleGAN2Generator, ("label",)),
    "srresnet": (SRResNet, _SMALL),
}
DISCRIMINATORS: dict[str, tuple[type[nn.Module], tuple[str, ...]]] = {
    "patchgan": (PatchGAN, (*MAPS, *degrade.CONDITIONS)),
    "multiscale_patchgan": (MultiScalePatchGAN, MAPS),
    "dcgan": (DCGANDiscriminator, ("label",)),
    "stylegan2": (StyleGAN2Discriminator, ("label",)),
}
# Single networks: what each predicts, and the conditions that are its target, or that it restores or draws.
NETWORKS: dict[str, tuple[type[nn.Module], str, tuple[str, ...]]] = {
    "densenet": (DenseNet, "labels", ("label",)),
    "segmenter": (Segmenter, "masks", ("tumor",)),
    "srcnn": (SRCNN, "images", _SMALL),
    "srresnet": (SRResNet, "images", _SMALL),
    "zero_dce": (ZeroDCE, "curves", ("low_light",)),
    "layout": (LayoutVAE, "layouts", MAPS),
}
WEIGHTS = "model.network.weights"


def is_supervised(config: Mapping[str, Any]) -> bool:
    """Whether a config is of one network and its target, rather than of a generator and a discriminator."""
    return "network" in config["model"]


def _makes(config: Mapping[str, Any]) -> str:
    """What a supervised network makes, as `NETWORKS` has it; "" of a generator."""
    return NETWORKS[config["model"]["network"]["name"]][1] if is_supervised(config) else ""


def makes_layouts(config: Mapping[str, Any]) -> bool:
    """Whether a config is of a network that draws label maps."""
    return _makes(config) == "layouts"


def classifies(config: Mapping[str, Any]) -> bool:
    """Whether a config is of a network that tells labels."""
    return _makes(config) == "labels"


def segments(config: Mapping[str, Any]) -> bool:
    """Whether a config is of a network that finds tumours."""
    return _makes(config) == "masks"


def restores(config: Mapping[str, Any]) -> bool:
    """Whether a config is of a network, supervised or adversarial, that is given a degraded image."""
    return config["data"]["condition"] in degrade.CONDITIONS


def restorer(config: Mapping[str, Any]) -> Any:
    """The network of a config that `restores`."""
    return network(config, 0)[0] if is_supervised(config) else networks(config)[0]


def networks(config: Mapping[str, Any], axis_name: str | None = None) -> tuple[nn.Module, nn.Module]:
    """Generator and discriminator of a config."""
    data, given = config["data"], _given(config, axis_name)
    generator, generator_settings = _network("generator", GENERATORS, "unet", config)
    discriminator, discriminator_settings = _network("discriminator", DISCRIMINATORS, "patchgan", config)
    generator_settings.pop("weights", "")  # see `start`
    if data["condition"] == "label":
        _check_label_losses(config["loss"])
    made = (
        _made("generator", generator, generator_settings, given),
        _made("discriminator", discriminator, discriminator_settings, given),
    )
    _check_window(data["size"])
    return made


def network(
    config: Mapping[str, Any], classes: int, axis_name: str | None = None
) -> tuple[nn.Module, str, dict[str, Any]]:
    """The network of a supervised config for so many classes, what it predicts, and the loss's settings."""
    settings, size = _hashable(config["model"]["network"]), config["data"]["size"]
    name = settings.pop("name")
    if name not in NETWORKS:
        raise PixmedError(f"model.network.name={name!r} is unknown; use one of {listing(sorted(NETWORKS))}")
    module, kind, conditions = NETWORKS[name]
    condition = config["data"]["condition"]
    if condition not in conditions:
        learns = "draws label maps" if kind == "layouts" else f"learns to tell {kind}"
        raise PixmedError(
            f"data.condition={condition}: model.network.name={name} {learns}; "
            f"set data.condition={' or '.join(conditions)}"
        )
    loss, given = _hashable(config["loss"]), {**_given(config, axis_name), "classes": classes}
    if (weights := settings.pop("weights", "")) and not hasattr(module, "imagenet"):
        raise PixmedError(f"{WEIGHTS}={weights}: {name} cannot start from a file of weights; leave it empty")
    given["imagenet"] = bool(weights)
    if kind in ("images", "curves"):
        _check_window(size)
    if kind == "layouts":
        tumors = regions.tumors(condition, classes, config["data"]["tissues"])
        told = {"tumors": tumors, "planes": len(PLANES) if config["data"].get("planes") else 0}
        given, loss = given | told, loss | told | {"classes": classes}
    if kind == "labels":
        if classes < 2:
            raise PixmedError(
                "data.label_column: the data have one class, and a classifier needs two or more"
            )
        shares = loss.get("class_weights", ())
        if shares and len(shares) != classes:
            raise PixmedError(f"loss.class_weights={shares}: the data have {classes} classes; give {classes}")
    return _made("network", module, settings, given), kind, loss


def start(config: Mapping[str, Any], state: Any) -> Any:
    """A new state with the weights that `model.network.weights` or `.generator.weights` names, if any."""
    new = named_weights(config, state)
    if new is None:
        return state

    field = "variables" if is_supervised(config) else "generator"
    shardings = jax.tree.map(lambda x: x.sharding, getattr(state, field))
    # The step donates its state, so no two of its arrays may lie in the same memory, nor in NumPy's.
    copied = jax.jit(lambda tree: jax.tree.map(jnp.copy, tree), out_shardings=shardings)
    return state._replace(**{field: copied(new)}, ema=copied(new))


def named_weights(config: Mapping[str, Any], state: Any) -> Any:
    """The weights that the config names, or None.

    state: arrays or their shapes and shardings, which the weights must fit; what a file leaves open, a
    classifier's last layer, is the state's own.
    """
    if is_supervised(config):
        path = config["model"]["network"].get("weights", "")
        return read_weights(path, state.variables, WEIGHTS) if path else None
    run = warm_start(config)
    return checkpoint.restore(newest_of(run), {"ema": state.generator})["ema"] if run else None


def warm_start(config: Mapping[str, Any]) -> Path | None:
    """The folder of the run whose weights a generator starts from; what supervised networks start from is a
    file and no run.
    """
    path = config["model"].get("generator", {}).get("weights", "")
    return Path(path) if path else None


def newest_of(run: Path) -> checkpoint.Saved:
    """The newest checkpoint of a run that `warm_start` names."""
    saved = checkpoint.newest_intact(run / "checkpoints")
    if saved is None:
        raise PixmedError(f"model.generator.weights={run}: no trained run there; give the folder of one")
    return saved


def _given(config: Mapping[str, Any], axis_name: str | None) -> dict[str, Any]:
    """What a network is given beside its settings; refuses an unknown type."""
    data, train = config["data"], config["train"]
    if train["dtype"] not in DTYPES:
        raise PixmedError(f"train.dtype={train['dtype']!r} is not one of {', '.join(DTYPES)}")
    return {
        "dtype": DTYPES[train["dtype"]],
        "axis_name": axis_name,
        "size": data["size"],
        "out_channels": data["channels"],
        **({"scale": data["scale"]} if "scale" in data else {}),
    }


def _made(
    role: str, network: type[nn.Module], settings: Mapping[str, Any], given: Mapping[str, Any]
) -> nn.Module:
    """The network of `config.model.ROLE`, given what it has fields for; it may `check` itself."""
    fields = {field.name for field in dataclasses.fields(network)}
    if unknown := sorted(settings.keys() - fields):
        keys = listing([f"model.{role}.{name}" for name in unknown])
        raise PixmedError(f"{keys}: unknown to {network.__name__}; take another preset, or leave it out")
    if network.__module__.startswith(
        "pixmed_jax."
    ):  # one's own may have other norms, and means by its numbers
        ranges.check_network(role, settings)
        _check_norm(role, settings)
    module = network(**{**{name: given[name] for name in given.keys() & fields}, **settings})
    if check := getattr(module, "check", None):
        check(given["size"], f"model.{role}")
    return module


def _check_norm(role: str, settings: Mapping[str, Any]) -> None:
    if (norm := settings.get("norm", NORMS[0])) not in NORMS:
        raise PixmedError(f"model.{role}.norm={norm!r} is unknown; use one of {listing(NORMS)}")


def _network(
    role: str,
    known: Mapping[str, tuple[type[nn.Module], tuple[str, ...]]],
    default: str,
    config: Mapping[str, Any],
) -> tuple[type[nn.Module], dict[str, Any]]:
    """The class and the settings of `config.model.ROLE`; refused if it cannot take `data.condition`."""
    settings = _hashable(config["model"][role])
    name = settings.pop("name", default)  # runs of older versions name none
    if name not in known:
        raise PixmedError(f"model.{role}.name={name!r} is unknown; use one of {listing(sorted(known))}")
    network, takes = known[name]
    condition = config["data"]["condition"]
    if condition not in takes:
        raise PixmedError(
            f"data.condition={condition}: model.{role}.name={name} takes {' or '.join(takes)}; "
            "set data.condition"
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


def _check_window(size: int) -> None:
    if size < losses.WINDOW:
        raise PixmedError(
            f"data.size={size} is smaller than SSIM's window, and evaluation measures SSIM; take "
            f"{losses.WINDOW} or more"
        )


def make_task(config: Mapping[str, Any], axis_name: str | None = None, *, classes: int = 0) -> Task:
    """The task that a config describes; supervised networks need to know the number of classes."""
    ranges.check(config)
    if is_supervised(config):
        module, kind, loss = network(config, classes, axis_name)
        return supervised.make_task(
            module,
            _adamw(**config["optimizer"]),
            kind=kind,
            **loss,
            ema_decay=config["train"]["ema_decay"],
            accumulate=config["train"]["accumulate"],
            axis_name=axis_name,
        )
    if classes > regions.MOST_CLASSES:  # of labels: maps of more are refused when they are made
        raise PixmedError(
            f"data.condition=label: the data have {classes} classes, over {regions.MOST_CLASSES}; join some"
        )
    generator, discriminator = networks(config, axis_name)
    aim, optimizer = gan.Losses(**config["loss"]), config["optimizer"]
    return gan.make_task(
        generator,
        discriminator,
        gan.adam(aim.path_every if aim.path_length else 0, **optimizer),
        aim,
        discriminator_optimizer=gan.adam(aim.r1_every if aim.r1 else 0, **optimizer),
        ema_decay=config["train"]["ema_decay"],
        accumulate=config["train"]["accumulate"],
        augment_discriminator=config["train"].get("augment_discriminator"),
        axis_name=axis_name,
    )


def _adamw(
    learning_rate: float, b1: float, b2: float, weight_decay: float, decay_steps: int
) -> optax.GradientTransformation:
    """Adam with decay of the kernels alone; the rate falls along a cosine to 0 at `decay_steps`, if not 0."""
    rate = optax.cosine_decay_schedule(learning_rate, decay_steps) if decay_steps else learning_rate

    def kernels(params: Any) -> Any:
        return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)

    return optax.adamw(rate, b1, b2, weight_decay=weight_decay, mask=kernels)


def _hashable(settings: Mapping[str, Any]) -> dict[str, Any]:
    """JSON has no tuples, and a Flax module's fields must be hashable."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in settings.items()}
