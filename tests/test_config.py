"""Configs as plain dicts: what JSON would give back, compared and named independently of key order."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ml_collections import ConfigDict

from pixmed_jax import config

TREES = st.recursive(
    st.integers() | st.booleans() | st.text(max_size=3) | st.none(),
    lambda inner: st.dictionaries(st.text("abc", min_size=1, max_size=2), inner, max_size=3),
    max_leaves=8,
).filter(lambda tree: isinstance(tree, dict))


def test_plain_gives_what_json_gives():
    given_config = ConfigDict({"a": {"fractions": (0.8, 0.1, 0.1)}, "b": 2e-4, "c": ""})
    got = config.plain(given_config)
    assert type(got) is dict and type(got["a"]) is dict and type(got["a"]["fractions"]) is list
    assert got == {"a": {"fractions": [0.8, 0.1, 0.1]}, "b": 2e-4, "c": ""}
    assert json.loads(json.dumps(got)) == got  # or a resumed run would see another config


def test_flatten():
    assert config.flatten({"a": {"b": 1, "c": {"d": [2]}}, "e": None}) == {"a.b": 1, "a.c.d": [2], "e": None}
    assert config.flatten({}) == {}


def test_differences_name_both_values():
    old = {"same": 1, "a": {"changed": 2, "gone": 3, "same": [1, 2]}}
    new = {"a": {"new": 4, "same": [1, 2], "changed": 5}, "same": 1}
    assert config.differences(old, new) == {"a.changed": (2, 5), "a.gone": (3, None), "a.new": (None, 4)}


@given(TREES, TREES)
def test_differences_are_none_for_equal_and_mirror(a, b):
    assert config.differences(a, a) == {}
    assert config.differences(b, a) == {key: (y, x) for key, (x, y) in config.differences(a, b).items()}


@pytest.mark.parametrize(
    ("key", "free"),
    [
        ("train.steps", True),
        ("train.epochs", True),
        ("optimizer.learning_rate", True),
        ("log.every", True),
        ("checkpoint.keep", True),
        ("train.batch_size", False),  # a batch is a function of it
        ("optimizer.b1", False),
        ("seed", False),
        ("data.size", False),
        ("train.steps_more", False),  # no prefix of a key frees it
        ("logarithm", False),
    ],
)
def test_what_a_resumed_run_may_change(key, free):
    assert config.is_free(key) is free


def test_digest():
    # sha256 of '{"a": 1, "b": {"c": [2]}}', as `printf ... | sha256sum` prints it, first 12 digits.
    assert config.digest({"a": 1, "b": {"c": [2]}}) == "d8bd289cec5f"
    assert config.digest({"b": {"c": [2]}, "a": 1}) == config.digest({"a": 1, "b": {"c": [2]}})
    assert config.digest({"a": 1, "b": {"c": [3]}}) != config.digest({"a": 1, "b": {"c": [2]}})


def test_nearest():
    known = ["config.train.steps", "config.data.size", "config.log.every", "config.checkpoint.every"]
    assert config.nearest("config.train.stepps", known).startswith("; did you mean config.train.steps")
    # The right leaf in the wrong section is found even where the letters are far apart.
    assert config.nearest("every", known) == "; did you mean config.log.every or config.checkpoint.every?"
    assert config.nearest("zzz", known) == ""


def test_a_run_of_before_a_key_means_what_there_was_before_it():
    old, new = {"data": {"size": 64}}, {"data": {"size": 64, "enhance": "none"}}
    assert config.differences(old, new) == {} == config.differences(new, old)
    new["data"]["enhance"] = "lime"
    assert config.differences(old, new) == {"data.enhance": ("none", "lime")}
