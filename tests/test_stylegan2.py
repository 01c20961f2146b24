"""StyleGAN2's parts against plain loops, SciPy and numbers counted by hand; what a class and w do."""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import runs
from scipy.signal import convolve2d, correlate2d, upfirdn

from pixmed_jax import inference
from pixmed_jax.models import count, stylegan2
from pixmed_jax.models.stylegan2 import (
    EqualConv,
    EqualDense,
    Mapping,
    StyledConv,
    StyleGAN2Discriminator,
    StyleGAN2Generator,
)
from pixmed_jax.training.loop import train


# ---------------------------------------------------------------- size
def by_hand(base: int, classes: int) -> tuple[int, int]:
    """(generator's, discriminator's) parameters at 256x256, three channels (Figures 2 and 7)."""

    def maps(size: int) -> int:
        return min(512, base // size)

    def dense(inputs: int, outputs: int) -> int:
        return inputs * outputs + outputs

    embed = dense(classes, 512) if classes else 0
    generator = embed + dense(512 + bool(classes) * 512, 512) + 7 * dense(512, 512) + 16 * maps(4)
    for size in (4, 8, 16, 32, 64, 128, 256):
        for inputs in (maps(size),) if size == 4 else (maps(size // 2), maps(size)):
            generator += (
                9 * inputs * maps(size) + maps(size) + 1 + dense(512, inputs)
            )  # kernel, bias, noise, style
        generator += 3 * maps(size) + 3 + dense(512, maps(size))
    discriminator = dense(3, maps(256))
    for size in (256, 128, 64, 32, 16, 8):
        discriminator += dense(9 * maps(size), maps(size)) + dense(9 * maps(size), maps(size // 2))
        discriminator += maps(size) * maps(size // 2)
    discriminator += dense(9 * (512 + 1), 512) + dense(16 * 512, 512) + dense(512, 512 if classes else 1)
    return generator, discriminator + (embed + 8 * dense(512, 512) if classes else 0)


@pytest.mark.parametrize(
    ("base", "classes", "parameters"),
    [
        (32768, 0, (30_034_338, 28_864_129)),  # configuration F at 256x256, as the official code prints them
        (16384, 0, (24_767_458, 24_001_089)),  # ADA's paper256, likewise
        (16384, 3, None),
    ],
)
def test_parameters_at_256_pixels(base, classes, parameters):
    condition, image = jnp.zeros((1, classes)), jnp.zeros((1, 256, 256, 3))
    generator, discriminator = (
        StyleGAN2Generator(channel_base=base),
        StyleGAN2Discriminator(channel_base=base),
    )
    keys = {"params": jax.random.key(0), "noise": jax.random.key(0)}
    found = (
        count.size(generator, lambda network: network.init(keys, condition, train=True)),
        count.size(discriminator, lambda network: network.init(keys, condition, image)),
    )
    assert tuple(size.parameters for size in found) == by_hand(base, classes)
    assert parameters in (None, by_hand(base, classes))


def test_multiplications_of_a_small_pair():
    """A convolution counts at each pixel of its output, one that doubles at those of its input."""
    condition, image = jnp.zeros((1, 3)), jnp.zeros((1, 8, 8, 1))
    keys = {"params": jax.random.key(0), "noise": jax.random.key(0)}
    settings = {"mapping_layers": 1, "channel_base": 32, "channel_max": 6}
    generator = StyleGAN2Generator(8, 1, latent=5, width=7, style_mixing=0, **settings)
    found = count.size(generator, lambda network: network.init(keys, condition, train=True))
    mapping = 3 * 7 + (5 + 7) * 7
    styles = 7 * (6 + 6 + 6 + 4 + 4)  # of the convolutions' and the images' inputs: 6 maps at 4x4, 4 at 8x8
    convolutions = 9 * (6 * 6 * 16 + 6 * 4 * 16 + 4 * 4 * 64) + 6 * 16 + 4 * 64
    assert found.macs == mapping + styles + convolutions
    found = count.size(
        StyleGAN2Discriminator(**settings), lambda network: network.init(keys, condition, image)
    )
    convolutions = 4 * 64 + 9 * (4 * 4 * 64 + 4 * 6 * 16) + 4 * 6 * 16 + 9 * 7 * 6 * 16
    assert found.macs == convolutions + 16 * 6 * 6 + 6 * 6 + 3 * 6 + 6 * 6


# ---------------------------------------------------------------- filters and convolutions
TAPS = np.array([1, 3, 3, 1]) / 8


def along_both(x: np.ndarray, filtered: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """`filtered` on each row and on each column of [N, H, W, C]."""
    return np.apply_along_axis(filtered, 2, np.apply_along_axis(filtered, 1, x))


def test_resampling_is_that_of_scipy():
    x = np.random.default_rng(0).normal(size=(2, 6, 8, 3))
    doubled = along_both(x, lambda row: upfirdn(2 * TAPS, row, up=2)[1:-1])
    np.testing.assert_allclose(stylegan2.upsample(jnp.asarray(x)), doubled, atol=1e-6)
    halved = along_both(x, lambda row: upfirdn(TAPS, row)[2:-1:2])
    np.testing.assert_allclose(stylegan2.downsample(jnp.asarray(x)), halved, atol=1e-6)
    assert doubled.shape == (2, 12, 16, 3)
    assert halved.shape == (2, 3, 4, 3)
    flat = stylegan2.upsample(jnp.ones((1, 4, 4, 1)))[0, 1:-1, 1:-1, 0]
    np.testing.assert_allclose(flat, 1, atol=1e-6)  # an even grey stays what it is


def plain_convolution(
    x: np.ndarray, kernel: np.ndarray, style: np.ndarray, resample: str, demodulate: bool
) -> np.ndarray:
    """Each image by itself with its own kernel, one map into another at a time; Equations 1 and 3."""
    images = []
    for image, scales in zip(x, style, strict=True):
        own = kernel * scales[:, None]
        if demodulate:
            own = own / np.sqrt(np.square(own).sum((0, 1, 2)) + 1e-8)
        maps = []
        for out in range(kernel.shape[3]):
            total = 0.0
            for i in range(kernel.shape[2]):
                plane, taps = image[:, :, i], own[:, :, i, out]
                if resample == "up":  # zeros between the pixels, the kernel, then the filter: 2H + 1 to 2H
                    sparse = np.zeros((2 * len(plane) - 1, 2 * len(plane) - 1))
                    sparse[::2, ::2] = plane
                    full = convolve2d(sparse, taps)
                    plane = correlate2d(np.pad(full, 1), 4 * np.outer(TAPS, TAPS), "valid")
                elif resample == "down" and len(taps) == 1:
                    smooth = correlate2d(np.pad(plane, 1), np.outer(TAPS, TAPS), "valid")
                    plane = smooth[::2, ::2] * taps
                elif resample == "down":
                    smooth = correlate2d(np.pad(plane, 2), np.outer(TAPS, TAPS), "valid")
                    plane = correlate2d(smooth, taps, "valid")[::2, ::2]
                else:
                    plane = correlate2d(plane, taps, "same")
                total = total + plane
            maps.append(total)
        images.append(np.stack(maps, -1))
    return np.stack(images)


@pytest.mark.parametrize(
    ("resample", "size", "demodulate"),
    [("", 3, True), ("up", 3, True), ("down", 3, True), ("down", 1, True), ("", 1, False), ("up", 3, False)],
)
def test_a_modulated_convolution_is_that_of_each_images_own_kernel(resample, size, demodulate):
    generator = np.random.default_rng(0)
    x, kernel = generator.normal(size=(3, 6, 6, 4)), generator.normal(size=(size, size, 4, 5))
    style = generator.normal(size=(3, 4)) * np.array([[0.1], [1], [30]])
    layer = EqualConv(5, size, resample, demodulate=demodulate, use_bias=False)
    inputs = (x.astype(np.float32), style.astype(np.float32))
    found = jax.jit(layer.apply)({"params": {"kernel": kernel.astype(np.float32)}}, *inputs)
    expected = plain_convolution(x, kernel / np.sqrt(size * size * 4), style, resample, demodulate)
    assert found.shape == (3, *{"": (6, 6), "up": (12, 12), "down": (3, 3)}[resample], 5)
    for image, plain in zip(found, expected, strict=True):
        np.testing.assert_allclose(image, plain, atol=1e-5 * np.abs(plain).max())


def test_demodulated_maps_have_unit_variance():
    """For independent inputs of variance 1, whatever the styles; without demodulation they do not."""
    generator = np.random.default_rng(0)
    x = generator.normal(size=(3, 64, 64, 8)).astype(np.float32)
    style = np.exp(generator.normal(size=(3, 8))).astype(np.float32) * np.array(
        [[0.01], [1], [100]], np.float32
    )
    params = {"params": {"kernel": generator.normal(size=(3, 3, 8, 6)).astype(np.float32)}}
    maps = jax.jit(EqualConv(6, 3, use_bias=False).apply)(params, x, style)[:, 1:-1, 1:-1]
    np.testing.assert_allclose(np.std(maps, (1, 2)), 1, atol=0.06)  # 3,844 pixels: 0.02 apart by chance
    maps = jax.jit(EqualConv(6, 3, demodulate=False, use_bias=False).apply)(params, x, style)
    assert np.ptp(np.log10(np.std(maps, (1, 2)))) > 3


def test_learning_rates_are_equalised():
    """A weight and a bias moved by 1 move the output by rate / sqrt(inputs) and by rate."""
    params = {"kernel": np.zeros((4, 2), np.float32), "bias": np.zeros(2, np.float32)}
    x = np.array([[1.0, 0, 0, 0]], np.float32)

    def moved(layer: EqualDense, **by: float) -> list[float]:
        return layer.apply({"params": {n: v + by.get(n, 0) for n, v in params.items()}}, x)[0].tolist()

    slow = EqualDense(2, rate=0.01)
    assert moved(slow, kernel=1) == pytest.approx([0.005] * 2)
    assert moved(slow, bias=1) == pytest.approx([0.01] * 2)
    assert moved(EqualDense(2), kernel=1) == pytest.approx([0.5] * 2)
    # The start does not depend on the rate: outputs of variance 1, and the bias that was asked for.
    for rate in (1.0, 0.01):
        layer = EqualDense(400, rate=rate, bias=3.0)
        x_many = np.random.default_rng(0).normal(size=(50, 100))
        y, variables = layer.init_with_output(jax.random.key(0), x_many)
        assert float(jnp.std(variables["params"]["kernel"])) == pytest.approx(1 / rate, rel=0.02)
        assert (float(y.mean()), float(y.std())) == pytest.approx((3, 1), abs=0.05)


def test_a_latents_length_means_nothing_and_a_class_does():
    network = Mapping(8, 2)
    latent, classes = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32), np.eye(3)[[0, 1, 2]]
    params = network.init(jax.random.key(0), latent, classes)
    apply = jax.jit(lambda latent, classes: network.apply(params, latent, classes))
    w = apply(latent, classes)
    np.testing.assert_allclose(apply(7 * latent, classes), w, rtol=1e-4, atol=1e-5)
    assert np.abs(apply(latent, classes[::-1]) - w)[[0, 2]].max(1).min() > 1e-2
    np.testing.assert_allclose(np.square(stylegan2.pixel_norm(latent)).mean(1), 1, rtol=1e-5)


def test_noise_has_the_strength_that_was_learned():
    """With a kernel of zeros sqrt 2 (strength n + bias) is left, where that is positive."""
    layer = StyledConv(5)
    x, w = jnp.ones((4, 32, 32, 3)), jnp.ones((4, 2))
    params = jax.tree.map(jnp.zeros_like, layer.init(jax.random.key(0), x, w, False)["params"])

    def maps(strength: float, seed: int, noise: bool = True) -> np.ndarray:
        set_to = params | {"noise_strength": jnp.float32(strength), "bias": jnp.full(5, 10.0)}
        return layer.apply({"params": set_to}, x, w, noise, rngs={"noise": jax.random.key(seed)})

    noisy = maps(0.5, 0)
    assert float(noisy.mean()) == pytest.approx(10 * 2**0.5, rel=1e-2)
    assert float(noisy.std()) == pytest.approx(0.5 * 2**0.5, rel=5e-2)
    np.testing.assert_array_equal(noisy, noisy[..., :1] + 0 * noisy)  # the same for all maps of a pixel
    assert np.abs(noisy[0] - noisy[1]).max() > 0.1  # another for each image
    assert np.abs(noisy - maps(0.5, 1)).max() > 0.1
    np.testing.assert_allclose(maps(0.5, 0, noise=False), 10 * 2**0.5, rtol=1e-6)
    np.testing.assert_allclose(maps(0.0, 0), 10 * 2**0.5, rtol=1e-6)


# ---------------------------------------------------------------- the generator
SMALL = StyleGAN2Generator(8, 2, latent=6, width=5, mapping_layers=1, channel_base=32, channel_max=6)
CLASSES = np.eye(3, dtype=np.float32)[[0, 1, 2, 0]]


def apply_to(variables: Any, network: nn.Module = SMALL, *, seed: int = 0, **settings: Any) -> Any:
    return compiled(network, **settings)(variables, CLASSES, jax.random.key(seed))


@functools.cache
def compiled(network: nn.Module, **settings: Any) -> Callable:
    return jax.jit(lambda variables, c, key: network.apply(variables, c, rngs={"noise": key}, **settings))


@pytest.fixture(scope="module")
def variables() -> dict:
    """Of the small generator: every layer can be heard, noise too, and the classes have means."""
    keys = {"params": jax.random.key(0), "noise": jax.random.key(1)}
    shapes = jax.eval_shape(lambda: SMALL.init(keys, CLASSES, train=True))
    generator = np.random.default_rng(0)

    def leaf(path: tuple, like: Any) -> np.ndarray:
        names = [step.key for step in path]
        x = generator.normal(size=like.shape)
        if names[-1] == "kernel":
            x *= 100 if "dense_1" in names else 1
        elif names[-1] == "bias":
            x = 0.2 * x + ("style" in names[-2])
        elif names[-1] == "noise_strength":
            x = 0.3 + 0 * x
        return x.astype(np.float32)

    return jax.tree_util.tree_map_with_path(leaf, shapes)


def quiet(variables: dict) -> dict:
    """The same without noise in the layers."""

    def leaf(path: tuple, x: np.ndarray) -> np.ndarray:
        return 0 * x if path[-1].key == "noise_strength" else x

    return jax.tree_util.tree_map_with_path(leaf, variables)


def test_which_w_each_layer_takes(variables):
    """The official order: an image is made with the w that the next doubling's first convolution has."""

    def run(w: jax.Array) -> dict[str, jax.Array]:
        seen = {}

        def record(call: Callable, args: tuple, kwargs: dict, context: nn.module.InterceptorContext) -> Any:
            if isinstance(context.module, EqualDense):
                seen["/".join(context.module.path[1:])] = args[0][0, 0]
            return call(*args, **kwargs)

        with nn.intercept_methods(record):
            SMALL.apply(variables, w, noise=False, method="paint")
        return seen

    w = jnp.broadcast_to(jnp.arange(4.0).reshape(1, 4, 1), (1, 4, 5))
    assert jax.tree.map(int, jax.jit(run)(w)) == {
        "4_conv/style": 0,
        "4_image_style": 1,
        "8_up/style": 1,
        "8_conv/style": 2,
        "8_image_style": 3,
    }


def test_each_size_adds_its_image(variables):
    """With image kernels of zeros the image is the sum of the biases, smoothed at its edge; then 0 .. 1."""
    params = dict(variables["params"]["synthesis"])
    for name, bias in (("4_image", [0.5, 0.25]), ("8_image", [-0.125, -2.0])):
        params[name] = {"kernel": 0 * params[name]["kernel"], "bias": np.float32(bias)}
    changed = {**variables, "params": {**variables["params"], "synthesis": params}}
    raw, image = apply_to(changed, train=True, mutable="batch_stats")[0], apply_to(changed, train=False)
    np.testing.assert_allclose(raw[:, 1:-1, 1:-1, 0], (0.5 - 0.125 + 1) / 2, rtol=1e-6)
    np.testing.assert_allclose(raw[:, 1:-1, 1:-1, 1], (0.25 - 2 + 1) / 2, rtol=1e-6)  # D sees what overshoots
    np.testing.assert_allclose(image[:, 1:-1, 1:-1, 1], 0)
    np.testing.assert_allclose(raw[:, 0, 0, 0], ((3 / 4) ** 2 * 0.5 - 0.125 + 1) / 2, rtol=1e-6)


def test_images_follow_their_class_their_latent_and_their_noise(variables):
    image = apply_to(variables, train=False)
    assert image.shape == (4, 8, 8, 2)
    assert image.dtype == jnp.float32
    np.testing.assert_array_equal(image, apply_to(variables, train=False))
    assert np.abs(image - apply_to(variables, train=False, seed=1)).max((1, 2, 3)).min() > 1e-2
    other = compiled(SMALL, train=False)(variables, CLASSES[[1, 1, 2, 0]], jax.random.key(0))
    assert (np.abs(image - other).max((1, 2, 3)) > 1e-2).tolist() == [True, False, False, False]


def test_truncation_draws_w_to_the_mean_of_its_class(variables):
    means = variables["batch_stats"]["w"]
    full, half, none = (
        apply_to(variables, SMALL.clone(truncation=psi), train=False, method="styles") for psi in (1, 0.5, 0)
    )
    assert full.shape == (4, 4, 5)  # two layers for each of 4 and 8 pixels
    np.testing.assert_array_equal(full[:, :1] + 0 * full, full)
    expected = CLASSES @ means
    np.testing.assert_allclose(none, expected[:, None] + 0 * none, atol=1e-5)
    np.testing.assert_allclose(half, (full + expected[:, None]) / 2, atol=1e-5)
    assert np.abs(full - none).max() > 0.1
    # Truncation 0 is one image for each class, and the one that is made with nothing random.
    at_0 = SMALL.clone(truncation=0.0)
    image = apply_to(quiet(variables), at_0, train=False)
    np.testing.assert_allclose(image, apply_to(quiet(variables), at_0, train=False, seed=1), atol=1e-6)
    without = jax.jit(lambda c: SMALL.apply(variables, c, train=False, noise=False))(CLASSES)
    np.testing.assert_allclose(image, without, atol=1e-5)
    np.testing.assert_allclose(image[0], image[3], atol=1e-5)
    assert np.abs(image[0] - image[1]).max() > 1e-2


@pytest.mark.parametrize(("probability", "mixed"), [(0.0, 0.0), (0.9, 0.9), (1.0, 1.0)])
def test_style_mixing(variables, probability, mixed):
    """So many images have two w, in training alone: the first one up to a random layer, never all of them."""
    network = SMALL.clone(style_mixing=probability)
    many = jnp.asarray(np.repeat(CLASSES, 100, axis=0))

    def styles(train: bool) -> np.ndarray:
        rngs = {"noise": jax.random.key(0)}
        return jax.jit(
            lambda: network.apply(
                variables, many, train=train, rngs=rngs, method="styles", mutable=["batch_stats"]
            )[0]
        )()

    changes = np.any(np.diff(styles(True), axis=1) != 0, axis=2)  # [N, layers - 1]
    assert changes.sum(1).max(initial=0) <= 1
    assert changes.any(1).mean() == pytest.approx(mixed, abs=0.05 * (0 < mixed < 1))
    if mixed:
        assert (changes.mean(0) > 0.2).all()  # each place has its share of 1/3
    assert not np.diff(styles(False), axis=1).any()


def test_each_class_has_its_running_mean(variables):
    """Those in the batch move by 1 - decay towards the mean of their own images; one that is absent stays."""
    network = SMALL.clone(mean_decay=0.75, style_mixing=0.0)
    two = CLASSES[[0, 1, 0, 0]]

    @jax.jit
    def updated(condition: jax.Array) -> tuple[jax.Array, jax.Array]:
        rngs = {"noise": jax.random.key(3)}
        w, new = network.apply(
            variables, condition, train=True, rngs=rngs, method="styles", mutable=["batch_stats"]
        )
        return w[:, 0], new["batch_stats"]["w"]

    w, means = updated(two)
    old = variables["batch_stats"]["w"]
    np.testing.assert_allclose(means[0], 0.75 * old[0] + 0.25 * np.mean(w[np.array([0, 2, 3])], 0), atol=1e-5)
    np.testing.assert_allclose(means[1], 0.75 * old[1] + 0.25 * w[1], atol=1e-5)
    np.testing.assert_array_equal(means[2], old[2])


def test_class_means_are_those_of_all_devices(variables):
    """Over a named axis: one class's images lie on one side alone, another's on both."""
    network = SMALL.clone(mean_decay=0.75, style_mixing=0.0, axis_name="devices")

    def updated(condition: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        w, new = network.apply(
            variables, condition, train=True, rngs={"noise": key}, method="styles", mutable=["batch_stats"]
        )
        return w[:, 0], new["batch_stats"]["w"]

    sides = np.stack([CLASSES[[0, 1, 0]], CLASSES[[0, 0, 0]]])
    w, means = jax.jit(jax.vmap(updated, axis_name="devices"))(sides, jax.random.split(jax.random.key(0)))
    np.testing.assert_array_equal(means[0], means[1])
    old = variables["batch_stats"]["w"]
    of_first = np.concatenate([w[0, np.array([0, 2])], w[1]])
    np.testing.assert_allclose(means[0, 0], 0.75 * old[0] + 0.25 * of_first.mean(0), atol=1e-5)
    np.testing.assert_allclose(means[0, 1], 0.75 * old[1] + 0.25 * w[0, 1], atol=1e-5)
    np.testing.assert_array_equal(means[0, 2], old[2])


def test_bfloat16_changes_the_arithmetic_only(variables):
    half = apply_to(variables, SMALL.clone(dtype=jnp.bfloat16), train=False)
    assert half.dtype == jnp.float32
    assert 0 < np.abs(half - apply_to(variables, train=False)).max() < 0.1
    styles = apply_to(variables, SMALL.clone(dtype=jnp.bfloat16), train=False, method="styles")
    np.testing.assert_array_equal(styles, apply_to(variables, train=False, method="styles"))


def test_what_it_cannot_draw_is_refused(variables):
    for size in (4, 12):
        with pytest.raises(ValueError, match=f"8, 16, 32 .* not {size}"):
            apply_to(variables, SMALL.clone(size=size), train=False)
    with pytest.raises(ValueError, match=r"class \[N, K\], not .* \(1, 8, 8, 3\)"):
        SMALL.apply(variables, jnp.zeros((1, 8, 8, 3)), train=False, rngs={"noise": jax.random.key(0)})


# ---------------------------------------------------------------- the discriminator
def test_deviation_within_groups():
    """Pixels a, b in a group of two deviate by |a - b| / 2; four maps of which one differs, by a quarter."""
    x = np.zeros((6, 2, 2, 4), np.float32)
    x[:, :, :, 0] = np.array([1, 3, 0, 0, 2, 10]).reshape(6, 1, 1)
    found = stylegan2.batch_deviation(jnp.asarray(x, jnp.bfloat16), 2)
    assert found.shape == (6, 2, 2, 1)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found[:, 0, 0, 0], np.array([1, 1, 0, 0, 4, 4]) / 4, atol=1e-3)
    np.testing.assert_array_equal(found[:, :1, :1] + 0 * found, found)
    # Six images make no groups of four, but of three: variances of 1, 3, 0 and of 0, 2, 10.
    found = stylegan2.batch_deviation(jnp.asarray(x), 4)[:, 0, 0, 0]
    expected = np.repeat([np.std([1, 3, 0]), np.std([0, 2, 10])], 3) / 4
    np.testing.assert_allclose(found, expected, atol=1e-3)
    # Alone an image deviates from nothing.
    np.testing.assert_allclose(stylegan2.batch_deviation(jnp.asarray(x), 1), 1e-4, rtol=1e-4)


@pytest.fixture(scope="module")
def judge() -> Callable[..., np.ndarray]:
    """(classes, images, settings) -> logits of one small discriminator."""
    network = StyleGAN2Discriminator(mapping_layers=1, channel_base=32, channel_max=6, group=2)
    image = jnp.zeros((2, 8, 8, 1))
    params = jax.jit(network.init)(jax.random.key(0), jnp.zeros((2, 3)), image)
    # Weights as they start, louder biases, so that no class is another's mirror.
    params = jax.tree.map(lambda x: x + 0.3 if x.ndim == 1 else x, params)
    return lambda classes, images, **changed: np.asarray(
        jax.jit(network.clone(**changed).apply)(params, classes, images)
    )


def test_logits_follow_image_class_and_group(judge):
    numbers = np.random.default_rng(0)
    images, classes = numbers.uniform(size=(4, 8, 8, 1)).astype(np.float32), CLASSES
    logits = judge(classes, images)
    assert logits.shape == (4, 1)
    assert logits.dtype == np.float32
    other_class = judge(classes[[1, 1, 2, 0]], images)
    assert (np.abs(other_class - logits)[:, 0] > 1e-4).tolist() == [True, False, False, False]
    # An image's logit depends on those of its own group, and on no others.
    changed = images.copy()
    changed[1] = 1 - changed[1]
    assert (np.abs(judge(classes, changed) - logits)[:, 0] > 1e-6).tolist() == [True, True, False, False]
    half = judge(classes, images, dtype=jnp.bfloat16)
    assert half.dtype == np.float32
    assert 0 < np.abs(half - logits).max() < 0.1


# ---------------------------------------------------------------- a run
@pytest.mark.slow
def test_a_run_goes_on_where_it_was(tmp_path_factory, tmp_path):
    """Two steps and two more leave what four leave: class means, path length and optimisers included."""
    tiny = {"mapping_layers": 1, "channel_base": 64, "channel_max": 4}
    config = runs.config(tmp_path_factory)
    config["data"] |= {"condition": "label", "size": 16}
    config["model"] = {
        "generator": {"name": "stylegan2", "latent": 4, "width": 4, **tiny},
        "discriminator": {"name": "stylegan2", **tiny},
    }
    config["loss"] |= {"ssim": 0.0, "r1": 1.0, "r1_every": 3, "path_length": 2.0, "path_every": 2}
    states = []
    for name, stops in (("whole", (4,)), ("parts", (2, 4))):
        for steps in stops:
            config["train"]["steps"] = steps
            assert train(config, tmp_path / name) == 0
        states.append(runs.state(tmp_path / name))
    jax.tree.map(np.testing.assert_array_equal, *states)
    assert states[0].lazy["generator/path_length"] > 0
    assert np.abs(states[0].ema["batch_stats"]["w"]).max() > 0
    generate = inference.load(tmp_path / "parts")
    images = generate(np.array([1, 2, 3]))
    assert images.shape == (3, 16, 16, 1)
    assert 0 <= images.min() <= images.max() <= 1
