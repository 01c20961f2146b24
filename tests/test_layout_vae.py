"""The autoencoder of label maps: prior and cost against other formulas, its noise, what it may draw."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from pixmed_jax.data.pipeline import Batch
from pixmed_jax.models import layout_vae
from pixmed_jax.models.layout_vae import LayoutVAE, smooth_gumbel
from pixmed_jax.training.supervised import AIMS

SIZE, CLASSES, TUMORS, LATENT, MODES = 8, 4, 2, 3, 5


@pytest.fixture(scope="module")
def network():
    return LayoutVAE(SIZE, CLASSES, TUMORS, width=4, latent=LATENT, modes=MODES)


@pytest.fixture(scope="module")
def maps():
    """One-hot [6, 8, 8, 4]: anatomy 3 and 4, a tumour of class 1, 2, 1, 2, 1, 2."""
    values = np.random.default_rng(0).integers(2, 4, (6, SIZE, SIZE))
    for i in range(6):
        values[i, 2:4, 3:5] = i % 2
    return jnp.asarray(np.eye(CLASSES, dtype=np.float32)[values])


@pytest.fixture(scope="module")
def variables(network, maps, draw):
    keys = {"params": jax.random.key(0), "noise": jax.random.key(1)}
    return _spread(draw, lambda: network.init(keys, maps, train=True))


def _spread(draw, init):
    """Weights that are heard; `conftest.drawn` knows the names of layers, so the prior's get their own."""
    shapes = jax.eval_shape(init)
    rng = np.random.default_rng(3)
    own = {
        name: rng.normal(size=shapes["params"][name].shape).astype(np.float32)
        for name in ("means", "log_variances", "weights")
    }
    others = draw(lambda: {**init(), "params": {k: v for k, v in init()["params"].items() if k not in own}})
    return {**others, "params": {**others["params"], **own}}


@pytest.mark.parametrize("planes", [0, 3])
def test_the_prior_is_the_mixture_it_says(planes):
    """Class and plane change the weights, and the plane moves the means."""
    rng = np.random.default_rng(1)
    network = LayoutVAE(SIZE, CLASSES, TUMORS, planes=planes, width=4, latent=LATENT, modes=MODES)
    shapes = {
        **dict.fromkeys(("means", "log_variances"), (MODES, LATENT)),
        "weights": (TUMORS + planes, MODES),
        **({"shifts": (planes, LATENT)} if planes else {}),
    }
    p = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    z, told = rng.normal(size=(3, LATENT)), np.eye(TUMORS)[[0, 1, 1]]
    if planes:
        told = np.concatenate([told, np.array([[0, 0, 1], [1, 0, 0], [0, 0, 0]])], axis=-1)
    got = network.apply({"params": p}, jnp.asarray(z), jnp.asarray(told), method="_log_prior")
    moved = [p["shifts"][2], p["shifts"][0], np.zeros(LATENT)] if planes else np.zeros((3, LATENT))
    for i in range(3):
        logits = layout_vae._FASTER * (told[i] @ p["weights"])
        shares = np.exp(logits - logits.max())
        density = sum(
            share / shares.sum() * stats.multivariate_normal(mean + moved[i], np.diag(np.exp(log))).pdf(z[i])
            for share, mean, log in zip(shares, p["means"], p["log_variances"], strict=True)
        )
        assert got[i] == pytest.approx(np.log(density), rel=1e-4)


def test_the_cost_is_the_divergence_on_average(network, variables, maps):
    """Against a prior of one standard normal, whose divergence is known in closed form."""
    p = dict(variables["params"])
    p |= {"means": np.zeros((MODES, LATENT)), "log_variances": np.zeros((MODES, LATENT))}
    one = {**variables, "params": p}

    @jax.jit
    def cost(key):
        (_, cost), _ = network.apply(one, maps, train=True, rngs={"noise": key}, mutable=["batch_stats"])
        return cost

    several = jax.vmap(cost)(jax.random.split(jax.random.key(0), 4000)).mean(0)
    _, kept = network.apply(
        one,
        maps,
        train=True,
        rngs={"noise": jax.random.key(0)},
        mutable=["batch_stats", "intermediates"],
        capture_intermediates=lambda module, _: module.name == "code",
    )
    mean, log = np.split(np.asarray(kept["intermediates"]["code"]["__call__"][0]), 2, axis=-1)
    log = log.clip(*layout_vae._LOG_VARIANCES)
    known = 0.5 * (mean**2 + np.exp(log) - 1 - log).sum(-1)
    np.testing.assert_allclose(several, known, rtol=0.05)


def test_what_is_drawn_is_of_the_class_told_and_follows_the_key(network, variables, maps):
    def drawn(seed, given):
        return network.apply(variables, given, train=False, rngs={"noise": jax.random.key(seed)}).argmax(-1)

    first = drawn(0, maps)
    assert first.shape == (6, SIZE, SIZE)
    for i, one in enumerate(np.asarray(first)):
        assert not (one == 2 - i % 2).any()  # the other tumour
    np.testing.assert_array_equal(first, drawn(0, maps))
    assert (first != drawn(1, maps)).any()
    # Of what is given only the tumour's class counts: anatomy and places tell nothing.
    bare = jnp.zeros_like(maps).at[:, 0, 0, :TUMORS].set(maps[..., :TUMORS].max((1, 2)))
    np.testing.assert_array_equal(first, drawn(0, bare))


def test_grain_is_gumbel_noise_that_neighbours_share():
    noise = np.asarray(smooth_gumbel(jax.random.key(0), (4, 64, 64, 3)))
    assert stats.kstest(noise[:, ::8, ::8].ravel(), stats.gumbel_r.cdf).pvalue > 0.01
    assert stats.kstest(noise[:, ::8, ::8].ravel(), stats.norm.cdf).pvalue < 1e-6

    def correlation(shift, axis):
        other = np.roll(noise, shift, axis)
        return np.corrcoef(noise.ravel(), other.ravel())[0, 1]

    assert correlation(1, 1) > 0.5 and correlation(1, 2) > 0.5
    assert abs(correlation(4, 1)) < 0.05 and abs(correlation(4, 2)) < 0.05
    assert abs(np.corrcoef(noise[..., 0].ravel(), noise[..., 1].ravel())[0, 1]) < 0.05


def test_sizes_that_cannot_be():
    for size in (4, 12, 20):
        with pytest.raises(ValueError, match="8, 16, 32"):
            LayoutVAE(size, CLASSES, TUMORS).init(
                {"params": jax.random.key(0), "noise": jax.random.key(1)},
                jnp.zeros((1, size, size, CLASSES)),
                train=True,
            )


def test_the_loss_by_loops(maps):
    """Cross-entropy summed over each map, tumour pixels four times, plus half of the code's cost."""
    logits = np.random.default_rng(0).normal(size=(6, SIZE, SIZE, 1 + CLASSES)).astype(np.float32)
    cost = np.arange(6, dtype=np.float32)
    aim = AIMS["layouts"](tumors=TUMORS, code=0.5, tumor=4.0)

    class Batch:
        condition = maps.at[0, 0, 0].set(0.0)  # a pixel of background

    value, parts = aim.loss((jnp.asarray(logits), jnp.asarray(cost)), Batch)
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    total = 0.0
    for i in range(6):
        for y in range(SIZE):
            for x in range(SIZE):
                own = np.flatnonzero(np.asarray(Batch.condition[i, y, x]))
                true = 1 + own[0] if len(own) else 0
                total -= (4 if true in (1, 2) else 1) * np.log(p[i, y, x, true])
    assert value == pytest.approx(total / 6 + 0.5 * 2.5, rel=1e-4)
    assert parts["network/map"] == pytest.approx(total / 6, rel=1e-4) and parts["network/code"] == 2.5


def test_a_single_class_that_is_repeated_in_the_condition_is_read_once():
    """Three equal channels, as a condition of colour pictures has them, and the planes behind the one."""
    one = np.random.default_rng(0).integers(0, 2, (2, SIZE, SIZE, 1)).astype(np.float32)
    batch = Batch(None, jnp.asarray(one.repeat(3, -1)), jnp.array([2, 0]))
    found = AIMS["layouts"](tumors=1, classes=1, planes=2).inputs(batch)
    planes = np.broadcast_to(np.array([[0.0, 1.0], [0.0, 0.0]])[:, None, None], (2, SIZE, SIZE, 2))
    np.testing.assert_array_equal(found, np.concatenate([one, planes], -1))


def test_planes_are_told_beside_the_class(maps):
    """Unknown ones are told by zeros; a plane may change what is drawn, and the class stays out of reach."""
    from pixmed_jax.training.supervised import with_planes

    told = with_planes(maps, jnp.array([0, 1, 2, 3, 0, 1]), 3)
    assert told.shape == (6, SIZE, SIZE, CLASSES + 3)
    np.testing.assert_array_equal(told[..., :CLASSES], maps)
    expected = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0], [1, 0, 0]])
    np.testing.assert_array_equal(told[:, 3, 4, CLASSES:], expected)
    network = LayoutVAE(SIZE, CLASSES, TUMORS, planes=3, width=4, latent=LATENT, modes=MODES)
    keys = {"params": jax.random.key(0), "noise": jax.random.key(1)}
    variables = network.init(keys, told, train=True)
    assert variables["params"]["weights"].shape == (TUMORS + 3, MODES)

    def drawn(shifts):
        given = {**variables, "params": {**variables["params"], "shifts": shifts}}
        return np.asarray(network.apply(given, told, train=False, rngs={"noise": jax.random.key(2)}))

    still, moved = (drawn(jnp.full((3, LATENT), of)) for of in (0.0, 5.0))
    for logits in (still, moved):
        assert all(not (one == 2 - i % 2).any() for i, one in enumerate(logits.argmax(-1)))
    # The plane moves what is drawn, and where none is told nothing moves.
    changed = np.abs(moved - still).max((1, 2, 3)) > 1e-3
    np.testing.assert_array_equal(changed, [False, True, True, True, False, True])
