"""A procedural head: T1-weighted, contrast-enhanced MR slices of patients who never lived.

A patient (`Anatomy`) is an implicit description in three dimensions: every tissue is a signed distance or
a level set of noise that can be asked at any point. A slice is that description evaluated on a plane, so
axial, coronal and sagittal slices of one patient agree by construction.

Coordinates: head frame in mm; x to the patient's left, y to the front, z up; the origin lies between the
thalami, the vertex near z = 87, the sella at (0, 22, -32). Distances are in mm, negative inside.
Intensities: float32, 0 is air and about 1 the brightest fat. Images: [S, S] uint8; masks: [S, S] uint8,
1 inside the tumour (necrosis included, oedema not). The top row is the front (axial) or the vertex; the
first column is the patient's right or, in sagittal slices, the face.

Everything random comes from (seed, patient), so a patient's slices are the same bytes each time (another
processor or numpy may round a pixel the other way).
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from pixmed_jax.errors import PixmedError

LABEL_NAMES = ("meningioma", "glioma", "pituitary")
PLANES = ("axial", "coronal", "sagittal")
MIN_TUMOUR = 0.0015  # smallest part of a slice's pixels that its tumour may take

_EDGE = 1.2  # mm over which one tissue passes into the next
_CELLS = 64  # side of the periodic noise volume
_WAVE = 6.4  # cells per wave of that noise
_SELLA = (0.0, 22.0, -31.0)
_Point = tuple[float, float, float]


class PhantomSlice(NamedTuple):
    """One slice as `patient_slices` gives it."""

    image: np.ndarray  # [S, S] uint8
    mask: np.ndarray  # [S, S] uint8, 0 or 1
    label: int  # index into LABEL_NAMES
    plane: str  # one of PLANES


class Tumour(NamedTuple):
    """A tumour; lengths in mm, intensities as in the file's docstring."""

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
    """One patient; lengths in mm, intensities as in the file's docstring."""

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


# ------------------------------------------------------------------------------ shapes and noise


def _ellipsoid(p: np.ndarray, centre: _Point, radii: _Point) -> np.ndarray:
    """Distance of points [3, N] to an ellipsoid (first order, exact on the surface)."""
    to_first = np.zeros(p.shape[1], np.float32)
    to_second = np.zeros(p.shape[1], np.float32)
    for axis in range(3):
        scaled = (p[axis] - np.float32(centre[axis])) * np.float32(1 / radii[axis])
        squared = scaled * scaled
        to_first += squared
        to_second += squared * np.float32(1 / radii[axis] ** 2)
    length = np.sqrt(to_first)
    return length * (length - 1) / np.sqrt(to_second + 1e-9)


def _tube(p: np.ndarray, start: _Point, end: _Point, start_radius: float, end_radius: float) -> np.ndarray:
    """Distance of points [3, N] to a tube whose radius changes along its way."""
    axis = np.subtract(end, start)
    along = sum((p[i] - np.float32(start[i])) * np.float32(axis[i] / (axis @ axis)) for i in range(3))
    np.clip(along, 0, 1, out=along)
    squared = sum((p[i] - np.float32(start[i]) - along * np.float32(axis[i])) ** 2 for i in range(3))
    return np.sqrt(squared) - (start_radius + along * np.float32(end_radius - start_radius))


def _join(a: np.ndarray, b: np.ndarray, smooth: float) -> np.ndarray:
    """Union of two distances, its crease filled over `smooth` mm."""
    crease = np.maximum(smooth - np.abs(a - b), 0)
    return np.minimum(a, b) - crease * crease * np.float32(0.25 / smooth)


def _cover(distance: np.ndarray, edge: float = _EDGE) -> np.ndarray:
    """1 inside, 0 outside, linear over `edge` mm across the border."""
    return np.clip(0.5 - distance * np.float32(1 / edge), 0, 1)


def _paint(canvas: np.ndarray, distance: np.ndarray, value: np.ndarray | float, edge: float = _EDGE) -> None:
    """Lay `value` over the canvas where `distance` is negative."""
    canvas += _cover(distance, edge) * (value - canvas)


@lru_cache(maxsize=2)
def _noise_volume(seed: int) -> np.ndarray:
    """Periodic noise of one dominant wavelength: its zero levels are winding sheets, as sulci are."""
    white = np.random.default_rng([seed, 0, 1]).standard_normal((_CELLS,) * 3)
    f = np.fft.fftfreq(_CELLS) * _WAVE
    radius = np.sqrt(f[:, None, None] ** 2 + f[None, :, None] ** 2 + f[None, None, : _CELLS // 2 + 1] ** 2)
    band = np.exp(-(((np.abs(radius) - 1) / 0.28) ** 2))
    noise = np.fft.irfftn(np.fft.rfftn(white) * band, s=(_CELLS,) * 3, axes=(0, 1, 2))
    return (noise / noise.std()).astype(np.float32)


def _noise(a: Anatomy, p: np.ndarray, wave: float, shift: float = 0.0) -> np.ndarray:
    """The patient's noise at points [3, N] with waves of `wave` mm; other shifts give other noise."""
    cells = p * np.float32(_WAVE / wave) + np.float32(shift)
    return ndimage.map_coordinates(a.noise, cells, order=1, mode="grid-wrap", prefilter=False)


# ------------------------------------------------------------------------------ the head


def _mirrored(p: np.ndarray) -> np.ndarray:
    """Both halves of the head folded onto x >= 0, for what comes in pairs."""
    return np.stack([np.abs(p[0]), p[1], p[2]])


def _to_standard(p: np.ndarray, size: np.ndarray, narrowing: float) -> np.ndarray:
    """Points of the patient's head moved to the standard head in which all shapes are given."""
    q = p * (1 / size).astype(np.float32)[:, None]
    q[0] *= 1 + np.float32(narrowing) * q[1]
    return q


def _cavity(q: np.ndarray, m: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distances to the skull's inner surface, to its part above the tentorium, and to the closed vault."""
    vault = _ellipsoid(q, (0, 0, 4), (69, 88, 72))
    floor = -(q[2] + 21 + 4 * np.cos(q[0] * 0.075) - 0.06 * (q[1] - 40))
    temporal = _ellipsoid(m, (40, 12, -20), (26, 38, 26))
    cerebrum = _join(np.maximum(vault, floor), temporal, 6)
    fossa = _ellipsoid(q, (0, -40, -30), (56, 43, 36))
    petrous = np.minimum(
        _tube(m, (16, 8, -44), (60, -18, -42), 3, 13), _tube(q, (0, 19, -44), (0, 2, -64), 7, 6)
    )
    canal = _tube(q, (0, -22, -45), (0, -30, -170), 12, 8)
    sella = _ellipsoid(q, _SELLA, (9, 7, 9))
    cavity = _join(_join(cerebrum, np.maximum(fossa, -petrous), 8), canal, 6)
    return _join(cavity, sella, 5), cerebrum, vault


def _surface(a: Anatomy, q: np.ndarray, m: np.ndarray, vault: np.ndarray) -> np.ndarray:
    """Distance to the skin."""
    skin = vault - (a.skull + a.scalp + 1.5)
    skin = _join(skin, _tube(q, (0, 36, -52), (0, 46, -104), 64, 49), 22)  # face
    skin = _join(skin, _ellipsoid(m, (46, 44, -48), (26, 34, 30)), 14)  # cheeks
    skin = _join(skin, _ellipsoid(m, (46, -6, -40), (35, 50, 44)), 16)  # temples, mastoids
    skin = _join(skin, _tube(q, (0, -16, -70), (0, -30, -210), 54, 56), 24)  # neck
    skin = _join(skin, _ellipsoid(m, (46, 22, -98), (16, 28, 34)), 16)  # angles of the jaw
    skin = _join(skin, _ellipsoid(q, (0, 78, -124), (28, 20, 16)), 14)  # chin
    skin = _join(skin, _tube(q, (0, 96, -34), (0, 108, -64), 5, 12), 12)  # nose
    skin = _join(skin, _ellipsoid(q, (0, 96, -94), (22, 8, 12)), 8)  # lips
    return _join(skin, _ellipsoid(m, (84, -12, -36), (4.5, 15, 27)), 4)  # ears


def _outside_cavity(
    a: Anatomy, q: np.ndarray, m: np.ndarray, cavity: np.ndarray, vault: np.ndarray, skin: np.ndarray
) -> np.ndarray:
    """Intensity of all that lies between the skull's inner surface and the skin, points [3, N]."""
    coarse = _noise(a, q, 27, 11.0)
    fine = _noise(a, q, 8, 23.0)
    # Neck and face: long bellies of muscle, thin fat between them, streaks along the fibres.
    along = q * np.array([[1.0], [1.0], [0.35]], np.float32) + 4 * coarse
    bellies = _noise(a, along, 34, 3.0)
    fibres = _noise(a, along, 7, 17.0)
    between = np.clip(1 - np.abs(bellies) * 2.4, 0, 1) * np.clip(0.75 + 0.5 * coarse, 0, 1)
    v = a.muscle * (1 + 0.14 * fibres + 0.06 * fine)
    v += (0.7 * a.fat - v) * between
    _paint(v, _ellipsoid(m, (34, 14, -84), (13, 24, 30)), a.muscle * (1 + 0.2 * fibres), 5)  # pterygoids
    _paint(v, _ellipsoid(m, (56, 26, -92), (9, 20, 34)), a.muscle * (1 + 0.15 * fibres), 4)  # masseters
    jaw = _tube(m, (50, 8, -66), (40, 58, -124), 5, 6) + 1.5 * coarse
    _paint(v, jaw, a.marrow * (1.2 + 0.2 * fine), 2)
    _paint(v, np.abs(jaw) - 0.6, 0.12, 2)
    _paint(v, _ellipsoid(q, (0, 54, -104), (25, 34, 22)), a.muscle * (1.2 + 0.25 * fibres), 5)  # tongue
    # Nose, sinuses and throat: air with mucosa around it and folds of it within.
    nose = _ellipsoid(q, (0, 66, -52), (15, 32, 25))
    conchae = np.abs(np.abs(m[0] - 7.5 + 1.2 * coarse) - 3.4) - 0.5 - 0.8 * np.clip(fine, -0.4, 1.2)
    septum = m[0] - 0.9 - 0.4 * fine
    _paint(v, nose - 1.5, a.mucosa * (0.8 + 0.15 * fine), 2)
    _paint(v, nose, 0.03)
    _paint(v, np.maximum(nose, np.minimum(conchae, septum)), a.mucosa * (0.75 + 0.2 * coarse), 1.6)
    for centre, radii in (
        ((29, 62, -68), (14, 17, 16)),
        ((7, 43, -46), (9, 12, 9)),
        ((10, 90, -14), (11, 4.5, 10)),
    ):
        sinus = _ellipsoid(m, centre, radii) + 1.5 * coarse
        _paint(v, sinus - 1.4, a.mucosa * 0.8)
        _paint(v, sinus, 0.025)
    throat = np.minimum(
        _tube(q, (0, 28, -60), (0, 16, -96), 9, 6), _tube(q, (0, 16, -96), (0, 12, -190), 6, 8)
    )
    throat += 1.2 * coarse
    _paint(v, throat - 2, a.mucosa * 0.8)
    _paint(v, throat, 0.02)
    palate = np.abs(q[2] + 80 - 0.006 * (q[1] - 50) ** 2) - 1.6
    _paint(v, np.maximum(palate, _ellipsoid(q, (0, 60, -80), (24, 34, 8))), 0.07)
    # Spine: vertebral bodies in front of the cord's canal, discs between them.
    body = np.maximum(np.hypot(q[0], 0.9 * (q[1] + 7 + 0.06 * (q[2] + 70))) - 10, q[2] + 62)
    _paint(v, body, a.marrow * (1.1 + 0.1 * fine), 2)
    _paint(v, np.maximum(body, np.abs((q[2] + 72) % 18 - 9) - 1.6), 0.14, 2)
    _paint(v, np.abs(body) - 0.7, 0.10, 1.6)
    # Bone: the skull, with marrow between its tables, and the petrous bones, full of air cells.
    lid = np.clip((q[2] + 30) / 25, 0.35, 1)  # the base and the canal have thinner walls than the vault
    thickness = a.skull * lid
    _paint(v, cavity - thickness - 0.5 * coarse, 0.05 + 0.02 * fine)
    marrow = np.abs(cavity - 0.55 * thickness) - (0.13 * thickness + 0.6 * coarse)
    _paint(v, marrow, a.marrow * (1 + 0.15 * fine), 2)
    petrous = np.minimum(
        _tube(m, (18, 7, -43), (60, -20, -44), 4, 12), _ellipsoid(m, (62, -26, -52), (10, 14, 18))
    )
    cells = 0.04 + 0.10 * np.clip(fine + 0.5 * coarse, 0, 2)
    _paint(v, petrous + 1.5 * coarse, cells, 3)
    _paint(v, _tube(q, (0, 15, -46), (0, 2, -64), 6, 5), a.marrow * (1.2 + 0.1 * fine), 2)  # clivus
    # Orbits: fat, the globe, the optic nerve and its muscles.
    orbit = np.maximum(_tube(m, (34, 72, -33), (14, 38, -32), 18, 4), skin + 2.5)
    _paint(v, orbit - 1.3, 0.07)
    _paint(v, orbit, a.fat * (0.8 + 0.05 * fine), 2)
    _paint(v, np.abs(_tube(m, (33, 74, -33), (13, 34, -32), 13.5, 1.5)) - 1.2, a.muscle * 1.3, 2)
    _paint(v, _tube(m, (32, 68, -33), (12, 30, -31), 1.8, 1.8), a.muscle, 2)
    eye = _ellipsoid(m, (33, 80, -33), (12.5, 12.5, 12.5))
    _paint(v, eye, 0.85 * a.mucosa)
    _paint(v, eye + 1.3, a.fluid * 0.9)
    _paint(v, _ellipsoid(m, (33, 89, -33), (4.5, 2, 4.5)), a.grey)
    # Scalp: fat under a darker skin, over the muscle of the temple.
    temple = np.maximum(_ellipsoid(m, (68, 30, -16), (11, 32, 38)), skin + a.scalp * 0.7)
    _paint(v, np.maximum(temple, thickness - cavity), a.muscle * (1 + 0.15 * fibres), 2)
    layer = np.maximum(-(skin + a.scalp - 1.0 + 0.8 * coarse), thickness - cavity)
    _paint(v, layer, a.fat * (0.95 + 0.07 * fine + 0.05 * coarse), 2)
    _paint(v, -(skin + 1.8 + 0.4 * coarse), a.fat * 0.60, 1.6)
    return v


# ------------------------------------------------------------------------------ the brain


def _push(a: Anatomy, q: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """Points moved back to where they lay before the tumour grew; nothing moves at the skull."""
    t = a.tumour
    centre = _to_standard(t.centre.astype(np.float32)[:, None], a.size, a.narrowing)
    reach = np.float32(1.7 * t.radii.mean())
    offset = q - centre
    fall = np.exp(-(offset * offset).sum(0) / reach**2)
    return q - offset * (0.45 * fall * np.clip(depth / 14, 0, 1))


def _brain(
    a: Anatomy, q: np.ndarray, cavity: np.ndarray, cerebrum: np.ndarray, vault: np.ndarray
) -> np.ndarray:
    """Intensity within the skull's inner surface, tumour apart, at points [3, N]."""
    p = _push(a, q, -cavity)
    x, y, z = p
    m = _mirrored(p)
    depth = -cavity - a.gap
    # Sulci run inwards: the noise is read where the way out meets a sphere, not at the point itself.
    flat = p * (75 / (75 - np.clip(depth, 0, 26)))
    folds = _noise(a, flat, 25)
    fine = _noise(a, p, 17, 31.0)
    x = x - 1.0 * fine

    # Where the halves, the lobes and the cerebellum part.
    tentorium = 0.9 * (z - (1 - 0.36 * m[0] + 0.10 * (y + 30)))
    behind = 0.85 * (y - 5 + 0.6 * m[0])
    below = np.maximum(tentorium, behind)  # negative in the posterior fossa
    callosum = _ellipsoid(np.stack([0 * x, y, z]), (0, 9, 5), (1, 41, 27))
    midline = np.maximum(np.abs(x) - 0.5 * a.gap - 0.2, -callosum)
    sylvian_z = z - (5 - 0.40 * y)
    open_by = 0.6 + a.sulcus
    sylvian = np.maximum(np.maximum(np.abs(sylvian_z + fine) - open_by, 35 - m[0]), np.abs(y - 8) - 37)
    insula = np.maximum(
        np.maximum(np.abs(m[0] - 38 - fine) - open_by, np.abs(sylvian_z) - 11), np.abs(y - 12) - 26
    )
    fissures = np.minimum(np.minimum(midline, sylvian), insula)
    pia = np.maximum(np.maximum(cerebrum + a.gap, -below + 0.8), -fissures)  # border of the cerebrum

    # Cerebrum: white matter, the cortex over it and into each sulcus, fluid where a sulcus gapes.
    v = np.full(x.shape, a.fluid, np.float32)
    _paint(v, pia, a.grey)
    inwards = np.clip(-pia, 0, 40)
    reach = 17 + 5 * fine
    closing = 1 - inwards / reach
    to_sulcus = 3.6 * np.abs(folds)
    white = np.maximum(3.2 - inwards, 3.4 * np.clip(1.5 * closing + 0.15, 0, 1) - to_sulcus)
    _paint(v, np.maximum(white, pia), a.white, 2)
    gaping = to_sulcus - a.sulcus * np.clip(closing, -1, 1) * (1.1 - 0.35 * fine)
    _paint(v, np.maximum(gaping, pia), a.fluid, 1.6)

    # Deep grey matter, ventricles and cisterns.
    grey = 0.25 * a.white + 0.75 * a.grey
    _paint(v, _ellipsoid(m, (11, -2, 7), (9, 14, 9)), grey, 3)  # thalamus
    _paint(v, _tube(m, (12, 34, 6), (17, 2, 20), 6, 3), grey, 2)  # caudate
    _paint(v, _ellipsoid(m, (26, 17, 2), (6, 18, 11)), grey, 2)  # putamen
    _paint(v, _ellipsoid(m, (26, -4, -18), (6, 16, 5)), grey, 2)  # hippocampus
    w = a.ventricles
    # The horns are flat and lean outwards: tubes in sheared coordinates.
    leaning = np.stack([m[0] - 0.5 * (z - 13), y, 0.62 * z])
    horns = _tube(leaning, (13, 46, 3), (8, 26, 8), 1.8 + w, 4 + w)
    for start, end, r0, r1 in (
        ((8, 26, 8), (8.5, -8, 13), 4.0, 3.3),
        ((8.5, -8, 13), (22, -32, 7.5), 3.3, 4.6),
        ((22, -32, 7.5), (25, -56, 3), 4.0, 1.2),
        ((22, -32, 7.5), (43, -4, -8), 3.4, 0.8),
    ):
        horns = np.minimum(horns, _tube(leaning, start, end, r0 + w, r1 + w))
    arch = np.maximum(np.abs(callosum + 4) - 3.5, np.maximum(m[0] - 12, -3 - z))
    _paint(v, arch, 1.06 * a.white, 2)
    _paint(v, horns, a.fluid)
    _paint(v, _ellipsoid(p, (0, 8, 0), (1.6 + 0.5 * w, 13, 9)), a.fluid)  # third ventricle
    _paint(v, _ellipsoid(p, (0, 20, -20), (13, 9, 7)), a.fluid, 2.5)  # cistern above the sella
    _paint(v, _ellipsoid(p, (0, -27, 2), (9, 6, 8)), a.fluid, 2.5)  # cistern behind the midbrain

    # Brainstem and cerebellum.
    stem = np.minimum(_tube(m, (6, -4, -4), (5, -8, -24), 9, 10), _ellipsoid(p, (0, -4, -32), (17, 13, 14)))
    stem = np.minimum(stem, _tube(p, (0, -12, -46), (0, -30, -170), 8.5, 5.0))
    lobes = np.maximum(np.maximum(below + 1.5, cavity + a.gap), y + 14 - 0.35 * m[0])
    lobes = np.maximum(lobes, -62 - z + 0.15 * m[0])
    folia = np.sin(0.8 * z + 1.0 * np.hypot(y + 22, 0.7 * m[0]) + 2 * fine)
    core = _ellipsoid(m, (17, -38, -34), (17, 14, 10)) + 2 * folia
    _paint(v, lobes, a.grey * (1 + 0.11 * folia), 1.6)
    _paint(v, np.maximum(core, lobes), a.white, 3)
    _paint(v, np.maximum(m[0] - 1.2, np.maximum(lobes, y + 60)), a.fluid, 2)
    _paint(v, np.maximum(stem - 1.6, z + 3), a.fluid, 1.6)
    _paint(v, stem, 0.6 * a.white + 0.4 * a.grey, 2)
    _paint(v, _ellipsoid(p, (0, -25, -33), (7, 4, 9)), a.fluid)  # fourth ventricle

    # What takes up contrast: dura, venous sinuses, arteries, veins in the sulci, choroid plexus.
    falx = np.maximum(np.maximum(np.abs(x) - 0.5, -callosum + 6), -(z + 8) - 0.3 * np.abs(y - 20))
    _paint(v, falx, 0.75 * a.vessel, 1.6)
    notch = 22 - np.hypot(m[0], y + 8)
    _paint(v, np.maximum(np.maximum(np.abs(tentorium) - 0.5, behind), notch), 0.8 * a.vessel, 1.6)
    sinuses = np.maximum(np.abs(q[0]) + 0.7 * np.abs(vault + 1.5) - 2.6 + 0.02 * q[1], -(z + 12))
    transverse = np.hypot(tentorium, np.minimum(depth, 30) - 1) - 2.3 + 0.6 * fine
    sinuses = np.minimum(sinuses, np.maximum(transverse, y + 22))
    sinuses = np.minimum(sinuses, _tube(p, (0, -26, 9), (0, -82, -14), 1.2, 1.6))
    _paint(v, sinuses, a.vessel)
    vessels = 4.2 * np.hypot(folds, fine) - 0.7
    vessels = np.maximum(vessels, depth - 22)
    for start, end, r0, r1 in (
        ((4, 22, -19), (34, 24, -12), 1.5, 1.3),
        ((2, 28, -18), (1.5, 50, 4), 1.0, 0.8),
        ((1.5, 50, 4), (1.5, 24, 36), 0.8, 0.7),
        ((0, 12, -20), (0, 12, -46), 1.5, 1.5),
        ((3, 24, 8), (2, -24, 8), 1.0, 1.2),
        ((21, -20, 20), (25, -34, 8), 1.6, 2.6),
    ):
        vessels = np.minimum(vessels, _tube(m, start, end, r0, r1) + 0.25 * fine)
    _paint(v, vessels, 0.9 * a.vessel, 1.6)
    _paint(v, _ellipsoid(q, _SELLA, (7, 5, 4)), 0.85 * a.vessel)  # the gland itself
    _paint(v, np.maximum(_ellipsoid(m, (11, 20, -33), (6, 9, 7)), -cavity - 3), 0.75 * a.vessel)
    v *= 1 + 0.025 * _noise(a, p, 5, 13.0)  # no tissue is quite even
    _paint(v, -(cavity + 0.9), 0.55 * a.vessel, 1.6)  # dura
    return v


# ------------------------------------------------------------------------------ the tumour


def _tumour_distance(a: Anatomy, p: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Radius within the tumour (1 on its border) at points [3, N], and the two noises that roughen it."""
    t = a.tumour
    offset = (p - t.centre[:, None].astype(np.float32)) * (1 / t.radii).astype(np.float32)[:, None]
    size = float(t.radii.mean())
    lumps = _noise(a, p, 1.9 * size, 41.0)
    grain = _noise(a, p, 0.55 * size, 7.0)
    radius = np.sqrt((offset * offset).sum(0)) * (1 + t.roughness * (lumps + 0.35 * grain))
    return radius, lumps, grain


def _grow(a: Anatomy, p: np.ndarray, v: np.ndarray, cavity: np.ndarray) -> np.ndarray:
    """Paint the tumour into intensities [N] and return its mask, bool [N]."""
    t = a.tumour
    size = np.float32(t.radii.mean())
    near = np.flatnonzero(((p - t.centre[:, None]) ** 2).sum(0) < (2.6 * t.radii.max()) ** 2)
    mask = np.zeros(v.shape, bool)
    radius, lumps, grain = _tumour_distance(a, p[:, near])
    cavity = cavity[near]
    border = (radius - 1) * size
    if t.kind == "meningioma":  # keeps to its side of dura and falx
        border = np.maximum(border, cavity + 0.5)
        if t.on_falx:
            border = np.maximum(border, -1.5 * lumps - p[0, near] * np.sign(t.centre[0]))
    if t.kind == "glioma":
        border = np.maximum(border, cavity + a.gap + 1)
    w = v[near]
    if t.oedema > 0:
        swollen = (
            np.clip(1.2 + (1 - radius + 0.2 * lumps) / t.oedema, 0, 1)
            * (w > 1.4 * a.fluid)
            * (w < 1.2 * a.white)
        )
        w += (0.66 * a.white - w) * 0.85 * swollen * (cavity < -a.gap)
    inside = t.enhancement * (1 + 0.06 * grain + 0.05 * lumps)
    if t.kind == "glioma":
        rim = 1 - t.wall * np.clip(1 + 0.5 * lumps + 0.35 * grain, 0.25, 2)
        dead = np.clip((rim - radius) / 0.25, 0, 1)
        inside *= np.clip(0.85 + 0.22 * lumps, 0.5, 1.1)  # the rim takes up contrast unevenly
        inside += dead * (t.core * (1 + 0.12 * grain) - inside)
    if t.kind == "meningioma":
        _paint(w, np.abs(border - 1.0) - 0.7, 0.7 * a.fluid + 0.3 * a.grey, 2)  # fluid cleft
    _paint(w, border, inside, 3 if t.kind == "glioma" else _EDGE)
    v[near] = w
    mask[near] = border < 0
    return mask


def tissue(a: Anatomy, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Noise-free intensity float32 [...] and tumour mask bool [...] at points [..., 3] of the head, mm."""
    p = np.ascontiguousarray(points.reshape(-1, 3).T, dtype=np.float32)
    q = _to_standard(p, a.size, a.narrowing)
    m = _mirrored(q)
    cavity, cerebrum, vault = _cavity(q, m)
    skin = np.minimum(_surface(a, q, m, vault), cavity - a.skull - 2)
    v = np.zeros(p.shape[1], np.float32)

    outer = np.flatnonzero((skin < _EDGE) & (cavity > -_EDGE))
    v[outer] = _outside_cavity(a, q[:, outer], m[:, outer], cavity[outer], vault[outer], skin[outer])
    inner = np.flatnonzero(cavity < _EDGE)
    held = cavity[inner]
    within = _brain(a, q[:, inner], held, cerebrum[inner], vault[inner])
    v[inner] += _cover(held) * (within - v[inner])
    mask = _grow(a, p, v, cavity)
    v *= _cover(skin)
    return v.reshape(points.shape[:-1]), mask.reshape(points.shape[:-1])


# ------------------------------------------------------------------------------ patients


def _rotation(angles: np.ndarray) -> np.ndarray:
    """[3, 3] rotation about x, then y, then z by radians."""
    rotation = np.eye(3)
    for axis, angle in enumerate(angles):
        i, j = [k for k in range(3) if k != axis]
        turn = np.eye(3)
        turn[i, i] = turn[j, j] = np.cos(angle)
        turn[i, j], turn[j, i] = -np.sin(angle), np.sin(angle)
        rotation = turn @ rotation
    return rotation


def _on_skull(direction: np.ndarray, size: np.ndarray, narrowing: float) -> np.ndarray:
    """Where the way from the brain's middle along `direction` leaves the skull's inner surface, [3] mm."""
    way = np.array([[0.0], [0.0], [5.0]]) + direction[:, None] * np.arange(20.0, 110.0, 0.5)
    q = _to_standard(way.astype(np.float32), size, narrowing)
    return way[:, np.argmax(_cavity(q, _mirrored(q))[0] > 0)]


def _pituitary(rng: np.random.Generator) -> Tumour:
    radii = rng.uniform([7, 6.5, 7], [12, 10, 15])
    centre = np.array(
        [rng.normal(0, 0.8), _SELLA[1], _SELLA[2] - 4 + 0.75 * radii[2]]
    )  # grows up from the sella
    return Tumour("pituitary", centre, radii, 0.06, 0.0, rng.uniform(0.50, 0.66), 0.0, 0.0, False)


def _glioma(rng: np.random.Generator) -> Tumour:
    radii = rng.uniform(11, 24) * rng.uniform(0.85, 1.15, 3)
    centre = rng.uniform([20, -48, -2], [40, 46, 38]) * [rng.choice([-1, 1]), 1, 1]
    thin, thick = rng.uniform(0.14, 0.30), rng.uniform(0.3, 0.7)
    wall = thin if rng.random() < 0.75 else thick
    core, oedema = rng.uniform(0.17, 0.26), rng.uniform(0.4, 1.1)
    return Tumour("glioma", centre, radii, 0.16, wall, rng.uniform(0.5, 0.75), core, oedema, False)


def _meningioma(rng: np.random.Generator, size: np.ndarray, narrowing: float) -> Tumour:
    radii = rng.uniform(10, 22) * rng.uniform(0.9, 1.1, 3)
    side = rng.choice([-1, 1])
    on_falx = bool(rng.random() < 0.25)
    if on_falx:
        centre = np.array([side * 0.75 * radii[0], rng.uniform(-55, 62), rng.uniform(44, 58)])
    else:
        direction = np.array([side * rng.uniform(0.35, 1), rng.uniform(-0.9, 0.9), rng.uniform(-0.15, 0.9)])
        direction /= np.linalg.norm(direction)
        centre = _on_skull(direction, size, narrowing) - direction * 0.55 * radii.mean()
    enhancement, oedema = rng.uniform(0.58, 0.82), rng.uniform(0.1, 0.5)
    return Tumour("meningioma", centre, radii, 0.05, 0.0, enhancement, 0.0, oedema, on_falx)


def anatomy(patient: int, *, seed: int = 0) -> Anatomy:
    """The patient of that number (0 or more); free of the slices that are taken of him."""
    rng = np.random.default_rng([seed, patient, 0])
    noise = _noise_volume(seed).transpose(rng.permutation(3))
    noise = np.roll(noise, tuple(rng.integers(_CELLS, size=3)), (0, 1, 2))
    age = rng.random()  # wider sulci and ventricles
    brain = rng.uniform(0.30, 0.40)
    contrast = rng.uniform(0.03, 0.11)
    fat = rng.uniform(0.58, 0.88)
    size = rng.normal(1, 0.03, 3).clip(0.93, 1.07)
    narrowing = rng.uniform(0.0, 0.0016)
    kind = LABEL_NAMES[rng.integers(3)]
    if kind == "meningioma":
        tumour = _meningioma(rng, size, narrowing)
    else:
        tumour = _glioma(rng) if kind == "glioma" else _pituitary(rng)
    return Anatomy(
        noise=noise,
        pose=_rotation(np.deg2rad(rng.normal(0, [4, 2, 2.5]))),
        size=size,
        narrowing=narrowing,
        skull=rng.uniform(5.0, 7.5),
        scalp=rng.uniform(4.5, 7.5),
        gap=1.2 + 2.0 * age,
        sulcus=rng.uniform(0.1, 0.4) + 1.0 * age,
        ventricles=-0.8 + 2.4 * age * rng.random(),
        grey=brain - contrast / 2,
        white=brain + contrast / 2,
        fluid=rng.uniform(0.10, 0.16),
        fat=fat,
        muscle=rng.uniform(0.24, 0.34),
        marrow=rng.uniform(0.22, 0.40) * fat,
        vessel=rng.uniform(0.55, 0.8),
        mucosa=rng.uniform(0.5, 0.7),
        bias=rng.normal(0, 0.06, 3),
        rim=rng.uniform(0.0, 0.25),
        noise_level=rng.uniform(0.006, 0.018),
        blur=rng.uniform(0.65, 1.1),
        tumour=tumour,
    )


# ------------------------------------------------------------------------------ slices


def plane_points(a: Anatomy, plane: str, through: np.ndarray, size: int, field: float = 240.0) -> np.ndarray:
    """Points [size, size, 3] in head mm of the slice, `field` mm wide, that contains the point `through`."""
    across = (np.arange(size) + 0.5) / size * field - field / 2
    column, row = np.meshgrid(across, -across)
    level = a.pose.T @ through
    if plane == "axial":
        scanner = [column, row, np.full_like(column, level[2])]
    elif plane == "coronal":
        scanner = [column, np.full_like(column, level[1]), row - 22]
    else:
        scanner = [np.full_like(column, level[0]), -column + 8, row - 22]
    return (np.stack(scanner, -1) @ a.pose.T).astype(np.float32)


def _scan(a: Anatomy, points: np.ndarray, clean: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Image [S, S] uint8 of a noise-free slice: coil sensitivity, point spread, Rician noise, 8 bits."""
    unit = points * np.float32(0.01)
    gain = 1 + unit @ a.bias.astype(np.float32) + np.float32(a.rim) * ((unit * unit).sum(-1) - 0.4)
    pixel = float(np.linalg.norm(points[0, 1] - points[0, 0]))
    clean = ndimage.gaussian_filter(clean * gain, a.blur / pixel)
    real, imaginary = rng.standard_normal((2, *clean.shape), np.float32) * np.float32(a.noise_level)
    return (np.hypot(clean + real, imaginary).clip(0, 1) * 255).round().astype(np.uint8)


def patient_slices(patient: int, *, seed: int = 0, size: int = 160, count: int = 4) -> list[PhantomSlice]:
    """`count` slices [size, size] of one patient, each through the tumour; the planes take turns."""
    if size < 32:
        raise PixmedError(f"size: a phantom slice of {size} pixels cannot show a tumour; give 32 or more")
    a = anatomy(patient, seed=seed)
    rng = np.random.default_rng([seed, patient, 1])
    planes = rng.permutation(PLANES)
    slices = []
    for i in range(count):
        plane = str(planes[i % len(planes)])
        field = rng.uniform(212, 236) if plane == "axial" else rng.uniform(228, 246)
        shift = rng.uniform(-0.55, 0.55, 3) * a.tumour.radii
        for nearer in (1.0, 0.5, 0.0):  # a slice that grazes the tumour moves towards its middle
            points = plane_points(a, plane, a.tumour.centre + nearer * shift, size, field)
            clean, mask = tissue(a, points)
            if mask.mean() >= MIN_TUMOUR:
                break
        label = LABEL_NAMES.index(a.tumour.kind)
        slices.append(PhantomSlice(_scan(a, points, clean, rng), mask.astype(np.uint8), label, plane))
    return slices
