"""A folder of images by class, for classifiers: the layout of the Kaggle brain tumour set.

    directory/CLASS/*.jpg                          or
    directory/Training/CLASS/*.jpg, directory/Testing/CLASS/*.jpg and perhaps directory/Validation/CLASS/*.jpg

There are no masks: `read` gives one of zeros, and `Source.masked` is false. Patients are told by a table, or
`splits.split` asks for data.split.by=slice. Where the set brings its own test images they are the "test" of
`Source.given`; without a folder for it, every tenth of the training, by a hash of its name, is "val": of the
images, or of the patients where these are told.
Errors: PixmedError.
"""

import zlib
from pathlib import Path

import numpy as np

from pixmed_jax.data import arrays, decode, intensity, tables
from pixmed_jax.data.faults import not_utf8, raise_all
from pixmed_jax.data.intensity import Limits
from pixmed_jax.data.reader import tell
from pixmed_jax.data.slices import Source
from pixmed_jax.data.tables import DEFAULT_META
from pixmed_jax.data.values import coloured
from pixmed_jax.errors import PixmedError, listing

SPLIT_FOLDERS = {"train": "train", "training": "train", "test": "test", "testing": "test"}
SPLIT_FOLDERS |= {"val": "val", "valid": "val", "validation": "val"}
_VALIDATION = 10  # one training image in so many
_LOOKED = 8  # pictures, for whether they are in colour
_LUMINANCE = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601, as in JPEG


def source(
    directory: str | Path,
    *,
    rule: str = "auto",
    grey: bool = False,
    meta: str = DEFAULT_META,
    file_column: str = "file",
    patient_column: str = "patient_group",
) -> Source:
    """Index a folder by the names and headers of its files.

    meta: a table of patients, whose files are paths below the folder; the default one need not be there.
    """
    root = Path(directory)
    if not root.is_dir():
        raise PixmedError(f"{root}: no such folder; set data.dir")
    parsed = intensity.parse(rule)
    if parsed == "window":
        raise PixmedError("data.intensity=window: pictures name none; use full, percentiles or two numbers")
    folders = [path for path in sorted(root.iterdir()) if path.is_dir() and not arrays.hidden(path, root)]
    splits = {
        path: SPLIT_FOLDERS[path.name.lower()] for path in folders if path.name.lower() in SPLIT_FOLDERS
    }
    if splits and len(splits) < len(folders):
        others = listing([path.name for path in folders if path not in splits])
        raise PixmedError(f"{root}: has {others} beside a training and a test folder; set data.dir")
    if {"train", "val"} == set(splits.values()):
        raise PixmedError(
            f"{root}: has a training and a validation folder but none to test on; call the latter test, "
            "or set data.dir to a folder of classes to have them split"
        )
    paths, labels, given = [], [], []
    for folder in splits or {root: ""}:
        for path in sorted(folder.glob("*/*")):
            if path.suffix.lower() in decode.SUFFIXES and not arrays.hidden(path, root):
                paths.append(path)
                labels.append(path.parent.name)
                given.append(splits.get(folder, ""))
    if len(set(labels)) < 2:
        raise PixmedError(
            f"{root}: images of {len(set(labels))} classes; set data.dir to a folder with one folder for each"
        )
    raise_all(root, not_utf8(paths, root))
    reader = _Reader(paths, parsed, grey)
    broken = []
    for path in paths:
        try:
            decode.read_size(path)
        except PixmedError as error:
            broken.append(str(error))
    if broken:
        raise PixmedError(f"{root}: {len(broken)} files are unusable ({listing(broken)}), replace them")
    if grey and any(map(_shows_colours, paths[:: -(-len(paths) // _LOOKED)])):
        tell(f"{root}: pictures in colour are made grey; data.channels=3 leaves them as they are")
    names = tuple(sorted(set(labels)))
    files = groups = tuple(path.relative_to(root).as_posix() for path in paths)
    drawn_by = [path.name for path in paths]
    if patient_column and (table := tables.table_of(root, meta)):
        drawn_by = tables.columns_of(table, files, file_column, "", patient_column, "").values[patient_column]
        groups = tuple(drawn_by)
    if "val" not in given:
        given = [
            "val" if of == "train" and _validates(by) else of for of, by in zip(given, drawn_by, strict=True)
        ]
    return Source(
        files=files,
        labels=np.array([names.index(label) for label in labels], np.int32),
        label_names=names,
        groups=groups,
        planes=("",) * len(files),
        read=reader.read,
        given=tuple(given) if set(given) >= {"train", "test"} else (),
        limits=reader.limits,
        masked=False,
    )


def _validates(name: str) -> bool:
    return zlib.crc32(name.encode()) % _VALIDATION == 0


def _shows_colours(path: Path) -> bool:
    try:
        return coloured(decode.read_image(path))
    except PixmedError:  # told of by whoever reads it to train
        return False


class _Reader:
    """Decodes the images; the limits of those that were read are kept, since whoever reads asks for them."""

    def __init__(self, paths: list[Path], rule: str | Limits, grey: bool):
        self._paths = paths
        self._grey = grey
        self._rule = rule
        self._limits: dict[int, Limits] = {}

    def read(self, row: int) -> tuple[np.ndarray, np.ndarray]:
        """`Source.read`: the image, and a mask without a tumour."""
        image = decode.read_image(self._paths[row])
        if self._grey and image.ndim == 3:
            image = np.rint(image @ _LUMINANCE).astype(image.dtype)
        self._limits[row] = self._find_limits(image, str(self._paths[row]))
        if self._rule not in ("auto", "full"):
            image = intensity.encode(image, self._limits[row])
        return image, np.zeros(image.shape[:2], np.uint8)

    def limits(self, row: int) -> Limits:
        """`Source.limits`; costs a decoding unless the image was read."""
        if row not in self._limits:
            self.read(row)
        return self._limits[row]

    def _find_limits(self, image: np.ndarray, name: str) -> Limits:
        if not isinstance(self._rule, str):
            return self._rule
        full = intensity.type_range(image.dtype)
        assert full is not None, "decode gives uint8 or uint16"
        return intensity.percentiles(image[None], name) if self._rule == "percentiles" else full
