"""Untrusted image files: what is kept to the bit, and what is refused, why and how fast."""

import os
import struct
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile

from pixmed_jax.data import decode
from pixmed_jax.errors import PixmedError

GREY = (np.arange(48).reshape(6, 8) * 5).astype(np.uint8)
DEEP = GREY.astype(np.uint16) * 257 + 3  # beyond 8 bits, where `.convert("L")` would clip
COLOUR = np.stack([GREY, GREY // 2, 255 - GREY], axis=-1)


def save(path: Path, pixels: np.ndarray, **options: object) -> Path:
    Image.fromarray(pixels).save(path, **options)
    return path


def png_header(width: int, height: int) -> bytes:
    """A PNG of a few bytes that claims any size."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    body = chunk(b"IDAT", zlib.compress(b"\0" * 64))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + body + chunk(b"IEND", b"")


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.bmp"])
def test_grey_of_8_bits_is_kept(tmp_path, name):
    image = decode.read_image(save(tmp_path / name, GREY))
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, GREY)


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_grey_of_16_bits_is_kept(tmp_path, name):
    image = decode.read_image(save(tmp_path / name, DEEP))
    assert image.dtype == np.uint16
    np.testing.assert_array_equal(image, DEEP)


def test_big_endian_tiff_becomes_native(tmp_path):
    Image.frombytes("I;16B", (8, 6), DEEP.astype(">u2").tobytes()).save(tmp_path / "a.tif")
    image = decode.read_image(tmp_path / "a.tif")
    assert image.dtype == np.dtype("=u2")
    np.testing.assert_array_equal(image, DEEP)


def test_colour_is_kept_and_alpha_is_dropped_not_blended(tmp_path):
    np.testing.assert_array_equal(decode.read_image(save(tmp_path / "a.png", COLOUR)), COLOUR)
    clear = np.dstack([COLOUR, np.zeros_like(GREY)])
    np.testing.assert_array_equal(decode.read_image(save(tmp_path / "b.png", clear)), COLOUR)
    Image.fromarray(GREY).convert("LA").save(tmp_path / "c.png")
    np.testing.assert_array_equal(decode.read_image(tmp_path / "c.png"), GREY)


@pytest.mark.parametrize("options", [{}, {"transparency": b"\x00\xff\x80"}])
def test_palette_gives_colours_to_an_image_and_indices_to_a_mask(tmp_path, options):
    picture = Image.fromarray(GREY % 3)
    picture.putpalette([10, 20, 30, 255, 0, 0, 0, 255, 0])
    picture.save(tmp_path / "a.png", **options)
    colours = np.array([[10, 20, 30], [255, 0, 0], [0, 255, 0]], np.uint8)
    np.testing.assert_array_equal(decode.read_image(tmp_path / "a.png"), colours[GREY % 3])
    np.testing.assert_array_equal(decode.read_mask(tmp_path / "a.png"), GREY % 3)


def test_one_bit_is_0_and_1_as_a_mask_and_black_and_white_as_an_image(tmp_path):
    path = save(tmp_path / "a.png", GREY > 100)
    np.testing.assert_array_equal(decode.read_mask(path), (GREY > 100).astype(np.uint8))
    np.testing.assert_array_equal(decode.read_image(path), np.where(GREY > 100, 255, 0))


def test_mask_values_are_raw_in_every_container(tmp_path):
    labels = GREY % 4
    assert decode.read_mask(save(tmp_path / "a.png", labels)).dtype == np.uint8
    np.testing.assert_array_equal(decode.read_mask(save(tmp_path / "a.png", labels)), labels)
    np.testing.assert_array_equal(decode.read_mask(save(tmp_path / "b.png", labels.astype("u2"))), labels)
    np.testing.assert_array_equal(decode.read_mask(save(tmp_path / "c.png", np.dstack([labels] * 3))), labels)


def test_masks_that_cannot_be_labels(tmp_path):
    with pytest.raises(PixmedError, match="colour image; save it as grey"):
        decode.read_mask(save(tmp_path / "a.png", COLOUR))
    with pytest.raises(PixmedError, match="values up to 60398"):
        decode.read_mask(save(tmp_path / "b.png", DEEP))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "0 bytes"),
        (b"<!doctype html><html>404</html>", "not a whole PNG"),
        (b"\x89PNG\r\n\x1a\n", "not a whole PNG"),
        (b"GIF89a" + b"\0" * 40, "not a whole PNG"),
        (np.random.default_rng(0).bytes(300), "not a whole PNG"),
        (png_header(9000, 9000), "9000 x 9000 pixels, over 8192 a side"),
        (png_header(8193, 1), "8193 x 1 pixels"),
        (png_header(60000, 60000), "more than 8192 pixels a side"),
        (png_header(300, 300), "cannot be decoded"),  # fewer pixels than it claims
    ],
)
def test_hostile_bytes_give_one_line_with_the_file(tmp_path, content, reason):
    path = tmp_path / "slice.png"
    path.write_bytes(content)
    for read in (decode.read_image, decode.read_mask):
        with pytest.raises(PixmedError, match=reason) as caught:
            read(path)
        assert str(caught.value).startswith(f"{path}: ")
        assert "\n" not in str(caught.value)
        assert ";" in str(caught.value)  # a remedy follows


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif", "a.bmp"])
@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_truncated_files_are_refused(tmp_path, name, share):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)
    path = save(tmp_path / name, noise)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(PixmedError):
        decode.read_image(path)


def test_a_bomb_is_refused_from_its_header(tmp_path):
    """81 million real pixels in a small file; decoding them takes most of a second."""
    path = save(tmp_path / "bomb.png", np.zeros((9000, 9000), bool))
    assert path.stat().st_size < 100_000
    started = time.perf_counter()
    with pytest.raises(PixmedError, match="9000 x 9000"):
        decode.read_image(path)
    assert time.perf_counter() - started < 0.1


@pytest.mark.parametrize("pixels", [GREY.astype(np.float32), np.full((4, 4), np.nan, np.float32)])
def test_float_and_32_bit_pixels_are_refused(tmp_path, pixels):
    for kind in (pixels, GREY.astype(np.int32)):
        with pytest.raises(PixmedError, match="no fixed range; save it as 8- or 16-bit"):
            decode.read_image(save(tmp_path / "a.tif", kind))


@pytest.mark.parametrize("name", ["a.tif", "a.png"])
def test_several_frames_are_refused(tmp_path, name):
    more = [Image.fromarray(GREY + 1)]
    path = save(tmp_path / name, GREY, save_all=True, append_images=more)
    with pytest.raises(PixmedError, match="several images"):
        decode.read_size(path)


def test_formats_beyond_the_four_are_not_even_tried(tmp_path):
    Image.fromarray(GREY).save(tmp_path / "a.png", format="GIF")
    with pytest.raises(PixmedError, match="not a whole PNG, JPEG, TIFF or BMP"):
        decode.read_image(tmp_path / "a.png")


def test_what_is_no_file_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")  # opening it would wait for ever
    for path in (tmp_path / "pipe.png", tmp_path, tmp_path / "absent.png"):
        with pytest.raises(PixmedError, match="not a file"):
            decode.read_image(path)


def test_files_over_the_limit_are_not_opened(tmp_path, monkeypatch):
    path = save(tmp_path / "a.png", GREY)
    monkeypatch.setattr(decode, "MAX_BYTES", path.stat().st_size - 1)
    with pytest.raises(PixmedError, match="bytes, over "):
        decode.read_image(path)


def test_size_is_height_before_width(tmp_path):
    assert decode.read_size(save(tmp_path / "a.png", GREY)) == (6, 8)


# Which side of the picture the first row and the first column of what is stored are: EXIF 2.32, table 6.
ORIENTATIONS = {
    1: ("top", "left"),
    2: ("top", "right"),
    3: ("bottom", "right"),
    4: ("bottom", "left"),
    5: ("left", "top"),
    6: ("right", "top"),
    7: ("right", "bottom"),
    8: ("left", "bottom"),
}


@pytest.mark.parametrize("suffix", ["png", "jpg", "tiff"])
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_pictures_and_masks_come_upright(tmp_path, orientation, suffix):
    stored = np.kron(np.array([[40, 80, 120], [160, 200, 240]], np.uint8), np.ones((8, 8), np.uint8))
    row_side, column_side = ORIENTATIONS[orientation]
    upright = stored if row_side in ("top", "bottom") else stored.T
    upright = upright[::-1] if "bottom" in (row_side, column_side) else upright
    upright = upright[:, ::-1] if "right" in (row_side, column_side) else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(stored).save(path, exif=exif, **({"quality": 100} if suffix == "jpg" else {}))
    for read in (decode.read_image, decode.read_mask):
        np.testing.assert_allclose(read(path).astype(int), upright, atol=1)
    assert decode.read_size(path) == upright.shape


def test_a_size_is_told_without_decoding(tmp_path, monkeypatch):
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("decoded"))
    for name in ("a.png", "a.jpg", "a.tiff"):
        Image.fromarray(np.zeros((2, 3), np.uint8)).save(tmp_path / name)
        assert decode.read_size(tmp_path / name) == (2, 3)


def test_an_exif_block_that_says_nothing_turns_nothing(tmp_path):
    stored = np.arange(6, dtype=np.uint8).reshape(2, 3)
    ninety_nine = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x63\0\0"
    for i, exif in enumerate((b"Exif\0\0junk", ninety_nine)):
        Image.fromarray(stored).save(tmp_path / f"{i}.png", exif=exif)
        np.testing.assert_array_equal(decode.read_image(tmp_path / f"{i}.png"), stored)


@pytest.mark.parametrize("mode", ["P", "PA"])
def test_black_is_the_background_of_a_palette_that_software_chose(tmp_path, mode):
    """Of two colours pillow's quantize takes the brighter one as index 0."""
    mask = np.zeros((6, 8), np.uint8)
    mask[1:3, 2:5] = 255
    chosen = Image.fromarray(mask).quantize(2)
    assert chosen.getpalette()[:3] == [255, 255, 255] and (np.asarray(chosen) == (mask == 0)).all()
    if mode == "PA":
        chosen = chosen.convert("PA")
    chosen.save(tmp_path / "a.tif" if mode == "PA" else tmp_path / "a.png")
    (path,) = tmp_path.iterdir()
    np.testing.assert_array_equal(decode.read_mask(path), mask)


def test_a_palette_of_classes_without_black_in_front_is_refused(tmp_path):
    image = Image.fromarray(np.array([[0, 1], [2, 2]], np.uint8), mode="P")
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 0])
    image.save(tmp_path / "a.png")
    with pytest.raises(PixmedError, match=r"black is not index 0 of its palette.*save it as grey"):
        decode.read_mask(tmp_path / "a.png")
    image.putpalette([0, 0, 0, 0, 255, 0, 0, 0, 0])  # black twice: index 0 is the background
    image.save(tmp_path / "a.png")
    assert decode.read_mask(tmp_path / "a.png").tolist() == [[0, 1], [2, 2]]
