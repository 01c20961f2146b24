"""Supervised training: a classifier of slices or a segmenter of tumours, one network and one loss.

    kind "labels": network (images [N, S, S, C]) -> logits [N, L]; softmax cross-entropy.
    kind "masks":  network (images) -> logits [N, S, S, 1 + K]; cross-entropy + 1 - soft Dice
                   (Milletari et al. 2016, Section 3, per image and class).

What is averaged over images is averaged by their number alone, so the gradient of a batch is the mean of the
gradients of its equal parts: accumulation and several devices change nothing but batch statistics.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from pixmed_jax.data.pipeline import Batch
from pixmed_jax.errors import PixmedError
from pixmed_jax.training.task import Metrics, Task, averaged, follow, skip_if_not_finite

KINDS = ("labels", "masks")
_SMOOTH = 1.0  # pixels added to both sides of Dice, which is 0 / 0 for a class that is nowhere


class SupervisedState(NamedTuple):
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


# ---------------------------------------------------------------- the task
def make_task(
    network: nn.Module,
    optimizer: optax.GradientTransformation,
    *,
    kind: str,
    label_smoothing: float = 0.0,
    class_weights: Sequence[float] = (),
    dice: float = 1.0,
    ema_decay: float = 0.0,
    accumulate: int = 1,
    axis_name: str | None = None,
) -> Task:
    """Task of a network `(images, train) -> logits`.

    kind: "labels" or "masks", see above.
    label_smoothing, class_weights: of "labels"; one weight per class, in the order of the classes.
    dice: of "masks": weight of 1 - soft Dice beside the cross-entropy.
    ema_decay: 0 predicts with the newest weights.
    accumulate, axis_name: as in `gan.make_task`.
    """
    if kind not in KINDS:
        raise PixmedError(f"kind={kind!r} is unknown; use one of {', '.join(KINDS)}")

    def loss(logits: jax.Array, batch: Batch) -> tuple[jax.Array, Metrics]:
        if kind == "labels":
            value = cross_entropy(logits, batch.labels, label_smoothing, class_weights).mean()
            return value, {
                "network/cross_entropy": value,
                "network/accuracy": (logits.argmax(-1) == batch.labels).mean(),
            }
        masks = _one_hot_masks(batch.condition, logits)
        targets = jnp.concatenate([1 - masks.sum(-1, keepdims=True), masks], axis=-1)
        pixels = optax.softmax_cross_entropy(logits, targets).mean()
        overlap = 1 - soft_dice(logits, masks).mean()
        return pixels + dice * overlap, {
            "network/cross_entropy": pixels,
            "network/1-dice": overlap,
        }

    def gradients(params: Any, stats: Mapping, batch: Batch, key: jax.Array) -> tuple[Any, Mapping, Metrics]:
        """(gradient, new statistics, metrics) of one part."""

        def of(params: Any) -> tuple[jax.Array, tuple[Mapping, Metrics]]:
            logits, new = network.apply(
                {"params": params, **stats},
                batch.images,
                train=True,
                rngs={"dropout": key},
                mutable=["batch_stats"],
            )
            value, metrics = loss(logits, batch)
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
        rngs = {"params": params_key, "dropout": dropout_key}
        variables = network.init(rngs, batch.images[:1], train=True)
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

    def predict(variables: Any, images: jax.Array, keys: jax.Array) -> jax.Array:
        """Images [N, S, S, C] -> logits; nothing here is random, so the keys are not used."""
        return cast(jax.Array, network.apply(variables, images, train=False))

    def score(logits: jax.Array, batch: Batch) -> dict[str, jax.Array]:
        if kind == "masks":
            return {"dice": tumor_dice(logits, _one_hot_masks(batch.condition, logits))}
        return {
            "accuracy": (logits.argmax(-1) == batch.labels).astype(jnp.float32),
            "log_likelihood": -cross_entropy(logits, batch.labels),
        }

    return Task(
        init=init,
        step=skip_if_not_finite(propose, apply),
        predict=predict,
        inputs=lambda batch: batch.images,
        score=score,
        predicts=kind,
    )
