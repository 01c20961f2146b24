"""README and docs/: commands parse, keys, files and links exist, Python runs, quoted errors are raised."""

import ast
import importlib.util
import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import runs
import tensorflow_datasets as tfds
from PIL import Image

import launch
from pixmed_jax import config as configs
from pixmed_jax.data import folder as folders
from pixmed_jax.data.phantom import LABEL_NAMES, patient_slices
from pixmed_jax.inference import example_batch
from pixmed_jax.sampling import sample
from pixmed_jax.training.build import networks
from pixmed_jax.training.task import streams

ROOT = runs.ROOT
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
ENDINGS = (".md", ".json", ".csv", ".py")  # of files whose names begin like a key
FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
OF_LAUNCH = {"config", "workdir", "mode", "data", "against", "workdirs", "fresh", "distributed", "dry_run"}
OF_LAUNCH |= {"input", "output", "help"}
OF_OTHERS = {
    "no-deps",
    "dest",
    "strict",
    "rounds",
    "minutes",
    "seed",
    "keep",
    "steps",
}  # of pip and others
PARSER = """
import json, os, sys
import launch
from pixmed_jax import command_line
for page, words in json.load(sys.stdin):
    child = os.fork()
    if child == 0:
        words = [word for word in words if word != "--help"]  # which is answered before flags are parsed
        sys.argv = ["launch.py", *words]  # where ml_collections looks for overrides
        try:
            command_line.check_names(words, launch.STAGES)
            launch._define_flags()
            assert launch.FLAGS(sys.argv) == ["launch.py"]
            launch._check_read()
        except BaseException as error:
            print(f"{page}: {' '.join(words)}: {error}", flush=True)
        os._exit(0)
    os.waitpid(child, 0)
"""


def blocks(page: Path, *languages: str) -> list[str]:
    """The text of fenced blocks of these languages, "" for those that name none."""
    found = FENCE.findall(page.read_text(encoding="utf-8"))
    return [text for language, text in found if language.partition(" ")[0] in languages]


def spans(page: Path) -> list[str]:
    """Inline code outside of fenced blocks."""
    return re.findall(r"(?<!`)`([^`\n]+)`(?!`)", FENCE.sub("", page.read_text(encoding="utf-8")))


def commands(page: Path) -> Iterator[list[str]]:
    """The words of every shell command, in fenced blocks or inline, without comments and brackets."""
    lines = [line for text in blocks(page, "", "bash", "sh") for line in text.splitlines()]
    for line in [*lines, *spans(page)]:
        for part in re.sub(r"\[(--[^\]]+)\]", r"\1", line).split("&&"):
            if re.match(r"\s*(\w+=\S+ )*(python|srun|pip|pytest|zensical)\b", part):
                yield shlex.split(part.replace("CLONE", str(ROOT)), comments=True)


def docstrings() -> Iterator[tuple[str, str]]:
    """(file, docstring) of launch.py and of the configs, whose commands have words behind them."""
    for path in (ROOT / "launch.py", *sorted((ROOT / "configs").glob("*.py"))):
        yield path.name, ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")), clean=False) or ""


def of_launch(words: list[str]) -> list[str] | None:
    """The words behind launch.py, or behind a file that passes its own on to it."""
    for name in ("launch.py", "my_network.py", "my_data.py"):
        if name in words:
            return words[words.index(name) + 1 :]
    return None


def known_keys() -> set[str]:
    """Dotted keys of all configs and their sections."""
    keys = set()
    for path in (ROOT / "configs").glob("*.py"):
        keys |= set(configs.flatten(configs.plain(runpy.run_path(str(path))["get_config"]())))
    return {".".join(key.split(".")[:n]) for key in keys for n in range(1, key.count(".") + 2)}


@pytest.fixture(scope="module")
def keys():
    return known_keys()


def test_the_index_counts_the_faults_of_its_page():
    page = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    rows = [int(number) for number in re.findall(r"^\| (\d+) \|", page, re.MULTILINE)]
    assert rows == list(range(1, len(rows) + 1))
    told = re.search(r"\(reliability\.md\) \| (\d+) faults", (ROOT / "docs" / "index.md").read_text("utf-8"))
    assert told and int(told[1]) == len(rows)


def test_every_launch_command_parses_as_written():
    found = []
    for page in PAGES:
        for words in commands(page):
            behind = of_launch(words)
            if behind is not None and not any(word.startswith("--config=my_") for word in behind):
                found.append((page.name, behind))
    assert len(found) > 25
    for name, told in docstrings():
        for line in re.findall(r"^ +python launch\.py (--.*)$", told.replace("\\\n", ""), re.MULTILINE):
            found.append((name, [*takewhile(lambda word: word.startswith("--"), shlex.split(line))]))
    process = subprocess.run(
        [sys.executable, "-c", PARSER], input=json.dumps(found), cwd=ROOT, capture_output=True, text=True,
        timeout=120, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    assert process.stdout == ""


def test_a_mistyped_command_would_be_found():
    wrong = [["--config=configs/ghost.py:tset"], ["--config=configs/ghost.py", "--config.train.stepps=3"],
             ["--workdir=W", "--mode=smaple"], ["--sample.nmuber=3"], ["--evaluate.seed=x"]]  # fmt: skip
    process = subprocess.run(
        [sys.executable, "-c", PARSER], input=json.dumps([("page", words) for words in wrong]), cwd=ROOT,
        capture_output=True, text=True, timeout=120, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert len(process.stdout.splitlines()) == len(wrong), process.stdout


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_keys_flags_and_files_exist(page, keys):
    """In inline code: --flags, dotted keys of a config, and paths of the project."""
    flags = {*OF_LAUNCH, *(f"{stage}.{key}" for stage, options in launch.STAGES.items() for key in options)}
    flags |= {f"config.{key}" for key in keys} | set(launch.STAGES)
    sections = {key.partition(".")[0] for key in keys} - {"name", "preset", "seed", "run"}
    wrong = []
    for span in spans(page):
        for flag in re.findall(r"(?<![\w-])--([\w.-]+)", span):
            name = re.sub(r"\.NAME.*|\.KEY.*", "", flag).removeprefix("no")
            if not {flag, name} & (flags | OF_OTHERS):
                wrong.append(f"--{flag}")
        key = re.fullmatch(r"([a-z_]+(?:\.[a-zA-Z_]+)+)(=.*)?", span)
        of_config = key and key[1].partition(".")[0] in sections and not key[1].endswith(ENDINGS)
        if key and of_config and re.sub(r"\.NAME\b.*", "", key[1]) not in keys:
            wrong.append(span)
        path = re.match(r"((?:configs|docs|tests|benchmarks|examples|notebooks|pixmed_jax)/[\w./-]+)", span)
        if path and not (ROOT / path[1].partition("::")[0]).exists():
            wrong.append(span)
    assert not wrong


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_relative_links_lead_somewhere(page):
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    targets = [t.partition("#")[0] for t in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in t]
    assert not [target for target in targets if target and not (page.parent / target).exists()]


def test_quoted_errors_are_raised_by_the_code():
    """A quoted line's … stands for anything; it has to fit a message of the source."""
    messages = [text for _, text in runpy.run_path(str(ROOT / "docs" / "messages.py"))["messages"]()]
    assert len(messages) > 200
    lines = re.findall(
        r"^\| `([^`]+)` \|", (ROOT / "docs" / "errors.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert len(lines) > 15
    for line in lines:
        pattern = re.compile(".*".join(map(re.escape, line.split("…"))))
        assert any(pattern.fullmatch(message) for message in messages), line


# ---------------------------------------------------------------- Python
EXECUTED = {"README.md", "your-data.md", "pairs.md", "devices.md"}
ELSEWHERE = {
    "extending.md": "test_docs_extending.py runs its files",
    "export.md": "test_export.py runs it on an exported folder",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    output = tmp_path_factory.mktemp("documented") / "samples"
    return sample(runs.trained(tmp_path_factory), output=str(output), number=4, edit="mixed", split="train")


@pytest.mark.parametrize(
    "page", [page for page in PAGES if blocks(page, "python")], ids=lambda page: page.name
)
def test_python_runs_as_written(page, folder, tmp_path, tmp_path_factory, monkeypatch):
    monkeypatch.setattr(tfds, "data_source", partial(tfds.data_source, data_dir=tmp_path))  # not in the home
    monkeypatch.chdir(tmp_path)
    run = Path("runs/mine")
    if "runs/" in "".join(blocks(page, "python")):
        (tmp_path / "runs").mkdir()
        runs.copied(tmp_path_factory, run)
        shutil.copytree(folder, run / "samples")
    if page.name == "pairs.md":  # what its commands leave: heads without a tumour
        sample(run, output="runs/heads", number=3, split="train", edit="remove")
        slices_of_phantoms(tmp_path / "data")
        (tmp_path / "data" / "masks").rename("MASKS")
    medical = bool(importlib.util.find_spec("nibabel"))
    if page.name == "your-data.md" and medical:
        from volume_files import nifti

        for name in ("p1_visit1", "p1_visit2", "p2"):
            for part, value in (("t1ce", 9), ("flair", 5), ("seg", 4)):
                path = tmp_path / "BRATS" / name / f"{name}_{part}.nii.gz"
                path.parent.mkdir(parents=True, exist_ok=True)
                volume = np.zeros((12, 10, 4), np.uint8)
                volume[3:6, 3:7, 1:3] = value
                volume[3, 3, 1:3] = 1
                nifti(path, volume, np.eye(4))
    for text in blocks(page, "python"):
        code = compile(text, page.name, "exec")
        if page.name in ELSEWHERE:
            continue
        assert page.name in EXECUTED, f"{page.name}: say in this test where its Python is executed"
        names: dict[str, Any] = {}
        exec(code, names)
        if page.name == "README.md":
            assert names["images"].shape == (4, 32, 32, 1) and names["label_maps"].max() == 4
        if page.name == "pairs.md":
            painted = sample(run, output="runs/painted", masks="runs/maps")
            heads, masks = (sorted(Path(of).glob("*.png")) for of in ("runs/heads/conditions", "MASKS"))
            for head, mask, row in zip(heads, masks, runs.rows(painted), strict=False):
                inside = (runs.pixels(mask) > 0) & (runs.pixels(head) > 0)
                assert row["source"] == mask.name and row["grade"] == ""
                np.testing.assert_array_equal(runs.pixels(painted / "masks" / row["mask"]) > 0, inside)
                assert inside.any()
        if "brats" in names and medical:
            found = folders.source("DIR", label_column="")
            assert found.files == tuple(
                f"{n}.nii.gz#00{k}" for n in ("p1_visit1", "p1_visit2", "p2") for k in (1, 2)
            )
            assert found.read(0)[0].max() > 0 and found.label_names == ("class 1", "class 4")
        if "loaders" in names and importlib.util.find_spec("torch"):
            for_pytorch, for_keras, for_tfds = names["loaders"](folder)
            assert next(iter(for_pytorch))["image"].shape == (4, 1, 32, 32)
            assert for_keras["mask"].shape == (4, 32, 32) and len(for_tfds) == 4


@pytest.mark.slow
@pytest.mark.parametrize("of", ["ghost", "segmenter"])
def test_the_pmapped_step_of_devices_is_a_step(of, tmp_path_factory):
    """On all devices that there are, which come to the same finite state."""
    names: dict[str, Any] = {}
    for block in blocks(ROOT / "docs" / "devices.md", "python"):
        exec(block, names)
    config = runs.config(tmp_path_factory) if of == "ghost" else runs.preset(tmp_path_factory, of)
    task, step = names["pmapped"](config, 3)
    state, metrics = jax.device_get(step(*names["begun"](task, config, 3)))
    assert state.step.tolist() == [1] * jax.local_device_count() and not state.skipped.any()
    for leaf in jax.tree.leaves((state, metrics)):
        assert np.isfinite(leaf).all() and (leaf == leaf[:1]).all()


def test_the_derivative_along_a_direction_is_that_of_all_slopes(tmp_path_factory):
    """Of the mean square of what fresh weights paint, in training, where norms are by the batch."""
    names: dict[str, Any] = {}
    exec(blocks(ROOT / "docs" / "devices.md", "python")[0], names)
    config = runs.config(tmp_path_factory)
    generator, _ = networks(config)
    condition = example_batch(config, 3, 2).condition
    first, second = jax.random.normal(jax.random.key(1), (2, *condition.shape))
    rngs = streams(jax.random.key(0))
    variables = jax.jit(partial(generator.init, train=True))({"params": rngs["noise"], **rngs}, first)

    def painted(condition: jax.Array) -> jax.Array:
        image, _ = generator.apply(variables, condition, train=True, rngs=rngs, mutable=["batch_stats"])
        return jnp.square(image).mean(axis=(1, 2, 3))

    _, slope = jax.jit(partial(names["along"], painted))(first, second)
    expected = jnp.tensordot(jax.jit(jax.jacrev(painted))(first), second, second.ndim)
    np.testing.assert_allclose(slope, expected, rtol=1e-3)
    with pytest.raises(TypeError, match="forward-mode"):  # or the page is out of date
        jax.jvp(painted, (first,), (second,))


# ---------------------------------------------------------------- commands that are quick are run
def slices_of_phantoms(root: Path) -> Path:
    """A folder as the page describes it: 24 slices of 12 patients."""
    (root / "images").mkdir(parents=True)
    (root / "masks").mkdir()
    rows = ["file,label,patient_group"]
    for patient in range(12):
        for i, drawn in enumerate(patient_slices(patient, seed=0, size=32, count=2)):
            name = f"case{patient}-{i}.png"
            Image.fromarray(drawn.image).save(root / "images" / name)
            Image.fromarray(drawn.mask * np.uint8(255)).save(root / "masks" / name)
            rows.append(f"{name},{LABEL_NAMES[drawn.label]},{patient}")
    (root / "meta.csv").write_text("\n".join(rows) + "\n")
    return root


@pytest.mark.slow
def test_the_commands_of_your_data_run_one_after_the_other(tmp_path, tmp_path_factory):
    """As docs/your-data.md has them, on few small slices, with test presets and fewer samples."""
    data = slices_of_phantoms(tmp_path / "mine")
    moved = shutil.copytree(data, tmp_path / "moved")
    cache = str(runs.cache(tmp_path_factory))
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "JAX_COMPILATION_CACHE_DIR": cache,
        "PYTHONWARNINGS": "",
    }
    done = 0
    for text in blocks(ROOT / "docs" / "your-data.md", ""):
        for line in text.splitlines():
            if not line.startswith("python launch.py"):
                continue
            for old, new in {
                ".py --config.data": ".py:test --config.data", "data.size=128": "data.size=32",
                "number=500": "number=6", "=DIR": f"={data}", "=NEW": f"={moved}",
                "runs/": f"{tmp_path}/runs/",
            }.items():  # fmt: skip
                line = line.replace(old, new)
            words = shlex.split(line)[1:]
            process = subprocess.run(
                [sys.executable, *words],
                cwd=ROOT,
                env=environment,
                capture_output=True,
                text=True,
                timeout=300,
            )
            assert process.returncode == 0, f"{line}\n{process.stderr}"
            done += 1
    assert done == 8
    assert (tmp_path / "runs" / "mine" / "samples" / "data_sheet.md").exists()
    assert "CC BY 4.0" in (tmp_path / "runs" / "mine" / "model_card.md").read_text(encoding="utf-8")


# ---------------------------------------------------------------- the site
def test_every_page_is_in_the_sites_menu_and_on_its_first_page():
    pages = {page.name for page in PAGES[1:]}
    assert set(re.findall(r"^  - .*?([\w-]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)) == pages
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    assert set(re.findall(r"\]\(([\w-]+\.md)\)", index)) == pages - {"index.md"}


def test_the_site_is_built_without_warnings(tmp_path):
    if importlib.util.find_spec("zensical") is None:
        pytest.skip('pip install -e ".[docs]" to build the documentation site')
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    (tmp_path / "pixmed_jax").symlink_to(ROOT / "pixmed_jax")
    command = [sys.executable, "-m", "zensical", "build", "--strict"]
    process = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert process.returncode == 0, process.stdout + process.stderr
    reference = (tmp_path / "site" / "reference.html").read_text(encoding="utf-8")
    for name in ("pixmed_jax.inference.Generator", "pixmed_jax.losses", "pixmed_jax.training.task.Task"):
        assert f'id="{name}' in reference, name
    assert {page.stem for page in PAGES[1:]} <= {page.stem for page in (tmp_path / "site").glob("*.html")}


def of_reference() -> list[tuple[str, Path]]:
    """(dotted name, its module's file) of everything that docs/reference.md shows."""
    found = []
    for name in re.findall(r"^::: (\S+)$", (ROOT / "docs" / "reference.md").read_text(), re.MULTILINE):
        path = ROOT / Path(*name.split("."))
        while not path.with_suffix(".py").exists():
            path = path.parent
            assert path != ROOT, f"{name}: no such module"
        found.append((name, path.with_suffix(".py")))
    return found


@pytest.mark.parametrize(("name", "path"), of_reference())
def test_what_the_reference_shows_is_described(name, path):
    """Every public class, function and method has a docstring; a network's __call__ has that of its class."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    only = name.removeprefix(module).removeprefix(".")
    silent, seen = [], False
    for node in tree.body:
        if not isinstance(node, ast.ClassDef | ast.FunctionDef) or node.name.startswith("_"):
            continue
        if only and node.name != only:
            continue
        seen = True
        inside = node.body if isinstance(node, ast.ClassDef) else []
        methods = [m for m in inside if isinstance(m, ast.FunctionDef) and m.name[0] != "_"]
        others = [m for m in methods if m.name != "setup"]  # which is Flax's
        silent += [of.name for of in (node, *others) if not ast.get_docstring(of)]
    assert seen and not silent


@pytest.mark.parametrize("name", ["with_nnunet.py", "with_tfds.py"])
def test_an_example_without_its_folder_says_how_it_is_called(name):
    command = [sys.executable, str(ROOT / "examples" / name)]
    process = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert process.returncode == 1 and process.stderr.count("\n") == 1
    assert f"python examples/{name} FOLDER" in process.stderr
