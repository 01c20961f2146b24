"""Which files of two folders are an image and its masks, by their names, and what their headers say.

A mask has its image's stem, or NAME_mask, or NAME_CLASS for each class; in one folder with the images it is
called NAME_mask or NAME_seg. A folder of DICOM files is a series
where the mask is one volume with the folder's name, and single slices where each file has its own mask.
No pixel is decoded. Faults are returned, with all their names.
"""

import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from pixmed_jax.data import arrays, decode, dicom, volumes
from pixmed_jax.data import masks as encodings
from pixmed_jax.data.faults import Fault, named, not_utf8
from pixmed_jax.errors import PixmedError, listing
from pixmed_jax.progress import watched

NO_MASK = "images without a mask"
NO_IMAGE = "masks without an image"
NO_CLASS = "images without the mask of a class"
LONE = {NO_MASK, NO_IMAGE, NO_CLASS}  # faults that concern these files alone
_MASKS = ("mask", "seg")  # what masks are called beside their images
FORMATS = "PNG, JPEG, TIFF, BMP, DICOM, NIfTI, .mat, .npy or .npz"

Paths = tuple[Path, ...]  # of one picture or volume: a file, or the files of a DICOM series


class Entry(NamedTuple):
    """The files of an image and of its masks, by their names; `fault` says what is missing."""

    stem: str
    image: Paths
    masks: list[Paths]
    fault: str = ""


class Item(NamedTuple):
    """A picture or a volume with its mask, or its masks for each class; `shape` is [slices, H, W].

    Pictures are known by their path, everything else by its header. `fault` says why an item cannot be used.
    """

    name: str
    image: Path | arrays.Array
    masks: tuple[Path | arrays.Array, ...]
    shape: tuple[int, int, int]
    fault: str = ""


def slice_name(item: Item, k: int) -> str:
    return item.name if item.shape[0] == 1 else f"{item.name}#{k:03d}"


def path_of(thing: Path | arrays.Array) -> str:
    return str(thing) if isinstance(thing, Path) else thing.name


def scan_both(
    root: Path, images: str, masks: str, keys: str
) -> tuple[dict[str, Paths], dict[str, Paths], list[Fault]]:
    """`scan` of images and of masks, and all that is wrong; keys: the section that names them, "data"."""
    image_paths, faults = scan(root / images, f"{keys}.images")
    if not image_paths or (root / images).resolve() != (root / masks).resolve():
        mask_paths, of_masks = scan(root / masks, f"{keys}.masks")
        return image_paths, mask_paths, faults + of_masks
    mask_paths = {
        stem: of
        for stem, of in image_paths.items()
        if is_mask(stem) and stem.rpartition("_")[0] in image_paths
    }
    if not mask_paths:
        names = " or ".join(f"NAME_{name}" for name in _MASKS)
        what = f"images and masks are to be in one folder, and nothing there is called {names}"
        faults.append(Fault(what, [], f"set {keys}.masks"))
    return {stem: of for stem, of in image_paths.items() if stem not in mask_paths}, mask_paths, faults


def is_mask(stem: str) -> bool:
    """Whether a file is called as masks are that lie beside their images."""
    name, _, what = stem.rpartition("_")
    return bool(name) and what.lower() in _MASKS


def scan(folder: Path, key: str) -> tuple[dict[str, Paths], list[Fault]]:
    """{relative path without suffix, composed: path} of the images in a folder, and what is wrong with it."""
    if not folder.is_dir():
        return {}, [Fault(f"no folder {folder.name}", [], f"set {key}")]
    paths: dict[str, Paths] = {}
    twice, others = [], set()
    files = arrays.files_below(folder)
    for path in files:
        name = path.relative_to(folder).as_posix()
        if not volumes.is_image(path):
            others.add(path.suffix or path.name)
        elif (stem := composed(stem_of(name))) in paths:
            twice.append(f"{folder.name}/{name}")
        else:
            paths[stem] = (path,)
    faults = not_utf8(files, folder)
    faults += named("files share their stem with another", twice, "keep one of each")
    if not paths:
        seen = f" but files of {listing(sorted(others))}" if others else ""
        faults.append(Fault(f"no {FORMATS} files in {folder.name}{seen}", [], f"set {key}"))
    return paths, faults


def composed(name: str) -> str:
    """A name with its accents in one character each (NFC): macOS parts them, and other systems do not."""
    return unicodedata.normalize("NFC", name)


def stem_of(name: str) -> str:
    """A relative path without the suffix, if that is one of an image."""
    suffix = arrays.suffix(Path(name))
    known = suffix in decode.SUFFIXES or suffix in volumes.SUFFIXES
    return name[: -len(suffix)] if known else name


def _join_series(image_paths: dict[str, Paths], mask_paths: dict[str, Paths]) -> None:
    """Make one entry of the DICOM files in a folder whose mask is one file with the folder's name.

    A folder of DICOM masks beside it is then one volume too.
    """
    for paths, others in ((image_paths, mask_paths), (mask_paths, image_paths)):
        folders: dict[str, list[str]] = {}
        for stem, found in paths.items():
            if volumes.is_dicom(found[0]):
                folders.setdefault(str(PurePosixPath(stem).parent), []).append(stem)
        for name, stems in folders.items():
            if name in others or f"{name}_mask" in others:
                paths[name] = tuple(paths.pop(stem)[0] for stem in stems)


def pair(
    image_paths: dict[str, Paths], mask_paths: dict[str, Paths]
) -> tuple[list[Entry], tuple[str, ...], list[Fault]]:
    """Images with their masks sorted by stem, the classes of several masks each, and the files left alone.

    The files of a DICOM series become one entry, here and in the arguments. For who wants to go on without
    them, images without a mask, or without that of a class, are among the entries, and behind all of them
    masks without an image.
    """
    if not image_paths or not mask_paths:  # that fault is known; thousands of lone files add nothing
        return [], (), []
    _join_series(image_paths, mask_paths)
    partners: dict[str, dict[str, str]] = {stem: {} for stem in image_paths}  # class: stem of the mask
    lone_masks, contested = [], []
    for stem in sorted(mask_paths):
        owner, part = stem, ""
        if stem not in partners:
            owner, _, part = stem.rpartition("_")
            part = "" if part == "mask" else part
        if owner not in partners:
            lone_masks.append(stem)
        elif part in partners[owner]:
            contested += [mask_paths[stem][0].name, mask_paths[partners[owner][part]][0].name]
        else:
            partners[owner][part] = stem
    lone_images = [image_paths[stem][0].name for stem, found in partners.items() if not found]
    contested += [
        mask_paths[stem][0].name
        for found in partners.values()
        if "" in found and len(found) > 1
        for stem in found.values()
    ]
    kinds = {tuple(sorted(found)) for found in partners.values() if found}
    lacks: dict[str, str] = {}
    if not contested and len(kinds) > 1:  # NAME_CLASS for some classes only: which ones are empty?
        every = set().union(*kinds)
        lacks = {
            stem: f"lacks {listing(sorted(every - set(found)))}"
            for stem, found in partners.items()
            if every - set(found)
        }
    odd = [f"{image_paths[stem][0].name} {told}" for stem, told in lacks.items()]
    faults = named(NO_MASK, lone_images, "add the masks or remove the images")
    lone_names = [mask_paths[stem][0].name for stem in lone_masks]
    faults += named(NO_IMAGE, lone_names, "add the images or remove the masks")
    faults += named("masks for an image that has another", set(contested), "keep one of each")
    faults += named(NO_CLASS, odd, "add it, empty if need be")
    classes = tuple(name for name in max(kinds, key=len, default=()) if name != encodings.BACKGROUND)
    entries = []
    for stem, found in sorted(partners.items()):
        masks = [mask_paths[found[part]] for part in _background_first(found)]
        entries.append(Entry(stem, image_paths[stem], masks, lacks.get(stem, "") if found else "has no mask"))
    entries += [Entry(stem, (), [mask_paths[stem]], "has no image") for stem in lone_masks]
    return entries, classes if len(max(kinds, key=len, default=())) > 1 else (), faults


def _background_first(parts: Iterable[str]) -> list[str]:
    return sorted(parts, key=lambda part: (part != encodings.BACKGROUND, part))


def open_pairs(folder: Path, entries: Sequence[Entry], axis: str) -> tuple[list[Item], list[Fault]]:
    """The pairs by their headers; those that disagree, and files whose header cannot be used.

    These are among the pairs, too, for who wants to go on without them; so is what is no pair.
    """
    items, broken, unequal = [], [], []
    for stem, image_paths, mask_paths, missing in watched(entries, len(entries), "reading headers"):
        if not image_paths:
            items.append(incomplete(stem, mask_paths[0][0], missing))
            continue
        name = image_paths[0].relative_to(folder).as_posix() if len(image_paths) == 1 else stem
        if missing:
            items.append(incomplete(name, image_paths[0], missing))
            continue
        try:
            image = open_entry(image_paths, folder / stem, "image")
            masks = tuple(
                volumes.aligned(open_entry(paths, paths[0].parent, "mask"), image) for paths in mask_paths
            )
            shape = shape_of(image, axis)
            others = [shape_of(mask, axis) for mask in masks]
        except PixmedError as error:
            broken.append(str(error))
            masks = tuple(paths[0] for paths in mask_paths)
            items.append(Item(name, image_paths[0], masks, (1, 0, 0), str(error)))
            continue
        fault = ""
        if any(other != shape for other in others):
            shown = [sizes(s) for s in (shape, next(other for other in others if other != shape))]
            told = f"{image_paths[0].name if len(image_paths) == 1 else stem} {' against '.join(shown)}"
            unequal.append(told)
            fault = f"{path_of(masks[0])}: its mask differs in size, {told}"
        items.append(Item(name, image, masks, shape, fault))
    return items, [
        *named(
            "masks differ in size from their image", unequal, "export both at one size, a mask to each slice"
        ),
        *named("files are unusable", broken, "replace them"),
    ]


def incomplete(name: str, path: Path, fault: str) -> Item:
    """In the place of a pair whose other half is missing."""
    return Item(name, path, (), (1, 0, 0), f"{path}: {fault}")


def open_entry(paths: Paths, folder: Path, wanted: str) -> Path | arrays.Array:
    if len(paths) > 1:
        return dicom.open_series(folder, paths)
    if arrays.suffix(paths[0]) in decode.SUFFIXES:
        return paths[0]
    return volumes.open_array(paths[0], wanted)


def shape_of(thing: Path | arrays.Array, axis: str) -> tuple[int, int, int]:
    """[slices, H, W] from the header."""
    if isinstance(thing, Path):
        return (1, *decode.read_size(thing))
    depth, height, width, *_ = volumes.stack_shape(thing, axis)
    if min(height, width) == 1:
        raise PixmedError(
            f"{thing.name}: gives {depth} pictures of {height} x {width}; set data.axis to the axis that "
            "counts its slices"
        )
    return depth, height, width


def sizes(shape: tuple[int, int, int]) -> str:
    depth, height, width = shape
    return f"{height}x{width}" if depth == 1 else f"{depth} slices of {height}x{width}"
