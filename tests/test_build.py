"""From a config to networks: those of one's own, registered in the tables, are taken as the project's are."""

import inspect
import math
import runpy
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
import runs
from test_defaults import CONFIGS, presets

from pixmed_jax import config as configs
from pixmed_jax import inference
from pixmed_jax.data.regions import MAPS
from pixmed_jax.errors import PixmedError
from pixmed_jax.training import build, ranges
from pixmed_jax.training.task import Task


class Painter(nn.Module):
    """Label maps -> images; knows no levels."""

    out_channels: int
    depth: int = 1

    @nn.compact
    def __call__(self, condition: jax.Array, *, train: bool, noise: bool = True) -> jax.Array:
        for _ in range(self.depth):
            condition = nn.relu(nn.Conv(4, (3, 3))(condition))
        return nn.sigmoid(nn.Conv(self.out_channels, (1, 1))(condition))


class OfLabels(nn.Module):
    """Labels -> images of any size, which it has no name for."""

    pixels: int
    out_channels: int = 1

    @nn.compact
    def __call__(self, condition: jax.Array, *, train: bool, noise: bool = True) -> jax.Array:
        z = jax.random.normal(self.make_rng("noise"), (len(condition), 4))
        x = nn.Dense(self.pixels**2 * self.out_channels)(jnp.concatenate([z, condition], -1))
        return nn.sigmoid(x).reshape(-1, self.pixels, self.pixels, self.out_channels)


class SizedOfLabels(OfLabels):
    """The same, given the images' size by the name that the project has for it."""

    pixels: int = 0
    size: int = 0

    @nn.compact
    def __call__(self, condition: jax.Array, *, train: bool, noise: bool = True) -> jax.Array:
        return OfLabels(self.size, self.out_channels)(condition, train=train)


class Critic(nn.Module):
    """Its `layers` halve nothing."""

    layers: int = 6

    @nn.compact
    def __call__(self, condition: jax.Array, image: jax.Array) -> jax.Array:
        x = image.mean((1, 2))
        for _ in range(self.layers):
            x = nn.relu(nn.Dense(4)(x))
        return nn.Dense(1)(x)


class Classifier(nn.Module):
    classes: int

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
        return nn.Dense(self.classes)(images.mean((1, 2)))


class Outliner(nn.Module):
    classes: int

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
        return nn.Conv(1 + self.classes, (3, 3))(images)


class Enlarger(nn.Module):
    scale: int
    out_channels: int
    reach = 1

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool) -> jax.Array:
        n, h, w, _ = image.shape
        small = nn.Conv(self.out_channels, (3, 3))(image)
        return jax.image.resize(small, (n, self.scale * h, self.scale * w, self.out_channels), "nearest")


class Picky(Painter):
    def check(self, size: int, key: str) -> None:
        raise PixmedError(f"{key}.depth={self.depth}: not with data.size={size}; give another")


class Normed(Painter):
    """Fields whose names others of the project have, for something else."""

    norm: str = "group"
    style: int = 0
    width: float = 1.0  # a share of another's


class Half(Painter):
    """Reads styles, but could not settle them once it is trained."""

    style: int = 8

    def reconstruct(self, condition: jax.Array, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        return self(condition, train=True), jnp.zeros(len(images))


@pytest.fixture
def registered(monkeypatch):
    """Tables with networks of one's own; what is registered here is gone after the test."""
    own: dict[str, dict[str, tuple]] = {
        "GENERATORS": {
            "painter": (Painter, MAPS), "of_labels": (OfLabels, ("label",)),
            "sized": (SizedOfLabels, ("label",)), "picky": (Picky, MAPS),
            "normed": (Normed, MAPS), "half": (Half, MAPS),
        },
        "DISCRIMINATORS": {"critic": (Critic, (*MAPS, "label"))},
        "NETWORKS": {
            "classifier": (Classifier, "labels", ("label",)),
            "outliner": (Outliner, "masks", ("tumor",)),
            "enlarger": (Enlarger, "images", ("low_resolution",)),
        },
    }  # fmt: skip
    for table, more in own.items():
        monkeypatch.setattr(build, table, {**getattr(build, table), **more})


def after_a_step(config: dict[str, Any], classes: int = 3) -> tuple[Any, Mapping[str, Any]]:
    """The shapes of a state after one step, and of what the step tells."""
    task, batch = build.make_task(config, classes=classes), inference.example_batch(config, classes, 4)
    state = jax.eval_shape(task.init, jax.random.PRNGKey(0), batch)
    return jax.eval_shape(task.step, state, batch)


@pytest.mark.parametrize(
    ("of", "generator"),
    [
        ("ghost", {"name": "painter", "depth": 2}),
        ("ghost", {"name": "painter", "weights": ""}),
        ("dcgan", {"name": "of_labels", "pixels": 24}),
        ("dcgan", {"name": "sized"}),
    ],
)
def test_a_generator_and_a_discriminator_of_ones_own(of, generator, registered, tmp_path_factory):
    """Of a size that none of the project's halve or double to; six layers that are not PatchGAN's."""
    config = runs.preset(tmp_path_factory, of, of="quick", data__size=24)
    config["model"] = {"generator": generator, "discriminator": {"name": "critic", "layers": 6}}
    _, metrics = after_a_step(config)
    assert "generator/gradient_norm" in metrics


@pytest.mark.parametrize(
    ("of", "name", "features"),
    [("classifier", "classifier", 3), ("segmenter", "outliner", 4), ("super_resolution", "enlarger", 1)],
)
def test_a_single_network_of_ones_own(of, name, features, registered, tmp_path_factory):
    config = runs.preset(tmp_path_factory, of, data__size=22)
    config["model"] = {"network": {"name": name}}
    state, _ = after_a_step(config)
    (bias,) = (x for x in jax.tree.leaves(state.variables["params"]) if x.ndim == 1)
    assert bias.shape == (features,)


def test_a_layout_model_of_one_class_reads_it_once(tmp_path_factory):
    """However many channels the images have: the condition repeats a single class for each of them."""
    changes = {"data__condition": "tumor", "data__class_channels": False, "data__channels": 3}
    config = runs.preset(tmp_path_factory, "layout", **changes)
    state, _ = after_a_step(config, classes=1)
    grey, _ = after_a_step(runs.preset(tmp_path_factory, "layout", **changes | {"data__channels": 1}), 1)
    assert jax.tree.map(jnp.shape, state) == jax.tree.map(jnp.shape, grey)


def test_a_network_may_check_its_own_settings(registered, tmp_path_factory):
    config = runs.preset(tmp_path_factory, "ghost")
    config["model"]["generator"] = {"name": "picky", "depth": 7}
    with pytest.raises(PixmedError, match=r"model\.generator\.depth=7: not with data\.size=32"):
        build.make_task(config)


def test_a_setting_that_the_network_does_not_have_is_named(tmp_path_factory):
    """As two presets of different networks bring together, `:srcnn+full` say."""
    config = runs.preset(tmp_path_factory, "ghost")
    config["model"]["generator"]["blocks"] = 5
    with pytest.raises(PixmedError, match=r"^model\.generator\.blocks: unknown to UNet; take another preset"):
        build.make_task(config)


def test_kernels_alone_decay(tmp_path_factory):
    """Of a layout model's prior the means are matrices too, and no kernels."""
    config = runs.preset(tmp_path_factory, "layout", optimizer__weight_decay=0.5)
    optimizer = build._adamw(**config["optimizer"])
    params = {"means": jnp.ones((3, 2)), "layer": {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)}}
    updates, _ = optimizer.update(jax.tree.map(jnp.zeros_like, params), optimizer.init(params), params)
    assert not updates["means"].any() and not updates["layer"]["bias"].any()
    assert (updates["layer"]["kernel"] < 0).all()


def test_weights_of_a_network_that_reads_none_are_refused(registered, tmp_path_factory):
    config = runs.preset(tmp_path_factory, "classifier")
    config["model"]["network"] = {"name": "classifier", "weights": "file.h5"}
    with pytest.raises(PixmedError, match=r"model\.network\.weights=file\.h5: .*; leave it empty"):
        build.make_task(config, classes=3)


@pytest.mark.parametrize(
    ("of", "role"),
    [("ghost", "generator"), ("ghost", "discriminator"), ("dcgan", "generator"), ("segmenter", "network")],
)
def test_an_unknown_norm_is_refused_by_its_key(of, role, tmp_path_factory):
    config = runs.preset(tmp_path_factory, of, of="quick", **{f"model__{role}__norm": "group"})
    with pytest.raises(PixmedError) as caught:
        build.make_task(config, classes=3)
    told = f"model.{role}.norm='group' is unknown; use one of batch, instance, none"
    assert str(caught.value) == told


def test_a_network_of_ones_own_may_have_norms_of_its_own(registered, tmp_path_factory):
    config = runs.preset(tmp_path_factory, "ghost")
    config["model"]["generator"] = {"name": "normed", "norm": "group"}
    build.make_task(config)


def test_a_network_of_ones_own_may_mean_other_things_by_its_numbers(registered, tmp_path_factory):
    config = runs.preset(tmp_path_factory, "ghost")
    config["model"]["generator"] = {"name": "normed", "width": 0.5}
    build.make_task(config)


def test_a_field_called_style_is_not_enough_to_read_styles(registered, tmp_path_factory):
    """What a generator's methods are counts, or the training would end in a traceback."""
    config = runs.preset(tmp_path_factory, "ghost_spade", loss__kl=0.5)
    for generator in ({"name": "normed", "style": 8}, {"name": "half"}):
        config["model"]["generator"] = generator
        with pytest.raises(PixmedError, match=r"^loss\.kl=0\.5: (Normed|Half) reads no styles; set it to 0$"):
            build.make_task(config)


def test_the_projects_discriminators_check_their_size_too(registered, tmp_path_factory):
    """A generator of one's own makes images that they cannot judge."""
    for name in ("dcgan", "stylegan2"):
        config = runs.preset(tmp_path_factory, name, of="quick", data__size=24)
        config["model"]["generator"] = {"name": "sized"}
        with pytest.raises(PixmedError, match=r"data\.size=24: this discriminator takes 16, 32"):
            build.make_task({**config, "loss": {**config["loss"], "path_length": 0.0}})


def test_networks_have_an_axis_only_to_average_over_it():
    """A field that nothing reads would promise statistics over all devices."""
    tables = (build.GENERATORS, build.DISCRIMINATORS, build.NETWORKS)
    modules = {entry[0] for table in tables for entry in table.values()}
    having = {module for module in modules if "axis_name" in module.__dataclass_fields__}
    assert having == {module for module in modules if "self.axis_name" in inspect.getsource(module)}


def test_more_labels_than_a_byte_holds_are_for_classifiers_alone(tmp_path_factory):
    """A generator would be told label 256 as background, and 257 as the first."""
    build.make_task(runs.preset(tmp_path_factory, "classifier"), classes=256)
    generator = runs.preset(tmp_path_factory, "dcgan", of="quick")
    build.make_task(generator, classes=255)
    with pytest.raises(PixmedError, match=r"^data\.condition=label: .* 256 classes, over 255; join"):
        build.make_task(generator, classes=256)


@pytest.mark.parametrize("of", ["ghost", "classifier", "segmenter", "super_resolution", "zero_dce", "layout"])
def test_what_a_task_predicts_is_among_what_its_contract_names(of, tmp_path_factory):
    task = build.make_task(runs.preset(tmp_path_factory, of), classes=3)
    assert f'"{task.predicts}"' in Task.__doc__


# ---------------------------------------------------------------- ranges
def test_every_setting_with_a_range_is_one_of_some_preset():
    """A key that is spelt otherwise would be checked nowhere."""
    known: set[str] = set()
    for path in CONFIGS:
        get_config = runpy.run_path(str(path))["get_config"]
        for preset in presets(path):
            known |= configs.flatten(configs.plain(get_config(preset))).keys()
    assert ranges.RUN.keys() - known == set()
    assert ranges.NETWORK.keys() - {key.split(".")[-1] for key in known if key.startswith("model.")} == set()


@pytest.mark.parametrize(
    ("of", "key", "value", "told"),
    [
        ("stylegan2", "model.generator.style_mixing", 1.5, "0 to 1"),
        ("stylegan2", "model.generator.truncation", -1.0, "0 or more"),
        ("stylegan2", "model.generator.mean_decay", 1.5, "from 0 to less than 1"),
        ("srgan", "loss.adversarial", -1.0, "0 or more"),
        ("segmenter", "loss.dice", -1.0, "0 or more"),
        ("layout", "loss.code", -1.0, "0 or more"),
        ("zero_dce", "loss.smoothness", -1.0, "0 or more"),
        ("segmenter", "optimizer.weight_decay", -1.0, "0 or more"),
        ("segmenter", "optimizer.decay_steps", -1, "0 or more"),
        ("segmenter", "seed", 2**63, "0 to 9223372036854775807"),
        ("segmenter", "seed", -1, "0 to 9223372036854775807"),
        ("segmenter", "data.channels", 2, "1 for grey images or 3 for colours"),
        ("segmenter", "data.channels", 0, "1 for grey images or 3 for colours"),
        ("ghost", "data.load_scale", 0.5, "1 or more"),
        ("ghost", "data.load_scale", math.inf, "1 or more"),
        ("ghost", "train.resident_gb", -1.0, "0 or more"),
        ("segmenter", "train.batch_size", 2**16 + 1, "1 to 65536"),
        ("segmenter", "data.size", 8193, "1 to 8192"),
        ("ghost", "model.generator.cheap_kernel", 0, "1 or more"),
        ("ghost_spade", "model.generator.most", 0, "1 or more"),
        ("ghost_spade", "model.generator.style", -1, "0 or more"),
        ("stylegan2", "model.generator.channel_base", 0, "1 or more"),
        ("stylegan2", "model.discriminator.group", 0, "1 or more"),
        ("layout", "model.network.latent", 0, "1 or more"),
        ("zero_dce", "model.network.iterations", -1, "1 or more"),
    ],
)
def test_numbers_without_a_meaning_are_refused(of, key, value, told, tmp_path_factory):
    config = runs.preset(tmp_path_factory, of, of="quick", **{key: value})
    with pytest.raises(PixmedError) as caught:
        build.make_task(config, classes=3)
    assert str(caught.value) == f"{key}={value}: give {told}"
