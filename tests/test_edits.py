"""Edits of tumours: what they keep, where they may go, and why they are refused."""

from collections import Counter

import numpy as np
import pytest
from heads import BRAIN, HEAD, LOOK, SIZE, SKULL, TUMORS, disc, healthy, ill, survey
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from pixmed_jax.data import edits
from pixmed_jax.data.edits import (
    draw,
    moved,
    read_at,
    refusal,
    scaled,
    take_apart,
    warping,
    without,
)
from pixmed_jax.data.plausible import surveyed
from pixmed_jax.data.tissues import Survey
from pixmed_jax.errors import PixmedError

TUMOR = disc(40, 40, 5)


@pytest.fixture(scope="module")
def scenes():
    """Four slices of three patients; the last two belong to one."""
    return [
        ill(TUMOR),
        ill(disc(25, 20, 4), 1, seed=1),
        ill(disc(45, 25, 6), 2, seed=2),
        ill(disc(40, 32, 3), 1, seed=3),
    ]


LABELS, GROUPS = ("m", "g", "m", "g"), ("a", "b", "c", "c")


def drawn(edit, scenes, row=0, seed=0, labels=LABELS, groups=GROUPS):
    refused = Counter()
    return draw(edit, row, lambda i: scenes[i], labels, groups, np.random.default_rng(seed), refused), refused


# ---------------------------------------------------------------- every edit
@pytest.mark.parametrize("edit", ["move", "scale", "warp", "swap", "mixed"])
@given(seed=st.integers(0, 2**32 - 1), row=st.integers(0, 3))
@settings(max_examples=25, deadline=None)
def test_a_new_tumour_lies_in_the_brain_and_nothing_else_changes(scenes, edit, seed, row):
    got, _ = drawn(edit, scenes, row, seed)
    again, _ = drawn(edit, scenes, row, seed)
    np.testing.assert_array_equal(got.map, again.map)
    assert got[1:-1] == again[1:-1]
    np.testing.assert_array_equal(got.points, again.points)
    kinds = edits.MIXED if edit == "mixed" else (edit,)
    assert got.edit in kinds
    assert got.map.dtype == np.uint8 and got.map.shape == (SIZE, SIZE)
    assert set(np.unique(got.map)) <= set(range(7))
    new = (got.map > 0) & (got.map <= TUMORS)
    old = scenes[got.tumor_row].tumor
    beyond = "nearest" if got.edit == "deform" else "constant"
    np.testing.assert_array_equal(read_at(got.points, old, beyond=beyond), np.where(new, got.map, 0))
    assert new.any() and (got.edit == "deform" or not (new & ~BRAIN).any())
    assert set(np.unique(got.map[new])) == set(np.unique(old[old > 0]))  # the class stays
    assert LABELS[got.tumor_row] == LABELS[row]
    if got.edit != "deform":
        np.testing.assert_array_equal(got.map[~new], scenes[got.row].anatomy[~new])
    if got.edit in ("move", "swap"):
        assert new.sum() == (old > 0).sum()
    if got.edit == "swap":
        assert GROUPS[got.row] != GROUPS[got.tumor_row]
    else:
        assert got.row == got.tumor_row


@pytest.mark.parametrize("edit", ["move", "scale", "warp", "swap", "deform"])
def test_seeds_draw_differently(scenes, edit):
    maps = {drawn(edit, scenes, seed=seed)[0].map.tobytes() for seed in range(8)}
    assert len(maps) >= (2 if edit == "swap" else 6)  # three partners, of which all are alike


def test_a_moved_tumour_keeps_shape_and_depth(scenes):
    depth = ndimage.distance_transform_edt(BRAIN)
    for seed in range(20):
        got, _ = drawn("move", scenes, 2, seed)
        new, old = got.map == 2, scenes[got.tumor_row].tumor == 2
        crop = [region[np.ix_(region.any(1), region.any(0))] for region in (new, old)]
        np.testing.assert_array_equal(*crop)
        here, there = (np.rint(np.argwhere(r).mean(axis=0)).astype(int) for r in (old, new))
        assert abs(depth[tuple(here)] - depth[tuple(there)]) <= max(1.5, 0.2 * depth[tuple(here)])
        assert np.hypot(*(here - there)) > 3
        rows, columns = there - here
        assert got.parameters == f"rows={rows} columns={columns}"


def test_remove_leaves_no_tumour(scenes):
    got, refused = drawn("remove", scenes)
    assert not ((got.map > 0) & (got.map <= TUMORS)).any() and not refused
    np.testing.assert_array_equal(got.map, scenes[0].anatomy)
    assert got[1:] == (0, 0, "remove", "", None)


def test_mixed_draws_all_but_remove(scenes):
    kinds = Counter(drawn("mixed", scenes, seed=seed)[0].edit for seed in range(60))
    assert set(kinds) == {"swap", "move", "scale", "warp", "deform"} and min(kinds.values()) >= 5


# ---------------------------------------------------------------- deformations
def test_a_deformation_moves_anatomy_and_tumour_by_one_field(scenes):
    """Against the definition: each pixel has the value of the pixel that its shift names."""
    field = edits.displacements(SIZE, 0.06, np.random.default_rng(1))
    whole = np.where(scenes[0].tumor > 0, scenes[0].tumor, scenes[0].anatomy)
    got = edits.deformed(scenes[0], field)
    composed = np.where(got.tumor > 0, got.tumor, got.anatomy)
    rows, columns = (np.clip(np.rint(x), 0, SIZE - 1).astype(int) for x in np.indices((SIZE,) * 2) + field)
    for name, map_, expected in (
        ("map", composed, whole),
        ("brain", got.where.brain, BRAIN),
        ("head", got.where.head, HEAD),
    ):
        agree = map_ == expected[rows, columns]
        assert agree.mean() > 0.999, name  # halves may be rounded either way
    assert 0.05 < (composed != whole).mean() < 0.4


def test_a_field_is_smooth_and_as_long_as_it_says():
    field = edits.displacements(SIZE, 0.05, np.random.default_rng(0))
    lengths = np.hypot(*field)
    assert lengths.max() == pytest.approx(0.05 * SIZE)
    assert np.abs(np.diff(field, axis=1)).max() < 0.5 and np.abs(np.diff(field, axis=2)).max() < 0.5


def test_areas_are_those_of_known_maps():
    y, x = np.indices((8, 8)).astype(float)
    assert edits.areas(np.zeros((2, 8, 8))) == pytest.approx(np.ones((8, 8)))
    assert edits.areas(np.stack([y, 0.5 * x])) == pytest.approx(np.full((8, 8), 2 * 1.5))
    turned = np.stack([-y - x, y - x])  # x -> a quarter turn of x: areas stay
    assert edits.areas(turned) == pytest.approx(np.ones((8, 8)))
    assert (edits.areas(np.stack([0 * y, -2 * x])) < 0).all()  # mirrored


def test_what_would_fold_is_refused(scenes, monkeypatch):
    fields = iter([np.stack([np.zeros((SIZE, SIZE)), -1.2 * np.indices((SIZE, SIZE))[1]])] * 3)
    honest = edits.displacements
    monkeypatch.setattr(edits, "displacements", lambda *given: next(fields, honest(*given)))
    got, refused = drawn("deform", scenes)
    assert refused["deform: folded, or nearly"] >= 3
    least = float(got.parameters.rpartition("least_area=")[2])
    assert least >= edits._LEAST_AREA


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=15, deadline=None)
def test_a_deformed_slice_keeps_its_parts_and_does_not_fold(scenes, seed):
    got, _ = drawn("deform", scenes, seed=seed)
    assert got.row == got.tumor_row and got.edit == "deform"
    before = np.where(scenes[got.row].tumor > 0, scenes[got.row].tumor, scenes[got.row].anatomy)
    assert set(np.unique(got.map)) <= set(np.unique(before))
    tumor, head = (got.map > 0) & (got.map <= TUMORS), got.map > 0
    assert ndimage.label(tumor)[1] == 1 and ndimage.label(head, np.ones((3, 3)))[1] == 1
    assert not (got.map != before).all() and (got.map != before).any()
    assert tumor.sum() == pytest.approx((scenes[got.row].tumor > 0).sum(), rel=1.0)


# ---------------------------------------------------------------- swaps
@pytest.mark.parametrize("edit", ["swap", "mixed"])
def test_a_healthy_slice_is_given_a_tumour(scenes, edit):
    """Label and slice of the tumour are the donor's, the anatomy is its own."""
    slices = [ill(disc(0, 0, -1), seed=7), scenes[1], scenes[2]]
    for seed in range(4):
        got, _ = drawn(edit, slices, 0, seed, labels=("none", "g", "m"), groups=("h", "b", "c"))
        assert (got.row, got.edit) == (0, "swap") and got.tumor_row in (1, 2)
        new = (got.map > 0) & (got.map <= TUMORS)
        donor = scenes[got.tumor_row].tumor
        assert new.sum() == (donor > 0).sum() and set(got.map[new]) == set(donor[donor > 0])
        np.testing.assert_array_equal(got.map[~new], slices[0].anatomy[~new])


def test_a_healthy_slice_takes_a_tumour_from_who_has_one(scenes):
    healthy_ones = [ill(disc(0, 0, -1), seed=i) for i in range(2)]
    with pytest.raises(PixmedError, match=r"sample\.edit=swap: nothing plausible"):
        drawn("swap", healthy_ones, labels=("n", "n"), groups=("a", "b"))


def test_a_swap_keeps_the_place_in_the_head():
    """The anatomy is half as large and lies 3 rows lower, so the tumour is half as far from its middle."""
    head = disc(35, 32, 14.5)
    small = Survey(head, disc(0, 0, 0), disc(35, 32, 12), LOOK)
    anatomy = take_apart(np.where(head, 6, 0).astype(np.uint8), TUMORS, small)
    donor = ill(disc(40, 26, 3))
    got, _ = drawn("swap", [donor, anatomy], labels=("m", "m"), groups=("a", "b"))
    middle = np.argwhere(got.map == 2).mean(axis=0)
    assert middle == pytest.approx([35 + 8 / 2, 32 - 6 / 2], abs=0.6)
    assert (got.row, got.tumor_row) == (1, 0)
    np.testing.assert_array_equal(got.map > 0, head)


def test_a_tumour_without_anatomy(scenes):
    """Condition "tumor": nothing but the tumour is on the map, and it still finds the brain."""
    bare = [take_apart(np.where(s.tumor > 0, s.tumor, 0), TUMORS, s.where) for s in scenes]
    for edit in ("move", "scale", "warp", "swap", "deform"):
        got, _ = drawn(edit, bare, seed=3)
        assert set(np.unique(got.map)) <= {0, 1, 2} and not (got.map > 0)[~BRAIN].any()
    assert not drawn("remove", bare)[0].map.any()


def bare(tumor, value=2):
    """A slice that shows no head, and a map that shows the tumour alone."""
    map_ = np.where(tumor, value, 0).astype(np.uint8)
    return take_apart(map_, TUMORS, surveyed(map_, ("a", "b")))


def test_a_tumour_without_a_head_goes_anywhere_in_the_image():
    """What reaches from 3 to 13 can be three rows higher and 50 lower in a picture of 64."""
    tumor = disc(8, 8, 5)
    moves = set()
    for seed in range(40):
        got, _ = drawn("move", [bare(tumor)], labels=("m",), groups=("a",), seed=seed)
        rows, columns = (int(part.split("=")[1]) for part in got.parameters.split())
        assert -3 <= rows <= 50 and -3 <= columns <= 50
        assert ((got.map > 0) == np.roll(tumor, (rows, columns), (0, 1))).all()
        moves.add(rows)
    assert len(moves) > 20 and max(moves) > 40
    kinds = set()
    for seed in range(40):
        got, _ = drawn("mixed", [bare(tumor)] * 2, labels=("m", "m"), groups=("a", "b"), seed=seed)
        assert set(np.unique(got.map)) == {0, 2} and got.row == got.tumor_row
        kinds.add(got.edit)
    assert kinds == {"move", "scale", "warp", "deform"}  # a swap would be somebody's mask as it is
    with pytest.raises(PixmedError, match=r"swap: nothing plausible .* no anatomy on the map to set it into"):
        drawn("swap", [bare(tumor)] * 2, labels=("m", "m"), groups=("a", "b"))
    assert not drawn("remove", [bare(tumor)], labels=("m",), groups=("a",))[0].map.any()


def test_a_mixed_edit_that_no_slice_bears_is_another_one():
    """A tumour from edge to edge can be moved nowhere."""
    wide = np.zeros((SIZE, SIZE), bool)
    wide[:2], wide[-2:], wide[:, :2], wide[:, -2:] = True, True, True, True
    kinds = [drawn("mixed", [bare(wide)], labels=("m",), groups=("a",), seed=s)[0].edit for s in range(12)]
    assert "move" not in kinds and len(kinds) == 12
    with pytest.raises(PixmedError, match=r"edit=move: nothing plausible .*nothing changed"):
        drawn("move", [bare(wide)], labels=("m",), groups=("a",))


# ---------------------------------------------------------------- what a tumour leaves
def test_a_hole_is_filled_from_the_brain_around_it():
    map_ = np.zeros((20, 40), np.uint8)
    map_[:, :20], map_[:, 20:] = 3, 4
    brain, hole = np.ones_like(map_, bool), np.zeros_like(map_, bool)
    hole[6:14, 14:26] = True
    filled = without(np.where(hole, 1, map_), hole, brain)
    np.testing.assert_array_equal(filled[~hole], map_[~hole])
    assert set(np.unique(filled[hole])) == {3, 4}
    assert (filled[:, :16] == 3).all() and (filled[:, 24:] == 4).all()


def test_a_hole_mirrors_what_is_beyond_its_border():
    """Stripes left of a hole that reaches the right edge come back in reverse order."""
    row = np.array([3, 4, 5, 6, 3, 4, 5, 6, 1, 1, 1, 1], np.uint8)
    map_ = np.repeat(row[None], 9, axis=0)
    filled = without(map_, map_ == 1, np.ones_like(map_, bool))
    assert filled[4].tolist() == [3, 4, 5, 6, 3, 4, 5, 6, 5, 4, 3, 6]


def test_skull_does_not_grow_into_a_hole_at_the_brains_border(scenes):
    tumor = disc(32, 49, 6) & BRAIN
    scene = ill(tumor)
    assert not (scene.anatomy[tumor] == 3).any() and not (scene.anatomy[tumor] == 6).any()
    np.testing.assert_array_equal(scene.anatomy[~BRAIN], healthy()[~BRAIN])


def test_the_rim_of_a_tumour_goes_with_it():
    """Blurred pixels of a bright tumour look like class 6."""
    map_ = healthy()
    map_[disc(40, 40, 6)] = 6
    map_[TUMOR] = 2
    assert (take_apart(map_, TUMORS, survey()).anatomy[disc(40, 40, 6)] == 6).mean() == 0


def test_a_hole_with_nothing_around():
    everything = np.ones((8, 8), bool)
    filled = without(np.ones((8, 8), np.uint8), everything, everything)
    assert not filled.any()


# ---------------------------------------------------------------- refusals
@pytest.mark.parametrize(
    ("tumor", "where", "reason"),
    [
        (TUMOR, survey(), ""),
        (disc(27, 31, 6), survey(), ""),  # over fluid within the brain
        (BRAIN, survey(), "too large"),
        (disc(40, 40, 0), survey(), "too small"),
        (disc(40, 40, -1), survey(), "too small"),
        (disc(5, 5, 3), survey(), "outside of the head"),
        (disc(32, 56, 2), survey(), "over air or skull"),
        (disc(32, 59, 5) & HEAD & ~SKULL, survey(), "outside of the brain"),  # in the scalp
        (disc(32, 52, 4), survey(), "over air or skull"),
        (TUMOR, survey(brain=disc(0, 0, -1)), "no brain found"),
        (TUMOR, survey(brain=disc(40, 40, 6)), "no brain found"),  # too little of the head to be one
    ],
)
def test_why_a_place_is_refused(tumor, where, reason):
    assert refusal(tumor.astype(np.uint8), where) == reason


@pytest.mark.parametrize(
    ("scene", "edit", "reason"),
    [
        (ill(BRAIN), "warp", "too large"),
        (ill(BRAIN), "scale", "too large"),
        (ill(TUMOR, where=survey(brain=disc(0, 0, -1))), "move", "no brain found"),
        (ill(TUMOR, where=survey(brain=disc(0, 0, -1))), "remove", "no brain found"),
        (ill(disc(0, 0, -1)), "move", "no tumour"),
        (ill(disc(0, 0, -1)), "remove", "no tumour"),
        (ill(disc(32, 32, 20)), "move", "no other place as deep in the brain"),
    ],
)
def test_impossible_edits_say_why_in_one_line(scene, edit, reason):
    with pytest.raises(PixmedError, match=rf"sample\.edit={edit}: nothing plausible .*{reason}") as error:
        drawn(edit, [scene, scene], labels=("m", "m"), groups=("a", "b"))
    assert "\n" not in str(error.value)
    assert ("train with that" in str(error.value)) is (reason == "no brain found")


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        (ill(TUMOR, plane="axial"), ""),
        (ill(TUMOR, plane=""), ""),
        (ill(TUMOR, plane="coronal"), "wrong plane"),
        (ill(TUMOR, plane="axial", where=survey(look=LOOK[::-1] * [1, -1])), "another plane or level"),
        (ill(TUMOR, where=survey(brain=disc(0, 0, -1))), "no brain found"),
        # Where no head is found there is no look either (tissues.survey).
        (ill(TUMOR, where=Survey(*np.zeros((3, SIZE, SIZE), bool), np.zeros(0, "f4"))), "no brain found"),
    ],
)
def test_partners_of_a_swap(other, reason):
    scenes = [ill(TUMOR, plane="axial"), other]
    if not reason:
        assert drawn("swap", scenes, labels=("m", "m"), groups=("a", "b"))[0].row == 1
        return
    with pytest.raises(PixmedError, match=reason):
        drawn("swap", scenes, labels=("m", "g"), groups=("a", "b"))


def test_one_patient_has_nobody_to_swap_with():
    with pytest.raises(PixmedError, match="all slices are of one patient"):
        drawn("swap", [ill(TUMOR)] * 2, labels=("m", "m"), groups=("a", "a"))


def test_another_slice_of_the_label_takes_the_place_of_an_impossible_one(scenes):
    impossible = ill(TUMOR, where=survey(brain=disc(0, 0, -1)))
    got, refused = drawn("move", [impossible, scenes[1], scenes[2], scenes[3]])
    assert got.tumor_row == 2
    assert refused["move: no brain found"] == 1


def test_a_draw_that_changes_nothing_is_refused(scenes, monkeypatch):
    monkeypatch.setattr(edits, "scaling", lambda tumor, factor: np.indices(tumor.shape))
    with pytest.raises(PixmedError, match="20 scale: nothing changed"):  # ten for each slice of its label
        drawn("scale", scenes)


def test_a_torn_tumour_is_refused(scenes, monkeypatch):
    torn = (disc(40, 40, 2) | disc(30, 30, 2)).astype(np.uint8)
    monkeypatch.setattr(edits, "read_at", lambda *_: torn)
    with pytest.raises(PixmedError, match="torn apart"):
        drawn("warp", scenes)


# ---------------------------------------------------------------- shapes
def test_moved():
    tumor = np.zeros((5, 6), np.uint8)
    tumor[1, 2], tumor[2, 3] = 1, 2
    got = moved(tumor, 2, -1)
    assert np.argwhere(got).tolist() == [[3, 1], [4, 2]] and got[4, 2] == 2
    assert not moved(tumor, 0, 4).any()
    np.testing.assert_array_equal(moved(tumor, 0, 0), tumor)


@pytest.mark.parametrize("factor", [0.5, 1.0, 1.5, 2.0])
def test_scaled(factor):
    tumor = np.where(disc(30, 34, 8), 2, 0).astype(np.uint8)
    got = scaled(tumor, factor)
    assert set(np.unique(got)) == {0, 2}
    assert (got > 0).sum() == pytest.approx((tumor > 0).sum() * factor**2, rel=0.06)
    assert np.argwhere(got).mean(axis=0) == pytest.approx([30, 34], abs=0.5)


def test_a_warp_reaches_as_far_as_it_says():
    """In radii of a disc of the tumour's area, or of one of its parts; to whichever side is farther."""
    tumor = disc(20, 20, 8) | disc(44, 44, 8)
    for seed in range(4):
        for parts, told in ((1, {}), (2, {"parts": 2})):
            points = warping(tumor, 0.4, np.random.default_rng(seed), **told)
            shifts = np.abs(points - np.indices(tumor.shape))[:, tumor]
            assert shifts.max() == pytest.approx(0.4 * np.sqrt(tumor.sum() / parts / np.pi))


def test_warped_bends_the_border_and_no_more():
    tumor = np.where(disc(32, 32, 10), 1, 0).astype(np.uint8)
    for seed in range(5):
        got = read_at(warping(tumor, 0.4, np.random.default_rng(seed)), tumor)
        assert set(np.unique(got)) == {0, 1}
        assert 20 < ((got > 0) != (tumor > 0)).sum() < 200
        assert got[disc(32, 32, 4)].all() and not got[~disc(32, 32, 17)].any()
    np.testing.assert_array_equal(read_at(warping(tumor, 0.0, np.random.default_rng(0)), tumor), tumor)
