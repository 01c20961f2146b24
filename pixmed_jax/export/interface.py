"""What an exported network takes and gives, whatever its form, and examples to compare the forms on."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pixmed_jax.inference import Generator, Network, image_seeds


class Interface(NamedTuple):
    """`predict(variables, stored, seeds [N] uint32)` and the names and shapes of what goes in and out.

    stored: "maps" [N, S, S], "labels" [N] or "images" [N, S, S, C], uint8 all of them, in `low` .. `high`.
    """

    predict: Callable
    variables: Any
    stored: str
    shape: tuple[int, ...]  # of one
    low: int
    high: int
    output: str
    predicts: str  # as a task's: "images", "labels" or "masks"
    docs: dict[str, str]  # one line for each of `stored`, "seeds", `output`

    def shapes(self) -> tuple[jax.ShapeDtypeStruct, jax.ShapeDtypeStruct]:
        """Stored and seeds of a batch whose size is a symbol."""
        (batch,) = jax.export.symbolic_shape("N")
        return (
            jax.ShapeDtypeStruct((batch, *self.shape), jnp.uint8),
            jax.ShapeDtypeStruct((batch,), jnp.uint32),
        )

    def example(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Stored and seeds, the same at every call; maps are of blocks, so that edges lie everywhere."""
        rng = np.random.default_rng(count)
        if len(self.shape) < 2:
            stored = rng.integers(self.low, self.high + 1, (count, *self.shape))
        else:
            side, *others = self.shape[1:]
            coarse = rng.integers(self.low, self.high + 1, (count, -(-side // 4), -(-side // 4), *others))
            stored = coarse.repeat(4, axis=1).repeat(4, axis=2)[:, :side, :side]
        return stored.astype(np.uint8), image_seeds(count, count)


def of(model: Generator | Network) -> Interface:
    """The interface of a loaded model, on the CPU."""
    predict, (variables, stored, _) = model.one_image(jax.devices("cpu")[0])
    variables, shape = jax.tree.map(np.asarray, variables), stored.shape[1:]
    seeds = "uint32 [N], one for each image; the same seed and input give the same image"
    named = ", ".join(f"{i} {name}" for i, name in enumerate(model.classes, 1))
    size, high = f"{model.size}, {model.size}", len(model.classes)
    if isinstance(model, Network):
        logits = {
            "labels": f"float32 [N, {high}], logits of {named}",
            "masks": f"float32 [N, {size}, {1 + high}], logits of 0 background, {named}",
        }
        docs = {
            "images": f"uint8 [N, {size}, {shape[-1]}], grey values 0 to 255",
            "seeds": "uint32 [N], of no consequence",
            "logits": logits[model.predicts],
        }
        return Interface(predict, variables, "images", shape, 0, 255, "logits", model.predicts, docs)
    channels = model.config["data"]["channels"]
    output = f"float32 [N, {size}, {channels}] in [0, 1]"
    if not model.takes_maps:
        docs = {"labels": f"uint8 [N], {named}", "seeds": seeds, "images": output}
        return Interface(predict, variables, "labels", shape, 1, high, "images", "images", docs)
    docs = {"maps": f"uint8 [N, {size}], 0 background, {named}", "seeds": seeds, "images": output}
    return Interface(predict, variables, "maps", shape, 0, high, "images", "images", docs)
