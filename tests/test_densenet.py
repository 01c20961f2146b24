"""DenseNet: Keras's sizes, a forward pass in plain NumPy, Keras's own network, files of ImageNet weights."""

import math
import os
from pathlib import Path

import h5py
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pixmed_jax.errors import PixmedError
from pixmed_jax.models.densenet import DenseNet, read_weights

TINY = {"blocks": (2, 1), "growth": 3, "stem": 5}
# keras.applications without its top: parameters, of them running statistics. Its documentation rounds them.
KERAS = {
    (6, 12, 24, 16): (7_037_504, 83_648),
    (6, 12, 32, 32): (12_642_880, 158_400),
    (6, 12, 48, 32): (18_321_984, 229_056),
}


def numbers(tree) -> int:
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def shapes(network: DenseNet, size: int = 32, channels: int = 3):
    image = jnp.zeros((1, size, size, channels))
    return jax.eval_shape(lambda: network.init(jax.random.key(0), image, train=False))


@pytest.mark.parametrize("blocks", KERAS)
def test_sizes_are_keras_own(blocks):
    found = shapes(DenseNet(classes=0, blocks=blocks))
    assert (numbers(found), numbers(found["batch_stats"])) == KERAS[blocks]


def test_a_top_for_1000_classes_gives_the_number_in_keras_documentation():
    """20.2 M parameters: 20,242,984, that is 1,920 x 1,000 + 1,000 more."""
    assert numbers(shapes(DenseNet(classes=1000))) == 20_242_984 == 18_321_984 + 1920 * 1000 + 1000


# ---------------------------------------------------------------- the forward pass, by hand
def plain(variables, image: np.ndarray, blocks: tuple[int, ...]) -> np.ndarray:
    """[H, W, 3] -> logits, with loops, from Huang et al., Section 3, and Keras's padding."""
    params, stats = variables["params"], variables["batch_stats"]

    def conv(x, name, stride=1):
        kernel = np.asarray(params[name]["kernel"], np.float64)
        size = kernel.shape[0]
        x = np.pad(x, ((size // 2,) * 2, (size // 2,) * 2, (0, 0)))
        rows = range(0, x.shape[0] - size + 1, stride)
        columns = range(0, x.shape[1] - size + 1, stride)
        return np.array(
            [
                [np.tensordot(x[i : i + size, j : j + size], kernel, ([0, 1, 2], [0, 1, 2])) for j in columns]
                for i in rows
            ]
        )

    def act(x, name):
        p, s = params[name]["batch"], stats[name]["batch"]
        x = (x - s["mean"]) / np.sqrt(s["var"] + 1.001e-5) * p["scale"] + p["bias"]
        return np.maximum(x, 0)

    x = act(conv(image, "conv1_conv", 2), "conv1_bn")
    x = np.pad(x, ((1, 1), (1, 1), (0, 0)))
    h, w = (x.shape[0] - 1) // 2, (x.shape[1] - 1) // 2
    x = np.array([[x[2 * i : 2 * i + 3, 2 * j : 2 * j + 3].max((0, 1)) for j in range(w)] for i in range(h)])
    for b, layers in enumerate(blocks):
        for i in range(layers):
            name = f"conv{b + 2}_block{i + 1}"
            y = conv(act(x, f"{name}_0_bn"), f"{name}_1_conv")
            x = np.concatenate([x, conv(act(y, f"{name}_1_bn"), f"{name}_2_conv")], -1)
        if b + 1 < len(blocks):
            x = conv(act(x, f"pool{b + 2}_bn"), f"pool{b + 2}_conv")
            x = x.reshape(x.shape[0] // 2, 2, x.shape[1] // 2, 2, -1).mean((1, 3))
    top = params["predictions"]
    return act(x, "bn").mean((0, 1)) @ np.asarray(top["kernel"], np.float64) + top["bias"]


@pytest.mark.parametrize("imagenet", [False, True])
def test_forward_equals_plain_numpy(draw, imagenet):
    network = DenseNet(classes=4, imagenet=imagenet, **TINY)
    images = np.random.default_rng(1).uniform(size=(2, 16, 16, 3)).astype(np.float32)
    variables = draw(lambda: network.init(jax.random.key(0), images, train=False))
    logits = np.asarray(network.apply(variables, images, train=False))
    assert logits.std() > 0.1, "the test would not hear a layer"
    if imagenet:  # Keras's mode "torch", from torchvision's documentation
        images = (images - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    by_hand = [plain(variables, image.astype(np.float64), TINY["blocks"]) for image in images]
    np.testing.assert_allclose(logits, by_hand, rtol=1e-4, atol=1e-5)


def test_grey_is_the_same_picture_in_three_channels(draw):
    network = DenseNet(classes=3, **TINY)
    grey = np.random.default_rng(1).uniform(size=(2, 16, 16, 1)).astype(np.float32)
    variables = draw(lambda: network.init(jax.random.key(0), grey, train=False))
    assert variables["params"]["conv1_conv"]["kernel"].shape == (7, 7, 3, 5)
    ours = network.apply(variables, grey, train=False)
    np.testing.assert_array_equal(ours, network.apply(variables, np.repeat(grey, 3, -1), train=False))


def test_training_takes_the_batchs_statistics_and_writes_them_down(draw):
    network = DenseNet(classes=3, **TINY)
    images = np.random.default_rng(1).uniform(size=(4, 16, 16, 3)).astype(np.float32)
    variables = draw(lambda: network.init(jax.random.key(0), images, train=False))
    twice = np.concatenate([images, images + 1])
    train = lambda x: network.apply(variables, x, train=True, mutable=["batch_stats"])  # noqa: E731
    logits, new = train(twice)
    assert not np.allclose(logits[:4], train(images)[0], atol=1e-3)
    assert not np.allclose(logits[:4], network.apply(variables, images, train=False), atol=1e-3)
    old = variables["batch_stats"]["bn"]["batch"]["mean"]
    assert not np.allclose(new["batch_stats"]["bn"]["batch"]["mean"], old)


# ---------------------------------------------------------------- Keras itself
@pytest.fixture(scope="module")
def keras():
    os.environ["KERAS_BACKEND"] = "jax"
    pytest.importorskip("keras", reason="Keras is no dependency; pip install keras to compare with it")
    import keras

    assert keras.backend.backend() == "jax"
    return keras


def keras_file(keras, blocks: tuple[int, ...], path: Path):
    """Keras's network without a top, all its numbers random, and its weights in its older layout."""
    from keras.src.applications.densenet import DenseNet as KerasDenseNet  # any number of blocks
    from keras.src.legacy.saving import legacy_h5_format

    model = KerasDenseNet(
        list(blocks), include_top=False, weights=None, input_shape=(32, 32, 3), pooling="avg"
    )
    generator = np.random.default_rng(0)
    values = []
    for weight in model.weights:
        x = generator.normal(size=weight.shape)
        name = weight.path.split("/")[-1]
        x = {
            "kernel": lambda x: x * np.sqrt(2 / np.prod(x.shape[:-1])),
            "gamma": lambda x: 1 + 0.2 * x,
            "beta": lambda x: 0.2 * x,
            "moving_mean": lambda x: 0.2 * x,
            "moving_variance": lambda x: 0.5 + np.abs(x),
        }[name](x)
        values.append(x)
    model.set_weights(values)
    with h5py.File(path, "w") as file:
        legacy_h5_format.save_weights_to_hdf5_group(file, model)
    return model


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Keras's own
@pytest.mark.parametrize(
    "blocks", [(2, 1, 2, 1), pytest.param((6, 12, 48, 32), marks=pytest.mark.slow, id="DenseNet201")]
)
def test_equals_keras_with_its_weights(keras, tmp_path, blocks):
    """Keras preprocesses outside of the network, so its input is normalised by its own function here."""
    path = tmp_path / "densenet.h5"
    model = keras_file(keras, blocks, path)
    network = DenseNet(classes=0, blocks=blocks, imagenet=True)
    variables = read_weights(path, shapes(network), "model.network.weights")
    assert numbers(variables) == model.count_params()
    images = np.random.default_rng(2).uniform(size=(2, 32, 32, 3)).astype(np.float32)
    theirs = model(keras.applications.densenet.preprocess_input(images * 255.0), training=False)
    ours = jax.jit(lambda v, x: network.apply(v, x, train=False))(variables, images)
    assert np.std(theirs) > 0.1
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


# ---------------------------------------------------------------- files of weights
NETWORK = DenseNet(classes=3, **TINY)


def keras_layout(path: Path, variables, rename=lambda name: name) -> None:
    """The older layout: LAYER/LAYER/kernel:0."""
    names = {
        "kernel": "kernel",
        "scale": "gamma",
        "bias": "beta",
        "mean": "moving_mean",
        "var": "moving_variance",
    }
    with h5py.File(path, "w") as file:
        for tree in variables.values():
            for layer, inner in tree.items():
                for leaf, value in inner.get("batch", inner).items():
                    layer_name = rename(layer)
                    file[f"{layer_name}/{layer_name}/{names[leaf]}:0"] = value


@pytest.fixture
def pair(draw):
    """Weights of a file, and those of a network before it reads them."""
    init = lambda: NETWORK.init(jax.random.key(0), jnp.zeros((1, 16, 16, 3)), train=False)  # noqa: E731
    return draw(init, seed=1), draw(init, seed=2)


def assert_taken(new, file, before) -> None:
    """All layers are the file's but the last, which knows other classes."""
    tops = [v["params"]["predictions"]["kernel"] for v in (new, file, before)]
    assert np.array_equal(tops[0], tops[2]) and not np.array_equal(tops[0], tops[1])
    for kind in ("params", "batch_stats"):
        assert set(new[kind]) == set(before[kind])
        for layer in set(file[kind]) - {"predictions"}:
            for a, b in zip(
                jax.tree.leaves(new[kind][layer]), jax.tree.leaves(file[kind][layer]), strict=True
            ):
                assert np.array_equal(a, b), layer


@pytest.mark.parametrize("older", [False, True])
def test_keras_files_are_read_by_layer_names(tmp_path, pair, older):
    """Until 2024 the first layer was called conv1/conv."""
    file, before = pair
    path = tmp_path / "weights.h5"
    keras_layout(
        path, file, lambda n: n.replace("conv1_", "conv1/") if older and n.startswith("conv1_") else n
    )
    assert_taken(read_weights(path, before, "weights"), file, before)


# torchvision.models.densenet's names of the tiny network's arrays, written down by hand.
TORCHVISION = {
    "conv1_conv": "features.conv0",
    "conv1_bn": "features.norm0",
    "conv2_block1_0_bn": "features.denseblock1.denselayer1.norm1",
    "conv2_block1_1_conv": "features.denseblock1.denselayer1.conv1",
    "conv2_block1_1_bn": "features.denseblock1.denselayer1.norm2",
    "conv2_block1_2_conv": "features.denseblock1.denselayer1.conv2",
    "conv2_block2_0_bn": "features.denseblock1.denselayer2.norm1",
    "conv2_block2_1_conv": "features.denseblock1.denselayer2.conv1",
    "conv2_block2_1_bn": "features.denseblock1.denselayer2.norm2",
    "conv2_block2_2_conv": "features.denseblock1.denselayer2.conv2",
    "pool2_bn": "features.transition1.norm",
    "pool2_conv": "features.transition1.conv",
    "conv3_block1_0_bn": "features.denseblock2.denselayer1.norm1",
    "conv3_block1_1_conv": "features.denseblock2.denselayer1.conv1",
    "conv3_block1_1_bn": "features.denseblock2.denselayer1.norm2",
    "conv3_block1_2_conv": "features.denseblock2.denselayer1.conv2",
    "bn": "features.norm5",
}


def test_torchvision_files_are_read(tmp_path, pair):
    numpy = pytest.importorskip("safetensors.numpy")
    file, before = pair
    leaves = {
        "kernel": "weight",
        "scale": "weight",
        "bias": "bias",
        "mean": "running_mean",
        "var": "running_var",
    }
    arrays = {"classifier.weight": np.zeros((1000, 9), np.float32)}
    for tree in file.values():
        for layer, inner in tree.items():
            if layer == "predictions":
                continue
            for leaf, value in inner.get("batch", inner).items():
                value = value.transpose(3, 2, 0, 1) if value.ndim == 4 else value  # HWIO -> OIHW
                arrays[f"{TORCHVISION[layer]}.{leaves[leaf]}"] = np.ascontiguousarray(value)
    path = tmp_path / "densenet.safetensors"
    numpy.save_file(arrays, path)
    assert_taken(read_weights(path, before, "weights"), file, before)

    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(PixmedError, match="no readable safetensors"):
        read_weights(path, before, "weights")


def test_files_that_do_not_fit_are_refused_in_a_line(tmp_path, pair):
    file, before = pair

    def refused(path: Path, why: str) -> None:
        with pytest.raises(PixmedError, match=why) as caught:
            read_weights(path, before, "model.network.weights")
        assert "\n" not in str(caught.value) and str(path) in str(caught.value)

    refused(tmp_path / "none.h5", "no such file; set model.network.weights")
    (tmp_path / "weights.pkl").write_bytes(b"cos\nsystem\n")
    refused(tmp_path / "weights.pkl", "takes a Keras .h5 or a torchvision .safetensors")
    (tmp_path / "text.h5").write_text("not HDF5")
    refused(tmp_path / "text.h5", "no readable HDF5")

    smaller = {k: {n: v for n, v in tree.items() if "block2" not in n} for k, tree in file.items()}
    keras_layout(tmp_path / "fewer.h5", smaller)
    # 8 kernels, and 9 norms with 4 arrays each
    refused(tmp_path / "fewer.h5", r"lacks 10 of 44 arrays \(conv2_block2_")

    keras_layout(tmp_path / "shape.h5", file)
    with h5py.File(tmp_path / "shape.h5", "a") as h5:
        del h5["bn/bn/gamma:0"]
        h5["bn/bn/gamma:0"] = np.zeros((2**20, 4), np.float32)
    refused(tmp_path / "shape.h5", r"1 arrays of another shape \(bn/scale \[1048576, 4\] instead of \[8\]")

    keras_layout(tmp_path / "nan.h5", file)
    with h5py.File(tmp_path / "nan.h5", "a") as h5:
        h5["bn/bn/gamma:0"][2] = np.nan
    refused(tmp_path / "nan.h5", "params.bn.scale hold NaN")
