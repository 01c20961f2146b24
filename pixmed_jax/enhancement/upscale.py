"""--mode=upscale: pictures made larger, a folder at a time (enhancement/folder.py says what is written).

Errors: PixmedError.
"""

from pathlib import Path

import jax.numpy as jnp
import numpy as np

from pixmed_jax import options
from pixmed_jax.data.degrade import low_resolution
from pixmed_jax.enhancement import folder
from pixmed_jax.enhancement.interpolation import METHODS
from pixmed_jax.enhancement.method import Degrade, Method, Output
from pixmed_jax.enhancement.upscaler import upscaler
from pixmed_jax.errors import PixmedError, one_of


def upscale(
    source: str,
    output: str,
    *,
    scale: int = 2,
    method: str = "lanczos",
    workdir: str = "",
    step: str = "newest",
    baselines: str = "auto",
    reference: str = "",
    degrade: bool = False,
    intensity: str = "auto",
    fresh: bool = False,
) -> int:
    """Enlarge the folder `source` into `output`; 0, or 1 if a file could not be used.

    scale: 2, 3 or 4.
    method: nearest, bilinear, bicubic or lanczos; where `workdir` names a run of configs/super_resolution.py
        or configs/srgan.py, that network at `step` instead.
    baselines: names with commas between that it is compared with; "auto" takes all, "" none.
    reference: a folder with the large pictures under equal names.
    degrade: make the pictures small first (data/degrade.py); they are then their own references.
    intensity: how values of volumes become [0, 1]; a rule of data/intensity.py.
    fresh: replace an earlier `output` of another input or of other options too.
    """
    given = dict(locals())
    one_of("upscale.method", method, METHODS)
    names = list(METHODS) if baselines == "auto" else [name for name in baselines.split(",") if name]
    for name in names:
        one_of("upscale.baselines", name, METHODS, given=baselines)
    chosen = _method(workdir or method, scale, step)
    return folder.process(
        Path(source),
        Path(output),
        chosen,
        stage="upscale",
        baselines=[_method(name, scale) for name in names if name != chosen.name],
        reference=Path(reference) if reference else None,
        degrade=_shrinker(scale) if degrade else None,
        intensity=intensity,
        options={name: given[name] for name in options.defaults("upscale")},
        fresh=fresh,
    )


def _method(name: str, scale: int, step: str = "newest") -> Method:
    of = upscaler(name, scale, stage="upscale.scale", step=step)
    return Method(of.name, lambda image: Output(of.run(image)), of.settings)


def _shrinker(scale: int) -> Degrade:
    def degrade(image: np.ndarray, rng: np.random.Generator) -> Output:
        height, width = (side // scale * scale for side in image.shape[:2])
        if not height or not width:
            raise PixmedError(f"is {image.shape[0]} x {image.shape[1]} pixels, too small to make smaller")
        return Output(np.asarray(low_resolution(jnp.asarray(image[:height, :width]), scale)))

    return degrade
