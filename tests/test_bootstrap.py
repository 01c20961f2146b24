"""Intervals that know patients: coverage of a known mean, against closed forms, and what is left out."""

import math

import numpy as np
import pytest

from pixmed_jax.metrics import bootstrap


def test_the_interval_covers_a_known_mean_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    covered, widths = 0, []
    for trial in range(200):
        values = rng.normal(0.6, 0.1, 60)
        low, high = bootstrap.interval(values, np.arange(60).astype(str), seed=trial, draws=500)
        covered += low <= 0.6 <= high
        widths.append(high - low)
    assert 0.89 <= covered / 200 <= 0.99
    # Of 60 independent values: 2 * 1.96 * 0.1 / sqrt(60) = 0.0506.
    assert np.mean(widths) == pytest.approx(0.0506, rel=0.05)


def test_slices_of_one_patient_are_one_observation():
    """Ten equal slices of each of 20 patients say as much as one of each: no more."""
    rng = np.random.default_rng(1)
    of_patient = rng.normal(size=20)
    values, groups = np.repeat(of_patient, 10), np.repeat([f"p{i:02}" for i in range(20)], 10)
    low, high = bootstrap.interval(values, groups)
    assert (low, high) == pytest.approx(bootstrap.interval(of_patient, np.unique(groups)))
    naive_low, naive_high = bootstrap.interval(values, np.arange(200).astype(str))
    assert high - low == pytest.approx(math.sqrt(10) * (naive_high - naive_low), rel=0.15)


def test_intervals_leave_missing_values_out():
    values, groups = np.array([1.0, np.nan, 3.0, np.nan]), np.array(["a", "a", "b", "c"])
    assert bootstrap.interval(values, groups) == bootstrap.interval(values[[0, 2]], groups[[0, 2]])
    assert bootstrap.interval(values, groups) == (1, 3)
    assert bootstrap.interval(values[[1, 3]], groups[[1, 3]]) is None


def test_the_same_seed_gives_the_same_interval():
    values, groups = np.random.default_rng(0).random(30), np.repeat(np.arange(10), 3).astype(str)
    assert bootstrap.interval(values, groups, seed=3) == bootstrap.interval(values, groups, seed=3)
    assert bootstrap.interval(values, groups, seed=3) != bootstrap.interval(values, groups, seed=4)


def test_resampled_bounds_of_a_mean_are_those_of_the_interval():
    """The same draws of whole patients, weights instead of copies; a mean is what `interval` knows too."""
    values = np.random.default_rng(3).normal(size=60)
    groups = np.arange(60) // np.repeat([3, 5, 2], 20)
    mean = lambda weights: {"mean": (weights * values).sum() / weights.sum()}  # noqa: E731
    found = bootstrap.resampled(groups, mean, draws=2000)["mean"]
    np.testing.assert_allclose(found, bootstrap.interval(values, groups), atol=0.05)


def test_resampled_statistics_may_be_vectors_and_nan_in_some_draws():
    groups = np.array(["a", "b", "c"])

    def statistic(weights):
        return {"v": np.array([weights[0], np.nan if weights[1:].sum() == 0 else 7.0, np.nan])}

    low, high = bootstrap.resampled(groups, statistic, draws=200)["v"]
    assert low[0] == 0 and high[0] >= 2
    assert low[1] == high[1] == 7 and np.isnan([low[2], high[2]]).all()


def test_one_patient_says_nothing_of_others():
    values, groups = np.array([0.1, 0.5, 0.9]), np.array(["a", "a", "a"])
    assert bootstrap.interval(values, groups) is None
    mean = lambda weights: {"mean": (weights * values).sum() / weights.sum()}  # noqa: E731
    assert np.isnan(bootstrap.resampled(groups, mean, draws=10)["mean"]).all()


def test_nothing_is_said_of_what_rests_on_one_of_several_patients():
    """Means of three classes and differences of two: the second class is one patient's, the third two's."""
    values = np.arange(10.0)
    groups = np.repeat(list("abcde"), 2)
    kind = np.repeat([0, 0, 1, 2, 2], 2)

    def statistic(weights):
        with np.errstate(invalid="ignore"):
            of = [(weights * values)[kind == k].sum() / weights[kind == k].sum() for k in range(3)]
        return {"mean": np.array(of), "apart": of[1] - of[0], "others": of[2] - of[0]}

    found = bootstrap.resampled(groups, statistic)
    low, high = found["mean"]
    assert np.isnan(low).tolist() == np.isnan(high).tolist() == [False, True, False]
    assert np.isnan(found["apart"]).all()
    assert (low[0], high[0]) == (0.5, 2.5) and found["others"].tolist() == [4, 8]
