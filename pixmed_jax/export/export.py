"""A run's network as files for others: `W/export/`, one folder that needs nothing else of the run.

generator.safetensors config.json    for `pixmed_jax.load(FOLDER)`; export/folder.py has the layout
"""

from pathlib import Path

from pixmed_jax import inference
from pixmed_jax.export import folder
from pixmed_jax.workdir import EXPORT, replaced


def export(workdir: Path, *, step: int | str = "newest", dtype: str = "float32") -> Path:
    """Write the network of a run at a step to its `export/`, weights as `dtype`; returns that folder."""
    saved = inference.find(workdir, step)
    task, variables = inference.restored(saved)
    target = workdir / EXPORT
    with replaced(target, "make room for it") as draft:
        weights = f"{folder.NAMES[task.predicts]}.safetensors"
        folder.write_weights(draft / weights, variables, dtype)
        folder.write_config(draft, saved, weights, dtype=dtype)
    return target
