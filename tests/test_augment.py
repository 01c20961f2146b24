"""Augmentation: geometry against SciPy, maps with their images, ranges, probabilities, and what may leak."""

import json
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import runs
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.test_util import check_grads
from scipy import ndimage

from pixmed_jax.data import augment, augment_picture
from pixmed_jax.data.augment_settings import (
    GEOMETRY,
    OPERATIONS,
    briefly,
    check,
    check_discriminator,
    enabled,
)
from pixmed_jax.data.pipeline import Arrays, Batch, make_batch, one_hot
from pixmed_jax.defaults import HEADS, OFF, merged
from pixmed_jax.errors import PixmedError
from pixmed_jax.evaluation.evaluate import evaluate
from pixmed_jax.training import gan
from pixmed_jax.training.build import make_task
from pixmed_jax.training.dry_run import dry_run
from pixmed_jax.training.loop import train

SIDE = 24


def on(**probabilities: float) -> dict[str, dict[str, Any]]:
    """The default ranges, with these probabilities."""
    return merged(OFF, {name: {"p": p} for name, p in probabilities.items()})


def fixed(**values: float) -> dict[str, dict[str, Any]]:
    """Each operation always, with one value; a flip if it is there at all."""
    return {
        name: {"p": 1.0} | ({} if name.startswith("flip") else {"range": (value, value)})
        for name, value in values.items()
    }


EVERYTHING = on(**dict.fromkeys(OPERATIONS, 0.7))


@pytest.fixture(scope="module")
def pair() -> tuple[np.ndarray, np.ndarray]:
    """Eight noisy images and maps of five labels in blocks."""
    numbers = np.random.default_rng(0)
    images = numbers.uniform(size=(8, SIDE, SIDE, 1)).astype(np.float32)
    maps = numbers.choice([0, 1, 3, 4, 7], size=(8, SIDE // 4, SIDE // 4)).astype(np.uint8)
    return images, maps.repeat(4, 1).repeat(4, 2)


def augmented(images: Any, maps: Any, section: Any, seed: int = 0, **more: Any) -> tuple:
    keys = augment.image_keys(jax.random.key(seed), len(images))
    made = jax.jit(lambda images, maps: augment.pairs(images, maps, keys, section, **more))(images, maps)
    return tuple(np.asarray(x) for x in made)


# ---------------------------------------------------------------- geometry
def scipy_points(values: dict[str, Any], size: int) -> np.ndarray:
    """From where each pixel is read: the inverse of flip, scale, shear, rotate, shift, in float64."""
    turn, shear = np.deg2rad([values.get("rotation", 0), values.get("shear", 0)])
    forward = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])  # (row, column)
    forward = forward @ [[1, 0], [np.tan(shear), 1]] * values.get("scaling", 1)
    forward = forward @ np.diag([1 - 2 * values.get(f"flip_{way}", 0) for way in ("up_down", "left_right")])
    middle = (size - 1) / 2
    shift = np.array(values.get("translation", (0, 0)))[:, None, None] * size
    places = np.indices((size, size)) - middle - shift
    return np.einsum("ij,jhw->ihw", np.linalg.inv(forward), places) + middle


@settings(max_examples=40, deadline=None)
@given(
    rotation=st.floats(-180, 180),
    shear=st.floats(-40, 40),
    scaling=st.floats(0.5, 2),
    translation=st.tuples(st.floats(-0.4, 0.4), st.floats(-0.4, 0.4)),
    flip_left_right=st.integers(0, 1),
    flip_up_down=st.integers(0, 1),
)
def test_geometry_is_that_of_scipy(pair, **values):
    compare_with_scipy(*pair, values)


def test_geometry_without_ties_is_that_of_scipy(pair):
    """Where nearly every pixel counts."""
    values = {"rotation": 17.3, "shear": 6.1, "scaling": 1.07, "translation": (0.041, -0.03)}
    assert compare_with_scipy(*pair, values) > 0.97


def compare_with_scipy(images: np.ndarray, maps: np.ndarray, values: dict[str, Any]) -> float:
    """Returns what share of the pixels was compared in both."""
    image, label_map = images[0], maps[0]
    given_values = {name: jnp.asarray(value, jnp.float32) for name, value in values.items()}
    found, found_map = WARP(image, label_map, given_values, jax.random.key(0))
    points = scipy_points(values, SIDE)
    expected = ndimage.map_coordinates(image[..., 0], points, order=1, mode="constant")
    expected_map = ndimage.map_coordinates(label_map, points, order=0, mode="constant")
    # Coordinates are rounded to 1/1024 pixel: what lies on a border may fall on either side of it.
    outside = np.abs(np.concatenate([points, SIDE - 1 - points])).min(0) < 2e-3
    np.testing.assert_allclose(np.where(outside, 0, found[..., 0]), np.where(outside, 0, expected), atol=3e-3)
    tie = outside | (np.abs(points % 1 - 0.5).min(0) < 2e-3)
    np.testing.assert_array_equal(np.where(tie, 0, found_map), np.where(tie, 0, expected_map))
    return float(1 - tie.mean())


@jax.jit
def WARP(image: jax.Array, label_map: jax.Array, values: Any, key: jax.Array) -> tuple:  # noqa: N802 (compiled once for all)
    return augment.warp(image, label_map, values, key, size=SIDE, corner=jnp.zeros(2, jnp.int32), sigma=0.1)


@pytest.mark.parametrize("turns", [1, 2, -1])
def test_quarter_turns_move_whole_pixels(pair, turns):
    images, maps = augmented(*pair, fixed(rotation=90.0 * turns))
    np.testing.assert_array_equal(images, np.rot90(pair[0], turns, axes=(1, 2)))
    np.testing.assert_array_equal(maps, np.rot90(pair[1], turns, axes=(1, 2)))


def test_flips_are_slicing(pair):
    for name, index in (
        ("flip_left_right", np.s_[:, :, ::-1]),
        ("flip_up_down", np.s_[:, ::-1]),
    ):
        images, maps = augmented(*pair, fixed(**{name: 1}))
        np.testing.assert_array_equal(images, pair[0][index])
        np.testing.assert_array_equal(maps, pair[1][index])


def test_translation_is_a_share_of_the_side_and_leaves_nothing_behind(pair):
    images, maps = augmented(*pair, fixed(translation=0.25))
    step = SIDE // 4
    np.testing.assert_array_equal(images[:, step:, step:], pair[0][:, :-step, :-step])
    np.testing.assert_array_equal(maps[:, step:, step:], pair[1][:, :-step, :-step])
    for x in (images, maps):
        assert not x[:, :step].any() and not x[:, :, :step].any()


def test_the_crop_is_part_of_the_geometry(pair):
    """What a shift brings into the window is what lay outside of it; without geometry it is a plain crop."""
    corners = np.array([[4, 7]] * 8)
    for section, step in ((fixed(translation=0.25), 4), ({}, 0)):
        images, maps = augmented(*pair, section, size=16, corners=corners)
        rows, columns = slice(4 - step, 20 - step), slice(7 - step, 23 - step)
        np.testing.assert_array_equal(images, pair[0][:, rows, columns])
        np.testing.assert_array_equal(maps, pair[1][:, rows, columns])


@pytest.mark.parametrize("seed", range(4))
def test_image_and_map_are_read_at_the_same_places(seed):
    """Where the image, which is the map's picture, is plainly 0 or 1 after all operations, so is the map."""
    maps = np.kron(np.random.default_rng(seed).integers(0, 2, (6, 8, 8)), np.ones((8, 8))).astype(np.uint8)
    images, found = augmented(
        maps[..., None].astype(np.float32), maps, on(**dict.fromkeys(GEOMETRY, 1.0)), seed
    )
    sharp = (images[..., 0] == 0) | (images[..., 0] == 1)
    np.testing.assert_array_equal(images[..., 0][sharp], found[sharp])
    assert sharp.mean() > 0.5 and found.any()
    mixed = images[..., 0][~sharp]
    assert np.mean((mixed > 0.5) == found[~sharp]) > 0.85  # nearest and bilinear differ at corners only


def test_a_one_hot_map_goes_where_the_map_goes(pair):
    images, maps = augmented(*pair, EVERYTHING, 3)
    same, condition = augmented(pair[0], one_hot(jnp.asarray(pair[1]), 7, 1), EVERYTHING, 3)
    np.testing.assert_array_equal(condition, one_hot(jnp.asarray(maps), 7, 1))
    np.testing.assert_allclose(same, images, atol=1e-6)


def test_labels_have_no_places(pair):
    for labels in (np.arange(8, dtype=np.uint8), np.eye(8, 3, dtype=np.float32)):
        images, found = augmented(pair[0], labels, EVERYTHING)
        np.testing.assert_array_equal(found, labels)
        assert found.dtype == labels.dtype
        np.testing.assert_allclose(images, augmented(*pair, EVERYTHING)[0], atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), labels=st.sets(st.integers(0, 255), min_size=1, max_size=4))
def test_no_map_gets_a_new_label_and_no_image_leaves_its_range(seed, labels):
    numbers = np.random.default_rng(seed)
    maps = numbers.choice(sorted(labels), size=(4, SIDE, SIDE)).astype(np.uint8)
    images = numbers.choice([0, 1, 0.3], size=(4, SIDE, SIDE, 1)).astype(np.float32)
    keys = augment.image_keys(jax.random.key(seed), 4)
    images, maps = ALL(images, maps, keys)
    assert maps.dtype == np.uint8 and set(np.unique(maps)) <= labels | {0}
    assert np.isfinite(images).all() and images.min() >= 0 and images.max() <= 1


ALL = jax.jit(lambda images, maps, keys: augment.pairs(images, maps, keys, EVERYTHING))


# ---------------------------------------------------------------- elastic deformation
def test_shifts_have_the_same_spread_everywhere():
    keys = jax.random.split(jax.random.key(0), 600)
    fields = np.asarray(jax.jit(jax.vmap(lambda key: augment._smooth_noise(key, SIDE, 0.1)))(keys))
    assert fields.shape == (600, 2, SIDE, SIDE)
    spread = fields.std(0)
    # 4 standard errors of a standard deviation from 600 numbers are 0.115.
    assert spread.min() > 0.88 and spread.max() < 1.13
    assert spread.mean() == pytest.approx(1, abs=0.02)
    # White noise under a Gaussian of sigma is correlated by exp(-(d / sigma)**2 / 4): at one sigma 0.78.
    a, b = fields[:, 0, 10, 10], fields[:, 0, 10, 12]
    assert np.corrcoef(a, b)[0, 1] == pytest.approx(math.exp(-((2 / SIDE / 0.1) ** 2) / 4), abs=0.1)
    assert abs(np.corrcoef(a, fields[:, 1, 10, 10])[0, 1]) < 0.15


def test_a_field_is_the_same_at_every_size():
    small, large = (np.asarray(augment._smooth_noise(jax.random.key(5), size, 0.2)) for size in (32, 64))
    averaged = large.reshape(2, 32, 2, 32, 2).mean((2, 4))
    np.testing.assert_allclose(averaged, small, atol=0.02)


def test_the_strongest_shifts_that_are_allowed_do_not_fold():
    keys = jax.random.split(jax.random.key(1), 50)
    shifts = 64 * 0.025 * np.asarray(jax.vmap(lambda key: augment._smooth_noise(key, 64, 0.1))(keys))
    check({"elastic": {"p": 1.0, "range": (0.0, 0.025), "sigma": 0.1}}, "data.augment")
    (rr, rc), (cr, cc) = (np.moveaxis(np.gradient(shifts[:, way], axis=(1, 2)), 0, 0) for way in (0, 1))
    assert ((1 + rr) * (1 + cc) - rc * cr).min() > 0


def test_alpha_is_the_standard_deviation_of_the_shifts():
    """Read off an image whose grey value is its row."""
    ramp = np.broadcast_to(np.linspace(0, 1, 64, dtype=np.float32)[:, None, None], (40, 64, 64, 1))
    section = {"elastic": {"p": 1.0, "range": (0.02, 0.02), "sigma": 0.1}}
    images, _ = augmented(ramp, np.zeros((40, 64, 64), np.uint8), section)
    inner = np.s_[:, 12:-12, 12:-12]
    assert ((images - ramp)[inner] * 63 / 64).std() == pytest.approx(0.02, rel=0.1)


# ---------------------------------------------------------------- grey values
def grey(value: float) -> tuple[np.ndarray, np.ndarray]:
    return np.full((1, SIDE, SIDE, 1), value, np.float32), np.zeros((1, SIDE, SIDE), np.uint8)


@pytest.mark.parametrize(
    ("values", "before", "after"),
    [
        ({"gamma": 0.5}, 0.25, 0.5),
        ({"gamma": 2.0}, 0.5, 0.25),
        ({"gamma": 0.5}, 0.0, 0.0),
        ({"gamma": 0.5}, 1.0, 1.0),
        ({"brightness": 0.125}, 0.25, 0.375),
        ({"brightness": 0.5}, 0.75, 1.0),  # clipped
        ({"contrast": 2.0}, 0.25, 0.25),  # its own mean
    ],
)
def test_grey_values_by_hand(values, before, after):
    images, _ = augmented(*grey(before), fixed(**values))
    np.testing.assert_allclose(images, after, atol=1e-6)


def test_contrast_is_about_the_mean_of_the_image():
    image = np.array([0.2, 0.6] * (SIDE * SIDE // 2), np.float32).reshape(1, SIDE, SIDE, 1)
    found, _ = augmented(image, grey(0)[1], fixed(contrast=0.5))
    np.testing.assert_allclose(np.unique(found.round(5)), [0.3, 0.5])


def test_noise_has_the_standard_deviation_asked_for():
    images, maps = (np.repeat(x, 50, 0) for x in grey(0.5))
    found, _ = augmented(images, maps, fixed(noise=0.1))
    off = found - 0.5
    assert off.std() == pytest.approx(0.1, rel=0.02) and abs(off.mean()) < 0.003
    assert abs(np.corrcoef(off[0].ravel(), off[1].ravel())[0, 1]) < 0.15  # each image its own
    three, _ = augmented(np.repeat(images[:1], 3, -1), maps[:1], fixed(noise=0.1))
    np.testing.assert_allclose(np.ptp(three, axis=-1), 0, atol=1e-6)  # a grey image stays grey


def test_a_bias_field_is_a_smooth_factor_within_its_limits():
    images, maps = (np.repeat(x, 8, 0) for x in grey(0.25))
    found, _ = augmented(images, maps, fixed(bias_field=0.5))
    fields = np.log(found[..., 0] / 0.25)
    np.testing.assert_allclose(np.abs(fields).max((1, 2)), 0.5, rtol=1e-4)
    x, y = np.meshgrid(*[np.linspace(-1, 1, SIDE)] * 2)
    basis = np.stack([x**i * y**j for i in range(4) for j in range(4 - i)], -1).reshape(-1, 10)
    _, rest, rank, _ = np.linalg.lstsq(basis, fields.reshape(8, -1).T)
    assert rank == 10 and np.sqrt(rest / SIDE**2).max() < 1e-5  # a polynomial of order 3 and nothing else
    assert fields.std(0).min() > 0.02


def test_grey_operations_leave_maps_and_places_alone(pair):
    section = on(**{name: 1.0 for name in OPERATIONS if name not in GEOMETRY})
    images, maps = augmented(*pair, section)
    np.testing.assert_array_equal(maps, pair[1])
    assert np.abs(images - pair[0]).max() > 0.02


# ---------------------------------------------------------------- chance
def test_operations_that_are_off_are_not_there(pair):
    for section in (OFF, {}, on(rotation=0.0)):
        images, maps = augmented(*pair, section)
        np.testing.assert_array_equal(images, pair[0])
        np.testing.assert_array_equal(maps, pair[1])


def batch_of(arrays: Arrays, rows: Any, section: Any, size: int = 20) -> Batch:
    return make_batch(arrays, rows, jax.random.key(3), size=size, classes=7, channels=1, augment=section)


def test_a_batch_without_augmentation_is_compiled_as_ever(pair):
    arrays = Arrays((pair[0] * 255).astype(np.uint8), pair[1], np.zeros(8, np.int32))
    text = [
        jax.jit(lambda rows, s=section: batch_of(arrays, rows, s)).lower(np.arange(4)).as_text()
        for section in (None, OFF, on(noise=0.1))
    ]
    assert text[0] == text[1] != text[2]


def test_a_batch_is_the_same_resident_and_streamed(pair):
    arrays = Arrays((pair[0] * 255).astype(np.uint8), pair[1], np.arange(8, dtype=np.int32))
    rows = np.array([6, 1, 1, 3])
    make = jax.jit(lambda arrays, rows: batch_of(arrays, rows, EVERYTHING))
    resident, streamed = make(arrays, rows), make(Arrays(*(x[rows] for x in arrays)), None)
    jax.tree.map(np.testing.assert_array_equal, resident, streamed)
    assert resident.images.shape == (4, 20, 20, 1) and resident.condition.shape == (4, 20, 20, 7)
    assert np.abs(resident.images[1] - resident.images[2]).max() > 0.1  # twice the slice, not the draw
    assert resident.images.min() >= 0 and resident.images.max() <= 1


def test_the_same_key_gives_the_same_and_neighbours_do_not_matter(pair):
    keys = augment.image_keys(jax.random.key(1), 8)
    np.testing.assert_array_equal(
        jax.random.key_data(augment.image_keys(jax.random.key(1), 3)), jax.random.key_data(keys)[:3]
    )
    first, again = ALL(*pair, keys), ALL(*pair, keys)
    jax.tree.map(np.testing.assert_array_equal, first, again)
    order = np.array([5, 0, 7, 2, 1, 3, 4, 6])
    shuffled = ALL(pair[0][order], pair[1][order], keys[order])
    alone = ALL(pair[0][5:6], pair[1][5:6], keys[5:6])
    np.testing.assert_allclose(shuffled[0], first[0][order], atol=1e-6)
    np.testing.assert_allclose(alone[0][0], first[0][5], atol=1e-6)
    np.testing.assert_array_equal(shuffled[1], first[1][order])
    np.testing.assert_array_equal(alone[1][0], first[1][5])
    assert np.abs(ALL(*pair, augment.image_keys(jax.random.key(2), 8))[0] - first[0]).max() > 0.1


def draws(section: Any, count: int = 2000) -> dict[str, np.ndarray]:
    keys = augment.image_keys(jax.random.key(0), count)
    values = jax.jit(jax.vmap(lambda key: augment.draw(key, section)))(keys)
    return {name: np.asarray(value) for name, value in values.items()}


def test_values_fill_their_range():
    found = draws(on(**dict.fromkeys(OPERATIONS, 1.0)))
    assert set(found) == set(OPERATIONS)
    for name, values in found.items():
        low, high = OFF[name].get("range", (1, 1))
        assert values.shape == ((2000, 2) if name == "translation" else (2000,))
        assert values.min() >= low - 1e-6 and values.max() <= high + 1e-6, name
        width = high - low
        assert values.min() <= low + 0.01 * width and values.max() >= high - 0.01 * width, name
    flat = [x for name, x in found.items() if not name.startswith("flip") and x.ndim == 1]
    flat += list(found["translation"].T)
    apart = np.corrcoef(flat) - np.eye(len(flat))
    assert np.abs(apart).max() < 0.1  # no operation follows another


def test_operations_happen_as_often_as_asked_and_not_because_of_others():
    found, alone = draws(on(**dict.fromkeys(OPERATIONS, 0.3))), draws(on(shear=0.3))
    for name, values in found.items():
        neutral = 1 if name in ("scaling", "gamma", "contrast") else 0
        happened = (values.reshape(2000, -1) != neutral).any(1)
        assert abs(happened.mean() - 0.3) < 4 * math.sqrt(0.3 * 0.7 / 2000), name
    assert list(alone) == ["shear"]
    np.testing.assert_array_equal(alone["shear"], found["shear"])


def test_heads_are_mirrored_but_never_upside_down():
    section = merged(OFF, HEADS)
    check(section, "data.augment")
    assert "flip_left_right" in enabled(section) and "flip_up_down" not in enabled(section)
    assert set(enabled(section)) == set(OPERATIONS) - {"flip_up_down"}
    assert enabled(OFF) == enabled(None) == enabled({}) == {}
    assert tuple(OFF) == tuple(OPERATIONS)


# ---------------------------------------------------------------- settings
@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"rotaton": {"p": 0.5}}, r"data\.augment\.rotaton: no such operation; did you mean rotation"),
        ({"rotation": {"p": 0.5}}, r"data\.augment\.rotation=.*give p, range"),
        ({"rotation": 0.5}, r"data\.augment\.rotation=0\.5: give p, range"),
        ({"flip_left_right": {"p": 1.5}}, r"flip_left_right\.p=1\.5: give a probability"),
        ({"flip_left_right": {"p": math.nan}}, r"flip_left_right\.p=nan: give a probability"),
        ({"flip_left_right": {"p": True}}, r"flip_left_right\.p=True: give a probability"),
        (
            {"rotation": {"p": 0.5, "range": (15, -15)}},
            r"rotation\.range=\(15, -15\): give \(lowest, highest",
        ),
        ({"rotation": {"p": 0.5, "range": (0, 181)}}, r"both within -180 to 180 \(degrees"),
        ({"scaling": {"p": 0.0, "range": (0, 1)}}, r"scaling\.range=.*within 0\.25 to 4"),
        ({"noise": {"p": 0.5, "range": 0.1}}, r"noise\.range=0\.1: give \(lowest, highest\)"),
        ({"noise": {"p": 0.5, "range": ("a", 1)}}, r"noise\.range=.*: give \(lowest, highest\)"),
        ({"elastic": {"p": 0.5, "range": (0, 0.01), "sigma": 0}}, r"elastic\.sigma=0: give 0\.02 to 1"),
        ({"elastic": {"p": 0.5, "range": (0, 0.05), "sigma": 0.1}}, r"fold the picture; give at most 0\.025"),
    ],
)
def test_settings_that_make_no_sense_are_refused(section, words):
    with pytest.raises(PixmedError, match=words) as caught:
        check(section, "data.augment")
    assert "\n" not in str(caught.value)


def test_an_augmentation_that_would_leak_is_refused():
    check_discriminator(on(flip_left_right=0.4, noise=0.8), "train.augment_discriminator")
    for name, p in (("flip_left_right", 0.5), ("noise", 0.9)):
        with pytest.raises(
            PixmedError, match=rf"augment_discriminator\.{name}\.p={p}: .*give 0\.[48] or less"
        ):
            check_discriminator(on(**{name: p}), "train.augment_discriminator")
    with pytest.raises(PixmedError, match=r"train\.augment_discriminator\.noise\.p=0\.9"):
        gan.make_task(Picture(), Linear(), optax.sgd(1.0), gan.Losses(), augment_discriminator=on(noise=0.9))


def test_settings_are_told_briefly():
    def flat(prefix: str, section: Any) -> dict[str, Any]:
        return {f"{prefix}.{name}.{key}": value for name, of in section.items() for key, value in of.items()}

    given_settings = {
        "data.size": 64,
        **flat("data.augment", on(noise=0.2)),
        **flat("train.augment_discriminator", OFF),
    }
    assert briefly(given_settings) == {
        "data.size": 64,
        "data.augment.noise.p": 0.2,
        "data.augment.noise.range": OFF["noise"]["range"],
        "train.augment_discriminator": "off",
    }
    assert briefly({"data.size": 64, "train.p": 0.0}) == {"data.size": 64, "train.p": 0.0}


# ---------------------------------------------------------------- for the discriminator
def test_gradients_are_those_of_differences(pair):
    """All operations at once; images above 0 and below 1 so that no power is at its bend."""
    images, keys = 0.1 + 0.8 * pair[0][:2, :10, :10], augment.image_keys(jax.random.key(4), 2)
    weights = np.random.default_rng(1).normal(size=images.shape)
    section = on(**dict.fromkeys(OPERATIONS, 1.0))

    def seen(images: jax.Array) -> jax.Array:
        return (weights * augment.pairs(images, pair[1][:2, :10, :10], keys, section, clip=False)[0]).sum()

    seen = jax.jit(seen)
    check_grads(seen, (images,), order=1, modes=["rev"], eps=1e-2, rtol=1e-2, atol=1e-2)
    assert np.count_nonzero(jax.jit(jax.grad(seen))(images)) > 100


def test_black_has_a_gradient():
    """x ** 0.7 has an infinite slope at 0, and all that a rotation leaves empty is 0."""

    def seen(images: jax.Array) -> jax.Array:
        keys = augment.image_keys(jax.random.key(0), 1)
        return augment.pairs(images, grey(0)[1], keys, fixed(gamma=0.5, rotation=45), clip=False)[0].sum()

    gradient = np.asarray(jax.jit(jax.grad(seen))(grey(0)[0]))
    assert np.isfinite(gradient).all() and gradient.max() > 1


def test_the_discriminator_sees_nothing_clipped_and_nothing_when_off(pair):
    images, condition = pair[0], np.asarray(one_hot(jnp.asarray(pair[1]), 7, 1))
    key = jax.random.key(0)
    for section in (OFF, None):
        same = augment.seen_by_discriminator(images, condition, key, section)
        assert same[0] is images and same[1] is condition
    section = fixed(brightness=0.5, rotation=90)
    see = jax.jit(lambda *given: augment.seen_by_discriminator(*given, section))
    seen, there = see(images, condition, key)
    np.testing.assert_allclose(seen, np.rot90(images, 1, (1, 2)) + 0.5, atol=1e-6)
    np.testing.assert_array_equal(there, np.rot90(condition, 1, (1, 2)))


class Picture(nn.Module):
    """A generator whose only parameter is the image that it makes, whatever it is told."""

    side: int = 8

    @nn.compact
    def __call__(self, condition: jax.Array, *, train: bool) -> jax.Array:
        image = self.param("image", nn.initializers.constant(0.5), (self.side, self.side, 1))
        return jnp.broadcast_to(image, (len(condition), *image.shape))


class Linear(nn.Module):
    """A discriminator that weighs pixels, and so compares mean images."""

    @nn.compact
    def __call__(self, condition: jax.Array, image: jax.Array) -> jax.Array:
        weights = self.param("weights", nn.initializers.zeros, image.shape[1:])
        return (image * weights).sum((1, 2, 3))


# An oriented pattern: bright at the left, brighter at the top; none of its mirror images or turns is alike.
PATTERN = (0.2 + 0.5 * (np.arange(8) < 4) + 0.2 * (np.arange(8) < 3)[:, None])[..., None].astype(np.float32)
COUNT = 32  # images in a batch
UNSEEN = merged(
    OFF,
    {
        "flip_left_right": {"p": 0.2},
        "rotation": {"p": 0.3, "range": (90.0, 90.0)},
        "brightness": {"p": 0.5, "range": (0.2, 0.2)},
    },
)


def learnt(section: Any, *, real: Any) -> np.ndarray:
    """The image at which a generator comes to rest; `real` (images, key) -> what it is given as real ones."""
    # Forgetting damps the discriminator, which would circle otherwise (Mescheder et al. 2018).
    forget = optax.masked(
        optax.add_decayed_weights(0.1), lambda params: {name: name == "weights" for name in params}
    )
    optimizer = optax.chain(forget, optax.sgd(0.3))
    task = gan.make_task(Picture(), Linear(), optimizer, gan.Losses(), augment_discriminator=section)
    images = np.broadcast_to(PATTERN, (COUNT, *PATTERN.shape))
    batch = Batch(images, np.zeros((COUNT, 3), np.float32), np.zeros(COUNT, np.int32))
    state = task.init(jax.random.PRNGKey(0), batch)

    @jax.jit
    def train(state: Any) -> Any:
        def body(state: Any, number: jax.Array) -> tuple[Any, jax.Array]:
            seen = batch._replace(images=real(images, jax.random.fold_in(jax.random.key(7), number)))
            state = task.step(state, seen)[0]
            return state, state.generator["params"]["image"]

        return jax.lax.scan(body, state, jnp.arange(1500))[1]

    return np.asarray(train(state)[-500:].mean(0))


def test_real_and_generated_images_are_judged_as_augmented():
    """Equal images, one weight: a logit is the mean image, and 0.25 more for those that became brighter."""
    section = merged(OFF, {"brightness": {"p": 0.5, "range": (0.25, 0.25)}})
    task = gan.make_task(Picture(), Linear(), optax.sgd(0.0), gan.Losses(), augment_discriminator=section)
    images = np.broadcast_to(PATTERN, (COUNT, *PATTERN.shape))
    batch = Batch(images, np.zeros((COUNT, 3), np.float32), np.zeros(COUNT, np.int32))
    state = task.init(jax.random.PRNGKey(0), batch)
    state = state._replace(
        generator={"params": {"image": PATTERN}},
        discriminator={"params": {"weights": np.full_like(PATTERN, 1 / PATTERN.size)}},
    )
    metrics = {name: float(value) for name, value in jax.jit(task.step)(state, batch)[1].items()}
    dark, bright = PATTERN.mean(), PATTERN.mean() + 0.25
    share = (metrics["discriminator/fake"] - metrics["discriminator/real"] - dark) / 0.25
    assert share * COUNT == pytest.approx(round(share * COUNT), abs=1e-2) and 0.2 < share < 0.8
    for name, sign in (("fake", 1), ("real", -1)):
        loss = share * np.logaddexp(0, sign * bright) + (1 - share) * np.logaddexp(0, sign * dark)
        assert metrics[f"discriminator/{name}"] == pytest.approx(loss, rel=1e-4)


def test_augmentation_for_the_discriminator_does_not_leak():
    """Fakes are augmented like the real images: what is learnt is the real image, not its mean augmented."""
    image = learnt(UNSEEN, real=lambda images, key: images)
    np.testing.assert_allclose(image, PATTERN, atol=0.04)


def test_augmenting_the_real_images_alone_does_leak():
    """The fault that the test above is there for."""

    def real(images: jax.Array, key: jax.Array) -> jax.Array:
        return augment.seen_by_discriminator(images, jnp.zeros((COUNT, 3)), key, UNSEEN)[0]

    image = learnt(None, real=real)
    flipped = 0.8 * PATTERN + 0.2 * PATTERN[:, ::-1]
    expected = 0.7 * flipped + 0.3 * np.rot90(flipped) + 0.1
    np.testing.assert_allclose(image, expected, atol=0.04)
    assert np.abs(image - PATTERN).max() > 0.2


# ---------------------------------------------------------------- pictures and whole runs
def test_the_picture_shows_what_is_switched_on():
    numbers = np.random.default_rng(0)
    image = numbers.integers(0, 65536, (36, 36, 1)).astype(np.uint16)
    label_map = np.kron(numbers.integers(0, 3, (6, 6)), np.ones((6, 6))).astype(np.uint8)
    sizes = [
        augment_picture.picture(image, label_map, ("glioma", "tissue_1"), section, size=32).size
        for section in (on(rotation=0.5), on(rotation=0.5, translation=0.5, flip_up_down=0.5, noise=0.1))
    ]
    # Cells of 144 with margins of 4, in pairs of rows. Their headings have 22 pixels, and that of the eight
    # draws, the widest, 22 * (110 + 8 * 148) / 900, to be legible where a page shows it narrower.
    pair_of_rows, draws = 22 + 2 * 148, 32 + 2 * 148
    assert sizes == [(4 + 8 * 148, draws + pair_of_rows), (4 + 8 * 148, draws + 2 * pair_of_rows)]


def test_the_picture_is_of_the_ends_of_the_range():
    """A white spot at the left of the middle, turned by a quarter to either side."""
    image = np.zeros((32, 32, 1), np.uint8)
    image[13:19, 2:8] = 255
    section = {"rotation": {"p": 0.01, "range": (-90.0, 90.0)}}
    drawn = augment_picture.picture(image, np.zeros((32, 32), np.uint8), (), section, size=32)
    cells = np.asarray(drawn.convert("L"))[22:, 4:]
    brightest = []
    for row, column in ((0, 0), (0, 1), (1, 1)):
        cell = cells[row * 148 : row * 148 + 120, column * 148 : column * 148 + 144]  # without the text
        brightest.append(np.argwhere(cell > 200).mean(0).round(-1).tolist())
    # Counter-clockwise is from the left to the bottom; the text hides the lowest rows of a cell.
    assert brightest[0] == [70, 20] and brightest[1] == [20, 70] and brightest[2][0] > 100


@pytest.mark.slow
def test_a_run_is_augmented_and_shows_it(tmp_path, tmp_path_factory):
    """Both sections, an image and a report; and a folder of before there were any is evaluated as ever."""
    runs.trained(tmp_path_factory)  # makes the data
    changes = {
        "data__augment__rotation__p": 0.5,
        "train__augment_discriminator__translation__p": 0.5,
        "train__steps": 2,
    }
    run = tmp_path / "run"
    assert train(runs.config(tmp_path_factory, **changes), run) == 0
    assert {p.name for p in (run / "grids").glob("augm*")} == {
        "augmentation.png",
        "augmentation_discriminator.png",
    }
    evaluate(run)
    page = (run / "report" / "index.html").read_text()
    assert page.count("What training makes of one of its slices") == 1
    assert page.count("What the discriminator sees of a slice") == 1
    with pytest.raises(PixmedError, match=r"data\.augment\.rotation\.p: 0\.5 -> 0\.4"):
        train(runs.config(tmp_path_factory, **changes | {"data__augment__rotation__p": 0.4}), run)

    old = runs.copied(tmp_path_factory, tmp_path / "old")
    before = evaluate(old)["ssim"]
    settings_file = old / "config.json"
    plain = json.loads(settings_file.read_text())
    del plain["data"]["augment"], plain["train"]["augment_discriminator"]
    settings_file.write_text(json.dumps(plain))
    assert evaluate(old)["ssim"] == before
    assert "What training makes of one" not in (old / "report" / "index.html").read_text()
    make_task(plain)


def test_settings_are_checked_before_anything_is_written(tmp_path, tmp_path_factory):
    for section in ("data__augment", "train__augment_discriminator"):
        config = runs.config(tmp_path_factory, **{f"{section}__noise__p": 2.0})
        with pytest.raises(PixmedError, match=rf"{section.replace('__', '.')}\.noise\.p=2\.0"):
            train(config, tmp_path / "run")
        with pytest.raises(PixmedError, match=r"noise\.p=2\.0"):
            dry_run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
