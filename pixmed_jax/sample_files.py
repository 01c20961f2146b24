"""The folder that a sampling writes: its files, the manifest, and whether one that is there may be replaced.

    OUTPUT/images/00000.png      8-bit grey (RGB where the training images had colours); of the mask of slice
                                 12 in case7.nii.gz 00000_case7_012.png
    OUTPUT/masks/00000.png       0 and 255: the tumour, in the layout that `data.source=folder` reads
    OUTPUT/conditions/00000.png  palette picture of the label map that the generator was given
    OUTPUT/trained_on.json       files and patients that generator and layout model were trained on, if known
    OUTPUT/data_sheet.md, .json  what the set is, whom it comes from, what it may be used for
    OUTPUT/manifest.csv          file, mask, label, patient_group, source, seed, step, config, low, high,
                                 pixel, and how the mask was edited: edit, parameters, tumor_source,
                                 tumor_group, grade;
                                 where layouts were drawn also layout (model and step), where images were
                                 enlarged upscale, upscaler (with its step)

`source` and `patient_group` name whose anatomy it is, `tumor_source` and `tumor_group` whose tumour.
`parameters` say what an edit did, or the plane that a layout was drawn in.
`grade` is "reconstruction" for a patient's own map, painted again, which is for measuring only; "recombined"
for an edited one; "sampled" where no patient's map was given; empty for masks from a folder, since nobody
knows whose they are.

A model conditioned on the label alone writes no masks and no conditions, and its slices belong to no patient:
the columns mask, patient_group and source stay empty.

With `format` "png16" images have 16 bits; with "nifti" images and masks (0 and 1) are .nii.gz files whose
images hold values in the units of the training data. In pictures, 0 and the brightest value stand for `low`
and `high` in those units: the limits of `source`, or the checkpoint's own for masks from a folder. `pixel` is
the side of a pixel in mm, of the anatomy's slice, empty where its file does not say; NIfTI files then have 1.
"""

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from pixmed_jax import conditions, pictures, texts, writing
from pixmed_jax.data import edits, intensity, nifti
from pixmed_jax.data.regions import is_tumor
from pixmed_jax.data.synthetic import DATA_SHEET, MANIFEST, NO_TUMOR, RECOMBINED, TRAINED_ON
from pixmed_jax.errors import PixmedError

_FIRST_COLUMNS = ("file", "mask", "label", "patient_group", "source", "seed", "step", "config")
COLUMNS = (*_FIRST_COLUMNS, "low", "high", "pixel")
EDIT_COLUMNS = ("edit", "parameters", "tumor_source", "tumor_group", "grade")
FORMATS = {"png": ".png", "png16": ".png", "nifti": ".nii.gz"}
_FOLDERS = ("images", "masks", "conditions")
_SHEETS = (f"{DATA_SHEET}.json", f"{DATA_SHEET}.md")


class Units(NamedTuple):
    """What a picture's numbers stand for: values of its black and white, the side of a pixel in mm."""

    limits: Sequence[float]
    pixel: float | None

    def told(self) -> tuple[str, ...]:
        """The manifest's low, high and pixel."""
        low, high = (f"{value:.15g}" for value in self.limits)
        return low, high, "" if self.pixel is None else f"{self.pixel:.6g}"


def make_folders(folder: Path, generator: conditions.Painter) -> None:
    for name in _FOLDERS if generator.takes_maps else _FOLDERS[:1]:
        (folder / name).mkdir()


def write_manifest(folder: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    writing.write_text(folder / MANIFEST, texts.csv_table([columns, *rows]))


def told(drawn: edits.Edited, given: conditions.Conditions) -> tuple[str, ...]:
    """What the manifest says of an edit: label, patient_group, source, and EDIT_COLUMNS."""
    removed = drawn.edit == "remove"
    return (
        NO_TUMOR if removed else given.label_of(drawn.map, drawn.tumor_row),
        given.groups[drawn.row],
        given.files[drawn.row],
        drawn.edit,
        drawn.parameters,
        "" if removed else given.files[drawn.tumor_row],
        "" if removed else given.groups[drawn.tumor_row],
        given.grade if drawn.edit == "none" else RECOMBINED,
    )


def is_ours(target: Path) -> bool:
    """Whether `target` may be replaced: it is not there, empty, or holds an earlier sampling and no more."""
    try:
        names = {p.name for p in target.iterdir() if not writing.is_bystander(p.name)}
        if not names:
            return True
        with (target / MANIFEST).open(newline="", encoding="utf-8") as table:
            rows = csv.DictReader(table)
            files = {row["file"] for row in rows}
            columns = tuple(rows.fieldnames or ())
    except FileNotFoundError:
        return not target.exists()
    except (OSError, ValueError, KeyError, csv.Error):
        return False
    # Older versions wrote the first columns only.
    ours = columns[: len(_FIRST_COLUMNS)] == _FIRST_COLUMNS
    if not ours or not names <= {*_FOLDERS, MANIFEST, TRAINED_ON, *_SHEETS}:
        return False
    written = {f"{folder}/{file}" for folder in ("images", "masks") for file in files}
    written |= {f"conditions/{file.removesuffix('.nii.gz').removesuffix('.png')}.png" for file in files}
    found = [path for folder in _FOLDERS for path in (target / folder).rglob("*")]
    others = [path for path in found if path.relative_to(target).as_posix() not in written]
    return all(writing.is_bystander(path.name) for path in others)


def check_same(
    target: Path,
    settings: Mapping[str, Any],
    made_by: tuple[str, int | None],
    sources: Sequence[str] | None,
) -> None:
    """PixmedError, if `target` holds a sampling of other settings, of another run, or drawn from other masks.

    made_by: the digest of the run's config, and the step, None for any. sources: the files of a folder of
    masks, which has no name in the settings.
    """
    if not (target / MANIFEST).exists():
        return
    try:
        sheet = texts.read_object(target / f"{DATA_SHEET}.json")
        theirs, of = dict(sheet["settings"]), (sheet["generator"]["config"], sheet["generator"]["step"])
        with (target / MANIFEST).open(newline="", encoding="utf-8") as table:
            known = [row["source"] for row in csv.DictReader(table)] if sources is not None else None
    except (OSError, ValueError, KeyError, TypeError):  # written by an older version
        theirs, of, known = {}, ("", None), None
    digest, step = made_by
    if theirs == settings and known == sources and digest == of[0] and step in (None, of[1]):
        return
    told = {**theirs, "step": of[1]} if theirs else {}
    which = " ".join(f"--sample.{key}={value}" for key, value in told.items()) or "of an older version"
    if theirs and digest != of[0]:
        which = f"of another run, config {of[0]}"
    raise PixmedError(
        f"{target}: holds another sampling ({which}); give another --sample.output, or --fresh to replace it"
    )


def write_pair(
    folder: Path,
    name: str,
    image: np.ndarray,
    condition: np.ndarray,
    generator: conditions.Painter,
    units: Units,
    format: str,
    upscale: int,
) -> None:
    if generator.grey:
        image = pictures.grey(image[None])[0]
    _write_image(folder / "images" / name, image, units, format)
    if not generator.takes_maps:
        return
    condition = condition.repeat(upscale, 0).repeat(upscale, 1)
    tumors = [i + 1 for i, name in enumerate(generator.classes) if is_tumor(name)]
    mask = np.isin(condition, tumors)
    if format == "nifti":
        (folder / "masks" / name).write_bytes(nifti.nifti_bytes(mask.astype(np.uint8), pixel=units.pixel))
    else:
        Image.fromarray(np.where(mask, 255, 0).astype(np.uint8)).save(folder / "masks" / name)
    palette = Image.fromarray(condition.astype(np.uint8), mode="P")
    palette.putpalette(pictures.palette(generator.classes).tobytes())
    palette.save(folder / "conditions" / f"{name.removesuffix(FORMATS[format])}.png")


def _write_image(path: Path, image: np.ndarray, units: Units, format: str) -> None:
    if format == "nifti":
        low, high = map(float, units.limits)
        path.write_bytes(nifti.nifti_bytes(intensity.encode(image, (0, 1)), (low, high), units.pixel))
        return
    eight = np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)
    Image.fromarray(intensity.encode(image, (0, 1)) if format == "png16" else eight).save(path)
