"""What was freed stays with the process: touching a large block a second time faults no pages in."""

import os
import subprocess
import sys
from importlib.metadata import EntryPoint

import pytest

from pixmed_jax import allocator

PROGRAM = """
import ctypes, os, resource, sys
from pixmed_jax.allocator import keep_freed_memory
os.environ["JAX_PLATFORMS"], os.cpu_count = "cpu", lambda: 2  # where it helps
kept = keep_freed_memory() if sys.argv[1] == "keep" else None
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
faults = []
for _ in range(3):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = libc.malloc(2**28)
    ctypes.memset(block, 1, 2**28)
    libc.free(block)
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(kept, faults[-1])
"""


def faults(mode: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", PROGRAM, mode], capture_output=True, text=True, check=True)
    return done.stdout.split()


@pytest.mark.skipif(sys.platform != "linux", reason="mallopt is glibc's")
def test_a_freed_block_is_used_again_without_page_faults():
    kept, count = faults("keep")
    if kept == "False":
        pytest.skip("no glibc")
    assert int(count) < 100
    assert int(faults("leave")[1]) > 100  # at least one for each huge page of 2 MB


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
