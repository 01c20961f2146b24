"""Supervised training: losses and scores against NumPy, one step by hand, small networks that learn."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from pixmed_jax import losses
from pixmed_jax.data.pipeline import Batch
from pixmed_jax.errors import PixmedError
from pixmed_jax.models.densenet import DenseNet
from pixmed_jax.models.segmenter import Segmenter
from pixmed_jax.training import supervised

RNG = np.random.default_rng(0)


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def test_cross_entropy_with_smoothing_and_weights():
    logits, labels = RNG.normal(size=(5, 3)).astype(np.float32), np.array([0, 2, 1, 2, 0])
    p = np.log(softmax(logits.astype(np.float64)))
    plain = -p[np.arange(5), labels]
    np.testing.assert_allclose(supervised.cross_entropy(logits, labels), plain, rtol=1e-5)
    smooth = 0.7 * plain - 0.1 * p.sum(-1)  # 1 - 0.3 and 0.3 / 3 for each class
    np.testing.assert_allclose(supervised.cross_entropy(logits, labels, 0.3), smooth, rtol=1e-5)
    weighted = plain * np.array([1, 5, 5, 5, 1]) * np.where(labels == 1, 2 / 5, 1)
    np.testing.assert_allclose(
        supervised.cross_entropy(logits, labels, weights=(1, 2, 5)), weighted, rtol=1e-5
    )


def test_soft_dice_by_hand():
    """A 1x2 image, one class: p = (0.8, 0.5), mask (1, 0): (2 x 0.8 + 1) / (1.3 + 1 + 1)."""
    logits = jnp.log(jnp.array([[[[0.2, 0.8], [0.5, 0.5]]]]))
    mask = jnp.array([[[[1.0], [0.0]]]])
    np.testing.assert_allclose(supervised.soft_dice(logits, mask), [[2.6 / 3.3]], rtol=1e-6)
    empty = jnp.zeros_like(mask)
    np.testing.assert_allclose(supervised.soft_dice(logits, empty), [[1 / 2.3]], rtol=1e-6)


def test_tumor_dice_counts_pixels_of_any_class():
    logits = np.full((4, 2, 3, 3), -9.0)
    masks = np.zeros((4, 2, 3, 2))
    logits[..., 0] = 0
    logits[0, 0, :2, 1] = 9  # class 1 predicted in two pixels
    masks[0, 0, 1:, 1] = 1  # true in two, of which one is predicted, of class 2
    masks[1, 0, 0, 0] = 1  # missed altogether
    logits[2, 1, 1, 2] = 9  # invented
    found = supervised.tumor_dice(jnp.array(logits), jnp.array(masks))
    np.testing.assert_allclose(found, [2 * 1 / 4, 0, 0, 1])  # the last one is empty, and said to be


# ---------------------------------------------------------------- aims
def test_smoothing_and_weights_are_in_a_classifiers_loss_alone():
    """The score stays the plain log likelihood, by which two such settings can be compared."""
    logits, labels = RNG.normal(size=(5, 3)).astype(np.float32), np.array([0, 2, 1, 2, 0])
    data = Batch(None, None, labels)
    p = np.log(softmax(logits.astype(np.float64)))
    plain = -p[np.arange(5), labels]
    aim = supervised.AIMS["labels"](label_smoothing=0.3, class_weights=(1, 2, 5))
    value, parts = aim.loss(jnp.asarray(logits), data)
    expected = ((0.7 * plain - 0.1 * p.sum(-1)) * np.array([1, 5, 2, 5, 1])).mean()
    assert float(value) == float(parts["network/cross_entropy"]) == pytest.approx(expected, rel=1e-5)
    np.testing.assert_allclose(aim.score(jnp.asarray(logits), data)["log_likelihood"], -plain, rtol=1e-5)


@pytest.mark.parametrize(("settings", "dice"), [({}, 1.0), ({"dice": 0.25}, 0.25)])
def test_the_loss_of_masks_by_numpy(settings, dice):
    """Cross-entropy of each pixel, background first, and 1 - soft Dice of each image and class."""
    logits = RNG.normal(size=(2, 3, 4, 3)).astype(np.float32)
    true = RNG.integers(0, 3, (2, 3, 4))
    p, masks = softmax(logits.astype(np.float64)), np.eye(3)[true]
    pixels = -np.log((p * masks).sum(-1)).mean()
    both, either = (p * masks).sum((1, 2))[:, 1:], (p + masks).sum((1, 2))[:, 1:]
    apart = 1 - ((2 * both + 1) / (either + 1)).mean()
    data = Batch(None, jnp.asarray(masks[..., 1:], jnp.float32), None)
    value, parts = supervised.AIMS["masks"](**settings).loss(jnp.asarray(logits), data)
    assert float(value) == pytest.approx(pixels + dice * apart, rel=1e-5)
    assert float(parts["network/cross_entropy"]) == pytest.approx(pixels, rel=1e-5)
    assert float(parts["network/1-dice"]) == pytest.approx(apart, rel=1e-5)


def test_the_loss_of_images_weighs_each_distance():
    made, real = RNG.uniform(size=(2, 2, 12, 12, 1)).astype(np.float32)
    data = Batch(jnp.asarray(real), None, None)
    value, parts = supervised.AIMS["images"](l1=0.5, mse=2.0, ssim=0.25).loss(jnp.asarray(made), data)
    l1, mse = np.abs(made - real).mean(), np.square(made - real).mean()
    unlike = 1 - float(losses.ssim(made, real))
    assert float(value) == pytest.approx(0.5 * l1 + 2 * mse + 0.25 * unlike, rel=1e-5)
    assert float(parts["network/1-ssim"]) == pytest.approx(unlike, rel=1e-5)
    alone, parts = supervised.AIMS["images"]().loss(jnp.asarray(made), data)
    assert float(alone) == pytest.approx(l1, rel=1e-5) and set(parts) == {"network/l1"}


def test_the_loss_of_curves_weighs_each_of_its_four_terms():
    dark, enhanced = jnp.asarray(RNG.uniform(size=(2, 2, 8, 8, 3)), jnp.float32)
    curves = jnp.asarray(RNG.normal(size=(2, 8, 8, 2, 3)), jnp.float32)
    aim = supervised.AIMS["curves"](spatial=2.0, exposure=3.0, colour=5.0, smoothness=7.0, level=0.4)
    value, parts = aim.loss((enhanced, curves), Batch(None, dark, None))
    terms = {
        "spatial": losses.spatial_consistency(enhanced, dark),
        "exposure": losses.exposure(enhanced, 0.4),
        "colour": losses.colour_constancy(enhanced),
        "smoothness": losses.smoothness(curves),
    }
    assert parts == {f"network/{name}": pytest.approx(float(term)) for name, term in terms.items()}
    weights = {"spatial": 2, "exposure": 3, "colour": 5, "smoothness": 7}
    assert float(value) == pytest.approx(sum(weights[n] * float(terms[n]) for n in terms), rel=1e-5)


# ---------------------------------------------------------------- one step
class Linear(nn.Module):
    """The smallest classifier, with a batch norm whose gain the task must carry along."""

    @nn.compact
    def __call__(self, images, *, train):
        x = images.mean((1, 2))
        x = nn.BatchNorm(use_running_average=not train, momentum=0.5, name="norm")(x)
        return nn.Dense(3, name="top")(x)


def batch(n: int, size: int = 4, channels: int = 2, seed: int = 0) -> Batch:
    generator = np.random.default_rng(seed)
    return Batch(
        images=jnp.array(generator.uniform(size=(n, size, size, channels)), jnp.float32),
        condition=jnp.zeros((n, 3)),
        labels=jnp.array(generator.integers(0, 3, n), jnp.int32),
    )


def test_a_step_is_gradient_descent_on_the_mean_loss():
    task = supervised.make_task(Linear(), optax.sgd(0.5), kind="labels", ema_decay=0.9)
    data = batch(6)
    state = task.init(jax.random.PRNGKey(0), data)
    new, metrics = jax.jit(task.step)(state, data)

    x = np.asarray(data.images, np.float64).mean((1, 2))
    normed = (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5)
    top = {k: np.asarray(v, np.float64) for k, v in state.variables["params"]["top"].items()}
    p = softmax(normed @ top["kernel"] + top["bias"])
    g = (p - np.eye(3)[data.labels]) / 6
    np.testing.assert_allclose(
        new.variables["params"]["top"]["kernel"], top["kernel"] - 0.5 * normed.T @ g, rtol=1e-4, atol=1e-6
    )
    np.testing.assert_allclose(
        metrics["network/cross_entropy"], -np.log(p[np.arange(6), data.labels]).mean(), rtol=1e-5
    )
    assert metrics["network/accuracy"] == np.mean(p.argmax(-1) == data.labels)
    stats = new.variables["batch_stats"]["norm"]["mean"]
    np.testing.assert_allclose(stats, 0.5 * x.mean(0), rtol=1e-5)
    assert (int(new.step), int(new.skipped)) == (1, 0)
    # A young average, (1 + 0) / (10 + 0), of weights and statistics alike.
    old, now = state.variables["batch_stats"]["norm"]["mean"], stats
    np.testing.assert_allclose(new.ema["batch_stats"]["norm"]["mean"], 0.1 * old + 0.9 * now, rtol=1e-5)


def test_no_average_unless_asked_for():
    task = supervised.make_task(Linear(), optax.sgd(0.5), kind="labels")
    state, _ = task.step(task.init(jax.random.PRNGKey(0), batch(6)), batch(6))
    for a, b in zip(jax.tree.leaves(state.ema), jax.tree.leaves(state.variables), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7)


def test_a_batch_that_is_not_finite_changes_nothing_but_the_counters():
    task = supervised.make_task(Linear(), optax.adam(0.1), kind="labels")
    data = batch(6)
    state = task.init(jax.random.PRNGKey(0), data)
    bad = data._replace(images=data.images.at[0, 0, 0, 0].set(jnp.nan))
    new, _ = task.step(state, bad)
    assert (int(new.step), int(new.skipped), int(new.skipped_in_row)) == (1, 1, 1)
    for a, b in zip(jax.tree.leaves(new[4:]), jax.tree.leaves(state[4:]), strict=True):
        assert np.array_equal(a, b)


class NormFree(nn.Module):
    """Without batch statistics, parts of a batch are independent."""

    kind: str

    @nn.compact
    def __call__(self, images, *, train):
        x = nn.Conv(4, (1, 1), name="a")(images)
        return nn.Dense(3, name="b")(nn.tanh(x if self.kind == "masks" else x.mean((1, 2))))


@pytest.mark.parametrize("kind", ("labels", "masks"))
def test_accumulated_and_mapped_gradients_are_those_of_the_whole_batch(kind):
    data = batch(4)
    if kind == "masks":
        condition = (RNG.uniform(size=(4, 4, 4, 1)) > 0.5) * np.array([1.0, 0.0])
        data = data._replace(condition=jnp.array(condition, jnp.float32))
    loss = {"class_weights": (1, 2, 3)} if kind == "labels" else {}
    make = lambda **how: supervised.make_task(  # noqa: E731
        NormFree(kind), optax.sgd(1.0), kind=kind, **loss, **how
    )
    state = make().init(jax.random.PRNGKey(0), data)
    whole, metrics = make().step(state, data)
    parts, same = make(accumulate=2).step(state, data)
    mapped, also = jax.vmap(make(axis_name="i").step, in_axes=(None, 0), axis_name="i")(
        state, jax.tree.map(lambda x: x.reshape(2, 2, *x.shape[1:]), data)
    )
    for got, name in ((parts, "accumulated"), (jax.tree.map(lambda x: x[1], mapped), "mapped")):
        for a, b in zip(jax.tree.leaves(got.variables), jax.tree.leaves(whole.variables), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6, err_msg=name)
    for name, value in metrics.items():
        np.testing.assert_allclose([same[name], also[name][0]], [value, value], rtol=1e-4, err_msg=name)


class Noise(nn.Module):
    """Logits [N, 3] that are what was drawn for each image."""

    @nn.compact
    def __call__(self, x, *, train):
        gain = self.param("gain", nn.initializers.ones, ())
        return gain * jax.random.normal(self.make_rng("noise"), (len(x), 3))


def test_each_step_and_each_run_has_noise_of_its_own():
    task, data = supervised.make_task(Noise(), optax.sgd(0.0), kind="labels"), batch(4)
    state = task.init(jax.random.PRNGKey(0), data)
    step = jax.jit(task.step)
    others = state, state._replace(step=state.step + 1), state._replace(key=jax.random.PRNGKey(9))
    costs = [float(step(of, data)[1]["network/cross_entropy"]) for of in (state, *others)]
    assert costs[0] == costs[1] and len(set(costs)) == 3


def test_each_of_what_is_drawn_follows_its_own_key():
    task = supervised.make_task(Noise(), optax.sgd(0.0), kind="layouts", tumors=1)
    keys = jax.vmap(jax.random.key)(np.array([1, 2, 1], np.uint32))
    variables = {"params": {"gain": jnp.ones(())}}
    drawn = np.asarray(task.predict(variables, jnp.zeros((3, 2, 2, 1)), keys))
    np.testing.assert_array_equal(drawn[0], drawn[2])
    assert drawn.shape == (3, 3) and np.abs(drawn[0] - drawn[1]).min() > 1e-3


def test_an_unknown_kind_is_refused():
    with pytest.raises(PixmedError, match="kind='boxes' is unknown; use one of labels, masks, images"):
        supervised.make_task(Linear(), optax.sgd(1.0), kind="boxes")


# ---------------------------------------------------------------- whole trainings
def train(task, data: Batch, steps: int):
    state = task.init(jax.random.PRNGKey(0), data)
    step = jax.jit(task.step)
    for _ in range(steps):
        state, _ = step(state, data)
    return state.ema


def test_a_densenet_learns_which_corner_is_bright():
    labels = np.arange(24) % 3
    images = RNG.uniform(0, 0.5, (24, 16, 16, 1)).astype(np.float32)
    for image, label in zip(images, labels, strict=True):
        image[: 4 + 4 * label, :8] += 0.5
    data = Batch(jnp.array(images), jnp.zeros((24, 3)), jnp.array(labels, jnp.int32))
    network = DenseNet(classes=3, blocks=(1, 1), growth=4, stem=8)
    task = supervised.make_task(network, optax.adam(1e-2), kind="labels", ema_decay=0.8)
    variables = train(task, data, 60)
    logits = task.predict(variables, task.inputs(data), None)
    scores = task.score(logits, data)
    assert list(scores) == ["accuracy", "log_likelihood"] and task.predicts == "labels"
    assert scores["accuracy"].shape == (24,) and scores["accuracy"].mean() == 1
    np.testing.assert_allclose(
        scores["log_likelihood"], np.log(softmax(np.asarray(logits))[np.arange(24), labels]), atol=1e-4
    )


def test_a_segmenter_learns_a_bright_disc():
    """The single class comes three times, once per channel of the picture, as make_batch gives it."""
    y, x = np.mgrid[:16, :16]
    masks = np.stack([(y - 4 - i) ** 2 + (x - 11 + i) ** 2 < 14 for i in range(8)])
    images = RNG.uniform(0, 0.4, (8, 16, 16, 3)) + 0.5 * masks[..., None]
    data = Batch(
        jnp.array(images, jnp.float32),
        jnp.repeat(jnp.array(masks[..., None], jnp.float32), 3, -1),
        jnp.zeros(8, jnp.int32),
    )
    task = supervised.make_task(
        Segmenter(classes=1, width=4, levels=2, norm="instance"), optax.adam(1e-2), kind="masks"
    )
    logits = task.predict(train(task, data, 60), task.inputs(data), None)
    assert logits.shape == (8, 16, 16, 2) and task.predicts == "masks"
    dice = task.score(logits, data)["dice"]
    assert dice.shape == (8,) and dice.min() > 0.95
    np.testing.assert_allclose(
        dice[0],
        2
        * (masks[0] & (logits[0].argmax(-1) > 0)).sum()
        / (masks[0].sum() + (logits[0].argmax(-1) > 0).sum()),
    )
