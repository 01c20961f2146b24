"""The first evaluation of a run: a checkpoint on patients it was not trained on, beside baselines.

Writes `evaluation.json`, `report/index.html` and the model card into the run's folder.
"""

import zlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from pixmed_jax import config as configs
from pixmed_jax import inference, pictures, writing
from pixmed_jax import workdir as run_folder
from pixmed_jax.data.pictured import scored
from pixmed_jax.data.pipeline import Arrays
from pixmed_jax.data.slices import Slices
from pixmed_jax.data.values import floats
from pixmed_jax.errors import PixmedError, at_least, one_of
from pixmed_jax.evaluation import (
    cards,
    cost,
    entries,
    facts,
    fidelity,
    layouts,
    report,
    restoration,
    supervised,
)
from pixmed_jax.judges import published
from pixmed_jax.judges.kept import digest
from pixmed_jax.metrics import baselines, clustered, distribution, diversity, similarity
from pixmed_jax.training.build import is_supervised, makes_layouts, restores

FEATURES = ("encoder", "inception")
_SHOWN = 6
_HEADED = {"nearest_mask": "nearest mask's slice", "same_label": "same label, if any"}


@writing.alone("evaluation")
def evaluate(
    workdir: Path,
    *,
    split: str = "test",
    seed: int = 0,
    step: str = "newest",
    features: str = "encoder",
    lpips: str = "none",
    weights: str = "",
) -> dict[str, Any]:
    """Score a checkpoint of `workdir` on `split`, such as "val+test"; returns what evaluation.json holds.

    features, lpips: the networks of KID and its kin, and of LPIPS. weights: where published ones have theirs.
    """
    one_of("evaluate.features", features, FEATURES)
    at_least(0, "evaluate", seed=seed)
    config = run_folder.read_config(workdir)
    if restores(config):
        if features != "encoder":
            raise PixmedError(
                "evaluate.features: what restores images is judged by the run's own encoder; leave it out"
            )
        judge = (lpips, published.lpips(lpips, weights)) if lpips != "none" else None
        return restoration.evaluate(workdir, config, split=split, seed=seed, step=step, lpips=judge)
    if is_supervised(config):
        if (features, lpips) != ("encoder", "none"):
            raise PixmedError(
                "evaluate.features and evaluate.lpips judge images, and this run makes none; leave them out"
            )
        if makes_layouts(config):
            return layouts.evaluate(workdir, config, split=split, seed=seed, step=step)
        return supervised.evaluate(workdir, config, split=split, step=step)
    inception = published.inception(weights) if features == "inception" else None
    distance = published.lpips(lpips, weights) if lpips != "none" else None
    generator = inference.load(workdir, step)
    dataset = facts.open_data(workdir, config, split)
    arrays, slices = dataset.load(dataset.of(split), dataset.size)
    train, train_slices = dataset.load(dataset.rows["train"], dataset.size)

    maps, real = np.asarray(arrays.maps), grey_floats(arrays)
    painted = generator(maps, seed=seed)
    generated = pictures.grey(painted)
    contenders = {"generated": generated, "mean_image": np.broadcast_to(mean_of(train), real.shape)}
    blur = None
    # What a training slice would do in the place of the generated one; a label says no more than its class.
    if generator.takes_maps:
        contenders["class_means"], blur = class_means_of(train, maps, len(dataset.classes))
        other, rows = "nearest_mask", baselines.nearest_masks(maps, np.asarray(train.maps))
    else:
        other, rows = "same_label", baselines.any_of_label(maps, np.asarray(train.maps), seed)
    contenders[other] = grey_floats(train._replace(images=train.images[rows]))
    if generator.reads_style:
        contenders["own_style"] = pictures.grey(generator.repaint(maps, np.asarray(arrays.images)))
    regions = scored(maps, np.asarray(arrays.images), slices.masks, dataset.condition)
    groups = np.array(slices.groups)
    several = maps[diversity.spread_rows(groups, diversity.CONDITIONS)]
    again = cache(lambda of: pictures.grey(generator(several, seed=1 + seed + of)))
    scores = {name: similarity.score(images, real, regions) for name, images in contenders.items()}

    train_images = grey_floats(train)
    fidelity_of, drawn = fidelity.measure(
        generated,
        judged(real, slices, generator.takes_maps),
        judged(train_images, train_slices, generator.takes_maps),
        lookup=contenders.get("class_means"),
        inception=inception,
        folder=workdir / run_folder.JUDGES,
        seed=seed,
    )

    result = {
        **facts.of(config, dataset, split, generator.step),
        "seed": seed,
        "condition": {
            "name": config["data"]["condition"],
            "classes": list(dataset.classes),
            "bytes_per_slice": condition_bytes(maps),
        },
        "coloured": not generator.grey,
        "judged_by": digest(train_images, real)[:16],  # numbers of other slices' judges do not compare
        **means(scores["generated"]),
        "intervals": intervals(scores["generated"], groups),
        "cost": cost.of(config, len(dataset.classes), generator),
        "baselines": {
            name: {**means(of), "intervals": intervals(of, groups)}
            for name, of in scores.items()
            if name != "generated"
        },
        "blur": blur,
        "gains": {
            name: gain(scores["generated"]["ssim"]["full"] - of["ssim"]["full"], groups)
            for name, of in scores.items()
            if name not in ("generated", report.OWN_STYLE)
        },
        **fidelity_of,
        "diversity": diversity.measure(
            generated,
            real,
            slices.groups,
            again,
            labels=None if generator.takes_maps else maps,
        ),
        "lpips": published.NOT_ASKED
        if distance is None
        else published.measure(
            lpips, distance, contenders, real, groups, [again(of) for of in range(diversity.SEEDS)]
        ),
        "memorisation": entries.audited(workdir, generator.step, configs.digest(config)),
        "readers": entries.read_by_people(workdir, generator.step, configs.digest(config)),
        "utility": entries.used(workdir, configs.digest(config)),
    }

    shown = np.searchsorted(dataset.of(split), dataset.spread(split, _SHOWN))
    columns = {"real": floats(arrays.images[shown]), "generated": painted[shown]}
    columns = {name: pictures.shown(images, generator.grey) for name, images in columns.items()}
    if generator.takes_maps:
        told = pictures.colours(maps[shown], dataset.classes)
        columns = {"label map": told, **columns, "difference": pictures.difference(*columns.values())}
    columns[_HEADED[other]] = pictures.shown(floats(train.images[rows[shown]]), generator.grey)
    names = [slices.label_names[label] for label in slices.labels[shown]]
    report.write(workdir, config, result, pictures.grid(columns, names), drawn)
    writing.write_json(workdir / run_folder.EVALUATION, result)  # after the page: it says that all is done
    cards.write(workdir)
    return result


def means(scores: Mapping[str, Mapping[str, np.ndarray]]) -> dict[str, dict[str, float | None]]:
    """Means over the images that have the region; None where none has (JSON knows no NaN)."""
    return {
        name: {where: None if np.isnan(v).all() else float(np.nanmean(v)) for where, v in of_regions.items()}
        for name, of_regions in scores.items()
    }


def intervals(
    scores: Mapping[str, Mapping[str, np.ndarray]], groups: np.ndarray
) -> dict[str, dict[str, tuple[float, float] | None]]:
    """95 % intervals of the means over patients."""
    return {
        name: {
            where: clustered.interval(values, groups, within=clustered.RANGES[name])
            for where, values in of_regions.items()
        }
        for name, of_regions in scores.items()
    }


def gain(differences: np.ndarray, groups: np.ndarray) -> dict[str, Any]:
    """The mean difference on the same slice, and its 95 % interval over patients."""
    return {"value": float(differences.mean()), "interval": clustered.interval(differences, groups)}


def judged(images: np.ndarray, slices: Slices, masked: bool) -> fidelity.Slices:
    """Slices as the judges take them; without masks where the condition is no map."""
    return fidelity.Slices(images, slices.masks > 0 if masked else None, np.array(slices.groups))


def grey_floats(arrays: Arrays) -> np.ndarray:
    """Images as [N, S, S] float32 in [0, 1]."""
    return pictures.grey(floats(arrays.images))


def mean_of(arrays: Arrays) -> np.ndarray:
    """[S, S] float in [0, 1]."""
    images = np.asarray(arrays.images)
    return baselines.mean_image(images).mean(axis=-1) / np.iinfo(images.dtype).max


def _beside_kid(kid: Mapping[str, Any]) -> str:
    """What real slices have in the place of generated ones, and what needs no network."""
    same = {"other slices of the same patients": kid[distribution.SAME]} if distribution.SAME in kid else {}
    of = {**(same or {"real patients": kid["floor"]}), "class means": kid.get(distribution.LOOKUP)}
    parts = [f"{name} {value:.3g}" for name, value in of.items() if value is not None]
    return f" ({', '.join(parts)})" if parts else ""


def class_means_of(train: Arrays, maps: np.ndarray, classes: int) -> tuple[np.ndarray, float]:
    """(maps painted with the training slices' class means, [N, S, S] float32 in [0, 1]; their blur)"""
    images, known = np.asarray(train.images), np.asarray(train.maps)
    grey = baselines.class_means(images, known, classes)
    blur = baselines.best_blur(images, known, grey)
    return baselines.painted(maps, grey / np.iinfo(images.dtype).max, blur), blur


def condition_bytes(maps: np.ndarray) -> float:
    """Mean size of a label map, losslessly compressed: how much the generator is told of each slice."""
    if maps.ndim == 1:
        return 1.0  # a label
    return float(np.mean([len(zlib.compress(m.tobytes(), 9)) for m in maps]))


def summary(result: Mapping[str, Any]) -> str:
    """The whole-image numbers in a line for the terminal."""
    if "predicts" in result:
        judges = {"images": restoration, "layouts": layouts}
        return judges.get(result["predicts"], supervised).summary(result)
    without = report.ranked(result)  # the strongest first
    names = {"generated": result, **result["baselines"]}
    listed = [name for name in names if name not in without]
    of_network, others = (
        ", ".join(f"{name.replace('_', ' ')} {names[name]['ssim']['full']:.3f}" for name in part)
        for part in (listed, without)
    )
    line = f"SSIM on {facts.whom(result)}: {of_network}; without a network {others}"
    kid, dice = result["kid"], result["mask_dice"]
    if kid["value"] is not None:
        line += f"; KID {kid['value']:.3g}, less is better{_beside_kid(kid)}"
    if dice["generated"] is not None:
        line += f"; mask Dice {dice['generated']:.3f} (real {dice['real']:.3f})"
    return line
