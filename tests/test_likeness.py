"""Likeness against loops over every pose, and that a copy keeps it whatever was done to it."""

import numpy as np
import pytest
from scipy import ndimage

from pixmed_jax.data import phantom
from pixmed_jax.metrics import likeness as module
from pixmed_jax.metrics.likeness import aligned, likeness, rotated, shifted, textures


def slices(patients, size=64):
    return np.stack([phantom.patient_slices(p, size=size, count=1)[0].image / 255.0 for p in patients])


@pytest.fixture(scope="module")
def heads():
    return slices(range(24))


def local_mean(image, sigma=2.5, radius=6):
    """A Gaussian, cut at 2.5 sigma, mirrored at the edges, pixel by pixel."""
    weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    window = np.outer(weights, weights) / weights.sum() ** 2
    padded = np.pad(image, radius, mode="symmetric")
    result = np.empty_like(image)
    for row in range(32):
        for column in range(32):
            result[row, column] = (
                padded[row : row + len(window), column : column + len(window)] * window
            ).sum()
    return result


def test_textures_by_their_definition():
    image = slices([3], size=32)  # of the textures' own size, so nothing is resized
    soft = local_mean(image[0], sigma=1.0, radius=3)
    detail = soft - local_mean(soft)
    expected = detail / (np.sqrt(local_mean(detail**2)) + 0.2 * soft.std() + 1e-6)
    np.testing.assert_allclose(textures(image)[0], expected - expected.mean(), atol=1e-4)


def turns(image):
    """The eight symmetries of the square."""
    for quarter in range(4):
        yield np.rot90(image, quarter)
        yield np.rot90(image.T, quarter)


def moved(image, rows, columns):
    """Zeros come in; by loops."""
    result = np.zeros_like(image)
    for r in range(len(image)):
        for c in range(len(image)):
            if 0 <= r - rows < len(image) and 0 <= c - columns < len(image):
                result[r, c] = image[r - rows, c - columns]
    return result


def by_loops(query, reference):
    known = textures(reference[None])[0].ravel()
    best = -1.0
    for angle in (-6.0, 0.0, 6.0):
        for half in ((0, 0), (0, 1), (1, 0), (1, 1)):  # of a pixel of 32: a pixel of 64
            turned = ndimage.rotate(query, angle, reshape=False, order=1) if angle else query
            texture = textures(moved(turned, *half)[None])[0]
            for flipped in turns(texture) if not angle and half == (0, 0) else (texture, texture[:, ::-1]):
                for rows in (-1, 0, 1):
                    for columns in (-1, 0, 1):
                        other = moved(flipped, rows, columns).ravel()
                        cosine = (other @ known) / np.linalg.norm(other) / np.linalg.norm(known)
                        best = max(best, cosine)
    return best


def test_every_pose_is_compared(heads, monkeypatch):
    monkeypatch.setattr(module, "_QUERIES", 2)  # tiles that do not divide the numbers
    monkeypatch.setattr(module, "_REFERENCES", 2)
    queries, references = heads[:3].copy(), heads[3:6].copy()
    queries[1] = np.rot90(heads[4])
    queries[2] = moved(heads[5], 0, 2)[:, ::-1]
    expected = [[by_loops(q, r) for r in references] for q in queries]
    np.testing.assert_allclose(likeness(queries, references), expected, atol=2e-4)


def noisy(x, rng):
    return x + rng.normal(0, 0.05, x.shape)


DONE = {
    "nothing": lambda x, rng: x,
    "mirrored": lambda x, rng: x[:, :, ::-1],
    "turned": lambda x, rng: np.rot90(x, 1, axes=(1, 2)),
    "shifted by 2 pixels": lambda x, rng: shifted(x, 2, -2),
    "shifted between poses": lambda x, rng: shifted(x, 1, 0),
    "rotated by 3 degrees": lambda x, rng: rotated(x, 3.0),
    "rotated by 8 degrees, mirrored": lambda x, rng: rotated(x[:, :, ::-1], -8.0),
    "brighter": lambda x, rng: 0.1 + 0.8 * x**0.7,
    "soft": lambda x, rng: ndimage.gaussian_filter(x, (0, 1, 1)),
    "noisy": noisy,
    "all of it": lambda x, rng: noisy(shifted(rotated(x[:, :, ::-1], 4.0), 1, 2), rng),
}


@pytest.mark.parametrize("what", DONE)
def test_a_copy_is_nearer_than_any_stranger(heads, what):
    """To every one of 12 slices its own copy is the most alike, by far."""
    changed = DONE[what](heads[:12], np.random.default_rng(0))
    found = likeness(changed, heads)
    own = found[np.arange(12), np.arange(12)].copy()
    found[np.arange(12), np.arange(12)] = -1
    assert ((1 - own) < 0.7 * (1 - found.max(axis=1))).all(), (own, found.max(axis=1))


def test_an_image_without_a_picture_is_like_nobody(heads):
    """Black is like nothing; of grey there is the corner that turning it leaves empty."""
    flat = np.stack([np.zeros((64, 64)), np.full((64, 64), 0.4)])
    found = likeness(flat, heads[:3])
    np.testing.assert_array_equal(found[0], 0)
    assert found[1].max() < 0.2
    np.testing.assert_array_equal(likeness(heads[:3], flat), 0)
    assert likeness(heads[:0], heads[:2]).shape == (0, 2)


def test_aligned_undoes_what_was_done(heads):
    for what in ("mirrored", "shifted by 2 pixels", "rotated by 8 degrees, mirrored"):
        changed = DONE[what](heads[:1], None)[0]
        back, words = aligned(changed, heads[0])
        assert ((back - heads[0]) ** 2).mean() < 0.5 * ((changed - heads[0]) ** 2).mean()
        assert ("flip left right" in words) == ("mirrored" in what)
        assert ("°" in words) == ("degrees" in what)
    assert aligned(heads[0], heads[0])[1] == "as it is"
