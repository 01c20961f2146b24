"""A variational autoencoder of label maps, given tumour's class and plane, with a mixture as its prior.

Kingma and Welling, ICLR 2014. The prior is a mixture of M Gaussians whose weights depend on the class, after
Dilokthanakul et al. 2016, "Deep Unsupervised Clustering with Gaussian Mixture Variational Autoencoders", in
its simplest form, log p(z | class) = log sum_m pi_m(class) N(z; mu_m, sigma_m), learnt with everything else.
Slices of several planes and levels are no single cloud, and what is drawn between clouds is no head. A plane
that is told changes the weights as the class does, and moves the means.

A tumour of another class than the one told cannot be drawn: its logit is out of reach. To the logits of a
drawn map comes grain, `grain` times Gumbel noise that neighbouring pixels share: the most likely class
everywhere is a smooth map, and tissue is not; with independent noise (grain 1 would then draw each pixel from
its distribution) it would be sand.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from pixmed_jax.models.layers import Conv, ConvTranspose, Dtype, Norm, check_doublings

_START = 4  # pixels a side of the innermost maps
_MOST = 4  # times `width`, the most maps of a level
_NEVER = 30.0  # below all logits
_FASTER = 10.0  # the mixture's weights are learnt so many times as fast: modes that nobody needs must go
_LOG_VARIANCES = (-8.0, 4.0)  # kept within
_BLUR = (0.25, 0.5, 0.25)  # of the grain


class LayoutVAE(nn.Module):
    """One-hot label maps [N, S, S, K], the first `tumors` of K channels tumours -> logits [N, S, S, 1 + K].
    `planes` more channels tell the plane, all pixels alike.

    In training logits of the given maps, and [N] what their code costs in nats: log q(z | map) - log p(z |
    class). Else logits of new maps, drawn from the prior by the rng "noise": of what is given, only plane and
    class of the tumour are read. S is `size`, 4 times a power of 2.
    """

    size: int
    classes: int
    tumors: int
    planes: int = 0
    width: int = 32
    latent: int = 64
    modes: int = 40
    grain: float = 0.4
    axis_name: str | None = None
    dtype: Dtype = jnp.float32

    @nn.nowrap
    def check(self, size: int, key: str) -> None:
        """PixmedError for a size that it does not draw."""
        check_doublings(size)

    def setup(self) -> None:
        levels = (self.size // _START).bit_length() - 1
        if self.size != _START << levels or levels < 1:
            raise ValueError(f"label maps of {self.size} pixels: this network draws 8, 16, 32 .. pixels")
        widths = [min(_MOST, 2**i) * self.width for i in range(levels)]
        self.down = [Conv(w, 4, stride=2, use_bias=i == 0, dtype=self.dtype) for i, w in enumerate(widths)]
        self.code = nn.Dense(2 * self.latent)
        self.grow = nn.Dense(_START**2 * widths[-1], use_bias=False, dtype=self.dtype)
        self.up = [ConvTranspose(w, use_bias=False, dtype=self.dtype) for w in (*widths[-2::-1], self.width)]
        self.logits = Conv(1 + self.classes, 3, dtype=self.dtype)
        shape = (self.modes, self.latent)
        self.means = self.param("means", nn.initializers.normal(0.3), shape)
        self.log_variances = self.param("log_variances", nn.initializers.zeros, shape)
        self.weights = self.param("weights", nn.initializers.zeros, (self.tumors + self.planes, self.modes))
        if self.planes:
            self.shifts = self.param("shifts", nn.initializers.zeros, (self.planes, self.latent))

    @nn.compact
    def __call__(self, maps: jax.Array, *, train: bool) -> jax.Array | tuple[jax.Array, jax.Array]:
        read = jnp.concatenate([maps[..., : self.tumors], maps[..., self.classes :]], axis=-1)
        told = read.max((1, 2))  # [N, T + P]
        normal = jax.random.normal(self.make_rng("noise"), (len(maps), self.latent))
        if not train:
            drawn = jax.random.categorical(self.make_rng("noise"), told @ self._weights())
            mode = jax.nn.one_hot(drawn, self.modes)  # [N, M]
            spread = jnp.exp(mode @ self._log_variances() / 2)
            mean = mode @ self.means + self._shift(told)
            logits = self._decoded(mean + spread * normal, told, train)
            return logits + self.grain * smooth_gumbel(self.make_rng("noise"), logits.shape)
        mean, log_variance = jnp.split(self._encoded(maps, told, train), 2, axis=-1)
        log_variance = jnp.clip(log_variance, *_LOG_VARIANCES)
        z = mean + jnp.exp(log_variance / 2) * normal
        cost = _log_density(z, mean, log_variance) - self._log_prior(z, told)
        return self._decoded(z, told, train), cost

    def _encoded(self, maps: jax.Array, told: jax.Array, train: bool) -> jax.Array:
        x = maps
        for i, convolution in enumerate(self.down):
            norm = "none" if i == 0 else "batch"
            x = convolution(x)
            x = Norm(norm, train, self.axis_name, self.dtype, slope=0.2, name=f"down_norm_{i}")(x)
        return self.code(jnp.concatenate([x.reshape(len(x), -1).astype(jnp.float32), told], axis=-1))

    def _decoded(self, z: jax.Array, told: jax.Array, train: bool) -> jax.Array:
        x = self.grow(jnp.concatenate([z, told], axis=-1))
        x = x.reshape(len(z), _START, _START, -1)
        x = Norm("batch", train, self.axis_name, self.dtype, slope=0.0, name="grow_norm")(x)
        for i, convolution in enumerate(self.up):
            x = convolution(x)
            x = Norm("batch", train, self.axis_name, self.dtype, slope=0.0, name=f"up_norm_{i}")(x)
        logits = self.logits(x).astype(jnp.float32)
        others = jnp.pad(1 - told[:, : self.tumors], ((0, 0), (1, self.classes - self.tumors)))  # [N, 1 + K]
        return logits - _NEVER * others[:, None, None]

    def _weights(self) -> jax.Array:
        return _FASTER * self.weights

    def _shift(self, told: jax.Array) -> jax.Array:
        """What the plane moves the prior's means by, [N, L]."""
        return told[:, self.tumors :] @ self.shifts if self.planes else jnp.zeros(())

    def _log_variances(self) -> jax.Array:
        return jnp.clip(self.log_variances, *_LOG_VARIANCES)

    def _log_prior(self, z: jax.Array, told: jax.Array) -> jax.Array:
        # Moving z back is moving all means.
        each = _log_density((z - self._shift(told))[:, None], self.means, self._log_variances())  # [N, M]
        return nn.logsumexp(each + nn.log_softmax(told @ self._weights()), axis=-1)


def smooth_gumbel(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Gumbel noise [N, S, S, C] that neighbouring pixels share: blurred normal noise, distributed anew."""
    noise = jax.random.normal(key, shape)
    for axis in (1, 2):
        noise = sum((tap * jnp.roll(noise, i - 1, axis) for i, tap in enumerate(_BLUR)), jnp.zeros(()))
    noise = noise / sum(tap**2 for tap in _BLUR)  # of variance 1 again, along both axes at once
    # Nearer to 1 the last bit of float32 would be heard in the logarithms, and runtimes differ in it.
    chance = jnp.clip((1 + jax.lax.erf(noise / math.sqrt(2))) / 2, 1e-4, 1 - 1e-4)
    return -jnp.log(-jnp.log(chance))


def _log_density(z: jax.Array, mean: jax.Array, log_variance: jax.Array) -> jax.Array:
    """Of a Gaussian with independent coordinates, over the last axis."""
    squares = (z - mean) ** 2 * jnp.exp(-log_variance)
    return -0.5 * (squares + log_variance + math.log(2 * math.pi)).sum(-1)
