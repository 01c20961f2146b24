"""Convolutions against loops and XLA's own operations, and both forms of each against each other."""

import re
import runpy
from collections.abc import Callable
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from scipy.signal import correlate

from pixmed_jax import config as configs
from pixmed_jax import inference
from pixmed_jax.models import convolutions, filtering
from pixmed_jax.training.build import make_task

NHWC = ("NHWC", "HWIO", "NHWC")
SHAPES = [(8, 8), (8, 9)]
FILTER_ALWAYS = {"_FILTERED_CHANNELS": 0, "_FILTERED_ROWS": 0, "_FILTERED_WORK": 0}  # where it is possible


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


def stock(x: jax.Array, kernel: jax.Array, stride: int, pad: tuple[int, int]) -> jax.Array:
    return lax.conv_general_dilated(x, kernel, (stride,) * 2, (pad, pad), dimension_numbers=NHWC)


def stock_down(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return stock(x, kernel, 2, (1, len(kernel) - 3))


def stock_up(y: jax.Array, kernel: jax.Array) -> jax.Array:
    n, h, w, _ = y.shape
    like = jax.ShapeDtypeStruct((n, 2 * h, 2 * w, kernel.shape[2]), y.dtype)
    return jax.linear_transpose(lambda x: stock_down(x, kernel), like)(y)[0]


def plain(stride: int, pad: int) -> Callable:
    return partial(convolutions.convolution, stride=stride, pad=pad)


def products(operation: Callable, *arrays: jax.Array) -> tuple[int, int]:
    """(matrix products, multiply-adds in them) of an operation lowered for a CPU."""
    traced = jax.jit(operation).trace(*arrays)
    found = re.findall(
        r"dot_general.*contracting_dims = \[(\d+)\].*: \(tensor<([\dx]*)xf32>, .*\) -> tensor<([\dx]*)xf32>",
        traced.lower(lowering_platforms=("cpu",)).as_text(),
    )
    sizes = [([int(side) for side in a.split("x")], int(axis), b) for axis, a, b in found]
    return len(found), sum(a[axis] * np.prod([int(side) for side in b.split("x")]) for a, axis, b in sizes)


# ---------------------------------------------------------------- strided and transposed
@pytest.mark.parametrize("filtered", [False, True])
@pytest.mark.parametrize("size", [3, 4])
def test_down_and_up_are_adjoint(chosen_by, size, filtered):
    if filtered:
        chosen_by(**FILTER_ALWAYS)
    x, kernel, y = normal(0, 2, 12, 8, 3), normal(1, size, size, 3, 5), normal(3, 2, 6, 4, 5)
    left = np.vdot(convolutions.down(x, kernel), y)
    assert left == pytest.approx(np.vdot(x, convolutions.up(y, kernel)), rel=1e-5)
    assert abs(left) > 1  # not 0 == 0


@pytest.mark.parametrize("filtered", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", [3, 4])
def test_up_stamps_its_kernel(chosen_by, size, shape, filtered):
    if filtered:
        chosen_by(**FILTER_ALWAYS)
    y, kernel = normal(0, 2, *shape, 5), normal(1, size, size, 3, 5)
    assert_all_close((convolutions.up(y, kernel),), (up_loop(y, kernel),), 1e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_up_and_its_gradients_are_those_of_xla(shape):
    """XLA's own transposed convolution, differentiated by JAX, for the 4x4 kernel of the decoder."""
    y, kernel, g = normal(0, 2, *shape, 5), normal(1, 4, 4, 3, 5), normal(2, 2, 2 * shape[0], 2 * shape[1], 3)

    def transposed(y: jax.Array, kernel: jax.Array) -> jax.Array:
        return lax.conv_transpose(y, kernel, (2, 2), "SAME", dimension_numbers=NHWC, transpose_kernel=True)

    assert_all_close(gradients(convolutions.up, y, kernel, g), gradients(transposed, y, kernel, g), 1e-5)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", [3, 4])
def test_down_and_its_gradients_are_those_of_xla(size, shape):
    x, kernel = normal(0, 2, 2 * shape[0], 2 * shape[1], 3), normal(1, size, size, 3, 5)
    g = normal(2, 2, *shape, 5)
    assert_all_close(gradients(convolutions.down, x, kernel, g), gradients(stock_down, x, kernel, g), 1e-5)


@pytest.mark.parametrize("filtered", [False, True])
@pytest.mark.parametrize("few_features", [0, 4, 5])
@pytest.mark.parametrize("size", [3, 4])
@pytest.mark.parametrize(
    ("operation", "reference", "shape"),
    [
        (convolutions.down, stock_down, (2, 8, 12, 3)),
        (convolutions.up, stock_up, (2, 4, 6, 5)),
        (plain(1, 1), partial(stock, stride=1, pad=(1, 1)), (2, 8, 6, 3)),
        (plain(3, 2), partial(stock, stride=3, pad=(2, 2)), (2, 8, 6, 3)),
    ],
)
def test_gradients_of_gradients_are_those_of_xla(
    chosen_by, size, operation, reference, shape, few_features, filtered
):
    """As a penalty on a slope needs them: through both gradients, along image and kernel."""
    if filtered:
        chosen_by(**FILTER_ALWAYS)
    chosen_by(_FEW_FEATURES=few_features)
    x, kernel = normal(0, *shape), normal(1, size, size, 3, 5) / 3

    def of_penalty(operation: Callable) -> tuple:
        def penalty(x: jax.Array, kernel: jax.Array) -> jax.Array:
            slopes = jax.grad(lambda *inputs: jnp.sin(operation(*inputs)).sum(), (0, 1))(x, kernel)
            return sum(jnp.sin(slope * slope).sum() for slope in slopes)

        return jax.jit(jax.grad(penalty, (0, 1)))(x, kernel)

    assert_all_close(of_penalty(operation), of_penalty(reference), 1e-4)


@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float32, 1e-5), (jnp.bfloat16, 2e-2)])
@pytest.mark.parametrize("shape", SHAPES)
def test_an_enlarging_convolution_is_that_of_the_enlarged_image(shape, dtype, tolerance):
    """With its gradients; the kernel has no symmetry that could hide a tap at a wrong place."""
    x, kernel, g = normal(0, 2, *shape, 5), normal(1, 3, 3, 5, 3), normal(2, 2, 2 * shape[0], 2 * shape[1], 3)

    def repeated(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return stock(jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2), kernel, 1, (1, 1))

    def enlarging(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return convolutions.up(x, convolutions.enlarging(kernel))

    found = gradients(enlarging, jnp.asarray(x, dtype), jnp.asarray(kernel, dtype), g)
    rounded = (np.asarray(jnp.asarray(a, dtype), np.float32) for a in (x, kernel))
    assert_all_close(found, gradients(repeated, *rounded, g), tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float32, 1e-5), (jnp.bfloat16, 2e-2)])
@pytest.mark.parametrize(
    "limits",
    [
        {"_MATRIX_PIXELS": 0, "_FEW_ROWS": 0, "_FEW_FEATURES": 0},
        {"_MATRIX_PIXELS": 10**6, "_FEW_ROWS": 0, "_FEW_FEATURES": 0},
        {"_MATRIX_PIXELS": 10**6, "_FEW_ROWS": 10**6},
        {"_MATRIX_PIXELS": 0, "_FEW_ROWS": 0, "_FEW_FEATURES": 10},
        {"_SMALL_PIXELS": 0, "_WHOLE_PIXELS": 0, "_FEW_CHANNELS": 0},
        {"_SMALL_PIXELS": 10**6, "_WHOLE_PIXELS": 10**6},
        FILTER_ALWAYS,
    ],
    ids=lambda limits: "-".join(f"{name}={limit}" for name, limit in limits.items()),
)
@pytest.mark.parametrize("size", [3, 4])
def test_all_forms_of_up_and_down_agree(chosen_by, size, limits, dtype, tolerance):
    """With their gradients, on images whose sides differ, by kernels without symmetry."""
    chosen_by(**limits)
    x, y, kernel = normal(0, 2, 8, 12, 3), normal(2, 2, 4, 6, 5), normal(1, size, size, 3, 5)
    rounded = [jnp.asarray(part, dtype) for part in (x, y, kernel)]
    exact_x, exact_y, exact_kernel = (part.astype(jnp.float32) for part in rounded)
    found = gradients(convolutions.up, *rounded[1:], x)
    assert {part.dtype for part in found} == {jnp.dtype(dtype)}
    assert_all_close(found, gradients(stock_up, exact_y, exact_kernel, x), tolerance)
    found = gradients(convolutions.down, rounded[0], rounded[2], y)
    assert {part.dtype for part in found} == {jnp.dtype(dtype)}
    assert_all_close(found, gradients(stock_down, exact_x, exact_kernel, y), tolerance)


@pytest.mark.parametrize(("channels", "made"), [(8, 1), (9, 8)])
def test_a_kernel_gradient_takes_a_product_for_two_taps_of_a_large_image_only(channels, made):
    """17 x 16 pixels are more than 256; with few channels one product is still the better."""
    x, kernel, y = normal(0, 1, 34, 32, channels), normal(1, 4, 4, channels, 3), normal(1, 1, 17, 16, 3)
    along = jax.grad(lambda kernel: jnp.vdot(convolutions.down(x, kernel), y))
    assert products(along, kernel)[0] == made


@pytest.mark.parametrize(("channels", "made"), [(4, 1), (5, 0)])
def test_what_halves_a_large_image_is_a_product_for_few_channels_only(channels, made):
    x, kernel = normal(0, 1, 34, 32, channels), normal(1, 3, 3, channels, 3)
    assert products(convolutions.down, x, kernel) == (made, made * 17 * 16 * kernel.size)


def test_a_second_derivative_exists_through_up_and_down():
    """Gradient penalties differentiate the custom gradients once more; <x, H v> is symmetric in x and v."""
    kernel = normal(0, 4, 4, 2, 3)

    def f(x: jax.Array) -> jax.Array:
        return (convolutions.up(jnp.tanh(convolutions.down(x, kernel)), kernel) ** 3).sum()

    x, v, u = (normal(seed, 1, 4, 4, 2) / 8 for seed in (1, 2, 3))
    hessian_v, hessian_u = (jax.grad(lambda x, d=d: jnp.vdot(jax.grad(f)(x), d))(x) for d in (v, u))
    assert np.vdot(u, hessian_v) == pytest.approx(np.vdot(v, hessian_u), rel=1e-3)
    assert np.abs(hessian_v).max() > 0


# ---------------------------------------------------------------- minimal filtering
def enough(n: int, side: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x, kernel and y of a convolution that halves, of as much work as filtering asks for at least."""
    return normal(0, n, 2 * side, 2 * side, 32), normal(1, 4, 4, 32, 64), normal(2, n, side, side, 64)


@pytest.mark.parametrize("of", ["down", "up", "kernel"])
def test_filtering_takes_nine_products_for_each_sixteen(of):
    x, kernel, y = enough(1, 64)
    operation, arrays = {
        "down": (convolutions.down, (x, kernel)),
        "up": (convolutions.up, (y, kernel)),
        "kernel": (jax.grad(lambda k, x, y: jnp.vdot(convolutions.down(x, k), y)), (kernel, x, y)),
    }[of]
    work = 64 * 64 * kernel.size
    assert work == convolutions._FILTERED_WORK
    assert products(operation, *arrays) == (18, work * 9 // 16)  # 3x3, of even and of odd rows


def test_filtering_of_stride_1_takes_nine_products_for_each_sixteen():
    """Four pairs of taps; 61x61 outputs are computed as 62x62."""
    x, kernel = normal(0, 1, 62, 62, 32), normal(1, 4, 4, 32, 96)
    assert products(plain(1, 1), x, kernel) == (36, 62 * 62 * kernel.size * 9 // 16)


def test_little_work_is_not_filtered():
    x, kernel, _ = enough(1, 62)
    assert products(convolutions.down, x, kernel)[0] < 18
    x, kernel, _ = (jnp.asarray(part, jnp.bfloat16) for part in enough(1, 64))
    assert "dot_general" not in jax.jit(convolutions.down).trace(x, kernel).lower().as_text()


@pytest.mark.parametrize("shape", [(1, 4, 6), (2, 2, 2)])
def test_by_a_kernel_filtered_beforehand(shape):
    x, kernel, y = (
        normal(0, shape[0], 2 * shape[1], 2 * shape[2], 3),
        normal(1, 4, 4, 3, 5),
        normal(2, *shape, 5),
    )
    found = (
        filtering.down_prepared(x, filtering.prepared(kernel, "down")),
        filtering.up_prepared(y, filtering.prepared(kernel, "up")),
    )
    assert_all_close(found, (stock_down(x, kernel), stock_up(y, kernel)), 1e-6)


@pytest.mark.parametrize(
    ("smaller", "dtype", "kernel", "does"),
    [
        ((1, 8, 8), jnp.float32, (4, 4, 512, 512), True),
        ((1, 16, 16), jnp.float32, (4, 4, 256, 1024), True),
        ((2, 8, 8), jnp.float32, (4, 4, 512, 512), True),
        ((1, 4, 4), jnp.float32, (4, 4, 512, 1024), False),  # too few pixels to be worth reading more
        ((1, 32, 32), jnp.float32, (4, 4, 128, 512), False),  # so many that it is filtered anyway
        ((8, 8, 8), jnp.float32, (4, 4, 512, 512), False),
        ((1, 8, 8), jnp.float32, (4, 4, 256, 256), False),  # too little work
        ((1, 8, 8), jnp.bfloat16, (4, 4, 512, 512), False),  # rounds too coarsely
        ((1, 8, 8), jnp.float32, (3, 3, 1024, 1024), False),
        ((1, 8, 9), jnp.float32, (4, 4, 512, 512), False),  # no tiles of 2x2
    ],
)
def test_which_kernels_are_filtered_beforehand(smaller, dtype, kernel, does):
    assert convolutions.prepares(jax.ShapeDtypeStruct(kernel, dtype), smaller) == does


@pytest.mark.parametrize("pad", [0, 1, 2, 3])
@pytest.mark.parametrize("shape", [(9, 12), (10, 7)])
def test_filtering_of_stride_1_agrees(chosen_by, shape, pad):
    """With its gradients, for even and odd numbers of outputs."""
    chosen_by(**FILTER_ALWAYS)
    x, kernel = normal(0, 2, *shape, 5), normal(1, 4, 4, 5, 6)
    reference = partial(stock, stride=1, pad=(pad, pad))
    g = normal(2, *reference(x, kernel).shape)
    found = gradients(plain(1, pad), x, kernel, g)
    assert_all_close(found, gradients(reference, x, kernel, g), 1e-6)


# ---------------------------------------------------------------- under vmap
def each(operation: Callable) -> Callable:
    """The operation on each image [H, W, C] by itself."""
    return lambda x, kernel: operation(x[None], kernel)[0]


@pytest.mark.parametrize("of", ["down", "up", "stride 1"])
def test_images_under_vmap_are_one_batch(of):
    """All four images have work enough to be filtered together, and none of them alone."""
    x, kernel, y = enough(4, 32)
    operation, arrays, expected = {
        "down": (convolutions.down, (x, kernel), stock_down(x, kernel)),
        "up": (convolutions.up, (y, kernel), stock_up(y, kernel)),
        "stride 1": (plain(1, 1), (x[:, :34, :34], kernel), stock(x[:, :34, :34], kernel, 1, (1, 1))),
    }[of]
    mapped = jax.vmap(each(operation), (0, None))
    assert products(mapped, *arrays) == products(operation, *arrays)
    assert products(operation, *arrays)[0] in (18, 36)  # and these are the filtered ones
    assert products(each(operation), arrays[0][0], kernel)[0] not in (18, 36)
    assert_all_close((jax.jit(mapped)(*arrays),), (expected,), 1e-5)
    twice = jax.vmap(mapped, (0, None))(arrays[0].reshape(2, 2, *arrays[0].shape[1:]), kernel)
    assert_all_close((twice.reshape(expected.shape),), (expected,), 1e-5)


@pytest.mark.parametrize("operation", [convolutions.down, convolutions.up, plain(1, 1)])
@pytest.mark.parametrize("axes", [(0, 0), (0, None), (None, 0)])
def test_gradients_under_vmap_are_those_of_each(operation, axes):
    """Images and kernels in pairs, or one of them for all."""
    x, kernel = normal(0, 3, 6, 8, 5), normal(1, 3, 4, 4, 5, 5)
    x, kernel = (a if axis == 0 else a[0] for a, axis in zip((x, kernel), axes, strict=True))

    def of_one(x: jax.Array, kernel: jax.Array) -> tuple:
        value, pull = jax.vjp(each(operation), x, kernel)
        return (value, *pull(jnp.sin(value)), *pull(jnp.ones_like(value)))  # the last is the same for all

    found = jax.vmap(of_one, axes)(x, kernel)
    pairs = [[a[i] if axis == 0 else a for a, axis in zip((x, kernel), axes, strict=True)] for i in range(3)]
    assert_all_close(
        found, [np.stack(of) for of in zip(*(of_one(*pair) for pair in pairs), strict=True)], 1e-5
    )


# ---------------------------------------------------------------- convolution
@pytest.mark.parametrize("pad", [0, 1])
def test_a_kernel_of_one_pixel(pad):
    x, kernel = normal(0, 2, 7, 9, 5), normal(1, 1, 1, 5, 6)
    reference = partial(stock, stride=1, pad=(pad, pad))
    g = normal(2, 2, 7 + 2 * pad, 9 + 2 * pad, 6)
    assert_all_close(gradients(plain(1, pad), x, kernel, g), gradients(reference, x, kernel, g), 1e-5)


@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float32, 1e-5), (jnp.bfloat16, 2e-2)])
@pytest.mark.parametrize(
    ("size", "stride", "pad", "features"),
    [
        (3, 1, 1, 1),
        (4, 1, 1, 1),
        (3, 1, 0, 4),
        (5, 1, 2, 3),
        (7, 2, 3, 3),
        (3, 2, 0, 2),
        (2, 3, 1, 2),
        (1, 1, 1, 2),
    ],
)
def test_all_forms_of_a_convolution_agree(chosen_by, size, stride, pad, features, dtype, tolerance):
    """With their gradients, by a kernel without symmetry on an image whose sides differ."""
    x, kernel = normal(0, 2, 8, 11, 5), normal(1, size, size, 5, features)
    reference = partial(stock, stride=stride, pad=(pad, pad))
    g = normal(2, *reference(x, kernel).shape)
    expected = gradients(reference, *(np.asarray(jnp.asarray(a, dtype), np.float32) for a in (x, kernel)), g)
    for few_features in (0, 4):
        chosen_by(_FEW_FEATURES=few_features)
        found = gradients(plain(stride, pad), jnp.asarray(x, dtype), jnp.asarray(kernel, dtype), g)
        assert {part.dtype for part in found} == {jnp.dtype(dtype)}
        assert_all_close(found, expected, tolerance)


# ---------------------------------------------------------------- depthwise
@pytest.mark.parametrize(("size", "multiplier"), [(3, 1), (5, 3)])
def test_depthwise_filters_each_channel_alone(size, multiplier):
    x, kernel = normal(0, 2, 6, 7, 4), normal(1, size, size, 1, 4 * multiplier)
    assert_all_close((convolutions.depthwise(x, kernel),), (depthwise_loop(x, kernel),), 1e-6)


@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float32, 1e-5), (jnp.bfloat16, 3e-2)])
@pytest.mark.parametrize(("size", "multiplier"), [(3, 1), (4, 2)])
def test_both_forms_of_depthwise_agree(size, multiplier, dtype, tolerance):
    x, kernel, g = (
        normal(0, 2, 6, 7, 4),
        normal(1, size, size, 1, 4 * multiplier),
        normal(2, 2, 6, 7, 4 * multiplier),
    )
    x, kernel = jnp.asarray(x, dtype), jnp.asarray(kernel, dtype)
    found = gradients(convolutions._depthwise_cpu, x, kernel, g)
    assert {part.dtype for part in found} == {jnp.dtype(dtype)}
    exact = gradients(convolutions._depthwise_stock, x.astype(jnp.float32), kernel.astype(jnp.float32), g)
    assert_all_close(found, exact, tolerance)


# ---------------------------------------------------------------- forms for a GPU
@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float32, 1e-5), (jnp.bfloat16, 2e-2)])
@pytest.mark.parametrize(
    ("how", "channels", "features"),
    [
        (convolutions.halving(8, 12, 3), 3, 5),
        (convolutions.halving(8, 12, 3), 8, 5),
        (convolutions.halving(8, 12, 3), 9, 5),
        (convolutions.halving(8, 12, 4), 4, 5),
        (convolutions.halving(8, 12, 4), 5, 7),
        (convolutions.halving(8, 12, 4), 9, 2),
        (convolutions.Geometry((8, 11), 4, 1, (1, 1)), 6, 1),
        (convolutions.Geometry((8, 11), 3, 1, (0, 0)), 3, 4),
        (convolutions.Geometry((8, 11), 3, 1, (1, 1)), 3, 5),
        (convolutions.Geometry((8, 11), 7, 2, (3, 3)), 3, 2),
    ],
)
def test_forms_for_a_gpu_are_xlas_own(how, channels, features, dtype, tolerance):
    """Along output, image and kernel; sides differ and kernels have no symmetry."""
    x, kernel = normal(0, 2, *how.sides, channels), normal(1, how.size, how.size, channels, features)
    y = normal(2, 2, *how.outputs, features)
    x, kernel, y = (jnp.asarray(part, dtype) for part in (x, kernel, y))
    for made, form, inputs in (
        ("output", convolutions._output_cuda, (x, kernel)),
        ("image", convolutions._to_image_cuda, (y, kernel)),
        ("kernel", convolutions._to_kernel_cuda, (x, y)),
    ):
        found = jax.jit(partial(form, how=how))(*inputs)
        assert found.dtype == dtype
        exact = convolutions.STOCK[made](*(part.astype(jnp.float32) for part in inputs), how)
        assert_all_close((found,), (exact,), tolerance)


# ---------------------------------------------------------------- by platform
WIDE_UP, WIDE_DOWN = (convolutions.up, (4, 4, 9, 16)), (convolutions.down, (3, 3, 16, 4))


def lowered(operation: Callable, kernel: tuple[int, ...], platform: str) -> str:
    traced = jax.jit(operation).trace(normal(0, 1, 10, 10, 16), normal(1, *kernel))
    return traced.lower(lowering_platforms=(platform,)).as_text()


@pytest.mark.parametrize(
    ("operation", "kernel", "stock"),
    [
        (*WIDE_UP, "lhs_dilate = [2, 2]"),
        (*WIDE_DOWN, "stride = [2, 2]"),
        (convolutions.depthwise, (3, 3, 1, 16), "feature_group_count = 16"),
        (plain(1, 0), (1, 1, 16, 9), "stablehlo.convolution"),
    ],
)
def test_the_form_is_chosen_where_it_is_compiled(operation, kernel, stock):
    """A GPU gets the operation that cuDNN knows, a CPU its own form."""
    assert stock in lowered(operation, kernel, "cuda")
    assert stock not in lowered(operation, kernel, "cpu")


@pytest.mark.parametrize(
    ("operation", "kernel", "stock", "ours"),
    [
        (convolutions.up, (4, 4, 8, 16), "lhs_dilate = [2, 2]", "stablehlo.convolution"),
        (convolutions.up, (3, 3, 4, 16), "lhs_dilate = [2, 2]", "dot_general"),
        (
            lambda x, k: convolutions.down(x[..., :8], k),
            (3, 3, 8, 5),
            "stride = [2, 2]",
            "stablehlo.convolution",
        ),
        (plain(1, 1), (3, 3, 16, 4), "stablehlo.convolution", "dot_general"),
    ],
)
def test_a_cuda_gpu_gets_other_forms_where_channels_are_few(operation, kernel, stock, ours):
    """Of those where the image that halves has 8 or fewer, or what is made 4 or fewer; other GPUs do not."""
    assert stock not in lowered(operation, kernel, "cuda")
    assert ours in lowered(operation, kernel, "cuda")
    assert stock in lowered(operation, kernel, "rocm")


# ---------------------------------------------------------------- branches and loops
@pytest.mark.parametrize(
    "system",
    [
        "ghost:test",
        "pix2pix:quick",
        "ghost_spade:test",
        "stylegan2:quick",
        "segmenter:test",
        "classifier:test",
        "srgan:test",
    ],
)
def test_no_step_asks_for_dimensions_that_are_slow_in_a_branch(system):
    """Of a whole training step on a CPU, second derivatives of lazy terms among it (BUILD_NOTES.md)."""
    name, preset = system.split(":")
    module = runpy.run_path(str(Path(__file__).parents[1] / "configs" / f"{name}.py"))
    config = configs.plain(module["get_config"](preset))
    task, batch = make_task(config, classes=3), inference.example_batch(config, 3)
    state = jax.eval_shape(task.init, jax.random.PRNGKey(0), batch)
    lowered = jax.jit(task.step).trace(state, batch).lower(lowering_platforms=("cpu",)).as_text()
    found = re.findall(r"stablehlo\.convolution\(.*? dim_numbers = (.*?), window = ", lowered)
    assert set(found) == {"[b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f]"}


def test_the_search_for_slow_dimensions_finds_them_in_autodiffs_gradients():
    """A planted fault for the test above."""
    gradient = jax.grad(lambda k: stock(normal(0, 1, 8, 8, 3), k, 1, (1, 1)).sum())
    lowered = jax.jit(gradient).trace(normal(1, 3, 3, 3, 5)).lower().as_text()
    assert "dim_numbers = [f, 0, 1, b]x[i, 0, 1, o]->[0, 1, b, f]" in lowered
