"""Slices and volumes in the files of scanners and of scientific software, none of them vetted.

    NAME.dcm, or no suffix    DICOM: a slice or several frames; a folder of such files is a series
    NAME.nii, NAME.nii.gz     NIfTI-1 and NIfTI-2
    NAME.mat                  MATLAB 5 to 7, and 7.3, which is HDF5
    NAME.npy, NAME.npz        NumPy; never pickled objects

`open_array`, and `dicom.open_series`, judge a file by its header and give an `Array`. Of the arrays in a .mat
or .npz, the one called like `wanted` counts ("image", "mask"), or else the only one.

Layout: an `Array` has the axes of its file ([x, y, z] for NIfTI, [column, row, slice] for DICOM, the array's
own for the others); `stack` turns it into pictures [N, H, W] or [N, H, W, C].
Errors: PixmedError in one line that names the file and never what is in it: headers hold names of patients.
Libraries: pydicom, nibabel, h5py (the extra "medical"), imported when a file needs them.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from threading import Lock

import numpy as np

from pixmed_jax.data import decode
from pixmed_jax.data.arrays import MAX_BYTES, Array, opened, starts, suffix
from pixmed_jax.data.dicom import read_dicom
from pixmed_jax.data.mat import read_mat
from pixmed_jax.data.nifti import read_nifti
from pixmed_jax.data.numpy_files import read_npy, read_npz
from pixmed_jax.errors import PixmedError
from pixmed_jax.extras import library

DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")
READERS: Mapping[str, Callable[[Path, str], Array]] = {
    **dict.fromkeys(DICOM_SUFFIXES, read_dicom),
    ".nii": read_nifti,
    ".nii.gz": read_nifti,
    ".mat": read_mat,
    ".npy": read_npy,
    ".npz": read_npz,
}
SUFFIXES = frozenset(READERS)
PLANES = {"sagittal": 0, "coronal": 1, "axial": 2}  # the axis of right-anterior-superior that a plane cuts
AXES = ("stored", "0", "1", "2", *PLANES)  # what volumes can be cut along


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


def is_volume(path: Path) -> bool:
    """Whether `open_array` is meant for a file: by its suffix, or by DICOM's signature where it has none."""
    if path.suffix and not path.suffix[1:].isdigit():  # PACS exports are called IM0001 or 1.2.840.1
        return suffix(path) in SUFFIXES
    try:
        return path.is_file() and starts(path, 132)[128:] == b"DICM"
    except OSError:
        return False


def is_image(path: Path) -> bool:
    """Whether a file is read at all: a picture or a volume, by its name."""
    return path.suffix.lower() in decode.SUFFIXES or is_volume(path)


def is_dicom(path: Path) -> bool:
    return is_volume(path) and READERS.get(suffix(path), read_dicom) is read_dicom


def open_array(path: Path, wanted: str = "image") -> Array:
    """The array in a file; raises PixmedError for one that would not be decoded."""
    return opened(path, READERS.get(suffix(path), read_dicom), wanted)


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
    if apart := _apart(mask, image):
        raise PixmedError(
            f"{mask.name}: lies up to {apart:.3g} voxels from its image, by what the two headers say; "
            "save the mask with the affine of its image"
        )
    return mask


def _apart(mask: Array, image: Array) -> float:
    """How far apart two files of one size place the same voxel, in voxels; 0 up to one, or where one of them
    does not say.

    A mask that was drawn on an image's voxels and saved without its affine is turned upright another way.
    """
    if mask.affine is None or image.affine is None or not (mask.placed and image.placed):
        return 0.0
    sizes, places = zip(*(_upright(array) for array in (mask, image)), strict=True)
    if sizes[0] != sizes[1]:  # that is told where shapes are compared
        return 0.0
    corners = np.array([(*corner, 1) for corner in np.ndindex(2, 2, 2)]) * (*(n - 1 for n in sizes[0]), 1)
    voxels = np.linalg.solve(places[1], places[0] @ corners.T)[:3] - corners.T[:3]
    farthest = float(np.abs(voxels).max())
    return farthest if farthest > 1 else 0.0


def _upright(array: Array) -> tuple[tuple[int, ...], np.ndarray]:
    """(shape, affine) of an array once its axes run to right, anterior and superior."""
    orientations = library("nibabel", "medical").orientations
    shape = (*array.shape[:2], 1) if array.planar else array.shape[:3]
    orientation = orientations.io_orientation(array.affine)
    turned = orientations.apply_orientation(np.broadcast_to(np.uint8(0), shape), orientation).shape
    return turned, array.affine @ orientations.inv_ornt_aff(orientation, shape)


def stack(array: Array, values: np.ndarray, axis: str) -> np.ndarray:
    """Pictures [N, H, W, ...], a view of `values` with the axes of `array`.

    axis: "stored" cuts the last axis of the file, "0", "1" or "2" that one; "axial", "coronal" or "sagittal"
    the plane, where the file says how the patient lay. With an orientation, pictures are the radiologist's:
    anterior or superior is up, the patient's right is on the left, and slices count towards right, anterior
    or superior. Without, an array is taken as it is.
    """
    check_axis(axis)
    if array.planar:
        values = values[:, :, None]
    if values.shape[2] == 1:  # a single slice can be cut in one way only
        axis = "stored"
    if array.affine is None:
        if axis in PLANES:
            raise PixmedError(f"{array.name}: says nothing of planes; set data.axis to stored, 0, 1 or 2")
        return np.moveaxis(values, _stored(axis), 0)
    orientations = library("nibabel", "medical").orientations
    orientation = orientations.io_orientation(array.affine)
    upright = orientations.apply_orientation(values, orientation)
    return np.moveaxis(upright, _cut(axis, orientation), 0)[:, ::-1, ::-1].swapaxes(1, 2)


def _stored(axis: str) -> int:
    return int(axis) if axis.isdigit() else 2


def _cut(axis: str, orientation: np.ndarray) -> int:
    """Which of right, anterior and superior is cut."""
    return PLANES[axis] if axis in PLANES else int(orientation[_stored(axis), 0])


def pixel(array: Array, axis: str) -> tuple[float, float]:
    """(height, width) of a pixel of `stack`'s pictures in millimetres; 1 and 1 where nobody knows."""
    if array.affine is None:
        return 1.0, 1.0
    orientation = library("nibabel", "medical").orientations.io_orientation(array.affine)
    sides = np.empty(3)
    sides[orientation[:, 0].astype(int)] = np.linalg.norm(array.affine[:3, :3], axis=0)
    single = array.planar or array.shape[2] == 1
    width, height = np.delete(sides, _cut("stored" if single else axis, orientation))
    return float(height), float(width)


def unstack(array: Array, pictures: np.ndarray) -> np.ndarray:
    """What `stack` with the axis "stored" made of `array`, with the axes of the file again."""
    if array.affine is None:
        values = np.moveaxis(pictures, 0, 2)
    else:
        orientations = library("nibabel", "medical").orientations
        orientation = orientations.io_orientation(array.affine)
        upright = np.moveaxis(pictures.swapaxes(1, 2)[:, ::-1, ::-1], 0, int(orientation[2, 0]))
        back = orientations.ornt_transform(orientations.io_orientation(np.eye(4)), orientation)
        values = orientations.apply_orientation(upright, back)
    return values[:, :, 0] if array.planar else values


def check_axis(axis: str) -> None:
    if axis not in AXES:
        raise PixmedError(f"data.axis={axis!r}: give stored, 0, 1, 2, axial, coronal or sagittal")


def stack_shape(array: Array, axis: str) -> tuple[int, ...]:
    """The shape that `stack` will give, from the header alone."""
    return stack(array, np.broadcast_to(np.uint8(0), array.shape), axis).shape
