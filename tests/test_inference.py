"""A generator from a checkpoint's files alone: which one is found, what it takes, what decides an image."""

import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest
import runs
from flax.traverse_util import flatten_dict
from hypothesis import given, settings
from hypothesis import strategies as st

import pixmed_jax
from pixmed_jax import inference
from pixmed_jax.data.pipeline import one_hot
from pixmed_jax.errors import PixmedError
from pixmed_jax.evaluation import cost
from pixmed_jax.export import interface
from pixmed_jax.models.layers import PREPARED
from pixmed_jax.training import checkpoint
from pixmed_jax.training.build import make_task


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return runs.trained(tmp_path_factory)


@pytest.fixture(scope="module")
def generate(run, draw):
    return runs.loud(pixmed_jax.load(run), draw)


def label_maps(number: int, seed: int = 0) -> np.ndarray:
    """Blobs of every class, each map another."""
    rng = np.random.default_rng(seed)
    return np.kron(rng.integers(0, 5, (number, 8, 8)), np.ones((4, 4))).astype(np.uint8)


def test_what_a_generator_knows(generate, run):
    assert generate.classes == ("meningioma", "glioma", "pituitary", "head")
    assert (generate.size, generate.grey) == (32, True)
    assert generate.config == checkpoint.finished(run / "checkpoints")[-1].config
    images = generate(label_maps(3))
    assert images.shape == (3, 32, 32, 1) and images.dtype == np.float32
    assert 0 <= images.min() < images.max() <= 1


@pytest.mark.parametrize("platform", ["cpu", "gpu"])
def test_bfloat16_is_for_accelerators(platform, generate, run, draw, monkeypatch):
    """Where the default device is a CPU the images are those of float32, to the bit."""
    saved = inference.find(run)
    trained = saved._replace(config={**saved.config, "train": {**saved.config["train"], "dtype": "bfloat16"}})
    monkeypatch.setattr(inference, "default_platform", lambda: platform)
    other = runs.loud(pixmed_jax.inference.Generator(trained), draw)
    assert other.config["train"]["dtype"] == "bfloat16"  # how it was trained stays told
    difference = np.abs(other(label_maps(2)) - generate(label_maps(2))).max()
    assert difference == 0 if platform == "cpu" else 1e-4 < difference < 0.1


@pytest.mark.parametrize("platform", ["cpu", "gpu"])
def test_images_that_come_one_at_a_time_are_by_prepared_kernels(platform, run, draw, monkeypatch, chosen_by):
    """On CPUs; they are those of a batch but for rounding, and only what is prepared makes them."""
    chosen_by(_FILTERED_CHANNELS=0, _FILTERED_WORK=0, _FEWEST_PREPARED=16, _MOST_PREPARED=64)
    monkeypatch.setattr(inference, "default_platform", lambda: platform)
    generate, maps = runs.loud(pixmed_jax.load(run), draw), label_maps(3)
    together, alone = generate(maps), generate(maps, batch_size=1)
    np.testing.assert_allclose(alone, together, atol=1e-5)
    _, (variables, *_) = generate.one_image(jax.devices("cpu")[0])
    assert (PREPARED in variables) == (platform == "cpu")
    if platform == "cpu":
        made = flatten_dict(variables[PREPARED])
        # 8x8 to 4x4, and back to 16x16; before them are ghost modules, after them more than 64 pixels.
        assert {name[0] for name in made} == {"encoder_3", "decoder_3", "decoder_2"}
        generate._alone = jax.tree.map_with_path(
            lambda path, x: 0 * x if path[0].key == PREPARED else x, generate._alone
        )
        assert np.abs(generate(maps, batch_size=1) - alone).max() > 0.01
    assert PREPARED not in interface.of(generate).variables  # a batch may be of any size there


def test_what_an_image_costs_on_a_cpu_beside_an_accelerator(run, monkeypatch):
    """It is timed as it is computed where there is no accelerator: in float32."""
    saved = inference.find(run)
    trained = saved._replace(config={**saved.config, "train": {**saved.config["train"], "dtype": "bfloat16"}})
    platforms = {None: "gpu", jax.devices("cpu")[0]: "cpu"}
    monkeypatch.setattr(inference, "default_platform", lambda: platforms[jax.config.jax_default_device])
    monkeypatch.setattr(cost, "default_platform", lambda: "gpu")
    programs = []
    monkeypatch.setattr(cost.count, "reserved", lambda compiled: programs.append(compiled.as_text()))
    monkeypatch.setattr(cost, "_ROUNDS", 1)
    model = inference.Generator(trained)
    cost.of_inference(model)
    (program,) = programs
    assert "f32[1,32,32" in program and "bf16[" not in program
    predict, arguments = model.one_image(jax.devices("cpu")[0])
    assert "bf16[" in predict.lower(*arguments).compile().as_text()  # as the model is held here


@pytest.mark.parametrize("device", [None, "cpu", jax.devices("cpu")[0]])
def test_the_default_device_may_be_said_in_three_ways(device):
    with jax.default_device(device):
        assert inference.default_platform() == "cpu"


def test_it_is_the_average_that_samples(run):
    """The state's other networks differ from it after six steps."""
    generate = pixmed_jax.load(run, step=6)
    maps, seeds = label_maps(2), inference.image_seeds(0, 2)
    state, task = runs.state(run), make_task(generate.config)
    predict = inference.jit_predict(task, lambda maps: one_hot(maps, 4, 1))
    expected = inference.in_batches(predict, state.ema, maps, seeds, 8)
    np.testing.assert_array_equal(generate(maps), expected)
    assert np.abs(expected - inference.in_batches(predict, state.generator, maps, seeds, 8)).max() > 1e-4
    # The same through the task itself, one map at a time: batching and padding change nothing that is seen.
    for i in range(2):
        keys = jax.random.key(int(seeds[i]))[None]
        alone = task.predict(state.ema, one_hot(maps[i : i + 1], 4, 1), keys)
        np.testing.assert_allclose(alone[0], expected[i], atol=1e-5)


def test_which_checkpoint_is_found(run, tmp_path):
    scores = {saved.step: saved.score for saved in checkpoint.finished(run / "checkpoints")}
    best = max(scores, key=lambda step: (scores[step], step))
    assert inference.find(run, "best").step == best
    assert inference.find(run).step == max(scores)
    assert inference.find(run / "checkpoints").step == max(scores)
    assert inference.find(run, step=4).step == 4
    with pytest.raises(PixmedError, match=r"no finished step 12345; give .*6, newest or best as step"):
        inference.find(run, step=12345)
    assert inference.find(run / "checkpoints" / "4").step == 4
    with pytest.raises(PixmedError, match="give newest, best or a number"):
        inference.find(run, "latest")
    for path, step in ((tmp_path, "best"), (run, 5), (tmp_path / "nowhere", "newest")):
        with pytest.raises(PixmedError, match="no finished"):
            inference.find(path, step)


def test_a_checkpoint_travels_alone(run, tmp_path):
    """One step's folder under another name, without the run, is the whole model."""
    generate = pixmed_jax.load(run)
    folder = tmp_path / "model"
    shutil.copytree(run / "checkpoints" / str(generate.step), folder)
    elsewhere = pixmed_jax.load(folder)
    maps = label_maps(3)
    assert elsewhere.classes == generate.classes
    assert elsewhere(maps, seed=7).tobytes() == generate(maps, seed=7).tobytes()
    (folder / "_METADATA").write_bytes(b"damaged")
    with pytest.raises(PixmedError, match="_METADATA has changed"):
        pixmed_jax.load(folder)


@pytest.mark.parametrize("shape", [(32, 32), (1, 32, 16), (2, 16, 16), (1, 32, 32, 1)])
def test_maps_of_another_size(generate, shape):
    with pytest.raises(PixmedError, match=r"needs \[N, 32, 32\]") as error:
        generate(np.zeros(shape, np.uint8))
    assert str(list(shape)) in str(error.value)


@pytest.mark.parametrize("value", [5, 255, -1, 0.5, np.nan])
def test_values_that_are_no_class(generate, value):
    maps = np.zeros((1, 32, 32), type(value))
    maps[0, 3, 4] = value
    with pytest.raises(PixmedError, match="1 to 4 for meningioma, glioma, pituitary, head"):
        generate(maps)


def test_a_map_without_its_axis_of_images(generate):
    """Its size is right, so to resize it would help nobody."""
    with pytest.raises(PixmedError, match=r"needs \[N, 32, 32\]; give one as maps\[None\]$"):
        generate(label_maps(1)[0])


def test_a_seed_below_0_is_one_line(generate):
    with pytest.raises(PixmedError, match=r"^seed=-1: give 0 or more$"):
        generate(label_maps(1), seed=-1)


def test_weights_without_their_config(tmp_path):
    """Neither of their file nor of a folder with that alone."""
    weights = tmp_path / "generator.safetensors"
    weights.write_bytes(bytes(64))
    for path in (weights, tmp_path):
        with pytest.raises(PixmedError, match=r"generator\.safetensors: .* config\.json .* give the folder"):
            pixmed_jax.load(path)


def test_what_the_package_offers_is_in_its_listing():
    """As completion in a notebook asks for it, before any of it was used."""
    program = "import sys, pixmed_jax; print(*dir(pixmed_jax)); print('jax' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=runs.ROOT)
    listed, imported = told.stdout.splitlines()
    assert {"Samples", "load", "load_network", "__version__"} <= set(listed.split()) and imported == "False"


def test_whole_numbers_of_any_type(generate):
    maps = label_maps(1)
    for dtype in (np.int64, np.float32):
        np.testing.assert_array_equal(generate(maps.astype(dtype)), generate(maps))


def test_no_maps_and_black_maps(generate):
    assert generate(np.zeros((0, 32, 32), np.uint8)).shape == (0, 32, 32, 1)
    black = generate(np.zeros((1, 32, 32), np.uint8))
    assert np.isfinite(black).all() and black.shape == (1, 32, 32, 1)


def test_the_pure_function_paints_the_same_under_jit_vmap_and_grad(generate):
    maps = np.random.default_rng(0).integers(0, len(generate.classes) + 1, (3, generate.size, generate.size))
    maps[:, :4] = 0
    paint, variables = generate.pure()
    condition = generate.condition(maps.astype(np.uint8))
    assert condition.shape == (*maps.shape, len(generate.classes))
    np.testing.assert_array_equal(condition.argmax(-1) + 1, np.where(maps, maps, 1))
    np.testing.assert_array_equal(condition.sum(-1), maps > 0)
    seeds = np.array([5, 6, 7], np.uint32)
    keys = jax.vmap(jax.random.key)(seeds)
    expected = generate(maps, seeds=seeds)
    np.testing.assert_allclose(jax.jit(paint)(variables, condition, keys), expected, atol=1e-5)

    def alone(key: jax.Array) -> jax.Array:
        return paint(variables, condition[1:2], key[None])[0]

    np.testing.assert_allclose(jax.vmap(alone)(keys)[1], expected[1], atol=1e-5)

    def brightness(condition: jax.Array) -> jax.Array:
        return paint(variables, condition, keys)[0].mean()

    slopes = jax.jit(jax.grad(brightness))(condition)
    assert np.isfinite(slopes).all() and slopes[0].any() and not slopes[1:].any()  # images stand alone
    step = 1e-2 * np.sign(slopes)
    risen = brightness(condition + step) - brightness(condition - step)
    np.testing.assert_allclose(risen, 2 * (slopes * step).sum(), rtol=0.1)


def test_the_seed_decides(generate):
    maps = label_maps(4)
    first = generate(maps, seed=3)
    assert generate(maps, seed=3).tobytes() == first.tobytes()
    other = generate(maps, seed=4)
    assert (np.abs(other - first).max(axis=(1, 2, 3)) > 0).all()
    same_map = generate(np.repeat(maps[:1], 2, axis=0), seed=3)
    assert np.abs(same_map[0] - same_map[1]).max() > 0  # two images of one mask are two images


def test_an_image_does_not_depend_on_its_neighbours(generate):
    """Neither on their number, nor on what they are, nor on its place among them."""
    maps, seeds = label_maps(11), inference.image_seeds(5, 11)
    every = generate(maps, seeds=seeds)
    np.testing.assert_array_equal(generate(maps, seed=5), every)
    np.testing.assert_array_equal(generate(maps[:3], seed=5), every[:3])
    for i in (0, 7, 8, 10):
        np.testing.assert_array_equal(generate(maps[i : i + 1], seeds=seeds[i : i + 1])[0], every[i])
    order = np.random.default_rng(0).permutation(11)
    np.testing.assert_array_equal(generate(maps[order], seeds=seeds[order]), every[order])


@pytest.mark.parametrize("number", [1, 3])
def test_seeds_and_maps_of_different_number(generate, number):
    with pytest.raises(PixmedError, match=rf"{number} seeds for 2 label maps"):
        generate(label_maps(2), seeds=inference.image_seeds(0, number))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**40), count=st.integers(0, 40), more=st.integers(0, 40))
def test_image_seeds(seed, count, more):
    seeds = inference.image_seeds(seed, count)
    assert seeds.dtype == np.uint32 and seeds.shape == (count,)
    np.testing.assert_array_equal(inference.image_seeds(seed, count + more)[:count], seeds)
    assert len(set(seeds.tolist())) == count  # 40 of 2**32: a collision would be a fault


def test_image_seeds_of_other_seeds_share_nothing():
    """Consecutive seeds are what people take; image i of one must not be image i + 1 of the next."""
    every = np.concatenate([inference.image_seeds(seed, 50) for seed in range(20)])
    assert len(set(every.tolist())) == len(every)
