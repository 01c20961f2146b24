"""Mask Dice: its numbers from known masks, and that an image that ignores its mask is told."""

import numpy as np
import pytest

from pixmed_jax.judges import mask_fidelity


def slices(n: int, seed: int, size: int = 16) -> tuple[np.ndarray, np.ndarray]:
    """Grey disks in noise, each with a bright square somewhere: (images, masks of squares)."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size]
    images = 0.3 * (np.hypot(y - size / 2, x - size / 2) < 0.45 * size) + rng.uniform(0, 0.1, (n, size, size))
    masks = np.zeros((n, size, size), bool)
    for mask in masks:
        top, left = rng.integers(3, size - 7, 2)
        mask[top : top + rng.integers(3, 6), left : left + rng.integers(3, 6)] = True
    return np.where(masks, images + 0.5, images).astype(np.float32), masks


@pytest.fixture(scope="module")
def judges(tmp_path_factory):
    return tmp_path_factory.mktemp("judges")


@pytest.fixture(scope="module")
def segment(judges):
    return mask_fidelity.segmenter(*slices(64, 0), folder=judges)


def test_who_follows_the_mask(segment):
    real, masks = slices(24, 1)
    groups = np.repeat(np.arange(12), 2)
    followed = np.where(masks, 0.85, 0.3 * (real > 0.2)).astype(np.float32)
    ignored, _ = slices(24, 2)
    none = np.where(masks, 0.3, real).astype(np.float32)
    got = {
        name: mask_fidelity.measure(segment, images, real, masks, groups)[0]
        for name, images in {"followed": followed, "ignored": ignored, "none": none}.items()
    }
    assert got["followed"]["real"] > 0.8
    assert got["followed"]["generated"] > 0.7
    assert got["ignored"]["generated"] < 0.4 and got["none"]["generated"] < 0.2
    assert got["ignored"]["hausdorff95"]["generated"] > got["followed"]["hausdorff95"]["generated"]
    # Following means more than what another patient's mask would get; ignoring does not.
    assert got["followed"]["generated"] > got["followed"]["other_mask"] + 0.3
    assert abs(got["ignored"]["generated"] - got["ignored"]["other_mask"]) < 0.25


def test_the_numbers_of_known_masks():
    masks = np.zeros((4, 8, 8), bool)
    masks[:, 2:6, 2:6] = True
    half, none = masks.copy(), np.zeros_like(masks)
    half[:, 4:] = False  # 8 of 16 pixels: Dice 16 / 24
    found = {"generated": half, "real": masks}
    entry, _ = mask_fidelity.measure(
        lambda images: found[images], "generated", "real", masks, np.array([0, 0, 1, 1])
    )
    assert entry["generated"] == pytest.approx(2 / 3) and entry["real"] == 1 and entry["n"] == 4
    assert entry["intervals"] == {"generated": pytest.approx((2 / 3, 2 / 3)), "real": (1, 1)}
    assert entry["share"] == pytest.approx({"value": 2 / 3, "low": 2 / 3, "high": 2 / 3})
    assert entry["hausdorff95"] == {"generated": 2, "real": 0}  # the lowest row is two pixels off
    assert entry["missed"] == {"generated": 0, "real": 0}
    assert entry["other_mask"] == pytest.approx(2 / 3)  # all masks are equal here
    found["generated"] = none
    entry, _ = mask_fidelity.measure(lambda images: found[images], "generated", "real", masks, np.arange(4))
    assert entry["generated"] == 0 and entry["hausdorff95"]["generated"] is None
    assert entry["missed"] == {"generated": 4, "real": 0} and "class_means" not in entry
    found["flat"] = half
    entry, _ = mask_fidelity.measure(
        lambda images: found[images], "generated", "real", masks, np.arange(4), lookup="flat"
    )
    assert (entry["generated"], entry["class_means"]) == (0, pytest.approx(2 / 3))


def test_other_patients():
    for groups in (np.array(list("aabbbc")), np.array(list("abab")), np.arange(5)):
        rows = mask_fidelity.other_patients(groups)
        assert sorted(rows) == list(range(len(groups))) and (groups[rows] != groups).all()
    assert mask_fidelity.other_patients(np.array(list("aaab"))) is None


def test_large_and_uneven_slices_are_fitted():
    """300 pixels are padded to a multiple of 8 after shrinking by 3, and means of blocks are kept."""
    rng = np.random.default_rng(0)
    images = rng.random((2, 300, 300)).astype(np.float32)
    small = mask_fidelity._fitted(images, 3)
    assert small.shape == (2, 104, 104)
    np.testing.assert_allclose(small[0, 5, 9], images[0, 15:18, 27:30].mean(), rtol=1e-5)
    assert (small[:, 100:] == 0).all()


def test_found_masks_have_the_size_of_the_images(segment):
    images, _ = slices(3, 4, size=20)
    found = segment(images)
    assert found.shape == (3, 20, 20) and found.dtype == bool


def test_the_segmenter_of_an_evaluation_is_found_again(segment, judges, tmp_path):
    assert mask_fidelity.kept_segmenter(tmp_path) is None
    images, _ = slices(5, 4)
    np.testing.assert_array_equal(mask_fidelity.kept_segmenter(judges)(images), segment(images))
    (file,) = judges.iterdir()
    (tmp_path / file.name).write_bytes(file.read_bytes()[:1000])
    assert mask_fidelity.kept_segmenter(tmp_path) is None


def test_slices_without_a_tumour_are_no_tumours_found():
    masks = np.zeros((4, 8, 8), bool)
    masks[:1, 2:6, 2:6] = True
    found = {"generated": np.zeros_like(masks), "real": masks.copy()}
    found["real"][3, 0, 0] = True
    groups = np.array([0, 0, 1, 1])
    entry, _ = mask_fidelity.measure(lambda images: found[images], "generated", "real", masks, groups)
    assert (entry["generated"], entry["real"], entry["n"]) == (0, 1, 1)
    assert entry["missed"] == {"generated": 1, "real": 0}
    assert entry["invented"] == {"generated": 0, "real": 1}
    nothing, _ = mask_fidelity.measure(lambda images: masks, "generated", "real", masks & False, groups)
    assert nothing["generated"] is None and nothing["why"] == "no slice has a tumour"
