"""scikit-image, which the extra "enhance" brings."""

import importlib
from typing import Any

from pixmed_jax.errors import PixmedError


def scikit_image(module: str) -> Any:
    """A module of scikit-image."""
    try:
        return importlib.import_module(f"skimage.{module}")
    except ImportError as error:
        raise PixmedError('scikit-image is not installed; pip install "pixmed-jax[enhance]"') from error
