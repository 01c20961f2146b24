"""The mean image and the nearest mask, against loops that follow their definitions."""

import numpy as np
import pytest

from pixmed_jax.metrics import baselines


def likeness(a: np.ndarray, b: np.ndarray) -> float:
    """Pixels of the same class over pixels where either has any."""
    same = sum(1 for p, q in zip(a.flat, b.flat, strict=True) if p == q and p > 0)
    either = sum(1 for p, q in zip(a.flat, b.flat, strict=True) if p > 0 or q > 0)
    return same / max(either, 1)


@pytest.mark.parametrize("classes", [1, 3])
def test_nearest_masks_against_a_loop(classes, monkeypatch):
    monkeypatch.setattr(baselines, "_CHUNK", 7)  # 20 candidates in three parts, the last not full
    rng = np.random.default_rng(classes)
    maps, candidates = (
        (rng.integers(1, classes + 1, (n, 6, 6)) * (rng.random((n, 6, 6)) < 0.4)).astype(np.uint8)
        for n in (9, 20)
    )
    expected = [max(range(20), key=lambda j: (likeness(m, candidates[j]), -j)) for m in maps]
    assert baselines.nearest_masks(maps, candidates).tolist() == expected
    assert len(set(expected)) > 3


def test_a_mask_is_nearest_to_itself_and_classes_count():
    square = np.zeros((8, 8), np.uint8)
    square[2:6, 2:6] = 1
    moved = np.roll(square, 1, axis=0)
    candidates = np.stack([2 * square, moved, square])
    # The same shape of another class is no match at all: a part of the right class beats it.
    assert baselines.nearest_masks(square[None], candidates).tolist() == [2]
    assert baselines.nearest_masks(square[None], candidates[:2]).tolist() == [1]
    assert baselines.nearest_masks(2 * square[None], candidates).tolist() == [0]


def test_larger_is_not_nearer():
    """Covering everything is punished by what is covered in vain."""
    small = np.zeros((8, 8), np.uint8)
    small[3:5, 3:5] = 1
    close = np.zeros((8, 8), np.uint8)
    close[3:5, 3:6] = 1
    assert baselines.nearest_masks(small[None], np.stack([np.ones((8, 8), np.uint8), close])).tolist() == [1]


def test_ties_go_to_the_first(monkeypatch):
    monkeypatch.setattr(baselines, "_CHUNK", 1)  # also across chunks
    rng = np.random.default_rng(0)
    one = (rng.random((5, 5)) < 0.5).astype(np.uint8)
    assert baselines.nearest_masks(one[None], np.stack([1 - one, one, one])).tolist() == [1]
    # An empty map is like no other, so all are equal.
    assert baselines.nearest_masks(np.zeros((1, 5, 5), np.uint8), np.stack([one, 1 - one])).tolist() == [0]


def test_mean_image():
    images = np.array([[[0, 255]], [[100, 255]], [[255, 0]]], np.uint8)  # a uint8 sum would overflow
    mean = baselines.mean_image(images)
    assert mean.dtype == np.float64
    np.testing.assert_allclose(mean, [[355 / 3, 170]])
