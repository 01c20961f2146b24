"""The report of a run: one self-contained HTML page, pictures first."""

import base64
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from PIL import Image

from pixmed_jax import config as configs
from pixmed_jax import pages
from pixmed_jax import workdir as run_folder
from pixmed_jax.data.augment_settings import briefly
from pixmed_jax.evaluation import fidelity, verdict
from pixmed_jax.pictures import chart_uri, data_uri

_UNITS = {"ssim": ("SSIM", "{:.3f}"), "psnr": ("PSNR, dB", "{:.2f}"), "mse": ("MSE", "{:.5f}")}
_REGIONS = {"full": "whole image", "head": "inside the head", "tumor": "inside the mask"}
_AUGMENTATIONS = {
    "augmentation.png": "What training makes of one of its slices",
    "augmentation_discriminator.png": "What the discriminator sees of a slice, real or generated",
}
_ROWS = {
    "generated": "generated",
    "mean_image": "mean training image",
    "nearest_mask": "nearest-mask training slice",
    "same_label": "any training slice of that class",
}


def write(
    workdir: Path,
    config: Mapping[str, Any],
    evaluation: Mapping[str, Any],
    grid: Image.Image,
    drawn: Mapping[str, str],
) -> Path:
    """Write `report/index.html` for a run and its evaluation; returns the page's path.

    drawn: the pictures of `fidelity.measure`.
    """
    records = read_metrics(workdir)
    steps = sorted((workdir / "grids").glob("step_*.png"))
    page = pages.render(
        "pixmed_jax.evaluation",
        "report.html.j2",
        name=config["name"],
        preset=config["preset"],
        evaluation=evaluation,
        answers=verdict.answers(evaluation),
        regions=_REGIONS,
        titles=_ROWS,
        tables=[(title, _table(name, form, evaluation)) for name, (title, form) in _UNITS.items()],
        grid=data_uri(grid),
        told=fidelity.told(evaluation),
        drawn=drawn,
        history=[(f"step {int(p.stem.removeprefix('step_'))}", file_uri(p)) for p in some(steps, 4)],
        augmentations=[
            (words, file_uri(path))
            for file, words in _AUGMENTATIONS.items()
            if (path := workdir / "grids" / file).exists()
        ],
        curves=_curves(records),
        settings=briefly(configs.flatten(config)),
        environment=json.loads((workdir / "env.json").read_text()),
    )
    path = workdir / "report" / "index.html"
    path.parent.mkdir(exist_ok=True)
    run_folder.write_text(path, page)
    return path


def read_metrics(workdir: Path) -> list[dict[str, float]]:
    path = workdir / run_folder.METRICS
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _table(metric: str, form: str, evaluation: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    """[(row name, [(value, interval or "") per region])]."""
    rows = []
    contenders = {"generated": evaluation, **evaluation["baselines"]}
    for key, contender in contenders.items():
        values, title = contender[metric], _ROWS[key]
        cells = []
        for region in _REGIONS:
            value = "–" if values[region] is None else form.format(values[region])
            bounds = evaluation["intervals"][metric][region] if key == "generated" else None
            spread = " to ".join(form.format(bound) for bound in bounds) if bounds else ""
            cells.append((value, spread))
        rows.append((title, cells))
    return rows


def _curves(records: Sequence[Mapping[str, float]]) -> list[str]:
    """Loss curves and the held-out score as data URIs of SVG pictures."""
    losses = {
        k for r in records for k in r if k.split("/")[0] in ("generator", "discriminator") and "norm" not in k
    }
    charts = [
        ("generator losses", sorted(k for k in losses if k.startswith("generator"))),
        ("discriminator losses", sorted(k for k in losses if k.startswith("discriminator"))),
        ("score on held-out patients", sorted({k for r in records for k in r if k.startswith("held_out/")})),
    ]
    return [
        chart(title, {n: [(r["step"], r[n]) for r in records if r.get(n) is not None] for n in names})
        for title, names in charts
        if names
    ]


def chart(title: str, lines: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    figure = Figure(figsize=(4.6, 2.8), layout="constrained")
    axes = figure.subplots()
    for name, points in lines.items():
        if points:
            axes.plot(*zip(*points, strict=True), label=name.split("/")[1], linewidth=1.4)
    axes.set_title(title, fontsize=10, loc="left")
    axes.set_xlabel("step", fontsize=8)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    if len(lines) > 1:
        axes.legend(loc="upper right", fontsize=8, frameon=False)
    return chart_uri(figure)


def some(paths: Sequence[Path], number: int) -> list[Path]:
    """The first, the last and evenly spaced ones between."""
    if len(paths) <= number:
        return list(paths)
    return [paths[round(i * (len(paths) - 1) / (number - 1))] for i in range(number)]


def file_uri(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
