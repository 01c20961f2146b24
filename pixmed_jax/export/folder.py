"""The folder of an exported model: its weights in one safetensors file, and a config.json that says the rest.

    config.json            what a checkpoint's manifest says ("step", "config", "classes", "files", "sha256",
                           ...), and "version" and "dtype"
    generator.safetensors  {"params.encoder_1.primary.kernel": float32 or float16, ...}; other networks than
                           generators have other names, see NAMES

It is opened without orbax, and believed no further than a checkpoint: config.json carries its own sha256 and
that of the weights, whose header has to agree with the network of the config before an array is read.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from pixmed_jax import __version__, tensors, writing
from pixmed_jax.errors import PixmedError, listing
from pixmed_jax.training import checkpoint

CONFIG = "config.json"
NAMES = ("generator", "classifier", "segmenter", "restorer", "layouts")
DTYPES = {"float32": np.float32, "float16": np.float16}
_AGAIN = "export it again, or put a good copy back"


def holds_export(path: Path) -> bool:
    weights = (path / f"{name}.safetensors" for name in NAMES)
    return (path / CONFIG).is_file() and any(file.is_file() for file in weights)


def open_folder(path: Path) -> checkpoint.Saved:
    """What config.json says; the weights are checked when they are read. Errors: PixmedError."""
    try:
        saved = checkpoint.read_saved(path / CONFIG)
    except (FileNotFoundError, ValueError) as error:
        raise PixmedError(f"{path / CONFIG}: unreadable ({error}); {_AGAIN}") from error
    if [*saved.files] not in ([f"{name}.safetensors"] for name in NAMES):
        raise PixmedError(f"{path / CONFIG}: names {listing([*saved.files], 3)} as weights; {_AGAIN}")
    return saved


def read_weights(saved: checkpoint.Saved, like: Any) -> Any:
    """The variables of an exported model, float32, placed like `like`, a tree of shapes with shardings."""
    path = saved.path / next(iter(saved.files))
    wanted = {checkpoint.plain(key): leaf.shape for key, leaf in jax.tree_util.tree_leaves_with_path(like)}
    found = tensors.shapes(path)
    wrong = [f"{name} is missing" for name in wanted if name not in found]
    wrong += [f"{name} is unknown" for name in found if name not in wanted]
    wrong += [
        f"{name} is {list(found[name])}, not {list(shape)}"
        for name, shape in wanted.items()
        if found.get(name, shape) != shape
    ]
    if wrong:
        raise PixmedError(f"{path}: does not fit the network of {CONFIG}: {listing(wrong, 5)}; {_AGAIN}")
    fault = checkpoint.damage(saved)
    if fault is not None:
        raise PixmedError(f"{fault}; {_AGAIN}")
    arrays = tensors.read(path, wanted)
    _check_finite(path, arrays, _AGAIN)
    return jax.tree_util.tree_map_with_path(
        lambda key, leaf: jax.device_put(arrays[checkpoint.plain(key)], leaf.sharding), like
    )


def write_weights(path: Path, variables: Any, dtype: str) -> None:
    """The file of the weights; whoever loads it computes in float32 all the same."""
    with np.errstate(over="ignore"):  # told by the check
        arrays = {
            checkpoint.plain(key): np.asarray(leaf).astype(DTYPES[dtype])
            for key, leaf in jax.tree_util.tree_leaves_with_path(variables)
        }
    _check_finite(path, arrays, "export another step, or with export.dtype=float32")
    tensors.write(path, arrays)


def write_config(folder: Path, saved: checkpoint.Saved, weights: str, **more: Any) -> None:
    """config.json, written when the weights, folder / `weights`, are there; `more` is what else it says."""
    contents = {
        "version": __version__,
        **{key: value for key, value in saved._asdict().items() if key not in ("path", "files")},
        **more,
        "files": {weights: checkpoint.sha256(folder / weights)},
    }
    contents["sha256"] = checkpoint.sha256_of_contents(contents)
    writing.write_json(folder / CONFIG, contents)


def _check_finite(path: Path, arrays: Mapping[str, np.ndarray], remedy: str) -> None:
    odd = [name for name, array in arrays.items() if not np.isfinite(array).all()]
    if odd:
        raise PixmedError(f"{path}: {listing(odd, 5)} hold NaN or infinity; {remedy}")
