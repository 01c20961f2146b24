"""Low light made from a well-lit picture, so that what was lost is known: an illumination map and noise.

L = clip(R T + n): R the picture, T a map from `darkest` to `brightest`, the light of three soft lamps, and n
Gaussian noise of the sensor. Images are [H, W, C] float32 in [0, 1].
"""

import jax
import jax.numpy as jnp

_LAMPS = 3


def illumination(key: jax.Array, height: int, width: int, darkest: float, brightest: float) -> jax.Array:
    """[H, W] from `darkest` to `brightest`: lamps at random places, in or just outside of the picture."""
    of_places, of_spreads, of_powers = jax.random.split(key, 3)
    places = jax.random.uniform(of_places, (2, _LAMPS), minval=-0.2, maxval=1.2)
    spreads = jax.random.uniform(of_spreads, (_LAMPS,), minval=0.25, maxval=0.6)
    powers = jax.random.uniform(of_powers, (_LAMPS,), minval=0.5, maxval=1.0)
    rows, columns = jnp.linspace(0, 1, height)[:, None, None], jnp.linspace(0, 1, width)[None, :, None]
    squares = jnp.square(rows - places[0]) + jnp.square(columns - places[1])
    light = (powers * jnp.exp(-squares / (2 * jnp.square(spreads)))).sum(-1)
    low, high = light.min(), light.max()
    return darkest + (brightest - darkest) * (light - low) / jnp.maximum(high - low, 1e-6)


def darken(
    key: jax.Array, image: jax.Array, *, darkest: float = 0.1, brightest: float = 0.6, noise: float = 0.01
) -> tuple[jax.Array, jax.Array]:
    """(the picture in low light, its illumination map [H, W])."""
    of_map, of_noise = jax.random.split(key)
    light = illumination(of_map, image.shape[0], image.shape[1], darkest, brightest)
    dark = image * light[..., None] + noise * jax.random.normal(of_noise, image.shape)
    return jnp.clip(dark, 0, 1), light
