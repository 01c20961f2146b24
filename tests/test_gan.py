"""One adversarial step against its plainly written losses, and what a state must keep or change."""

from collections.abc import Callable
from typing import Any

import dm_pix
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import drawn

from pixmed_jax.data.pipeline import Batch
from pixmed_jax.errors import PixmedError
from pixmed_jax.models.dcgan import DCGANDiscriminator, DCGANGenerator
from pixmed_jax.models.ghost_spade import GhostSPADE
from pixmed_jax.models.patchgan import MultiScalePatchGAN, PatchGAN
from pixmed_jax.models.stylegan2 import StyleGAN2Discriminator, StyleGAN2Generator
from pixmed_jax.models.unet import UNet
from pixmed_jax.training import gan

RATE = 0.5  # of plain gradient descent: one update is then -RATE times the gradient


def generator(**settings: Any) -> UNet:
    return UNet(**{"out_channels": 1, "width": 2, "levels": 3, "ghost_levels": (1, 2), **settings})


def discriminator(**settings: Any) -> PatchGAN:
    return PatchGAN(**{"width": 2, "layers": 1, **settings})


def make_batch(n: int = 4) -> Batch:
    """Images of different brightness, so that statistics of one part are not those of the whole."""
    numbers = np.random.default_rng(0)
    images = numbers.uniform(size=(n, 16, 16, 1)) * np.linspace(0.3, 1, n).reshape(n, 1, 1, 1)
    condition = numbers.integers(0, 2, (n, 16, 16, 2)) * np.linspace(1, 2, n).reshape(n, 1, 1, 1)
    return Batch(images.astype(np.float32), condition.astype(np.float32), np.zeros(n, np.int32))


@pytest.fixture(scope="module")
def batch() -> Batch:
    return make_batch()


def start(task: Any, step: int = 0) -> gan.GANState:
    """A task's first state with weights that let every layer be heard."""
    state = jax.eval_shape(task.init, jax.random.PRNGKey(0), make_batch())
    return state._replace(
        step=np.int32(step),
        skipped=np.int32(0),
        skipped_in_row=np.int32(0),
        key=np.array([3, 4], np.uint32),
        generator=drawn(lambda: state.generator, 0),
        discriminator=drawn(lambda: state.discriminator, 1),
        ema=drawn(lambda: state.ema, 2),
        lazy={name: np.float32(0) for name in state.lazy},
    )


def task_of(g: UNet, d: PatchGAN, **settings: Any) -> Any:
    aim = {name: settings.pop(name) for name in gan.Losses._fields if name in settings}
    return gan.make_task(g, d, optax.sgd(RATE), gan.Losses(**{"ssim": 1.0, **aim}), **settings)


def assert_trees_close(found: Any, expected: Any, tolerance: float = 1e-5) -> None:
    """Relative to the largest number of each whole tree, as single leaves may be all but 0."""
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    largest = max(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(expected))
    assert largest > 1e-3, "compares next to nothing"
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * largest)


def minus(new: Any, old: Any) -> Any:
    return jax.tree.map(lambda a, b: np.asarray(a, np.float64) - b, new, old)


# ---------------------------------------------------------------- the losses, written plainly
def plain_players(g: UNet, d: PatchGAN, state: gan.GANState, batch: Batch) -> tuple[Callable, ...]:
    """(generator's parameters -> (images, statistics), (discriminator's parameters, images) -> logits)."""
    stats = {"batch_stats": state.generator["batch_stats"]} if "batch_stats" in state.generator else {}
    rngs = {"dropout": jax.random.fold_in(state.key, state.step)}

    def fake(params: Any) -> tuple[jax.Array, Any]:
        return g.apply(
            {"params": params, **stats}, batch.condition, train=True, rngs=rngs, mutable=["batch_stats"]
        )

    def judge(params: Any, images: jax.Array) -> jax.Array:
        return d.apply({"params": params}, batch.condition, images, mutable=["batch_stats"])[0]

    return fake, judge


def cross_entropy(logits: jax.Array, label: int) -> jax.Array:
    return -jnp.log(jax.nn.sigmoid(logits if label else -logits)).mean()


def plain_losses(
    g: UNet, d: PatchGAN, state: gan.GANState, batch: Batch, weights: dict
) -> tuple[Callable, ...]:
    """The two players' losses, each a function of its own parameters with the other's held fixed."""
    fake, judge = plain_players(g, d, state, batch)

    def generator_loss(params: Any) -> tuple[jax.Array, dict]:
        images = fake(params)[0]
        p = jnp.clip(images, 1e-6, 1 - 1e-6)
        real = batch.images
        parts = {
            "adversarial": cross_entropy(judge(state.discriminator["params"], images), 1),
            "pixel_bce": -(real * jnp.log(p) + (1 - real) * jnp.log(1 - p)).mean(),
            "ssim": 1 - dm_pix.ssim(images, real).mean(),
            "l1": jnp.abs(images - real).mean(),
            "mse": ((images - real) ** 2).mean(),
        }
        return sum(weights[name] * part for name, part in parts.items()), parts

    def discriminator_loss(params: Any) -> tuple[jax.Array, dict]:
        images = jax.lax.stop_gradient(fake(state.generator["params"])[0])
        parts = {
            "real": cross_entropy(judge(params, batch.images), 1),
            "fake": cross_entropy(judge(params, images), 0),
        }
        return (parts["real"] + parts["fake"]) / 2, parts

    return generator_loss, discriminator_loss


@pytest.fixture(scope="module")
def plain(batch: Batch) -> Callable[..., tuple]:
    """(state, weights) -> each player's ((loss, parts), gradient), and the generator's new statistics."""
    g, d = generator(), discriminator()

    @jax.jit
    def plain(state: gan.GANState, weights: dict) -> tuple:
        of_generator, of_discriminator = plain_losses(g, d, state, batch, weights)
        stats = plain_players(g, d, state, batch)[0](state.generator["params"])[1]
        return (
            jax.value_and_grad(of_generator, has_aux=True)(state.generator["params"]),
            jax.value_and_grad(of_discriminator, has_aux=True)(state.discriminator["params"]),
            stats["batch_stats"],
        )

    return plain


@pytest.mark.parametrize(
    ("settings", "weights"),
    [
        ({"bce": "adversarial", "ssim": 1.0}, {"adversarial": 1, "ssim": 1}),
        ({"bce": "pixel", "ssim": 0.0, "l1": 2.0}, {"pixel_bce": 1, "l1": 2}),
        ({"adversarial": 0.25, "ssim": 0.0, "l1": 1.0}, {"adversarial": 0.25, "l1": 1}),
        ({"bce": "both", "ssim": 0.5, "mse": 3.0}, {"adversarial": 1, "pixel_bce": 1, "ssim": 0.5, "mse": 3}),
    ],
)
def test_one_step_descends_both_players_losses(batch, plain, settings, weights):
    """Batch norm and dropout included, both from the same parameters; also the numbers that it reports."""
    task = task_of(generator(), discriminator(), **settings)
    state = start(task, step=5)
    new, metrics = jax.jit(task.step)(state, batch)
    every = {"adversarial": 0.0, "pixel_bce": 0.0, "ssim": 0.0, "l1": 0.0, "mse": 0.0}
    every |= {name: float(weight) for name, weight in weights.items()}
    ((g_loss, g_parts), g_gradient), ((d_loss, d_parts), d_gradient), stats = plain(state, every)

    for player, gradient in (("generator", g_gradient), ("discriminator", d_gradient)):
        update = minus(getattr(new, player)["params"], getattr(state, player)["params"])
        assert_trees_close(update, jax.tree.map(lambda x: -RATE * x, gradient), 1e-4)
        norm = np.sqrt(sum(np.sum(np.square(leaf, dtype=np.float64)) for leaf in jax.tree.leaves(gradient)))
        assert float(metrics[f"{player}/gradient_norm"]) == pytest.approx(norm, rel=1e-4)
    assert_trees_close(new.generator["batch_stats"], stats)

    expected = {f"discriminator/{name}": d_parts[name] for name in ("real", "fake")}
    told = {"ssim": "1-ssim"}  # what falls is named, not what rises
    expected |= {f"generator/{told.get(n, n)}": g_parts[n] for n in {"adversarial", *weights}}
    extra = {"generator/gradient_norm", "discriminator/gradient_norm", "generator/statistics_norm"}
    assert set(metrics) == set(expected) | extra  # a term of weight 0 is not there
    for name, value in expected.items():
        assert float(metrics[name]) == pytest.approx(float(value), rel=1e-4), name

    # Along a hundredth of its own update each player is better off while the other stands still.
    def moved(player: str) -> gan.GANState:
        old, updated = getattr(state, player), getattr(new, player)["params"]
        params = jax.tree.map(lambda a, b: (a + 0.01 * (b - a)).astype(a.dtype), old["params"], updated)
        return state._replace(**{player: {**old, "params": params}})

    assert plain(moved("generator"), every)[0][0][0] < g_loss
    assert plain(moved("discriminator"), every)[1][0][0] < d_loss


@pytest.mark.slow
def test_a_step_with_another_adversarial_loss(batch):
    """Least squares: each player's update is its own loss's gradient, written plainly."""
    g, d = generator(norm="instance"), discriminator(norm="instance")
    task = task_of(g, d, gan="least_squares", ssim=0.0)
    state = start(task, step=3)
    new, metrics = jax.jit(task.step)(state, batch)
    fake, judge = plain_players(g, d, state, batch)

    def of_generator(params: Any) -> jax.Array:
        return ((judge(state.discriminator["params"], fake(params)[0]) - 1) ** 2).mean() / 2

    def of_discriminator(params: Any) -> jax.Array:
        on_real, on_fake = judge(params, batch.images), judge(params, fake(state.generator["params"])[0])
        return ((on_real - 1) ** 2).mean() / 2 + (on_fake**2).mean() / 2

    for player, loss in (("generator", of_generator), ("discriminator", of_discriminator)):
        old = getattr(state, player)["params"]
        expected = jax.tree.map(lambda x: -RATE * x, jax.jit(jax.grad(loss))(old))
        assert_trees_close(minus(getattr(new, player)["params"], old), expected, 1e-4)
    assert float(metrics["generator/adversarial"]) == pytest.approx(
        float(of_generator(state.generator["params"])), rel=1e-4
    )


@pytest.mark.slow
def test_half_of_a_batch_is_painted_in_the_style_of_its_real_images():
    """That half alone is compared with them; the discriminator judges all; the divergence is a term."""
    batch = make_batch(3)
    g = GhostSPADE(width=2, levels=2, most=4, style=3)
    d = MultiScalePatchGAN(width=2, layers=1)
    task = task_of(g, d, ssim=0.0, l1=2.0, kl=0.5)
    state = start(task, step=3)
    new, metrics = jax.jit(task.step)(state, batch)
    key = jax.random.fold_in(state.key, state.step)
    _, judge = plain_players(g, d, state, batch)

    def fake(params: Any) -> tuple[jax.Array, jax.Array]:
        rngs = {"noise": jax.random.fold_in(key, 1)}
        return g.apply({"params": params}, batch.condition, batch.images[:2], rngs=rngs, method="reconstruct")

    def of_generator(params: Any) -> jax.Array:
        images, divergence = fake(params)
        near = jnp.abs(images[:2] - batch.images[:2]).mean()
        fooled = cross_entropy(judge(state.discriminator["params"], images), 1)
        return fooled + 2 * near + 0.5 * divergence.sum() / 2

    def of_discriminator(params: Any) -> jax.Array:
        images = fake(state.generator["params"])[0]
        return (cross_entropy(judge(params, batch.images), 1) + cross_entropy(judge(params, images), 0)) / 2

    for player, loss in (("generator", of_generator), ("discriminator", of_discriminator)):
        old = getattr(state, player)["params"]
        expected = jax.tree.map(lambda x: -RATE * x, jax.jit(jax.grad(loss))(old))
        assert_trees_close(minus(getattr(new, player)["params"], old), expected, 1e-4)
    for read, kl in ((task, 0.5), (task_of(g, d), 0.0)):
        assert (read.repaint is not None) == (kl > 0)
    divergence = jax.jit(fake)(state.generator["params"])[1].mean()
    np.testing.assert_allclose(metrics["generator/kl"], divergence, rtol=1e-5)


def test_an_unknown_loss_is_refused():
    with pytest.raises(PixmedError, match=r"loss\.kl=0\.5: UNet reads no styles; set it to 0"):
        task_of(generator(), discriminator(), kl=0.5)
    with pytest.raises(PixmedError, match=r"loss\.kl=0\.5: GhostSPADE reads no styles"):
        task_of(GhostSPADE(style=0), discriminator(), kl=0.5)
    with pytest.raises(PixmedError, match=r"loss\.gan='hinge'.* bce, least_squares"):
        task_of(generator(), discriminator(), gan="hinge")
    with pytest.raises(PixmedError, match=r"loss\.bce='neither'.* adversarial, pixel, both, none"):
        task_of(generator(), discriminator(), bce="neither")


# ---------------------------------------------------------------- lazy terms
STYLED = StyleGAN2Generator(
    8, 1, latent=4, width=4, mapping_layers=1, channel_base=32, channel_max=4, style_mixing=0.5
)
STYLED_JUDGE = StyleGAN2Discriminator(mapping_layers=1, channel_base=32, channel_max=4, group=2)


def labelled(batch: Batch) -> Batch:
    """The batch at half its size, with one of two classes in the place of a mask."""
    classes = np.eye(2, dtype=np.float32)[np.arange(len(batch.images)) % 2]
    return batch._replace(images=batch.images[:, ::2, ::2], condition=classes)


def shifted(tree: Any, direction: Any, by: float) -> Any:
    return jax.tree.map(lambda x, d: (x + by * d).astype(np.float32), tree, direction)


def scaled(tree: Any, by: float) -> Any:
    return jax.tree.map(lambda x: by * x, tree)


def dot(a: Any, b: Any) -> float:
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return sum(float(np.vdot(np.asarray(x, np.float64), np.asarray(y, np.float64))) for x, y in pairs)


@pytest.mark.slow
@pytest.mark.parametrize("conditioned", ["mask", "class"])
def test_r1_updates_the_discriminator_in_every_third_step(batch, conditioned):
    """Three times its gradient, in an update of its own; of any discriminator, batch norm included."""
    if conditioned == "mask":
        g, d = generator(), discriminator()
    else:
        g, d, batch = STYLED, STYLED_JUDGE, labelled(batch)
    plain, task = task_of(g, d, ssim=0.0), task_of(g, d, ssim=0.0, r1=4.0, r1_every=3)
    init = jax.jit(task.init)(jax.random.PRNGKey(1), batch)
    assert init.lazy == {"discriminator/r1": 0}
    if conditioned == "mask":  # weights that let every layer be heard
        init = start(task)
    step, plain_step = jax.jit(task.step), jax.jit(plain.step)

    @jax.jit
    def penalty(params: Any) -> jax.Array:
        """4 / 2 |slope|^2 of images in [-1, 1]."""

        def total(images: jax.Array) -> jax.Array:
            logits = d.apply({"params": params}, batch.condition, images / 2, mutable=["batch_stats"])[0]
            return logits.reshape(4, -1).mean(1).sum()

        return 2 * jnp.square(jax.grad(total)(2 * batch.images)).sum() / 4

    params = init.discriminator["params"]
    for number, due in ((3, True), (4, False), (5, False), (6, True)):
        state = init._replace(step=jnp.int32(number), lazy={"discriminator/r1": jnp.float32(0.125)})
        new, metrics = step(state, batch)
        without, _ = plain_step(state._replace(lazy={}), batch)
        extra = minus(new.discriminator["params"], without.discriminator["params"])
        size = max(np.abs(leaf).max() for leaf in jax.tree.leaves(extra))
        jax.tree.map(np.testing.assert_array_equal, new.generator, without.generator)
        if not due:
            assert size == 0
            assert float(metrics["discriminator/r1"]) == float(new.lazy["discriminator/r1"]) == 0.125
            continue
        value = float(penalty(params))
        assert float(metrics["discriminator/r1"]) == pytest.approx(value, rel=1e-4)
        assert float(new.lazy["discriminator/r1"]) == float(metrics["discriminator/r1"])
        assert_trees_close(extra, scaled(jax.grad(penalty)(params), -RATE * 3 / 2), 1e-3)


@pytest.fixture(scope="module")
def styled(batch: Batch) -> tuple[gan.GANState, Callable, Batch]:
    """A first state, the jitted step of an Adam task with both lazy terms, and its batch."""
    batch = labelled(batch)
    task = gan.make_task(
        STYLED,
        STYLED_JUDGE,
        gan.adam(2, learning_rate=1e-2, b1=0.0, b2=0.99),
        gan.Losses(r1=1.0, r1_every=3, path_length=2.0, path_every=2),
        discriminator_optimizer=gan.adam(3, learning_rate=1e-2, b1=0.0, b2=0.99),
    )
    return jax.jit(task.init)(jax.random.PRNGKey(1), batch), jax.jit(task.step), batch


@pytest.mark.slow
def test_the_mean_path_length_lives_in_the_state(styled):
    """It follows by 0.01 in every second step; the penalty is measured from where it was."""
    state, step, batch = styled
    names = ["generator/path_penalty", "generator/path_length"]
    assert sorted(state.lazy) == sorted([*names, "discriminator/r1"])
    new, metrics = step(state, batch)
    length = float(new.lazy[names[1]]) / 0.01  # from 0
    assert length > 0.01
    # A mean of squares is the mean's square and the variance.
    spread = float(metrics[names[0]]) - length**2
    assert spread >= -1e-6
    far, _ = step(state._replace(lazy={**state.lazy, names[1]: jnp.float32(10.0)}), batch)
    assert float(far.lazy[names[1]]) == pytest.approx(10 + 0.01 * (length - 10), rel=1e-5)
    assert float(far.lazy[names[0]]) == pytest.approx((10 - length) ** 2 + spread, rel=1e-4)
    between, told = step(new, batch)
    for name in names:
        assert float(between.lazy[name]) == float(new.lazy[name]) == float(told[name])
    assert float(step(between, batch)[0].lazy[names[1]]) != float(new.lazy[names[1]])


@pytest.mark.slow
def test_path_length_updates_the_generator(batch):
    """By its gradient alone, twice in every second step; found by differences of the told penalty."""
    batch = labelled(batch)
    settings = {"ssim": 0.0, "bce": "none", "path_every": 2}
    task = task_of(STYLED, STYLED_JUDGE, path_length=3.0, **settings)
    state = jax.jit(task.init)(jax.random.PRNGKey(1), batch)
    state = state._replace(lazy={**state.lazy, "generator/path_length": jnp.float32(0.5)})
    step = jax.jit(task.step)
    params = state.generator["params"]
    update = minus(step(state, batch)[0].generator["params"], params)
    size = np.sqrt(dot(update, update))
    assert size > 1e-3

    def penalty(params: Any) -> float:
        changed = state._replace(generator={**state.generator, "params": params})
        return float(step(changed, batch)[1]["generator/path_penalty"])

    h = 3e-3
    direction = scaled(update, 1 / size)
    slope = (penalty(shifted(params, direction, h)) - penalty(shifted(params, direction, -h))) / (2 * h)
    assert size == pytest.approx(-RATE * 2 * 3.0 * slope, rel=3e-2)
    idle = step(state._replace(step=jnp.int32(1)), batch)[0]
    jax.tree.map(np.testing.assert_array_equal, idle.generator["params"], params)


def test_a_resumed_run_of_lazy_terms_equals_one_that_was_not(styled):
    """Through plain arrays, as a checkpoint keeps them: optimisers, class means and path length included."""
    state, step, batch = styled
    whole = state
    for _ in range(5):
        whole, _ = step(whole, batch)
    part = state
    for number in range(5):
        part, _ = step(part, batch)
        part = jax.tree.map(lambda x: jnp.asarray(np.array(x)), part)
        if number == 2:
            spoilt = step(part, batch._replace(images=batch.images * np.nan))[0]
            kept = spoilt._replace(step=part.step, skipped=part.skipped, skipped_in_row=part.skipped_in_row)
            jax.tree.map(np.testing.assert_array_equal, kept, part)
    jax.tree.map(np.testing.assert_array_equal, whole, part)


def test_lazy_terms_slow_adam_down_by_what_they_add():
    """StyleGAN2's Appendix B for k = 16: c = 16/17, rate c x, momenta to the power c."""
    params, gradient = jnp.zeros(3), jnp.array([1.0, -2.0, 0.5])
    lazy, plain = (
        gan.adam(16, learning_rate=0.1, b1=0.5, b2=0.9),
        optax.adam(0.1 * 16 / 17, 0.5 ** (16 / 17), 0.9 ** (16 / 17)),
    )
    states = [lazy.init(params), plain.init(params)]
    for scale in (1.0, 3.0, -0.2):
        (one, states[0]), (other, states[1]) = (
            optimizer.update(scale * gradient, state)
            for optimizer, state in zip((lazy, plain), states, strict=True)
        )
        np.testing.assert_array_equal(one, other)
    as_given = gan.adam(0, learning_rate=0.1, b1=0.5, b2=0.9).update(gradient, optax.adam(1).init(params))[0]
    np.testing.assert_array_equal(
        as_given, optax.adam(0.1, 0.5, 0.9).update(gradient, optax.adam(1).init(params))[0]
    )


def test_lazy_terms_that_cannot_be_are_refused():
    with pytest.raises(PixmedError, match=r"loss\.path_length=2: UNet has no styles; set it to 0"):
        task_of(generator(), discriminator(), path_length=2.0)
    with pytest.raises(PixmedError, match=r"loss\.r1_every=0.*: give 1 or more"):
        task_of(generator(), discriminator(), r1=1.0, r1_every=0)
    with pytest.raises(PixmedError, match=r"loss\.path_every=0: give 1 or more"):
        task_of(STYLED, STYLED_JUDGE, path_length=1.0, path_every=0)


# ---------------------------------------------------------------- accumulation
def test_two_halves_make_the_update_of_the_whole(batch):
    """Where no statistics tie the images of a batch together and there is no noise."""
    g, d = generator(norm="instance", dropout=0.0), discriminator(norm="none")
    tasks = [task_of(g, d, accumulate=parts, l1=1.0) for parts in (1, 2)]
    state = start(tasks[0])
    (whole, whole_metrics), (halves, halves_metrics) = (jax.jit(task.step)(state, batch) for task in tasks)
    for player in ("generator", "discriminator"):
        old = getattr(state, player)["params"]
        update = minus(getattr(halves, player)["params"], old)
        assert_trees_close(update, minus(getattr(whole, player)["params"], old), 1e-4)
    assert_trees_close(halves_metrics, whole_metrics)


def test_parts_pass_on_their_statistics_and_have_their_own_noise(batch):
    """Two equal halves move the running statistics twice, each with what its own dropout left."""
    twice = jax.tree.map(lambda x: np.repeat(x[:2], 2, axis=0), batch)  # a part is every second image
    half = jax.tree.map(lambda x: x[:2], batch)
    g, d = generator(), discriminator()
    task = task_of(g, d, accumulate=2)
    state = start(task, step=1)
    new, _ = jax.jit(task.step)(state, twice)

    @jax.jit
    def statistics(stats: Any, key: jax.Array) -> Any:
        variables = {"params": state.generator["params"], "batch_stats": stats}
        rngs = {"dropout": key}
        return g.apply(variables, half.condition, train=True, rngs=rngs, mutable=["batch_stats"])[1][
            "batch_stats"
        ]

    stats = state.generator["batch_stats"]
    keys = jax.random.split(jax.random.fold_in(state.key, 1), 2)
    assert_trees_close(new.generator["batch_stats"], statistics(statistics(stats, keys[0]), keys[1]))


# ---------------------------------------------------------------- state
def test_init_makes_the_same_state_from_the_same_key(batch):
    task = task_of(generator(), discriminator())
    init = jax.jit(task.init)
    one, same, other = (init(jax.random.PRNGKey(seed), batch) for seed in (0, 0, 1))
    jax.tree.map(np.testing.assert_array_equal, one, same)
    jax.tree.map(np.testing.assert_array_equal, one.ema, one.generator)
    assert (int(one.step), int(one.skipped), int(one.skipped_in_row)) == (0, 0, 0)
    kernels = [state.generator["params"]["decoder_2"]["kernel"] for state in (one, other)]
    assert np.any(kernels[0] != kernels[1])
    assert np.any(one.key != other.key)


@pytest.fixture(scope="module")
def followed() -> tuple[gan.GANState, Callable, Any]:
    """A first state, the jitted step of an Adam task, and the task."""
    task = gan.make_task(generator(), discriminator(), optax.adam(1e-2), gan.Losses(ssim=1.0), ema_decay=0.15)
    state = start(task)
    optimizers = {
        f"{player}_optimizer": optax.adam(1e-2).init(getattr(state, player)["params"])
        for player in ("generator", "discriminator")
    }
    return state._replace(**optimizers), jax.jit(task.step), task


@pytest.mark.parametrize(("field", "bad"), [("images", np.nan), ("images", np.inf), ("condition", np.nan)])
def test_a_batch_that_is_not_finite_is_skipped(followed, batch, field, bad):
    """The state stays, counters apart; the next good batch trains from it and ends the row."""
    state, step, _ = followed
    state = step(state, batch)[0]  # so that the optimisers' moments are not 0
    spoilt = getattr(batch, field).copy()
    spoilt[2, 3, 4, 0] = bad
    spoilt = batch._replace(**{field: spoilt})

    kept = state
    for count in (1, 2):
        kept, metrics = step(kept, spoilt)
        assert not np.isfinite(list(metrics.values())).all()
        assert (int(kept.step), int(kept.skipped), int(kept.skipped_in_row)) == (1 + count, count, count)
    same = kept._replace(step=state.step, skipped=state.skipped, skipped_in_row=state.skipped_in_row)
    jax.tree.map(np.testing.assert_array_equal, same, state)

    good, metrics = step(kept, batch)
    assert np.isfinite(list(metrics.values())).all()
    assert (int(good.step), int(good.skipped), int(good.skipped_in_row)) == (4, 2, 0)
    for player in ("generator", "discriminator", "ema"):
        update = minus(getattr(good, player), getattr(state, player))
        assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(update)) > 1e-4


def test_the_average_follows_the_generator(followed, batch):
    """decay = min(ema_decay, (1 + step) / (10 + step)): 1/10, then the 0.15 asked for instead of 2/11."""
    state, step, _ = followed
    for number, decay in enumerate((0.1, 0.15)):
        assert int(state.step) == number
        new, _ = step(state, batch)
        expected = jax.tree.map(lambda a, b, d=decay: d * a + (1 - d) * b, state.ema, new.generator)
        assert "batch_stats" in expected
        assert_trees_close(new.ema, expected, 1e-6)
        state = new


def test_noise_is_another_in_every_step(followed, batch):
    """Nothing but the step number differs, so only the dropout can; real images have none."""
    state, step, _ = followed
    losses = [step(state._replace(step=np.int32(number)), batch)[1] for number in (7, 7, 8)]
    assert losses[0]["generator/1-ssim"] == losses[1]["generator/1-ssim"]
    assert abs(losses[0]["generator/1-ssim"] - losses[2]["generator/1-ssim"]) > 1e-5
    assert losses[0]["discriminator/real"] == losses[2]["discriminator/real"]


# ---------------------------------------------------------------- predict
def test_an_image_depends_on_its_own_mask_and_key_alone(followed, batch):
    state, _, task = followed
    predict = jax.jit(task.predict)
    keys = jax.random.split(jax.random.key(1), 4)
    images = np.asarray(predict(state.ema, batch.condition, keys))
    assert images.shape == (4, 16, 16, 1)
    assert 0 <= images.min() < images.max() <= 1
    np.testing.assert_array_equal(predict(state.ema, batch.condition, keys), images)
    # Alone it is what the generator makes with its running statistics.
    apply = jax.jit(lambda mask, key: generator().apply(state.ema, mask, train=False, rngs={"dropout": key}))
    np.testing.assert_allclose(apply(batch.condition[2:3], keys[2])[0], images[2], atol=1e-6)
    other_key = predict(state.ema, batch.condition, keys.at[2].set(jax.random.key(9)))
    changed = np.abs(other_key - images).max((1, 2, 3)) > 1e-3
    assert changed.tolist() == [False, False, True, False]
    other_mask = batch.condition.copy()
    other_mask[1] = 1 - other_mask[1]
    changed = np.abs(predict(state.ema, other_mask, keys) - images).max((1, 2, 3)) > 1e-3
    assert changed.tolist() == [False, True, False, False]


# ---------------------------------------------------------------- several devices
class NoiseGenerator(nn.Module):
    @nn.compact
    def __call__(self, condition: jax.Array, *, train: bool) -> jax.Array:
        noise = jax.random.normal(self.make_rng("dropout"), condition.shape)
        return nn.sigmoid(noise + self.param("bias", nn.initializers.ones, ()) * condition)


class MeanDiscriminator(nn.Module):
    @nn.compact
    def __call__(self, condition: jax.Array, image: jax.Array) -> jax.Array:
        return self.param("bias", nn.initializers.ones, ()) * image.mean((1, 2, 3))


def test_each_device_of_an_axis_has_its_own_noise():
    """`vmap` names an axis as `pmap` does. Equal images and noise would do what one device does alone."""
    image = np.full((1, 4, 4, 1), 0.5, np.float32)
    batch = Batch(image, image, np.zeros(1, np.int32))

    def task(axis_name: str | None) -> Any:
        settings = {"bce": "pixel", "ssim": 0.0, "l1": 1.0}
        return task_of(NoiseGenerator(), MeanDiscriminator(), axis_name=axis_name, **settings)

    state = start(task(None))
    alone = jax.jit(task(None).step)(state, batch)[1]["generator/l1"]
    step = jax.jit(jax.vmap(task("devices").step, in_axes=(None, 0), axis_name="devices"))
    among = step(state, jax.tree.map(lambda x: np.stack([x] * 4), batch))[1]["generator/l1"]
    assert np.all(among == among[0])
    assert abs(among[0] - alone) > 1e-3


# ---------------------------------------------------------------- two players of one parameter each
GREY = np.full((2, 4, 4, 1), 0.5, np.float32)
GREY_BATCH = Batch(GREY, GREY, np.zeros(2, np.int32))


def test_each_player_has_its_own_optimizer():
    still = task_of(NoiseGenerator(), MeanDiscriminator(), ssim=0.0, discriminator_optimizer=optax.sgd(0.0))
    state = start(still)
    new, _ = jax.jit(still.step)(state, GREY_BATCH)
    assert new.discriminator == state.discriminator and new.generator != state.generator


def test_between_its_steps_a_lazy_term_does_not_move_what_has_momentum():
    """An update by a gradient of 0 would, and would let the momentum fade twice a step."""
    momentum = optax.sgd(0.1, momentum=0.9)
    lazy, plain = (
        task_of(NoiseGenerator(), MeanDiscriminator(), ssim=0.0, discriminator_optimizer=momentum, **how)
        for how in ({"r1": 4.0, "r1_every": 2}, {})
    )
    state = start(lazy)
    state, _ = jax.jit(lazy.step)(
        state._replace(discriminator_optimizer=momentum.init(state.discriminator["params"])), GREY_BATCH
    )
    found, _ = jax.jit(lazy.step)(state, GREY_BATCH)
    expected, _ = jax.jit(plain.step)(state._replace(lazy={}), GREY_BATCH)
    assert int(state.step) == 1 and float(state.lazy["discriminator/r1"]) > 0
    for of in ("discriminator", "discriminator_optimizer"):
        jax.tree.map(np.testing.assert_array_equal, getattr(found, of), getattr(expected, of))


class CuspDiscriminator(nn.Module):
    """|image - 0.5|^1.5: at 0.5 it and its slopes are 0, and the slope along an image has none itself."""

    @nn.compact
    def __call__(self, condition: jax.Array, image: jax.Array) -> jax.Array:
        bias = self.param("bias", nn.initializers.constant(-0.5), ())
        return (jnp.abs(image + bias) ** 1.5).mean((1, 2, 3))


def test_a_lazy_gradient_that_is_not_finite_is_skipped_by_itself():
    """All losses and their gradients are finite, and so is the penalty."""
    task = task_of(NoiseGenerator(), CuspDiscriminator(), ssim=0.0, r1=1.0)
    state = jax.jit(task.init)(jax.random.PRNGKey(0), GREY_BATCH)
    new, metrics = jax.jit(task.step)(state, GREY_BATCH)
    others = {name: float(value) for name, value in metrics.items() if "lazy" not in name}
    assert np.isfinite(list(others.values())).all() and others["discriminator/r1"] == 0
    assert int(new.skipped) == 1
    jax.tree.map(np.testing.assert_array_equal, new.discriminator, state.discriminator)


def test_styles_are_settled_and_repainted_where_they_are_learnt_alone():
    g, d = GhostSPADE(width=2, levels=2, most=4, style=3), MultiScalePatchGAN(width=2, layers=1)
    for kl in (0.5, 0.0):
        task = task_of(g, d, kl=kl)
        assert (task.settle is not None) == (task.repaint is not None) == (kl > 0)
        assert task.prepare is not None


# ---------------------------------------------------------------- conditioned on a label
def test_a_task_of_labels():
    """No mask, no score of a single image; labels and keys alone decide what is predicted."""
    g = DCGANGenerator(size=8, out_channels=1, width=4, latent=3)
    task = task_of(g, DCGANDiscriminator(width=4), ssim=0.0)
    labels = np.array([0, 1, 2, 1], np.int32)
    images = np.random.default_rng(0).uniform(size=(4, 8, 8, 1)).astype(np.float32)
    batch = Batch(images, np.eye(3, dtype=np.float32)[labels], labels)
    state = jax.jit(task.init)(jax.random.PRNGKey(0), batch)
    state = state._replace(ema=drawn(lambda: state.ema, 2))
    before = jax.device_get(state)
    new, metrics = jax.jit(task.step)(state, batch)
    for player in ("generator", "discriminator"):
        update = minus(getattr(new, player)["params"], getattr(before, player)["params"])
        assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(update)), player
        assert float(metrics[f"{player}/gradient_norm"]) > 0
    assert task.score(images, batch) == {}
    keys = jax.vmap(jax.random.key)(np.array([5, 6, 7, 6], np.uint32))
    inputs = task.inputs(batch)
    drawn_images = task.predict(state.ema, inputs, keys)
    assert drawn_images.shape == (4, 8, 8, 1)
    np.testing.assert_allclose(drawn_images[1], drawn_images[3], atol=1e-6)  # same label, same key
    alone = task.predict(state.ema, inputs[:1], keys[:1])
    np.testing.assert_allclose(alone[0], drawn_images[0], atol=1e-5)


def test_a_task_of_masks_scores_each_image(batch):
    task = task_of(generator(), discriminator())
    changed = np.clip(batch.images + np.array([0, 0.2, 0, 0]).reshape(4, 1, 1, 1), 0, 1).astype(np.float32)
    score = np.asarray(task.score(changed, batch)["ssim"])
    assert score.shape == (4,) and score[1] < 0.99
    np.testing.assert_allclose(np.delete(score, 1), 1, atol=1e-6)
