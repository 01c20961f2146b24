"""Objects of a picture keep their shape, their distance and what they are, wherever each is moved."""

from collections import Counter

import numpy as np
import pytest
from heads import BRAIN, TUMORS, disc, ill
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from pixmed_jax.data import edits
from pixmed_jax.data.copy_paste import pasted
from pixmed_jax.data.objects import arranged, labelled
from pixmed_jax.data.tissues import region_alone

SIZE = 48
TOUCHING = np.ones((3, 3))
ALL = np.ones((SIZE, SIZE), bool)


def scattered(seed: int) -> np.ndarray:
    """Some twelve ragged objects, of two classes in places, some of them cut by the edge."""
    rng = np.random.default_rng(seed)
    noise = ndimage.gaussian_filter(rng.standard_normal((SIZE, SIZE)), 2.5)
    classes = 1 + (ndimage.gaussian_filter(rng.standard_normal((SIZE, SIZE)), 4) > 0)
    return np.where(noise > np.quantile(noise, 0.88), classes, 0).astype(np.uint8)


def objects(mask: np.ndarray) -> list[tuple[bytes, tuple[int, ...], tuple[int, ...]]]:
    """(pixels, shape, corner) of each."""
    labels, number = ndimage.label(mask > 0, TOUCHING)
    boxes = ndimage.find_objects(labels)
    return [
        (
            np.where(labels[box] == k, mask[box], 0).tobytes(),
            mask[box].shape,
            tuple(part.start for part in box),
        )
        for k, box in zip(range(1, number + 1), boxes, strict=True)
    ]


def is_cut(of: tuple[bytes, tuple[int, ...], tuple[int, ...]]) -> bool:
    _, shape, corner = of
    return any(low == 0 or low + side == SIZE for low, side in zip(corner, shape, strict=True))


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_moved_objects_are_the_same_objects_elsewhere(seed):
    mask = scattered(seed)
    got = arranged(mask, ALL, np.random.default_rng(seed), moves=True)
    old, new = objects(mask), objects(got.mask)
    assert got.objects == labelled(mask)[1] == len(old) and len(new) == len(old) - got.left_out
    assert {of for of in old if is_cut(of)} <= set(new)  # where they were
    before, after = (Counter(of[:2] for of in some) for some in (old, new))
    assert not after - before and (before - after).total() == got.left_out
    moved = {of for of in old if not is_cut(of)} & set(new)
    assert len(moved) <= 2 or got.objects < 3  # by chance one may land where it was
    read = np.floor(got.points + 0.5).astype(int)[:, got.mask > 0]
    assert (mask[tuple(read)] == got.mask[got.mask > 0]).all()


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_resized_objects_keep_their_middle_and_their_distance(seed):
    mask = scattered(seed)
    got = arranged(mask, ALL, np.random.default_rng(seed), factors=(0.6, 1.6))
    assert labelled(got.mask)[1] >= got.objects - got.left_out  # small ragged ones may part
    labels, _ = ndimage.label(mask > 0, TOUCHING)
    for k, box in enumerate(ndimage.find_objects(labels), 1):
        of = labels == k
        area, middle = of.sum(), [(part.start + part.stop - 1) / 2 for part in box]
        here = got.mask > 0
        mine = here & (
            ndimage.distance_transform_edt(~of) < 0.35 * max(side.stop - side.start for side in box)
        )
        if is_cut(("", of[box].shape, tuple(part.start for part in box))):
            assert (got.mask[of] == mask[of]).all()
        elif not got.left_out and number_near(labels, k) == 1:
            assert 0.6**2 * area * 0.5 - 4 <= mine.sum() <= 1.6**2 * area * 1.4 + 4
            rows, columns = np.nonzero(mine)
            assert abs((rows.min() + rows.max()) / 2 - middle[0]) <= 1.5
            assert abs((columns.min() + columns.max()) / 2 - middle[1]) <= 1.5


def number_near(labels: np.ndarray, k: int) -> int:
    """Objects within ten pixels of object k, it included."""
    near = ndimage.distance_transform_edt(labels != k) <= 10
    return len(np.unique(labels[near])) - 1


def test_nothing_lies_on_the_bars_of_a_picture_or_finds_a_place_that_is_not_there():
    mask = np.zeros((SIZE, SIZE), np.uint8)
    mask[20:26, 10:16] = 1
    picture = ALL.copy()
    picture[:16] = picture[-16:] = False
    rows = set()
    for seed in range(60):
        got = arranged(mask, picture, np.random.default_rng(seed), moves=True)
        if not got.left_out:
            assert got.mask.sum() == 36 and not got.mask[~picture].any()
            rows.add(int(got.shift[0]))
    assert min(rows) == -4 and max(rows) == 6
    mask[16, 12] = 1  # an object at a bar's edge is cut, as one at the picture's is
    mask[16:20, 12] = 1
    np.testing.assert_array_equal(arranged(mask, picture, np.random.default_rng(0), moves=True).mask, mask)
    full = np.zeros((SIZE, SIZE), np.uint8)
    full[1:-1, 1:-1] = 1
    got = arranged(full, ALL, np.random.default_rng(0), factors=(1.5, 1.6))
    assert got.left_out == got.objects == 1 and not got.mask.any()


def test_what_lies_within_the_angle_of_an_object_stays_as_barred_as_it_was():
    """The larger object comes first, and its box holds a point of no picture, over which the other grows."""
    mask, picture = np.zeros((SIZE, SIZE), np.uint8), ALL.copy()
    mask[13:34, 10:13] = mask[31:34, 10:31] = 1
    mask[16:24, 20:28] = 2
    picture[14, 24] = False
    got = arranged(mask, picture, np.random.default_rng(0), factors=(1.5, 1.5))
    assert (got.objects, got.left_out) == (2, 1) and got.mask.any()
    assert not got.mask[~picture].any() and not (got.mask == 2).any()
    got = arranged(mask, ALL, np.random.default_rng(0), factors=(1.5, 1.5))
    assert got.left_out == 0 and got.mask[14, 24] == 2


def test_many_objects_are_edited_each_by_itself_and_copied_with_their_pixels():
    """What a shift of all together could not do: the outermost are at opposite ends."""
    mask, image = np.zeros((SIZE, SIZE), np.uint8), np.full((SIZE, SIZE, 1), 0.1, np.float32)
    for k, (row, column) in enumerate(((1, 1), (1, 40), (40, 1), (40, 40), (20, 20))):
        mask[row : row + 7, column : column + 7] = 1
        image[row : row + 7, column : column + 7] = 0.5 + 0.1 * k
    scene = edits.take_apart(mask, 1, region_alone(ALL))
    of = edits.draw("move", 0, lambda _: scene, ("m",), ("a",), np.random.default_rng(0), Counter())
    assert of.parameters == "objects=5 left_out=0"
    assert of.map.sum() == mask.sum() and (of.map != mask).sum() > 100
    got = pasted(of, lambda _: image, lambda _: scene)[..., 0]
    labels, number = ndimage.label(of.map)
    cores = [got[labels == k][24] for k in range(1, number + 1)]  # of 49 the one in the middle
    assert sorted(cores) == pytest.approx([0.5, 0.6, 0.7, 0.8, 0.9], abs=1e-3)
    assert np.ptp(got[ndimage.distance_transform_edt(of.map == 0) > 2]) < 1e-3


def test_objects_that_find_no_place_are_refused_in_a_line(monkeypatch):
    """Half of them may be left out, no more."""
    monkeypatch.setattr(edits, "_FACTORS", (1.5, 1.6))
    mask = np.zeros((SIZE, SIZE), np.uint8)
    mask[2:-2, 2:23] = mask[2:-2, 25:-2] = 1
    scene = edits.take_apart(mask, 1, region_alone(ALL))
    with pytest.raises(edits.PixmedError, match="no room for half of the objects") as error:
        edits.draw("scale", 0, lambda _: scene, ("m",), ("a",), np.random.default_rng(1), Counter())
    assert "\n" not in str(error.value)


def test_half_of_the_objects_may_be_left_out_and_are_told(monkeypatch):
    """Two bars that the picture is too low for, beside two small squares that can grow, and beside one."""
    monkeypatch.setattr(edits, "_FACTORS", (1.5, 1.6))
    mask = np.zeros((SIZE, SIZE), np.uint8)
    mask[2:-2, 2:8] = mask[2:-2, 12:18] = mask[10:14, 28:32] = mask[30:34, 36:40] = 1

    def edited():
        scene = edits.take_apart(mask, 1, region_alone(ALL))
        return edits.draw("scale", 0, lambda _: scene, ("m",), ("a",), np.random.default_rng(1), Counter())

    got = edited()
    assert got.parameters == "objects=4 left_out=2" and not got.map[:, :20].any()
    mask[30:34, 36:40] = 0
    with pytest.raises(edits.PixmedError, match="no room for half of the objects"):
        edited()


def test_a_small_or_a_large_share_of_a_picture_is_no_reason_to_refuse():
    """The limits are those of tumours in heads; a layout without tissues has a head, too."""
    large = np.pad(np.ones((40, 40), np.uint8), 4)
    assert edits.refusal(large, region_alone(ALL)) == "too large"
    for mask in (np.eye(1, SIZE * SIZE, 100).reshape(SIZE, SIZE), np.pad(np.ones((40, 40)), 4)):
        assert edits.refusal_in_picture(mask.astype(np.uint8), region_alone(ALL)) == ""
    assert edits.refusal_in_picture(np.zeros((SIZE, SIZE), np.uint8), region_alone(ALL)) == "too small"
    half = region_alone(np.arange(SIZE)[:, None] < 24 + np.zeros(SIZE, int))
    assert edits.refusal_in_picture(np.ones((SIZE, SIZE), np.uint8), half) == "outside of the picture"


# ---------------------------------------------------------------- in a brain
METASTASES = ((20, 24, 3), (44, 40, 4), (32, 44, 2.5), (44, 24, 2))  # rows, columns, radii


def metastases() -> edits.Scene:
    return ill(np.any([disc(*of) for of in METASTASES], axis=0))


def shapes(mask: np.ndarray) -> Counter[bytes]:
    return Counter(pixels for pixels, *_ in objects(mask))


def objects_of(mask: np.ndarray) -> list[np.ndarray]:
    labels, number = ndimage.label(mask > 0, TOUCHING)
    return [labels == k for k in range(1, number + 1)]


@pytest.mark.parametrize("seed", range(8))
def test_metastases_are_moved_each_by_itself_to_where_they_are_as_deep(seed):
    scene, depth = metastases(), ndimage.distance_transform_edt(BRAIN)
    of = edits.draw("move", 0, lambda _: scene, ("m",), ("a",), np.random.default_rng(seed), Counter())
    new = np.where(of.map <= TUMORS, of.map, 0)
    assert of.parameters.startswith("objects=4 left_out=")
    left_out = int(of.parameters[-1])
    assert left_out <= 1 and not shapes(new) - shapes(scene.tumor)
    assert sum(shapes(new).values()) == 4 - left_out and not new[~BRAIN].any()
    before, after = (
        {int(part.sum()): np.argwhere(part).mean(axis=0) for part in objects_of(mask)}
        for mask in (scene.tumor, new)
    )
    shifts = {tuple(after[size] - before[size]) for size in after}
    assert len(shifts) >= 3  # not one for all
    for size in after:
        was, now = (depth[tuple(np.rint(at[size]).astype(int))] for at in (before, after))
        assert abs(now - was) <= max(1.5, 0.2 * was)


def test_metastases_grow_or_shrink_about_their_own_middles():
    scene = metastases()
    of = edits.draw("scale", 0, lambda _: scene, ("m",), ("a",), np.random.default_rng(3), Counter())
    parts = objects_of(np.where(of.map <= TUMORS, of.map, 0))
    middles = np.array([np.argwhere(part).mean(axis=0) for part in parts])
    known = np.array(METASTASES)[:, :2]
    assert of.parameters == "objects=4 left_out=0" and len(parts) == 4
    nearest = np.linalg.norm(middles[:, None] - known, axis=-1)
    assert (nearest.min(axis=1) < 1).all() and sorted(nearest.argmin(axis=1)) == [0, 1, 2, 3]
    assert {int(part.sum()) for part in parts} != {int(disc(*of).sum()) for of in METASTASES}


def test_parts_close_together_are_one_tumour():
    """As a mask leaves them that was made smaller: a 32nd of the side lies between them at most."""
    near, far = (disc(38, 38, 4) | disc(38, 38 + away, 2) for away in (8, 12))  # 1 and 5 pixels between
    assert labelled(near)[1] == 2
    for tumor, parameters in ((near, "rows="), (far, "objects=2")):
        scenes = [ill(tumor)]
        of = edits.draw("move", 0, scenes.__getitem__, ("m",), ("a",), np.random.default_rng(1), Counter())
        assert of.parameters.startswith(parameters)


def test_pixels_of_metastases_are_copied_with_each():
    """Each has a brightness of its own, and brings it along."""
    scene, image = metastases(), np.full((64, 64, 1), 0.1, np.float32)
    for k, of in enumerate(METASTASES):
        image[disc(*of)] = 0.5 + 0.1 * k
    of = edits.draw("move", 0, lambda _: scene, ("m",), ("a",), np.random.default_rng(5), Counter())
    got = pasted(of, lambda _: image, lambda _: scene)[..., 0]
    parts = objects_of(np.where(of.map <= TUMORS, of.map, 0))
    assert len(parts) == 4
    found = sorted((int(part.sum()), float(got[part].max())) for part in parts)
    expected = sorted((int(disc(*of).sum()), 0.5 + 0.1 * k) for k, of in enumerate(METASTASES))
    for (size, grey), (known, bright) in zip(found, expected, strict=True):
        assert size == known and grey == pytest.approx(bright, abs=0.02)
