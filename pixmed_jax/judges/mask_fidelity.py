"""Does the generated image show the tumour where the mask says? A segmenter of real slices answers.

A small U-Net (`models.segmenter`) is trained on the run's real training slices alone, so it knows no
generated image. What it finds on a generated image is compared with the mask that image was made from; beside
stand what it finds on the real slices of the same masks, which is the most that can be asked, and its Dice
on generated images with the masks of other patients, which is what an image that ignores its mask gets.

Sides beyond 64 pixels are shrunk by a whole number first, and what is found is enlarged again: that keeps the
training at a minute on two cores, and costs the real slices' Dice as much as the generated ones'.
"""

from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax

from pixmed_jax.data.pipeline import Batch, batch_rows
from pixmed_jax.judges.kept import digest, kept, newest
from pixmed_jax.metrics import clustered, distribution, segmentation
from pixmed_jax.models.segmenter import Segmenter
from pixmed_jax.progress import watched
from pixmed_jax.training import supervised
from pixmed_jax.training.task import Task, jit_init

_NAME = "segmenter"  # of its file
_NETWORK: dict[str, Any] = {"classes": 1, "width": 8, "levels": 4, "norm": "instance"}
_MULTIPLE, _SIDE = 8, 64  # a network of four levels halves three times
_BATCH, _STEPS, _PASSES = 8, 400, 20
_GAIN = (0.8, 1.2)  # factor on a training slice's grey values, so that a slight change of them is no surprise
_CHUNK = 8  # slices segmented at a time

Segment = Callable[[np.ndarray], np.ndarray]


class Found(NamedTuple):
    """Masks [N, S, S] bool that were found, for the page's pictures."""

    generated: np.ndarray
    real: np.ndarray


def no_masks(why: str) -> dict[str, Any]:
    """The entry of evaluation.json where nothing can be measured, and why."""
    return {"generated": None, "real": None, "why": why}


def measure(
    segment: Segment,
    generated: np.ndarray,
    real: np.ndarray,
    masks: np.ndarray,
    groups: np.ndarray,
    *,
    lookup: np.ndarray | None = None,
) -> tuple[dict[str, Any], Found]:
    """The entry "mask_dice" of evaluation.json; image i was made from mask i, and real slice i has it.

    Means over the slices with a tumour: nothing found where nothing is would count as found.
    generated, real: [N, S, S] in [0, 1]; masks [N, S, S] bool; groups [N], the patients. lookup: [N, S, S],
    what is made of the same maps without a network, whose Dice stands beside.
    """
    found = Found(segment(generated), segment(real))
    ill = masks.any((1, 2))
    if not ill.any():
        return no_masks("no slice has a tumour"), found
    truth, whose = masks[ill], groups[ill]
    entry: dict[str, Any] = {"n": int(ill.sum())}
    scores = {}
    for name, every in found._asdict().items():
        of = every[ill]
        dice, far = segmentation.dice(of, truth), segmentation.hausdorff95(of, truth)
        entry[name] = float(dice.mean())
        entry.setdefault("intervals", {})[name] = clustered.interval(
            dice, whose, within=clustered.RANGES["dice"]
        )
        scores[name] = dice
        entry.setdefault("hausdorff95", {})[name] = None if np.isnan(far).all() else float(np.nanmean(far))
        entry.setdefault("missed", {})[name] = int((~of.any((1, 2))).sum())
        entry.setdefault("invented", {})[name] = int(every[~ill].any((1, 2)).sum())
    # What a patient's tumours are hard to find by falls out of the quotient.
    share = clustered.ratio(scores["generated"], scores["real"], whose)
    entry["share"] = share and dict(zip(("value", "low", "high"), share, strict=True))
    other = other_patients(whose)
    entry["other_mask"] = (
        None if other is None else float(segmentation.dice(found.generated[ill], truth[other]).mean())
    )
    if lookup is not None:
        entry[distribution.LOOKUP] = float(segmentation.dice(segment(lookup)[ill], truth).mean())
    return entry, found


def other_patients(groups: np.ndarray) -> np.ndarray | None:
    """For each slice the row of one of another patient, or None if there are no others.

    Sorted by patient, everything moves on by the size of the largest, which leads out of each one.
    """
    order = np.argsort(groups, kind="stable")
    _, counts = np.unique(groups, return_counts=True)
    if 2 * counts.max() > len(groups):
        return None
    rows = np.empty(len(groups), int)
    rows[order] = np.roll(order, -counts.max())
    return rows


# ---------------------------------------------------------------- the segmenter
def segmenter(images: np.ndarray, masks: np.ndarray, *, folder: Path | None = None, seed: int = 0) -> Segment:
    """The segmenter of real training slices [N, S, S] in [0, 1] and masks [N, S, S] bool.

    It turns images [M, S, S] into masks [M, S, S] bool; `folder` as in `features.encoder`.
    """
    key = digest(images, masks, seed, _NETWORK, _SIDE, _BATCH, _STEPS, _PASSES, _GAIN, "1")
    factor = -(-images.shape[1] // _SIDE)
    params = kept(
        folder, _NAME, key, _like(), lambda: _train(_fitted(images, factor), _fitted(masks, factor), seed)
    )
    return partial(_segment, params)


def kept_segmenter(folder: Path) -> Segment | None:
    """The segmenter that an evaluation left in a run's `judges/`, if it did."""
    params = newest(folder, _NAME, _like())
    return None if params is None else partial(_segment, params)


def _like() -> Any:
    example = _batch(np.zeros((1, _MULTIPLE, _MULTIPLE), np.float32), np.zeros((1, _MULTIPLE, _MULTIPLE)))
    return jax.eval_shape(_task(1).init, jax.random.PRNGKey(0), example).ema["params"]


def _segment(params: Any, images: np.ndarray) -> np.ndarray:
    size = images.shape[1]
    factor = -(-size // _SIDE)
    small = _fitted(images, factor)
    parts = [np.zeros((0, size, size), bool)]
    count = -(-len(small) // _CHUNK)
    for i in watched(range(count), count, "segmenting slices"):
        part = small[i * _CHUNK : (i + 1) * _CHUNK]
        padded = np.pad(part, ((0, _CHUNK - len(part)), (0, 0), (0, 0)))
        found = np.asarray(_predict(params, padded))[: len(part)]
        parts.append(found.repeat(factor, 1).repeat(factor, 2)[:, :size, :size])
    return np.concatenate(parts)


def _fitted(images: np.ndarray, factor: int) -> np.ndarray:
    """Images or masks [N, S, S], padded below and to the right, shrunk to means of blocks: float32."""
    more = -images.shape[1] % (factor * _MULTIPLE)
    padded = np.pad(images, ((0, 0), (0, more), (0, more))).astype(np.float32)
    n, size, _ = padded.shape
    return padded.reshape(n, size // factor, factor, size // factor, factor).mean((2, 4))


@jax.jit
def _predict(params: Any, images: jax.Array) -> jax.Array:
    logits = Segmenter(**_NETWORK).apply({"params": params}, images[..., None], train=False)
    return cast(jax.Array, logits).argmax(-1) > 0  # Flax's apply may return more, for other networks


def _task(steps: int) -> Task:
    return supervised.make_task(
        Segmenter(**_NETWORK),
        optax.adam(optax.cosine_decay_schedule(3e-3, steps)),
        kind="masks",
        ema_decay=0.98,
    )


@lru_cache(4)
def _jitted(steps: int) -> tuple[Callable, Callable]:
    task = _task(steps)
    return jit_init(task.init), jax.jit(task.step, donate_argnums=0)


def _train(images: np.ndarray, masks: np.ndarray, seed: int) -> Any:
    steps = min(_STEPS, -(-_PASSES * len(images) // _BATCH))
    init, step = _jitted(steps)
    state = init(jax.random.PRNGKey(seed), _batch(images[:1], masks[:1]))
    for i in watched(range(steps), steps, "training the segmenter of real slices"):
        rows = batch_rows(seed, i, _BATCH, len(images))
        rng = np.random.default_rng([seed, i])
        mirrored = rng.random(_BATCH) < 0.5
        batch, truth = images[rows], masks[rows]
        batch[mirrored], truth[mirrored] = batch[mirrored, :, ::-1], truth[mirrored, :, ::-1]
        state, _ = step(state, _batch(batch * rng.uniform(*_GAIN, (_BATCH, 1, 1)), truth))
    return state.ema["params"]


def _batch(images: np.ndarray, masks: np.ndarray) -> Batch:
    return Batch(
        images=jnp.asarray(images, jnp.float32)[..., None],
        condition=jnp.asarray(masks >= 0.5, jnp.float32)[..., None],
        labels=jnp.zeros(len(images), jnp.int32),
    )
