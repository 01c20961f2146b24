"""The paper's whole comparison by one command: every system trained, sampled and judged, and one page of it.

    WORKDIR/systems/NAME[-seedN]/            a run each, with its samples of training patients' masks
    WORKDIR/downstream/NETWORK-ARM-seedN/    a classifier or segmenter each; an arm is what it was trained on:
                                             real slices alone, or with those that a system made beside them
    WORKDIR/compare/                         the page and its tables

A part that is done is passed over, one that was stopped goes on where it was.
"""

import gc
import json
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax

from pixmed_jax import workdir as run_folder
from pixmed_jax.config import differences
from pixmed_jax.defaults import merged
from pixmed_jax.errors import PixmedError, listing
from pixmed_jax.evaluation.compare import compare
from pixmed_jax.evaluation.evaluate import evaluate
from pixmed_jax.sampling import MANIFEST, sample
from pixmed_jax.training.dry_run import dry_run
from pixmed_jax.training.loop import train

REAL = "real"  # the arm without synthetic slices


class Part(NamedTuple):
    """One run of the study: its folder, its config, and what to draw from it once it is trained."""

    name: str
    workdir: Path
    config: dict[str, Any]
    samples: Mapping[str, Any] | None


def parts(config: Mapping[str, Any], workdir: Path) -> Iterator[Part]:
    """All runs in the order in which they depend on each other."""
    for name in config["run"]:
        for seed in config["seeds"]["systems"]:
            yield Part(
                f"{name}, seed {seed}",
                _system_folder(workdir, name, seed),
                merged(config["systems"][name], {"seed": seed, "data": config["data"]}),
                config["samples"],
            )
    for network, settings in config["downstream"].items():
        for arm in (REAL, *(arm for arm in config["arms"] if arm in config["run"])):
            for seed in config["seeds"]["downstream"]:
                extra = {}
                if arm != REAL:
                    system_seed = config["seeds"]["systems"][0]
                    samples = _system_folder(workdir, arm, system_seed) / "samples"
                    extra = {"synthetic_dir": str(samples.absolute())}
                yield Part(
                    f"{network} on {arm}, seed {seed}",
                    workdir / "downstream" / f"{network}-{arm}-seed{seed}",
                    merged(settings, {"seed": seed, "data": {**config["data"], **extra}}),
                    None,
                )


def study(config: dict[str, Any], workdir: Path, *, fresh: bool = False) -> int:
    """Run all parts that are not done. Returns 0, or 128 + the signal that stopped one of them."""
    _check(config)
    every = list(parts(config, workdir))
    with run_folder.locked(workdir / "study"):
        _prepare(workdir, config, fresh=fresh)
        return _study(every, workdir, fresh=fresh)


def _study(every: list[Part], workdir: Path, *, fresh: bool) -> int:
    started = time.monotonic()
    for number, part in enumerate(every, 1):
        print(f"study: part {number} of {len(every)}, {part.name} ({_clock(started)})", flush=True)
        status = _run(part, fresh=fresh)
        if status:
            return status
        gc.collect()
        jax.clear_caches()  # compiled steps of parts that are done would fill the memory
    page = compare([part.workdir for part in every], workdir / "compare")
    print(f"written: {page} ({_clock(started)})")
    return 0


def study_dry_run(config: dict[str, Any], workdir: Path) -> int:
    """The dry run of each part whose data are there before the study; returns 0."""
    _check(config)
    for part in parts(config, workdir):
        print(f"\n===== {part.name}")
        if part.config["data"].get("synthetic_dir"):
            print("its training slices are made by an earlier part")
        else:
            dry_run(part.config, part.workdir)
    return 0


def _run(part: Part, *, fresh: bool) -> int:
    steps: Callable[[], int | None] = lambda: _read(part.workdir / run_folder.EVALUATION).get("step")  # noqa: E731
    done = steps() if _same_config(part) and not fresh else None
    if done is None or done != _last_step(part):
        status = train(part.config, part.workdir, fresh=fresh)
        if status:
            return status
        evaluate(part.workdir)
    if part.samples is not None and not _sampled(part):
        sample(part.workdir, **part.samples)
    return 0


def _last_step(part: Part) -> int | None:
    """The step that ends a run by steps; a run by epochs is asked for by `train` itself."""
    return part.config["train"]["steps"] or None


def _same_config(part: Part) -> bool:
    return _read(part.workdir / run_folder.CONFIG) == json.loads(json.dumps(part.config))


def _sampled(part: Part) -> bool:
    """Whether the folder of samples is that of the run's last step, in the number that is wanted."""
    assert part.samples is not None
    try:
        lines = (part.workdir / "samples" / MANIFEST).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return False
    evaluated = _read(part.workdir / run_folder.EVALUATION)
    steps = {line.split(",")[6] for line in lines[1:]}
    return len(lines) - 1 == part.samples["number"] and steps == {str(evaluated.get("step"))}


def _read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}


def _system_folder(workdir: Path, name: str, seed: int) -> Path:
    return workdir / "systems" / (name if seed == 0 else f"{name}-seed{seed}")


def _check(config: Mapping[str, Any]) -> None:
    for key in ("run", "arms"):
        unknown = [name for name in config[key] if name not in config["systems"]]
        if unknown:
            known = ", ".join(config["systems"])
            raise PixmedError(f"{key}: {listing(unknown)} is no system of this study; there are {known}")


def _prepare(workdir: Path, config: dict[str, Any], *, fresh: bool) -> None:
    old = _read(workdir / run_folder.CONFIG)
    changed = sorted(differences(old, config)) if old else []
    if changed and not fresh:
        raise PixmedError(
            f"{workdir}: holds a study with another config ({listing(changed)}); give another --workdir, "
            "or --fresh to start over in this one"
        )
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        run_folder.write_json(workdir / run_folder.CONFIG, config)
    except OSError as error:
        raise PixmedError(
            f"{workdir}: cannot be written ({error.strerror}); give another --workdir"
        ) from error


def _clock(started: float) -> str:
    minutes, seconds = divmod(int(time.monotonic() - started), 60)
    return f"{minutes}:{seconds:02d} so far"
