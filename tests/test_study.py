"""The study: which runs it is made of, and the page at its end."""

import json
import runpy
from pathlib import Path

import pytest
import runs

from pixmed_jax import config as configs
from pixmed_jax import study as module
from pixmed_jax.data import sources
from pixmed_jax.errors import PixmedError
from pixmed_jax.study import parts, study, study_dry_run


def config(preset="test", **changes):
    plain = configs.plain(runpy.run_path(str(runs.ROOT / "configs" / "study.py"))["get_config"](preset))
    return {**plain, **changes}


def test_the_parts_in_their_order():
    found = list(parts(config(), Path("w")))
    assert [(part.name, part.workdir.as_posix()) for part in found] == [
        ("ghost, seed 0", "w/systems/ghost"),
        ("no_ghost, seed 0", "w/systems/no_ghost"),
        ("dcgan, seed 0", "w/systems/dcgan"),
        ("classifier on real, seed 0", "w/downstream/classifier-real-seed0"),
        ("classifier on real, seed 1", "w/downstream/classifier-real-seed1"),
        ("classifier on ghost, seed 0", "w/downstream/classifier-ghost-seed0"),
        ("classifier on ghost, seed 1", "w/downstream/classifier-ghost-seed1"),
        ("classifier on dcgan, seed 0", "w/downstream/classifier-dcgan-seed0"),
        ("classifier on dcgan, seed 1", "w/downstream/classifier-dcgan-seed1"),
        ("segmenter on real, seed 0", "w/downstream/segmenter-real-seed0"),
        ("segmenter on real, seed 1", "w/downstream/segmenter-real-seed1"),
        ("segmenter on ghost, seed 0", "w/downstream/segmenter-ghost-seed0"),
        ("segmenter on ghost, seed 1", "w/downstream/segmenter-ghost-seed1"),
    ]  # DCGAN draws no masks, so it teaches no segmenter
    for made in (part.samples or None for part in found), (part.audit for part in found):
        assert [options is not None for options in made] == [True] * 3 + [False] * 10


@pytest.mark.parametrize("preset", ["quick", "paper", "test"])
def test_every_part_splits_the_same_patients_alike_and_trains_on_none_of_the_test(preset):
    """Same source, same seed of the split; a system's samples are drawn from masks of training patients."""
    found = list(parts(config(preset), Path("w")))
    splits = {json.dumps([p.config["data"][k] for k in ("source", "dir", "split", "size")]) for p in found}
    assert len(splits) == 1
    assert {p.samples["samples"]["split"] for p in found if p.samples} == {"train"}
    for part in found:
        folder = part.config["data"].get("synthetic_dir", "")
        assert bool(part.needs) is bool(folder)
        assert bool(folder) is (
            part.workdir.parent.name == "downstream" and "-real-" not in part.workdir.name
        )
        if folder:
            arm = part.name.split()[2].rstrip(",")
            assert folder == str(Path(f"w/systems/{arm}/samples").absolute())
            assert part.needs == f"{arm}, seed 0"


def test_seeds_of_systems_have_folders_of_their_own():
    plain = config(run=["ghost"], seeds={"systems": [0, 3], "downstream": [5]})
    found = list(parts(plain, Path("w")))
    assert [p.workdir.name for p in found] == [
        *("ghost", "ghost-seed3", "classifier-real-seed5", "classifier-ghost-seed5"),
        *("segmenter-real-seed5", "segmenter-ghost-seed5"),
    ]
    assert [p.config["seed"] for p in found] == [0, 3, 5, 5, 5, 5]
    assert len({p.config["data"]["split"]["seed"] for p in found}) == 1


@pytest.mark.parametrize("key", ["run", "arms"])
def test_a_system_that_there_is_not(tmp_path, key):
    with pytest.raises(PixmedError, match=f"{key}: gan is no system of this study; there are dcgan, ghost"):
        study(config(**{key: ["ghost", "gan"]}), tmp_path / "w")
    assert not (tmp_path / "w").exists()


@pytest.mark.parametrize("begin", [study, study_dry_run])
def test_a_study_of_nobody_to_test_on_is_not_begun(begin, tmp_path, tmp_path_factory):
    plain = config()
    split = {**plain["data"]["split"], "fractions": [0.7, 0.3, 0.0]}
    data = {**plain["data"], "dir": str(runs.shared(tmp_path_factory) / "data"), "split": split}
    with pytest.raises(PixmedError, match=r"fractions=\(0\.7, 0\.3, 0\.0\): leaves test empty, and a study"):
        begin(config(data=data), tmp_path / "w")
    assert not (tmp_path / "w").exists()


@pytest.fixture
def one_class(tmp_path_factory):
    """The study's config, on phantoms whose tumours are all of one class."""
    plain = config()
    plain["data"] = {**plain["data"], "dir": str(runs.shared(tmp_path_factory) / "data")}
    known = sources.SOURCES["phantom"]

    def opened(**of):
        source = known(**of)
        return source._replace(labels=0 * source.labels, label_names=("tumor",))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources, "SOURCES", {"phantom": opened})
        yield plain


def test_data_of_one_class_are_studied_without_classifiers(one_class, tmp_path, monkeypatch, capsys):
    begun = []
    monkeypatch.setattr(module, "finish", lambda every, what: begun.extend(every) or 1)
    assert study(one_class, tmp_path / "w") == 1
    names = [part.workdir.name for part in begun]
    assert {name.split("-")[0] for name in names} == {"ghost", "no_ghost", "dcgan", "segmenter"}
    assert len(names) == 7
    told = capsys.readouterr().err
    assert "one class (tumor), and a classifier needs two or more: 6 of 13 parts are left out" in told


def test_a_part_that_cannot_be_is_found_before_the_first_is_trained(one_class, tmp_path):
    one_class["downstream"]["segmenter"]["model"]["network"]["levels"] = 7
    with pytest.raises(PixmedError, match=r"data\.size=32 cannot be halved 6 times"):
        study(one_class, tmp_path / "w")
    assert not (tmp_path / "w").exists()


# ---------------------------------------------------------------- all of it
@pytest.mark.slow
def test_a_study_from_nothing(tmp_path, tmp_path_factory):
    plain = config(run=["dcgan"], arms=["dcgan"], seeds={"systems": [0], "downstream": [0]})
    plain["data"] = {**plain["data"], "dir": str(runs.shared(tmp_path_factory) / "data")}
    assert study(plain, tmp_path / "w") == 0
    page = (tmp_path / "w" / "compare" / "index.html").read_text()
    assert "real + dcgan" in page and "dcgan:quick" in page
    audited = json.loads((tmp_path / "w/systems/dcgan/audit.json").read_text())
    assert audited["memorisation"]["n"] == 12
    samples = tmp_path / "w" / "systems" / "dcgan" / "samples"
    assert len(list((samples / "images").iterdir())) == 12
    judged = json.loads((tmp_path / "w/downstream/classifier-dcgan-seed0/evaluation.json").read_text())
    assert judged["trained_on"]["synthetic"] == 12
    before = (tmp_path / "w" / "systems" / "dcgan" / "metrics.jsonl").stat().st_mtime_ns
    assert study(plain, tmp_path / "w") == 0  # all is done, so nothing is trained again
    assert (tmp_path / "w" / "systems" / "dcgan" / "metrics.jsonl").stat().st_mtime_ns == before
