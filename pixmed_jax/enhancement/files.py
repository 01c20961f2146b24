"""A folder of pictures and volumes as float pictures, and back into files of the same names.

    picture (PNG, JPEG, TIFF, BMP)      the same format, 8 or 16 bit as it was; JPEG with quality 95
    NIfTI                               NIfTI with the file's axes, units and place in the patient
    DICOM, .mat, .npy, .npz: a slice    NAME.png: 8 bit, or 16 for anything else than uint8
                             several    NAME.nii.gz

DICOM is not written: its header holds the patient's name. Palettes become RGB and transparency is dropped, as
everywhere here (data/decode.py). 0 and 1 are the ends of a picture's type. Volumes are cut along the last
axis of their file, and their values become [0, 1] by a rule of data/intensity.py. A NIfTI whose pictures have
changed their size keeps its place and extent.
Errors: PixmedError.
"""

import gzip
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from pixmed_jax.data import arrays, decode, intensity, nifti, pairs, volumes
from pixmed_jax.data.faults import not_utf8, raise_all
from pixmed_jax.data.pairs import Item
from pixmed_jax.data.reader import Reader
from pixmed_jax.errors import PixmedError, listing
from pixmed_jax.progress import watched

_NIFTI = (".nii", ".nii.gz")
_QUALITY = 95  # of JPEG: above it files grow and pictures do not change


class Folder:
    """What lies in a folder: `items`, each a picture or the slices of a volume, decoded one slice at a time.

    `others` names files of other kinds, and those called NAME_mask or NAME_seg, whose values are classes and
    no greys; hidden ones are not seen.
    """

    def __init__(self, root: Path, rule: str, key: str):
        if not root.is_dir():
            raise PixmedError(f"{key}={root}: no such folder")
        found = arrays.files_below(root)
        paths = [p for p in found if volumes.is_image(p) and not pairs.is_mask(pairs.stem_of(p.name))]
        if not paths:
            seen = sorted({p.suffix or p.name for p in found})
            told = f"files of {listing(seen)}" if seen else "nothing"
            raise PixmedError(f"{key}={root}: holds {told} and no {pairs.FORMATS} files")
        raise_all(root, not_utf8(paths, root))
        self.root = root
        self.others = [p.relative_to(root).as_posix() for p in sorted({*found} - {*paths})]
        self.items = [_item(root, path) for path in watched(paths, len(paths), "reading headers")]
        self.rows = [(i, k) for i, item in enumerate(self.items) for k in range(item.shape[0])]
        self._row_of = {(self.items[i].name, k): row for row, (i, k) in enumerate(self.rows)}
        self._reader = Reader(self.items, "stored", intensity.parse(rule), (), True, whole=True)
        self._reader.index(self.rows, np.zeros(len(self.rows), np.int32))

    def read(self, row: int) -> np.ndarray:
        """[H, W] or [H, W, 3] uint8 | uint16; full range = [0, 1]."""
        item = self.items[self.rows[row][0]]
        if isinstance(item.image, Path) and not item.fault:
            return decode.read_image(item.image)
        image = self._reader.image(*self.rows[row])
        if image.ndim == 3 and (image.shape[2] != 3 or image.dtype != np.uint8):
            raise PixmedError(
                f"{pairs.path_of(item.image)}: slices of {arrays.by(image.shape)} {image.dtype} values are "
                "neither grey nor 8-bit colour; save its channels as files of their own"
            )
        return image

    def row_of(self, name: str, k: int) -> int | None:
        """The row of a file's slice, if it is there."""
        return self._row_of.get((name, k))

    def limits(self, row: int) -> intensity.Limits:
        """What 0 and 1 stand for in the units of a volume; of a picture, themselves."""
        if isinstance(self.items[self.rows[row][0]].image, Path):
            return 0.0, 1.0
        return self._reader.limits(row)


def _item(root: Path, path: Path) -> Item:
    name = path.relative_to(root).as_posix()
    try:
        image = pairs.open_entry((path,), root, "image")
        return Item(name, image, (), pairs.shape_of(image, "stored"))
    except PixmedError as error:
        return Item(name, path, (), (1, 0, 0), str(error))


def output_name(item: Item) -> str:
    """What the file that is made of an item is called."""
    if isinstance(item.image, Path) or arrays.suffix(Path(item.name)) in _NIFTI:
        return item.name
    return item.name + (".png" if item.shape[0] == 1 else ".nii.gz")


def write(root: Path, item: Item, images: Sequence[np.ndarray], limits: intensity.Limits) -> None:
    """Write all slices of an item under its name in `root`; in a volume 0 and 1 stand for `limits`."""
    path = root / output_name(item)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(_encoded(path, item, images, limits))


def _encoded(path: Path, item: Item, images: Sequence[np.ndarray], limits: intensity.Limits) -> bytes:
    suffix = arrays.suffix(path)
    if suffix not in _NIFTI:
        stream = io.BytesIO()
        form = Image.registered_extensions()[suffix]
        if form in ("JPEG", "BMP") and images[0].dtype != np.uint8:
            raise PixmedError(f"{item.name}: holds 16 bits, which no {form} can; call it .png")
        options = {"quality": _QUALITY, "subsampling": 0} if form == "JPEG" else {}
        Image.fromarray(images[0]).save(stream, form, **options)
        return stream.getvalue()
    assert isinstance(item.image, arrays.Array)
    pictures, affine = np.stack(images), item.image.affine
    old: Sequence[int]
    if affine is None:  # nobody knows how it lies: columns, rows, slices as they are seen
        values = np.moveaxis(pictures, 0, 2).swapaxes(0, 1)
        affine, old = arrays.AS_STORED, item.shape[:0:-1]
    else:
        values, old = volumes.unstack(item.image._replace(planar=False), pictures), item.image.shape[:2]
    data = nifti.volume_bytes(values, _rescaled(affine, old, values.shape), limits)
    return gzip.compress(data, mtime=0) if suffix == ".nii.gz" else data


def _rescaled(affine: np.ndarray, old: Sequence[int], new: Sequence[int]) -> np.ndarray:
    """The affine of a volume whose slices have changed from `old` to `new` pixels over the same extent."""
    ratios = np.array([old[0] / new[0], old[1] / new[1], 1.0])
    change = np.diag([*ratios, 1.0])
    change[:3, 3] = (ratios - 1) / 2  # the first pixel's centre lies half a pixel from the edge
    return affine @ change
