"""What the values in a dataset's masks mean.

    binary     0 and 1, or 0 and 255: the tumour, which takes its slice's label
    classes    0 to K: v is `label_names[v - 1]` of a table with K labels; without labels, the values 1 .. K
               (or a few others up to 16, such as 1, 2, 4) are classes of their own, "class 1" and so on
    one-hot    a channel (last axis) or a file (NAME_CLASS) for each class, with or without the background's
    colours    RGB files in red, green, blue, yellow, magenta, cyan or white on black: one colour is the
               tumour as in a binary mask, of several each is a class of its own, called by its colour

A table's labels are taken for the classes of 0 to K only where the masks bear it out: `misread`.
What fits none of these is refused with the values found: a mask that was smoothed or resized with
interpolation has grown classes that nobody drew.
Layout: masks [..., H, W] of any type, one-hot [..., H, W, K]; results uint8, 0 = background. Masks in colours
are uint32, 0x1RRGGBB, with 0 for black.
Errors: PixmedError.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from pixmed_jax.errors import PixmedError, listing

MAX_CLASSES = 16  # of masks whose classes no table names
BACKGROUND = "background"
_MOSTLY = 0.6  # of a picture: masks seldom mark more of it, unless they mark the background
# By the channels that are lit: those of one channel first.
_COLOURS = {
    (1, 0, 0): "red", (0, 1, 0): "green", (0, 0, 1): "blue",
    (1, 1, 0): "yellow", (1, 0, 1): "magenta", (0, 1, 1): "cyan", (1, 1, 1): "white",
}  # fmt: skip
MISREAD = (
    "set data.label_column='' to take the values for classes of their own, or save each mask with the value "
    "of its label, or with 255"
)
_FEW = 3, 0.01  # masks, or this share of them, that may be labelled wrongly before all count as misread
_MOST = 256  # colours kept of a mask; far fewer are refused already
_GREY = 0x010101  # times a grey value: its colour


class Encoding(NamedTuple):
    """How masks are read: `values[i]` stands for `names[i]`; without values, every mask is binary.

    `own` says that the classes are the masks' own: no table gives a slice its label.
    """

    names: tuple[str, ...]
    values: tuple[int, ...] = ()
    own: bool = False


def recognise(
    found: Sequence[set[int]], names: Sequence[str], classes: Sequence[str] = (), class_name: str = "tumor"
) -> Encoding:
    """The encoding of masks with these values each.

    names: the labels of a table, or none. classes: names of one-hot masks, whose values are 1 .. K then.
    class_name: what binary masks show where nothing names it.
    """
    union = set().union(*found) - {0}
    if names:
        several = any(2 <= max(values, default=0) <= len(names) for values in found)
        return Encoding(tuple(names), tuple(range(1, len(names) + 1)) if several or classes else ())
    if classes:
        return Encoding(tuple(classes), tuple(range(1, len(classes) + 1)), own=True)
    if len(union) > 1 and 1 in union and max(union) <= MAX_CLASSES:
        values = tuple(sorted(union))
        return Encoding(tuple(f"class {v}" for v in values), values, own=True)
    return Encoding((class_name or "tumor",))


def misread(found: Sequence[set[int]], labels: Sequence[int], encoding: Encoding) -> list[int]:
    """Which masks hold classes of a table and not that of their own label; none where these are only a few.

    found: the values of each mask. labels: index into `encoding.names`. Values that are no class at all are
    another fault. So many masks are no slips of a pen: their values mean something else than the labels do.
    """
    if not encoding.values or encoding.own:
        return []
    odd = [
        i
        for i, (held, label) in enumerate(zip(found, labels, strict=True))
        if held - {0} and held <= {0, *encoding.values} and encoding.values[label] not in held
    ]
    count, share = _FEW
    return odd if len(odd) > max(count, share * len(found)) else []


def told_misread(values: set[int], label: int, encoding: Encoding) -> str:
    """What a mask holds that is `misread`."""
    held = listing([str(v) for v in sorted(values - {0})])
    return f"{held} where {encoding.names[label]!r} is {encoding.values[label]}"


def describe(encoding: Encoding, found: Sequence[set[int]]) -> str:
    """The mapping in a line."""
    if encoding.values:
        pairs = zip(encoding.values, encoding.names, strict=True)
        return "0 = background, " + listing([f"{v} = {name}" for v, name in pairs])
    tumor = sorted(set().union(*found) & {1, 255})
    label = encoding.names[0] if len(encoding.names) == 1 else "tumour of the slice's label"
    return f"0 = background, {' or '.join(map(str, tumor)) or 'nothing else'} = {label}"


def decode(mask: np.ndarray, encoding: Encoding, label: int, name: str) -> np.ndarray:
    """Labels of a mask [H, W] uint8: v = names[v - 1]. `label` indexes the name that a binary mask takes."""
    values = np.flatnonzero(np.bincount(mask.ravel()))
    binary = set(values) <= {0, 255} or (set(values) <= {0, 1} and not encoding.values)
    if binary and not encoding.own:
        return (mask > 0) * np.uint8(label + 1)
    if not encoding.values or not set(values) <= {0, *encoding.values}:
        count = len(encoding.names)
        known = f", or 0 to {count} for {count} labels" if count > 1 and not encoding.own else ""
        if encoding.own:
            known = f"; the other masks hold 0, {listing([str(v) for v in encoding.values])}"
        raise PixmedError(
            f"{name}: values {listing([str(v) for v in values])}; a mask holds 0 and 1, or 0 and 255{known}"
            "; save it as PNG without smoothing, or set data.masks or data.label_column"
        )
    if set(values) <= {0, 1} and not encoding.own and label != 0 and values[-1]:
        raise PixmedError(
            f"{name}: 1 is {encoding.names[0]} in this folder, where masks hold classes, but the table says "
            f"{encoding.names[label]}; correct one of them, or use 255 for the slice's own label"
        )
    lookup = np.zeros(256, np.uint8)
    lookup[list(encoding.values)] = np.arange(1, len(encoding.values) + 1)
    return lookup[mask]


def mostly_marked(counts: Sequence[Mapping[int, int]]) -> str:
    """What to say where masks with so many pixels of each value mark most of their pictures; "" elsewhere."""
    shares = [1 - of.get(0, 0) / sum(of.values()) for of in counts]
    share = float(np.median(shares)) if shares else 0.0
    return f"half of the masks mark more than {share:.0%} of their picture" if share > _MOSTLY else ""


def as_uint8(values: np.ndarray, name: str) -> np.ndarray:
    """Masks of any type as uint8; refused unless they hold whole numbers from 0 to 255."""
    if values.dtype == np.uint8:
        return values
    if values.dtype == bool:
        return values.astype(np.uint8)
    # A file's own scale, such as 1/255 in float32, leaves whole numbers a hair off.
    nearest = np.rint(values)
    whole = np.isfinite(values) & (np.abs(values - nearest) < 1e-4) & (nearest >= 0) & (nearest <= 255)
    if not whole.all():
        odd = [f"{v:g}" for v in np.unique(values[~whole])]
        raise PixmedError(
            f"{name}: holds {listing(odd, 5)}, and a mask holds whole numbers from 0 to 255; "
            "resize masks with nearest neighbour"
        )
    return nearest.astype(np.uint8)


def from_one_hot(channels: np.ndarray, name: str) -> np.ndarray:
    """[..., H, W, K] of 0 and 1 (or 255) -> [..., H, W] uint8, 0 = background.

    Channels that add up to 1 everywhere have the background among them: it is the first.
    """
    hot = as_uint8(channels, name)
    values = np.flatnonzero(np.bincount(hot.ravel()))
    if not (set(values) <= {0, 1} or set(values) <= {0, 255}):
        found = listing([str(v) for v in values])
        raise PixmedError(f"{name}: values {found} in {hot.shape[-1]} channels; one-hot masks hold 0 and 1")
    hot = hot > 0
    covered = hot.sum(axis=-1)
    if covered.max(initial=0) > 1:
        pairs = np.argwhere(
            hot.reshape(-1, hot.shape[-1]).astype(np.int64).T @ hot.reshape(-1, hot.shape[-1])
        )
        shared = [f"{a + 1} and {b + 1}" for a, b in pairs if a < b]
        raise PixmedError(
            f"{name}: {np.count_nonzero(covered > 1)} pixels lie in several channels ({listing(shared, 3)}); "
            "one-hot classes do not overlap"
        )
    first = 0 if (covered == 1).all() and hot.shape[-1] > 1 else 1
    return (hot.argmax(axis=-1) + first).astype(np.uint8) * (covered > 0)


def colours(found: Sequence[set[int]], names: Sequence[str] = ()) -> dict[int, str]:
    """{0xRRGGBB: its name} of the colours in masks with these values each, in the order of their classes.

    Empty where no mask has colours. names: the labels of a table, or none. Grey values count as colours.
    Every channel has to be dark or lit, and lit ones equally bright: others come from smoothing or from
    JPEG, and the colours that were drawn can only be guessed.
    """
    union = set().union(*found)
    if max(union, default=0) <= 255:
        return {}
    drawn = {_rgb(value) for value in union} - {0}
    channels = {value: (value >> 16, value >> 8 & 255, value & 255) for value in drawn}
    told = listing([f"#{value:06x}" for value in sorted(drawn, reverse=True)], 8)
    if 0 not in union or len({part for parts in channels.values() for part in parts} - {0}) > 1:
        raise PixmedError(
            f"masks hold the colours {told}{' and no black' * (0 not in union)}; colours of classes are red, "
            "green, blue, yellow, magenta, cyan or white on black, equally bright: save them without "
            "smoothing and not as JPEG, or as 0 to K"
        )
    lit = {tuple(int(part > 0) for part in parts): value for value, parts in channels.items()}
    chosen = {lit[shape]: name for shape, name in _COLOURS.items() if shape in lit}
    if len(chosen) > 1 and names:
        raise PixmedError(
            f"masks hold the colours {listing(list(chosen.values()), 8)}, and which of them is "
            f"{listing(list(names))} is not said; save them as 0 to {len(names)}, or set "
            "data.label_column='' to take each colour for a class"
        )
    return chosen


def _rgb(value: int) -> int:
    """0xRRGGBB of a value in a mask, colour or grey."""
    return value & 0xFFFFFF if value > 255 else value * _GREY


def numbers(found: Mapping[int, int], classes: Mapping[int, str]) -> dict[int, int]:
    """`counts` of a mask in colours, by the numbers that `from_colours` gives."""
    place = {0: 0, **{value: i for i, value in enumerate(classes, 1)}}
    return {place[_rgb(value)]: number for value, number in found.items()}


def from_colours(mask: np.ndarray, classes: Mapping[int, str], name: str) -> np.ndarray:
    """A mask [H, W] of uint32 colours or of uint8 greys -> uint8, v = the v-th colour."""
    mask = mask & np.uint32(0xFFFFFF) if mask.dtype == np.uint32 else mask * np.uint32(_GREY)
    order = sorted({0, *classes})
    if not np.isin(mask, order).all():
        odd = sorted(set(np.unique(mask).tolist()) - set(order))
        raise PixmedError(
            f"{name}: holds the colours {listing([f'#{value:06x}' for value in odd], 8)} beside those of the "
            "other masks; save it without smoothing"
        )
    place = {0: 0, **{value: i + 1 for i, value in enumerate(classes)}}
    return np.array([place[value] for value in order], np.uint8)[np.searchsorted(order, mask)]


def counts(mask: np.ndarray) -> Mapping[int, int]:
    """{value: number of pixels} of a mask, uint8 or uint32 colours."""
    if mask.dtype == np.uint32:
        values, numbers = np.unique(mask, return_counts=True)
        return dict(zip(values[:_MOST].tolist(), numbers[:_MOST].tolist(), strict=True))
    found = np.bincount(mask.ravel())
    return {int(v): int(found[v]) for v in np.flatnonzero(found)}
