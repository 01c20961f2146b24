"""ONNX: the prediction with its weights for ONNX Runtime, in Python, in a browser or elsewhere.

Random numbers are inputs, one set for each image: `uniform_0 ..` in [0, 1), `normal_0 ..` of mean 0 and
deviation 1. With the numbers that JAX draws from a seed the image is JAX's.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from pixmed_jax import __version__
from pixmed_jax.export import flat
from pixmed_jax.export.graph import OPSET, Graph, Value, onnx_library
from pixmed_jax.export.interface import Interface
from pixmed_jax.export.operators import OPERATORS


class Noise(NamedTuple):
    """An input of random numbers: its name, and its shape for one image, without axes of length 1."""

    name: str
    kind: str
    shape: tuple[int, ...]


def noises(interface: Interface) -> list[Noise]:
    drawn = flat.draws(interface.predict, interface.variables, *interface.shapes())
    return [
        Noise(f"{draw.kind}_{i}", draw.kind, tuple(length for length in draw.shape[1:] if length != 1))
        for i, draw in enumerate(drawn)
    ]


def describe(interface: Interface) -> dict[str, Any]:
    """What config.json says of the file: inputs in their order."""
    ranges = {"uniform": "uniform in [0, 1)", "normal": "standard normal"}
    inputs = {interface.stored: interface.docs[interface.stored]}
    for noise in noises(interface):
        shape = ", ".join(map(str, ("N", *noise.shape)))
        inputs[noise.name] = f"float32 [{shape}], {ranges[noise.kind]}"
    return {"opset": OPSET, "inputs": inputs, "outputs": {interface.output: interface.docs[interface.output]}}


def write(path: Path, interface: Interface, dtype: str) -> None:
    """The graph with weights as `dtype`, float32 or float16; it computes in float32."""
    stored, seeds = interface.shapes()
    drawn = flat.draws(interface.predict, interface.variables, stored, seeds)
    closed = jax.make_jaxpr(flat.with_noise(interface.predict, seeds))(
        interface.variables, stored, *(jax.ShapeDtypeStruct(draw.shape, np.float32) for draw in drawn)
    )
    described, graph = describe(interface), Graph()
    docs = described["inputs"]
    kind = {"uint8": "uint8", "float32": "float"}[interface.dtype]  # as ONNX names them
    given = [Value(array=np.asarray(leaf)) for leaf in jax.tree.leaves(interface.variables)]
    given.append(
        graph.input(interface.stored, stored.shape, range(len(stored.shape)), kind, docs[interface.stored])
    )
    for noise, draw in zip(noises(interface), drawn, strict=True):
        axes = [axis for axis, length in enumerate(draw.shape) if axis == 0 or length != 1]
        given.append(graph.input(noise.name, draw.shape, axes, "float", docs[noise.name]))
    (result,) = graph.follow(closed, given, OPERATORS)
    facts = {"pixmed_jax": __version__, **docs, **described["outputs"]}
    shape = closed.jaxpr.outvars[0].aval.shape
    model = graph.model(result, shape, interface.output, facts, half=dtype == "float16")
    path.write_bytes(model.SerializeToString())


def runner(path: Path, interface: Interface) -> Callable[[Any, Any, Sequence[Any]], np.ndarray]:
    """(stored, seeds, which are not looked at, noise in the order of the inputs) -> prediction, by the file
    alone, on the CPU.
    """
    runtime = onnx_library("onnxruntime")
    session = runtime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    names = noises(interface)

    def run(stored: Any, seeds: Any, given: Sequence[Any]) -> np.ndarray:
        feed = {interface.stored: stored}
        for noise, array in zip(names, given, strict=True):
            feed[noise.name] = np.asarray(array, np.float32).reshape(len(stored), *noise.shape)
        return session.run([interface.output], feed)[0]

    return run
