"""Pictures of something else than heads: told from heads, and without a head anywhere."""

import numpy as np
import pytest
import runs

from pixmed_jax.data import pictured
from pixmed_jax.data.regions import head, heads
from pixmed_jax.data.sources import open_dataset
from pixmed_jax.data.tissues import survey


@pytest.fixture(scope="module")
def slices(tmp_path_factory):
    """Of phantoms."""
    config = runs.config(tmp_path_factory)
    dataset = open_dataset(**config["data"], seed=0)
    return dataset.load(dataset.rows["train"][:12], dataset.size)[1]


@pytest.mark.parametrize("condition", ["tumor", "label", "low_resolution"])
def test_no_head_is_outlined_where_most_pictures_are_of_something_else(slices, condition):
    """Half of them decide for all; where the condition knows a head, its map does."""
    images, masks = slices.images[:10].copy(), slices.masks[:10]
    expected = heads(images)
    images[:5] = 255 * np.eye(images.shape[1], dtype=np.uint8)[..., None]  # a thin line: no brain
    assert pictured.without_head(images, masks) == (5, 10)
    shown = pictured.heads_of(masks, images, masks, condition)
    assert (shown[5:] == expected[5:]).all() and shown[5:].any((1, 2)).all()
    images[5] = images[0]
    assert pictured.without_head(images, masks) == (6, 10)
    assert not pictured.heads_of(masks, images, masks, condition).any()
    for known in ("tumor+head", "anatomy"):
        assert (pictured.heads_of(masks, images, masks, known) == (masks > 0)).all()


def test_what_tells_that_a_picture_is_of_no_head(slices):
    """A phantom's slice is of one; in colour, without air around it, or tiny, it is something else."""
    image = slices.images[0]
    tiny = image[::4, ::4]
    rest = image.shape[0] - tiny.shape[0]
    tumor = np.where(slices.masks[0] > 0, 1, 0).astype(np.uint8)

    def verdict(image):
        where = survey(image.mean(-1), head(image.mean(-1)), tumor > 0)
        return pictured.no_head(image, tumor, where)

    rgb = np.repeat(image, 3, -1)
    assert not verdict(image) and not verdict(rgb)
    noise = np.random.default_rng(0).integers(-3, 4, rgb.shape)
    assert not verdict(np.clip(rgb.astype(int) + noise, 0, 255).astype(np.uint8))  # as JPEG leaves it
    assert verdict((rgb * [1.0, 0.6, 0.8]).astype(np.uint8))
    assert verdict(np.maximum(image, 120))
    assert verdict(np.pad(tiny, ((0, rest), (0, rest), (0, 0))))


def test_bars_beside_a_picture_are_no_part_of_it():
    """A wide picture is made square by bars; nothing is moved onto them, however dark the picture is."""
    image = np.zeros((8, 8, 3), np.uint8)
    image[1:7] = np.random.default_rng(0).integers(0, 2, (6, 8, 3))
    image[1, 0, 1] = image[6, 7, 2] = 1
    where = pictured.pictured(image)
    expected = np.zeros((8, 8), bool)
    expected[2:6] = True  # a row at each bar is a mixture of picture and bar
    assert (where.head == expected).all() and (where.brain == expected).all()
    assert not where.dark.any() and not where.look.size
    assert pictured.pictured(np.ones((8, 8, 1), np.uint8)).head.all()
    assert not pictured.pictured(np.zeros((8, 8, 1), np.uint8)).head.any()
