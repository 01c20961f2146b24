"""What is where in a phantom head: intensity and tumour at any point, from skin to ventricles.

Every shape is given in a standard head and asked for at points moved there.
Coordinates, units and intensities: as module phantom says.
"""

import numpy as np

from pixmed_jax.data.phantom_anatomy import SELLA, Anatomy, noise_at
from pixmed_jax.data.phantom_shapes import EDGE, cover, ellipsoid, join, paint, tube

# ------------------------------------------------------------------------------ the head


def mirrored(p: np.ndarray) -> np.ndarray:
    """Both halves of the head folded onto x >= 0, for what comes in pairs."""
    return np.stack([np.abs(p[0]), p[1], p[2]])


def to_standard(p: np.ndarray, size: np.ndarray, narrowing: float) -> np.ndarray:
    """Points of the patient's head moved to the standard head in which all shapes are given."""
    q = p * (1 / size).astype(np.float32)[:, None]
    q[0] *= 1 + np.float32(narrowing) * q[1]
    return q


def cavity_at(q: np.ndarray, m: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distances to the skull's inner surface, to its part above the tentorium, and to the closed vault."""
    vault = ellipsoid(q, (0, 0, 4), (69, 88, 72))
    floor = -(q[2] + 21 + 4 * np.cos(q[0] * 0.075) - 0.06 * (q[1] - 40))
    temporal = ellipsoid(m, (40, 12, -20), (26, 38, 26))
    cerebrum = join(np.maximum(vault, floor), temporal, 6)
    fossa = ellipsoid(q, (0, -40, -30), (56, 43, 36))
    petrous = np.minimum(
        tube(m, (16, 8, -44), (60, -18, -42), 3, 13), tube(q, (0, 19, -44), (0, 2, -64), 7, 6)
    )
    canal = tube(q, (0, -22, -45), (0, -30, -170), 12, 8)
    sella = ellipsoid(q, SELLA, (9, 7, 9))
    cavity = join(join(cerebrum, np.maximum(fossa, -petrous), 8), canal, 6)
    return join(cavity, sella, 5), cerebrum, vault


def _surface(a: Anatomy, q: np.ndarray, m: np.ndarray, vault: np.ndarray) -> np.ndarray:
    """Distance to the skin."""
    skin = vault - (a.skull + a.scalp + 1.5)
    skin = join(skin, tube(q, (0, 36, -52), (0, 46, -104), 64, 49), 22)  # face
    skin = join(skin, ellipsoid(m, (46, 44, -48), (26, 34, 30)), 14)  # cheeks
    skin = join(skin, ellipsoid(m, (46, -6, -40), (35, 50, 44)), 16)  # temples, mastoids
    skin = join(skin, tube(q, (0, -16, -70), (0, -30, -210), 54, 56), 24)  # neck
    skin = join(skin, ellipsoid(m, (46, 22, -98), (16, 28, 34)), 16)  # angles of the jaw
    skin = join(skin, ellipsoid(q, (0, 78, -124), (28, 20, 16)), 14)  # chin
    skin = join(skin, tube(q, (0, 96, -34), (0, 108, -64), 5, 12), 12)  # nose
    skin = join(skin, ellipsoid(q, (0, 96, -94), (22, 8, 12)), 8)  # lips
    return join(skin, ellipsoid(m, (84, -12, -36), (4.5, 15, 27)), 4)  # ears


def _outside_cavity(
    a: Anatomy, q: np.ndarray, m: np.ndarray, cavity: np.ndarray, vault: np.ndarray, skin: np.ndarray
) -> np.ndarray:
    """Intensity of all that lies between the skull's inner surface and the skin, points [3, N]."""
    coarse = noise_at(a, q, 27, 11.0)
    fine = noise_at(a, q, 8, 23.0)
    # Neck and face: long bellies of muscle, thin fat between them, streaks along the fibres.
    along = q * np.array([[1.0], [1.0], [0.35]], np.float32) + 4 * coarse
    bellies = noise_at(a, along, 34, 3.0)
    fibres = noise_at(a, along, 7, 17.0)
    between = np.clip(1 - np.abs(bellies) * 2.4, 0, 1) * np.clip(0.75 + 0.5 * coarse, 0, 1)
    v = a.muscle * (1 + 0.14 * fibres + 0.06 * fine)
    v += (0.7 * a.fat - v) * between
    paint(v, ellipsoid(m, (34, 14, -84), (13, 24, 30)), a.muscle * (1 + 0.2 * fibres), 5)  # pterygoids
    paint(v, ellipsoid(m, (56, 26, -92), (9, 20, 34)), a.muscle * (1 + 0.15 * fibres), 4)  # masseters
    jaw = tube(m, (50, 8, -66), (40, 58, -124), 5, 6) + 1.5 * coarse
    paint(v, jaw, a.marrow * (1.2 + 0.2 * fine), 2)
    paint(v, np.abs(jaw) - 0.6, 0.12, 2)
    paint(v, ellipsoid(q, (0, 54, -104), (25, 34, 22)), a.muscle * (1.2 + 0.25 * fibres), 5)  # tongue
    # Nose, sinuses and throat: air with mucosa around it and folds of it within.
    nose = ellipsoid(q, (0, 66, -52), (15, 32, 25))
    conchae = np.abs(np.abs(m[0] - 7.5 + 1.2 * coarse) - 3.4) - 0.5 - 0.8 * np.clip(fine, -0.4, 1.2)
    septum = m[0] - 0.9 - 0.4 * fine
    paint(v, nose - 1.5, a.mucosa * (0.8 + 0.15 * fine), 2)
    paint(v, nose, 0.03)
    paint(v, np.maximum(nose, np.minimum(conchae, septum)), a.mucosa * (0.75 + 0.2 * coarse), 1.6)
    for centre, radii in (
        ((29, 62, -68), (14, 17, 16)),
        ((7, 43, -46), (9, 12, 9)),
        ((10, 90, -14), (11, 4.5, 10)),
    ):
        sinus = ellipsoid(m, centre, radii) + 1.5 * coarse
        paint(v, sinus - 1.4, a.mucosa * 0.8)
        paint(v, sinus, 0.025)
    throat = np.minimum(tube(q, (0, 28, -60), (0, 16, -96), 9, 6), tube(q, (0, 16, -96), (0, 12, -190), 6, 8))
    throat += 1.2 * coarse
    paint(v, throat - 2, a.mucosa * 0.8)
    paint(v, throat, 0.02)
    palate = np.abs(q[2] + 80 - 0.006 * (q[1] - 50) ** 2) - 1.6
    paint(v, np.maximum(palate, ellipsoid(q, (0, 60, -80), (24, 34, 8))), 0.07)
    # Spine: vertebral bodies in front of the cord's canal, discs between them.
    body = np.maximum(np.hypot(q[0], 0.9 * (q[1] + 7 + 0.06 * (q[2] + 70))) - 10, q[2] + 62)
    paint(v, body, a.marrow * (1.1 + 0.1 * fine), 2)
    paint(v, np.maximum(body, np.abs((q[2] + 72) % 18 - 9) - 1.6), 0.14, 2)
    paint(v, np.abs(body) - 0.7, 0.10, 1.6)
    # Bone: the skull, with marrow between its tables, and the petrous bones, full of air cells.
    lid = np.clip((q[2] + 30) / 25, 0.35, 1)  # the base and the canal have thinner walls than the vault
    thickness = a.skull * lid
    paint(v, cavity - thickness - 0.5 * coarse, 0.05 + 0.02 * fine)
    marrow = np.abs(cavity - 0.55 * thickness) - (0.13 * thickness + 0.6 * coarse)
    paint(v, marrow, a.marrow * (1 + 0.15 * fine), 2)
    petrous = np.minimum(
        tube(m, (18, 7, -43), (60, -20, -44), 4, 12), ellipsoid(m, (62, -26, -52), (10, 14, 18))
    )
    cells = 0.04 + 0.10 * np.clip(fine + 0.5 * coarse, 0, 2)
    paint(v, petrous + 1.5 * coarse, cells, 3)
    paint(v, tube(q, (0, 15, -46), (0, 2, -64), 6, 5), a.marrow * (1.2 + 0.1 * fine), 2)  # clivus
    # Orbits: fat, the globe, the optic nerve and its muscles.
    orbit = np.maximum(tube(m, (34, 72, -33), (14, 38, -32), 18, 4), skin + 2.5)
    paint(v, orbit - 1.3, 0.07)
    paint(v, orbit, a.fat * (0.8 + 0.05 * fine), 2)
    paint(v, np.abs(tube(m, (33, 74, -33), (13, 34, -32), 13.5, 1.5)) - 1.2, a.muscle * 1.3, 2)
    paint(v, tube(m, (32, 68, -33), (12, 30, -31), 1.8, 1.8), a.muscle, 2)
    eye = ellipsoid(m, (33, 80, -33), (12.5, 12.5, 12.5))
    paint(v, eye, 0.85 * a.mucosa)
    paint(v, eye + 1.3, a.fluid * 0.9)
    paint(v, ellipsoid(m, (33, 89, -33), (4.5, 2, 4.5)), a.grey)
    # Scalp: fat under a darker skin, over the muscle of the temple.
    temple = np.maximum(ellipsoid(m, (68, 30, -16), (11, 32, 38)), skin + a.scalp * 0.7)
    paint(v, np.maximum(temple, thickness - cavity), a.muscle * (1 + 0.15 * fibres), 2)
    layer = np.maximum(-(skin + a.scalp - 1.0 + 0.8 * coarse), thickness - cavity)
    paint(v, layer, a.fat * (0.95 + 0.07 * fine + 0.05 * coarse), 2)
    paint(v, -(skin + 1.8 + 0.4 * coarse), a.fat * 0.60, 1.6)
    return v


# ------------------------------------------------------------------------------ the brain


def _push(a: Anatomy, q: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """Points moved back to where they lay before the tumour grew; nothing moves at the skull."""
    t = a.tumour
    centre = to_standard(t.centre.astype(np.float32)[:, None], a.size, a.narrowing)
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
    m = mirrored(p)
    depth = -cavity - a.gap
    # Sulci run inwards: the noise is read where the way out meets a sphere, not at the point itself.
    flat = p * (75 / (75 - np.clip(depth, 0, 26)))
    folds = noise_at(a, flat, 25)
    fine = noise_at(a, p, 17, 31.0)
    x = x - 1.0 * fine

    # Where the halves, the lobes and the cerebellum part.
    tentorium = 0.9 * (z - (1 - 0.36 * m[0] + 0.10 * (y + 30)))
    behind = 0.85 * (y - 5 + 0.6 * m[0])
    below = np.maximum(tentorium, behind)  # negative in the posterior fossa
    callosum = ellipsoid(np.stack([0 * x, y, z]), (0, 9, 5), (1, 41, 27))
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
    paint(v, pia, a.grey)
    inwards = np.clip(-pia, 0, 40)
    reach = 17 + 5 * fine
    closing = 1 - inwards / reach
    to_sulcus = 3.6 * np.abs(folds)
    white = np.maximum(3.2 - inwards, 3.4 * np.clip(1.5 * closing + 0.15, 0, 1) - to_sulcus)
    paint(v, np.maximum(white, pia), a.white, 2)
    gaping = to_sulcus - a.sulcus * np.clip(closing, -1, 1) * (1.1 - 0.35 * fine)
    paint(v, np.maximum(gaping, pia), a.fluid, 1.6)

    # Deep grey matter, ventricles and cisterns.
    grey = 0.25 * a.white + 0.75 * a.grey
    paint(v, ellipsoid(m, (11, -2, 7), (9, 14, 9)), grey, 3)  # thalamus
    paint(v, tube(m, (12, 34, 6), (17, 2, 20), 6, 3), grey, 2)  # caudate
    paint(v, ellipsoid(m, (26, 17, 2), (6, 18, 11)), grey, 2)  # putamen
    paint(v, ellipsoid(m, (26, -4, -18), (6, 16, 5)), grey, 2)  # hippocampus
    w = a.ventricles
    # The horns are flat and lean outwards: tubes in sheared coordinates.
    leaning = np.stack([m[0] - 0.5 * (z - 13), y, 0.62 * z])
    horns = tube(leaning, (13, 46, 3), (8, 26, 8), 1.8 + w, 4 + w)
    for start, end, r0, r1 in (
        ((8, 26, 8), (8.5, -8, 13), 4.0, 3.3),
        ((8.5, -8, 13), (22, -32, 7.5), 3.3, 4.6),
        ((22, -32, 7.5), (25, -56, 3), 4.0, 1.2),
        ((22, -32, 7.5), (43, -4, -8), 3.4, 0.8),
    ):
        horns = np.minimum(horns, tube(leaning, start, end, r0 + w, r1 + w))
    arch = np.maximum(np.abs(callosum + 4) - 3.5, np.maximum(m[0] - 12, -3 - z))
    paint(v, arch, 1.06 * a.white, 2)
    paint(v, horns, a.fluid)
    paint(v, ellipsoid(p, (0, 8, 0), (1.6 + 0.5 * w, 13, 9)), a.fluid)  # third ventricle
    paint(v, ellipsoid(p, (0, 20, -20), (13, 9, 7)), a.fluid, 2.5)  # cistern above the sella
    paint(v, ellipsoid(p, (0, -27, 2), (9, 6, 8)), a.fluid, 2.5)  # cistern behind the midbrain

    # Brainstem and cerebellum.
    stem = np.minimum(tube(m, (6, -4, -4), (5, -8, -24), 9, 10), ellipsoid(p, (0, -4, -32), (17, 13, 14)))
    stem = np.minimum(stem, tube(p, (0, -12, -46), (0, -30, -170), 8.5, 5.0))
    lobes = np.maximum(np.maximum(below + 1.5, cavity + a.gap), y + 14 - 0.35 * m[0])
    lobes = np.maximum(lobes, -62 - z + 0.15 * m[0])
    folia = np.sin(0.8 * z + 1.0 * np.hypot(y + 22, 0.7 * m[0]) + 2 * fine)
    core = ellipsoid(m, (17, -38, -34), (17, 14, 10)) + 2 * folia
    paint(v, lobes, a.grey * (1 + 0.11 * folia), 1.6)
    paint(v, np.maximum(core, lobes), a.white, 3)
    paint(v, np.maximum(m[0] - 1.2, np.maximum(lobes, y + 60)), a.fluid, 2)
    paint(v, np.maximum(stem - 1.6, z + 3), a.fluid, 1.6)
    paint(v, stem, 0.6 * a.white + 0.4 * a.grey, 2)
    paint(v, ellipsoid(p, (0, -25, -33), (7, 4, 9)), a.fluid)  # fourth ventricle

    # What takes up contrast: dura, venous sinuses, arteries, veins in the sulci, choroid plexus.
    falx = np.maximum(np.maximum(np.abs(x) - 0.5, -callosum + 6), -(z + 8) - 0.3 * np.abs(y - 20))
    paint(v, falx, 0.75 * a.vessel, 1.6)
    notch = 22 - np.hypot(m[0], y + 8)
    paint(v, np.maximum(np.maximum(np.abs(tentorium) - 0.5, behind), notch), 0.8 * a.vessel, 1.6)
    sinuses = np.maximum(np.abs(q[0]) + 0.7 * np.abs(vault + 1.5) - 2.6 + 0.02 * q[1], -(z + 12))
    transverse = np.hypot(tentorium, np.minimum(depth, 30) - 1) - 2.3 + 0.6 * fine
    sinuses = np.minimum(sinuses, np.maximum(transverse, y + 22))
    sinuses = np.minimum(sinuses, tube(p, (0, -26, 9), (0, -82, -14), 1.2, 1.6))
    paint(v, sinuses, a.vessel)
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
        vessels = np.minimum(vessels, tube(m, start, end, r0, r1) + 0.25 * fine)
    paint(v, vessels, 0.9 * a.vessel, 1.6)
    paint(v, ellipsoid(q, SELLA, (7, 5, 4)), 0.85 * a.vessel)  # the gland itself
    paint(v, np.maximum(ellipsoid(m, (11, 20, -33), (6, 9, 7)), -cavity - 3), 0.75 * a.vessel)
    v *= 1 + 0.025 * noise_at(a, p, 5, 13.0)  # no tissue is quite even
    paint(v, -(cavity + 0.9), 0.55 * a.vessel, 1.6)  # dura
    return v


# ------------------------------------------------------------------------------ the tumour


def _tumour_distance(a: Anatomy, p: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Radius within the tumour (1 on its border) at points [3, N], and the two noises that roughen it."""
    t = a.tumour
    offset = (p - t.centre[:, None].astype(np.float32)) * (1 / t.radii).astype(np.float32)[:, None]
    size = float(t.radii.mean())
    lumps = noise_at(a, p, 1.9 * size, 41.0)
    grain = noise_at(a, p, 0.55 * size, 7.0)
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
        paint(w, np.abs(border - 1.0) - 0.7, 0.7 * a.fluid + 0.3 * a.grey, 2)  # fluid cleft
    paint(w, border, inside, 3 if t.kind == "glioma" else EDGE)
    v[near] = w
    mask[near] = border < 0
    return mask


def tissue(a: Anatomy, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Noise-free intensity float32 [...] and tumour mask bool [...] at points [..., 3] of the head, mm."""
    p = np.ascontiguousarray(points.reshape(-1, 3).T, dtype=np.float32)
    q = to_standard(p, a.size, a.narrowing)
    m = mirrored(q)
    cavity, cerebrum, vault = cavity_at(q, m)
    skin = np.minimum(_surface(a, q, m, vault), cavity - a.skull - 2)
    v = np.zeros(p.shape[1], np.float32)

    outer = np.flatnonzero((skin < EDGE) & (cavity > -EDGE))
    v[outer] = _outside_cavity(a, q[:, outer], m[:, outer], cavity[outer], vault[outer], skin[outer])
    inner = np.flatnonzero(cavity < EDGE)
    held = cavity[inner]
    within = _brain(a, q[:, inner], held, cerebrum[inner], vault[inner])
    v[inner] += cover(held) * (within - v[inner])
    mask = _grow(a, p, v, cavity)
    v *= cover(skin)
    return v.reshape(points.shape[:-1]), mask.reshape(points.shape[:-1])
