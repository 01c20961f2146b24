"""SSIM, PSNR and MSE against scikit-image, and what a region means."""

import math

import numpy as np
import pytest
from skimage.metrics import mean_squared_error, peak_signal_noise_ratio, structural_similarity

from pixmed_jax.metrics import similarity


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
    scores = similarity.score(generated, real, {"full": everywhere(real)})
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
    scores = similarity.score(generated, real, {"part": region})
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
        scores = similarity.score(images, real, {"part": region, "full": everywhere(real)})
        assert (scores["mse"]["full"] > 5e-4).all() and (scores["ssim"]["full"] < 0.999).all()
        assert ((scores["mse"]["part"] > 0) == touched).all()
        assert ((scores["ssim"]["part"] < 0.999) == touched).all()
        assert ((scores["psnr"]["part"] < 100) == touched).all()
    # 4 of 64 pixels are off by 0.5.
    np.testing.assert_allclose(scores["mse"]["part"], 4 / 64 * 0.25, rtol=1e-5)


def test_equal_images(pair):
    real, _ = pair
    scores = similarity.score(real, real, {"full": everywhere(real)})
    np.testing.assert_allclose(scores["ssim"]["full"], 1, atol=1e-6)
    np.testing.assert_array_equal(scores["psnr"]["full"], 100)
    np.testing.assert_array_equal(scores["mse"]["full"], 0)


def test_an_image_without_the_region_has_no_score(pair):
    real, generated = pair
    region = everywhere(real)
    region[1] = False
    for of_regions in similarity.score(generated, real, {"part": region}).values():
        assert np.isnan(of_regions["part"]).tolist() == [False, True, False, False]


def test_a_region_within_half_a_window_of_the_border_has_no_ssim(pair):
    """No window lies around it inside the picture; its errors count all the same."""
    real, generated = pair
    region = np.zeros(real.shape, bool)
    region[:, :5] = True
    scores = similarity.score(generated, real, {"part": region})
    assert np.isnan(scores["ssim"]["part"]).all()
    mse = ((generated.astype(float) - real)[:, :5] ** 2).mean((1, 2))
    np.testing.assert_allclose(scores["mse"]["part"], mse, rtol=1e-5)
