"""--mode=enhance: dark pictures made bright, a folder at a time (enhancement/folder.py says what is written).

Errors: PixmedError.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from pixmed_jax import inference, options
from pixmed_jax.data.degrade import DARK, NOISE, darkened
from pixmed_jax.enhancement import baselines as baseline_methods
from pixmed_jax.enhancement import folder, lime
from pixmed_jax.enhancement.baselines import BASELINES
from pixmed_jax.enhancement.method import Degrade, Method, Output
from pixmed_jax.enhancement.methods import lime_method
from pixmed_jax.enhancement.tiles import tiled
from pixmed_jax.errors import OptionError, PixmedError, at_least, one_of

METHODS = ("lime", "zero_dce", *BASELINES)


def enhance(
    source: str,
    output: str,
    *,
    method: str = "lime",
    gamma: float = 0.0,
    strength: float = 1.0,
    floor: float = -1.0,
    alpha: float = 0.0,
    solver: str = "fast",
    strategy: int = 2,
    denoise: bool = False,
    workdir: str = "",
    step: str = "newest",
    clip_limit: float = baseline_methods.CLIP_LIMIT,
    baselines: str = "auto",
    reference: str = "",
    degrade: bool = False,
    darkest: float = DARK[0],
    brightest: float = DARK[1],
    noise: float = NOISE,
    seed: int = 0,
    intensity: str = "auto",
    fresh: bool = False,
) -> int:
    """Enhance the folder `source` into `output`; 0, or 1 if a file could not be used.

    method: one of METHODS; where `workdir` names a run, its network instead.
    gamma: how much of the light LIME divides out, or the power of "gamma"; 0 lets the method choose.
    strength, floor, alpha, solver, strategy: of LIME (enhancement/lime.py); floor below 0 and alpha 0 choose.
    denoise: denoise LIME's pictures where there was little light.
    workdir, step: a run of configs/zero_dce.py and its checkpoint, for "zero_dce".
    clip_limit: of CLAHE.
    baselines: names with commas between that the method is compared with; "auto" takes all that are
        installed, "" none.
    reference: a folder with the well-lit pictures under equal names.
    degrade: darken the pictures first, from `darkest` to `brightest` with Gaussian `noise`, all of the grey
        range, by `seed`; they are then their own references.
    intensity: how values of volumes become [0, 1]; a rule of data/intensity.py.
    fresh: replace an earlier `output` of another input or of other options too.
    """
    given = dict(locals())
    method = "zero_dce" if workdir else method
    one_of("enhance.method", method, METHODS)
    one_of("enhance.solver", solver, lime.SOLVERS)
    one_of("enhance.strategy", strategy, lime.STRATEGIES)
    at_least(0, "enhance", gamma=gamma, strength=strength, alpha=alpha, clip_limit=clip_limit, seed=seed)
    if not 0 < darkest <= brightest <= 1 or not 0 <= noise <= 1:
        raise OptionError(
            f"enhance.darkest={darkest}, brightest={brightest}, noise={noise}: give shares of the grey "
            "range, 0 < darkest <= brightest <= 1"
        )
    builders: Mapping[str, Callable[[], Method]] = {
        "lime": lambda: lime_method(
            gamma=gamma,
            strength=strength,
            floor=floor,
            alpha=alpha,
            solver=solver,
            strategy=strategy,
            denoise=denoise,
        ),
        "zero_dce": lambda: _zero_dce(workdir, step),
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
        options={name: given[name] for name in options.defaults("enhance")},
        fresh=fresh,
    )


def _zero_dce(workdir: str, step: str) -> Method:
    if not workdir:
        raise OptionError(
            "enhance.workdir: missing; give a run's folder, of python launch.py --config=configs/zero_dce.py"
        )
    network = inference.load_restorer(workdir, step)
    if network.config["data"]["condition"] != "low_light":
        raise PixmedError(
            f"{workdir}: was trained for {network.config['data']['condition']}; give a run of "
            "configs/zero_dce.py"
        )
    return Method(
        "zero_dce",
        lambda image: Output(tiled(network, image, scale=1, reach=network.reach)),
        {"run": workdir, "step": network.step},
    )


def _baselines(names: str, method: str) -> Sequence[Method]:
    """The methods that are named, but for the one they are compared with."""
    wanted = list(BASELINES) if names == "auto" else [name for name in names.split(",") if name]
    for name in wanted:
        one_of("enhance.baselines", name, BASELINES, given=names)
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
        dark, light = darkened(jnp.asarray(image), key, (darkest, brightest), noise)
        return Output(np.asarray(dark), maps={"illumination": np.asarray(light)})

    return degrade
