"""Pictures: what a pixel of a grid shows, and where."""

import numpy as np
import pytest

from pixmed_jax import pictures


def test_tumours_are_strong_and_the_head_is_dull_whatever_their_order():
    two, one = pictures.palette(("a", "b", "head")), pictures.palette(("a", "head"))
    assert two.shape == (4, 3) and two.dtype == np.uint8
    assert two[0].tolist() == [0, 0, 0]
    assert two[1].tolist() == one[1].tolist() and two[3].tolist() == one[2].tolist()
    spread = np.ptp(two.astype(int), axis=1)  # saturation: how far apart a colour's channels are
    assert spread[3] < 30 < min(spread[1], spread[2])
    maps = np.array([[[0, 1], [2, 3]]], np.uint8)
    np.testing.assert_allclose(pictures.colours(maps, ("a", "b", "head")) * 255, two[maps])
    # The words beside a picture name the colours in it, the background not among them.
    told = pictures.legend(("a", "b", "head"))
    shown = [pictures.colours(np.full((1, 1, 1), value), ("a", "b", "head"))[0, 0, 0] for value in (1, 2, 3)]
    assert [name for name, _ in told] == ["a", "b", "head"]
    assert [css for _, css in told] == ["rgb({:.0f}, {:.0f}, {:.0f})".format(*(255 * rgb)) for rgb in shown]


def test_tissues_are_greys_from_dark_to_bright_and_tumours_stand_out():
    classes = ("a", "b", "c", "tissue_1", "tissue_2", "tissue_3", "tissue_4")
    colours = pictures.palette(classes).astype(int)
    assert len(colours) == 8 and colours[0].tolist() == [0, 0, 0]
    greys, strong = colours[4:], colours[1:4]
    assert (np.ptp(greys, axis=1) == 0).all() and (np.ptp(strong, axis=1) > 100).all()
    shades = greys[:, 0].tolist()
    assert shades[0] > 30 and shades[-1] < 230 and min(np.diff(shades)) > 40
    np.testing.assert_array_equal(strong, pictures.palette(("a", "b", "c", "head"))[1:4])
    assert pictures.palette(("a", "tissue_1"))[2].max() > 30


def test_difference_is_black_where_equal_and_bright_from_half_the_range():
    a = np.array([[[0.2, 0.2, 0.2, 0.2]]])
    b = np.array([[[0.2, 0.3, 0.7, 1.0]]])
    shown = pictures.difference(a, b)[0, 0].sum(axis=-1)
    assert shown[0] < 0.02 and shown[0] < shown[1] < shown[2] == shown[3]
    np.testing.assert_array_equal(pictures.difference(a, b), pictures.difference(b, a))


def test_grey_is_the_mean_of_the_channels():
    assert pictures.grey(np.array([[[[0.0, 0.3, 0.6]]]])).round(6).tolist() == [[[0.3]]]
    assert pictures.grey(np.ones((1, 2, 2))).shape == (1, 2, 2)


def test_a_grid_shows_each_image_in_its_row_and_column():
    """Flat images of known grey: every cell's middle has its value, and masks are not blurred."""
    values = np.array([[0.2, 0.8], [0.4, 1.0]])  # column, row
    flat = {str(c): np.ones((2, 50, 50)) * values[c][:, None, None] for c in range(2)}
    edge = np.zeros((2, 50, 50))
    edge[:, :, 25:] = 1
    picture = np.asarray(pictures.grid({**flat, "mask": edge}, ["first", "second"]))
    cell, gap, left, top = 150, 4, 110, 22  # 50 pixels three times, the least that reaches 144
    assert picture.shape == (top + 2 * (cell + gap), left + 3 * (cell + gap), 3)
    for column in range(2):
        for row in range(2):
            y, x = top + row * (cell + gap) + cell // 2, left + column * (cell + gap) + cell // 2
            assert picture[y, x].tolist() == [round(values[column][row] * 255)] * 3
    start = left + 2 * (cell + gap)
    assert set(picture[top : top + cell, start : start + cell].ravel().tolist()) == {0, 255}


def test_words_of_a_wide_grid_grow_with_it_and_maps_keep_their_edges():
    """A page shows it as narrow as any other, and 13 pixels would be 6."""
    edge = np.zeros((1, 160, 160))
    edge[:, :, 80:] = 1
    columns = {"label map": edge, **{str(i): np.zeros((1, 160, 160)) for i in range(10)}}
    narrow, wide = (
        np.asarray(pictures.grid(dict(list(columns.items())[:n]), ["glioma"])) for n in (3, len(columns))
    )

    def tall(picture: np.ndarray) -> int:
        """Pixels from top to bottom of the row's label."""
        lines = np.flatnonzero((picture[30:, :90, 0] > 90).any(axis=1))
        return int(np.ptp(lines)) + 1

    grown = (110 + 11 * 164) / 900
    assert grown > 2 and tall(wide) == pytest.approx(grown * tall(narrow), rel=0.2)
    top, left = round(22 * grown), round(110 * grown)
    assert wide.shape == (top + 164, left + 11 * 164, 3)
    assert set(wide[top : top + 160, left : left + 160].ravel().tolist()) == {0, 255}


def test_outlines_are_drawn_on_the_border_of_a_mask_alone():
    images, masks = np.full((1, 7, 7), 0.25), np.zeros((1, 7, 7), bool)
    masks[0, :5, 1:6] = True  # touches the upper edge, which is a border too
    drawn = pictures.outlined(images, masks)[0]
    coloured = np.ptp(drawn, axis=-1) > 0
    expected = masks[0].copy()
    expected[1:4, 2:5] = False
    np.testing.assert_array_equal(coloured, expected)
    assert (drawn[~expected] == 0.25).all() and (images == 0.25).all()


def test_disagreement_tells_what_was_missed_from_what_was_invented():
    found, true = np.array([[[1, 1, 0, 0]]], bool), np.array([[[1, 0, 1, 0]]], bool)
    assert (pictures.disagreement(found, true)[0, 0] > 0).astype(int).tolist() == [
        [0, 1, 0],  # found: green
        [0, 0, 1],  # where there is none: blue
        [1, 0, 0],  # missed: red
        [0, 0, 0],
    ]


def test_judged_images_lie_in_rows_below_captions():
    grey = np.linspace(0.3, 0.9, 3)
    images = np.ones((3, 72, 72)) * grey[:, None, None]
    logits = np.array([[2.0, 0.0], [0.0, 9.0], [0.0, 3.0]])

    def shown(labels):
        return np.asarray(pictures.judged(images, np.array(labels), logits, names=("a", "b"), across=2))

    right, wrong = shown([0, 1, 1]), shown([0, 0, 1])
    cell, gap = 144, 4
    for picture, heading in ((right, 22), (wrong, 38)):  # a second line says what it is
        assert picture.shape == (2 * (cell + heading), gap + 2 * (cell + gap), 3)
        for i, value in enumerate(grey):
            y, x = i // 2 * (cell + heading) + heading + 72, gap + i % 2 * (cell + gap) + 72
            assert picture[y, x].tolist() == [round(value * 255)] * 3
    caption = wrong[:38, gap + cell + gap :].astype(int)  # the second image's
    assert (caption[..., 0] - caption[..., 1]).max() > 60, "a wrong answer is red"
    assert (right[:22, ..., 0].astype(int) - right[:22, ..., 1]).max() < 30
