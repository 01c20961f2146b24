"""Processes to kill, to stop or to confine, forked from a server that has imported what takes seconds.

A child can be told to halt at a phase: it then waits inside of native code, as in a compilation, until the
test lets it go on. What it prints is in files.
"""

import contextlib
import ctypes
import functools
import multiprocessing
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import Any
from unittest.mock import patch

import pytest
import runs

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["children", "pixmed_jax.study", "pixmed_jax.data.phantom_builder"])
PATIENCE = 600  # seconds; the machine may be busy


class Child:
    """A process that runs `function(*arguments)` and ends with what it returns."""

    def __init__(self, folder: Path, function: Callable[..., int], *arguments: Any, **confined: Any):
        folder.mkdir(parents=True, exist_ok=True)
        number = len(list(folder.glob("*.out")))
        self._out, self._err = folder / f"{number}.out", folder / f"{number}.err"
        self._out.touch()  # the child opens it later, and another must not take the same number meanwhile
        self._halted = folder / f"{number}.halted"
        settings = {"halted": self._halted, **confined}
        path = os.pathsep.join([str(runs.ROOT), *sys.path])
        with patch.dict(os.environ, {"PYTHONPATH": path, "PYTHONWARNINGS": ""}):  # for the server
            self._process = CONTEXT.Process(
                target=_run, args=(function, arguments, settings, self._out, self._err), daemon=True
            )
            self._process.start()
        self.pid = self._process.pid

    @property
    def out(self) -> str:
        return self._out.read_text() if self._out.exists() else ""

    @property
    def err(self) -> str:
        return self._err.read_text() if self._err.exists() else ""

    @property
    def is_halted(self) -> bool:
        return self._halted.exists()

    def until(self, condition: Callable[[], Any]) -> "Child":
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert self._process.is_alive() or condition(), f"ended too early: {self.out} {self.err}"
            assert time.monotonic() < deadline, f"nothing happened: {self.out} {self.err}"
            time.sleep(0.01)
        return self

    def until_told(self, text: str) -> "Child":
        return self.until(lambda: text in self.out + self.err)

    def until_halted(self) -> "Child":
        return self.until(lambda: self.is_halted)

    def go_on(self) -> None:
        self._halted.unlink()

    def send(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        self._process.kill()
        assert self.code() == -signal.SIGKILL  # it had not ended by itself

    def code(self) -> int:
        self._process.join(PATIENCE)
        assert self._process.exitcode is not None, f"still runs: {self.out} {self.err}"
        return self._process.exitcode


def _run(function: Callable, arguments: tuple, settings: dict[str, Any], out: Path, err: Path) -> None:
    for path, number in ((out, 1), (err, 2)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT, 0o644), number)
    sys.stdout, sys.stderr = os.fdopen(1, "w", 1), os.fdopen(2, "w", 1)
    import jax

    jax.config.update("jax_num_cpu_devices", settings.get("devices", 1))
    if "cache" in settings:
        jax.config.update("jax_compilation_cache_dir", str(settings["cache"]))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    with contextlib.ExitStack() as patched:
        if "at" in settings:
            limit = settings.get("file_bytes")
            does = functools.partial(_limit, limit) if limit else functools.partial(halt, settings["halted"])
            patched.enter_context(_doing_first(does, settings["at"], settings.get("after", 0)))
        code = function(*arguments)
    sys.stdout.flush()
    sys.stderr.flush()
    sys.exit(code)


def _limit(file_bytes: int) -> None:
    """From now on no file gets larger than that, as on a disk that is full."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))


def _doing_first(does: Callable[[], None], at: str, after: int) -> Any:
    """Call number `after` of the function `at` (module:Class.method) does something before its own work."""
    module, _, name = at.partition(":")
    *path, leaf = name.split(".")
    owner = __import__(module, fromlist=["_"])
    for part in path:
        owner = getattr(owner, part)
    function, calls = getattr(owner, leaf), []

    def waiting(*args: Any, **kwargs: Any) -> Any:
        calls.append(None)
        if len(calls) == after + 1:
            does()
        return function(*args, **kwargs)

    return patch.object(owner, leaf, waiting)


def halt(halted: Path) -> None:
    """Wait until the file is gone, in a call that no signal ends: a mutex that is locked twice."""
    lock = ctypes.CDLL(None).pthread_mutex_lock
    unlock = ctypes.CDLL(None).pthread_mutex_unlock
    mutex = ctypes.create_string_buffer(64)
    lock(mutex)

    def wait() -> None:
        while halted.exists():
            time.sleep(0.01)
        unlock(mutex)

    halted.touch()
    Thread(target=wait, daemon=True).start()
    lock(mutex)


# ---------------------------------------------------------------- what children do
def train(config: dict[str, Any], workdir: Path) -> int:
    """A training, without the evaluation that launch.py adds; a fault is told as launch.py does."""
    from pixmed_jax.errors import PixmedError
    from pixmed_jax.training import loop

    try:
        return loop.train(config, workdir)
    except PixmedError as error:
        print(f"launch.py: {error}", file=sys.stderr)
        return 1


def launch(*words: str) -> int:
    """launch.py itself."""
    os.chdir(runs.ROOT)
    sys.path.insert(0, str(runs.ROOT))  # it belongs to no package
    import launch

    sys.argv = ["launch.py", *words]
    return launch.main(sys.argv)


@pytest.fixture
def child(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """child(function, *arguments, **confined) starts one; all that still run are killed after the test."""
    runs.trained(tmp_path_factory)  # the data and the compiled networks are there
    folder, cache = tmp_path_factory.mktemp("children"), runs.cache(tmp_path_factory)
    started: list[Child] = []

    def start(function: Callable[..., int], *arguments: Any, **confined: Any) -> Child:
        started.append(Child(folder, function, *arguments, **{"cache": cache, **confined}))
        return started[-1]

    yield start
    for one in started:
        one._process.kill()
        one._process.join()
