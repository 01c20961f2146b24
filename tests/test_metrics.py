"""SSIM, PSNR and MSE against scikit-image, what a region means, and intervals that know patients."""

import math

import numpy as np
import pytest
from skimage.metrics import mean_squared_error, peak_signal_noise_ratio, structural_similarity

from pixmed_jax.evaluation import metrics


@pytest.fixture(scope="module")
def pair():
    """(real, generated) [4, 32, 32]: smooth, then noise in different amounts, the last one unrelated."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:32, :32] / 32
    real = np.stack([0.5 + 0.4 * np.sin(3 * x + k) * np.cos(2 * y) for k in range(4)])
    generated = np.clip(
        real + np.array([0.01, 0.1, 0.3, 0])[:, None, None] * rng.normal(size=real.shape), 0, 1
    )
    generated[3] = rng.random((32, 32))
    return real.astype(np.float32), generated.astype(np.float32)


def everywhere(images):
    return np.ones(images.shape, bool)


def similarity_map(a, b):
    """scikit-image's map of one pair with the window of Wang et al. 2004, without the border."""
    _, values = structural_similarity(
        a, b, data_range=1.0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, full=True
    )
    return values[5:-5, 5:-5]


def test_whole_images_against_scikit_image(pair):
    real, generated = pair
    scores = metrics.score(generated, real, {"full": everywhere(real)})
    for i in range(len(real)):
        a, b = generated[i].astype(float), real[i].astype(float)
        assert scores["ssim"]["full"][i] == pytest.approx(similarity_map(a, b).mean(), abs=1e-4)
        assert scores["psnr"]["full"][i] == pytest.approx(
            peak_signal_noise_ratio(b, a, data_range=1), abs=1e-4
        )
        assert scores["mse"]["full"][i] == pytest.approx(mean_squared_error(a, b), rel=1e-5)


def test_regions_against_scikit_image(pair):
    real, generated = pair
    region = np.zeros(real.shape, bool)
    region[:, 8:20, 3:15] = True
    scores = metrics.score(generated, real, {"part": region})
    for i in range(len(real)):
        a, b = generated[i].astype(float), real[i].astype(float)
        expected = similarity_map(a, b)[region[i, 5:-5, 5:-5]].mean()
        assert scores["ssim"]["part"][i] == pytest.approx(expected, abs=1e-4)
        mse = ((a - b)[8:20, 3:15] ** 2).mean()
        assert scores["mse"]["part"][i] == pytest.approx(mse, rel=1e-5)
        assert scores["psnr"]["part"][i] == pytest.approx(-10 * math.log10(mse), abs=1e-4)


def test_only_errors_inside_a_region_count(pair):
    real, _ = pair
    region = np.zeros(real.shape, bool)
    region[:, 4:12, 4:12] = True
    outside, inside = real.copy(), real.copy()
    outside[:, 24:28, 24:28] += 0.5  # farther than a window's half
    inside[:, 6:8, 6:8] += 0.5
    for images, touched in ((outside, False), (inside, True)):
        scores = metrics.score(images, real, {"part": region, "full": everywhere(real)})
        assert (scores["mse"]["full"] > 5e-4).all() and (scores["ssim"]["full"] < 0.999).all()
        assert ((scores["mse"]["part"] > 0) == touched).all()
        assert ((scores["ssim"]["part"] < 0.999) == touched).all()
        assert ((scores["psnr"]["part"] < 100) == touched).all()
    # 4 of 64 pixels are off by 0.5.
    np.testing.assert_allclose(metrics.mse(inside, real, region), 4 / 64 * 0.25, rtol=1e-5)


def test_equal_images(pair):
    real, _ = pair
    scores = metrics.score(real, real, {"full": everywhere(real)})
    np.testing.assert_allclose(scores["ssim"]["full"], 1, atol=1e-6)
    np.testing.assert_array_equal(scores["psnr"]["full"], 100)
    np.testing.assert_array_equal(scores["mse"]["full"], 0)


def test_an_image_without_the_region_has_no_score(pair):
    real, generated = pair
    region = everywhere(real)
    region[1] = False
    for of_regions in metrics.score(generated, real, {"part": region}).values():
        assert np.isnan(of_regions["part"]).tolist() == [False, True, False, False]


def test_the_interval_covers_a_known_mean_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    covered, widths = 0, []
    for trial in range(200):
        values = rng.normal(0.6, 0.1, 60)
        low, high = metrics.interval(values, np.arange(60).astype(str), seed=trial, draws=500)
        covered += low <= 0.6 <= high
        widths.append(high - low)
    assert 0.89 <= covered / 200 <= 0.99
    # Of 60 independent values: 2 * 1.96 * 0.1 / sqrt(60) = 0.0506.
    assert np.mean(widths) == pytest.approx(0.0506, rel=0.05)


def test_slices_of_one_patient_are_one_observation():
    """Ten equal slices of each of 20 patients say as much as one of each: no more."""
    rng = np.random.default_rng(1)
    of_patient = rng.normal(size=20)
    values, groups = np.repeat(of_patient, 10), np.repeat([f"p{i:02}" for i in range(20)], 10)
    low, high = metrics.interval(values, groups)
    assert (low, high) == pytest.approx(metrics.interval(of_patient, np.unique(groups)))
    naive_low, naive_high = metrics.interval(values, np.arange(200).astype(str))
    assert high - low == pytest.approx(math.sqrt(10) * (naive_high - naive_low), rel=0.15)


def test_intervals_leave_missing_values_out():
    values, groups = np.array([1.0, np.nan, 3.0, np.nan]), np.array(["a", "a", "b", "c"])
    assert metrics.interval(values, groups) == metrics.interval(values[[0, 2]], groups[[0, 2]])
    assert metrics.interval(values, groups) == (1, 3)
    assert metrics.interval(values[[1, 3]], groups[[1, 3]]) is None


def test_the_same_seed_gives_the_same_interval():
    values, groups = np.random.default_rng(0).random(30), np.repeat(np.arange(10), 3).astype(str)
    assert metrics.interval(values, groups, seed=3) == metrics.interval(values, groups, seed=3)
    assert metrics.interval(values, groups, seed=3) != metrics.interval(values, groups, seed=4)


def test_resampled_bounds_of_a_mean_are_those_of_the_interval():
    """The same draws of whole patients, weights instead of copies; a mean is what `interval` knows too."""
    values = np.random.default_rng(3).normal(size=60)
    groups = np.arange(60) // np.repeat([3, 5, 2], 20)
    mean = lambda weights: {"mean": (weights * values).sum() / weights.sum()}  # noqa: E731
    found = metrics.resampled(groups, mean, draws=2000)["mean"]
    np.testing.assert_allclose(found, metrics.interval(values, groups), atol=0.05)
    everyone = metrics.resampled(np.zeros(60), mean, draws=10)["mean"]
    assert everyone == pytest.approx([values.mean()] * 2)  # a single patient cannot be resampled


def test_resampled_statistics_may_be_vectors_and_nan_in_some_draws():
    groups = np.array(["a", "b", "c"])

    def statistic(weights):
        return {"v": np.array([weights[0], np.nan if weights[1] == 0 else 7.0, np.nan])}

    low, high = metrics.resampled(groups, statistic, draws=200)["v"]
    assert low[0] == 0 and high[0] >= 2
    assert low[1] == high[1] == 7 and np.isnan([low[2], high[2]]).all()
