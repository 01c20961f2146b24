"""The folder of a run: made, resumed or refused, and never more deleted than a run wrote."""

import json
from pathlib import Path

import pytest

from pixmed_jax import parts, workdir, writing
from pixmed_jax.errors import PixmedError
from pixmed_jax.signals import Stopped

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
    report = ("index.html", "closeness.csv", "audit.html.12.draft", ".DS_Store")
    names = (
        "checkpoints/7",
        "grids/step_000007.png",
        "grids/augmentation.png",
        *(f"report/{name}" for name in report),
        "mine/file",
    )
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("x")
    (folder / "samples").symlink_to(tmp_path / "elsewhere")  # a link is cut, its target is not emptied
    for name in ("metrics.jsonl", "split.json", "evaluation.json", "events.out.tfevents.1.host", "notes.txt"):
        (folder / name).write_text("x")
    prepare(folder, change(seed=1), fresh=True)
    assert sorted(p.name for p in folder.iterdir()) == ["config.json", "env.json", "mine", "notes.txt"]
    assert (folder / "mine" / "file").exists() and (tmp_path / "elsewhere" / "kept.png").exists()
    assert workdir.read_config(folder)["seed"] == 1


@pytest.mark.parametrize(
    "name",
    [
        "reader/answers.csv",
        "report/notes.txt",
        "grids/best.png",
        "report/mine.html",
        "checkpoints/readme",
        "report/.git",
    ],
)
def test_fresh_refuses_to_delete_what_a_user_put_there(tmp_path, name):
    folder = trained(tmp_path / "run")
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text("x")
    with pytest.raises(PixmedError, match=rf"holds other files \({Path(name).name}\); move them"):
        prepare(folder, change(seed=1), fresh=True)
    assert (folder / name).exists() and (folder / "checkpoints" / "1").exists()
    assert workdir.read_config(folder) == CONFIG


@pytest.mark.parametrize(
    ("section", "told"),
    [
        ({"data": {"synthetic_dir": "RUN/samples"}}, r"data\.synthetic_dir: .*samples is among what --fresh"),
        ({"data": {"synthetic_dir": "ELSE,RUN/samples"}}, r"data\.synthetic_dir: .*samples is among"),
        ({"data": {"leave_out": "RUN/report/list.csv"}}, r"data\.leave_out: "),
        ({"model": {"network": {"weights": "RUN/export/net.safetensors"}}}, r"model\.network\.weights: "),
        ({"model": {"generator": {"weights": "RUN"}}}, r"model\.generator\.weights: "),
        ({"data": {"dir": "RUN", "masks": "samples"}}, r"data\.masks: "),
        ({"data": {"dir": "RUN", "masks": "masks"}}, ""),
        ({"model": {"generator": {"weights": "ELSE"}}}, ""),
    ],
)
def test_fresh_refuses_to_delete_what_the_new_run_reads(tmp_path, section, told):
    folder = trained(tmp_path / "run")
    for name in ("samples", "export", "report"):
        (folder / name).mkdir()
    text = json.dumps({"data": {}} | section)
    config = json.loads(text.replace("RUN", str(folder)).replace("ELSE", str(tmp_path / "other")))
    config = CONFIG | config | {"data": CONFIG["data"] | {"dir": ""} | config["data"]}
    if not told:
        prepare(folder, config, fresh=True)
        return
    with pytest.raises(PixmedError, match=told):
        prepare(folder, config, fresh=True)
    assert (folder / "samples").exists() and (folder / "checkpoints" / "1").exists()


def test_a_fresh_start_that_was_killed_can_be_started_again(tmp_path, monkeypatch):
    folder = trained(tmp_path / "run")
    for name in ("samples", "report"):
        (folder / name).mkdir()
    remove = workdir.shutil.rmtree

    def killed(path):
        if path.name == "report":
            raise Stopped(9)
        remove(path)

    monkeypatch.setattr(workdir.shutil, "rmtree", killed)
    with pytest.raises(Stopped):
        prepare(folder, fresh=True)
    monkeypatch.undo()
    assert workdir.read_config(folder) == CONFIG
    prepare(folder, fresh=True)
    assert sorted(p.name for p in folder.iterdir()) == ["config.json", "env.json"]


def test_the_folder_of_a_study_is_no_place_to_train_in(tmp_path):
    """And the other way round: each would write over the other's config."""
    study = {"name": "study", "data": {}, "systems": {}}
    (tmp_path / "config.json").write_text(json.dumps(study))
    for fresh in (False, True):
        with pytest.raises(PixmedError, match=r"its config\.json is of something else than a run"):
            prepare(tmp_path, fresh=fresh)
    assert workdir.texts.read_object(tmp_path / "config.json") == study
    run = trained(tmp_path / "run")
    writing.write_json(run / "config.json", {**CONFIG, "model": {}})
    for fresh in (False, True):
        with pytest.raises(PixmedError, match="is the folder of a run and of no study"):
            parts.prepare(run, study, "study", fresh=fresh, contents=("systems", "checkpoints"))
    assert (run / "checkpoints" / "1").exists() and workdir.read_config(run)["name"] == "x"


@pytest.mark.parametrize("made", ["samples", "utility"])
def test_a_folder_that_was_begun_and_used_takes_no_other_config(tmp_path, made):
    folder = prepare(tmp_path / "run")
    prepare(folder, change(seed=1))  # nothing was made of it
    (folder / made).mkdir()
    prepare(folder, change(seed=1))
    with pytest.raises(PixmedError, match=r"was begun with another config .*seed"):
        prepare(folder, change(seed=2))
    assert workdir.read_config(folder)["seed"] == 1


def test_fresh_waits_for_those_who_work_there(tmp_path):
    """A sampling, or a part of a utility experiment; a training asks for its own lock first and holds it."""
    folder = trained(tmp_path / "run")
    for place in (folder / "samples", folder / "utility" / "generators" / "0"):
        with writing.locked(place), pytest.raises(writing.InUseError, match="in use by process"):
            prepare(folder, fresh=True)
        assert (folder / "checkpoints" / "1").exists()
    with writing.locked(folder / "training"):
        prepare(folder, fresh=True)
    assert sorted(p.name for p in folder.iterdir()) == ["config.json", "env.json"]


@pytest.mark.parametrize("name", ["checkpoints", "metrics.jsonl", "samples"])
def test_results_without_a_config_are_not_touched(tmp_path, name):
    """Not by --fresh either: a folder of somebody's own may have a `samples` too."""
    (tmp_path / name).write_text("x")
    for fresh in (False, True):
        with pytest.raises(PixmedError, match=rf"holds {name} without the config\.json of a run; move"):
            prepare(tmp_path, fresh=fresh)
        assert (tmp_path / name).read_text() == "x" and not (tmp_path / "config.json").exists()


def test_a_run_that_lost_its_config_is_deleted_by_fresh_alone(tmp_path):
    folder = trained(tmp_path)
    (folder / "config.json").unlink()
    with pytest.raises(PixmedError, match=r"results of a run without their config\.json; .* or --fresh"):
        prepare(folder)
    prepare(folder, fresh=True)
    assert sorted(p.name for p in folder.iterdir()) == ["config.json", "env.json"]


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


def test_an_exported_model_is_no_run_and_no_place_to_train_in(tmp_path):
    (tmp_path / "config.json").write_text(
        json.dumps({"config": CONFIG, "files": {"generator.safetensors": ""}})
    )
    (tmp_path / "generator.safetensors").write_bytes(b"weights")
    (tmp_path / "classifier").mkdir()
    (tmp_path / "classifier" / "classifier.safetensors").write_bytes(b"weights")
    with pytest.raises(PixmedError, match="holds an exported model"):
        prepare(tmp_path / "classifier")
    with pytest.raises(PixmedError, match="is an exported model and no run"):
        workdir.read_config(tmp_path)
    for fresh in (False, True):
        with pytest.raises(PixmedError, match="holds an exported model, which a training would spoil"):
            prepare(tmp_path, fresh=fresh)
    assert (tmp_path / "generator.safetensors").read_bytes() == b"weights"


def test_the_machine_of_a_run_is_that_which_trained_it(tmp_path):
    folder = trained(tmp_path / "run")
    (folder / "env.json").write_text('{"devices": ["gpu:NVIDIA H100"], "step_bytes": 1}')
    prepare(folder)
    assert workdir.read_environment(folder) == {"devices": ["gpu:NVIDIA H100"], "step_bytes": 1}
    prepare(folder, fresh=True)
    assert "step_bytes" not in workdir.read_environment(folder)
