"""Loading rows: geometry, resize, order, and every fault in one message."""

import re
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage.transform import resize as skimage_resize

from pixmed_jax.data import folder, slices, usable
from pixmed_jax.errors import PixmedError

REAL = Path(__file__).parents[2] / "shared" / "data" / "brain-tumor-segmentation-256"


def blob(height: int, width: int, value: int = 1) -> np.ndarray:
    mask = np.zeros((height, width), np.uint8)
    mask[height // 4 : height // 2, width // 4 : width // 2] = value
    return mask


def made(*pairs: tuple[np.ndarray, np.ndarray] | PixmedError, delay: float = 0.0) -> slices.Source:
    """A source of given pairs; a PixmedError in the place of a pair is raised by `read`."""

    def read(row: int) -> tuple[np.ndarray, np.ndarray]:
        time.sleep(delay * (len(pairs) - row))  # later rows finish first
        pair = pairs[row]
        if isinstance(pair, PixmedError):
            raise pair
        return pair

    names = tuple(f"{i}.png" for i in range(len(pairs)))
    labels = np.arange(len(pairs)) % 2
    return slices.Source(names, labels, ("x", "y"), names, ("",) * len(pairs), read)


def noise(*shape: int, dtype: type = np.uint8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_the_same_size_changes_nothing(dtype):
    image = noise(16, 16, dtype=dtype)
    got = slices.load(made((image, blob(16, 16))), [0], 16)
    assert got.images.shape == (1, 16, 16, 1)
    assert got.images.dtype == dtype
    np.testing.assert_array_equal(got.images[0, ..., 0], image)
    np.testing.assert_array_equal(got.masks[0], blob(16, 16))


@pytest.mark.parametrize(("shape", "window"), [((16, 10), np.s_[:, 3:13]), ((11, 16), np.s_[2:13, :])])
def test_slices_are_padded_to_a_centred_square(shape, window):
    image, mask = noise(*shape) | 1, blob(*shape)
    got = slices.load(made((image, mask)), [0], 16)
    for found, given in ((got.images[0, ..., 0], image), (got.masks[0], mask)):
        np.testing.assert_array_equal(found[window], given)
        assert np.count_nonzero(found) == np.count_nonzero(given)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_smaller_image_is_antialiased(dtype):
    """Stripes of one pixel average to grey; without a filter they would stay stripes or become flat."""
    top = np.iinfo(dtype).max
    image = np.tile(np.array([0, top], dtype), (64, 32))
    small = slices.load(made((image, blob(64, 64))), [0], 16).images[0, 2:-2, 2:-2, 0]
    np.testing.assert_allclose(small, top / 2, atol=0.02 * top)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_edges_do_not_wrap_around(dtype):
    top = np.iinfo(dtype).max
    image = np.zeros((32, 32), dtype)
    image[:, 16:] = top
    large = slices.load(made((image, blob(32, 32))), [0], 80).images[0, ..., 0]
    assert large[:, :38].max() < 0.2 * top
    assert large[:, 42:].min() > 0.8 * top


def test_enlarging_agrees_with_scikit_image():
    rows, columns = np.mgrid[:40, :40]
    image = (120 + 60 * np.sin(rows / 5) + 60 * np.cos(columns / 7)).astype(np.uint8)
    got = slices.load(made((image, blob(40, 40))), [0], 70).images[0, ..., 0]
    wanted = skimage_resize(image.astype(float), (70, 70), order=3, mode="edge")
    assert np.abs(got[4:-4, 4:-4] - wanted[4:-4, 4:-4]).max() < 2.5


def test_masks_keep_their_values_and_their_place():
    mask = np.zeros((64, 64), np.uint8)
    mask[17:31, 15:33] = 2
    mask[41:57, 9:23] = 1
    for size in (16, 23, 100):
        small = slices.load(made((noise(64, 64), mask)), [0], size).masks[0]
        assert set(np.unique(small)) == {0, 1, 2}
        # Nearest: pixel i of the small mask is the pixel of the large one that holds its centre.
        where = ((np.arange(size) + 0.5) * 64 / size).astype(int)
        np.testing.assert_array_equal(small, mask[np.ix_(where, where)])


def test_rgb_is_kept_and_grey_valued_rgb_becomes_grey():
    grey = noise(16, 16)
    colour = np.stack([grey, grey, 255 - grey], axis=-1)
    got = slices.load(made((np.dstack([grey] * 3), blob(16, 16))), [0], 16)
    np.testing.assert_array_equal(got.images[0, ..., 0], grey)
    assert got.images.shape[-1] == 1
    np.testing.assert_array_equal(slices.load(made((colour, blob(16, 16))), [0], 16).images[0], colour)


@pytest.mark.parametrize("workers", [1, 4])
def test_rows_stay_in_order(workers):
    source = made(*[(noise(8, 8) // 16 + 10 * i, blob(8, 8)) for i in range(6)], delay=0.004)
    rows = [4, 0, 5, 1]
    got = slices.load(source, rows, 8, workers=workers)
    assert got.files == got.groups == ("4.png", "0.png", "5.png", "1.png")
    assert got.labels.tolist() == [0, 0, 1, 1]
    assert got.labels.dtype == np.int32
    assert got.images.min(axis=(1, 2, 3)).tolist() == [40, 0, 50, 10]


def test_all_slices_that_cannot_be_read_are_listed():
    good = (noise(8, 8), blob(8, 8))
    source = made(good, PixmedError("1.png: cut short"), good, PixmedError("3.png: constant"))
    with pytest.raises(PixmedError, match=r"2 of 4 slices .*: 1\.png: cut short, 3\.png: constant"):
        slices.load(source, range(4), 8)
    assert len(slices.load(source, [0, 2], 8).files) == 2


@pytest.fixture
def vanishing() -> slices.Source:
    """Tumours at 16 x 16: one gone, one there, one that loses its label's class 1, one that loses another."""
    dot = np.zeros((64, 64), np.uint8)
    dot[0, 0] = 1
    own, other = blob(64, 64, 2) + dot, blob(64, 64, 2) + dot
    source = made(*[(noise(64, 64), mask) for mask in (dot, blob(64, 64), own, other)])
    return source._replace(labels=np.array([0, 1, 0, 1]))


def test_all_tumours_that_vanish_are_listed(vanishing):
    told = r"2 slices lose a tumour at 16 x 16 \(0\.png, 2\.png\); set a larger data\.size"
    with pytest.raises(PixmedError, match=told):
        slices.load(vanishing, range(4), 16, class_channels=True)


def test_a_class_that_vanishes_is_no_lost_tumour(vanishing):
    """Neither where it is not the slice's label, nor where nobody tells classes apart."""
    assert set(np.unique(slices.load(vanishing, [3], 16, class_channels=True).masks)) == {0, 2}
    assert len(slices.load(vanishing, [1, 2, 3], 16).files) == 3
    with pytest.raises(PixmedError, match=r"1 slices lose a tumour at 16 x 16 \(0\.png\)"):
        slices.load(vanishing, range(4), 16)


def test_what_vanishes_is_found_at_every_size(vanishing, capsys):
    """At 64 x 64 nothing does; small classes are counted, among slices that can be used."""
    assert usable.faults(vanishing, [64], channels=1, class_channels=True) == {}
    for sizes in ([16, 64], [64, 16]):
        assert usable.faults(vanishing, sizes, channels=1, class_channels=True) == {
            0: "0.png: its tumour is lost at 16 x 16",
            2: "2.png: 'x', its label, is lost at 16 x 16",
        }
    told = "1 of 4 slices lose a small class of their mask, not the tumour, at 16 x 16, 64 x 64\n"
    assert told in capsys.readouterr().err
    assert usable.faults(vanishing, [16], channels=1) == {0: "0.png: its tumour is lost at 16 x 16"}
    assert "class" not in capsys.readouterr().err
    assert usable.faults(vanishing._replace(masked=False), [16], channels=1, class_channels=True) == {}


@pytest.mark.parametrize(
    ("image", "mask", "told"),
    [
        (noise(8, 8) / 255, blob(8, 8), "its image is float64; give uint8 or uint16"),
        (noise(8, 8).astype(bool), blob(8, 8), "its image is bool; give uint8 or uint16"),
        (noise(8, 8, dtype=np.uint16).astype(">u2"), blob(8, 8), "its image is >u2; give uint8 or uint16"),
        (noise(64), blob(8, 8), "its image has the shape [64]; give [H, W] or [H, W, C]"),
        (noise(8, 8), blob(8, 8) > 0, "its mask is bool; give uint8"),
        (noise(8, 8), blob(8, 8).astype(np.int64), "its mask is int64; give uint8"),
        (noise(8, 8), blob(8, 6), "its mask has the shape [8, 6]; give [8, 8], as of its image"),
        (
            noise(8, 8),
            blob(8, 8)[..., None],
            "its mask has the shape [8, 8, 1]; give [8, 8], as of its image",
        ),
        (noise(8, 8), blob(8, 8, 3), "its mask has the value 3; give 0 for background and 1 to 2 for x, y"),
    ],
)
def test_what_read_may_not_give_is_a_fault(image, mask, told):
    """As `Source.read` says it; a source's own slices beside it stay usable."""
    good = (noise(8, 8), blob(8, 8, 2))
    source = made(good, (image, mask), good)
    assert usable.faults(source, [8], channels=1) == {1: f"1.png: {told}"}
    line = f"1 of 3 slices cannot be used: 1.png: {told}; repair or remove them, or set data.faulty=skip"
    with pytest.raises(PixmedError, match=re.escape(line)):
        usable.check(source, [8], channels=1)


def test_the_values_of_a_mask_that_nobody_looks_at_do_not_count():
    source = made((noise(8, 8), blob(8, 8, 3)))
    assert usable.faults(source._replace(masked=False), [8], channels=1) == {}


def test_a_slice_that_never_had_a_tumour_loses_none():
    empty = np.zeros((64, 64), np.uint8)
    source = made((noise(64, 64), empty), (noise(64, 64), blob(64, 64)))
    assert slices.load(source, [0, 1], 16).masks.any(axis=(1, 2)).tolist() == [False, True]
    assert not slices.load(source, [0], 16).masks.any()  # a batch, or a small split, may be all healthy


def test_background_that_vanishes_is_no_lost_tumour():
    mask = np.ones((64, 64), np.uint8)
    mask[0, 0] = 0
    assert slices.load(made((noise(64, 64), mask)), [0], 16).masks.all()


def test_slices_of_another_kind_are_listed():
    grey, mask = noise(8, 8), blob(8, 8)
    colour = np.stack([grey, grey, 255 - grey], axis=-1)
    source = made((grey, mask), (colour, mask), (grey, mask), (grey.astype(np.uint16), mask))
    with pytest.raises(
        PixmedError, match=r"2 slices are 8 bit grey but 2 are not \(1\.png 8 bit RGB, 3\.png 16"
    ):
        slices.load(source, range(4), 8)
    source = made((grey, mask), (grey, mask), (colour[..., 1:], mask))
    with pytest.raises(PixmedError, match=r"1 are not \(2\.png 8 bit of 2 channels\)"):
        slices.load(source, range(3), 8)


def test_no_rows_is_an_error():
    with pytest.raises(PixmedError, match="no slices"):
        slices.load(made((noise(8, 8), blob(8, 8))), [], 8)


@pytest.mark.skipif(not REAL.is_dir(), reason="real data are not here")
def test_real_slices_keep_every_tumour_at_64():
    source = folder.source(REAL)
    got = slices.load(source, range(0, len(source.files), 40), 64)
    assert got.images.shape == (65, 64, 64, 1)
    pixels = np.asarray(Image.open(REAL / "masks" / got.files[7])).mean()
    assert (got.masks[7] > 0).mean() == pytest.approx(pixels, rel=0.1)
    assert [int(m.max()) for m in got.masks] == (got.labels + 1).tolist()


@pytest.mark.parametrize("channels", [1, 3])
def test_volumes_of_other_channels_are_told_what_helps(channels):
    """Four sequences in one file: no data.channels would do."""
    with pytest.raises(PixmedError, match=r"images have 4 channels, and networks take 1 or 3; save one or"):
        slices.check_channels(4, channels)
    slices.check_channels(1, channels)
    slices.check_channels(channels, channels)


def test_pixels_become_square_by_growing_along_their_longer_side():
    """Of a picture in colour too, whose channels are no side; a rounding of the spacing is no reason."""
    assert slices.square_sides((40, 20, 3), (1.0, 2.5), "n") == (40, 50)
    assert slices.square_sides((40, 20), (2.5, 1.0), "n") == (100, 20)
    assert slices.square_sides((400, 200), (0.5, 0.505), "n") == (400, 200)
    with pytest.raises(PixmedError, match=r"n: pixels of 1 x 1000 mm would make pictures of 40 x 20000"):
        slices.square_sides((40, 20), (1.0, 1000.0), "n")
