"""The progress line of a training: whatever the terminal's width, it says how far it is and what is left."""

import io
import re
import sys

import pytest
from test_progress import Terminal

from pixmed_jax.training.records import Bar

VALUES = {"fake": 0.786, "real": 0.914, "1-ssim": 0.513, "adversarial": 0.703}
WHOLE = ["fake 0.786", "real 0.914", "1-ssim 0.513", "adversarial 0.703"]


def drawn(monkeypatch, columns: int, done: int, values: dict[str, float] | None) -> str:
    """The last line that a terminal shows after `done` of 2,400 steps."""
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERM", "xterm")
    bar = Bar(0, 2400, 4, every=50)
    for step in range(1, done + 1):
        bar.advance(step, 0.1)
    if values is not None:
        bar.report(done, values)
    bar.close()
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", sys.stderr.getvalue())
    return re.split(r"[\r\n]+", plain.rstrip())[-1]


@pytest.mark.parametrize(("columns", "shown"), [(40, 0), (60, 0), (80, 1), (100, 3), (120, 4), (200, 4)])
def test_metrics_give_way_and_step_and_time_left_stay(monkeypatch, columns, shown):
    line = drawn(monkeypatch, columns, 50, VALUES)
    assert len(line) <= columns
    assert re.match(r"training [━╸╺]+ +50/2400 ", line)
    assert re.search(r" (\d:\d\d|-:--):(\d\d|--)$", line)
    assert ("40.0 images/s" in line) == (columns >= 60)
    assert [name for name in WHOLE if name in line] == WHOLE[:shown]
    assert "…" not in line


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_before_the_first_report_the_line_is_true(monkeypatch, columns):
    line = drawn(monkeypatch, columns, 49, None)
    assert "compiling" not in line and "49/2400" in line
    assert ("metrics every 50 steps" in line) == (columns >= 80)


def test_elsewhere_a_report_is_a_whole_line(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    bar = Bar(0, 2400, 4, every=50)
    bar.advance(50, 0.1)
    assert bar.report(50, VALUES) == pytest.approx(40)
    bar.close()
    told = "  ".join(["step 50/2400", "40.0 images/s", *WHOLE, "0:03:55 left"])
    assert capsys.readouterr().out == f"{told}\n"
    assert sys.stderr.getvalue() == ""
