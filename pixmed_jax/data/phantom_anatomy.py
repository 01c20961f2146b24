"""What a phantom patient is: sizes, intensities, a tumour, and the noise that makes folds and grain his own.

Coordinates, units and intensities: as module phantom says.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from scipy import ndimage

LABEL_NAMES = ("meningioma", "glioma", "pituitary")
SELLA = (0.0, 22.0, -31.0)
CELLS = 64  # side of the periodic noise volume
_WAVE = 6.4  # cells per wave of that noise


class Tumour(NamedTuple):
    """A tumour; lengths in mm, intensities as in module phantom's docstring."""

    kind: str  # one of LABEL_NAMES
    centre: np.ndarray  # [3] mm
    radii: np.ndarray  # [3] mm
    roughness: float  # how far noise moves the border, as a part of the radius
    wall: float  # thickness of a glioma's enhancing rim, as a part of the radius
    enhancement: float  # intensity of enhancing tissue
    core: float  # intensity of a glioma's necrotic core
    oedema: float  # reach of the oedema beyond the border, as a part of the radius
    on_falx: bool  # a meningioma that grows from the falx, not from the skull


class Anatomy(NamedTuple):
    """One patient; lengths in mm, intensities as in module phantom's docstring."""

    noise: np.ndarray  # [64, 64, 64] float32, unit variance, periodic; the patient's own folds
    pose: np.ndarray  # [3, 3] rotation from scanner axes to head axes
    size: np.ndarray  # [3] stretch of the head along x, y, z
    narrowing: float  # how much the head narrows towards the front, per mm
    skull: float  # thickness
    scalp: float  # thickness
    gap: float  # fluid between brain and skull
    sulcus: float  # half width of an open sulcus at the surface
    ventricles: float  # added to the radius of the ventricles
    grey: float
    white: float
    fluid: float
    fat: float
    muscle: float
    marrow: float
    vessel: float
    mucosa: float
    bias: np.ndarray  # [3] gradient of the coil's sensitivity, per 100 mm
    rim: float  # gain of the coil 100 mm off the centre
    noise_level: float  # standard deviation of both channels of the Rician noise
    blur: float  # standard deviation of the point spread
    tumour: Tumour


@lru_cache(maxsize=2)
def noise_volume(seed: int) -> np.ndarray:
    """Periodic noise of one dominant wavelength: its zero levels are winding sheets, as sulci are."""
    white = np.random.default_rng([seed, 0, 1]).standard_normal((CELLS,) * 3)
    f = np.fft.fftfreq(CELLS) * _WAVE
    radius = np.sqrt(f[:, None, None] ** 2 + f[None, :, None] ** 2 + f[None, None, : CELLS // 2 + 1] ** 2)
    band = np.exp(-(((np.abs(radius) - 1) / 0.28) ** 2))
    noise = np.fft.irfftn(np.fft.rfftn(white) * band, s=(CELLS,) * 3, axes=(0, 1, 2))
    return (noise / noise.std()).astype(np.float32)


def noise_at(a: Anatomy, p: np.ndarray, wave: float, shift: float = 0.0) -> np.ndarray:
    """The patient's noise at points [3, N] with waves of `wave` mm; other shifts give other noise."""
    cells = p * np.float32(_WAVE / wave) + np.float32(shift)
    return ndimage.map_coordinates(a.noise, cells, order=1, mode="grid-wrap", prefilter=False)
