"""Convolutions against loops and XLA's own operations, both forms of each, and what a norm averages over."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from scipy.signal import correlate

from pixmed_jax.errors import PixmedError
from pixmed_jax.models import layers

NHWC = ("NHWC", "HWIO", "NHWC")
# (8, 8) is the largest image of the CPU form's GEMM branch, (8, 9) takes its convolution branch.
SHAPES = [(8, 8), (8, 9)]


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def up_loop(y: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Every input pixel (i, j) stamps the kernel on the output, its tap (1, 1) at (2 i, 2 j)."""
    n, h, w, _ = y.shape
    size = len(kernel)
    canvas = np.zeros((n, 2 * h + 4, 2 * w + 4, kernel.shape[2]))
    for i in range(h):
        for j in range(w):
            stamp = np.einsum("no,ykio->nyki", y[:, i, j].astype(np.float64), kernel.astype(np.float64))
            canvas[:, 2 * i : 2 * i + size, 2 * j : 2 * j + size] += stamp
    return canvas[:, 1 : 1 + 2 * h, 1 : 1 + 2 * w]


def to_few(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return layers._to_few_cpu(x, kernel, 1)


def depthwise_loop(x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Output channel c * m + r is input channel c correlated with filter c * m + r; zero borders."""
    multiplier = kernel.shape[3] // x.shape[3]
    out = np.zeros((*x.shape[:3], kernel.shape[3]))
    for n in range(len(x)):
        for o in range(kernel.shape[3]):
            out[n, ..., o] = correlate(x[n, ..., o // multiplier], kernel[:, :, 0, o], mode="same")
    return out


def gradients(operation: Callable, x: np.ndarray, kernel: np.ndarray, g: np.ndarray) -> tuple:
    """The operation's value, and its gradients along the cotangent g."""

    @jax.jit
    def all_three(x: jax.Array, kernel: jax.Array, g: jax.Array) -> tuple:
        value, pull = jax.vjp(operation, x, kernel)
        return (value, *pull(g.astype(value.dtype)))

    return all_three(x, kernel, g)


def assert_all_close(found: tuple, expected: tuple, tolerance: float) -> None:
    """Relative to the largest number of each array."""
    for a, b in zip(found, expected, strict=True):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * np.abs(b).max())


# ---------------------------------------------------------------- strided and transposed
@pytest.mark.parametrize("size", [3, 4])
def test_down_and_up_are_adjoint(size):
    x, kernel, y = normal(0, 2, 10, 12, 3), normal(1, size, size, 3, 5), normal(2, 2, 5, 6, 5)
    left = np.vdot(layers.down(x, kernel), y)
    assert left == pytest.approx(np.vdot(x, layers.up(y, kernel)), rel=1e-5)
    assert abs(left) > 1  # not 0 == 0


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", [3, 4])
def test_up_stamps_its_kernel(size, shape):
    y, kernel = normal(0, 2, *shape, 5), normal(1, size, size, 3, 5)
    assert_all_close((layers.up(y, kernel),), (up_loop(y, kernel),), 1e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_up_and_its_gradients_are_those_of_xla(shape):
    """XLA's own transposed convolution, differentiated by JAX, for the 4x4 kernel of the decoder."""
    y, kernel, g = normal(0, 2, *shape, 5), normal(1, 4, 4, 3, 5), normal(2, 2, 2 * shape[0], 2 * shape[1], 3)

    def stock(y: jax.Array, kernel: jax.Array) -> jax.Array:
        return lax.conv_transpose(y, kernel, (2, 2), "SAME", dimension_numbers=NHWC, transpose_kernel=True)

    assert_all_close(gradients(layers.up, y, kernel, g), gradients(stock, y, kernel, g), 1e-5)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("size", "pad"), [(3, (1, 0)), (4, (1, 1))])
def test_down_and_its_gradients_are_those_of_xla(size, pad, shape):
    x, kernel = normal(0, 2, 2 * shape[0], 2 * shape[1], 3), normal(1, size, size, 3, 5)
    g = normal(2, 2, *shape, 5)

    def stock(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return lax.conv_general_dilated(x, kernel, (2, 2), (pad, pad), dimension_numbers=NHWC)

    assert_all_close(gradients(layers.down, x, kernel, g), gradients(stock, x, kernel, g), 1e-5)


@pytest.mark.parametrize("size", [3, 4])
@pytest.mark.parametrize(
    ("operation", "stock", "shape"),
    [
        (layers.down, layers._down_stock, (2, 8, 6, 3)),
        (layers.up, layers._up_stock, (2, 4, 3, 5)),
        (to_few, partial(layers._convolution_stock, stride=1, pad=1), (2, 8, 6, 3)),
    ],
)
def test_gradients_of_gradients_are_those_of_xla(size, operation, stock, shape):
    """As a penalty on a slope needs them: through both gradients, along image and kernel."""
    x, kernel = normal(0, *shape), normal(1, size, size, 3, 5) / 3

    def of_penalty(operation: Callable) -> tuple:
        def penalty(x: jax.Array, kernel: jax.Array) -> jax.Array:
            slopes = jax.grad(lambda *inputs: jnp.sin(operation(*inputs)).sum(), (0, 1))(x, kernel)
            return sum(jnp.sin(slope * slope).sum() for slope in slopes)

        return jax.jit(jax.grad(penalty, (0, 1)))(x, kernel)

    assert_all_close(of_penalty(operation), of_penalty(stock), 1e-4)


@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float32, 1e-5), (jnp.bfloat16, 2e-2)])
@pytest.mark.parametrize("shape", SHAPES)
def test_an_enlarging_convolution_is_that_of_the_enlarged_image(shape, dtype, tolerance):
    """With its gradients; the kernel has no symmetry that could hide a tap at a wrong place."""
    x, kernel, g = normal(0, 2, *shape, 5), normal(1, 3, 3, 5, 3), normal(2, 2, 2 * shape[0], 2 * shape[1], 3)

    def stock(x: jax.Array, kernel: jax.Array) -> jax.Array:
        x = jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
        return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=NHWC)

    found = gradients(layers.enlarged, jnp.asarray(x, dtype), jnp.asarray(kernel, dtype), g)
    rounded = (np.asarray(jnp.asarray(a, dtype), np.float32) for a in (x, kernel))
    assert_all_close(found, gradients(stock, *rounded, g), tolerance)


@pytest.mark.parametrize("pad", [0, 1])
def test_a_kernel_of_one_pixel(pad):
    x, kernel = normal(0, 2, 7, 9, 5), normal(1, 1, 1, 5, 6)
    one = partial(layers.convolution, stride=1, pad=pad)
    stock = partial(layers._convolution_stock, stride=1, pad=pad)
    g = normal(2, 2, 7 + 2 * pad, 9 + 2 * pad, 6)
    assert_all_close(gradients(one, x, kernel, g), gradients(stock, x, kernel, g), 1e-5)


@pytest.mark.parametrize("strange", [{"kernel_size": 4}, {"stride": 2}, {"pad": 0}])
def test_what_cannot_enlarge(strange):
    layer = layers.Conv(**{"features": 2, "kernel_size": 3, "enlarge": True, **strange})
    with pytest.raises(ValueError, match="only a 3x3 convolution of stride 1 and pad 1 enlarges"):
        layer.init(jax.random.key(0), jnp.zeros((1, 4, 4, 2)))


@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float32, 1e-5), (jnp.bfloat16, 2e-2)])
@pytest.mark.parametrize("branch", ["gemm", "convolution"])
@pytest.mark.parametrize("size", [3, 4])
def test_both_forms_of_up_agree(monkeypatch, size, branch, dtype, tolerance):
    monkeypatch.setattr(layers, "_MATRIX_PIXELS", 10**6 if branch == "gemm" else 0)
    y, kernel, g = normal(0, 2, 4, 6, 5), normal(1, size, size, 3, 5), normal(2, 2, 8, 12, 3)
    y, kernel = jnp.asarray(y, dtype), jnp.asarray(kernel, dtype)
    found = gradients(layers._up_cpu, y, kernel, g)
    assert {part.dtype for part in found} == {jnp.dtype(dtype)}
    exact = gradients(layers._up_stock, y.astype(jnp.float32), kernel.astype(jnp.float32), g)
    assert_all_close(found, exact, tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float32, 1e-5), (jnp.bfloat16, 2e-2)])
@pytest.mark.parametrize("limit", [0, 10**6])
@pytest.mark.parametrize("size", [3, 4])
def test_both_forms_of_down_and_of_the_kernel_gradient_agree(monkeypatch, size, limit, dtype, tolerance):
    """With limits of 0 the convolution and one product for each tap, with large ones a single product."""
    for name in ("_MATRIX_PIXELS", "_WHOLE_PIXELS", "_FEW_CHANNELS"):
        monkeypatch.setattr(layers, name, limit)
    x, kernel, y = normal(0, 2, 8, 12, 5), normal(1, size, size, 5, 3), normal(2, 2, 4, 6, 3)
    x, kernel, y = (jnp.asarray(part, dtype) for part in (x, kernel, y))
    found = layers._down_cpu(x, kernel), layers._kernel_gradient_cpu(x, y, size)
    assert {part.dtype for part in found} == {jnp.dtype(dtype)}
    x, kernel, y = (part.astype(jnp.float32) for part in (x, kernel, y))
    exact = layers._down_stock(x, kernel), layers._kernel_gradient_stock(x, y, size)
    assert_all_close(found, exact, tolerance)


@pytest.mark.parametrize(("channels", "products"), [(8, 1), (9, 16)])
def test_a_kernel_gradient_takes_a_product_for_each_tap_of_a_large_image_only(channels, products):
    """17 x 16 pixels are more than 256; with few channels one product is still the better."""
    x, y = normal(0, 1, 34, 32, channels), normal(1, 1, 17, 16, 3)
    found = jax.jit(layers._kernel_gradient_cpu, static_argnums=2).trace(x, y, 4).lower().as_text()
    assert found.count("dot_general") == products


def test_a_second_derivative_exists_through_up_and_down():
    """Gradient penalties differentiate the custom gradients once more; <x, H v> is symmetric in x and v."""
    kernel = normal(0, 4, 4, 2, 3)

    def f(x: jax.Array) -> jax.Array:
        return (layers.up(jnp.tanh(layers.down(x, kernel)), kernel) ** 3).sum()

    x, v, u = (normal(seed, 1, 4, 4, 2) / 8 for seed in (1, 2, 3))
    hessian_v, hessian_u = (jax.grad(lambda x, d=d: jnp.vdot(jax.grad(f)(x), d))(x) for d in (v, u))
    assert np.vdot(u, hessian_v) == pytest.approx(np.vdot(v, hessian_u), rel=1e-3)
    assert np.abs(hessian_v).max() > 0


@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float32, 1e-5), (jnp.bfloat16, 2e-2)])
@pytest.mark.parametrize(("size", "pad", "features"), [(3, 1, 1), (4, 1, 1), (3, 0, 4), (5, 2, 3)])
def test_both_forms_of_a_convolution_to_few_features_agree(size, pad, features, dtype, tolerance):
    """With their gradients, by a kernel without symmetry on an image that is no square."""
    x, kernel = normal(0, 2, 7, 9, 5), normal(1, size, size, 5, features)
    stock = partial(layers._convolution_stock, stride=1, pad=pad)
    g = normal(2, *stock(x, kernel).shape)
    found = gradients(
        partial(layers._to_few_cpu, pad=pad), jnp.asarray(x, dtype), jnp.asarray(kernel, dtype), g
    )
    assert {part.dtype for part in found} == {jnp.dtype(dtype)}
    rounded = (np.asarray(jnp.asarray(a, dtype), np.float32) for a in (x, kernel))
    assert_all_close(found, gradients(stock, *rounded, g), tolerance)


# ---------------------------------------------------------------- depthwise
@pytest.mark.parametrize(("size", "multiplier"), [(3, 1), (5, 3)])
def test_depthwise_filters_each_channel_alone(size, multiplier):
    x, kernel = normal(0, 2, 6, 7, 4), normal(1, size, size, 1, 4 * multiplier)
    assert_all_close((layers.depthwise(x, kernel),), (depthwise_loop(x, kernel),), 1e-6)


@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float32, 1e-5), (jnp.bfloat16, 3e-2)])
@pytest.mark.parametrize(("size", "multiplier"), [(3, 1), (4, 2)])
def test_both_forms_of_depthwise_agree(size, multiplier, dtype, tolerance):
    x, kernel, g = (
        normal(0, 2, 6, 7, 4),
        normal(1, size, size, 1, 4 * multiplier),
        normal(2, 2, 6, 7, 4 * multiplier),
    )
    x, kernel = jnp.asarray(x, dtype), jnp.asarray(kernel, dtype)
    found = gradients(layers._depthwise_cpu, x, kernel, g)
    assert {part.dtype for part in found} == {jnp.dtype(dtype)}
    exact = gradients(layers._depthwise_stock, x.astype(jnp.float32), kernel.astype(jnp.float32), g)
    assert_all_close(found, exact, tolerance)


@pytest.mark.parametrize(
    ("operation", "kernel", "stock"),
    [
        (layers.up, (4, 4, 3, 8), "lhs_dilate = [2, 2]"),
        (layers.down, (3, 3, 8, 4), "stride = [2, 2]"),
        (layers.depthwise, (3, 3, 1, 8), "feature_group_count = 8"),
        (partial(layers.convolution, stride=1, pad=1), (3, 3, 8, 4), "stablehlo.convolution"),
    ],
)
def test_the_form_is_chosen_where_it_is_compiled(operation, kernel, stock):
    """A GPU gets the operation that cuDNN knows, a CPU its own form."""
    traced = jax.jit(operation).trace(normal(0, 1, 10, 10, 8), normal(1, *kernel))
    assert stock in traced.lower(lowering_platforms=("cuda",)).as_text()
    assert stock not in traced.lower(lowering_platforms=("cpu",)).as_text()


# ---------------------------------------------------------------- modules
@pytest.mark.parametrize("pad", [0, 1])
def test_a_convolution_of_stride_1_correlates_and_adds_its_bias(pad):
    x, kernel, bias = normal(0, 1, 6, 6, 3), normal(1, 4, 4, 3, 2), normal(2, 2)
    found = layers.Conv(2, 4, pad=pad).apply({"params": {"kernel": kernel, "bias": bias}}, x)
    padded = np.pad(x[0], ((pad, pad), (pad, pad), (0, 0)))
    expected = [correlate(padded, kernel[..., o], mode="valid")[..., 0] + bias[o] for o in range(2)]
    assert_all_close((found[0],), (np.stack(expected, -1),), 1e-6)


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
    assert_all_close((found[0], *found[1](g)), (exact[0], *exact[1](g)), 1e-3)
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
