"""One image against PyTorch, ONNX Runtime, OpenVINO: python benchmarks/inference.py [--rounds 30 --json F].

The paper's generator at batch 1 with the same weights everywhere, its dropout off so that outputs can be
compared; they must agree before anything counts. The last line is the ratio of seconds, ours over the
fastest peer: below 1 is ahead.
"""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import measure
import numpy as np
import peers
import torch
from train_step import nchw, paper

from pixmed_jax import inference
from pixmed_jax.training.build import make_task, networks
from pixmed_jax.training.task import jit_init

TORCH = {"torch NCHW": (False, False), "torch channels_last": (True, False), "torch compiled": (True, True)}
TOLERANCE = 1e-4


def ours(config: dict[str, Any]) -> tuple[Callable[[np.ndarray], np.ndarray], Any, np.ndarray]:
    """(condition -> image, the weights, a condition), NHWC; kernels prepared as by inference.Generator."""
    generator, _ = networks(config)
    task, batch = make_task(config), inference.example_batch(config, 1)
    variables = jit_init(task.init)(jax.random.PRNGKey(0), batch).generator
    prepared = inference.with_prepared(task, variables, batch.condition)
    size = config["data"]["size"]
    condition = np.zeros(batch.condition.shape, np.float32)
    condition[:, size // 3 : size // 2, size // 3 : size // 2] = 1
    run = jax.jit(lambda v, c: generator.apply(v, c, train=False, noise=False))
    return lambda x: np.asarray(run(prepared, x)), variables, condition


def torch_generator(config: dict[str, Any], variables: Any) -> peers.UNet:
    channels = config["data"]["channels"]
    settings = {k: config["model"]["generator"][k] for k in ("width", "levels", "ghost_levels", "norm")}
    generator = peers.UNet(channels, channels, **settings, dropout=0.0).eval()
    peers.load(generator, variables)
    return generator


def peer(name: str, generator: peers.UNet, condition: np.ndarray) -> Callable[[], np.ndarray]:
    """A call that returns the image, NCHW."""
    x = nchw(condition)
    if name in TORCH:
        channels_last, compiled = TORCH[name]
        if channels_last:
            generator, x = (
                generator.to(memory_format=torch.channels_last),
                x.to(memory_format=torch.channels_last),
            )
        run = torch.compile(generator) if compiled else generator

        def call() -> np.ndarray:
            with torch.inference_mode():
                return run(x).numpy()

        return call
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "generator.onnx"
        torch.onnx.export(generator, (x,), path, dynamo=True, verbose=False)
        if name == "ONNX Runtime":
            import onnxruntime

            session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
            feed = {session.get_inputs()[0].name: x.numpy()}
            return lambda: session.run(None, feed)[0]
        import openvino

        # Asked for float32, since its default is bfloat16 where a CPU has it.
        model = openvino.compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda: model(x.numpy())[0]


def main() -> None:
    options = measure.arguments(__doc__, size=256, rounds=30)
    config = paper(options.size, 1, "float32")
    side = measure.contender()
    if side in ("gemm", "copy"):
        measure.limits()
        return
    run, variables, condition = ours(config)
    if side == "ours":
        measure.serve(lambda: run(condition), image=run(condition).transpose(0, 3, 1, 2).tolist())
    elif side:
        call = peer(side, torch_generator(config, jax.device_get(variables)), condition)
        measure.serve(call, image=call().tolist())
    else:
        against_peers(config, options)


def against_peers(config: dict[str, Any], options: argparse.Namespace) -> None:
    names = [*TORCH, "ONNX Runtime", "OpenVINO"]
    seconds, about = measure.compare(["ours", *names, "gemm"], options.rounds)
    image = np.array(about["ours"]["image"])
    for name in names:
        apart = np.abs(np.array(about[name]["image"]) - image).max()
        assert apart < TOLERANCE, f"{name} is {apart} away"
    medians = {name: float(np.median(values)) for name, values in seconds.items()}
    gemm_rate = about["gemm"]["amount"] / medians.pop("gemm")
    from pixmed_jax.training.dry_run import network_sizes

    rate = 2 * network_sizes(config, 1)["generator"].macs / medians["ours"]
    best = min(names, key=medians.__getitem__)
    ratio = medians["ours"] / medians[best]
    print(f"\n{measure.machine()}, torch {torch.__version__}")
    print(f"paper's generator, {options.size}x{options.size}, batch 1, float32, outputs within {TOLERANCE}")
    print(measure.table({name: seconds[name] for name in medians}))
    print(f"GEMM {gemm_rate / 1e9:.0f} GFLOP/s; ours {rate / 1e9:.0f}, {rate / gemm_rate:.0%} of it")
    measure.write_json(
        options.json,
        {
            "ratio": ratio, "ours": medians["ours"], "peers": {n: medians[n] for n in names},
            "limit_share": rate / gemm_rate, "machine": measure.machine(),
        },
    )  # fmt: skip
    print(f"ratio to {best} (seconds, below 1 is ahead): {ratio:.3f}")


if __name__ == "__main__":
    main()
