"""Rows 11, 12, 23: however many devices and processes, and wherever opened, a run is the same run."""

import json
import shutil
import signal
import socket
import warnings
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import runs
from children import Child, child, launch, train  # noqa: F401 (fixtures)
from test_gan import RATE, discriminator, generator, make_batch, start, task_of

import pixmed_jax
from pixmed_jax import inference
from pixmed_jax.data.sources import open_dataset
from pixmed_jax.training import checkpoint
from pixmed_jax.training import mesh as meshes

pytestmark = pytest.mark.slow


# ---------------------------------------------------------------- devices
def tell(workdir: Path) -> int:
    """What a process with its devices reads of a run's state, and what it draws."""
    print(checkpoint.sha256_of_tree(runs.state(workdir)))
    return 0


def test_states_do_not_know_how_many_devices_there_were(child, tmp_path, tmp_path_factory):
    """4 -> 1, 4 -> 2, 1 -> 2, 1 -> 4: the same bits; and the run of 4 goes on on 1."""
    config, one = runs.config(tmp_path_factory), runs.trained(tmp_path_factory)
    four = tmp_path / "four"
    process = child(train, config, four, devices=4)
    assert process.code() == 0, process.err
    assert "for 4 cpu device(s)" in process.out
    for workdir, others in ((four, (2, 4)), (one, (2, 4))):
        expected = checkpoint.sha256_of_tree(runs.state(workdir))
        for devices in others:
            process = child(tell, workdir, devices=devices)
            assert process.code() == 0, process.err
            assert process.out.split() == [expected], devices
    process = child(train, runs.config(tmp_path_factory, train__steps=7), four)
    assert process.code() == 0, process.err
    assert "from step 6" in process.out and "for 1 cpu device(s)" in process.out


def paint(workdir: Path, path: Path) -> int:
    """On how many devices a loaded generator's variables and images lie; writes what it paints."""
    generate, seeds = pixmed_jax.load(workdir), inference.image_seeds(3, 2)
    images = generate._predict(generate._variables, maps(), seeds)
    for placed in (generate._variables, images):
        print(*{len(leaf.devices()) for leaf in jax.tree.leaves(placed)})
    np.save(path, generate(maps(), seed=3))
    return 0


def maps() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 2, (2, 32, 32)).astype(np.uint8)


def test_a_loaded_generator_paints_on_one_of_several_devices(child, tmp_path, tmp_path_factory):
    """Each of them would compute the whole batch."""
    run = runs.trained(tmp_path_factory)
    process = child(paint, run, tmp_path / "images.npy", devices=8)
    assert process.code() == 0, process.err
    assert process.out.split() == ["1", "1"]
    expected = pixmed_jax.load(run)(maps(), seed=3)
    np.testing.assert_allclose(np.load(tmp_path / "images.npy"), expected, atol=1e-6)


@pytest.mark.parametrize("what", ["devices of another kind", "no note of devices"])
def test_a_checkpoint_of_a_gpu_opens_from_its_files_alone(what, tmp_path, tmp_path_factory):
    """What orbax notes of devices is rewritten as eight GPUs note it, for there is no GPU here."""
    run = runs.trained(tmp_path_factory)
    step = Path(shutil.copytree(run / "checkpoints" / "6", tmp_path / "elsewhere" / "taken along"))
    notes = step / "_sharding"
    if what == "no note of devices":
        notes.unlink()
    else:
        told = json.loads(notes.read_text())
        for name, text in told.items():
            note = json.loads(text)
            note["device_mesh"] = {"mesh": [{"id": i} for i in range(8)]}
            note["shape"], note["memory_kind"] = [8], "device"
            told[name] = json.dumps(note)
        notes.write_text(json.dumps(told))
    manifest = json.loads((step / checkpoint.MANIFEST).read_text())
    checkpoint._write_manifest(step, {k: v for k, v in manifest.items() if k not in ("files", "sha256")})
    found, expected = pixmed_jax.load(step)(maps(), seed=3), pixmed_jax.load(run)(maps(), seed=3)
    np.testing.assert_array_equal(found, expected)


@pytest.fixture(scope="module")
def spread(tmp_path_factory) -> dict[str, float]:
    """What `on_eight_devices` finds, run with eight devices."""
    folder = tmp_path_factory.mktemp("spread")
    process = Child(folder, on_eight_devices, folder / "found.json", devices=8)
    assert process.code() == 0, process.err
    return json.loads((folder / "found.json").read_text())


def on_eight_devices(path: Path) -> int:
    """One step of plain gradient descent in three ways; writes by how much states and metrics differ."""
    warnings.simplefilter("error")
    assert jax.device_count() == 8

    def task(axis_name: str | None = None) -> Any:
        g, d = generator(dropout=0.0, axis_name=axis_name), discriminator(axis_name=axis_name)
        return task_of(g, d, r1=1.0, r1_every=1, axis_name=axis_name)

    def apart(found: Any, expected: Any) -> float:
        pairs = zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True)
        return max(float(np.abs(np.asarray(a, np.float64) - b).max()) for a, b in pairs)

    batch, single = make_batch(8), task()
    state = start(single)
    alone = jax.jit(single.step)(state, batch)

    mesh = meshes.make_mesh(8)
    everywhere, cut = meshes.replicated(mesh), meshes.sharded(mesh)
    meshed = jax.jit(single.step, in_shardings=(everywhere, cut), out_shardings=everywhere)(state, batch)

    copies = jax.tree.map(lambda x: np.stack([x] * 8), state)
    parts = jax.tree.map(lambda x: x[:, None], batch)
    mapped = jax.pmap(task("devices").step, axis_name="devices")(copies, parts)
    mapped = jax.tree.map(np.asarray, mapped)
    first, last = (jax.tree.map(lambda x, i=i: x[i], mapped) for i in (0, 7))
    found = {
        "update": apart(alone[0].generator["params"], state.generator["params"]),
        "mesh": apart(meshed, alone),
        "pmap": apart(first, alone),
        "between": apart(last, first),
    }
    path.write_text(json.dumps(found))
    return 0


def test_a_sharded_step_equals_that_of_one_device(spread):
    assert spread["update"] > 1e-2
    assert spread["mesh"] < 1e-5


def test_a_pmapped_step_equals_that_of_one_device(spread):
    """Gradients, batch statistics and metrics are averaged over `axis_name`; all devices end up the same."""
    assert spread["pmap"] < 1e-5
    assert spread["between"] == 0


def test_sharded_gradients_equal_those_of_one_device(spread):
    """Of plain gradient descent: an update is the rate times the gradient."""
    assert spread["mesh"] / RATE < 1e-5 and spread["pmap"] / RATE < 1e-5


# ---------------------------------------------------------------- processes
def words(factory, workdir: Path, *more: str) -> list[str]:
    tiny = [f"--config.{key}={tuple(v) if isinstance(v, list) else v}" for key, v in runs.TINY.items()]
    return [
        *("--config=configs/ghost.py:test", *tiny),
        *(f"--config.data.dir={runs.shared(factory) / 'data'}", "--config.log.every=1"),
        *(f"--workdir={workdir}", *more),
    ]


def pair(child, factory, workdir: Path, *more: str) -> list[Child]:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    return [
        child(launch, *words(factory, workdir, f"--distributed=localhost:{port},2,{i}", *more))
        for i in (0, 1)
    ]


def metrics(workdir: Path) -> list[dict]:
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def test_two_processes_equal_two_devices_and_one_goes_on_alone(child, tmp_path, tmp_path_factory):
    config = runs.config(tmp_path_factory, log__every=1)
    one = child(train, config, tmp_path / "one", devices=2)
    both = pair(child, tmp_path_factory, tmp_path / "two")
    assert one.code() == 0, one.err
    assert [process.code() for process in both] == [0, 0], [process.err for process in both]
    assert "trained 6 steps" in both[0].out
    assert "next: " in both[0].out
    assert "step" not in both[1].out and "next: " not in both[1].out  # only one of them tells

    found, expected = metrics(tmp_path / "two"), metrics(tmp_path / "one")
    assert [line["step"] for line in found] == [line["step"] for line in expected]
    for a, b in zip(found, expected, strict=True):
        for name in b.keys() - {"images_per_second"}:
            np.testing.assert_allclose(a[name], b[name], rtol=1e-5, atol=1e-5, err_msg=f"{name} {a['step']}")

    dataset = open_dataset(**config["data"], seed=0)
    arrays, _ = dataset.load(dataset.rows["test"], dataset.size)
    given = np.asarray(arrays.maps)
    images = [pixmed_jax.load(tmp_path / name)(given) for name in ("one", "two")]
    np.testing.assert_allclose(images[1], images[0], atol=1e-5)

    alone = child(train, runs.config(tmp_path_factory, log__every=1, train__steps=7), tmp_path / "two")
    assert alone.code() == 0, alone.err
    assert "resuming" in alone.out and "from step 6" in alone.out


def test_a_signal_to_one_process_stops_both_at_the_same_step(child, tmp_path, tmp_path_factory):
    both = pair(child, tmp_path_factory, tmp_path / "run", "--config.train.steps=100000")
    path = tmp_path / "run" / "metrics.jsonl"
    both[0].until(lambda: path.exists() and '"step": 2' in path.read_text())
    both[1].send(signal.SIGTERM)
    assert [process.code() for process in both] == [143, 143], [process.err for process in both]
    assert "saved; the same command resumes" in both[0].out
