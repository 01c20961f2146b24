"""What ghost modules save: python benchmarks/ghost.py [--batch 1 --rounds 20 --json F].

Latency of the paper's generator with ghost modules in levels 1 to 4, without, and in all encoder levels, next
to what their MACs promise. Random weights: they do not matter to time. "gain" is the plain generator's time
over the variant's; the last line is the paper's gain over the one its MACs promise.
"""

import jax
import measure
import numpy as np
from train_step import paper

from pixmed_jax import inference
from pixmed_jax.training.build import make_task, networks
from pixmed_jax.training.dry_run import network_sizes
from pixmed_jax.training.task import jit_init

LEVELS = {"plain": (), "ghost 1-4": (1, 2, 3, 4), "ghost 1-8": (1, 2, 3, 4, 5, 6, 7, 8)}


def main() -> None:
    options = measure.arguments(__doc__, size=256, batch=1, rounds=20)
    configs = {}
    for name, levels in LEVELS.items():
        configs[name] = paper(options.size, options.batch, "float32")
        configs[name]["model"]["generator"]["ghost_levels"] = levels
    side = measure.contender()
    if side:
        config = configs[side]
        generator, _ = networks(config)
        batch = inference.example_batch(config, 1, options.batch)
        variables = jit_init(make_task(config).init)(jax.random.PRNGKey(0), batch).generator
        run = jax.jit(lambda v, c: generator.apply(v, c, train=False, noise=False))
        measure.serve(lambda: run(variables, batch.condition).block_until_ready())
        return
    seconds, _ = measure.compare(list(LEVELS), options.rounds)
    medians = {name: float(np.median(values)) for name, values in seconds.items()}
    macs = {name: network_sizes(config, 1)["generator"].macs for name, config in configs.items()}
    print(f"\n{measure.machine()}; {options.size}x{options.size}, batch {options.batch}")
    print(measure.table(seconds))
    gains = {name: medians["plain"] / value for name, value in medians.items()}
    promised = {name: macs["plain"] / value for name, value in macs.items()}
    for name in LEVELS:
        print(
            f"{name:10} {macs[name] / 1e9:.2f} GMACs, gain {gains[name]:.2f}, promised {promised[name]:.2f}"
        )
    ratio = gains["ghost 1-4"] / promised["ghost 1-4"]
    measure.write_json(
        options.json, {"ratio": ratio, "gains": gains, "promised": promised, "seconds": medians}
    )
    print(f"gain over what the MACs promise (1 is all of it): {ratio:.3f}")


if __name__ == "__main__":
    main()
