"""Metrics of two files against scikit-image, against each other, and against numbers worked out by hand; on
random pictures and on nasty ones: flat, tiny, one channel, colour, 16 bit, not square."""

import math

import numpy as np
import pytest
from scipy.signal import convolve2d
from skimage.metrics import mean_squared_error, peak_signal_noise_ratio, structural_similarity

from pixmed_jax import losses
from pixmed_jax.errors import PixmedError
from pixmed_jax.metrics import quality

# height, width and channels, type
KINDS = [
    ((40, 56), np.uint8), ((56, 40, 1), np.uint8), ((11, 11), np.uint8), ((33, 70, 3), np.uint8),
    ((48, 31), np.uint16), ((31, 48, 3), np.uint16), ((50, 50), np.float32), ((20, 90, 2), np.float64),
]  # fmt: skip


def pictures(shape, dtype, noise=0.1, seed=0):
    """A smooth picture, and the same with noise."""
    rng = np.random.default_rng(seed)
    y, x = np.meshgrid(*(np.linspace(0, 3, n) for n in shape[:2]), indexing="ij")
    smooth = (0.5 + 0.4 * np.sin(2 * x) * np.cos(y)).reshape(*shape[:2], *(1,) * (len(shape) - 2))
    clean = np.broadcast_to(smooth, shape)
    noisy = np.clip(clean + noise * rng.normal(size=shape), 0, 1)
    if np.dtype(dtype).kind == "f":
        return clean.astype(dtype), noisy.astype(dtype)
    top = np.iinfo(dtype).max
    return np.rint(clean * top).astype(dtype), np.rint(noisy * top).astype(dtype)


def reference(a, b):
    """scikit-image's, without SSIM's border. It averages a crop of half a window by itself."""
    top = 1.0 if a.dtype.kind == "f" else np.iinfo(a.dtype).max
    similarity = structural_similarity(
        a, b, data_range=top, gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
        channel_axis=-1 if a.ndim == 3 else None,
    )  # fmt: skip
    mse = mean_squared_error(a, b) / top**2
    return {"ssim": similarity, "psnr": peak_signal_noise_ratio(a, b, data_range=top), "mse": mse}


@pytest.mark.parametrize(("shape", "dtype"), KINDS)
def test_against_scikit_image(shape, dtype):
    for noise in (0.002, 0.1, 0.6):
        a, b = pictures(shape, dtype, noise)
        for name, value in reference(a, b).items():
            assert quality.METRICS[name](a, b) == pytest.approx(value, rel=1e-6), (name, noise)


def test_the_ssim_that_is_trained_with_is_the_same():
    a, b = pictures((40, 56, 3), np.float32)
    assert quality.ssim(a, b) == pytest.approx(float(losses.ssim(a[None], b[None])), abs=1e-6)


def test_flat_pictures():
    """Without structure only luminance is left: (2 ab + c1) / (a^2 + b^2 + c1), with c1 = 1e-4."""
    a, b = np.full((180, 200), 0.25), np.full((180, 200), 0.5)
    luminance = (2 * 0.25 * 0.5 + 1e-4) / (0.25**2 + 0.5**2 + 1e-4)  # 0.80006
    assert quality.ssim(a, b) == pytest.approx(luminance, abs=1e-9)
    assert quality.ms_ssim(a, b) == pytest.approx(luminance**0.1333, abs=1e-9)  # the coarsest scale alone
    assert quality.mse(a, b) == 0.0625 and quality.psnr(a, b) == pytest.approx(12.0412, abs=1e-4)
    black, white = np.zeros((12, 12), np.uint16), np.full((12, 12), 65535, np.uint16)
    assert quality.mse(black, white) == 1 and quality.psnr(black, white) == 0
    assert quality.ssim(black, white) == pytest.approx(1e-4 / 1.0001, abs=1e-12)


@pytest.mark.parametrize(("shape", "dtype"), KINDS)
def test_equal_pictures(shape, dtype):
    a, _ = pictures(shape, dtype)
    assert quality.mse(a, a) == 0 and quality.psnr(a, a) == 100
    assert quality.ssim(a, a) == pytest.approx(1, abs=1e-12)


def test_one_step_of_sixteen_bits_counts():
    a = np.full((16, 16), 1000, np.uint16)
    assert quality.psnr(a, a + np.uint16(1)) == pytest.approx(20 * math.log10(65535), abs=1e-6)  # 96.33 dB
    assert quality.mse(a, a + np.uint16(1)) == pytest.approx(65535**-2)


def slow_ms_ssim(a, b):
    """Wang, Simoncelli & Bovik 2003 for one channel, with a whole window at a time and nothing shared."""
    axis = np.arange(-5, 6)
    window = np.exp(-(axis[:, None] ** 2 + axis[None] ** 2) / (2 * 1.5**2))
    window /= window.sum()

    def mean(x):
        return convolve2d(x, window, mode="valid")

    result = 1.0
    for scale, weight in enumerate([0.0448, 0.2856, 0.3001, 0.2363, 0.1333], 1):
        ma, mb = mean(a), mean(b)
        saa, sbb = mean((a - 0.5) ** 2) - (ma - 0.5) ** 2, mean((b - 0.5) ** 2) - (mb - 0.5) ** 2
        sab = mean((a - 0.5) * (b - 0.5)) - (ma - 0.5) * (mb - 0.5)
        factor = (2 * sab + 0.0009) / (saa + sbb + 0.0009)
        if scale == 5:
            factor = factor * (2 * ma * mb + 0.0001) / (ma**2 + mb**2 + 0.0001)
        result *= factor.mean() ** weight
        size = [n + n % 2 for n in a.shape]
        a, b = (
            np.array([[x[i : i + 2, j : j + 2].mean() for j in range(0, size[1], 2)]
                      for i in range(0, size[0], 2)])
            for x in (np.pad(x, [(0, n % 2) for n in x.shape], mode="symmetric") for x in (a, b))
        )  # fmt: skip
    return result


def test_ms_ssim_against_the_paper_written_out():
    a, b = pictures((161, 170, 2), np.float64, 0.15)
    channels = [slow_ms_ssim(a[..., c], b[..., c]) for c in range(2)]
    assert 0.2 < channels[0] < 0.95 and channels[0] != channels[1]
    assert quality.ms_ssim(a, b) == pytest.approx(np.mean(channels), rel=1e-9)
    assert quality.ms_ssim(a, a) == pytest.approx(1)


def test_ms_ssim_of_opposites_is_zero_and_not_complex():
    a, _ = pictures((170, 170), np.float64)
    noise = np.random.default_rng(1).normal(size=a.shape) * 0.2
    assert quality.ms_ssim(0.5 + noise, 0.5 - noise) == 0


@pytest.mark.parametrize(
    ("metric", "least"), [(quality.ssim, 11), (quality.ms_ssim, 161)], ids=["ssim", "ms_ssim"]
)
def test_what_is_smaller_than_the_windows_is_refused_in_one_line(metric, least):
    enough = np.zeros((least, least + 3), np.uint8)
    assert metric(enough, enough) == pytest.approx(1)
    for small in (enough[1:], enough[:, :5]):
        with pytest.raises(PixmedError, match=f"needs {least} x {least} pixels or more") as caught:
            metric(small, small)
        assert "\n" not in str(caught.value)


def test_pictures_that_do_not_match_are_refused():
    a = np.zeros((20, 20), np.uint8)
    for other in (a[1:], a.astype(np.uint16), np.zeros((20, 20, 3), np.uint8), a[..., None]):
        for metric in quality.METRICS.values():
            with pytest.raises(PixmedError, match="one height, width, channels and type"):
                metric(a, other)
