"""A run's data may be moved, and a run with them; other data are no run's, under whatever names."""

import json
import shutil

import numpy as np
import pytest
import runs
from PIL import Image
from test_launch import launch
from test_loop import folder_of, use_toy

from pixmed_jax import config as configs
from pixmed_jax import same_data, writing
from pixmed_jax import workdir as run_folder
from pixmed_jax.errors import PixmedError
from pixmed_jax.evaluation import facts
from pixmed_jax.training import start
from pixmed_jax.training.loop import train
from pixmed_jax.training.start import begin


@pytest.fixture
def settings(tmp_path_factory, tmp_path, monkeypatch):
    """Of a run that was trained on `data`: the config with some keys changed."""
    use_toy(monkeypatch)
    monkeypatch.chdir(tmp_path)
    folder_of(tmp_path / "data", 20)

    def of(**changes):
        source = {"data__source": "folder", "data__dir": "data", "train__steps": 2}
        return runs.config(tmp_path_factory, **{**source, **changes})

    assert train(of(), tmp_path / "run") == 0
    return of


def test_a_run_whose_data_were_moved_is_gone_on_with(settings, tmp_path, capsys):
    (tmp_path / "data").rename(tmp_path / "elsewhere")
    moved = settings(data__dir=str(tmp_path / "elsewhere"), train__steps=4)
    assert train(moved, tmp_path / "run") == 0
    assert f"resumed with data.dir: 'data' -> '{tmp_path / 'elsewhere'}'" in capsys.readouterr().err
    assert run_folder.read_config(tmp_path / "run") == moved


def test_a_folder_that_was_only_begun_is_told_where_its_data_are(settings, tmp_path, capsys):
    begin(settings(), tmp_path / "begun")
    (tmp_path / "data").rename(tmp_path / "elsewhere")
    moved = settings(data__dir=str(tmp_path / "elsewhere"))
    begin(moved, tmp_path / "begun")
    assert run_folder.read_config(tmp_path / "begun") == moved
    assert "its data are in" in capsys.readouterr().err
    changed_pictures(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").rename(tmp_path / "other")
    with pytest.raises(PixmedError, match="8 of 8 slices looked at are others"):
        begin(settings(data__dir=str(tmp_path / "other")), tmp_path / "begun")
    assert run_folder.read_config(tmp_path / "begun") == moved


def test_a_folder_whose_begin_was_killed_is_begun_again(settings, tmp_path, monkeypatch):
    """Its config is written first, and without a record its slices would never be fit to train with."""

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(same_data, "note", killed)
    with pytest.raises(KeyboardInterrupt):
        begin(settings(), tmp_path / "begun")
    assert (tmp_path / "begun" / "config.json").exists()
    assert run_folder.read_split(tmp_path / "begun") is None
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    use_toy(monkeypatch)
    begin(settings(), tmp_path / "begun")
    assert run_folder.read_split(tmp_path / "begun") == run_folder.read_split(tmp_path / "run")


def test_what_was_made_of_a_begun_folder_binds_its_training(settings, tmp_path):
    begin(settings(), tmp_path / "begun")
    (tmp_path / "begun" / "samples").mkdir()
    assert train(settings(), tmp_path / "begun") == 0
    begin(settings(), tmp_path / "other")
    (tmp_path / "other" / "samples").mkdir()
    changed_pictures(tmp_path / "data")
    with pytest.raises(PixmedError, match="8 of 8 slices looked at are others"):
        train(settings(), tmp_path / "other")


def test_another_spelling_is_the_same_place(settings, tmp_path, capsys):
    (tmp_path / "link").symlink_to("data")
    for place in ("./data/", str(tmp_path / "data"), "link", "run/../data"):
        assert train(settings(data__dir=place), tmp_path / "run") == 0
        assert "data.dir" not in capsys.readouterr().err


def changed_pictures(root):
    """Another sequence of the same patients."""
    for path in (root / "images").iterdir():
        with Image.open(path) as image:
            pixels = np.asarray(image)
        Image.fromarray(255 - pixels).save(path)


def other_masks(root):
    """Mirrored: as large, elsewhere."""
    for path in (root / "masks").iterdir():
        with Image.open(path) as image:
            pixels = np.asarray(image)
        Image.fromarray(pixels[:, ::-1].copy()).save(path)


def one_patient_more(root):
    folder_of(root, 21)


@pytest.mark.parametrize(
    ("change", "told"),
    [(changed_pictures, "8 of 8 slices looked at are others under the same names"),
     (other_masks, "of 8 slices looked at have other masks"),
     (one_patient_more, "slices are new, gone or in another split")],
)  # fmt: skip
@pytest.mark.parametrize("how", ["resumed", "told"])
def test_other_data_are_refused_and_nothing_is_written(settings, tmp_path, change, told, how):
    change(shutil.copytree("data", tmp_path / "other"))
    before = runs.tree_bytes(tmp_path / "run")
    with pytest.raises(PixmedError, match=told):
        if how == "resumed":
            train(settings(data__dir="other", train__steps=4), tmp_path / "run")
        else:
            same_data.move(tmp_path / "run", "other")
    assert runs.tree_bytes(tmp_path / "run") == before


def test_without_a_record_nobody_knows(settings, tmp_path):
    (tmp_path / "data").rename("elsewhere")
    (tmp_path / "run" / "split.json").unlink()
    with pytest.raises(PixmedError, match=r"split\.json: missing or unreadable, so nobody knows"):
        train(settings(data__dir="elsewhere"), tmp_path / "run")
    with pytest.raises(PixmedError, match=r"split\.json: missing or unreadable, so nobody knows"):
        same_data.move(tmp_path / "run", "elsewhere")
    assert run_folder.read_config(tmp_path / "run") == settings()


def test_which_files_of_a_folder_are_meant_is_not_free(settings, tmp_path):
    shutil.copytree("data/images", "data/images2")
    with pytest.raises(PixmedError, match=r"another config \(data\.images: 'images' -> 'images2'\)"):
        train(settings(data__images="images2"), tmp_path / "run")
    place = str(tmp_path / "data" / "images")  # by its whole name
    assert train(settings(data__images=place), tmp_path / "run") == 0


def test_what_reads_the_data_says_how_to_tell_where_they_are(settings, tmp_path, capsys):
    workdir = tmp_path / "run"
    (tmp_path / "data").rename("elsewhere")
    for told in (r"^data: no such folder, and the data of .*run were there; .*--data=DIR$",
                 r"no folder images.*; or, if its data are elsewhere now, give --data=DIR$"):  # fmt: skip
        with pytest.raises(PixmedError, match=told):
            facts.open_data(workdir, run_folder.read_config(workdir), "test")
        (tmp_path / "data").mkdir(exist_ok=True)  # where nothing is mounted
    same_data.move(workdir, "elsewhere")
    assert "its data are in elsewhere from now on" in capsys.readouterr().err
    config = run_folder.read_config(workdir)
    assert config == settings(data__dir="elsewhere")
    assert len(facts.open_data(workdir, config, "test").of("test"))
    assert train(config, workdir) == 0


@pytest.mark.parametrize("how", ["replace", "add"])
def test_synthetic_slices_may_be_gone_beside_real_ones_or_in_their_place(settings, tmp_path, how):
    """They are on record as trained on and lie in a folder of their own; real ones are compared."""
    workdir = tmp_path / "run"
    config = settings()
    config["data"] |= {"synthetic_dir": "gone", "synthetic": how}
    record = json.loads((workdir / "split.json").read_text())
    real = record["train"] if how == "add" else {}
    writing.write_json(workdir / "config.json", config)
    writing.write_json(
        workdir / "split.json",
        {**record, "train": {**real, "synthetic/00000.png": ""}, "behind": record["train"]},
    )
    (tmp_path / "data").rename("elsewhere")
    same_data.move(workdir, "elsewhere")
    assert run_folder.read_config(workdir)["data"]["dir"] == "elsewhere"


def test_what_lay_in_the_folder_lies_there_still():
    data = {"dir": "/a/d", "images": "./images/", "masks": "/a/d/m", "meta": "/b/t.csv", "leave_out": ""}
    data |= {"synthetic_dir": "/a/d/s,t,/b/u"}
    assert configs.moved({"data": data, "seed": 1}, "/c/e") == {
        "data": {**data, "dir": "/c/e", "masks": "/c/e/m", "synthetic_dir": "/c/e/s,t,/b/u"},
        "seed": 1,
    }


@pytest.mark.parametrize(
    ("key", "old", "new", "place"),
    [
        ("data.dir", "a", "b", True),
        ("data.dir", "", "b", True),  # TFDS
        ("config.data.dir", "a", "b", True),  # in a utility experiment
        ("data.synthetic_dir", "a", "b", True),
        ("data.synthetic_dir", "", "b", False),  # with them or without
        ("data.leave_out", "a", "", False),
        ("data.leave_out", None, "", False),  # a run of before there was the key
        ("data.masks", "a", "b", False),
        ("data.masks", "/x/a", "/y/a", True),
        ("model.generator.weights", "a", "b", False),  # never read again, so nothing compares them
        ("data.size", 64, 32, False),
    ],
)
def test_what_is_a_place(key, old, new, place):
    assert configs.is_place(key, old, new) is place


def test_a_config_is_called_the_same_wherever_its_data_lie():
    a, b, c = ({"data": {"dir": of, "images": images}} for of, images in (("a", "i"), ("b", "i"), ("a", "k")))
    assert configs.digest(a) == configs.digest(b) != configs.digest(c)


@pytest.fixture
def opened(tmp_path_factory, tmp_path):
    """(config, dataset) of a folder, with nothing trained on it."""
    folder_of(tmp_path / "data", 20)
    config = runs.config(tmp_path_factory, data__source="folder", data__dir=str(tmp_path / "data"))
    return config, start.open_data(config)


def test_what_was_left_out_is_on_record(opened, tmp_path):
    config, dataset = opened
    for name, told in (("whole", ()), ("part", ("a.png: no mask",))):
        (tmp_path / name).mkdir()
        start.make_folder(config, tmp_path / name, dataset._replace(left_out=told), fresh=False)
        assert tuple(run_folder.read_environment(tmp_path / name).get("left_out", ())) == told


def test_a_layout_has_one_class_of_tumour(opened, monkeypatch):
    config, dataset = opened
    several = dataset._replace(source=dataset.source._replace(several=True))
    monkeypatch.setattr(start, "open_dataset", lambda **_: several)
    monkeypatch.setattr(start.build, "makes_layouts", lambda config: True)
    for told in (False, True):
        config["data"]["class_channels"] = told
        if told:
            with pytest.raises(PixmedError, match=r"data\.class_channels=true: .*and a layout has one"):
                start.open_data(config)
        else:
            assert start.open_data(config) is several


@pytest.mark.parametrize(
    ("source", "folder", "about", "data", "on"),
    [
        ("folder", "/a/cells", {}, "folder cells", "cells"),
        ("folder", "", {}, "folder", "folder"),
        ("classes", "/a/cells", {}, "folder cells", "classes"),
        ("phantom", "/a/tfds", {}, facts.KNOWN["phantom"][0], "drawn phantoms"),
        ("folder", "/a/cells", {"data": "cells of mice"}, "cells of mice", "cells"),
    ],
)
def test_what_a_page_calls_its_data(source, folder, about, data, on):
    config = {"name": "ghost", "preset": "test", "data": {"source": source, "dir": folder}, "about": about}
    assert facts.described(config) == {
        **{"title": f"ghost (test) on {on}", "data": data, "phantoms": source == "phantom"}
    }


@pytest.mark.slow
def test_from_the_command_line(tmp_path, tmp_path_factory):
    workdir, data = runs.copied(tmp_path_factory, tmp_path / "run"), folder_of(tmp_path / "data", 20)
    changes = {"data__source": "folder", "data__dir": str(data), "train__steps": 2}
    assert train(runs.config(tmp_path_factory, **changes), workdir, fresh=True) == 0
    data.rename(tmp_path / "new")
    words = (f"--workdir={workdir}", "--mode=sample", "--sample.number=2")
    process = launch(*words)
    assert process.returncode == 1 and process.stderr.endswith("say where they are: --data=DIR\n")
    process = launch(*words, f"--config.data.dir={tmp_path / 'new'}")
    assert process.returncode == 2 and "where its data are now from --data" in process.stderr
    process = launch(*words, f"--data={tmp_path / 'new'}")
    assert process.returncode == 0, process.stderr
    process = launch(*words)  # it is remembered
    assert process.returncode == 0, process.stderr
