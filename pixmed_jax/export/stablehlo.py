"""StableHLO by `jax.export`: the prediction with its weights, for CPUs and NVIDIA GPUs, batches of any size.

    network = jax.export.deserialize(bytearray(Path("generator.stablehlo").read_bytes()))
    images = network.call(maps, seeds)

JAX alone runs it; and what it draws at random are the very numbers that the project draws. Where operations
stand in the source is left out: it would name folders of whoever made the file.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
from jax import export

from pixmed_jax.export.interface import Interface

PLATFORMS = ("cpu", "cuda")
_FRAMES = "jax_traceback_in_locations_limit"


def write(path: Path, interface: Interface) -> None:
    def predict(stored: jax.Array, seeds: jax.Array) -> jax.Array:
        return interface.predict(interface.variables, stored, seeds)

    with _without_places():
        exported = export.export(jax.jit(predict), platforms=PLATFORMS)(*interface.shapes())
    path.write_bytes(exported.serialize())


@contextmanager
def _without_places() -> Iterator[None]:
    """What is lowered meanwhile does not say which lines of which files it is of."""
    frames = getattr(jax.config, _FRAMES)
    jax.config.update(_FRAMES, 0)
    try:
        yield
    finally:
        jax.config.update(_FRAMES, frames)


def runner(path: Path) -> Callable[[Any, Any, Any], jax.Array]:
    """(stored, seeds, what else is drawn, which is not looked at) -> prediction, by the file alone."""
    call = jax.jit(export.deserialize(bytearray(path.read_bytes())).call)
    return lambda stored, seeds, _: call(stored, seeds)


def describe(interface: Interface) -> dict[str, Any]:
    """What config.json says of the file: inputs in their order."""
    inputs = {name: interface.docs[name] for name in (interface.stored, "seeds")}
    outputs = {interface.output: interface.docs[interface.output]}
    return {"platforms": list(PLATFORMS), "inputs": inputs, "outputs": outputs}
