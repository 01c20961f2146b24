"""What was freed stays with the process: touching a large block a second time faults no pages in, in no
thread, since XLA's are others than the program's."""

import os
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from pixmed_jax import allocator

ROOT = Path(__file__).parents[1]
PROGRAM = """
import ctypes, os, resource, sys
from concurrent.futures import ThreadPoolExecutor
from pixmed_jax.allocator import keep_freed_memory
os.environ["JAX_PLATFORMS"], os.cpu_count = "cpu", lambda: 2  # where it helps
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]

def faults():
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        block = libc.malloc(2**28)
        ctypes.memset(block, 1, 2**28)
        libc.free(block)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def main(argv=None):
    with ThreadPoolExecutor(1) as threads:
        print(faults(), threads.submit(faults).result())
    return 0

if sys.argv[1] == "launch":
    import launch
    launch._main = main  # in the place of what it does with its flags
    print(None)
    launch.main(["launch.py"])
else:
    print(keep_freed_memory() if sys.argv[1] == "keep" else None)
    main()
"""


def faults(mode: str) -> tuple[str, list[int]]:
    """Whether all was taken; page faults of a third block of 256 MB in the main thread, and in another."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, mode], capture_output=True, text=True, check=True, cwd=ROOT
    )
    kept, *counts = done.stdout.split()
    return kept, [int(count) for count in counts]


@pytest.mark.skipif(sys.platform != "linux", reason="mallopt is glibc's")
def test_a_freed_block_is_used_again_without_page_faults():
    kept, counts = faults("keep")
    if kept == "False":
        pytest.skip("no glibc")
    assert max(counts) < 100
    assert min(faults("leave")[1]) > 100  # at least one for each huge page of 2 MB
    assert max(faults("launch")[1]) < 100, "launch.py sets it too late"


@pytest.mark.parametrize(
    ("platforms", "plugins", "cores", "expected"),
    [
        ("", [], 2, True),
        ("", [], 8, True),
        ("", [], 16, False),  # threads that compile would wait for each other
        ("", ["xla_cuda12"], 2, False),
        ("cpu", ["xla_cuda12"], 2, True),
        ("cuda,cpu", ["xla_cuda12"], 2, False),
    ],
)
def test_it_helps_on_a_cpu_of_few_cores(monkeypatch, platforms, plugins, cores, expected):
    monkeypatch.setenv("JAX_PLATFORMS", platforms)
    found = [EntryPoint(name, f"jax_plugins.{name}", "jax_plugins") for name in plugins]
    monkeypatch.setattr(allocator, "entry_points", lambda group: found if group == "jax_plugins" else [])
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    assert allocator.helps() == expected
