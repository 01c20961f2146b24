"""A checkpoint and masks in, a synthetic dataset out.

    OUTPUT/images/00000.png      8-bit grey (RGB where the training images had colours)
    OUTPUT/masks/00000.png       0 and 255: the tumour, in the layout that `data.source=folder` reads
    OUTPUT/conditions/00000.png  palette picture of the label map that the generator was given
    OUTPUT/manifest.csv          file, mask, label, patient_group, source, seed, step, config, low, high

With `format` "png16" images have 16 bits; with "nifti" images and masks (0 and 1) are .nii.gz files whose
images hold values in the units of the training data. In pictures, 0 and the brightest value stand for `low`
and `high` in those units: the limits of the slice that gave the mask, or the checkpoint's own.

The folder appears whole or not at all, and the same checkpoint, masks and seed give the same bytes.
"""

import csv
import io
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from pixmed_jax import config as configs
from pixmed_jax import inference, pictures
from pixmed_jax import workdir as run_folder
from pixmed_jax.data import intensity, volumes
from pixmed_jax.data.decode import SUFFIXES, read_mask
from pixmed_jax.data.sources import open_dataset
from pixmed_jax.errors import PixmedError, listing
from pixmed_jax.progress import watched

MANIFEST = "manifest.csv"
COLUMNS = (
    *("file", "mask", "label", "patient_group", "source", "seed", "step", "config"),
    *("low", "high"),
)
FORMATS = {"png": ".png", "png16": ".png", "nifti": ".nii.gz"}


class Conditions(NamedTuple):
    """Label maps [N, S, S] uint8 to draw from, with the label, patient group and file of each.

    `limits` [N, 2] are the values that 0 and 1 stand for in the images.
    """

    maps: np.ndarray
    labels: tuple[str, ...]
    groups: tuple[str, ...]
    files: tuple[str, ...]
    limits: np.ndarray


def sample(
    workdir: Path,
    *,
    masks: str = "",
    split: str = "test",
    label: str = "",
    number: int = 0,
    seed: int = 0,
    balance: bool = False,
    output: str = "",
    step: str = "newest",
    batch_size: int = 8,
    format: str = "png",
) -> Path:
    """Write `number` synthetic slices and return their folder.

    masks: a folder of masks; without it those of the run's `split` are used.
    label: the class of binary masks in `masks`, for a model that knows several.
    number: how many; 0 means one per mask. More than there are masks reuses them, each time with a new seed.
    balance: draw the labels equally often.
    output: default is `samples` in the run's folder. Another folder is only replaced if a sampling wrote it.
    step: the checkpoint to use: "newest", "best" or a number.
    format: how images are written: "png" with 8 bits, "png16", or "nifti" in the data's own units.
    """
    if format not in FORMATS:
        raise PixmedError(f"sample.format={format!r} is not one of {', '.join(FORMATS)}")
    if format == "nifti":
        volumes.library("nibabel")
    for name, value, least in (("number", number, 0), ("seed", seed, 0), ("batch_size", batch_size, 1)):
        if value < least:
            raise PixmedError(f"sample.{name}={value}: give {least} or more")
    generator = inference.load(workdir, step)
    if format != "png" and not generator.grey:
        raise PixmedError(f"sample.format={format}: this model makes colours; use png")
    target = (Path(output) if output else workdir / "samples").absolute()
    if not _is_ours(target):
        raise PixmedError(f"{target}: holds other files; give an empty folder as sample.output")
    conditions = _from_folder(Path(masks), label, generator) if masks else _from_split(workdir, split)
    order = _order(conditions.labels, number or len(conditions.files), balance)
    seeds = inference.image_seeds(seed, len(order))
    digest = configs.digest(generator.config)

    draft = target.with_name(f".{target.name}.{os.getpid()}.draft")
    try:
        for folder in ("images", "masks", "conditions"):
            (draft / folder).mkdir(parents=True)
        rows = []
        for start in watched(range(0, len(order), batch_size), -(-len(order) // batch_size), "sampling"):
            part = order[start : start + batch_size]
            images = generator(
                conditions.maps[part], seeds=seeds[start : start + batch_size], batch_size=batch_size
            )
            for offset, image in enumerate(images):
                i, source = start + offset, part[offset]
                name, limits = f"{i:05d}{FORMATS[format]}", conditions.limits[source]
                _write(draft, name, image, conditions.maps[source], generator, limits, format)
                rows.append(
                    (
                        name,
                        name,
                        conditions.labels[source],
                        conditions.groups[source],
                        conditions.files[source],
                        seeds[i],
                        generator.step,
                        digest,
                        *(f"{value:.15g}" for value in limits),
                    )
                )
        table = io.StringIO(newline="")
        csv.writer(table, lineterminator="\n").writerows([COLUMNS, *rows])
        run_folder.write_text(draft / MANIFEST, table.getvalue())
        shutil.rmtree(target, ignore_errors=True)
        draft.rename(target)
    except OSError as error:
        raise PixmedError(
            f"{target}: cannot be written ({error.strerror}); free space, or give sample.output"
        ) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return target


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
    return first == ",".join(COLUMNS) and names <= {"images", "masks", "conditions", MANIFEST}


def _from_split(workdir: Path, split: str) -> Conditions:
    config = run_folder.read_config(workdir)
    dataset = open_dataset(**config["data"], seed=config["seed"])
    if split not in dataset.rows:
        raise PixmedError(f"sample.split={split!r} is not one of {', '.join(dataset.rows)}")
    arrays, slices = dataset.load(dataset.rows[split], dataset.size)
    labels = tuple(slices.label_names[i] for i in slices.labels)
    return Conditions(np.asarray(arrays.maps), labels, slices.groups, slices.files, slices.limits)


def _from_folder(folder: Path, label: str, generator: inference.Generator) -> Conditions:
    """Label maps from a folder of mask pictures of any size; every faulty one is named."""
    if not folder.is_dir():
        raise PixmedError(f"sample.masks={folder}: no such folder; give one with mask pictures")
    if label and label not in generator.classes:
        raise PixmedError(f"sample.label={label!r} is not one of {', '.join(generator.classes)}")
    paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES)
    if not paths:
        raise PixmedError(f"{folder}: holds no mask pictures ({', '.join(sorted(SUFFIXES))})")
    maps, faults = [], []
    for path in paths:
        try:
            maps.append(_as_map(read_mask(path), path, label, generator))
        except PixmedError as error:
            faults.append(str(error))
    if faults:
        raise PixmedError(listing(faults))
    values = np.stack(maps)
    tumors = [name for name in generator.classes if name != "head"]
    labels = tuple(next((tumors[v - 1] for v in np.unique(m) if 0 < v <= len(tumors)), "") for m in values)
    limits = np.tile(generator.limits, (len(paths), 1))
    return Conditions(values, labels, ("",) * len(paths), tuple(p.name for p in paths), limits)


def _as_map(mask: np.ndarray, path: Path, label: str, generator: inference.Generator) -> np.ndarray:
    """A mask file's values as the model's classes, at the model's size."""
    values, classes = set(np.unique(mask).tolist()), generator.classes
    binary = values <= {0, 255} or (label and values <= {0, 1})
    if "head" in classes and binary:
        raise PixmedError(
            f"{path}: shows the tumour but not the head, which this model needs too; give label maps "
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
    side = max(mask.shape)
    square = np.zeros((side, side), np.uint8)
    top, left = (side - mask.shape[0]) // 2, (side - mask.shape[1]) // 2
    square[top : top + mask.shape[0], left : left + mask.shape[1]] = mask
    size = (generator.size, generator.size)
    return np.asarray(Image.fromarray(square).resize(size, Image.Resampling.NEAREST))


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
) -> None:
    if generator.grey:
        image = pictures.grey(image[None])[0]
    tumors = [i + 1 for i, name in enumerate(generator.classes) if name != "head"]
    mask = np.isin(condition, tumors)
    if format == "nifti":
        low, high = limits
        picture = volumes.nifti_bytes(intensity.encode(image, (0, 1)), (float(low), float(high)))
        (folder / "images" / name).write_bytes(picture)
        (folder / "masks" / name).write_bytes(volumes.nifti_bytes(mask.astype(np.uint8)))
    else:
        eight = np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)
        pixels = intensity.encode(image, (0, 1)) if format == "png16" else eight
        Image.fromarray(pixels).save(folder / "images" / name)
        Image.fromarray(np.where(mask, 255, 0).astype(np.uint8)).save(folder / "masks" / name)
    palette = Image.fromarray(condition.astype(np.uint8), mode="P")
    palette.putpalette(pictures.palette(generator.classes).tobytes())
    palette.save(folder / "conditions" / f"{name.partition('.')[0]}.png")
