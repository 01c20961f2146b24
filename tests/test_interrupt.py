"""A signal is acted on wherever it strikes; `reliability/test_signals.py` has whole stages."""

import gc
import os
import signal
import subprocess
import sys
import time

import pytest

from pixmed_jax.signals import Interrupt, Stopped


def test_one_that_strikes_in_a_callback_of_the_garbage_collector_is_not_lost(capfd):
    """Whatever a callback raises is told and dropped by Python; JAX has one that runs Python code."""

    def struck(phase, info):
        gc.callbacks.remove(struck)
        os.kill(os.getpid(), signal.SIGTERM)
        for _ in range(1000):  # the handler runs between two of these
            pass

    with pytest.raises(Stopped, match="SIGTERM"), Interrupt("stopping", raises=True):
        gc.callbacks.append(struck)
        gc.collect()
        for _ in range(100):
            time.sleep(0.05)
    told = capfd.readouterr().err
    assert told.count("SIGTERM: stopping") == 1 and "Exception ignored" not in told


def test_the_signal_is_told_before_the_end(capfd):
    """By two threads: the one that is stopped may be the quicker."""
    for _ in range(20):
        with pytest.raises(Stopped), Interrupt("stopping", raises=True):
            try:
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(5)
            finally:
                print("stopped", file=sys.stderr, flush=True)
    assert capfd.readouterr().err.splitlines() == ["SIGTERM: stopping", "stopped"] * 20


@pytest.mark.parametrize(("apart", "ends"), [(0.0, False), (0.8, True)])
def test_two_at_once_are_one_and_a_second_one_ends_it(apart, ends):
    """`timeout` sends a signal of its own to the process and then to its group."""
    code = f"""
import os, signal, time
from pixmed_jax.signals import Interrupt
with Interrupt("stopping") as interrupt:
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep({apart})
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0.3)
print("saved")
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout) == ((143, "") if ends else (0, "saved\n"))
    assert ended.stderr.splitlines() == ["SIGTERM: stopping"]


def test_the_hook_is_given_back():

    before = sys.unraisablehook
    with Interrupt("stopping", raises=True):
        assert sys.unraisablehook != before
    assert sys.unraisablehook is before
