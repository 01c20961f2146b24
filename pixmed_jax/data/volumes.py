"""Slices and volumes in the files of scanners and of scientific software, none of them vetted.

    NAME.dcm, or no suffix    DICOM: a slice or several frames; a folder of such files is a series
    NAME.nii, NAME.nii.gz     NIfTI-1 and NIfTI-2
    NAME.mat                  MATLAB 5 to 7, and 7.3, which is HDF5
    NAME.npy, NAME.npz        NumPy; never pickled objects

`open_array` and `open_series` judge a file by its header and give an `Array`, whose `read` then decodes no
more bytes than that header stated: a file that unpacks to more than it says is cut off, not unpacked. Of the
arrays in a .mat or .npz, the one called like `wanted` counts ("image", "mask"), or else the only one.

Layout: an `Array` has the axes of its file ([x, y, z] for NIfTI, [column, row, slice] for DICOM, the array's
own for the others); `stack` turns it into pictures [N, H, W] or [N, H, W, C]. Values in the file's own units
are slope * stored + intercept.
Errors: PixmedError in one line that names the file and never what is in it: headers hold names of patients.
Libraries: pydicom, nibabel, h5py (the extra "medical"), imported when a file needs them.
"""

import gzip
import importlib
import io
import math
import mmap
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import IO, Any, NamedTuple, cast

import numpy as np
import scipy.io

from pixmed_jax.data.intensity import TOP, Limits, type_range
from pixmed_jax.errors import PixmedError, listing

SUFFIXES = frozenset({".dcm", ".dicom", ".ima", ".nii", ".nii.gz", ".mat", ".npy", ".npz"})
MAX_SIDE = 8192  # along each axis
MAX_BYTES = 2**29  # of one array, decoded: 512 x 512 x 1,000 voxels of 16 bits fit
MAX_FILE = 2**30
_MAX_GAP = 2**20  # between header and voxels of a NIfTI file
_BLOCK = 2**20
_DEFLATE = 1032  # bytes that one byte can unpack to, at most
_AS_STORED = np.diag([-1.0, -1, 1, 1])  # first axis: columns, to the patient's left; then rows, to behind
PLANES = {"sagittal": 0, "coronal": 1, "axial": 2}  # the axis of right-anterior-superior that a plane cuts


class Array(NamedTuple):
    """What a header says of an array, and `read`, which decodes it in the type it is stored in.

    affine:    [4, 4] from indices to right-anterior-superior millimetres, or None where nobody knows.
    planar:    one picture [H, W, ...]: what follows the first two axes is colours or classes.
    dicom:     it comes from DICOM files; `placed` says that these told where the slices lie.
    full:      the values that the ends of the type stand for, or None where they mean nothing.
    window:    the display window of a DICOM file, or None.
    inverted:  the lowest value is white (MONOCHROME1).
    patient:   what tells patients apart, to be hashed and never shown; "" where the file does not say.
    study:     a number that nobody can guess without the file, to hash with; "" likewise.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[], np.ndarray]
    affine: np.ndarray | None = None
    planar: bool = False
    dicom: bool = False
    placed: bool = True
    slope: float = 1.0
    intercept: float = 0.0
    full: Limits | None = None
    window: Limits | None = None
    inverted: bool = False
    patient: str = ""
    study: str = ""


class Cache:
    """The arrays that were read last, so that the slices of a volume cost one decoding.

    Threads wait for each other's decoding. At most `MAX_BYTES` are kept, or the last array alone.
    """

    def __init__(self) -> None:
        self._arrays: OrderedDict[str, np.ndarray] = OrderedDict()
        self._lock = Lock()

    def read(self, array: Array) -> np.ndarray:
        with self._lock:
            if array.name not in self._arrays:
                self._arrays[array.name] = array.read()
            self._arrays.move_to_end(array.name)
            while len(self._arrays) > 1 and sum(a.nbytes for a in self._arrays.values()) > MAX_BYTES:
                self._arrays.popitem(last=False)
            return self._arrays[array.name]


def suffix(path: Path) -> str:
    """In lower case; ".nii.gz" as a whole."""
    name = path.name.lower()
    return ".nii.gz" if name.endswith(".nii.gz") else path.suffix.lower()


def is_volume(path: Path) -> bool:
    """Whether `open_array` is meant for a file: by its suffix, or by DICOM's signature where it has none."""
    if path.suffix and not path.suffix[1:].isdigit():  # PACS exports are called IM0001 or 1.2.840.1
        return suffix(path) in SUFFIXES
    try:
        return path.is_file() and _starts(path, 132)[128:] == b"DICM"
    except OSError:
        return False


def is_dicom(path: Path) -> bool:
    return is_volume(path) and suffix(path) not in SUFFIXES - {".dcm", ".dicom", ".ima"}


def open_array(path: Path, wanted: str = "image") -> Array:
    """The array in a file; raises PixmedError for one that would not be decoded."""
    openers = {".nii": _nifti, ".nii.gz": _nifti, ".mat": _mat, ".npy": _npy, ".npz": _npz}
    with guarded(path):
        if not path.is_file():
            raise PixmedError(f"{path}: not a file; check data.dir")
        size = path.stat().st_size
        if not 0 < size <= MAX_FILE:
            raise PixmedError(f"{path}: {size} bytes, not 1 to {MAX_FILE}; export it again")
        array = openers.get(suffix(path), _dicom)(path, wanted)
        _check(str(path), array.shape, array.dtype)
        return array._replace(read=lambda: _guarded_read(path, array))


def aligned(mask: Array | Path, image: Array | Path) -> Array | Path:
    """The mask with the axes of its image, where only one of the two says how its axes lie.

    A NIfTI file and an array of the same shape run alike. How an array or another file would lie in a DICOM
    volume nobody can tell.
    """
    if isinstance(image, Path):
        if isinstance(mask, Path):
            return mask
        return mask._replace(planar=mask.planar or (len(mask.shape) == 3 and not mask.dicom))
    if isinstance(mask, Path):
        return mask
    deep = image.dicom and image.shape[2] > 1
    if deep and (mask.affine is None or image.placed != mask.placed):
        raise PixmedError(
            f"{mask.name}: does not say how it lies in the DICOM volume; save the mask as NIfTI"
            + ("" if image.placed else ", and the image too: its frames have no position")
        )
    if len(mask.shape) == 3 and not mask.dicom:  # classes of a picture, or slices of a volume
        mask = mask._replace(planar=image.planar or (image.dicom and not deep))
    if not image.dicom and not mask.dicom and (mask.affine is None) != (image.affine is None):
        mask = mask._replace(affine=image.affine)
    return mask


def stack(array: Array, values: np.ndarray, axis: str) -> np.ndarray:
    """Pictures [N, H, W, ...], a view of `values` with the axes of `array`.

    axis: "stored" cuts the last axis of the file, "0", "1" or "2" that one; "axial", "coronal" or "sagittal"
    the plane, where the file says how the patient lay. With an orientation, pictures are the radiologist's:
    anterior or superior is up, the patient's right is on the left, and slices count towards right, anterior
    or superior. Without, an array is taken as it is.
    """
    if axis not in ("stored", "0", "1", "2", *PLANES):
        raise PixmedError(f"data.axis={axis!r}: give stored, 0, 1, 2, axial, coronal or sagittal")
    if array.planar:
        values = values[:, :, None]
    if values.shape[2] == 1:  # a single slice can be cut in one way only
        axis = "stored"
    stored = int(axis) if axis.isdigit() else 2
    if array.affine is None:
        if axis in PLANES:
            raise PixmedError(f"{array.name}: says nothing of planes; set data.axis to stored, 0, 1 or 2")
        return np.moveaxis(values, stored, 0)
    orientations = library("nibabel").orientations
    orientation = orientations.io_orientation(array.affine)
    upright = orientations.apply_orientation(values, orientation)
    cut = PLANES[axis] if axis in PLANES else int(orientation[stored, 0])
    return np.moveaxis(upright, cut, 0)[:, ::-1, ::-1].swapaxes(1, 2)


def stack_shape(array: Array, axis: str) -> tuple[int, ...]:
    """The shape that `stack` will give, from the header alone."""
    return stack(array, np.broadcast_to(np.uint8(0), array.shape), axis).shape


# ---------------------------------------------------------------- what every format shares
def library(name: str) -> Any:
    """A module of the extra "medical"."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise PixmedError(f'{name} is not installed; pip install "pixmed-jax[medical]"') from error


@contextmanager
def guarded(path: Path) -> Iterator[None]:
    """What goes wrong with a file becomes one line, without the words of the parser: they quote headers."""
    try:
        yield
    except PixmedError:
        raise
    except Exception as error:
        kind = type(error).__name__
        raise PixmedError(
            f"{path}: cannot be read as {suffix(path) or 'DICOM'} ({kind}); export or download it again"
        ) from None


def _guarded_read(path: Path, array: Array) -> np.ndarray:
    with guarded(path):
        values = array.read()
        if values.shape != array.shape:
            raise PixmedError(
                f"{path}: holds {_by(values.shape)} values where its header says {_by(array.shape)}; "
                "export it again"
            )
        return values


def _by(shape: Sequence[int]) -> str:
    return " x ".join(str(n) for n in shape)


def _check(name: str, shape: Sequence[int], dtype: np.dtype) -> None:
    """Refuse what a header states: kinds that are no numbers, sizes that no slice and no volume has."""
    if dtype.kind not in "buif" or dtype.itemsize > 8:
        kind = "records" if dtype.fields else str(dtype)
        raise PixmedError(f"{name}: holds {kind}, not real numbers; save it as integers or float32")
    if not 2 <= len(shape) <= 4 or min(shape) < 1 or max(shape) > MAX_SIDE:
        raise PixmedError(f"{name}: is {_by(shape) or 'a single number'}, not 2 to 4 axes of 1 to {MAX_SIDE}")
    size = math.prod(shape) * dtype.itemsize
    if size > MAX_BYTES:
        raise PixmedError(
            f"{name}: {_by(shape)} is {size} bytes, over {MAX_BYTES}; cut it into smaller files"
        )


def _starts(path: Path, count: int) -> bytes:
    with path.open("rb") as stream:
        return stream.read(count)


def _exactly(stream: IO[bytes], shape: Sequence[int], dtype: np.dtype, name: str) -> np.ndarray:
    """The next values of a stream, flat: memory fills with bytes that are there, not with those claimed."""
    wanted = math.prod(shape) * dtype.itemsize
    buffer = np.empty(wanted, np.uint8)
    done = 0
    while done < wanted:
        block = stream.read(min(_BLOCK, wanted - done))
        if not block:
            raise PixmedError(f"{name}: cut short, {done} of {wanted} bytes; export or download it again")
        buffer[done : done + len(block)] = np.frombuffer(block, np.uint8)
        done += len(block)
    stream.read(1)  # a packed stream compares its checksum only when it meets its end
    return buffer.view(dtype)


def _check_holds(name: str, size: int, shape: Sequence[int], dtype: np.dtype, ratio: int = 1) -> None:
    """Refuse a file that is too small for what its header says, before anything is allocated."""
    wanted = math.prod(shape) * dtype.itemsize
    if size * ratio < wanted:
        raise PixmedError(
            f"{name}: {size} bytes cannot hold the {wanted} its header says; export or download it again"
        )


def _squeezed(shape: Sequence[int]) -> tuple[int, ...]:
    """Without the axes of length 1 at the end, down to two."""
    shape = tuple(int(n) for n in shape)
    while len(shape) > 2 and shape[-1] == 1:
        shape = shape[:-1]
    return shape


def _plain(path: Path | str, shape: tuple[int, ...], dtype: np.dtype, read: Callable) -> Array:
    """An array of which no more is known; [H, W, 3] of uint8 is a picture in colours."""
    planar = len(shape) == 2 or (len(shape) == 3 and shape[2] == 3 and dtype == np.uint8)
    return Array(str(path), shape, dtype, read, planar=planar, full=type_range(dtype.newbyteorder("=")))


def _choose(path: Path, wanted: str, names: Sequence[str]) -> str:
    """Which of a file's arrays is meant."""
    named = [name for name in names if name.lower() == wanted]
    if len(named) == 1 or len(names) == 1:
        return (named or names)[0]
    if not names:
        raise PixmedError(f"{path}: holds no array of 2 to 4 axes; save the {wanted} in it")
    shown = listing([ascii(name)[1:-1][:40] for name in sorted(names)], 5)
    raise PixmedError(f"{path}: holds {len(names)} arrays ({shown}); name the one that counts {wanted}")


# ---------------------------------------------------------------- NIfTI
def _nifti(path: Path, wanted: str) -> Array:
    nibabel = library("nibabel")
    packed = suffix(path) == ".nii.gz"

    def stream() -> IO[bytes]:
        return cast(IO[bytes], gzip.open(path)) if packed else path.open("rb")

    with stream() as file:
        start = file.read(540)
    # The classes themselves: nibabel.load would read extensions, of any length.
    sizes = {int.from_bytes(start[:4], order) for order in ("little", "big")}
    kind = nibabel.Nifti2Header if 540 in sizes else nibabel.Nifti1Header
    length = kind.template_dtype.itemsize
    if not sizes & {348, 540} or len(start) < length:
        raise PixmedError(f"{path}: not a NIfTI file; export or download it again")
    header = kind(start[:length], check=False)
    shape, dtype = _squeezed(header.get_data_shape()), header.get_data_dtype()
    _check(str(path), shape, dtype)
    gap = int(header["vox_offset"])
    if not length <= gap <= _MAX_GAP:
        raise PixmedError(f"{path}: voxels at byte {gap}, not {length} to {_MAX_GAP}; export it again")
    _check_holds(str(path), path.stat().st_size, shape, dtype, _DEFLATE if packed else 1)
    slope, intercept = header.get_slope_inter()
    slope, intercept = (1.0, 0.0) if slope is None else (float(slope), float(intercept or 0))
    if not (math.isfinite(slope) and math.isfinite(intercept)):
        raise PixmedError(f"{path}: scales its values by {slope} and {intercept}; export it again")
    affine = header.get_best_affine()
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-12:
        affine = _AS_STORED
    bounds = type_range(dtype.newbyteorder("="))

    def read() -> np.ndarray:
        with stream() as file:
            file.read(gap)
            return _exactly(file, shape, dtype, str(path)).reshape(shape, order="F")

    return Array(
        str(path), shape, dtype, read, affine, len(shape) == 2, slope=slope, intercept=intercept,
        full=bounds and (intercept, slope * bounds[1] + intercept) if slope > 0 else None,
    )  # fmt: skip


def nifti_bytes(picture: np.ndarray, limits: Limits = (0.0, 1.0)) -> bytes:
    """A .nii.gz of one picture [H, W], the same bytes for the same picture; `stack` gives it back as it is.

    Of uint16, 0 and 65535 stand for the limits, by the file's own slope and intercept; other types keep
    their values.
    """
    nibabel = library("nibabel")
    image = nibabel.Nifti1Image(picture.T[:, :, None], _AS_STORED)
    if picture.dtype == np.uint16:
        low, high = limits
        image.header.set_slope_inter((high - low) / TOP, low)
    return gzip.compress(image.to_bytes(), mtime=0)


# ---------------------------------------------------------------- NumPy
def _npy_header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype, int]:
    """(shape, Fortran order, type, length in bytes) of the header of a .npy."""
    start = io.BytesIO(stream.read(2**14))  # all that is parsed, whatever length the header claims
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    shape, fortran, dtype = readers[np.lib.format.read_magic(start)](start)
    return tuple(shape), fortran, dtype, start.tell()


def _npy(path: Path, wanted: str) -> Array:
    with path.open("rb") as file:
        shape, fortran, dtype, length = _npy_header(file)
    _check(str(path), shape, dtype)
    _check_holds(str(path), path.stat().st_size - length, shape, dtype)

    def read() -> np.ndarray:
        return np.memmap(path, dtype, "r", length, shape, "F" if fortran else "C")

    return _plain(path, shape, dtype, read)


def _npz(path: Path, wanted: str) -> Array:
    with zipfile.ZipFile(path) as archive:
        members = {i.filename.removesuffix(".npy"): i for i in archive.infolist()}
        info = members[_choose(path, wanted, list(members))]
        if info.file_size > MAX_BYTES + 2**14 or info.compress_type not in (0, zipfile.ZIP_DEFLATED):
            raise PixmedError(
                f"{path}: an array unpacks to {info.file_size} bytes, over {MAX_BYTES}, or is packed in a "
                "way that numpy does not write; save it with numpy.savez_compressed"
            )
        with archive.open(info) as stream:
            shape, fortran, dtype, length = _npy_header(stream)
    _check(str(path), shape, dtype)
    _check_holds(str(path), min(info.file_size, info.compress_size * _DEFLATE) - length, shape, dtype)

    def read() -> np.ndarray:
        with zipfile.ZipFile(path) as archive, archive.open(info) as stream:
            stream.read(length)
            flat = _exactly(stream, shape, dtype, str(path))
        return flat.reshape(shape, order="F" if fortran else "C")

    return _plain(path, shape, dtype, read)


# ---------------------------------------------------------------- MATLAB
_MATLAB = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"}
_MATRIX, _COMPRESSED = 14, 15


def _mat(path: Path, wanted: str) -> Array:
    start = _starts(path, 520)
    if start[:10] == b"MATLAB 7.3" or start[:8] == b"\x89HDF\r\n\x1a\n":
        return _hdf5(path, wanted)
    if len(start) < 136 or start[126:128] not in (b"IM", b"MI"):
        raise PixmedError(f"{path}: not a MATLAB file of version 5 or later; save it again with -v7")
    with path.open("rb") as file:
        arrays = {}
        for name, shape, dtype in _mat5_arrays(file, path):
            if name in arrays:
                raise PixmedError(f"{path}: holds two variables of one name; save it again")
            arrays[name] = (shape, dtype)
    usable = [name for name, (shape, dtype) in arrays.items() if _is_picture(shape, dtype)]
    name = _choose(path, wanted, usable)
    shape, dtype = arrays[name]
    squeezed = _squeezed(shape)
    assert dtype is not None, "only numbers are usable"

    def read() -> np.ndarray:
        # Of all variables, only this one is decoded; cells, structures and objects are never parsed.
        values = scipy.io.loadmat(path, variable_names=[name], struct_as_record=True)[name]
        return np.asarray(values).reshape(squeezed, order="F")

    return _plain(path, squeezed, dtype, read)


def _is_picture(shape: Sequence[int], dtype: np.dtype | None) -> bool:
    """Whether a variable can be a slice or a volume: numbers, and more than one in two directions."""
    return dtype is not None and dtype.kind in "buif" and sum(n > 1 for n in shape) >= 2


def _mat5_arrays(file: IO[bytes], path: Path) -> Iterator[tuple[str, tuple[int, ...], np.dtype | None]]:
    """(name, shape, type or None) of the variables of a MATLAB 5 file, from the first bytes of each.

    SciPy's reader believes every length that it meets; these are compared with each other before it may.
    """
    file.seek(126)
    order = "<" if file.read(2) == b"IM" else ">"
    size = path.stat().st_size
    word = np.dtype(f"{order}u4")
    place = 128
    while place + 8 <= size:
        file.seek(place)
        kind, length = (int(n) for n in np.frombuffer(file.read(8), word))
        place += 8 + length
        if place > size:
            raise PixmedError(f"{path}: cut short; save or download it again")
        start = file.read(min(length, 2**12))
        if kind == _COMPRESSED:
            start = zlib.decompressobj().decompress(start, 2**12)
            kind, length = (int(n) for n in np.frombuffer(start[:8], word))
            start = start[8:]
        if kind == _MATRIX and length:
            yield _mat5_header(start, length, word, path)


def _mat5_header(
    start: bytes, length: int, word: np.dtype, path: Path
) -> tuple[str, tuple[int, ...], np.dtype | None]:
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
        _check(str(path), _squeezed(shape), dtype)
        _, _, size, _ = element(following)
        if size > math.prod(shape) * 8 or size > length:
            raise PixmedError(
                f"{path}: '{name}' holds more bytes than its {_by(shape)} values; save it again"
            )
    return name, shape, dtype


def _hdf5(path: Path, wanted: str) -> Array:
    h5py = library("h5py")
    with h5py.File(path, "r") as file:
        for name in file:
            check_own(file, name, path)
        arrays = {name: member for name, member in file.items() if isinstance(member, h5py.Dataset)}
        name = _choose(path, wanted, [n for n, a in arrays.items() if _is_picture(a.shape, a.dtype)])
        array = hdf5_array(file[name], str(path))

    def read() -> np.ndarray:
        with h5py.File(path, "r") as file:
            return read_hdf5(file[name], str(path))

    return array._replace(read=read)


def check_own(group: Any, name: str, where: Path | str) -> None:
    """Refuse a member of an HDF5 group that leads elsewhere, into another file perhaps."""
    if not isinstance(group.get(name, getlink=True), library("h5py").HardLink):
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
    shape = _squeezed(dataset.shape[::-1])
    _check(name, shape, dataset.dtype)
    if dataset.chunks:
        _check(name, (1, *dataset.chunks)[-max(2, len(dataset.chunks)) :], dataset.dtype)
    return _plain(name, shape, dataset.dtype, lambda: np.zeros(0))


def read_hdf5(dataset: Any, name: str) -> np.ndarray:
    """The values of a dataset that `hdf5_array` has accepted, with MATLAB's order of axes.

    HDF5 itself would unpack a chunk to whatever it holds, so chunks are unpacked here, up to their own size.
    """
    shape = _squeezed(dataset.shape[::-1])
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


# ---------------------------------------------------------------- DICOM
_DEFLATED = "1.2.840.10008.1.2.1.99"
_HEADER = (
    "Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "BitsAllocated", "BitsStored",
    "PixelRepresentation", "PhotometricInterpretation", "RescaleSlope", "RescaleIntercept", "WindowCenter",
    "WindowWidth", "VOILUTFunction", "PatientID", "StudyInstanceUID", "SeriesInstanceUID", "InstanceNumber",
    "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "PlanarConfiguration", "HighBit",
)  # fmt: skip


def _dicom_data(path: Path, *, pixels: bool) -> Any:
    """The dataset of a file, with the elements that count alone, or with its pixels too."""
    pydicom = library("pydicom")
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE  # its warnings quote values
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
        # A map gives no more bytes than there are, whatever length an element claims.
        if view[128:132] != b"DICM":
            raise PixmedError(f"{path}: not a DICOM file; export or download it again")
        meta = pydicom.filereader.read_file_meta_info(path)
        if str(meta.get("TransferSyntaxUID", "")) == _DEFLATED:
            raise PixmedError(f"{path}: is deflated as a whole; export it as explicit VR little endian")
        tags = [*_HEADER, "PixelData"] if pixels else list(_HEADER)
        return pydicom.dcmread(view, specific_tags=tags, stop_before_pixels=not pixels)


def _numbers(data: Any, name: str, count: int) -> np.ndarray | None:
    """The first `count` numbers of an element, None where it is missing or empty; ValueError for others."""
    value = data.get(name)
    if value is None or value == "":
        return None
    values = np.atleast_1d(np.asarray(value, np.float64))[:count]
    if len(values) != count or not np.isfinite(values).all():
        raise ValueError(name)
    return values


def _dicom(path: Path, wanted: str) -> Array:
    data = _dicom_data(path, pixels=False)
    if data.get("Rows") is None or data.get("Columns") is None:
        raise PixmedError(f"{path}: holds no pixels (a report, a plan or contours?); export it as images")
    kind = str(data.get("PhotometricInterpretation", ""))
    samples, bits = int(data.get("SamplesPerPixel", 1)), int(data.get("BitsAllocated", 0))
    if (kind, samples) not in (("MONOCHROME1", 1), ("MONOCHROME2", 1), ("RGB", 3)) or bits not in (8, 16):
        raise PixmedError(
            f"{path}: pixels of a kind that is not read; export as MONOCHROME2 or RGB, 8 or 16 bit"
        )
    frames = int(data.get("NumberOfFrames") or 1)
    signed, used = bool(data.get("PixelRepresentation", 0)), int(data.get("BitsStored", bits))
    if not 1 <= used <= bits:
        raise PixmedError(f"{path}: stores {used} of {bits} bits; export it again")
    dtype = np.dtype(f"{'i' if signed else 'u'}{bits // 8}")
    shape = (int(data.Columns), int(data.Rows), frames) + ((3,) if samples == 3 else ())
    slope, intercept = _numbers(data, "RescaleSlope", 1), _numbers(data, "RescaleIntercept", 1)
    a, b = 1.0 if slope is None else float(slope[0]), 0.0 if intercept is None else float(intercept[0])
    if a == 0:
        raise PixmedError(f"{path}: scales all its values to {b:g}; export it again")
    ends = (-(2 ** (used - 1)), 2 ** (used - 1) - 1) if signed else (0, 2**used - 1)

    def read() -> np.ndarray:
        whole = _dicom_data(path, pixels=True)
        if "PixelData" not in whole:
            raise PixmedError(f"{path}: holds no pixels; export it again")
        syntax = whole.file_meta.TransferSyntaxUID
        if not library("pydicom.pixels").get_decoder(syntax).is_available:
            raise PixmedError(
                f"{path}: is packed as {syntax.name}, for which there is no decoder here; "
                "export it uncompressed (gdcmconv --raw, dcmdjpeg)"
            )
        pixels = whole.pixel_array.reshape(frames, shape[1], shape[0], samples)
        return np.moveaxis(pixels, 0, 2).swapaxes(0, 1).reshape(shape)

    return Array(
        str(path), shape, dtype, read, _AS_STORED, dicom=True, placed=False, slope=a, intercept=b,
        full=(min(a * end + b for end in ends), max(a * end + b for end in ends)),
        window=_window(data),
        inverted=kind == "MONOCHROME1",
        patient=str(data.get("PatientID") or ""),
        study=str(data.get("StudyInstanceUID") or ""),
    )  # fmt: skip


def _window(data: Any) -> Limits | None:
    """The ends of the first window, PS3.3 C.11.2.1.2.1 and .3; a sigmoid has none."""
    center, width = _numbers(data, "WindowCenter", 1), _numbers(data, "WindowWidth", 1)
    function = str(data.get("VOILUTFunction") or "LINEAR")
    if center is None or width is None or width[0] <= (function == "LINEAR") or function == "SIGMOID":
        return None
    if function == "LINEAR":
        return float(center[0] - 0.5 - (width[0] - 1) / 2), float(center[0] - 0.5 + (width[0] - 1) / 2)
    return float(center[0] - width[0] / 2), float(center[0] + width[0] / 2)


def open_series(folder: Path, paths: Sequence[Path]) -> Array:
    """The slices of one DICOM series as a volume, in the order in which they lie in the patient."""
    arrays = {path: open_array(path) for path in paths}
    placed = []
    series = set()
    with guarded(folder):
        for path in paths:
            data = _dicom_data(path, pixels=False)
            series.add(str(data.get("SeriesInstanceUID", "")))
            position, turn = (
                _numbers(data, "ImagePositionPatient", 3),
                _numbers(data, "ImageOrientationPatient", 6),
            )
            spacing = _numbers(data, "PixelSpacing", 2)
            placed.append((path, position, turn, spacing, int(data.get("InstanceNumber") or 0)))
    first = arrays[paths[0]]
    if len(series) > 1:
        raise PixmedError(f"{folder}: {len(series)} DICOM series in one folder; give each its own")
    for path, array in arrays.items():
        same = (array.shape, array.dtype, array.inverted) == (first.shape, first.dtype, first.inverted)
        if not same or array.shape[2:] != (1,):
            raise PixmedError(f"{path}: differs from the rest of its series in size or kind; remove it")
    shape = (*first.shape[:2], len(paths))
    _check(str(folder), shape, np.dtype(np.float32))
    order, affine = _placed(placed)
    # One pair of slope and intercept for all, or the values themselves where the slices differ (PET does).
    alike = len({(a.slope, a.intercept) for a in arrays.values()}) == 1

    def read() -> np.ndarray:
        values = np.empty(shape, first.dtype if alike else np.float32)
        for i, path in enumerate(order):
            array = arrays[path]
            plane = array.read()[..., 0]
            values[..., i] = plane if alike else plane * array.slope + array.intercept
        return values

    return first._replace(
        name=str(folder),
        shape=shape,
        dtype=first.dtype if alike else np.dtype(np.float32),
        read=read,
        affine=affine,
        placed=affine is not _AS_STORED,
        slope=first.slope if alike else 1.0,
        intercept=first.intercept if alike else 0.0,
        full=first.full if alike else None,
    )


def _placed(slices: list[tuple]) -> tuple[list[Path], np.ndarray]:
    """The files in order, and the affine in RAS (DICOM's own x and y point the other way)."""
    _, _, turn, spacing, _ = slices[0]
    if any(position is None or turn is None for _, position, turn, _, _ in slices):
        return [path for path, *_ in sorted(slices, key=lambda s: (s[4], s[0].name))], _AS_STORED
    along_row, along_column = turn[:3], turn[3:]
    normal = np.cross(along_row, along_column)
    ordered = sorted(slices, key=lambda s: (float(s[1] @ normal), s[0].name))
    step = ordered[-1][1] - ordered[0][1] if len(ordered) > 1 else normal
    row_spacing, column_spacing = (1.0, 1.0) if spacing is None else spacing
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = along_row * column_spacing, along_column * row_spacing
    affine[:3, 2], affine[:3, 3] = step / max(1, len(ordered) - 1), ordered[0][1]
    affine = np.diag([-1.0, -1, 1, 1]) @ affine
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-12:
        affine = _AS_STORED
    return [path for path, *_ in ordered], affine
