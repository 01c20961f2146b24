"""What an exported network takes and gives, whatever its form, and examples to compare the forms on."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pixmed_jax.data.slices import PLANES
from pixmed_jax.inference import Generator, Network, Restorer, image_seeds
from pixmed_jax.layouts import Layouts
from pixmed_jax.models.layers import PREPARED


class Interface(NamedTuple):
    """`predict(variables, stored, seeds [N] uint32)` and the names and shapes of what goes in and out.

    stored: "maps" [N, S, S], "labels" [N], "wanted" [N, 2] or "images" [N, S, S, C], uint8 in `low` ..
    `high`, or "degraded" [N, h, w, C] float32 in [0, 1]. name: of the network in the files' names.
    """

    name: str

    predict: Callable
    variables: Any
    stored: str
    shape: tuple[int, ...]  # of one
    low: int | tuple[int, ...]
    high: int | tuple[int, ...]
    output: str
    docs: dict[str, str]  # one line for each of `stored`, "seeds", `output`

    @property
    def dtype(self) -> str:
        """Of what is stored."""
        return "float32" if self.stored == "degraded" else "uint8"

    def shapes(self) -> tuple[jax.ShapeDtypeStruct, jax.ShapeDtypeStruct]:
        """Stored and seeds of a batch whose size is a symbol."""
        (batch,) = jax.export.symbolic_shape("N")
        return (
            jax.ShapeDtypeStruct((batch, *self.shape), self.dtype),
            jax.ShapeDtypeStruct((batch,), jnp.uint32),
        )

    def example(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Stored and seeds, the same at every call; maps are of blocks, so that edges lie everywhere."""
        rng, end = np.random.default_rng(count), np.add(self.high, 1)
        if self.stored == "degraded":
            return rng.random((count, *self.shape), np.float32), image_seeds(count, count)
        if len(self.shape) < 2:
            stored = rng.integers(self.low, end, (count, *self.shape))
        else:
            side, *others = self.shape[1:]
            coarse = rng.integers(self.low, end, (count, -(-side // 4), -(-side // 4), *others))
            stored = coarse.repeat(4, axis=1).repeat(4, axis=2)[:, :side, :side]
        return stored.astype(np.uint8), image_seeds(count, count)


def of(model: Generator | Network | Restorer | Layouts) -> Interface:
    """The interface of a loaded model, on the CPU."""
    predict, (variables, stored, _) = model.one_image(jax.devices("cpu")[0])
    variables.pop(PREPARED, None)  # an exported network is for batches of any size
    variables, shape = jax.tree.map(np.asarray, variables), stored.shape[1:]
    named = ", ".join(f"{i} {name}" for i, name in enumerate(model.classes, 1))
    size, high, channels = model.size, len(model.classes), model.config["data"]["channels"]
    pixels = f"{size}, {size}"
    if isinstance(model, Generator):
        of_maps = model.takes_maps
        docs = {
            "maps": f"uint8 [N, {pixels}], 0 background, {named}",
            "labels": f"uint8 [N], {named}",
            "seeds": "uint32 [N], one for each image; the same seed and input give the same image",
            "images": f"float32 [N, {pixels}, {channels}] in [0, 1]",
        }
        kind, low = ("maps", 0) if of_maps else ("labels", 1)
        return Interface("generator", predict, variables, kind, shape, low, high, "images", docs)
    if isinstance(model, Layouts):
        planes = ", ".join(f"{i} {name}" for i, name in enumerate(PLANES, 1) if name in model.planes)
        tumors = ", ".join(f"{i} {name}" for i, name in enumerate(model.tumors, 1))
        docs = {
            "wanted": f"uint8 [N, 2], tumour ({tumors}) and plane (0 unknown{planes and ', ' + planes})",
            "seeds": "uint32 [N], one for each map; the same seed and input give the same map",
            "logits": f"float32 [N, {pixels}, {1 + high}] of a new map: each pixel is the largest of "
            f"0 background, {named}",
        }
        highest = (len(model.tumors), len(PLANES) if model.planes else 0)
        return Interface("layouts", predict, variables, "wanted", shape, (1, 0), highest, "logits", docs)
    docs = {"seeds": "uint32 [N], of no consequence"}
    if isinstance(model, Restorer):
        docs["degraded"] = f"float32 [N, {', '.join(map(str, shape))}] in [0, 1]"
        docs["restored"] = f"float32 [N, {pixels}, {channels}] in [0, 1]"
        return Interface("restorer", predict, variables, "degraded", shape, 0, 1, "restored", docs)
    docs["images"] = f"uint8 [N, {', '.join(map(str, shape))}], grey values 0 to 255"
    docs["logits"] = {
        "labels": f"float32 [N, {high}], logits of {named}",
        "masks": f"float32 [N, {pixels}, {1 + high}], logits of 0 background, {named}",
    }[model.predicts]
    name = {"labels": "classifier", "masks": "segmenter"}[model.predicts]
    return Interface(name, predict, variables, "images", shape, 0, 255, "logits", docs)
