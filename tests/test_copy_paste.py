"""Copied pixels show what the edited map asks for, brightness and rim included."""

from collections import Counter

import numpy as np
import pytest
from heads import BRAIN, SIZE, TUMORS, disc, healthy, ill, survey
from scipy import ndimage

from pixmed_jax.data import edits
from pixmed_jax.data.copy_paste import pasted
from pixmed_jax.data.edits import Edited, Scene, take_apart
from pixmed_jax.data.tissues import region_alone

# Of the classes of heads.py: tumours are the brightest, brains alike whatever patches they have.
GREYS = np.array([0, 0.9, 0.75, 0.15, 0.4, 0.4, 0.6])
LABELS, GROUPS = ("m", "g", "m"), ("a", "b", "c")
SCENES = [ill(disc(40, 40, 5)), ill(disc(25, 20, 4), 1, seed=1), ill(disc(45, 25, 6), 2, seed=2)]


def painted(scene: Scene) -> np.ndarray:
    """A picture of a slice whose every class has its own grey."""
    return GREYS[np.where(scene.tumor > 0, scene.tumor, scene.anatomy)][..., None].astype(np.float32)


def shown(tumor: np.ndarray, anatomy: Scene) -> np.ndarray:
    """The map of a tumour in an anatomy."""
    return np.where(tumor > 0, tumor, anatomy.anatomy)


def drawn(edit: str, row: int, seed: int) -> Edited:
    rng = np.random.default_rng(seed)
    return edits.draw(edit, row, lambda i: SCENES[i], LABELS, GROUPS, rng, Counter())


@pytest.mark.parametrize("edit", ["move", "scale", "warp", "swap", "deform", "remove"])
@pytest.mark.parametrize("row", range(3))
def test_a_picture_painted_by_its_map_stays_one_of_the_edited_map(edit, row):
    """Each edit against the label map that it made, which test_edits.py checks; rims of tissues blur."""
    for seed in range(5):
        of = drawn(edit, row, seed)
        got = pasted(of, lambda i: painted(SCENES[i]), SCENES.__getitem__)
        assert got.shape == (SIZE, SIZE, 1) and got.dtype == np.float32
        away = np.abs(got[..., 0] - GREYS[of.map])
        # Fields of a deformation and of a tumour that is bent read between pixels, shifts do not.
        assert np.mean(away > 0.05) < {"deform": 0.3, "remove": 0.001}.get(edit, 0.03), seed
        tumor = (of.map > 0) & (of.map <= TUMORS)
        core = ndimage.binary_erosion(tumor, iterations=2)
        assert core.any() == tumor.any() and (away[core] < 0.05).all()


def test_a_moved_tumour_is_the_donors_pixels_and_leaves_none_behind():
    texture = np.random.default_rng(0).uniform(0.5, 1, (SIZE, SIZE, 1)).astype(np.float32)
    scene = SCENES[0]
    image = np.where(scene.tumor[..., None] > 0, texture, 0.25).astype(np.float32)
    of = edits.draw("move", 0, lambda _: scene, ("m",), ("a",), np.random.default_rng(3), Counter())
    rows, columns = (int(part.split("=")[1]) for part in of.parameters.split())
    got = pasted(of, lambda _: image, lambda _: scene)[..., 0]
    core = disc(40, 40, 3)
    np.testing.assert_allclose(
        np.roll(got, (-rows, -columns), (0, 1))[core], texture[..., 0][core], atol=2e-3
    )
    new = np.roll(disc(40, 40, 5), (rows, columns), (0, 1))
    assert np.ptp(got[disc(40, 40, 5) & ~edits.hole_of(new.astype(np.uint8), survey())]) == 0
    far = ~disc(40, 40, 8) & ~np.roll(disc(40, 40, 8), (rows, columns), (0, 1))
    np.testing.assert_array_equal(got[far], image[..., 0][far])


def test_a_tumour_passes_softly_into_what_is_around_it():
    scene = ill(disc(40, 40, 6))
    image = np.where(scene.tumor[..., None] > 0, 1, 0).astype(np.float32)
    of = Edited(
        shown(np.roll(scene.tumor, -16, 0), scene), 0, 0, "move", "", edits.moving((SIZE, SIZE), -16, 0)
    )
    got = pasted(of, lambda _: image, lambda _: scene)[:, 40, 0]
    inside = got[24 - 5 : 24 + 6]
    assert (inside > 0.75).all() and got[24] == 1 and got[24 - 9] == got[24 + 9] == 0
    assert 0.1 < got[24 - 6] < 0.9  # its last pixel; without a rim 1


@pytest.mark.parametrize(("ratio", "expected"), [(0.6, 0.6), (1.2, 1.2), (0.2, 0.5), (5.0, 2.0)])
def test_in_another_head_a_tumour_is_as_bright_beside_its_brain(ratio, expected):
    """Brains of 0.15 and of `ratio` times that, a tumour of 0.3; no more than a factor of two."""
    donor, anatomy = SCENES[0], SCENES[2]
    images = [np.full((SIZE, SIZE, 1), 0.15, np.float32), np.full((SIZE, SIZE, 1), 0.15 * ratio, np.float32)]
    images[0][donor.tumor > 0] = 0.3
    images[1][anatomy.tumor > 0] = 0.9  # its own tumour, which does not count and goes
    of = Edited(shown(donor.tumor, anatomy), 1, 0, "swap", "", edits.moving((SIZE, SIZE), 0, 0))
    got = pasted(of, images.__getitem__, [donor, anatomy].__getitem__)
    assert got[40, 40, 0] == pytest.approx(0.3 * expected, rel=1e-5)
    assert got[45, 25, 0] == pytest.approx(0.15 * ratio, rel=1e-5)


def test_a_tumour_that_fills_most_of_a_brain_does_not_say_how_bright_the_brain_is():
    """And whatever is made brighter ends at white."""
    donor, anatomy = ill(disc(32, 32, 17)), SCENES[2]
    images = [np.full((SIZE, SIZE, 1), grey, np.float32) for grey in (0.4, 0.6)]
    images[0][donor.tumor > 0] = 0.6
    images[0][disc(32, 32, 5)] = 0.9
    of = Edited(shown(donor.tumor, anatomy), 1, 0, "swap", "", edits.moving((SIZE, SIZE), 0, 0))
    got = pasted(of, images.__getitem__, [donor, anatomy].__getitem__)[..., 0]
    assert got[32, 32] == 1 and got[32, 40] == pytest.approx(0.9)


def test_where_no_healthy_brain_is_found_a_tumour_stays_as_bright_as_it_is():
    whole = take_apart(np.where(BRAIN, 2, healthy()).astype(np.uint8), TUMORS, survey())
    unknown = take_apart(whole.anatomy, TUMORS, survey(brain=disc(0, 0, -1)))
    image = np.full((SIZE, SIZE, 1), 0.3, np.float32)
    for anatomy, donor in (
        (SCENES[2], whole),
        (unknown, SCENES[0]),
        (SCENES[2]._replace(where=unknown.where), SCENES[0]),
    ):
        slices = [donor, anatomy]
        of = Edited(shown(SCENES[0].tumor, anatomy), 1, 0, "swap", "", edits.moving((SIZE, SIZE), 0, 0))
        got = pasted(of, lambda i: image * (1 + i), slices.__getitem__)
        assert got[40, 40, 0] == pytest.approx(0.3)


def test_a_deformed_slice_is_read_between_pixels():
    """On a plane, linear interpolation is exact."""
    plane = (np.indices((SIZE, SIZE)) * np.array([0.004, 0.008])[:, None, None]).sum(0)[..., None]
    of = drawn("deform", 0, 1)
    assert of.points is not None
    inside = ((of.points > 0) & (of.points < SIZE - 1)).all(axis=0)
    got = pasted(of, lambda _: plane.astype(np.float32), SCENES.__getitem__)[..., 0]
    expected = 0.004 * of.points[0] + 0.008 * of.points[1]
    np.testing.assert_allclose(got[inside], expected[inside], atol=1e-5)
    assert inside.mean() > 0.8


@pytest.mark.parametrize("seed", range(3))
def test_bars_that_made_a_picture_square_stay_straight(seed):
    """And black: none of them is drawn into the picture, or of it into them."""
    picture = np.zeros((SIZE, SIZE), bool)
    picture[12:52] = True
    map_ = np.where(SCENES[0].tumor, 1, 0).astype(np.uint8)
    scene = take_apart(map_, 1, region_alone(picture))
    image = np.where(picture, 0.5, 0.0).astype(np.float32)[..., None]
    got = edits.draw("deform", 0, [scene].__getitem__, ["m"], ["a"], np.random.default_rng(seed), Counter())
    np.testing.assert_array_equal(pasted(got, lambda _: image, [scene].__getitem__), image)
    assert got.points is not None and not np.array_equal(got.map, map_)
    rows = got.points[0]
    assert rows[picture].min() == 12 and rows[picture].max() == 51  # its edges go on
    np.testing.assert_array_equal(rows[~picture], np.indices((SIZE, SIZE))[0][~picture])


def test_a_colour_image_stays_one_and_grey_values_stay_in_range():
    rng = np.random.default_rng(1)
    image = rng.uniform(0, 1, (SIZE, SIZE, 3)).astype(np.float32)
    for edit in ("move", "deform", "swap"):
        got = pasted(drawn(edit, 0, 0), lambda i: image * (0.4 + 0.3 * i), SCENES.__getitem__)
        assert got.shape == (SIZE, SIZE, 3) and got.min() >= 0 and got.max() <= 1


def test_without_an_edit_it_is_the_slice():
    image = np.random.default_rng(2).uniform(0, 1, (SIZE, SIZE, 1)).astype(np.float32)
    got = pasted(Edited(SCENES[0].tumor, 0, 0, "none", ""), lambda _: image, SCENES.__getitem__)
    np.testing.assert_array_equal(got, image)
