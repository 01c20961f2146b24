"""Tissue classes and the brain, on drawn heads with known regions and on phantoms."""

import numpy as np
import pytest
from scipy import ndimage

from pixmed_jax.data import phantom, regions
from pixmed_jax.data.tissues import _compactness, _stretched, brain, relative, survey, tissues

AIR, FAT, GREY, WHITE = 0.06, 1.75, 0.72, 1.0  # of white matter's intensity
NOTHING = np.zeros((128, 128), bool)


def ellipse(row: float, column: float, height: float, width: float, size: int = 128) -> np.ndarray:
    """Filled; centre and half axes as shares of the size."""
    y, x = (np.mgrid[:size, :size] + 0.5) / size
    return ((y - row) / height) ** 2 + ((x - column) / width) ** 2 < 1


HEAD, SKULL, BRAIN = (ellipse(0.5, 0.5, h, w) for h, w in ((0.45, 0.38), (0.41, 0.34), (0.36, 0.29)))
INNER, VENTRICLE = ellipse(0.5, 0.5, 0.28, 0.23), ellipse(0.5, 0.42, 0.1, 0.05)


def planted(
    *, scalp: bool = True, noise: float = 0.0, bias: float = 0.0, gain: float = 100.0
) -> tuple[np.ndarray, np.ndarray]:
    """(slice, class per pixel): scalp 4, skull and ventricle 1, cortex 2, white matter 3."""
    truth = np.zeros(HEAD.shape, np.uint8)
    truth[HEAD if scalp else SKULL] = 4 if scalp else 1
    truth[SKULL], truth[BRAIN], truth[INNER], truth[VENTRICLE] = 1, 2, 3, 1
    image = np.array([0, AIR, GREY, WHITE, FAT])[truth]
    slope = np.linspace(-1, 1, 128)
    image = image * np.exp(bias * (slope[:, None] + 0.5 * slope))
    image = np.abs(image + noise * np.random.default_rng(0).normal(size=image.shape))
    return (image * gain).clip(0, 255), truth


def overlaps(found: np.ndarray, truth: np.ndarray) -> list[float]:
    """Intersection over union of each class of the truth."""
    return [
        ((found == k) & (truth == k)).sum() / ((found == k) | (truth == k)).sum()
        for k in np.unique(truth[truth > 0])
    ]


@pytest.mark.parametrize(
    ("noise", "bias", "least"),
    [(0.0, 0.0, 0.8), (0.05, 0.0, 0.8), (0.0, 0.25, 0.8), (0.05, 0.25, 0.75)],
)
def test_planted_tissues_are_found(noise, bias, least):
    """A bias of 0.25 is a factor of 2 from corner to corner, more than between grey and white matter."""
    image, truth = planted(noise=noise, bias=bias)
    found = tissues(image, HEAD, NOTHING, 4)
    assert found.dtype == np.uint8
    assert min(overlaps(found, truth)) > least, overlaps(found, truth)
    np.testing.assert_array_equal(found > 0, HEAD)


def test_a_class_is_the_same_tissue_whatever_else_the_slice_shows():
    """Where quantiles or k-means would share out four classes among what there is."""
    with_fat, truth = planted()
    without, truth_without = planted(scalp=False)
    assert min(overlaps(tissues(with_fat, HEAD, NOTHING, 4), truth)) > 0.8
    found = tissues(without, SKULL, NOTHING, 4)
    assert min(overlaps(found, truth_without)) > 0.8
    assert not (found == 4).any()


@pytest.mark.parametrize(("gain", "dtype"), [(0.3, np.uint8), (1, np.uint8), (200, np.uint16)])
def test_brightness_and_depth_do_not_matter(gain, dtype):
    image, _ = planted()
    expected = tissues(image, HEAD, NOTHING, 4)
    found = tissues((image * gain).astype(dtype), HEAD, NOTHING, 4)
    assert (found != expected).mean() < 0.01


def test_the_tumour_judges_nothing():
    """A bright tumour of a third of the brain shifts no class away from it."""
    image, _ = planted(noise=0.02)
    tumor = ellipse(0.5, 0.6, 0.2, 0.16)
    ill = np.where(tumor, 230.0, image)
    far = HEAD & ~ellipse(0.5, 0.6, 0.25, 0.21)
    healthy = tissues(image, HEAD, NOTHING, 4)
    judged, told = tissues(ill, HEAD, NOTHING, 4), tissues(ill, HEAD, tumor, 4)
    assert (told != healthy)[far].mean() < 0.02
    assert (told != healthy)[far].sum() < (judged != healthy)[far].sum()


def test_one_pixel_of_noise_makes_no_region():
    image, truth = planted()
    image[64, 70] = 255
    assert truth[64, 70] == tissues(image, HEAD, NOTHING, 4)[64, 70] == 3


@pytest.mark.parametrize("number", [1, 2, 3, 7, 16])
def test_any_number_of_classes_goes_from_dark_to_bright(number):
    blocks = np.random.default_rng(0).uniform(0, 200, (16, 16))  # no slope, which would be taken for bias
    image = np.where(HEAD, np.kron(blocks, np.ones((8, 8))), 0)
    found = tissues(image, HEAD, NOTHING, number)
    assert set(np.unique(found)) <= set(range(number + 1))
    np.testing.assert_array_equal(found > 0, HEAD)
    means = [image[found == k].mean() for k in range(1, number + 1) if (found == k).any()]
    assert len(means) >= min(number, 4) and means == sorted(means)


@pytest.mark.parametrize("value", [0, 200])
def test_flat_slices_empty_heads_and_heads_full_of_tumour(value):
    flat = np.full((128, 128), value, np.uint8)
    for head, tumor in ((NOTHING, NOTHING), (HEAD, NOTHING), (HEAD, HEAD), (NOTHING, HEAD)):
        shades = relative(flat, head, tumor)
        assert np.isfinite(shades).all()
        assert shades.any() == bool(value and (head & ~tumor).any())  # nothing tells what is usual
        found = tissues(flat, head, tumor, 4)
        np.testing.assert_array_equal(found > 0, head)
        where = survey(flat, head, tumor)
        assert not (where.brain & ~head).any()
        assert np.isfinite(where.look).all()


@pytest.mark.parametrize("size", [64, 97, 256])
def test_sizes_and_shapes(size):
    head = ellipse(0.5, 0.5, 0.4, 0.4, size)
    image = np.where(head, 100.0, 0)
    image[: size // 2] *= 0.75
    found = tissues(image, head, np.zeros_like(head), 4)
    assert found.shape == image.shape
    assert (found[: size // 4] > 0).any()


# ---------------------------------------------------------------- the brain
def test_the_brain_of_a_drawn_head():
    for bias in (0.0, 0.25):
        image, truth = planted(noise=0.03, bias=bias)
        where = survey(image, HEAD, NOTHING)
        assert (where.brain & BRAIN).sum() / (where.brain | BRAIN).sum() > 0.93
        assert where.brain[VENTRICLE].all()
        assert not (where.brain & (truth == 4)).any()
        assert where.dark[VENTRICLE].mean() > 0.9
        assert not where.dark[~HEAD].any()


def test_a_brain_that_is_compact_already_is_not_cut_further():
    """What bulges a little is brain, though without it the rest would be still nearer to convex."""
    whole, bulge = ellipse(0.5, 0.5, 0.3, 0.3), ellipse(0.5, 0.8, 0.07, 0.07)
    found = brain(whole | bulge)
    assert found[bulge].mean() > 0.9 and not found[~(whole | bulge)].any()


def test_compactness_is_the_area_over_that_of_the_hull_of_whole_pixels():
    region = np.zeros((12, 12), bool)
    region[3:8, 2:9] = True
    assert _compactness(region) == pytest.approx(1)
    region[3, 2] = False  # the hull is cut by half a pixel there
    assert _compactness(region) == pytest.approx(34 / 34.5)
    region[:] = np.eye(12)[::-1] > 0
    assert _compactness(region) == pytest.approx(12 / 23)  # a strip as wide as a pixel's diagonal


@pytest.mark.parametrize("width", [4, 14])
def test_a_face_on_a_bridge_is_no_brain(width):
    skull, face = ellipse(0.32, 0.5, 0.27, 0.33), ellipse(0.85, 0.5, 0.11, 0.3)
    bridge = np.zeros_like(skull)
    bridge[70:100, 64 - width // 2 : 64 + width // 2] = True
    found = brain(skull | face | bridge)
    assert (found & skull).sum() / (found | skull).sum() > 0.93


def test_a_neck_as_wide_as_the_brain_is_cut():
    skull = ellipse(0.32, 0.5, 0.28, 0.28)
    neck = np.zeros_like(skull)
    neck[60:, 32:96] = True
    image = np.where(skull | neck, 100.0, 0)
    where = survey(image, skull | neck, ellipse(0.3, 0.5, 0.05, 0.05))
    assert where.brain[skull].mean() > 0.8
    assert not where.brain[115:].any()


def test_no_brain_in_a_ring_or_in_nothing():
    assert not brain(NOTHING).any()
    assert not brain(ellipse(0.5, 0.5, 0.4, 0.4) & ~ellipse(0.5, 0.5, 0.385, 0.385)).any()


def test_a_brain_without_its_tumour_is_not_believed():
    image, _ = planted()
    inside, outside = ellipse(0.5, 0.6, 0.1, 0.1), HEAD & ~SKULL & (np.arange(128) < 40)
    assert survey(image, HEAD, inside).brain[inside].all()
    assert not survey(image, HEAD, outside).brain.any()


def test_the_look_of_a_slice_is_that_of_its_copy_elsewhere():
    image, _ = planted()
    look = survey(image, HEAD, NOTHING).look
    assert look @ look == pytest.approx(1, abs=1e-5)
    moved, outline = np.roll(image, (-5, 7), (0, 1)), np.roll(HEAD, (-5, 7), (0, 1))
    small, small_outline = image[::2, ::2], HEAD[::2, ::2]
    assert survey(moved, outline, NOTHING).look @ look > 0.98
    assert survey(small, small_outline, NOTHING[::2, ::2]).look @ look > 0.9
    assert survey(image[:, ::-1].T.copy(), HEAD.T, NOTHING).look @ look < 0.75


def test_phantoms():
    """Skull and fluid are class 1, fat class 4; the brain has the tumour and leaves the scalp."""
    found = 0
    drawn = [s for patient in range(4) for s in phantom.patient_slices(patient, size=96, count=3)]
    for s in drawn:
        head, tumor = regions.head(s.image), s.mask > 0
        classes = tissues(s.image, head, tumor, 4)
        free = head & ~tumor
        means = [s.image[free & (classes == k)].mean() for k in (1, 2, 3, 4)]
        assert means == sorted(means) and means[3] > 2 * means[0]
        where = survey(s.image, head, tumor)
        found += where.brain.any()
        assert not (where.brain & ~head).any()
        if where.brain.any():
            assert where.brain[tumor & head].all()
            assert 0.15 < where.brain.sum() / head.sum() < 0.9
    assert found >= 10  # of 12


@pytest.mark.parametrize("sides", [(40, 31), (97, 286), (33, 36), (1, 1)])
def test_a_coarse_grid_is_stretched_as_by_scipy(sides):
    coarse = np.random.default_rng(0).normal(size=(2, min(33, sides[0]), min(31, sides[1])))
    expected = [ndimage.zoom(one, np.divide(sides, one.shape), order=1, mode="nearest") for one in coarse]
    found = _stretched(_stretched(coarse, 1, sides[0]), 2, sides[1])
    np.testing.assert_allclose(found, expected, atol=1e-12)
