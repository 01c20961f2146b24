"""Runs side by side: the counterparts of the paper's tables and figures, as one page and as tables.

    OUTPUT/index.html      all of it, self-contained
    OUTPUT/systems.csv     Tables 3 and 4, Figure 5: sizes, memory, time and SSIM of each system
    OUTPUT/downstream.csv  Table 2: what each classifier and segmenter scores on patients it never saw
    OUTPUT/losses.csv      Figure 6: step, run, loss, value

Runs that differ in their seed alone are one row: mean and spread over seeds. Errors: PixmedError for a folder
without a finished and evaluated run.
"""

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from pixmed_jax import config as configs
from pixmed_jax import inference, pages, pictures
from pixmed_jax import workdir as run_folder
from pixmed_jax.data.sources import open_dataset
from pixmed_jax.errors import PixmedError, listing
from pixmed_jax.evaluation.evaluate import grey_floats
from pixmed_jax.evaluation.report import chart, read_metrics

SHOWN = 6  # masks that are drawn through every system
# What the paper says of itself where it can be set beside our numbers (Tables 3 and 4).
PAPER = {"ghost": {"parameters": "52.44", "ssim": "0.742"}}
_CURVES = ("generator/adversarial", "discriminator/real", "discriminator/fake")


class Run(NamedTuple):
    """An evaluated run as its folder tells it."""

    path: Path
    config: dict[str, Any]
    evaluation: dict[str, Any]
    split: dict[str, dict[str, str]]

    @property
    def generates(self) -> bool:
        return "generator" in self.config["model"]


class Row(NamedTuple):
    """Runs that differ in their seed alone; `name` is the first one's folder."""

    name: str
    runs: tuple[Run, ...]

    @property
    def first(self) -> Run:
        return self.runs[0]


class Cell(NamedTuple):
    """A mean over seeds, what it varies by, and of how many."""

    mean: float | None
    spread: float | None  # standard deviation over seeds; None for one seed
    low: float | None  # 95 % interval over patients, where there is one seed
    high: float | None
    seeds: int


def compare(paths: Sequence[str | Path], output: Path) -> Path:
    """Write the page and its tables into the folder `output`; returns the page's path."""
    runs = [read(Path(path)) for path in paths]
    if not runs:
        raise PixmedError("workdirs: none given; list folders of evaluated runs, separated by commas")
    rows = grouped(runs)
    systems = [row for row in rows if row.first.generates]
    judges = [row for row in rows if not row.first.generates]
    tables = {
        "systems.csv": [system_numbers(row) for row in systems],
        "downstream.csv": [judge_numbers(row) for row in judges],
        "losses.csv": list(losses(systems)),
    }
    page = pages.render(
        "pixmed_jax.evaluation",
        "compare.html.j2",
        systems=tables["systems.csv"],
        judges=_by_network(tables["downstream.csv"]),
        paper=PAPER,
        doubts=doubts(runs),
        pairs=ghost_pairs(systems),
        same_masks=pictures.data_uri(same_masks(systems)) if systems else None,
        curves=[_loss_chart(row) for row in systems],
        latency=_latency_chart(tables["systems.csv"], tables["downstream.csv"]),
        settings=[(row.name, str(row.first.path), configs.digest(row.first.config)) for row in rows],
    )
    with run_folder.replaced(output.absolute(), "free space, or give another --workdir") as draft:
        run_folder.write_text(draft / "index.html", page)
        for name, records in tables.items():
            run_folder.write_text(draft / name, _table(records))
    return output / "index.html"


def read(path: Path) -> Run:
    """The run in a folder. Raises PixmedError if it is not trained and evaluated."""
    config = run_folder.read_config(path)
    contents = []
    for name, remedy in ((run_folder.EVALUATION, "evaluate"), (run_folder.SPLIT, "train")):
        try:
            contents.append(json.loads((path / name).read_text(encoding="utf-8")))
        except FileNotFoundError as error:
            raise PixmedError(f"{path / name}: missing; run --mode={remedy} in that folder first") from error
        except ValueError as error:
            raise PixmedError(f"{path / name}: unreadable ({error}); run --mode={remedy} again") from error
    return Run(path, config, *contents)


def grouped(runs: Sequence[Run]) -> list[Row]:
    """Rows in the order of their first runs."""
    rows: dict[str, list[Run]] = {}
    for run in runs:
        free = ("seed", "data.synthetic_dir")  # a folder's place; whose slices it holds is told apart below
        same = {key: value for key, value in configs.flatten(run.config).items() if key not in free}
        rows.setdefault(configs.digest({**same, "arm": arm(run)}), []).append(run)
    return [Row(of[0].path.name, tuple(of)) for of in rows.values()]


def arm(run: Run) -> str:
    """What a network was trained on: "real", or the system whose slices it was given, and how."""
    data = run.config["data"]
    folder = data.get("synthetic_dir", "")
    if not folder:
        return "real"
    name = Path(folder).parent.name if Path(folder).name == "samples" else Path(folder).name
    return f"{name} alone" if data["synthetic"] == "replace" else f"real + {name}"


def cell(row: Row, *keys: str) -> Cell:
    """The value at evaluation[keys], over the seeds of a row."""
    values, bounds = [], None
    for run in row.runs:
        value: Any = run.evaluation
        interval: Any = run.evaluation.get("intervals", {})
        for key in keys:
            value = value.get(key) if isinstance(value, Mapping) else None
            interval = interval.get(key) if isinstance(interval, Mapping) else None
        if value is not None:
            values.append(float(value))
            bounds = interval if isinstance(interval, Sequence) else None
    if not values:
        return Cell(None, None, None, None, 0)
    spread = float(np.std(values, ddof=1)) if len(values) > 1 else None
    low, high = bounds if bounds and len(values) == 1 else (None, None)
    return Cell(float(np.mean(values)), spread, low, high, len(values))


def system_numbers(row: Row) -> dict[str, Any]:
    """One line of systems.csv: flat, numbers in SI units."""
    run = row.first
    cost, data = run.evaluation["cost"], run.config["data"]
    generator = cost["networks"]["generator"]
    ssim = {where: cell(row, "ssim", where) for where in ("full", "head", "tumor")}
    environment = run_folder.read_environment(run.path)
    speeds = [r["images_per_second"] for r in read_metrics(run.path) if r.get("images_per_second")]
    numbers = {
        "system": row.name,
        "config": f"{run.config['name']}:{run.config['preset']}",
        "condition": data["condition"],
        "bytes_per_slice": run.evaluation["condition"]["bytes_per_slice"],
        "size": data["size"],
        "steps": run.evaluation["step"],
        "parameters": generator["parameters"],
        "weight_bytes": 4 * generator["parameters"],
        "macs": generator["macs"],
        "step_bytes": environment.get("step_bytes"),
        "images_per_second": float(np.median(speeds)) if speeds else None,
        "n": run.evaluation["n"],
        "patients": run.evaluation["patients"],
        "seeds": len(row.runs),
    }
    for where, value in ssim.items():
        numbers |= {f"ssim_{where}": value.mean, f"ssim_{where}_sd": value.spread}
        numbers |= {f"ssim_{where}_low": value.low, f"ssim_{where}_high": value.high}
    for at in cost["inference"]:
        kind = at["device"].partition(":")[0]
        numbers |= {f"{kind}_seconds": at["median"], f"{kind}_bytes": at["bytes"]}
    return numbers


def judge_numbers(row: Row) -> dict[str, Any]:
    """One line of downstream.csv."""
    run = row.first
    numbers = {
        "network": run.config["name"],
        "arm": arm(run),
        "real_slices": run.evaluation["trained_on"]["real"],
        "synthetic_slices": run.evaluation["trained_on"]["synthetic"],
        "n": run.evaluation["n"],
        "patients": run.evaluation["patients"],
        "seeds": len(row.runs),
    }
    for name in JUDGED:
        value = cell(row, name)
        if value.mean is not None:
            numbers |= {name: value.mean, f"{name}_sd": value.spread}
            numbers |= {f"{name}_low": value.low, f"{name}_high": value.high}
    return numbers


# What a classifier and a segmenter are judged by: the key in evaluation.json and its heading.
JUDGED = {
    "accuracy": "accuracy",
    "balanced_accuracy": "recall, mean of classes",
    "auroc": "AUROC",
    "log_loss": "loss",
    "dice": "Dice",
    "hausdorff95": "95 % Hausdorff, pixels",
}


def doubts(runs: Sequence[Run]) -> list[str]:
    """Why numbers of these runs may not be set side by side; each a sentence."""
    told = []
    tests: dict[frozenset[str], list[str]] = {}
    for run in runs:
        tests.setdefault(frozenset(run.split[run.evaluation["split"]]), []).append(run.path.name)
    if len(tests) > 1:
        sets = "; ".join(f"{listing(names, 4)} on {len(files)} slices" for files, names in tests.items())
        told.append(f"The runs were tested on different slices ({sets}): compare only those within one set.")
    sizes = sorted({run.config["data"]["size"] for run in runs if run.generates})
    if len(sizes) > 1:
        widths = listing([str(size) for size in sizes])
        told.append(f"SSIM depends on the size of the picture, and the systems make {widths} pixels.")
    by_slice = [run.path.name for run in runs if run.evaluation.get("split_by") == "slice"]
    if by_slice:
        told.append(f"{listing(by_slice, 4)}: split by slice, so patients are in training and test alike.")
    on_train = [run.path.name for run in runs if run.evaluation["split"] == "train"]
    if on_train:
        told.append(f"{listing(on_train, 4)}: evaluated on the slices that were trained on.")
    return told


def ghost_pairs(systems: Sequence[Row]) -> list[tuple[str, str]]:
    """(with ghost modules, without) of systems whose configs agree in all else."""

    def without(run: Run) -> str | None:
        flat = configs.flatten(run.config)
        if "model.generator.ghost_levels" not in flat:
            return None
        own = ("seed", "name", "preset", "model.generator.ghost_")
        return configs.digest({key: value for key, value in flat.items() if not key.startswith(own)})

    pairs = []
    for a in systems:
        for b in systems:
            levels = [run.config["model"]["generator"].get("ghost_levels") for run in (a.first, b.first)]
            if levels[0] and levels[1] == [] and without(a.first) == without(b.first):
                pairs.append((a.name, b.name))
    return pairs


def same_masks(systems: Sequence[Row], count: int = SHOWN) -> Image.Image:
    """Figure 4: slices that all systems were tested on, beside what each makes of their mask or label."""
    common = set.intersection(*(set(row.first.split["test"]) for row in systems))
    chosen: list[str] = []
    columns: dict[str, np.ndarray] = {}
    names: list[str] = []
    # Those with the richest maps first: their picture of the mask says most.
    for row in sorted(systems, key=lambda row: -row.first.evaluation["condition"]["bytes_per_slice"]):
        run = row.first
        dataset = open_dataset(**run.config["data"], seed=run.config["seed"])
        if not chosen:
            files = dataset.source.files
            chosen = [files[i] for i in dataset.spread("test", len(files)) if files[i] in common][:count]
        places = [dataset.source.files.index(name) for name in chosen]
        if not places:
            return pictures.grid({"no slice in common": np.zeros((1, 64, 64))})
        arrays, slices = dataset.load(np.array(places), dataset.size)
        maps = np.asarray(arrays.maps)
        if not columns:
            names = [slices.label_names[label] for label in slices.labels]
            if maps.ndim == 3:
                columns["mask"] = pictures.colours(maps, dataset.classes)
            columns["real"] = grey_floats(arrays)
        columns[row.name] = pictures.grey(inference.load(run.path)(maps, seed=0))
    ordered = [name for name in ("mask", "real") if name in columns] + [row.name for row in systems]
    return pictures.grid({name: columns[name] for name in ordered}, names)


def losses(systems: Sequence[Row]) -> Iterable[dict[str, Any]]:
    for row in systems:
        for run in row.runs:
            for record in read_metrics(run.path):
                for name, value in record.items():
                    if name.split("/")[0] in ("generator", "discriminator") and "norm" not in name:
                        yield {"step": record["step"], "run": run.path.name, "loss": name, "value": value}


def _loss_chart(row: Row) -> str:
    names = (*_CURVES, "generator/1-ssim", "generator/mse")
    records = read_metrics(row.first.path)
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
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("{x:g}")
    pictures.styled(
        axes,
        x=f"milliseconds for one image, {' and '.join(kinds)}",
        y="accuracy with its slices",
        grid=True,
        legend="upper right" if len(kinds) > 1 else None,
    )
    return pictures.chart_uri(figure)


def _by_network(judges: Sequence[dict[str, Any]]) -> list[tuple[str, dict[str, str], list[dict[str, Any]]]]:
    """[(network, {key: heading} of what it is judged by, its lines, real first)]."""
    told = []
    for network in dict.fromkeys(judge["network"] for judge in judges):
        lines = sorted((j for j in judges if j["network"] == network), key=lambda j: j["arm"] != "real")
        told.append((network, {key: h for key, h in JUDGED.items() if key in lines[0]}, lines))
    return told


def _table(records: Sequence[Mapping[str, Any]]) -> str:
    columns = dict.fromkeys(key for record in records for key in record)
    table = io.StringIO(newline="")
    writer = csv.DictWriter(table, list(columns), lineterminator="\n", restval="")
    writer.writeheader()
    writer.writerows(records)
    return table.getvalue()
