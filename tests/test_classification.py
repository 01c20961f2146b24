"""Measures of classifiers against their definitions, spelled out with loops."""

import math

import numpy as np
import pytest

from pixmed_jax.metrics.classification import OF_LABELS, SCALARS, confusion, measure, reliability

RNG = np.random.default_rng(0)


def example(n: int = 60, count: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Rounded, so that some scores are equal."""
    labels = RNG.integers(0, count, n)
    p = RNG.dirichlet(np.ones(count), n) + 0.6 * np.eye(count)[labels]
    p = np.round(p / p.sum(1, keepdims=True), 1) + 1e-3
    return p / p.sum(1, keepdims=True), labels


def by_hand(p: np.ndarray, labels: np.ndarray) -> dict[str, float | list[float]]:
    said = [max(range(p.shape[1]), key=lambda c: row[c]) for row in p]
    pairs = list(zip(said, labels.tolist(), strict=True))
    recall, precision, f1, area = [], [], [], []
    for c in range(p.shape[1]):
        tp = sum(s == c and y == c for s, y in pairs)
        there, named = sum(y == c for _, y in pairs), sum(s == c for s, _ in pairs)
        recall.append(tp / there)
        precision.append(tp / named if named else 0.0)
        f1.append(2 * tp / (there + named))
        wins = [
            1.0 if a > b else 0.5 if a == b else 0.0 for a in p[labels == c, c] for b in p[labels != c, c]
        ]
        area.append(sum(wins) / len(wins))
    gap = 0.0
    for b in range(15):
        inside = [i for i, row in enumerate(p) if b / 15 < max(row) <= (b + 1) / 15]
        if inside:
            sure = sum(max(p[i]) for i in inside) / len(inside)
            right = sum(pairs[i][0] == pairs[i][1] for i in inside) / len(inside)
            gap += len(inside) / len(p) * abs(sure - right)
    mean = lambda values: sum(values) / len(values)  # noqa: E731
    return {
        "accuracy": mean([s == y for s, y in pairs]),
        "balanced_accuracy": mean(recall),
        "macro_precision": mean(precision),
        "macro_f1": mean(f1),
        "log_loss": mean([-math.log(row[y]) for row, y in zip(p, labels, strict=True)]),
        "ece": gap,
        "auroc": mean(area),
        "recall": recall,
        "precision": precision,
        "f1": f1,
        "auroc_of": area,
    }


@pytest.mark.parametrize("count", [2, 3, 5])
def test_measures_are_their_definitions(count):
    p, labels = example(60, count)
    found, expected = measure(p, labels), by_hand(p, labels)
    assert set(found) == set(expected) == {*SCALARS, *OF_LABELS}
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-9, err_msg=name)


def test_a_weight_is_a_number_of_copies():
    p, labels = example()
    times = RNG.integers(0, 4, len(p))
    weighted, copied = measure(p, labels, times), measure(p.repeat(times, 0), labels.repeat(times))
    for name, value in copied.items():
        np.testing.assert_allclose(weighted[name], value, rtol=1e-9, err_msg=name)


def test_a_label_that_no_image_has_is_left_out_of_the_means():
    p, labels = example()
    there = labels != 1
    found = measure(p[there], labels[there])
    for name in OF_LABELS:
        assert np.isnan(found[name][1]) and not np.isnan(found[name][[0, 2]]).any(), name
    assert found["balanced_accuracy"] == pytest.approx(found["recall"][[0, 2]].mean())
    assert found["auroc"] == pytest.approx(found["auroc_of"][[0, 2]].mean())


def test_a_label_that_is_never_named_has_precision_zero():
    p = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3]])
    found = measure(p, np.array([0, 1, 0]))
    assert found["precision"].tolist() == [pytest.approx(2 / 3), 0] and found["f1"][1] == 0


def test_certainty_that_is_wrong_costs_much_but_not_everything():
    """-ln 1e-7 = 16.1; without a floor one image would make the mean infinite."""
    found = measure(np.array([[1.0, 0.0], [1.0, 0.0]]), np.array([0, 1]))
    assert found["log_loss"] == pytest.approx(16.118 / 2, abs=1e-3)
    assert found["ece"] == pytest.approx(0.5)


def test_confusion_rows_are_what_it_is():
    table = confusion(np.array([0, 0, 2, 1]), np.array([1, 0, 0, 1]), 3)
    assert table.tolist() == [[1, 1, 0], [0, 1, 0], [1, 0, 0]]


def test_reliability_counts_every_image_once():
    table = reliability(np.array([1 / 15, 0.5, 1.0, 1e-9]), np.array([1, 0, 1, 0]), np.ones(4))
    assert table[:, 0].sum() == 4 and table[0].tolist() == [2, pytest.approx((1 / 15) / 2), 0.5]
    assert table[-1].tolist() == [1, 1, 1]
