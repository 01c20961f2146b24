"""Row 19: a download that goes wrong tells what was expected and what came, and the next one works."""

import http.server

import pytest
from test_brain_tumor_mri_builder import builder, check, web  # noqa: F401 (fixtures)

from pixmed_jax.errors import PixmedError


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda b: b[:-300], r"expected \d+ bytes, got \d+ \(cut short\)"),
        (lambda b: b + b"more", r"expected \d+ bytes, got \d+ \(another file\)"),
        (lambda b: b[:50] + bytes([b[50] ^ 1]) + b[51:], "expected MD5 [0-9a-f]{32}, got [0-9a-f]{32}"),
        (
            lambda b: b"\n<!DOCTYPE html><html>Sign in</html>",
            r"expected part2\.zip of \d+ bytes, got a web page of 36",
        ),
        (None, "expected part2.zip, got HTTP 404"),
    ],
)
def test_a_download_gone_wrong_and_the_next_one(web, tmp_path, damage, said):
    good = (web / "part2.zip").read_bytes()
    if damage is None:
        (web / "part2.zip").unlink()
    else:
        (web / "part2.zip").write_bytes(damage(good))
    data = tmp_path / "data"
    with pytest.raises(PixmedError, match=said) as error:
        builder.source(data_dir=str(data))
    assert "\n" not in str(error.value) and "part2.zip" in str(error.value)
    kept = sorted(path.name for path in (data / "downloads" / "brain_tumor_mri").iterdir())
    assert kept == ["part0.zip", "part1.zip"]  # the whole ones stay, nothing of the other does
    for name in kept:
        (web / name).unlink()
    (web / "part2.zip").write_bytes(good)
    check(builder.source(data_dir=str(data)))


def test_a_server_that_hangs_up(web, tmp_path, monkeypatch):
    """It promises more bytes than it sends."""
    monkeypatch.setattr(
        http.server.SimpleHTTPRequestHandler,
        "copyfile",
        lambda self, source, out: out.write(source.read(100)),
    )
    with pytest.raises(PixmedError, match=r"part0\.zip: expected \d+ bytes, got 100 \(cut short\)"):
        builder.source(data_dir=str(tmp_path / "data"))


def test_nobody_answers(web, tmp_path, monkeypatch):
    gone = builder.FILES[0]._replace(url="http://127.0.0.1:9/part0.zip")
    monkeypatch.setattr(builder, "FILES", (gone, *builder.FILES[1:]))
    with pytest.raises(PixmedError, match=r"no answer \(.*refused.*\); run it again, or put part0\.zip into"):
        builder.source(data_dir=str(tmp_path / "data"))
