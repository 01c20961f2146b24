"""Batches: which rows they take, where they are cropped, and what a network gets to see."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixmed_jax.data import augment as augmentation
from pixmed_jax.data.pipeline import Arrays, batch_rows, make_batch, one_hot, to_float, with_channels
from pixmed_jax.errors import PixmedError


# ---------------------------------------------------------------- rows
@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31 - 1),
    batch_size=st.integers(1, 12),
    count=st.integers(1, 15),
    data=st.data(),
)
def test_every_epoch_visits_each_row_once(seed, batch_size, count, data):
    """Also where a batch holds several epochs, and in whatever order the steps are asked for."""
    steps = -(-3 * count // batch_size)
    batches = {
        step: batch_rows(seed, step, batch_size, count) for step in data.draw(st.permutations(range(steps)))
    }
    assert {rows.shape for rows in batches.values()} == {(batch_size,)}
    rows = np.concatenate([batches[step] for step in range(steps)])
    for epoch in range(3):
        assert sorted(rows[epoch * count : (epoch + 1) * count]) == list(range(count))


def test_rows_are_a_pure_function_of_seed_and_step():
    first = batch_rows(3, 5, 8, 30)
    np.random.seed(0)  # the global generator must not matter
    batch_rows(4, 0, 8, 30)
    np.testing.assert_array_equal(batch_rows(3, 5, 8, 30), first)
    assert first.dtype == np.int32


def test_epochs_and_seeds_have_their_own_order():
    orders = {tuple(batch_rows(seed, epoch, 20, 20)) for seed in (0, 1) for epoch in (0, 1, 2)}
    assert len(orders) == 6
    assert tuple(range(20)) not in orders


# ---------------------------------------------------------------- batches
LOADED, SIZE = 6, 4


def arrays() -> Arrays:
    """Each pixel says where it is, 1000 row + 10 y + x in 16 bits; so does its class, x unlike y."""
    row, y, x = np.ogrid[:5, :LOADED, :LOADED]
    image = (1000 * row + 10 * y + x).astype(np.uint16)
    maps = ((row + 2 * y + x) % 3).astype(np.uint8)
    return Arrays(image[..., None], maps, np.arange(5, dtype=np.int32) * 7)


def test_image_and_mask_are_cropped_alike_at_every_place():
    rows = np.tile(np.array([4, 0, 2], np.int32), 60)

    @jax.jit
    def make(key: jax.Array) -> tuple:
        return make_batch(arrays(), rows, key, size=SIZE, classes=2, channels=1)

    batch = make(jax.random.key(0))
    assert batch.images.shape == (180, SIZE, SIZE, 1)
    assert batch.images.dtype == batch.condition.dtype == jnp.float32
    where = np.rint(np.asarray(batch.images)[..., 0] * 65535).astype(int)
    np.testing.assert_array_equal(where // 1000, np.broadcast_to(rows[:, None, None], where.shape))
    corner = where[:, 0, 0] % 1000
    steps = 10 * np.arange(SIZE)[:, None] + np.arange(SIZE)
    np.testing.assert_array_equal(where % 1000, corner[:, None, None] + steps)  # one window, not shuffled
    maps = (where // 1000 + 2 * (where // 10 % 10) + where % 10) % 3
    np.testing.assert_array_equal(batch.condition, np.stack([maps == 1, maps == 2], -1))
    np.testing.assert_array_equal(batch.labels, rows * 7)
    # 6 - 4 leaves three places a way; 180 draws miss one of nine with a probability of 1e-8.
    assert sorted(set(corner)) == [0, 1, 2, 10, 11, 12, 20, 21, 22]
    same, other = make(jax.random.key(0)), make(jax.random.key(1))
    np.testing.assert_array_equal(same.images, batch.images)
    assert np.any(other.images != batch.images)


def test_a_batch_is_cropped_once_however_many_read_it():
    """XLA fuses what a kernel reads into it, draws and gathers too, unless a barrier stands before it."""
    rows = np.array([1, 3], np.int32)
    make = jax.jit(make_batch, static_argnames=("size", "classes", "channels"))
    text = make.lower(arrays(), rows, jax.random.key(0), size=SIZE, classes=2, channels=1).as_text()
    (barrier,) = (line for line in text.splitlines() if "optimization_barrier" in line)
    assert f"tensor<2x{SIZE}x{SIZE}x1xui16>" in barrier and f"tensor<2x{SIZE}x{SIZE}xui8>" in barrier


def test_without_room_nothing_is_cropped_and_grey_fills_the_channels():
    images = np.random.default_rng(0).integers(0, 256, (2, SIZE, SIZE, 1), np.uint8)
    maps = np.array(images[..., 0] > 99, np.uint8)
    given = Arrays(images, maps, np.zeros(2, np.int32))
    batch = make_batch(given, np.array([1, 0]), jax.random.key(0), size=SIZE, classes=1, channels=3)
    np.testing.assert_allclose(batch.images, np.repeat(images[::-1] / 255, 3, -1), rtol=1e-6)
    np.testing.assert_array_equal(batch.condition, np.repeat(maps[::-1, ..., None], 3, -1))


@pytest.mark.parametrize(("dtype", "white"), [(np.uint8, 255), (np.uint16, 65535)])
def test_the_full_range_of_the_type_is_0_to_1(dtype, white):
    found = to_float(jnp.array([0, 51, white], dtype))
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, [0, 51 / white, 1], rtol=1e-6)


def test_classes_are_one_hot_without_the_background():
    maps = jnp.array([[0, 1], [2, 3]], jnp.uint8)
    expected = [[[0, 0, 0], [1, 0, 0]], [[0, 1, 0], [0, 0, 1]]]
    np.testing.assert_array_equal(one_hot(maps, 3, channels=1), expected)
    np.testing.assert_array_equal(one_hot(maps, 3, channels=3), expected)
    np.testing.assert_array_equal(one_hot(jnp.array([[0, 1]]), 1, channels=3), [[[0, 0, 0], [1, 1, 1]]])
    np.testing.assert_array_equal(one_hot(jnp.array([[0, 1]]), 1, channels=1), [[[0], [1]]])


def test_the_label_of_a_single_class_is_one_number_whatever_the_channels():
    np.testing.assert_array_equal(one_hot(jnp.array([1, 1]), 1, channels=3), [[1], [1]])


def test_crops_augmentations_and_degradations_are_drawn_apart(monkeypatch):
    """Of keys alone: cropping splits the batch's, and `split` makes what `fold_in` makes of 0 and 1."""
    drawn = {}

    def pairs(images, maps, keys, settings, *, size, corners):
        drawn["augmented"] = keys
        return images[:, :size, :size], maps[:, :size, :size]

    def degrade(images, keys):
        drawn["degraded"] = keys
        return images

    monkeypatch.setattr(augmentation, "pairs", pairs)
    key, section = jax.random.key(0), {"noise": {"p": 1.0, "range": (0.1, 0.1)}}
    settings = {"size": SIZE, "classes": 2, "channels": 1, "augment": section, "degrade": degrade}
    make_batch(arrays(), None, key, **settings)
    crops = [key, *jax.random.split(key)]
    drawn["cropped"] = [*crops, *(one for of in crops for one in augmentation.image_keys(of, 5))]
    numbers = {
        name: {tuple(np.asarray(jax.random.key_data(one)).tolist()) for one in keys}
        for name, keys in drawn.items()
    }
    assert len(numbers["augmented"]) == len(numbers["degraded"]) == 5
    for one, other in (("augmented", "degraded"), ("augmented", "cropped"), ("degraded", "cropped")):
        assert not numbers[one] & numbers[other], (one, other)


def test_what_is_augmented_is_cropped_where_it_would_be_without():
    rows, key, still = np.array([4, 0, 2]), jax.random.key(2), {"noise": {"p": 1.0, "range": (0.0, 0.0)}}

    @jax.jit
    def both(key: jax.Array) -> list:
        return [
            make_batch(arrays(), rows, key, size=SIZE, classes=2, channels=1, augment=augment)
            for augment in (None, still)
        ]

    plain, found = both(key)
    np.testing.assert_allclose(found.images, plain.images, atol=1e-6)
    np.testing.assert_array_equal(found.condition, plain.condition)


def test_only_grey_images_take_another_number_of_channels():
    grey, colour = jnp.arange(4.0).reshape(1, 2, 2, 1), jnp.arange(12.0).reshape(1, 2, 2, 3)
    np.testing.assert_array_equal(with_channels(grey, 3), np.concatenate([grey] * 3, -1))
    np.testing.assert_array_equal(with_channels(colour, 3), colour)
    np.testing.assert_array_equal(with_channels(grey, 1), grey)
    with pytest.raises(PixmedError, match=r"3 channels and data\.channels=1"):
        with_channels(colour, 1)
