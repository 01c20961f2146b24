"""Texts that are read back: what they may be, and what becomes of damaged ones."""

import os

import pytest

from pixmed_jax import texts


def test_a_text_and_its_byte_order_mark(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(b'\xef\xbb\xbf{"a": "\xc3\xa4"}')
    assert texts.read(path) == '{"a": "ä"}'
    assert texts.read_object(path) == texts.found_object(path) == {"a": "ä"}


@pytest.mark.parametrize(
    ("contents", "told"),
    [
        (b"[1]", "no JSON object"),
        (b"null", "no JSON object"),
        (b'{"a"', "Expecting"),
        (b"\xff{}", "utf-8"),
        (b'{"a":' * 20_000, "nested too deeply|Expecting"),
        (b" " * 101, "over 100 bytes"),
    ],
)
def test_what_is_no_object(tmp_path, contents, told):
    path = tmp_path / "a.json"
    path.write_bytes(contents)
    with pytest.raises(ValueError, match=told):
        texts.read_object(path, 2**20 if len(contents) > 200 else 100)
    assert texts.found_object(path, 100) == {}


def test_none_at_all(tmp_path):
    with pytest.raises(FileNotFoundError):
        texts.read(tmp_path / "none")
    assert texts.found_object(tmp_path / "none") == {} and texts.found_objects(tmp_path / "none", 9) == []


def test_devices_and_pipes_are_not_read(tmp_path):
    """Their size says 0, and their end never comes."""
    (tmp_path / "zero").symlink_to("/dev/zero")
    os.mkfifo(tmp_path / "pipe")
    for name in ("zero", "pipe", "."):
        with pytest.raises(ValueError, match="no regular file"):
            texts.read(tmp_path / name)


def test_half_a_line_is_left_out(tmp_path):
    path = tmp_path / "lines"
    path.write_text('{"step": 1}\n[2]\n{"step": 3}\n{"step": 4, "a":')
    assert texts.found_objects(path, 1000) == [{"step": 1}, {"step": 3}]
