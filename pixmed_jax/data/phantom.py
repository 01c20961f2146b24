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

from typing import NamedTuple

import numpy as np
from scipy import ndimage

from pixmed_jax.data.phantom_anatomy import CELLS, LABEL_NAMES, SELLA, Anatomy, Tumour, noise_volume
from pixmed_jax.data.phantom_tissue import cavity_at, mirrored, tissue, to_standard
from pixmed_jax.data.slices import PLANES
from pixmed_jax.errors import PixmedError

MIN_TUMOUR = 0.0015  # smallest part of a slice's pixels that its tumour may take


class PhantomSlice(NamedTuple):
    """One slice as `patient_slices` gives it."""

    image: np.ndarray  # [S, S] uint8
    mask: np.ndarray  # [S, S] uint8, 0 or 1
    label: int  # index into LABEL_NAMES
    plane: str  # one of PLANES


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
    q = to_standard(way.astype(np.float32), size, narrowing)
    return way[:, np.argmax(cavity_at(q, mirrored(q))[0] > 0)]


def _pituitary(rng: np.random.Generator) -> Tumour:
    radii = rng.uniform([7, 6.5, 7], [12, 10, 15])
    centre = np.array(
        [rng.normal(0, 0.8), SELLA[1], SELLA[2] - 4 + 0.75 * radii[2]]
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
    noise = noise_volume(seed).transpose(rng.permutation(3))
    noise = np.roll(noise, tuple(rng.integers(CELLS, size=3)), (0, 1, 2))
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


def patient_slices(
    patient: int, *, seed: int = 0, size: int = 160, count: int = 4, healthy: bool = False
) -> list[PhantomSlice]:
    """`count` slices [size, size] of one patient, each through the tumour; the planes take turns.

    `healthy` shows the same planes as they were before the tumour grew; its mask is given all the same.
    """
    if size < 32:
        raise PixmedError(f"size: a phantom slice of {size} pixels cannot show a tumour; give 32 or more")
    a = anatomy(patient, seed=seed)
    without = a._replace(tumour=a.tumour._replace(centre=np.array([0.0, 0.0, 1e6])))  # a kilometre away
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
        if healthy:
            clean, _ = tissue(without, points)
        label = LABEL_NAMES.index(a.tumour.kind)
        slices.append(PhantomSlice(_scan(a, points, clean, rng), mask.astype(np.uint8), label, plane))
    return slices
