"""The same networks and the same training step in PyTorch: what ours is measured against.

Layout NCHW inside. Modules carry the names of the Flax parameters, so that `load` is a walk over both trees.
Weights of a transposed convolution are those of its adjoint in both frameworks.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from pixmed_jax import losses

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
torch.backends.cudnn.benchmark = True

_WEIGHTS = losses.gaussian_band(losses.WINDOW)[0].tolist()  # of SSIM's window


def peak_memory() -> float | None:
    """Bytes of GPU memory that PyTorch's tensors took at most; None on a CPU."""
    return float(torch.cuda.max_memory_allocated()) if DEVICE == "cuda" else None


def norm(kind: str, features: int) -> nn.Module:
    kinds = {
        "batch": lambda: nn.BatchNorm2d(features),
        "instance": lambda: nn.InstanceNorm2d(features, affine=True),
        "none": nn.Identity,
    }
    return kinds[kind]()


class Ghost(nn.Module):
    def __init__(self, inputs: int, features: int, kind: str):
        super().__init__()
        half = features // 2
        self.primary = nn.Conv2d(inputs, half, 3, 2, 1, bias=False)
        self.primary_norm = norm(kind, half)
        self.cheap = nn.Conv2d(half, half, 3, 1, 1, groups=half, bias=False)
        self.cheap_norm = norm(kind, half)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.leaky_relu(self.primary_norm(self.primary(x)), 0.2)
        return torch.cat([x, F.leaky_relu(self.cheap_norm(self.cheap(x)), 0.2)], 1)


class Plain(nn.Module):
    """An encoder level without ghosts; its children carry the names that `load` looks for."""

    def __init__(self, inputs: int, features: int, kind: str):
        super().__init__()
        self.conv = nn.Conv2d(inputs, features, 4, 2, 1, bias=False)
        self.norm = norm(kind, features)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.leaky_relu(self.norm(self.conv(x)), 0.2)


class UNet(nn.Module):
    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        width: int,
        levels: int,
        ghost_levels: tuple[int, ...],
        norm: str,
        dropout: float,
    ):
        super().__init__()
        features = [min(8, 2**i) * width for i in range(levels)]
        self.encoder = nn.ModuleList()
        for i, wide in enumerate(features):
            block = Ghost if i + 1 in ghost_levels else Plain
            kind = "none" if i in (0, levels - 1) else norm
            self.encoder.append(block(features[i - 1] if i else inputs, wide, kind))
        self.decoder, self.decoder_norm = nn.ModuleList(), nn.ModuleList()
        wide = features[-1]
        for i in reversed(range(levels - 1)):
            self.decoder.append(nn.ConvTranspose2d(wide, features[i], 4, 2, 1, bias=False))
            self.decoder_norm.append(globals()["norm"](norm, features[i]))
            wide = 2 * features[i]
        self.last = nn.ConvTranspose2d(wide, outputs, 4, 2, 1)
        self.dropout = dropout

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        skips = []
        for level in self.encoder:
            x = level(x)
            skips.append(x)
        skips.pop()
        for i, (up, normalise) in enumerate(zip(self.decoder, self.decoder_norm, strict=True)):
            x = normalise(up(F.relu(x)))
            if i < 3 and self.dropout:
                x = F.dropout(x, self.dropout)  # the paper's noise: in sampling too
            x = torch.cat([x, skips.pop()], 1)
        return (torch.tanh(self.last(F.relu(x))) + 1) / 2

    def named(self) -> dict[str, nn.Module]:
        """{name of the Flax module: module}."""
        levels = len(self.encoder)
        found: dict[str, nn.Module] = {"decoder_1": self.last}
        for i, level in enumerate(self.encoder, 1):
            if isinstance(level, Ghost):
                for name, child in level.named_children():
                    found[f"encoder_{i}/{name}"] = child
            else:
                found[f"encoder_{i}"], found[f"encoder_{i}_norm"] = level.conv, level.norm
        for i, (up, normalise) in enumerate(zip(self.decoder, self.decoder_norm, strict=True)):
            found[f"decoder_{levels - i}"], found[f"decoder_{levels - i}_norm"] = up, normalise
        return found


class PatchGAN(nn.Module):
    def __init__(self, inputs: int, *, width: int, layers: int, norm: str):
        super().__init__()
        self.convs, self.norms = nn.ModuleList(), nn.ModuleList()
        for i in range(layers + 1):
            kind = norm if i else "none"
            wide = min(8, 2**i) * width
            stride = 2 if i < layers else 1
            self.convs.append(nn.Conv2d(inputs, wide, 4, stride, 1, bias=kind == "none"))
            self.norms.append(globals()["norm"](kind, wide))
            inputs = wide
        self.logits = nn.Conv2d(inputs, 1, 4, 1, 1)

    def forward(self, condition: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
        x = torch.cat([condition, image], 1)
        for conv, normalise in zip(self.convs, self.norms, strict=True):
            x = F.leaky_relu(normalise(conv(x)), 0.2)
        return self.logits(x)

    def named(self) -> dict[str, nn.Module]:
        found: dict[str, nn.Module] = {"logits": self.logits}
        for i, (conv, normalise) in enumerate(zip(self.convs, self.norms, strict=True), 1):
            found[f"conv_{i}"], found[f"norm_{i}"] = conv, normalise
        return found


def load(module: UNet | PatchGAN, variables: Mapping[str, Any]) -> None:
    """Copy Flax `variables` ({"params", "batch_stats"?}) into a module; each must find its place."""
    expected = sum(p.numel() for p in module.parameters())
    copied = 0
    for name, part in module.named().items():
        if isinstance(part, nn.Identity):
            continue
        params, stats = variables["params"], variables.get("batch_stats", {})
        for key in name.split("/"):
            params, stats = params[key], stats.get(key, {})
        kind = next((k for k in ("batch", "instance") if k in params), None)
        if kind is not None:
            params, stats = params[kind], stats.get(kind, {})
        values = {("bias" if key == "bias" else "weight"): np.asarray(v) for key, v in params.items()}
        if values["weight"].ndim == 4:  # HWIO; a transposed convolution's "output" is its input
            values["weight"] = values["weight"].transpose(3, 2, 0, 1)
        values |= {f"running_{key}": np.asarray(v) for key, v in stats.items()}
        with torch.no_grad():
            for key, value in values.items():
                getattr(part, key).copy_(torch.from_numpy(value.copy()))
                copied += value.size * (not key.startswith("running"))
    assert copied == expected, f"{copied} of {expected} parameters found"


def gradients(module: UNet | PatchGAN) -> dict[str, np.ndarray]:
    """{"Flax name/kernel": gradient in Flax's layout} of the convolutions."""
    found = {}
    for name, part in module.named().items():
        weight = getattr(part, "weight", None)
        if weight is not None and weight.ndim == 4:
            found[f"{name}/kernel"] = weight.grad.numpy().transpose(2, 3, 1, 0)
    return found


class Step:
    """gan.make_task's step: one discriminator pass over the fake for both updates, Adam, running average.

    With `dtype` bfloat16 the networks run under autocast; losses, parameters and Adam stay float32.
    """

    def __init__(
        self,
        generator: UNet,
        discriminator: PatchGAN,
        *,
        optimizer: Mapping,
        ema_decay: float,
        dtype: str = "float32",
        channels_last: bool = False,
    ):
        memory_format = torch.channels_last if channels_last else torch.preserve_format
        self.generator = generator.to(DEVICE, memory_format=memory_format)
        self.discriminator = discriminator.to(DEVICE, memory_format=memory_format)
        self.autocast = functools.partial(
            torch.autocast, DEVICE, getattr(torch, dtype), enabled=dtype != "float32"
        )
        self.g_params = list(generator.parameters())
        self.d_params = list(discriminator.parameters())
        settings = {
            "lr": optimizer["learning_rate"], "betas": (optimizer["b1"], optimizer["b2"]), "fused": True,
        }  # fmt: skip
        self.g_adam = torch.optim.Adam(self.g_params, **settings)
        self.d_adam = torch.optim.Adam(self.d_params, **settings)
        self.ema = [p.detach().clone() for p in self.g_params]
        self.ema_decay = ema_decay
        # What torch.compile may replace.
        self.generate, self.discriminate, self.compare = generator, discriminator, ssim

    def forward(self, condition: torch.Tensor, real: torch.Tensor) -> tuple[torch.Tensor, ...]:
        bce = F.binary_cross_entropy_with_logits
        with self.autocast():
            fake = self.generate(condition).float()
            shown = fake.detach().requires_grad_()
            fake_logits = self.discriminate(condition, shown).float()
            real_logits = self.discriminate(condition, real).float()
        loss_fake = bce(fake_logits, torch.zeros_like(fake_logits))
        loss_real = bce(real_logits, torch.ones_like(real_logits))
        adversarial = bce(fake_logits, torch.ones_like(fake_logits))
        return fake, shown, loss_fake, loss_real, adversarial, 1 - self.compare(fake, real)

    def losses(self, condition: torch.Tensor, real: torch.Tensor) -> dict[str, torch.Tensor]:
        """Fills every parameter's gradient and returns the four losses."""
        fake, shown, loss_fake, loss_real, adversarial, dissimilarity = self.forward(condition, real)
        (to_image,) = torch.autograd.grad(adversarial, shown, retain_graph=True)
        ((loss_fake + loss_real) / 2).backward(inputs=self.d_params)
        torch.autograd.backward([dissimilarity, fake], [None, to_image], inputs=self.g_params)
        return {
            "generator/adversarial": adversarial.detach(),
            "generator/1-ssim": dissimilarity.detach(),
            "discriminator/real": loss_real.detach(),
            "discriminator/fake": loss_fake.detach(),
        }

    def __call__(self, condition: torch.Tensor, real: torch.Tensor) -> dict[str, torch.Tensor]:
        values = self.losses(condition, real)
        for adam in (self.g_adam, self.d_adam):
            adam.step()
            adam.zero_grad(set_to_none=True)
        with torch.no_grad():
            torch._foreach_lerp_(self.ema, [p.detach() for p in self.g_params], 1 - self.ema_decay)
        return values


@functools.cache
def _band(size: int) -> torch.Tensor:
    return torch.from_numpy(losses.gaussian_band(size)).to(DEVICE)


def products(x: torch.Tensor) -> torch.Tensor:
    return _band(x.shape[-2]) @ (x @ _band(x.shape[-1]).T)


def shifts(x: torch.Tensor) -> torch.Tensor:
    for axis in (-2, -1):
        length = x.shape[axis] - losses.WINDOW + 1
        x = sum(w * x.narrow(axis, i, length) for i, w in enumerate(_WEIGHTS))
    return x


def ssim(a: torch.Tensor, b: torch.Tensor, blur: Callable = products) -> torch.Tensor:
    """As losses.ssim, its Gaussian as two banded matrices or, for a GPU's compiler to fuse, as shifts."""
    mean_a, mean_b = blur(a), blur(b)
    var_a, var_b = blur(a * a) - mean_a**2, blur(b * b) - mean_b**2
    covariance = blur(a * b) - mean_a * mean_b
    c1, c2 = 0.01**2, 0.03**2
    top = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    return (top / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))).mean()
