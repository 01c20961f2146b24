"""The training loop: what a run leaves, that it resumes exactly, and what it does when numbers go bad."""

import contextlib
import io
import json
import math
import os
import re
import signal
import types
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import runs
from PIL import Image
from skimage.metrics import structural_similarity

from pixmed_jax import inference, losses
from pixmed_jax.data import classes, phantom
from pixmed_jax.data.pipeline import Arrays, Batch
from pixmed_jax.data.sources import Dataset, open_dataset
from pixmed_jax.errors import PixmedError
from pixmed_jax.evaluation import facts
from pixmed_jax.training import checkpoint, heldout, loop
from pixmed_jax.training.dry_run import dry_run
from pixmed_jax.training.loop import train
from pixmed_jax.training.start import notices, total_steps
from pixmed_jax.training.task import Task, jit_init, skip_if_not_finite


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return runs.trained(tmp_path_factory)


def records(workdir: Path) -> list[dict]:
    """metrics.jsonl without the one value that differs from run to run."""
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "images_per_second"} for line in lines]


def saved_steps(workdir: Path) -> list[int]:
    return [saved.step for saved in checkpoint.finished(workdir / "checkpoints")]


def test_parameters_are_to_the_bit_those_that_plain_jit_draws():
    """At the optimisation that a training has, not at the tests' own; without any some differ by an ulp."""

    def init(key: jax.Array) -> list[jax.Array]:
        keys = jax.random.split(key, 3)
        return [
            jax.random.normal(keys[0], (4, 4, 6, 40)),
            jax.random.truncated_normal(keys[1], -2, 2, (3, 3, 60)),
            jax.random.uniform(keys[2], (999,)),
        ]

    key, tests_own = jax.random.PRNGKey(3), jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", False)
    try:
        found, expected = jit_init(init)(key), jax.jit(init)(key)
    finally:
        jax.config.update("jax_disable_most_optimizations", tests_own)
    jax.tree.map(np.testing.assert_array_equal, found, expected)


# ---------------------------------------------------------------- a real, tiny run
def test_what_a_run_leaves(run, tmp_path_factory):
    config = runs.config(tmp_path_factory)
    assert json.loads((run / "config.json").read_text()) == config
    assert json.loads((run / "env.json").read_text())["packages"]["jax"] == jax.__version__
    assert {4, 6} <= set(saved_steps(run)) and len(saved_steps(run)) <= 3  # keep = 2, and the best
    assert checkpoint.finished(run / "checkpoints")[-1].config == config
    assert sorted(p.name for p in (run / "grids").iterdir()) == [
        "step_000000.png",
        "step_000004.png",
        "step_000006.png",
    ]
    with Image.open(run / "grids" / "step_000000.png") as grid:
        assert np.ptp(np.asarray(grid)) > 100  # something is drawn
    (events,) = run.glob("events.out.tfevents.*")
    for tag in (b"held_out/ssim", b"discriminator/fake", b"discriminator/real", b"held_out"):
        assert tag in events.read_bytes()
    assert not list(run.glob("*.draft"))


def test_data_without_masks_are_refused(tmp_path, tmp_path_factory):
    for i in range(20):
        path = tmp_path / "data" / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((64, 64), i, np.uint8)).save(path)
    config = runs.config(tmp_path_factory, data__source="classes", data__dir=str(tmp_path / "data"))
    config["data"]["split"]["by"] = "slice"
    for start in (train, dry_run):
        with (
            pytest.warns(UserWarning),
            pytest.raises(PixmedError, match="source=classes: has no masks") as told,
        ):
            start(config, tmp_path / "run")
        assert "\n" not in str(told.value)
    assert not (tmp_path / "run").exists()


def test_the_records_of_a_run(run):
    lines = records(run)
    assert [line["step"] for line in lines if "held_out/ssim" in line] == [0, 2, 4, 6]
    told = [line for line in lines if "discriminator/real" in line]
    assert [line["step"] for line in told] == [2, 4, 6]
    assert all(math.isfinite(value) for line in lines for value in line.values())
    assert all(line["skipped"] == 0 for line in told)
    scores = {line["step"]: line["held_out/ssim"] for line in lines if "held_out/ssim" in line}
    for saved in checkpoint.finished(run / "checkpoints"):
        assert saved.score == scores[saved.step]


def test_no_patient_in_two_splits(run):
    split = json.loads((run / "split.json").read_text())
    patients = {name: set(files.values()) for name, files in split.items()}
    assert set(split) == {"train", "val", "test"} and all(patients.values())
    assert sum(map(len, patients.values())) == len(set().union(*patients.values())) == 12
    assert sum(len(files) for files in split.values()) == 48  # four slices of each patient


def test_training_changed_both_networks_and_the_average(run):
    state = runs.state(run)
    assert int(state.step) == 6
    saved = checkpoint.finished(run / "checkpoints")[-1]
    batch = inference.example_batch(saved.config, len(saved.classes))
    start = jax.jit(loop.build.make_task(saved.config).init)(jax.random.PRNGKey(saved.config["seed"]), batch)
    np.testing.assert_array_equal(state.key, start.key)
    for name in ("generator", "discriminator", "ema"):
        moved = jax.tree.map(
            lambda a, b: float(jnp.abs(a - b).max()), *(getattr(s, name) for s in (state, start))
        )
        assert min(jax.tree.leaves(moved["params"])) > 0, name


def test_resumed_equals_uninterrupted(run, tmp_path, tmp_path_factory, capsys):
    """2 + 4 steps, with a process's whole memory lost between, are 6 steps: bit for bit."""
    assert train(runs.config(tmp_path_factory, train__steps=2), tmp_path / "run") == 0
    assert saved_steps(tmp_path / "run") == [2]
    half = records(tmp_path / "run")
    with (tmp_path / "run" / "metrics.jsonl").open("a") as file:
        file.write(
            '{"step": 3, "generator/1-ssim": 9.9}\n{"step": 4, "gener'
        )  # written by a run that was killed
    capsys.readouterr()
    assert train(runs.config(tmp_path_factory), tmp_path / "run") == 0
    told = capsys.readouterr()
    assert "from step 2" in told.out and "train.steps: 2 -> 6" in told.err
    assert checkpoint.sha256_of_tree(runs.state(tmp_path / "run")) == checkpoint.sha256_of_tree(
        runs.state(run)
    )
    assert half == records(run)[: len(half)]
    assert records(tmp_path / "run") == records(run)


def test_already_trained(tmp_path, tmp_path_factory, capsys):
    workdir = runs.copied(tmp_path_factory, tmp_path / "run")
    before = {name: data for name, data in runs.tree_bytes(workdir).items() if name != "env.json"}
    config = runs.config(tmp_path_factory)
    assert train(config, workdir) == 0
    assert "already trained to step 6 of 6" in capsys.readouterr().out
    assert train(runs.config(tmp_path_factory, train__steps=4), workdir) == 0
    assert "already trained to step 6, beyond the 4 asked for; raise" in capsys.readouterr().out
    assert train(config, workdir) == 0
    # As a config file has it, before it was written and read back.
    config["data"]["split"]["fractions"] = tuple(config["data"]["split"]["fractions"])
    assert train(config, workdir) == 0
    after = {name: data for name, data in runs.tree_bytes(workdir).items() if name != "env.json"}
    assert after == before


def test_a_faulty_config_leaves_an_old_run_alone(tmp_path, tmp_path_factory):
    """--fresh deletes; what can be checked has to be checked first."""
    workdir = runs.copied(tmp_path_factory, tmp_path / "run")
    before = runs.tree_bytes(workdir)
    for changes in (
        {"loss__bce": "neither"},
        {"data__size": 36},
        {"data__source": "cloud"},
        {"train__steps": 0},
        {"train__steps": -5},
        {"log__every": 0},
        {"checkpoint__every": 0},
        {"seed": -1},
        {"data__split__seed": -1},
        {"train__batch_size": 0},
        {"train__accumulate": 0},
        {"train__max_skipped": 0},
        {"train__ema_decay": 1.0},
        {"train__ema_decay": -1.0},
        {"loss__r1_every": 0},
        {"loss__ssim": -1.0},
        {"model__generator__dropout": 1.5},
        {"model__generator__levels": 0},
        {"model__generator__ghost_ratio": 0},
        {"model__generator__ghost_kernel": 5},
        {"model__generator__ghost_levels": [0, 1]},
        {"model__discriminator__layers": 5},
        {"loss__bce": "none", "loss__ssim": 0.0},
    ):
        with pytest.raises(PixmedError, match=next(iter(changes)).replace("__", ".")):
            train(runs.config(tmp_path_factory, **changes), workdir, fresh=True)
        assert runs.tree_bytes(workdir) == before, changes
        with pytest.raises(PixmedError), contextlib.redirect_stdout(io.StringIO()):
            dry_run(runs.config(tmp_path_factory, **changes), tmp_path)


def test_a_rate_that_is_0_before_the_end_is_refused(tmp_path, tmp_path_factory):
    config = runs.preset(tmp_path_factory, "classifier", optimizer__decay_steps=5, train__steps=6)
    with pytest.raises(
        PixmedError, match=r"optimizer\.decay_steps=5: the rate is 0 from there on, .* 6 steps"
    ):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


# ---------------------------------------------------------------- a task without networks
class Toy(NamedTuple):
    step: jax.Array
    skipped: jax.Array
    skipped_in_row: jax.Array
    key: jax.Array
    ema: jax.Array


def toy_task(bad=()) -> Task:
    """Adds 1 to its only parameter at each step; the loss of the steps `bad` (counted from 1) is NaN."""

    def init(key, batch):
        zero = jnp.zeros((), jnp.int32)
        return Toy(zero, zero, zero, key, jnp.zeros(()))

    def propose(state, batch):
        is_bad = jnp.isin(state.step + 1, jnp.array([-1, *bad]))
        loss = jnp.where(is_bad, jnp.nan, batch.images.mean())
        return loss, {"loss": loss}

    def apply(state, loss):
        return state._replace(ema=state.ema + 1 + 0 * loss)

    def predict(variables, condition, keys):
        return jnp.zeros((*condition.shape[:3], 1)) + 0.01 * variables

    return Task(
        init,
        skip_if_not_finite(propose, apply),
        predict,
        inputs=lambda batch: batch.condition,
        score=lambda images, batch: {"ssim": losses.ssim_of_each(images, batch.images)},
        predicts="images",
    )


def toy_state(saved):
    shape = jax.ShapeDtypeStruct
    number = shape((), jnp.int32)
    target = Toy(number, number, number, shape((2,), jnp.uint32), shape((), jnp.float32))
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    target = jax.tree.map(lambda x: shape(x.shape, x.dtype, sharding=sharding), target)
    return checkpoint.restore(saved, target)


def use_toy(monkeypatch, bad=()):
    monkeypatch.setattr(loop.build, "make_task", lambda config, **_: toy_task(bad))


def test_the_best_step_is_that_of_the_held_out_score(run, tmp_path, tmp_path_factory, monkeypatch):
    use_toy(monkeypatch)
    scores = {0: 2.0, 1: 0.1, 2: 0.9, 3: 0.3, 4: 0.2}
    monkeypatch.setattr(
        loop.HeldOut,
        "look",
        lambda self, variables: ({"ssim": scores[int(variables)]}, lambda: Image.new("RGB", (2, 2))),
    )
    config = runs.config(tmp_path_factory, train__steps=4, checkpoint__every=1, checkpoint__keep=1)
    assert train(config, tmp_path / "run") == 0
    assert saved_steps(tmp_path / "run") == [2, 4]
    assert inference.find(tmp_path / "run", "best").step == 2
    assert inference.find(tmp_path / "run").step == 4


def test_the_held_out_score_is_that_of_validation_slices(run, tmp_path, tmp_path_factory, monkeypatch):
    """The toy draws grey pictures; their SSIM is that of a grey picture against each validation slice."""
    use_toy(monkeypatch)
    config = runs.config(tmp_path_factory, train__steps=3, checkpoint__every=3)
    assert train(config, tmp_path / "run") == 0
    dataset = open_dataset(**config["data"], seed=config["seed"])
    arrays, _ = dataset.load(dataset.rows["val"], dataset.size)
    expected = []
    for image in arrays.images[..., 0] / 255.0:
        _, similarity = structural_similarity(
            image,
            np.full_like(image, 0.03),
            data_range=1.0,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            full=True,
        )
        expected.append(similarity[5:-5, 5:-5].mean())
    assert records(tmp_path / "run")[-1]["held_out/ssim"] == pytest.approx(np.mean(expected), abs=1e-5)


def test_a_run_that_starts_again_at_0_tells_step_0_once(run, tmp_path, tmp_path_factory, monkeypatch):
    """Killed before its first save, a run starts over; nothing of the first try may stay in its records."""
    use_toy(monkeypatch)
    config = runs.config(tmp_path_factory, train__steps=4, checkpoint__every=4)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.Writer, "save", lambda *args: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            train(config, tmp_path / "run")
    assert saved_steps(tmp_path / "run") == []
    assert train(config, tmp_path / "run") == 0
    assert [line["step"] for line in records(tmp_path / "run") if "held_out/ssim" in line] == [0, 4]


def test_steps_over_equal_rows_crop_anew_and_a_resumed_one_as_before(tmp_path_factory):
    """The crops of a step follow from the seed and the step's number, and from nothing else."""
    config = runs.config(tmp_path_factory)
    size = config["data"]["size"]

    def show(state: Toy, batch: Batch) -> tuple[Toy, dict[str, jax.Array]]:
        return state._replace(step=state.step + 1), {"seen": batch.images}

    task = toy_task()._replace(step=show)
    step = loop.jit_step(task, config, 1, loop.meshes.make_mesh(4))
    images = np.random.default_rng(0).integers(0, 256, (6, size + 9, size + 9, 1), np.uint8)
    arrays = Arrays(images, np.ones(images.shape[:3], np.uint8), np.zeros(6, np.int32))
    rows = np.array([0, 1, 2, 3], np.int32)

    def crops(state: Toy, steps: int) -> tuple[Toy, list[np.ndarray]]:
        found = []
        for _ in range(steps):
            state, metrics = step(state, arrays, rows)
            found.append(np.asarray(metrics["seen"]))
        return state, found

    start = toy_task().init(jax.random.PRNGKey(0), None)
    start = jax.tree.map(np.asarray, start)  # the step donates its state
    _, three = crops(start, 3)
    for a, b in ((0, 1), (1, 2), (0, 2)):
        assert all((three[a][i] != three[b][i]).any() for i in range(len(rows)))
    state, first = crops(start, 2)
    kept = jax.tree.map(np.asarray, state)  # as a checkpoint would hold it
    _, last = crops(kept, 1)
    np.testing.assert_array_equal([*first, *last], three)
    other = loop.jit_step(task, {**config, "seed": 1}, 1, loop.meshes.make_mesh(4))
    assert (np.asarray(other(start, arrays, rows)[1]["seen"]) != three[0]).any()


def test_images_per_second_count_what_grids_and_saves_wait_for(tmp_path, tmp_path_factory, monkeypatch):
    """By a clock that runs only while the device is awaited, a second for each step of four images."""
    use_toy(monkeypatch)
    now, due, awaited = [0.0], [0], []

    def awaiting(function):
        def wait(*args, **kwargs):
            awaited.append(due[0])
            now[0], due[0] = now[0] + due[0], 0
            return function(*args, **kwargs)

        return wait

    class Step:
        """The jitted step on a device that takes its time."""

        def __init__(self, *args, **kwargs):
            self._step = jit_step(*args, **kwargs)

        lower = compile = lambda self, *_: self

        def __call__(self, *args):
            due[0] += 1
            return self._step(*args)

    jit_step = loop.jit_step
    monkeypatch.setattr(loop, "jit_step", Step)
    monkeypatch.setattr(loop.count, "reserved", lambda _: 0)
    monkeypatch.setattr(loop, "time", types.SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(loop.HeldOut, "look", awaiting(loop.HeldOut.look))
    for name in ("device_get", "block_until_ready"):
        monkeypatch.setattr(jax, name, awaiting(getattr(jax, name)))
    changes = {"train__steps": 16, "log__every": 8, "log__grid_every": 5, "checkpoint__every": 3}
    assert train(runs.config(tmp_path_factory, **changes), tmp_path / "run") == 0
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    told = {line["step"]: line["images_per_second"] for line in lines if "images_per_second" in line}
    assert told == {8: 4.0, 16: 4.0}
    # Steps 3, 5, 6, 8 and so on await those before them; no other step waits for the device.
    assert [steps for steps in awaited if steps] == [3, 2, 1, 2, 1, 1, 2, 3, 1]


# ---------------------------------------------------------------- parts
def test_total_steps():
    def steps(steps, epochs, slices=10, batch_size=4):
        return total_steps({"train": {"steps": steps, "epochs": epochs, "batch_size": batch_size}}, slices)

    assert steps(7, 0) == 7
    assert steps(0, 2) == 5  # 20 slices in batches of 4
    assert steps(0, 1) == 3  # the last batch is begun, not dropped
    for wrong, told in (
        ((-4, 0), r"train\.steps=-4: give 1 or more"),
        ((0, -2), r"train\.epochs=-2: give 1"),
    ):
        with pytest.raises(PixmedError, match=told):
            steps(*wrong)
    for wrong in ((0, 0), (5, 5)):
        with pytest.raises(PixmedError, match=rf"train\.steps={wrong[0]} and train\.epochs={wrong[1]}"):
            steps(*wrong)


def test_spread_shows_every_label_and_patient_early():
    labels, groups = [], []
    for patient in range(6):  # patients 0, 1 of label 0; 2, 3 of label 1; 4, 5 of label 2; five slices each
        labels += [patient // 2] * 5
        groups += [f"p{patient}"] * 5
    source = types.SimpleNamespace(labels=np.array(labels), groups=tuple(groups))
    dataset = types.SimpleNamespace(source=source, of=lambda split: {"val": np.arange(30)}[split])
    first = Dataset.spread(dataset, "val", 6)
    assert [labels[row] for row in first[:3]] == [0, 1, 2]
    assert {groups[row] for row in first} == set(groups)
    assert sorted(Dataset.spread(dataset, "val", 64)) == list(range(30))  # each row once
    np.testing.assert_array_equal(Dataset.spread(dataset, "val", 64)[:6], first)


# ---------------------------------------------------------------- data that change
def folder_of(tmp_path: Path, patients: int) -> Path:
    """Two slices of each patient, as a folder with a table."""
    rows = ["file,label,patient_group"]
    for patient in range(patients):
        for i, s in enumerate(phantom.patient_slices(patient, size=32, count=2)):
            name = f"p{patient:02}_{i}.png"
            for kind, pixels in (("images", s.image), ("masks", s.mask * np.uint8(255))):
                (tmp_path / kind).mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(tmp_path / kind / name)
            rows.append(f"{name},tumor,p{patient:02}")
    (tmp_path / "meta.csv").write_text("\n".join(rows))
    return tmp_path


def test_a_run_whose_data_have_changed_is_neither_judged_nor_gone_on_with(
    tmp_path, tmp_path_factory, monkeypatch
):
    """One patient more, and the split is drawn anew: whom the run was trained on would be tested on."""
    use_toy(monkeypatch)
    root = folder_of(tmp_path / "data", 20)
    changes = {"data__source": "folder", "data__dir": str(root), "data__split__seed": 0}
    config = runs.config(tmp_path_factory, **changes)
    workdir = tmp_path / "run"
    assert train(config, workdir) == 0
    before = (workdir / "split.json").read_text()
    trained = set(json.loads(before)["train"].values())
    folder_of(root, 21)
    dataset = open_dataset(**config["data"], seed=config["seed"])
    moved = sorted({dataset.source.groups[row] for row in dataset.of("test+val")} & trained)
    assert moved  # else this tests nothing
    with pytest.raises(
        PixmedError, match=rf"was trained on \d+ patients that are in test\+val now \({moved[0]}"
    ):
        facts.open_data(workdir, config, "test+val")
    with pytest.raises(PixmedError, match=r"the data have changed .*slices of train are new or gone"):
        facts.open_data(workdir, config, "train")  # else held-out slices would be drawn from to train with
    with pytest.raises(PixmedError, match=r"the data have changed .* put them back"):
        train(runs.config(tmp_path_factory, train__steps=8, **changes), workdir)
    assert (workdir / "split.json").read_text() == before
    for path in root.glob("*/p20_*.png"):
        path.unlink()
    folder_of(root, 20)
    assert train(runs.config(tmp_path_factory, train__steps=8, **changes), workdir) == 0
    assert facts.open_data(workdir, config, "train").of("train").size
    (workdir / "split.json").write_text(before[:-20])  # whoever has it cut short has no record any more
    for split in ("train", "test"):
        with pytest.raises(PixmedError, match=r"split\.json: unreadable, so nobody knows whom this run was"):
            facts.open_data(workdir, config, split)
    with pytest.raises(PixmedError, match=r"split\.json: unreadable"):
        train(runs.config(tmp_path_factory, train__steps=9, **changes), workdir)


# ---------------------------------------------------------------- splits without slices
def given_split(tmp_path: Path, parts: str) -> dict[str, str]:
    """Changes to a config: a folder of as many patients as `parts`, whose table brings these as its split."""
    root = folder_of(tmp_path, len(parts.split()))
    head, *rows = (root / "meta.csv").read_text().splitlines()
    rows = [f"{row},{parts.split()[int(row[1:3])]}" for row in rows]
    (root / "meta.csv").write_text("\n".join([f"{head},part", *rows]))
    return {"data__source": "folder", "data__dir": str(root), "data__split_column": "part"}


def of_classes(tmp_path: Path) -> dict[str, object]:
    """Two classes with test images of their own, none of whose training images are held out."""
    for half in ("Training", "Testing"):
        for label in "ab":
            folder = tmp_path / half / label
            folder.mkdir(parents=True)
            for i in range(3):
                name = next(n for n in map("{}.png".format, range(i, 99, 3)) if not classes._validates(n))
                Image.new("L", (32, 32), 9 * i).save(folder / name)
    return {"data__source": "classes", "data__dir": str(tmp_path), "data__split__by": "slice"}


@pytest.mark.filterwarnings("ignore:data.split.by=slice")
@pytest.mark.parametrize(
    ("of", "preset", "told"),
    [
        (
            lambda path: given_split(path, "train train test"),
            "ghost",
            r"data\.split_column=part: .*slice val,",
        ),
        (lambda path: given_split(path, "val val test"), "ghost", r"data\.split_column=part: .*slice train,"),
        (of_classes, "classifier", r"data\.source=classes: its own split has no slice in val, .* folder val"),
        (
            lambda path: {"data__split__fractions": [0.7, 0.0, 0.3]},
            "ghost",
            r"data\.split\.fractions=\(0\.7, 0\.0, 0\.3\): leaves val empty, .* above 0",
        ),
    ],
)
def test_a_training_needs_slices_to_train_and_to_validate_on(of, preset, told, tmp_path, tmp_path_factory):
    config = runs.preset(tmp_path_factory, preset, **of(tmp_path / "data"))
    for start in (train, dry_run):
        with pytest.raises(PixmedError, match=told) as caught:
            start(config, tmp_path / "run")
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.filterwarnings("ignore:data.split.by=slice")
def test_a_dry_run_counts_no_patients_whom_nobody_knows(tmp_path, tmp_path_factory, capsys):
    """A slice that is its own group is no patient."""
    changes = {**given_split(tmp_path, "train train train val test"), "data__split__by": "slice"}
    table = (tmp_path / "meta.csv").read_text()
    for text, told in (
        (table, "6 slices of    3 patients"),
        (
            table.replace("p02_0.png,tumor,p02", "p02_0.png,tumor,p02_0.png"),
            "6 slices of    3 patients, 1 of nobody known",
        ),
        (re.sub(r",p\d\d,", ",,", table), "6 slices of unknown patients"),
    ):
        (tmp_path / "meta.csv").write_text(text)
        column = "" if ",," in text else "patient_group"
        config = runs.config(tmp_path_factory, **changes, data__patient_column=column)
        assert dry_run(config, tmp_path / "run") == 0
        assert f"  train      {told}" in capsys.readouterr().out.splitlines()


def test_classes_that_a_split_lacks_are_told(tmp_path_factory):
    """A test split of one class would be told right by one answer for all."""
    labels = np.array([0, 0, 1, 2, 0, 1])
    source = SimpleNamespace(label_names=("a", "b", "c"), labels=labels, counted=False, several=True)
    rows = {"train": np.array([0, 2, 3]), "val": np.array([5]), "test": np.array([1]), "spare": np.array([4])}
    assert notices(runs.config(tmp_path_factory), SimpleNamespace(rows=rows, source=source)) == [
        "val has no slice of a, c, so what is found there says nothing of it",
        "test has no slice of b, c, so what is found there says nothing of it",
    ]
    source.counted = True  # a label is the largest class of the slice's mask, which may show others
    assert notices(runs.config(tmp_path_factory), SimpleNamespace(rows=rows, source=source)) == []


def pictures_of(root, of, tmp_path_factory, **changes):
    """Six patients: phantoms, or wide pictures from edge to edge, such as of a chest, grey or reddish."""
    rng = np.random.default_rng(0)
    for i in range(6):
        drawn = phantom.patient_slices(i, seed=0, size=48, count=1)[0]
        wide = rng.integers(90, 255, (36, 48, 3), np.uint8) * np.array([1, 0.6, 0.9])
        image = {"heads": drawn.image, "grey": wide[..., 0], "colours": wide}[of].astype(np.uint8)
        mask = (drawn.mask if of == "heads" else drawn.mask[6:42]) * np.uint8(255)
        mask[20, 20] = 255
        for folder, pixels in (("images", image), ("masks", mask)):
            (root / folder).mkdir(exist_ok=True)
            Image.fromarray(pixels).save(root / folder / f"{i}.png")
    (root / "meta.csv").write_text("file,patient_group\n" + "".join(f"{i},{i}\n" for i in range(6)))
    config = runs.config(
        tmp_path_factory, data__source="folder", data__dir=str(root), data__label_column="",
        data__split__fractions=[0.6, 0.2, 0.2], **changes,
    )  # fmt: skip
    return config, open_dataset(**config["data"], seed=0)


@pytest.mark.parametrize(
    ("of", "channels", "condition", "told"),
    [
        ("colours", 3, "anatomy", 1),
        ("grey", 1, "tumor+head", 1),
        ("grey", 1, "tumor", 0),
        ("heads", 1, "anatomy", 0),
    ],
)
def test_heads_that_are_looked_for_in_something_else_are_told(
    tmp_path, tmp_path_factory, of, channels, condition, told
):
    """The bars that make wide pictures square are no air around a head."""
    changes = {"data__channels": channels, "data__condition": condition}
    found = notices(*pictures_of(tmp_path, of, tmp_path_factory, **changes))
    assert len(found) == told
    assert all("show none; if these are of something else" in line for line in found)


@pytest.mark.parametrize(("of", "channels"), [("colours", 3), ("grey", 3), ("grey", 1)])
def test_held_out_pictures_are_shown_in_the_colours_that_they_have(tmp_path, tmp_path_factory, of, channels):
    """What a network makes of three channels for grey slices means one grey value, a tint is none of it."""
    _, dataset = pictures_of(
        tmp_path, of, tmp_path_factory, data__channels=channels, data__condition="tumor", data__size=32
    )
    tint = jnp.array([0.9, 0.3, 0.3])[:channels]
    task = Task(
        init=None, step=None, predict=lambda _, condition, keys: jnp.ones((len(keys), 32, 32, 1)) * tint,
        inputs=lambda batch: batch.condition, score=lambda images, batch: {}, predicts="images",
    )  # fmt: skip
    _, draw = heldout.HeldOut(dataset, task).look({})
    picture = np.asarray(draw()).astype(int)
    cell = (picture.shape[1] - 110) // 4  # of four columns, behind what the rows are called
    row = picture[22 + cell // 2]  # of the first slice, below the heading
    real, made = (row[110 + k * cell + cell // 4 : 110 + k * cell + 3 * cell // 4].mean(0) for k in (1, 2))
    expected = (
        255 * np.broadcast_to(np.asarray(tint), 3) if of == "colours" else 3 * [255 * float(tint.mean())]
    )
    np.testing.assert_allclose(made, expected, atol=1)
    assert np.ptp(real) > 40 if of == "colours" else np.ptp(real) < 1


def test_that_nobody_tests_is_told_before_the_training(tmp_path, tmp_path_factory, monkeypatch, capsys):
    changes = {"data__split__fractions": [0.7, 0.3, 0.0]}
    config = runs.config(tmp_path_factory, **changes)
    line = "data.split.fractions=(0.7, 0.3, 0.0): leaves test empty, so nobody is there to test on after"
    assert dry_run(config, tmp_path / "run") == 0
    assert capsys.readouterr().out.count(line) == 1
    use_toy(monkeypatch)
    assert train(config, tmp_path / "run") == 0
    out = capsys.readouterr().out
    assert out.count(line) == 1 and out.index(line) < out.index("compiling")
    for split in ("test", "spare"):
        with pytest.raises(PixmedError, match=f"has no slices in its {split} split; .* such as val"):
            facts.open_data(tmp_path / "run", config, split)
    assert len(facts.open_data(tmp_path / "run", config, "test+val").of("test+val"))
    given = runs.config(tmp_path_factory, **given_split(tmp_path / "data", "train train val"))
    assert dry_run(given, tmp_path / "given") == 0
    assert "data.split_column=part: names no slice test, so" in capsys.readouterr().out


def test_a_signal_behind_the_last_step_is_not_forgotten(tmp_path, tmp_path_factory, monkeypatch):
    """All is trained and saved, but what would come next, such as a study's other parts, does not."""
    save = checkpoint.Writer.save

    def told_to_stop(writer: checkpoint.Writer, step: int, state: Any, score: float) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        save(writer, step, state, score)

    config = runs.config(tmp_path_factory)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.Writer, "save", told_to_stop)
        config["checkpoint"]["every"] = config["train"]["steps"]  # one save, at the end
        assert loop.train(config, tmp_path / "run") == 128 + signal.SIGINT
    saved = checkpoint.newest_intact(tmp_path / "run" / "checkpoints")
    assert saved is not None and saved.step == config["train"]["steps"]
    assert loop.train(config, tmp_path / "run") == 0
