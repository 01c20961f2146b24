"""The audit of a generator: did it learn patients by heart, and does it show those whose maps it is given?

Writes `audit.json` and `report/audit.html` into the run's folder, and the entry "memorisation" into
evaluation.json, where that is of the same step. What is measured is said in `memorisation.py`.

A generator of maps is asked twice. From maps of held-out patients: what resembles training patients there has
leaked through the weights. From maps of training patients: what is drawn is those patients again, as far as
their maps say; a leak is what is nearer to them than held-out patients' images are to theirs.

With `samples`, a folder that --mode=sample wrote, its pairs are judged too, as they would be handed on
(`pairs.py`): the entry "pairs", and `report/closeness.csv` where they are of patients.
"""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from pixmed_jax import charts, inference, pages, pictures, writing
from pixmed_jax import config as configs
from pixmed_jax import workdir as run_folder
from pixmed_jax.errors import at_least, one_of
from pixmed_jax.evaluation import cards, entries, facts, layouts, pairs, verdict
from pixmed_jax.evaluation.evaluate import grey_floats
from pixmed_jax.metrics.diversity import even_rows, spread_rows
from pixmed_jax.metrics.likeness import aligned
from pixmed_jax.metrics.memorisation import Found, Nearest, Real, Redrawn, measure, recognition

_SHOWN = 6
SPLITS = ("test", "val")


@writing.alone("evaluation")  # whose file it adds to
def audit(
    workdir: Path,
    *,
    number: int = 500,
    split: str = "test",
    samples: str = "",
    seed: int = 0,
    step: str = "newest",
) -> dict[str, Any]:
    """Audit a checkpoint of `workdir`; returns what audit.json holds.

    number: images to generate for each question. split: the patients who were not trained on. samples: a
    sampled folder to judge beside.
    """
    one_of("audit.split", split, SPLITS)
    at_least(1, "audit", number=number)
    at_least(0, "audit", seed=seed)
    config = run_folder.read_config(workdir)
    generator = inference.load(workdir, step)
    dataset = facts.open_data(workdir, config, split)
    arrays, slices = dataset.load(dataset.rows[split], dataset.size)
    train_arrays, train_slices = dataset.load(dataset.rows["train"], dataset.size)
    held_out = Real(grey_floats(arrays), np.array(slices.groups))
    train = Real(grey_floats(train_arrays), np.array(train_slices.groups))
    maps, train_maps = np.asarray(arrays.maps), np.asarray(train_arrays.maps)
    judged, sheets = None, {}
    if samples:
        given = pairs.read(Path(samples), dataset.source.label_names, len(dataset.classes), dataset.size)
        real = (
            pairs.Slices(*train, train_maps, train_slices.files),
            pairs.Slices(*held_out, maps, slices.files),
        )
        judged = pairs.judge(given, *real, Path(samples).name)
        sampled = judged.entry.get("sampled", {})
        for name in ("images", "layouts"):
            if sampled.get(name):
                sampled[name] = facts.memorised(sampled[name], config, dataset, split)
        sheets = _of_pairs(judged, given, *real, dataset.classes)

    if generator.takes_maps:
        rows = spread_rows(held_out.groups, number)
        generated = pictures.grey(generator(maps[rows], seed=seed))
        groups = held_out.groups[rows]
        found = measure(generated, groups, train, held_out)
        # As many slices of each patient on both sides, or one side's would be of other heights in the head.
        patients = max(len(set(train.groups)), len(set(held_out.groups)))
        each = -(-number // patients)

        def redrawn(real: Real, of: np.ndarray) -> Redrawn:
            chosen = even_rows(real.groups, each, number if patients > number else each * patients)
            return Redrawn(pictures.grey(generator(of[chosen], seed=seed)), chosen)

        again, others = redrawn(train, train_maps), redrawn(held_out, maps)
        drawn = recognition(again, others, train, held_out)
        told, redrawn_sheet = (
            {**facts.memorised(found.entry, config, dataset, split), "recognition": drawn},
            _redrawn(again, train, others.images, others.rows, held_out),
        )
    else:
        labels = np.resize(train_maps[spread_rows(train.groups, number)], number)
        generated = pictures.grey(generator(labels, seed=seed))
        found = measure(generated, None, train, held_out)
        told, redrawn_sheet = facts.memorised(found.entry, config, dataset, split), None
        told["recognition"] = None

    result = {
        "step": generator.step,
        "config": configs.digest(config),
        "split": split,
        "split_by": config["data"]["split"]["by"],
        "condition": config["data"]["condition"],
        "seed": seed,
        "size": dataset.size,
        "memorisation": told,
        "pairs": judged and judged.entry,
    }
    page = pages.render(
        "pixmed_jax.evaluation",
        "audit.html.j2",
        audit=result,
        found=told,
        closest=pictures.data_uri(_closest(generated, found.generated, train)),
        benchmark=pictures.data_uri(_closest(held_out.images, found.held_out, train, "held-out")),
        redrawn=redrawn_sheet and pictures.data_uri(redrawn_sheet),
        charts=_charts(found),
        **facts.described(config),
        of_folder=judged and verdict.shown(verdict.of_folder(judged.entry), workdir),
        of_generator=verdict.shown([answer._replace(page="") for answer in _answers(told)], workdir),
        sheets=sheets,
    )
    path = workdir / "report" / "audit.html"
    path.parent.mkdir(exist_ok=True)
    if judged and judged.close:
        writing.write_text(path.with_name("closeness.csv"), pairs.table(judged.close))
    writing.write_text(path, page)
    entries.tell(workdir, "memorisation", told, config=result["config"], step=generator.step)
    writing.write_json(workdir / run_folder.AUDIT, result)  # after all that: it says that it is done
    cards.write(workdir)
    return result


def summary(result: dict[str, Any]) -> str:
    """The verdict on what was audited, for the terminal: the folder's first, which the other is not about."""
    lines = []
    if given := result["pairs"]:
        lines += [f"The pairs in {given['folder']}:", *map(_line, verdict.of_folder(given))]
        lines += [*pairs.summary(given).splitlines(), "The generator itself, not these pairs:"]
    return "\n".join([*lines, *map(_line, _answers(result["memorisation"]))])


def _line(answer: verdict.Answer) -> str:
    return f"{answer.question} {answer.answer}. {answer.sentence}"


def _answers(found: dict[str, Any]) -> list[verdict.Answer]:
    told = verdict.answers({"memorisation": found})
    return [answer for answer in told if answer.question in ("New?", "Safe to share?")]


def _closest(images: np.ndarray, found: Nearest, train: Real, name: str = "generated") -> Image.Image:
    """The images that stand nearest to a training patient, each moved onto the slice it resembles."""
    order = np.argsort(np.where(np.isnan(found.standing), found.distance, found.standing), kind="stable")
    chosen = order[:_SHOWN]
    poses = [aligned(images[i], train.images[found.rows[i]]) for i in chosen]
    nearest = train.images[found.rows[chosen]]
    moved = np.stack([image for image, _ in poses])
    columns = {
        name: images[chosen],
        "moved onto it": moved,
        "training slice": nearest,
        "difference": pictures.difference(moved, nearest),
    }
    words = [
        f"standing {found.standing[i]:.2f}\n{pose.replace(', ', chr(10))}"
        for i, (_, pose) in zip(chosen, poses, strict=True)
    ]
    return pictures.grid(columns, words)


def _redrawn(
    again: Redrawn, train: Real, generated: np.ndarray, rows: np.ndarray, held_out: Real
) -> Image.Image:
    """Slices of training and of held-out patients beside what is drawn from their own maps."""
    a = np.linspace(0, len(again.rows) - 1, 4).astype(int)
    b = np.linspace(0, len(rows) - 1, 4).astype(int)
    columns = {
        "trained on": train.images[again.rows[a]],
        "its map, redrawn": again.images[a],
        "held out": held_out.images[rows[b]],
        "its map, redrawn ": generated[b],
    }
    return pictures.grid(columns)


def _of_pairs(
    judged: pairs.Judged,
    given: pairs.Pairs,
    train: pairs.Slices,
    held_out: pairs.Slices,
    classes: tuple[str, ...],
) -> dict[str, str]:
    """Pictures: the sampled images and layouts that stand nearest to a patient; pairs of patients, from the
    nearest to the farthest from their source slice."""
    sheets = {}
    if judged.images:
        real = Real(train.images, train.groups)
        sheets["images"] = _closest(judged.sampled.images, judged.images.generated, real, "sampled")
    if judged.layouts and judged.sampled.maps is not None:
        sheets["layouts"] = layouts.closest(judged.sampled.maps, judged.layouts, train.maps, classes)
    if judged.close:
        place = {row["file"]: i for i, row in enumerate(given.rows)}
        ordered = sorted(judged.close, key=lambda row: row["to_source"])
        chosen = [ordered[i] for i in np.linspace(0, len(ordered) - 1, min(_SHOWN, len(ordered))).astype(int)]
        rows = [place[row["file"]] for row in chosen]
        slices = dict(zip((*train.files, *held_out.files), (*train.images, *held_out.images), strict=True))
        columns = {"its anatomy's slice": np.stack([slices[given.rows[row]["source"]] for row in rows])}
        if given.maps is not None:
            columns["label map"] = pictures.colours(given.maps[rows], classes)
        columns["pair"] = given.images[rows]
        words = [f"{row['edit']}\ndistance {row['to_source']:.2f}" for row in chosen]
        sheets["of_patients"] = pictures.grid(columns, words)
    return {name: pictures.data_uri(sheet) for name, sheet in sheets.items()}


def _charts(found: Found) -> list[str]:
    standing = {"generated": found.generated.standing, "held-out": found.held_out.standing}
    attack = {"training": found.members, "held-out": found.others}
    return [
        _histogram("Nearest patient's distance / next five's", standing, found.entry.get("thresholds")),
        _histogram("Distance to the nearest training image", {
            "generated": found.generated.distance, "held-out": found.held_out.distance}),
        _histogram("Distance to the nearest generated image", attack),
    ]  # fmt: skip


def _histogram(title: str, values: dict[str, np.ndarray], lines: dict[str, float] | None = None) -> str:
    figure = Figure(figsize=(4.6, 2.8), layout="constrained")
    axes = figure.subplots()
    known = {name: of[~np.isnan(of)] for name, of in values.items()}
    last = max((of.max() for of in known.values() if len(of)), default=1.0)
    bins = np.linspace(0, last, 41).tolist()
    for name, of in known.items():
        if len(of):
            axes.hist(of, bins, weights=np.full(len(of), 1 / len(of)), alpha=0.55, label=name)
    for name, at in (lines or {}).items():
        axes.axvline(at, color="k", linewidth=1, linestyle="--" if name == "near" else "-")
        axes.text(at, axes.get_ylim()[1], f" {name}", fontsize=7, va="top")
    charts.styled(axes, title, y="share of images", legend="upper left")
    return charts.chart_uri(figure)
