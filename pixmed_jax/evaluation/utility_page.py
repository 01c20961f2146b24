"""The page of a utility experiment: scores and differences as charts and tables, power, and sample slices."""

import csv
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from pixmed_jax import charts, pages, pictures, writing
from pixmed_jax.data.decode import read_image, read_mask
from pixmed_jax.data.synthetic import MANIFEST
from pixmed_jax.evaluation import entries, facts, verdict
from pixmed_jax.evaluation.arms import ARMS, COMPARED, MEASURES, OF_PASTED, PASTED, PRIMARY, Arm, Experiment

_SHOWN = 6  # synthetic slices of each share
# Of the arms, in their order.
_COLOURS = ("#222222", "#888888", "#46a0eb", "#e6a020", "#d0402a", "#3cb482", "#8a5cc4")
_REACH = 4  # of the right panel, in units of its largest difference
_GAP = 0.07  # between the marks of neighbouring arms, in units of the step from share to share


def write(workdir: Path, experiment: Experiment, result: Mapping[str, Any]) -> Path:
    """Write `report/utility.html` for what utility.json holds; returns its path."""
    samples = [
        (title, share, experiment.slices_of(workdir, share, 0) / folder)
        for share in result["shares"]
        for title, folder in (("Synthetic slices", "samples"), ("Copied pixels", PASTED))
    ]
    page = pages.render(
        "pixmed_jax.evaluation",
        "utility.html.j2",
        result=result,
        **facts.described(experiment.config),
        answer=verdict.helps(entries.told_of_utility(result)),
        arms=experiment.arms(),
        compared={"-".join(pair): words for pair, words in experiment.compared().items()},
        measures=MEASURES,
        charts={
            f"{network}: {MEASURES[measure].title}": _chart(of, measure, result["shares"], experiment.arms())
            for network, told in result["networks"].items()
            for measure, of in told["measures"].items()
        },
        sheets=[(title, share, pictures.data_uri(_sheet(of))) for title, share, of in samples if of.is_dir()],
        tested=" and ".join({"val": "validation"}.get(s, s) for s in result["split"].split("+")),
    )
    path = workdir / "report" / "utility.html"
    path.parent.mkdir(exist_ok=True)
    writing.write_text(path, page)
    return path


def _chart(of: Mapping[str, Any], measure: str, shares: list[int], arms: Mapping[str, Arm]) -> str:
    """Left the scores of the arms over the share of the patients, right the difference the verdict goes by,
    and what the same edits gain without a network.

    The other differences are in the page's table: beside these they would only be taken for answers.
    """
    figure = Figure(figsize=(10.5, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    colours = dict(zip(ARMS, _COLOURS, strict=True))
    of_shares = [of[str(share)] for share in shares]
    for i, (arm, about) in enumerate(arms.items()):
        scores = [told["scores"][arm] for told in of_shares]
        _marks(left, scores, i - (len(arms) - 1) / 2, about.short, colours[arm], line=True)
    right.axhline(0, color="0.5", linewidth=1)
    shown = [pair for pair in (PRIMARY, OF_PASTED) if set(pair) <= set(arms)]
    differences = []
    for i, pair in enumerate(shown):
        told_of = [told["differences"]["-".join(pair)] for told in of_shares]
        _marks(right, told_of, i - (len(shown) - 1) / 2, COMPARED[pair], colours[pair[0]], line=False)
        differences += told_of
    # Intervals of two seeds are wide enough to hide the differences; those run out of the panel.
    reach = _REACH * max(abs(one["value"]) for one in differences) or 1.0
    right.set_ylim(max(right.get_ylim()[0], -reach), min(right.get_ylim()[1], reach))
    title = MEASURES[measure].title
    less = ", less is better" if MEASURES[measure].sign < 0 else ""
    for axes, y in ((left, f"{title}{less}"), (right, f"difference in {title}")):
        axes.set_xticks(range(len(shares)), [f"{share} %" for share in shares])
        charts.styled(axes, x="share of the training patients", y=y, grid=True)
        columns = 3 if axes is left else 1
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=columns, fontsize=8, frameon=False)
    return charts.chart_uri(figure)


def _marks(
    axes: Axes, told: list[Mapping[str, float]], place: float, label: str, colour: str, *, line: bool
) -> None:
    value = np.array([one["value"] for one in told])
    ends = np.array([(one["low"], one["high"]) for one in told]).T
    axes.errorbar(
        np.arange(len(told)) + _GAP * place,
        value,
        yerr=np.abs(ends - value),
        label=label,
        color=colour,
        marker="o",
        markersize=3.5,
        linestyle="-" if line else "none",
        linewidth=0.8,
        elinewidth=1.2,
    )


def _sheet(samples: Path) -> Image.Image:
    """Some of a generator's slices with the borders of their masks, labels in turn."""
    with (samples / MANIFEST).open(newline="", encoding="utf-8") as table:
        rows = list(csv.DictReader(table))
    of_labels: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        of_labels.setdefault(row["label"], []).append(row)
    rows = [row for turn in itertools.zip_longest(*of_labels.values()) for row in turn if row][:_SHOWN]
    images = []
    for row in rows:
        image = read_image(samples / "images" / row["file"])
        grey = (
            pictures.grey(image[None] if image.ndim == 3 else image[None, ..., None])
            / np.iinfo(image.dtype).max
        )
        if row["mask"]:
            grey = pictures.outlined(grey, read_mask(samples / "masks" / row["mask"])[None] > 0)
        images.append(grey)
    return pictures.grid(
        {f"{i}: {row['label']}": one for i, (row, one) in enumerate(zip(rows, images, strict=True), 1)}
    )
