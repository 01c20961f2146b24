"""Planted artefacts are found, each by its own name; real slices of other patients pass."""

import numpy as np
import pytest
from scipy import ndimage, stats

from pixmed_jax.metrics import artefacts

SIZE, PER = 32, 3


def heads(patients: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Bright ellipses with a darker brain, an eye on one side and texture; upright, facing left."""
    rng = np.random.default_rng(seed)
    y, x = (np.mgrid[:SIZE, :SIZE] + 0.5) / SIZE - 0.5
    images = []
    for _ in range(patients):
        height, width, tone = rng.normal(0.36, 0.015), rng.normal(0.28, 0.015), rng.normal(0.55, 0.02)
        for _ in range(PER):
            cy, cx = rng.normal(0, 0.01, 2)
            r = np.hypot((y - cy) / height, (x - cx) / width)
            image = 0.9 * (r < 1) - (0.9 - tone) * (r < 0.8)
            image -= 0.4 * (np.hypot(y - cy + 0.15, x - cx + 0.12) < 0.06)  # up and left
            image *= 1 + 0.1 * ndimage.gaussian_filter(rng.normal(size=r.shape), 1.0)
            image = ndimage.gaussian_filter(image, 0.7) + rng.normal(0, 0.01, r.shape)
            images.append(image.clip(0, 0.97))
    return np.stack(images), np.repeat(np.arange(patients), PER)


@pytest.fixture(scope="module")
def sets():
    """(generated, real, train, groups of train): all sound, all of different patients."""
    return heads(12, 1)[0], heads(12, 2)[0], *heads(40, 3)


def found(sets, images=None):
    generated, real, train, groups = sets
    return artefacts.measure(generated if images is None else images, real, train, groups)


def test_real_slices_of_other_patients_pass(sets):
    got = found(sets)
    assert got["found"] == [] and got["n"] == 36
    assert set(got) == {*artefacts.MARGINS, "found", "n"}
    for name in artefacts.MARGINS:
        of = got[name]
        assert of["floor"] < of["limit"] and of["limit"] >= artefacts.MARGINS[name]
    assert found(sets, sets[1])["found"] == []  # the test slices themselves
    assert got == found(sets)


def checkerboard(images, period):
    y, x = np.mgrid[:SIZE, :SIZE]
    return images + 0.02 * (np.cos(2 * np.pi * x / period) + np.cos(2 * np.pi * y / period)) * (images > 0.1)


def seam(images):
    tiled = images.copy()
    tiled[:, SIZE // 2 :] *= 0.8
    return tiled


def holes(images):
    rng = np.random.default_rng(0)
    return np.where((rng.random(images.shape) < 0.05) & (images > 0.3), 0, images)


def turned(images):
    angles = np.random.default_rng(0).uniform(-25, 25, len(images))
    return np.stack(
        [ndimage.rotate(i, a, reshape=False, order=1) for i, a in zip(images, angles, strict=True)]
    )


def half(images, change):
    """Of every second image, as an augmentation of probability 0.5 would."""
    return np.concatenate([images[::2], change(images[1::2])])


PLANTED = {
    "checkerboard": lambda x: checkerboard(x, 2),
    "checkerboard of period 4": lambda x: checkerboard(x, 4),
    "seams": seam,
    "sharpness": lambda x: ndimage.gaussian_filter(x, (0, 0.7, 0.7)),
    "sharpness, noise": lambda x: x + np.random.default_rng(0).normal(0, 0.05, x.shape),
    "white": lambda x: np.where(x > 0.8, 1.0, x),
    "black": holes,
    "tilt": turned,
    "shift": lambda x: half(x, lambda y: np.roll(y, 4, axis=2)),
    "scale": lambda x: half(x, lambda y: np.stack([np.pad(i[::2, ::2], 8) for i in y])),
    "upright": lambda x: half(x, lambda y: y[:, ::-1]),
    "facing": lambda x: half(x, lambda y: y[:, :, ::-1]),
    "brightness": lambda x: half(x, lambda y: y * 0.75),
    "contrast": lambda x: half(x, lambda y: np.where(y > 0.05, 0.55 + 0.4 * (y - 0.55), y)),
}


@pytest.mark.parametrize("fault", PLANTED)
def test_a_planted_artefact_is_found(sets, fault):
    name = fault.split(" ")[0].strip(",")
    got = found(sets, PLANTED[fault](sets[0]))
    assert name in got["found"], got[name]


@pytest.mark.parametrize(
    ("fault", "word", "sign"), [("sharpness", "blurrier", -1), ("sharpness, noise", "sharper", 1)]
)
def test_of_sharpness_it_is_said_which_way(sets, fault, word, sign):
    got = found(sets, PLANTED[fault](sets[0]))
    of = got["sharpness"]
    assert of["signed"] == pytest.approx(sign * of["value"]) and of["value"] > of["limit"]
    assert f"{word} than real slices (sharpness {of['signed']:+.2f})" in artefacts.found(got)
    earlier = {**got, "sharpness": {k: v for k, v in of.items() if k != "signed"}}
    assert "sharpness" in artefacts.found(earlier)
    assert artefacts.found({"found": None}) == []


def test_a_clean_set_beside_a_faint_fault(sets):
    """The stronger the pattern, the larger the value."""
    generated = sets[0]
    faint = generated + 0.3 * (checkerboard(generated, 2) - generated)
    strong = checkerboard(generated, 2)
    values = [found(sets, x)["checkerboard"]["value"] for x in (generated, faint, strong)]
    assert values == sorted(values)


def test_the_spectrum_keeps_the_energy():
    """Parseval: the sum over frequencies is that over pixels, windowed, times their number."""
    image = np.random.default_rng(0).random((SIZE, SIZE))
    window = np.outer(*[0.5 - 0.5 * np.cos(2 * np.pi * np.arange(SIZE) / SIZE)] * 2)
    expected = (((image - image.mean()) * window) ** 2).sum() * SIZE**2
    assert artefacts.power(image).sum() == pytest.approx(expected)
    y, _ = np.mgrid[:SIZE, :SIZE]
    wave = np.cos(2 * np.pi * 6 * y / SIZE)
    assert artefacts.radial(wave).argmax() == 6


@pytest.mark.parametrize("degrees", [0, 20, -35, 90])
def test_the_pose_of_an_ellipse(degrees):
    """Half axes a and b have variances a^2 / 4 and b^2 / 4; turned, they mix by (a^2 - b^2) / 8 sin 2t."""
    size, a, b, cy, cx = 200, 0.35, 0.2, 0.05, -0.1
    y, x = (np.mgrid[:size, :size] + 0.5) / size - 0.5
    t = np.deg2rad(degrees)
    u, v = (x - cx) * np.cos(t) + (y - cy) * np.sin(t), (y - cy) * np.cos(t) - (x - cx) * np.sin(t)
    image = 0.6 * ((u / a) ** 2 + (v / b) ** 2 < 1)
    got = {name: value[0] for name, value in artefacts.describe(image[None], image).items()}
    assert got["tilt"] == pytest.approx((a * a - b * b) / (a * a + b * b) * np.sin(2 * t), abs=0.01)
    assert got["scale"] == pytest.approx(np.sqrt(a * a + b * b) / 2, rel=0.01)
    assert got["shift"] == pytest.approx([cy, cx], abs=0.005)
    assert got["brightness"] == pytest.approx(0.6) and got["contrast"] == pytest.approx(0, abs=1e-9)
    assert got["upright"] == pytest.approx(1) and got["facing"] == pytest.approx(1)
    for axis, name in enumerate(("upright", "facing")):
        mirrored = artefacts.describe(np.flip(image, axis)[None], image)
        assert mirrored[name] == pytest.approx(-1)


def test_wasserstein_against_scipy():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=300), rng.normal(0.5, 2, size=170)
    assert artefacts.wasserstein(a, b) == pytest.approx(stats.wasserstein_distance(a, b), rel=0.03)
    assert artefacts.wasserstein(a, a) == 0


def test_too_few(sets):
    generated, real, train, groups = sets
    got = artefacts.measure(generated[:5], real[:5], train, groups)
    assert got["found"] is None and got["n"] == 5
    assert got["seams"]["value"] is None and "5 slices against 120: too few" in got["seams"]["why"]


@pytest.mark.parametrize("patients", [4, 9, 14])
def test_few_training_patients_make_limits_wide_not_narrow(patients):
    """Sound sets of as many slices as there are to train on: draws without replacement would all be equal,
    and whatever lies beyond them would count as found."""
    false = 0
    for i in range(6):
        train, groups = heads(patients, 100 + i)
        got = artefacts.measure(heads(12, 200 + i)[0], heads(12, 300 + i)[0], train, groups)
        false += bool(got["found"])
        assert all(got[name]["limit"] > got[name]["floor"] for name in artefacts.MARGINS)
    assert false <= 1
