"""A painter for the tests of the demo: its generator answers at once with its label map, scaled to [0, 1].

python demo_models.py PORT LARGEST    serves it, with uploads of up to LARGEST
"""

import signal
import sys
import time
from typing import ClassVar

import numpy as np

from pixmed_jax.data.tissues import Survey
from pixmed_jax.demo import serve
from pixmed_jax.demo.painter import Painter
from pixmed_jax.demo.scene import Scene

SIDE = 32
CLASSES = ("meningioma", "glioma", "tissue_1", "tissue_2")


class Echo:
    """Stands for a generator."""

    size, grey, step, limits = SIDE, True, 7, (0.0, 255.0)
    config: ClassVar = {"name": "echo", "preset": "test", "data": {"condition": "anatomy"}}

    def __init__(self, classes: tuple[str, ...] = CLASSES, *, takes_maps: bool = True):
        self.classes, self.takes_maps = classes, takes_maps
        if not takes_maps:
            self.config = {"name": "echo", "preset": "test", "data": {"condition": "label"}}

    def __call__(self, maps, *, seed, batch_size):
        """Every image a little lighter than the one before, and all by the seed."""
        assert len(maps) == batch_size
        maps = maps if maps.ndim == 3 else np.broadcast_to(maps[:, None, None], (batch_size, SIDE, SIDE))
        lighter = 0.01 * np.arange(batch_size) + 0.005 * (seed % 10)
        return (maps / len(self.classes) * 0.8 + lighter[:, None, None]).astype(np.float32)[..., None]


def disc(row: float, column: float, radius: float) -> np.ndarray:
    y, x = np.mgrid[:SIDE, :SIDE]
    return np.hypot(y - row, x - column) <= radius


def scene(label: str = "glioma", at: tuple[float, float] = (13, 16)) -> Scene:
    """A round head with a brain of tissue_2 in it, a skull of tissue_1, and a tumour."""
    head, brain = disc(15.5, 15.5, 13), disc(15.5, 15.5, 11)
    anatomy = np.where(brain, 4, np.where(head, 3, 0)).astype(np.uint8)
    where = Survey(head, head & ~brain, brain, np.zeros(1, np.float32))
    return Scene("axial", anatomy, disc(*at, 3), label, where)


def bright(images: np.ndarray) -> np.ndarray:
    """Stands for a segmenter: what an Echo makes of tumours is dark, so dark but not black."""
    return (images > 0.1) & (images < 0.5)


def painter() -> Painter:
    return Painter(Echo(), [scene(), scene("meningioma", (18, 12))], bright)


def labels_only() -> Painter:
    return Painter(Echo(("meningioma", "glioma"), takes_maps=False), [], None)


if __name__ == "__main__":
    serve.LARGEST = sys.argv[2]
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background would ignore
    with serve.served(painter(), int(sys.argv[1])) as address:
        print(address, flush=True)
        time.sleep(600)
