"""A signal is acted on wherever it strikes; `reliability/test_signals.py` has whole stages."""

import gc
import os
import signal
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


def test_the_hook_is_given_back():

    before = sys.unraisablehook
    with Interrupt("stopping", raises=True):
        assert sys.unraisablehook != before
    assert sys.unraisablehook is before
