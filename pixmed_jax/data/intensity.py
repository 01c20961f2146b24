"""The rule by which stored values become [0, 1], and the way back.

A rule gives a slice its limits (low, high): value = low + (high - low) * x for x in [0, 1]; what lies beyond
is clipped. x is kept as uint16, so the way there and back is exact to one part in 65,535 of high - low. A
slice that is stored inverted (MONOCHROME1) has low > high.

    auto          full for 8- and 16-bit pictures, percentiles for everything else
    full          the range of the type: 0 to 255, 0 to 65535, or what a DICOM file's bits can hold
    percentiles   the 0.5th and the 99.5th of the file or volume: MR units mean nothing between scanners
    window        the display window that a DICOM file names (PS3.3 C.11.2.1.2)
    low,high      two numbers in the file's own units, such as -100,300 for CT

Errors: PixmedError naming data.intensity, or the file that a rule does not fit.
"""

import math

import numpy as np

from pixmed_jax.errors import PixmedError

RULES = ("auto", "full", "percentiles", "window")
PERCENTILES = (0.5, 99.5)
TOP = 65535
_SAMPLED = 2**22  # values that percentiles are taken over: all of them, or evenly spaced ones

Limits = tuple[float, float]


def parse(rule: str, key: str = "data.intensity") -> str | Limits:
    """A name in RULES, or two numbers. key: what the rule was given by."""
    if rule in RULES:
        return rule
    try:
        low, high = (float(part) for part in rule.split(","))
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise ValueError
    except ValueError as error:
        raise PixmedError(
            f"{key}={rule!r}: give one of {', '.join(RULES)}, or two numbers such as 0,4095"
        ) from error
    return low, high


def type_range(dtype: np.dtype) -> Limits | None:
    """What 0 and 1 stand for in pictures of 8 and 16 bits; None for types whose range means nothing."""
    return (0.0, float(np.iinfo(dtype).max)) if dtype in (np.uint8, np.uint16) else None


def percentiles(values: np.ndarray, name: str) -> Limits:
    """The limits of a whole volume [N, H, W, ...], which must hold two different numbers."""
    stride = max(1, -(-values[0].size * len(values) // _SAMPLED))
    # Slice by slice, so that no copy of the volume is made; the stride runs on from one to the next.
    parts = [part.ravel()[(-i * part.size) % stride :: stride] for i, part in enumerate(values)]
    sampled = np.concatenate(parts).astype(np.float64)
    if not np.isfinite(sampled).all():
        raise not_finite(sampled, name)
    low, high = np.percentile(sampled, PERCENTILES)
    if low == high:  # mostly background
        low, high = sampled.min(), sampled.max()
    if low == high:
        raise PixmedError(f"{name}: every value is {low:g}; remove it or export it again")
    return float(low), float(high)


def extremes(values: np.ndarray, name: str) -> Limits:
    """Likewise, of all values: nothing is clipped."""
    low, high = float(values.min()), float(values.max())
    if not (math.isfinite(low) and math.isfinite(high)):
        raise not_finite(values, name)
    if low == high:
        raise PixmedError(f"{name}: every value is {low:g}; remove it or export it again")
    return low, high


def not_finite(values: np.ndarray, name: str) -> PixmedError:
    """What to raise for values that are not all numbers; `name` is the file's."""
    count = np.count_nonzero(~np.isfinite(values))
    return PixmedError(
        f"{name}: {count} values are NaN or infinite; replace them with the background's value"
    )


def encode(values: np.ndarray, limits: Limits) -> np.ndarray:
    """Values -> uint16, where 0 is limits[0] and 65535 is limits[1]."""
    low, high = limits
    unit = (values.astype(np.float64) - low) / (high - low)
    return np.rint(unit.clip(0, 1) * TOP).astype(np.uint16)


def decode(unit: np.ndarray, limits: Limits) -> np.ndarray:
    """x in [0, 1] -> values in the units of the file that gave the limits, float64."""
    low, high = limits
    return low + np.asarray(unit, np.float64) * (high - low)


def rescaled(unit: np.ndarray, limits: Limits, others: Limits) -> np.ndarray:
    """x of one pair of limits -> x of another, float32; what either cannot hold is clipped."""
    low, high = others
    values = decode(unit.clip(0, 1), limits)
    return ((values - low) / (high - low)).clip(0, 1).astype(np.float32)
