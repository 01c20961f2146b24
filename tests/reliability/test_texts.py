"""Row 18, texts: manifests, config.json and tables that nobody should have to read."""

import json

import pytest
from states import CONFIG

from pixmed_jax import workdir
from pixmed_jax.data import tables
from pixmed_jax.errors import PixmedError
from pixmed_jax.training import checkpoint


def edited(**changes) -> str:
    good = {"step": 5, "score": 0.1, "config": CONFIG, "classes": ["a"], "grey": True, "files": {}}
    return json.dumps({**good, **changes})


@pytest.mark.parametrize(
    "text",
    [
        "not json",
        "",
        "[]",
        "null",
        '{"step": 5}',
        edited(files={"../../secret": "0" * 64}),
        edited(files={"/etc/passwd": "0" * 64}),
        edited(files=["a"]),
        edited(step="five"),
        edited(step=[1]),
        edited(step=float("inf")),
        edited(score=None),
        edited(config=7),
        edited(classes=3),
        "[" * 100_000,
        b"\xff\xfe\x00",
    ],
    ids=str,
)
def test_hostile_manifests(folder, text, capsys):
    """Passed over with a word on stderr when a step is looked for, refused when it is asked for."""
    path = folder / "15" / checkpoint.MANIFEST
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    assert [saved.step for saved in checkpoint.finished(folder)] == [5, 10]
    told = capsys.readouterr().err
    assert told.startswith("checkpoint 15 is passed over") and str(path) in told and told.count("\n") == 1
    assert checkpoint.newest_intact(folder).step == 10
    with pytest.raises(PixmedError) as error:
        checkpoint.open_step(folder / "15")
    assert str(path) in str(error.value) and "\n" not in str(error.value)
    for step in ("5", "10"):
        (folder / step / checkpoint.MANIFEST).write_text("{}")
    with pytest.raises(PixmedError, match="every checkpoint is damaged"):
        checkpoint.newest_intact(folder)


def test_texts_without_end_are_not_read(folder, tmp_path):
    """A terabyte, of which nothing is on the disk; reading it would never end."""
    for path in (folder / "15" / checkpoint.MANIFEST, tmp_path / "config.json"):
        with path.open("wb") as file:
            file.truncate(2**40)
    with pytest.raises(PixmedError, match=r"manifest\.json: unreadable \(over \d+ bytes\)"):
        checkpoint.open_step(folder / "15")
    with pytest.raises(PixmedError, match=r"config\.json: unreadable \(over \d+ bytes\)"):
        workdir.read_config(tmp_path)


@pytest.mark.parametrize("text", ["{", "[1]", "null", "[" * 100_000], ids=["half", "list", "null", "deep"])
def test_a_config_that_is_none(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(PixmedError, match=r"config\.json: unreadable"):
        workdir.read_config(tmp_path)


def test_names_that_break_lines_are_shown_as_escapes(tmp_path):
    """Found by fuzzing: a quoted column may hold a line end, and a name what a terminal obeys."""
    (tmp_path / "meta.csv").write_text('file,"lab\nel\x1b[2J",é\na.png,glioma,p1\n')
    with pytest.raises(PixmedError, match=r"it has file, lab\\nel\\x1b\[2J, é") as error:
        tables.columns_of(tmp_path / "meta.csv", ["a.png"], "file", "label", "", "")
    assert str(error.value).isprintable()
    undecodable = b"a\xff.png".decode("utf-8", "surrogateescape")
    assert str(PixmedError(undecodable)).encode() == rb"a\udcff.png"
