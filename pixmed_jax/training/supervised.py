"""Training of one network by one loss: a classifier, a segmenter, what restores images, what draws layouts.

    kind "labels": network (images [N, S, S, C]) -> logits [N, L]; softmax cross-entropy.
    kind "masks":  network (images) -> logits [N, S, S, 1 + K]; cross-entropy + 1 - soft Dice
                   (Milletari et al. 2016, Section 3, per image and class).
    kind "images": network (condition, a degraded image) -> images [N, S, S, C] in [0, 1]; L1, MSE, 1 - SSIM.
    kind "curves": the same, and in training the curves that brighten it; without a reference (Zero-DCE).
    kind "layouts": network (condition, a label map) -> in training logits [N, S, S, 1 + K] of that map and
                   what its code costs [N]; else logits of a new map of the same tumour class (LayoutVAE).

What is averaged over images is averaged by their number alone, so the gradient of a batch is the mean of the
gradients of its equal parts: accumulation and several devices change nothing but batch statistics.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from pixmed_jax import losses
from pixmed_jax.data.pipeline import Batch
from pixmed_jax.errors import PixmedError
from pixmed_jax.training.task import Metrics, Task, averaged, follow, skip_if_not_finite, streams

_SMOOTH = 1.0  # pixels added to both sides of Dice, which is 0 / 0 for a class that is nowhere


class SupervisedState(NamedTuple):
    """All that a training is at a step: nothing else decides what comes after it."""

    step: jax.Array
    skipped: jax.Array
    skipped_in_row: jax.Array
    key: jax.Array
    variables: Any  # {"params", "batch_stats"?}
    optimizer: optax.OptState
    ema: Any  # running average of `variables`, statistics included: what predicts


# ---------------------------------------------------------------- losses and scores
def cross_entropy(
    logits: jax.Array, labels: jax.Array, smoothing: float = 0.0, weights: Sequence[float] = ()
) -> jax.Array:
    """[N]: of logits [N, L] and labels [N] int32, times the weight of each label.

    smoothing: the share of the target that is spread over all classes (Szegedy et al. 2016, Section 7).
    """
    targets = optax.smooth_labels(jax.nn.one_hot(labels, logits.shape[-1]), smoothing)
    losses = optax.softmax_cross_entropy(logits, targets)
    return losses * jnp.asarray(weights)[labels] if len(weights) else losses


def soft_dice(logits: jax.Array, masks: jax.Array) -> jax.Array:
    """[N, K] in (0, 1]: logits [N, S, S, 1 + K] against one-hot masks [N, S, S, K] without a background."""
    p = jax.nn.softmax(logits)[..., 1:]
    both, either = (p * masks).sum((1, 2)), (p + masks).sum((1, 2))
    return (2 * both + _SMOOTH) / (either + _SMOOTH)


def tumor_dice(logits: jax.Array, masks: jax.Array) -> jax.Array:
    """[N]: Dice of the predicted and the true tumour, of whatever class; 1 where both are empty."""
    predicted, true = logits.argmax(-1) > 0, masks.any(-1)
    both, either = (predicted & true).sum((1, 2)), predicted.sum((1, 2)) + true.sum((1, 2))
    return jnp.where(either > 0, 2 * both / jnp.maximum(either, 1), 1.0)


def _one_hot_masks(condition: jax.Array, logits: jax.Array) -> jax.Array:
    """The condition's K channels: a single class is repeated there, once per channel of the image."""
    return condition[..., : logits.shape[-1] - 1]


# ---------------------------------------------------------------- what a network learns to tell
class Aim(NamedTuple):
    """What a network is given of a batch, what its outputs cost, how good each is, and what they are.

    The loss takes what the network gives in training, the score what it predicts. `drawn`: by chance.
    """

    inputs: Callable[[Batch], jax.Array]
    loss: Callable[[Any, Batch], tuple[jax.Array, Metrics]]
    score: Callable[[jax.Array, Batch], Metrics]
    predicts: str
    drawn: bool = False


def _labels(*, label_smoothing: float = 0.0, class_weights: Sequence[float] = ()) -> Aim:
    """class_weights: one per class, in the order of the classes."""

    def loss(logits: jax.Array, batch: Batch) -> tuple[jax.Array, Metrics]:
        value = cross_entropy(logits, batch.labels, label_smoothing, class_weights).mean()
        return value, {
            "network/cross_entropy": value,
            "network/accuracy": (logits.argmax(-1) == batch.labels).mean(),
        }

    def score(logits: jax.Array, batch: Batch) -> Metrics:
        return {
            "accuracy": (logits.argmax(-1) == batch.labels).astype(jnp.float32),
            "log_likelihood": -cross_entropy(logits, batch.labels),
        }

    return Aim(lambda batch: batch.images, loss, score, "labels")


def _masks(*, dice: float = 1.0) -> Aim:
    """dice: weight of 1 - soft Dice beside the cross-entropy."""

    def loss(logits: jax.Array, batch: Batch) -> tuple[jax.Array, Metrics]:
        masks = _one_hot_masks(batch.condition, logits)
        targets = jnp.concatenate([1 - masks.sum(-1, keepdims=True), masks], axis=-1)
        pixels = optax.softmax_cross_entropy(logits, targets).mean()
        overlap = 1 - soft_dice(logits, masks).mean()
        return pixels + dice * overlap, {
            "network/cross_entropy": pixels,
            "network/1-dice": overlap,
        }

    def score(logits: jax.Array, batch: Batch) -> Metrics:
        return {"dice": tumor_dice(logits, _one_hot_masks(batch.condition, logits))}

    return Aim(lambda batch: batch.images, loss, score, "masks")


def _images(*, l1: float = 1.0, mse: float = 0.0, ssim: float = 0.0) -> Aim:
    """Weights of the distances between what is made and what is real; the best has the highest PSNR."""

    def loss(made: jax.Array, batch: Batch) -> tuple[jax.Array, Metrics]:
        value, terms = losses.between(made, batch.images, {"l1": l1, "mse": mse, "1-ssim": ssim})
        return value, {f"network/{name}": term for name, term in terms.items()}

    return Aim(lambda batch: batch.condition, loss, _closeness, "images")


def _curves(*, spatial: float, exposure: float, colour: float, smoothness: float, level: float) -> Aim:
    """Weights of Zero-DCE's four losses (Equation 8), none of which knows the bright image; scores do.

    level: the exposure that is aimed at.
    """

    def loss(made: tuple[jax.Array, jax.Array], batch: Batch) -> tuple[jax.Array, Metrics]:
        enhanced, curves = made
        terms = {
            "spatial": (spatial, losses.spatial_consistency(enhanced, batch.condition)),
            "exposure": (exposure, losses.exposure(enhanced, level)),
            "colour": (colour, losses.colour_constancy(enhanced)),
            "smoothness": (smoothness, losses.smoothness(curves)),
        }
        value = sum((weight * term for weight, term in terms.values()), jnp.zeros(()))
        return value, {f"network/{name}": term for name, (_, term) in terms.items()}

    return Aim(lambda batch: batch.condition, loss, _closeness, "images")


def with_planes(maps: jax.Array, values: jax.Array, planes: int) -> jax.Array:
    """One-hot maps [N, S, S, K] and planes [N], 0 for unknown -> [N, S, S, K + planes], constant channels."""
    told = jnp.broadcast_to(jax.nn.one_hot(values - 1, planes)[:, None, None], (*maps.shape[:3], planes))
    return jnp.concatenate([maps, told], axis=-1)


def _layouts(
    *, tumors: int, classes: int | None = None, planes: int = 0, code: float = 1.0, tumor: float = 1.0
) -> Aim:
    """code: weight of what a map's code costs beside the map's own cross-entropy, both in nats a map (1: the
    evidence lower bound). tumor: what a pixel of the first `tumors` classes counts; all others count 1.
    classes: so many the network is given; a single one is repeated in the condition, and is read once.
    planes: so many the network is told, by the batch's labels.
    """

    def inputs(batch: Batch) -> jax.Array:
        return with_planes(batch.condition[..., :classes], batch.labels, planes)

    def loss(made: tuple[jax.Array, jax.Array], batch: Batch) -> tuple[jax.Array, Metrics]:
        logits, cost = made
        maps = _one_hot_masks(batch.condition, logits)
        targets = jnp.concatenate([1 - maps.sum(-1, keepdims=True), maps], axis=-1)
        weight = 1 + (tumor - 1) * maps[..., :tumors].sum(-1)
        pixels = (weight * optax.softmax_cross_entropy(logits, targets)).sum((1, 2)).mean()
        return pixels + code * cost.mean(), {"network/map": pixels, "network/code": cost.mean()}

    return Aim(inputs, loss, lambda made, batch: {}, "layouts", drawn=True)


def _closeness(made: jax.Array, batch: Batch) -> Metrics:
    return {
        "psnr": losses.psnr_of_each(made, batch.images),
        "ssim": losses.ssim_of_each(made, batch.images),
    }


AIMS: dict[str, Callable[..., Aim]] = {
    "labels": _labels,
    "masks": _masks,
    "images": _images,
    "curves": _curves,
    "layouts": _layouts,
}


# ---------------------------------------------------------------- the task
def make_task(
    network: nn.Module,
    optimizer: optax.GradientTransformation,
    *,
    kind: str,
    ema_decay: float = 0.0,
    accumulate: int = 1,
    axis_name: str | None = None,
    **loss: Any,
) -> Task:
    """Task of a network `(inputs, train) -> outputs`.

    kind: a name in `AIMS`, see above; `loss` are its settings there.
    ema_decay: 0 predicts with the newest weights.
    accumulate, axis_name: as in `gan.make_task`.
    """
    if kind not in AIMS:
        raise PixmedError(f"kind={kind!r} is unknown; use one of {', '.join(AIMS)}")
    aim = AIMS[kind](**loss)

    def gradients(params: Any, stats: Mapping, batch: Batch, key: jax.Array) -> tuple[Any, Mapping, Metrics]:
        """(gradient, new statistics, metrics) of one part."""

        def of(params: Any) -> tuple[jax.Array, tuple[Mapping, Metrics]]:
            outputs, new = network.apply(
                {"params": params, **stats},
                aim.inputs(batch),
                train=True,
                rngs=streams(key),
                mutable=["batch_stats"],
            )
            value, metrics = aim.loss(outputs, batch)
            return value, (new, metrics)

        gradient, (new, metrics) = jax.grad(of, has_aux=True)(params)
        return gradient, new, metrics

    def propose(state: SupervisedState, batch: Batch) -> tuple[Any, Metrics]:
        key = jax.random.fold_in(state.key, state.step)
        params = state.variables["params"]
        stats = {name: value for name, value in state.variables.items() if name != "params"}
        gradient, stats, metrics = averaged(
            functools.partial(gradients, params), stats, batch, key, accumulate, axis_name
        )
        metrics["network/gradient_norm"] = optax.tree.norm(gradient)
        metrics["network/statistics_norm"] = optax.tree.norm(stats)
        return (gradient, stats), metrics

    def apply(state: SupervisedState, proposal: tuple[Any, Mapping]) -> SupervisedState:
        gradient, stats = proposal
        params = state.variables["params"]
        updates, optimizer_state = optimizer.update(gradient, state.optimizer, params)
        variables = {"params": optax.apply_updates(params, updates), **stats}
        return state._replace(
            variables=variables,
            optimizer=optimizer_state,
            ema=follow(state.ema, variables, state.step, ema_decay),
        )

    def init(key: jax.Array, batch: Batch) -> SupervisedState:
        key, params_key, dropout_key = jax.random.split(key, 3)
        rngs = {"params": params_key, "dropout": dropout_key, "noise": dropout_key}
        variables = network.init(rngs, aim.inputs(batch)[:1], train=True)
        zero = jnp.zeros((), jnp.int32)
        return SupervisedState(
            step=zero,
            skipped=zero,
            skipped_in_row=zero,
            key=key,
            variables=variables,
            optimizer=optimizer.init(variables["params"]),
            ema=jax.tree.map(jnp.copy, variables),  # a copy: the step donates its state
        )

    def predict(variables: Any, inputs: jax.Array, keys: jax.Array) -> jax.Array:
        """The keys are used where something is drawn."""
        if not aim.drawn:
            return cast(jax.Array, network.apply(variables, inputs, train=False))

        def one(given: jax.Array, key: jax.Array) -> jax.Array:
            drawn = network.apply(variables, given[None], train=False, rngs={"noise": key})
            return cast(jax.Array, drawn)[0]

        return jax.vmap(one)(inputs, keys)

    return Task(
        init=init,
        step=skip_if_not_finite(propose, apply),
        predict=predict,
        inputs=aim.inputs,
        score=aim.score,
        predicts=aim.predicts,
    )
