"""docs/extending.md: its two files do, as written and outside of the project, what the page says."""

import os
import re
import subprocess
import sys

import numpy as np
import pytest
import runs

PAGE = (runs.ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r'^```python title="(\w+\.py)"\n(.*?)^```$', PAGE, re.MULTILINE | re.DOTALL))
COMMANDS = re.findall(r"^PYTHONPATH=CLONE python .+$", PAGE, re.MULTILINE)


def run(command: str, tmp_path, factory) -> subprocess.CompletedProcess:
    """A command of the page, run beside its file in `tmp_path`, with the tests' phantoms for its own."""
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    line = command.replace("CLONE", str(runs.ROOT)).replace(" python ", f" {sys.executable} ")
    if "--config=my_" in line:
        line += f" --config.data.dir={runs.shared(factory) / 'data'}"
    environment = {
        **{name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        "JAX_COMPILATION_CACHE_DIR": str(runs.cache(factory)),
        "PYTHONWARNINGS": "",
    }
    return subprocess.run(
        line, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
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
        assert ": python my_network.py --workdir=runs/plain" in following  # launch.py knows no such network
    workdir = tmp_path / "runs" / "plain"
    assert (workdir / "evaluation.json").exists() and (workdir / "model_card.md").exists()
    assert len(list((workdir / "samples" / "images").iterdir())) == 4


def test_data_of_ones_own_are_checked_and_split_by_patient(tmp_path, tmp_path_factory):
    process = run(COMMANDS[2], tmp_path, tmp_path_factory)
    assert process.returncode == 0, process.stderr
    said = " ".join(process.stdout.split())
    assert "train 32 slices of 8 patients" in said and "classes 1 left, 2 right" in said


def test_a_dry_run_refuses_what_a_source_may_not_give(tmp_path, tmp_path_factory, monkeypatch):
    """The other faults of this kind are in test_slices.py."""
    good, wrong = "        return image, mask\n", "        return image / 255, mask\n"
    assert good in FILES["my_data.py"]
    monkeypatch.setitem(FILES, "my_data.py", FILES["my_data.py"].replace(good, wrong))
    process = run(COMMANDS[2], tmp_path, tmp_path_factory)
    assert process.returncode == 1 and process.stderr.count("\n") == 1, process.stderr
    assert "48 of 48 slices cannot be used: " in process.stderr
    assert "its image is float64; give uint8 or uint16; repair" in process.stderr


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
