"""The stage: each file of an exported run computes what its network does, elsewhere too, or is refused."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import runs
from PIL import Image
from test_cards import faults
from test_label_runs import DCGAN

import pixmed_jax
from pixmed_jax import inference
from pixmed_jax.errors import PixmedError
from pixmed_jax.export import export as stage
from pixmed_jax.export import flat, interface, onnx_file, stablehlo
from pixmed_jax.training.build import is_supervised, make_task, restores

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A copy of the trained run, exported, and what the stage says of it."""
    workdir = runs.copied(tmp_path_factory, tmp_path_factory.mktemp("exported") / "run")
    return workdir, stage.export(workdir)


@pytest.fixture(scope="module")
def loud(run, draw):
    """The interface of that run's network, with weights that make its images differ."""
    return interface.of(runs.loud(pixmed_jax.load(run[0]), draw))


def test_what_an_export_holds(run):
    workdir, results = run
    folder = workdir / "export"
    names = ["generator.safetensors", "generator.stablehlo", "generator.onnx"]
    assert list(results) == names
    assert {p.name for p in folder.iterdir()} == {
        *names, "config.json", "export.json", "model_card.json", "model_card.md"
    }  # fmt: skip
    card = json.loads((folder / "model_card.json").read_text())
    assert faults(card) == [] and card["model"]["step"] == 6
    assert json.loads((folder / "export.json").read_text())["files"] == results
    for name, told in results.items():
        assert told["bytes"] == (folder / name).stat().st_size
        assert 0 <= told["difference"] <= told["tolerance"] <= 1e-4 and told["low"] <= told["median"]
    assert (
        results["generator.safetensors"]["difference"] == results["generator.safetensors"]["tolerance"] == 0
    )
    assert len(stage.summary(results).splitlines()) == 3

    forms = json.loads((folder / "config.json").read_text())["forms"]
    assert [*forms["generator.stablehlo"]["inputs"]] == ["maps", "seeds"]
    assert forms["generator.stablehlo"]["inputs"]["maps"].startswith(
        "uint8 [N, 32, 32], 0 background, 1 mening"
    )
    assert forms["generator.onnx"]["outputs"] == {"images": "float32 [N, 32, 32, 1] in [0, 1]"}
    model = onnx.load(folder / "generator.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert [i.name for i in model.graph.input] == [*forms["generator.onnx"]["inputs"]]
    facts = {entry.key: entry.value for entry in model.metadata_props}
    assert facts["maps"] == forms["generator.onnx"]["inputs"]["maps"]
    assert model.opset_import[0].version == forms["generator.onnx"]["opset"] == 18


def test_no_file_holds_the_paths_of_its_maker(run):
    """Of the project or of the interpreter and its packages."""
    for path in sorted((run[0] / "export").iterdir()):
        places = re.findall(rb"/[\w./-]+\.py\b", data := path.read_bytes())
        assert places == [], path.name
        for folder in (runs.ROOT, Path(sys.prefix), Path(jax.__file__).parent):
            assert str(folder).encode() not in data, path.name
    assert jax.config.jax_traceback_in_locations_limit != 0  # faults elsewhere say where they are


def test_stablehlo_runs_where_there_is_jax_alone(loud, tmp_path):
    """In a fresh process that imports neither this project nor Flax, for batches of 1 and 5."""
    stablehlo.write(tmp_path / "g.stablehlo", loud)
    for count in (1, 5):
        stored, seeds = loud.example(count)
        expected = loud.predict(loud.variables, stored, seeds)
        np.savez(tmp_path / f"{count}.npz", stored=stored, seeds=seeds, expected=expected)
    program = f"""
import sys
from pathlib import Path
import jax, numpy as np
from jax import export
network = export.deserialize(bytearray(open({str(tmp_path / "g.stablehlo")!r}, "rb").read()))
assert network.platforms == ("cpu", "cuda")
for count in (1, 5):
    with np.load({str(tmp_path)!r} + f"/{{count}}.npz") as file:
        images = np.asarray(network.call(file["stored"], file["seeds"]))
        assert images.shape == (count, 32, 32, 1) and images.dtype == np.float32
        print(np.abs(images - file["expected"]).max())
assert not {{"flax", "pixmed_jax", "orbax"}} & {{name.split(".")[0] for name in sys.modules}}
"""
    told = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert told.returncode == 0, told.stderr
    assert max(map(float, told.stdout.split())) < 1e-5
    assert np.ptp(expected) > 0.5  # images that could not differ would prove nothing


def test_the_noise_of_a_seed_makes_the_seeds_image(loud, tmp_path):
    """The graph takes what JAX draws; other numbers, and another seed's, give other images."""
    onnx_file.write(tmp_path / "g.onnx", loud, "float32")
    call = onnx_file.runner(tmp_path / "g.onnx", loud)
    stored, seeds = loud.example(3)
    expected = np.asarray(loud.predict(loud.variables, stored, seeds))
    _, noise = flat.drawn(loud.predict, loud.variables, stored, seeds)
    assert [n.kind for n in onnx_file.noises(loud)] == ["uniform"] * len(noise)
    np.testing.assert_allclose(call(stored, seeds, noise), expected, atol=1e-5)
    _, others = flat.drawn(loud.predict, loud.variables, stored, seeds + 1)
    assert np.abs(call(stored, seeds, others) - expected).max() > 0.01
    # Dropout keeps where the number is below its share, so with zeros it keeps all.
    assert np.abs(call(stored, seeds, [np.zeros_like(n) for n in noise]) - expected).max() > 0.01


def test_draws_are_those_of_jax_random():
    """In the order of the code, whatever calls they are in, and by each image's own key."""

    def predict(variables, stored, seeds):
        def one(x, key):
            a, b = jax.random.split(key)
            kept = jax.random.bernoulli(a, 0.3, (2, 1))
            z = jax.jit(lambda b: jax.random.normal(b, (2,)))(b)
            return kept * x + z + jax.random.uniform(a, (2,), minval=-1, maxval=3)

        return jax.vmap(one)(stored, jax.vmap(jax.random.key)(seeds))

    stored, seeds = jnp.ones((3, 2)), inference.image_seeds(0, 3)
    result, (first, second, third) = flat.drawn(predict, {}, stored, seeds)
    np.testing.assert_allclose(result, predict({}, stored, seeds), atol=1e-6)
    keys = [jax.random.split(jax.random.key(seed)) for seed in seeds]
    for i, (a, b) in enumerate(keys):
        np.testing.assert_array_equal(first[i], jax.random.uniform(a, (2, 1)))
        np.testing.assert_array_equal(second[i], jax.random.normal(b, (2,)))
        np.testing.assert_array_equal(third[i], jax.random.uniform(a, (2,)))  # before it is scaled
    given = flat.with_noise(predict, seeds)({}, stored, first, second, third)
    np.testing.assert_allclose(given, result, atol=1e-6)
    (batch,) = jax.export.symbolic_shape("N")
    like = jax.ShapeDtypeStruct((batch, 2), np.float32), jax.ShapeDtypeStruct((batch,), np.uint32)
    assert [(d.kind, d.shape[1:]) for d in flat.draws(predict, {}, *like)] == [
        ("uniform", (2, 1)), ("normal", (2,)), ("uniform", (2,)),
    ]  # fmt: skip


def test_draws_of_a_category_are_jaxs():
    """Its uniform numbers come with their bounds the other way round."""
    logits = jnp.array([0.0, 3.0, 1.0, 2.5])

    def predict(variables, stored, seeds):
        return jax.vmap(lambda key: jax.random.categorical(key, logits))(jax.vmap(jax.random.key)(seeds))

    seeds = inference.image_seeds(0, 50)
    expected = predict({}, None, seeds)
    assert len(set(expected.tolist())) >= 3
    result, (noise,) = flat.drawn(predict, {}, None, seeds)
    np.testing.assert_array_equal(result, expected)
    assert noise.min() >= 0 and noise.max() < 1


def test_the_python_of_the_documentation_runs_as_written(run):
    """docs/export.md: the first block has the label maps, and each of the others goes on from there."""
    maps = run[0] / "samples" / "conditions"
    maps.mkdir(parents=True)
    for i in range(3):
        Image.fromarray(np.full((32, 32), i, np.uint8)).save(maps / f"{i:05d}.png")
    page = (runs.ROOT / "docs" / "export.md").read_text(encoding="utf-8")
    made = []
    names: dict[str, Any] = {}
    for text in re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL):
        names.pop("images", None)
        exec(compile(text.replace("runs/mine", str(run[0])), "export.md", "exec"), names)
        made += [np.asarray(names["images"])] if "images" in names else []
    assert [images.shape for images in made] == [(3, 32, 32, 1)] * 3
    same = names["generate"](names["label_maps"], seeds=names["seeds"])
    np.testing.assert_allclose(made[1], same, atol=1e-5)  # as the page says of StableHLO


# ---------------------------------------------------------------- every kind of network
STYLEGAN2 = {
    "name": "stylegan2", "latent": 4, "width": 4, "mapping_layers": 1, "channel_base": 64, "channel_max": 4,
}  # fmt: skip


def labelled(factory, **generator):
    config = runs.config(factory)
    for key, value in {**DCGAN, **generator}.items():
        section, _, name = key.partition("__")
        config[section][name] = value
    return config


CONFIGS = {
    "pix2pix": lambda f: runs.config(f, **{"model__generator__ghost_levels": []}),
    "batch norm": lambda f: runs.config(f, **{"model__generator__norm": "batch"}),
    "dcgan": labelled,
    "stylegan2": lambda f: labelled(f, model__generator=STYLEGAN2),
    "ghost_spade": lambda f: runs.preset(f, "ghost_spade"),
    "segmenter": lambda f: runs.preset(f, "segmenter"),
    "classifier": lambda f: runs.preset(f, "classifier"),
    "super_resolution": lambda f: runs.preset(f, "super_resolution"),
    "zero_dce": lambda f: runs.preset(f, "zero_dce"),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_every_network_has_an_onnx_form(name, tmp_path, tmp_path_factory, draw):
    """With weights that no layer ignores, for batches of 1 and 5."""
    config = CONFIGS[name](tmp_path_factory)
    classes = 4 if config["data"]["condition"] == "tumor+head" else 3
    task = make_task(config, classes=classes)
    init = lambda: task.init(jax.random.PRNGKey(0), inference.example_batch(config, classes)).ema  # noqa: E731
    variables = jax.jit(init)() if name == "stylegan2" else draw(init)
    data = config["data"]
    if restores(config):
        predict = inference.jit_predict(task, inference.to_float)
        side = data["size"] // (data["scale"] if data["condition"] == "low_resolution" else 1)
        stored, shape, output = "degraded", (side, side, data["channels"]), "restored"
    elif is_supervised(config):
        predict = inference.jit_predict(task, inference.to_float)
        stored, shape, output = "images", (data["size"], data["size"], data["channels"]), "logits"
    else:
        predict = inference.jit_predict(task, lambda x: inference.one_hot(x, classes, data["channels"]))
        stored, shape, output = "maps", (data["size"],) * (2 if data["condition"] != "label" else 0), "images"
    docs = {stored: "", output: ""}
    face = interface.Interface("", predict, variables, stored, shape, 1, classes, output, docs)
    onnx_file.write(tmp_path / "n.onnx", face, "float32")
    call = onnx_file.runner(tmp_path / "n.onnx", face)
    for count in (1, 5):
        inputs, seeds = face.example(count)
        expected, noise = flat.drawn(predict, variables, inputs, seeds)
        scale = max(1, np.abs(expected).max())
        assert np.abs(call(inputs, seeds, noise) - expected).max() / scale < 1e-5
    assert np.std(expected) > 0.01
    if name == "batch norm":  # scales are in the convolutions' weights
        assert "Mul" not in {node.op_type for node in onnx.load(tmp_path / "n.onnx").graph.node}


def test_what_was_trained_in_bfloat16_is_exported_in_float32(run, tmp_path, monkeypatch):
    """ONNX Runtime's CPU kernels know no bfloat16."""
    workdir = tmp_path / "run"
    shutil.copytree(run[0], workdir, ignore=shutil.ignore_patterns("export"))
    saved = inference.find(workdir)
    trained = saved._replace(config={**saved.config, "train": {**saved.config["train"], "dtype": "bfloat16"}})
    monkeypatch.setattr(inference, "find", lambda *_: trained)
    results = stage.export(workdir)
    assert [*results] == [*run[1]]
    for name in ("generator.safetensors", "generator.stablehlo", "generator.onnx"):
        assert results[name]["difference"] <= results[name]["tolerance"] <= 1e-4
    assert (
        b"bf16"
        not in jax.export.deserialize((workdir / "export" / "generator.stablehlo").read_bytes())
        .mlir_module()
        .encode()
    )


# ---------------------------------------------------------------- refused
@pytest.mark.parametrize("wrong", [0.01, np.nan])
def test_a_file_that_computes_something_else_leaves_nothing(wrong, run, tmp_path, monkeypatch):
    workdir = tmp_path / "run"
    shutil.copytree(run[0], workdir)
    before = runs.tree_bytes(workdir)
    right = stablehlo.runner
    monkeypatch.setattr(stablehlo, "runner", lambda path: lambda *given: right(path)(*given) + wrong)
    with pytest.raises(
        PixmedError, match=r"generator\.stablehlo: differs from JAX by .*; nothing is exported"
    ):
        stage.export(workdir)
    assert runs.tree_bytes(workdir) == before


@pytest.mark.parametrize("library", ["onnx", "onnxruntime"])
def test_without_the_extra_it_is_named_before_anything_else(library, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(PixmedError, match=rf'{library} is not installed; pip install "pixmed-jax\[onnx\]"'):
        stage.export(tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_without_the_extra_there_are_the_other_files(run, tmp_path, monkeypatch):
    workdir = tmp_path / "run"
    shutil.copytree(run[0], workdir, ignore=shutil.ignore_patterns("export"))
    for library in ("onnx", "onnxruntime"):
        monkeypatch.setitem(sys.modules, library, None)
    assert [*stage.export(workdir, onnx=False)] == ["generator.safetensors", "generator.stablehlo"]


def test_what_else_lies_in_an_export_is_not_replaced(run, tmp_path):
    folder = shutil.copytree(run[0], tmp_path / "run")
    (folder / "export" / "samples").mkdir()
    with pytest.raises(PixmedError, match=r"export: would be replaced, and holds other files \(samples\)"):
        stage.export(folder, onnx=False)
    assert (folder / "export" / "samples").is_dir()


def test_float16_is_told_apart(run, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(run[0], workdir)
    results = stage.export(workdir, dtype="float16")
    for name, told in results.items():
        assert told["difference"] <= told["tolerance"]
        if name != "generator.stablehlo":
            assert told["tolerance"] == stage.HALF and told["bytes"] < run[1][name]["bytes"]
    assert results["generator.safetensors"]["difference"] > 0
