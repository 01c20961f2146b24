"""What a slice costs to sample: python benchmarks/sampling.py [--rounds 20 --json F].

The project's own generator, the paper's and pix2pix, one image at a time and eight together, by the jitted
prediction of `pixmed_jax.load`: kernels are prepared where an image comes alone. Random weights, which do not
matter to time. The last line is the ratio of one image of 256x256, GhostSPADE's seconds over the paper's.
"""

import jax
import measure
import numpy as np

from pixmed_jax import inference
from pixmed_jax.models.count import parameter_count
from pixmed_jax.training.build import make_task
from pixmed_jax.training.task import jit_init

# The config, the size and the images that are made together.
CASES = [
    *((system, 256, count) for system in ("ghost_spade:large", "ghost:paper") for count in (1, 8)),
    ("ghost_spade:quick", 128, 8),
    ("pix2pix:quick", 128, 8),
    ("ghost_spade:quick", 64, 8),
    ("ghost:quick", 64, 8),
]
ANATOMY = 7  # classes of a map that shows tissues


def name(system: str, size: int, count: int) -> str:
    return f"{system}, {size}x{size}, {count}"


ONE_OF_OURS, ONE_OF_THE_PAPERS = (name(system, 256, 1) for system in ("ghost_spade:large", "ghost:paper"))


def serve(system: str, size: int, count: int) -> None:
    config = measure.preset(system)
    config["data"]["size"], config["train"]["dtype"] = size, "float32"
    classes = 1 if config["data"]["condition"] == "tumor" else ANATOMY
    task, batch = make_task(config, classes=classes), inference.example_batch(config, classes, count)
    variables = jit_init(task.init)(jax.random.PRNGKey(0), batch).ema
    parameters = parameter_count(variables["params"])
    if count == 1 and measure.on_cpu():
        variables = inference.with_prepared(task, variables, batch.condition)
    keys = jax.random.split(jax.random.key(0), count)
    run = jax.jit(task.predict).lower(variables, batch.condition, keys).compile()
    measure.serve(
        lambda: run(variables, batch.condition, keys).block_until_ready(),
        parameters=parameters,
        temporaries=run.memory_analysis().temp_size_in_bytes,
    )


def main() -> None:
    options = measure.arguments(__doc__, rounds=20)
    cases = {name(*case): case for case in CASES}
    if side := measure.contender():
        serve(*cases[side])
        return
    seconds, about = measure.compare(list(cases), options.rounds)
    print(f"\n{measure.machine()}, float32")
    print(measure.table(seconds))
    medians = {case: float(np.median(values)) for case, values in seconds.items()}
    for case, (_, _, count) in cases.items():
        told = about[case]
        print(
            f"{case:32} {medians[case] * 1e3 / count:6.1f} ms an image, {told['parameters'] / 1e6:.2f} M "
            f"parameters, {told['temporaries'] / 1e6:.0f} MB of temporaries"
        )
    ratio = medians[ONE_OF_OURS] / medians[ONE_OF_THE_PAPERS]
    measure.write_json(options.json, {"ratio": ratio, "seconds": medians, "about": about})
    print(f"GhostSPADE's seconds over the paper's, one image of 256x256: {ratio:.3f}")


if __name__ == "__main__":
    main()
