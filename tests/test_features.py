"""The encoder of real slices: its loss by hand, its views, that it is kept, that bad phantoms are seen."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from pixmed_jax.data.phantom import patient_slices
from pixmed_jax.judges import features
from pixmed_jax.metrics import distribution


def phantoms(patients: range) -> tuple[np.ndarray, np.ndarray]:
    """(images [N, 32, 32] in [0, 1], groups [N]), two slices of each patient."""
    slices = [[s.image for s in patient_slices(p, size=32, count=2)] for p in patients]
    return np.concatenate(slices).astype(np.float32) / 255, np.repeat(np.arange(len(slices)), 2)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """(encode, real test slices, their groups, training slices, their groups, folder of the encoder)."""
    folder = tmp_path_factory.mktemp("judges")
    train, train_groups = phantoms(range(24))
    real, groups = phantoms(range(24, 36))
    return features.encoder(train, folder=folder), real, groups, train, train_groups, folder


def test_the_loss_by_hand():
    """-log of the partner's share of exp(cosine / temperature); Chen et al. 2020, Equation 1."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(6, 4))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    expected = []
    for i in range(6):
        weights = [np.exp(x[i] @ x[j] / 0.2) for j in range(6)]
        expected.append(-np.log(weights[(i + 3) % 6] / (sum(weights) - weights[i])))
    assert float(features.nt_xent(jnp.asarray(x), 0.2)) == pytest.approx(np.mean(expected), rel=1e-4)


def test_views_are_near_and_never_turned():
    images = np.zeros((5, 32, 32), np.float32)
    images[:, 10, 14], images[:, 20, 14] = 1.0, 0.5  # two points: upright, the brighter one above
    views = np.asarray(features._views(jnp.asarray(images), jax.random.PRNGKey(3)))
    assert views.shape == (10, 32, 32)
    for view in views:
        (y1, x1), (y2, x2) = (np.argwhere(view == v)[0] for v in np.sort(view[view > 0])[::-1])
        assert (y2 - y1, x2 - x1) == (10, 0) and 0.7 <= view.max() <= 1.3
        assert abs(y1 - 10) <= 4 and abs(x1 - 14) <= 4
    assert len({tuple(np.argwhere(v == v.max())[0]) for v in views}) > 2


def test_features_are_standardised_and_follow_from_seed_and_slices(data):
    encode, _, _, train, _, _ = data
    of = encode(train)
    assert of.shape == (48, sum(features.WIDTHS)) and of.dtype == np.float32
    awake = of.std(0) > 0
    assert awake.mean() > 0.8
    np.testing.assert_allclose(of.mean(0), 0, atol=1e-3)
    np.testing.assert_allclose(of.std(0)[awake], 1, atol=1e-3)
    # Whatever lies beside a slice, its features are the same.
    np.testing.assert_allclose(encode(train[5:6])[0], of[5], atol=1e-4)
    assert encode(train[:0]).shape == (0, sum(features.WIDTHS))


def test_it_is_kept(data, monkeypatch):
    encode, real, _, train, _, folder = data
    (path,) = folder.glob("encoder-*.npz")
    trained = []

    def train_again(images, seed):
        trained.append(seed)
        raise RuntimeError("trained")

    monkeypatch.setattr(features, "_train", train_again)
    np.testing.assert_array_equal(features.encoder(train, folder=folder)(real), encode(real))
    for changed in ({"seed": 1}, {"train": train[1:]}):
        settings = {"train": train, "seed": 0, **changed}
        with pytest.raises(RuntimeError, match="trained"):
            features.encoder(settings["train"], folder=folder, seed=settings["seed"])
    whole = path.read_bytes()
    for bad in (b"", whole[:400], whole.replace(b"NUMPY", b"PICKL"), b"x" * 10_000_000):
        path.write_bytes(bad)
        with pytest.raises(RuntimeError, match="trained"):
            features.encoder(train, folder=folder)
    path.write_bytes(whole)
    assert len(trained) == 6


def test_worse_phantoms_score_worse(data):
    """Blur, noise, dimming and mode collapse: all beyond real patients, and more when worse."""
    encode, real, groups, train, train_groups, _ = data
    rng = np.random.default_rng(0)
    noise = rng.normal(size=real.shape)
    bad = {
        "blur": [ndimage.gaussian_filter(real, (0, s, s)) for s in (0.7, 1.5)],
        "noise": [np.clip(real + s * noise, 0, 1) for s in (0.05, 0.15)],
        "dimmed": [real * s for s in (0.7, 0.4)],
        "collapse": [real[np.arange(24) % n] for n in (3, 1)],
    }
    of_real, of_train = encode(real), encode(train)
    settings = {"groups": groups, "train_groups": train_groups, "features": features.NAME, "matched": False}
    for name, sets in bad.items():
        mild, strong = (
            distribution.compare(encode(x.astype(np.float32)), of_real, of_train, **settings) for x in sets
        )
        floor = mild["kid"]["floor"]
        assert strong["kid"]["value"] > mild["kid"]["value"], name
        assert strong["kid"]["low"] > max(floor, 0), (name, strong["kid"])
        assert strong["coverage"]["value"] < strong["coverage"]["floor"], name
