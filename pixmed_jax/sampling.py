"""A checkpoint and masks in, a synthetic dataset (sample_files.py) out.

The folder appears whole or not at all, and the same checkpoint, masks and seed give the same bytes.
"""

import shlex
import sys
from collections import Counter
from collections.abc import Collection
from pathlib import Path

import numpy as np

from pixmed_jax import conditions, inference, layouts, sample_files, writing
from pixmed_jax import config as configs
from pixmed_jax import workdir as run_folder
from pixmed_jax.command_line import program
from pixmed_jax.data import copy_paste, edits
from pixmed_jax.data.degrade import SCALES
from pixmed_jax.data.synthetic import RECOMBINED, SAMPLED, TO_TRAIN_WITH, TRAINED_ON, not_for_training
from pixmed_jax.enhancement import upscaler as upscalers
from pixmed_jax.errors import OptionError, PixmedError, at_least, listing, one_of
from pixmed_jax.evaluation import data_sheet
from pixmed_jax.extras import library
from pixmed_jax.progress import watched

PAINTERS = ("network", "copy_paste")
_REASONS = 3  # why draws were refused: as many are printed


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
    painter: str = "network",
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
    number: how many; 0 means one per mask. Of a split they are drawn at random, each once before any twice;
        more than there are masks reuses them, each time with a new seed.
    balance: draw the labels equally often.
    edit: make new masks of the split's: "swap" sets a tumour into another patient's anatomy, "move", "scale"
        and "warp" change it in its own, "deform" bends both together, "mixed" draws one of these five;
        "remove" leaves no tumour.
    painter: who makes an edited map a slice: the "network", or "copy_paste", which takes the pixels from
        where the map's were edited from. It needs no checkpoint: any run that is told masks will do, a
        segmenter's too, and one that was only begun.
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
    _check_source(masks, layout, plane, edit, painter)
    _check_values(number, seed, batch_size, format, upscale, upscaler)
    copies = painter == "copy_paste"
    generator = conditions.no_network(workdir) if copies else inference.load(workdir, step)
    _check_model(generator, masks, layout, edit, format)
    target = (Path(output) if output else workdir / "samples").absolute()
    _check_target(target, masks)
    refused: Counter[str] = Counter()
    how: dict[str, int | str] = {}  # columns that are the same for all
    if not generator.takes_maps and (label or balance):
        given = conditions.of_classes(workdir, label, generator)
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
    if copies:
        how["painter"] = painter
    chosen = _chosen(given, "" if masks or layout else label, split)
    labels = [given.labels[row] for row in chosen]
    of_split = bool(number) and not (masks or layout)
    turns = conditions.ordered(
        labels, number or len(labels), balance and not layout, seed if of_split else None
    )
    order = chosen[turns]
    seeds = inference.image_seeds(seed, len(order))
    digest = configs.digest(generator.config)
    options = {
        "label": label, "plane": plane, "number": len(order), "seed": seed, "balance": balance,
        "edit": edit, "format": format, **how,
    }  # fmt: skip
    if not fresh:
        asked = digest, int(step) if str(step).isdigit() else None
        sources = [given.files[row] for row in order] if masks else None
        sample_files.check_same(target, data_sheet.settings(bool(masks), split, options), asked, sources)

    def edited(i: int) -> edits.Edited:
        row = int(order[i])
        if edit == "none" or given.scene is None:
            told = given.parameters[row] if given.parameters else ""
            return edits.Edited(given.maps[row], row, row, "none", told)
        rng = np.random.default_rng([seed, i])
        return edits.draw(edit, row, given.scene, given.labels, given.groups, rng, refused)

    def painted(part: list[edits.Edited], start: int) -> np.ndarray:
        if isinstance(generator, conditions.NoNetwork):
            assert given.image is not None and given.scene is not None  # edits are of a split's slices
            return np.stack([copy_paste.pasted(drawn, given.image, given.scene) for drawn in part])
        maps, of = np.stack([drawn.map for drawn in part]), seeds[start : start + batch_size]
        return generator(maps, seeds=of, batch_size=batch_size)

    with writing.replaced(target, "--sample.output") as draft:
        sample_files.make_folders(draft, generator)
        rows = []
        for start in watched(range(0, len(order), batch_size), -(-len(order) // batch_size), "sampling"):
            part = [edited(i) for i in range(start, min(start + batch_size, len(order)))]
            for i, (image, drawn) in enumerate(zip(painted(part, start), part, strict=True), start):
                stem = f"{i:05d}" + (given.suffixes[drawn.row] if given.suffixes else "")
                name, limits = stem + sample_files.FORMATS[format], given.limits[drawn.row]
                pixel = given.pixels[drawn.row] / upscale
                image = enlarge.run(image) if enlarge else image
                units = sample_files.Units(limits, None if np.isnan(pixel) else float(pixel))
                sample_files.write_pair(draft, name, image, drawn.map, generator, units, format, upscale)
                told = sample_files.told(drawn, given)
                mask = name if generator.takes_maps else ""
                made = (seeds[i], generator.step, digest, *units.told())
                rows.append((name, mask, *told[:3], *made, *told[3:], *how.values()))
        behind = [_trained_on(Path(run)) for run in (workdir, layout, enlarge and enlarge.workdir) if run]
        if None not in behind:
            files = {file: group for of in behind for file, group in (of or {}).items()}
            about = {"step": generator.step, "config": digest, "files": files}
            writing.write_json(draft / TRAINED_ON, about)
        columns = (*sample_files.COLUMNS, *sample_files.EDIT_COLUMNS, *how)
        sample_files.write_manifest(draft, columns, rows)
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
        print(_told_of_refused(len(order), "layouts" if layout else "edits", refused))
    if not quiet:
        print(_purpose(workdir, target, {row["grade"] for row in table_rows}, why))
    return target


def _told_of_refused(number: int, what: str, refused: Counter[str]) -> str:
    """How many were refused, and the commonest reasons, each over all kinds of edits."""
    reasons: Counter[str] = Counter()
    for reason, count in refused.items():
        reasons[reason.partition(": ")[2]] += count
    shown = ", ".join(f"{reason} ({count})" for reason, count in reasons.most_common(_REASONS))
    return f"{number} {what}; {refused.total()} draws were implausible and drawn again, most often: {shown}"


def _check_source(masks: str, layout: str, plane: str, edit: str, painter: str) -> None:
    """OptionError where the maps of one source cannot be edited or painted like those of another."""
    one_of("sample.edit", edit, edits.EDITS)
    one_of("sample.painter", painter, PAINTERS)
    if layout and masks:
        raise OptionError("sample.layout draws the masks itself; leave sample.masks out")
    if (masks or layout) and edit != "none":
        option = "masks" if masks else "layout"
        raise OptionError(
            f"sample.edit={edit} looks for the brain in the slices of the run; leave sample.{option} out"
        )
    if painter == "copy_paste" and edit == "none":
        raise OptionError(
            "sample.painter=copy_paste copies pixels from where a map was edited from, and without an edit "
            "these are the slices themselves; give sample.edit=mixed"
        )
    if plane and not layout:
        raise OptionError("sample.plane is for what sample.layout draws; leave it out")


def _check_values(number: int, seed: int, batch_size: int, format: str, upscale: int, upscaler: str) -> None:
    """OptionError for what no model could do."""
    one_of("sample.format", format, sample_files.FORMATS)
    if format == "nifti":
        library("nibabel", "medical")
    at_least(0, "sample", number=number, seed=seed)
    at_least(1, "sample", batch_size=batch_size)
    one_of("sample.upscale", upscale, (1, *SCALES))
    if upscale == 1 and upscaler != "bicubic":
        raise OptionError(f"sample.upscaler={upscaler}: enlarges nothing by sample.upscale=1; give 2, 3 or 4")


def _check_model(generator: conditions.Painter, masks: str, layout: str, edit: str, format: str) -> None:
    """PixmedError for what this model cannot do."""
    if format != "png" and not generator.grey:
        raise PixmedError(f"sample.format={format}: this model makes colours; use png")
    if not generator.takes_maps and (masks or layout or edit != "none"):
        option = "masks" if masks else "layout" if layout else "edit"
        raise PixmedError(f"sample.{option}: this model knows no masks; leave it out")


def _check_target(target: Path, masks: str) -> None:
    """PixmedError, if what lies in `target` is not ours to replace."""
    if masks:
        given_at, written_at = Path(masks).resolve(), target.resolve()
        if given_at == written_at or given_at in written_at.parents or written_at in given_at.parents:
            raise PixmedError(
                f"sample.masks={masks}: lies in {target}, which is written anew, or holds it; give another "
                "sample.output"
            )
    if not sample_files.is_ours(target):
        raise PixmedError(f"{target}: holds other files; give an empty folder as sample.output")


def _chosen(given: conditions.Conditions, label: str, split: str) -> np.ndarray:
    """The rows with a label, of all where it is ""."""
    if not label:
        return np.arange(len(given.labels))
    rows = np.flatnonzero(np.array(given.labels) == label)
    if not len(rows):
        known = listing(sorted(set(given.labels)))
        raise PixmedError(
            f"sample.label={label!r}: no slice of sample.split={split} has it; they have {known}"
        )
    return rows


def _purpose(workdir: Path, target: Path, grades: Collection[str], why: str) -> str:
    """What the slices in `target` are for, in a line for the terminal."""
    if why:
        made = f"{program()} --workdir={shlex.quote(str(workdir))} {TO_TRAIN_WITH}"
        return f"not to train with: {why}; to train with: {made}"
    if RECOMBINED in grades:
        return "to train with, not to share: parts of training patients, newly arranged"
    if SAMPLED in grades:
        words = shlex.join([f"--workdir={workdir}", "--mode=audit", f"--audit.samples={target}"])
        audit = f"{program()} {words}"
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
