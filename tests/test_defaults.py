"""How the presets of an experiment lie on what all share."""

import runpy

import pytest
import runs

from pixmed_jax import config as configs
from pixmed_jax.data.sources import open_dataset
from pixmed_jax.defaults import ADVERSARIAL, COMMON, SUPERVISED, experiment, merged
from pixmed_jax.training.dry_run import network_sizes

# A study is made of the others; test_study.py looks at it.
CONFIGS = [path for path in sorted(runs.ROOT.glob("configs/*.py")) if path.stem != "study"]


def test_sections_are_merged_and_later_ones_count():
    low = {"a": {"b": 1, "c": {"d": 2}}, "e": 3}
    assert merged(low, {"a": {"c": {"f": 4}}, "e": 5}) == {"a": {"b": 1, "c": {"d": 2, "f": 4}}, "e": 5}
    assert low == {"a": {"b": 1, "c": {"d": 2}}, "e": 3}
    assert merged(low)["a"] is not low["a"]  # a ConfigDict would change what all share


def test_another_name_is_another_thing():
    old = {"network": {"name": "unet", "levels": 8}}
    assert merged(old, {"network": {"name": "dcgan", "latent": 3}}) == {
        "network": {"name": "dcgan", "latent": 3}
    }
    assert merged(old, {"network": {"name": "unet", "width": 3}})["network"]["levels"] == 8
    assert merged(old, {"network": {"width": 3}})["network"] == {"name": "unet", "levels": 8, "width": 3}


def test_presets_lie_on_quick_and_quick_on_what_all_share():
    get_config = experiment("mine", {"data": {"size": 32}}, big={"data": {"size": 512}})
    quick, big = get_config(), get_config("big")
    assert (quick.name, quick.preset, quick.data.size, quick.seed) == ("mine", "quick", 32, COMMON["seed"])
    assert (big.preset, big.data.size, big.data.patients) == ("big", 512, COMMON["data"]["patients"])
    assert COMMON["data"]["size"] == 64
    with pytest.raises(ValueError, match="no preset 'huge', there are quick, big"):
        get_config("huge")


def test_presets_lie_on_each_other_and_augmentation_on_any():
    get_config = experiment("mine", {}, big={"data": {"size": 512}})
    both = get_config("big+augment")
    assert (both.preset, both.data.size, both.data.augment.rotation.p) == ("big+augment", 512, 0.5)
    assert get_config("augment").data.size == COMMON["data"]["size"]
    off = get_config("big")
    assert not any(of.p for of in off.data.augment.values())
    off.data.augment.rotation.p = 0.3  # as a flag does
    assert get_config("big").data.augment.rotation.p == 0
    ghost = experiment("ghost", ADVERSARIAL)()
    ghost.data.augment.rotation.p = 0.3
    assert not any(of.p for of in ghost.train.augment_discriminator.values())
    with pytest.raises(ValueError, match="no preset 'huge', there are quick, big, augment"):
        get_config("big+huge")


def presets(path):
    """Names of all presets of a config, as its refusal of an unknown one lists them."""
    try:
        runpy.run_path(str(path))["get_config"]("?")
    except ValueError as error:
        return str(error).partition("there are ")[2].split(", ")
    raise AssertionError(path)


@pytest.mark.parametrize(
    ("path", "preset"),
    [(p, preset) for p in CONFIGS for preset in presets(p)],
    ids=lambda x: getattr(x, "stem", x),
)
def test_every_preset_of_every_config_makes_networks(path, preset):
    config = configs.plain(runpy.run_path(str(path))["get_config"](preset))
    assert (config["name"], config["preset"]) == (path.stem, preset)
    sizes = network_sizes(config, 3 + COMMON["data"]["tissues"])
    assert all(size.parameters > 1000 for size in sizes.values())
    own = SUPERVISED["data"] if "network" in config["model"] else {}
    own = {*own, "scale"} if config["data"]["condition"] == "low_resolution" else own
    own = {*own, "planes"} if path.stem == "layout" else own
    assert set(config["data"]) == {*COMMON["data"], *own}


def test_the_keys_of_data_are_what_a_dataset_takes(tmp_path_factory):
    config = runs.config(tmp_path_factory)
    assert set(config["data"]) == set(COMMON["data"])
    open_dataset(**config["data"], seed=0)
