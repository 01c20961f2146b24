"""Guarded decoding of image files that nobody has vetted.

Format, size, mode and number of frames are judged from the header, before a single pixel is decoded, so a
few kilobytes that unpack to gigabytes are refused at once.

Layout: images [H, W] or [H, W, 3], uint8 or uint16, full range of the type = [0, 1]; 16-bit grey stays
16 bit. Masks [H, W] uint8, the values as stored: 0/1 for a 1-bit file, indices for a palette. Software that
chooses the palette itself may give black another index than 0, and the background would be a class. Both
come upright, as viewers show them, where EXIF says how they lie.
Errors: PixmedError (file, reason, remedy in one line), whatever the bytes are.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from pixmed_jax.errors import PixmedError

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp"})
FORMATS = ("PNG", "JPEG", "TIFF", "BMP")
MAX_SIDE = 8192  # so at most 2**26 pixels
MAX_BYTES = 2**28
_LEAST_WHITE = 32  # of a JPEG mask in black and white, its noise aside; 16 classes are the most
COLOURED = np.uint32(1 << 24)  # tells blue, 0x0000FF, from the grey value 255
# pillow's modes of 1-, 8- and 16-bit files; it reads colour of 16 bits a channel as 8 bits, by the high byte.
GREY = frozenset({"1", "L", "LA", "I;16", "I;16B"})
COLOUR = frozenset({"P", "PA", "RGB", "RGBA"})
# What makes a picture upright, by its EXIF orientation; from 5 on height and width change places.
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def read_size(path: Path) -> tuple[int, int]:
    """(height, width) from the header alone; raises PixmedError for a file that would not be decoded."""
    with _checked(path) as image:
        return (image.width, image.height) if _orientation(image) >= 5 else (image.height, image.width)


def read_image(path: Path) -> np.ndarray:
    """[H, W] of a grey file or [H, W, 3] of a colour or palette file, uint8 | uint16; alpha is dropped."""
    with _checked(path) as stored:
        image = _upright(stored)
        if image.mode == "1":
            return np.asarray(image, np.uint8) * np.uint8(255)
        if image.mode in COLOUR:
            # By way of RGBA: pillow warns when a palette with transparency becomes RGB directly.
            return np.asarray(image.convert("RGBA"))[..., :3].copy()
        return _native(image)


def read_mask(path: Path, *, colours: bool = False) -> np.ndarray:
    """[H, W] uint8, the values as stored. Colour files are accepted where their three channels agree.

    With `colours` they are accepted in any case; those whose channels differ give [H, W] uint32: 0x1RRGGBB,
    or 0 for black.
    """
    with _checked(path) as stored:
        image = _upright(stored)
        if stored.format == "JPEG" and 0 < np.asarray(image).max() < _LEAST_WHITE:
            raise PixmedError(
                f"{path}: the mask holds class numbers, which JPEG blurs into others; save it as PNG"
            )
        if image.mode in {"RGB", "RGBA"}:
            values = np.asarray(image)[..., :3]
            if np.ptp(values, axis=-1).any() and colours:
                red, green, blue = np.moveaxis(values.astype(np.uint32), -1, 0)
                rgb = red << 16 | green << 8 | blue
                return np.where(rgb > 0, rgb | COLOURED, np.uint32(0))
            if np.ptp(values, axis=-1).any():
                raise PixmedError(f"{path}: the mask is a colour image; save it as grey or palette PNG")
            return values[..., 0].copy()
        values = _native(image)
        if image.mode in {"P", "PA"}:
            values = _black_is_0(path, values, image.getpalette("RGB"))
        if values.max() > 255:
            raise PixmedError(f"{path}: the mask holds values up to {values.max()}; use 0 to 255")
        return values.astype(np.uint8)


def _black_is_0(path: Path, indices: np.ndarray, palette: list[int] | None) -> np.ndarray:
    """The indices; where another one than 0 is black and all in use are black or white, 0 and 255."""
    colours = np.zeros((256, 3), np.uint8)
    known = np.array(palette or [], np.uint8).reshape(-1, 3)
    colours[: len(known)] = known
    used = np.flatnonzero(np.bincount(indices.ravel()))
    if not colours[0].any() or colours[used].any(1).all():
        return indices
    white = (colours == 255).all(1)
    if (white | ~colours.any(1))[used].all():
        return np.where(white, 255, 0).astype(np.uint8)[indices]
    raise PixmedError(
        f"{path}: black is not index 0 of its palette, so nobody can tell its background; "
        "save it as grey, or with black as index 0"
    )


def _orientation(image: Image.Image) -> int:
    """By the EXIF block in its header, 1 to 8; 1 where there is none that can be read."""
    # Pillow itself turns TIFFs; behind a PNG's pixels it would look for a block by decoding them.
    if image.format == "TIFF" or (image.format == "PNG" and "exif" not in image.info):
        return 1
    try:
        found = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # its bytes are as doubtful as the file's; the pixels are none the worse for it
        return 1
    return found if found in TURNS else 1


def _upright(image: Image.Image) -> Image.Image:
    turn = TURNS.get(_orientation(image))
    return image if turn is None else image.transpose(turn)


def _native(image: Image.Image) -> np.ndarray:
    """[H, W] in the machine's byte order; LA and PA lose their alpha."""
    values = np.asarray(image)
    values = values[..., 0] if values.ndim == 3 else values
    return values.astype(values.dtype.newbyteorder("="))


@contextmanager
def _checked(path: Path) -> Iterator[Image.Image]:
    """An open image whose header passed; what goes wrong inside the block becomes a PixmedError too."""
    try:
        if not path.is_file():  # a pipe or a device would block or never end
            raise PixmedError(f"{path}: not a file; check data.dir")
        size = path.stat().st_size
        if not size:
            raise PixmedError(f"{path}: 0 bytes, an empty file; export the slice again")
        if size > MAX_BYTES:
            raise PixmedError(f"{path}: {size} bytes, over {MAX_BYTES}; export the slice again")
        # By handle: of a path pillow maps plain TIFFs into memory, and mixes up the pixels of those that lie.
        with path.open("rb") as file, Image.open(file, formats=FORMATS) as image:
            _check_header(path, image)
            yield image
    except PixmedError:
        raise
    except UnidentifiedImageError as error:
        raise PixmedError(
            f"{path}: not a whole PNG, JPEG, TIFF or BMP image; export it again as PNG"
        ) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise PixmedError(f"{path}: more than {MAX_SIDE} pixels a side; scale the slice down") from error
    except Exception as error:  # decoders that meet hostile bytes raise nearly any class
        reason = " ".join(str(error).split()) or type(error).__name__
        raise PixmedError(f"{path}: cannot be decoded ({reason}); export or download it again") from error


def _check_header(path: Path, image: Image.Image) -> None:
    if not 0 < max(image.size) <= MAX_SIDE:
        width, height = image.size
        raise PixmedError(f"{path}: {width} x {height} pixels, over {MAX_SIDE} a side; scale the slice down")
    if getattr(image, "is_animated", False):
        raise PixmedError(f"{path}: holds several images; save each slice as a file of its own")
    if image.mode not in GREY | COLOUR:
        raise PixmedError(
            f"{path}: pixels of mode {image.mode} (float, 32-bit or print colours) have no fixed range; "
            "save it as 8- or 16-bit grey or RGB"
        )
