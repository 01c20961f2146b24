"""NumPy's own files, NAME.npy and NAME.npz, without pickled objects; the axes are the array's own.

Errors: PixmedError.
"""

import io
import zipfile
from pathlib import Path
from typing import IO

import numpy as np

from pixmed_jax.data import arrays
from pixmed_jax.data.arrays import DEFLATE, MAX_BYTES, Array, check, check_holds, choose, exactly, plain
from pixmed_jax.errors import PixmedError


def _npy_header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype, int]:
    """(shape, Fortran order, type, length in bytes) of the header of a .npy."""
    start = io.BytesIO(stream.read(2**14))  # all that is parsed, whatever length the header claims
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    shape, fortran, dtype = readers[np.lib.format.read_magic(start)](start)
    return tuple(shape), fortran, dtype, start.tell()


def read_npy(path: Path, wanted: str) -> Array:
    with path.open("rb") as file:
        shape, fortran, dtype, length = _npy_header(file)
    check(str(path), shape, dtype)
    check_holds(str(path), path.stat().st_size - length, shape, dtype)

    def read() -> np.ndarray:
        # Not mapped: a file that shrinks meanwhile would end the process by a bus error.
        with path.open("rb") as file:
            file.seek(length)
            flat = exactly(file, shape, dtype, str(path))
        return flat.reshape(shape, order="F" if fortran else "C")

    return plain(path, shape, dtype, read)


def read_npz(path: Path, wanted: str) -> Array:
    with arrays.zipped(path) as archive:
        members = {i.filename.removesuffix(".npy"): i for i in archive.infolist()}
        info = members[choose(path, wanted, list(members))]
        if info.file_size > MAX_BYTES + 2**14 or info.compress_type not in (0, zipfile.ZIP_DEFLATED):
            raise PixmedError(
                f"{path}: an array unpacks to {info.file_size} bytes, over {MAX_BYTES}, or is packed in a "
                "way that numpy does not write; save it with numpy.savez_compressed"
            )
        with archive.open(info) as stream:
            shape, fortran, dtype, length = _npy_header(stream)
    check(str(path), shape, dtype)
    check_holds(str(path), min(info.file_size, info.compress_size * DEFLATE) - length, shape, dtype)

    def read() -> np.ndarray:
        with arrays.zipped(path) as archive, archive.open(info) as stream:
            stream.read(length)
            flat = exactly(stream, shape, dtype, str(path))
        return flat.reshape(shape, order="F" if fortran else "C")

    return plain(path, shape, dtype, read)
