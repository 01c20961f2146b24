"""Collapse of every kind is found, and a set as varied as real slices is not accused of it."""

import numpy as np
import pytest
from skimage.metrics import structural_similarity

from pixmed_jax.data import phantom
from pixmed_jax.metrics import diversity
from pixmed_jax.metrics.diversity import differences, even_rows, measure, pairs, spread_rows

N = 16


@pytest.fixture(scope="module")
def sets():
    """(16 slices of 16 patients, 16 of others, groups)."""
    images = np.stack([phantom.patient_slices(p, size=32, count=1)[0].image / 255.0 for p in range(2 * N)])
    return images[:N], images[N:], [f"p{i}" for i in range(N)]


@pytest.mark.parametrize("count", [1, 4, 5])
def test_differences_by_loops(sets, count):
    real = sets[0][:count]
    found = differences(real)
    for i in range(count):
        for j in range(count):
            _, similar = structural_similarity(
                *(real[i], real[j]),
                **{"data_range": 1.0, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False},
                full=True,
            )
            assert found[i, j] == pytest.approx(1 - similar[5:-5, 5:-5].mean(), abs=1e-4)
    assert pairs(np.arange(9).reshape(3, 3)).tolist() == [1, 2, 5]


def test_other_real_slices_are_as_varied(sets):
    entry = measure(sets[1], sets[0], sets[2])
    assert not entry["collapsed"] and entry["n"] == entry["patients"] == N
    for name in ("spread", "closest"):
        assert entry[name]["low"] <= 1 <= entry[name]["high"] or entry[name]["ratio"] == pytest.approx(
            1, abs=0.2
        )
    matrix = differences(sets[1])
    assert entry["spread"]["generated"] == pytest.approx(pairs(matrix).mean(), rel=1e-5)
    nearest = [min(matrix[i, j] for j in range(N) if j != i) for i in range(N)]
    assert entry["closest"]["generated"] == pytest.approx(np.mean(nearest), rel=1e-5)


@pytest.mark.parametrize("modes", [1, 4])
def test_a_collapsed_generator_is_found(sets, modes):
    """One picture for all, or one of four: the second differs in pairs, but each has its twin."""
    noise = np.random.default_rng(0).normal(0, 0.005, sets[0].shape)
    images = np.clip(sets[1][np.arange(N) % modes] + noise, 0, 1)
    entry = measure(images, sets[0], sets[2])
    assert entry["collapsed"]
    assert entry["closest"]["high"] < 0.5
    assert (entry["spread"]["ratio"] < 0.5) == (modes == 1)


def test_slices_of_one_patient_are_no_pair(sets):
    """Two equal slices of each patient: alike within a patient, not between patients."""
    twice = np.repeat(sets[0], 2, axis=0)
    entry = measure(twice, twice, np.repeat(sets[2], 2).tolist())
    alone = measure(sets[0], sets[0], sets[2])
    assert entry["closest"]["real"] == pytest.approx(alone["closest"]["real"])
    assert entry["spread"]["real"] == pytest.approx(alone["spread"]["real"], rel=1e-6)


def test_pairs_within_a_patient_count_nowhere_and_draws_without_others_neither():
    """Two patients of two slices: 0.9 apart within each; across them 0.2 generated and 0.4 real."""
    patient = np.repeat([0, 1], 2)
    within = patient[:, None] == patient[None]
    real, generated = (np.where(within, 0.9, across) for across in (0.4, 0.2))
    entry = diversity._over_set({"generated": generated, "real": real}, np.array(list("aabb")))
    for name in ("spread", "closest"):
        expected = {"generated": 0.2, "real": 0.4, "ratio": 0.5, "low": 0.5, "high": 0.5}
        assert entry[name] == pytest.approx(expected)


@pytest.mark.parametrize(("low", "high", "collapsed"), [(0.3, 0.51, False), (0.3, 0.49, True)])
def test_a_set_has_collapsed_where_the_whole_interval_is_below_half(sets, monkeypatch, low, high, collapsed):
    wide = {"generated": 0.4, "real": 1.0, "ratio": 0.4, "low": low, "high": high}
    sound = {**wide, "low": 0.9, "high": 1.1}
    monkeypatch.setattr(diversity, "_over_set", lambda *_: {"spread": dict(sound), "closest": dict(wide)})
    assert measure(sets[1], sets[0], sets[2])["collapsed"] == collapsed


def test_of_more_images_than_are_compared_all_that_is_told_is_of_the_same(sets, monkeypatch):
    """Each patient's first: images of both sets, labels, and whose conditions are drawn again."""
    monkeypatch.setattr(diversity, "MOST", 3)
    whose, rows, asked, kept = np.array(list("aaabbc")), [0, 3, 5], [], differences
    monkeypatch.setattr(diversity, "differences", lambda images: asked.append(images) or kept(images))
    monkeypatch.setattr(diversity.clustered, "interval", lambda values, groups, within: groups.tolist())
    generated, real = sets[0][:6], sets[1][:6]
    entry = measure(generated, real, whose, lambda seed: real[:3], labels=np.array([7, 0, 0, 8, 0, 7]))
    np.testing.assert_array_equal(asked[0], generated[rows])
    np.testing.assert_array_equal(asked[1], real[rows])
    assert entry["same_condition"]["interval"] == ["a", "b", "c"]
    assert entry["same_condition"]["real"] == pytest.approx(kept(real[rows])[0, 2])  # both of label 7


def test_several_draws_of_one_condition(sets):
    real, other, groups = sets
    same = measure(real, real, groups, lambda seed: real[:3])["same_condition"]
    assert same["generated"] == pytest.approx(0, abs=1e-6)
    assert (same["real"], same["conditions"], same["seeds"]) == (None, 3, 4) and "one real slice" in same[
        "why"
    ]
    drawn = [real[:3], other[:3], real[3:6], other[3:6]]
    entry = measure(real, real, groups, drawn.__getitem__, labels=np.arange(N) % 2)["same_condition"]
    expected = np.mean([pairs(differences(np.stack([d[i] for d in drawn]))).mean() for i in range(3)])
    assert entry["generated"] == pytest.approx(expected)
    matrix = differences(real)
    alike = [matrix[i, j] for i in range(N) for j in range(N) if i != j and i % 2 == j % 2]
    assert entry["real"] == pytest.approx(np.mean(alike))


def test_what_cannot_be_had_says_why(sets):
    entry = measure(sets[0], sets[0], ["one"] * N)
    assert entry["value"] is None and "two patients" in entry["why"]
    assert "not asked" in measure(sets[0], sets[0], sets[2])["same_condition"]["why"]
    alone = diversity._of_labels(np.zeros((2, 2)), np.array(["a", "b"]), np.array([0, 1]))
    assert alone["real"] is None and "share a label" in alone["why"]


def test_every_patient_comes_before_anybodys_second():
    groups = np.array(list("aaabbc"))
    assert spread_rows(groups, 3).tolist() == [0, 3, 5]
    assert spread_rows(groups, 5).tolist() == [0, 1, 3, 4, 5]
    assert spread_rows(groups, 99).tolist() == [0, 1, 2, 3, 4, 5]


def test_rows_spread_evenly_over_each_patient():
    groups = np.array(list("aaaaaaabbbccccc"))
    assert even_rows(groups, 3, 99).tolist() == [1, 3, 5, 7, 8, 9, 10, 12, 14]
    assert even_rows(groups, 1, 99).tolist() == [3, 8, 12]  # middles, no firsts
    assert even_rows(groups, 99, 99).tolist() == list(range(15))
    assert even_rows(groups, 1, 2).tolist() == [3, 12]
