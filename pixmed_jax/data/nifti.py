"""NIfTI-1 and NIfTI-2 files, NAME.nii and NAME.nii.gz: their axes are [x, y, z] or [x, y, z, class].

Errors: PixmedError. Library: nibabel.
"""

import gzip
import math
from pathlib import Path
from typing import IO, cast

import numpy as np

from pixmed_jax.data.arrays import (
    AS_STORED,
    DEFLATE,
    Array,
    check,
    check_holds,
    exactly,
    squeezed,
    suffix,
)
from pixmed_jax.data.intensity import TOP, Limits, type_range
from pixmed_jax.errors import PixmedError
from pixmed_jax.extras import library

_MAX_GAP = 2**20  # between header and voxels of a NIfTI file


def read_nifti(path: Path, wanted: str) -> Array:
    nibabel = library("nibabel", "medical")
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
    shape, dtype = squeezed(header.get_data_shape()), header.get_data_dtype()
    check(str(path), shape, dtype)
    gap = int(header["vox_offset"])
    if not length <= gap <= _MAX_GAP:
        raise PixmedError(f"{path}: voxels at byte {gap}, not {length} to {_MAX_GAP}; export it again")
    check_holds(str(path), path.stat().st_size, shape, dtype, DEFLATE if packed else 1)
    slope, intercept = header.get_slope_inter()
    slope, intercept = (1.0, 0.0) if slope is None else (float(slope), float(intercept or 0))
    if not (math.isfinite(slope) and math.isfinite(intercept)):
        raise PixmedError(f"{path}: scales its values by {slope} and {intercept}; export it again")
    affine = header.get_best_affine()
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-12:
        affine = AS_STORED
    bounds = type_range(dtype.newbyteorder("="))

    def read() -> np.ndarray:
        with stream() as file:
            file.read(gap)
            return exactly(file, shape, dtype, str(path)).reshape(shape, order="F")

    return Array(
        str(path), shape, dtype, read, affine, len(shape) == 2, slope=slope, intercept=intercept,
        full=bounds and (intercept, slope * bounds[1] + intercept) if slope > 0 else None,
    )  # fmt: skip


def nifti_bytes(picture: np.ndarray, limits: Limits = (0.0, 1.0), pixel: float | None = None) -> bytes:
    """A .nii.gz of one picture [H, W], the same bytes for the same picture; `stack` gives it back.

    pixel: the side of a pixel in mm; unknown it is written as 1, as is the distance of slices.
    """
    side = 1.0 if pixel is None else pixel
    affine = AS_STORED * np.array([side, side, 1, 1])
    return gzip.compress(volume_bytes(picture.T[:, :, None], affine, limits), mtime=0)


def volume_bytes(values: np.ndarray, affine: np.ndarray, limits: Limits = (0.0, 1.0)) -> bytes:
    """A .nii of an array with the axes of its file.

    Of uint16, 0 and 65535 stand for the limits, by the file's own slope and intercept; other types keep
    their values. Limits of a file that was stored inverted, high before low, give its pictures as they are
    shown: NIfTI has nothing that would say inverted.
    """
    image = library("nibabel", "medical").Nifti1Image(values, affine)
    if values.dtype == np.uint16:
        low, high = sorted(limits)
        image.header.set_slope_inter((high - low) / TOP, low)
    return image.to_bytes()
