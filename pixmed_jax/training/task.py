"""The contract between what is trained and the loop that trains it: a NamedTuple of pure functions.

The loop knows tasks, never networks. All that a task keeps between steps is in its state, and every random
number of its step is derived from (state.key, state.step). What the loop gives it follows from the config's
seed and the step alone: which slices are in a batch (`pipeline.batch_rows`), how these are cropped and
augmented (`loop.jit_step`). So config, data and state determine everything that follows.
"""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import optax

from pixmed_jax.data.pipeline import Batch

Metrics = dict[str, jax.Array]
Settle = Callable[[Any, Iterable[Batch], jax.Array], tuple[Any, Metrics]]


class TrainState(Protocol):
    """What the loop and checkpoint readers use of any task's state; counters are int32 scalars."""

    step: jax.Array  # updates tried so far, skipped ones included
    skipped: jax.Array  # updates skipped because a number was not finite
    skipped_in_row: jax.Array  # of those, the last unbroken run
    key: jax.Array  # [2] uint32, never changes
    ema: Any  # running average of what predicts, statistics included

    def _replace(self, **fields: Any) -> "TrainState": ...


class Task(NamedTuple):
    """init (key, batch) -> state; step (state, batch) -> (state, metrics); predict -> images or logits.

    `step` is pure; the loop jits it and donates the state. `predict(variables, inputs, keys)` takes a state's
    `ema`, `inputs(batch)`, and one key per input. What it returns is, by `predicts`,

        "images"  [N, S, S, C] in [0, 1]
        "labels"  logits [N, L]
        "masks"   logits [N, S, S, 1 + K], background first
        "layouts" logits [N, S, S, 1 + K] of a label map that is drawn, background first

    and `score(outputs, batch)` says how good each is: {name: [N]}, the more the better. The best checkpoint
    is that with the highest first score; where a task has none, it is the newest. `repaint(variables, inputs,
    images)`, of a generator that reads styles, makes images in the style of the given ones.
    `prepare(variables, inputs)` makes what `predict` of a single input is given beside `variables`, {} or
    {PREPARED: ..}, to be faster on a CPU (models/layers.py).
    `settle(variables, batches of training slices, key)` -> (variables, metrics) is done once, to a state's
    `ema`, when its last step is over.
    """

    init: Callable[[jax.Array, Batch], Any]
    step: Callable[[Any, Batch], tuple[Any, Metrics]]
    predict: Callable[[Any, jax.Array, jax.Array], jax.Array]
    inputs: Callable[[Batch], jax.Array]
    score: Callable[[jax.Array, Batch], Metrics]
    predicts: str
    repaint: Callable[[Any, jax.Array, jax.Array], jax.Array] | None = None
    prepare: Callable[[Any, jax.Array], Any] | None = None
    settle: Settle | None = None


def jit_init(init: Callable, **options: Any) -> Any:
    """`init` jitted, on a CPU the values to the bit as by plain jit, in a third of the time to compile.

    What draws parameters is hundreds of small loops of random numbers, run once, within milliseconds: fully
    optimised they take as long to compile as the training step (BUILD_NOTES).
    """
    unoptimised = jax.config.read("jax_disable_most_optimizations")  # already, and more than here
    return jax.jit(
        init, compiler_options=None if unoptimised else {"xla_backend_optimization_level": 1}, **options
    )


def skip_if_not_finite(
    propose: Callable[[Any, Batch], tuple[Any, Metrics]], apply: Callable[[Any, Any], Any]
) -> Callable[[Any, Batch], tuple[Any, Metrics]]:
    """A step that keeps the old state, counters apart, when any metric of `propose` is NaN or infinite.

    `propose` (state, batch) -> (gradients and what else `apply` needs, metrics); `apply` (state, proposal) ->
    state. The norm of every gradient must be among the metrics: a finite norm means that no entry of the
    gradient is NaN or infinite, and so neither is any parameter after Adam.
    """

    def step(state: Any, batch: Batch) -> tuple[Any, Metrics]:
        proposal, metrics = propose(state, batch)
        finite = jnp.all(jnp.stack([jnp.isfinite(value).all() for value in metrics.values()]))
        # A branch, not a selection: each array of the state is then updated where it lies.
        new = jax.lax.cond(finite, apply, lambda state, _: state, state, proposal)
        new = new._replace(
            step=state.step + 1,
            skipped=state.skipped + ~finite,
            skipped_in_row=jnp.where(finite, 0, state.skipped_in_row + 1),
        )
        return new, metrics

    return step


def averaged(
    gradients: Callable[[Any, Batch, jax.Array], tuple[Any, Any, Metrics]],
    stats: Any,
    batch: Batch,
    key: jax.Array,
    accumulate: int,
    axis_name: str | None,
) -> tuple[Any, Any, Metrics]:
    """`gradients(statistics, part of the batch, key)` -> (gradients, statistics, metrics), over the batch.

    The batch is cut into `accumulate` equal parts, whose statistics follow each other and whose gradients and
    metrics are averaged; under an axis all three are averaged over its devices too. Each part and device has
    a key of its own.
    """
    if axis_name is not None:
        key = jax.random.fold_in(key, jax.lax.axis_index(axis_name))
    if accumulate == 1:
        result = gradients(stats, batch, key)
    else:
        # Every so-manyth image is a part, so that each device keeps its own where the batch lies on several.
        parts = jax.tree.map(lambda x: x.reshape(-1, accumulate, *x.shape[1:]).swapaxes(0, 1), batch)

        def body(carry: tuple, part: tuple[Batch, jax.Array]) -> tuple[tuple, None]:
            sums, stats = carry
            gradient, stats, metrics = gradients(stats, *part)
            return (jax.tree.map(jnp.add, sums, (gradient, metrics)), stats), None

        first = jax.tree.map(lambda x: x[0], parts)
        gradient, _, metrics = jax.eval_shape(lambda: gradients(stats, first, key))
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), (gradient, metrics))
        (sums, stats), _ = jax.lax.scan(body, (zeros, stats), (parts, jax.random.split(key, accumulate)))
        gradient, metrics = jax.tree.map(lambda x: x / accumulate, sums)
        result = gradient, stats, metrics
    return result if axis_name is None else jax.lax.pmean(result, axis_name)


def follow(average: Any, new: Any, step: jax.Array, decay: float) -> Any:
    """The running average one step on.

    A young one follows quickly, or the random start would show for 1 / (1 - decay) steps.
    """
    return optax.incremental_update(new, average, 1 - jnp.minimum(decay, (1 + step) / (10 + step)))


def streams(key: jax.Array) -> dict[str, jax.Array]:
    """A network's random streams: where it drops features, and what it draws."""
    return {"dropout": key, "noise": jax.random.fold_in(key, 1)}
