"""Lazy terms of a player's loss: computed in every kth step alone, and then k times as large (StyleGAN2,
Section 3.1): R1 for the discriminator, path length for the generator.

They are computed from the same parameters as the main losses, and make an update of their own (gan.py).
`state` is a `gan.GANState`; metrics of the steps between are those of the last one in which a term was due.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from pixmed_jax import losses
from pixmed_jax.data.pipeline import Batch
from pixmed_jax.training.task import Metrics

Params = Any
_PATH_RATE = 0.01  # of the running mean of path lengths (StyleGAN2's official code)
_PENALTY, _LENGTH = "generator/path_penalty", "generator/path_length"
_R1 = "discriminator/r1"


class Term(NamedTuple):
    """Of one player."""

    every: int
    loss: Callable  # (the player's parameters, state, statistics, batch, key) -> (value, {name: value})
    names: tuple[str, ...]


def r1(gamma: float, every: int, discriminate: Callable[..., jax.Array]) -> Term:
    """The penalty on the discriminator's slope at real images. discriminate: (parameters, batch, images, key)
    -> logits.
    """

    def loss(
        params: Params, state: Any, stats: Mapping, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, Metrics]:
        penalty = losses.r1(lambda images: discriminate(params, batch, images, key), batch.images, gamma)
        return penalty / 2, {_R1: penalty}  # the half of all that the discriminator minimises

    return Term(every, loss, (_R1,))


def path_length(weight: float, every: int, generator: nn.Module) -> Term:
    """How far the length of a path in images departs from its running mean, for a generator that has `styles`
    and `paint`.
    """

    def loss(
        params: Params, state: Any, stats: Mapping, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, Metrics]:
        """With half of the batch, as in the official code; the mean is the one before this step."""
        key, styles_key, noise_key = jax.random.split(jax.random.fold_in(key, 2), 3)
        apply = functools.partial(generator.apply, {"params": params, **stats})
        rngs, dropped = {"noise": styles_key}, ["batch_stats"]
        styles, _ = apply(batch.condition[::2], train=True, rngs=rngs, method="styles", mutable=dropped)

        def paint(styles: jax.Array) -> Any:
            return apply(styles, rngs={"noise": noise_key}, method="paint")

        lengths = losses.path_lengths(paint, styles, key)
        mean = state.lazy[_LENGTH]
        penalty = jnp.square(lengths - mean).mean()
        mean = mean + _PATH_RATE * (jax.lax.stop_gradient(lengths).mean() - mean)
        return weight * penalty, {_PENALTY: penalty, _LENGTH: mean}

    return Term(every, loss, (_PENALTY, _LENGTH))


def gradients(
    terms: Mapping[str, Term], state: Any, stats: Mapping, batch: Batch, key: jax.Array
) -> tuple[dict[str, Params], Metrics]:
    """By player, the gradient of its term (0 in the steps between), and what the terms come to."""
    found: dict[str, Params] = {}
    values: Metrics = {}
    for player, (every, loss, names) in terms.items():

        def due(params: Params, every: int = every, loss: Callable = loss) -> tuple[Params, Metrics]:
            gradient, values = jax.grad(loss, has_aux=True)(params, state, stats, batch, key)
            return jax.tree.map(lambda x: every * x, gradient), values

        def between(params: Params, names: tuple[str, ...] = names) -> tuple[Params, Metrics]:
            return jax.tree.map(jnp.zeros_like, params), {name: state.lazy[name] for name in names}

        params = getattr(state, player)["params"]
        found[player], told = jax.lax.cond(state.step % every == 0, due, between, params)
        values |= told
    return found, values
