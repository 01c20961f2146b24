"""DenseNet (Huang et al., CVPR 2017, Section 3), the paper's downstream classifier, as in Keras.

With the defaults it is Keras's DenseNet201: 18,321,984 numbers without the top, of which 229,056 are the
running statistics of batch norm; a top for L classes adds 1920 L + L. `read_weights` starts it from ImageNet
weights in a local file, of Keras (.h5, older layout by layer names) or of torchvision (.safetensors).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from pixmed_jax import tensors
from pixmed_jax.errors import PixmedError, listing
from pixmed_jax.extras import library
from pixmed_jax.models.layers import Conv, Dtype, Norm, check_halvings

EPSILON = 1.001e-5
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of [0, 1] RGB
_he = nn.initializers.he_normal()  # He et al. 2015, as Section 4.2 has it


class DenseNet(nn.Module):
    """Images [N, S, S, C] in [0, 1], C 1 or 3 -> logits [N, classes] float32; S >= 4 * 2**(len(blocks) - 1).

    Block b has `blocks[b]` layers of `growth` maps each; between blocks a transition halves maps and pixels.
    The stem makes `stem` maps at S / 4. Grey is repeated to three channels, so that the first layer fits
    weights learnt on colours; `imagenet` shifts and scales them as those weights want it. Without `classes`
    the result is the mean of the last maps, [N, F].
    """

    classes: int
    blocks: tuple[int, ...] = (6, 12, 48, 32)
    growth: int = 32
    stem: int = 64
    dropout: float = 0.0
    imagenet: bool = False
    axis_name: str | None = None
    dtype: Dtype = jnp.float32

    @nn.nowrap
    def check(self, size: int, key: str) -> None:
        """PixmedError for blocks that images of `size` do not have; key: their section of the config."""
        check_halvings(size, len(self.blocks) + 1, f"{key}.blocks={self.blocks}")

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
        def conv(features: int, size: int, name: str, stride: int = 1) -> Conv:
            pad = size // 2
            return Conv(
                features, size, stride, pad, use_bias=False, dtype=self.dtype, kernel_init=_he, name=name
            )

        def activated(x: jax.Array, name: str) -> jax.Array:
            return Norm("batch", train, self.axis_name, self.dtype, EPSILON, slope=0.0, name=name)(x)

        x = jnp.broadcast_to(images, (*images.shape[:-1], 3))
        if self.imagenet:
            x = (x - jnp.array(IMAGENET_MEAN)) / jnp.array(IMAGENET_STD)
        x = activated(conv(self.stem, 7, "conv1_conv", stride=2)(x), "conv1_bn")
        x = nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
        for b, layers in enumerate(self.blocks, 2):
            for i in range(1, layers + 1):
                name = f"conv{b}_block{i}"
                y = conv(4 * self.growth, 1, f"{name}_1_conv")(activated(x, f"{name}_0_bn"))
                y = conv(self.growth, 3, f"{name}_2_conv")(activated(y, f"{name}_1_bn"))
                x = jnp.concatenate([x, y], axis=-1)
            if b <= len(self.blocks):
                x = conv(x.shape[-1] // 2, 1, f"pool{b}_conv")(activated(x, f"pool{b}_bn"))
                x = nn.avg_pool(x, (2, 2), (2, 2))
        x = activated(x, "bn").mean(axis=(1, 2)).astype(jnp.float32)
        if not self.classes:
            return x
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return nn.Dense(self.classes, name="predictions")(x)


# ---------------------------------------------------------------- ImageNet weights from a file
def read_weights(path: str | Path, variables: Mapping[str, Any], key: str) -> dict[str, Any]:
    """`variables` of a DenseNet with all but the classifier's last layer replaced by a file's.

    key: the setting that named the file, for messages. Every array is checked against the network's shape
    before it is read. Errors: PixmedError.
    """
    path = Path(path)
    if not path.is_file():
        raise PixmedError(f"{path}: no such file; set {key} to one, or leave it empty")
    wanted = {
        (kind, layer, leaf): like
        for kind, tree in variables.items()
        for layer, inner in tree.items()
        if layer != "predictions"
        for leaf, like in inner.get("batch", inner).items()
    }
    if path.suffix == ".h5":
        found = _read_keras(path, wanted, key)
    elif path.suffix == ".safetensors":
        found = _read_torchvision(path, wanted, key)
    else:
        raise PixmedError(f"{path}: {key} takes a Keras .h5 or a torchvision .safetensors file")
    odd = [".".join(name) for name, value in found.items() if not np.isfinite(value).all()]
    if odd:
        raise PixmedError(f"{path}: {listing(odd, 5)} hold NaN or infinity; download the file again")
    new = {kind: dict(tree) for kind, tree in variables.items()}
    for (kind, layer, leaf), value in found.items():
        inner = new[kind][layer]
        new[kind][layer] = (
            {"batch": {**inner["batch"], leaf: value}} if "batch" in inner else {**inner, leaf: value}
        )
    return new


_KERAS = {
    "kernel": "kernel",
    "scale": "gamma",
    "bias": "beta",
    "mean": "moving_mean",
    "var": "moving_variance",
}


def _read_keras(path: Path, wanted: Mapping[tuple, Any], key: str) -> dict[tuple, np.ndarray]:
    """Keras's own files: LAYER/LAYER/kernel:0 and so on; older ones call the first layer "conv1/conv"."""
    h5py = library("h5py", "weights")

    def values(file: Any, layer: str, leaf: str) -> Any:
        for name in (layer, layer.replace("_", "/", 1) if layer.startswith("conv1_") else layer):
            for inner in (f"{_KERAS[leaf]}:0", _KERAS[leaf]):
                array = file.get(f"{name}/{name}/{inner}")
                if isinstance(array, h5py.Dataset):
                    return array
        return None

    try:
        with h5py.File(path, "r") as file:
            file = file.get("model_weights", file)  # where a whole model was saved
            arrays = {name: values(file, *name[1:]) for name in wanted}
            _check(path, wanted, {n: None if a is None else a.shape for n, a in arrays.items()}, key)
            return {name: np.asarray(array[()], np.float32) for name, array in arrays.items()}
    except (OSError, RuntimeError, ValueError, TypeError, KeyError) as error:
        raise PixmedError(
            f"{path}: is no readable HDF5 file ({type(error).__name__}); download it again"
        ) from None


def _read_torchvision(path: Path, wanted: Mapping[tuple, Any], key: str) -> dict[tuple, np.ndarray]:
    """torchvision's names (also timm's), kernels OIHW."""
    names = {name: _torch_name(*name[1:]) for name in wanted}
    there = tensors.shapes(path)
    shapes = {name: there.get(torch) for name, torch in names.items()}
    turned = {
        name: shape if shape is None or len(shape) != 4 else tuple(shape[i] for i in (2, 3, 1, 0))
        for name, shape in shapes.items()
    }
    _check(path, wanted, turned, key)
    found = tensors.read(path, names.values())
    arrays = {name: found[torch] for name, torch in names.items()}
    return {name: a.transpose(2, 3, 1, 0) if a.ndim == 4 else a for name, a in arrays.items()}


_TORCH = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}


def _torch_name(layer: str, leaf: str) -> str:
    """conv2_block1_0_bn -> denseblock1.denselayer1.norm1; pool2_conv -> transition1.conv; bn -> norm5."""
    parts = layer.split("_")
    kind = {"bn": "norm", "conv": "conv"}[parts[-1]]
    if layer == "bn":
        where = "norm5"
    elif parts[0] == "conv1":
        where = f"{kind}0"
    elif parts[0].startswith("pool"):
        where = f"transition{int(parts[0][4:]) - 1}.{kind}"
    else:
        block, index, place = int(parts[0][4:]) - 1, int(parts[1][5:]), int(parts[2])
        where = f"denseblock{block}.denselayer{index}.{kind}{place + (kind == 'norm')}"
    return f"features.{where}.{_TORCH[leaf]}"


def _check(path: Path, wanted: Mapping[tuple, Any], shapes: Mapping[tuple, tuple | None], key: str) -> None:
    missing = [f"{layer}/{leaf}" for (_, layer, leaf), shape in shapes.items() if shape is None]
    if missing:
        raise PixmedError(
            f"{path}: lacks {len(missing)} of {len(wanted)} arrays ({listing(missing, 3)}); "
            f"give weights of a DenseNet of the same blocks and growth in {key}"
        )
    odd = [
        f"{name[1]}/{name[2]} {list(shapes[name] or ())} instead of {list(like.shape)}"
        for name, like in wanted.items()
        if shapes[name] != like.shape
    ]
    if odd:
        raise PixmedError(f"{path}: {len(odd)} arrays of another shape ({listing(odd, 3)}); correct {key}")
