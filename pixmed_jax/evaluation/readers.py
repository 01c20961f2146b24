"""A reader study: can people tell generated slices from real ones?

    WORKDIR/reader/page.html                  for the readers: slices one by one, mixed and without names; it
                                              holds no answer and sends nothing
    WORKDIR/reader/images/1.png               the same, for other viewers
    WORKDIR/reader/key.csv                    what each of its images is; not for the readers
    answers-STUDY-NAME.csv                    what a reader saves: study, reader, image, rating, seconds
    WORKDIR/reader.json, report/reader.html   what their answers come to; the verdict of the run's report and
                                              its model card tell it too, where its own checkpoint was judged

Ratings go from 1, surely real, to 5, surely generated. The AUC is the chance that a generated slice is rated
higher than a real one, ties half (Mann and Whitney): 0.5 where nobody can tell. Its interval resamples
patients, the readers being those that there are: it speaks of other slices, not of other readers. With fewer
than `verdict.ENOUGH` patients of either kind there is none (null): it would leave out 0.5 by chance. How
often a reader is right has a binomial interval that knows patients (`clustered.share`). "detectable" counts
each patient as one slice, however many were shown, since how alike they are to a reader is not known before.
Where nobody knows the patients ("patients": null) slices stand for them, and intervals are too narrow.

Real slices are of one half of the patients, and generated ones are painted from maps of the other, so that
nobody's anatomy is shown twice. All are of the network's size and rounded to 8 bits alike; those of a sampled
folder are read as grey, and so are the real ones beside them.
Errors: PixmedError.
"""

import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from pixmed_jax import charts, inference, pages, pictures, texts, writing
from pixmed_jax import config as configs
from pixmed_jax import workdir as run_folder
from pixmed_jax.data import arrays, decode, tables
from pixmed_jax.data.sources import Dataset
from pixmed_jax.data.values import floats
from pixmed_jax.errors import OptionError, PixmedError, at_least, listing
from pixmed_jax.evaluation import cards, entries, facts, pairs, verdict
from pixmed_jax.metrics import bootstrap, clustered
from pixmed_jax.metrics.diversity import spread_rows

FOLDER = "reader"
REAL, GENERATED = "real", "generated"
UNSURE, SUREST = 3, 5  # ratings; 1 is the other end
KEY = ("study", "image", "is", "source", "patient_group", "step", "config")  # these two of what is judged
ANSWERS = ("study", "reader", "image", "rating")
_LEAST, _MOST = 10, 1000  # images
_EVERYBODY = "val+test"
_SHOWN = 6
_SEEN = 2.8  # standard errors: found with a chance of 0.8 at a level of 0.05


def prepare(
    workdir: Path,
    *,
    number: int = 60,
    split: str = "test",
    samples: str = "",
    seed: int = 0,
    step: str = "newest",
    fresh: bool = False,
) -> Path:
    """Write a study of `number` slices, half of them generated; returns the page's path.

    split: of the patients shown, "test", "val" or "val+test". samples: a sampled folder to take the generated
    slices from, in the place of painting maps of the split. fresh: replace a study that is another one.
    """
    if not _LEAST <= number <= _MOST:
        raise OptionError(f"reader.number={number}: give {_LEAST} to {_MOST}")
    at_least(0, "reader", seed=seed)
    if "train" in split.split("+"):
        raise OptionError(f"reader.split={split}: these patients were trained on; give test, val or val+test")
    # Answers may have been put beside the page: hours of people's time, which nobody can make again.
    writing.check_holds(workdir / FOLDER, ("key.csv", "page.html", "images"))
    generator = inference.load(workdir, step)
    config = generator.config
    dataset = facts.open_data(workdir, run_folder.read_config(workdir), split)  # where they are now
    rng = np.random.default_rng(seed)
    real, made = _slices(generator, dataset, split, samples, seed, number // 2, rng)
    count = min(len(real), len(made))
    if count < number // 2:
        print(f"reader.number={number}: there are {count} slices of either kind to show", file=sys.stderr)
    real, made = _spread(real, count), _spread(made, count)
    patients = [len(set(map(_whose, of))) for of in (real, made)]
    if min(patients) < verdict.ENOUGH:
        print(
            f"reader.split={split}: real slices of {patients[0]}, generated ones of {patients[1]} patients; "
            f"with fewer than {verdict.ENOUGH} of either kind answers have no interval; "
            f"{'give more slices' if split == _EVERYBODY else f'give reader.split={_EVERYBODY}'}",
            file=sys.stderr,
        )
    order, both = rng.permutation(2 * count), [*real, *made]
    shown = [both[i] for i in order]
    told = [
        (REAL if i < count else GENERATED, file, group)
        for i, (file, group, _) in zip(order, shown, strict=True)
    ]
    images = [Image.fromarray(pixels) for *_, pixels in shown]
    uris = list(map(pictures.data_uri, images))
    study = hashlib.sha256(json.dumps([told, uris]).encode()).hexdigest()[:8]
    whose = ("", "") if samples else (generator.step, configs.digest(config))

    folder = workdir / FOLDER
    if folder.exists() and not fresh and (old := _key(workdir)[0]) != study:
        raise PixmedError(
            f"{folder}: holds study {old}, and answers to it could not be read any more; give --fresh to "
            "replace it"
        )
    with writing.replaced(folder) as draft:
        rows = [KEY, *((study, i, *of, *whose) for i, of in enumerate(told, 1))]
        writing.write_text(draft / "key.csv", texts.csv_table(rows))
        (draft / "images").mkdir()
        for i, image in enumerate(images, 1):
            image.save(draft / "images" / f"{i}.png")
        page = pages.render("pixmed_jax.evaluation", "reader.html.j2", study=study, images=uris)
        writing.write_text(draft / "page.html", page)
    return folder / "page.html"


_Shown = tuple[str, str, np.ndarray]  # file, patient or "", pixels [S, S] uint8


def _whose(shown: _Shown) -> str:
    """The patient; a slice of nobody stands for itself."""
    file, group, _ = shown
    return group or file


def _spread(slices: list[_Shown], count: int) -> list[_Shown]:
    """`count` of them, of as many patients as there are."""
    return [slices[i] for i in spread_rows(np.array(list(map(_whose, slices))), count)]


def _slices(
    generator: inference.Generator,
    dataset: Dataset,
    split: str,
    samples: str,
    seed: int,
    number: int,
    rng: np.random.Generator,
) -> tuple[list[_Shown], list[_Shown]]:
    """Up to `number` real and as many generated slices."""
    arrays, slices = dataset.load(dataset.of(split), dataset.size)
    groups = np.array(slices.groups)
    patients = rng.permutation(np.unique(groups))
    if len(patients) < 2:
        raise PixmedError(f"reader.split={split}: holds slices of one patient; give one with two or more")
    own = np.isin(groups, patients if samples else patients[::2])

    def some(rows: np.ndarray) -> np.ndarray:
        return rows[spread_rows(groups[rows], number)]

    def listed(images: np.ndarray, files: Sequence[str], whose: Sequence[str]) -> list[_Shown]:
        pixels = np.round(images.clip(0, 1) * 255).astype(np.uint8)
        return list(zip(files, whose, pixels, strict=True))

    rows = some(np.flatnonzero(own))
    only_grey = generator.grey or bool(samples)
    shown = pictures.shown(floats(arrays.images[rows]), only_grey)
    real = listed(shown, [slices.files[i] for i in rows], groups[rows].tolist())
    if samples:
        given = pairs.read(Path(samples), dataset.source.label_names, len(dataset.classes), dataset.size)
        picked = rng.permutation(len(given.rows))[:number]
        entries = [given.rows[i] for i in picked]
        return real, listed(
            given.images[picked],
            [entry["file"] for entry in entries],
            [entry.get("patient_group", "") for entry in entries],
        )
    rows = some(np.flatnonzero(~own))
    made = pictures.shown(generator(np.asarray(arrays.maps)[rows], seed=seed), only_grey)
    return real, listed(made, [slices.files[i] for i in rows], groups[rows].tolist())


# ---------------------------------------------------------------- what readers said
@writing.alone("evaluation")  # whose file it adds to
def score(workdir: Path, answers: str) -> dict[str, Any]:
    """Judge the answers in files and folders, with commas between; returns what reader.json holds."""
    study, key = _key(workdir)
    ratings: dict[str, np.ndarray] = {}
    for path in _files(answers):
        reader, given = _read(path, study, len(key))
        if reader in ratings:
            raise PixmedError(f"{path}: another file has answers of {reader!r} too; leave one out")
        ratings[reader] = given
    generated = np.array([row["is"] == GENERATED for row in key])
    # A generated slice of nobody stands for itself.
    groups = np.array([row["patient_group"] or f"{row['source']} {row['image']}" for row in key])
    each = np.stack(list(ratings.values()))

    def of(weights: np.ndarray) -> dict[str, np.ndarray]:
        found = np.array([auc(values, generated, weights) for values in each])
        return {"each": found, "mean": found.mean()}

    values, bounds = of(np.ones(len(key))), bootstrap.resampled(groups, of)
    patients = len(np.unique(groups[~generated]))
    enough = min(patients, len(np.unique(groups[generated]))) >= verdict.ENOUGH
    known = any(row["patient_group"] != row["source"] for row in key if row["is"] == REAL)

    def interval(low: float, high: float) -> dict[str, float | None]:
        return {"low": float(low), "high": float(high)} if enough else {"low": None, "high": None}

    n_real, n_made = int((~generated).sum()), int(generated.sum())
    config, step, run = key[0]["config"], int(key[0]["step"] or -1), run_folder.read_config(workdir)
    result = {
        "study": study,
        "step": step,
        "config": config,
        "n": {REAL: n_real, GENERATED: n_made},
        "patients": patients if known else None,
        "auc": float(values["mean"]),
        **interval(*bounds["mean"]),
        "detectable": detectable(patients, len(np.unique(groups[generated]))),
        "readers": [
            {
                "reader": reader,
                "auc": float(values["each"][i]),
                **interval(*bounds["each"][:, i]),
                **_decisions(each[i], generated, groups),
            }
            for i, reader in enumerate(ratings)
        ],
    }
    writing.write_json(workdir / run_folder.READER, result)
    (workdir / "report").mkdir(exist_ok=True)
    page = pages.render(
        "pixmed_jax.evaluation",
        "readers.html.j2",
        **facts.described(run),
        by=run["data"]["split"]["by"],
        result=result,
        enough=verdict.ENOUGH,
        sentence=summary(result),
        chart=_chart(each.mean(0), generated),
        pictures=_pictures(workdir, each.mean(0), generated),
    )
    writing.write_text(workdir / "report" / "reader.html", page)
    entries.tell(workdir, "readers", entries.read_by_people(workdir, step, config), config=config, step=step)
    cards.write(workdir)
    return result


def auc(ratings: np.ndarray, generated: np.ndarray, weights: np.ndarray) -> float:
    """The chance that a generated image is rated higher than a real one, [N] each; NaN where a kind lacks."""
    a, b = ratings[generated][:, None], ratings[~generated][None]
    pairs = weights[generated][:, None] * weights[~generated][None]
    total = pairs.sum()
    return float((pairs * ((a > b) + 0.5 * (a == b))).sum() / total) if total else float("nan")


def detectable(real: int, generated: int) -> float | None:
    """One reader's AUC that an image each of so many patients would show in four of five studies, or None.

    From the variance of Mann and Whitney's statistic where there is nothing to tell. More images of these
    patients show it at least as often.
    """
    least = 0.5 + _SEEN * float(np.sqrt((real + generated + 1) / (12 * real * generated)))
    return least if least < 1 else None


def _decisions(ratings: np.ndarray, generated: np.ndarray, groups: np.ndarray) -> dict[str, Any]:
    """How many of either kind were called generated, and of those a reader decided on how many rightly."""
    decided, called = ratings != UNSURE, ratings > UNSURE
    right = (called == generated)[decided]
    bounds = clustered.share(right.astype(np.float64), groups[decided]) or (0.0, 1.0)
    return {
        "called_generated": {REAL: int(called[~generated].sum()), GENERATED: int(called[generated].sum())},
        "right": int(right.sum()),
        "decided": int(decided.sum()),
        "right_interval": [float(bound) for bound in bounds],
    }


def summary(result: Mapping[str, Any]) -> str:
    """In a sentence: can they tell?"""
    readers, n = len(result["readers"]), result["n"]
    told = (
        f"{readers} reader{'s' if readers != 1 else ''}, {n[REAL]} real and {n[GENERATED]} generated slices: "
        f"AUC {result['auc']:.2f}"
    )
    if result["low"] is None:
        return f"{told}; too few patients to show anything: it takes {verdict.ENOUGH} of either kind"
    told += f" ({result['low']:.2f} to {result['high']:.2f})"
    if result["low"] > 0.5:
        telling = sum(of["low"] > 0.5 for of in result["readers"])
        who = f" in the mean of the readers, by {telling} of {readers} in their own" if readers > 1 else ""
        return f"{told}; generated slices are told from real ones{who}"
    if result["high"] < 0.5:
        return f"{told}; generated slices are taken for real more often than real ones are"
    return (
        f"{told}; not shown to be told apart, and one reader's AUC of {result['detectable']:.2f} would have "
        "been seen in four of five such studies or more, however alike a patient's slices are"
    )


def _key(workdir: Path) -> tuple[str, list[dict[str, str]]]:
    """The study's name, and what each of its images is."""
    path = workdir / FOLDER / "key.csv"
    if not path.exists():
        raise PixmedError(f"{path}: missing; run --mode=reader without reader.answers first")
    names, rows = tables.read_table(path, "reader")
    key = [{name: row[name] or "" for name in KEY} for row in rows] if set(KEY) <= set(names) else []
    if len({row["study"] for row in key}) != 1:
        raise PixmedError(f"{path}: is no key of a reader study; restore it, or give --fresh for a new study")
    return key[0]["study"], key


def _files(answers: str) -> list[Path]:
    found: list[Path] = []
    for name in filter(None, answers.split(",")):
        path = Path(name)
        inside = [file for file in sorted(path.glob("*.csv")) if not arrays.hidden(file, path)]
        found += inside if path.is_dir() else [path]
    if not found:
        raise PixmedError(f"reader.answers={answers}: holds no CSV files; give those that readers saved")
    return found


def _read(path: Path, study: str, count: int) -> tuple[str, np.ndarray]:
    """(reader, ratings [count]) of a file that came from somewhere."""
    names, rows = tables.read_table(path, "reader.answers")
    if missing := sorted(set(ANSWERS) - set(names)):
        raise PixmedError(f"{path}: no column {listing(missing)}; give a file that the study's page saved")
    studies, readers = ({row[name] or "" for row in rows} for name in ("study", "reader"))
    if studies != {study}:
        raise PixmedError(f"{path}: answers study {listing(sorted(studies))}, and the key is of {study}")
    if len(readers) != 1 or "" in readers:
        raise PixmedError(f"{path}: names {len(readers - {''})} readers; give a file of one each")
    said = {row["image"]: row["rating"] for row in rows}
    if len(rows) != count or set(said) != {str(i) for i in range(1, count + 1)}:
        raise PixmedError(f"{path}: rates {len(said)} of {count} images once each; let the reader finish")
    odd = sorted(str(value) for value in set(said.values()) - set("12345"))
    if odd:
        raise PixmedError(f"{path}: has a rating {odd[0][:20]!r}; they go from 1 to {SUREST}")
    return readers.pop(), np.array([int(said[str(i)] or 0) for i in range(1, count + 1)])


def _pictures(workdir: Path, ratings: np.ndarray, generated: np.ndarray) -> list[tuple[str, str]]:
    """[(title, picture)]: what was recognised, and what was not."""
    order = np.argsort(ratings, kind="stable")
    chosen = {
        "Generated, and most surely recognised": [i for i in order[::-1] if generated[i]],
        "Generated, and most surely taken for real": [i for i in order if generated[i]],
        "Real, and most surely taken for generated": [i for i in order[::-1] if not generated[i]],
    }
    sheets = []
    for title, rows in chosen.items():
        first = rows[:_SHOWN]
        images = np.stack(
            [decode.read_image(workdir / FOLDER / "images" / f"{i + 1}.png") / 255 for i in first]
        )
        words = [f"{ratings[i]:.1f}" for i in first]
        right = [bool((ratings[i] > UNSURE) == generated[i]) for i in first]
        sheets.append((title, pictures.data_uri(pictures.captioned(images, words, right))))
    return sheets


def _chart(ratings: np.ndarray, generated: np.ndarray) -> str:
    figure = Figure(figsize=(5.2, 2.8), layout="constrained")
    axes = figure.subplots()
    edges = np.arange(0.75, 5.5, 0.5)
    for rows, name, colour in ((~generated, REAL, "#46a0eb"), (generated, GENERATED, "#ffa550")):
        share = np.full(rows.sum(), 1 / rows.sum())
        axes.hist(ratings[rows], bins=edges.tolist(), weights=share, alpha=0.6, label=name, color=colour)
    charts.styled(
        axes, x="rating, 1 surely real, 5 surely generated", y="share of slices", legend="upper center"
    )
    return charts.chart_uri(figure)
