"""What a file's header says of the array in it, and what the readers of all formats share.

Each reader judges a file by its header and gives an `Array`, whose `read` then decodes no more bytes than
that header stated: a file that unpacks to more than it says is cut off, not unpacked.

Layout: an `Array` has the axes of its file. Values in the file's own units are slope * stored + intercept.
Errors: PixmedError in one line that names the file and never what is in it: headers hold names of patients.
"""

import io
import math
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from pixmed_jax.data.intensity import Limits, type_range
from pixmed_jax.errors import PixmedError, listing

MAX_SIDE = 8192  # along each axis
MAX_BYTES = 2**29  # of one array, decoded: 512 x 512 x 1,000 voxels of 16 bits fit
MAX_FILE = 2**30
_BLOCK = 2**20
DEFLATE = 1032  # bytes that one byte can unpack to, at most
MAX_DIRECTORY = 2**20  # bytes of a zip's, some 10,000 files
AS_STORED = np.diag([-1.0, -1, 1, 1])  # first axis: columns, to the patient's left; then rows, to behind


class Array(NamedTuple):
    """What a header says of an array, and `read`, which decodes it in the type it is stored in.

    affine:    [4, 4] from indices to right-anterior-superior millimetres, or None where nobody knows; `sized`
               says that these are the file's, and not 1 for want of better.
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
    sized: bool = True
    slope: float = 1.0
    intercept: float = 0.0
    full: Limits | None = None
    window: Limits | None = None
    inverted: bool = False
    patient: str = ""
    study: str = ""


def hidden(path: Path, root: Path) -> bool:
    """Whether a file below `root` is none of the user's data: "._NAME" of macOS, .ipynb_checkpoints/NAME."""
    return any(part.startswith(".") for part in path.relative_to(root).parts)


def files_below(root: Path) -> list[Path]:
    """The user's files in a folder and all of its folders, sorted."""
    return sorted(path for path in root.rglob("*") if not path.is_dir() and not hidden(path, root))


def suffix(path: Path) -> str:
    """In lower case; ".nii.gz" as a whole."""
    name = path.name.lower()
    return ".nii.gz" if name.endswith(".nii.gz") else path.suffix.lower()


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


def opened(path: Path, reader: Callable[[Path, str], Array], wanted: str = "image") -> Array:
    """The array that a format's reader finds in a file; raises PixmedError for one not to be decoded."""
    with guarded(path):
        if not path.is_file():
            raise PixmedError(f"{path}: not a file; check data.dir")
        size = path.stat().st_size
        if not size:
            raise PixmedError(f"{path}: 0 bytes, an empty file; export it again")
        if size > MAX_FILE:
            raise PixmedError(f"{path}: {size} bytes, over {MAX_FILE}; export it again")
        array = reader(path, wanted)
        check(str(path), array.shape, array.dtype)
        return array._replace(read=lambda: _guarded_read(path, array))


def _guarded_read(path: Path, array: Array) -> np.ndarray:
    with guarded(path):
        values = array.read()
        if values.shape != array.shape:
            raise PixmedError(
                f"{path}: holds {by(values.shape)} values where its header says {by(array.shape)}; "
                "export it again"
            )
        return values


@contextmanager
def zipped(path: Path) -> Iterator[zipfile.ZipFile]:
    """A zip file to read from; PixmedError where its directory, read whole, would fill the memory."""
    with _Directory(io.FileIO(path)) as file, zipfile.ZipFile(file) as archive:
        file.most = -1
        yield archive


class _Directory(io.BufferedReader):
    """A file of which no more than `most` bytes are read at a time; any number where that is below 0.

    `zipfile` asks for a directory at once, by one of several lengths that the file may state.
    """

    most = MAX_DIRECTORY

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > self.most >= 0:
            raise PixmedError(f"{self.name}: lists over {self.most} bytes of files; cut it into smaller ones")
        return super().read(size)


def by(shape: Sequence[int]) -> str:
    return " x ".join(str(n) for n in shape)


def check(name: str, shape: Sequence[int], dtype: np.dtype) -> None:
    """Refuse what a header states: kinds that are no numbers, sizes that no slice and no volume has."""
    if dtype.kind not in "buif" or dtype.itemsize > 8:
        kind = "records" if dtype.fields else str(dtype)
        raise PixmedError(f"{name}: holds {kind}, not real numbers; save it as integers or float32")
    if not 2 <= len(shape) <= 4 or min(shape) < 1 or max(shape) > MAX_SIDE:
        raise PixmedError(f"{name}: is {by(shape) or 'a single number'}, not 2 to 4 axes of 1 to {MAX_SIDE}")
    size = math.prod(shape) * dtype.itemsize
    if size > MAX_BYTES:
        raise PixmedError(f"{name}: {by(shape)} is {size} bytes, over {MAX_BYTES}; cut it into smaller files")


def starts(path: Path, count: int) -> bytes:
    with path.open("rb") as stream:
        return stream.read(count)


def exactly(stream: IO[bytes], shape: Sequence[int], dtype: np.dtype, name: str) -> np.ndarray:
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


def check_holds(name: str, size: int, shape: Sequence[int], dtype: np.dtype, ratio: int = 1) -> None:
    """Refuse a file that is too small for what its header says, before anything is allocated."""
    wanted = math.prod(shape) * dtype.itemsize
    if size * ratio < wanted:
        raise PixmedError(
            f"{name}: {size} bytes cannot hold the {wanted} its header says; export or download it again"
        )


def squeezed(shape: Sequence[int]) -> tuple[int, ...]:
    """Without the axes of length 1 at the end, down to two."""
    shape = tuple(int(n) for n in shape)
    while len(shape) > 2 and shape[-1] == 1:
        shape = shape[:-1]
    return shape


def plain(path: Path | str, shape: tuple[int, ...], dtype: np.dtype, read: Callable) -> Array:
    """An array of which no more is known; [H, W, 3] of uint8 is a picture in colours."""
    planar = len(shape) == 2 or (len(shape) == 3 and shape[2] == 3 and dtype == np.uint8)
    return Array(str(path), shape, dtype, read, planar=planar, full=type_range(dtype.newbyteorder("=")))


def choose(path: Path, wanted: str, names: Sequence[str]) -> str:
    """Which of a file's arrays is meant."""
    named = [name for name in names if name.lower() == wanted]
    if len(named) == 1 or len(names) == 1:
        return (named or names)[0]
    if not names:
        raise PixmedError(f"{path}: holds no array of 2 to 4 axes; save the {wanted} in it")
    shown = listing([ascii(name)[1:-1][:40] for name in sorted(names)], 5)
    raise PixmedError(f"{path}: holds {len(names)} arrays ({shown}); name the one that counts {wanted}")
