"""Normalisation of arrays by mean and variance, with the activation that follows it.

Arrays [N, ..., C] in any float type; statistics, scale and bias [C] are float32, and so is all arithmetic.
Activations are told by their slope below 0: None is none, 0 is ReLU, 0.2 pix2pix's leaky ReLU.

What is normalised by its own statistics and activated has a gradient of its own (Ioffe and Szegedy 2015,
Section 3, in the form that needs two sums). By autodiff a GPU sums three times, and writes the gradient
through the activation to memory for it; this reads what came in and the gradient twice and writes once
(BUILD_NOTES.md).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax


class How(NamedTuple):
    axes: tuple[int, ...]  # over which there is one mean
    epsilon: float  # added to variances
    slope: float | None
    axis_name: str | None = None  # of devices whose arrays share their statistics
    dtype: jnp.dtype | type = jnp.float32  # of the result


def activated(x: jax.Array, slope: float | None) -> jax.Array:
    if slope is None:
        return x
    return jax.nn.relu(x) if slope == 0 else jax.nn.leaky_relu(x, slope)


def normalised(
    x: jax.Array, mean: jax.Array, var: jax.Array, scale: jax.Array, bias: jax.Array, how: How
) -> jax.Array:
    """By statistics that are given."""
    y = (x - _over(mean, how)) * (lax.rsqrt(_over(var, how) + how.epsilon) * scale) + bias
    return activated(y.astype(how.dtype), how.slope)


def _over(statistic: jax.Array, how: How) -> jax.Array:
    return jnp.expand_dims(statistic, how.axes)


def standardised(
    x: jax.Array, scale: jax.Array, bias: jax.Array, how: How
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(x by its own statistics, mean, variance); no gradient comes through the last two."""
    by = _by_its_own if how.slope is None else _activated_by_its_own
    y, mean, var = by(x, scale, bias, how)
    return y, lax.stop_gradient(mean), lax.stop_gradient(var)


def _by_its_own(
    x: jax.Array, scale: jax.Array, bias: jax.Array, how: How
) -> tuple[jax.Array, jax.Array, jax.Array]:
    exact = x.astype(jnp.float32)
    mean, squares = exact.mean(how.axes), jnp.square(exact).mean(how.axes)
    if how.axis_name is not None:
        mean, squares = lax.pmean((mean, squares), how.axis_name)
    var = jnp.maximum(0, squares - jnp.square(mean))  # one pass; by rounding it may come out below 0
    return normalised(x, mean, var, scale, bias, how), mean, var


_activated_by_its_own = jax.custom_vjp(_by_its_own, nondiff_argnums=(3,))


def _forward(x: jax.Array, scale: jax.Array, bias: jax.Array, how: How) -> tuple[tuple, tuple]:
    y, mean, var = _by_its_own(x, scale, bias, how)
    return (y, mean, var), (x, mean, var, scale, bias)


def _gradients(how: How, saved: tuple, given: tuple) -> tuple[jax.Array, jax.Array, jax.Array]:
    x, mean, var, scale, bias = saved
    g, _, _ = given
    by = lax.rsqrt(var + how.epsilon)

    def through(mean: jax.Array) -> tuple[jax.Array, jax.Array]:
        """(x less its mean, the gradient through the activation)."""
        # Where the normalised x is above 0, in two operations: by more XLA would write the answers to memory.
        slopes = _over(by, how) * scale
        y, zero = x * slopes, _over(mean, how) * slopes - bias
        pulled = jnp.where(y >= zero, g, how.slope * g) if how.slope else jnp.where(y > zero, g, 0)
        return x - _over(mean, how), pulled.astype(jnp.float32)

    centred, pulled = through(mean)
    along_bias, along_scale = pulled.sum(how.axes), (pulled * centred).sum(how.axes)
    size = x.size // mean.size
    means = along_bias / size, along_scale / size
    if how.axis_name is not None:
        means = lax.pmean(means, how.axis_name)
    # Behind the barrier they are computed anew: kept, they would be written to memory and read twice.
    centred, pulled = through(lax.optimization_barrier(mean))
    along_x = pulled - _over(means[0], how) - centred * _over(by * by * means[1], how)
    along_x = along_x * (_over(by, how) * scale)
    images = tuple(range(mean.ndim - 1))  # with statistics of their own share scale and bias
    return along_x.astype(x.dtype), (by * along_scale).sum(images), along_bias.sum(images)


_activated_by_its_own.defvjp(_forward, _gradients)
