"""From arrays in host memory to batches on the device; a batch is a pure function of (seed, step).

Slices are uint8 or uint16 until they are inside the jitted step, which gathers, crops and makes the one-hot
condition. Module training.feed says what is given to a step: all slices and row numbers, or a batch's slices.
"""

from functools import lru_cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pixmed_jax.data import augment as augmentation
from pixmed_jax.data.augment_settings import Settings, enabled
from pixmed_jax.data.degrade import Degrade, own_keys
from pixmed_jax.data.slices import check_channels

# Folded into a batch's key, of which cropping takes the keys 0 and 1. They keep apart one batch's draws:
# a task folds its steps into a key that is the first batch's too, so it meets both of these at a later step.
_AUGMENT, _DEGRADE = 0xA06, 0xDE6


class Arrays(NamedTuple):
    """images [N, L, L, C] uint8 | uint16; maps [N, L, L] uint8, values 0 .. classes; labels [N] int32.

    Where the condition is not made of masks (the label alone, or a degraded image), maps are [N], values
    1 .. classes.
    """

    images: jax.Array | np.ndarray
    maps: jax.Array | np.ndarray
    labels: jax.Array | np.ndarray


class Batch(NamedTuple):
    """images [N, S, S, C] float32 in [0, 1]; condition [N, S, S, K] float32 one-hot; labels [N] int32.

    The condition is [N, K] where the label is all there is of it, and where it is the degraded image
    [N, S / k, S / k, C] float32 in [0, 1].
    """

    images: jax.Array
    condition: jax.Array
    labels: jax.Array


def batch_rows(seed: int, step: int, batch_size: int, count: int) -> np.ndarray:
    """Rows of the batch at `step`, [batch_size] int32: every epoch visits each row once, in its own order.

    A batch may span two epochs (or more, where the set is smaller than the batch), so no row is dropped.
    """
    positions = np.arange(step * batch_size, (step + 1) * batch_size)
    rows = np.empty(batch_size, np.int32)
    for epoch in np.unique(positions // count):
        order = _order(seed, int(epoch), count)
        here = positions // count == epoch
        rows[here] = order[positions[here] % count]
    return rows


@lru_cache(maxsize=4)
def _order(seed: int, epoch: int, count: int) -> np.ndarray:
    """Kept, as every step of an epoch asks for it: drawing 100,000 anew takes milliseconds."""
    order = np.random.default_rng([seed, epoch]).permutation(count)
    order.flags.writeable = False
    return order


def to_float(images: jax.Array) -> jax.Array:
    """uint8 or uint16 -> float32 in [0, 1]; floats are that already."""
    if jnp.issubdtype(images.dtype, jnp.floating):
        return images
    return images.astype(jnp.float32) / jnp.iinfo(images.dtype).max


def one_hot(maps: jax.Array, classes: int, channels: int) -> jax.Array:
    """Label maps [N, S, S] or labels [N] -> condition [N, S, S, K] or [N, K] float32, background left out.

    A map of a single class takes as many equal channels as the image has: the paper reads both as RGB files.
    """
    condition = jax.nn.one_hot(maps.astype(jnp.int32) - 1, classes)  # -1, the background, is all zeros
    return jnp.repeat(condition, channels, axis=-1) if classes == 1 and maps.ndim > 1 else condition


def with_channels(images: jax.Array, channels: int) -> jax.Array:
    """Grey [..., 1] -> [..., channels] by repetition; anything else must have the right number already."""
    if images.shape[-1] == channels:
        return images
    check_channels(images.shape[-1], channels)
    return jnp.repeat(images, channels, axis=-1)


def whole_batch(
    arrays: Arrays,
    *,
    classes: int,
    channels: int,
    degrade: Degrade | None = None,
    keys: jax.Array | None = None,
) -> Batch:
    """All slices as they are, neither cropped nor changed.

    `degrade` makes the condition of the images, by one key for each; without keys, by their own.
    """
    images = with_channels(to_float(jnp.asarray(arrays.images)), channels)
    if degrade is None:
        condition = one_hot(jnp.asarray(arrays.maps), classes, channels)
    else:
        condition = degrade(images, own_keys(images) if keys is None else keys)
    return Batch(images, condition, jnp.asarray(arrays.labels))


def make_batch(
    arrays: Arrays,
    rows: jax.Array | None,
    key: jax.Array,
    *,
    size: int,
    classes: int,
    channels: int,
    augment: Settings | None = None,
    degrade: Degrade | None = None,
) -> Batch:
    """The given rows (all without), each cropped at its own random place, image and mask alike.

    Together with loading at 286/256 of `size` this is the paper's joint resize and random crop. Where
    `augment` has operations that are switched on, the crop is part of their geometry. What `degrade` takes
    away is taken from the image that comes of both.
    """
    images, maps, labels = (jnp.asarray(x) if rows is None else jnp.asarray(x)[rows] for x in arrays)
    room = images.shape[1] - size
    corners = jax.random.randint(key, (images.shape[0], 2), 0, room + 1)

    def crop(image: jax.Array, corner: jax.Array) -> jax.Array:
        start = (corner[0], corner[1]) + (0,) * (image.ndim - 2)
        return jax.lax.dynamic_slice(image, start, (size, size, *image.shape[2:]))

    if augment is not None and enabled(augment):
        keys = augmentation.image_keys(jax.random.fold_in(key, _AUGMENT), len(images))
        images, maps = augmentation.pairs(to_float(images), maps, keys, augment, size=size, corners=corners)
    else:
        images = jax.vmap(crop)(images, corners)
        maps = jax.vmap(crop)(maps, corners) if maps.ndim == 3 else maps
    # Made once: without the barrier XLA draws corners and gathers anew in every kernel that reads a pixel.
    cropped = jax.lax.optimization_barrier(Arrays(images, maps, labels))
    return whole_batch(
        cropped,
        classes=classes,
        channels=channels,
        degrade=degrade,
        keys=jax.random.split(jax.random.fold_in(key, _DEGRADE), len(images)),
    )
