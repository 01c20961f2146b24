"""A trained layout model: tumour classes and planes in, label maps out, of no patient; implausible ones drawn
again.

    layouts = load("runs/layout-quick")
    maps = plausible(layouts, np.array([1, 2, 3]), np.zeros(3), 0, refused=Counter())  # [3, S, S] uint8
"""

from collections import Counter
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pixmed_jax import inference, memory
from pixmed_jax.data import plausible as rules
from pixmed_jax.data.pipeline import one_hot
from pixmed_jax.data.regions import is_tumor
from pixmed_jax.data.slices import PLANES
from pixmed_jax.errors import PixmedError
from pixmed_jax.training import checkpoint
from pixmed_jax.training.build import makes_layouts
from pixmed_jax.training.supervised import with_planes

_TRIES = 50  # draws of one layout


class Layouts:
    """Draws label maps by the class of their tumour, and by plane where it knows any.

    `classes` names their values 1 .. K, 0 is background; `planes` are those of PLANES that it was told.
    """

    def __init__(self, saved: checkpoint.Saved):
        if not makes_layouts(saved.config):
            raise PixmedError(
                f"{saved.path}: holds a {saved.config['name']}, which draws no label maps; give a run of "
                "configs/layout.py"
            )
        task, self._variables = inference.restored(saved)
        self.config = saved.config
        self.classes = saved.classes
        self.step = saved.step
        self.size: int = saved.config["data"]["size"]
        self.tumors = tuple(filter(is_tumor, saved.classes))
        self.planes = saved.planes
        classes, channels = len(saved.classes), saved.config["data"]["channels"]

        def inputs(wanted: jax.Array) -> jax.Array:
            values, planes = (jax.lax.index_in_dim(wanted, i, axis=1, keepdims=False) for i in (0, 1))
            pixel = one_hot(values[:, None, None], classes, channels)[..., :classes]
            return with_planes(pixel, planes.astype(jnp.int32), len(PLANES) if self.planes else 0)

        self._predict = inference.jit_predict(task, inputs)

    def __call__(
        self, values: np.ndarray, planes: np.ndarray, *, seeds: np.ndarray, batch_size: int = 8
    ) -> np.ndarray:
        """Tumour classes [N], values 1 .. T, planes [N], 1 .. of PLANES or 0 for unknown, and a seed for each
        -> label maps [N, S, S] uint8."""
        with memory.told(batch_size, self.size, "give a smaller batch_size (sample.batch_size)"):
            wanted = np.stack([values, planes], axis=-1).astype(np.uint8)
            logits = inference.in_batches(self._predict, self._variables, wanted, seeds, batch_size)
        return np.asarray(logits.argmax(-1), np.uint8)

    def one_image(self, device: jax.Device) -> tuple[Any, tuple[Any, ...]]:
        """As `Generator.one_image`: the logits of one map."""
        wanted = np.array([[1, 0]], np.uint8)
        return self._predict, jax.device_put((self._variables, wanted, inference.image_seeds(0, 1)), device)


def load(path: str | Path, step: int | str = "newest") -> Layouts:
    """The layout model of a run's folder at a step, of a step's own folder, or of an exported one."""
    return Layouts(inference.find(path, step))


def plausible(
    layouts: Layouts,
    values: np.ndarray,
    planes: np.ndarray,
    seed: int,
    refused: Counter[str],
    *,
    batch_size: int = 8,
) -> np.ndarray:
    """Label maps [N, S, S] of tumour classes and planes [N]; map i depends on (seed, i) and these alone.

    A map that `rules.refusal` refuses is counted by reason and drawn again.
    """
    maps = np.zeros((len(values), layouts.size, layouts.size), np.uint8)
    left = np.arange(len(values))
    for attempt in range(_TRIES):
        seeds = np.array(
            [np.random.SeedSequence([seed, int(i), attempt]).generate_state(1)[0] for i in left], np.uint32
        )
        drawn = layouts(values[left], planes[left], seeds=seeds, batch_size=batch_size)
        drawn = np.stack([rules.tidied(one, layouts.classes) for one in drawn])
        reasons = [
            rules.refusal(one, int(value), layouts.classes)
            for one, value in zip(drawn, values[left], strict=True)
        ]
        maps[left] = drawn
        refused.update(f"layout: {reason}" for reason in reasons if reason)
        left = left[[bool(reason) for reason in reasons]]
        if not len(left):
            return maps
    told = ", ".join(f"{count} {reason}" for reason, count in refused.most_common())
    raise PixmedError(
        f"{len(left)} of {len(values)} layouts are not plausible in {_TRIES} draws ({told}); "
        "train the layout model longer"
    )
