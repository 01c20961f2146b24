"""Who copies is caught, who does not is not: on phantoms whose patients are known, and against loops."""

import numpy as np
import pytest
from scipy import ndimage, stats

from pixmed_jax.data import phantom
from pixmed_jax.evaluation import verdict
from pixmed_jax.metrics import clustered
from pixmed_jax.metrics import memorisation as module
from pixmed_jax.metrics.likeness import likeness, shifted
from pixmed_jax.metrics.memorisation import Real, Redrawn, auc, measure, nearest, recognition, thresholds

SIZE = 64


def patients(numbers, count):
    images, groups = [], []
    for number in numbers:
        for one in phantom.patient_slices(number, size=SIZE, count=count):
            images.append(one.image / 255.0)
            groups.append(f"p{number}")
    return Real(np.stack(images), np.array(groups))


@pytest.fixture(scope="module")
def train():
    """60 slices of 20 patients."""
    return patients(range(20), 3)


@pytest.fixture(scope="module")
def strangers():
    """60 slices of 20 other patients: the held-out ones and, in two tests, a sound generator."""
    return patients(range(100, 120), 3)


@pytest.fixture(scope="module")
def held_out(strangers):
    return Real(strangers.images[:30], strangers.groups[:30])


def answer(found, question="New?"):
    (told,) = [a for a in verdict.answers({"memorisation": found.entry}) if a.question == question]
    return told.answer


def memorised(train, rng):
    """Training slices mirrored, shifted by two pixels, with noise."""
    copies = train.images[rng.permutation(len(train.images))[:30]]
    copies = shifted(copies[:, :, ::-1], 2, -1)
    return np.clip(copies + rng.normal(0, 0.03, copies.shape), 0, 1)


def test_a_generator_that_returns_training_slices_is_caught(train, held_out):
    found = measure(memorised(train, np.random.default_rng(0)), None, train, held_out)
    entry = found.entry
    assert entry["near"] >= 24
    assert entry["ratio"] < 0.6 and entry["p"] < 0.01
    assert entry["auc"] > 0.7 and entry["auc_interval"][0] > 0.5
    assert answer(found) == "no" and answer(found, "Safe to share?") == "no"


def test_a_sound_generator_passes(train, strangers, held_out):
    """Real slices of yet other patients, as they are and softened as generators soften them."""
    for soft in (0.0, 1.0):
        images = ndimage.gaussian_filter(strangers.images[30:], (0, soft, soft))
        found = measure(images, None, train, held_out)
        entry = found.entry
        assert entry["copies"] == 0
        assert entry["near"] <= 3 and entry["near_expected"] == pytest.approx(30 / 31)
        assert entry["auc_interval"][0] < 0.5 < entry["auc_interval"][1]
        assert entry["p"] > 0.05 and entry["ratio"] > 0.8
        assert answer(found) == "yes" and answer(found, "Safe to share?") == "partly"


def test_one_copy_among_many_is_found(train, strangers, held_out):
    images = strangers.images[30:].copy()
    images[7] = train.images[4, :, ::-1]
    found = measure(images, None, train, held_out)
    assert found.entry["copies"] == 1 and answer(found) == "no"
    assert found.generated.standing.argmin() == 7 and found.generated.rows[7] == 4


def test_copies_beside_what_strangers_would_give(train, held_out):
    """None of thirty held-out images stands as near as a copy does, so at most one of 31 strangers does."""
    found = measure(train.images[:5], None, train, held_out).entry
    assert (found["copies"], found["held_out_copies"]) == (5, 0)
    assert found["copies_expected"] == pytest.approx(5 / 31)


def test_the_rate_of_false_alarms(train, strangers):
    """Over splits of strangers by patient into held-out and generated, `near` keeps its rate, and copies
    are rarer by far, though ten patients leave the threshold to chance."""
    standing = nearest(likeness(strangers.images, train.images), train.groups).standing
    rng, names = np.random.default_rng(0), np.unique(strangers.groups)
    near, copies, rates = [], [], []
    for _ in range(400):
        here = np.isin(strangers.groups, rng.permutation(names)[:10])
        low, certain, rate = thresholds(standing[here])
        near.append((standing[~here] < low).mean())
        copies.append((standing[~here] < certain).mean())
        rates.append(rate)
    assert np.mean(near) == pytest.approx(np.mean(rates), rel=0.5)
    assert np.mean(copies) < 0.2 * np.mean(near)


def test_who_draws_from_held_out_maps_is_compared_with_others_patients(train, held_out):
    """A perfect generator returns the held-out slice of the map itself: no leak from training, and the attack
    must not take a patient's own drawing for a sign of membership either way."""
    found = measure(held_out.images, held_out.groups, train, held_out)
    assert found.entry["ratio"] == pytest.approx(1) and found.entry["p"] == 1.0
    assert found.entry["copies"] == 0 and found.entry["near"] == 0
    assert found.entry["auc_interval"][0] < 0.5 < found.entry["auc_interval"][1]
    assert answer(found) == "yes"


def test_the_attack_by_loops(train, held_out):
    """AUC from its definition, with folds of patients read off: each held-out image against those drawn from
    patients outside of its fold."""
    to_train = likeness(held_out.images, train.images)
    to_others = likeness(held_out.images, held_out.images)
    wins, _, _ = module._attack(to_train, to_others, held_out.groups, held_out.groups)
    names = np.unique(held_out.groups)
    folds = dict(zip(names, np.random.default_rng(0).permutation(len(names)) % 5, strict=True))
    for i in (0, 7, 29):
        allowed = [g for g in range(30) if folds[held_out.groups[g]] != folds[held_out.groups[i]]]
        own = min(1 - to_others[g, i] for g in allowed)
        for j in (0, 31, 59):
            member = min(1 - to_train[g, j] for g in allowed)
            assert wins[i, j] == (1.0 if member < own else 0.0)
    told = auc(wins, held_out.groups, train.groups)
    assert told["auc"] == pytest.approx(sum(map(float, wins.ravel())) / wins.size, rel=1e-5)


def test_of_both_sides_the_drawings_of_other_folds_alone_count():
    """Where any drawing may be the nearest to anything: likenesses by chance."""
    rng, whose = np.random.default_rng(6), np.repeat(list("abcdefg"), 3)
    to_train, to_others = rng.random((21, 4)), rng.random((21, 21))
    wins, _, others = module._attack(to_train, to_others, whose, whose)
    folds = (np.random.default_rng(0).permutation(7) % 5).repeat(3)
    for i in range(21):
        allowed = folds != folds[i]
        assert others[i] == 1 - to_others[allowed, i].max()
        np.testing.assert_array_equal(wins[i], 1 - to_train[allowed].max(0) < others[i])


def test_without_patients_the_rank_test_counts_twice():
    """With one slice of each patient all draws are the same, and twice their median is twice each."""
    rng, groups = np.random.default_rng(7), np.array(list("abcdefgh"))
    generated, real = rng.random(40) - 0.2, rng.random(8)
    expected = 2 * stats.mannwhitneyu(generated, real, alternative="less").pvalue
    assert module._p(generated, None, real, groups)["p"] == pytest.approx(expected) and expected < 1


def test_where_all_is_drawn_from_one_held_out_patient_its_own_drawings_count():
    rng = np.random.default_rng(5)
    to_train, to_others = rng.random((3, 4)), rng.random((3, 2))
    wins, members, others = module._attack(to_train, to_others, np.full(3, "a"), np.full(2, "a"))
    np.testing.assert_array_equal(members, 1 - to_train.max(0))
    np.testing.assert_array_equal(others, 1 - to_others.max(0))
    np.testing.assert_array_equal(wins, members[None] < others[:, None])


def test_auc_counts_draws_half_and_resamples_patients():
    wins = module._wins(np.array([[1.0, 2.0, 3.0]]), np.array([[2.0], [2.5]]))
    np.testing.assert_array_equal(wins, [[1, 0.5, 0], [1, 1, 0]])
    # One patient of two decides everything: with slices as units the interval would be narrow.
    of_one = np.repeat([[1.0], [0.0]], 50, axis=0) * np.ones((1, 40))
    told = auc(of_one, np.repeat(["a", "b"], 50), np.array([str(i) for i in range(40)]))
    assert told["auc"] == 0.5 and told["auc_interval"] == (0.0, 1.0)


def test_nearest_by_loops():
    rng = np.random.default_rng(0)
    alike, groups = rng.random((5, 40)), rng.integers(0, 9, 40).astype(str)
    found = nearest(alike, groups)
    for i in range(5):
        of_patients = sorted(
            min(1 - a for a, g in zip(alike[i], groups, strict=True) if g == p) for p in set(groups)
        )
        assert found.rows[i] == max(range(40), key=lambda j: alike[i, j])
        assert found.distance[i] == pytest.approx(of_patients[0])
        assert found.standing[i] == pytest.approx(of_patients[0] / np.mean(of_patients[1:6]))
    assert np.isnan(nearest(alike, np.full(40, "one")).standing).all()


def test_thresholds_are_those_of_the_held_out_images():
    values = np.random.default_rng(0).permutation(np.arange(1, 300) / 300)  # 299: three fall below 1 in 100
    near, certain, rate = thresholds(values)
    assert (near, rate) == (3 / 300, 0.01)
    assert np.log(certain) - np.log(0.5) == pytest.approx(2 * (np.log(near) - np.log(0.5)))
    assert thresholds(np.array([0.9, 0.5, 0.7])) == (0.5, pytest.approx(0.25 / 0.7), 0.25)
    assert thresholds(np.array([0.9, np.nan])) is None


def test_training_slices_of_one_patient_have_no_copies_but_why(train, held_out):
    one = Real(train.images, np.full(len(train.images), "p0"))
    entry = measure(held_out.images, None, one, held_out).entry
    assert entry["copies"] is None and "all training slices are of one" in entry["why"]
    told = verdict.answers({"memorisation": entry})
    assert [a.answer for a in told if a.question == "New?"] == ["not measured"]


def test_in_a_split_by_slice_own_patients_do_not_make_held_out_slices_near(train):
    """Held-out slices hardly different from a training slice of their own patient, as a neighbour would be:
    were it counted, the threshold would let copies pass."""
    inside = Real(0.9 * train.images[:12:3], train.groups[:12:3])
    found = measure(inside.images, None, train, inside)
    assert not (train.groups[found.held_out.rows] == inside.groups).any()
    assert found.entry["thresholds"]["near"] > 0.1 and found.entry["near"] == 4


def test_who_remembers_training_patients_beyond_their_maps(train, held_out):
    """Overfit: a training map gives back its slice, a held-out map some other slice. Sound: both give the
    slice softened alike. Both recognise training patients; only the first tells who was trained on."""
    rows, own = np.arange(60), np.arange(30)
    soft = {
        part: ndimage.gaussian_filter(of.images, (0, 1, 1)) for part, of in (("a", train), ("b", held_out))
    }
    sound = recognition(Redrawn(soft["a"], rows), Redrawn(soft["b"], own), train, held_out)
    assert sound["training"]["recognised"] > 0.95 and sound["held_out"]["recognised"] > 0.95
    assert sound["auc_interval"][0] < 0.5 < sound["auc_interval"][1]
    assert sound["chance"] == pytest.approx(1 / 30)
    wrong = Redrawn(train.images[:30], own)
    overfit = recognition(Redrawn(train.images, rows), wrong, train, held_out)
    assert overfit["training"]["recognised"] == 1 and overfit["held_out"]["recognised"] == 0
    assert overfit["auc"] == 1 and overfit["auc_interval"] == (1, 1)
    base = measure(held_out.images, held_out.groups, train, held_out).entry
    told = {a.question: a for a in verdict.answers({"memorisation": {**base, "recognition": overfit}})}
    assert told["New?"].answer == "no" and "own map, 1.00" in told["New?"].sentence
    told = {a.question: a for a in verdict.answers({"memorisation": {**base, "recognition": sound}})}
    assert told["New?"].answer == "yes" and told["Safe to share?"].answer == "no"
    assert "own map show that patient" in told["Safe to share?"].sentence


def test_what_is_told_of_images_of_nobody_follows_from_standings_and_thresholds():
    """Likenesses by chance, but two of 400 held-out images are in the training set: each generated image is a
    patient of its own, and one copy more than was seen is expected."""
    rng = np.random.default_rng(4)
    blank, groups = np.zeros((400, 4, 4)), np.tile(list("abcdef"), 67)[:400]

    def alike(queries, references, what):
        table = rng.beta(2, 2, (len(queries), len(references)))
        if what.startswith("held-out"):
            table[:2, 0] = 1.0
        return table

    found = measure(blank, None, Real(blank[:12], groups[:12]), Real(blank, np.char.upper(groups)), alike)
    entry, standing = found.entry, found.generated.standing
    near, copies = (standing < entry["thresholds"][name] for name in ("near", "copy"))
    assert copies.sum() < near.sum() < 400
    assert (entry["near"], entry["copies"], entry["held_out_copies"]) == (near.sum(), copies.sum(), 2)
    assert entry["copies_expected"] == pytest.approx(3 / 401 * 400)
    expected = clustered.share(near.astype(float), np.arange(400))
    assert entry["near_share_interval"] == pytest.approx(expected)


@pytest.mark.parametrize(("held_out", "train", "told"), [(5, 4, (0, 1)), (6, 1, (0, 1)), (6, 2, (1, 1))])
def test_an_attack_on_few_patients_may_be_anything(held_out, train, told):
    """Though all of theirs succeeded."""
    wins = np.ones((held_out, train))
    assert auc(wins, np.arange(held_out), np.arange(train))["auc_interval"] == told


@pytest.mark.parametrize(("count", "p"), [(5, None), (6, 1 / 2**6)])
def test_a_rank_test_takes_six_patients(count, p):
    groups = np.repeat(list("abcdefgh")[:count], 3)
    real = np.random.default_rng(0).random(3 * count)
    assert module._p(real - 0.01, groups, real, groups)["p"] == p
    assert (module._p(real, None, real, groups)["p"] is None) == (p is None)


def test_the_rank_test_pairs_patients():
    groups = np.repeat(list("abcdefgh"), 3)
    real = np.random.default_rng(0).random(24)
    assert module._p(real - 0.01, groups, real, groups)["p"] == pytest.approx(1 / 2**8)  # all eight lower
    assert module._p(real + 0.01, groups, real, groups)["p"] == 1.0
    assert module._p(real, groups[:24], real, np.repeat("a", 24))["p"] is None
    far = module._p(np.linspace(0.8, 0.9, 200), None, np.linspace(0.1, 0.2, 24), groups)
    near = module._p(np.linspace(0.1, 0.2, 200), None, np.linspace(0.8, 0.9, 24), groups)
    assert far["p"] == 1 and near["p"] < 1e-4
