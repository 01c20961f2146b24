"""The progress line of a training: whatever the terminal's width, it says how far it is and what is left."""

import io
import json
import re
import struct
import sys

import pytest
from tensorboardX.proto.event_pb2 import Event, SessionLog
from test_progress import Terminal

from pixmed_jax.training.records import Bar, Records

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


def test_a_report_is_of_the_images_since_the_last_one():
    bar = Bar(0, 10, 4, every=2, shown=False)
    for step in (2, 4):
        bar.advance(step - 1, 0.25)
        bar.advance(step, 0.75)
        assert bar.report(step, {}) == 8.0


def test_what_a_killed_run_wrote_beyond_its_step_goes(tmp_path):
    """Half a line too, and what is no record; TensorBoard is told to drop what it drew beyond it."""
    path = tmp_path / "metrics.jsonl"
    records = Records(tmp_path, 0)
    for step in (1, 2, 3):
        records.scalars(step, {"loss": 1 / step, "odd": float("nan")})
    records.close()
    whole = path.read_text().splitlines()
    assert [json.loads(line) for line in whole] == [
        {"step": step, "loss": 1 / step, "odd": None} for step in (1, 2, 3)
    ]
    path.write_text("\n".join([whole[0], "no record}", *whole[1:], '{"step": 2}']))
    for _ in range(2):
        Records(tmp_path, 2).close()
        assert path.read_text().splitlines() == whole[:2]
    stored = max(tmp_path.glob("events.out.tfevents.*")).read_bytes()
    events = []
    while stored:  # length, its checksum, the event, its checksum
        (length,) = struct.unpack("<Q", stored[:8])
        events.append(Event.FromString(stored[12 : 12 + length]))
        stored = stored[16 + length :]
    assert [event.file_version for event in events] == ["brain.Event:2", ""]
    assert (events[1].step, events[1].session_log.status) == (3, SessionLog.START)
    Records(tmp_path, 0).close()
    assert path.read_text() == ""
