"""The bar appears on a terminal after a while, never elsewhere, and passes everything on."""

import io
import sys

import pytest

from pixmed_jax import progress


class Terminal(io.StringIO):
    """A stream that claims to be a terminal."""

    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("patience", "stream", "shown"), [(0, Terminal, True), (60, Terminal, False), (0, io.StringIO, False)]
)
def test_a_bar_is_shown_on_a_terminal_after_a_while(monkeypatch, patience, stream, shown):
    monkeypatch.setattr(progress, "_PATIENCE", patience)
    monkeypatch.setattr(sys, "stderr", stream())
    assert list(progress.watched("abc", 3, "spelling")) == ["a", "b", "c"]
    assert ("spelling" in sys.stderr.getvalue()) == shown
    assert ("100%" in sys.stderr.getvalue()) == shown
