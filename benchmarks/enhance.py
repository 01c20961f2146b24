"""How long LIME takes for one picture: python benchmarks/enhance.py [--rounds 10 --json F].

A synthetic dark scene in colours at several sizes, after warm-up, the methods taking turns, beside what binds
them: the exact solver's Fourier transforms alone (there and back for each of its 51 maps), and the bytes that
the fast one's steps move on its finest grid (eleven arrays a step, twice thirty steps) at the speed at which
this machine copies so many, from cache where they fit. The last line is the seconds of the fast solver at
512 x 512 over 0.1.
"""

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import measure
import numpy as np

from pixmed_jax.data.degrade import darkened
from pixmed_jax.enhancement import baselines, lime

SIZES = (128, 256, 512, 1024)
GOAL = 0.1  # seconds of 512 x 512
_MAPS, _STEPS, _ARRAYS = 51, 60, 11  # of the exact solver; of the fast one, and what a step reads and writes


def scene(size: int) -> np.ndarray:
    """Blocks, slopes and texture in colours, darkened; [size, size, 3]."""
    y, x = np.mgrid[:size, :size] / size
    blocks = 0.4 + 0.4 * ((8 * x).astype(int) + (6 * y).astype(int) & 1)
    channels = [
        blocks * (0.5 + 0.5 * x),
        blocks * (0.6 + 0.4 * y),
        blocks * (0.8 + 0.1 * np.sin(300 * x * y)),
    ]
    image = jnp.asarray(np.stack(channels, -1), jnp.float32)
    return np.asarray(darkened(image, jax.random.key(0))[0])


def transforms(light: jax.Array) -> jax.Array:
    """The exact solver's Fourier transforms, and nothing else."""

    def there_and_back(x: jax.Array, _: None) -> tuple[jax.Array, None]:
        return jnp.fft.irfft2(jnp.fft.rfft2(x), s=x.shape), None

    return jax.lax.scan(there_and_back, light, length=_MAPS)[0]


def calls(size: int) -> dict[str, Callable[[], Any]]:
    picture = jnp.asarray(scene(size))
    light, host = lime.initial_map(picture), np.asarray(picture)
    only_transforms = jax.jit(transforms)
    return {
        "lime, fast": lambda: jax.block_until_ready(lime.enhance(picture)),
        "lime, exact": lambda: jax.block_until_ready(lime.enhance(picture, solver="exact")),
        "its transforms": lambda: jax.block_until_ready(only_transforms(light)),
        "gamma": lambda: baselines.gamma().run(host),
        "clahe": lambda: baselines.clahe().run(host),
    }


def main() -> None:
    given = measure.arguments(__doc__, rounds=10)
    print(measure.machine())
    medians: dict[str, dict[str, float]] = {}
    for size in SIZES:
        sides = calls(size)
        copy, moved = measure.copy_call(_ARRAYS // 2 * size**2)
        sides["copying its arrays once"] = copy
        for call in sides.values():
            call()
        seconds: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(given.rounds):
            for name, call in sides.items():
                started = time.perf_counter()
                call()
                seconds[name].append(time.perf_counter() - started)
        speed = moved / float(np.median(seconds["copying its arrays once"]))
        floor = 4 * _ARRAYS * _STEPS * size**2 / speed
        print(
            f"\n{size} x {size}; at {speed / 1e9:.0f} GB/s the fast solver's bytes take {1e3 * floor:.1f} ms"
        )
        print(measure.table({name: np.array(values) for name, values in seconds.items()}))
        medians[str(size)] = {name: float(np.median(values)) for name, values in seconds.items()}
    measure.write_json(given.json, medians)
    print(f"\n{medians['512']['lime, fast'] / GOAL:.3f}")


if __name__ == "__main__":
    main()
