"""Norms with the activation behind them: numbers, gradients and statistics are those of Flax's modules."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pixmed_jax.models import layers


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


FLAX = {
    "batch": lambda: nn.BatchNorm(False, momentum=0.9, epsilon=1e-5, scale_init=layers._scale_init),
    "instance": lambda: nn.InstanceNorm(epsilon=1e-5, scale_init=layers._scale_init),
}
ACTIVATIONS = {None: lambda x: x, 0.0: nn.relu, 0.2: lambda x: nn.leaky_relu(x, 0.2)}


@pytest.mark.parametrize("kind", FLAX)
@pytest.mark.parametrize("slope", ACTIVATIONS)
def test_a_norm_is_flax_s_by_its_numbers_names_and_gradients(kind, slope):
    """Flax and autodiff are the oracle; for the gradient's gradient too, which a gradient penalty takes."""
    x, g = normal(0, 3, 5, 4, 6) * np.arange(1, 7) + normal(1, 6), normal(2, 3, 5, 4, 6)
    own = layers.Norm(kind, True, slope=slope)

    class Oracle(nn.Module):
        @nn.compact
        def __call__(self, x):
            module = FLAX[kind]()
            module = module.clone(name=kind, parent=self)
            return ACTIVATIONS[slope](module(x))

    drawn, named = (module.init(jax.random.key(3), x) for module in (own, Oracle()))
    assert jax.tree.structure(drawn) == jax.tree.structure(named)
    assert jax.tree.leaves(drawn["params"])[1].std() > 0
    jax.tree.map(np.testing.assert_array_equal, drawn, named)
    params = {kind: {"scale": normal(4, 6), "bias": normal(5, 6)}}  # scales of either sign

    def of(module: nn.Module) -> tuple:
        def run(params, x):
            return module.apply({**drawn, "params": params}, x, mutable=["batch_stats"])

        def slopes(params, x):
            y, pull, stats = jax.vjp(run, params, x, has_aux=True)
            return y, pull(g), stats

        def penalty(params, x):
            return jnp.square(slopes(params, x)[1][1]).sum()

        return *slopes(params, x), jax.grad(penalty, (0, 1))(params, x)

    for found, exact in zip(jax.tree.leaves(of(own)), jax.tree.leaves(of(Oracle())), strict=True):
        np.testing.assert_allclose(found, exact, rtol=1e-4, atol=2e-5 * np.abs(exact).max())


@pytest.mark.parametrize("slope", ACTIVATIONS)
def test_a_batch_norm_of_several_devices_is_that_of_the_whole_batch(slope):
    x, g = normal(0, 4, 5, 4, 6) * np.arange(4).reshape(4, 1, 1, 1) + 1, normal(1, 4, 5, 4, 6)
    variables = layers.Norm("batch", True).init(jax.random.key(0), x)

    def slopes(axis_name: str | None, x: jax.Array, g: jax.Array) -> tuple:
        module = layers.Norm("batch", True, axis_name, slope=slope)

        def run(params, x):
            return module.apply({**variables, "params": params}, x, mutable=["batch_stats"])

        y, pull, stats = jax.vjp(run, variables["params"], x, has_aux=True)
        return y, pull(g), stats

    y, (along_params, along_x), stats = slopes(None, x, g)
    halves = jax.vmap(partial(slopes, "devices"), axis_name="devices")
    y2, (along_params2, along_x2), stats2 = halves(x.reshape(2, 2, 5, 4, 6), g.reshape(2, 2, 5, 4, 6))
    whole = (y2.reshape(x.shape), jax.tree.map(lambda x: x.sum(0), along_params2), along_x2.reshape(x.shape))
    for found, exact in zip(
        jax.tree.leaves((*whole, jax.tree.map(lambda x: x[0], stats2))),
        jax.tree.leaves((y, along_params, along_x, stats)),
        strict=True,
    ):
        np.testing.assert_allclose(found, exact, rtol=1e-4, atol=1e-5 * np.abs(exact).max())


def test_flat_channels_are_normalised_to_nothing():
    """One pass finds their variance by rounding alone, of either sign: 0.1 on both sides at these values."""
    x = np.broadcast_to(np.linspace(300, 1000, 32, dtype=np.float32), (2, 7, 9, 32))
    module = layers.Norm("batch", True, slope=0.2)
    variables = module.init(jax.random.key(0), x)
    y, pull = jax.vjp(lambda x: module.apply(variables, x, mutable=["batch_stats"])[0], x)
    assert np.abs(y).max() < 0.1
    assert np.isfinite(pull(normal(1, 2, 7, 9, 32))[0]).all()
