"""Intervals of means and shares over slices of patients: against formulas, coverage, and what is left out."""

import numpy as np
import pytest
from scipy import stats

from pixmed_jax.metrics import clustered

DRAWS = 400


def drawn(rng, patients, alike=0.5, skewed=False):
    """(values, groups): unequal numbers of slices; `alike` of the variance is between patients; mean 0."""
    counts = np.maximum(3, rng.poisson(16, patients))
    of_patient = rng.gamma(1, 1, patients) - 1 if skewed else rng.normal(size=patients)
    groups = np.repeat(np.arange(patients), counts)
    rest = rng.normal(size=len(groups))
    return np.sqrt(alike) * of_patient[groups] + np.sqrt(1 - alike) * rest, groups


def test_of_equal_numbers_it_is_students_t_of_the_patients_means():
    values = np.random.default_rng(0).normal(size=(7, 5))
    means = values.mean(1)
    expected = stats.t.interval(0.95, 6, means.mean(), stats.sem(means))
    assert clustered.interval(values.ravel(), np.repeat(np.arange(7), 5)) == pytest.approx(expected)


def test_slices_of_one_patient_are_one_observation():
    values = np.random.default_rng(1).normal(size=20)
    low, high = clustered.interval(np.repeat(values, 10), np.repeat(np.arange(20), 10))
    assert (low, high) == pytest.approx(clustered.interval(values, np.arange(20)))
    naive_low, naive_high = clustered.interval(np.repeat(values, 10), np.arange(200))
    assert high - low > 2.5 * (naive_high - naive_low)


@pytest.mark.parametrize("patients", [2, 3, 6, 16])
@pytest.mark.parametrize("skewed", [False, True])
def test_it_covers_a_known_mean_as_often_as_it_says(patients, skewed):
    """Percentiles of resampled patients cover 51 % with two, 70 with three, 86 with six, 91 with sixteen."""
    rng = np.random.default_rng(patients)
    hits = 0
    for _ in range(DRAWS):
        low, high = clustered.interval(*drawn(rng, patients, skewed=skewed))
        hits += low <= 0 <= high
    assert (0.88 if skewed else 0.92) <= hits / DRAWS <= 0.985


@pytest.mark.parametrize(
    ("slices", "least", "most"),
    [
        (lambda rng, patients: rng.integers(1, 41, patients), 0.92, 0.985),
        (lambda rng, patients: rng.geometric(0.07, patients), 0.92, 0.985),
        (lambda rng, patients: np.r_[10 * (patients - 1), np.full(patients - 1, 10)], 0.94, 1),
    ],
    ids=["1 to 40", "geometric", "one has half"],
)
@pytest.mark.parametrize("patients", [6, 16])
def test_unequal_numbers_of_slices_are_covered_too(slices, least, most, patients):
    """Counting patients alike it covered 90 % of the second case, and 80 to 90 of the last."""
    rng, hits = np.random.default_rng(patients), 0
    for _ in range(DRAWS):
        counts = slices(rng, patients)
        groups = np.repeat(np.arange(patients), counts)
        values = rng.normal(size=patients)[groups] + rng.normal(size=counts.sum())
        low, high = clustered.interval(values, groups)
        hits += low <= 0 <= high
    assert least <= hits / DRAWS <= most


def test_two_patients_of_whom_one_has_nearly_all_have_one_degree_of_freedom():
    """Nine slices of 1 and one of 0: each patient's part is 0.09, divided by 1 - 2 w + 0.82, w = 0.9 and 0.1.
    Student's t of one degree is 12.7 at 97.5 %; of 0.22, the effective patients less one, it is 214,018."""
    low, high = clustered.interval(np.r_[np.ones(9), 0], np.r_[np.zeros(9), 1])
    reach = 12.7062 * np.sqrt(0.0081 / 0.02 + 0.0081 / 1.62)
    assert (low, high) == pytest.approx((0.9 - reach, 0.9 + reach), rel=1e-4)


def test_who_has_no_weight_is_no_second_patient():
    values, groups = np.array([0.5, 0.7, 0.2]), np.array(["a", "a", "b"])
    assert clustered.ratio(values, np.array([1.0, 1.0, 0.0]), groups) is None


@pytest.mark.parametrize(("patients", "slices"), [(3, 8), (6, 5), (19, 14)])
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_a_share_is_covered_too(patients, slices, share):
    """Every patient has a share of their own, of mean `share` and a correlation of 0.3 between slices."""
    rng = np.random.default_rng(5)
    groups = np.repeat(np.arange(patients), slices)
    hits = 0
    for _ in range(DRAWS):
        own = rng.beta(share * 7 / 3, (1 - share) * 7 / 3, patients)
        low, high = clustered.share((rng.random(len(groups)) < own[groups]).astype(float), groups)
        assert 0 <= low <= high <= 1
        hits += low <= share <= high
    assert hits / DRAWS >= 0.91


def test_a_share_of_strangers_is_clopper_and_pearsons():
    hits = np.r_[np.ones(12), np.zeros(18)]
    found = clustered.share(hits, np.arange(30))
    exact = stats.binomtest(12, 30).proportion_ci(method="exact")
    # The variance of the linearised share is n / (n - 1) times the binomial one.
    assert found == pytest.approx((exact.low, exact.high), abs=0.01)
    every = clustered.share(np.ones(30), np.arange(30))
    assert every == pytest.approx((0.025 ** (1 / 30), 1))
    assert clustered.share(np.ones(30), np.arange(30) // 5) == pytest.approx((0.025 ** (1 / 6), 1))
    assert clustered.share(np.zeros(30), np.arange(30) // 5) == pytest.approx((0, 1 - 0.025 ** (1 / 6)))


def test_a_share_of_patients_who_differ_by_hand():
    """Shares 0, 0.2, .. 1 of five slices each have a variance of 0.14, of their mean 0.14 / 6: as of 0.25 /
    (0.14 / 6) independent slices, times the squared quotient of Student's t of 29 and of 5 degrees."""
    found = clustered.share((np.arange(5) < np.arange(6)[:, None]).ravel() * 1.0, np.repeat(np.arange(6), 5))
    count = 0.25 * 6 / 0.14 * (2.04523 / 2.57058) ** 2
    low = stats.beta.ppf(0.025, count / 2, count / 2 + 1)
    assert found == pytest.approx((low, 1 - low), rel=1e-4)


@pytest.mark.parametrize("right", [[2, 2, 2, 2, 2, 2], [2, 2, 1, 3, 2, 2]])
def test_patients_alike_beyond_chance_are_no_more_than_their_slices(right):
    """Of four slices of each so many; 24 independent ones are as good as it gets."""
    hits = np.arange(4) < np.array(right)[:, None]
    found = clustered.share(hits.ravel() * 1.0, np.repeat(np.arange(6), 4))
    exact = stats.binomtest(12, 24).proportion_ci(method="exact")
    assert found == pytest.approx((exact.low, exact.high))


def test_a_planted_patient_widens_it():
    """One patient of eight whose slices are wrong throughout, or as many wrong slices one to a patient."""
    groups = np.repeat(np.arange(8), 8)
    one, spread = (np.where(of == 0, 0.0, 1.0) for of in (groups, np.tile(np.arange(8), 8)))
    for of in (clustered.interval, clustered.share):
        (low, high), (low_spread, high_spread) = of(one, groups), of(spread, groups)
        assert low < low_spread and high >= high_spread


def test_it_is_cut_off_where_the_metric_ends():
    values, groups = np.array([0.8, 0.8, 0.99, 1.0]), np.array(list("aabb"))
    low, high = clustered.interval(values, groups)
    assert low < 0 and high > 1
    assert clustered.interval(values, groups, within=clustered.RANGES["dice"]) == (0, 1)
    assert clustered.interval(values, groups, within=clustered.RANGES["ssim"])[1] == 1
    assert clustered.interval(-values, groups, within=clustered.RANGES["ssim"])[0] == -1


def test_a_ratio_of_two_means_is_paired():
    """What makes a patient hard for both falls out, which two intervals would not tell."""
    rng = np.random.default_rng(2)
    hard, groups = rng.uniform(0.2, 0.9, 12).repeat(6), np.arange(12).repeat(6)
    value, low, high = clustered.ratio(0.9 * hard, hard, groups)
    assert (value, low, high) == pytest.approx((0.9, 0.9, 0.9))
    above = 0.9 * hard + 0.05 * rng.normal(size=72)
    value, low, high = clustered.ratio(above, hard, groups)
    assert value == pytest.approx(above.sum() / hard.sum()) and 0.85 < low < value < high < 0.95


def test_a_slice_that_lacks_either_value_of_a_ratio_is_left_out():
    above, below = np.array([1.0, 2.0, np.nan, 4.0, 5.0]), np.array([2.0, np.nan, 3.0, 5.0, 6.0])
    groups, both = np.array(list("aabbc")), np.array([0, 3, 4])
    assert clustered.ratio(above, below, groups) == clustered.ratio(above[both], below[both], groups[both])


def test_missing_values_are_left_out_and_one_patient_says_nothing():
    values, groups = np.array([1.0, np.nan, 3.0, np.nan]), np.array(["a", "a", "b", "c"])
    for of in (clustered.interval, clustered.share):
        assert of(values / 4, groups) == of(values[[0, 2]] / 4, groups[[0, 2]])
        assert of(values[[1, 3]], groups[[1, 3]]) is None
        assert of(np.array([0.0, 1.0]), np.array(["a", "a"])) is None
    assert clustered.ratio(values, np.zeros(4), groups) is None
