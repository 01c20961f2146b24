"""Class means, the mean image and the nearest mask, against loops that follow their definitions."""

import numpy as np
import pytest
from skimage.metrics import structural_similarity

from pixmed_jax.metrics import baselines


def bands(count: int, size: int = 24, seed: int = 0) -> np.ndarray:
    """Label maps of four classes in blocks of six pixels, 0 the background."""
    return np.random.default_rng(seed).integers(0, 5, (count, size // 6, size // 6)).repeat(6, 1).repeat(6, 2)


def test_class_means_pixel_by_pixel():
    rng = np.random.default_rng(0)
    maps = rng.integers(0, 3, (7, 5, 6)).astype(np.uint8)
    images = rng.integers(0, 65536, (7, 5, 6, 2)).astype(np.uint16)  # two channels: their mean counts
    images.setflags(write=False)
    got = baselines.class_means(images, maps, 4)
    grey = images.astype(float).mean(-1)
    expected = np.bincount(maps.ravel(), grey.ravel()) / np.bincount(maps.ravel())
    np.testing.assert_allclose(got[:3], expected, rtol=1e-12)
    np.testing.assert_allclose(got[3:], grey.mean(), rtol=1e-12)  # nobody has shown them


def test_slices_that_are_their_class_means_are_painted_exactly():
    """On other slices than those that the means are of; and with other means the score falls."""
    grey = np.array([0, 40, 90, 160, 250], np.uint8)
    train, test = bands(6), bands(3, seed=1)
    means = baselines.class_means(grey[train][..., None], train, 4)
    assert baselines.best_blur(grey[train][..., None], train, means) == 0

    def ssim(painted):
        return np.mean(
            [structural_similarity(a, b, data_range=255) for a, b in zip(painted, grey[test], strict=True)]
        )

    assert ssim(baselines.painted(test, means)) == pytest.approx(1)
    assert ssim(baselines.painted(test, means[[0, 2, 1, 3, 4]])) < 0.9
    assert ssim(baselines.painted(test, means, 1.0)) < 0.99


@pytest.mark.parametrize("blur", [0.5, 1.0])
def test_the_blur_is_that_of_the_training_slices(blur):
    maps = bands(9)
    means = np.array([0.0, 40, 90, 160, 250])
    soft = baselines.painted(maps, means, blur)
    assert baselines.best_blur(soft[..., None], maps, means) == blur
    # Each slice for itself: none runs into the next.
    np.testing.assert_array_equal(baselines.painted(maps[3:4], means, blur), soft[3:4])
    np.testing.assert_allclose(soft.mean((1, 2)), means[maps].mean((1, 2)), rtol=0.05)


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


def test_a_slice_of_the_same_label_or_of_any_where_none_has_it():
    labels, candidates = np.array([2, 1, 3, 3, 3, 3] * 20), np.array([1, 2, 1, 2, 2])
    found = baselines.any_of_label(labels, candidates)
    known = labels < 3
    np.testing.assert_array_equal(candidates[found[known]], labels[known])
    assert set(found[labels == 2]) == {1, 3, 4} and set(found[~known]) == set(range(5))
    # One whose label nobody has changes nothing before it.
    np.testing.assert_array_equal(baselines.any_of_label(labels[:2], candidates), found[:2])
