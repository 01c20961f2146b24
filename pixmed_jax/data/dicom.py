"""DICOM files, of a slice or of several frames, and series of such files; the axes are [column, row, slice].

Errors: PixmedError in one line that names the file and never what is in it: headers hold names of patients.
Library: pydicom.
"""

import logging
import mmap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pixmed_jax.data.arrays import AS_STORED, Array, check, guarded, opened
from pixmed_jax.data.intensity import Limits
from pixmed_jax.errors import PixmedError
from pixmed_jax.extras import library

_DEFLATED = "1.2.840.10008.1.2.1.99"
_HEADER = (
    "Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "BitsAllocated", "BitsStored",
    "PixelRepresentation", "PhotometricInterpretation", "RescaleSlope", "RescaleIntercept", "WindowCenter",
    "WindowWidth", "VOILUTFunction", "PatientID", "StudyInstanceUID", "SeriesInstanceUID", "InstanceNumber",
    "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "PlanarConfiguration", "HighBit",
    "SharedFunctionalGroupsSequence",
)  # fmt: skip


def _dicom_data(path: Path, *, pixels: bool) -> Any:
    """The dataset of a file, with the elements that count alone, or with its pixels too."""
    pydicom = library("pydicom", "medical")
    logging.getLogger("pydicom").setLevel(logging.ERROR)
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


def _spacing(data: Any) -> np.ndarray | None:
    """[2]: millimetres from row to row and from column to column, PS3.3 10.7.1.3; those of frames are told by
    what these share. None where the file does not say.
    """
    shared = data.get("SharedFunctionalGroupsSequence") or [{}]
    measures = shared[0].get("PixelMeasuresSequence") or [{}]
    for where in (data, measures[0]):
        spacing = _numbers(where, "PixelSpacing", 2)
        if spacing is not None and (spacing > 0).all():
            return spacing
    return None


def _in_plane(spacing: np.ndarray | None) -> np.ndarray:
    """[4, 4]: the affine of slices that lie nowhere."""
    rows, columns = (1.0, 1.0) if spacing is None else spacing
    return AS_STORED @ np.diag([columns, rows, 1.0, 1.0])


def read_dicom(path: Path, wanted: str) -> Array:
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
        if not library("pydicom.pixels", "medical").get_decoder(syntax).is_available:
            raise PixmedError(
                f"{path}: is packed as {syntax.name}, for which there is no decoder here; "
                "export it uncompressed (gdcmconv --raw, dcmdjpeg)"
            )
        pixels = whole.pixel_array.reshape(frames, shape[1], shape[0], samples)
        return np.moveaxis(pixels, 0, 2).swapaxes(0, 1).reshape(shape)

    spacing = _spacing(data)
    return Array(
        str(path), shape, dtype, read, _in_plane(spacing), dicom=True, placed=False,
        sized=spacing is not None, slope=a, intercept=b,
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
    arrays = {path: opened(path, read_dicom) for path in paths}
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
            spacing = _spacing(data)
            placed.append((path, position, turn, spacing, int(data.get("InstanceNumber") or 0)))
    first = arrays[paths[0]]
    if len(series) > 1:
        raise PixmedError(f"{folder}: {len(series)} DICOM series in one folder; give each its own")
    for path, array in arrays.items():
        same = (array.shape, array.dtype, array.inverted) == (first.shape, first.dtype, first.inverted)
        if not same or array.shape[2:] != (1,):
            raise PixmedError(f"{path}: differs from the rest of its series in size or kind; remove it")
    shape = (*first.shape[:2], len(paths))
    check(str(folder), shape, np.dtype(np.float32))
    _check_apart(folder, placed)
    order, affine, lies = _placed(placed)
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
        placed=lies,
        slope=first.slope if alike else 1.0,
        intercept=first.intercept if alike else 0.0,
        full=first.full if alike else None,
    )


def _check_apart(folder: Path, slices: list[tuple]) -> None:
    """Refuse slices that cannot be one volume: a localiser's planes, two echoes of one place."""
    known = [
        (position, turn) for _, position, turn, _, _ in slices if position is not None and turn is not None
    ]
    if len(known) < len(slices):
        return
    first = known[0][1]
    if any(np.abs(turn - first).max() > 1e-3 for _, turn in known):
        raise PixmedError(
            f"{folder}: its slices are cut in several directions; give each a folder of its own"
        )
    normal = np.cross(first[:3], first[3:])
    if (np.diff(np.sort([float(position @ normal) for position, _ in known])) < 1e-3).any():
        raise PixmedError(
            f"{folder}: several slices lie at one place (echoes, b-values, times?); "
            "give each acquisition a folder of its own"
        )


def _placed(slices: list[tuple]) -> tuple[list[Path], np.ndarray, bool]:
    """The files in order, the affine in RAS (DICOM's own x and y point the other way), and whether that says
    where they lie."""
    _, _, turn, spacing, _ = slices[0]
    if any(position is None or turn is None for _, position, turn, _, _ in slices):
        by_number = [path for path, *_ in sorted(slices, key=lambda s: (s[4], s[0].name))]
        return by_number, _in_plane(spacing), False
    along_row, along_column = turn[:3], turn[3:]
    normal = np.cross(along_row, along_column)
    ordered = sorted(slices, key=lambda s: (float(s[1] @ normal), s[0].name))
    step = ordered[-1][1] - ordered[0][1] if len(ordered) > 1 else normal
    row_spacing, column_spacing = (1.0, 1.0) if spacing is None else spacing
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = along_row * column_spacing, along_column * row_spacing
    affine[:3, 2], affine[:3, 3] = step / max(1, len(ordered) - 1), ordered[0][1]
    affine = np.diag([-1.0, -1, 1, 1]) @ affine
    lies = bool(np.isfinite(affine).all() and abs(np.linalg.det(affine[:3, :3])) >= 1e-12)
    return [path for path, *_ in ordered], affine if lies else _in_plane(spacing), lies
