"""Styles, settled once a training is over: those a map is expected to have, fitted to those that are read.

A generator that reads styles off real slices tells from a map which of them its slices have (a conditional
variational autoencoder, models/ghost_spade.py). While it trains that runs behind: a step shows it a few
slices, and what it is to tell moves with every step. Afterwards nothing moves any more, and one look at the
training slices says what is read of each: a small regression is left, of seconds. BUILD_NOTES ("Settled") has
what it is worth. Two-stage VAEs (Dai and Wipf, ICLR 2019) part the two for a like reason.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from pixmed_jax.data.pipeline import Batch, whole_batch
from pixmed_jax.data.sources import Dataset
from pixmed_jax.progress import watched

_SLICES, _LOOK = 4096, 64  # training slices that are looked at, and at once
_STEPS, _BATCH, _RATE = 2000, 64, 2e-3  # of Adam; the rate falls along a cosine to 0


def training_slices(dataset: Dataset) -> Iterator[Batch]:
    """Training slices as they are, neither cropped nor changed, of all patients alike where they are many."""
    rows = dataset.spread("train", _SLICES)
    parts = np.split(rows, range(_LOOK, len(rows), _LOOK))
    if len(parts) > 1 and len(parts[-1]) < _LOOK:
        parts.pop()  # another shape would be compiled for it
    for part in watched(parts, len(parts), "settling"):
        arrays, _ = dataset.load(part, dataset.size)
        batch = whole_batch(
            arrays, classes=len(dataset.classes), channels=dataset.channels, degrade=dataset.degrade
        )
        yield jax.device_get(batch)  # of no device, so that several processes may use it


def styles_of(generator: nn.Module) -> Callable[[Any, Iterable[Batch], jax.Array], tuple[Any, dict]]:
    """(variables, batches of training slices, key) -> (variables whose "prior" is fitted, what it came to).

    The divergences are those of the styles read from those expected, in nats, over all slices. Of numbers
    that are not finite, or of a fit that is worse than what was there, nothing is kept.
    """

    @jax.jit
    def look(variables: Any, batch: Batch) -> tuple[jax.Array, Any]:
        return generator.apply(variables, batch.condition, batch.images, method="readings")

    @jax.jit
    def fit(variables: Any, summaries: jax.Array, read: Any, key: jax.Array) -> tuple[Any, dict]:
        def divergence(prior: Any, rows: Any = ...) -> jax.Array:
            params = {**variables["params"], "prior": prior}
            told = generator.apply({**variables, "params": params}, summaries[rows], method="expected")
            return type(read)(*(of[rows] for of in read)).divergence_from(told).mean()

        optimizer = optax.adam(optax.cosine_decay_schedule(_RATE, _STEPS))

        def step(carry: tuple, key: jax.Array) -> tuple[tuple, None]:
            prior, state = carry
            rows = jax.random.randint(key, (_BATCH,), 0, len(summaries))
            updates, state = optimizer.update(jax.grad(divergence)(prior, rows), state)
            return (optax.apply_updates(prior, updates), state), None

        before = variables["params"]["prior"]
        (after, _), _ = jax.lax.scan(step, (before, optimizer.init(before)), jax.random.split(key, _STEPS))
        values = {"divergence_before": divergence(before), "divergence": divergence(after)}
        better = values["divergence"] < values["divergence_before"]
        prior = jax.tree.map(lambda new, old: jnp.where(better, new, old), after, before)
        return {**variables, "params": {**variables["params"], "prior": prior}}, values

    def settle(variables: Any, batches: Iterable[Batch], key: jax.Array) -> tuple[Any, dict]:
        looks = [jax.device_get(look(variables, batch)) for batch in batches]
        summaries, read = jax.tree.map(lambda *parts: np.concatenate(parts), *looks)
        return fit(variables, summaries, read, key)

    return settle
