"""The C library's allocator, told to keep what was freed: each training step asks for the same gigabyte.

XLA's CPU backend allocates a step's temporaries anew and frees them after it. glibc hands blocks of that size
back to the kernel, so that every step touches some 260,000 fresh pages (256x256, batch 4), each a page fault:
about a quarter of the step's time (BUILD_NOTES.md). Peak memory stays what it is; it is only kept.
"""

import ctypes

# <malloc.h>; mallopt returns 1 where it took the value.
_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8


def keep_freed_memory() -> bool:
    """Of this whole process, so for a program to call, not for a library; False where there is no glibc."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    # One arena, since those of threads cannot hold large blocks; none of them mapped on its own; no trimming.
    settings = ((_M_ARENA_MAX, 1), (_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, 2**31 - 1))
    taken = [mallopt(name, value) for name, value in settings]  # all of them, even after one that failed
    return all(taken)
