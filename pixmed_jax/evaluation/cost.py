"""What an image costs: the networks' sizes; time and memory, one image at a time, on each kind of device.

Times are wall-clock seconds from an input on the device to a prediction on the device, memory what XLA
reserves for the compiled computation: weights, input, output and temporaries.
"""

import time
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from pixmed_jax.inference import Generator, Network, Restorer, default_platform
from pixmed_jax.models import count
from pixmed_jax.training.dry_run import network_sizes

_WARM, _ROUNDS = 3, 30


def of(config: Mapping[str, Any], classes: int, model: Generator | Network | Restorer) -> dict[str, Any]:
    """The entry "cost" of evaluation.json: {"networks": {name: size}, "inference"}."""
    sizes = network_sizes(dict(config), classes)
    return {
        "networks": {name: size._asdict() for name, size in sizes.items()},
        "inference": of_inference(model),
    }


def of_inference(model: Generator | Network | Restorer) -> list[dict[str, Any]]:
    """One entry for each kind of device: {"device", "median", "low", "high", "n", "bytes"}.

    `low` and `high` are the 5th and the 95th percentile of the `n` times.
    """
    devices = {device.platform: device for device in (jax.devices()[0], jax.devices("cpu")[0])}
    return [_on(device, model) for device in devices.values()]


def _on(device: jax.Device, model: Generator | Network | Restorer) -> dict[str, Any]:
    elsewhere = device.platform != default_platform()
    with jax.default_device(device):
        if elsewhere:  # as whoever has that device alone would load it
            model = type(model)(model.saved)
        call, arguments = model.one_image(device)
    compiled = call.lower(*arguments).compile()
    times = []
    for _ in range(_WARM + _ROUNDS):
        started = time.perf_counter()
        compiled(*arguments).block_until_ready()
        times.append(time.perf_counter() - started)
    low, median, high = np.percentile(times[_WARM:], [5, 50, 95])
    return {
        "device": device.platform + f": {device.device_kind}" * (device.device_kind != device.platform),
        "median": float(median),
        "low": float(low),
        "high": float(high),
        "n": _ROUNDS,
        "bytes": count.reserved(compiled),
    }
