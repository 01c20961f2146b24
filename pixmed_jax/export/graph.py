"""A flat jaxpr as an ONNX graph: what holds a value, and how its axes lie.

A JAX array may be held by an ONNX tensor whose axes are in another order (NHWC by NCHW, which ONNX's
convolutions take), that lacks axes of length 1, or that has length 1 along an axis to be broadcast. So
transposing, reshaping between [N, 1, H, W, C] and [N, H, W, C], and broadcasting cost nothing until somebody
needs the axes as they are. What depends on no input is computed here; scales and offsets after a convolution
(batch norm, biases) are multiplied into its weights.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jax.extend import core

from pixmed_jax.errors import PixmedError
from pixmed_jax.export.flat import live
from pixmed_jax.extras import library

OPSET, _IR = 18, 10  # ONNX Runtime 1.18 (2024) and later
BATCH = "N"
_LARGE = 1024  # elements of a constant that is worth storing as float16


class Value(NamedTuple):
    """One array of the jaxpr: a constant (`array`, of the array's rank), or the ONNX tensor `name`.

    Axis i of the tensor holds the array's axis `axes[i]` and has length `dims[i]`. An axis of the array that
    the tensor lacks, or along which tensor or constant have length 1, repeats that one element.
    `alone`: nobody but the next operation needs it.
    """

    name: str = ""
    axes: tuple[int, ...] = ()
    dims: tuple[Any, ...] = ()
    array: np.ndarray | None = None
    alone: bool = True

    def length(self, axis: int) -> Any:
        """Of the tensor or the constant along an axis of the array."""
        if self.array is not None:
            return self.array.shape[axis] if self.array.ndim else 1
        return self.dims[self.axes.index(axis)] if axis in self.axes else 1


class Convolution(NamedTuple):
    """A convolution's weights while they may still change; `features` is the axis of its outputs."""

    kernel: np.ndarray
    bias: np.ndarray
    features: int


Operator = Callable[["Graph", Any, Sequence[Value]], Value]


def onnx_library(module: str) -> Any:
    return library(module, "onnx", otherwise="export.onnx=False")


class Graph:
    """Collects ONNX nodes. Operators (export/operators.py) ask for tensors and add nodes."""

    def __init__(self) -> None:
        self.onnx = onnx_library("onnx")
        self.convolutions: dict[str, Convolution] = {}  # by the name of its output
        self.made: dict[str, tuple[str, Sequence[Value]]] = {}  # by which operation, of what
        self._nodes: list[Any] = []
        self._constants: dict[str, np.ndarray] = {}
        self._held: dict[tuple, str] = {}
        self._inputs: list[Any] = []
        self._count = 0

    def input(self, name: str, shape: Sequence[Any], axes: Sequence[int], dtype: str, doc: str) -> Value:
        """An input of the graph with these axes of the array; the first is the batch."""
        axes = tuple(axes)
        dims = (BATCH, *(shape[axis] for axis in axes[1:]))
        kind = getattr(self.onnx.TensorProto, dtype.upper())
        self._inputs.append(self.onnx.helper.make_tensor_value_info(name, kind, dims, doc_string=doc))
        return Value(name, axes, tuple(shape[axis] for axis in axes))

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        self._count += 1
        name = f"{operator.lower()}_{self._count}"
        self._nodes.append(self.onnx.helper.make_node(operator, inputs, [name], name=name, **attributes))
        return name

    def constant(self, array: np.ndarray) -> str:
        array = np.ascontiguousarray(array)
        digest = hashlib.sha256(array.data).digest()
        return self._keep((array.dtype.str, array.shape, digest), lambda: array)

    def whole(self, numbers: Sequence[int]) -> str:
        """A list of int64, as axes and shapes are given."""
        return self.constant(np.array(numbers, np.int64))

    def _keep(self, key: tuple, make: Callable[[], np.ndarray]) -> str:
        if key not in self._held:
            self._count += 1
            self._held[key] = name = f"constant_{self._count}"
            self._constants[name] = make()
        return self._held[key]

    def tensor(self, value: Value, axes: Sequence[int], shape: Sequence[Any] | None = None) -> str:
        """The ONNX tensor that holds the array with exactly these axes; with `shape`, that of the array, at
        full length along each of them.
        """
        axes = tuple(axes)
        if value.array is not None:
            return self._constant_tensor(value.array, axes, shape)
        key = (value.name, axes, shape is None or tuple(map(str, shape)))
        if key not in self._held:
            self._held[key] = self._arranged(value, axes, shape)
        return self._held[key]

    def _constant_tensor(self, array: np.ndarray, axes: tuple[int, ...], shape: Sequence[Any] | None) -> str:
        if array.ndim:
            rest = [axis for axis in range(array.ndim) if axis not in axes]
            lengths = [array.shape[axis] for axis in axes]
            array = array.transpose(*axes, *rest).reshape(lengths)
        if shape is None:
            return self.constant(array)
        return self._expanded(self.constant(array), [shape[axis] for axis in axes])

    def _arranged(self, value: Value, axes: tuple[int, ...], shape: Sequence[Any] | None) -> str:
        name, have = value.name, list(value.axes)
        surplus = [axis for axis in have if axis not in axes]
        if surplus:  # of length 1, or the caller has asked for less than the array
            name = self.add("Squeeze", name, self.whole([have.index(a) for a in surplus]))
            have = [axis for axis in have if axis in axes]
        lacking = [axis for axis in axes if axis not in have]
        if lacking:
            name = self.add("Unsqueeze", name, self.whole(range(len(have), len(axes))))
            have += lacking
        if tuple(have) != axes:
            name = self.add("Transpose", name, perm=[have.index(axis) for axis in axes])
        if shape is not None and any(value.length(axis) != shape[axis] for axis in axes):
            name = self._expanded(name, [shape[axis] for axis in axes])
        return name

    def _expanded(self, name: str, lengths: Sequence[Any]) -> str:
        return self.add("Expand", name, self._lengths(lengths))

    def _lengths(self, lengths: Sequence[Any]) -> str:
        """A shape as a tensor: the batch's size is only known when the graph runs."""
        if all(isinstance(length, int) for length in lengths):
            return self.whole(lengths)
        if ("batch",) not in self._held:
            shape = self.add("Shape", self._inputs[0].name, end=1)
            self._held["batch",] = shape
        parts = [
            self.whole([length]) if isinstance(length, int) else self._held["batch",] for length in lengths
        ]
        return self.add("Concat", *parts, axis=0)

    def reshaped(self, name: str, lengths: Sequence[Any]) -> str:
        """Of which at most one is the batch's size."""
        known = [length if isinstance(length, int) else -1 for length in lengths]
        return self.add("Reshape", name, self.whole(known))

    # ------------------------------------------------------------ the whole
    def follow(self, closed: Any, given: Sequence[Value], operators: Mapping[str, Operator]) -> list[Value]:
        """Add every operation of a flat jaxpr; returns its results."""
        jaxpr = closed.jaxpr
        equations = list(live(jaxpr))
        atoms = [atom for equation in equations for atom in equation.invars] + list(jaxpr.outvars)
        uses = Counter(atom for atom in atoms if not isinstance(atom, core.Literal))
        values = dict(zip(jaxpr.invars, given, strict=True))
        values |= {v: Value(array=np.asarray(c)) for v, c in zip(jaxpr.constvars, closed.consts, strict=True)}

        def of(atom: Any) -> Value:
            literal = isinstance(atom, core.Literal)
            return Value(array=np.asarray(atom.val, atom.aval.dtype)) if literal else values[atom]

        for equation in equations:
            name = equation.primitive.name
            inputs = [of(atom) for atom in equation.invars]
            value = _computed(equation, inputs)
            if value is None:
                if name not in operators:
                    raise PixmedError(
                        f"export: the network uses {name}, which has no form in ONNX here; add it to "
                        "pixmed_jax/export/operators.py, or leave it out with export.onnx=False"
                    )
                value = operators[name](self, equation, inputs)
                if value.name:
                    self.made.setdefault(value.name, (name, inputs))
            (result,) = equation.outvars
            values[result] = value._replace(alone=value.alone and uses[result] == 1)
        return [of(atom) for atom in jaxpr.outvars]

    def model(
        self, result: Value, shape: Sequence[Any], name: str, facts: Mapping[str, str], half: bool
    ) -> Any:
        """The checked model, whose output `name` is `result`, an array of that shape.

        facts: what the file says about itself. half: weights are stored as float16.
        """
        helper, kind = self.onnx.helper, self.onnx.TensorProto.FLOAT
        last = self.tensor(result, range(len(shape)), shape)
        self._nodes.append(helper.make_node("Identity", [last], [name], name=name))
        for output, convolution in self.convolutions.items():
            (node,) = (node for node in self._nodes if node.output[0] == output)
            node.input.extend([self.constant(convolution.kernel), self.constant(convolution.bias)])
        nodes = _needed(self._nodes, name)
        casts, constants = self._stored({given for node in nodes for given in node.input}, half)
        output = helper.make_tensor_value_info(name, kind, (BATCH, *shape[1:]))
        graph = helper.make_graph(casts + nodes, "pixmed_jax", self._inputs, [output], constants)
        opset = helper.make_opsetid("", OPSET)
        model = helper.make_model(graph, opset_imports=[opset], ir_version=_IR, producer_name="pixmed_jax")
        helper.set_model_props(model, dict(facts))
        self.onnx.checker.check_model(model, full_check=True)
        return model

    def _stored(self, used: set[str], half: bool) -> tuple[list[Any], list[Any]]:
        """The constants of these names, and what makes float32 of those that are stored as float16."""
        casts, constants = [], []
        for name, array in self._constants.items():
            if name not in used:
                continue
            if half and array.dtype == np.float32 and array.size >= _LARGE:
                stored, array = f"{name}_half", array.astype(np.float16)
                to = self.onnx.TensorProto.FLOAT
                casts.append(self.onnx.helper.make_node("Cast", [stored], [name], name=f"cast_{name}", to=to))
                name = stored
            constants.append(self.onnx.numpy_helper.from_array(array, name))
        return casts, constants


def _computed(equation: Any, inputs: Sequence[Value]) -> Value | None:
    """The result of an operation on constants alone; broadcasting waits, as it may be to the batch's size."""
    shapes = [atom.aval.shape for atom in (*equation.invars, *equation.outvars)]
    known = [value.array for value in inputs if value.array is not None]
    several = equation.primitive.multiple_results
    if several or equation.primitive.name == "broadcast_in_dim" or len(known) < len(inputs):
        return None
    if not all(isinstance(length, int) for shape in shapes for length in shape):
        return None
    arrays = [np.broadcast_to(array, shape) for array, shape in zip(known, shapes, strict=False)]
    return Value(array=np.asarray(equation.primitive.bind(*arrays, **equation.params)))


def _needed(nodes: Sequence[Any], output: str) -> list[Any]:
    """The nodes that the output depends on, in order."""
    needed, kept = {output}, []
    for node in reversed(nodes):
        if node.output[0] in needed:
            kept.append(node)
            needed |= set(node.input)
    return kept[::-1]
