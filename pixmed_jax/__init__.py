"""PixMed-Enhancer in JAX: tumour masks into MR slices, and the evidence whether that helps."""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["load"]

if TYPE_CHECKING:
    from pixmed_jax.inference import load


def __getattr__(name: str) -> Any:
    """`load` on first use: importing the package does not import JAX, which takes seconds."""
    if name == "load":
        from pixmed_jax.inference import load

        return load
    raise AttributeError(f"module 'pixmed_jax' has no attribute {name!r}")
