"""Features of slices that FID, KID and their kin compare: an encoder of the run's own real training slices.

A small convolutional network learns, without labels, to tell each training slice from the others by either of
two shifted and dimmed views of it (SimCLR, Chen et al. 2020, Algorithm 1). That asks for whatever makes a
slice itself: plane, anatomy, tumour, contrast and texture. Features are the mean activations of every level,
so fine grain, which blur and noise change, counts as the shape of the head does; classifiers of photographs
see little of either, and their last layer alone was never asked about grain. Standardised over the training
slices, each feature counts alike. Views are never flipped or turned, so that orientation stays seen.

It sees training slices only, and no generated one. Its features mean nothing beside those of another run's
encoder: numbers compare within a data set and a split, and always with their floor.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from pixmed_jax.data.pipeline import batch_rows
from pixmed_jax.judges.kept import digest, kept
from pixmed_jax.models.layers import Conv
from pixmed_jax.progress import watched
from pixmed_jax.training.task import jit_init

NAME = "encoder of the real training slices"
WIDTHS = (8, 8, 16, 16, 16)  # filters of each level, 64 features in all
_MULTIPLE = 2 ** len(WIDTHS)
_WINDOW = 96  # pixels a side that training looks at, at most
_BATCH, _STEPS, _PASSES = 32, 240, 40
_TEMPERATURE = 0.2
_DIM = (0.7, 1.3)  # factor on grey values: else a slice's brightness would be enough to know it by
_REACH = 8  # views are apart by 1 / 8 of the side at most
_CHUNK = 32  # slices encoded at a time

Encode = Callable[[np.ndarray], np.ndarray]


class _Encoder(nn.Module):
    """Images [N, S, S] -> (features [N, 64], their projection on the unit sphere [N, 32])."""

    @nn.compact
    def __call__(self, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        x, levels = images[..., None], []
        for i, width in enumerate(WIDTHS):
            x = nn.leaky_relu(
                Conv(width, 4, stride=2, kernel_init=nn.initializers.he_normal(), name=f"level{i}")(x), 0.1
            )
            levels.append(x.mean((1, 2)))
        features = jnp.concatenate(levels, axis=-1)
        y = nn.LayerNorm()(features)
        y = nn.Dense(32)(nn.relu(nn.Dense(64)(y)))
        return features, y / jnp.linalg.norm(y, axis=-1, keepdims=True).clip(1e-6)


def encoder(train: np.ndarray, *, folder: Path | None = None, seed: int = 0) -> Encode:
    """The encoder of real training slices [N, S, S] in [0, 1]: images [M, S, S] -> features [M, 64] float32.

    folder: where it is kept between evaluations. The same slices and seed give the same encoder.
    """
    key = digest(train, seed, WIDTHS, _WINDOW, _BATCH, _STEPS, _PASSES, _TEMPERATURE, _DIM, _REACH, "1")
    like = {
        "params": jax.eval_shape(_Encoder().init, jax.random.PRNGKey(0), jnp.zeros((1, 64, 64)))["params"],
        "mean": np.zeros(sum(WIDTHS)),
        "std": np.zeros(sum(WIDTHS)),
    }

    def make() -> Any:
        params = _train(train, seed)
        raw = _encode(params, train)
        return {"params": params, "mean": raw.mean(0), "std": raw.std(0)}

    found = kept(folder, "encoder", key, like, make)
    std = found["std"]
    awake = std > 1e-5 * std.max()  # what is the same for all training slices has no scale to be measured by
    scale = np.where(awake, 1 / np.where(awake, std, 1), 0)
    return lambda images: (_encode(found["params"], images) - found["mean"]) * scale


def _encode(params: Any, images: np.ndarray) -> np.ndarray:
    parts = [np.zeros((0, sum(WIDTHS)), np.float32)]
    count = -(-len(images) // _CHUNK)
    for i in watched(range(count), count, "encoding slices"):
        part = images[i * _CHUNK : (i + 1) * _CHUNK].astype(np.float32)
        padded = np.pad(_evened(part), ((0, _CHUNK - len(part)), (0, 0), (0, 0)))
        parts.append(np.asarray(_features(params, padded))[: len(part)])
    return np.concatenate(parts)


def _evened(images: np.ndarray) -> np.ndarray:
    """Padded with air below and to the right, to sides that every level can halve."""
    more = -images.shape[1] % _MULTIPLE
    return np.pad(images, ((0, 0), (0, more), (0, more)))


@jax.jit
def _features(params: Any, images: jax.Array) -> jax.Array:
    return _Encoder().apply({"params": params}, images)[0]


# ---------------------------------------------------------------- training
def _train(images: np.ndarray, seed: int) -> Any:
    steps = min(_STEPS, -(-_PASSES * len(images) // _BATCH))
    optimizer = optax.adam(optax.cosine_decay_schedule(2e-3, steps))
    images = _evened(images.astype(np.float32))
    size = images.shape[1]
    params = jit_init(_Encoder().init)(jax.random.PRNGKey(seed), jnp.zeros((1, size, size)))["params"]
    state = optimizer.init(params)
    for i in watched(range(steps), steps, "training the encoder of slices"):
        rows = batch_rows(seed, i, _BATCH, len(images))
        key = jax.random.fold_in(jax.random.PRNGKey(seed), i)
        params, state = _step(params, state, images[rows], key, optimizer=_Static(optimizer, steps))
    return params


class _Static:
    """An optimizer as a static argument: equal to another of as many steps."""

    def __init__(self, optimizer: optax.GradientTransformation, steps: int):
        self.update, self.steps = optimizer.update, steps

    def __hash__(self) -> int:
        return self.steps

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Static) and other.steps == self.steps


@partial(jax.jit, static_argnames="optimizer")
def _step(params: Any, state: Any, images: jax.Array, key: jax.Array, *, optimizer: _Static) -> Any:
    views = _views(images, key)

    def loss(params: Any) -> jax.Array:
        outputs: Any = _Encoder().apply({"params": params}, views)
        return nt_xent(outputs[1], _TEMPERATURE)

    gradient = jax.grad(loss)(params)
    updates, state = optimizer.update(gradient, state, params)
    return optax.apply_updates(params, updates), state


def nt_xent(sphere: jax.Array, temperature: float) -> jax.Array:
    """Normalised temperature-scaled cross-entropy: rows i and i + N of [2N, D] are views of one slice."""
    count = len(sphere)
    likeness = sphere @ sphere.T / temperature
    likeness = jnp.where(jnp.eye(count, dtype=bool), -jnp.inf, likeness)
    partner = (jnp.arange(count) + count // 2) % count
    return optax.softmax_cross_entropy_with_integer_labels(likeness, partner).mean()


def _views(images: jax.Array, key: jax.Array) -> jax.Array:
    """Two views of each of [N, S, S], one set after the other: windows close to each other, dimmed."""
    n, size, _ = images.shape
    reach, window = size // _REACH, min(size, _WINDOW)
    padded = jnp.pad(images, ((0, 0), (reach, reach), (reach, reach)))
    room = size + 2 * reach - window
    where, apart, dim = jax.random.split(key, 3)
    first = jax.random.randint(where, (n, 2), 0, room + 1)
    second = jnp.clip(first + jax.random.randint(apart, (n, 2), -reach, reach + 1), 0, room)
    corners = jnp.concatenate([first, second])
    cut = jax.vmap(lambda image, corner: jax.lax.dynamic_slice(image, corner, (window, window)))
    factor = jax.random.uniform(dim, (2 * n, 1, 1), minval=_DIM[0], maxval=_DIM[1])
    return cut(jnp.concatenate([padded, padded]), corners) * factor
