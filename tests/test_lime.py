"""LIME: its solvers against others' (SciPy's sparse LU, ascent in the dual), its formulas against numbers by
hand, its derivatives against differences, and what it must never do."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse as sp
from scipy.ndimage import gaussian_filter
from scipy.sparse.linalg import spsolve

from pixmed_jax.enhancement import lime
from pixmed_jax.enhancement.denoise import recomposed
from pixmed_jax.enhancement.scores import map_error
from pixmed_jax.errors import PixmedError

SHAPE = (37, 50)  # odd, and no multiple of any coarse grid's cells


@pytest.fixture(scope="module")
def light():
    """A first map: blocks with strong edges, a slope, texture and noise, [37, 50]."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]] / 50
    blocks = np.where((x > 0.4) ^ (y > 0.3), 0.5, 0.15)
    return np.clip(blocks * (0.6 + x) + 0.04 * np.sin(40 * x) + 0.01 * rng.normal(size=SHAPE), 0, 1).astype(
        np.float32
    )


def differences(periodic):
    """Forward differences as sparse matrices over pixels counted row by row."""

    def one(n):
        d = sp.diags([-1.0, 1.0], [0, 1], (n, n)).tolil()
        d[-1] = 0
        if periodic:
            d[-1, 0], d[-1, -1] = 1, -1
        return d

    height, width = SHAPE
    return [sp.kron(one(height), sp.eye(width)).tocsr(), sp.kron(sp.eye(height), one(width)).tocsr()]


def reference_weights(x, strategy, periodic):
    slopes = [(d @ x.ravel().astype(float)).reshape(SHAPE) for d in differences(periodic)]
    mode = "wrap" if periodic else "constant"
    if strategy == 1:
        return [np.ones(SHAPE)] * 2, slopes
    if strategy == 2:
        return [1 / (abs(s) + 1e-3) for s in slopes], slopes
    smooth = [gaussian_filter(s, 2.0, radius=5, mode=mode) for s in slopes]
    return [1 / (abs(s) + 1e-3) for s in smooth], slopes


@pytest.mark.parametrize("periodic", [False, True])
@pytest.mark.parametrize("strategy", lime.STRATEGIES)
def test_weights_against_scipy(light, strategy, periodic):
    expected, slopes = reference_weights(light, strategy, periodic)
    slope = lime.gradients(jnp.asarray(light), periodic=periodic)
    np.testing.assert_allclose(slope, np.stack(slopes), atol=1e-7)
    found = lime.weights(slope, strategy, 2.0, periodic=periodic)
    np.testing.assert_allclose(found, np.stack(expected), rtol=2e-3)


@functools.cache
def fast(strategy):
    return jax.jit(lambda x, alpha: lime.fast(x, alpha, strategy, sigma=2.0, iterations=300))


@pytest.mark.parametrize("strategy", lime.STRATEGIES)
def test_the_fast_solver_against_a_sparse_factorisation(light, strategy):
    weights, slopes = reference_weights(light, strategy, periodic=False)
    system = sp.eye(light.size)
    for d, w, s in zip(differences(False), weights, slopes, strict=True):
        system = system + d.T @ sp.diags((0.15 * w / (abs(s) + 1e-3)).ravel()) @ d
    exact = spsolve(system.tocsc(), light.ravel().astype(float)).reshape(SHAPE)
    found = np.asarray(fast(strategy)(light, 0.15))
    assert np.std(exact - light) > 0.02  # something was to be solved
    assert np.sqrt(np.square(found - exact).mean()) < 1e-3 and np.abs(found - exact).max() < 5e-3


def test_the_fast_solver_needs_its_coarse_grids(light):
    """Of few steps on the finest grid alone, what is smooth stays unsolved; the border hangs on too."""
    best = np.asarray(fast(3)(light, 0.15))
    slope = lime.gradients(jnp.asarray(light), periodic=False)
    links = 0.15 * lime.weights(slope, 3, 2.0, periodic=False) / (jnp.abs(slope) + 1e-3)
    system = lime.System(jnp.ones(SHAPE), links[0].at[-1].set(0), links[1].at[:, -1].set(0))
    alone = jax.jit(lambda x: lime._solved(system, x, 0, 30))(jnp.asarray(light))
    found = np.asarray(lime.illumination(jnp.asarray(light)[..., None], strategy=3, iterations=30))
    error, error_alone = (np.square(np.asarray(x) - best) for x in (found, alone))
    assert error.mean() < 0.2 * error_alone.mean()
    assert error[-1].mean() < 4 * error.mean() and error[:, -1].mean() < 4 * error.mean()


@pytest.mark.parametrize(("strategy", "alpha"), [(1, 0.15), (2, 0.002), (3, 0.002)])
def test_the_exact_solver_against_ascent_in_the_dual(light, strategy, alpha):
    """min |T - T^|^2 + a |W o DT|_1 is at T = T^ - D^T p / 2, smallest over |p| <= a W (Chambolle 2004)."""
    weights, _ = reference_weights(light, strategy, periodic=True)
    d = sp.vstack(differences(True)).tocsr()
    bound, first = alpha * np.concatenate([w.ravel() for w in weights]), light.ravel().astype(float)
    p = q = np.zeros(len(bound))
    t = 1.0
    for _ in range(3000):
        new = np.clip(q + (d @ (first - d.T @ q / 2)) / 4, -bound, bound)
        t, old = (1 + np.sqrt(1 + 4 * t * t)) / 2, t
        p, q = new, new + (old - 1) / t * (new - p)
    best = first - d.T @ p / 2

    def cost(x):
        return np.square(x - first).sum() + (bound * abs(d @ x)).sum()

    found = np.asarray(lime.exact(jnp.asarray(light), alpha, strategy, sigma=2.0, iterations=50), float)
    assert cost(best) < 0.9 * cost(first)
    assert cost(found.ravel()) < 1.02 * cost(best)
    assert np.sqrt(np.square(found.ravel() - best).mean()) < 2e-3


def test_without_smoothing_the_map_is_the_first_one(light):
    found = lime.illumination(jnp.asarray(light)[..., None], alpha=0.0, iterations=30)
    np.testing.assert_allclose(found, light, atol=2e-6)


# gamma 1/2 of light 1/4 is a gain of 2; at a floor as high as the light, half of what it adds
CASES = [(1.0, 0.0, 0.5), (0.0, 0.0, 0.25), (0.5, 0.0, 0.375), (1.0, 0.25, 0.375)]


@pytest.mark.parametrize(("strength", "floor", "expected"), CASES)
def test_gain_strength_and_floor_by_hand(strength, floor, expected):
    out, light, settings = lime.enhance(
        jnp.full((4, 4, 1), 0.25), gamma=0.5, strength=strength, floor=floor, iterations=5
    )
    np.testing.assert_allclose(light, 0.25, atol=1e-6)  # a flat picture is its own map
    np.testing.assert_allclose(out, expected, atol=1e-5)
    assert settings.gamma == 0.5 and settings.floor == floor


def test_the_first_map_is_the_largest_channel_and_hue_stays(light):
    image = jnp.stack([0.5 * light, light, 0.2 * light], -1)
    np.testing.assert_array_equal(lime.initial_map(image), light)
    out, *_ = lime.enhance(image)
    np.testing.assert_allclose(out[..., 0], 0.5 * out[..., 1], rtol=1e-5)
    assert (np.asarray(out) >= np.asarray(image) - 1e-6).all()  # nothing becomes darker


def test_what_is_chosen(light):
    image = np.random.default_rng(1).normal(0.5, 0.02, (96, 96, 1)).astype(np.float32)
    assert lime.noise_level(jnp.asarray(image[..., 0])) == pytest.approx(0.02, rel=0.05)
    grey, colour = (lime.chosen(jnp.asarray(image.repeat(c, -1)), 0.0, -1.0) for c in (1, 3))
    assert float(grey.gamma) == pytest.approx(0.45) and float(colour.gamma) == pytest.approx(0.6)
    assert float(grey.floor) == pytest.approx(4 * 0.02, rel=0.05)
    given = lime.chosen(jnp.asarray(image), 0.8, 0.0)
    assert float(given.gamma) == pytest.approx(0.8) and float(given.floor) == 0


@pytest.mark.parametrize("share", [0.25, 0.5, 1.0])
def test_what_was_masked_holds_no_noise(share):
    """A brain of which the rest was set to 0: the noise is that of the brain, however small its part."""
    image = np.zeros((128, 128), np.float32)
    side = round(128 * share)
    image[:side, :side] = np.random.default_rng(0).normal(0.4, 0.02, (side, side))
    assert lime.noise_level(jnp.asarray(image)) == pytest.approx(0.02, rel=0.15)  # and its border
    assert lime.noise_level(jnp.zeros((16, 16))) == 0


@pytest.mark.parametrize("solver", lime.SOLVERS)
def test_derivatives_against_differences(light, solver):
    """Of a number made of the enhanced picture: along the picture, and in alpha, gamma and strength."""
    image = jnp.asarray(light[:16, :16, None])
    along = jnp.asarray(np.random.default_rng(0).normal(size=image.shape), jnp.float32)
    probe = jnp.asarray(np.random.default_rng(1).normal(size=image.shape), jnp.float32)
    start = {"image": 0.0, "alpha": lime.ALPHA[solver][1], "gamma": 0.6, "strength": 0.8}

    @jax.jit
    def value(at):
        out, *_ = lime.enhance(
            image + at["image"] * along, alpha=at["alpha"], gamma=at["gamma"], strength=at["strength"],
            floor=0.05, solver=solver, strategy=1,
        )  # fmt: skip
        return (probe * out).sum()

    slopes = jax.jit(jax.grad(value))(start)
    for name, step in {"image": 1e-3, "alpha": 1e-2, "gamma": 1e-2, "strength": 1e-2}.items():
        up, down = (value({**start, name: start[name] + sign * step}) for sign in (1, -1))
        assert float(slopes[name]) == pytest.approx(float(up - down) / (2 * step), rel=0.03, abs=0.02), name


def test_a_batch_is_its_pictures_one_by_one(light):
    images = jnp.stack([jnp.asarray(light), 0.5 * jnp.asarray(light[::-1])])[..., None]
    together, lights, _ = jax.vmap(lime.enhance)(images)
    for i in range(2):
        alone, light_alone, _ = lime.enhance(images[i])
        np.testing.assert_allclose(together[i], alone, atol=2e-4)
        np.testing.assert_allclose(lights[i], light_alone, atol=2e-4)


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 9, 3), (2, 5, 1)])
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_tiny_black_and_white_pictures_come_out_finite(shape, value):
    for solver in lime.SOLVERS:
        out, light, _ = lime.enhance(jnp.full(shape, value), solver=solver, iterations=3)
        assert out.shape == shape and light.shape == shape[:2]
        np.testing.assert_allclose(out, value, atol=1e-5)


def test_sixteen_bits_stay_sixteen_bits():
    ramp = jnp.linspace(0.001, 0.05, 37 * 50).reshape(37, 50, 1)
    out = np.asarray(lime.enhance(ramp)[0])
    assert len(np.unique(np.rint(out * 65535))) > 1500 and len(np.unique(np.rint(out * 255))) < 256


@pytest.mark.parametrize(("solver", "most"), [("fast", 0.025), ("exact", 0.04)])
def test_the_light_on_a_white_wall_is_found(solver, most):
    """Where the scene says nothing of its own, the map is the light; total variation makes stairs of it."""
    y, x = np.mgrid[:64, :64] / 64
    true = 0.35 + 0.25 * np.sin(3 * x) * np.cos(2 * y)
    noise = 0.02 * np.random.default_rng(0).normal(size=true.shape)
    noisy = np.clip(true + noise, 0, 1).astype(np.float32)
    found = lime.illumination(jnp.asarray(noisy)[..., None], solver=solver, strategy=1, alpha=0.15)
    assert map_error(noisy, true) > 0.045
    assert map_error(np.asarray(found), true) < most


def test_unknown_names_are_refused(light):
    for words in ({"solver": "quick"}, {"strategy": 4}):
        with pytest.raises(PixmedError, match="give one of fast, exact and of 1, 2, 3"):
            lime.illumination(jnp.asarray(light)[..., None], **words)


def test_denoising_keeps_light_places_and_colours():
    rng = np.random.default_rng(0)
    image = (0.5 + 0.1 * rng.normal(size=(40, 40, 3))).astype(np.float32)
    light = np.zeros((40, 40), np.float32)
    light[:, 20:] = 1
    out = recomposed(image, light)
    np.testing.assert_array_equal(out[:, 20:], image[:, 20:])
    luma = np.array([0.299, 0.587, 0.114])
    assert np.std(out[5:-5, 5:15] @ luma) < 0.6 * np.std(image[5:-5, 5:15] @ luma)
    np.testing.assert_allclose(out[..., 0] - out[..., 1], image[..., 0] - image[..., 1], atol=1e-6)
    assert recomposed(image[..., :1], light).shape == (40, 40, 1)


def test_noise_is_judged_where_anything_around_a_pixel_is_seen():
    """Immerkaer's mask written out, over the pixels whose nine are not all black; three in four are black."""
    rng = np.random.default_rng(0)
    light = (rng.uniform(0.1, 1, (24, 20)) * (rng.uniform(size=(24, 20)) < 0.25)).astype(np.float32)
    mask = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]])
    nines = [light[y : y + 3, x : x + 3] for y in range(22) for x in range(18)]
    left = [abs((mask * nine).sum()) for nine in nines if nine.any()]
    assert 0 < len(nines) - len(left) < 0.2 * len(nines)
    assert float(lime.noise_level(jnp.asarray(light))) == pytest.approx(np.median(left) / (0.6745 * 6))
