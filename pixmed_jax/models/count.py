"""How large a network is: parameters, multiply-accumulates and activation memory, without running it.

Convention for MACs: one per kernel weight and position it is applied at. A transposed convolution of stride 2
is applied at its INPUT pixels; counting it at its output pixels, as many published figures do, triples a
U-Net. A 3x3 convolution that enlarges is one of those, of 4x4 sums of its weights (convolutions.enlarging).
Norms, activations and losses are not counted.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np

from pixmed_jax.models.layers import Conv, ConvTranspose, Depthwise, Norm
from pixmed_jax.models.stylegan2 import EqualConv, EqualDense

_LAYERS = (Conv, ConvTranspose, Depthwise, EqualConv, nn.Conv, nn.ConvTranspose, nn.Dense, EqualDense)


class Size(NamedTuple):
    """Of one network: parameters and MACs (counts), activations (bytes of all layers' and norms' outputs)."""

    parameters: int
    macs: int
    activations: int


def parameter_count(params: Any) -> int:
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))


def size(module: nn.Module, init: Callable[[nn.Module], Any]) -> Size:
    """`init(module)` must call `module.init(...)` with the inputs to count; shapes alone are traced."""
    macs = activations = 0

    def record(call: Callable, args: tuple, kwargs: dict, context: nn.module.InterceptorContext) -> Any:
        nonlocal macs, activations
        y = call(*args, **kwargs)
        layer = context.module
        counted = isinstance(layer, _LAYERS) or (isinstance(layer, Norm) and layer.kind != "none")
        if context.method_name == "__call__" and counted:
            activations += math.prod(y.shape) * np.dtype(y.dtype).itemsize
            if not isinstance(layer, Norm):
                enlarges = getattr(layer, "enlarge", False)
                resample = getattr(layer, "resample", "")
                transposed = isinstance(layer, ConvTranspose | nn.ConvTranspose) or resample == "up"
                applied_to = args[0] if transposed or enlarges else y
                *sides, before, after = layer.variables["params"]["kernel"].shape
                sides = [4, 4] if enlarges else sides
                macs += math.prod((*sides, before, after)) * math.prod(applied_to.shape[:-1])
        return y

    with nn.intercept_methods(record):
        variables = jax.eval_shape(lambda: init(module))
    return Size(parameter_count(variables["params"]), macs, activations)


def reserved(compiled: jax.stages.Compiled) -> int | None:
    """Bytes that a compiled computation holds at once, from XLA's own analysis of it, if it makes one."""
    memory = compiled.memory_analysis()
    if memory is None:
        return None
    held = memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes
    return int(held - memory.alias_size_in_bytes)  # a donated argument is its output's place
