"""What a utility experiment says: scores of its arms on patients that none of them saw, paired and judged.

Reads `cases.csv` of every network; writes `utility.json` and `report/utility.html` into the run's folder, and
the entry "utility" into evaluation.json, for the verdict. Scores are means over a patient's slices, then over
patients, then over seeds.
"""

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pixmed_jax import config as configs
from pixmed_jax import workdir as run_folder
from pixmed_jax.data.synthetic import PREFIX
from pixmed_jax.errors import PixmedError, listing
from pixmed_jax.evaluation import cards, utility_page, verdict
from pixmed_jax.evaluation.arms import ARMS, COMPARED, MEASURES, OF_NETWORK, PRIMARY, Experiment
from pixmed_jax.metrics import paired

_LEAST = 1e-7  # of a probability, as in `classification`


def folder_of(workdir: Path, network: str, share: int, arm: str, seed: int) -> Path:
    return workdir / "utility" / "networks" / f"{network}-{share}-{arm}-seed{seed}"


def write(workdir: Path, experiment: Experiment, *, complete: bool) -> dict[str, Any]:
    """Judge an experiment whose parts are all done; returns what utility.json holds."""
    held_out, trained = _check_patients(workdir, experiment)
    networks, comparisons = {}, len(experiment.networks) * len(experiment.shares)
    for name, config in experiment.networks.items():
        predicts = "labels" if config["data"]["condition"] == "label" else "masks"
        networks[name] = {
            "steps": config["train"]["steps"],
            "batch_size": config["train"]["batch_size"],
            "measures": {
                measure: {
                    str(share): _judged(
                        _scores(workdir, experiment, name, share, measure, held_out), comparisons, measure
                    )
                    for share in experiment.shares
                }
                for measure in OF_NETWORK[predicts]
            },
        }
    result = {
        "config": configs.digest(experiment.config),
        "generator": f"{experiment.config['name']}:{experiment.config['preset']}",
        "generator_steps": experiment.config["train"]["steps"],
        "condition": experiment.config["data"]["condition"],
        "complete": complete,
        "split": experiment.split,
        "patients": len(held_out),
        "n": sum(map(len, held_out.values())),
        "size": experiment.config["data"]["size"],
        "seeds": experiment.seeds,
        "shares": list(experiment.shares),
        "number": experiment.number,
        "edit": experiment.edit,
        "trained_on": trained,
        "comparisons": comparisons,
        "primary": list(PRIMARY),
        "networks": networks,
    }
    run_folder.write_json(workdir / run_folder.UTILITY, result)
    utility_page.write(workdir, experiment, result)
    verdict.tell(workdir, "utility", verdict.used(workdir, result["config"]), config=result["config"])
    cards.write(workdir)
    return result


def summary(result: Mapping[str, Any]) -> str:
    """The verdict and the first comparison, for the terminal."""
    answer = verdict.helps(verdict.told_of_utility(result))
    return f"{answer.question} {answer.answer}. {answer.sentence}"


# ---------------------------------------------------------------- who was trained and tested on
def _check_patients(
    workdir: Path, experiment: Experiment
) -> tuple[dict[str, list[str]], dict[str, dict[str, list[int]]]]:
    """{held-out patient: files}, and how many patients and slices each share trained on, seed by seed.

    Every arm was tested on the same patients, no generator has seen one of them, and each was trained on the
    patients of its arms and on nobody else.
    """
    tested: dict[str, list[str]] = {}
    trained: dict[str, dict[str, list[int]]] = {
        str(share): {"patients": [], "slices": []} for share in experiment.shares
    }
    names = experiment.split.split("+")
    for share in experiment.shares:
        for seed in range(experiment.seeds):
            made = _split(workdir / "utility" / "generators" / f"{share}-seed{seed}")["train"]
            trained[str(share)]["patients"].append(len(set(made.values())))
            trained[str(share)]["slices"].append(len(made))
            for network in experiment.networks:
                for arm in ARMS:
                    folder = folder_of(workdir, network, share, arm, seed)
                    split = _split(folder)
                    here: dict[str, list[str]] = {}
                    for file, group in sorted((f, g) for name in names for f, g in split[name].items()):
                        here.setdefault(group, []).append(file)
                    tested = tested or here
                    if here != tested:
                        raise PixmedError(
                            f"{folder}: was tested on other slices than the rest; delete it and rerun"
                        )
                    if seen := sorted(set(here) & set(made.values())):
                        raise PixmedError(
                            f"{folder}: its generator has seen {len(seen)} of the patients it is tested on "
                            f"({listing(seen)}); delete {workdir / 'utility'} and rerun"
                        )
                    own = {f for f in split["train"] if not f.startswith(PREFIX)}
                    if not own <= set(made) or (ARMS[arm].synthetic != "replace" and own != set(made)):
                        raise PixmedError(
                            f"{folder}: trained on other slices than its generator; delete it and rerun"
                        )
    return tested, trained


def _split(folder: Path) -> dict[str, dict[str, str]]:
    return json.loads((folder / run_folder.SPLIT).read_text(encoding="utf-8"))


# ---------------------------------------------------------------- scores
def _scores(
    workdir: Path,
    experiment: Experiment,
    network: str,
    share: int,
    measure: str,
    held_out: Mapping[str, list[str]],
) -> dict[str, np.ndarray]:
    """{arm: [S, P]}, patients in the order of `held_out`."""
    found = {}
    for arm in ARMS:
        rows = []
        for seed in range(experiment.seeds):
            path = folder_of(workdir, network, share, arm, seed) / run_folder.CASES
            with path.open(newline="", encoding="utf-8") as table:
                cases = {case["file"]: _value(case, measure) for case in csv.DictReader(table)}
            rows.append([np.mean([cases[file] for file in files]) for files in held_out.values()])
        found[arm] = np.array(rows)
    return found


def _value(case: Mapping[str, str], measure: str) -> float:
    if measure == "accuracy":
        return float(case["said"] == case["label"])
    if measure == "log_loss":
        return -float(np.log(max(float(case[f"p_{case['label']}"]), _LEAST)))
    return float(case[measure])


def _judged(scores: Mapping[str, np.ndarray], comparisons: int, measure: str) -> dict[str, Any]:
    """Scores and differences of one network with one share of the patients."""
    differences = {}
    for a, b in COMPARED:
        d = scores[a] - scores[b]
        # The interval that holds for all of the verdict's comparisons together (Bonferroni).
        wide = paired.bounds(d, level=1 - 0.05 / comparisons)
        differences[f"{a}-{b}"] = {
            **paired.bounds(d)._asdict(),
            "low_all": wide.low,
            "high_all": wide.high,
            "of_seeds": d.mean(1).tolist(),
        }
    d = scores[PRIMARY[0]] - scores[PRIMARY[1]]
    seeds, patients = d.shape
    of = paired.components(d)
    return {
        "scores": {
            arm: {**paired.bounds(values)._asdict(), "of_seeds": values.mean(1).tolist()}
            for arm, values in scores.items()
        },
        "differences": differences,
        "power": {
            "variance": of._asdict(),
            "detectable": paired.detectable(of, patients, seeds),
            "needed": {
                str(effect): {
                    "patients": paired.patients_needed(of, effect, seeds),
                    "seeds": paired.seeds_needed(of, effect, patients),
                }
                for effect in MEASURES[measure].effects
            },
        },
    }
