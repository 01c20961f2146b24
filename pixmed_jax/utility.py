"""Do synthetic slices help? Networks trained with and without them, tested on patients whom nobody has seen.

    WORKDIR/utility/generators/10-seed0/                  the generator of WORKDIR, trained anew on a tenth of
                                                          its training patients, and its samples
    WORKDIR/utility/networks/segmenter-10-both-seed0/     a segmenter or classifier of each arm
    WORKDIR/utility.json, WORKDIR/report/utility.html     what came of it (evaluation/utility.py)

Where WORKDIR is of a segmenter, there is no generator: the question is what copied pixels add.

    WORKDIR/utility/copies/10-seed0/                      pixels copied from a tenth of the training patients

With each share of the training patients and each seed, every network is trained once in each arm, with the
same patients, optimiser steps, batch size and seed. The seed also draws the patients of a share, so it stands
for the luck of who was at hand. A generator sees the patients of its arm and no others. The split of WORKDIR
is kept; as nothing is chosen by validation here, validation and test patients together are tested on, and
with them the training patients that are spare, most of all where the share is small.

It resumes, and several processes may share it: see `parts`.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pixmed_jax import workdir as run_folder
from pixmed_jax.data.regions import HEADED
from pixmed_jax.data.sources import Dataset
from pixmed_jax.defaults import HEADS, OFF, VIEW, merged
from pixmed_jax.errors import OptionError, PixmedError, at_least, listing
from pixmed_jax.evaluation import utility as results
from pixmed_jax.evaluation.arms import PASTED, Experiment
from pixmed_jax.parts import Part, finish, prepare
from pixmed_jax.same_data import open_of_run
from pixmed_jax.training.build import is_supervised, restores, segments


def utility(
    workdir: Path,
    *,
    networks: Mapping[str, Mapping[str, Any]],
    shares: Sequence[int] = (10, 25, 50, 100),
    seeds: int = 3,
    number: int = 600,
    edit: str = "auto",
    split: str = "val+test+spare",
    steps: int = 0,
    fresh: bool = False,
) -> int:
    """Run what is not done of the experiment and write its results. Returns 0, or 128 + a signal.

    networks: {"segmenter" or "classifier": its config}; a segmenter's folder brings its own. shares: of the
    training patients, per cent. number: synthetic slices of each share and seed. edit: as for sampling;
    "auto" mixes edits of the masks where the condition knows the head, or pixels are copied. steps: of every
    network, 0 for those of its config.
    """
    experiment, told = plan(
        workdir,
        networks=networks,
        shares=shares,
        seeds=seeds,
        number=number,
        edit=edit,
        split=split,
        steps=steps,
    )
    for line in told:
        print(line)
    folder = workdir / "utility"
    # More seeds, shares or networks are more of the same, and other patients to test on train nothing anew.
    prepare(
        folder,
        experiment.told(),
        "utility experiment",
        fresh=fresh,
        contents=("generators", "copies", "networks"),
        may_change=("seeds", "shares", "split"),
        may_come=("networks",),
    )
    done = 0
    while done < seeds:  # seed by seed, so that what is there already says something
        done += 1
        some = experiment._replace(seeds=done)
        status = finish(list(parts(some, workdir)), f"utility, seed {done} of {seeds}")
        if status:
            return status
        results.write(workdir, some, complete=done == seeds)
    print(results.summary(json.loads((workdir / run_folder.UTILITY).read_text(encoding="utf-8"))))
    print(f"written: {workdir / run_folder.UTILITY} and {workdir / 'report' / 'utility.html'}")
    return 0


def plan(
    workdir: Path, *, networks: Mapping[str, Mapping[str, Any]], edit: str, steps: int, **options: Any
) -> tuple[Experiment, list[str]]:
    """The experiment that these options mean for the generator or the segmenter of `workdir`, and what to
    tell about it.
    """
    shares = tuple(sorted(set(options["shares"])))
    if not shares or not all(0 < share <= 100 for share in shares):
        raise OptionError(f"utility.shares={tuple(options['shares'])}: give per cents above 0 and up to 100")
    at_least(1, "utility", seeds=options["seeds"], number=options["number"])
    config = run_folder.read_config(workdir)
    condition, told = config["data"]["condition"], []
    chosen = dict(networks)
    if restores(config):
        raise PixmedError(
            f"{workdir}: restores images and draws none, so there are no synthetic slices to judge; give the "
            "folder of a generator or of a segmenter as --workdir"
        )
    if is_supervised(config):
        _check_segmenter(workdir, config, edit)
        if "segmenter" in chosen:
            chosen["segmenter"] = config
        told.append("no generator: pixels are copied by edits of the masks")
    if condition == "label" and "segmenter" in chosen:
        del chosen["segmenter"]
        told.append("no segmenter: this generator draws from labels, so its slices have no masks")
    dataset = open_of_run(workdir, config)
    _check_held_out(dataset, options["split"])
    if len(dataset.source.label_names) < 2 and "classifier" in chosen:
        del chosen["classifier"]
        told.append("no classifier: the data name one label only")
    if dataset.left_out and "classifier" in chosen:  # it has use for a slice whose mask is lost, others not
        del chosen["classifier"]
        told.append(
            f"no classifier: data.faulty=skip leaves out {len(dataset.left_out)} slices, and it might leave "
            "out others; name them in data.leave_out instead"
        )
    if "segmenter" in chosen and dataset.source.several and chosen["segmenter"]["data"]["class_channels"]:
        raise PixmedError(
            "data.class_channels=true: the masks show several classes in one slice, and those of synthetic "
            "slices say tumour or none; set data.class_channels=false for the segmenter"
        )
    if not chosen:
        raise PixmedError("; ".join([*told, "so there is nothing to train"]))
    if edit == "auto":
        edit = "mixed" if condition in HEADED or is_supervised(config) else "none"
    for name, network in chosen.items():
        if steps:
            length = {"train": {"steps": steps, "epochs": 0}, "optimizer": {"decay_steps": steps}}
            chosen[name] = merged(network, length)
        if chosen[name]["train"]["epochs"]:
            raise PixmedError(
                f"utility.{name}: its config counts epochs, and arms of unlike size would take unlike steps; "
                "give utility.steps"
            )
    return Experiment(config, chosen, edit=edit, **{**options, "shares": shares}), told


def _check_segmenter(workdir: Path, config: Mapping[str, Any], edit: str) -> None:
    """Whether pixels can be copied for this network, and for it alone."""
    if not segments(config):
        raise PixmedError(
            f"{workdir}: trains neither a generator nor a segmenter, so there are no synthetic slices to "
            "judge; give the folder of one as --workdir"
        )
    if config["data"]["synthetic_dir"]:
        raise PixmedError(
            f"{workdir}: data.synthetic_dir is set, so it would be in every arm; begin a folder without it"
        )
    if edit == "none":
        raise OptionError(
            "utility.edit=none: copied pixels would be the real slices; give mixed, or a generator's folder"
        )


def _check_held_out(dataset: Dataset, split: str) -> None:
    """Patients to test on, of whom nobody was trained on: told before hours are spent, not after."""
    groups = dataset.source.groups
    train, tested = ({groups[row] for row in dataset.of(name)} for name in ("train", split))
    if shared := sorted(train & tested):
        raise PixmedError(
            f"{len(shared)} patients are both trained on and in {split} ({listing(shared)}), so nothing could"
            " be said of new ones; train the generator with data.split.by=patient, and give utility.split "
            "without train"
        )
    if len(tested) < 2:
        raise PixmedError(f"utility.split={split}: holds {len(tested)} patients; give one with two or more")


def parts(experiment: Experiment, workdir: Path) -> Iterator[Part]:
    """All runs in the order in which they depend on each other."""
    for seed in range(experiment.seeds):
        for share in experiment.shares:
            draw = {"split": {"keep": share / 100, "keep_seed": seed}}
            drawn = {
                "number": experiment.number, "split": "train", "balance": True, "edit": experiment.edit,
                "seed": seed,
            }  # fmt: skip
            samples = {"samples": drawn} if experiment.paints else {}
            if PASTED in experiment.arms():
                samples[PASTED] = {**drawn, "painter": "copy_paste"}
            name = f"{'generator' if experiment.paints else 'copied pixels'} on {share} %, seed {seed}"
            folder = experiment.slices_of(workdir, share, seed)
            yield Part(
                name,
                folder,
                merged(experiment.config, {"seed": seed, "data": draw}),
                samples,
                split="",
                trains=experiment.paints,
            )
            shared = {key: of for key, of in experiment.config["data"].items() if key not in VIEW}
            for network, config in experiment.networks.items():
                steps = config["train"]["steps"]
                for arm, of in experiment.arms().items():
                    # In full, as the generator and the network may each be trained under augmentation.
                    extra: dict[str, Any] = {"augment": merged(OFF, HEADS if of.augmented else {})}
                    # Pictures in colour are so for all.
                    extra["channels"] = max(each["data"]["channels"] for each in (experiment.config, config))
                    if of.synthetic:
                        made = str((folder / of.folder).absolute())
                        extra |= {"synthetic_dir": made, "synthetic": of.synthetic}
                    yield Part(
                        f"{network} on {share} %, {arm}, seed {seed}",
                        results.folder_of(workdir, network, share, arm, seed),
                        merged(
                            config,
                            {"seed": seed, "data": merged(shared, draw, extra)},
                            {"log": {"grid_every": steps}, "checkpoint": {"every": steps}},
                        ),
                        split=experiment.split,
                        needs=name if of.synthetic else "",
                    )
