"""Which slices can be used: each is read once, and its mask looked at in every size that will be loaded.

A slice cannot be used that cannot be read, that is not as `slices.Source` says of `read`, that loses its
tumour in a resize (`slices.lost`), or that is of another kind (grey or RGB, 8 or 16 bit) than most. Small
classes of a mask that go while its tumour stays are counted. Slices are left out after the split is drawn, so
that a patient's split does not hang on what a network can use.
Errors: PixmedError.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from pixmed_jax.data.reader import tell
from pixmed_jax.data.slices import Source, check_channels, grey_if_equal, kind_of, lost, resized, squared
from pixmed_jax.data.splits import SPLITS
from pixmed_jax.errors import NAMED, PixmedError, listing
from pixmed_jax.progress import watched


class _Seen(NamedTuple):
    """What is wrong with a slice, its kind and channels if it can be read, and whether a small class goes."""

    fault: str = ""
    kind: tuple[str, int] = ("", 0)
    small: bool = False


def faults(
    source: Source, sizes: Sequence[int], *, channels: int, class_channels: bool = False, workers: int = 2
) -> dict[int, str]:
    """{row: why it cannot be used at one of these sizes}, for all rows; reads everything and keeps nothing.

    channels: of the network; PixmedError where most images have others. class_channels: whether the classes
    in a mask are told apart.
    """

    def look(row: int) -> _Seen:
        """The picture is not resized, since nobody sees it."""
        try:
            image, mask = source.read(row)
        except PixmedError as error:
            return _Seen(str(error))
        if amiss := _amiss(source, image, mask):
            return _Seen(f"{source.files[row]}: {amiss}")
        image = grey_if_equal(image)
        kind = kind_of(image), image.shape[-1]
        if not source.masked:
            return _Seen(kind=kind)
        whole, label, small = squared(mask), int(source.labels[row]), False
        for size in sizes:
            made = resized(whole, size)
            gone, some = lost(whole, made, label + 1 if class_channels else 0)
            if gone:
                what = f"{source.label_names[label]!r}, its label," if made.any() else "its tumour"
                return _Seen(f"{source.files[row]}: {what} is lost at {size} x {size}", kind)
            small |= some and class_channels
        return _Seen(kind=kind, small=small)

    rows = range(len(source.files))
    with ThreadPoolExecutor(workers) as pool:
        seen = list(watched(pool.map(look, rows), len(rows), "checking slices"))
    usual = Counter(one.kind for one in seen if all(one.kind)).most_common(1)
    for (_, count), _ in usual:
        check_channels(count, channels)
    found = {}
    for row, one in enumerate(seen):
        if one.fault:
            found[row] = one.fault
        elif one.kind != usual[0][0]:
            found[row] = f"{source.files[row]}: is {one.kind[0]} where most are {usual[0][0][0]}"
    if reduced := sum(one.small for row, one in enumerate(seen) if row not in found):
        shown = listing([f"{size} x {size}" for size in sizes])
        tell(f"{reduced} of {len(rows)} slices lose a small class of their mask, not the tumour, at {shown}")
    return found


def _amiss(source: Source, image: np.ndarray, mask: np.ndarray) -> str:
    """What of a slice is not as `Source.read` promises, and what is to be given; "" where all is.

    A source of one's own may give anything; it is not converted, since nobody knows how it is meant.
    """
    if image.dtype not in (np.uint8, np.uint16):
        return f"its image is {image.dtype}; give uint8 or uint16"
    if image.ndim not in (2, 3):
        return f"its image has the shape {list(image.shape)}; give [H, W] or [H, W, C]"
    if mask.dtype != np.uint8:
        return f"its mask is {mask.dtype}; give uint8"
    if mask.shape != image.shape[:2]:
        return f"its mask has the shape {list(mask.shape)}; give {list(image.shape[:2])}, as of its image"
    highest, most = mask.max(initial=0), len(source.label_names)
    if source.masked and highest > most:
        named = listing(source.label_names)
        return f"its mask has the value {highest}; give 0 for background and 1 to {most} for {named}"
    return ""


def check(source: Source, sizes: Sequence[int], *, channels: int, class_channels: bool = False) -> None:
    """PixmedError with all `faults`, if there are any."""
    found = faults(source, sizes, channels=channels, class_channels=class_channels)
    if found:
        raise PixmedError(
            f"{len(found)} of {len(source.files)} slices cannot be used: "
            f"{_by_reason(found)}; repair or remove them, or set data.faulty=skip"
        )


def _by_reason(found: Mapping[int, str]) -> str:
    """Files with an equal fault together, each once."""
    of: dict[str, list[str]] = {}
    for fault in found.values():
        name, _, reason = fault.partition(": ")
        of.setdefault(reason, []).append(name)
    return listing([f"{listing(names, NAMED)}: {reason}" for reason, names in of.items()], NAMED)


def check_share(source: Source, found: Mapping[int, str], most: float) -> None:
    """Say what is left out; PixmedError where it is more than this share of all slices."""
    count = len(source.files)
    line = f"{len(found)} of {count} slices cannot be used: {_by_reason(found)}"
    if len(found) > most * count:
        raise PixmedError(f"{line}; more than data.faulty_most={most:g} of them, so repair or remove some")
    if found:
        tell(f"{line}; left out, as data.faulty=skip says")


def with_known(source: Source, found: Mapping[int, str], *, by: str) -> tuple[Source, dict[int, str]]:
    """The source and its faults without those faulty slices whose patient or given split nobody knows.

    Files that the table does not describe are such; no split can be drawn of them.
    """
    unknown = {
        row
        for row in found
        if (by == "patient" and source.groups[row] == source.files[row])
        or (source.given and not source.given[row])
    }
    if not unknown:
        return source, dict(found)
    kept = [row for row in range(len(source.files)) if row not in unknown]
    return source.take(kept), {i: found[row] for i, row in enumerate(kept) if row in found}


def without(
    source: Source, rows: Mapping[str, np.ndarray], found: Mapping[int, str]
) -> tuple[Source, dict[str, np.ndarray]]:
    """The source and its splits without the faulty slices; PixmedError where that takes all of a split."""
    if not found:
        return source, dict(rows)
    kept = [row for row in range(len(source.files)) if row not in found]
    place = {row: i for i, row in enumerate(kept)}
    left = {
        name: np.array([place[row] for row in of.tolist() if row in place], np.int64)
        for name, of in rows.items()
    }
    for name in SPLITS:
        if len(rows[name]) and not len(left[name]):
            raise PixmedError(
                f"data.faulty=skip: none of the {len(rows[name])} slices in {name} can be used "
                f"({listing([found[row] for row in rows[name].tolist()], 3)}); repair one of them, or set "
                "another data.split"
            )
    return source.take(kept), left
