"""Where compiled programs lie between starts, so that a second start of a network trains within seconds.

JAX writes an entry in place and never over one that is there. One that a kill or a full disk cut short would
be told of at every start, and compiled each time; so it is deleted when JAX meets it, and kept anew.
"""

import contextlib
import glob
import os
import re
import warnings
from pathlib import Path
from typing import Any

FOLDER = "JAX_COMPILATION_CACHE_DIR"
_UNREADABLE = re.compile(r"Error reading persistent compilation cache entry for '([^']+)'")


def keep() -> None:
    """For the rest of the process; called before JAX is imported. The environment may name another folder."""
    folder = Path(os.environ.setdefault(FOLDER, str(Path.home() / ".cache" / "pixmed_jax")))
    show = warnings.showwarning

    def healed(message: Any, *where: Any, **more: Any) -> None:
        if found := _UNREADABLE.match(str(message)):
            # Which of the entries of that name it was, JAX does not say; the others cost a compilation.
            for path in folder.glob(f"{glob.escape(found[1])}-*"):
                with contextlib.suppress(OSError):
                    path.unlink()
            message = f"{folder}: the compiled {found[1]} there was cut short; it is compiled and kept anew"
        show(message, *where, **more)

    warnings.showwarning = healed
