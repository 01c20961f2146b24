"""The folder of a run: made, resumed or refused, and never more deleted than a run wrote."""

import json
import os
from pathlib import Path

import pytest

from pixmed_jax import workdir
from pixmed_jax.errors import PixmedError

CONFIG = {
    "name": "x",
    "seed": 0,
    "data": {"fractions": [0.8, 0.1]},
    "train": {"steps": 5},
    "log": {"every": 1},
}


def change(**sections):
    return {**CONFIG, **sections}


def prepare(folder, config=CONFIG, fresh=False):
    workdir.prepare(folder, config, fresh=fresh)
    return folder


def trained(folder):
    """A run with a finished step, as far as `prepare` looks."""
    prepare(folder)
    (folder / "checkpoints" / "1").mkdir(parents=True)
    (folder / "checkpoints" / "1" / "manifest.json").write_text("{}")
    return folder


def test_two_processes_may_write_one_file_at_once(tmp_path, monkeypatch):
    """As two starts of a utility experiment do at its end: one writes while the other is about to rename."""
    rename = Path.replace

    def interrupted(draft: Path, target: Path) -> Path:
        monkeypatch.setattr(Path, "replace", rename)
        monkeypatch.setattr(os, "getpid", lambda: -1)
        workdir.write_text(tmp_path / "page.html", "theirs")
        return rename(draft, target)

    monkeypatch.setattr(Path, "replace", interrupted)
    workdir.write_text(tmp_path / "page.html", "ours")
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("page.html", "ours")]


def test_a_new_run(tmp_path):
    folder = prepare(tmp_path / "deep" / "run")
    assert sorted(p.name for p in folder.iterdir()) == ["config.json", "env.json"]  # neither draft nor probe
    assert workdir.read_config(folder) == CONFIG
    environment = json.loads((folder / "env.json").read_text())
    import jax

    assert environment["packages"]["jax"] == jax.__version__
    assert len(environment["devices"]) == jax.device_count()


def test_the_same_config_resumes_and_keeps_everything(tmp_path, capsys):
    folder = trained(tmp_path / "run")
    (folder / "metrics.jsonl").write_text("{}\n")
    prepare(folder)
    assert (folder / "metrics.jsonl").read_text() == "{}\n"
    assert capsys.readouterr().err == ""


def test_fresh_deletes_what_a_run_wrote_and_nothing_else(tmp_path):
    folder = prepare(tmp_path / "run")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "kept.png").write_text("x")
    for name in ("checkpoints", "grids", "report", "mine"):
        (folder / name).mkdir()
        (folder / name / "file").write_text("x")
    (folder / "samples").symlink_to(tmp_path / "elsewhere")  # a link is cut, its target is not emptied
    for name in ("metrics.jsonl", "split.json", "evaluation.json", "events.out.tfevents.1.host", "notes.txt"):
        (folder / name).write_text("x")
    prepare(folder, change(seed=1), fresh=True)
    assert sorted(p.name for p in folder.iterdir()) == ["config.json", "env.json", "mine", "notes.txt"]
    assert (folder / "mine" / "file").exists() and (tmp_path / "elsewhere" / "kept.png").exists()
    assert workdir.read_config(folder)["seed"] == 1


@pytest.mark.parametrize("name", ["checkpoints", "metrics.jsonl", "samples"])
def test_results_without_a_config_are_not_touched(tmp_path, name):
    (tmp_path / name).write_text("x")
    with pytest.raises(PixmedError, match=r"without their config\.json"):
        prepare(tmp_path)
    assert (tmp_path / name).read_text() == "x" and not (tmp_path / "config.json").exists()


def test_a_folder_with_other_files_is_fine(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    prepare(tmp_path)
    assert (tmp_path / "notes.txt").exists() and (tmp_path / "config.json").exists()


@pytest.mark.parametrize("inside", [False, True])
def test_where_nothing_can_be_written(tmp_path, inside):
    file = tmp_path / "file"
    file.write_text("kept")
    folder = file / "run" if inside else file
    with pytest.raises(PixmedError, match="cannot be written") as error:
        prepare(folder)
    assert str(folder) in str(error.value) and "\n" not in str(error.value)
    assert file.read_text() == "kept"


def test_no_run(tmp_path):
    with pytest.raises(PixmedError, match="is no run's folder"):
        workdir.read_config(tmp_path)


def test_a_failed_write_leaves_the_old_text(tmp_path, monkeypatch):
    path = tmp_path / "config.json"
    workdir.write_text(path, "old")

    def half(self, text, **kwargs):
        with self.open("w") as file:
            file.write(text[:2])
        raise OSError("disk full")

    monkeypatch.setattr(type(path), "write_text", half)
    with pytest.raises(OSError, match="disk full"):
        workdir.write_text(path, "new contents")
    assert path.read_text() == "old"
