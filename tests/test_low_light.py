"""The baselines of enhancement against scikit-image and by what they must keep; darkening by its formula."""

import jax
import numpy as np
import pytest
from skimage import color, exposure

from pixmed_jax.enhancement import baselines, optional
from pixmed_jax.enhancement.darken import darken, illumination
from pixmed_jax.errors import PixmedError


@pytest.fixture(scope="module")
def dark():
    """A dark picture in colours, [32, 40, 3]."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:32, :40] / 40
    return (0.3 * np.stack([y, x, 1 - x], -1) * rng.uniform(0.8, 1, (32, 40, 1))).astype(np.float32)


def test_gamma():
    image = np.array([[[0.0], [0.25], [1.0]]], np.float32)
    np.testing.assert_allclose(baselines.gamma(0.5).run(image).image, [[[0], [0.5], [1]]])
    assert baselines.gamma().settings == {"gamma": 1 / 2.2}


@pytest.mark.parametrize(
    ("method", "reference"),
    [
        (baselines.histogram(), exposure.equalize_hist),
        (baselines.clahe(0.02), lambda v: exposure.equalize_adapthist(v, clip_limit=0.02)),
    ],
    ids=["histogram", "clahe"],
)
def test_equalisations_are_scikit_images_on_the_value(dark, method, reference):
    grey = dark[..., :1]
    np.testing.assert_allclose(
        method.run(grey).image[..., 0], reference(grey[..., 0].astype(float)), atol=1e-6
    )
    out = method.run(dark).image
    hsv, out_hsv = color.rgb2hsv(dark), color.rgb2hsv(out)
    np.testing.assert_allclose(out_hsv[..., 2], reference(hsv[..., 2].astype(float)), atol=1e-5)
    seen = (hsv[..., 2] > 0.05) & (out_hsv[..., 2] > 0.05)  # hue is noise in the dark
    np.testing.assert_allclose(out_hsv[seen][:, :2], hsv[seen][:, :2], atol=1e-3)


@pytest.mark.parametrize("name", baselines.BASELINES)
@pytest.mark.parametrize("shape", [(16, 16, 1), (5, 7, 3), (1, 1, 1)])
def test_flat_and_tiny_pictures_come_out_finite(name, shape):
    for value in (0.0, 0.3, 1.0):
        out = baselines.BASELINES[name]().run(np.full(shape, value, np.float32)).image
        assert out.shape == shape and np.isfinite(out).all() and np.ptp(out) == 0
    out = baselines.BASELINES[name]().run(np.random.default_rng(0).random(shape, np.float32)).image
    assert out.shape == shape and np.isfinite(out).all()


def test_a_missing_library_is_one_line(monkeypatch):
    monkeypatch.setattr(
        optional.importlib, "import_module", lambda name: (_ for _ in ()).throw(ImportError(name))
    )
    with pytest.raises(PixmedError, match=r'pip install "pixmed-jax\[enhance\]"'):
        baselines.clahe()


def test_darkening_is_picture_times_map_plus_noise():
    image = jax.numpy.asarray(np.random.default_rng(0).random((40, 30, 3), np.float32))
    key = jax.random.key(3)
    clean, light = darken(key, image, darkest=0.2, brightest=0.7, noise=0.0)
    np.testing.assert_allclose(clean, image * light[..., None], rtol=1e-6)
    assert light.min() == pytest.approx(0.2, abs=1e-6) and light.max() == pytest.approx(0.7, abs=1e-6)
    assert np.abs(np.diff(np.asarray(light), axis=0)).max() < 0.1  # smooth
    noisy, same = darken(key, image, darkest=0.2, brightest=0.7, noise=0.01)
    np.testing.assert_array_equal(light, same)
    assert np.std(noisy - clean) == pytest.approx(0.01, rel=0.05)
    other = illumination(jax.random.key(4), 40, 30, 0.2, 0.7)
    assert np.abs(np.asarray(other) - np.asarray(light)).max() > 0.1
