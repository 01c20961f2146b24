"""Libraries that come with the extras of pyproject.toml, imported where they are needed.

Errors: PixmedError with the extra.
"""

import importlib
from typing import Any

from pixmed_jax.errors import PixmedError

_NAMES = {"skimage": "scikit-image"}  # where the package is not called as its module


def library(module: str, extra: str, *, otherwise: str = "") -> Any:
    """A module of such a library; otherwise: what one may do instead of installing it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        top = module.split(".")[0]
        remedy = f'pip install "pixmed-jax[{extra}]"' + (otherwise and f", or {otherwise}")
        raise PixmedError(f"{_NAMES.get(top, top)} is not installed; {remedy}") from error
