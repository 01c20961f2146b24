"""Work of many runs: what is passed over, what waits for what, and how several processes share it."""

import fcntl
import json
import shutil
import threading
import time
from types import SimpleNamespace

import pytest
import states

from pixmed_jax import parts as module
from pixmed_jax.errors import PixmedError
from pixmed_jax.parts import Part, finish, prepare
from pixmed_jax.sample_files import COLUMNS, EDIT_COLUMNS
from pixmed_jax.writing import write_json


def test_another_config_is_refused(tmp_path):
    old, new = {"run": ["a"], "samples": {"number": 2}}, {"run": ["a"], "samples": {"number": 3}}
    prepare(tmp_path, old, "study", fresh=False, contents=("systems",))
    prepare(tmp_path, old, "study", fresh=False, contents=("systems",))
    with pytest.raises(PixmedError, match=r"holds a study with another config \(samples.number\).*--fresh"):
        prepare(tmp_path, new, "study", fresh=False, contents=("systems",))
    assert json.loads((tmp_path / "config.json").read_text()) == old
    prepare(tmp_path, new, "study", fresh=False, contents=("systems",), may_change=("samples.number",))
    assert json.loads((tmp_path / "config.json").read_text()) == new


def test_data_that_were_moved_are_no_other_config(tmp_path):
    old, new = ({"data": {"dir": place, "images": "images"}, "seed": 0} for place in ("here", "there"))
    prepare(tmp_path, old, "study", fresh=False, contents=())
    prepare(tmp_path, new, "study", fresh=False, contents=())
    assert json.loads((tmp_path / "config.json").read_text()) == new
    old["data"]["images"] = "others"
    with pytest.raises(PixmedError, match=r"another config \(data\.images\)"):
        prepare(tmp_path, old, "study", fresh=False, contents=())


def test_a_fresh_start_deletes_what_the_work_wrote_and_nothing_else(tmp_path):
    for name in ("systems", "mine"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").touch()
    prepare(tmp_path, {"run": []}, "study", fresh=False, contents=("systems", "compare"))
    assert (tmp_path / "systems" / "file").exists()
    prepare(tmp_path, {"run": [1]}, "study", fresh=True, contents=("systems", "compare"))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["config.json", "mine"]


# ---------------------------------------------------------------- what is passed over
PLAIN = {"train": {"steps": 7, "epochs": 0, "batch_size": 1}}


def as_trained(part, step=7):
    """What a part leaves behind when it is trained and evaluated, as far as its files say; whole files, as
    others read them meanwhile.
    """
    part.workdir.mkdir(parents=True, exist_ok=True)
    write_json(part.workdir / "config.json", part.config)
    write_json(part.workdir / "evaluation.json", {"step": step, "split": part.split})


def test_a_part_whose_data_were_moved_is_looked_at_and_not_done_again(tmp_path, monkeypatch):
    """`train` compares the data and puts their new place on file."""
    config = PLAIN | {"data": {"dir": "here"}}
    part = Part("a", tmp_path / "a", PLAIN | {"data": {"dir": "there"}})
    as_trained(part._replace(config=config))
    calls = []

    def train(config, workdir):
        calls.append("train")
        (workdir / "config.json").write_text(json.dumps(config))
        return 0

    monkeypatch.setattr(module, "train", train)
    monkeypatch.setattr(module, "evaluate", lambda *_, **options: calls.append("evaluate"))
    assert finish([part], "study") == 0 and calls == ["train"]


def as_audited(part, step=7):
    (part.workdir / "audit.json").write_text(json.dumps({"step": step}))


def as_sampled(part):
    (part.workdir / "samples").mkdir(parents=True, exist_ok=True)
    header = ",".join((*COLUMNS, *EDIT_COLUMNS))
    line = '00000.png,,"a, of some kind",,,1,7,digest,0,255,none,,,\n'
    (part.workdir / "samples" / "manifest.csv").write_text(
        f"{header}\n{part.samples['samples']['number'] * line}"
    )


def test_entries_of_a_table_come_later_and_are_left_out_but_stay_what_they_were(tmp_path):
    options = {"fresh": False, "contents": (), "may_come": ("networks",)}
    a, b, other = ({"steps": steps} for steps in (1, 2, 3))
    prepare(tmp_path, {"seed": 0, "networks": {"a": a}}, "study", **options)
    prepare(tmp_path, {"seed": 0, "networks": {"b": b}}, "study", **options)
    prepare(tmp_path, {"seed": 0, "networks": {"a": a, "b": b}}, "study", **options)
    for networks, key in (({"a": other}, "a.steps"), ({"a": a, "b": other, "ab": a}, "b.steps")):
        with pytest.raises(PixmedError, match=rf"another config \(networks\.{key}\)"):
            prepare(tmp_path, {"seed": 0, "networks": networks}, "study", **options)
    with pytest.raises(PixmedError, match=r"another config \(seed\)"):
        prepare(tmp_path, {"seed": 1, "networks": {"c": a}}, "study", **options)
    prepare(tmp_path, {"seed": 1, "networks": {"a": other}}, "study", **{**options, "fresh": True})
    assert json.loads((tmp_path / "config.json").read_text())["networks"] == {"a": other}


@pytest.fixture
def counted(monkeypatch):
    """Which of the stages are called, each by name; nothing is done."""
    calls = []
    monkeypatch.setattr(module, "train", lambda *_, **__: calls.append("train") or 0)
    monkeypatch.setattr(module, "evaluate", lambda *_, **__: calls.append("evaluate"))
    monkeypatch.setattr(module, "audit", lambda *_, **__: calls.append("audit"))
    monkeypatch.setattr(module, "sample", lambda *_, **__: calls.append("sample"))
    return calls


@pytest.fixture
def done(tmp_path):
    """A part that is trained, evaluated, audited and sampled."""
    part = Part("part", tmp_path / "part", PLAIN, {"samples": {"number": 2}}, audit={"number": 5})
    as_trained(part)
    as_audited(part)
    as_sampled(part)
    return part


def test_a_part_that_is_done(done, counted):
    assert finish([done], "study") == 0
    assert counted == []


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            lambda p: p._replace(config={"train": {**p.config["train"], "steps": 8}}),
            ["train", "evaluate", "audit", "sample"],
        ),
        (lambda p: p._replace(samples={"samples": {"number": 3}}), ["sample"]),
        (lambda p: (p.workdir / "evaluation.json").unlink(), ["train", "evaluate"]),
        (lambda p: as_trained(p, step=6), ["train", "evaluate"]),
        (lambda p: p._replace(split="val"), ["train", "evaluate"]),
        (lambda p: shutil.rmtree(p.workdir / "samples"), ["sample"]),
        (lambda p: as_audited(p, step=6), ["audit"]),
        (lambda p: (p.workdir / "audit.json").unlink(), ["audit"]),
        (lambda p: (p.workdir / "audit.json").unlink() or p._replace(audit=None), []),
        (lambda p: p._replace(samples=p.samples | {"pasted": {"number": 2}}), ["sample"]),
        (lambda p: p._replace(samples={}), []),
        (lambda p: p._replace(split=""), []),
        (lambda p: p._replace(split="", samples={"samples": {"number": 3}}), ["train", "sample"]),
    ],
    ids=[
        *("steps", "number", "not evaluated", "evaluated early", "another split", "not sampled"),
        *(
            "audited early",
            "not audited",
            "no audit",
            "other samples",
            "no samples",
            "no evaluation",
            "trained alone",
        ),
    ],
)
def test_what_is_missing_is_made(done, counted, change, expected):
    changed = change(done)
    part = changed if isinstance(changed, Part) else done
    assert module.is_done(part) is (not expected)
    assert module._run(part) == 0 if expected else True
    assert counted == expected


def test_copied_pixels_are_of_no_step(done, counted):
    part = done._replace(samples={"pasted": {"number": 2}})
    (part.workdir / "pasted").mkdir()
    table = part.workdir / "pasted" / "manifest.csv"
    table.write_text("file,step,painter\n" + 2 * "a.png,0,copy_paste\n")
    assert module.is_done(part)
    table.write_text("file,step,painter\n" + 2 * "a.png,0,\n")
    assert not module.is_done(part)
    table.write_text("file,step,painter\na.png,0,copy_paste\n")
    assert not module.is_done(part)


@pytest.mark.parametrize(("step", "expected"), [(6, ["train", "evaluate"]), (7, ["evaluate"])])
def test_what_has_its_last_checkpoint_is_not_trained_to_be_tested_on_others(done, counted, step, expected):
    part = done._replace(split="val+test")
    states.write(part.workdir / "checkpoints", {3: 0.0, step: 0.0})
    assert module._run(part) == 0
    assert counted == expected


def test_a_part_by_epochs_is_done_too(done, counted):
    """Three epochs of seven slices, three at a time: seven steps."""
    (done.workdir / "split.json").write_text(json.dumps({"train": dict.fromkeys("abcdefg", "p")}))
    config = {"train": {"steps": 0, "epochs": 3, "batch_size": 3}}
    part = done._replace(config=config)
    as_trained(part)
    assert module.is_done(part)
    (done.workdir / "split.json").write_text(json.dumps({"train": dict.fromkeys("abcdefgh", "p")}))
    assert not module.is_done(part)  # eight slices are eight steps


# ---------------------------------------------------------------- order, and several at once
@pytest.fixture
def worker(monkeypatch):
    """Stages that leave behind what the real ones do; the folders trained, in order."""
    order = []

    def train(config, workdir):
        order.append(workdir.name)
        as_trained(Part("", workdir, config))
        return 0

    monkeypatch.setattr(module, "train", train)
    monkeypatch.setattr(module, "evaluate", lambda workdir, split: None)
    monkeypatch.setattr(module, "_PATIENCE", 0.01)
    return order


def some(tmp_path, names="abc", **needs):
    return [Part(name, tmp_path / name, PLAIN, needs=needs.get(name, "")) for name in names]


def test_parts_wait_for_what_they_need(tmp_path, worker):
    assert finish(some(tmp_path, a="c"), "study") == 0
    assert worker == ["b", "c", "a"]


def test_a_signal_ends_it(tmp_path, worker, monkeypatch):
    monkeypatch.setattr(module, "train", lambda config, workdir: 143)
    assert finish(some(tmp_path), "study") == 143
    assert not (tmp_path / "b").exists()


def test_a_part_that_another_process_holds_is_passed_over_and_then_waited_for(
    tmp_path, worker, monkeypatch, capsys
):
    """The lock is held by a file of our own, as another process would; it is done there in the meantime."""
    parts, waits = some(tmp_path, b="a"), threading.Event()

    def sleep(seconds):
        waits.set()
        time.sleep(seconds)

    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=time.monotonic, sleep=sleep))
    tmp_path.joinpath(".a.lock").touch()
    with (tmp_path / ".a.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        ours = threading.Thread(target=finish, args=(parts, "study"))
        ours.start()
        assert waits.wait(timeout=20)
        assert worker == ["c"]  # "a" is held, and "b" needs it
        as_trained(parts[0])
    ours.join(timeout=20)
    assert not ours.is_alive()
    assert worker == ["c", "b"]
    assert capsys.readouterr().out.count("2 parts are worked on elsewhere, waiting for them") == 1


def test_two_at_once_share_the_work(tmp_path, worker):
    parts = some(tmp_path, names="abcdefgh", h="a", g="b")
    both = [threading.Thread(target=finish, args=(parts, "study")) for _ in range(2)]
    for one in both:
        one.start()
    for one in both:
        one.join(timeout=20)
    assert sorted(worker) == list("abcdefgh")  # each once
    assert all(map(module.is_done, parts))


def test_what_is_left_is_told(tmp_path, worker, monkeypatch, capsys):
    """Two parts take a minute each, so the third will take one too."""
    clock = iter([0, 0, 60, 120])
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    assert finish(some(tmp_path), "study") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "study: part 1 of 3, a (0:00 so far)",
        "study: part 2 of 3, b (1:00 so far, about 2:00 left)",
        "study: part 3 of 3, c (2:00 so far, about 1:00 left)",
    ]


def test_what_was_done_before_and_what_others_do_counts_as_it_should(tmp_path, worker, monkeypatch, capsys):
    """The first took none of this start's time; the third, finished by another, is not to come."""
    parts = some(tmp_path, names="abcde")
    as_trained(parts[0])
    run, clock = module._run, iter([0, 0, 60])

    def with_another(part):
        if part.name == "b":
            as_trained(parts[2])
        return run(part)

    monkeypatch.setattr(module, "_run", with_another)
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: next(clock, 90)))
    assert finish(parts, "study") == 0
    assert worker == ["b", "d", "e"]
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [
        "study: part 2 of 5, b (0:00 so far)",
        "study: part 4 of 5, d (1:00 so far, about 1:00 left)",
    ]
