"""Rows 3 and 4: the seed decides all, and after a resume the data come in the same order."""

import numpy as np
import pytest
import runs

from pixmed_jax.data.sources import open_dataset
from pixmed_jax.sampling import sample
from pixmed_jax.training import checkpoint, feed
from pixmed_jax.training import mesh as meshes
from pixmed_jax.training.loop import train


@pytest.mark.slow
def test_the_same_seed_twice_and_another(tmp_path, tmp_path_factory):
    first = runs.trained(tmp_path_factory)
    for name, seed in (("again", 0), ("other", 1)):
        assert train(runs.config(tmp_path_factory, seed=seed), tmp_path / name) == 0
    digests = [
        checkpoint.sha256_of_tree(runs.state(run)) for run in (first, tmp_path / "again", tmp_path / "other")
    ]
    assert digests[0] == digests[1] != digests[2]
    split = [(run / "split.json").read_bytes() for run in (first, tmp_path / "other")]
    assert split[0] == split[1]  # patients have a seed of their own

    options = {"split": "val", "number": 3}
    again, other = (
        runs.tree_bytes(sample(tmp_path / name, output=str(tmp_path / f"of {name}"), **options))
        for name in ("again", "other")
    )
    assert runs.tree_bytes(sample(first, output=str(tmp_path / "of first"), **options)) == again
    assert set(other) == set(again) and other != again
    assert again["masks/00000.png"] == other["masks/00000.png"]


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_after_a_resume_the_same_files_whatever_the_workers(workers, tmp_path_factory, monkeypatch):
    """Straight through and from memory, against started at step 3 and decoded by so many threads."""
    runs.trained(tmp_path_factory)
    config = runs.config(tmp_path_factory)
    dataset, mesh = open_dataset(**config["data"], seed=0), meshes.make_mesh(4)
    straight = feed.Feed(dataset, mesh, seed=0, batch_size=4, resident=1e9)
    monkeypatch.setattr(feed, "_AHEAD", workers)
    resumed = feed.Feed(dataset, mesh, seed=0, batch_size=4, resident=0)
    for step in range(3, 15):  # into the second epoch
        arrays, none = resumed(step)
        whole, rows = straight(step)
        assert none is None
        np.testing.assert_array_equal(resumed.rows(step), straight.rows(step))
        np.testing.assert_array_equal(arrays.images, np.asarray(whole.images)[np.asarray(rows)])
        np.testing.assert_array_equal(arrays.maps, np.asarray(whole.maps)[np.asarray(rows)])
    resumed.close()
    files = [dataset.source.files[row] for step in range(8) for row in straight.rows(step)]
    assert len(files) == len(dataset.rows["train"]) == len(set(files))  # one epoch: no file twice
