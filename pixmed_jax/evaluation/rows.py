"""Evaluated runs as rows of tables: what is one row, and what its numbers are over seeds and patients.

Runs that differ in their seed alone are one row: mean and spread over seeds; one seed has its 95 % interval
over patients. Numbers that rest on judges (features, segmenter, limits of artefacts) compare among runs that
the same real slices judged, which `judged_alike` tells apart. Errors: PixmedError for a folder without a
finished and evaluated run.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pixmed_jax import config as configs
from pixmed_jax import texts
from pixmed_jax import workdir as run_folder
from pixmed_jax.errors import PixmedError, listing
from pixmed_jax.evaluation import verdict
from pixmed_jax.evaluation.report import ranked
from pixmed_jax.metrics import distribution

# What the evidence says of a system: where evaluation.json has the value, its interval, and what real slices
# have in its place: other patients', for a system that is given the test patients' maps see BESIDE.
EVIDENCE: dict[str, tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]] = {
    "kid": (("kid", "value"), ("kid",), ("kid", "floor")),
    "fid": (("fid", "value"), ("fid",), ("fid", "floor")),
    "recall": (("recall", "value"), (), ("recall", "floor")),
    "mask_dice": (("mask_dice", "generated"), ("mask_dice", "intervals", "generated"), ("mask_dice", "real")),
    "diversity": (("diversity", "spread", "ratio"), ("diversity", "spread"), ()),
    "auc": (("memorisation", "auc"), ("memorisation", "auc_interval"), ()),
    "map_auc": (
        ("memorisation", "recognition", "auc"),
        ("memorisation", "recognition", "auc_interval"),
        (),
    ),
}


# What else stands beside those of a system that is given maps: {end of the column's name: key of the entry}.
BESIDE = {"same": distribution.SAME, "lookup": distribution.LOOKUP}


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


def read(path: Path) -> Run:
    """The run in a folder. Raises PixmedError if it is not trained and evaluated."""
    config = run_folder.read_config(path)
    contents = []
    for name, remedy in ((run_folder.EVALUATION, "evaluate"), (run_folder.SPLIT, "train")):
        try:
            contents.append(texts.read_object(path / name, run_folder.LARGEST_SPLIT))
        except FileNotFoundError as error:
            raise PixmedError(f"{path / name}: missing; run --mode={remedy} in that folder first") from error
        except ValueError as error:
            raise PixmedError(f"{path / name}: unreadable ({error}); run --mode={remedy} again") from error
    others = {"images": "restores images", "layouts": "draws label maps"}
    if does := others.get(contents[0].get("predicts", "")):
        raise PixmedError(f"{path}: {does}, which is not what is compared here; leave it out")
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
    paths = [Path(one) for one in configs.folders(folder)]
    name = " + ".join(path.parent.name if path.name == "samples" else path.name for path in paths)
    return f"{name} alone" if data["synthetic"] == "replace" else f"real + {name}"


def at(evaluation: Any, *keys: str) -> Any:
    """What lies at evaluation[keys], or None."""
    for name in keys:
        evaluation = evaluation.get(name) if isinstance(evaluation, Mapping) else None
    return evaluation


def cell(row: Row, *keys: str, interval: Sequence[str] = ()) -> Cell:
    """The value at evaluation[keys], over the seeds of a row.

    interval: where its (low, high) or {"low", "high"} lies, evaluation["intervals"][keys] by default.
    """
    values, bounds = [], None
    for run in row.runs:
        value = at(run.evaluation, *keys)
        if value is not None:
            values.append(float(value))
            bounds = at(run.evaluation, *(interval or ("intervals", *keys)))
    if not values:
        return Cell(None, None, None, None, 0)
    spread = float(np.std(values, ddof=1)) if len(values) > 1 else None
    if isinstance(bounds, Mapping):
        bounds = (bounds.get("low"), bounds.get("high"))
    low, high = bounds if bounds and len(values) == 1 else (None, None)
    return Cell(float(np.mean(values)), spread, low, high, len(values))


def _whom(row: Row) -> dict[str, Any]:
    """On whom a row's numbers are, and over how many seeds."""
    told = row.first.evaluation
    patients = told["patients"] if told.get("patients_known", True) else "unknown"
    return {"split": told["split"], "n": told["n"], "patients": patients, "seeds": len(row.runs)}


def system_numbers(row: Row) -> dict[str, Any]:
    """One line of systems.csv: flat, numbers in SI units."""
    run = row.first
    cost, data = run.evaluation["cost"], run.config["data"]
    generator = cost["networks"]["generator"]
    ssim = {where: cell(row, "ssim", where) for where in ("full", "head", "tumor")}
    environment = run_folder.read_environment(run.path)
    speeds = [r["images_per_second"] for r in run_folder.read_metrics(run.path) if r.get("images_per_second")]
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
        **_whom(row),
    }
    for where, value in ssim.items():
        numbers |= {f"ssim_{where}": value.mean, f"ssim_{where}_sd": value.spread}
        numbers |= {f"ssim_{where}_low": value.low, f"ssim_{where}_high": value.high}
    numbers |= _without_a_network(row)
    for at in cost["inference"]:
        kind = at["device"].partition(":")[0]
        numbers |= {f"{kind}_seconds": at["median"], f"{kind}_bytes": at["bytes"]}
    return numbers


def _without_a_network(row: Row) -> dict[str, Any]:
    """{"baseline": that with the highest SSIM, "baseline_ssim", "gain": the generator's SSIM above it, with
    its "_sd", "_low" and "_high"}; None where an evaluation has none of it.
    """
    best = next(iter(ranked(row.first.evaluation)), "")
    of = cell(row, "gains", best, "value", interval=("gains", best, "interval"))
    return {
        "baseline": best or None,
        "baseline_ssim": cell(row, "baselines", best, "ssim", "full").mean,
        **{"gain": of.mean, "gain_sd": of.spread, "gain_low": of.low, "gain_high": of.high},
    }


def judge_numbers(row: Row) -> dict[str, Any]:
    """One line of downstream.csv."""
    run = row.first
    numbers = {
        "network": run.config["name"],
        "arm": arm(run),
        "real_slices": run.evaluation["trained_on"]["real"],
        "synthetic_slices": run.evaluation["trained_on"]["synthetic"],
        **_whom(row),
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


# ---------------------------------------------------------------- evidence
def judged_alike(rows: Sequence[Row]) -> list[list[Row]]:
    """Rows in sets whose numbers compare: the same real slices judged them, by the same features.

    Seeds of one row that different slices judged come apart. Evaluations that do not say who judged them are
    each alone.
    """
    parts: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        of_row: dict[tuple[str, str], list[Run]] = {}
        for run in row.runs:
            of_row.setdefault(judges(run), []).append(run)
        for who, alike in of_row.items():
            parts.setdefault(who, []).append(Row(alike[0].path.name, tuple(alike)))
    return list(parts.values())


def judges(run: Run) -> tuple[str, str]:
    """(digest of the real slices that judged, or the run's folder if that is not said; what features are)"""
    return run.evaluation.get("judged_by") or str(run.path), at(run.evaluation, "kid", "features") or "none"


def evidence_numbers(row: Row) -> dict[str, Any]:
    """One line of evidence.csv, of a row whose seeds were judged alike."""
    run = row.first
    judged_by, features = judges(run)
    numbers: dict[str, Any] = {
        "system": row.name,
        "judged_by": judged_by,
        "features": features,
        "train_slices": len(run.split["train"]),
        **_whom(row),
    }
    for name, (value, interval, real) in EVIDENCE.items():
        of = cell(row, *value, interval=interval)
        numbers |= {name: of.mean, f"{name}_sd": of.spread, f"{name}_low": of.low, f"{name}_high": of.high}
        if real:
            numbers[f"{name}_real"] = cell(row, *real).mean
            numbers |= {f"{name}_{end}": cell(row, name, key).mean for end, key in BESIDE.items()}
    every = [run.evaluation.get("memorisation", {}) for run in row.runs]
    audits = [audit for audit in every if audit.get("copies") is not None]
    return {
        **numbers,
        "copies": sum(audit["copies"] for audit in audits) if audits else None,
        "audited": sum(audit["n"] for audit in audits),
        "artefacts": _artefacts(row),
        **_answers(row),
    }


def above_the_lowest(rows: Sequence[Row]) -> list[dict[str, float]]:
    """Of rows that were judged alike, how far the KID of each lies above the lowest: {"kid_above", its "_low"
    and "_high"}, {} for the lowest itself and where evaluations hold no draws of the same patients.

    Means over seeds; the interval is over patients, who are the same in every draw of both: so it may say
    which is nearer to real ones where the intervals of the two overlap. It holds for all pairs of rows
    together, since the lowest is chosen among them. It takes trainings as they are: seeds are not in it.
    """
    draws = [[at(run.evaluation, "kid", "draws") for run in row.runs] for row in rows]
    same = {
        (at(run.evaluation, "seed"), len(of or ()))
        for row, each in zip(rows, draws, strict=True)
        for run, of in zip(row.runs, each, strict=True)
    }
    if len(same) != 1 or not all(of for each in draws for of in each):
        return [{} for _ in rows]
    means = [np.mean([at(run.evaluation, "kid", "value") for run in row.runs]) for row in rows]
    drawn = [np.mean(each, axis=0) for each in draws]
    patients = min(run.evaluation["patients"] for row in rows for run in row.runs)
    low, high = distribution.differences(means, drawn, patients)
    lowest = int(np.argmin(means))

    def above(i: int) -> dict[str, float]:
        bounds = {"kid_above_low": float(low[i, lowest]), "kid_above_high": float(high[i, lowest])}
        return {"kid_above": float(means[i] - means[lowest]), **bounds}

    return [above(i) if i != lowest else {} for i in range(len(rows))]


def _artefacts(row: Row) -> str | None:
    """Those found, and in how many seeds where not in all; None where they were not looked for."""
    found = [at(run.evaluation, "artefacts", "found") for run in row.runs]
    looked = [names for names in found if names is not None]
    if not looked:
        return None
    return _counted([name for names in looked for name in names], len(looked)) or "none"


def _answers(row: Row) -> dict[str, str]:
    """{column: answer} to the report's questions: one word, or how many seeds gave which."""
    told: dict[str, list[str]] = {}
    for run in row.runs:
        for answer in verdict.answers(run.evaluation):
            told.setdefault(answer.question, []).append(answer.answer)
    return {column(question): _counted(answers, len(answers)) for question, answers in told.items()}


def column(question: str) -> str:
    """ "Safe to share?" as a column's name: safe_to_share."""
    return question.rstrip("?").lower().replace(" ", "_")


def _counted(words: Iterable[str], of: int) -> str:
    """ "blur, seams (1 of 3)": each word, and how often where that is not always."""
    return ", ".join(
        word if count == of else f"{word} ({count} of {of})" for word, count in Counter(words).items()
    )


# ---------------------------------------------------------------- what to know beside them
def doubts(runs: Sequence[Run]) -> list[str]:
    """Why numbers of these runs may not be set side by side; each a sentence."""
    told = []
    tests: dict[frozenset[str], list[str]] = {}
    for run in runs:
        of_splits = [run.split.get(name, {}) for name in run.evaluation["split"].split("+")]
        tests.setdefault(frozenset().union(*of_splits), []).append(run.path.name)
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
    on_train = [run.path.name for run in runs if "train" in run.evaluation["split"].split("+")]
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
