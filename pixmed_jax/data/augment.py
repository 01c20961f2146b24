"""Classical augmentation (paper, Section 2.1) as pure functions of images, maps and a key, inside the step.

All that moves pixels is one geometry: one sampling grid for each image, at which the image is read
bilinearly and the map at the nearest pixel. So they stay aligned, a map gets no new values, and an image is
smoothed once however many operations meet. Outside of what was loaded all is 0. What changes grey values
follows and leaves maps alone. `augment_settings.py` has the operations, their ranges and units.

Layout: images [B, L, L, C] float32 in [0, 1]; maps [B, L, L] of any type, or one-hot [B, L, L, K]; conditions
of a lower rank (a label) have no places and pass through. One key for each image, so none depends on its
neighbours; each operation has its own numbers, so none depends on which others are switched on.
Everything is differentiable with respect to the images (DiffAugment, Zhao et al. 2020).
"""

import functools
from collections.abc import Mapping
from typing import Any

import dm_pix
import jax
import jax.numpy as jnp
import numpy as np

from pixmed_jax.data.augment_settings import GEOMETRY, OPERATIONS, Settings, enabled

Values = dict[str, jax.Array]  # operation -> its value for one image; translation has two, rows and columns

NEUTRAL = {name: 1.0 if name in ("scaling", "gamma", "contrast") else 0.0 for name in OPERATIONS}
_NUMBER = {name: number for number, name in enumerate(OPERATIONS)}
# Coordinates are rounded to so many parts of a pixel: a quarter turn then reads whole pixels, and what the
# compiler does to the last bit of a sine decides nothing.
_PARTS = 1024
_DARK = 1e-3  # below it a power is a straight line: one less than 1 has an infinite slope at 0
_BIAS_ORDER = 3  # of the polynomial (Van Leemput et al. 1999; Sudre et al. 2017)


def pairs(
    images: jax.Array,
    maps: jax.Array,
    keys: jax.Array,
    settings: Settings,
    *,
    size: int | None = None,
    corners: jax.Array | None = None,
    clip: bool = True,
) -> tuple[jax.Array, jax.Array]:
    """(images [B, size, size, C], maps [B, size, size]), each pair augmented by its own key.

    corners: [B, 2], where each image's window of `size` begins: cropping is part of the same geometry, so
        that what a rotation brings into the window is what was outside of it, and not 0.
    clip: keep images within [0, 1]. The discriminator's must not be: a clipped value has no gradient.
    """
    size = images.shape[1] if size is None else size
    corners = jnp.zeros((len(images), 2), jnp.int32) if corners is None else corners

    def one(image: jax.Array, map: jax.Array, key: jax.Array, corner: jax.Array) -> tuple:
        image, map = transform(
            image, map, draw(key, settings), key, size=size, corner=corner, sigma=sigma_of(settings)
        )
        return jnp.clip(image, 0, 1) if clip else image, map

    return jax.vmap(one)(images, maps, keys, corners)


def transform(
    image: jax.Array,
    map: jax.Array,
    values: Values,
    key: jax.Array,
    *,
    size: int,
    corner: jax.Array,
    sigma: float,
) -> tuple[jax.Array, jax.Array]:
    """One pair under given values; the key has what is more than a value: shifts, bias fields and noise."""
    image, map = warp(image, map, values, key, size=size, corner=corner, sigma=sigma)
    return adjust(image, values, key), map


def sigma_of(settings: Settings) -> float:
    """How far the shifts of an elastic deformation keep together, as a share of the side."""
    return settings.get("elastic", {}).get("sigma", 1.0)


def image_keys(key: jax.Array, count: int) -> jax.Array:
    """One key for each of `count` images; the first ones are the same for any count."""
    return jax.vmap(functools.partial(jax.random.fold_in, key))(jnp.arange(count))


def draw(key: jax.Array, settings: Settings) -> Values:
    """Values of the enabled operations for one image, neutral where the coin fell so; 1 means flipped."""
    numbers = jax.random.uniform(key, (len(OPERATIONS), 3))  # of each operation: its coin and two values
    values = {}
    for name, setting in enabled(settings).items():
        coin, *places = numbers[_NUMBER[name]]
        low, high = setting.get("range", (1.0, 1.0))
        place = jnp.stack(places) if name == "translation" else places[0]
        values[name] = jnp.where(coin < setting["p"], low + place * (high - low), NEUTRAL[name]).astype(
            jnp.float32
        )
    return values


# ---------------------------------------------------------------- geometry
def warp(
    image: jax.Array,
    map: jax.Array,
    values: Values,
    key: jax.Array,
    *,
    size: int,
    corner: jax.Array,
    sigma: float,
) -> tuple[jax.Array, jax.Array]:
    """One image [L, L, C] and its map [L, L] or [L, L, K] -> the same at size x size."""
    mapped = map.ndim >= 2
    if not any(name in values for name in GEOMETRY):
        return _window(image, corner, size), _window(map, corner, size) if mapped else map
    points = _points(values, key, size, sigma) + corner[:, None, None]
    points = jnp.round(points * _PARTS) / _PARTS
    return _bilinear(image, points), _nearest(map, points) if mapped else map


def _points(values: Values, key: jax.Array, size: int, sigma: float) -> jax.Array:
    """[2, size, size]: from where in the window, in pixels, each pixel is read.

    Content is flipped, scaled, sheared, rotated and shifted, in this order, about the window's middle; this
    goes the way back. An elastic shift is added last.
    """
    middle = (size - 1) / 2
    places = jnp.mgrid[:size, :size] - middle
    if "translation" in values:
        places = places - values["translation"][:, None, None] * size
    back = jnp.eye(2)
    if "rotation" in values:
        angle = jnp.deg2rad(values["rotation"])
        back = jnp.array([[jnp.cos(angle), jnp.sin(angle)], [-jnp.sin(angle), jnp.cos(angle)]])
    if "shear" in values:
        back = jnp.array([[1.0, 0.0], [-jnp.tan(jnp.deg2rad(values["shear"])), 1.0]]) @ back
    if "scaling" in values:
        back = back / values["scaling"]
    for row, name in enumerate(("flip_up_down", "flip_left_right")):
        if name in values:
            back = back.at[row].multiply(1 - 2 * values[name])
    points = jnp.einsum("ij,jhw->ihw", back, places, precision=jax.lax.Precision.HIGHEST) + middle
    if "elastic" in values:
        points = points + values["elastic"] * size * _smooth_noise(key, size, sigma)
    return points


def _smooth_noise(key: jax.Array, size: int, sigma: float) -> jax.Array:
    """[2, size, size]: noise blurred with a Gaussian of `sigma` of the side, standard deviation 1 everywhere.

    Simard et al. 2003 blur one number a pixel; one for each sigma, spread by two small products, gives as
    smooth a field for a hundredth of the work, and the same one at every size.
    """
    spread = _gaussians(size, sigma)
    knots = jax.random.normal(_own(key, "elastic"), (2, spread.shape[1], spread.shape[1]))
    return jnp.einsum("ik,nkl,jl->nij", spread, knots, spread, precision=jax.lax.Precision.HIGHEST)


@functools.cache
def _gaussians(size: int, sigma: float) -> np.ndarray:
    """[size, knots]: what each knot, one every sigma and some beyond the edges, adds to each pixel."""
    reach = 3
    knots = np.arange(-reach, np.ceil(1 / sigma) + reach + 1) * sigma
    places = (np.arange(size)[:, None] + 0.5) / size
    weights = np.exp(-0.5 * ((places - knots) / sigma) ** 2)
    return (weights / np.sqrt(np.square(weights).sum(1, keepdims=True))).astype(np.float32)


def _window(x: jax.Array, corner: jax.Array, size: int) -> jax.Array:
    start = (corner[0], corner[1]) + (0,) * (x.ndim - 2)
    return jax.lax.dynamic_slice(x, start, (size, size, *x.shape[2:]))


def _bilinear(image: jax.Array, points: jax.Array) -> jax.Array:
    """[L, L, C] at [2, S, S] -> [S, S, C], 0 outside of the pixels' middles.

    What dm-pix's `flat_nd_linear_interpolate_constant` gives for each channel, in a third of its time for
    three of them on a CPU, forward and backward: all channels of a pixel are read at once.
    """
    height, width, channels = image.shape
    last = np.array([height - 1, width - 1])[:, None, None]
    inside = jnp.all((points >= 0) & (points <= last), axis=0)
    low = jnp.clip(jnp.floor(points), 0, last - 1).astype(jnp.int32)
    down, right = (points - low)[..., None]
    pixels, at = image.reshape(-1, channels), low[0] * width + low[1]

    def between(at: jax.Array) -> jax.Array:
        return pixels[at] * (1 - right) + pixels[at + 1] * right

    return jnp.where(inside[..., None], between(at) * (1 - down) + between(at + width) * down, 0)


def _nearest(map: jax.Array, points: jax.Array) -> jax.Array:
    """The same for [L, L] or [L, L, K] of any type, without interpolation."""
    last = np.array(map.shape[:2])[:, None, None] - 1
    inside = jnp.all((points >= 0) & (points <= last), axis=0)
    row, column = jnp.clip(jnp.floor(points + 0.5).astype(jnp.int32), 0, last)
    found = map.reshape(-1, *map.shape[2:])[row * map.shape[1] + column]
    return jnp.where(inside.reshape(inside.shape + (1,) * (map.ndim - 2)), found, 0).astype(map.dtype)


# ---------------------------------------------------------------- grey values
def adjust(image: jax.Array, values: Values, key: jax.Array) -> jax.Array:
    """One image [S, S, C], its channels alike; may leave [0, 1]. A scanner's noise comes last."""
    size = image.shape[0]
    if "gamma" in values:
        # x ** gamma, as x * x ** (gamma - 1).
        image = image * dm_pix.adjust_gamma(jnp.maximum(image, _DARK), values["gamma"] - 1)
    if "contrast" in values:
        image = dm_pix.adjust_contrast(image, values["contrast"])
    if "brightness" in values:
        image = dm_pix.adjust_brightness(image, values["brightness"])
    if "bias_field" in values:
        terms = _polynomials(size)
        weights = jax.random.normal(_own(key, "bias_field"), (len(terms),))
        field = jnp.tensordot(weights, terms, 1, precision=jax.lax.Precision.HIGHEST)
        image = image * jnp.exp(values["bias_field"] * field / jnp.abs(field).max())[..., None]
    if "noise" in values:
        noise = jax.random.normal(_own(key, "noise"), (size, size, 1))
        image = image + values["noise"] * noise
    return image


@functools.cache
def _polynomials(size: int) -> np.ndarray:
    """[9, size, size]: products of Legendre polynomials in rows and columns up to the order, no constant."""
    x = np.linspace(-1, 1, size)
    one_way = np.polynomial.legendre.legvander(x, _BIAS_ORDER).T
    orders = [(i, j) for i in range(_BIAS_ORDER + 1) for j in range(_BIAS_ORDER + 1 - i) if i + j]
    return np.stack([np.outer(one_way[i], one_way[j]) for i, j in orders]).astype(np.float32)


def _own(key: jax.Array, name: str) -> jax.Array:
    """A key for what an operation needs beside its value; uniform() above splits nothing of it off."""
    return jax.random.fold_in(key, 1000 + _NUMBER[name])


# ---------------------------------------------------------------- for a discriminator
def seen_by_discriminator(
    images: jax.Array, condition: jax.Array, key: jax.Array, settings: Mapping[str, Any] | None
) -> tuple[jax.Array, jax.Array]:
    """What a discriminator is shown of real and generated pairs alike; differentiable in the images.

    Equal keys augment equally. A condition [B, K], a label, is left alone.
    """
    if not enabled(settings):
        return images, condition
    # Not a number that a task folds into a step's key. What comes of other keys is not kept apart by it.
    keys = image_keys(jax.random.fold_in(key, 0x_D15C), len(images))
    return pairs(images, condition, keys, settings or {}, clip=False)
