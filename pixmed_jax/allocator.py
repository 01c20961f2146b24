"""The C library's allocator, told to keep what was freed: each training step asks for the same gigabyte.

XLA's CPU backend allocates a step's temporaries anew and frees them after it. glibc hands blocks of that size
back to the kernel, so that every step touches some 260,000 fresh pages (256x256, batch 4), each a page fault:
about a quarter of the step's time (BUILD_NOTES.md). Peak memory stays what it is; it is only kept. What it
costs is time to compile: XLA's threads do so in parallel and wait for each other's allocations then.
"""

import ctypes
import os
from importlib.metadata import entry_points
from importlib.util import find_spec

# <malloc.h>; mallopt returns 1 where it took the value.
_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8

# 2 cores compile a step in half as long again; 16 were not through after 150 s with what takes them 50.
_MOST_CORES = 8


def helps() -> bool:
    """Whether steps will run on a CPU, and one of few cores.

    To ask JAX would start its threads; so by JAX_PLATFORMS, and by the plugins for accelerators there are.
    """
    platforms = os.environ.get("JAX_PLATFORMS", "")
    accelerated = bool(entry_points(group="jax_plugins")) or find_spec("libtpu") is not None
    on_cpu = platforms == "cpu" if platforms else not accelerated
    return on_cpu and (os.cpu_count() or 1) <= _MOST_CORES


def keep_freed_memory() -> bool:
    """Where it helps. Of this whole process, so for a program to call, not for a library, and before its
    first thread: glibc settles how many arenas there may be when a second thread first asks for memory, and
    answers as if it had taken the number later too. False where not all was taken, as without glibc.
    """
    if not helps():
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    # One arena, since those of threads cannot hold large blocks; none of them mapped on its own; no trimming.
    settings = ((_M_ARENA_MAX, 1), (_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, 2**31 - 1))
    taken = [mallopt(name, value) for name, value in settings]  # all of them, even after one that failed
    return all(taken)
