"""A folder of images by class, for classifiers: the layout of the Kaggle brain tumour set.

    directory/CLASS/*.jpg                          or
    directory/Training/CLASS/*.jpg and directory/Testing/CLASS/*.jpg

There are no masks: `read` gives one of zeros, and `Source.masked` is false. Nobody knows the patients, so
`splits.split` asks for data.split.by=slice. Where the set brings its own test images they are the "test" of
`Source.given`; every tenth training image of a class, by a hash of its name, is "val".
Such sets are gathered from many places, and some pictures are tinted: with `grey` (`data.channels=1`)
colours become their luminance, so that all slices are of one kind.
Errors: PixmedError.
"""

import zlib
from functools import partial
from pathlib import Path

import numpy as np

from pixmed_jax.data import decode, intensity
from pixmed_jax.data.intensity import Limits
from pixmed_jax.data.slices import Source
from pixmed_jax.errors import PixmedError, listing

_HALVES = {"training": "train", "train": "train", "testing": "test", "test": "test"}
_VALIDATION = 10  # one training image in so many
_LUMINANCE = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601, as in JPEG


def source(directory: str | Path, *, rule: str = "auto", grey: bool = False) -> Source:
    """Index a folder by the names and headers of its files."""
    root = Path(directory)
    if not root.is_dir():
        raise PixmedError(f"{root}: no such folder; set data.dir")
    parsed = intensity.parse(rule)
    if parsed == "window":
        raise PixmedError("data.intensity=window: pictures name none; use full, percentiles or two numbers")
    folders = [path for path in sorted(root.iterdir()) if path.is_dir() and path.name[0] != "."]
    halves = {path: _HALVES[path.name.lower()] for path in folders if path.name.lower() in _HALVES}
    if halves and len(halves) < len(folders):
        others = listing([path.name for path in folders if path not in halves])
        raise PixmedError(f"{root}: has {others} beside a training and a test folder; set data.dir")
    paths, labels, given = [], [], []
    for half in halves or {root: ""}:
        for path in sorted(half.glob("*/*")):
            if path.suffix.lower() in decode.SUFFIXES and path.name[0] != ".":
                paths.append(path)
                labels.append(path.parent.name)
                given.append(_split(path, halves[half]) if halves else "")
    if len(set(labels)) < 2:
        raise PixmedError(
            f"{root}: images of {len(set(labels))} classes; set data.dir to a folder with one folder for each"
        )
    broken = []
    for path in paths:
        try:
            decode.read_size(path)
        except PixmedError as error:
            broken.append(str(error))
    if broken:
        raise PixmedError(f"{root}: {len(broken)} files are unusable ({listing(broken)}), replace them")
    names = tuple(sorted(set(labels)))
    files = tuple(path.relative_to(root).as_posix() for path in paths)
    return Source(
        files=files,
        labels=np.array([names.index(label) for label in labels], np.int32),
        label_names=names,
        groups=files,
        planes=("",) * len(files),
        read=partial(_read, paths, parsed, grey),
        given=tuple(given) if set(given) >= {"train", "test"} else (),
        limits=lambda row: _limits(_image(paths[row], grey), parsed, str(paths[row])),
        masked=False,
    )


def _split(path: Path, half: str) -> str:
    chosen = half == "train" and zlib.crc32(path.name.encode()) % _VALIDATION == 0
    return "val" if chosen else half


def _limits(image: np.ndarray, rule: str | Limits, name: str) -> Limits:
    if not isinstance(rule, str):
        return rule
    full = intensity.type_range(image.dtype)
    assert full is not None, "decode gives uint8 or uint16"
    return intensity.percentiles(image[None], name) if rule == "percentiles" else full


def _image(path: Path, grey: bool) -> np.ndarray:
    image = decode.read_image(path)
    if not grey or image.ndim == 2:
        return image
    return np.rint(image @ _LUMINANCE).astype(image.dtype)


def _read(paths: list[Path], rule: str | Limits, grey: bool, row: int) -> tuple[np.ndarray, np.ndarray]:
    """`Source.read`: the image, and a mask without a tumour."""
    image = _image(paths[row], grey)
    if rule not in ("auto", "full"):
        image = intensity.encode(image, _limits(image, rule, str(paths[row])))
    return image, np.zeros(image.shape[:2], np.uint8)
