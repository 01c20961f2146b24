"""What enlarging costs, by size; and drawing small and enlarging against drawing large.

    python benchmarks/upscale.py [--rounds 15 --json F]

First the time of one x2 enlargement of N x N pixels, as --mode=upscale does it (arrays in, arrays out, in
tiles). Then one slice of 2N x 2N pixels by a generator of that size, and by one of N x N and the residual
network behind it; generators are those of configs/ghost.py with one level more for twice the size. Weights
are random, which no time depends on.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import measure
import numpy as np

from pixmed_jax import inference
from pixmed_jax.allocator import keep_freed_memory
from pixmed_jax.enhancement.interpolation import METHODS
from pixmed_jax.enhancement.tiles import tiled
from pixmed_jax.enhancement.upscaler import upscaler
from pixmed_jax.training.build import make_task, restorer
from pixmed_jax.training.task import jit_init

SIDES = (64, 128, 256, 512, 1024)
GENERATED = (64, 128)  # before x2


def network(words: str) -> Callable[[np.ndarray], np.ndarray]:
    """[H, W, 1] -> [2H, 2W, 1] by a preset of configs/super_resolution.py with random weights."""
    module = restorer(measure.preset(f"super_resolution:{words}"))
    variables = jax.jit(partial(module.init, train=True))(jax.random.key(0), jnp.zeros((1, 8, 8, 1)))
    run = jax.jit(lambda x: module.apply(variables, x, train=False))
    return partial(tiled, lambda part: np.asarray(run(part)), scale=2, reach=module.reach)


def generator(side: int) -> Callable[[], np.ndarray]:
    """One slice of side x side pixels by the ghost generator of that size."""
    config = measure.preset("ghost")
    config["data"]["size"] = side
    config["model"]["generator"]["levels"] = side.bit_length() - 1
    task, classes = make_task(config), 7
    batch = inference.example_batch(config, classes)
    variables = jit_init(task.init)(jax.random.PRNGKey(0), batch).ema
    run = jax.jit(lambda condition, keys: task.predict(variables, condition, keys))
    return lambda: np.asarray(run(batch.condition, jax.random.split(jax.random.key(0), 1)))[0]


def seconds(call: Callable[[], Any], rounds: int) -> np.ndarray:
    call()
    found = []
    for _ in range(rounds):
        began = time.perf_counter()
        call()
        found.append(time.perf_counter() - began)
    return np.array(found)


def main() -> None:
    keep_freed_memory()  # as launch.py does
    options = measure.arguments(__doc__, rounds=15)
    print(measure.machine())
    ways: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        name: upscaler(name, 2, stage="scale").run for name in METHODS
    }
    ways |= {"SRCNN": network("srcnn"), "residual network": network("quick")}
    numbers: dict[str, Any] = {"enlarge": {}, "generate": {}}
    for side in SIDES:
        image = np.random.default_rng(0).uniform(size=(side, side, 1)).astype(np.float32)
        rounds = options.rounds if side < 512 else max(3, options.rounds // 4)
        found = {name: seconds(partial(run, image), rounds) for name, run in ways.items()}
        print(f"\nx2 of {side}x{side}\n{measure.table(found)}")
        numbers["enlarge"][side] = {name: of.tolist() for name, of in found.items()}
    for side in GENERATED:
        small, enlarge = generator(side), ways["residual network"]
        both = lambda small=small, enlarge=enlarge: enlarge(small())  # noqa: E731
        found = {
            f"{side} and x2": seconds(both, options.rounds),
            f"{2 * side}": seconds(generator(2 * side), options.rounds),
        }
        print(f"\na slice of {2 * side}x{2 * side}\n{measure.table(found)}")
        numbers["generate"][2 * side] = {name: of.tolist() for name, of in found.items()}
    measure.write_json(options.json, numbers)


if __name__ == "__main__":
    main()
