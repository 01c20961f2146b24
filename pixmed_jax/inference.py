"""A trained generator: masks in, images out, from a checkpoint's files alone, or an exported folder's.

    generate = pixmed_jax.load("runs/ghost-quick")
    images = generate(label_maps, seed=0)          # [N, S, S] uint8 -> [N, S, S, C] float32 in [0, 1]

Works on whatever devices there are: a checkpoint does not remember those it was trained on.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import SingleDeviceSharding

from pixmed_jax import config as configs
from pixmed_jax import memory
from pixmed_jax.data.degrade import degradation
from pixmed_jax.data.pipeline import Arrays, Batch, one_hot, to_float, whole_batch, with_channels
from pixmed_jax.data.regions import MAPS
from pixmed_jax.errors import OptionError, PixmedError
from pixmed_jax.export import folder
from pixmed_jax.training import checkpoint, mesh
from pixmed_jax.training.build import is_supervised, make_task, makes_layouts, restorer, restores
from pixmed_jax.training.task import Task

_SMALLER = "give a smaller batch_size (sample.batch_size), or close what else uses the memory"
_LARGEST = 2**16  # layers, features or pixels that a config may ask for
Predict = Callable[[Any, Any, Any], jax.Array]


def image_seeds(seed: int, count: int) -> np.ndarray:
    """One seed for each of `count` images, [count] uint32; image i depends on (seed, i) alone."""
    if seed < 0:
        raise PixmedError(f"seed={seed}: give 0 or more")
    return np.array([np.random.SeedSequence([seed, i]).generate_state(1)[0] for i in range(count)], np.uint32)


def jit_predict(task: Task, inputs: Callable[[Any], jax.Array]) -> Predict:
    """(variables, anything that `inputs` turns into what the task takes, seeds [N] uint32) -> predictions."""

    @jax.jit
    def predict(variables: Any, stored: Any, seeds: jax.Array) -> jax.Array:
        return task.predict(variables, inputs(stored), jax.vmap(jax.random.key)(seeds))

    return predict


def in_batches(predict: Predict, variables: Any, inputs: Any, seeds: np.ndarray, size: int) -> np.ndarray:
    """`predict` over trees of arrays of any length N, always `size` rows at a time, the last batch padded.

    One shape compiles once; and since the arithmetic of a batch may depend on its shape in the last bit, it
    also makes an image the same whatever the number of images beside it.
    """
    outputs = []
    for start in range(0, len(seeds), size):
        count = min(size, len(seeds) - start)

        def part(x: np.ndarray, start: int = start, missing: int = size - count) -> np.ndarray:
            return np.pad(x[start : start + size], ((0, missing),) + ((0, 0),) * (x.ndim - 1))

        outputs.append(np.asarray(predict(variables, jax.tree.map(part, inputs), part(seeds)))[:count])
    return np.concatenate(outputs)


def example_batch(config: dict[str, Any], classes: int, batch_size: int = 1) -> Batch:
    """A batch of the shapes that `config` trains on, all black: enough to make a task's state."""
    data = config["data"]
    black = np.zeros((batch_size, data["size"], data["size"]), np.uint8)
    maps = black if data["condition"] in MAPS else black[:, 0, 0]
    arrays = Arrays(black[..., None], maps, np.zeros(batch_size, np.int32))
    degrade = degradation(data["condition"], data.get("scale", 1))
    # Compiled as one, since a start waits for it.
    make = partial(whole_batch, classes=classes, channels=data["channels"], degrade=degrade)
    return cast(Batch, jax.jit(make)(arrays))


def with_prepared(task: Task, variables: Any, inputs: jax.Array) -> Any:
    """The variables, and kernels prepared for one image of such inputs, for a task that prepares them."""
    assert task.prepare is not None
    return {**variables, **jax.jit(task.prepare)(variables, inputs)}


def restored(saved: checkpoint.Saved) -> tuple[Task, Any]:
    """The task of a checkpoint or an exported model, and the variables that predict, on the default device.

    It computes in `train.dtype`, and where the default device is a CPU in float32: CPUs only emulate
    bfloat16, in three times the time, and no exported form knows it.
    """
    _check_sizes(saved)
    placed = SingleDeviceSharding(_default_device())  # copies on others would each compute the whole batch
    try:
        config = saved.config
        if config["train"]["dtype"] == "bfloat16" and default_platform() == "cpu":
            config = {**config, "train": {**config["train"], "dtype": "float32"}}
        task = make_task(config, classes=len(saved.classes))
        state = jax.eval_shape(
            lambda key: task.init(key, example_batch(saved.config, len(saved.classes))), jax.random.PRNGKey(0)
        )
        like = mesh.like(state.ema, placed)
    except PixmedError:
        raise
    except Exception as error:  # a config from elsewhere may be wrong in any way
        reason = str(error).strip().split("\n")[0][:200]
        raise PixmedError(
            f"{saved.path}: its config describes no network of this version ({type(error).__name__}: "
            f"{reason}); take the version that wrote it"
        ) from error
    if folder.holds_export(saved.path):
        return task, folder.read_weights(saved, like)
    return task, checkpoint.restore(saved, {"ema": like})["ema"]


def default_platform() -> str:
    return str(_default_device().platform)


def _default_device() -> jax.Device:
    (device,) = jnp.zeros(()).devices()  # however the default one was said
    return device


def _check_sizes(saved: checkpoint.Saved) -> None:
    """A network is traced before it is compared with its weights; 10**9 layers would never end."""
    for key, value in configs.flatten(saved.config).items():
        if key.startswith("model.") or key in ("data.size", "data.channels"):
            for number in value if isinstance(value, list) else [value]:
                if isinstance(number, int) and number > _LARGEST:
                    raise PixmedError(
                        f"{saved.path}: config.{key}={number} is more than {_LARGEST}; lower it"
                    )


class Network:
    """A trained classifier or segmenter: images [N, S, S, C] uint8 | uint16 -> logits float32.

    `predicts` is "labels" (logits [N, L], `classes` in their order) or "masks" ([N, S, S, 1 + K]).
    """

    def __init__(self, saved: checkpoint.Saved):
        task, self._variables = restored(saved)
        if not is_supervised(saved.config):
            raise PixmedError(f"{saved.path}: holds a generator, which judges no images")
        _check_restores_not(saved)
        if makes_layouts(saved.config):
            raise PixmedError(
                f"{saved.path}: holds a {saved.config['name']}, which draws label maps; give it to "
                "--sample.layout"
            )
        self.saved = saved
        self.config = saved.config
        self.classes = saved.classes
        self.step = saved.step
        self.size: int = saved.config["data"]["size"]
        self.predicts = task.predicts
        self._channels = channels = saved.config["data"]["channels"]
        self._predict = jit_predict(task, lambda images: with_channels(to_float(images), channels))

    def __call__(self, images: np.ndarray, *, batch_size: int = 8) -> np.ndarray:
        """Images [N, S, S, C] uint8 | uint16 -> logits float32, [N, L] or [N, S, S, 1 + K].

        Raises PixmedError for images of another size.
        """
        if images.ndim != 4 or images.shape[1:3] != (self.size, self.size):
            raise PixmedError(
                f"images of shape {list(images.shape)}: this network needs [N, {self.size}, {self.size}, C]; "
                "resize them"
            )
        seeds = image_seeds(0, len(images))  # of no consequence
        with memory.told(batch_size, self.size, _SMALLER):
            return in_batches(self._predict, self._variables, images, seeds, batch_size)

    def one_image(self, device: jax.Device) -> tuple[Any, tuple[Any, ...]]:
        """As `Generator.one_image`."""
        images = np.zeros((1, self.size, self.size, self._channels), np.uint8)
        return self._predict, jax.device_put((self._variables, images, image_seeds(0, 1)), device)


def _check_restores_not(saved: checkpoint.Saved) -> None:
    if restores(saved.config):
        raise PixmedError(
            f"{saved.path}: holds a {saved.config['name']}, which restores images; give it to "
            "--mode=upscale, --mode=enhance or --sample.upscaler"
        )


class Restorer:
    """Gives degraded images back: [N, h, w, C] in [0, 1] -> [N, scale h, scale w, C] float32 in [0, 1].

    Any h, w and C: a grey network takes the channels of a colour image for images of their own. An output
    pixel depends on the input within `reach` pixels around it, and on nothing else.
    """

    def __init__(self, saved: checkpoint.Saved):
        task, self._variables = restored(saved)
        if not restores(saved.config):
            raise PixmedError(
                f"{saved.path}: holds a {saved.config['name']}, which restores no images; give a run of "
                "configs/super_resolution.py, configs/srgan.py or configs/zero_dce.py"
            )
        data = saved.config["data"]
        self.saved = saved
        self.config = saved.config
        self.classes = saved.classes
        self.step = saved.step
        self.size: int = data["size"]
        self.scale: int = data.get("scale", 1)
        self.reach: int = restorer(saved.config).reach
        self._channels: int = data["channels"]
        self._predict = jit_predict(task, to_float)

    def __call__(self, images: np.ndarray, *, batch_size: int = 8) -> np.ndarray:
        """Degraded images [N, H, W, C] float in [0, 1] -> restored ones, float32 in [0, 1]."""
        n, height, width, channels = images.shape
        each = self._channels == 1 < channels
        given = np.moveaxis(images, -1, 1).reshape(-1, height, width, 1) if each else images
        given = np.asarray(with_channels(jnp.asarray(given, jnp.float32), self._channels))
        with memory.told(batch_size, max(height, width), _SMALLER):
            made = in_batches(
                self._predict, self._variables, given, image_seeds(0, len(given)), min(batch_size, len(given))
            )
        if each:
            return np.moveaxis(made.reshape(n, channels, *made.shape[1:3]), 1, -1)
        return made.mean(axis=-1, keepdims=True) if channels == 1 else made

    def one_image(self, device: jax.Device) -> tuple[Any, tuple[Any, ...]]:
        """As `Generator.one_image`; of the size that it was trained on."""
        side = self.size // self.scale
        images = np.zeros((1, side, side, self._channels), np.float32)
        return self._predict, jax.device_put((self._variables, images, image_seeds(0, 1)), device)


class Generator:
    """Turns label maps, or labels, into images. `classes` names their values 1 .. K; 0 is background.

    `grey` says that a picture's channels mean one grey value, however many the network makes. `limits` are
    the values that its images' 0 and 1 stand for in the units of the data it was trained on. `takes_maps` is
    false for a model whose condition is the label alone.
    """

    def __init__(self, saved: checkpoint.Saved):
        task, self._variables = restored(saved)
        if is_supervised(saved.config):
            raise PixmedError(f"{saved.path}: holds a {saved.config['name']}, which makes no images")
        _check_restores_not(saved)
        self.saved = saved
        self.config = saved.config
        self.classes = saved.classes
        self.grey = saved.grey
        self.limits = saved.limits
        self.step = saved.step
        self.size: int = saved.config["data"]["size"]
        self.takes_maps: bool = saved.config["data"]["condition"] != "label"
        classes, channels = len(saved.classes), saved.config["data"]["channels"]
        self._predict = jit_predict(task, lambda maps: one_hot(maps, classes, channels))
        self._task = task
        self._alone: Any = None  # the variables of one image, once they were needed
        self._repaint: Predict | None = None
        if repaint := task.repaint:

            @jax.jit
            def repainted(variables: Any, given: tuple[jax.Array, jax.Array], _: jax.Array) -> jax.Array:
                maps, images = given
                real = with_channels(to_float(images), channels)
                return repaint(variables, one_hot(maps, classes, channels), real)

            self._repaint = repainted

    def __call__(
        self, maps: np.ndarray, *, seed: int = 0, seeds: np.ndarray | None = None, batch_size: int = 8
    ) -> np.ndarray:
        """Label maps [N, S, S] uint8 -> images [N, S, S, C] float32 in [0, 1].

        A model whose condition is the label takes labels [N], values 1 .. K, instead.
        `seeds` [N] gives each image its own; without it they follow from `seed` and the image's position.
        A few images are had soonest with `batch_size=1`; their last bits are others than a batch's.
        Raises PixmedError for maps of another size or with values that are no class.
        """
        maps = np.asarray(maps)
        named, last = ", ".join(self.classes), len(self.classes)
        if not self.takes_maps and maps.ndim != 1:
            raise PixmedError(
                f"label maps of shape {list(maps.shape)}: this model knows no maps; give labels [N], 1 to "
                f"{last} for {named}"
            )
        if self.takes_maps and (maps.ndim != 3 or maps.shape[1:] != (self.size, self.size)):
            alone = maps.shape == (self.size, self.size)
            remedy = "give one as maps[None]" if alone else "resize them with nearest neighbour"
            raise PixmedError(
                f"label maps of shape {list(maps.shape)}: this model needs [N, {self.size}, {self.size}]; "
                f"{remedy}"
            )
        values = np.unique(maps)
        if not np.isin(values, np.arange(0 if self.takes_maps else 1, last + 1)).all():
            background = "0 for background and " if self.takes_maps else ""
            raise PixmedError(
                f"label maps with values {values.tolist()}: this model knows {background}1 to {last} for "
                f"{named}; map them to these"
            )
        if seeds is None:
            seeds = image_seeds(seed, len(maps))
        if len(seeds) != len(maps):
            raise PixmedError(f"{len(seeds)} seeds for {len(maps)} label maps; give one for each")
        if not len(maps):
            return np.zeros((0, self.size, self.size, self.config["data"]["channels"]), np.float32)
        with memory.told(batch_size, self.size, _SMALLER):
            return in_batches(self._predict, self._of(batch_size), maps.astype(np.uint8), seeds, batch_size)

    def _of(self, batch_size: int) -> Any:
        """The variables for batches of that size; for one image, on a CPU, with kernels that are prepared."""
        if batch_size > 1:
            return self._variables
        if self._alone is None:
            self._alone = self._variables
            if self._task.prepare and default_platform() == "cpu":
                inputs = self._task.inputs(example_batch(self.config, len(self.classes)))
                self._alone = with_prepared(self._task, self._variables, inputs)
        return self._alone

    def pure(self) -> tuple[Callable[[Any, jax.Array, jax.Array], jax.Array], Any]:
        """(paint, variables), for programs that jit, vmap or differentiate (in reverse mode) through it.

        `paint(variables, condition, keys)` is a pure function to images [N, S, S, C] float32 in [0, 1]:
        condition as `condition` makes it or of its shape, such as soft maps; keys [N] of `jax.random.key`.
        """
        return self._task.predict, self._variables

    def condition(self, maps: np.ndarray) -> jax.Array:
        """Label maps [N, S, S] -> [N, S, S, K], or labels [N] -> [N, K], float32: what `pure`'s function
        takes; the background is 0 in each channel.
        """
        return one_hot(jnp.asarray(maps), len(self.classes), self.config["data"]["channels"])

    @property
    def reads_style(self) -> bool:
        """Whether it can `repaint`."""
        return self._repaint is not None

    def repaint(self, maps: np.ndarray, images: np.ndarray, *, batch_size: int = 8) -> np.ndarray:
        """Label maps [N, S, S] and the real slices [N, S, S, C] uint8 | uint16 behind them -> images as from
        a call, each in the style read off its slice: for measuring what a style leaves open.
        """
        assert self._repaint is not None
        with memory.told(batch_size, self.size, _SMALLER):
            seeds = image_seeds(0, len(maps))  # of no consequence
            return in_batches(self._repaint, self._variables, (maps, images), seeds, batch_size)

    def one_image(self, device: jax.Device) -> tuple[Any, tuple[Any, ...]]:
        """What makes one image on `device`, a jitted function, and its arguments, placed there.

        It does without what was prepared among the variables, too.
        """
        shape = (1, self.size, self.size) if self.takes_maps else (1,)
        maps = np.ones(shape, np.uint8)
        return self._predict, jax.device_put((self._of(1), maps, image_seeds(0, 1)), device)


def find(path: str | Path, step: int | str = "newest") -> checkpoint.Saved:
    """The checkpoint meant by a run's folder and a step ("newest", "best" or a number), or by a step's own.

    An exported model's folder holds one step, which is meant whatever is asked for.

    "best" has the highest SSIM on held-out patients. That favours a smooth image over a realistic one
    (BUILD_NOTES.md), so it is not what is taken unasked.
    """
    path = Path(path)
    if (path / checkpoint.MANIFEST).exists():
        return checkpoint.open_step(path)
    if folder.holds_export(path):
        return folder.open_folder(path)
    weights = [path] if path.is_file() else sorted(path.glob("*.safetensors"))
    if weights:
        raise PixmedError(
            f"{weights[0]}: is read together with the {folder.CONFIG} that it was exported with; give the "
            "folder that holds both"
        )
    directory = path if path.name == "checkpoints" else path / "checkpoints"
    if str(step).isdigit():
        known = [saved.step for saved in checkpoint.finished(directory)]
        if known and int(step) not in known and not (directory / str(step)).exists():
            names = ", ".join(map(str, known))
            raise PixmedError(f"{directory}: no finished step {step}; give {names}, newest or best as step")
        return checkpoint.open_step(directory / str(step))
    if step not in ("newest", "best"):
        raise OptionError(f"step={step!r}: give newest, best or a number")
    saved = checkpoint.best(directory) if step == "best" else checkpoint.newest_intact(directory)
    if saved is None:
        raise PixmedError(
            f"{path}: no finished and intact checkpoint there, nor an exported model; train first, or give "
            "another folder"
        )
    return saved


def load(path: str | Path, step: int | str = "newest") -> Generator:
    """The generator of a run's folder at a step ("newest", "best" or a number), of a step's own folder, or
    of an exported one.
    """
    return Generator(find(path, step))


def load_network(path: str | Path, step: int | str = "newest") -> Network:
    """The classifier or segmenter of a run's folder at a step, of a step's own folder, or of an exported
    one.
    """
    return Network(find(path, step))


def load_restorer(path: str | Path, step: int | str = "newest") -> Restorer:
    """The network of a run that restores images, of a step's own folder, or of an exported one."""
    return Restorer(find(path, step))
