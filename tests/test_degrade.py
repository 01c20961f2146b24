"""Degraded images: what is lost is what is said, against Pillow and by hand, and batches carry it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from pixmed_jax.data import degrade
from pixmed_jax.data.pipeline import Arrays, make_batch, whole_batch
from pixmed_jax.errors import PixmedError

RNG = np.random.default_rng(0)
STORED = RNG.integers(0, 256, (5, 24, 24, 1), np.uint8)


@pytest.mark.parametrize("scale", degrade.SCALES)
def test_low_resolution_is_pillows_bicubic_with_antialiasing(scale):
    """Which is MATLAB's too, but for the border: another kernel or alignment would differ by percents."""
    images = RNG.uniform(size=(2, 12 * scale, 24 * scale, 3)).astype(np.float32)
    found = degrade.low_resolution(jnp.asarray(images), scale)
    assert found.shape == (2, 12, 24, 3)
    for image, small in zip(images, found, strict=True):
        for c in range(3):
            pillow = Image.fromarray(image[..., c]).resize((24, 12), Image.Resampling.BICUBIC)
            np.testing.assert_allclose(small[..., c], np.clip(pillow, 0, 1), atol=2e-6)


def test_what_the_coarse_grid_cannot_show_is_averaged_away():
    """Stripes of one pixel, sampled without antialiasing, would become white, or black."""
    stripes = jnp.zeros((1, 32, 32, 1)).at[:, :, ::2].set(1)
    small = degrade.low_resolution(stripes, 2)
    np.testing.assert_allclose(small[:, :, 2:-2], 0.5, atol=0.02)


def test_a_flat_image_stays_flat():
    np.testing.assert_allclose(degrade.low_resolution(jnp.full((1, 24, 24, 1), 0.3), 3), 0.3, atol=1e-6)


def test_low_light_is_the_image_times_a_smooth_map_plus_noise():
    key = jax.random.key(3)
    light = degrade.illumination(jax.random.split(key)[0], 80, 112)
    low, high = degrade.DARK
    assert low <= light.min() and light.max() <= high and np.ptp(light) > 0.1
    assert max(np.abs(np.diff(light, axis=axis)).max() for axis in (0, 1)) < 0.05
    grey = degrade.low_light(jnp.full((80, 112, 3), 0.7), key)
    noise = np.asarray(grey) - 0.7 * np.asarray(light)[..., None]
    assert abs(noise.mean()) < 3 * degrade.NOISE / np.sqrt(noise.size)
    assert noise.std() == pytest.approx(degrade.NOISE, rel=0.05)
    other = degrade.illumination(jax.random.key(4), 80, 112)
    assert np.abs(np.asarray(light) - np.asarray(other)).max() > 0.1


def arrays(rows) -> Arrays:
    return Arrays(STORED[rows], np.ones(len(rows), np.uint8), np.zeros(len(rows), np.int32))


def test_a_slice_is_darkened_alike_in_whatever_batch_it_is_looked_at():
    dark = degrade.degradation("low_light", 1)
    one, other = (
        whole_batch(arrays(rows), classes=1, channels=1, degrade=dark) for rows in ([0, 1, 2], [3, 1])
    )
    np.testing.assert_allclose(one.condition[1], other.condition[1], atol=1e-6)
    flat = Arrays(
        np.array([150, 200], np.uint8).repeat(64).reshape(2, 8, 8, 1), np.ones(2), np.zeros(2, np.int32)
    )
    batch = whole_batch(flat, classes=1, channels=1, degrade=dark)
    light = np.asarray(batch.condition / batch.images)
    assert np.abs(light[0] - light[1]).max() > 0.15  # each has its own map, and noise is of 0.01


def test_training_degrades_the_cropped_image_each_time_anew():
    dark, coarse = degrade.degradation("low_light", 1), degrade.degradation("low_resolution", 2)
    make = lambda key, how: make_batch(  # noqa: E731
        arrays([0, 1]), jnp.array([0, 1]), jax.random.key(key), size=16, classes=1, channels=1, degrade=how
    )
    batch = make(0, coarse)
    assert batch.condition.shape == (2, 8, 8, 1) and batch.images.shape == (2, 16, 16, 1)
    np.testing.assert_allclose(batch.condition, degrade.low_resolution(batch.images, 2), atol=1e-6)
    whole = lambda key: make_batch(  # noqa: E731
        arrays([0, 1]), None, jax.random.key(key), size=24, classes=1, channels=1, degrade=dark
    )
    first, again, later = whole(0), whole(0), whole(1)
    np.testing.assert_array_equal(first.condition, again.condition)
    np.testing.assert_array_equal(first.images, later.images)  # there is no room to crop elsewhere
    assert np.abs(first.condition - later.condition).max() > 0.1


@pytest.mark.parametrize(
    ("scale", "size", "told"),
    [(5, 60, "data.scale=5: give 2, 3, 4"), (3, 64, "data.size=64 cannot be divided by data.scale=3")],
)
def test_a_scale_that_does_not_go(scale, size, told):
    with pytest.raises(PixmedError, match=told):
        degrade.check("low_resolution", scale, size)
    degrade.check("low_light", scale, size)
