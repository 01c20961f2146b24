"""Files of scanners and of scientific software, written by the formats' own libraries."""

from pathlib import Path

import numpy as np
import pytest

from pixmed_jax.data import volumes

h5py = pytest.importorskip("h5py")
nibabel = pytest.importorskip("nibabel")
pydicom = pytest.importorskip("pydicom")

# Every voxel differs: [x, y, z] = 100 x + 10 y + z, so a picture shows where each of its pixels came from.
X, Y, Z = np.mgrid[0:4, 0:5, 0:3]
PLACES = (100 * X + 10 * Y + Z).astype(np.int16)


def nifti(path: Path, values: np.ndarray, affine: np.ndarray | None = None, **header: float) -> Path:
    image = nibabel.Nifti1Image(values, np.eye(4) if affine is None else affine)
    if header:
        image.header.set_slope_inter(header.get("slope", 1), header.get("inter", 0))
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(image, path)
    return path


def dicom(path: Path, pixels: np.ndarray, **elements: object) -> Path:
    """[H, W] or [frames, H, W] uint8 | uint16 | int16 as an uncompressed file."""
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.4"
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = elements.pop("TransferSyntaxUID", ExplicitVRLittleEndian)
    data = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    data.PatientName, data.PatientID, data.StudyInstanceUID = "Roe^Jane", "1234567", "1.2.3.4"
    data.SeriesInstanceUID = "1.2.3.4.5"
    data.Rows, data.Columns = pixels.shape[-2:]
    if pixels.ndim == 3:
        data.NumberOfFrames = len(pixels)
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated = data.BitsStored = 8 * pixels.dtype.itemsize
    data.HighBit, data.PixelRepresentation = data.BitsStored - 1, int(pixels.dtype.kind == "i")
    data.PixelData = pixels.tobytes() + b"\0" * (pixels.nbytes % 2)
    for name, value in elements.items():
        setattr(data, name, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)
    return path


def mat73(path: Path, **arrays: np.ndarray) -> Path:
    """As MATLAB -v7.3 writes it: transposed, in chunks, deflated, behind a block of text."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, values in arrays.items():
            file.create_dataset(name, data=values.T, chunks=True, compression="gzip", shuffle=True)
    with path.open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file".ljust(128))
    return path


def decoded(path: Path, axis: str = "stored") -> np.ndarray:
    array = volumes.open_array(path)
    return np.array(volumes.stack(array, array.read(), axis))


def series(root: Path, values: np.ndarray, affine: np.ndarray) -> None:
    """[x, y, z] with an affine in RAS as slices whose file names are in no order."""
    lps = np.diag([-1.0, -1, 1, 1]) @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    for z, name in zip(range(values.shape[2]), ("m", "z", "a", "k"), strict=False):
        dicom(
            root / f"{name}.dcm",
            np.ascontiguousarray(values[:, :, z].T),
            ImagePositionPatient=[float(v) for v in lps[:3] @ [0, 0, z, 1]],
            ImageOrientationPatient=[
                float(v) for v in [*(lps[:3, 0] / spacing[0]), *(lps[:3, 1] / spacing[1])]
            ],
            PixelSpacing=[float(spacing[1]), float(spacing[0])],
            RescaleSlope=1,
            RescaleIntercept=0,
        )
