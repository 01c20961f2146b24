"""docs/extending.md: its two files do, as written, what the page says."""

import os
import re
import subprocess
import sys

import numpy as np
import pytest
import runs

PAGE = (runs.ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r'^```python title="(\w+\.py)"\n(.*?)^```$', PAGE, re.MULTILINE | re.DOTALL))
COMMANDS = re.findall(r"^PYTHONPATH=\. python (.+)$", PAGE, re.MULTILINE)


def run(command: str, tmp_path, factory) -> subprocess.CompletedProcess:
    """A command of the page, with its file and its folders below `tmp_path` and the tests' phantoms."""
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    words = command.replace("runs/", f"{tmp_path}/runs/").split()
    words = [re.sub(r"\bmy_", f"{tmp_path}/my_", word) for word in words]
    if any(word.startswith("--config=") for word in words) and "squares" not in command:
        words.append(f"--config.data.dir={runs.shared(factory) / 'data'}")
    cache = str(runs.cache(factory))
    environment = {
        **os.environ,
        "PYTHONPATH": str(runs.ROOT),
        "JAX_COMPILATION_CACHE_DIR": cache,
        "PYTHONWARNINGS": "",
    }
    return subprocess.run(
        [sys.executable, *words], cwd=runs.ROOT, env=environment, capture_output=True, text=True, timeout=300
    )


def test_the_page_has_its_files_and_commands():
    assert list(FILES) == ["my_network.py", "my_data.py"] and len(COMMANDS) == 3


@pytest.mark.slow
def test_a_network_of_ones_own_trains_and_samples(tmp_path, tmp_path_factory):
    runs.trained(tmp_path_factory)  # makes the phantoms
    for command in COMMANDS[:2]:
        process = run(command, tmp_path, tmp_path_factory)
        assert process.returncode == 0, process.stderr
        following = process.stdout.splitlines()[-2 if "sample" in command else -1]
        assert f": python {tmp_path}/my_network.py --workdir=" in following  # launch.py knows no such network
    workdir = tmp_path / "runs" / "plain"
    assert (workdir / "evaluation.json").exists() and (workdir / "model_card.md").exists()
    assert len(list((workdir / "samples" / "images").iterdir())) == 4


def test_data_of_ones_own_are_checked_and_split_by_patient(tmp_path, tmp_path_factory):
    process = run(COMMANDS[2], tmp_path, tmp_path_factory)
    assert process.returncode == 0, process.stderr
    said = " ".join(process.stdout.split())
    assert "train 32 slices of 8 patients" in said and "classes 1 left, 2 right" in said


def test_what_a_source_of_ones_own_gives(tmp_path, monkeypatch):
    from pixmed_jax.data import sources

    monkeypatch.setattr(sources, "SOURCES", dict(sources.SOURCES))
    monkeypatch.syspath_prepend(str(runs.ROOT))
    exec(compile(FILES["my_data.py"], "my_data.py", "exec"), {"__name__": "my_data"})
    dataset = sources.open_dataset(
        source="squares", patients=10, size=32, load_scale=1.0, channels=1, seed=0,
        split={"by": "patient", "fractions": (0.8, 0.1, 0.1)},
    )  # fmt: skip
    assert {name: len(rows) for name, rows in dataset.rows.items()} == {"train": 24, "val": 8, "test": 8}
    _, slices = dataset.load(dataset.rows["test"], 64)  # as they are: resizing blends a square's edge
    bright = slices.images[..., 0] > 100
    np.testing.assert_array_equal(bright, slices.masks > 0)
