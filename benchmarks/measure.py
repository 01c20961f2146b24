"""Honest timing: contenders take turns in one run, medians count, and the machine's own limit is beside them.

Times are seconds, rates FLOP/s (2 a multiply-accumulate) or bytes/s. Nothing here knows what is measured.
"""

import argparse
import importlib
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.progress import track

sys.path.insert(0, str(Path(__file__).parents[1]))  # configs/, and the package where it is not installed

from pixmed_jax import allocator
from pixmed_jax import config as configs

_CONTENDER = "CONTENDER"  # the environment variable that makes a benchmark's process one of its contenders

# pixmed_jax/allocator.py in glibc's own variables, for every side: PyTorch gains by it too.
_ONE_ARENA = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**31 - 1)}
_ALLOCATOR = _ONE_ARENA if allocator.helps() else {}
_CPU = {"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": ""}
# Sides share a GPU: none may take most of its memory beforehand.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")


class Contender:
    """One side of a comparison in a process of its own, so that no side's threads or heap disturb another's.

    The process is the same benchmark again; its `main` finds that side's name in `contender()` and serves it.
    `environment` is added to its environment.
    """

    def __init__(self, name: str, environment: Mapping[str, str]):
        command = [sys.executable, *sys.argv]
        env = {**os.environ, **_ALLOCATOR, **environment, _CONTENDER: name}
        self._name = name
        self._process = subprocess.Popen(
            command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def answer(self) -> Any:
        """What it told next: at first about itself, once it is ready."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            status = self._process.wait()
            raise SystemExit(f"the contender {self._name} ended with status {status}; its error is above")
        return json.loads(line)

    def seconds(self) -> float:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return self.answer()

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def contender() -> str | None:
    """The name of the side that this process is to serve; None in the process that compares."""
    return os.environ.get(_CONTENDER)


def serve(call: Callable[[], Any], **about: Any) -> None:
    """Time `call` whenever asked, until nobody asks any more; it returns once its work is done.

    Before each timed call there is one that is not: the caches still hold another side's data. What `about`
    holds functions for is told as they find it after the first call.
    """
    call()
    about = {name: value() if callable(value) else value for name, value in about.items()}
    print(json.dumps(about), file=_answers, flush=True)
    for _ in sys.stdin:
        call()
        began = time.perf_counter()
        call()
        print(json.dumps(time.perf_counter() - began), file=_answers, flush=True)


# What libraries print must not reach the answers.
_answers = os.fdopen(os.dup(1), "w")
if os.environ.get(_CONTENDER):
    os.dup2(2, 1)


def compare(
    names: Sequence[str], rounds: int, check: str = ""
) -> tuple[dict[str, np.ndarray], dict[str, dict[str, Any]]]:
    """Seconds of `rounds` calls of each contender, which take turns, and what each told about itself.

    They start together. Nothing is timed before the contender `check`, on the CPU, has answered: it asserts
    that the others compute the same.
    """
    checking = Contender(check, _CPU) if check else None
    contenders = {name: Contender(name, {}) for name in names}
    about = {}
    for name, side in contenders.items():
        with told(f"starting {name}"):
            about[name] = side.answer()
    if checking:
        with told("asserting that their results agree"):
            checking.answer()
        checking.close()
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for i in track(range(rounds + 1), "measuring"):
        for name, side in contenders.items():
            value = side.seconds()
            if i:
                seconds[name].append(value)
    for side in contenders.values():
        side.close()
    return {name: np.array(values) for name, values in seconds.items()}, about


def limits(dtype: str = "float32") -> None:
    """The machine's own contenders: "gemm" and "copy"."""
    call, amount = {"gemm": partial(gemm_call, dtype), "copy": copy_call}[contender() or ""]()
    serve(call, amount=amount)


def on_cpu() -> bool:
    return jax.default_backend() == "cpu"


def gemm_call(dtype: str) -> tuple[Callable[[], Any], float]:
    """(a call that multiplies square matrices, its FLOP); in float32 as coarsely as convolutions do."""
    size = 2048 if on_cpu() else 8192
    a = jax.random.normal(jax.random.key(0), (size, size), dtype)
    return _in_a_row(lambda a: a @ a, a, 2.0 * size**3)


def copy_call() -> tuple[Callable[[], Any], float]:
    """(a call that reads and writes an array, the bytes it moves)."""
    size = 2**26 if on_cpu() else 2**28
    return _in_a_row(lambda x: x * 2, jnp.ones(size, jnp.float32), 8.0 * size)


def _in_a_row(operation: Callable, x: jax.Array, amount: float) -> tuple[Callable[[], Any], float]:
    """(a call of `operation`, on a GPU of twenty that are queued, `amount` times as many)."""
    operation, times = jax.jit(operation), 1 if on_cpu() else 20

    def call() -> None:
        for _ in range(times):
            result = operation(x)
        result.block_until_ready()

    return call, times * amount


def peak_memory() -> float:
    """Bytes: of the accelerator where there is one, else this process's largest resident size so far."""
    stats = jax.devices()[0].memory_stats()
    if stats and "peak_bytes_in_use" in stats:
        return float(stats["peak_bytes_in_use"])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0


def accelerator_memory() -> float | None:
    """Bytes of the accelerator that were in use at most; None on a CPU."""
    return None if on_cpu() else peak_memory()


def machine() -> str:
    """What a table's caption says of the hardware and versions."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [
            line.split(":")[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line
        ]
        model = names[0] if names else model
    device = jax.devices()[0]
    where = f"{len(os.sched_getaffinity(0))} cores of {model}"
    if device.platform != "cpu":
        where = f"{device.device_kind}, {where}"
    return f"{where}; Python {platform.python_version()}, jax {jax.__version__}"


def table(seconds: dict[str, np.ndarray], unit: float = 1e3, name: str = "ms") -> str:
    """Minimum, median and maximum of each contender, fastest median first."""
    width = max(map(len, seconds))
    lines = [
        f"{'':{width}}{'min':>10}{'median':>10}{'max':>10}  {name}, n={len(next(iter(seconds.values())))}"
    ]
    for who in sorted(seconds, key=lambda who: np.median(seconds[who])):
        values = seconds[who] * unit
        lines.append(f"{who:{width}}{values.min():10.1f}{np.median(values):10.1f}{values.max():10.1f}")
    return "\n".join(lines)


def arguments(doc: str, **options: Any) -> argparse.Namespace:
    """The command line of a benchmark: `--json FILE` and `options` by their defaults."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    for name, default in options.items():
        parser.add_argument(f"--{name}", type=type(default), default=default, help=f"default {default}")
    return parser.parse_args()


def preset(name: str) -> dict[str, Any]:
    """The config that NAME:PRESET means, of configs/NAME.py; without a preset the quick one."""
    file, _, words = name.partition(":")
    return configs.plain(importlib.import_module(f"configs.{file}").get_config(words or "quick"))


def write_json(path: Path | None, numbers: dict[str, Any]) -> None:
    if path is not None:
        path.write_text(json.dumps(numbers, indent=1) + "\n")


@contextmanager
def told(what: str) -> Iterator[None]:
    began = time.perf_counter()
    print(f"{what} ...", end=" ", flush=True)
    yield
    print(f"{time.perf_counter() - began:.0f} s", flush=True)
