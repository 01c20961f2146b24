"""Losses against closed forms, scikit-image and finite differences, and their behaviour at the edges."""

import math

import dm_pix
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from skimage.metrics import structural_similarity

from pixmed_jax import losses


def pair(size: int = 24, channels: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Two batches of two images each that are alike in part; the second image of each is darker."""
    generator = np.random.default_rng(0)
    a = generator.uniform(size=(2, size, size + 3, channels))
    b = np.clip(a + generator.normal(size=a.shape) * 0.3, 0, 1)
    scale = np.array([1.0, 0.4]).reshape(2, 1, 1, 1)
    return (a * scale).astype(np.float32), (b * scale).astype(np.float32)


PIXEL_BCE = jax.jit(jax.value_and_grad(losses.pixel_bce))
SSIM = jax.jit(jax.value_and_grad(losses.ssim, argnums=(0, 1)))


# ---------------------------------------------------------------- adversarial
@pytest.mark.parametrize("logit", [0.0, 1.0, -2.0])
def test_adversarial_losses_in_closed_form(logit):
    logits = jnp.full((2, 3, 3, 1), logit)
    real, fake = losses.discriminator_bce(logits, True), losses.discriminator_bce(logits, False)
    assert float(real) == pytest.approx(math.log(1 + math.exp(-logit)), rel=1e-6)
    assert float(fake) == pytest.approx(math.log(1 + math.exp(logit)), rel=1e-6)
    assert float(losses.generator_bce(logits)) == pytest.approx(math.log(1 + math.exp(-logit)), rel=1e-6)
    if logit == 0:  # a discriminator that cannot tell pays log 2 a side
        assert float(real) == float(fake) == pytest.approx(0.6931472, rel=1e-6)


def test_fooling_costs_the_right_player():
    """Generated images that pass for real ones: free for the generator, dear for the discriminator."""
    fooled, caught = jnp.full((1, 2, 2, 1), 20.0), jnp.full((1, 2, 2, 1), -20.0)
    assert losses.generator_bce(fooled) < 1e-6
    assert losses.discriminator_bce(fooled, False) > 19
    assert losses.discriminator_bce(caught, True) > 19
    assert losses.generator_bce(caught) > 19
    assert losses.discriminator_bce(caught, False) < 1e-6
    # Non-saturating: where the discriminator is sure, the generator's gradient is full size.
    assert jax.grad(lambda x: losses.generator_bce(x))(caught).sum() == pytest.approx(-1, rel=1e-6)


def test_least_squares_by_hand():
    """LSGAN, Eq. 9 (a = 0, b = c = 1): logits 1 and 3 are 0 and 2 away from real, 1 and 3 from generated."""
    logits = jnp.array([1.0, 3.0])
    assert float(losses.discriminator_least_squares(logits, True)) == pytest.approx((0 + 4) / 2)
    assert float(losses.discriminator_least_squares(logits, False)) == pytest.approx((1 + 9) / 2)
    assert float(losses.generator_least_squares(logits)) == pytest.approx((0 + 4) / 4)


@pytest.mark.parametrize("name", ["bce", "least_squares"])
def test_each_adversarial_loss_moves_the_right_player(name):
    """Down its own gradient the discriminator parts real from generated; the generator closes the gap."""
    discriminator, generator = losses.ADVERSARIAL[name]
    at_odds = jnp.array([0.5])
    assert jax.grad(lambda x: discriminator(x, True))(at_odds)[0] < 0
    assert jax.grad(lambda x: discriminator(x, False))(at_odds)[0] > 0
    assert jax.grad(lambda x: generator(x))(at_odds)[0] < 0


@pytest.mark.parametrize("logit", [-1e4, 1e4])
def test_sure_logits_give_finite_losses_and_gradients(logit):
    logits = jnp.full((1, 2, 2, 1), logit)
    for loss in (lambda x: losses.discriminator_bce(x, True), lambda x: losses.discriminator_bce(x, False)):
        value, gradient = jax.value_and_grad(loss)(logits)
        assert np.isfinite(value)
        assert np.isfinite(gradient).all()


# ---------------------------------------------------------------- regularisers
WEIGHTS = np.random.default_rng(2).normal(size=(4 * 4 * 2, 6)) / 4


def judged(images: np.ndarray, logits: int, weights: np.ndarray = WEIGHTS) -> np.ndarray:
    """A critic with `logits` logits for each image of 4x4x2, in NumPy and JAX alike."""
    return (jnp if isinstance(images, jax.Array) else np).tanh(images.reshape(len(images), -1) @ weights)[
        :, :logits
    ]


@pytest.mark.parametrize("logits", [1, 6])
def test_r1_is_the_slope_at_real_images(logits):
    """By central differences of each image's mean logit in float64; [-1, 1] is twice as wide."""
    real = np.random.default_rng(0).uniform(size=(3, 4, 4, 2))
    squares = np.zeros(3)
    for pixel in np.ndindex(4, 4, 2):
        ahead, behind = real.copy(), real.copy()
        ahead[:, *pixel] += 1e-5
        behind[:, *pixel] -= 1e-5
        slope = (judged(ahead, logits) - judged(behind, logits)).mean(1) / 2e-5
        squares += (slope / 2) ** 2
    found = losses.r1(lambda x: judged(x, logits).reshape(3, -1, 1, 1), jnp.asarray(real, jnp.float32), 10.0)
    assert float(found) == pytest.approx(10 / 2 * squares.mean(), rel=1e-4)
    assert found > 0.01


def test_gradient_of_r1_is_its_slope_along_the_weights():
    """A derivative of a derivative, against differences of the first, in float64."""
    real = np.random.default_rng(0).uniform(size=(3, 4, 4, 2))
    direction = np.random.default_rng(1).normal(size=WEIGHTS.shape)

    def penalty(weights: np.ndarray) -> float:
        """|W (1 - tanh^2)|^2, by hand."""
        slope = (1 - np.tanh(real.reshape(3, -1) @ weights) ** 2) @ weights.T / 6
        return np.square(slope / 2).sum(1).mean() / 2

    expected = (penalty(WEIGHTS + 1e-5 * direction) - penalty(WEIGHTS - 1e-5 * direction)) / 2e-5
    images = jnp.asarray(real, jnp.float32)
    value, gradient = jax.value_and_grad(lambda weights: losses.r1(lambda x: judged(x, 6, weights), images))(
        jnp.asarray(WEIGHTS, jnp.float32)
    )
    assert float(value) == pytest.approx(penalty(WEIGHTS), rel=1e-4)
    assert np.vdot(gradient, direction) == pytest.approx(expected, rel=1e-4)
    assert abs(expected) > 1e-3


def painted(styles: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Images of 2x3 pixels from styles of [layers=2, W=3], in NumPy and JAX alike."""
    tanh = (jnp if isinstance(styles, jax.Array) else np).tanh
    return tanh(styles.reshape(len(styles), -1) @ weights).reshape(-1, 2, 3, 1)


def lengths_by_differences(styles: np.ndarray, weights: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """|J^T y| with y = noise / sqrt(6 pixels), images in [-1, 1]; its square is the mean of two layers'."""
    squares = np.zeros(len(styles))
    for place in np.ndindex(2, 3):
        ahead, behind = styles.copy(), styles.copy()
        ahead[:, *place] += 1e-4
        behind[:, *place] -= 1e-4
        slope = 2 * (painted(ahead, weights) - painted(behind, weights)) / 2e-4
        squares += (slope * noise / np.sqrt(6)).sum((1, 2, 3)) ** 2
    return np.sqrt(squares / 2)


def test_path_lengths_and_their_gradient_against_differences():
    generator = np.random.default_rng(3)
    styles, weights = generator.normal(size=(4, 2, 3)), generator.normal(size=(6, 6)) / 2
    key = jax.random.key(5)
    noise = np.asarray(jax.random.normal(key, (4, 2, 3, 1)), np.float64)

    def lengths(weights: jax.Array) -> jax.Array:
        return losses.path_lengths(lambda w: painted(w, weights), jnp.asarray(styles, jnp.float32), key)

    expected = lengths_by_differences(styles, weights, noise)
    np.testing.assert_allclose(lengths(jnp.asarray(weights, jnp.float32)), expected, rtol=1e-4)
    assert np.ptp(expected) > 0.1

    def penalty(weights: np.ndarray) -> float:
        return np.square(lengths_by_differences(styles, weights, noise) - 0.3).mean()

    direction = generator.normal(size=weights.shape)
    slope = (penalty(weights + 1e-4 * direction) - penalty(weights - 1e-4 * direction)) / 2e-4
    gradient = jax.grad(lambda weights: jnp.square(lengths(weights) - 0.3).mean())(
        jnp.asarray(weights, jnp.float32)
    )
    assert np.vdot(gradient, direction) == pytest.approx(slope, rel=1e-3)
    assert abs(slope) > 1e-2


def test_path_lengths_have_gradients_where_nothing_is_painted():
    """A layer of zeros: length 0, where a root has no slope of its own."""
    gradient = jax.grad(
        lambda scale: losses.path_lengths(
            lambda w: scale * painted(w, WEIGHTS[:6]), jnp.ones((1, 2, 3)), jax.random.key(0)
        ).sum()
    )(0.0)
    assert np.isfinite(gradient)


def test_a_thousandth_of_the_contrast_is_a_thousandth_of_the_length():
    """What keeps the root's slope finite must not show in the length of short paths."""
    styles = jnp.asarray(np.random.default_rng(3).normal(size=(4, 2, 3)), jnp.float32)
    full, faint = (
        losses.path_lengths(lambda w, by=by: by * painted(w, WEIGHTS[:6]), styles, jax.random.key(5))
        for by in (1.0, 1e-3)
    )
    assert full.min() > 0.01
    np.testing.assert_allclose(faint, 1e-3 * full, rtol=1e-3)


# ---------------------------------------------------------------- between images
def test_pixel_losses_in_closed_form():
    generated, real = jnp.array([[0.25, 0.5]]), jnp.array([[1.0, 0.0]])
    # -log 0.25 and -log 0.5, i.e. log 4 and log 2
    assert float(losses.pixel_bce(generated, real)) == pytest.approx(1.5 * math.log(2), rel=1e-5)
    assert float(losses.l1(generated, real)) == pytest.approx((0.75 + 0.5) / 2)
    assert float(losses.mse(generated, real)) == pytest.approx((0.75**2 + 0.5**2) / 2)


@pytest.mark.parametrize("grey", [0.1, 0.5, 0.8])
def test_pixel_bce_is_least_at_equality(grey):
    """There it is the entropy of the grey value, and its gradient is 0."""
    at = jnp.full((2, 2), grey)
    least = -grey * math.log(grey) - (1 - grey) * math.log(1 - grey)
    value, gradient = PIXEL_BCE(at, at)
    assert float(value) == pytest.approx(least, rel=1e-5)
    np.testing.assert_allclose(gradient, 0, atol=1e-6)
    for step in (-0.05, 0.05):
        value, gradient = PIXEL_BCE(at + step, at)
        assert value > least + 1e-3
        assert np.all(np.sign(gradient) == np.sign(step))


@pytest.mark.parametrize("real", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("generated", [0.0, 1.0])
def test_pixel_bce_is_finite_where_tanh_saturates(generated, real):
    value, gradient = PIXEL_BCE(jnp.full((2, 2), generated), jnp.full((2, 2), real))
    assert float(value) == pytest.approx(abs(generated - real) * -math.log(1e-6), rel=1e-2, abs=1e-5)
    assert np.isfinite(gradient).all()


# ---------------------------------------------------------------- SSIM
def skimage_map(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """scikit-image's SSIM per pixel in float64, without the border of 5 pixels where it pads."""
    maps = [
        structural_similarity(
            x.astype(np.float64),
            y.astype(np.float64),
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            data_range=1,
            channel_axis=-1,
            full=True,
        )[1]
        for x, y in zip(a, b, strict=True)
    ]
    return np.stack(maps)[:, 5:-5, 5:-5]


def test_ssim_is_that_of_scikit_image_and_of_dm_pix():
    a, b = pair()
    expected = skimage_map(a, b)
    found = jax.jit(losses.ssim_map)(a, b)
    assert found.shape == (2, 14, 17, 2)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert 0.2 < expected.mean() < 0.9  # neither equal nor unrelated
    value = float(SSIM(a, b)[0])
    assert value == pytest.approx(expected.mean(), abs=1e-5)
    assert value == pytest.approx(float(jax.jit(dm_pix.ssim)(a, b).mean()), abs=1e-5)


def test_ssim_of_each_image_is_over_all_its_channels():
    a, b = pair()
    expected = skimage_map(a, b).mean((1, 2, 3))
    assert abs(expected[0] - expected[1]) > 1e-2
    np.testing.assert_allclose(losses.ssim_of_each(a, b), expected, atol=1e-5)


def test_gradient_of_ssim_is_the_slope_of_scikit_images():
    """Central differences in float64 along random directions, and for both arguments."""
    a, b = pair(size=16, channels=1)
    _, gradients = SSIM(a, b)
    generator = np.random.default_rng(1)
    for _ in range(3):
        directions = generator.normal(size=(2, *a.shape))
        h = 1e-5
        ahead, behind = (
            skimage_map(a + s * h * directions[0], b + s * h * directions[1]).mean() for s in (1, -1)
        )
        slope = sum(np.vdot(g, d) for g, d in zip(gradients, directions, strict=True))
        assert slope == pytest.approx((ahead - behind) / (2 * h), rel=1e-3, abs=1e-6)
        assert abs(slope) > 1e-3


@pytest.mark.parametrize("shape", [(2, 13, 20, 3), (3, 11, 11, 1), (1, 16, 14, 2)])
def test_both_forms_of_ssim_agree(shape):
    """With their gradients along both images, each pixel of the map weighted by another number."""
    generator = np.random.default_rng(0)
    a = generator.uniform(size=shape).astype(np.float32)
    b = np.clip(a + 0.3 * generator.normal(size=shape), 0, 1).astype(np.float32)
    forms = []
    for form in (losses._ssim_map_cpu, losses._ssim_map_by_shifts):
        value, pull = jax.vjp(jax.jit(form), a, b)
        forms.append((value, *pull(jnp.cos(jnp.arange(value.size).reshape(value.shape)))))
    assert forms[0][0].shape == (shape[0], shape[1] - 10, shape[2] - 10, shape[3])
    for one, other in zip(*forms, strict=True):
        assert np.abs(one).max() > 1e-2
        np.testing.assert_allclose(one, other, rtol=0, atol=2e-6)  # an ulp of a mean, over a variance


def test_both_forms_of_the_window_agree():
    """With their gradients."""

    def by_shifts(x: jax.Array) -> jax.Array:
        return losses._weighted(losses._shifts(losses._weighted(losses._shifts(x, 1)), 2))

    x = np.random.default_rng(0).uniform(size=(2, 13, 20, 3)).astype(np.float32)
    forms = []
    for form in (losses._blurred, by_shifts):
        value, pull = jax.vjp(form, x)
        forms.append((value, *pull(jnp.cos(jnp.arange(value.size).reshape(value.shape)))))
    assert forms[0][0].shape == (2, 3, 10, 3)
    for one, other in zip(*forms, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-6)


def test_the_form_of_ssim_is_chosen_where_it_is_compiled():
    traced = jax.jit(losses.ssim).trace(*np.zeros((2, 1, 16, 16, 1), np.float32))
    assert "dot_general" in traced.lower(lowering_platforms=("cpu",)).as_text()
    assert "dot_general" not in traced.lower(lowering_platforms=("cuda",)).as_text()


def test_the_gradient_of_shifts_is_shifts():
    """Autodiff's would be 22 padded arrays for each of five windows; here each slope gets its border once."""
    traced = jax.jit(jax.grad(losses.ssim)).trace(*np.zeros((2, 1, 16, 16, 1), np.float32))
    lowered = traced.lower(lowering_platforms=("cuda",)).as_text()
    assert 1 <= lowered.count("stablehlo.pad") <= 4  # those of one shape are one function


def test_ssim_of_flat_images():
    """Without variance it is (2 a b + c) / (a a + b b + c), c = 0.01 squared; gradients stay finite."""
    a, b = jnp.full((1, 12, 12, 1), 0.2), jnp.full((1, 12, 12, 1), 0.8)
    for x, y, expected in ((a, a, 1), (a, b, 0.3201 / 0.6801), (0 * a, 0 * a, 1)):
        value, gradients = SSIM(x, y)
        assert float(value) == pytest.approx(expected, rel=1e-4)
        assert np.isfinite(gradients).all()


def test_psnr_of_each_in_closed_form():
    """0.1 apart everywhere is 20 dB, 0.01 is 40; equal images are held at 100."""
    a = jnp.full((3, 4, 5, 2), 0.5)
    b = a + jnp.array([0.1, -0.01, 0.0]).reshape(3, 1, 1, 1)
    np.testing.assert_allclose(losses.psnr_of_each(a, b), [20, 40, 100], rtol=1e-4)


def test_psnr_is_exact_up_to_its_limit():
    """10^-4.5 from black is 90 dB, 10^-5.5 would be 110."""
    b = jnp.array([10**-4.5, 10**-5.5]).reshape(2, 1, 1, 1) * jnp.ones((2, 4, 5, 1))
    np.testing.assert_allclose(losses.psnr_of_each(jnp.zeros_like(b), b), [90, 100], rtol=1e-5)


def test_terms_between_images_are_weighted_and_those_of_weight_0_not_computed(monkeypatch):
    a, b = pair()
    monkeypatch.setitem(losses.BETWEEN, "pixel_bce", None)  # to call it would fail
    total, values = losses.between(a, b, {"l1": 2.0, "mse": 0.5, "1-ssim": 0.0, "pixel_bce": 0.0})
    assert set(values) == {"l1", "mse"}
    np.testing.assert_allclose(values["l1"], np.abs(a - b).mean(), rtol=1e-5)
    np.testing.assert_allclose(total, 2 * np.abs(a - b).mean() + 0.5 * np.square(a - b).mean(), rtol=1e-5)


def test_ssim_is_float32_for_bfloat16_images():
    a, b = (jnp.asarray(x, jnp.bfloat16) for x in pair())
    found = losses.ssim(a, b)  # not jitted: XLA may keep more digits inside a fusion than bfloat16 has
    assert found.dtype == jnp.float32
    expected = skimage_map(np.asarray(a, np.float32), np.asarray(b, np.float32)).mean()
    assert float(found) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(("height", "width"), [(10, 16), (16, 10)])
def test_ssim_refuses_images_smaller_than_its_window(height, width):
    image = jnp.zeros((1, height, width, 1))
    with pytest.raises(ValueError, match=f"at least 11x11 pixels, got {height}x{width}"):
        losses.ssim(image, image)
    just = jnp.zeros((1, 11, 11, 1))
    assert jax.eval_shape(losses.ssim_map, just, just).shape == (1, 1, 1, 1)
