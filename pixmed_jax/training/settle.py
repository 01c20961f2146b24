"""Styles, settled once a training is over: those a map is expected to have, fitted to those that are read.

A generator that reads styles off real slices tells from a map which of them its slices have (a conditional
variational autoencoder, models/ghost_spade.py). While it trains that runs behind: a step shows it a few
slices, and what it is to tell moves with every step. Afterwards nothing moves any more, and one look at the
training slices says what is read of each: a small regression is left, of seconds. BUILD_NOTES ("Settled") has
what it is worth. Two-stage VAEs (Dai and Wipf, ICLR 2019) part the two for a like reason.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from pixmed_jax import workdir as run_folder
from pixmed_jax.data.pipeline import Batch
from pixmed_jax.data.sources import Dataset
from pixmed_jax.progress import watched
from pixmed_jax.training.task import Metrics, Settle

_SLICES, _LOOK = 4096, 64  # slices that are looked at, and at once
_EPOCHS, _BATCH, _RATE = 60, 64, 1e-3  # of Adam; the rate falls along a cosine to 0


def is_settled(workdir: Path, step: int) -> bool:
    """Whether the records of a run say that the styles of this step were settled; if it has any."""
    records = run_folder.read_metrics(workdir)
    return not records or any(of.get("step") == step and "settled/divergence" in of for of in records)


def training_slices(dataset: Dataset) -> Iterator[Batch]:
    """Training slices as they are, neither cropped nor changed; of many, some of every patient."""
    rows = dataset.spread("train", _SLICES)
    parts = np.split(rows, range(_LOOK, len(rows), _LOOK))
    if len(parts) > 1 and len(parts[-1]) < _LOOK:
        parts.pop()  # another shape would be compiled for it
    for part in watched(parts, len(parts), "settling"):
        arrays, _ = dataset.load(part, dataset.size)
        yield jax.device_get(dataset.batch(arrays))  # of no device, so that several processes may use it


def told(values: Mapping[str, float]) -> str:
    """What settling came to, in a line for the terminal."""
    after, before = values["divergence"], values["divergence_before"]
    if not after < before:
        return "settled: the styles expected of a map stay as they are; fitted anew they came no nearer"
    return (
        "settled: the styles expected of a map are fitted to those read of the training slices, "
        f"{after:.3f} nats apart now, {before:.3f} before (0: equal)"
    )


def styles_of(generator: nn.Module) -> Settle:
    """How the styles of a generator settle: (variables, training slices, key) -> (variables whose "prior" is
    fitted, what it came to).

    The divergences are those of the styles read from those expected, in nats, over all slices. Few slices are
    not looked at oftener than many, or they would be known by heart; nothing is kept of a fit that is no
    better than what there was, or not finite.
    """

    @jax.jit
    def look(variables: Any, batch: Batch) -> tuple[jax.Array, Any]:
        return generator.apply(variables, batch.condition, batch.images, method="readings")

    @jax.jit
    def fit(variables: Any, looks: tuple, key: jax.Array) -> tuple[Any, dict]:
        def divergence(prior: Any, summaries: jax.Array, read: Any) -> jax.Array:
            params = {**variables["params"], "prior": prior}
            told = generator.apply({**variables, "params": params}, summaries, method="expected")
            return read.divergence_from(told).mean()

        count = len(looks[0])
        steps = max(1, _EPOCHS * count // _BATCH)
        optimizer = optax.adam(optax.cosine_decay_schedule(_RATE, steps))

        def step(carry: tuple, key: jax.Array) -> tuple[tuple, None]:
            prior, state = carry
            rows = jax.random.randint(key, (_BATCH,), 0, count)
            gradient = jax.grad(divergence)(prior, *jax.tree.map(lambda x: x[rows], looks))
            updates, state = optimizer.update(gradient, state)
            return (optax.apply_updates(prior, updates), state), None

        before = variables["params"]["prior"]
        (after, _), _ = jax.lax.scan(step, (before, optimizer.init(before)), jax.random.split(key, steps))
        values = {"divergence_before": divergence(before, *looks), "divergence": divergence(after, *looks)}
        better = values["divergence"] < values["divergence_before"]
        prior = jax.tree.map(lambda new, old: jnp.where(better, new, old), after, before)
        return {**variables, "params": {**variables["params"], "prior": prior}}, values

    def settle(variables: Any, batches: Iterable[Batch], key: jax.Array) -> tuple[Any, Metrics]:
        looks = [jax.device_get(look(variables, batch)) for batch in batches]
        return fit(variables, jax.tree.map(lambda *parts: np.concatenate(parts), *looks), key)

    return settle
