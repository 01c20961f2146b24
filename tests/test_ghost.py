"""The ghost module: how many maps and weights it has, and which map is made of which."""

from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.signal import correlate

from pixmed_jax.models import count
from pixmed_jax.models.ghost import GhostModule
from pixmed_jax.models.layers import Conv

IMAGE = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype(np.float32)


def test_parameters_of_one_module():
    """3 -> 8 maps: 3*3*3*4 primary and 3*3*4 cheap weights, a scale and a bias for each of the 8 maps."""
    size = count.size(GhostModule(8), lambda module: module.init(jax.random.key(0), IMAGE))
    assert size.parameters == 108 + 36 + 16


@pytest.mark.parametrize(
    ("features", "ratio", "intrinsic", "ghosts"),
    [(8, 1, 8, 0), (8, 2, 4, 4), (7, 2, 4, 4), (9, 3, 3, 6), (7, 3, 3, 6)],
)
def test_number_of_maps(features, ratio, intrinsic, ghosts):
    """ceil(features / ratio) intrinsic maps, ratio - 1 ghosts of each, and what is too many is cut off."""
    module = GhostModule(features, ratio=ratio)
    y, variables = jax.eval_shape(lambda: module.init_with_output(jax.random.key(0), IMAGE))
    assert y.shape == (2, 4, 4, features)
    params = variables["params"]
    assert params["primary"]["kernel"].shape == (3, 3, 3, intrinsic)
    assert (params["cheap"]["kernel"].shape == (3, 3, 1, ghosts)) if ghosts else ("cheap" not in params)


@pytest.mark.parametrize(("ratio", "features"), [(2, 8), (3, 12)])
def test_ghosts_come_from_their_own_intrinsic_map(draw, ratio, features):
    """Other weights for intrinsic map 1 change that map and its own ghosts, and nothing else."""
    module = GhostModule(features, ratio=ratio)
    variables = draw(lambda: module.init(jax.random.key(0), IMAGE))

    @jax.jit
    def maps(kernel: jax.Array) -> jax.Array:
        params = variables["params"] | {"primary": {"kernel": kernel}}
        return module.apply({**variables, "params": params}, IMAGE, mutable=["batch_stats"])[0]

    kernel = variables["params"]["primary"]["kernel"]
    other = kernel.copy()
    other[..., 1] = kernel[::-1, ..., 1]
    changed = np.abs(maps(kernel) - maps(other)).max((0, 1, 2)) > 1e-3
    of_map_1 = [1] + [4 + (ratio - 1) + r for r in range(ratio - 1)]
    assert np.flatnonzero(changed).tolist() == of_map_1


def test_ghosts_are_filtered_from_activated_maps(draw):
    """Without norms: leaky ReLU (0.2) of a 3x3 correlation, zeros outside, of the activated intrinsic map."""
    module = GhostModule(4, norm="none")
    variables = draw(lambda: module.init(jax.random.key(0), IMAGE))
    y = jax.jit(lambda: module.apply(variables, IMAGE))()
    filters = np.asarray(variables["params"]["cheap"]["kernel"])
    assert (np.asarray(y)[..., :2] < 0).any()
    for i in range(2):
        intrinsic = np.asarray(y)[0, ..., i]
        ghost = correlate(intrinsic, filters[:, :, 0, i], mode="same")
        ghost = np.where(ghost > 0, ghost, 0.2 * ghost)
        np.testing.assert_allclose(y[0, ..., 2 + i], ghost, atol=1e-6 * np.abs(ghost).max())
    primary = np.asarray(variables["params"]["primary"]["kernel"])
    # Pixel (1, 1) of the halved image is the 3x3 window that starts at (1, 1) of the image.
    window = np.einsum("yxc,yxcf->f", IMAGE[0, 1:4, 1:4], primary)
    np.testing.assert_allclose(y[0, 1, 1, :2], np.where(window > 0, window, 0.2 * window), rtol=1e-4)


@pytest.mark.parametrize("channels", [3, 64])
def test_share_of_the_multiplications_it_replaces(channels):
    """9/32 for half the maps by 3x3 instead of all by 4x4, and one part in `channels` more for the ghosts."""
    x = jnp.zeros((1, 16, 16, channels))

    def macs(module: GhostModule | Conv) -> int:
        return count.size(module, lambda module: module.init(jax.random.key(0), x)).macs

    replaced = macs(Conv(32, 4, stride=2, use_bias=False))
    assert Fraction(macs(GhostModule(32)), replaced) == Fraction(9, 32) * (1 + Fraction(1, channels))
