"""The evaluation of a network that restores degraded images, on patients it was not trained on.

Test slices are degraded as in training and given back by the network and by what needs none: interpolations
of a small image, a dark one as it is. Each is compared with the real slice (PSNR, SSIM, MSE: obedience to it,
which favours blur) and all with real slices as a set (KID of the run's own encoder: how real they look).

Writes `evaluation.json`, `cases.csv` (file, patient_group, label, PSNR and SSIM of every contender) and
`report/index.html` into the run's folder.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from pixmed_jax import inference, pictures, writing
from pixmed_jax import workdir as run_folder
from pixmed_jax.data.pictured import scored
from pixmed_jax.data.pipeline import Arrays
from pixmed_jax.data.slices import Slices
from pixmed_jax.data.sources import Dataset
from pixmed_jax.data.values import floats
from pixmed_jax.enhancement.interpolation import METHODS, enlarge
from pixmed_jax.evaluation import cards, cost, facts, report, supervised
from pixmed_jax.judges import features
from pixmed_jax.judges.published import NOT_ASKED, Distance
from pixmed_jax.judges.published import measure as measure_lpips
from pixmed_jax.metrics import clustered, distribution, similarity

NETWORK = "network"  # the contender that was trained
_SHOWN = 6
_GAP = 0.2  # of the grey range: white in the pictures of what is left of the difference
_BATCH = 8


def evaluate(
    workdir: Path,
    config: Mapping[str, Any],
    *,
    split: str,
    seed: int,
    step: str,
    lpips: tuple[str, Distance] | None = None,
) -> dict[str, Any]:
    """Score a checkpoint of `workdir` on `split`; returns what evaluation.json holds.

    lpips: the name of a published network, and its distance.
    """
    restorer = inference.load_restorer(workdir, step)
    dataset = facts.open_data(workdir, config, split)
    arrays, slices = dataset.load(dataset.of(split), dataset.size)
    train, train_slices = dataset.load(dataset.rows["train"], dataset.size)
    given, real = _given(dataset, arrays), pictures.grey(floats(arrays.images))
    groups = np.array(slices.groups)
    contenders = {NETWORK: restorer(given), **_baselines(given, restorer.scale)}
    images = {name: pictures.grey(made) for name, made in contenders.items()}
    regions = scored(slices.masks, np.asarray(arrays.images), slices.masks, dataset.condition)
    scores = {name: similarity.score(made, real, regions) for name, made in images.items()}
    result = {
        **facts.of(config, dataset, split, restorer.step),
        "scale": restorer.scale,
        "predicts": "images",
        "degraded": dataset.condition,
        "contenders": {name: _told(of, groups) for name, of in scores.items()},
        "gains": {
            name: {
                metric: _mean(scores[NETWORK][metric]["full"] - of[metric]["full"], groups)
                for metric in similarity.METRICS
            }
            for name, of in scores.items()
            if name != NETWORK
        },
        "kid": _kid(images, real, pictures.grey(floats(train.images)), groups, train_slices, workdir, seed),
        "pattern": {
            name: float(pattern(made, restorer.scale).mean())
            for name, made in {**images, "real": real}.items()
        },
        "lpips": _lpips(images, real, groups, lpips),
        "cost": cost.of(config, len(dataset.classes), restorer),
    }
    cases = {
        f"{metric}_{name}": of[metric]["full"] for name, of in scores.items() for metric in ("psnr", "ssim")
    }
    writing.write_text(workdir / run_folder.CASES, supervised.table(slices, cases))
    shown = np.searchsorted(dataset.of(split), dataset.spread(split, _SHOWN))
    grid = _grid(pictures.grey(given), images, real, shown, slices)
    _write_page(workdir, config, result, grid)
    writing.write_json(workdir / run_folder.EVALUATION, result)
    cards.write(workdir)
    return result


def summary(result: Mapping[str, Any]) -> str:
    """The whole-image numbers in a line for the terminal."""
    table = ", ".join(
        f"{name} {of['psnr']['full']['value']:.2f} dB and {of['ssim']['full']['value']:.4f}"
        for name, of in result["contenders"].items()
    )
    return f"PSNR and SSIM on {facts.whom(result)}: {table}"


# ---------------------------------------------------------------- images
def _given(dataset: Dataset, arrays: Arrays) -> np.ndarray:
    """What the network is given: the slices degraded, [N, h, w, C] float32."""

    @jax.jit
    def degraded(part: Arrays) -> jax.Array:
        return dataset.batch(part).condition

    rows = range(0, len(arrays.images), _BATCH)
    parts = (Arrays(*(np.asarray(x)[start : start + _BATCH] for x in arrays)) for start in rows)
    return np.concatenate([np.asarray(degraded(part)) for part in parts])


def _baselines(given: np.ndarray, scale: int) -> dict[str, np.ndarray]:
    if scale == 1:
        return {"given": given}
    return {name: np.asarray(enlarge(given, scale, name)) for name in METHODS}


def _grid(
    given: np.ndarray, images: Mapping[str, np.ndarray], real: np.ndarray, rows: np.ndarray, slices: Slices
) -> str:
    other = "bicubic" if "bicubic" in images else "given"
    columns = {
        "given": pictures.enlarged(given[rows], real.shape[1]),
        other: images[other][rows],
        NETWORK: images[NETWORK][rows],
        "real": real[rows],
        f"{other} - real": pictures.difference(images[other][rows], real[rows], white=_GAP),
        f"{NETWORK} - real": pictures.difference(images[NETWORK][rows], real[rows], white=_GAP),
    }
    return pictures.data_uri(pictures.grid(columns, [slices.label_names[i] for i in slices.labels[rows]]))


# ---------------------------------------------------------------- numbers
def _mean(
    values: np.ndarray, groups: np.ndarray, within: tuple[float, float] = clustered.ANY
) -> dict[str, Any]:
    """The mean over the images that have a value, and its interval by patient; None where none has one."""
    value = None if np.isnan(values).all() else float(np.nanmean(values))
    return {"value": value, "interval": clustered.interval(values, groups, within=within)}


def _told(scores: Mapping[str, Mapping[str, np.ndarray]], groups: np.ndarray) -> dict[str, Any]:
    return {
        metric: {where: _mean(values, groups, clustered.RANGES[metric]) for where, values in of.items()}
        for metric, of in scores.items()
    }


def pattern(images: np.ndarray, period: int) -> np.ndarray:
    """[N]: what repeats with every `period` pixels, in grey levels of 255 (root mean square).

    The mean of each place within the pixels that come of one, over the image: a checkerboard, or nothing.
    """
    n, size, _ = images.shape
    inner = images[:, : size // period * period, : size // period * period].astype(np.float64)
    places = inner.reshape(n, size // period, period, -1, period).mean((1, 3))
    return 255 * np.sqrt(np.square(places - places.mean((1, 2), keepdims=True)).mean((1, 2)))


def _kid(
    images: Mapping[str, np.ndarray],
    real: np.ndarray,
    train: np.ndarray,
    groups: np.ndarray,
    train_slices: Slices,
    workdir: Path,
    seed: int,
) -> dict[str, Any]:
    """{contender: the entry of `distribution.compare`}"""
    if why := distribution.too_few(groups):
        return {name: distribution.nothing(why) for name in images}
    encode = features.encoder(train, folder=workdir / run_folder.JUDGES)
    of_real, of_train = encode(real), encode(train)
    return {
        name: distribution.compare(
            encode(made),
            of_real,
            of_train,
            groups=groups,
            train_groups=np.array(train_slices.groups),
            features=features.NAME,
            matched=True,
            seed=seed,
        )["kid"]
        for name, made in images.items()
    }


def _lpips(
    images: Mapping[str, np.ndarray],
    real: np.ndarray,
    groups: np.ndarray,
    chosen: tuple[str, Distance] | None,
) -> dict[str, Any]:
    if chosen is None:
        return NOT_ASKED
    generated = {"generated": images[NETWORK]}
    others = {name: made for name, made in images.items() if name != NETWORK}
    return measure_lpips(*chosen, generated | others, real, groups)


# ---------------------------------------------------------------- the page
def _write_page(workdir: Path, config: Mapping[str, Any], result: Mapping[str, Any], grid: str) -> None:
    errors = result["contenders"][NETWORK]["mse"]
    regions = report.there({where: of["value"] for where, of in errors.items()})
    report.write_page(
        workdir,
        "restoration.html.j2",
        config,
        result,
        grids=3,
        charts={
            "on training batches": "network/",
            "generator losses": "generator/",
            "discriminator losses": "discriminator/",
            "PSNR on held-out patients": "held_out/psnr",
            "SSIM on held-out patients": "held_out/ssim",
        },
        grid=grid,
        white=_GAP,
        regions=[report.REGIONS[where] for where in regions],
        tables=[
            (
                title,
                [
                    (name, [_cell(of[metric][where], form) for where in regions])
                    for name, of in result["contenders"].items()
                ],
            )
            for metric, (title, form) in report.UNITS.items()
        ],
        gains=[
            (name, [_cell(of[metric], form) for metric, (_, form) in _SIGNED.items()])
            for name, of in result["gains"].items()
        ],
        units=[title for title, _ in _SIGNED.values()],
    )


_SIGNED = {metric: (title, form.replace(":", ":+")) for metric, (title, form) in report.UNITS.items()}


def _cell(of: Mapping[str, Any], form: str) -> tuple[str, str]:
    """The value, and its interval or ""."""
    if of["value"] is None:
        return "–", ""
    return form.format(of["value"]), " to ".join(form.format(bound) for bound in of["interval"] or ())
