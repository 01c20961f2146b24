"""LIME as a method of pictures, and what may prepare the slices that a network is trained with.

Pictures are [H, W, C] float32 in [0, 1]; those of a `Source` are as they are stored, and stay so.
"""

from collections.abc import Callable, Mapping

import jax.numpy as jnp
import numpy as np

from pixmed_jax.data.slices import Source
from pixmed_jax.data.values import stored, unit
from pixmed_jax.enhancement import lime
from pixmed_jax.enhancement.baselines import BASELINES
from pixmed_jax.enhancement.denoise import recomposed
from pixmed_jax.enhancement.method import Method, Output
from pixmed_jax.errors import PixmedError
from pixmed_jax.extras import library


def lime_method(
    *,
    gamma: float = 0.0,
    strength: float = 1.0,
    floor: float = -1.0,
    alpha: float = 0.0,
    solver: str = "fast",
    strategy: int = 2,
    denoise: bool = False,
) -> Method:
    """The settings of `lime.enhance`, where gamma 0, floor below 0 and alpha 0 choose."""
    alpha = alpha or lime.ALPHA[solver][strategy]
    if denoise:
        library("skimage.restoration", "enhance")  # now, and not with the first file

    def run(image: np.ndarray) -> Output:
        bright, light, chosen = lime.enhance(
            jnp.asarray(image),
            gamma=gamma,
            strength=strength,
            floor=floor,
            alpha=alpha,
            solver=solver,
            strategy=strategy,
        )
        result, shown = np.asarray(bright), np.asarray(light)
        result = recomposed(result, shown) if denoise else result
        settings = {"gamma": float(chosen.gamma), "floor": float(chosen.floor)}
        return Output(result, settings, {"illumination": shown})

    told = {"solver": solver, "strategy": strategy, "alpha": alpha, "strength": strength, "denoise": denoise}
    return Method("lime", run, told)


PREPARING: Mapping[str, Callable[[], Method]] = {"lime": lime_method, **BASELINES}


def prepared(source: Source, name: str) -> Source:
    """The source with its images enhanced when they are read, before they are resized (`data.enhance`)."""
    if name == "none":
        return source
    if name not in PREPARING:
        raise PixmedError(f"data.enhance={name!r} is unknown; use one of none, {', '.join(PREPARING)}")
    method = PREPARING[name]()

    def read(row: int) -> tuple[np.ndarray, np.ndarray]:
        image, mask = source.read(row)
        return stored(method.run(unit(image)).image, image), mask

    return source._replace(read=read)
