"""--mode=enhance: dark pictures made bright, a folder at a time (enhancement/folder.py says what is written).

Errors: PixmedError.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from pixmed_jax.enhancement import baselines as baseline_methods
from pixmed_jax.enhancement import folder
from pixmed_jax.enhancement.baselines import BASELINES
from pixmed_jax.enhancement.darken import darken
from pixmed_jax.enhancement.method import Degrade, Method, Output
from pixmed_jax.errors import PixmedError

METHODS = tuple(BASELINES)


def enhance(
    source: str,
    output: str,
    *,
    method: str = "gamma",
    gamma: float = 0.0,
    clip_limit: float = baseline_methods.CLIP_LIMIT,
    baselines: str = "auto",
    reference: str = "",
    degrade: bool = False,
    darkest: float = 0.1,
    brightest: float = 0.6,
    noise: float = 0.01,
    seed: int = 0,
    intensity: str = "auto",
) -> int:
    """Enhance the folder `source` into `output`; 0, or 1 if a file could not be used.

    method: one of METHODS.
    gamma: the power of method "gamma"; 0 means the method's own.
    clip_limit: of CLAHE.
    baselines: names with commas between that the method is compared with; "auto" takes all that are
        installed, "" none.
    reference: a folder with the well-lit pictures under equal names.
    degrade: darken the pictures first, from `darkest` to `brightest` with Gaussian `noise`, all of the grey
        range, by `seed`; they are then their own references.
    intensity: how values of volumes become [0, 1]; a rule of data/intensity.py.
    """
    _check(method=method, reference=reference, degrade=degrade, gamma=gamma, seed=seed)
    _check_light(darkest, brightest, noise)
    builders: Mapping[str, Callable[[], Method]] = {
        "gamma": lambda: baseline_methods.gamma(gamma or baseline_methods.GAMMA),
        "histogram": baseline_methods.histogram,
        "clahe": lambda: baseline_methods.clahe(clip_limit),
    }
    return folder.process(
        Path(source),
        Path(output),
        builders[method](),
        stage="enhance",
        baselines=_baselines(baselines, method),
        reference=Path(reference) if reference else None,
        degrade=_darkener(darkest, brightest, noise) if degrade else None,
        seed=seed,
        intensity=intensity,
    )


def _check(*, method: str, reference: str, degrade: bool, gamma: float, seed: int) -> None:
    if method not in METHODS:
        raise PixmedError(f"enhance.method={method!r} is unknown; use one of {', '.join(METHODS)}")
    if reference and degrade:
        raise PixmedError("enhance.degrade: makes references of its own; leave enhance.reference out")
    for name, value in (("gamma", gamma), ("seed", seed)):
        if not value >= 0:
            raise PixmedError(f"enhance.{name}={value}: give 0 or more")


def _check_light(darkest: float, brightest: float, noise: float) -> None:
    if not 0 < darkest <= brightest <= 1:
        raise PixmedError(
            f"enhance.darkest={darkest}, enhance.brightest={brightest}: give 0 < darkest <= brightest <= 1"
        )
    if not 0 <= noise <= 1:
        raise PixmedError(f"enhance.noise={noise}: give a share of the grey range, 0 to 1")


def _baselines(names: str, method: str) -> Sequence[Method]:
    """The methods that are named, but for the one they are compared with."""
    wanted = list(BASELINES) if names == "auto" else [name for name in names.split(",") if name]
    unknown = [name for name in wanted if name not in BASELINES]
    if unknown:
        raise PixmedError(f"enhance.baselines={names}: {unknown[0]!r} is not one of {', '.join(BASELINES)}")
    found = []
    for name in wanted:
        try:
            found += [BASELINES[name]()] if name != method else []
        except PixmedError as error:
            if names != "auto":
                raise
            print(f"without the baseline {name}: {error}", file=sys.stderr)
    return found


def _darkener(darkest: float, brightest: float, noise: float) -> Degrade:
    def degrade(image: np.ndarray, rng: np.random.Generator) -> Output:
        key = jax.random.key(int(rng.integers(2**32, dtype=np.uint32)))
        dark, light = darken(key, jnp.asarray(image), darkest=darkest, brightest=brightest, noise=noise)
        return Output(np.asarray(dark), maps={"illumination": np.asarray(light)})

    return degrade
