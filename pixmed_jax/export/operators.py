"""JAX's operations in ONNX: one function for each, in `OPERATORS` by the operation's name.

A function takes the graph, the jaxpr's equation and the values that it is given, and returns the value that
it makes; export/graph.py says how values lie. Whatever is not supported is refused by name.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from pixmed_jax.errors import PixmedError
from pixmed_jax.export.graph import Convolution, Graph, Operator, Value


def _refused(equation: Any, what: str) -> PixmedError:
    return PixmedError(
        f"export: {equation.primitive.name} with {what} has no form in ONNX here; leave ONNX out with "
        "export.onnx=False"
    )


def _shape(atom: Any) -> tuple[Any, ...]:
    return atom.aval.shape


# ---------------------------------------------------------------- element by element
def _common(values: Sequence[Value]) -> tuple[tuple[int, ...], tuple[Any, ...]]:
    """Axes in which all values can be held, in the order of the one that has most, and their lengths."""
    tensors = sorted((v for v in values if v.array is None), key=lambda v: -len(v.axes))
    axes = list(tensors[0].axes) if tensors else []
    for value in values:
        own = value.axes if value.array is None else range(value.array.ndim)
        axes += [axis for axis in own if axis not in axes and value.length(axis) != 1]
    lengths = [next((v.length(a) for v in values if v.length(a) != 1), 1) for a in axes]
    return tuple(axes), tuple(lengths)


def _plain(value: Value) -> Value:
    """A constant whose elements are all equal as one element, in the same number of axes."""
    array = value.array
    if array is None or array.size == 1 or not (array == array.flat[0]).all():
        return value
    return value._replace(array=array.flat[:1].reshape((1,) * array.ndim))


def _elementwise(operator: str) -> Operator:
    def convert(graph: Graph, equation: Any, values: Sequence[Value]) -> Value:
        values = [_plain(value) for value in values]
        axes, dims = _common(values)
        return Value(graph.add(operator, *(graph.tensor(value, axes) for value in values)), axes, dims)

    return convert


def _affine(operator: str) -> Operator:
    """Addition and its like, which vanish in the weights of a convolution before them."""
    otherwise = _elementwise(operator)

    def convert(graph: Graph, equation: Any, values: Sequence[Value]) -> Value:
        first, second = values
        if operator in ("Add", "Mul") and first.array is not None:
            first, second = second, first
        before, array = graph.convolutions.get(first.name), _plain(second).array
        if first.array is None and array is not None and (array == (operator in ("Mul", "Div"))).all():
            return first  # 1 as a factor, or 0 added
        if before is None or array is None or not first.alone:
            return otherwise(graph, equation, values)
        features = first.axes[1]
        if any(length != 1 for axis, length in enumerate(array.shape) if axis != features):
            return otherwise(graph, equation, values)
        number = array.reshape(-1).astype(np.float32)
        if operator in ("Mul", "Div"):
            factor = number if operator == "Mul" else 1 / number
            along = [1] * before.kernel.ndim
            along[before.features] = -1
            kernel, bias = before.kernel * factor.reshape(along), before.bias * factor
        else:
            kernel, bias = before.kernel, before.bias + (number if operator == "Add" else -number)
        graph.convolutions[first.name] = before._replace(kernel=kernel, bias=bias)
        return first

    return convert


def _unary(operator: str) -> Operator:
    def convert(graph: Graph, equation: Any, values: Sequence[Value]) -> Value:
        (value,) = values
        return Value(graph.add(operator, graph.tensor(value, value.axes)), value.axes, value.dims)

    return convert


def _chain(*operators: str) -> Operator:
    def convert(graph: Graph, equation: Any, values: Sequence[Value]) -> Value:
        for operator in operators:
            values = [_unary(operator)(graph, equation, values)]
        return values[0]

    return convert


def _square(graph: Graph, equation: Any, values: Sequence[Value]) -> Value:
    return _elementwise("Mul")(graph, equation, [*values, *values])


def _integer_power(graph: Graph, equation: Any, values: Sequence[Value]) -> Value:
    power = Value(array=np.array(equation.params["y"], np.float32))
    return _elementwise("Pow")(graph, equation, [*values, power])


def _maximum(graph: Graph, equation: Any, values: Sequence[Value]) -> Value:
    first, second = map(_plain, values)
    for value, other in ((first, second), (second, first)):
        if other.array is not None and other.array.size == 1 and not other.array.any():
            return _unary("Relu")(graph, equation, [value])
    return _elementwise("Max")(graph, equation, values)


def _clamp(graph: Graph, equation: Any, values: Sequence[Value]) -> Value:
    low, value, high = values
    value = _elementwise("Max")(graph, equation, [value, low])
    return _elementwise("Min")(graph, equation, [value, high])


def _select(graph: Graph, equation: Any, values: Sequence[Value]) -> Value:
    """Leaky ReLU, as Flax writes it, is one operation; anything else a choice between two."""
    which, when_false, when_true = values
    compared, compared_to = graph.made.get(which.name, ("", ()))
    scaled, factors = graph.made.get(when_false.name, ("", ()))
    if compared == "ge" and scaled == "mul" and when_true.name == compared_to[0].name:
        zero = _plain(compared_to[1]).array
        others = [_plain(v).array for v in factors if v.name != when_true.name]
        slope = others[0] if len(others) == 1 else None
        if zero is not None and not zero.any() and slope is not None and slope.size == 1:
            name = graph.add("LeakyRelu", when_true.name, alpha=slope.item())
            return Value(name, when_true.axes, when_true.dims)
    return _elementwise("Where")(graph, equation, [which, when_true, when_false])


def _convert(graph: Graph, equation: Any, values: Sequence[Value]) -> Value:
    (value,) = values
    to = graph.onnx.helper.np_dtype_to_tensor_dtype(np.dtype(equation.params["new_dtype"]))
    return Value(graph.add("Cast", graph.tensor(value, value.axes), to=to), value.axes, value.dims)


# ---------------------------------------------------------------- axes
def _moved(value: Value, places: Mapping[int, int], rank: int) -> Value:
    """The array's axis i becomes axis places[i] of `rank`; others, of length 1, go, and new ones come."""
    if value.array is None:
        return value._replace(axes=tuple(places[axis] for axis in value.axes))
    if not value.array.ndim:
        return value
    order = sorted(places, key=lambda axis: places[axis])
    lengths = [1] * rank
    for axis in order:
        lengths[places[axis]] = value.array.shape[axis]
    rest = [axis for axis in range(value.array.ndim) if axis not in places]
    return value._replace(array=value.array.transpose(*order, *rest).reshape(lengths))


def _transpose(graph: Graph, equation: Any, values: Sequence[Value]) -> Value:
    order = equation.params["permutation"]
    return _moved(values[0], {axis: place for place, axis in enumerate(order)}, len(order))


def _broadcast(graph: Graph, equation: Any, values: Sequence[Value]) -> Value:
    places = {axis: int(place) for axis, place in enumerate(equation.params["broadcast_dimensions"])}
    return _moved(values[0], places, len(_shape(equation.outvars[0])))


def _reshape(graph: Graph, equation: Any, values: Sequence[Value]) -> Value:
    (value, *_), old = values, _shape(equation.invars[0])
    new = _shape(equation.outvars[0])
    old_axes = [axis for axis, length in enumerate(old) if length != 1]
    new_axes = [axis for axis, length in enumerate(new) if length != 1]
    if [old[axis] for axis in old_axes] == [new[axis] for axis in new_axes]:  # axes of length 1 come and go
        if any(axis not in old_axes for axis in value.axes):
            kept = tuple(axis for axis in value.axes if axis in old_axes)
            dims = tuple(value.length(axis) for axis in kept)
            value = Value(graph.tensor(value, kept), kept, dims, alone=False)
        return _moved(value, dict(zip(old_axes, new_axes, strict=True)), len(new))
    lengths = [new[axis] for axis in new_axes]
    name = graph.reshaped(graph.tensor(value, old_axes, old), lengths)
    return Value(name, tuple(new_axes), tuple(lengths))


def _concatenated(
    graph: Graph, axis: int, shapes: Sequence[tuple[Any, ...]], values: Sequence[Value]
) -> Value:
    axes = list(max((v for v in values if v.array is None), key=lambda v: len(v.axes)).axes)
    axes += [a for a in range(len(shapes[0])) if a not in axes and (a == axis or shapes[0][a] != 1)]
    names = [graph.tensor(value, axes, shape) for value, shape in zip(values, shapes, strict=True)]
    dims = [sum(s[a] for s in shapes) if a == axis else shapes[0][a] for a in axes]
    return Value(graph.add("Concat", *names, axis=axes.index(axis)), tuple(axes), tuple(dims))


def _concatenate(graph: Graph, equation: Any, values: Sequence[Value]) -> Value:
    shapes = [_shape(atom) for atom in equation.invars]
    return _concatenated(graph, equation.params["dimension"], shapes, values)


def _stack(graph: Graph, equation: Any, values: Sequence[Value]) -> Value:
    place, old = equation.params["axis"], _shape(equation.invars[0])
    places = {axis: axis + (axis >= place) for axis in range(len(old))}
    moved = [_moved(value, places, len(old) + 1) for value in values]
    return _concatenated(graph, place, [(*old[:place], 1, *old[place:])] * len(values), moved)


def _slice(graph: Graph, equation: Any, values: Sequence[Value]) -> Value:
    (value,), params, old = values, equation.params, _shape(equation.invars[0])
    strides = params["strides"] or (1,) * len(old)
    cut = [
        axis
        for axis in value.axes
        if value.length(axis) != 1 and _shape(equation.outvars[0])[axis] != old[axis]
    ]
    if not cut:
        return value
    lists = [[v[axis] for axis in cut] for v in (params["start_indices"], params["limit_indices"])]
    lists += [[value.axes.index(axis) for axis in cut], [strides[axis] for axis in cut]]
    name = graph.add("Slice", value.name, *(graph.whole(numbers) for numbers in lists))
    new = _shape(equation.outvars[0])
    dims = [new[axis] if axis in cut else value.length(axis) for axis in value.axes]
    return Value(name, value.axes, tuple(dims))


def _pad(graph: Graph, equation: Any, values: Sequence[Value]) -> Value:
    (value, filler), config, old = values, equation.params["padding_config"], _shape(equation.invars[0])
    if any(interior for _, _, interior in config) or value.array is not None:
        raise _refused(equation, "gaps")
    widened = [axis for axis, (low, high, _) in enumerate(config) if low or high]
    axes = (*value.axes, *(axis for axis in widened if axis not in value.axes))
    pads = [config[axis][end] for end in (0, 1) for axis in axes]
    new = _shape(equation.outvars[0])
    name = graph.tensor(value, axes, old)
    name = graph.add("Pad", name, graph.whole(pads), graph.tensor(filler, ()))
    return Value(name, axes, tuple(new[axis] for axis in axes))


# ---------------------------------------------------------------- sums and products
def _reduction(operator: str) -> Operator:
    def convert(graph: Graph, equation: Any, values: Sequence[Value]) -> Value:
        (value,), shape = values, _shape(equation.invars[0])
        gone = [int(axis) for axis in equation.params["axes"] if shape[int(axis)] != 1]
        axes = value.axes + tuple(axis for axis in gone if axis not in value.axes)
        name = graph.tensor(value, axes, shape)
        if gone:  # to ONNX no axes mean all of them
            places = graph.whole([axes.index(axis) for axis in gone])
            name = graph.add(operator, name, places, keepdims=0)
        kept = [axis for axis in axes if axis not in gone]
        result = Value(name, tuple(kept), tuple(shape[axis] for axis in kept))
        left = [axis for axis in range(len(shape)) if axis not in map(int, equation.params["axes"])]
        if not set(kept) <= set(left):  # of length 1, and summed over as well
            kept = [axis for axis in kept if axis in left]
            name = graph.tensor(result, kept)
            result = Value(name, tuple(kept), tuple(shape[axis] for axis in kept))
        return _moved(result, {axis: place for place, axis in enumerate(left)}, len(left))

    return convert


def _argmax(graph: Graph, equation: Any, values: Sequence[Value]) -> Value:
    (value,), shape = values, _shape(equation.invars[0])
    (gone,) = map(int, equation.params["axes"])
    axes = value.axes + tuple(
        a for a in range(len(shape)) if a not in value.axes and (a == gone or shape[a] != 1)
    )
    name = graph.add("ArgMax", graph.tensor(value, axes, shape), axis=axes.index(gone), keepdims=0)
    to = graph.onnx.helper.np_dtype_to_tensor_dtype(np.dtype(equation.params["index_dtype"]))
    kept = tuple(axis for axis in axes if axis != gone)
    result = Value(graph.add("Cast", name, to=to), kept, tuple(shape[axis] for axis in kept))
    left = [axis for axis in range(len(shape)) if axis != gone]
    return _moved(result, {axis: place for place, axis in enumerate(left)}, len(left))


def _product(graph: Graph, equation: Any, values: Sequence[Value]) -> Value:
    summed, batch = equation.params["dimension_numbers"]
    shapes, out = [_shape(atom) for atom in equation.invars], _shape(equation.outvars[0])
    if any(batch) or len(summed[0]) != 1:
        raise _refused(equation, "several axes at once")
    free = [[a for a in range(len(shapes[i])) if a not in summed[i]] for i in (0, 1)]
    wide = [[a for a in free[i] if shapes[i][a] != 1] for i in (0, 1)]
    first, second = (0, 1) if len(wide[1]) < 2 else (1, 0)  # ONNX's second factor is a matrix
    if len(wide[second]) > 1:
        raise _refused(equation, "two factors of more than two axes")
    last = wide[second] or free[second][:1]
    left = graph.tensor(values[first], [*wide[first], *summed[first]], shapes[first])
    right = graph.tensor(values[second], [*summed[second], *last], shapes[second])
    places = [{axis: place for place, axis in enumerate(free[0])}]
    places.append({axis: len(free[0]) + place for place, axis in enumerate(free[1])})
    axes = [places[first][axis] for axis in wide[first]] + [places[second][axis] for axis in last]
    return Value(graph.add("MatMul", left, right), tuple(axes), tuple(out[axis] for axis in axes))


def _convolution(graph: Graph, equation: Any, values: Sequence[Value]) -> Value:
    """Stride 1 over an image with gaps (`lhs_dilation`) is a transposed convolution."""
    params, (image, kernel) = equation.params, values
    groups, gaps = params["feature_group_count"], params["lhs_dilation"]
    numbers, spread = params["dimension_numbers"], any(gap != 1 for gap in gaps)
    if kernel.array is None or params["batch_group_count"] != 1:
        raise _refused(equation, "weights that are computed, or groups of images")
    weights = np.broadcast_to(kernel.array, _shape(equation.invars[1])).transpose(numbers.rhs_spec)  # O I H W
    size, padding = weights.shape[2:], params["padding"]
    settings: dict[str, Any] = {"group": groups, "dilations": list(params["rhs_dilation"])}
    if spread:
        low = [k - 1 - before for k, (before, _) in zip(size, padding, strict=True)]
        high = [k - 1 - after for k, (_, after) in zip(size, padding, strict=True)]
        if groups != 1 or {*params["window_strides"], *params["rhs_dilation"]} != {1}:
            raise _refused(equation, "gaps in the image and in the kernel, or groups")
        settings |= {"strides": list(gaps), "output_padding": [max(0, -after) for after in high]}
        high = [max(0, after) for after in high]
        weights = weights[:, :, ::-1, ::-1].transpose(1, 0, 2, 3)
    else:
        low, high = ([pair[end] for pair in padding] for end in (0, 1))
        settings["strides"] = list(params["window_strides"])
    if min(low + high) < 0 or weights.ndim != 4:
        raise _refused(equation, f"padding {padding}")
    name = graph.add(
        "ConvTranspose" if spread else "Conv",
        graph.tensor(image, numbers.lhs_spec, _shape(equation.invars[0])),
        pads=low + high,
        kernel_shape=list(size),
        **settings,
    )
    features = 1 if spread else 0
    bias = np.zeros(weights.shape[features], np.float32)
    graph.convolutions[name] = Convolution(weights.astype(np.float32), bias, features)
    out = _shape(equation.outvars[0])
    return Value(name, tuple(numbers.out_spec), tuple(out[axis] for axis in numbers.out_spec))


def _pool(operator: str) -> Callable:
    def convert(graph: Graph, equation: Any, values: Sequence[Value]) -> Value:
        (value, *_), params, shape = values, equation.params, _shape(equation.invars[0])
        window, strides = params["window_dimensions"], params["window_strides"]
        if {*params["base_dilation"], *params["window_dilation"]} != {1}:
            raise _refused(equation, "gaps")
        pooled = [a for a, (w, s) in enumerate(zip(window, strides, strict=True)) if (w, s) != (1, 1)]
        others = [axis for axis in range(len(shape)) if axis not in pooled and shape[axis] != 1]
        others += [axis for axis in range(len(shape)) if axis not in pooled + others]
        axes = (*sorted(others[:2]), *pooled)
        if len(pooled) != 2 or len(axes) != 4 or any(shape[axis] != 1 for axis in others[2:]):
            raise _refused(equation, f"a window {window}")
        settings: dict[str, Any] = {"count_include_pad": 1} if operator == "AveragePool" else {}
        name = graph.add(
            operator,
            graph.tensor(value, axes, shape),
            kernel_shape=[window[axis] for axis in pooled],
            strides=[strides[axis] for axis in pooled],
            pads=[params["padding"][axis][end] for end in (0, 1) for axis in pooled],
            **settings,
        )
        if operator == "AveragePool":  # a sum is wanted
            area = math.prod(window)
            name = graph.add("Mul", name, graph.constant(np.array(area, np.float32)))
        out = _shape(equation.outvars[0])
        return Value(name, axes, tuple(out[axis] for axis in axes))

    return convert


def _same(graph: Graph, equation: Any, values: Sequence[Value]) -> Value:
    return values[0]


OPERATORS: dict[str, Operator] = {
    "add": _affine("Add"),
    "sub": _affine("Sub"),
    "mul": _affine("Mul"),
    "div": _affine("Div"),
    "max": _maximum,
    "min": _elementwise("Min"),
    "pow": _elementwise("Pow"),
    "integer_pow": _integer_power,
    "square": _square,
    "eq": _elementwise("Equal"),
    "ge": _elementwise("GreaterOrEqual"),
    "gt": _elementwise("Greater"),
    "le": _elementwise("LessOrEqual"),
    "lt": _elementwise("Less"),
    "select_n": _select,
    "clamp": _clamp,
    "abs": _unary("Abs"),
    "erf": _unary("Erf"),
    "exp": _unary("Exp"),
    "log": _unary("Log"),
    "logistic": _unary("Sigmoid"),
    "neg": _unary("Neg"),
    "rsqrt": _chain("Sqrt", "Reciprocal"),
    "sqrt": _unary("Sqrt"),
    "tanh": _unary("Tanh"),
    "convert_element_type": _convert,
    "copy": _same,
    "optimization_barrier": _same,
    "broadcast_in_dim": _broadcast,
    "concatenate": _concatenate,
    "expand_dims": _reshape,
    "pad": _pad,
    "reshape": _reshape,
    "slice": _slice,
    "squeeze": _reshape,
    "stack": _stack,
    "transpose": _transpose,
    "argmax": _argmax,
    "conv_general_dilated": _convolution,
    "dot_general": _product,
    "reduce_max": _reduction("ReduceMax"),
    "reduce_sum": _reduction("ReduceSum"),
    "reduce_window_max": _pool("MaxPool"),
    "reduce_window_sum": _pool("AveragePool"),
}
