"""What a utility experiment says: scores of its arms on patients that none of them saw, paired and judged.

Reads `cases.csv` of every network; writes `utility.json` and `report/utility.html` into the run's folder, and
the entry "utility" into evaluation.json, for the verdict. Scores are means over a patient's slices, then over
patients, then over seeds. With a share of the training patients the others are spare, and other ones for each
seed: a share is judged by those patients that were tested with all of its seeds.
"""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pixmed_jax import config as configs
from pixmed_jax import workdir as run_folder
from pixmed_jax import writing
from pixmed_jax.data.synthetic import PREFIX
from pixmed_jax.errors import PixmedError, listing
from pixmed_jax.evaluation import cards, entries, utility_page, verdict
from pixmed_jax.evaluation.arms import MEASURES, OF_NETWORK, Experiment
from pixmed_jax.metrics import clustered, paired

_LEAST = 1e-7  # of a probability, as in `classification`


def folder_of(workdir: Path, network: str, share: int, arm: str, seed: int) -> Path:
    return workdir / "utility" / "networks" / f"{network}-{share}-{arm}-seed{seed}"


def write(workdir: Path, experiment: Experiment, *, complete: bool) -> dict[str, Any]:
    """Judge an experiment whose parts are all done; returns what utility.json holds."""
    tested, trained = _check_patients(workdir, experiment)
    networks, comparisons = {}, len(experiment.networks) * len(experiment.shares)
    for name, config in experiment.networks.items():
        predicts = "labels" if config["data"]["condition"] == "label" else "masks"
        networks[name] = {
            "steps": config["train"]["steps"],
            "batch_size": config["train"]["batch_size"],
            "measures": {
                measure: {
                    str(share): _judged(
                        _scores(workdir, experiment, name, share, measure, tested[share]),
                        list(experiment.compared()),
                        comparisons,
                        measure,
                    )
                    for share in experiment.shares
                }
                for measure in OF_NETWORK[predicts]
            },
        }
        if predicts == "labels":
            networks[name]["chance"] = {
                str(share): _chance(workdir, experiment, name, share, tested[share])
                for share in experiment.shares
            }
    of = experiment.config
    result = {
        "config": configs.digest(of),
        "generator": f"{of['name']}:{of['preset']}" if experiment.paints else None,
        "generator_steps": of["train"]["steps"] if experiment.paints else None,
        "condition": of["data"]["condition"],
        "complete": complete,
        "split": experiment.split,
        "split_by": of["data"]["split"]["by"],
        "patients_known": any([patient] != files for of in tested.values() for patient, files in of.items()),
        "tested_on": {
            str(share): {"patients": len(files), "slices": sum(map(len, files.values()))}
            for share, files in tested.items()
        },
        "size": of["data"]["size"],
        "seeds": experiment.seeds,
        "shares": list(experiment.shares),
        "number": experiment.number,
        "edit": experiment.edit,
        "trained_on": trained,
        "comparisons": comparisons,
        "primary": list(experiment.primary),
        "networks": networks,
    }
    writing.write_json(workdir / run_folder.UTILITY, result)
    utility_page.write(workdir, experiment, result)
    if experiment.paints:  # a segmenter's own evaluation and card are not about slices to train with
        entries.tell(workdir, "utility", entries.used(workdir, result["config"]), config=result["config"])
        cards.write(workdir)
    return result


def summary(result: Mapping[str, Any]) -> str:
    """The verdict and the first comparison, for the terminal."""
    answer = verdict.helps(entries.told_of_utility(result))
    return f"{answer.question} {answer.answer}. {answer.sentence}"


# ---------------------------------------------------------------- who was trained and tested on
def _check_patients(
    workdir: Path, experiment: Experiment
) -> tuple[dict[int, dict[str, list[str]]], dict[str, dict[str, list[int]]]]:
    """{share: {patient: files} that it is judged by}, and how many patients and slices each share trained on,
    seed by seed.

    With one share and seed every arm was tested on the same patients, none of whom is behind a synthetic
    slice, and each was trained on the patients of its arms and on nobody else.
    """
    tested: dict[int, dict[str, list[str]]] = {}
    trained: dict[str, dict[str, list[int]]] = {}
    for share in experiment.shares:
        seeds = [_check_seed(workdir, experiment, share, seed) for seed in range(experiment.seeds)]
        common = set.intersection(*(set(here) for here, _ in seeds))
        if len(common) < 2:
            raise PixmedError(
                f"{workdir / 'utility'}: {len(common)} patients were tested with all {len(seeds)} seeds of "
                f"{share} %; give fewer utility.seeds, or validation and test patients in utility.split"
            )
        first = seeds[0][0]
        tested[share] = {patient: first[patient] for patient in sorted(common)}
        trained[str(share)] = {
            "patients": [len(set(made.values())) for _, made in seeds],
            "slices": [len(made) for _, made in seeds],
        }
    return tested, trained


def _check_seed(
    workdir: Path, experiment: Experiment, share: int, seed: int
) -> tuple[dict[str, list[str]], dict[str, str]]:
    """{patient: files} tested on, and {file: patient} behind the synthetic slices."""
    made = _split(experiment.slices_of(workdir, share, seed))["train"]
    tested: dict[str, list[str]] = {}
    for network in experiment.networks:
        for arm, about in experiment.arms().items():
            folder = folder_of(workdir, network, share, arm, seed)
            here: dict[str, list[str]] = {}
            for case in _cases(folder):
                here.setdefault(case["patient_group"], []).append(case["file"])
            tested = tested or here
            if here != tested:
                raise PixmedError(f"{folder}: was tested on other slices than the rest; delete it and rerun")
            if seen := sorted(set(here) & set(made.values())):
                raise PixmedError(
                    f"{folder}: its synthetic slices come from {len(seen)} of the patients it is tested on "
                    f"({listing(seen)}); delete {workdir / 'utility'} and rerun"
                )
            own = {file for file in _split(folder)["train"] if not file.startswith(PREFIX)}
            if not own <= set(made) or (about.synthetic != "replace" and own != set(made)):
                raise PixmedError(
                    f"{folder}: trained on other slices than those behind its synthetic ones; delete it and "
                    "rerun"
                )
    return tested, made


def _split(folder: Path) -> dict[str, dict[str, str]]:
    return json.loads((folder / run_folder.SPLIT).read_text(encoding="utf-8"))


def _cases(folder: Path) -> list[dict[str, str]]:
    with (folder / run_folder.CASES).open(newline="", encoding="utf-8") as table:
        return list(csv.DictReader(table))


# ---------------------------------------------------------------- scores
def _scores(
    workdir: Path,
    experiment: Experiment,
    network: str,
    share: int,
    measure: str,
    tested: Mapping[str, list[str]],
) -> dict[str, np.ndarray]:
    """{arm: [S, P]}, patients in the order of `tested`."""
    found = {}
    for arm in experiment.arms():
        rows = []
        for seed in range(experiment.seeds):
            table = _cases(folder_of(workdir, network, share, arm, seed))
            cases = {case["file"]: _value(case, measure) for case in table}
            rows.append([np.mean([cases[file] for file in files]) for files in tested.values()])
        found[arm] = np.array(rows)
    return found


def _chance(
    workdir: Path, experiment: Experiment, network: str, share: int, tested: Mapping[str, list[str]]
) -> float:
    """The accuracy of always giving the answer that is right most often."""
    table = _cases(folder_of(workdir, network, share, next(iter(experiment.arms())), 0))
    labels = {case["file"]: case["label"] for case in table}
    return max(
        float(np.mean([np.mean([labels[file] == name for file in files]) for files in tested.values()]))
        for name in set(labels.values())
    )


def _value(case: Mapping[str, str], measure: str) -> float:
    if measure == "accuracy":
        return float(case["said"] == case["label"])
    if measure == "log_loss":
        return -float(np.log(max(float(case[f"p_{case['label']}"]), _LEAST)))
    return float(case[measure])


def _cut_off(of: paired.Bounds, measure: str) -> paired.Bounds:
    """Where the measure ends."""
    low, high = clustered.RANGES[measure]
    return of._replace(low=max(of.low, low), high=min(of.high, high))


def _judged(
    scores: Mapping[str, np.ndarray], pairs: Sequence[tuple[str, str]], comparisons: int, measure: str
) -> dict[str, Any]:
    """Scores of one network with one share of the patients, and the differences of `pairs` of arms, of which
    the first is the primary one.
    """
    differences, level = {}, 1 - 0.05 / comparisons
    for a, b in pairs:
        d = scores[a] - scores[b]
        # The interval that holds for all of the verdict's comparisons together (Bonferroni).
        wide = paired.bounds(d, level=level)
        differences[f"{a}-{b}"] = {
            **paired.bounds(d)._asdict(),
            "low_all": wide.low,
            "high_all": wide.high,
            "of_seeds": d.mean(1).tolist(),
        }
    d = scores[pairs[0][0]] - scores[pairs[0][1]]
    seeds, patients = d.shape
    of = paired.components(d)
    return {
        "scores": {
            arm: {**_cut_off(paired.bounds(values), measure)._asdict(), "of_seeds": values.mean(1).tolist()}
            for arm, values in scores.items()
        },
        "differences": differences,
        "power": {
            "variance": of._asdict(),
            "detectable": paired.detectable(of, patients, seeds, level),
            "needed": {
                str(effect): {
                    "patients": paired.patients_needed(of, effect, seeds, level),
                    "seeds": paired.seeds_needed(of, effect, patients, level),
                }
                for effect in MEASURES[measure].effects
            },
        },
    }
