"""Layers: what a convolution adds, what a norm averages over, and how weights start and are held."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.signal import correlate

from pixmed_jax.errors import PixmedError
from pixmed_jax.models import layers


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float32, 1e-6), (jnp.bfloat16, 1e-2)])
@pytest.mark.parametrize("features", [3, 8])
def test_the_gradient_of_a_bias_is_the_sum_over_pixels(features, dtype, tolerance):
    """For more columns than channels and for fewer, by cotangents that differ from pixel to pixel."""
    module = layers.Conv(features, 3, dtype=dtype)
    params = {"kernel": normal(1, 3, 3, 2, features), "bias": normal(2, features)}
    x, g = normal(0, 2, 7, 5, 2), normal(3, 2, 7, 5, features)
    _, pull = jax.vjp(lambda params: module.apply({"params": params}, x), params)
    found = pull(jnp.asarray(g, dtype))[0]["bias"]
    np.testing.assert_allclose(found, g.sum((0, 1, 2)), rtol=tolerance, atol=10 * tolerance)


@pytest.mark.parametrize("pad", [0, 1])
def test_a_convolution_of_stride_1_correlates_and_adds_its_bias(pad):
    x, kernel, bias = normal(0, 1, 6, 6, 3), normal(1, 4, 4, 3, 2), normal(2, 2)
    found = layers.Conv(2, 4, pad=pad).apply({"params": {"kernel": kernel, "bias": bias}}, x)
    padded = np.pad(x[0], ((pad, pad), (pad, pad), (0, 0)))
    expected = [correlate(padded, kernel[..., o], mode="valid")[..., 0] + bias[o] for o in range(2)]
    np.testing.assert_allclose(found[0], np.stack(expected, -1), rtol=0, atol=1e-5)


@pytest.mark.parametrize("strange", [{"kernel_size": 4}, {"stride": 2}, {"pad": 0}])
def test_what_cannot_enlarge(strange):
    layer = layers.Conv(**{"features": 2, "kernel_size": 3, "enlarge": True, **strange})
    with pytest.raises(ValueError, match="only a 3x3 convolution of stride 1 and pad 1 enlarges"):
        layer.init(jax.random.key(0), jnp.zeros((1, 4, 4, 2)))


def test_joined_maps_lie_beside_each_other():
    """With gradients, and gradients of these, as through a concatenation."""
    parts = [normal(i, 2, 3, 4, channels) for i, channels in enumerate((5, 1, 3))]
    weights = normal(3, 2, 3, 4, 9)

    def slopes(join, *parts):
        def value(*parts):
            return (weights * join(*parts) ** 3).sum()

        def penalty(*parts):
            return sum((slope**2).sum() for slope in jax.grad(value, (0, 1, 2))(*parts))

        return jax.grad(penalty, (0, 1, 2))(*parts)

    def concatenated(*parts):
        return jnp.concatenate(parts, -1)

    np.testing.assert_array_equal(jax.jit(layers.joined)(*parts), np.concatenate(parts, -1))
    for found, expected in zip(slopes(layers.joined, *parts), slopes(concatenated, *parts), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("platform", "differentiated", "concatenates"),
    [("cpu", False, False), ("cpu", True, True), ("cuda", False, True)],
)
def test_a_cpu_joins_by_adding_where_nothing_is_learnt(platform, differentiated, concatenates):
    parts = normal(0, 1, 2, 2, 3), normal(1, 1, 2, 2, 4)

    def value(*parts):
        return jnp.sin(layers.joined(*parts))  # the slope of a sine needs what was joined

    operation = (lambda *parts: jax.vjp(value, *parts)[1](value(*parts))) if differentiated else value
    text = jax.jit(operation).trace(*parts).lower(lowering_platforms=(platform,)).as_text()
    assert ("stablehlo.concatenate" in text) == concatenates


def test_an_enlarging_kernel_is_prepared_and_taken():
    layer, x = layers.Conv(5, 3, enlarge=True, use_bias=False), normal(0, 1, 4, 6, 3)
    variables = {"params": {"kernel": normal(1, 3, 3, 3, 5)}}
    expected, prepared = layer.apply(variables, x, mutable=[layers.PREPARED])
    np.testing.assert_array_equal(layer.apply({**variables, **prepared}, x), expected)
    doubled = jax.tree.map(lambda kernel: 2 * kernel, prepared)
    np.testing.assert_array_equal(layer.apply({**variables, **doubled}, x), 2 * expected)


@pytest.mark.parametrize(
    ("module", "kernel"),
    [
        (layers.Conv(5, 3), (3, 3, 4, 5)),
        (layers.Conv(5, 4, stride=2, use_bias=False), (4, 4, 4, 5)),
        (layers.ConvTranspose(5), (4, 4, 5, 4)),
        (layers.Depthwise(3, 2), (3, 3, 1, 8)),
    ],
)
def test_layers_compute_in_their_dtype_and_keep_float32_parameters(module, kernel):
    x = normal(0, 1, 4, 4, 4)
    module = module.clone(dtype=jnp.bfloat16)
    y, variables = jax.jit(lambda: module.init_with_output(jax.random.key(0), x))()
    params = variables["params"]
    assert y.dtype == jnp.bfloat16
    assert params["kernel"].shape == kernel
    assert ("bias" in params) == module.use_bias
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    if module.use_bias:  # the bias is added once, to every pixel of its channel
        moved = module.apply({"params": params | {"bias": params["bias"] + 1.0}}, x)
        np.testing.assert_allclose(moved.astype(np.float32), y.astype(np.float32) + 1, atol=1e-2)


def test_weights_start_as_in_pix2pix():
    """Section 4 there: N(0, 0.02); norm scales around 1 with the same spread."""
    kernel = layers.Conv(64, 4).init(jax.random.key(0), jnp.zeros((1, 4, 4, 64)))["params"]["kernel"]
    assert np.mean(kernel) == pytest.approx(0, abs=4e-4)  # five standard errors of 65,536 weights
    assert np.std(kernel) == pytest.approx(0.02, rel=0.02)
    scale = layers.Norm("batch", True).init(jax.random.key(0), jnp.zeros((1, 2, 2, 4096)))["params"]["batch"][
        "scale"
    ]
    assert np.mean(scale) == pytest.approx(1, abs=2e-3)
    assert np.std(scale) == pytest.approx(0.02, rel=0.1)


# ---------------------------------------------------------------- norms
def standardised(x: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    x = x.astype(np.float64)
    return (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + 1e-5)


@pytest.mark.parametrize(("kind", "axes"), [("batch", (0, 1, 2)), ("instance", (1, 2))])
def test_what_a_norm_averages_over(kind, axes):
    x = normal(0, 3, 4, 5, 2) * np.arange(1, 4).reshape(3, 1, 1, 1) + 7  # images of different spread
    module = layers.Norm(kind, True)
    variables = module.init(jax.random.key(0), x)
    scale, bias = np.array([2.0, 3.0], np.float32), np.array([-1.0, 5.0], np.float32)
    variables["params"][kind] = {"scale": scale, "bias": bias}
    found, _ = module.apply(variables, x, mutable=["batch_stats"])
    np.testing.assert_allclose(found, standardised(x, axes) * scale + bias, atol=5e-4)


def test_batch_norm_keeps_running_statistics_and_uses_them_outside_training():
    x = normal(0, 3, 4, 5, 2) * 3 + 7
    module = layers.Norm("batch", True)
    variables = module.init(jax.random.key(0), x)
    variables["params"]["batch"]["scale"] = np.ones(2, np.float32)
    _, updated = module.apply(variables, x, mutable=["batch_stats"])
    running = updated["batch_stats"]["batch"]
    # From mean 0 and variance 1 a tenth of the way to the batch's own.
    np.testing.assert_allclose(running["mean"], 0.1 * x.mean((0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(running["var"], 0.9 + 0.1 * x.var((0, 1, 2)), rtol=1e-5)

    given = {"mean": np.array([3.0, 4.0], np.float32), "var": np.array([4.0, 0.25], np.float32)}
    outside = {"params": variables["params"], "batch_stats": {"batch": given}}
    found = layers.Norm("batch", False).apply(outside, x)
    np.testing.assert_allclose(found, (x - [3, 4]) / [2, 0.5], rtol=1e-4, atol=1e-4)


def test_statistics_stay_float32_under_bfloat16():
    """bfloat16 knows only every half number between 64 and 128, so a mean taken in it would be far off."""
    x = jnp.asarray(normal(0, 4, 16, 16, 2) * 4 + 80.2, jnp.bfloat16)
    module = layers.Norm("batch", True, dtype=jnp.bfloat16)
    y, variables = module.init_with_output(jax.random.key(0), x)
    assert y.dtype == jnp.bfloat16
    _, updated = module.apply(variables, x, mutable=["batch_stats"])
    assert {leaf.dtype for leaf in jax.tree.leaves((variables, updated))} == {jnp.dtype("float32")}
    exact = np.asarray(x, np.float64)
    running = updated["batch_stats"]["batch"]
    np.testing.assert_allclose(running["mean"] * 10, exact.mean((0, 1, 2)), atol=1e-3)
    np.testing.assert_allclose((running["var"] - 0.9) * 10, exact.var((0, 1, 2)), rtol=1e-2)


def test_no_norm_changes_nothing_and_an_unknown_one_is_refused():
    x = normal(0, 1, 2, 2, 3)
    y, variables = layers.Norm("none", True).init_with_output(jax.random.key(0), x)
    np.testing.assert_array_equal(y, x)
    assert not variables
    with pytest.raises(PixmedError, match=r"norm='group'.* batch, instance, none"):
        layers.Norm("group", True).init(jax.random.key(0), x)


# ---------------------------------------------------------------- spectral norm
def test_the_largest_singular_value_becomes_1():
    """Of a kernel whose singular values are known; its gradient is that through JAX's own SVD."""
    rng = np.random.default_rng(0)
    left, right = (np.linalg.qr(rng.normal(size=shape))[0] for shape in ((36, 6), (6, 6)))
    kernel = ((left * 0.3 * 0.6 ** np.arange(6)) @ right).reshape(3, 3, 4, 6).astype(np.float32)
    g = normal(1, 3, 3, 4, 6)

    def by_svd(kernel: jax.Array) -> jax.Array:
        return kernel / jnp.linalg.svd(kernel.reshape(-1, 6), compute_uv=False)[0]

    found, exact = (jax.vjp(f, jnp.asarray(kernel)) for f in (layers.spectrally_normalised, by_svd))
    values = np.linalg.svd(np.reshape(found[0], (-1, 6)), compute_uv=False)
    np.testing.assert_allclose(values, 0.6 ** np.arange(6), rtol=1e-4)
    for a, b in zip((found[0], *found[1](g)), (exact[0], *exact[1](g)), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-3 * np.abs(b).max())
    for factor in (5, -1):
        other = layers.spectrally_normalised(factor * kernel)
        np.testing.assert_allclose(other, np.sign(factor) * found[0], rtol=1e-5, atol=1e-7)
    assert (layers.spectrally_normalised(jnp.zeros((3, 3, 2, 2))) == 0).all()


def test_a_drawn_kernel_is_within_a_tenth_of_it():
    """Its singular values lie closely together, which is where few iterations are furthest off."""
    for seed, shape in enumerate([(4, 4, 8, 24), (4, 4, 24, 48), (3, 3, 64, 64), (4, 4, 96, 1)]):
        made = np.asarray(layers.spectrally_normalised(normal(seed, *shape)))
        largest = np.linalg.svd(made.reshape(-1, shape[-1]), compute_uv=False)[0]
        assert 1 - 1e-5 < largest < 1.1
