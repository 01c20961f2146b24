"""Images as a poorer scanner or camera would have taken them: what a network that restores images is given.

Layout: images [N, H, W, C] float32 in [0, 1]; so is what becomes of them. Pure, and differentiable in the
images.

    "low_resolution"  [N, H / k, W / k, C]: the bicubic kernel (Keys 1981, a = -1/2), widened k times so that
                      what the coarse grid cannot show is averaged away and not folded back, with half-pixel
                      centres and, at the border, the weights of the pixels that there are. It is what the
                      super-resolution literature degrades with (SRCNN, SRGAN, EDSR: MATLAB's imresize).
    "low_light"       [N, H, W, C]: the image times a smooth illumination map of `DARK`, which differs from
                      image to image, plus the sensor's noise.

Errors: PixmedError for a condition, a scale or a size that does not go.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from pixmed_jax.errors import PixmedError

CONDITIONS = ("low_resolution", "low_light")
SCALES = (2, 3, 4)
DARK = (0.08, 0.6)  # of the light that there was, darkest and brightest
NOISE = 0.01  # of the grey range, standard deviation
_KNOTS = 4  # a side, of the grid that an illumination map is drawn on

Degrade = Callable[
    [jax.Array, jax.Array], jax.Array
]  # (images [N, H, W, C], keys [N]) -> what is left of them


def check(condition: str, scale: int, size: int) -> None:
    """Refuse a scale, or a size that it does not divide."""
    if condition != "low_resolution":
        return
    if scale not in SCALES:
        raise PixmedError(f"data.scale={scale}: give {', '.join(map(str, SCALES))}")
    if size % scale:
        raise PixmedError(
            f"data.size={size} cannot be divided by data.scale={scale}; take a multiple of {scale}"
        )


def degradation(condition: str, scale: int) -> Degrade | None:
    """What makes the condition of an image; None where the condition is a map or a label."""
    if condition == "low_resolution":
        return lambda images, keys: low_resolution(images, scale)
    if condition == "low_light":
        return lambda images, keys: jax.vmap(low_light)(images, keys)
    return None


def low_resolution(images: jax.Array, scale: int) -> jax.Array:
    """[..., H, W, C] -> [..., H / scale, W / scale, C]."""
    *batch, height, width, channels = images.shape
    shape = (*batch, height // scale, width // scale, channels)
    return jnp.clip(
        jax.image.resize(images, shape, "bicubic", antialias=True), 0, 1
    )  # it overshoots at edges


def low_light(image: jax.Array, key: jax.Array) -> jax.Array:
    """One image [H, W, C], darkened and noisy."""
    return darkened(image, key)[0]


def darkened(
    image: jax.Array, key: jax.Array, dark: tuple[float, float] = DARK, noise: float = NOISE
) -> tuple[jax.Array, jax.Array]:
    """(the image in low light, its illumination map [H, W])."""
    of_light, of_noise = jax.random.split(key)
    light = illumination(of_light, image.shape[0], image.shape[1], dark)
    noisy = image * light[..., None] + noise * jax.random.normal(of_noise, image.shape)
    return jnp.clip(noisy, 0, 1), light


def illumination(key: jax.Array, height: int, width: int, dark: tuple[float, float] = DARK) -> jax.Array:
    """[H, W] within `dark`: smooth, of a few bright and dark places."""
    knots = jax.random.normal(key, (_KNOTS, _KNOTS))
    low, high = dark
    return low + (high - low) * jax.nn.sigmoid(1.5 * jax.image.resize(knots, (height, width), "bicubic"))


def own_keys(images: jax.Array) -> jax.Array:
    """A key for each image, made of its pixels: a slice is darkened alike in whatever batch it lies."""
    sums = jnp.round(images * 65535).astype(jnp.uint32).sum((1, 2, 3))  # exact, in any order
    return jax.vmap(lambda number: jax.random.fold_in(jax.random.key(0), number))(sums)
