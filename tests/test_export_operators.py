"""JAX functions in ONNX: each operation, in batches of two sizes, gives in ONNX Runtime what JAX gives."""

from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax import lax

from pixmed_jax.errors import PixmedError

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from pixmed_jax.export import flat  # noqa: E402
from pixmed_jax.export.graph import Graph  # noqa: E402
from pixmed_jax.export.operators import OPERATORS  # noqa: E402
from pixmed_jax.models.convolutions import depthwise, down, up  # noqa: E402

NHWC = ("NHWC", "HWIO", "NHWC")


def fixed(*shape: int) -> np.ndarray:
    """Numbers that depend on the shape alone."""
    return np.random.default_rng(shape).normal(size=shape).astype(np.float32)


def converted(function, shape, half=False):
    """The ONNX model of a function of one array [N, *shape]."""
    (batch,) = jax.export.symbolic_shape("N")
    like = jax.ShapeDtypeStruct((batch, *shape), np.float32)
    closed = jax.make_jaxpr(
        flat.with_noise(lambda _, x, seeds: function(x), jax.ShapeDtypeStruct((batch,), np.uint32))
    )({}, like)
    graph = Graph()
    given = graph.input("x", like.shape, range(len(like.shape)), "float", "")
    (result,) = graph.follow(closed, [given], OPERATORS)
    return graph.model(result, closed.jaxpr.outvars[0].aval.shape, "y", {}, half)


def operators(model) -> Counter:
    return Counter(node.op_type for node in model.graph.node)


def assert_same(function, shape, model=None, tolerance=1e-5):
    model = model or converted(function, shape)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    for count in (1, 3):
        x = fixed(count, *shape)
        np.testing.assert_allclose(
            session.run(None, {"x": x})[0],
            function(jnp.asarray(x)),
            atol=tolerance,
            rtol=tolerance,
            strict=True,
        )


def conv(x, kernel, stride=1, pad=1, **more):
    return lax.conv_general_dilated(
        x, kernel, (stride,) * 2, ((pad, pad),) * 2, dimension_numbers=NHWC, **more
    )


IMAGE = (6, 4, 3)
FUNCTIONS = {
    "conv": lambda x: conv(x, fixed(3, 3, 3, 5)),
    "conv of stride 2, padded on one side": lambda x: down(x, fixed(3, 3, 3, 5)),
    "conv with gaps in the kernel": lambda x: conv(x, fixed(3, 3, 3, 5), pad=2, rhs_dilation=(2, 2)),
    "grouped conv": lambda x: depthwise(x, fixed(3, 3, 1, 6)),
    "transposed conv": lambda x: up(x, fixed(4, 4, 2, 3)),
    "transposed 3x3": lambda x: up(x, fixed(3, 3, 2, 3)),
    "transposed, ragged": lambda x: lax.conv_general_dilated(
        x, fixed(3, 3, 3, 5), (1, 1), ((2, 3), (1, 2)), lhs_dilation=(2, 2), dimension_numbers=NHWC
    ),
    "conv of a vmapped image": jax.vmap(lambda x: conv(x[None], fixed(3, 3, 3, 5))[0]),
    "conv twice": lambda x: conv(jnp.tanh(conv(x, fixed(3, 3, 3, 5))), fixed(1, 1, 5, 2), pad=0),
    "max pooling": lambda x: nn.max_pool(x, (2, 2), (2, 2)),
    "padded max pooling": lambda x: nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1))),
    "mean pooling": lambda x: nn.avg_pool(x, (2, 2), (2, 2)),
    "instance norm": lambda x: (x - x.mean((1, 2), keepdims=True)) * lax.rsqrt(x.var((1, 2), keepdims=True)),
    "largest of axes": lambda x: x.max((1, 3)),
    "largest of an axis of length 1": jax.vmap(lambda x: x[:1, 0].max(0)),
    "place of the largest": jax.vmap(lambda x: x.argmax(1) + 10.0 * x[:, :1, 1:].argmax(-1)),
    "one of many": jax.vmap(lambda x: jax.nn.one_hot(x[0, 0].argmax(), 3) @ fixed(3, 5)),
    "sum of an axis of length 1": lambda x: x.sum(3, keepdims=True).sum((2, 3)),
    "dense": lambda x: x.reshape(-1, 72) @ fixed(72, 5) + fixed(5),
    "a matrix before": lambda x: jnp.einsum("ah,nhwc->nawc", fixed(5, 6), x),
    "dense on images": lambda x: x @ fixed(3, 5),
    "to pixels of blocks": lambda x: x.reshape(-1, 3, 2, 2, 2, 3).transpose(0, 1, 3, 2, 4, 5),
    "slices": jax.vmap(lambda x: x[1:6:2, :3] - x[:3, 1:]),
    "padding": lambda x: jnp.pad(x, ((0, 0), (2, 1), (0, 3), (0, 0)), constant_values=2),
    "cropping": lambda x: lax.pad(x, jnp.float32(0), ((0, 0, 0), (-1, 2, 0), (0, 0, 0), (0, 0, 0))),
    "stack": lambda x: jnp.stack([x, 2 * x], axis=2),
    "concatenation with a constant": lambda x: jnp.concatenate([x, jnp.ones_like(x)], axis=-1),
    "concatenation with one for all": lambda x: jnp.concatenate(
        [jnp.broadcast_to(x.mean((1, 2), keepdims=True), x.shape), x], axis=1
    ),
    "constants for each image": lambda x: x + jnp.broadcast_to(fixed(6, 1, 3), x.shape),
    "two broadcasts": jax.vmap(lambda x: x[:, :1, :1] * x[:1, :, 1:2] - x[:1, :1]),
    "axes that come and go": jax.vmap(lambda x: x[None, :, :1][0, :, 0].T[:, None]),
    "leaky ReLU": lambda x: nn.leaky_relu(x, 0.1),
    "choice": lambda x: jnp.where(x > 0.1, x * 2, -x),
    "comparisons": lambda x: (x >= 0) + 2.0 * (x < 1) + 4.0 * (x <= -1) + 8.0 * (x == x),
    "bounds": lambda x: nn.relu(x) + jnp.clip(x, -0.5, 0.5) + jnp.maximum(x, 0.1) - jnp.minimum(x, 1),
    "powers": lambda x: x**3 + x**2 + jnp.abs(x) ** 0.7 + lax.rsqrt(jnp.square(x) + 1) + jnp.sqrt(jnp.exp(x)),
    "smooth": lambda x: nn.sigmoid(x) + jnp.tanh(x) + lax.erf(x) + jnp.log(jnp.abs(x) + 1) - (-x) / 3,
    "nothing to do": lambda x: x,
    "constant for all": lambda x: jnp.zeros_like(x) + jnp.arange(3.0),
}  # fmt: skip


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_operation(name):
    assert_same(FUNCTIONS[name], IMAGE)


def test_batch_norm_and_biases_vanish_in_the_convolution():
    """As Flax writes it in inference: the mean off, times the scale over the deviation, plus the bias."""
    mean, scale, bias = fixed(5), np.abs(fixed(1, 5)[0]) + 0.5, fixed(2, 5)[0]

    def function(x):
        return nn.relu((conv(x, fixed(3, 3, 3, 5)) + bias - mean) * lax.rsqrt(scale) / scale + bias)

    model = converted(function, IMAGE)
    assert operators(model) == {"Transpose": 2, "Conv": 1, "Relu": 1, "Identity": 1}
    assert_same(function, IMAGE, model)
    transposed = converted(lambda x: up(x, fixed(4, 4, 2, 3)) * fixed(2), IMAGE)
    assert operators(transposed) == {"Transpose": 2, "ConvTranspose": 1, "Identity": 1}
    assert_same(lambda x: up(x, fixed(4, 4, 2, 3)) * fixed(2), IMAGE, transposed)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: (lambda y: y * 2 + jnp.tanh(y))(conv(x, fixed(3, 3, 3, 5))),
        lambda x: conv(x, fixed(3, 3, 3, 5)) + fixed(6, 4, 1),
        lambda x: 1 - conv(x, fixed(3, 3, 3, 5)),
        lambda x: 1 / (conv(x, fixed(3, 3, 3, 5)) ** 2 + 1),
    ],
    ids=["used twice", "another for each pixel", "taken from", "divided by"],
)
def test_what_is_no_scale_of_a_convolution_stays(function):
    assert_same(function, IMAGE)


def test_axes_are_turned_at_the_ends_alone():
    """Between convolutions nothing is transposed, whatever JAX's own order, nor is anything broadcast."""

    def function(x):
        y = nn.leaky_relu(conv(x, fixed(3, 3, 3, 5)), 0.2)
        y = jnp.concatenate([y, jax.vmap(lambda y: jnp.tanh(y[None])[0])(y)], axis=-1)
        return nn.sigmoid(conv(y, fixed(1, 1, 10, 2), pad=0))

    model = converted(function, IMAGE)
    assert operators(model) == {
        "Transpose": 2, "Conv": 2, "LeakyRelu": 1, "Tanh": 1, "Concat": 1, "Sigmoid": 1, "Identity": 1,
    }  # fmt: skip
    assert_same(function, IMAGE, model)


def test_float16_weights_are_half_as_large_and_computed_with_in_float32():
    def function(x):
        return conv(x, fixed(3, 3, 3, 99))

    whole, half = converted(function, IMAGE), converted(function, IMAGE, half=True)
    assert half.ByteSize() < 0.6 * whole.ByteSize()
    with pytest.raises(AssertionError):
        assert_same(function, IMAGE, half)
    assert_same(function, IMAGE, half, tolerance=0.02)
    assert half.graph.output[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT


@pytest.mark.parametrize(
    ("function", "told"),
    [
        (lambda x: jnp.sort(x), "the network uses sort"),
        (lambda x: lax.top_k(x, 2)[0], "the network uses top_k"),
        (
            lambda x: conv(x, lax.reduce_max(x, (0,))[:3, :3, :, None]),
            "conv_general_dilated with weights that are computed",
        ),
        (lambda x: lax.pad(x, jnp.float32(0), ((0, 0, 0), (0, 0, 1), (0, 0, 0), (0, 0, 0))), "pad with gaps"),
        (lambda x: jnp.einsum("nhwc,nhwd->nhcd", x, x), "dot_general with several axes"),
    ],
    ids=["sort", "several results", "kernel", "gaps", "batches"],
)
def test_what_has_no_form_is_named_in_a_line(function, told):
    with pytest.raises(PixmedError, match=told) as error:
        converted(function, IMAGE)
    assert "\n" not in str(error.value) and "export.onnx=False" in str(error.value)
