"""SIGINT (Ctrl-C) and SIGTERM: the first stops in good order, a second one ends the process at once.

Python runs a handler between two of its own instructions, so one that waits for XLA to compile would wait
for minutes, and a second signal with it. The system's side of a signal is told to a thread beside it instead,
which answers while the rest is busy.
"""

import os
import signal
import sys
import time
from threading import Event, Thread, Timer
from types import FrameType

_TOGETHER = 0.5  # seconds within which a signal twice is one: `timeout` sends it to the process and its group
_PATIENCE = 1.0  # seconds for a line to be written, by a thread that may wait for who reads it


class Stopped(BaseException):
    """A signal ends what is under way; like KeyboardInterrupt it is no Exception."""

    def __init__(self, number: int):
        super().__init__(signal.Signals(number).name)
        self.status = 128 + number


class Interrupt:
    """Remembers SIGINT or SIGTERM in `signal`, for a loop that stops when it can; or raises `Stopped`.

    The main thread's to enter; one inside another takes its place until it is left.
    """

    def __init__(self, does: str, *, raises: bool = False) -> None:
        self.signal: int | None = None
        self._does, self._raises, self._told = does, raises, Event()

    def __enter__(self) -> "Interrupt":
        ours, theirs = os.pipe()
        os.set_blocking(theirs, False)
        self._pipe = theirs
        self._old_hook, self._again = sys.unraisablehook, False
        sys.unraisablehook = self._unraisable
        self._old = {s: signal.signal(s, self._received) for s in (signal.SIGINT, signal.SIGTERM)}
        self._old_pipe = signal.set_wakeup_fd(theirs, warn_on_full_buffer=False)
        Thread(target=self._watch, args=(ours,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        sys.unraisablehook = self._old_hook
        signal.set_wakeup_fd(self._old_pipe)
        for number, handler in self._old.items():
            signal.signal(number, handler)
        os.close(self._pipe)  # which ends the thread

    def _received(self, number: int, frame: FrameType | None) -> None:
        first = self.signal is None
        self.signal = number
        if self._raises and first:
            self._told.wait(_PATIENCE)  # so that the end is told after what it comes from
            raise Stopped(number)

    def _unraisable(self, told: "sys.UnraisableHookArgs") -> None:
        """Raised where nobody can catch it, in a callback of the garbage collector: a moment later again."""
        number = self.signal
        if not isinstance(told.exc_value, Stopped) or number is None:
            self._old_hook(told)
            return

        def again() -> None:
            self.signal, self._again = None, True
            os.kill(os.getpid(), number)

        Timer(0.05, again).start()

    def _watch(self, pipe: int) -> None:
        first: tuple[int, float] | None = None  # its number, and when
        while byte := os.read(pipe, 1):
            number = byte[0]
            if number not in (signal.SIGINT, signal.SIGTERM):
                continue
            if self._again:  # not a second one
                self._again = False
                continue
            if first is not None:
                if number == first[0] and time.monotonic() - first[1] < _TOGETHER:
                    continue
                os._exit(128 + number)
            first = number, time.monotonic()
            print(f"{signal.Signals(number).name}: {self._does}", file=sys.stderr, flush=True)
            self._told.set()
        os.close(pipe)
