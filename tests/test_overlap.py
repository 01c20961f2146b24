"""The likeness of label maps by loops, whoever is mirrored or shifted; and who copies maps is caught."""

import numpy as np
import pytest

from pixmed_jax.data import phantom
from pixmed_jax.data.regions import label_map
from pixmed_jax.evaluation import verdict
from pixmed_jax.metrics import overlap as module
from pixmed_jax.metrics.likeness import shifted
from pixmed_jax.metrics.memorisation import Real, measure
from pixmed_jax.metrics.overlap import overlap


def test_by_loops():
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 4, (3, 64, 64)).astype(np.uint8), rng.integers(0, 4, (5, 64, 64)).astype(np.uint8)
    b[4][b[4] == 3] = 0  # a class that only one of both has counts as 0
    a[2][a[2] == 3] = 0
    got = overlap(a, b)
    for i in range(3):
        for j in range(5):
            best = 0.0
            for flip in (False, True):
                for rows in (-2, 0, 2):
                    for columns in (-2, 0, 2):
                        one = shifted((a[i, :, ::-1] if flip else a[i])[None], rows, columns)[0]
                        dice = [
                            2 * ((one == v) & (b[j] == v)).sum() / ((one == v).sum() + (b[j] == v).sum())
                            for v in (1, 2, 3)
                            if (one == v).any() or (b[j] == v).any()
                        ]
                        best = max(best, np.mean(dice))
            assert got[i, j] == pytest.approx(best, abs=1e-6)


def test_queries_that_are_compared_in_turns_are_compared_alike(monkeypatch):
    rng = np.random.default_rng(1)
    a, b = rng.integers(0, 4, (5, 64, 64)).astype(np.uint8), rng.integers(0, 4, (3, 64, 64)).astype(np.uint8)
    at_once = overlap(a, b)
    monkeypatch.setattr(module, "_QUERIES", 2)
    np.testing.assert_array_equal(overlap(a, b), at_once)


def test_a_class_that_no_reference_has_counts_as_not_found():
    """A band of class 1 in both, above it class 2 in the query alone: half of what it would be without."""
    reference = np.zeros((1, 64, 64), np.uint8)
    reference[:, :, 16:48] = 1
    query = np.where(np.arange(64)[:, None] < 8, 2, reference).astype(np.uint8)
    alone = np.where(query == 1, query, 0).astype(np.uint8)
    assert overlap(query, reference) == pytest.approx(overlap(alone, reference) / 2)


def test_larger_maps_are_compared_at_the_middles_of_blocks():
    rng = np.random.default_rng(2)
    a, b = rng.integers(0, 4, (2, 2, 64, 64)).astype(np.uint8)
    large = np.zeros((2, 2, 192, 192), np.uint8)
    large[:, :, 1::3, 1::3] = a, b
    np.testing.assert_array_equal(overlap(*large), overlap(a, b))


def maps_of(numbers):
    images, masks, groups = [], [], []
    for number in numbers:
        for one in phantom.patient_slices(number, size=64, count=3):
            images.append(one.image)
            masks.append(one.mask)
            groups.append(f"p{number}")
    maps, _ = label_map(
        np.stack(masks), np.stack(images)[..., None], condition="anatomy", label_names=("a", "b", "c"),
        class_channels=True,
    )  # fmt: skip
    return Real(maps, np.array(groups))


@pytest.fixture(scope="module")
def train():
    return maps_of(range(20))


@pytest.fixture(scope="module")
def strangers():
    return maps_of(range(100, 120))


def test_poses_and_equal_maps(train):
    some = train.images[:4]
    posed = shifted(some[:, :, ::-1], 2, -2)
    alike = overlap(posed, train.images)
    assert (alike.argmax(1) == np.arange(4)).all()
    assert overlap(some, some).diagonal() == pytest.approx(np.ones(4))
    assert alike[np.arange(4), np.arange(4)].min() > 0.9  # what was shifted out of the image is lost


def test_a_layout_model_that_returns_training_maps_is_caught(train, strangers):
    held_out = Real(strangers.images[:30], strangers.groups[:30])
    rng = np.random.default_rng(0)
    copies = shifted(train.images[rng.permutation(60)[:30]][:, :, ::-1], 2, 0)
    changed = np.where(rng.random(copies.shape) < 0.03, 0, copies)
    entry = measure(changed, None, train, held_out, overlap).entry
    assert entry["copies"] >= 24 and entry["ratio"] < 0.6 and entry["p"] < 0.01
    (answer,) = [a for a in verdict.answers({"memorisation": entry}) if a.question == "New?"]
    assert answer.answer == "no"


def test_one_that_draws_unseen_maps_passes(train, strangers):
    held_out = Real(strangers.images[:30], strangers.groups[:30])
    entry = measure(strangers.images[30:], None, train, held_out, overlap).entry
    assert entry["copies"] == 0 and entry["ratio"] > 0.9 and entry["p"] > 0.05
    assert entry["auc_interval"][0] < 0.5
