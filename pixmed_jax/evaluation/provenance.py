"""Where a network comes from, as cards and data sheets tell it: its data, its training, its machine.

Everything is read from a run's config.json, split.json, env.json and metrics.jsonl; what these do not hold is
None, which the pages call unknown. Nothing is guessed.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pixmed_jax import config as configs
from pixmed_jax import workdir as run_folder
from pixmed_jax.data.synthetic import PREFIX
from pixmed_jax.evaluation import facts


def of_data(config: Mapping[str, Any], workdir: Path) -> dict[str, Any]:
    """What was trained on: source, licence, and {split: {"slices", "patients"}}; patients None if unknown."""
    data, about = config["data"], config.get("about", {})
    described, licence = facts.KNOWN.get(data["source"], (None, None))
    split = run_folder.read_split(workdir)
    parts = {name: counted(files) for name, files in (split or {}).items() if name != "behind"}
    return {
        "source": data["source"],
        "described": about.get("data") or described,
        "licence": about.get("licence") or licence,
        "split_by": data["split"]["by"],
        "split": parts or None,
        "synthetic": sum(file.startswith(PREFIX) for file in (split or {}).get("train", {})),
        "left_out": len(run_folder.read_environment(workdir).get("left_out", ())),
    }


def counted(files: Mapping[str, str]) -> dict[str, int | None]:
    """Slices and patients of {file: patient group}; a group that is its file's name is no known patient."""
    patients = {group for file, group in files.items() if group and group != file}
    return {"slices": len(files), "patients": len(patients) or None}


def of_training(config: Mapping[str, Any], workdir: Path, step: int | None) -> dict[str, Any]:
    """How it was trained, up to `step`; hours are those of the steps, without compiling and looking."""
    records = [
        record for record in run_folder.read_metrics(workdir) if step is None or record["step"] <= step
    ]
    batch = config["train"]["batch_size"]
    rates = [(r["step"], r["images_per_second"]) for r in records if r.get("images_per_second")]
    seconds, before = 0.0, 0.0
    for at, rate in rates:
        seconds, before = seconds + (at - before) * batch / rate, at
    environment = run_folder.read_environment(workdir)
    augmented = configs.flatten(config["data"].get("augment") or {})
    return {
        "steps": step,
        "batch_size": batch,
        "loss": {
            name: value
            for name, value in config.get("loss", {}).items()
            if value and not name.endswith("_every")
        },
        "learning_rate": config["optimizer"]["learning_rate"],
        "dtype": config["train"]["dtype"],
        "augmentation": [key.removesuffix(".p") for key, p in augmented.items() if key.endswith(".p") and p],
        "images_per_second": float(np.median([rate for _, rate in rates])) if rates else None,
        "hours": seconds / 3600 if rates else None,
        "devices": environment.get("devices"),
        "processes": environment.get("processes"),
        "cpus": environment.get("cpus"),
        "packages": environment.get("packages"),
    }
