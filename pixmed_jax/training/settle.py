"""Styles, settled once a training is over: those a map is expected to have, fitted to those that are read.

A generator that reads styles off real slices tells from a map which of them its slices have (a conditional
variational autoencoder, models/ghost_spade.py). While it trains that runs behind: a step shows it a few
slices, and what it is to tell moves with every step. Afterwards nothing moves any more, and one look at the
training slices says what is read of each: a small regression is left, of seconds. BUILD_NOTES ("Settled") has
what it is worth. Two-stage VAEs (Dai and Wipf, ICLR 2019) part the two for a like reason.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from pixmed_jax.data.pipeline import Batch, whole_batch
from pixmed_jax.data.sources import Dataset
from pixmed_jax.progress import watched
from pixmed_jax.training.task import Metrics, Settle

_SLICES, _LOOK = 4096, 64  # slices that are looked at, and at once
_ROUNDS, _STEPS, _BATCH, _RATE = 40, 50, 64, 2e-3  # of Adam; the rate falls along a cosine to 0


def slices_of(dataset: Dataset, split: str) -> Iterator[Batch]:
    """Slices of a split as they are, neither cropped nor changed; of many, some of every patient."""
    rows = dataset.spread(split, _SLICES)
    parts = np.split(rows, range(_LOOK, len(rows), _LOOK))
    if len(parts) > 1 and len(parts[-1]) < _LOOK:
        parts.pop()  # another shape would be compiled for it
    for part in watched(parts, len(parts), f"settling, {split}"):
        arrays, _ = dataset.load(part, dataset.size)
        batch = whole_batch(
            arrays, classes=len(dataset.classes), channels=dataset.channels, degrade=dataset.degrade
        )
        yield jax.device_get(batch)  # of no device, so that several processes may use it


def styles_of(generator: nn.Module) -> Settle:
    """How the styles of a generator settle: (variables, training slices, validation slices, key) ->
    (variables whose "prior" is fitted, what it came to).

    The divergences are those of the styles read from those expected, in nats, on validation slices. Of all
    rounds, and of what was there before, that counts which has the least: the styles of a few patients are
    soon known by heart, and then too little is expected of others. What is not finite is never the least.
    """

    @jax.jit
    def look(variables: Any, batch: Batch) -> tuple[jax.Array, Any]:
        return generator.apply(variables, batch.condition, batch.images, method="readings")

    @jax.jit
    def fit(variables: Any, seen: tuple, unseen: tuple, key: jax.Array) -> tuple[Any, dict]:
        def divergence(prior: Any, summaries: jax.Array, read: Any) -> jax.Array:
            params = {**variables["params"], "prior": prior}
            told = generator.apply({**variables, "params": params}, summaries, method="expected")
            return read.divergence_from(told).mean()

        optimizer = optax.adam(optax.cosine_decay_schedule(_RATE, _ROUNDS * _STEPS))

        def step(carry: tuple, key: jax.Array) -> tuple[tuple, None]:
            prior, state = carry
            rows = jax.random.randint(key, (_BATCH,), 0, len(seen[0]))
            updates, state = optimizer.update(
                jax.grad(divergence)(prior, *jax.tree.map(lambda x: x[rows], seen)), state
            )
            return (optax.apply_updates(prior, updates), state), None

        def a_round(carry: tuple, key: jax.Array) -> tuple[tuple, None]:
            fitting, best, least = carry
            fitting, _ = jax.lax.scan(step, fitting, jax.random.split(key, _STEPS))
            found = divergence(fitting[0], *unseen)
            best = jax.tree.map(lambda new, old: jnp.where(found < least, new, old), fitting[0], best)
            return (fitting, best, jnp.where(found < least, found, least)), None

        prior = variables["params"]["prior"]
        before = divergence(prior, *unseen)
        carry = ((prior, optimizer.init(prior)), prior, before)
        (_, prior, after), _ = jax.lax.scan(a_round, carry, jax.random.split(key, _ROUNDS))
        fitted = {**variables, "params": {**variables["params"], "prior": prior}}
        return fitted, {"divergence_before": before, "divergence": after}

    def settle(
        variables: Any, train: Iterable[Batch], val: Iterable[Batch], key: jax.Array
    ) -> tuple[Any, Metrics]:
        def readings(batches: Iterable[Batch]) -> tuple:
            looks = [jax.device_get(look(variables, batch)) for batch in batches]
            return jax.tree.map(lambda *parts: np.concatenate(parts), *looks)

        return fit(variables, readings(train), readings(val), key)

    return settle
