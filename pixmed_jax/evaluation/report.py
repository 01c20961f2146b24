"""The report of a run: one self-contained HTML page, pictures first."""

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from PIL import Image

from pixmed_jax import config as configs
from pixmed_jax import pages, writing
from pixmed_jax import workdir as run_folder
from pixmed_jax.charts import chart_uri, styled
from pixmed_jax.data.augment_settings import briefly
from pixmed_jax.evaluation import facts, fidelity, verdict
from pixmed_jax.pictures import data_uri, legend

UNITS = {"ssim": ("SSIM", "{:.3f}"), "psnr": ("PSNR, dB", "{:.2f}"), "mse": ("MSE", "{:.5f}")}
_SCORES = {"ssim": "SSIM", "1-ssim": "1 − SSIM", "psnr": "PSNR, dB", "dice": "Dice"}
REGIONS = {"full": "whole image", "head": "inside the head", "tumor": "inside the mask"}
_AUGMENTATIONS = {
    "augmentation.png": "What training makes of one of its slices",
    "augmentation_discriminator.png": "What the discriminator sees of a slice, real or generated",
}
OWN_STYLE = "own_style"  # the one baseline that is the generator itself
TITLES = {
    "generated": "generated",
    "class_means": "class means, painted on the map",
    "mean_image": "mean training image",
    "nearest_mask": "nearest-mask training slice",
    "same_label": "any training slice of that class (of any class where none has it)",
    OWN_STYLE: "same map in the real slice's own style",
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
    return write_page(
        workdir,
        "report.html.j2",
        config,
        evaluation,
        grids=4,
        charts={
            "generator losses": "generator/",
            "discriminator losses": "discriminator/",
            "score on held-out patients": "held_out/",
        },
        answers=verdict.shown(verdict.answers(evaluation), workdir),
        regions=[REGIONS[where] for where in there(evaluation["mse"])],
        titles=TITLES,
        ahead=_ahead(evaluation),
        tables=[(title, _table(name, form, evaluation)) for name, (title, form) in UNITS.items()],
        grid=data_uri(grid),
        legend=legend(evaluation["condition"]["classes"]),
        told=fidelity.told(evaluation),
        drawn=drawn,
        augmentations=[
            (words, _file_uri(path))
            for file, words in _AUGMENTATIONS.items()
            if (path := workdir / "grids" / file).exists()
        ],
    )


def there(errors: Mapping[str, Any]) -> list[str]:
    """The regions that any slice has, by their errors; pictures of something else than heads have no head."""
    return [where for where in REGIONS if errors[where] is not None]


def ranked(evaluation: Mapping[str, Any]) -> list[str]:
    """Names of the baselines that need no network, the highest whole-image SSIM first."""
    of = evaluation.get("baselines", {})
    return sorted((name for name in of if name != OWN_STYLE), key=lambda name: -of[name]["ssim"]["full"])


def _ahead(evaluation: Mapping[str, Any]) -> tuple[str, bool]:
    """(whether the generator is closer to the real slice than the strongest baseline, in a sentence; does it
    beat it)"""
    best = ranked(evaluation)[0]
    of, gain = evaluation["baselines"][best], evaluation["gains"][best]
    form = UNITS["ssim"][1].format
    against = f"the strongest baseline, the {TITLES[best]} ({form(of['ssim']['full'])})"
    if gain["value"] <= 0:
        return f"The generator does not beat {against}: no network is needed for its SSIM.", False
    bounds = gain["interval"]
    sure = "of too few patients for an interval"
    if bounds:
        sure = f"{form(bounds[0])} to {form(bounds[1])}"
        sure += ", the same patients for both" if bounds[0] > 0 else ", which does not exclude 0"
    told = f"The generator is above {against} by {form(gain['value'])} ({sure})."
    return told, bool(bounds) and bounds[0] > 0


def write_page(
    workdir: Path,
    template: str,
    config: Mapping[str, Any],
    evaluation: Mapping[str, Any],
    *,
    grids: int,
    charts: Mapping[str, str],
    **values: Any,
) -> Path:
    """Write `report/index.html` from a template and what every run has; returns the page's path.

    grids: how many of the run's grids are shown. charts: {title: how the names of its curves begin}.
    """
    steps = sorted((workdir / "grids").glob("step_*.png"))
    page = pages.render(
        "pixmed_jax.evaluation",
        template,
        preset=config["preset"],
        evaluation=evaluation,
        history=[(f"step {int(p.stem.removeprefix('step_'))}", _file_uri(p)) for p in _some(steps, grids)],
        curves=_curves(run_folder.read_metrics(workdir), charts),
        settings=briefly(configs.flatten(config)),
        environment=run_folder.read_environment(workdir),
        **facts.described(config),
        **values,
    )
    path = workdir / "report" / "index.html"
    path.parent.mkdir(exist_ok=True)
    writing.write_text(path, page)
    return path


def _table(metric: str, form: str, evaluation: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    """[(row name, [(value, interval or "") per region])]."""
    rows = []
    contenders = {"generated": evaluation, **evaluation["baselines"]}
    for key, contender in contenders.items():
        values, title = contender[metric], TITLES[key]
        cells = []
        for region in there(evaluation["mse"]):
            value = "–" if values[region] is None else form.format(values[region])
            bounds = contender["intervals"][metric][region]
            spread = " to ".join(form.format(bound) for bound in bounds) if bounds else ""
            cells.append((value, spread))
        rows.append((title, cells))
    return rows


def _curves(records: Sequence[Mapping[str, float]], charts: Mapping[str, str]) -> list[str]:
    """Charts that have any curve, as data URIs of SVG pictures; norms of gradients are left out."""
    known = sorted({name for record in records for name in record if not name.endswith("norm")})
    labels = {
        title: {name: _label(name.split("/")[1]) for name in known if name.startswith(begin)}
        for title, begin in charts.items()
    }
    return [chart(title, records, names) for title, names in labels.items() if names]


def _label(score: str) -> str:
    return _SCORES.get(score, score)


def chart(title: str, records: Sequence[Mapping[str, float]], labels: Mapping[str, str]) -> str:
    """Curves over the steps: {name in the records: its label}; a single one is named at its axis."""
    figure = Figure(figsize=(4.6, 2.8), layout="constrained")
    axes = figure.subplots()
    for name, label in labels.items():
        points = [(r["step"], r[name]) for r in records if r.get(name) is not None]
        if points:
            axes.plot(*zip(*points, strict=True), label=label, linewidth=1.4)
    one = next(iter(labels.values())) if len(labels) == 1 else ""
    styled(axes, title, x="step", y=one, grid=True, legend=None if one else "upper right")
    return chart_uri(figure)


def _some(paths: Sequence[Path], number: int) -> list[Path]:
    """The first, the last and evenly spaced ones between."""
    if len(paths) <= number:
        return list(paths)
    return [paths[round(i * (len(paths) - 1) / (number - 1))] for i in range(number)]


def _file_uri(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
