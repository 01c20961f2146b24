"""Runs side by side: the counterparts of the paper's tables and figures, as one page and as tables.

    OUTPUT/index.html      all of it, self-contained
    OUTPUT/systems.csv     Tables 3 and 4, Figure 5: sizes, memory, time and SSIM of each system
    OUTPUT/downstream.csv  Table 2: what each classifier and segmenter scores on patients it never saw
    OUTPUT/evidence.csv    the report's verdict on each system and the numbers behind it; rows that differ in
                           `judged_by` do not compare
    OUTPUT/losses.csv      Figure 6: step, run, loss, value

What is one row, and what its numbers are, is said in `rows.py`. Errors: PixmedError for a folder without a
finished and evaluated run.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter
from PIL import Image

from pixmed_jax import charts, inference, pages, pictures, texts, writing
from pixmed_jax import config as configs
from pixmed_jax import workdir as run_folder
from pixmed_jax.data.values import floats
from pixmed_jax.errors import PixmedError
from pixmed_jax.evaluation import verdict
from pixmed_jax.evaluation.report import TITLES, chart
from pixmed_jax.evaluation.rows import (
    EVIDENCE,
    JUDGED,
    Row,
    above_the_lowest,
    column,
    doubts,
    evidence_numbers,
    ghost_pairs,
    grouped,
    judge_numbers,
    judged_alike,
    read,
    system_numbers,
)
from pixmed_jax.same_data import open_of_run

NAMES = ("index.html", "systems.csv", "evidence.csv", "downstream.csv", "losses.csv")
SHOWN = 6  # masks that are drawn through every system
# What the paper says of itself where it can be set beside our numbers (Tables 3 and 4).
PAPER = {"ghost": {"parameters": "52.44", "ssim": "0.742"}}
_CURVES = ("generator/adversarial", "discriminator/real", "discriminator/fake")


def compare(paths: Sequence[str | Path], output: Path) -> Path:
    """Write the page and its tables into the folder `output`; returns the page's path.

    It holds nothing else: what is there is replaced, and a folder with other files, a run's say, is refused.
    """
    writing.check_holds(output.absolute(), NAMES)
    runs = [read(Path(path)) for path in paths]
    if not runs:
        raise PixmedError("workdirs: none given; list folders of evaluated runs, separated by commas")
    rows = grouped(runs)
    systems = [row for row in rows if row.first.generates]
    judges = [row for row in rows if not row.first.generates]
    evidence = [
        [evidence_numbers(row) | above for row, above in zip(alike, above_the_lowest(alike), strict=True)]
        for alike in judged_alike(systems)
    ]
    tables = {
        "systems.csv": [system_numbers(row) for row in systems],
        "evidence.csv": [line for lines in evidence for line in lines],
        "downstream.csv": [judge_numbers(row) for row in judges],
        "losses.csv": list(losses(systems)),
    }
    shown = same_masks(systems)
    page = pages.render(
        "pixmed_jax.evaluation",
        "compare.html.j2",
        systems=tables["systems.csv"],
        evidence=[(references(lines), lines) for lines in evidence],
        questions={column(answer.question): answer.question for answer in verdict.answers({})},
        judges=_by_network(tables["downstream.csv"]),
        paper=PAPER,
        titles=TITLES,
        doubts=doubts(runs),
        pairs=ghost_pairs(systems),
        same_masks=pictures.data_uri(shown) if shown else None,
        curves=[_loss_chart(row) for row in systems],
        latency=_latency_chart(tables["systems.csv"], tables["downstream.csv"]),
        settings=[(row.name, str(row.first.path), configs.digest(row.first.config)) for row in rows],
    )
    with writing.replaced(output.absolute()) as draft:
        writing.write_text(draft / "index.html", page)
        for name, records in tables.items():
            writing.write_text(draft / name, _table(records))
    return output / "index.html"


def same_masks(systems: Sequence[Row], count: int = SHOWN) -> Image.Image | None:
    """Figure 4: slices that all systems were tested on, beside what each makes of their mask or label.

    None where no slice is common to all.
    """
    common = set.intersection(*(set(row.first.split["test"]) for row in systems)) if systems else set()
    if not common:
        return None
    chosen: list[str] = []
    columns: dict[str, np.ndarray] = {}
    names: list[str] = []
    # Those with the richest maps first: their picture of the mask says most.
    for row in sorted(systems, key=lambda row: -row.first.evaluation["condition"]["bytes_per_slice"]):
        run = row.first
        dataset = open_of_run(run.path, run.config)
        if not chosen:
            files = dataset.source.files
            chosen = [files[i] for i in dataset.spread("test", len(files)) if files[i] in common][:count]
        places = [dataset.source.files.index(name) for name in chosen]
        arrays, slices = dataset.load(np.array(places), dataset.size)
        maps = np.asarray(arrays.maps)
        if not columns:
            names = [slices.label_names[label] for label in slices.labels]
            if maps.ndim == 3:
                columns["label map"] = pictures.colours(maps, dataset.classes)
            columns["real"] = floats(arrays.images)
        generator = inference.load(run.path)
        columns[row.name] = pictures.shown(generator(maps, seed=0), generator.grey)
    ordered = [name for name in ("label map", "real") if name in columns] + [row.name for row in systems]
    return pictures.grid({name: columns[name] for name in ordered}, names)


def losses(systems: Sequence[Row]) -> Iterable[dict[str, Any]]:
    for row in systems:
        for run in row.runs:
            for record in run_folder.read_metrics(run.path):
                for name, value in record.items():
                    if name.split("/")[0] in ("generator", "discriminator") and "norm" not in name:
                        yield {"step": record["step"], "run": run.path.name, "loss": name, "value": value}


def _loss_chart(row: Row) -> str:
    names = (*_CURVES, "generator/1-ssim", "generator/l1", "generator/mse")
    records = run_folder.read_metrics(row.first.path)
    known = {name for record in records for name in record}
    return chart(row.name, records, {name: name.replace("/", ", ") for name in names if name in known})


def _latency_chart(systems: Sequence[Mapping[str, Any]], judges: Sequence[Mapping[str, Any]]) -> str | None:
    """Figure 5: time of an image on each kind of device against what its slices do for a classifier."""
    accuracy = {
        judge["arm"].removeprefix("real + "): judge for judge in judges if judge.get("accuracy") is not None
    }
    points = [
        (key.removesuffix("_seconds"), system["system"], 1e3 * system[key], accuracy[system["system"]])
        for system in systems
        for key in system
        if key.endswith("_seconds") and system["system"] in accuracy
    ]
    if not points:
        return None
    figure = Figure(figsize=(6.4, 3.4), layout="constrained")
    axes = figure.subplots()
    kinds = list(dict.fromkeys(p[0] for p in points))
    for kind, marker in zip(kinds, "osv^", strict=False):
        here = [p for p in points if p[0] == kind]
        axes.errorbar(
            [p[2] for p in here],
            [p[3]["accuracy"] for p in here],
            yerr=[p[3].get("accuracy_sd") or 0 for p in here],
            fmt=marker,
            label=kind,
            capsize=2,
        )
        for _, name, x, judge in here:
            axes.annotate(name, (x, judge["accuracy"]), fontsize=8, xytext=(5, 4), textcoords="offset points")
    if "real" in accuracy:
        axes.axhline(accuracy["real"]["accuracy"], color="grey", linewidth=1, linestyle="--")
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    charts.styled(
        axes,
        x=f"milliseconds for one image, {' and '.join(kinds)}",
        y="accuracy with its slices",
        grid=True,
        legend="upper right" if len(kinds) > 1 else None,
    )
    return charts.chart_uri(figure)


def references(lines: Sequence[Mapping[str, Any]]) -> list[tuple[str, dict[str, float]]]:
    """[(of what, {number: value})] beside those that were judged alike: other slices of the same patients and
    class means for systems given maps, other patients for those given a class, and what is true of both.

    By evaluation seed they vary, and are means over lines.
    """
    given_maps = [line for line in lines if line.get("kid_same") is not None]
    given_classes = [line for line in lines if line not in given_maps]

    def means(end: str, of: Sequence[Mapping[str, Any]], names: Iterable[str]) -> dict[str, float]:
        found = {name: [line.get(f"{name}_{end}") for line in of] for name in names}
        known = {name: [value for value in values if value is not None] for name, values in found.items()}
        return {name: float(np.mean(values)) for name, values in known.items() if values}

    sets = ("kid", "fid", "recall")
    whole = means("real", lines, [name for name in EVIDENCE if name not in sets])
    rows = [
        ("other slices of the same patients", means("same", given_maps, sets) | whole, given_maps),
        ("other patients", means("real", given_classes, sets) | ({} if given_maps else whole), given_classes),
        ("class means, no network", means("lookup", given_maps, (*sets, "mask_dice")), given_maps),
    ]
    return [(words, values) for words, values, of in rows if of]


def _by_network(judges: Sequence[dict[str, Any]]) -> list[tuple[str, dict[str, str], list[dict[str, Any]]]]:
    """[(network, {key: heading} of what it is judged by, its lines, real first)]."""
    told = []
    for network in dict.fromkeys(judge["network"] for judge in judges):
        lines = sorted((j for j in judges if j["network"] == network), key=lambda j: j["arm"] != "real")
        told.append((network, {key: h for key, h in JUDGED.items() if key in lines[0]}, lines))
    return told


def _table(records: Sequence[Mapping[str, Any]]) -> str:
    columns = list(dict.fromkeys(key for record in records for key in record))
    return texts.csv_table([columns, *([record.get(key, "") for key in columns] for record in records)])
