"""The Colab notebook runs from its first cell to its last, and would leave Colab's own JAX alone."""

import asyncio
import copy
import json
import os
import re
import sys
import tomllib
from pathlib import Path

import pytest
import runs

PATH = runs.ROOT / "notebooks" / "pixmed_colab.ipynb"
PROJECT = tomllib.loads((runs.ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def notebook():
    nbformat = pytest.importorskip("nbformat", reason='pip install -e ".[test]" to check the notebook')
    found = nbformat.read(PATH, as_version=4)
    nbformat.validate(found)
    return found


def test_it_is_kept_without_outputs(notebook):
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert len(cells) >= 8
    assert not any(cell.outputs or cell.execution_count for cell in cells)


def test_nothing_is_pinned_against_colabs_jax(notebook):
    """Neither by the notebook nor by what it installs: a floor may raise a version, nothing may lower it."""
    installs = [line for cell in notebook.cells for line in cell.source.splitlines() if "pip install" in line]
    assert installs == ["    %pip install -q -e ."]
    (jax,) = [name for name in PROJECT["dependencies"] if re.match(r"jax\b", name)]
    assert re.fullmatch(r"jax>=[\d.]+", jax)
    assert not [name for name in PROJECT["dependencies"] if re.search(r"==|<|~=", name)]


def test_the_badge_opens_this_file(notebook):
    """The address of the repository is not known until pyproject.toml says it; the rest of the link is."""
    (owner,) = re.findall(
        r"\(https://colab\.research\.google\.com/github/(.+)/blob/main/(?:.+)\)", notebook.cells[0].source
    )
    assert f"/blob/main/{PATH.relative_to(runs.ROOT).as_posix()})" in notebook.cells[0].source
    known = PROJECT.get("urls", {}).get("Repository", "https://github.com/OWNER/REPOSITORY")
    assert known == f"https://github.com/{owner}"


def test_without_a_repository_it_says_what_to_set(notebook, tmp_path, monkeypatch):
    """Opened on Colab as it is kept, with no clone around it."""
    nbclient = pytest.importorskip("nbclient", reason='pip install -e ".[test]" to run the notebook')
    pytest.importorskip("ipykernel", reason='pip install -e ".[test]" to run the notebook')
    monkeypatch.delenv("PIXMED_REPOSITORY", raising=False)
    first = copy.deepcopy(notebook)
    first.cells = first.cells[:4]
    assert "git clone" in first.cells[-1].source
    (tmp_path / "content").mkdir()
    client = nbclient.NotebookClient(
        first, timeout=60, kernel_name="python3", resources={"metadata": {"path": str(tmp_path / "content")}}
    )
    with pytest.raises(nbclient.exceptions.CellExecutionError) as error:
        asyncio.run(client.async_execute())
    assert (error.value.ename, error.value.evalue[:14]) == ("SystemExit", "set REPOSITORY")
    assert not any((tmp_path / "content").iterdir())


@pytest.mark.slow
def test_it_runs(notebook, tmp_path, tmp_path_factory, monkeypatch):
    """As written, with the preset and the steps that its second cell takes from the environment."""
    nbclient = pytest.importorskip("nbclient", reason='pip install -e ".[test]" to run the notebook')
    pytest.importorskip("ipykernel", reason='pip install -e ".[test]" to run the notebook')
    workdir = tmp_path / "run"
    monkeypatch.setenv("PIXMED_WORKDIR", str(workdir))
    monkeypatch.setenv("PIXMED_PRESET", "test")
    monkeypatch.setenv("PIXMED_STEPS", "4")
    monkeypatch.setenv("PATH", os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(runs.cache(tmp_path_factory)))
    monkeypatch.setenv("PYTHONWARNINGS", "")
    client = nbclient.NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(PATH.parent)}}
    )
    asyncio.run(client.async_execute())  # which closes its loop; execute() leaves one open, and its sockets
    said = "\n".join(
        "".join(output.get("text", "")) for cell in notebook.cells for output in cell.get("outputs", ())
    )
    assert "trained 4 steps" in said and "trained 6 steps" in said
    assert re.search(r"resuming \S+ from step 4", said)
    assert "launch.py:" not in said  # which is how a fault begins
    shown = [
        kind
        for cell in notebook.cells
        for output in cell.get("outputs", ())
        for kind in output.get("data", {})
        if kind not in ("text/plain", "image/jpeg")  # IPython gives a PIL image as both PNG and JPEG
    ]
    assert shown == ["image/png"] * 4 + ["text/markdown"]
    card = json.loads((workdir / "model_card.json").read_text())
    assert card["model"]["step"] == 6
