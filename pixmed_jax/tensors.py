"""Arrays in safetensors files: {name: float array} in C order, without pickle.

A file's header is bounded and checked, by the library against the file's size too, before any array is read;
callers compare the names and shapes with those that they expect before they ask for the arrays.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
from safetensors.numpy import save

from pixmed_jax.errors import PixmedError

_HEADER = 2**22  # bytes; the paper's networks need 2**15
_FLOATS = ("F16", "F32", "F64")


def shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """The shape of every array of a file, from its header alone. Errors: PixmedError."""
    with _opened(path) as file:
        return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 (no dict)


def read(path: Path, names: Iterable[str]) -> dict[str, np.ndarray]:
    """These arrays, as float32. Errors: PixmedError, for one that is missing or no float16, 32 or 64."""
    with _opened(path) as file:
        for name in (names := list(names)):
            if (dtype := file.get_slice(name).get_dtype()) not in _FLOATS:
                raise ValueError(f"{name} is {dtype}, which is not one of {', '.join(_FLOATS)}")
        return {name: np.asarray(file.get_tensor(name), np.float32) for name in names}


def write(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    path.write_bytes(save({name: np.ascontiguousarray(array) for name, array in arrays.items()}))


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with path.open("rb") as start:
            length = int.from_bytes(start.read(8), "little")
        if length > _HEADER:
            raise ValueError(f"a header of {length} bytes")
        with safetensors.safe_open(path, framework="numpy") as file:
            yield file
    except OSError as error:
        raise PixmedError(f"{path}: cannot be read ({error.strerror or error}); get it again") from None
    except (RuntimeError, ValueError, TypeError, safetensors.SafetensorError) as error:
        raise PixmedError(f"{path}: is no readable safetensors file ({error}); get it again") from None
