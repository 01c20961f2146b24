"""The evaluation of a classifier or a segmenter on patients it was not trained on.

Writes `evaluation.json` and `report/index.html` into the run's folder, as `evaluate` does for generators, and
`cases.csv`: file, patient_group, label, and what became of each slice. For a classifier `said` and `p_LABEL`,
for a segmenter `dice` and `hausdorff95` (pixels; empty where a mask is).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from pixmed_jax import charts, inference, pictures, texts, writing
from pixmed_jax import workdir as run_folder
from pixmed_jax.data.slices import Slices
from pixmed_jax.data.sources import Dataset
from pixmed_jax.data.synthetic import PREFIX
from pixmed_jax.data.values import floats
from pixmed_jax.evaluation import cards, cost, facts, report
from pixmed_jax.metrics import bootstrap, classification, clustered, segmentation

_SHOWN = 12  # right ones and wrong ones, each
_RANKS = 8  # masks shown, evenly spaced from the worst to the best
TITLES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy (macro recall)",
    "macro_precision": "macro precision",
    "macro_f1": "macro F1",
    "log_loss": "log loss",
    "ece": "expected calibration error",
    "auroc": "AUROC, one against the rest",
    "recall": "recall",
    "precision": "precision",
    "f1": "F1",
    "auroc_of": "AUROC",
    "dice": "Dice of the mask",
    "hausdorff95": "95 % Hausdorff distance, pixels",
}


class Shown(NamedTuple):
    """A picture of the page, as the address of an <img>."""

    title: str
    uri: str
    told: str
    wide: bool = False


class Judged(NamedTuple):
    """What evaluation.json holds, the page's pictures, and a value per slice under each column's name."""

    measured: dict[str, Any]
    figures: list[Shown]
    cases: Mapping[str, Sequence[Any] | np.ndarray]


def evaluate(workdir: Path, config: Mapping[str, Any], *, split: str, step: str) -> dict[str, Any]:
    """Score a checkpoint of `workdir` on `split`; returns what evaluation.json holds."""
    network = inference.load_network(workdir, step)
    dataset = facts.open_data(workdir, config, split)
    arrays, slices = dataset.load(dataset.of(split), dataset.size)
    logits = network(np.asarray(arrays.images))
    judge = _judge_labels if network.predicts == "labels" else _judge_masks
    result = {
        **facts.of(config, dataset, split, network.step),
        "predicts": network.predicts,
        "classes": list(network.classes),
        "trained_on": _trained_on(workdir),
        "cost": cost.of(config, len(network.classes), network),
    }
    measured, figures, cases = judge(logits, slices, dataset, np.asarray(arrays.maps))
    result |= measured
    writing.write_text(workdir / run_folder.CASES, table(slices, cases))
    _write_page(workdir, config, result, figures)
    writing.write_json(workdir / run_folder.EVALUATION, result)
    cards.write(workdir)
    return result


def table(slices: Slices, cases: Mapping[str, Sequence[Any] | np.ndarray]) -> str:
    """cases.csv: what became of each slice under each column's name."""
    labels = [slices.label_names[label] for label in slices.labels]
    rows = zip(slices.files, slices.groups, labels, *cases.values(), strict=True)
    told = (  # NaN is not itself
        ["" if v != v else f"{v:.7g}" if isinstance(v, float) else v for v in row] for row in rows
    )
    return texts.csv_table([("file", "patient_group", "label", *cases), *told])


def summary(result: Mapping[str, Any]) -> str:
    """The numbers in a line for the terminal."""
    where = facts.whom(result)
    if result["predicts"] == "masks":
        far, several = result["hausdorff95"], len(result["classes"]) > 1
        of = ", ".join(f"{name} {value:.3f}" for name, value in result["dice_of"].items())
        return (
            f"Dice on {where}: {result['dice']:.3f}{f' of any of them ({of})' if several else ''}, "
            f"95 % Hausdorff distance {_text(far, '{:.1f}')} pixels"
        )
    return (
        f"accuracy on {where}: {result['accuracy']:.3f}, balanced {result['balanced_accuracy']:.3f}, "
        f"log loss {result['log_loss']:.3f}; always {result['baseline']['label']}: "
        f"{result['baseline']['accuracy']:.3f}"
    )


def _trained_on(workdir: Path) -> dict[str, int]:
    files = (run_folder.read_split(workdir) or {}).get("train", {})
    made = sum(name.startswith(PREFIX) for name in files)
    return {"real": len(files) - made, "synthetic": made}


def _or_none(value: Any) -> Any:
    """NaN is no JSON."""
    if np.ndim(value):
        return [_or_none(v) for v in value]
    return None if np.isnan(value) else float(value)


# ---------------------------------------------------------------- labels
def _judge_labels(logits: np.ndarray, slices: Slices, dataset: Dataset, _: np.ndarray) -> Judged:
    labels, names = slices.labels, list(slices.label_names)
    wide = logits.astype(np.float64)
    p = np.exp(wide - wide.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    values = classification.measure(p, labels)
    bounds = bootstrap.resampled(
        np.array(slices.groups), lambda weights: classification.measure(p, labels, weights)
    )
    said = p.argmax(1)
    of_means = _intervals_of_means(p, labels, np.array(slices.groups))
    of_training = dataset.source.labels[dataset.rows["train"]]
    usual = int(np.bincount(of_training, minlength=len(names)).argmax())
    table = classification.confusion(labels, said, len(names)).astype(int)
    result: dict[str, Any] = {name: _or_none(values[name]) for name in classification.SCALARS}
    for name in classification.OF_LABELS:
        result[name] = dict(zip(names, _or_none(values[name]), strict=True))
    intervals: dict[str, Any] = {name: _or_none(bounds[name]) for name in classification.SCALARS}
    for name in classification.OF_LABELS:
        intervals[name] = {label: _or_none(bounds[name][:, i]) for i, label in enumerate(names)}
    for name, of in of_means.items():
        intervals[name] = dict(zip(names, of, strict=True)) if name in classification.OF_LABELS else of[0]
    result |= {
        "intervals": intervals,
        "confusion": {
            name: dict(zip(names, row.tolist(), strict=True)) for name, row in zip(names, table, strict=True)
        },
        "baseline": {"label": names[usual], "accuracy": float(np.mean(labels == usual))},
    }
    images = pictures.grey(floats(slices.images))

    def examples(rows: np.ndarray) -> str:
        return pictures.data_uri(pictures.judged(images[rows], labels[rows], logits[rows], names=names))

    sure, correct = p.max(1), said == labels
    figures = [
        Shown(
            "Confusion matrix",
            _confusion_chart(table, names),
            "Rows: what it is; columns: what it is called.",
        ),
        Shown("Calibration", _reliability_chart(sure, correct), "Bars on the line: right as often as sure."),
    ]
    wrong = np.flatnonzero(~correct)
    if len(wrong):
        shown = wrong[np.argsort(-sure[wrong], kind="stable")][:_SHOWN]
        told = f"The {len(shown)} that it is surest of, of {len(wrong)} wrong ones."
        figures.append(Shown("Wrong", examples(shown), told, wide=True))
    right = _in_turn(labels, np.flatnonzero(correct))[:_SHOWN]
    if len(right):
        figures.append(Shown("Right", examples(right), "One of each label in turn.", wide=True))
    cases = {"said": [names[i] for i in said], **{f"p_{name}": p[:, i] for i, name in enumerate(names)}}
    return Judged(result, figures, cases)


def _intervals_of_means(
    p: np.ndarray, labels: np.ndarray, groups: np.ndarray
) -> dict[str, list[list[float | None]]]:
    """{name: intervals, of each label or of one} of what is a mean or a share of slices."""
    said, kinds = p.argmax(1), range(p.shape[1])
    right = (said == labels).astype(np.float64)
    loss = classification.losses(p, labels)

    def shares(whose: np.ndarray) -> list[list[float | None]]:
        """Of the images whose label, or whose answer, is each label; of labels that images have."""
        of = [np.where((whose == kind) & (labels == kind).any(), right, np.nan) for kind in kinds]
        return [_pair(clustered.share(hits, groups)) for hits in of]

    return {
        "accuracy": [_pair(clustered.share(right, groups))],
        "log_loss": [_pair(clustered.interval(loss, groups, within=clustered.RANGES["log_loss"]))],
        "recall": shares(labels),
        "precision": shares(said),
    }


def _pair(bounds: tuple[float, float] | None) -> list[float | None]:
    return [None, None] if bounds is None else [*bounds]


def _in_turn(labels: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The rows, labels in turn, evenly spread over each label's."""
    of_each = [rows[labels[rows] == label] for label in np.unique(labels[rows])]
    picked = [some[np.linspace(0, len(some) - 1, min(len(some), _SHOWN)).astype(int)] for some in of_each]
    return np.array([some[i] for i in range(_SHOWN) for some in picked if i < len(some)], int)


def _confusion_chart(table: np.ndarray, names: list[str]) -> str:
    figure = Figure(figsize=(1.6 + 0.75 * len(names), 1.2 + 0.6 * len(names)), layout="constrained")
    axes = figure.subplots()
    share = table / np.maximum(table.sum(1, keepdims=True), 1)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for (i, j), count in np.ndenumerate(table):
        axes.text(j, i, str(count), ha="center", va="center", color="white" if share[i, j] > 0.5 else "black")
    axes.set_xticks(range(len(names)), names, fontsize=9, rotation=20)
    axes.set_yticks(range(len(names)), names, fontsize=9)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    return charts.chart_uri(figure)


def _reliability_chart(sure: np.ndarray, right: np.ndarray) -> str:
    figure = Figure(figsize=(4.2, 3.0), layout="constrained")
    axes = figure.subplots()
    total, confidence, accuracy = classification.reliability(sure, right, np.ones(len(sure))).T
    there = total > 0
    axes.plot([0, 1], [0, 1], color="0.6", linewidth=1)
    axes.bar(confidence[there], accuracy[there], width=0.05, color="#46a0eb")
    for x, y, count in zip(confidence[there], accuracy[there], total[there], strict=True):
        axes.annotate(f"{count:.0f}", (x, y), (0, 2), textcoords="offset points", ha="center", fontsize=7)
    axes.set_xlim(0, 1.03)
    axes.set_ylim(0, 1.08)
    charts.styled(axes, x="probability of what it says (above bars: images)", y="share of right answers")
    return charts.chart_uri(figure)


# ---------------------------------------------------------------- masks
def _judge_masks(logits: np.ndarray, slices: Slices, dataset: Dataset, maps: np.ndarray) -> Judged:
    """Of several classes all together, and each; of a single one all slices, and those of each label."""
    found, true = logits.argmax(-1), slices.masks > 0
    groups, names = np.array(slices.groups), list(slices.label_names)
    values = {
        "dice": segmentation.dice(found > 0, true),
        "hausdorff95": segmentation.hausdorff95(found > 0, true),
    }
    if len(dataset.classes) > 1:
        by_class = segmentation.dice_of_classes(found, maps, len(dataset.classes))
        of_each = dict(zip(dataset.classes, by_class, strict=True))
    else:
        of_each = {name: values["dice"][slices.labels == i] for i, name in enumerate(names)}
    result: dict[str, Any] = {
        name: None if np.isnan(v).all() else float(np.nanmean(v)) for name, v in values.items()
    }
    result |= {
        "dice_of": {
            name: float(np.nanmean(each))
            for name, each in of_each.items()
            if each.size and not np.isnan(each).all()
        },
        "missed": int((true.any((1, 2)) & ~((found > 0) & true).any((1, 2))).sum()),
        "invented": int((~true.any((1, 2)) & (found > 0).any((1, 2))).sum()),
        "intervals": {
            name: clustered.interval(v, groups, within=clustered.RANGES[name]) for name, v in values.items()
        },
    }
    order = np.argsort(values["dice"], kind="stable")
    shown = order[np.linspace(0, len(order) - 1, min(_RANKS, len(order))).round().astype(int)]
    images = pictures.grey(floats(slices.images))[shown]
    columns = {
        "image": images,
        "true mask": pictures.outlined(images, true[shown]),
        "found mask": pictures.outlined(images, found[shown] > 0),
        "difference": pictures.disagreement(found[shown] > 0, true[shown]),
    }
    told = [f"{names[slices.labels[row]]}\nDice {values['dice'][row]:.3f}" for row in shown]
    grid = pictures.data_uri(pictures.grid(columns, told))
    figures = [
        Shown(
            "From the worst to the best",
            grid,
            "Evenly spaced by Dice. Difference: green found, red missed, blue found where there is none.",
            wide=True,
        ),
        Shown("Dice of the slices", _histogram(values["dice"]), ""),
    ]
    if len(dataset.classes) > 1:
        values |= {f"dice_{name}": each for name, each in of_each.items()}
    return Judged(result, figures, values)


def _histogram(values: np.ndarray) -> str:
    figure = Figure(figsize=(4.2, 2.6), layout="constrained")
    axes = figure.subplots()
    axes.hist(values, bins=np.linspace(0, 1, 21).tolist(), color="#46a0eb")
    charts.styled(axes, x="Dice", y="slices")
    return charts.chart_uri(figure)


# ---------------------------------------------------------------- the page
def _write_page(
    workdir: Path, config: Mapping[str, Any], result: Mapping[str, Any], figures: list[Shown]
) -> None:
    labels = result["predicts"] == "labels"
    report.write_page(
        workdir,
        "supervised.html.j2",
        config,
        result,
        grids=2,
        charts={"on training batches": "network/", "score on held-out patients": "held_out/"},
        rows=_rows(result, classification.SCALARS if labels else ("dice", "hausdorff95")),
        columns=[TITLES[name] for name in classification.OF_LABELS] if labels else [TITLES["dice"]],
        of_labels=_of_labels(result),
        figures=figures,
        least=bootstrap.LEAST,
    )


def _text(value: float | None, form: str = "{:.3f}") -> str:
    return "–" if value is None else form.format(value)


def _cell(value: float | None, bounds: Sequence[float | None] | None) -> tuple[str, str]:
    """The value, and its interval or ""."""
    low, high = bounds or (None, None)
    return _text(value), "" if low is None else f"{_text(low)} to {_text(high)}"


def _rows(result: Mapping[str, Any], names: Sequence[str]) -> list[tuple[str, tuple[str, str]]]:
    return [(TITLES[name], _cell(result[name], result["intervals"][name])) for name in names]


def _of_labels(result: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    if result["predicts"] == "masks":
        return [(label, [_cell(value, None)]) for label, value in result["dice_of"].items()]
    return [
        (
            label,
            [
                _cell(result[name][label], result["intervals"][name][label])
                for name in classification.OF_LABELS
            ],
        )
        for label in result["recall"]
    ]
