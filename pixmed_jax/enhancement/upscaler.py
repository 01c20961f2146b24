"""What enlarges images, an interpolation or a trained network, for --mode=upscale and --sample.upscale alike.

Layout: images [H, W, C] float32 in [0, 1] of any size -> [scale H, scale W, C]; large ones in tiles.
Errors: PixmedError.
"""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from pixmed_jax import inference
from pixmed_jax.data.degrade import SCALES
from pixmed_jax.enhancement.interpolation import METHODS, enlarge
from pixmed_jax.enhancement.tiles import tiled
from pixmed_jax.errors import OptionError, PixmedError


class Upscaler(NamedTuple):
    """`name` is what reports call it, `settings` what it is made of, `workdir` the run of a network."""

    name: str
    run: Callable[[np.ndarray], np.ndarray]
    settings: Mapping[str, Any]
    workdir: Path | None = None

    @property
    def told(self) -> str:
        """In a word: the method, or a network's run and step."""
        return f"{self.workdir.name}@{self.settings['step']}" if self.workdir else self.name


def upscaler(name: str, scale: int, *, stage: str, step: str = "newest") -> Upscaler:
    """name: a method of interpolation, or the folder of a run that was trained for `scale`.

    stage: whose options `stage`.scale and so on messages are about.
    """
    if scale not in SCALES:
        raise OptionError(f"{stage}={scale}: give {', '.join(map(str, SCALES))}")
    if name in METHODS:
        resize = jax.jit(partial(enlarge, scale=scale, method=name))
        run = partial(tiled, lambda part: np.asarray(resize(part)), scale=scale, reach=METHODS[name][1])
        return Upscaler(name, run, {"scale": scale})
    if not Path(name).is_dir():
        raise PixmedError(
            f"{name}: neither a run's folder nor one of {', '.join(METHODS)}; give one of these"
        )
    network = inference.load_restorer(name, step)
    if network.scale != scale:  # 1 for one that gives light back
        raise PixmedError(
            f"{name}: was trained for x{network.scale}, and {stage}={scale}; give {stage}={network.scale}, "
            "or another run"
        )
    run = partial(tiled, network, scale=scale, reach=network.reach)
    settings = {"scale": scale, "run": name, "step": network.step}
    return Upscaler(network.config["name"], run, settings, Path(name))
