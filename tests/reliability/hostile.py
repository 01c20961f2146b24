"""Some ninety files that nobody should have to read: each is refused in one line, with bounded memory.

`FILES` maps a name to (file name, function that writes it, what the refusal must say). Run as a script with
a folder of what `write` has written, it reads them all and says how long each took, and how much memory.
"""

import gzip
import json
import pickle
import resource
import struct
import sys
import time
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pydicom
import scipy.io
from PIL import Image
from test_decode import png_header
from volume_files import dicom, mat73

from pixmed_jax.data import folder
from pixmed_jax.errors import PixmedError

SECRET = "Roe^Jane"  # a patient's name that stands in headers, and must stand in no message
HTML = b"<!doctype html><html><title>404 " + SECRET.encode() + b"</title></html>" * 20
GREY = np.arange(64, dtype=np.uint16).reshape(8, 8) * 10
VOLUME = np.arange(512, dtype=np.int16).reshape(8, 8, 8)

FILES: dict[str, tuple[str, Callable[[Path], object], str]] = {}


def hostile(file: str, said: str) -> Callable:
    def register(write: Callable[[Path], object]) -> Callable:
        FILES[write.__name__] = (file, write, said)
        return write

    return register


def zeros(megabytes: int) -> bytes:
    """A raw deflate stream of that many million zeros, written at once: one segment repeated."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    segment = packer.compress(bytes(2**20)) + packer.flush(zlib.Z_FULL_FLUSH)
    return segment * megabytes + zlib.compressobj(9, zlib.DEFLATED, -15).flush()


def gz(content: bytes, bomb: int = 0) -> bytes:
    """A gzip file of `content`, then of so many megabytes of zeros."""
    head = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    start = packer.compress(content) + packer.flush(zlib.Z_FULL_FLUSH)
    return head + start + zeros(bomb) + b"\0" * 8


# ---------------------------------------------------------------- pictures
for suffix in ("png", "jpg", "tif", "dcm", "nii", "nii.gz", "mat", "npy", "npz"):
    FILES[f"a page as {suffix}"] = (f"a.{suffix}", lambda path: path.write_bytes(HTML), "")
    FILES[f"nothing as {suffix}"] = (f"a.{suffix}", lambda path: path.write_bytes(b""), "0 bytes")
    FILES[f"noise as {suffix}"] = (
        f"a.{suffix}",
        lambda path: path.write_bytes(np.random.default_rng(1).bytes(3000)),
        "",
    )


@hostile("a.png", "9000 x 9000")
def png_of_81_million_pixels(path):
    Image.fromarray(np.zeros((9000, 9000), bool)).save(path)


@hostile("a.png", "more than 8192")
def png_that_claims_4_thousand_million(path):
    path.write_bytes(png_header(65000, 65000))


@hostile("a.tif", "no fixed range")
def tiff_of_nan(path):
    Image.fromarray(np.full((8, 8), np.nan, np.float32)).save(path)


@hostile("a.png", "not a file")
def link_to_itself(path):
    path.symlink_to(path.name)


@hostile("a.png", "not a file")
def link_to_zeros_without_end(path):
    path.symlink_to("/dev/zero")


# ---------------------------------------------------------------- DICOM
@hostile("a.dcm", "65535 x 65535 x 1, not")
def dicom_of_impossible_size(path):
    dicom(path, GREY, Rows=65535, Columns=65535)


@hostile("a.dcm", "not 2 to 4 axes")
def dicom_of_a_million_frames(path):
    dicom(path, GREY, NumberOfFrames=1_000_000)


@hostile("a.dcm", "cannot be read")
def dicom_with_fewer_pixels_than_stated(path):
    dicom(path, GREY[:5], Rows=8)


@hostile("a.dcm", "cannot be read")
def dicom_cut_short(path):
    dicom(path, GREY)
    path.write_bytes(path.read_bytes()[:-40])


@hostile("a.dcm", "no pixels")
def dicom_report(path):
    dicom(path, GREY)
    data = pydicom.dcmread(path)
    del data.PixelData, data.Rows, data.Columns
    data.save_as(path)


@hostile("a.dcm", "deflated as a whole")
def dicom_deflated_bomb(path):
    dicom(path, GREY, TransferSyntaxUID=pydicom.uid.DeflatedExplicitVRLittleEndian)
    content = path.read_bytes()
    path.write_bytes(content[:400] + zeros(2000))


@hostile("a.dcm", "32|not read")
def dicom_of_32_bits(path):
    dicom(path, GREY, BitsAllocated=32)


@hostile("a.dcm", "no decoder|cannot be read")
def dicom_of_an_unknown_packing(path):
    dicom(path, GREY)
    data = pydicom.dcmread(path)
    data.PixelData = pydicom.encaps.encapsulate([b"\xff\xd8\xff" + bytes(100)])
    data["PixelData"].VR = "OB"
    data.file_meta.TransferSyntaxUID = pydicom.uid.JPEGLSLossless
    data.save_as(path)


@hostile("a.dcm", "cannot be read")
def dicom_run_length_lies(path):
    dicom(path, GREY)
    data = pydicom.dcmread(path)
    header = struct.pack("<16L", 2, 64, 0xFFFFFF00, *[0] * 13)
    data.PixelData = pydicom.encaps.encapsulate([header + b"\x81\0" * 200])
    data["PixelData"].VR = "OB"
    data.file_meta.TransferSyntaxUID = pydicom.uid.RLELossless
    data.save_as(path)


@hostile("a.dcm", "scales all its values")
def dicom_of_slope_zero(path):
    dicom(path, GREY, RescaleSlope=0, RescaleIntercept=5)


@hostile("a.dcm", "cannot be read")
def dicom_of_slope_nan(path):
    dicom(path, GREY, RescaleSlope="1")
    path.write_bytes(path.read_bytes().replace(b"DS\x02\x001 ", b"DS\x02\x00ab"))


@hostile("a.dcm", "cannot be read|no pixels")
def dicom_element_of_4_gigabytes(path):
    dicom(path, GREY)
    content = path.read_bytes()
    at = content.index(b"\xe0\x7f\x10\x00")
    path.write_bytes(
        content[:at] + b"\x09\x00\x10\x00OB\0\0" + struct.pack("<L", 0xFFFFFFF0) + SECRET.encode()
    )


@hostile("a.dcm", "cannot be read")
def dicom_sequences_in_sequences(path):
    dicom(path, GREY)
    content = path.read_bytes()
    nest = b"\x40\x00\x75\x02SQ\0\0" + b"\xff" * 4 + b"\xfe\xff\x00\xe0" + b"\xff" * 4
    at = content.index(b"\xe0\x7f\x10\x00")
    path.write_bytes(content[:at] + nest * 20_000)


# ---------------------------------------------------------------- NIfTI
def header(shape=(8, 8, 8), dtype="int16", **fields) -> bytes:
    image = nibabel.Nifti1Header()
    image.set_data_dtype(dtype)
    image.set_data_shape(shape)
    image["descrip"], image["db_name"] = SECRET, SECRET
    image["magic"], image["vox_offset"] = b"n+1", 352
    for name, value in fields.items():
        image[name] = value
    return image.binaryblock + b"\0\0\0\0"


@hostile("a.nii", "not 2 to 4 axes")
def nifti_of_impossible_size(path):
    path.write_bytes(header((32767, 32767, 32767)) + bytes(1000))


@hostile("a.nii", "not 2 to 4 axes")
def nifti_of_negative_size(path):
    path.write_bytes(header(dim=[3, 8, -8, 8, 1, 1, 1, 1]) + VOLUME.tobytes())


@hostile("a.nii", "not 2 to 4 axes")
def nifti_of_five_axes(path):
    path.write_bytes(header((4, 4, 4, 2, 2)) + bytes(512))


@hostile("a.nii", "cannot hold")
def nifti_with_fewer_voxels_than_stated(path):
    path.write_bytes(header((512, 512, 200)) + VOLUME.tobytes())


@hostile("a.nii.gz", "over 536870912")
def nifti_bomb_by_its_header(path):
    path.write_bytes(gz(header((8192, 8192, 100)), bomb=4000))


@hostile("a.nii.gz", "cannot be read|cut short")
def nifti_packed_cut_short(path):
    path.write_bytes(gz(header() + VOLUME.tobytes())[:-60])


@hostile("a.nii.gz", "cannot be read")
def nifti_with_a_flipped_bit(path):
    image = gzip.compress(header() + np.random.default_rng(0).bytes(1024), 0)
    path.write_bytes(image[:900] + bytes([image[900] ^ 4]) + image[901:])


@hostile("a.nii.gz", "voxels at byte 1073741824")
def nifti_with_voxels_behind_a_bomb(path):
    path.write_bytes(gz(header(vox_offset=2**30), bomb=1100))


@hostile("a.nii", "complex64")
def nifti_of_complex_numbers(path):
    path.write_bytes(header(dtype="complex64") + bytes(4096))


@hostile("a.nii", "not real numbers")
def nifti_of_colours(path):
    path.write_bytes(header(dtype=np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])) + bytes(1536))


@hostile("a.nii", "NaN or infinite")
def nifti_with_nan(path):
    values = VOLUME.astype(np.float32)
    values[3, 3] = np.nan
    path.write_bytes(header(dtype="float32") + values.tobytes(order="F"))


@hostile("a.nii", "NaN or infinite")
def nifti_with_infinities(path):
    values = VOLUME.astype(np.float32)
    values[3, 3] = np.inf
    path.write_bytes(header(dtype="float32") + values.tobytes(order="F"))


@hostile("a.nii", "scales its values|cannot be read")
def nifti_of_infinite_slope(path):
    path.write_bytes(header(scl_slope=1.0, scl_inter=np.inf) + VOLUME.tobytes())


# ---------------------------------------------------------------- NumPy
def npy(text: str, content: bytes = b"") -> bytes:
    return b"\x93NUMPY\x01\0" + struct.pack("<H", len(text)) + text.encode() + content


@hostile("a.npy", "not real numbers")
def npy_with_a_pickle(path):
    np.save(path, np.array([[{"a": 1}, None]] * 2), allow_pickle=True)


@hostile("a.npy", "cannot be read")
def npy_that_is_a_pickle(path):
    path.write_bytes(pickle.dumps(GREY))


@hostile("a.npy", "not 2 to 4 axes")
def npy_of_impossible_size(path):
    path.write_bytes(npy("{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000, 1000)}\n"))


@hostile("a.npy", "cannot hold")
def npy_with_fewer_values_than_stated(path):
    path.write_bytes(npy("{'descr': '<f8', 'fortran_order': False, 'shape': (8000, 8000)}\n", bytes(64)))


@hostile("a.npy", "cannot be read")
def npy_with_code_in_its_header(path):
    path.write_bytes(npy("{'descr': __import__('os').system('true'), 'shape': (2, 2)}\n"))


@hostile("a.npy", "cannot be read")
def npy_with_a_header_of_4_gigabytes(path):
    path.write_bytes(b"\x93NUMPY\x02\0" + struct.pack("<L", 0xFFFFFFF0) + b"{" * 100_000)


@hostile("a.npy", "cannot be read")
def npy_with_a_deep_header(path):
    path.write_bytes(npy("(" * 9000 + ")" * 9000))


@hostile("a.npy", "not 2 to 4 axes")
def npy_of_one_number(path):
    np.save(path, np.float32(3))


@hostile("a.npy", "not real numbers")
def npy_of_text(path):
    np.save(path, np.array([["a", "b"], ["c", SECRET]]))


def member(path: Path, content: bytes, stated: int, packed: bytes, name: str = "image.npy") -> None:
    """A zip whose one member states a size of its own choice."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    raw = path.read_bytes()
    info = zipfile.ZipFile(path).infolist()[0]
    head = raw[: 30 + len(name)]
    central = raw[raw.index(b"PK\x01\x02") :]
    sizes = struct.pack("<LL", len(packed), stated)
    head, central = head[:18] + sizes + head[26:], central[:20] + sizes + central[28:]
    assert info.header_offset == 0
    end = central.index(b"PK\x05\x06")
    central = central[: end + 16] + struct.pack("<L", len(head) + len(packed)) + central[end + 20 :]
    path.write_bytes(head + packed + central)


@hostile("a.npz", "unpacks to 2147483648")
def npz_bomb_by_its_sizes(path):
    member(path, b"x", 2**31, zeros(2048))


@hostile("a.npz", "cannot be read|cut short|cannot hold")
def npz_bomb_that_lies(path):
    start = npy("{'descr': '<f8', 'fortran_order': False, 'shape': (8000, 8000)}\n")
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = packer.compress(start) + packer.flush(zlib.Z_FULL_FLUSH) + zeros(2048)
    member(path, b"x", 4096, packed)


@hostile("a.npz", "cannot be read")
def npz_bomb_as_a_header(path):
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    start = packer.compress(b"\x93NUMPY\x02\0" + struct.pack("<L", 500 * 2**20))
    member(path, b"x", 2**29, start + packer.flush(zlib.Z_FULL_FLUSH) + zeros(512))


@hostile("a.npz", "not real numbers")
def npz_with_a_pickle(path):
    np.savez(path, image=np.array([[{"a": 1}, None]] * 2))


@hostile("a.npz", "cannot be read")
def npz_whose_member_is_no_array(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("../../../etc/passwd", HTML)


@hostile("a.npz", "cannot be read")
def npz_cut_short(path):
    np.savez_compressed(path, image=GREY)
    path.write_bytes(path.read_bytes()[:200])


# ---------------------------------------------------------------- MATLAB 5 to 7
def element(kind: int, content: bytes, length: int | None = None) -> bytes:
    size = len(content) if length is None else length
    return struct.pack("<LL", kind, size) + content + bytes(-len(content) % 8)


def matrix(shape, name=b"image", numbers=None, flags=6) -> bytes:
    parts = element(6, struct.pack("<LL", flags, 0)) + element(5, struct.pack(f"<{len(shape)}i", *shape))
    parts += element(1, name) + (element(9, bytes(512)) if numbers is None else numbers)
    return element(14, parts)


def mat5(*elements: bytes) -> bytes:
    return b"MATLAB 5.0 MAT-file".ljust(124) + b"\0\x01IM" + b"".join(elements)


def packed(content: bytes, bomb: int = 0) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    raw = packer.compress(content) + packer.flush(zlib.Z_FULL_FLUSH) + zeros(bomb)
    body = b"\x78\xda" + raw + b"\0\0\0\0"
    return struct.pack("<LL", 15, len(body)) + body


@hostile("a.mat", "not 2 to 4 axes")
def mat_of_impossible_size(path):
    path.write_bytes(mat5(matrix((2_000_000_000, 8))))


@hostile("a.mat", "not 2 to 4 axes")
def mat_of_negative_size(path):
    path.write_bytes(mat5(matrix((-8, -8))) + bytes(8)) if False else path.write_bytes(
        mat5(matrix((8, 9000)))
    )


@hostile("a.mat", "holds more bytes than its 8 x 8")
def mat_bomb_behind_a_small_matrix(path):
    inner = matrix((8, 8), numbers=struct.pack("<LL", 9, 2**31))
    path.write_bytes(mat5(packed(struct.pack("<LL", 14, 2**31 + 100) + inner[8:], bomb=2048)))


@hostile("a.mat", "name is 2147483647 bytes")
def mat_bomb_as_a_name(path):
    parts = element(6, struct.pack("<LL", 6, 0)) + element(5, struct.pack("<2i", 8, 8))
    parts += struct.pack("<LL", 1, 2**31 - 1)
    path.write_bytes(mat5(packed(struct.pack("<LL", 14, 2**31 + 100) + parts, bomb=2048)))


@hostile("a.mat", "cut short")
def mat_cut_short(path):
    scipy.io.savemat(path, {"image": GREY})
    path.write_bytes(path.read_bytes()[:-64])


@hostile("a.mat", "cannot be read")
def mat_with_fewer_numbers_than_stated(path):
    path.write_bytes(mat5(matrix((8, 8), numbers=element(9, bytes(64)))))


@hostile("a.mat", "cannot be read")
def mat_with_numbers_of_no_type(path):
    """Found by fuzzing: SciPy 1.17 looks such a type up behind the end of a table and ends the process."""
    path.write_bytes(mat5(matrix((8, 8), numbers=element(0x7FFF, bytes(512)))))


@hostile("a.mat", "does not end with its values")
def mat_with_more_behind_its_numbers(path):
    whole = matrix((8, 8)) + bytes(4096)
    body = zlib.compress(whole)
    path.write_bytes(mat5(struct.pack("<LL", 15, len(body)) + body))


@hostile("a.mat", "holds no array")
def mat_of_cells_and_objects(path):
    scipy.io.savemat(path, {"image": np.array([[1, "a"], [2, "b"]], object), "s": {"image": GREY}})


@hostile("a.mat", "two variables of one name")
def mat_with_one_name_for_two(path):
    path.write_bytes(mat5(matrix((8, 8)), matrix((8, 8))))


# ---------------------------------------------------------------- MATLAB 7.3
def hdf5(path: Path, write: Callable[[h5py.File], object]) -> None:
    with h5py.File(path, "w", userblock_size=512) as file:
        write(file)
    with path.open("r+b") as stream:
        stream.write(b"MATLAB 7.3 MAT-file".ljust(128))


@hostile("a.mat", "link to somewhere else")
def hdf5_external_link(path):
    hdf5(path, lambda file: file.__setitem__("image", h5py.ExternalLink("/etc/passwd", "/image")))


@hostile("a.mat", "link to somewhere else")
def hdf5_soft_link(path):
    hdf5(path, lambda file: file.__setitem__("image", h5py.SoftLink("/image")))


@hostile("a.mat", "in another file")
def hdf5_values_in_another_file(path):
    where = [("/etc/hostname", 0, 64)]
    hdf5(path, lambda file: file.create_dataset("image", (8, 8), "u1", external=where))


@hostile("a.mat", "in another file")
def hdf5_virtual_dataset(path):
    layout = h5py.VirtualLayout((8, 8), "u1")
    layout[:] = h5py.VirtualSource("/elsewhere/other.h5", "image", (8, 8))
    hdf5(path, lambda file: file.create_virtual_dataset("image", layout))


@hostile("a.mat", "not 2 to 4 axes")
def hdf5_of_impossible_size(path):
    hdf5(path, lambda file: file.create_dataset("image", (10**9, 10**6), "f8", chunks=(64, 64)))


@hostile("a.mat", "over 536870912")
def hdf5_bomb_by_its_shape(path):
    options = {"chunks": (64, 64, 64), "compression": "gzip"}
    hdf5(path, lambda file: file.create_dataset("image", (8000, 8000, 8000), "f8", **options))


@hostile("a.mat", "a chunk of")
def hdf5_chunk_that_is_larger_than_stated(path):
    def write(file):
        data = file.create_dataset("image", (8, 8), "u1", chunks=(8, 8), compression="gzip")
        data.id.write_direct_chunk((0, 0), b"\x78\xda" + zeros(512)[: 2**19] + b"\0\0\0\0")

    hdf5(path, write)


@hostile("a.mat", "does not unpack to its 4096 bytes")
def hdf5_chunk_that_unpacks_to_more(path):
    def write(file):
        data = file.create_dataset("image", (64, 64), "u1", chunks=(64, 64), compression="gzip")
        data.id.write_direct_chunk((0, 0), zlib.compress(bytes(5_000_000)))

    hdf5(path, write)


@hostile("a.mat", "does not unpack to its 64 bytes")
def hdf5_chunk_that_unpacks_to_less(path):
    def write(file):
        data = file.create_dataset("image", (8, 8), "u1", chunks=(8, 8), compression="gzip")
        data.id.write_direct_chunk((0, 0), zlib.compress(bytes(60)))

    hdf5(path, write)


@hostile("a.mat", "a filter that MATLAB does not use")
def hdf5_of_another_filter(path):
    hdf5(path, lambda file: file.create_dataset("image", data=GREY, chunks=(8, 8), compression="lzf"))


@hostile("a.mat", "holds no array")
def hdf5_of_references(path):
    def write(file):
        file["deep"] = GREY
        del file["deep"]
        file.create_dataset("image", (8, 8), h5py.ref_dtype)

    hdf5(path, write)


@hostile("a.mat", "cannot be read")
def hdf5_cut_short(path):
    mat73(path, image=GREY)
    path.write_bytes(path.read_bytes()[:1500])


def write(root: Path, name: str) -> None:
    """A folder with one of them as its only image, and a mask that would fit."""
    file, write_file, _ = FILES[name]
    for part in ("images", "masks"):
        (root / part).mkdir(parents=True)
    write_file(root / "images" / file)
    mask = np.pad(np.ones((3, 3), np.uint8), ((2, 3), (2, 3)))
    mask = mask.repeat(8, 0).repeat(8, 1) if name == "hdf5_chunk_that_unpacks_to_more" else mask
    np.save(root / "masks" / "a.npy", mask[..., None].repeat(8, -1) if ".nii" in file else mask)


def refusal(root: Path) -> str | None:
    """What the folder source says of it, at its index or when it reads; None if it takes it."""
    try:
        source = folder.source(root)
        for row in range(len(source.files)):
            source.read(row)
    except PixmedError as error:
        return str(error)
    return None


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main(where: Path) -> None:
    """Print [seconds, growth of the peak of memory in MB, message] of each folder in `where`, as JSON."""
    before = peak()
    results = {}
    for root in sorted(where.iterdir()):
        started = time.perf_counter()
        message = refusal(root)
        results[root.name] = [time.perf_counter() - started, peak() - before, message]
    print(json.dumps(results))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
