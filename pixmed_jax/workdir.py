"""The folder of a run, and what is allowed to happen to it.

    config.json env.json split.json metrics.jsonl events.out.* checkpoints/ grids/
    evaluation.json cases.csv audit.json utility.json reader.json model_card.{json,md} report/ judges/
    samples/ utility/ reader/ export/

Everything but arrays is text. writing.py says how it is written, and by whom at a time.
"""

import os
import platform
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from pixmed_jax import config as configs
from pixmed_jax import texts, writing
from pixmed_jax.errors import PixmedError, listing

CONFIG, SPLIT, METRICS, EVALUATION = "config.json", "split.json", "metrics.jsonl", "evaluation.json"
ENVIRONMENT, CASES, AUDIT, UTILITY, JUDGES = "env.json", "cases.csv", "audit.json", "utility.json", "judges"
EXPORT, READER = "export", "reader.json"
MODEL_CARD, _MODEL_PAGE = "model_card.json", "model_card.md"
_FOLDERS = ("checkpoints", "grids", "samples", "report", "utility", "reader", JUDGES, EXPORT)
_FILES = (CONFIG, ENVIRONMENT, SPLIT, METRICS, EVALUATION, CASES, AUDIT, UTILITY, MODEL_CARD, _MODEL_PAGE)
OUTPUTS = (*_FILES, READER, *_FOLDERS)
_SECTIONS = ("data", "train")  # of every config
# What is in some of these folders; --fresh refuses what a user has put beside it.
_CONTENTS = {
    "checkpoints": ("[0-9]*",),
    "grids": ("step_*.png", "augmentation*.png"),
    "report": ("index.html", "audit.html", "utility.html", "reader.html", "closeness.csv"),
    "reader": ("key.csv", "page.html", "images"),
}
_OF_BEGUN = ("samples", "utility")  # what may be made in a folder that nothing is trained in
LARGEST_SPLIT, _LARGEST_METRICS = 2**27, 2**30  # bytes
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "dm-pix", "numpy", "pixmed-jax")


def read_config(workdir: Path) -> dict[str, Any]:
    """The config a run was started with."""
    path = workdir / CONFIG
    try:
        config = texts.read_object(path)
        if "files" not in config and (wrong := _lacking(config)):
            raise ValueError(f"no section {listing(wrong)}")
    except FileNotFoundError as error:
        raise PixmedError(
            f"{path}: missing, so {workdir} is no run's folder; train with --config first"
        ) from error
    except ValueError as error:
        raise PixmedError(
            f"{path}: unreadable ({error}); restore it from any checkpoint's manifest.json"
        ) from error
    if "files" in config:  # export/folder.py says what else is in it
        raise PixmedError(f"{workdir}: is an exported model and no run; give the folder that was trained")
    return config


def _lacking(config: Mapping[str, Any]) -> list[str]:
    return [name for name in _SECTIONS if not isinstance(config.get(name), dict)]


def prepare(
    workdir: Path,
    config: Mapping[str, Any],
    *,
    fresh: bool,
    check: Callable[[Sequence[str]], None] = lambda moved: None,
) -> None:
    """Make `workdir` this run's folder: new, resumed with the same config, or emptied by `fresh`.

    check: of a run that is resumed, before anything is written: given the keys whose data lie elsewhere now,
    it refuses data that are not those of the run.
    """
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        probe = workdir / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise PixmedError(
            f"{workdir}: cannot be written ({error.strerror}); give another --workdir"
        ) from error
    if any(workdir.glob("*.safetensors")):  # of whichever network: export/folder.py names them
        raise PixmedError(
            f"{workdir}: holds an exported model, which a training would spoil; give another --workdir"
        )
    if (known := texts.found_object(workdir / CONFIG)) and _lacking(known):
        raise PixmedError(f"{workdir}: its {CONFIG} is of something else than a run; give another --workdir")
    # Steps without a manifest too: they may be finished ones that have lost it.
    trained = any(path.parent.name.isdigit() for path in (workdir / "checkpoints").glob("*/*"))
    used = trained or any((workdir / name).exists() for name in _OF_BEGUN)
    if (workdir / CONFIG).exists() and used and not fresh:
        _check_same(workdir, read_config(workdir), config, check)
    elif not (trained or (workdir / CONFIG).exists()) and (held := _results(workdir)):
        # Nothing says that a run wrote them, so --fresh does not delete them either.
        raise PixmedError(
            f"{workdir}: holds {listing(held)} without the {CONFIG} of a run; move them, or give another "
            "--workdir"
        )
    elif not (workdir / CONFIG).exists() and trained and not fresh:
        raise PixmedError(
            f"{workdir}: holds results of a run without their {CONFIG}; give another --workdir, "
            "or --fresh to delete them"
        )
    elif fresh:
        _clear(workdir, config)
    writing.write_json(workdir / CONFIG, config)
    if fresh or not trained:
        writing.write_json(workdir / ENVIRONMENT, environment())


def note(workdir: Path, **facts: Any) -> None:
    """Add to what a run's environment says."""
    writing.write_json(workdir / ENVIRONMENT, read_environment(workdir) | facts)


def read_environment(workdir: Path) -> dict[str, Any]:
    """What a run was trained on and with; nothing where that is not told."""
    return texts.found_object(workdir / ENVIRONMENT)


def read_metrics(workdir: Path) -> list[dict[str, float]]:
    """The records of a training; none where there are none."""
    return texts.found_objects(workdir / METRICS, _LARGEST_METRICS)


def read_split(workdir: Path) -> dict[str, Any] | None:
    """{split: {file: patient group}}; None where that is unknown.

    "behind" are those whom synthetic training slices come from, and whom the weights have seen that the
    training started from; None where nobody knows that.
    """
    split = texts.found_object(workdir / SPLIT, LARGEST_SPLIT)
    return split if isinstance(split.get("train"), dict) else None


def trained_on(workdir: Path) -> dict[str, str] | None:
    """{file: patient group} of all that a run's weights have seen, and that is behind what they have seen;
    None where that is not on record.
    """
    split = read_split(workdir) or {"train": {}, "behind": None}
    behind = split.get("behind", {})
    return {**behind, **split["train"]} if isinstance(behind, dict) else None


def _check_same(
    workdir: Path, old: Mapping[str, Any], new: Mapping[str, Any], check: Callable[[Sequence[str]], None]
) -> None:
    changed = configs.differences(old, new)
    shown = {key: f"{key}: {was!r} -> {now!r}" for key, (was, now) in changed.items()}
    moved = [key for key, values in changed.items() if configs.is_place(key, *values)]
    refused = [text for key, text in shown.items() if not configs.is_free(key) and key not in moved]
    if refused:
        raise PixmedError(
            f"{workdir}: was {'trained' if (workdir / METRICS).exists() else 'begun'} with another config "
            f"({listing(refused)}); "
            "give another --workdir, or --fresh to start over in this one"
        )
    check(moved)
    for text in shown.values():
        print(f"{workdir}: resumed with {text}", file=sys.stderr)


def _results(workdir: Path) -> list[str]:
    """Names of what a run writes that are there."""
    events = sorted(path.name for path in workdir.glob("events.out.tfevents.*"))
    return [name for name in OUTPUTS if os.path.lexists(workdir / name)] + events


def _clear(workdir: Path, config: Mapping[str, Any]) -> None:
    """Delete what a run writes, and nothing else; its config last, so that it can be begun again.

    Raises PixmedError where that would be what `config` reads, or what a user has put there.
    """
    writing.check_idle(workdir)
    results = [workdir / name for name in _results(workdir)]
    for key, path in configs.paths(config):
        place = Path(os.path.realpath(path))
        if any(Path(os.path.realpath(of)) in (place, *place.parents) for of in results):
            raise PixmedError(f"{key}: {path} is among what --fresh deletes; give another --workdir")
    for name, names in _CONTENTS.items():
        writing.check_holds(workdir / name, names)
    for path in sorted(results, key=lambda path: path.name == CONFIG):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def environment() -> dict[str, Any]:
    """What this process runs on and with."""
    import jax

    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "devices": [f"{d.platform}:{d.device_kind}" for d in jax.devices()],
        "processes": jax.process_count(),
        "packages": {name: _version(name) for name in _PACKAGES},
    }


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
