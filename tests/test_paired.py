"""Paired differences: intervals that hold what they should, variance components, and what it takes to see."""

import math

import numpy as np
import pytest
from scipy import stats

from pixmed_jax.metrics.paired import (
    Components,
    bounds,
    components,
    detectable,
    patients_needed,
    seeds_needed,
)


def drawn(rng, patients, seeds, of=(0.05, 0.02, 0.03), effect=0.0):
    """A difference [S, P] with standard deviations `of` its patients, seeds and rest."""
    a, b, c = of
    return (
        effect
        + a * rng.normal(size=patients)
        + b * rng.normal(size=(seeds, 1))
        + c * rng.normal(size=(seeds, patients))
    )


def test_the_mean_weighs_patients_alike():
    assert bounds(np.array([[1.0, 2.0, 6.0], [3.0, 2.0, 4.0]])).value == 3.0


def test_nothing_varies():
    assert bounds(np.full((3, 5), 0.25)) == pytest.approx((0.25, 0.25, 0.25))
    assert components(np.full((3, 5), 0.25)) == (0, 0, 0)
    assert detectable(components(np.full((3, 5), 0.25)), 5, 3) == 0


@pytest.mark.parametrize(("patients", "seeds"), [(40, 1), (40, 6)])
def test_the_interval_holds_the_truth_as_often_as_it_says(patients, seeds):
    """300 experiments; a binomial with 0.95 stays within 0.91 and 0.985 of them (z of 3.2 and 2.8).

    With one seed its effect is no part of the truth that patients alone can tell.
    """
    rng = np.random.default_rng(0)
    of = (0.05, 0.02 if seeds > 1 else 0.0, 0.03)
    hits = [
        low <= 0.1 <= high
        for low, high in (bounds(drawn(rng, patients, seeds, of, effect=0.1))[1:] for _ in range(300))
    ]
    assert 0.91 <= np.mean(hits) <= 0.985


@pytest.mark.parametrize(("seeds", "most"), [(2, 0.1), (3, 0.085), (4, 0.07)])
def test_few_seeds_are_no_excuse_for_a_narrow_interval(seeds, most):
    """No effect, and parts as large as those of the utility experiments. By resampling seeds and patients, as
    it was done here once, 17, 10 and 7 % of such experiments show one."""
    rng = np.random.default_rng(5)
    found = [bounds(drawn(rng, 119, seeds, (0.1, 0.025, 0.1))) for _ in range(1500)]
    assert 0.03 < np.mean([not low <= 0 <= high for _, low, high in found]) < most


def test_the_interval_by_hand():
    """Mean squares 16 (1 degree of freedom) of patients, 4 (1) of seeds, 0 of the rest: the variance is their
    sum over 4 numbers, and Satterthwaite's degrees (16 + 4)**2 / (16**2 + 4**2) = 1.4706."""
    value, low, high = bounds(np.array([[0.0, 4.0], [2.0, 6.0]]))
    reach = stats.t.ppf(0.975, 400 / 272) * math.sqrt(5)
    assert (value, low, high) == pytest.approx((3, 3 - reach, 3 + reach))


def test_seeds_that_disagree_widen_the_interval():
    rng = np.random.default_rng(1)
    calm, wild = drawn(rng, 40, 4, (0.05, 0.0, 0.0)), drawn(rng, 40, 4, (0.05, 0.2, 0.0))
    widths = [high - low for _, low, high in (bounds(calm), bounds(wild))]
    assert widths[1] > 4 * widths[0]


def test_a_stricter_level_is_wider_on_both_sides():
    d = drawn(np.random.default_rng(2), 30, 3)
    usual, strict = bounds(d), bounds(d, level=1 - 0.05 / 8)
    assert strict.low < usual.low < d.mean() < usual.high < strict.high


def test_components_are_those_that_were_put_in():
    """Means of 400 tables: each within three standard errors of the variance drawn with."""
    rng = np.random.default_rng(3)
    found = np.array([components(drawn(rng, 30, 8)) for _ in range(400)])
    error = 3 * found.std(0) / math.sqrt(len(found))
    assert (np.abs(found.mean(0) - np.array([0.05, 0.02, 0.03]) ** 2) < error).all()


def test_components_by_hand():
    """Rows differ by 2 throughout and columns by 4: nothing is left for the rest."""
    d = np.array([[0.0, 4.0], [2.0, 6.0]])
    assert components(d) == (8.0, 2.0, 0.0)


def test_no_part_is_below_nothing():
    """Equal means of patients and of seeds, and a rest: less than such a rest leaves in means by chance."""
    assert components(np.array([[1.0, -1.0], [-1.0, 1.0]])) == (0, 0, 4)


def test_one_seed_cannot_tell_seeds_apart():
    d = np.array([[0.0, 0.2, 0.4]])
    assert components(d) == pytest.approx(Components(0.04, None, 0.0), nan_ok=True)
    with pytest.raises(ValueError, match="one patient"):
        components(np.array([[0.1], [0.2]]))


def test_detectable_by_hand():
    """Variance 0.04 / 25 + 0.01 / 4 + 0.5 / 100 = 0.0091, of mean squares 0.66 (24 degrees of freedom) of
    patients and 0.75 (3) of seeds less 0.5 (72) of the rest: 0.91**2 / (0.66**2 / 24 + 0.75**2 / 3 +
    0.5**2 / 72) = 3.960 degrees; z(0.8) is 0.84162."""
    found = detectable(Components(0.04, 0.01, 0.5), 25, 4)
    assert found == pytest.approx((stats.t.ppf(0.975, 3.960) + 0.84162) * math.sqrt(0.0091), 1e-4)
    assert detectable(Components(0.04, None, 0.0), 10**6, 1) == pytest.approx(2.80158 * 0.2e-3, 1e-4)
    strict = detectable(Components(0.04, 0.01, 0.5), 25, 4, level=1 - 0.05 / 8)
    assert strict == pytest.approx((stats.t.ppf(1 - 0.05 / 16, 3.960) + 0.84162) * math.sqrt(0.0091), 1e-4)


def test_with_one_seed_the_rest_is_part_of_what_patients_differ_by():
    """(0.04 + 0.05) / 25 is 0.06 squared, of 24 degrees."""
    found = detectable(Components(0.04, 0.01, 0.05), 25, 1)
    assert found == pytest.approx((stats.t.ppf(0.975, 24) + 0.84162) * 0.06, 1e-4)


def test_an_effect_of_the_detectable_size_is_seen_four_times_in_five():
    rng = np.random.default_rng(4)
    of = Components(0.05**2, 0.02**2, 0.03**2)
    effect = detectable(of, 40, 6, level=0.99)
    seen = [bounds(drawn(rng, 40, 6, effect=effect), level=0.99).low > 0 for _ in range(2000)]
    assert np.mean(seen) == pytest.approx(0.8, abs=0.05)


@pytest.mark.parametrize("seeds", [1, 3, 10])
def test_as_many_patients_as_are_needed_see_it_and_one_less_does_not(seeds):
    of = Components(0.05**2, 0.001**2, 0.03**2)
    needed = patients_needed(of, 0.02, seeds)
    assert detectable(of, needed, seeds) <= 0.02 < detectable(of, needed - 1, seeds)


def test_as_many_seeds_as_are_needed_see_it_and_one_less_does_not():
    of = Components(0.03**2, 0.02**2, 0.05**2)
    needed = seeds_needed(of, 0.02, 40)
    assert needed > 2
    assert detectable(of, 40, needed) <= 0.02 < detectable(of, 40, needed - 1)


def test_no_number_of_patients_makes_up_for_seeds():
    of = Components(0.05**2, 0.05**2, 0.0)
    assert patients_needed(of, 0.02, 3) is None
    assert patients_needed(of, 0.02, 300) is not None
    assert seeds_needed(of, 0.01, 40) is None
