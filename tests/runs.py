"""Tiny runs for the tests: one is trained for all workers, and copied where a test changes it.

The network is far too small to learn anything; every path through the code is the one a real run takes.
"""

import contextlib
import csv
import fcntl
import os
import runpy
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import jax
import numpy as np
import pytest
from PIL import Image

from pixmed_jax import config as configs
from pixmed_jax import inference
from pixmed_jax.training import checkpoint, mesh
from pixmed_jax.training.build import make_task
from pixmed_jax.training.loop import train

ROOT = Path(__file__).parents[1]
# The `test` preset with fewer levels and features: the time is that of compiling.
TINY = {
    "model.generator.levels": 3,
    "model.generator.width": 4,
    "model.generator.ghost_levels": [1, 2],
    "model.discriminator.layers": 1,
    "model.discriminator.width": 4,
}


def shared(factory: pytest.TempPathFactory) -> Path:
    """A folder that all workers of this session see."""
    base = factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


def cache(factory: pytest.TempPathFactory) -> Path:
    """Where JAX keeps what it compiles in this session, for all workers and for child processes.

    PIXMED_TESTS_COMPILED, where it is set: several sessions, of several Pythons too, compile the same.
    """
    return Path(os.environ.get("PIXMED_TESTS_COMPILED") or shared(factory) / "compiled")


@contextlib.contextmanager
def lock(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def config(factory: pytest.TempPathFactory, **changes: Any) -> dict[str, Any]:
    """The tiny config; `changes` by dotted key, written with "__" for the dot."""
    return preset(factory, "ghost", **(TINY | changes))


def preset(factory: pytest.TempPathFactory, name: str, of: str = "test", **changes: Any) -> dict[str, Any]:
    """The preset `of` of configs/NAME.py over the shared phantoms; `changes` as those of `config`."""
    plain = configs.plain(runpy.run_path(str(ROOT / "configs" / f"{name}.py"))["get_config"](of))
    dotted = {key.replace("__", "."): value for key, value in changes.items()}
    for key, value in {"data.dir": str(shared(factory) / "data"), **dotted}.items():
        *path, leaf = key.split(".")
        section = plain
        for part in path:
            section = section[part]
        assert leaf in section, key
        section[leaf] = value
    return plain


def trained(factory: pytest.TempPathFactory) -> Path:
    """The folder of the one finished run, six steps long. Not to be changed: see `copied`."""
    path = shared(factory) / "trained"
    with lock(shared(factory) / "trained.lock"):
        if not path.exists():
            draft = path.with_name("being_trained")
            shutil.rmtree(draft, ignore_errors=True)
            assert train(config(factory), draft) == 0
            draft.rename(path)
    return path


def copied(factory: pytest.TempPathFactory, to: Path) -> Path:
    return Path(shutil.copytree(trained(factory), to))


def target(saved: checkpoint.Saved) -> Any:
    """What `checkpoint.restore` needs to give back the whole state of a run."""
    batch = inference.example_batch(saved.config, len(saved.classes))
    shapes = jax.eval_shape(make_task(saved.config).init, jax.random.PRNGKey(0), batch)
    return mesh.like(shapes, mesh.replicated(mesh.make_mesh(jax.device_count())))


def state(workdir: Path) -> Any:
    """The whole state at a run's newest step."""
    saved = checkpoint.finished(workdir / "checkpoints")[-1]
    return checkpoint.restore(saved, target(saved))


def loud(generator: inference.Generator, draw: Any) -> inference.Generator:
    """The generator with weights that make its images differ: after six steps all of them are grey."""
    batch = inference.example_batch(generator.config, len(generator.classes))
    init = make_task(generator.config).init
    generator._variables = draw(lambda: init(jax.random.PRNGKey(0), batch).ema)
    return generator


def tree_bytes(folder: Path) -> dict[str, bytes]:
    """{relative path: contents} of every file below a folder."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def code_of(card: str) -> str:
    """The Python in a model card."""
    return card.split("```python\n")[1].split("```")[0]


def rows(output: Path) -> list[dict[str, str]]:
    """The manifest of a sampled folder."""
    with (output / "manifest.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def pixels(path: Path | IO[bytes]) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)
