"""MATLAB files of version 5 to 7, and of 7.3, which are HDF5; the axes are MATLAB's own.

Errors: PixmedError. Library: h5py for 7.3.
"""

import math
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from pixmed_jax.data.arrays import Array, by, check, choose, plain, squeezed, starts
from pixmed_jax.errors import PixmedError
from pixmed_jax.extras import library

_MATLAB = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"}
_MATRIX, _COMPRESSED = 14, 15
# How numbers are stored, which may be in fewer bytes than their class has.
_STORED = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_TAIL = 64  # bytes that may follow a variable's numbers: padding


class Variable(NamedTuple):
    """What the first bytes of a variable say; `kind`, `first` and `size` are of its numbers' element."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype | None  # None for what is no array of numbers
    kind: int
    first: int  # byte of the variable's content, its own tag left out
    size: int
    place: int = 0  # of the variable's content in the file
    packed: bool = False


def read_mat(path: Path, wanted: str) -> Array:
    start = starts(path, 520)
    if start[:10] == b"MATLAB 7.3" or start[:8] == b"\x89HDF\r\n\x1a\n":
        return _hdf5(path, wanted)
    if len(start) < 136 or start[126:128] not in (b"IM", b"MI"):
        raise PixmedError(f"{path}: not a MATLAB file of version 5 or later; save it again with -v7")
    with path.open("rb") as file:
        arrays = {}
        for variable in _mat5_arrays(file, path):
            if variable.name in arrays:
                raise PixmedError(f"{path}: holds two variables of one name; save it again")
            arrays[variable.name] = variable
    usable = [name for name, found in arrays.items() if _is_picture(found.shape, found.dtype)]
    chosen = arrays[choose(path, wanted, usable)]
    shape = squeezed(chosen.shape)
    assert chosen.dtype is not None, "only numbers are usable"

    def read() -> np.ndarray:
        # Of all variables, only this one is decoded; cells, structures and objects are never parsed.
        return _mat5_numbers(path, chosen, "<" if start[126:128] == b"IM" else ">").reshape(shape, order="F")

    return plain(path, shape, chosen.dtype, read)


def _mat5_numbers(path: Path, variable: Variable, order: str) -> np.ndarray:
    """The values of a variable, flat, in its class's type."""
    end = variable.first + variable.size
    with path.open("rb") as file:
        file.seek(variable.place)
        if variable.packed:
            unpacker = zlib.decompressobj()
            content = unpacker.decompress(file.read(), 8 + end + _TAIL)[8:]
            if not unpacker.eof:
                raise PixmedError(f"{path}: '{variable.name}' does not end with its values; save it again")
        else:
            content = file.read(end)
    stored = np.dtype(order + _STORED[variable.kind])
    return np.frombuffer(content[variable.first : end], stored).astype(variable.dtype)


def _is_picture(shape: Sequence[int], dtype: np.dtype | None) -> bool:
    """Whether a variable can be a slice or a volume: numbers, and more than one in two directions."""
    return dtype is not None and dtype.kind in "buif" and sum(n > 1 for n in shape) >= 2


def _mat5_arrays(file: IO[bytes], path: Path) -> Iterator[Variable]:
    """The variables of a MATLAB 5 file, from the first bytes of each.

    SciPy's reader believes every length and every type that it meets, and ends the process where these are
    wrong; so nothing is left to it.
    """
    file.seek(126)
    order = "<" if file.read(2) == b"IM" else ">"
    size = path.stat().st_size
    word = np.dtype(f"{order}u4")
    place = 128
    while place + 8 <= size:
        file.seek(place)
        kind, length = (int(n) for n in np.frombuffer(file.read(8), word))
        if kind not in (_MATRIX, _COMPRESSED):  # zeros would be minutes of empty elements
            raise PixmedError(f"{path}: holds an element of kind {kind} where variables are; save it again")
        content, packed = place + 8, kind == _COMPRESSED
        place += 8 + length
        if place > size:
            raise PixmedError(f"{path}: cut short; save or download it again")
        start = file.read(min(length, 2**12))
        if kind == _COMPRESSED:
            start = zlib.decompressobj().decompress(start, 2**12)
            kind, length = (int(n) for n in np.frombuffer(start[:8], word))
            start = start[8:]
        if kind == _MATRIX and length:
            yield _mat5_header(start, length, word, path)._replace(place=content, packed=packed)


def _mat5_header(start: bytes, length: int, word: np.dtype, path: Path) -> Variable:
    """Flags, dimensions, name and the tag of the numbers, the first four elements of a matrix."""

    def element(place: int) -> tuple[int, int, int, int]:
        """(kind, first byte, length, next element) of the element at `place`, small ones included."""
        kind, size = (int(n) for n in np.frombuffer(start[place : place + 8], word))
        if kind >> 16:
            return kind & 0xFFFF, place + 4, kind >> 16, place + 8
        return kind, place + 8, size, place + 8 + size + (-size % 8)

    _, first, _, following = element(0)
    flags = int(np.frombuffer(start[first : first + 4], word)[0])
    _, first, size, following = element(following)
    if size > 64:
        raise PixmedError(f"{path}: has a variable of {size // 4} axes; save a slice or a volume")
    shape = tuple(int(n) for n in np.frombuffer(start[first : first + size], word))
    _, first, size, following = element(following)
    if size > 63:  # MATLAB's own limit
        raise PixmedError(f"{path}: has a variable whose name is {size} bytes long; save it again")
    name = start[first : first + size].decode("ascii", "replace")
    dtype = np.dtype(_MATLAB[flags & 0xFF]) if flags & 0xFF in _MATLAB and not flags & 0x800 else None
    if dtype is not None and flags & 0x200:
        dtype = np.dtype("u1")  # logical
    if dtype is not None and _is_picture(shape, dtype):
        check(str(path), squeezed(shape), dtype)
        kind, first, size, _ = element(following)
        if size > math.prod(shape) * 8 or size > length:
            raise PixmedError(f"{path}: '{name}' holds more bytes than its {by(shape)} values; save it again")
        if kind not in _STORED or size != math.prod(shape) * np.dtype(_STORED[kind]).itemsize:
            raise PixmedError(
                f"{path}: cannot be read as .mat: '{name}' is no {by(shape)} values; save it again"
            )
        return Variable(name, shape, dtype, kind, first, size)
    return Variable(name, shape, dtype, 0, 0, 0)


def _hdf5(path: Path, wanted: str) -> Array:
    h5py = library("h5py", "medical")
    with h5py.File(path, "r") as file:
        for name in file:
            check_own(file, name, path)
        arrays = {name: member for name, member in file.items() if isinstance(member, h5py.Dataset)}
        name = choose(path, wanted, [n for n, a in arrays.items() if _is_picture(a.shape, a.dtype)])
        array = hdf5_array(file[name], str(path))

    def read() -> np.ndarray:
        with h5py.File(path, "r") as file:
            return read_hdf5(file[name], str(path))

    return array._replace(read=read)


def check_own(group: Any, name: str, where: Path | str) -> None:
    """Refuse a member of an HDF5 group that leads elsewhere, into another file perhaps."""
    if not isinstance(group.get(name, getlink=True), library("h5py", "medical").HardLink):
        raise PixmedError(
            f"{where}: a variable is missing or a link to somewhere else; save the array itself"
        )


def hdf5_array(dataset: Any, name: str) -> Array:
    """What an HDF5 dataset in MATLAB's order of axes says of itself; the caller sets `read`."""
    if dataset.is_virtual or dataset.external:
        raise PixmedError(f"{name}: its values are in another file; save the array itself")
    plist = dataset.id.get_create_plist()
    filters = {plist.get_filter(i)[0] for i in range(plist.get_nfilters())}
    if filters - {1, 2}:  # deflate, shuffle
        raise PixmedError(f"{name}: is packed by a filter that MATLAB does not use; save it with -v7.3")
    shape = squeezed(dataset.shape[::-1])
    check(name, shape, dataset.dtype)
    if dataset.chunks:
        check(name, (1, *dataset.chunks)[-max(2, len(dataset.chunks)) :], dataset.dtype)
    return plain(name, shape, dataset.dtype, lambda: np.zeros(0))


def read_hdf5(dataset: Any, name: str) -> np.ndarray:
    """The values of a dataset that `hdf5_array` has accepted, with MATLAB's order of axes.

    HDF5 itself would unpack a chunk to whatever it holds, so chunks are unpacked here, up to their own size.
    """
    shape = squeezed(dataset.shape[::-1])
    if not dataset.chunks:
        return np.asarray(dataset[()]).T.reshape(shape)
    values = np.zeros(dataset.shape, dataset.dtype)
    size = math.prod(dataset.chunks) * dataset.dtype.itemsize
    plist = dataset.id.get_create_plist()
    filters = [plist.get_filter(i)[0] for i in range(plist.get_nfilters())]
    chunks: list[Any] = []
    dataset.id.chunk_iter(chunks.append)
    for info in chunks:
        if info.size > size + 2**12 + size // 100:
            raise PixmedError(f"{name}: a chunk of {info.size} bytes for {size}; save it again")
        mask, raw = dataset.id.read_direct_chunk(info.chunk_offset)
        for place in reversed(range(len(filters))):
            if mask >> place & 1:
                continue
            if filters[place] == 1:
                raw = _inflate(raw, size, name)
            elif dataset.dtype.itemsize > 1:
                raw = np.frombuffer(raw, np.uint8).reshape(dataset.dtype.itemsize, -1).T.tobytes()
        if len(raw) != size:
            raise PixmedError(f"{name}: {len(raw)} bytes in a chunk of {size}; save it again")
        chunk = np.frombuffer(raw, dataset.dtype).reshape(dataset.chunks)
        where = tuple(slice(o, o + n) for o, n in zip(info.chunk_offset, dataset.chunks, strict=True))
        inside = values[where]
        inside[...] = chunk[tuple(slice(n) for n in inside.shape)]
    return values.T.reshape(shape)


def _inflate(raw: bytes, size: int, name: str) -> bytes:
    """What a zlib stream unpacks to, which must be `size` bytes."""
    unpacker = zlib.decompressobj()
    content = unpacker.decompress(raw, size)
    if unpacker.decompress(unpacker.unconsumed_tail, 1) or len(content) < size or not unpacker.eof:
        raise PixmedError(f"{name}: a chunk does not unpack to its {size} bytes; save it again")
    return content
