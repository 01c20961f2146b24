"""What judges generated slices: features of choice, with floors, and the page's words about them."""

import numpy as np
import pytest
from scipy import ndimage

from pixmed_jax.data.phantom import patient_slices
from pixmed_jax.evaluation import fidelity
from pixmed_jax.judges import published
from pixmed_jax.metrics import distribution

WIDTH = published.WIDTH


def phantoms(patients: range) -> fidelity.Slices:
    """Two slices of each patient at 32x32, as a generator that is told a label has them."""
    slices = [[s.image for s in patient_slices(p, size=32, count=2)] for p in patients]
    images = np.concatenate(slices).astype(np.float32) / 255
    return fidelity.Slices(images, None, np.repeat(np.arange(len(slices)), 2))


class Pool3:
    """In the place of Inception: 1,024 pixels of each slice, twice, and how many slices it was given."""

    def __init__(self):
        self.given = []

    def __call__(self, images):
        self.given.append(len(images))
        return images.reshape(len(images), -1).repeat(2, axis=1).astype(np.float32)


@pytest.fixture(scope="module")
def sets():
    return phantoms(range(12)), phantoms(range(12, 36))


def test_inception_in_the_place_of_the_encoder(sets, tmp_path, monkeypatch):
    real, train = sets
    pool3, noise = Pool3(), np.random.default_rng(0).normal(0, 0.2, real.images.shape)
    generated = (real.images + noise).clip(0, 1).astype(np.float32)
    monkeypatch.setattr(fidelity.features, "encoder", lambda *args, **kwargs: pytest.fail("trained"))
    monkeypatch.setattr(fidelity, "_TRAIN", 30)
    folder = tmp_path / "judges"
    entries, drawn = fidelity.measure(generated, real, train, inception=pool3, folder=folder)
    assert pool3.given == [30, 24, 24]  # of training slices as many as are asked for, whole patients
    of = [Pool3()(images) for images in (generated, real.images)]
    assert entries["kid"]["value"] == pytest.approx(distribution.kid(*of))
    assert entries["fid"]["value"] == pytest.approx(distribution.fid(*of))
    for name in fidelity.NUMBERS:
        assert entries[name]["features"] == published.INCEPTION and entries[name]["floor"] is not None
    assert entries["kid"]["floor"] < entries["kid"]["value"]
    told = fidelity.told(entries)
    assert told["photographs"] and not told["whys"] and set(drawn) == {"scatter", "spectra", "odd"}
    # Real slices are looked at once in the life of a run, other ones anew.
    again, _ = fidelity.measure(generated, real, train, inception=pool3, folder=folder)
    assert pool3.given == [30, 24, 24, 24] and again["kid"] == entries["kid"]
    fidelity.measure(
        generated, real._replace(images=real.images[::-1]), train, inception=pool3, folder=folder
    )
    assert pool3.given[4:] == [24, 24]


def test_the_table_says_which_way_sharpness_is_off(sets):
    """Generated slices that are the real ones, softened: nothing but blur is found, and called so."""
    real, train = sets
    soft = ndimage.gaussian_filter(real.images, (0, 1, 1))
    entries, _ = fidelity.measure(soft, real, train, inception=Pool3())
    told = fidelity.told(entries)
    rows = {title: cells for title, *cells in told["artefacts"]}
    value, _, _, mark = rows["sharpness, log10 of energy (below 0: blurrier)"]
    assert float(value) < 0 and mark == "found: blurrier"
    assert any(words.startswith("blurrier than real slices") for words in told["found"])
    assert rows["tilt of the object"][-1] == ""
