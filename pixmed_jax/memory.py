"""When memory runs out, on a device or on the host: one line with what was tried and what to change.

XLA says it in a page, and only by an error's text.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from pixmed_jax.errors import PixmedError


@contextmanager
def told(batch_size: int, size: int, advice: str) -> Iterator[None]:
    """PixmedError with the batch, the image size and the advice, in the place of an error of no memory."""
    import jax

    try:
        yield
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
        text = str(error)
        if not isinstance(error, MemoryError) and "RESOURCE_EXHAUSTED" not in text:
            raise
        reason = text.split("RESOURCE_EXHAUSTED: ")[-1].strip().split("\n")[0].rstrip(".")
        raise PixmedError(
            f"out of memory with {batch_size} images of {size} x {size} at a time"
            f" ({reason[:200] or 'on the host'}); {advice}"
        ) from error
