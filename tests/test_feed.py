"""Batches of slices that live on the device and of slices decoded when needed are the same, bit for bit."""

import types

import jax
import numpy as np
import pytest
import runs
import test_loop

from pixmed_jax.data.pipeline import Arrays, batch_rows, make_batch
from pixmed_jax.data.sources import open_dataset
from pixmed_jax.training import checkpoint
from pixmed_jax.training import mesh as meshes
from pixmed_jax.training.feed import Feed
from pixmed_jax.training.loop import train


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    config = runs.config(tmp_path_factory)
    return open_dataset(**config["data"], seed=0)


def batches(feed: Feed, dataset, steps) -> list:
    """What the jitted step would make of what it is given."""
    found = []
    for step in steps:
        arrays, rows = feed(step)
        key = jax.random.fold_in(jax.random.key(3), step)
        batch = make_batch(
            arrays, rows, key, size=dataset.size, classes=len(dataset.classes), channels=dataset.channels
        )
        found.append(jax.tree.map(np.asarray, batch))
    return found


def test_both_ways_give_the_same_batches(dataset, capsys):
    mesh = meshes.make_mesh(4)
    resident = Feed(dataset, mesh, seed=5, batch_size=4, resident=1e9)
    streamed = Feed(dataset, mesh, seed=5, batch_size=4, resident=0)
    assert (resident.streamed, streamed.streamed) == (False, True)
    assert "exceed train.resident_gb=0:" in capsys.readouterr().out
    assert resident.grey and streamed.grey
    steps = [0, 1, 2, 7, 7, 3]  # in order, far ahead, the same again, and back
    for a, b in zip(batches(resident, dataset, steps), batches(streamed, dataset, steps), strict=True):
        jax.tree.map(np.testing.assert_array_equal, a, b)
    streamed.close()
    resident.close()


def test_a_batch_larger_than_the_dataset_holds_slices_twice(dataset):
    few = dataset._replace(rows={**dataset.rows, "train": dataset.rows["train"][:3]})
    mesh = meshes.make_mesh(8)
    resident = Feed(few, mesh, seed=5, batch_size=8, resident=1e9)
    streamed = Feed(few, mesh, seed=5, batch_size=8, resident=0)
    (a,), (b,) = batches(resident, few, [1]), batches(streamed, few, [1])
    jax.tree.map(np.testing.assert_array_equal, a, b)
    streamed.close()


def test_rows_are_those_of_the_source(dataset):
    feed = Feed(dataset, meshes.make_mesh(4), seed=5, batch_size=4, resident=0)
    train_rows = dataset.rows["train"]
    np.testing.assert_array_equal(feed.rows(9), train_rows[batch_rows(5, 9, 4, len(train_rows))])
    feed.close()


def test_streaming_decodes_no_more_than_it_needs(dataset):
    """Some slices to know what they are like, then the batch and the few ahead of it."""
    asked = []

    def read(row):
        asked.append(row)
        return dataset.source.read(row)

    watched = dataset._replace(source=dataset.source._replace(read=read))
    feed = Feed(watched, meshes.make_mesh(4), seed=5, batch_size=4, resident=0)
    looked_at = len(asked)
    assert looked_at <= 16 < len(dataset.rows["train"])
    feed(0)
    feed.close()
    assert len(asked) <= looked_at + 4 * 4


def test_the_few_that_are_looked_at_are_spread_over_all(dataset):
    """The first ones may be of a single patient."""
    asked = []
    source = dataset.source._replace(read=lambda row: asked.append(row) or dataset.source.read(row))
    watched = dataset._replace(source=source)
    Feed(watched, meshes.make_mesh(4), seed=5, batch_size=4, resident=0).close()
    places = np.flatnonzero(np.isin(dataset.rows["train"], asked))
    gaps = np.diff([*places, len(dataset.rows["train"])])
    assert len(gaps) > 4 and places[0] == 0 and gaps.max() < 2 * len(dataset.rows["train"]) / len(gaps)


def few(limits: list, channels: int = 1) -> types.SimpleNamespace:
    """As many slices as there are limits, of 4x4 pixels, in place of a dataset."""
    found = np.array(limits, float)

    def load(rows, size):
        images = np.zeros((len(rows), size, size, channels), np.uint8)
        arrays = Arrays(images, images[..., 0], rows.astype(np.int32))
        return arrays, types.SimpleNamespace(limits=found[rows])

    return types.SimpleNamespace(rows={"train": np.arange(len(found))}, load_size=4, load=load)


@pytest.mark.parametrize(("share", "streamed"), [(0.999, True), (1.001, False)])
def test_what_counts_against_the_limit_is_all_slices_with_their_maps(share, streamed):
    """40 of 16 + 16 + 4 bytes, of which 14 are looked at."""
    data = few([(0, 255)] * 40)
    feed = Feed(data, meshes.make_mesh(4), seed=5, batch_size=4, resident=share * 40 * 36)
    assert feed.streamed == streamed
    feed.close()


@pytest.mark.parametrize("resident", [0, 1e9])
def test_limits_are_the_median_and_colours_are_told(resident):
    data = few([(0, 90), (1, 100), (2, 110), (3, 120), (500, 9000)], channels=3)
    feed = Feed(data, meshes.make_mesh(4), seed=5, batch_size=4, resident=resident)
    assert feed.limits == (2, 110) and not feed.grey
    feed.close()


def test_a_slice_that_a_batch_holds_twice_is_decoded_once():
    asked, data = [], few([(0, 255)] * 3)
    load = data.load
    data.load = lambda rows, size: asked.append(list(rows)) or load(rows, size)
    feed = Feed(data, meshes.make_mesh(1), seed=5, batch_size=8, resident=0)
    share = feed._read(0)
    feed.close()
    assert asked[-1] == [0, 1, 2]
    np.testing.assert_array_equal(share.labels, feed.rows(0))


def test_a_feed_that_is_closed_decodes_no_more():
    feed = Feed(few([(0, 255)] * 3), meshes.make_mesh(1), seed=5, batch_size=2, resident=0)
    feed.close()
    with pytest.raises(RuntimeError, match="shutdown"):
        feed(0)


def test_a_streamed_run_ends_where_a_resident_one_does(tmp_path, tmp_path_factory):
    """Whole trainings; only the gather is compiled differently."""
    config = runs.config(tmp_path_factory, train__resident_gb=0.0)
    assert train(config, tmp_path / "streamed") == 0
    found, expected = runs.state(tmp_path / "streamed"), runs.state(runs.trained(tmp_path_factory))
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    assert checkpoint.finished(tmp_path / "streamed" / "checkpoints")[-1].step == 6


def test_a_streamed_run_decodes_each_batch_once(tmp_path, tmp_path_factory, monkeypatch):
    """The batch by which the step is compiled is the first step's own."""
    test_loop.use_toy(monkeypatch)
    decoded, read = [], Feed._read
    monkeypatch.setattr(Feed, "_read", lambda self, step: decoded.append(step) or read(self, step))
    config = runs.config(tmp_path_factory, train__resident_gb=0.0, train__steps=2)
    assert train(config, tmp_path / "run") == 0
    assert {0, 1} <= set(decoded) and len(decoded) == len(set(decoded))


def test_batches_that_are_no_longer_wanted_are_given_up(dataset):
    feed = Feed(dataset, meshes.make_mesh(4), seed=5, batch_size=4, resident=0)
    feed._pool.shutdown()
    given_up = []

    class Lazy:
        """A pool that does what is asked for when it is fetched."""

        def submit(self, function, step):
            return types.SimpleNamespace(result=lambda: function(step), cancel=lambda: given_up.append(step))

    feed._pool = Lazy()
    feed(0)
    assert given_up == []
    feed(7)
    assert given_up == [1, 2, 3]


def test_of_several_processes_one_tells_that_batches_are_streamed(dataset, monkeypatch, capsys):
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    Feed(dataset, meshes.make_mesh(4), seed=5, batch_size=4, resident=0).close()
    assert capsys.readouterr().out == ""


def test_what_part_of_a_batch_is_this_process():
    assert meshes.local_part(meshes.make_mesh(6), 6) == slice(0, 6)
