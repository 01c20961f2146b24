"""PixMed-Enhancer in JAX: MR slices from tumour masks, and evidence whether they help."""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["Samples", "load", "load_network"]

if TYPE_CHECKING:
    from pixmed_jax.data.samples import Samples
    from pixmed_jax.inference import load, load_network


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    """These on first use: importing the package does not import JAX, which takes seconds."""
    if name == "Samples":
        from pixmed_jax.data.samples import Samples

        return Samples
    if name in __all__:
        from pixmed_jax import inference

        return getattr(inference, name)
    raise AttributeError(f"module 'pixmed_jax' has no attribute {name!r}")
