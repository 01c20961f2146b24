"""Row 27: compiled programs that lie cut short between starts."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
from pixmed_jax import compiled
compiled.keep()
import jax, jax.numpy as jnp
def rows(x):
    return jnp.sin(x) @ x.T
print(float(jax.jit(rows)(jnp.ones((8, 4))).sum()))
"""


@pytest.mark.parametrize("share", [0.5, 0.0])
def test_an_entry_cut_short_is_told_once_and_kept_anew(tmp_path, share):
    folder = tmp_path / "kept"
    settings = {"JAX_COMPILATION_CACHE_DIR": str(folder), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}

    def start() -> tuple[str, str]:
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM],
            env=os.environ | settings,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout, done.stderr

    first, told = start()
    (entry,) = folder.glob("jit_rows-*-cache")
    assert told == ""
    whole = entry.stat().st_size
    other = folder / "jit_other-0-cache"
    other.write_bytes(b"of another program")
    os.truncate(entry, int(share * whole))

    again, told = start()
    assert again == first
    assert f"{folder}: the compiled jit_rows there was cut short" in told and told.count("UserWarning") == 1
    assert entry.stat().st_size == whole and other.exists()
    assert start() == (first, "")
