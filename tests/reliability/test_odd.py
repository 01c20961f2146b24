"""Row 26: clocks, names, folders and numbers of images that nobody thinks of work, or get one line."""

import csv
import os
import time
from typing import ClassVar

import numpy as np
import pytest
import runs
from test_bad_files import config_of, mask_of, pairs
from test_loop import use_toy

from pixmed_jax import sampling
from pixmed_jax.data import folder
from pixmed_jax.data.sources import open_dataset
from pixmed_jax.errors import PixmedError
from pixmed_jax.training import checkpoint
from pixmed_jax.training.loop import train


def test_a_clock_that_is_moved_back(tmp_path, tmp_path_factory, monkeypatch):
    """By ten days, between a run and its resume: no number and no choice hangs on it."""
    now = time.time
    assert train(runs.config(tmp_path_factory, train__steps=2), tmp_path / "run") == 0
    monkeypatch.setattr(time, "time", lambda: now() - 864_000)
    assert train(runs.config(tmp_path_factory), tmp_path / "run") == 0
    expected = runs.state(runs.trained(tmp_path_factory))
    assert checkpoint.sha256_of_tree(runs.state(tmp_path / "run")) == checkpoint.sha256_of_tree(expected)
    newest = max((tmp_path / "run" / "checkpoints").iterdir(), key=lambda path: int(path.name))
    os.utime(newest, (0, 0))  # nor on the dates of files
    assert checkpoint.newest_intact(tmp_path / "run" / "checkpoints").step == 6


def test_a_data_folder_that_may_only_be_read(tmp_path, tmp_path_factory, monkeypatch):
    use_toy(monkeypatch)
    root = pairs(tmp_path / "data", [f"g{i:03d}" for i in range(40)])
    paths = sorted([root, *root.rglob("*")])
    for path in paths:
        path.chmod(0o555 if path.is_dir() else 0o444)
    before = [(path, path.stat().st_mtime_ns) for path in paths]
    try:
        assert train(config_of(tmp_path_factory, root), tmp_path / "run") == 0
        # Root may write anywhere, so what counts is that nothing was.
        assert [(path, path.stat().st_mtime_ns) for path in sorted([root, *root.rglob("*")])] == before
    finally:
        for path in paths:
            path.chmod(0o755)


def test_phantoms_that_cannot_be_written(tmp_path, tmp_path_factory):
    (tmp_path / "file").write_text("kept")
    data = runs.config(tmp_path_factory, data__dir=str(tmp_path / "file" / "data"))["data"]
    with pytest.raises(PixmedError, match=r"file/data/.*cannot be written \(Not a directory\)") as error:
        open_dataset(**data, seed=0)
    assert "\n" not in str(error.value)


NAMES = [
    "脳腫瘍 (1)",
    "Größe=12%, «é»",
    "🧠 a'b",
    "sub/Ω$HOME`x`",
    "x" * 250,
    "ж" * 120,
    "-rf",
    "a.b.c",
    "e\u0301",
]


def test_names_in_any_script_and_of_any_length(tmp_path, tmp_path_factory, monkeypatch):
    """From files by way of a run's records and a sampling back to files."""
    use_toy(monkeypatch)
    names = [*NAMES, *(f"g{i:03d}" for i in range(31))]
    root = pairs(tmp_path / "資料 %s {x}", [name.replace(",", ";") for name in names])
    config = config_of(tmp_path_factory, root)
    workdir = tmp_path / "走 run"
    assert train(config, workdir) == 0
    dataset = open_dataset(**config["data"], seed=0)
    assert set(dataset.source.files) == {f"{name.replace(',', ';')}.png" for name in names}
    assert checkpoint.newest_intact(workdir / "checkpoints").step == 6


class Echo:
    """A generator that draws the mask."""

    classes, grey, takes_maps, reads_style, size, step = ("tumor",), True, True, False, 32, 1
    limits = (0.0, 255.0)
    data: ClassVar = {"source": "folder", "size": 32, "condition": "tumor", "split": {"by": "patient"}}
    config: ClassVar = {"name": "echo", "preset": "quick", "data": data}

    def __call__(self, maps, **_):
        return maps[..., None].astype(np.float32)


@pytest.mark.parametrize("name", ["脳 🧠", "n" * 250, "ж" * 125])
def test_volumes_of_such_names_give_files(name, tmp_path, monkeypatch):
    monkeypatch.setattr(sampling.inference, "load", lambda *_: Echo())
    (tmp_path / "masks").mkdir()
    np.save(tmp_path / "masks" / f"{name}.npy", np.stack([mask_of(i) for i in range(4)], -1))
    output = sampling.sample(tmp_path, masks=str(tmp_path / "masks"), output=str(tmp_path / "out"))
    with (output / "manifest.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["source"] for row in rows] == [f"{name}.npy#{k:03d}" for k in range(4)]
    assert sorted(path.name for path in (output / "images").iterdir()) == [row["file"] for row in rows]


@pytest.mark.parametrize(
    ("count", "told"), [(0, "no PNG.* files in images"), (1, r"1 .*patient"), (2, r"2 .*patient")]
)
def test_too_few_images(count, told, tmp_path, tmp_path_factory):
    root = tmp_path / "data"
    for part in ("images", "masks"):
        (root / part).mkdir(parents=True)
    for i in range(count):
        pairs(root, [f"g{j:03d}" for j in range(4 * i, 4 * i + 1)])
    (root / "meta.csv").write_text(
        "file,label,patient_group\n" + "".join(f"g{4 * i:03d}.png,a,p{i}\n" for i in range(count))
    )
    with pytest.raises(PixmedError, match=told) as error:
        train(config_of(tmp_path_factory, root), tmp_path / "run")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_one_image_that_only_trains_is_a_source_too(tmp_path):
    source = folder.source(pairs(tmp_path, ["g000"]))
    assert source.files == ("g000.png",)
    assert source.read(0)[0].shape == (32, 32)


def test_a_batch_larger_than_the_set(tmp_path, tmp_path_factory, monkeypatch):
    use_toy(monkeypatch)
    root = pairs(tmp_path / "data", [f"g{i:03d}" for i in range(12)])
    split = {"by": "patient", "fractions": [0.34, 0.33, 0.33], "folds": 0, "fold": 0}
    data = {"data__split": {**split, "seed": 0, "crossing": "error"}}
    for resident in (4.0, 0.0):
        workdir = tmp_path / f"run{resident}"
        config = config_of(
            tmp_path_factory, root, train__batch_size=64, train__resident_gb=resident, train__steps=2, **data
        )
        assert train(config, workdir) == 0
        assert checkpoint.newest_intact(workdir / "checkpoints").step == 2
