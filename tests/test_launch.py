"""The command line: mistakes are told in one line with the remedy, and nothing is started or left behind."""

import os
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import jax
import pytest
import runs
from PIL import Image

from pixmed_jax import command_line, inference
from pixmed_jax import config as configs
from pixmed_jax.training.build import make_task

TEST = "--config=configs/ghost.py:test"


def launch(*words: str, python: tuple[str, ...] = (), cwd: Path = runs.ROOT) -> subprocess.CompletedProcess:
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONWARNINGS": ""}
    command = [sys.executable, *python, str(runs.ROOT / "launch.py"), *words]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=120)


@pytest.fixture
def data(tmp_path_factory) -> str:
    runs.trained(tmp_path_factory)  # makes the data
    return f"--config.data.dir={runs.shared(tmp_path_factory) / 'data'}"


def imported(process: subprocess.CompletedProcess) -> set[str]:
    """Top-level packages in the report of `python -X importtime`."""
    lines = [line for line in process.stderr.splitlines() if line.startswith("import time:")]
    return {line.rsplit("|", 1)[1].strip().split(".")[0] for line in lines}


def test_help_needs_no_jax():
    process = launch("--help", python=("-X", "importtime"))
    assert process.returncode == 0
    packages = imported(process)
    assert {"absl", "ml_collections", "pixmed_jax"} <= packages  # or the report was misread
    assert not packages & {"jax", "jaxlib", "flax", "tensorflow_datasets", "matplotlib"}
    for word in ("--config", "--workdir", "--mode", "--fresh", "--dry_run", "--mode=sample --help"):
        assert word in process.stdout


def test_help_into_a_pipe_that_is_closed():
    """As by `| head`: no traceback."""
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, str(runs.ROOT / "launch.py"), "--help"]
    process = subprocess.run(command, cwd=runs.ROOT, stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert process.stderr == ""


def test_proposed_commands_begin_with_the_file_that_was_started(monkeypatch, tmp_path):
    """launch.py knows nothing of a network that another file brings along."""
    monkeypatch.setattr(command_line, "_started", command_line.HERE / "launch.py")
    assert command_line.program() == "python launch.py"
    command_line.started_by(str(tmp_path / "my network.py"))
    assert command_line.program() == f"python '{tmp_path}/my network.py'"
    monkeypatch.chdir(runs.ROOT)
    command_line.started_by("./launch.py")
    assert command_line.program() == "python launch.py"


def test_a_flag_and_its_value_may_be_two_words():
    process = launch("--config", "configs/ghost.py:test", "--config.train.stepps=3")
    assert process.returncode == 2 and "did you mean config.train.steps" in process.stderr
    process = launch("--config", "configs/ghost.py:test", "--config.seed=3", "--mode=sample")
    assert "needs --workdir" in process.stderr  # so the override itself was understood


def test_files_are_those_of_the_current_folder(tmp_path):
    """And who means one beside launch.py is told its name."""
    for given, meant in (("ghost", "ghost"), ("pixpix", "pix2pix"), ("x", "ghost")):
        process = launch(f"--config=configs/{given}.py:test", "--dry_run", cwd=tmp_path)
        assert process.returncode == 2
        assert process.stderr == (
            f"launch.py: --config=configs/{given}.py: no such file in {tmp_path}, the folder that the "
            f"command is given in; try --config={runs.ROOT / 'configs' / meant}.py\n"
        )


def test_options_of_other_words_are_mistakes_in_the_command_line(tmp_path, tmp_path_factory):
    run = runs.trained(tmp_path_factory)
    before = sorted(run.iterdir())
    for word, told in (("edit=mxied", "did you mean mixed?"), ("split=tran", "did you mean train?")):
        process = launch(f"--workdir={run}", "--mode=sample", f"--sample.{word}")
        assert process.returncode == 2 and told in process.stderr and process.stderr.count("\n") == 1
    assert sorted(run.iterdir()) == before


@pytest.mark.slow
def test_a_run_without_its_config_is_told_how_it_goes_on(tmp_path, tmp_path_factory):
    """By a command that does."""
    run = runs.copied(tmp_path_factory, tmp_path / "a run")
    for extra in ((), ("--config.train.steps=9",)):
        process = launch(f"--workdir={run}", *extra)
        assert process.returncode == 2 and process.stderr.count("\n") == 1
    words = shlex.split(process.stderr.split("to go on with this run: ")[1])
    assert words[:3] == ["python", "launch.py", "--config=configs/ghost.py:test"]
    assert not any(word.startswith("--config.train") for word in words)  # the others are those of the preset
    process = launch(*words[2:])
    assert process.returncode == 0, process.stderr
    assert "already trained to step 6 of 6" in process.stdout and "resumed with" not in process.stderr


def test_pixels_are_copied_of_a_folder_that_nothing_was_trained_in(tmp_path, data):
    config = "--config=configs/segmenter.py:test"
    words = (
        data,
        f"--workdir={tmp_path / 'run'}",
        "--mode=sample",
        "--sample.edit=move",
        "--sample.number=2",
    )
    process = launch(config, *words)
    assert process.returncode == 2 and "unless pixels are copied" in process.stderr
    assert not (tmp_path / "run").exists()
    words = (*words, "--sample.painter=copy_paste", "--sample.split=train")
    for _ in range(2):  # the same command once more does the same
        process = launch(config, *words)
        assert process.returncode == 0, process.stderr
        assert "to train with, not to share" in process.stdout
    found = {path.name for path in (tmp_path / "run").iterdir()}
    assert found == {"config.json", "env.json", "split.json", "samples"}
    assert len(list((tmp_path / "run" / "samples" / "images").iterdir())) == 2
    process = launch(config, "--config.data.size=48", *words)
    assert process.returncode == 1
    assert "was begun with another config (data.size); give another --workdir" in process.stderr
    process = launch(config, *words[:2], "--mode=utility", "--utility.shares=0")
    assert process.returncode == 2 and "utility.shares=(0,)" in process.stderr
    process = launch("--config=configs/study.py", *words[1:2], "--mode=utility")
    assert process.returncode == 2 and "this config is of a study of many" in process.stderr


def test_dry_run_trains_nothing(tmp_path, data):
    workdir = tmp_path / "run"
    process = launch(TEST, data, f"--workdir={workdir}", "--dry_run", "--config.train.steps=9")
    assert process.returncode == 0, process.stderr
    assert not workdir.exists()
    lines = process.stdout.splitlines()
    assert "train.steps = 9" in lines
    config = configs.plain(runpy.run_path(str(runs.ROOT / "configs" / "ghost.py"))["get_config"]("test"))
    batch = inference.example_batch(config, 4)
    state = jax.eval_shape(make_task(config).init, jax.random.PRNGKey(0), batch)
    for name in ("generator", "discriminator"):
        number = sum(x.size for x in jax.tree.leaves(getattr(state, name)["params"]))
        assert any(line.split()[:2] == [name, f"{number:,}"] for line in lines), name
    assert any(line.startswith("9 steps of 4 images") for line in lines)


@pytest.mark.slow
def test_a_run_goes_through_all_modes(tmp_path, tmp_path_factory):
    """Sampling and evaluation from the command line, from the run's folder alone."""
    workdir = runs.copied(tmp_path_factory, tmp_path / "run")
    process = launch(f"--workdir={workdir}", "--mode=sample", "--sample.number=2", "--sample.split=val")
    assert process.returncode == 0, process.stderr
    assert len((workdir / "samples" / "manifest.csv").read_text().splitlines()) == 3
    process = launch(f"--workdir={workdir}", "--mode=evaluate", "--evaluate.split=val")
    assert process.returncode == 0, process.stderr
    assert process.stdout.startswith("evaluating on the val split ...\nSSIM on ")
    assert '"split": "val"' in (workdir / "evaluation.json").read_text()
    assert (workdir / "report" / "index.html").exists()
    process = launch(f"--workdir={workdir}", "--mode=export", "--export.dtype=float16", "--export.step=4")
    assert process.returncode == 0, process.stderr
    assert inference.load(workdir / "export").step == 4


@pytest.mark.slow
def test_where_nobody_tests_the_evaluation_is_left_out(tmp_path, data):
    """In one line, and what may be done next is something that works."""
    workdir = tmp_path / "run"
    process = launch(TEST, data, f"--workdir={workdir}", "--config.data.split.fractions=(0.7,0.3,0.0)")
    assert process.returncode == 0, process.stderr
    *_, told, following = process.stdout.splitlines()
    assert told == "not evaluated: test is empty; --mode=evaluate takes --evaluate.split=val"
    assert following == (
        f"next: python launch.py --workdir={workdir} --mode=sample --sample.number=500 "
        "--sample.split=train --sample.edit=mixed --sample.balance"
    )
    assert not (workdir / "evaluation.json").exists()
    process = launch(f"--workdir={workdir}", "--mode=evaluate")
    assert process.returncode == 1 and process.stderr.splitlines()[-1] == (
        f"launch.py: {workdir}: has no slices in its test split; give another as split, such as val"
    )


def test_a_folder_is_enhanced_and_a_bad_file_told(tmp_path):
    (tmp_path / "in").mkdir()
    Image.new("L", (20, 20), 40).save(tmp_path / "in" / "a.png")
    (tmp_path / "in" / "b.png").write_bytes(b"no picture")
    words = ("--mode=enhance", f"--input={tmp_path / 'in'}", f"--output={tmp_path / 'out'}")
    process = launch(*words, "--enhance.method=gamma", "--enhance.gamma=0.5")
    assert process.returncode == 1 and "1 of 2 files could not be used" in process.stderr
    assert len(process.stderr.splitlines()) == 2 and "1 of 2 files; see" in process.stdout
    with Image.open(tmp_path / "out" / "a.png") as image:
        assert image.getpixel((3, 3)) == round(255 * (40 / 255) ** 0.5)
    process = launch(*words, "--enhance.method=gamma", "--enhance.gamma=1")
    assert process.returncode == 1 and process.stderr.count("\n") == 1
    assert "made with --enhance.gamma=0.5; give another --output, or --fresh to replace" in process.stderr
    process = launch(*words, "--enhance.method=gamma", "--enhance.gamma=1", "--fresh")
    assert "1 of 2 files; see" in process.stdout
    with Image.open(tmp_path / "out" / "a.png") as image:
        assert image.getpixel((3, 3)) == 40
    process = launch(*words[:2], "--output=/proc/x")
    assert process.returncode == 1 and process.stderr.endswith("give another --output\n")
    process = launch(*words, "--enhance.metod=gamma")
    assert process.returncode == 2 and "did you mean enhance.method" in process.stderr
    process = launch(*words[:2])
    assert process.returncode == 2 and "needs --input, a folder, and --output" in process.stderr
    process = launch(f"--input={tmp_path}", "--mode=evaluate")
    assert process.returncode == 2 and "it is for --mode=enhance, upscale" in process.stderr


def test_a_warning_is_told_once_and_another_one_too():
    """The data are opened by the command and by its parts, each time with the same words."""
    line = runpy.run_path(str(runs.ROOT / "launch.py"), run_name="launch")["_once"]()
    told = [line(UserWarning(text), UserWarning, "file", 1) for text in ("a", "a", "b", "a")]
    assert told == ["warning: a\n", "", "warning: b\n", ""]
