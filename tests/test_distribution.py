"""KID, FID and neighbours against loops and closed forms, and what they say of sets known to be bad."""

import numpy as np
import pytest
from scipy import linalg, stats

from pixmed_jax.evaluation import verdict
from pixmed_jax.metrics import distribution


def draws(n: int, dims: int = 5, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, dims))


# ---------------------------------------------------------------- KID
def mmd_by_loops(x, y):
    """Binkowski et al. 2018, Equation 4, pair by pair."""

    def k(a, b):
        return (sum(p * q for p, q in zip(a, b, strict=True)) / len(a) + 1) ** 3

    def within(z):
        values = [k(z[i], z[j]) for i in range(len(z)) for j in range(len(z)) if i != j]
        return sum(values) / len(values)

    across = [k(a, b) for a in x for b in y]
    return within(x) + within(y) - 2 * sum(across) / len(across)


def test_kid_pair_by_pair():
    x, y = draws(9), draws(7, seed=1) + 0.5
    assert distribution.kid(x, y) == pytest.approx(mmd_by_loops(x, y), rel=1e-12)


def test_kid_is_unbiased():
    """Of one distribution it is 0 on average and of either sign; with the diagonal it would be above."""
    values = [distribution.kid(draws(20, seed=2 * i), draws(20, seed=2 * i + 1)) for i in range(300)]
    error = np.std(values) / np.sqrt(len(values))
    assert abs(np.mean(values)) < 3 * error
    assert 0.2 < np.mean(np.array(values) < 0) < 0.8


def test_what_was_made_from_a_slice_is_no_independent_sample():
    """Sets of one distribution, each of the one a near copy of its match: 0 on average without the matches,
    below it with them."""
    pairs = [(draws(20, seed=i), draws(20, seed=1000 + i)) for i in range(300)]
    sets = [(x, 0.9 * x + np.sqrt(1 - 0.81) * noise) for x, noise in pairs]
    left_out = [distribution.kid(x, y, matched=True) for x, y in sets]
    assert abs(np.mean(left_out)) < 3 * np.std(left_out) / np.sqrt(300)
    counted = [distribution.kid(x, y) for x, y in sets]
    assert np.mean(counted) < -10 * np.std(counted) / np.sqrt(300)

    x, y = sets[0]
    kernel = (x @ y.T / 5 + 1) ** 3
    matches = np.trace(kernel)
    across = (kernel.sum() - matches) / (20 * 19)
    assert left_out[0] == pytest.approx(counted[0] + 2 * kernel.mean() - 2 * across)


def test_a_weight_is_a_slice_drawn_so_often():
    """Twice the same slice is a pair of its own in the other set's eyes, but no pair with itself."""
    x, y = draws(6), draws(5, seed=1)
    a, b = np.array([2, 0, 1, 3, 1, 0]), np.array([1, 2, 0, 1, 2])
    doubled = [np.repeat(np.arange(len(w)), w) for w in (a, b)]

    def k(p, q):
        return (p @ q / 5 + 1) ** 3

    def within(z, rows):
        values = [k(z[i], z[j]) for i in rows for j in rows if i != j]
        return np.mean(values)

    expected = within(x, doubled[0]) + within(y, doubled[1])
    expected -= 2 * np.mean([k(x[i], y[j]) for i in doubled[0] for j in doubled[1]])
    assert distribution._kid(x, y)(a.astype(float), b.astype(float)) == pytest.approx(expected, rel=1e-12)


# ---------------------------------------------------------------- FID
def test_frechet_of_gaussians_in_one_dimension():
    """(m - n)^2 + (s - t)^2 for N(m, s^2) and N(n, t^2)."""
    got = distribution.frechet(np.array([1.0]), np.array([[4.0]]), np.array([3.0]), np.array([[25.0]]))
    assert got == pytest.approx(4 + 9)


def test_frechet_of_covariances_that_do_not_commute():
    a, b = draws(40, 4), draws(40, 4, seed=1) @ np.diag([1, 2, 3, 0.5])
    c, d = np.cov(a.T), np.cov(b.T)
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(c + d - 2 * linalg.sqrtm(c @ d).real)
    assert distribution.fid(a, b) == pytest.approx(expected, rel=1e-9)


def test_fid_of_a_set_with_itself_and_of_a_flat_one():
    x = draws(30, 6)
    assert distribution.fid(x, x) == pytest.approx(0, abs=1e-9)
    flat = np.repeat(x[:1], 30, 0)  # mode collapse: no covariance at all
    expected = ((x.mean(0) - x[0]) ** 2).sum() + np.trace(np.cov(x.T))
    assert distribution.fid(flat, x) == pytest.approx(expected)


def test_fid_of_fewer_images_than_features():
    """Computed from products of images there; the definition takes covariances, which are singular."""
    a, b = draws(9, 40) + 0.3, 2 * draws(14, 40, seed=1) @ np.diag(np.linspace(0.1, 1, 40))
    expected = distribution.frechet(a.mean(0), np.cov(a.T), b.mean(0), np.cov(b.T))
    assert distribution.fid(a, b) == pytest.approx(expected, rel=1e-6)
    assert distribution.fid(a + 1000, b + 1000) == pytest.approx(expected, rel=1e-6)
    assert distribution.fid(a, a) == pytest.approx(0, abs=1e-9)
    assert distribution.fid(a, draws(60, 40)) == pytest.approx(distribution.fid(draws(60, 40), a), rel=1e-9)


def test_fid_of_images_that_were_drawn_several_times():
    """Weights are how often an image was drawn: the same as having it so often, in either computation."""
    rng = np.random.default_rng(4)
    for dims in (3, 40):
        x, y = draws(12, dims), draws(15, dims, seed=1) + 0.2
        a, b = rng.integers(0, 3, 12), rng.integers(0, 3, 15)
        expected = distribution.fid(np.repeat(x, a, 0), np.repeat(y, b, 0))
        got = distribution._fid(x, y)(a.astype(float), b.astype(float))
        assert got == pytest.approx(expected, rel=1e-6)


def test_fid_falls_as_the_sets_grow():
    """Which is why the floor has as many slices: both are of one distribution."""
    few, many = (distribution.fid(draws(n, 8), draws(n, 8, seed=1)) for n in (20, 400))
    assert few > 5 * many


# ---------------------------------------------------------------- neighbours
def neighbours_by_loops(generated, real):
    def radius(points, i, k):
        return sorted(np.linalg.norm(points[i] - p) for j, p in enumerate(points) if j != i)[k - 1]

    def inside(points, k, other):
        """[points][other]: is it within the ball around the point?"""
        return [[np.linalg.norm(p - q) <= radius(points, i, k) for q in other] for i, p in enumerate(points)]

    of_real, of_generated = inside(real, 3, generated), inside(generated, 3, real)
    wide = inside(real, 5, generated)
    return {
        "precision": np.mean([any(ball[j] for ball in of_real) for j in range(len(generated))]),
        "recall": np.mean([any(ball[j] for ball in of_generated) for j in range(len(real))]),
        "density": sum(map(sum, wide)) / (5 * len(generated)),
        "coverage": np.mean([any(ball) for ball in wide]),
    }


def test_neighbours_one_by_one():
    real, generated = draws(17, 2), 0.9 * draws(13, 2, seed=1) + 1.5
    got = distribution.neighbours(generated, real)
    assert got == pytest.approx(neighbours_by_loops(generated, real))
    assert len({round(v, 3) for v in got.values()}) == 4  # no two of them can be confused here


def test_an_image_is_at_no_distance_from_itself():
    """By products of large features alone it would be some, by rounding."""
    x = 1e4 * draws(30, dims=64)
    assert (distribution.distances(x, x.copy()).diagonal() == 0).all()


def test_what_neighbours_tell_apart():
    real = draws(200, 3)
    same = distribution.neighbours(draws(200, 3, seed=1), real)
    collapsed = distribution.neighbours(real[:1] + 0.01 * draws(200, 3, seed=2), real)
    away = distribution.neighbours(draws(200, 3, seed=3) + 20, real)
    assert min(same["precision"], same["recall"], same["coverage"]) > 0.8
    assert collapsed["precision"] == 1 and collapsed["recall"] < 0.05 and collapsed["coverage"] < 0.1
    assert set(away.values()) == {0.0}


# ---------------------------------------------------------------- the entries
def patients(count: int, each: int, dims: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features of patients who differ more from each other than their own slices do."""
    rng = np.random.default_rng(seed)
    centres = np.repeat(rng.normal(size=(count, dims)), each, axis=0)
    return centres + 0.3 * rng.normal(size=centres.shape), np.repeat(np.arange(count), each)


@pytest.fixture(scope="module")
def sets():
    return patients(16, 4), patients(40, 4, seed=1)


def compare(generated, sets, **changes):
    (real, groups), (train, train_groups) = sets
    settings = {
        "groups": groups,
        "train_groups": train_groups,
        "features": "numbers",
        "matched": False,
        **changes,
    }
    return distribution.compare(generated, real, train, **settings)


def test_the_keys_and_the_floor(sets):
    (real, _), _ = sets
    got = compare(patients(16, 4, seed=2)[0], sets)
    assert set(got) == {"kid", "fid", "precision", "recall", "density", "coverage"}
    for name in ("kid", "fid"):
        of = got[name]
        keys = {"value", "low", "high", "floor", "halves", "features", "n", "n_floor", "n_halves"}
        assert set(of) == keys | ({"draws"} if name == "kid" else set())
        assert of["low"] <= of["value"] <= of["high"]
        assert (of["features"], of["n"], of["n_floor"], of["n_halves"]) == ("numbers", 64, 64, 32)
    assert got["kid"]["value"] == pytest.approx(distribution.kid(patients(16, 4, seed=2)[0], real))
    # Patients in clusters: real sets of other patients are apart by more than chance among slices.
    assert got["kid"]["floor"] > 0 and got["fid"]["floor"] > 0
    assert got == compare(patients(16, 4, seed=2)[0], sets)
    other = compare(patients(16, 4, seed=2)[0], sets, seed=1)
    assert other["kid"]["value"] == got["kid"]["value"] and other["kid"]["low"] != got["kid"]["low"]


def test_matched_images_are_told_apart_from_independent_ones(sets):
    generated = sets[0][0] + 0.1  # each of its own slice
    matched, independent = (compare(generated, sets, matched=by)["kid"] for by in (True, False))
    assert matched["value"] == pytest.approx(distribution.kid(generated, sets[0][0], matched=True))
    assert matched["value"] > independent["value"]
    assert (matched["floor"], matched["halves"]) == (independent["floor"], independent["halves"])


def test_fid_of_fewer_images_than_features_is_told_only_where_it_is_the_custom():
    sets = patients(8, 4, dims=50), patients(20, 4, dims=50, seed=1)
    good, bad = patients(8, 4, dims=50, seed=2)[0], patients(8, 4, dims=50, seed=2)[0] + 3
    plain, asked, worse = (
        compare(good, sets),
        compare(good, sets, singular=True),
        compare(bad, sets, singular=True),
    )
    assert plain["fid"]["value"] is None and "32 slices do not determine" in plain["fid"]["why"]
    assert plain["kid"] == asked["kid"]
    of = asked["fid"]
    assert of["low"] < of["value"] < of["high"] < worse["fid"]["low"]
    assert of["floor"] == pytest.approx(of["value"], rel=0.2) and of["halves"] > of["floor"]


def test_worse_sets_score_worse(sets):
    """Shifted, spread and collapsed features, each by two strengths."""
    good = patients(16, 4, seed=2)[0]
    rng = np.random.default_rng(5)
    noise = rng.normal(size=good.shape)
    for weak, strong in (
        (good + 0.5, good + 1.5),
        (good + 0.7 * noise, good + 2 * noise),
        (good[np.arange(64) % 12], good[np.arange(64) % 2]),
    ):
        at = [compare(x, sets) for x in (good, weak, strong)]
        for name in ("kid", "fid"):
            values = [of[name]["value"] for of in at]
            assert values == sorted(values) and values[2] > 2 * values[0], (name, values)
        assert at[2]["coverage"]["value"] < at[0]["coverage"]["value"]
        assert at[2]["kid"]["low"] > at[0]["kid"]["floor"]


def test_the_interval_is_by_patient(sets):
    """As if each slice were a patient, the interval would be far too narrow."""
    generated = patients(16, 4, seed=2)[0]
    width = []
    for groups in (np.repeat(np.arange(16), 4), np.arange(64)):
        of = compare(generated, sets, groups=groups)["kid"]
        width.append(of["high"] - of["low"])
    assert width[0] > 1.3 * width[1]


def test_a_draw_of_a_single_slice_is_none():
    """Of four patients, three with one slice each, some draws are one of these alone: no pair."""
    real, groups = draws(8), np.array(list("aaaaabcd"))
    of = compare(real + 1, ((real, groups), patients(8, 4, dims=5, seed=1)))["kid"]
    assert 200 < len(of["draws"]) < 300 and np.isfinite(of["draws"]).all()


def test_draws_of_two_systems_are_of_the_same_patients(sets):
    """So two that are nearly alike differ by next to nothing, however much each varies; the interval is that
    of the draws, around the value."""
    good = patients(16, 4, seed=2)[0]
    better, worse = (compare(good + shift, sets)["kid"] for shift in (0, 0.01))
    a, b = np.array(worse["draws"]), np.array(better["draws"])
    assert len(b) == 300 and (a - b).std() < 0.1 * b.std()
    for of, draws in ((worse, a), (better, b)):
        around = of["value"] + np.percentile(draws - draws.mean(), [2.5, 97.5])
        np.testing.assert_allclose((of["low"], of["high"]), around, rtol=1e-3)
    # Each is the distance with some patients more than once: their mean is near it, and none is the same.
    assert len(set(b)) > 290 and abs(b.mean() - better["value"]) < 2 * b.std()


def test_too_few():
    (real, groups), train = patients(2, 3), patients(3, 4, seed=1)
    got = compare(real + 1, ((real, groups), train))
    for name, of in got.items():
        assert of["value"] is None and "6 slices of 2 patients" in of["why"], name
    wide = (patients(5, 4, dims=30), patients(9, 4, dims=30, seed=1))
    got = compare(wide[0][0] + 1, wide)
    assert got["fid"]["value"] is None and "covariance of 30 features; 31 are needed" in got["fid"]["why"]
    assert got["kid"]["value"] > 0


@pytest.mark.parametrize(("groups", "enough"), [("aabbccd", False), ("aaabbbccc", False), ("aabbccdd", True)])
def test_eight_slices_of_four_patients_are_enough(groups, enough):
    assert (distribution.too_few(np.array(list(groups))) == "") == enough


@pytest.mark.parametrize("singular", [False, True])
@pytest.mark.parametrize("count", [1, 4])
def test_few_training_slices_are_no_floor(sets, count, singular):
    """Of one slice there is no covariance, and no pair."""
    real, (train, train_groups) = sets
    got = compare(real[0] + 1, (real, (train[:count], train_groups[:count])), singular=singular)
    full = compare(real[0] + 1, sets, singular=singular)
    for name in ("kid", "fid"):
        of = got[name]
        assert of["floor"] is None and f"{count} training slices, and " in of["why"]
        assert of["value"] == full[name]["value"] and of["halves"] > 0
        assert "why" not in full[name]


def test_of_many_slices_some_are_compared_each_with_its_own(monkeypatch):
    """40 of 64, none twice: what was generated, what was made of the same map, and the patient go along."""
    monkeypatch.setattr(distribution, "_MOST", 40)
    (real, groups), train = patients(16, 4), patients(40, 4, seed=1)
    seen = []
    monkeypatch.setattr(distribution, "apart", lambda *of: seen.append(of))
    got = compare(real + 1, ((real, groups), train), matched=True, lookup=real + 1)
    ((some, whose),) = seen
    rows = [int(np.flatnonzero((real == one).all(1))[0]) for one in some]
    assert len(set(rows)) == got["kid"]["n"] == 40 and (groups[rows] == whose).all()
    expected = distribution.kid(some + 1, some, matched=True)
    assert got["kid"]["value"] == got["kid"]["class_means"] == pytest.approx(expected)


def test_a_floor_of_fewer_slices_than_are_tested_says_so(sets):
    real, (train, train_groups) = sets
    got = compare(real[0] + 1, (real, (train[:40], train_groups[:40])))
    assert (got["kid"]["n"], got["kid"]["n_floor"], got["fid"]["n_floor"]) == (64, 40, 40)


@pytest.mark.parametrize(("count", "there"), [(5, False), (6, True)])
def test_a_fifth_neighbour_takes_six_training_slices(sets, count, there):
    real, (train, train_groups) = sets
    got = compare(real[0] + 1, (real, (train[:count], train_groups[:count])))
    for name in distribution.NEIGHBOURS:
        assert (got[name]["floor"] is not None) == there


def test_eight_training_slices_are_a_floor_of_kid(sets):
    real, (train, train_groups) = sets
    got = compare(real[0] + 1, (real, (train[:8], train_groups[:8])))
    assert got["kid"]["floor"] is not None and "why" not in got["kid"]


def test_half_of_the_slices_may_be_too_few_for_a_covariance(monkeypatch):
    """64 are enough for 40 features; 32 in the place of the other 32 are not."""
    monkeypatch.setattr(distribution, "_DRAWS", 2)  # which take the time
    real, groups = patients(16, 4, dims=40)
    got = compare(real + 0.1, ((real, groups), patients(40, 4, dims=40, seed=1)), matched=True)
    assert got["fid"]["same_patients"] is None and got["fid"]["value"] is not None
    assert got["kid"]["same_patients"] is not None


def test_the_difference_of_two_systems_reaches_as_far_as_95_percent_of_draws():
    drawn = np.random.default_rng(0).normal(size=(2, 1000))
    apart = drawn[0] - drawn[1]
    reach = np.percentile(np.abs(apart - apart.mean()), 95)
    reach *= stats.t.ppf(0.975, 9) / stats.norm.ppf(0.975) * np.sqrt(10 / 9)  # of ten patients
    low, high = distribution.differences([1.0, 3.0], drawn, 10)
    np.testing.assert_allclose(low, [[0, -2 - reach], [2 - reach, 0]], rtol=1e-9)
    np.testing.assert_allclose(high, [[0, -2 + reach], [2 + reach, 0]], rtol=1e-9)


def test_whole_patients():
    groups = np.array([7, 7, 3, 3, 3, 9, 9, 1])
    for seed in range(20):
        rows = distribution.whole_patients(groups, 5, np.random.default_rng(seed))
        assert len(set(rows)) == 5
        cut = groups[rows][-1]
        for name in set(groups[rows]) - {cut}:
            assert (groups[rows] == name).sum() == (groups == name).sum()
        a, b = distribution._halves(groups, np.random.default_rng(seed))
        assert not set(groups[a]) & set(groups[b]) and sorted([*a, *b]) == list(range(8))


# ---------------------------------------------------------------- what the same patients are beside
def test_other_slices_are_of_the_same_patient_and_in_one_set_alone():
    groups = np.array(["b", "a", "b", "b", "c", "a", "b", "b"])
    rng, seen = np.random.default_rng(0), set()
    for _ in range(20):
        rows, others = distribution.other_slices(groups, rng)
        assert sorted(groups[rows]) == ["a", "b", "b"] and (groups[rows] == groups[others]).all()
        assert len({*rows, *others}) == 6
        seen |= set(rows.tolist())
    assert seen == {0, 1, 2, 3, 5, 6, 7}  # any but the only one
    assert [len(of) for of in distribution.other_slices(np.arange(5), rng)] == [0, 0]


def test_how_far_other_patients_are_on_average():
    """The mean over many pairs of sets of as many patients, of which each alone is far off."""
    sets = [patients(8, 4, seed=seed) for seed in range(400)]
    apart = [distribution.apart(*one) for one in sets]
    pairs = [distribution.kid(x, y) for (x, _), (y, _) in zip(sets[::2], sets[1::2], strict=True)]
    assert np.mean(pairs) == pytest.approx(np.mean(apart), abs=3 * np.std(pairs) / np.sqrt(200))
    assert min(pairs) < 0.1 * np.mean(pairs) < 0.5 * min(apart)  # single pairs may be close by luck
    assert distribution.apart(sets[0][0], np.arange(32)) is None


def drawn_again(count: int, each: int, fault: float, seed: int = 0):
    """(other slices of the same patients, moved by `fault`; slices of these patients, and whose they are)"""
    features, groups = patients(count, 2 * each, seed=seed)
    own = np.arange(len(groups)) % 2 == 0
    return features[~own] + fault, (features[own], groups[own])


def test_the_same_patients_are_held_against_themselves():
    """Slices with a fault, of the test patients, are closer to these than other patients are, but no more
    real for that: other slices of the same patients are at 0, and those without the fault are too."""
    train, found, answers = patients(40, 4, seed=99), [], []
    for seed in range(12):
        of = {}
        for fault in (0.0, 0.3):
            generated, real = drawn_again(16, 6, fault, seed)
            of[fault] = compare(generated, (real, train), matched=True, lookup=generated + 1)
        sound, faulty = of[0.0]["kid"], of[0.3]["kid"]
        found.append([faulty["value"], faulty["low"], faulty["floor"], sound["same_patients"]])
        assert sound["low"] < 0.1 * sound["apart"] and sound["n_same_patients"] == 48
        told = [{**of[0.3], "condition": {"name": name}} for name in ("label", "anatomy")]
        told.append({**of[0.0], "condition": {"name": "anatomy"}})
        answers.append([verdict.answers(one)[0].answer for one in told])
    value, low, floor, same = np.array(found).T
    assert np.mean(value) < 0.7 * np.mean(floor)  # closer than real patients to each other
    assert (low > 0).mean() > 0.8  # and yet unlike real slices
    assert abs(np.mean(same)) < 0.05 * np.mean(floor)
    by_others, by_the_same, sound_ones = [one.count("yes") for one in zip(*answers, strict=True)]
    assert by_others >= 9 and by_the_same == 0 and sound_ones == 12


def test_what_real_slices_of_the_same_patients_have(monkeypatch):
    """By the definitions; with each slice replaced by the next recall would be 1, however unlike the slices
    of a patient are."""
    real, groups = patients(9, 6, dims=12)
    real[1::2] += 2
    pairs = np.arange(0, 54, 2), np.arange(1, 54, 2)
    monkeypatch.setattr(distribution, "other_slices", lambda *_: pairs)
    sets = (real, groups), patients(40, 4, dims=12, seed=1)
    got, lookup = (
        compare(real + 0.1, sets, matched=True, lookup=real + 9),
        compare(real + 9, sets, matched=True),
    )
    expected = distribution.kid(real[1::2], real[::2], matched=True)
    assert got["kid"]["same_patients"] == pytest.approx(expected, rel=1e-9)
    of = neighbours_by_loops(real[1::2], real[::2])
    assert {name: got[name]["same_patients"] for name in of} == pytest.approx(of)
    assert of["recall"] < 0.95 and distribution.neighbours(np.roll(real, -1, 0), real)["recall"] == 1
    assert got["fid"]["same_patients"] == pytest.approx(distribution.fid(real[1::2], real[::2]))
    for name, entry in got.items():
        assert entry["class_means"] == lookup[name]["value"]
    # Nothing else depends on them.
    monkeypatch.undo()
    again = compare(real + 0.1, sets, matched=True)
    assert {name: of["value"] for name, of in again.items()} == {
        name: of["value"] for name, of in got.items()
    }
    assert again["kid"]["draws"] == got["kid"]["draws"] and again["fid"]["low"] == got["fid"]["low"]


def test_without_several_slices_of_a_patient_nothing_is_said_of_the_same_ones(sets):
    (real, _), _ = sets
    of = compare(real + 0.1, sets, groups=np.arange(64), matched=True)
    assert of["kid"]["same_patients"] is of["kid"]["apart"] is None
    assert of["recall"]["same_patients"] is None and of["kid"]["value"] is not None
    assert "same_patients" not in compare(real + 0.1, sets)["kid"]  # given a class
