"""A checkpoint and masks in, a synthetic dataset out.

    OUTPUT/images/00000.png      8-bit grey (RGB where the training images had colours); of the mask of slice
                                 12 in case7.nii.gz 00000_case7_012.png
    OUTPUT/masks/00000.png       0 and 255: the tumour, in the layout that `data.source=folder` reads
    OUTPUT/conditions/00000.png  palette picture of the label map that the generator was given
    OUTPUT/trained_on.json       files and patients that the generator was trained on, where known
    OUTPUT/data_sheet.md, .json  what the set is, whom it comes from, what it may be used for
    OUTPUT/manifest.csv          file, mask, label, patient_group, source, seed, step, config, low, high, and
                                 how the mask was edited: edit, parameters, tumor_source, tumor_group, grade;
                                 where images were enlarged also upscale, upscaler (with its step)

`source` and `patient_group` are whose anatomy a slice has, `tumor_source` and `tumor_group` whose tumour.
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
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from pixmed_jax import config as configs
from pixmed_jax import inference, pictures
from pixmed_jax import workdir as run_folder
from pixmed_jax.data import arrays, edits, intensity, mask_files, nifti
from pixmed_jax.data.regions import is_tumor, known_heads
from pixmed_jax.data.sources import open_dataset
from pixmed_jax.data.synthetic import (
    DATA_SHEET,
    MANIFEST,
    NO_TUMOR,
    RECOMBINED,
    RECONSTRUCTION,
    SAMPLED,
    TRAINED_ON,
)
from pixmed_jax.data.tissues import survey
from pixmed_jax.enhancement import upscaler as upscalers
from pixmed_jax.errors import PixmedError, listing
from pixmed_jax.evaluation import data_sheet
from pixmed_jax.progress import watched

_FIRST_COLUMNS = ("file", "mask", "label", "patient_group", "source", "seed", "step", "config")
COLUMNS = (*_FIRST_COLUMNS, "low", "high")
EDIT_COLUMNS = ("edit", "parameters", "tumor_source", "tumor_group", "grade")
UPSCALE_COLUMNS = ("upscale", "upscaler")  # only where images were enlarged
FORMATS = {"png": ".png", "png16": ".png", "nifti": ".nii.gz"}
_SHEETS = (f"{DATA_SHEET}.json", f"{DATA_SHEET}.md")
_SCENES = 1024  # slices kept taken apart: 80 kB each at 128 x 128


class Conditions(NamedTuple):
    """Label maps [N, S, S] uint8, or labels [N], to draw from; the label, patient group and file of each.

    `limits` [N, 2] are the values that 0 and 1 stand for in the images. `suffixes` go into the names of what
    is drawn from each: the volume and the slice. `scene` takes one of the maps apart for an edit; masks
    without their slices have none. `grade` is that of what is drawn from them as they are.
    """

    maps: np.ndarray
    labels: tuple[str, ...]
    groups: tuple[str, ...]
    files: tuple[str, ...]
    limits: np.ndarray
    grade: str = ""
    scene: Callable[[int], edits.Scene] | None = None
    suffixes: tuple[str, ...] = ()


def sample(
    workdir: Path,
    *,
    masks: str = "",
    split: str = "test",
    label: str = "",
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
) -> Path:
    """Write `number` synthetic slices and return their folder.

    masks: a folder of masks, pictures or volumes; without it those of the run's `split` are used. Volumes are
        cut along the run's `data.axis`; their slices without a tumour are left out.
    label: the class of binary masks in `masks`, for a model that knows several; or of every image, where the
        label is all that the model is told.
    number: how many; 0 means one per mask. More than there are masks reuses them, each time with a new seed.
    balance: draw the labels equally often.
    edit: make new masks of the split's: "swap" sets a tumour into another patient's anatomy, "move", "scale"
        and "warp" change it in its own, "deform" bends both together, "mixed" draws one of these five;
        "remove" leaves no tumour.
    output: default is `samples` in the run's folder. Another folder is only replaced if a sampling wrote it.
    step: the checkpoint to use: "newest", "best" or a number.
    format: how images are written: "png" with 8 bits, "png16", or "nifti" in the data's own units.
    upscale: how many times longer than the model's the sides of what is written are: 1, 2, 3 or 4.
    upscaler: what enlarges images: nearest, bilinear, bicubic, lanczos, or the folder of a run of
        configs/super_resolution.py or configs/srgan.py. Masks and label maps take the nearest pixel.
    """
    if format not in FORMATS:
        raise PixmedError(f"sample.format={format!r} is not one of {', '.join(FORMATS)}")
    if format == "nifti":
        arrays.library("nibabel")
    for name, value, least in (("number", number, 0), ("seed", seed, 0), ("batch_size", batch_size, 1)):
        if value < least:
            raise PixmedError(f"sample.{name}={value}: give {least} or more")
    if edit not in edits.EDITS:
        raise PixmedError(f"sample.edit={edit!r} is unknown; use one of {listing(edits.EDITS)}")
    if masks and edit != "none":
        raise PixmedError(
            f"sample.edit={edit} looks for the brain in the slices of the run; leave sample.masks out"
        )
    generator = inference.load(workdir, step)
    if format != "png" and not generator.grey:
        raise PixmedError(f"sample.format={format}: this model makes colours; use png")
    target = (Path(output) if output else workdir / "samples").absolute()
    if not _is_ours(target):
        raise PixmedError(f"{target}: holds other files; give an empty folder as sample.output")
    if not generator.takes_maps and (masks or edit != "none"):
        raise PixmedError(f"sample.{'masks' if masks else 'edit'}: this model knows no masks; leave it out")
    if not generator.takes_maps and (label or balance):
        conditions = _of_labels((label,) if label else generator.classes, generator)
    elif masks:
        conditions = _from_folder(Path(masks), label, generator)
    else:
        conditions = _from_split(workdir, split, generator)
    enlarge = upscalers.upscaler(upscaler, upscale, stage="sample.upscale") if upscale != 1 else None
    how = (upscale, enlarge.told) if enlarge else ()
    order = _order(conditions.labels, number or len(conditions.files), balance)
    seeds = inference.image_seeds(seed, len(order))
    digest = configs.digest(generator.config)
    refused: Counter[str] = Counter()

    def edited(i: int) -> edits.Edited:
        row = int(order[i])
        if edit == "none" or conditions.scene is None:
            return edits.Edited(conditions.maps[row], row, row, "none", "")
        rng = np.random.default_rng([seed, i])
        return edits.draw(edit, row, conditions.scene, conditions.labels, conditions.groups, rng, refused)

    with run_folder.replaced(target, "free space, or give sample.output") as draft:
        for folder in ("images", "masks", "conditions") if generator.takes_maps else ("images",):
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
                stem = f"{i:05d}" + (conditions.suffixes[drawn.row] if conditions.suffixes else "")
                name, limits = stem + FORMATS[format], conditions.limits[drawn.row]
                image = enlarge.run(image) if enlarge else image
                _write(draft, name, image, drawn.map, generator, limits, format, upscale)
                told = _told(drawn, conditions)
                units = [f"{value:.15g}" for value in limits]
                mask = name if generator.takes_maps else ""
                rows.append(
                    (name, mask, *told[:3], seeds[i], generator.step, digest, *units, *told[3:], *how)
                )
        trained_on = _trained_on(workdir)
        if enlarge and enlarge.workdir and trained_on is not None:
            trained_on |= _trained_on(enlarge.workdir) or {}
        if trained_on is not None:
            about = {"step": generator.step, "config": digest, "files": trained_on}
            run_folder.write_json(draft / TRAINED_ON, about)
        table = io.StringIO(newline="")
        columns = (*COLUMNS, *EDIT_COLUMNS, *(UPSCALE_COLUMNS if enlarge else ()))
        csv.writer(table, lineterminator="\n").writerows([columns, *rows])
        run_folder.write_text(draft / MANIFEST, table.getvalue())
        data_sheet.write(
            draft,
            workdir,
            config=generator.config,
            step=generator.step,
            masks=bool(masks),
            split=split,
            options={
                "label": label, "number": len(order), "seed": seed, "balance": balance, "edit": edit,
                "format": format, **dict(zip(UPSCALE_COLUMNS, how, strict=False)),
            },
            rows=[dict(zip(columns, row, strict=True)) for row in rows],
        )  # fmt: skip
    if refused:
        reasons = ", ".join(f"{count} {reason}" for reason, count in refused.most_common())
        print(f"{len(order)} edits, and {refused.total()} refused and drawn again: {reasons}")
    return target


def _trained_on(workdir: Path) -> dict[str, str] | None:
    """{file: patient group} of what a run was trained on, synthetic slices' own origins included."""
    path = workdir / run_folder.SPLIT
    try:
        split = json.loads(path.read_text(encoding="utf-8"))
        return {**split.get("behind", {}), **split["train"]}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        print(f"{path}: missing or unreadable, so no {TRAINED_ON} is written", file=sys.stderr)
        return None


def _told(drawn: edits.Edited, conditions: Conditions) -> tuple[str, ...]:
    """What the manifest says of an edit: label, patient_group, source, and EDIT_COLUMNS."""
    removed = drawn.edit == "remove"
    return (
        NO_TUMOR if removed else conditions.labels[drawn.tumor_row],
        conditions.groups[drawn.row],
        conditions.files[drawn.row],
        drawn.edit,
        drawn.parameters,
        "" if removed else conditions.files[drawn.tumor_row],
        "" if removed else conditions.groups[drawn.tumor_row],
        conditions.grade if drawn.edit == "none" else RECOMBINED,
    )


def _is_ours(target: Path) -> bool:
    """Whether `target` may be replaced: it is not there, empty, or holds an earlier sampling and no more."""
    try:
        names = {p.name for p in target.iterdir()}
        if not names:
            return True
        with (target / MANIFEST).open() as table:
            first = table.readline().strip()
    except FileNotFoundError:
        return not target.exists()
    except (OSError, UnicodeDecodeError):
        return False
    # Older versions wrote the first columns only.
    ours = f"{first},".startswith(",".join(_FIRST_COLUMNS) + ",")
    return ours and names <= {"images", "masks", "conditions", MANIFEST, TRAINED_ON, *_SHEETS}


def _from_split(workdir: Path, split: str, generator: inference.Generator) -> Conditions:
    config = run_folder.read_config(workdir)
    dataset = open_dataset(**config["data"], seed=config["seed"])
    if split not in dataset.rows:
        raise PixmedError(f"sample.split={split!r} is not one of {', '.join(dataset.rows)}")
    arrays, slices = dataset.load(dataset.rows[split], dataset.size)
    labels = tuple(slices.label_names[i] for i in slices.labels)
    maps, tumors = np.asarray(arrays.maps), sum(map(is_tumor, dataset.classes))
    if maps.ndim == 1:
        return _of_labels(labels, generator)
    planes = [dataset.source.planes[row] for row in dataset.rows[split]]

    @lru_cache(_SCENES)
    def scene(i: int) -> edits.Scene:
        (head,) = known_heads(maps[i : i + 1], slices.images[i : i + 1], dataset.condition)
        where = survey(slices.images[i].mean(axis=-1), head, slices.masks[i] > 0)
        return edits.take_apart(maps[i], tumors, where, planes[i])

    return Conditions(maps, labels, slices.groups, slices.files, slices.limits, RECONSTRUCTION, scene)


def _of_labels(labels: Sequence[str], generator: inference.Generator) -> Conditions:
    """Labels alone: slices of nobody, in the units of the checkpoint."""
    unknown = [name for name in labels if name not in generator.classes]
    if unknown:
        raise PixmedError(f"sample.label={unknown[0]!r} is not one of {', '.join(generator.classes)}")
    values = np.array([1 + generator.classes.index(name) for name in labels], np.uint8)
    nobody = ("",) * len(values)
    limits = np.tile(generator.limits, (len(values), 1))
    return Conditions(values, tuple(labels), nobody, nobody, limits, SAMPLED)


def _from_folder(folder: Path, label: str, generator: inference.Generator) -> Conditions:
    """Label maps from a folder of mask pictures and volumes of any size; every faulty one is named."""
    if not folder.is_dir():
        raise PixmedError(f"sample.masks={folder}: no such folder; give one with masks")
    tumors = [name for name in generator.classes if is_tumor(name)]
    if label and label not in tumors:
        raise PixmedError(f"sample.label={label!r} is not one of {', '.join(tumors)}")
    paths = sorted(filter(mask_files.is_mask, folder.iterdir()))
    if not paths:
        raise PixmedError(f"{folder}: holds no mask pictures or volumes ({', '.join(mask_files.SUFFIXES)})")
    maps, files, suffixes, faults = [], [], [], []
    for path in watched(paths, len(paths), "reading masks"):
        try:
            axis = generator.config["data"].get("axis", "stored")
            for name, suffix, mask in mask_files.slices(path, axis, len(tumors)):
                maps.append(_as_map(mask, folder / name, label, generator))
                files.append(name)
                suffixes.append(suffix)
        except PixmedError as error:
            faults.append(str(error))
    if faults:
        raise PixmedError(listing(faults))
    values = np.stack(maps)
    labels = tuple(next((tumors[v - 1] for v in np.unique(m) if 0 < v <= len(tumors)), "") for m in values)
    limits = np.tile(generator.limits, (len(files), 1))
    return Conditions(values, labels, ("",) * len(files), tuple(files), limits, suffixes=tuple(suffixes))


def _as_map(mask: np.ndarray, path: Path, label: str, generator: inference.Generator) -> np.ndarray:
    """A mask file's values as the model's classes, at the model's size."""
    values, classes = set(np.unique(mask).tolist()), generator.classes
    binary = values <= {0, 255} or (label and values <= {0, 1})
    anatomy = "head" if "head" in classes else "anatomy"
    if binary and not all(map(is_tumor, classes)):
        raise PixmedError(
            f"{path}: shows the tumour but not the {anatomy}, which this model needs too; give label maps "
            f"(0 background, {', '.join(f'{i + 1} {name}' for i, name in enumerate(classes))}), such as the "
            "conditions/ of an earlier sampling"
        )
    if binary and len(classes) > 1 and not label:
        raise PixmedError(
            f"{path}: is a binary mask, and this model knows {', '.join(classes)}; give sample.label"
        )
    if binary:
        mask = np.where(mask > 0, classes.index(label) + 1 if label else 1, 0)
    elif max(values) > len(classes):
        raise PixmedError(
            f"{path}: has values {sorted(values)}; this model knows 0 to {len(classes)}: {', '.join(classes)}"
        )
    return mask_files.fitted(mask, generator.size)


def _order(labels: Sequence[str], number: int, balance: bool) -> np.ndarray:
    """Which condition each image takes: all in turn, or with `balance` the labels in turn."""
    if not balance:
        return np.arange(number) % len(labels)
    by_label = [np.flatnonzero(np.array(labels) == name) for name in sorted(set(labels))]
    return np.array(
        [
            by_label[i % len(by_label)][i // len(by_label) % len(by_label[i % len(by_label)])]
            for i in range(number)
        ]
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
