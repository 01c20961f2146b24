"""Bounds by resampling patients: against closed forms, and what nothing is said of."""

import numpy as np

from pixmed_jax.metrics import bootstrap, clustered


def test_resampled_bounds_of_a_mean_are_nearly_those_of_the_interval():
    """Of 60 patients, where percentiles hardly fall short."""
    values = np.random.default_rng(3).normal(size=120)
    groups = np.arange(120) // 2
    mean = lambda weights: {"mean": (weights * values).sum() / weights.sum()}  # noqa: E731
    found = bootstrap.resampled(groups, mean, draws=2000)["mean"]
    np.testing.assert_allclose(found, clustered.interval(values, groups), atol=0.06)


def test_of_1000_draws_25_are_below_the_bounds_and_25_above():
    values, drawn = np.random.default_rng(0).normal(size=40), []

    def mean(weights):
        drawn.append((weights * values).sum() / weights.sum())
        return {"mean": drawn[-1]}

    low, high = bootstrap.resampled(np.arange(40), mean)["mean"]
    assert len(drawn) == 1000 and (drawn < low).sum() == (drawn > high).sum() == 25


def test_resampled_statistics_may_be_vectors_and_nan_in_some_draws():
    groups = np.array(list("abcdef"))

    def statistic(weights):
        return {"v": np.array([weights[0], np.nan if weights[1:].sum() < 4 else 7.0, np.nan])}

    low, high = bootstrap.resampled(groups, statistic, draws=200)["v"]
    assert low[0] == 0 and high[0] >= 2
    assert low[1] == high[1] == 7 and np.isnan([low[2], high[2]]).all()


def test_few_patients_say_nothing_of_others():
    """With five a percentile interval covers 85 %; with six it is given, as in a reader study."""
    values = np.arange(6.0)
    mean = lambda weights: {"mean": (weights * values[: len(weights)]).sum() / weights.sum()}  # noqa: E731
    for count in (1, 2, 5):
        assert np.isnan(bootstrap.resampled(np.arange(count), mean, draws=10)["mean"]).all()
    assert not np.isnan(bootstrap.resampled(np.arange(6), mean, draws=10)["mean"]).any()


def test_many_slices_of_few_patients_are_few_patients():
    mean = lambda weights: {"mean": (weights * np.arange(20.0)).sum() / weights.sum()}  # noqa: E731
    assert np.isnan(bootstrap.resampled(np.arange(20) // 4, mean, draws=10)["mean"]).all()


def test_nothing_is_said_of_what_rests_on_one_of_several_patients():
    """Means of three classes and differences of two: the second class is one patient's, a sixth has none."""
    values = np.arange(12.0)
    groups = np.repeat(list("abcdef"), 2)
    kind = np.repeat([0, 0, 1, 2, 2, 3], 2)

    def statistic(weights):
        with np.errstate(invalid="ignore"):
            of = [(weights * values)[kind == k].sum() / weights[kind == k].sum() for k in range(3)]
        return {"mean": np.array(of), "apart": of[1] - of[0], "others": of[2] - of[0]}

    found = bootstrap.resampled(groups, statistic)
    low, high = found["mean"]
    assert np.isnan(low).tolist() == np.isnan(high).tolist() == [False, True, False]
    assert np.isnan(found["apart"]).all()
    assert (low[0], high[0]) == (0.5, 2.5) and found["others"].tolist() == [4, 8]
