"""The generator: the paper's size by hand, the range of its images, its noise and its statistics."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pixmed_jax.errors import PixmedError
from pixmed_jax.models import count
from pixmed_jax.models.ghost import GhostModule
from pixmed_jax.models.layers import Conv, ConvTranspose, Norm
from pixmed_jax.models.unet import UNet

# pix2pix, Section 6.1.1, at 256x256 with 3 channels in and out: (maps in, maps out, pixels a side).
ENCODER = [  # pixels of the output
    (3, 64, 128),
    (64, 128, 64),
    (128, 256, 32),
    (256, 512, 16),
    (512, 512, 8),
    (512, 512, 4),
    (512, 512, 2),
    (512, 512, 1),
]
DECODER = [  # pixels of the input, where a transposed convolution applies its kernel; maps in with the skip
    (512, 512, 1),
    (1024, 512, 2),
    (1024, 512, 4),
    (1024, 512, 8),
    (1024, 256, 16),
    (512, 128, 32),
    (256, 64, 64),
    (128, 3, 128),
]


def by_hand(ghost_levels: tuple[int, ...]) -> tuple[int, int]:
    """(parameters, MACs) of the tables above, the encoder's named levels as ghost modules of ratio 2."""
    parameters = macs = 0
    for level, (maps_in, maps, side) in enumerate(ENCODER, 1):
        half = maps // 2
        kernel = 9 * maps_in * half + 9 * half if level in ghost_levels else 16 * maps_in * maps
        parameters += kernel + (2 * maps if 1 < level < 8 else 0)
        macs += kernel * side**2
    for maps_in, maps, side in DECODER:
        kernel = 16 * maps_in * maps
        parameters += kernel + (
            2 * maps if maps > 3 else maps
        )  # scale and bias of the norm, or the only bias
        macs += kernel * side**2
    return parameters, macs


@pytest.mark.parametrize(
    ("ghost_levels", "parameters", "macs"),
    [
        ((1, 2, 3, 4), 52_437_699, 4_863_229_952),  # "52.44 MB" in the paper
        ((), 54_413_955, 6_048_186_368),  # pix2pix's own U-Net-256
    ],
)
def test_size_of_the_papers_generator(ghost_levels, parameters, macs):
    condition = jnp.zeros((1, 256, 256, 3))
    rngs = {"params": jax.random.key(0), "dropout": jax.random.key(0)}
    found = count.size(UNet(ghost_levels=ghost_levels), lambda unet: unet.init(rngs, condition, train=True))
    assert by_hand(ghost_levels) == (parameters, macs)
    assert found[:2] == (parameters, macs)


# ---------------------------------------------------------------- a small one
SMALL = UNet(out_channels=2, width=4, levels=5, ghost_levels=(1, 2))


@pytest.fixture(scope="module")
def condition() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 2, (3, 32, 32, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def variables(draw: Callable, condition: np.ndarray) -> dict:
    rngs = {"params": jax.random.key(0), "dropout": jax.random.key(0)}
    return draw(lambda: SMALL.init(rngs, condition, train=True))


@pytest.fixture(scope="module")
def generate() -> Callable[..., np.ndarray]:
    """(variables, condition, seed) -> images outside training; no noise for seed None."""

    @jax.jit
    def noisy(variables: dict, condition: jax.Array, key: jax.Array) -> jax.Array:
        return SMALL.apply(variables, condition, train=False, rngs={"dropout": key})

    @jax.jit
    def quiet(variables: dict, condition: jax.Array) -> jax.Array:
        return SMALL.apply(variables, condition, train=False, noise=False)

    def call(variables: dict, condition: np.ndarray, seed: int | None = None) -> np.ndarray:
        key = None if seed is None else jax.random.key(seed)
        return np.asarray(quiet(variables, condition) if key is None else noisy(variables, condition, key))

    return call


@pytest.mark.parametrize(("bias", "grey"), [(-50.0, 0.0), (0.0, 0.5), (50.0, 1.0)])
def test_images_reach_from_0_to_1(generate, variables, condition, bias, grey):
    """With a last kernel of zeros the image is (tanh(bias) + 1) / 2 everywhere."""
    last = variables["params"]["decoder_1"]
    last = {"kernel": 0 * last["kernel"], "bias": 0 * last["bias"] + bias}
    image = generate({**variables, "params": variables["params"] | {"decoder_1": last}}, condition)
    assert image.shape == (3, 32, 32, 2)
    assert image.dtype == np.float32
    np.testing.assert_array_equal(image, np.float32(grey))


def test_what_follows_what_by_single_layers(draw, condition):
    """pix2pix, Section 6.1.1: leaky ReLU down, ReLU up, the skip behind what comes up, activated likewise; no
    norm at either end of the encoder. The second level is a ghost module of other sizes than usual."""
    ghost = {"ratio": 4, "kernel_size": 4, "cheap_kernel_size": 1}
    network = UNet(
        out_channels=1, width=2, levels=4, ghost_levels=(2,), ghost_ratio=4, ghost_kernel=4, cheap_kernel=1
    )
    variables = draw(lambda: network.init(jax.random.key(0), condition, train=True, noise=False))

    def run(module: nn.Module, name: str, x: jax.Array) -> jax.Array:
        return module.apply({kind: tree.get(name, {}) for kind, tree in variables.items()}, x)

    def normed(name: str, x: jax.Array) -> jax.Array:
        return run(Norm("batch", False), f"{name}_norm", x)

    def down(features: int, level: int, x: jax.Array) -> jax.Array:
        return run(Conv(features, 4, stride=2, use_bias=False), f"encoder_{level}", x)

    @jax.jit
    def plain(x: jax.Array) -> jax.Array:
        skips = [nn.leaky_relu(down(2, 1, x), 0.2)]
        skips.append(run(GhostModule(4, **ghost, train=False), "encoder_2", skips[0]))
        skips.append(nn.leaky_relu(normed("encoder_3", down(8, 3, skips[1])), 0.2))
        x = nn.relu(down(16, 4, skips[2]))  # ReLU after leaky ReLU is ReLU
        for level, features in ((4, 8), (3, 4), (2, 2)):
            x = run(ConvTranspose(features, use_bias=False), f"decoder_{level}", x)
            x = nn.relu(jnp.concatenate([normed(f"decoder_{level}", x), skips[level - 2]], -1))
        return (jnp.tanh(run(ConvTranspose(1), "decoder_1", x)) + 1) / 2

    expected = np.asarray(plain(condition))
    found = jax.jit(lambda x: network.apply(variables, x, train=False, noise=False))(condition)
    assert expected.std() > 0.05
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_every_norm_of_several_devices_is_that_of_the_whole_batch(draw, condition):
    """The ghost module's and the decoder's; two devices with two images each."""
    network = UNet(out_channels=1, width=2, levels=3, ghost_levels=(2,), axis_name="devices")
    whole = network.clone(axis_name=None)
    images = np.concatenate([condition, 0.5 * condition[:1]])[:, ::2, ::2]
    variables = draw(lambda: whole.init(jax.random.key(0), images, train=True, noise=False))

    def paint(network: UNet, x: jax.Array) -> jax.Array:
        return network.apply(variables, x, train=True, noise=False, mutable=["batch_stats"])[0]

    halves = jax.jit(jax.vmap(lambda x: paint(network, x), axis_name="devices"))(
        images.reshape(2, 2, *images.shape[1:])
    )
    np.testing.assert_allclose(
        halves.reshape((*images.shape[:3], 1)), jax.jit(lambda x: paint(whole, x))(images), atol=1e-5
    )


def test_dropout_is_the_noise(generate, variables, condition):
    one, again, other = (generate(variables, condition, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert np.abs(one - other).max() > 1e-2
    quiet = generate(variables, condition)
    assert np.abs(one - quiet).max() > 1e-2
    none = SMALL.clone(dropout=0.0)
    without = jax.jit(lambda: none.apply(variables, condition, train=False))()
    np.testing.assert_allclose(quiet, without, atol=1e-6)


def test_dropout_is_on_the_first_three_decoder_levels(condition):
    seen = []

    def record(call: Callable, args: tuple, kwargs: dict, context: nn.module.InterceptorContext) -> jax.Array:
        if isinstance(context.module, nn.Dropout):
            seen.append((args[0].shape[1:], context.module.rate))
        return call(*args, **kwargs)

    rngs = {"params": jax.random.key(0), "dropout": jax.random.key(0)}
    with nn.intercept_methods(record):
        jax.eval_shape(lambda: SMALL.init(rngs, condition, train=False))
    # 8 x width at the three lowest levels but the innermost, then 4 x width.
    assert seen == [((2, 2, 32), 0.5), ((4, 4, 16), 0.5), ((8, 8, 8), 0.5)]


def test_each_skip_goes_past_the_levels_below(variables, condition):
    """Where the decoder's first three levels are dropped whole, only the two skips past them speak."""
    dead = SMALL.clone(dropout=1.0)

    def total(params: dict) -> jax.Array:
        image = dead.apply(
            {**variables, "params": params}, condition, train=False, rngs={"dropout": jax.random.key(0)}
        )
        return (image * np.arange(32).reshape(32, 1)).sum()

    gradient = jax.jit(jax.grad(total))(variables["params"])
    heard = {name: any(np.any(leaf) for leaf in jax.tree.leaves(gradient[name])) for name in gradient}
    assert [heard[f"encoder_{i}"] for i in (1, 2, 3, 4, 5)] == [True, True, False, False, False]
    assert [heard[f"decoder_{i}"] for i in (1, 2, 3, 4, 5)] == [True, True, False, False, False]


def test_outside_training_an_image_does_not_depend_on_its_neighbours(generate, variables, condition):
    others = np.concatenate([condition[:1], 1 - condition[1:]])
    image = generate(variables, condition)[0]
    np.testing.assert_allclose(generate(variables, others)[0], image, atol=1e-6)

    @jax.jit
    def trained(condition: jax.Array) -> tuple[jax.Array, dict]:
        return SMALL.apply(variables, condition, train=True, noise=False, mutable=["batch_stats"])

    in_training, updated = trained(condition)
    assert np.abs(trained(others)[0][0] - in_training[0]).max() > 1e-2  # there it does
    # The running statistics moved, and they are what images are made with outside training.
    assert np.abs(generate({**variables, **updated}, condition)[0] - image).max() > 1e-2


def test_bfloat16_changes_the_arithmetic_only(generate, variables, condition):
    half = SMALL.clone(dtype=jnp.bfloat16)
    image = jax.jit(lambda: half.apply(variables, condition, train=False, noise=False))()
    assert image.dtype == jnp.float32
    difference = np.abs(image - generate(variables, condition)).max()
    assert 0 < difference < 0.1


@pytest.mark.parametrize("shape", [(48, 32), (32, 48)])
def test_a_size_that_cannot_be_halved_often_enough_is_refused(shape):
    with pytest.raises(ValueError, match=r"is not a multiple of 2\*\*5"):
        jax.eval_shape(lambda: SMALL.init(jax.random.key(0), jnp.zeros((1, *shape, 3)), train=False))


@pytest.mark.parametrize("level", [0, 6])
def test_a_ghost_level_that_there_is_not_is_refused(level):
    with pytest.raises(PixmedError, match=rf"ghost_levels: {level} is none of the levels 1 to 5"):
        SMALL.clone(ghost_levels=(1, level, 5)).check(32, "model.generator")
