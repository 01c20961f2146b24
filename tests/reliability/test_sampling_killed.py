"""Row 25: a sampling that is killed half-way and run again is one that was never killed."""

import csv

import pytest
import runs
from children import child, launch  # noqa: F401 (fixtures)
from PIL import Image

from pixmed_jax.sampling import sample

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("older", [False, True])
def test_killed_half_way_and_run_again(older, child, tmp_path, tmp_path_factory):
    workdir = runs.copied(tmp_path_factory, tmp_path / "run")
    if older:
        sample(workdir, split="val", number=3, seed=1)
    before = runs.tree_bytes(workdir)
    words = [f"--workdir={workdir}", "--mode=sample", "--sample.split=val", "--sample.number=20", "--fresh"]
    process = child(launch, *words, at="pixmed_jax.sample_files:write_pair", after=13).until_halted()
    process.kill()
    left = [path for path in workdir.iterdir() if path.name.startswith(".samples")]
    assert any(list(path.glob("images/*")) for path in left)  # it was half-way
    assert {name: data for name, data in runs.tree_bytes(workdir).items() if name in before} == before
    assert (workdir / "samples").exists() is older

    found = runs.tree_bytes(sample(workdir, split="val", number=20, fresh=True))
    assert found == runs.tree_bytes(
        sample(workdir, split="val", number=20, output=str(tmp_path / "straight"))
    )
    assert [path.name for path in workdir.iterdir() if path.name.startswith(".")] == []
    with (workdir / "samples" / "manifest.csv").open(newline="") as file:
        names = [row["file"] for row in csv.DictReader(file)]
    assert len(set(names)) == len(names) == 20
    for part in ("images", "masks", "conditions"):
        assert sorted(path.name for path in (workdir / "samples" / part).iterdir()) == names
        for name in names:
            with Image.open(workdir / "samples" / part / name) as picture:
                picture.load()
