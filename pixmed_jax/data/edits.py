"""New pairs from old ones: a tumour moved, scaled, warped, removed, or set into somebody else's anatomy, be
that healthy or not; or the whole slice, anatomy and tumour together, smoothly deformed.

Everything works on label maps (see `regions.py`): the generator then paints what the edited map asks for, or
pixels are copied from where the map's were (`copy_paste.py`). An edit is tried, judged by `refusal`, and
drawn again where it is not plausible; a tumour never leaves the brain.
Several tumours of a slice, such as metastases, are moved and resized each by itself (`objects.py`), and
swapped all together. Where slices show no heads and maps no more than the tumour, the whole picture stands
for the brain; there is no other anatomy to set one into.
What no rule here knows is medicine: a pituitary tumour may be moved to where none grows, and brain is not
pushed aside by a tumour that moved in.

Layout: label maps and tumours uint8 [S, S], a tumour's values being its classes in the map, 0 elsewhere;
points float [2, S, S]: the row and the column in a slice that each pixel of an edited one is read from.
All functions are pure; random numbers come from the generator that is passed in.
Errors: PixmedError when no plausible edit is found.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from pixmed_jax.data import objects
from pixmed_jax.data.tissues import Survey
from pixmed_jax.errors import PixmedError

MIXED = ("swap", "move", "scale", "warp", "deform")
EDITS = ("none", *MIXED, "remove", "mixed")
NO_BRAIN = "no brain found"
# 98 % of Cheng's tumours cover 0.4 to 11 % of the head in their slice, and 0.9 to 28 % of the brain found.
SMALLEST, LARGEST = 0.003, 0.3  # of the head, of the brain
_LEAST_BRAIN = 0.1  # of the head
# Likeness of two slices' looks. On 38 of Cheng's slices whose plane was judged by eye 23 % of the pairs of
# one plane pass and 0.6 % of the others; on phantoms 54 and 2 %. It keeps base and vertex apart, too.
_SAME_PLANE = 0.75
_SLICES, _TRIES, _PARTNERS = 30, 10, 200  # tried for one edit: slices; draws and patients for each of them
_SMOOTH = 0.14  # of the side: how far the shifts of a deformation keep together
_FACTORS = (0.6, 1.6)  # times as wide
_APART = 1 / 32  # of the side: parts of a tumour that lie closer together are one
# No place is squeezed or stretched to less or more than these times its area; at 0 a deformation would fold.
_LEAST_AREA, _MOST_AREA = 1 / 3, 3.0


class Scene(NamedTuple):
    """One slice, taken apart; `anatomy` is as if the tumour had never been."""

    tumor: np.ndarray  # uint8 [S, S]
    anatomy: np.ndarray  # uint8 [S, S], a label map without tumours
    where: Survey
    plane: str  # "" where unknown


class Edited(NamedTuple):
    """A new label map, and how it came about."""

    map: np.ndarray
    row: int  # the slice whose anatomy it has
    tumor_row: int  # the slice whose tumour it has
    edit: str
    parameters: str  # such as "rows=-4 columns=12"
    # Where in `tumor_row` its tumour was read, by a deformation all; None where nothing was.
    points: np.ndarray | None = None


class Change(NamedTuple):
    """What a draw of an edit came to: a scene, and of `Edited` the last two."""

    scene: Scene
    parameters: str
    points: np.ndarray | None


def take_apart(label_map: np.ndarray, tumors: int, where: Survey, plane: str = "") -> Scene:
    """A label map whose values 1 .. `tumors` are tumours, as a scene."""
    tumor = np.where(label_map <= tumors, label_map, 0).astype(np.uint8)
    return Scene(tumor, without(label_map, hole_of(tumor, where), where.brain), where, plane)


def hole_of(tumor: np.ndarray, where: Survey) -> np.ndarray:
    """bool [S, S]: the tumour, its blurred border and what it makes shine around it."""
    hole = tumor > 0
    if hole.any():
        reach = max(1.0, max(hole.shape) / 64)
        hole |= (ndimage.distance_transform_edt(~hole) <= reach) & where.brain
    return hole


def without(label_map: np.ndarray, hole: np.ndarray, brain: np.ndarray) -> np.ndarray:
    """A map or image [S, S, ...] with `hole` filled by the brain around it, mirrored at the hole's border.

    Where the mirrored point is not brain, or in the hole again, the nearest point of brain is taken; where
    there is no brain around, the nearest point outside of the hole.
    """
    around = brain & ~hole if (brain & ~hole).any() else ~hole
    filled = label_map.copy()
    if not hole.any() or not around.any():
        filled[hole] = 0
        return filled
    nearest = ndimage.distance_transform_edt(~around, return_distances=False, return_indices=True)
    points = np.argwhere(hole).T
    border = nearest[:, hole]
    mirrored = 2 * border - points
    inside = np.logical_and(mirrored >= 0, mirrored < np.array(hole.shape)[:, None]).all(axis=0)
    mirrored = np.where(inside, mirrored, border)
    usable = around[tuple(mirrored)]
    filled[hole] = label_map[tuple(np.where(usable, mirrored, border))]
    return filled


def refusal(tumor: np.ndarray, where: Survey) -> str:
    """Why this tumour cannot be at this place, in a few words; "" if it can."""
    region, head, brain = tumor > 0, where.head.sum(), where.brain.sum()
    if not brain or brain < _LEAST_BRAIN * head:
        return NO_BRAIN
    if region.sum() < max(1, SMALLEST * head):
        return "too small"
    if region.sum() > LARGEST * brain:
        return "too large"
    if (region & ~where.head).any():
        return "outside of the head"
    if (region & where.dark & ~where.brain).any():
        return "over air or skull"
    return "outside of the brain" if (region & ~where.brain).any() else ""


def refusal_in_picture(tumor: np.ndarray, where: Survey) -> str:
    """Likewise in a picture without a head, in which objects may be as small and as many as they like."""
    if not tumor.any():
        return "too small"
    return "outside of the picture" if (tumor[~where.head] > 0).any() else ""


# ------------------------------------------------------------------------------ tumours


def moving(shape: tuple[int, ...], rows: int, columns: int) -> np.ndarray:
    """Points of what is shifted."""
    return np.indices(shape) - np.array([rows, columns])[:, None, None]


def scaling(tumor: np.ndarray, factor: float) -> np.ndarray:
    """Points of what grows or shrinks about the tumour's middle, `factor` times as wide."""
    middle = _middle(tumor)[:, None, None]
    return np.asarray(middle + (np.indices(tumor.shape) - middle) / factor)


def warping(tumor: np.ndarray, strength: float, rng: np.random.Generator, parts: int = 1) -> np.ndarray:
    """Points of what is bent by a smooth random field that moves the tumour's border by up to `strength`
    radii, of one of so many parts."""
    radius = np.sqrt(np.count_nonzero(tumor) / parts / np.pi)
    noise = rng.standard_normal((2, *tumor.shape))
    field = np.stack([ndimage.gaussian_filter(part, 0.5 * radius) for part in noise])
    field *= strength * radius / np.abs(field[:, tumor > 0]).max()
    return np.asarray(np.indices(tumor.shape) + field)


def read_at(points: np.ndarray, tumor: np.ndarray, *, beyond: str = "constant") -> np.ndarray:
    """A tumour or region, each pixel that of its point; `beyond` the edge 0, or with "nearest" the edge."""
    return np.asarray(ndimage.map_coordinates(tumor, points, order=0, mode=beyond))


def moved(tumor: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Shifted; what leaves the image is lost."""
    return read_at(moving(tumor.shape, rows, columns), tumor)


def scaled(tumor: np.ndarray, factor: float) -> np.ndarray:
    """Grown or shrunk about its middle, `factor` times as wide."""
    return read_at(scaling(tumor, factor), tumor)


def _middle(region: np.ndarray) -> np.ndarray:
    return np.argwhere(region).mean(axis=0)


# ------------------------------------------------------------------------------ whole slices


def displacements(size: int, strength: float, rng: np.random.Generator) -> np.ndarray:
    """[2, size, size]: smooth random shifts of rows and columns, the longest `strength` of the side."""
    noise = rng.standard_normal((2, size, size))
    field = np.stack([ndimage.gaussian_filter(part, _SMOOTH * size, mode="reflect") for part in noise])
    return np.asarray(field * strength * size / np.hypot(*field).max())


def areas(field: np.ndarray) -> np.ndarray:
    """[S, S]: the Jacobian determinant of x -> x + field(x), the area that a pixel is read from.

    By central differences; where it is not positive, the map folds.
    """
    (rows_down, rows_across), (columns_down, columns_across) = (np.gradient(part) for part in field)
    return np.asarray((1 + rows_down) * (1 + columns_across) - rows_across * columns_down)


def kept_in(field: np.ndarray, picture: np.ndarray) -> np.ndarray:
    """The same shifts, none of them in the bars that made a picture square, nor out of them into it or back.

    picture: bool [S, S], a rectangle; at its edges the picture goes on as it does at those of an image.
    """
    if picture.all() or not picture.any():
        return field
    here, corners = np.indices(picture.shape), np.argwhere(picture)
    low, high = (corner[:, None, None] for corner in (corners.min(axis=0), corners.max(axis=0)))
    return np.where(picture, np.clip(here + field, low, high) - here, 0.0)


def deformed(scene: Scene, field: np.ndarray) -> Scene:
    """Every pixel takes the value that the scene has `field` [2, S, S] away; edges go on behind the image."""
    points = np.indices(scene.tumor.shape) + field

    def at(region: np.ndarray) -> np.ndarray:
        return read_at(points, region, beyond="nearest")

    head, dark, brain, look = scene.where
    where = Survey(at(head), at(dark), at(brain), look)
    return scene._replace(tumor=at(scene.tumor), anatomy=at(scene.anatomy), where=where)


# ------------------------------------------------------------------------------ edits

Outcome = Change | str  # or why not


def _in_picture(where: Survey) -> bool:
    """Whether there is no head, so that nothing looks like one (`tissues.region_alone`)."""
    return not len(where.look)


def _apart(scene: Scene) -> float:
    """Pixels up to which parts of a mask are one tumour; what is no head shows objects that touch nowhere."""
    return 0.0 if _in_picture(scene.where) else _APART * len(scene.tumor)


def _parted(scene: Scene) -> bool:
    """Whether a mask shows objects, each of which is edited by itself."""
    return _in_picture(scene.where) or objects.labelled(scene.tumor, _apart(scene))[1] > 1


def _depth(brain: np.ndarray) -> np.ndarray:
    """[S, S]: pixels to the brain's border; 0 outside of it."""
    return np.asarray(ndimage.distance_transform_edt(np.pad(brain, 1))[1:-1, 1:-1])


def _move(scene: Scene, rng: np.random.Generator) -> Outcome:
    """To a place as deep in the brain: a tumour of the meninges stays near them."""
    if _parted(scene):
        return _arranged(scene, rng, moves=True)
    here = np.rint(_middle(scene.tumor)).astype(int)
    places = objects.as_deep(_depth(scene.where.brain), here)
    radius = np.sqrt(np.count_nonzero(scene.tumor) / np.pi)
    places = places[np.hypot(*(places - here).T) > radius]
    if not len(places):
        return "no other place as deep in the brain"
    rows, columns = (int(step) for step in places[rng.integers(len(places))] - here)
    return _set(scene, scene.tumor, rows, columns)


def _set(anatomy: Scene, tumor: np.ndarray, rows: int, columns: int) -> Outcome:
    """A tumour, shifted, in the place of an anatomy's own."""
    points = moving(tumor.shape, rows, columns)
    there = read_at(points, tumor)
    if np.count_nonzero(there) < np.count_nonzero(tumor):
        return "outside of the image"
    return Change(anatomy._replace(tumor=there), f"rows={rows} columns={columns}", points)


def _arranged(
    scene: Scene,
    rng: np.random.Generator,
    *,
    moves: bool = False,
    factors: tuple[float, float] = (1.0, 1.0),
) -> Outcome:
    """Each object by itself: anywhere that all of it lies in the picture, or in the brain and as deep."""
    tumor, (head, _, brain, _) = scene.tumor, scene.where
    if _in_picture(scene.where):
        new = objects.arranged(tumor, head, rng, moves=moves, factors=factors)
    else:
        inside = objects.Inside(brain, _depth(brain), _apart(scene))
        new = objects.arranged(tumor, np.ones_like(head), rng, inside, moves=moves, factors=factors)
    if new.objects - new.left_out < new.objects / 2:
        return "no room for half of the objects"
    told = f"objects={new.objects} left_out={new.left_out}"
    if new.objects == 1:
        told = f"rows={new.shift[0]} columns={new.shift[1]}" if moves else f"factor={new.factor}"
    return Change(scene._replace(tumor=new.mask), told, new.points)


def _scale(scene: Scene, rng: np.random.Generator) -> Outcome:
    if _parted(scene):
        return _arranged(scene, rng, factors=_FACTORS)
    factor = round(float(np.exp(rng.uniform(*np.log(_FACTORS)))), 3)
    points = scaling(scene.tumor, factor)
    return Change(scene._replace(tumor=read_at(points, scene.tumor)), f"factor={factor}", points)


def _warp(scene: Scene, rng: np.random.Generator) -> Outcome:
    strength = round(rng.uniform(0.25, 0.6), 3)
    _, parts = objects.labelled(scene.tumor, _apart(scene))
    points = warping(scene.tumor, strength, rng, parts)
    tumor = read_at(points, scene.tumor)
    if _torn(tumor, scene.tumor):
        return "torn apart"
    return Change(scene._replace(tumor=tumor), f"strength={strength}", points)


def _torn(new: np.ndarray, old: np.ndarray) -> bool:
    """Whether a tumour has more parts than before: nearest pixels may part what a smooth field does not."""
    return bool(ndimage.label(new)[1] > ndimage.label(old)[1])


def _deform(scene: Scene, rng: np.random.Generator) -> Outcome:
    strength = round(rng.uniform(0.03, 0.08), 3)
    field = displacements(len(scene.tumor), strength, rng)
    read = areas(field)
    if read.min() < _LEAST_AREA or read.max() > _MOST_AREA:
        return "folded, or nearly"
    if _in_picture(scene.where):
        field = kept_in(field, scene.where.head)
    bent = deformed(scene, field)
    if _torn(bent.tumor, scene.tumor):
        return "torn apart"
    parameters = f"strength={strength} smooth={_SMOOTH} least_area={read.min():.3f}"
    return Change(bent, parameters, np.indices(scene.tumor.shape) + field)


def _swap(anatomy: Scene, donor: Scene) -> Outcome:
    """To the place that the tumour has in its own head, in the frame in which the looks are alike."""
    if not anatomy.where.brain.any() or not donor.where.head.any():
        return NO_BRAIN
    if _in_picture(anatomy.where):
        return "no anatomy on the map to set it into"
    known = anatomy.plane and donor.plane
    if known and anatomy.plane != donor.plane:
        return "wrong plane"
    if anatomy.where.look @ donor.where.look < _SAME_PLANE:
        return "another plane or level of the head"
    here = _middle(donor.tumor)
    ratio = np.sqrt(anatomy.where.head.sum() / donor.where.head.sum())
    there = _middle(anatomy.where.head) + (here - _middle(donor.where.head)) * ratio
    rows, columns = (int(step) for step in np.rint(there - here))
    return _set(anatomy, donor.tumor, rows, columns)


def draw(
    edit: str,
    row: int,
    scene: Callable[[int], Scene],
    labels: Sequence[str],
    groups: Sequence[str],
    rng: np.random.Generator,
    refused: Counter[str],
) -> Edited:
    """A plausible edit of the tumour of slice `row`; `scene(i)` has slice i of label and patient group i.

    A slice without a tumour can only be given one, by a swap. After many refusals, which are counted by
    reason, another slice of the same label takes its place, and of mixed edits then another.
    """
    kinds = _kinds(scene(row), rng) if edit == "mixed" else (edit,)
    alike = np.flatnonzero((np.array(labels) == labels[row]) & (np.arange(len(labels)) != row))
    here: Counter[str] = Counter()
    candidates = [row, *rng.permutation(alike)[: _SLICES - 1].tolist()]
    for kind, candidate in product(kinds, candidates):
        for outcome, anatomy_row, tumor_row in _outcomes(kind, candidate, scene, groups, rng):
            if not isinstance(outcome, str):
                edited, parameters, points = outcome
                judge = refusal_in_picture if _in_picture(edited.where) else refusal
                outcome = judge(edited.tumor, edited.where) if kind != "remove" else ""
                if not outcome:
                    map_ = np.where(edited.tumor > 0, edited.tumor, edited.anatomy)
                    return Edited(map_, anatomy_row, tumor_row, kind, parameters, points)
            here[f"{kind}: {outcome}"] += 1
            refused[f"{kind}: {outcome}"] += 1
    reasons, remedy = here.most_common(), "give another"
    told = ", ".join(f"{count} {reason}" for reason, count in reasons)
    if reasons and reasons[0][0].endswith(NO_BRAIN):
        remedy = "slices that are not of heads are edited with data.condition=tumor, so train with that"
    raise PixmedError(f"sample.edit={edit}: nothing plausible in {here.total()} draws ({told}); {remedy}")


def _kinds(scene: Scene, rng: np.random.Generator) -> tuple[str, ...]:
    """The edits that mixed ones are of: one drawn, and the others in case that no slice bears it."""
    kinds = list(MIXED)
    if _in_picture(scene.where):
        kinds.remove("swap")
    first = kinds.pop(rng.integers(len(kinds)) if scene.tumor.any() else 0)
    return (first, *kinds)


def _outcomes(
    kind: str,
    row: int,
    scene: Callable[[int], Scene],
    groups: Sequence[str],
    rng: np.random.Generator,
) -> Iterator[tuple[Outcome, int, int]]:
    """(edited scene or why not, row of its anatomy, row of its tumour) of one draw after the other."""
    own = scene(row)
    if not own.where.brain.any():
        yield NO_BRAIN, row, row
    elif kind == "swap":
        others = np.flatnonzero(np.array(groups) != groups[row])
        if not len(others):
            raise PixmedError("sample.edit=swap: all slices are of one patient; give another sample.split")
        for other in rng.permutation(others)[:_PARTNERS].tolist():
            if own.tumor.any():
                yield _swap(scene(other), own), other, row
            elif scene(other).tumor.any():
                yield _swap(own, scene(other)), row, other
    elif not own.tumor.any():
        yield "no tumour", row, row
    elif kind == "remove":
        yield Change(own._replace(tumor=np.zeros_like(own.tumor)), "", None), row, row
    else:
        for _ in range(_TRIES):
            outcome = {"move": _move, "scale": _scale, "warp": _warp, "deform": _deform}[kind](own, rng)
            same = not isinstance(outcome, str) and all(map(np.array_equal, outcome.scene[:2], own[:2]))
            yield "nothing changed" if same else outcome, row, row
