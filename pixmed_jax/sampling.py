"""A checkpoint and masks in, a synthetic dataset out.

    OUTPUT/images/00000.png      8-bit grey (RGB where the training images had colours); of the mask of slice
                                 12 in case7.nii.gz 00000_case7_012.png
    OUTPUT/masks/00000.png       0 and 255: the tumour, in the layout that `data.source=folder` reads
    OUTPUT/conditions/00000.png  palette picture of the label map that the generator was given
    OUTPUT/trained_on.json       files and patients that generator and layout model were trained on, if known
    OUTPUT/data_sheet.md, .json  what the set is, whom it comes from, what it may be used for
    OUTPUT/manifest.csv          file, mask, label, patient_group, source, seed, step, config, low, high, and
                                 how the mask was edited: edit, parameters, tumor_source, tumor_group, grade;
                                 where layouts were drawn also layout (model and step), where images were
                                 enlarged upscale, upscaler (with its step)

`source` and `patient_group` are whose anatomy a slice has, `tumor_source` and `tumor_group` whose tumour.
`parameters` say what an edit did, or the plane that a layout was drawn in.
`grade` is "reconstruction" for a patient's own map, painted again, which is for measuring only; "recombined"
for an edited one; "sampled" where no patient's map was given; empty for masks from a folder, since nobody
knows whose they are.

A model whose condition is the label alone writes no masks and no conditions, and its slices are nobody's: the
columns mask, patient_group and source stay empty.

With `format` "png16" images have 16 bits; with "nifti" images and masks (0 and 1) are .nii.gz files whose
images hold values in the units of the training data. In pictures, 0 and the brightest value stand for `low`
and `high` in those units: the limits of `source`, or the checkpoint's own for masks from a folder.

The folder appears whole or not at all, and the same checkpoint, masks and seed give the same bytes.
"""

import csv
import io
import json
import sys
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pixmed_jax import conditions, inference, layouts, pictures
from pixmed_jax import config as configs
from pixmed_jax import workdir as run_folder
from pixmed_jax.data import arrays, edits, intensity, nifti
from pixmed_jax.data.regions import is_tumor
from pixmed_jax.data.synthetic import (
    DATA_SHEET,
    MANIFEST,
    NO_TUMOR,
    RECOMBINED,
    SAMPLED,
    TO_TRAIN_WITH,
    TRAINED_ON,
    not_for_training,
)
from pixmed_jax.enhancement import upscaler as upscalers
from pixmed_jax.errors import PixmedError, listing, one_of
from pixmed_jax.evaluation import data_sheet
from pixmed_jax.progress import watched

_FIRST_COLUMNS = ("file", "mask", "label", "patient_group", "source", "seed", "step", "config")
COLUMNS = (*_FIRST_COLUMNS, "low", "high")
EDIT_COLUMNS = ("edit", "parameters", "tumor_source", "tumor_group", "grade")
FORMATS = {"png": ".png", "png16": ".png", "nifti": ".nii.gz"}
_FOLDERS = ("images", "masks", "conditions")
_SHEETS = (f"{DATA_SHEET}.json", f"{DATA_SHEET}.md")


def sample(
    workdir: Path,
    *,
    masks: str = "",
    layout: str = "",
    split: str = "test",
    label: str = "",
    plane: str = "",
    number: int = 0,
    seed: int = 0,
    balance: bool = False,
    edit: str = "none",
    output: str = "",
    step: str = "newest",
    batch_size: int = 8,
    format: str = "png",
    upscale: int = 1,
    upscaler: str = "bicubic",
    fresh: bool = False,
    quiet: bool = False,
) -> Path:
    """Write `number` synthetic slices, say in a line what they are for, and return their folder.

    masks: a folder of masks, pictures or volumes; without it those of the run's `split` are used. Volumes are
        cut along the run's `data.axis`; their slices without a tumour are left out.
    layout: the folder of a run of configs/layout.py, which then draws `number` label maps, of the class
        `label` or of all in turn, in `plane` or in all that it knows; implausible ones are drawn again.
    label: the class of binary masks in `masks`, for a model that knows several; or of every image: of the
        split's masks those of that class, or all that a model is told.
    number: how many; 0 means one per mask. More than there are masks reuses them, each time with a new seed.
    balance: draw the labels equally often.
    edit: make new masks of the split's: "swap" sets a tumour into another patient's anatomy, "move", "scale"
        and "warp" change it in its own, "deform" bends both together, "mixed" draws one of these five;
        "remove" leaves no tumour.
    output: default is `samples` in the run's folder. Only an earlier sampling of the same settings, by any
        step, is replaced.
    step: the checkpoint to use: "newest", "best" or a number.
    format: how images are written: "png" with 8 bits, "png16", or "nifti" in the data's own units.
    upscale: how many times longer than the model's the sides of what is written are: 1, 2, 3 or 4.
    upscaler: what enlarges images: nearest, bilinear, bicubic, lanczos, or the folder of a run of
        configs/super_resolution.py or configs/srgan.py. Masks and label maps take the nearest pixel.
    fresh: replace an earlier sampling of other settings too.
    quiet: leave that line out, for who knows what they are for.
    """
    one_of("sample.format", format, FORMATS)
    if format == "nifti":
        arrays.library("nibabel")
    for name, value, least in (("number", number, 0), ("seed", seed, 0), ("batch_size", batch_size, 1)):
        if value < least:
            raise PixmedError(f"sample.{name}={value}: give {least} or more")
    one_of("sample.edit", edit, edits.EDITS)
    if layout and masks:
        raise PixmedError("sample.layout draws the masks itself; leave sample.masks out")
    if (masks or layout) and edit != "none":
        option = "masks" if masks else "layout"
        raise PixmedError(
            f"sample.edit={edit} looks for the brain in the slices of the run; leave sample.{option} out"
        )
    if upscale == 1 and upscaler != "bicubic":
        raise PixmedError(f"sample.upscaler={upscaler}: enlarges nothing by sample.upscale=1; give 2, 3 or 4")
    if plane and not layout:
        raise PixmedError("sample.plane is for what sample.layout draws; leave it out")
    generator = inference.load(workdir, step)
    if format != "png" and not generator.grey:
        raise PixmedError(f"sample.format={format}: this model makes colours; use png")
    target = (Path(output) if output else workdir / "samples").absolute()
    if masks:
        given_at, written_at = Path(masks).resolve(), target.resolve()
        if given_at == written_at or given_at in written_at.parents or written_at in given_at.parents:
            raise PixmedError(
                f"sample.masks={masks}: lies in {target}, which is written anew, or holds it; give another "
                "sample.output"
            )
    if not _is_ours(target):
        raise PixmedError(f"{target}: holds other files; give an empty folder as sample.output")
    if not generator.takes_maps and (masks or layout or edit != "none"):
        option = "masks" if masks else "layout" if layout else "edit"
        raise PixmedError(f"sample.{option}: this model knows no masks; leave it out")
    refused: Counter[str] = Counter()
    how: dict[str, int | str] = {}  # columns that are the same for all
    if not generator.takes_maps and (label or balance):
        given = conditions.of_labels((label,) if label else generator.classes, generator)
    elif layout:
        model = layouts.load(layout)
        given = conditions.of_layouts(model, label, plane, number, seed, generator, refused)
        how["layout"] = f"{model.config['name']}@{model.step}"
    elif masks:
        given = conditions.of_folder(Path(masks), label, generator)
    else:
        given = conditions.of_split(workdir, split, generator)
    enlarge = upscalers.upscaler(upscaler, upscale, stage="sample.upscale") if upscale != 1 else None
    if enlarge:
        how |= {"upscale": upscale, "upscaler": enlarge.told}
    chosen = np.arange(len(given.labels))
    if label and not (masks or layout):
        chosen = np.flatnonzero(np.array(given.labels) == label)
        if not len(chosen):
            known = listing(sorted(set(given.labels)))
            raise PixmedError(
                f"sample.label={label!r}: no slice of sample.split={split} has it; they have {known}"
            )
    labels = [given.labels[row] for row in chosen]
    order = chosen[conditions.ordered(labels, number or len(labels), balance and not layout)]
    seeds = inference.image_seeds(seed, len(order))
    digest = configs.digest(generator.config)
    options = {
        "label": label, "plane": plane, "number": len(order), "seed": seed, "balance": balance,
        "edit": edit, "format": format, **how,
    }  # fmt: skip
    if not fresh:
        asked = int(step) if str(step).isdigit() else None
        sources = [given.files[row] for row in order] if masks else None
        _check_same(target, data_sheet.settings(bool(masks), split, options), asked, sources)

    def edited(i: int) -> edits.Edited:
        row = int(order[i])
        if edit == "none" or given.scene is None:
            told = given.parameters[row] if given.parameters else ""
            return edits.Edited(given.maps[row], row, row, "none", told)
        rng = np.random.default_rng([seed, i])
        return edits.draw(edit, row, given.scene, given.labels, given.groups, rng, refused)

    with run_folder.replaced(target, "free space, or give sample.output") as draft:
        for folder in _FOLDERS if generator.takes_maps else _FOLDERS[:1]:
            (draft / folder).mkdir()
        rows = []
        for start in watched(range(0, len(order), batch_size), -(-len(order) // batch_size), "sampling"):
            part = [edited(i) for i in range(start, min(start + batch_size, len(order)))]
            images = generator(
                np.stack([drawn.map for drawn in part]),
                seeds=seeds[start : start + batch_size],
                batch_size=batch_size,
            )
            for i, (image, drawn) in enumerate(zip(images, part, strict=True), start):
                stem = f"{i:05d}" + (given.suffixes[drawn.row] if given.suffixes else "")
                name, limits = stem + FORMATS[format], given.limits[drawn.row]
                image = enlarge.run(image) if enlarge else image
                _write(draft, name, image, drawn.map, generator, limits, format, upscale)
                told = _told(drawn, given)
                units = [f"{value:.15g}" for value in limits]
                mask = name if generator.takes_maps else ""
                made = (seeds[i], generator.step, digest, *units)
                rows.append((name, mask, *told[:3], *made, *told[3:], *how.values()))
        behind = [_trained_on(Path(run)) for run in (workdir, layout, enlarge and enlarge.workdir) if run]
        if None not in behind:
            files = {file: group for of in behind for file, group in (of or {}).items()}
            about = {"step": generator.step, "config": digest, "files": files}
            run_folder.write_json(draft / TRAINED_ON, about)
        table = io.StringIO(newline="")
        columns = (*COLUMNS, *EDIT_COLUMNS, *how)
        csv.writer(table, lineterminator="\n").writerows([columns, *rows])
        run_folder.write_text(draft / MANIFEST, table.getvalue())
        table_rows = [dict(zip(columns, row, strict=True)) for row in rows]
        why = not_for_training(table_rows, behind[0])
        data_sheet.write(
            draft,
            workdir,
            config=generator.config,
            step=generator.step,
            masks=bool(masks),
            split=split,
            options=options,
            rows=table_rows,
            why=why,
            traced=None not in behind,
        )
    if refused:
        reasons = ", ".join(f"{count} {reason}" for reason, count in refused.most_common())
        what = "layouts" if layout else "edits"
        print(f"{len(order)} {what}, and {refused.total()} refused and drawn again: {reasons}")
    if not quiet:
        print(_purpose(workdir, target, {row["grade"] for row in table_rows}, why))
    return target


def _purpose(workdir: Path, target: Path, grades: Collection[str], why: str) -> str:
    """What the slices in `target` are for, in a line for the terminal."""
    if why:
        return (
            f"not to train with: {why}; to train with: python launch.py --workdir={workdir} {TO_TRAIN_WITH}"
        )
    if RECOMBINED in grades:
        return "to train with, not to share: parts of training patients, newly arranged"
    if SAMPLED in grades:
        audit = f"python launch.py --workdir={workdir} --mode=audit --audit.samples={target}"
        return f"to train with, and to share once an audit finds no leak: {audit}"
    return "of masks whose patients nobody knows here: to train with where none of them is tested on"


def _trained_on(workdir: Path) -> dict[str, str] | None:
    """{file: patient group} of what a run was trained on, and of who is behind that."""
    seen = run_folder.trained_on(workdir)
    if seen is None:
        path = workdir / run_folder.SPLIT
        print(
            f"{path}: does not say whom the weights have seen, so no {TRAINED_ON} is written", file=sys.stderr
        )
    return seen


def _told(drawn: edits.Edited, given: conditions.Conditions) -> tuple[str, ...]:
    """What the manifest says of an edit: label, patient_group, source, and EDIT_COLUMNS."""
    removed = drawn.edit == "remove"
    return (
        NO_TUMOR if removed else given.labels[drawn.tumor_row],
        given.groups[drawn.row],
        given.files[drawn.row],
        drawn.edit,
        drawn.parameters,
        "" if removed else given.files[drawn.tumor_row],
        "" if removed else given.groups[drawn.tumor_row],
        given.grade if drawn.edit == "none" else RECOMBINED,
    )


def _is_ours(target: Path) -> bool:
    """Whether `target` may be replaced: it is not there, empty, or holds an earlier sampling and no more."""
    try:
        names = {p.name for p in target.iterdir()}
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
    return all(path.relative_to(target).as_posix() in written for path in found)


def _check_same(
    target: Path, settings: Mapping[str, Any], step: int | None, sources: Sequence[str] | None
) -> None:
    """PixmedError, if `target` holds a sampling of other settings, or drawn from other masks.

    step: None for any. sources: the files of a folder of masks, which has no name in the settings.
    """
    if not (target / MANIFEST).exists():
        return
    try:
        sheet = json.loads((target / f"{DATA_SHEET}.json").read_text(encoding="utf-8"))
        theirs, made_by = dict(sheet["settings"]), sheet["generator"]["step"]
        with (target / MANIFEST).open(newline="", encoding="utf-8") as table:
            known = [row["source"] for row in csv.DictReader(table)] if sources is not None else None
    except (OSError, ValueError, KeyError, TypeError):  # written by an older version
        theirs, made_by, known = {}, None, None
    if theirs == settings and known == sources and step in (None, made_by):
        return
    told = {**theirs, "step": made_by} if theirs else {}
    which = " ".join(f"--sample.{key}={value}" for key, value in told.items()) or "of an older version"
    raise PixmedError(
        f"{target}: holds another sampling ({which}); give another --sample.output, or --fresh to replace it"
    )


def _write(
    folder: Path,
    name: str,
    image: np.ndarray,
    condition: np.ndarray,
    generator: inference.Generator,
    limits: Sequence[float],
    format: str,
    upscale: int,
) -> None:
    if generator.grey:
        image = pictures.grey(image[None])[0]
    _write_image(folder / "images" / name, image, limits, format)
    if not generator.takes_maps:
        return
    condition = condition.repeat(upscale, 0).repeat(upscale, 1)
    tumors = [i + 1 for i, name in enumerate(generator.classes) if is_tumor(name)]
    mask = np.isin(condition, tumors)
    if format == "nifti":
        (folder / "masks" / name).write_bytes(nifti.nifti_bytes(mask.astype(np.uint8)))
    else:
        Image.fromarray(np.where(mask, 255, 0).astype(np.uint8)).save(folder / "masks" / name)
    palette = Image.fromarray(condition.astype(np.uint8), mode="P")
    palette.putpalette(pictures.palette(generator.classes).tobytes())
    palette.save(folder / "conditions" / f"{name.removesuffix(FORMATS[format])}.png")


def _write_image(path: Path, image: np.ndarray, limits: Sequence[float], format: str) -> None:
    if format == "nifti":
        low, high = limits
        path.write_bytes(nifti.nifti_bytes(intensity.encode(image, (0, 1)), (float(low), float(high))))
        return
    eight = np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)
    Image.fromarray(intensity.encode(image, (0, 1)) if format == "png16" else eight).save(path)
