"""The paper's whole comparison by one command: all systems trained, audited, sampled, judged; one page of it.

    WORKDIR/systems/NAME[-seedN]/            a run each, with its samples of training patients' masks
    WORKDIR/downstream/NETWORK-ARM-seedN/    a classifier or segmenter each; an arm is what it was trained on:
                                             real slices alone, or with those that a system made beside them
    WORKDIR/compare/                         the page and its tables

It resumes, and several processes may share it: see `parts`.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pixmed_jax.data.regions import class_names
from pixmed_jax.defaults import merged
from pixmed_jax.errors import PixmedError, listing
from pixmed_jax.evaluation.compare import compare
from pixmed_jax.parts import Part, finish, prepare
from pixmed_jax.training import build
from pixmed_jax.training.dry_run import dry_run
from pixmed_jax.training.start import open_data, why_empty

REAL = "real"  # the arm without synthetic slices


def parts(config: Mapping[str, Any], workdir: Path) -> Iterator[Part]:
    """All runs in the order in which they depend on each other."""
    for name in config["run"]:
        for seed in config["seeds"]["systems"]:
            yield Part(
                f"{name}, seed {seed}",
                _system_folder(workdir, name, seed),
                merged(
                    config["systems"][name], {"seed": seed, "data": config["data"], "about": config["about"]}
                ),
                {"samples": config["samples"]},
                audit=config["audit"],
            )
    for network, settings in config["downstream"].items():
        for arm in (REAL, *_arms(config, settings)):
            for seed in config["seeds"]["downstream"]:
                extra, needs = {}, ""
                if arm != REAL:
                    system_seed = config["seeds"]["systems"][0]
                    samples = _system_folder(workdir, arm, system_seed) / "samples"
                    extra, needs = {"synthetic_dir": str(samples.absolute())}, f"{arm}, seed {system_seed}"
                yield Part(
                    f"{network} on {arm}, seed {seed}",
                    workdir / "downstream" / f"{network}-{arm}-seed{seed}",
                    merged(settings, {"seed": seed, "data": {**config["data"], **extra}}),
                    needs=needs,
                )


def study(config: dict[str, Any], workdir: Path, *, fresh: bool = False) -> int:
    """Run all parts that are not done. Returns 0, or 128 + the signal that stopped one of them."""
    _check(config)
    every = _possible(list(parts(config, workdir)))
    prepare(workdir, config, "study", fresh=fresh, contents=("systems", "downstream", "compare"))
    status = finish(every, "study")
    if status == 0:
        print(f"written: {compare([part.workdir for part in every], workdir / 'compare')}")
    return status


def study_dry_run(config: dict[str, Any], workdir: Path) -> int:
    """The dry run of each part whose data are there before the study; returns 0."""
    _check(config)
    every = _possible(list(parts(config, workdir)))
    for part in every:
        print(f"\n===== {part.name}")
        if part.config["data"].get("synthetic_dir"):
            print("its training slices are made by an earlier part")
        else:
            dry_run(part.config, part.workdir)
    return 0


def _arms(config: Mapping[str, Any], network: Mapping[str, Any]) -> list[str]:
    """The systems whose slices a network can be trained on; what draws no masks teaches no segmenter."""
    of_labels = network["data"]["condition"] == "label"
    systems = config["systems"]
    return [
        name
        for name in config["arms"]
        if name in config["run"] and (of_labels or systems[name]["data"]["condition"] != "label")
    ]


def _system_folder(workdir: Path, name: str, seed: int) -> Path:
    return workdir / "systems" / (name if seed == 0 else f"{name}-seed{seed}")


def _check(config: Mapping[str, Any]) -> None:
    for key in ("run", "arms"):
        unknown = [name for name in config[key] if name not in config["systems"]]
        if unknown:
            known = ", ".join(config["systems"])
            raise PixmedError(f"{key}: {listing(unknown)} is no system of this study; there are {known}")


def _possible(every: Sequence[Part]) -> list[Part]:
    """The parts, without the classifiers where the data have one class; before hours are spent, not after.

    PixmedError where nobody is there to test on, or where a part's networks cannot be made.
    """
    if not every:
        return []
    dataset = open_data(every[0].config)  # the data that all parts share
    if not len(dataset.rows["test"]):
        cause, remedy = why_empty(every[0].config["data"], dataset, "test")
        raise PixmedError(f"{cause}, and a study tests on it; {remedy}")
    kept, names = [], dataset.source.label_names
    for part in every:
        data = part.config["data"]
        classes = len(class_names(data["condition"], names, data["class_channels"], data["tissues"]))
        if not build.is_supervised(part.config):
            build.networks(part.config)
        elif build.classifies(part.config) and classes < 2:
            continue
        else:
            build.network(part.config, classes)
        kept.append(part)
    if left := len(every) - len(kept):
        told = f"the data have one class ({listing(names)}), and a classifier needs two or more"
        print(f"{told}: {left} of {len(every)} parts are left out", file=sys.stderr)
    return kept
