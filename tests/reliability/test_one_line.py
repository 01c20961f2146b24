"""Row 22: a bad path, a mistyped word or a missing extra is told in one line with its remedy."""

import sys

import numpy as np
import pytest
import runs
from test_launch import TEST, data, launch  # noqa: F401 (fixtures)
from volume_files import nifti

from pixmed_jax.data import volumes
from pixmed_jax.errors import PixmedError


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        ((TEST, "--config.train.stepps=3"), 2, "did you mean config.train.steps"),
        ((TEST, "--config.steps=3"), 2, "config.train.steps"),
        ((TEST, "--config.train.steps=many"), 2, "train.steps"),
        ((TEST, "--sample.nummber=3"), 2, "did you mean sample.number"),
        ((TEST, "--workdri=x"), 2, "workdri"),
        ((TEST, "--mode=paint"), 2, "train|sample|evaluate"),
        ((TEST, "train"), 2, "'train' is no flag"),
        (("--config=configs/goast.py",), 2, "configs/goast.py: no such file"),
        (("--config=configs/ghost.py:big",), 2, "no preset 'big', there are quick, paper, test"),
        (("--config=README.md",), 2, "README.md"),
        (("--config=configs",), 2, "configs"),
        ((), 2, "--config is missing"),
        (("--config.train.steps=9",), 2, "--config.train.steps: changes --config, which is missing; try"),
        (("--mode=sample", "--config.data.dir=x"), 2, "where its data are now from --data; leave it out"),
        (("--mode=export", "--workdir=x", "--data=y"), 2, "it is for --mode=sample, evaluate, audit"),
        (("--mode=demo", "--data=y"), 2, "give --workdir, its folder"),
        (("--mode=check_data",), 2, "needs --data"),
        (("--mode=sample",), 2, "needs --workdir"),
        (("--mode=evaluate",), 2, "needs --workdir"),
        (("--mode=sample", TEST, "--workdir=x"), 2, "a trained run has its own, in --workdir; leave it out"),
        (
            ("--mode=evaluate", TEST, "--workdir=x"),
            2,
            "a trained run has its own, in --workdir; leave it out",
        ),
        (("--mode=evaluate", "--workdir=x", "--fresh"), 2, "--fresh: --mode=evaluate has no use for it"),
        (("--mode=enhance", "--workdir=x"), 2, "--workdir: --mode=enhance has no use for it"),
        (("--mode=compare", "--workdirs=a,b"), 2, "needs --workdirs, evaluated runs, and --workdir"),
        ((TEST, "--sample.number=3"), 2, "--mode=train does not read it; it is of --mode=sample"),
        (("--mode=evaluate", "--nosample.balance"), 2, "--mode=evaluate does not read it"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_mistakes_are_told_in_one_line(tmp_path, words, code, told):
    for name in ("configs", "README.md"):
        (tmp_path / name).symlink_to(runs.ROOT / ("LICENSE" if name == "README.md" else name))
    before = sorted(tmp_path.iterdir())
    process = launch(*words, cwd=tmp_path)
    assert process.returncode == code, process.stderr
    assert process.stderr.startswith("launch.py: ") and process.stderr.count("\n") == 1, process.stderr
    assert told in process.stderr
    assert process.stdout == "" and sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((TEST, "--config.data.source=folder", "--config.data.dir=nowhere"), "nowhere: no such folder"),
        (
            (TEST, "--config.data.source=folder", "--config.data.dir="),
            "data.dir is empty; set it to",
        ),
        ((TEST, "--config.loss.bce=neither"), "loss.bce='neither'"),
        (("--mode=evaluate", "--workdir=nowhere"), "nowhere is no run's folder"),
    ],
    ids=["data", "no data", "choice", "workdir"],
)
def test_faults_that_show_later_are_told_in_one_line_too(tmp_path, data, words, told):
    if not any("data.dir" in word for word in words) and TEST in words:
        words = (*words, data)
    workdir = () if "--workdir=nowhere" in words else (f"--workdir={tmp_path / 'run'}",)
    process = launch(*words, *workdir)
    assert process.returncode == 1, process.stderr
    assert process.stderr.startswith("launch.py: ") and process.stderr.count("\n") == 1, process.stderr
    assert told in process.stderr
    assert list(tmp_path.iterdir()) == []  # a run that cannot start leaves no folder


def test_without_the_library_the_extra_is_named(tmp_path, monkeypatch):
    nifti(tmp_path / "a.nii", np.zeros((4, 4, 4), np.int16))
    monkeypatch.setitem(sys.modules, "nibabel", None)
    with pytest.raises(PixmedError, match=r'nibabel is not installed; pip install "pixmed-jax\[medical\]"'):
        volumes.open_array(tmp_path / "a.nii")
