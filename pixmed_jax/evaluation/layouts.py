"""The evaluation of a layout model: are its label maps plausible, distributed as real ones, and new?

As many maps as the held-out patients have slices, of the same classes and planes, are drawn and held against
theirs: the shares that head, tumour and tissues take, beside what training patients show; how many draws were
refused, beside how many real maps the same rules refuse; where planes are told, how many draws lie in theirs;
and copies, by overlap of classes (`overlap.py`).

Writes `evaluation.json` and `report/index.html` into the run's folder. Label maps [N, S, S] uint8.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy import stats

from pixmed_jax import layouts as models
from pixmed_jax import pages, pictures, writing
from pixmed_jax import workdir as run_folder
from pixmed_jax.data import plausible
from pixmed_jax.data.regions import is_tumor
from pixmed_jax.data.slices import plane_values
from pixmed_jax.data.sources import Dataset
from pixmed_jax.errors import PixmedError
from pixmed_jax.evaluation import cards, facts
from pixmed_jax.metrics.memorisation import Found, Real, measure
from pixmed_jax.metrics.overlap import overlap

_SHOWN, _CLOSEST = (6, 8), 6  # rows and columns of the picture; pairs
_PERCENTILES = (5, 50, 95)


def evaluate(workdir: Path, config: Mapping[str, Any], *, split: str, seed: int, step: str) -> dict[str, Any]:
    """Score a checkpoint of `workdir` on the maps of `split`; returns what evaluation.json holds."""
    model = models.load(workdir, step)
    dataset = facts.open_data(workdir, config, split)
    held_out, train = (of_patients(dataset, name) for name in (split, "train"))
    values = tumor_values(held_out.images, len(model.tumors))
    planes, known = (_planes(dataset, name) for name in (split, "train"))
    asked = planes if model.planes else np.zeros_like(planes)
    if not values.any():
        raise PixmedError(f"evaluate.split={split}: no slice has a tumour; give another")
    refused: Counter[str] = Counter()
    drawn = models.plausible(model, values[values > 0], asked[values > 0], seed, refused)
    judged = [
        plausible.refusal(one, int(value), model.classes)
        for one, value in zip(held_out.images, values, strict=True)
        if value
    ]
    found = measure(drawn, None, train, held_out, overlap)
    result = {
        **facts.of(config, dataset, split, model.step),
        "n": len(drawn),
        "seed": seed,
        "predicts": "layouts",
        "classes": list(model.classes),
        "refused": {
            "drawn": refused.total() / (refused.total() + len(drawn)),
            "real": sum(map(bool, judged)) / len(judged),
            "reasons": dict(refused.most_common()),
        },
        "shares": compared(drawn, held_out.images, train.images, model.classes),
        "planes": {
            "drawn": _in_plane(asked[values > 0], known[found.generated.rows]),
            "real": _in_plane(planes, known[found.held_out.rows]),
        }
        if asked.any()
        else None,
        "memorisation": facts.memorised(found.entry, config, dataset, split),
    }
    (workdir / "report").mkdir(exist_ok=True)
    page = pages.render(
        "pixmed_jax.evaluation",
        "layouts.html.j2",
        evaluation=result,
        found=found.entry,
        legend=pictures.legend(model.classes),
        **facts.described(config),
        drawn=pictures.data_uri(sheet(drawn, model.classes)),
        real=pictures.data_uri(sheet(held_out.images, model.classes)),
        closest=pictures.data_uri(closest(drawn, found, train.images, model.classes)),
    )
    writing.write_text(workdir / "report" / "index.html", page)
    writing.write_json(workdir / run_folder.EVALUATION, result)
    cards.write(workdir)
    return result


def _planes(dataset: Dataset, split: str) -> np.ndarray:
    return plane_values([dataset.source.planes[row] for row in dataset.of(split)])


def _in_plane(planes: np.ndarray, nearest: np.ndarray) -> float:
    """The share of maps of a known plane whose nearest training map, of planes `nearest`, lies in it too."""
    return float((planes == nearest)[planes > 0].mean())


def of_patients(dataset: Dataset, split: str) -> Real:
    """The label maps of a split, and the patient of each."""
    arrays, slices = dataset.load(dataset.of(split), dataset.size)
    return Real(np.asarray(arrays.maps), np.array(slices.groups))


def tumor_values(maps: np.ndarray, tumors: int) -> np.ndarray:
    """[N]: the class of the tumour on each map, 0 where there is none."""
    return np.array([max((v for v in np.unique(one) if v <= tumors), default=0) for one in maps])


def shares(maps: np.ndarray, classes: Sequence[str]) -> dict[str, np.ndarray]:
    """{what: [N]}: the head's share of the image, and of the head those of the tumour and of each tissue.

    Where the condition knows no head, a tumour's share is of the image. Of each class of tumour, only maps
    that have it count.
    """
    tumors = [value for value, name in enumerate(classes, 1) if is_tumor(name)]
    known = len(classes) > len(tumors)
    head = (maps > 0).mean((1, 2)) if known else np.ones(len(maps))
    told = {"head": head} if known else {}
    of_head = np.maximum(head, 1e-6)
    for value, name in enumerate(classes, 1):
        share = (maps == value).mean((1, 2)) / of_head
        told[name] = share[share > 0] if value in tumors else share
    return {name: share for name, share in told.items() if len(share)}


def compared(
    drawn: np.ndarray, real: np.ndarray, train: np.ndarray, classes: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """{what: percentiles of drawn and real shares, and how far apart the distributions are}.

    `apart`: the largest difference of the two distribution functions (Kolmogorov and Smirnov), 0 to 1;
    `floor`: the same of training patients.
    """
    of_drawn, of_real, of_train = (shares(maps, classes) for maps in (drawn, real, train))
    return {
        name: {
            "drawn": np.percentile(of_drawn[name], _PERCENTILES).tolist(),
            "real": np.percentile(of_real[name], _PERCENTILES).tolist(),
            "apart": float(stats.ks_2samp(of_drawn[name], of_real[name]).statistic),
            "floor": float(stats.ks_2samp(of_train[name], of_real[name]).statistic)
            if name in of_train
            else None,
        }
        for name in of_drawn
        if name in of_real
    }


def sheet(maps: np.ndarray, classes: Sequence[str]) -> Image.Image:
    """Some of the maps, spread over all, side by side."""
    rows, columns = _SHOWN
    chosen = maps[np.linspace(0, len(maps) - 1, min(len(maps), rows * columns)).astype(int)]
    columns = min(columns, len(chosen))
    coloured = pictures.colours(chosen[: len(chosen) // columns * columns], classes)
    return pictures.grid({f"{i + 1}. map": coloured[i::columns] for i in range(columns)})


def closest(drawn: np.ndarray, found: Found, train: np.ndarray, classes: Sequence[str]) -> Image.Image:
    """The drawn maps that stand nearest to a training patient, beside the map they are nearest to."""
    standing = found.generated.standing
    order = np.argsort(np.where(np.isnan(standing), found.generated.distance, standing), kind="stable")
    chosen = order[:_CLOSEST]
    rows = found.generated.rows[chosen]
    columns = {"drawn map": drawn[chosen], "nearest training map": train[rows]}
    words = [f"standing {standing[i]:.2f}\ndistance {found.generated.distance[i]:.2f}" for i in chosen]
    return pictures.grid(
        {name: pictures.colours(maps, classes) for name, maps in columns.items()},
        words,
    )


def summary(result: Mapping[str, Any]) -> str:
    """The numbers for the terminal: a line for each share, one of refusals, one of copies."""
    found, refused = result["memorisation"], result["refused"]
    lines = [f"{'share, 5th 50th 95th percentile':34}{'drawn':>21}{'real':>24}   apart (patients)"]
    for name, of in result["shares"].items():
        drawn, real = (" ".join(f"{value:6.3f}" for value in of[key]) for key in ("drawn", "real"))
        floor = "–" if of["floor"] is None else f"{of['floor']:.2f}"
        lines.append(f"{name:34}{drawn:>21}{real:>24}   {of['apart']:.2f} ({floor})")
    lines.append(
        f"refused {refused['drawn']:.0%} of the draws, {refused['real']:.0%} of real maps by the same rules"
    )
    if planes := result["planes"]:
        lines.append(
            f"nearest training map in the plane told: {planes['drawn']:.0%} of the draws, "
            f"{planes['real']:.0%} of real maps"
        )
    return "\n".join([*lines, told_of_copies(found)])


def told_of_copies(found: Mapping[str, Any]) -> str:
    """A memorisation entry of layouts in a line."""
    copies = "not measured"
    if found["copies"] is not None:
        copies = f"{found['copies']} of {found['n']} (of strangers at most "
        copies += f"{found['copies_expected']:.1f} expected)"
    return f"layouts: memorisation ratio {found['ratio']:.3f}, copies {copies}, AUC {found['auc']:.2f}"
