"""What a training step moves through a GPU's memory: python benchmarks/traffic.py [--config ghost:paper].

Needs no GPU: the step of a preset is compiled for an H200 that is not there, and the bytes of each of its
kernels are read off the program (hlo.py says how far). Needs `pip install -e ".[cuda13]"` or ".[cuda12]".
Kernels are summed by kind, and by the layer that they belong to; `--hlo F` keeps the program. What is tuned
by timing, such as how a convolution is computed, is not what a real card would choose, and optimisers stand
in a branch (of steps that are not finite) and are left out. The last line is what is moved outside of
convolutions: what fusion, and so our code, decides.
"""

import os
import re
from collections import Counter
from pathlib import Path

os.environ.update(JAX_PLATFORMS="cpu", CUDA_VISIBLE_DEVICES="")

import hlo
import jax
import measure
import numpy as np
import step
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh

COPIES = 4.1e12  # bytes/s, measured (BENCHMARKS.md)

# As such a card tells of itself; a compiler needs no more of it.
H200 = """
gpu_device_info {
  threads_per_block_limit: 1024
  threads_per_warp: 32
  shared_memory_per_block: 49152
  shared_memory_per_core: 233472
  threads_per_core_limit: 2048
  core_count: 132
  fpus_per_core: 128
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  memory_bandwidth: 4800000000000
  l2_cache_size: 52428800
  clock_rate_ghz: 1.98
  device_memory_size: 150000000000
  shared_memory_per_block_optin: 232448
  cuda_compute_capability { major: 9 }
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 12 }
runtime_version { major: 13 minor: 0 patch: 0 }
device_description_str: "NVIDIA H200"
"""


def kind(kernel: hlo.Kernel) -> str:
    operation = kernel.operation
    if operation.convolution:
        return "convolutions"
    return "products" if "gemm" in kernel.name or "gemm" in operation.target else "all else"


def layer(kernel: hlo.Kernel) -> str:
    """Where in our code: the network's name, the layer's in it, and whether it is a gradient's."""
    place = kernel.operation.place
    found = re.search(r"(transpose\()?jvp\((\w*)[\w.]*\)+/(.*)", place)
    if not found:
        return "all else"
    back, network, rest = found.groups()
    name = "/".join(part for part in rest.split("/")[:2] if "(" not in part and part != "cond")
    return f"{network or 'loss'} {name}{', gradient' if back else ''}"


def main() -> None:
    options = measure.arguments(
        __doc__, config="ghost:paper", size=0, batch=64, dtype="bfloat16", top=24, hlo=""
    )
    config = step.changed(measure.preset(options.config), vars(options))
    topology = topologies.get_topology_desc(platform="cuda", target_config=H200, topology="1x1x1")
    mesh = Mesh(np.array(topology.devices[:1]), ("data",), axis_types=(AxisType.Auto,))
    with measure.told("compiling the step"):
        compiled = step.of(config, mesh).lowered.compile()
    text = compiled.as_text()
    if options.hlo:
        Path(options.hlo).write_text(text)
    counts: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    layers: Counter[str] = Counter()
    for kernel in hlo.kernels(text):
        moved, what = kernel.read + kernel.written, kind(kernel)
        counts[what] += 1
        kinds[what] += moved
        if what != "convolutions":
            layers[layer(kernel)] += moved

    print(
        f"{options.config}, {config['data']['size']}x{config['data']['size']}, batch {options.batch}, "
        f"{options.dtype}, for {topology.devices[0].device_kind}; jax {jax.__version__}; GB"
    )
    for name, moved in kinds.most_common():
        print(f"{moved / 1e9:8.2f}  {name}, {counts[name]} kernels")
    print("of these, without convolutions:")
    for name, moved in layers.most_common(options.top):
        print(f"{moved / 1e9:8.3f}  {name}")
    memory = compiled.memory_analysis()
    temporaries, arguments = memory.temp_size_in_bytes / 1e9, memory.argument_size_in_bytes / 1e9
    print(f"in memory: temporaries {temporaries:.2f}, arguments {arguments:.2f}")
    rest = sum(moved for name, moved in kinds.items() if name != "convolutions")
    measure.write_json(
        options.json, {"ratio": rest / 1e9, "kinds": kinds, "kernels": counts, "layers": layers}
    )
    print(f"{rest / 1e9:.2f} GB outside of convolutions, at least {rest / COPIES * 1e3:.1f} ms")


if __name__ == "__main__":
    main()
