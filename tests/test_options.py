"""Options and keys: the stages' own defaults, every key explained, the page and --help of the same words."""

import inspect
import runpy

import pytest
import runs
from test_defaults import CONFIGS, presets
from test_launch import launch

from pixmed_jax import config as configs
from pixmed_jax import options, utility
from pixmed_jax.check_data import check_data
from pixmed_jax.data import survey
from pixmed_jax.demo import serve
from pixmed_jax.enhancement import enhance, upscale
from pixmed_jax.errors import OptionError
from pixmed_jax.evaluation import audit, evaluate, readers
from pixmed_jax.export import export
from pixmed_jax.sampling import sample

FUNCTIONS = {
    "sample": (sample,),
    "evaluate": (evaluate.evaluate,),
    "audit": (audit.audit,),
    "utility": (utility.utility,),
    "reader": (readers.prepare,),
    "demo": (serve.demo,),
    "enhance": (enhance.enhance,),
    "upscale": (upscale.upscale,),
    "export": (export.export,),
    "check_data": (check_data, survey.survey),
}
# Options that `launch` itself reads, before or in the place of the function: presets, answers.
OF_LAUNCH = {"utility": {"segmenter", "classifier"}, "reader": {"answers"}}
# Parameters that are flags of several modes, or of Python alone.
SHARED = {"fresh", "quiet", "against"}


@pytest.mark.parametrize("mode", options.MODES)
def test_defaults_are_those_of_the_stage(mode):
    taken = {}
    for function in FUNCTIONS[mode]:
        for name, parameter in inspect.signature(function).parameters.items():
            if parameter.default is not parameter.empty and name not in SHARED:
                taken.setdefault(name, parameter.default)
    ours = options.defaults(mode)
    assert {name: ours[name] for name in ours if name not in OF_LAUNCH.get(mode, ())} == taken


def test_every_key_is_explained_and_nothing_else():
    assert {f"config.{key}" for key in options.KEYS} == set(options.shared_keys())
    known: set[str] = set()
    for path in CONFIGS:
        get_config = runpy.run_path(str(path))["get_config"]
        for preset in presets(path):
            config = configs.plain(get_config(preset))
            known |= set(configs.flatten(config))
            rows = options.of_config(config).items()
            assert path.stem == "study" or not [key for key, of in rows if not of.meaning]
    whole = ("data.augment", "train.augment_discriminator")
    assert {key for key in options.KEYS | options.OF_SOME if key not in whole} <= known
    assert options.NETWORKS.keys() == {key.split(".")[2] for key in known if key.startswith("model.")}
    assert not [text for of in options.MODES.values() for text in of.values() if len(text.meaning) < 6]


def test_the_page_is_of_the_same_words():
    page = (runs.ROOT / "docs" / "options.md").read_text(encoding="utf-8")
    assert page == options.page(), "python -m pixmed_jax.options > docs/options.md"


def test_help_of_a_mode_and_of_a_config():
    told = launch("--mode=sample", "--help").stdout
    for name, option in options.MODES["sample"].items():
        assert f"--sample.{name}={option.default}" in told
        assert option.meaning.split()[0] in told
    told = launch("--config=configs/ghost.py:paper", "--help").stdout
    for line in ("--config.train.batch_size=64 ", "--config.model.generator.width=64", "images a step"):
        assert line in told
    assert max(map(len, told.splitlines())) <= 100


@pytest.mark.parametrize(
    ("mode", "name", "value"),
    [
        ("sample", "number", -1),
        ("sample", "seed", -1),
        ("sample", "upscale", 5),
        ("sample", "upscaler", "lanczos"),  # which enlarges nothing
        ("sample", "plane", "axial"),
        ("sample", "step", "newst"),
        ("evaluate", "features", "vgg"),
        ("evaluate", "seed", -1),
        ("audit", "split", "train"),
        ("audit", "number", 0),
        ("utility", "shares", (0,)),
        ("utility", "seeds", 0),
        ("reader", "number", 1),
        ("reader", "split", "train"),
        ("enhance", "gamma", -1.0),
        ("enhance", "noise", 2.0),
        ("enhance", "method", "zero_dce"),  # without a network
        ("enhance", "intensity", "bright"),
        ("upscale", "scale", 5),
        ("upscale", "intensity", "4,3"),
        ("export", "dtype", "float64"),
        ("export", "step", "last"),
        ("demo", "step", "last"),
        ("check_data", "axis", "coronall"),
    ],
)
def test_values_that_no_option_has_are_mistakes_in_the_command_line(tmp_path, mode, name, value):
    """Status 2, whichever mode it is of, and before anything is looked for that is not there either."""
    given = options.defaults(mode) | {name: value}
    folders = ("nowhere", str(tmp_path / "to"))
    places = {"demo": (None,), **dict.fromkeys(("check_data", "enhance", "upscale"), folders)}
    if mode == "utility":
        given = {**{key: given[key] for key in given if key not in OF_LAUNCH[mode]}, "networks": {}}
    given.pop("answers", None)
    with pytest.raises(OptionError, match=rf"\b{name}\b|enhance\.workdir: missing") as error:
        FUNCTIONS[mode][0](*places.get(mode, (tmp_path / "nowhere",)), **given)
    assert "nowhere" not in str(error.value) and not list(tmp_path.iterdir())
