"""The outline of the head on drawn heads with known outlines, and the encoding of label maps."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from pixmed_jax.data import folder, regions, slices
from pixmed_jax.data.tissues import tissues
from pixmed_jax.errors import PixmedError

REAL = Path(__file__).parents[2] / "shared" / "data" / "brain-tumor-segmentation-256"


def ellipse(size: int, row: float, column: float, height: float, width: float) -> np.ndarray:
    """Filled; centre and half axes as shares of the size."""
    y, x = (np.mgrid[:size, :size] + 0.5) / size
    return ((y - row) / height) ** 2 + ((x - column) / width) ** 2 < 1


def drawn(size: int, noise: float = 0.02) -> tuple[np.ndarray, np.ndarray]:
    """(slice in [0, 1], its true head): scalp, dark skull, brain, black ventricles and a sinus."""
    outline = ellipse(size, 0.52, 0.5, 0.42, 0.34)
    image = np.where(outline, 0.9, 0.0)
    image[ellipse(size, 0.52, 0.5, 0.38, 0.30)] = 0.05
    image[ellipse(size, 0.52, 0.5, 0.35, 0.27)] = 0.45
    image[ellipse(size, 0.55, 0.45, 0.15, 0.12)] = 0.0
    image[ellipse(size, 0.24, 0.5, 0.05, 0.05)] = 0.0
    random = np.random.default_rng(0)
    image = np.hypot(image + noise * random.normal(size=image.shape), noise * random.normal(size=image.shape))
    return image.clip(0, 1), outline


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union."""
    return (a & b).sum() / (a | b).sum()


@pytest.mark.parametrize("size", [64, 128, 256])
@pytest.mark.parametrize("noise", [0.0, 0.02, 0.08])
@pytest.mark.parametrize(
    ("dtype", "bright"), [(np.uint8, 255), (np.uint8, 60), (np.uint16, 65535), (np.uint16, 900)]
)
def test_the_head_is_found_at_any_size_depth_and_noise(size, noise, dtype, bright):
    image, outline = drawn(size, noise)
    found = regions.head((image * bright).astype(dtype))
    assert found.dtype == bool
    assert overlap(found, outline) > 0.95


def test_what_lies_beside_the_head_does_not_count():
    image, outline = drawn(128)
    image[:13, :13] = 1.0  # a marker
    image[64:69, 80:] = np.maximum(image[64:69, 80:], 0.3)  # a streak that touches the head
    found = regions.head((image * 255).astype(np.uint8))
    assert overlap(found, outline) > 0.95
    assert not found[:14, :14].any()
    assert not found[64:69, 118:].any()


def test_an_open_airway_is_inside():
    image, outline = drawn(128)
    image[50:58, :70] = np.minimum(image[50:58, :70], 0.02)
    assert overlap(regions.head((image * 255).astype(np.uint8)), outline) > 0.95


def test_tissue_far_from_the_coil_is_inside():
    image, outline = drawn(128, noise=0.01)
    image *= np.linspace(1, 0.25, 128)[:, None]
    assert overlap(regions.head((image * 255).astype(np.uint8)), outline) > 0.95


@pytest.mark.parametrize("noise", [0.06, 0.1])
@pytest.mark.parametrize("share", [0.0, 0.45])
def test_loud_air_is_outside_also_where_the_field_ends_in_zeros(share, noise):
    image, outline = drawn(128, noise)
    edge = round(share * 16)
    image[:, :edge] = image[:, 128 - edge :] = image[:edge] = 0
    image = np.pad(image, (0, round(share * 200)))
    outline = np.pad(outline, (0, round(share * 200)))
    assert overlap(regions.head((image * 255).astype(np.uint8)), outline) > 0.9


def test_a_head_cut_by_the_edge_reaches_it_and_does_not_run_along_it():
    outline = ellipse(128, 0.45, 0.5, 0.48, 0.3)  # a shallow angle between the skull and the edge
    found = regions.head(np.where(outline, 180, 3).astype(np.uint8))
    assert overlap(found, outline) > 0.97
    assert found[0].sum() == pytest.approx(outline[0].sum(), abs=4)


def necked(size: int) -> np.ndarray:
    """A head whose neck, three eighths of the picture wide, leaves it at the bottom."""
    outline = ellipse(size, 0.4, 0.5, 0.35, 0.3)
    outline[size // 2 :, size * 5 // 16 : size * 11 // 16] = True
    return outline


@pytest.mark.parametrize("turns", range(4))
@pytest.mark.parametrize("size", [64, 128])
def test_a_neck_cut_by_the_edge_keeps_its_corners_and_what_is_dark_in_it(size, turns):
    outline = necked(size)
    image = np.where(outline, 180, 3)
    image[size * 3 // 4 :, size * 7 // 16 : size * 9 // 16] = 3  # an airway, open to the edge
    found = np.rot90(regions.head(np.rot90(image, turns).astype(np.uint8)), -turns)
    assert overlap(found, outline) > 0.96
    assert (found[-1] != outline[-1]).sum() <= 2  # one pixel at each corner


def test_air_beside_another_object_at_the_edge_stays_outside():
    outline = necked(128)
    drawn = outline.copy()
    drawn[100:, 108:126] = True  # 20 pixels from the neck
    found = regions.head(np.where(drawn, 180, 3).astype(np.uint8))
    assert not found[105:, 92:].any()
    assert overlap(found, outline) > 0.96


def test_a_wide_gap_at_the_edge_stays_outside():
    outline = necked(128)
    outline[60:, 8:120] = True
    outline[90:, 34:94] = False  # 60 of 128 pixels: not what a head has dark
    found = regions.head(np.where(outline, 180, 3).astype(np.uint8))
    assert not found[120:, 40:88].any()
    assert overlap(found, outline) > 0.96


@settings(max_examples=150, deadline=None)
@given(
    rows=st.integers(1, 40),
    columns=st.integers(1, 40),
    radius=st.integers(0, 30),
    share=st.sampled_from((0.003, 0.02, 0.2, 0.9, 1)),
    seed=st.integers(0, 999),
)
def test_discs_are_those_of_the_euclidean_distance(rows, columns, radius, share, seed):
    stack = np.random.default_rng(seed).random((3, rows, columns)) < share
    expected = [ndimage.distance_transform_edt(~one) <= radius if one.any() else one for one in stack]
    np.testing.assert_array_equal(regions.grown_by(radius, stack), expected)


@pytest.mark.parametrize("value", [0, 9])
def test_a_black_slice_has_no_head(value):
    image = np.zeros((64, 64), np.uint8)
    image[30, 30] = value
    assert not regions.head(image).any()


@pytest.fixture
def two():
    """Two slices, tumours of class 2 and 1; the second reaches out of its head."""
    image, outline = drawn(64)
    masks = np.zeros((2, 64, 64), np.uint8)
    masks[0, 30:36, 30:36] = 2
    masks[1, 30:36, 2:40] = 1
    images = np.repeat((image * 255).astype(np.uint8)[None, ..., None], 2, axis=0)
    return masks, images, outline


def test_condition_tumor(two):
    masks, images, _ = two
    maps, names = regions.label_map(masks, images, condition="tumor", label_names=("g", "m"))
    assert names == ("tumor",)
    np.testing.assert_array_equal(maps, masks > 0)
    assert regions.class_names("tumor", ("nucleus",), False) == ("nucleus",)
    maps, names = regions.label_map(masks, images, label_names=("g", "m"), class_channels=True)
    assert names == ("g", "m")
    assert maps.dtype == np.uint8
    np.testing.assert_array_equal(maps, masks)


@pytest.mark.parametrize(
    ("class_channels", "names"), [(False, ("tumor", "head")), (True, ("g", "m", "head"))]
)
def test_condition_tumor_and_head(two, class_channels, names):
    masks, images, outline = two
    before = masks.copy()
    maps, got = regions.label_map(
        masks, images, condition="tumor+head", label_names=("g", "m"), class_channels=class_channels
    )
    assert got == names
    np.testing.assert_array_equal(masks, before)
    np.testing.assert_array_equal(maps[masks > 0], masks[masks > 0] if class_channels else 1)
    for map_, mask in zip(maps, masks, strict=True):
        assert overlap(map_ == len(names), outline & (mask == 0)) > 0.95
        assert set(np.unique(map_[mask == 0])) == {0, len(names)}


@pytest.mark.parametrize("number", [1, 3, 4])
@pytest.mark.parametrize("class_channels", [False, True])
def test_condition_anatomy(two, number, class_channels):
    masks, images, outline = two
    maps, names = regions.label_map(
        masks,
        images,
        condition="anatomy",
        label_names=("g", "m"),
        class_channels=class_channels,
        tissue_classes=number,
    )
    tumors = ("g", "m") if class_channels else ("tumor",)
    assert names == (*tumors, *(f"tissue_{i}" for i in range(1, number + 1)))
    assert maps.dtype == np.uint8
    np.testing.assert_array_equal(maps[masks > 0], masks[masks > 0] if class_channels else 1)
    for map_, mask, image in zip(maps, masks, images, strict=True):
        assert overlap(map_ > 0, outline | (mask > 0)) > 0.95
        assert set(np.unique(map_[mask == 0])) <= {0, *range(len(tumors) + 1, len(names) + 1)}
        if number == 4:  # the drawn head's ventricles are black, its scalp is 0.9 and its brain 0.45
            shades = [image[..., 0][map_ == k].mean() for k in (len(tumors) + 1, len(names))]
            assert shades[0] < 0.15 * 255 and shades[1] > 0.7 * 255


@pytest.mark.parametrize("together", [1, 5, 100])
def test_a_slice_is_as_if_it_were_alone(monkeypatch, together):
    """In its place, whatever the number that is looked at together, on several cores."""
    size = 64
    monkeypatch.setattr(regions, "_TOGETHER", together * size**2)
    outlines = [ellipse(size, 0.5, 0.5, 0.2 + 0.02 * i, 0.3) for i in range(12)]
    outlines[3] = ~ellipse(size, 0.5, 0.5, 0.4, 0.4)  # the picture's edge cuts it
    outlines[7] = np.zeros_like(outlines[7])
    noise = np.random.default_rng(0).integers(0, 60, (12, size, size))
    images = (np.stack(outlines) * 150 + noise * np.linspace(0.1, 1, 12)[:, None, None]).astype(np.uint8)
    masks = np.stack([ellipse(size, 0.5, 0.45 + 0.01 * i, 0.05, 0.05) for i in range(12)]).astype(np.uint8)
    expected = np.stack([regions.head(image) for image in images])
    np.testing.assert_array_equal(regions.heads(images[..., None]), expected)
    assert len({expected[i].sum() for i in range(12)}) > 10
    maps, _ = regions.label_map(masks, images[..., None], condition="tumor+head")
    np.testing.assert_array_equal(maps, np.where(masks > 0, 1, 2 * expected))
    maps, _ = regions.label_map(masks, images[..., None], condition="anatomy")
    alone = [tissues(*of, 4) for of in zip(images, expected, masks > 0, strict=True)]
    np.testing.assert_array_equal(maps, np.where(masks > 0, 1, np.stack(alone) + 1 * expected))


def test_known_heads_are_read_from_maps_that_have_them(two):
    masks, images, outline = two
    for condition in regions.CONDITIONS:
        maps, _ = regions.label_map(masks, images, condition=condition)
        for i, found in enumerate(regions.known_heads(maps, images, condition)):
            assert overlap(found | (masks[i] > 0), outline | (masks[i] > 0)) > 0.95


@pytest.mark.parametrize("number", [0, -1, 17])
def test_a_number_of_tissues_out_of_range(number):
    with pytest.raises(PixmedError, match=rf"data\.tissues={number}: give 1 to 16"):
        regions.class_names("anatomy", ("tumor",), False, number)
    assert regions.class_names("tumor", ("tumor",), False, number) == ("tumor",)


def test_more_classes_than_a_label_map_has_values():
    names = [f"kind {i}" for i in range(251)]
    assert len(regions.class_names("anatomy", names, True, 4)) == 255
    for condition, more in (("anatomy", 1), ("tumor+head", 4), ("tumor", 5)):
        labels = [*names, *map(str, range(more))]
        with pytest.raises(PixmedError, match=r"classes, over 255; set it to false, or join labels") as error:
            regions.class_names(condition, labels, True)
        assert "\n" not in str(error.value)
        assert len(regions.class_names(condition, labels, False)) <= 5
    assert len(regions.class_names("label", list(map(str, range(300))), False)) == 300  # of a classifier


@pytest.mark.parametrize("label", ["head", "tissue_1", "tissue_b"])
def test_a_label_with_the_name_of_anatomy(label):
    with pytest.raises(PixmedError, match=f"the label '{label}' is the name of a class of anatomy"):
        regions.class_names("anatomy", ("glioma", label), True)


def test_an_unknown_condition(two):
    with pytest.raises(
        PixmedError, match=r"data\.condition='brain' is unknown; use one of tumor, tumor\+head, anatomy"
    ):
        regions.label_map(*two[:2], condition="brain")


@pytest.mark.skipif(not REAL.is_dir(), reason="real data are not here")
def test_real_heads_hold_their_tumours_and_leave_air():
    source = folder.source(REAL)
    got = slices.load(source, range(0, len(source.files), 30), 128)
    heads = np.stack([regions.head(image[..., 0]) for image in got.images])
    assert not (got.masks.astype(bool) & ~heads).any()
    shares = heads.mean(axis=(1, 2))
    assert shares.min() > 0.1
    assert shares.max() < 0.9


@pytest.mark.skipif(not REAL.is_dir(), reason="real data are not here")
def test_real_anatomy():
    """Every class of tissue in nearly every slice, air outside, and the tumours on top."""
    source = folder.source(REAL)
    got = slices.load(source, range(0, len(source.files), 60), 128)
    maps, names = regions.label_map(got.masks, got.images, condition="anatomy")
    assert names == ("tumor", "tissue_1", "tissue_2", "tissue_3", "tissue_4")
    np.testing.assert_array_equal(maps == 1, got.masks > 0)
    for value in (2, 3, 4, 5):
        assert ((maps == value).mean(axis=(1, 2)) > 0.01).mean() > 0.9
    means = [got.images[..., 0][maps == value].mean() for value in (0, 2, 3, 4, 5)]
    assert means == sorted(means)
