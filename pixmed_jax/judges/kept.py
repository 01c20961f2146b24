"""Networks that judge images, kept in a run's folder: trained once for the same data and the same code.

Files are .npz, read without pickle. One that is damaged or of other shapes is trained anew.
"""

import hashlib
import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from pixmed_jax.errors import PixmedError
from pixmed_jax.writing import draft_of


def digest(*parts: Any) -> str:
    """Of arrays and of anything whose repr tells all."""
    sha = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            sha.update(repr((part.shape, part.dtype.str)).encode())
            sha.update(np.ascontiguousarray(part).data)
        else:
            sha.update(repr(part).encode())
    return sha.hexdigest()


def kept(folder: Path | None, name: str, key: str, like: Any, make: Callable[[], Any]) -> Any:
    """The tree that `make` returns, from `folder` where it lies there for this key; shapes as in `like`."""
    if folder is None:
        return make()
    path = folder / f"{name}-{key[:16]}.npz"
    tree = _read(path, like)
    if tree is not None:
        return tree
    tree = jax.tree.map(np.asarray, make())
    data = io.BytesIO()
    np.savez(data, **flatten_dict(tree, sep="/"))
    try:
        folder.mkdir(exist_ok=True)
        for old in folder.glob(f"{name}-*.npz"):
            old.unlink(missing_ok=True)  # another process may have been quicker
        draft = draft_of(path)
        draft.write_bytes(data.getvalue())
        draft.replace(path)
    except OSError as error:
        raise PixmedError(f"{path}: cannot be written ({error.strerror}); make room for it") from error
    return tree


def newest(folder: Path, name: str, like: Any) -> Any:
    """The tree of these shapes that was kept last, whatever its key; None where there is none."""
    found = sorted(folder.glob(f"{name}-*.npz"), key=lambda path: path.stat().st_mtime, reverse=True)
    return next((tree for path in found if (tree := _read(path, like)) is not None), None)


def _read(path: Path, like: Any) -> Any:
    shapes = {name: leaf.shape for name, leaf in flatten_dict(like, sep="/").items()}
    most = sum(int(np.prod(shape)) for shape in shapes.values()) * 4 + 1000 * (len(shapes) + 1)
    try:
        if path.stat().st_size > most:
            return None
        data = io.BytesIO(path.read_bytes())
        with zipfile.ZipFile(data) as packed:
            if sum(entry.file_size for entry in packed.infolist()) > most:
                return None
        with np.load(data, allow_pickle=False) as file:
            arrays = {name: file[name] for name in shapes if name in file.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile):
        return None
    if {name: array.shape for name, array in arrays.items()} != shapes:
        return None
    if any(array.dtype != np.float32 or not np.isfinite(array).all() for array in arrays.values()):
        return None
    return unflatten_dict(arrays, sep="/")
