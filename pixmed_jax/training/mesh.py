"""Several devices as one, of one process or of many: a mesh of all of them with the single axis "data".

A jitted step whose batch is sharded over that axis and whose state is replicated computes exactly what one
device would, batch statistics included; the compiler adds the communication.
"""

from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec, Sharding

from pixmed_jax.errors import PixmedError


def make_mesh(batch_size: int) -> Mesh:
    devices = jax.device_count()
    if batch_size % devices:
        raise PixmedError(
            f"train.batch_size={batch_size} cannot be cut for {devices} devices; take a multiple of {devices}"
        )
    return jax.make_mesh((devices,), ("data",), axis_types=(AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())


def sharded(mesh: Mesh) -> NamedSharding:
    """Cut along the first axis."""
    return NamedSharding(mesh, PartitionSpec("data"))


def like(tree: Any, sharding: Sharding) -> Any:
    """The tree's shapes and types, all with one sharding: a target for restoring a checkpoint."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree)


def local_part(mesh: Mesh, count: int) -> slice:
    """Which of `count` rows of a sharded array are this process's; the mesh orders devices by process."""
    here = [i for i, device in enumerate(mesh.devices.flat) if device.process_index == jax.process_index()]
    each = count // mesh.devices.size
    return slice(here[0] * each, (here[-1] + 1) * each)


def shard(x: np.ndarray, mesh: Mesh) -> jax.Array:
    """An array that every process has, cut along its first axis."""
    return jax.make_array_from_callback(x.shape, sharded(mesh), lambda index: x[index])


def shard_local(x: np.ndarray, mesh: Mesh, count: int) -> jax.Array:
    """A sharded array with `count` rows, of which each process brings its `local_part`."""
    return jax.make_array_from_process_local_data(sharded(mesh), x, (count, *x.shape[1:]))


def agree(value: int) -> int:
    """The largest `value` of all processes, which must all ask."""
    if jax.process_count() == 1:
        return value
    return int(multihost_utils.process_allgather(np.int32(value)).max())


def wait(name: str) -> None:
    """Until all processes have come here."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def is_first() -> bool:
    """True in the one process that writes files and tells how it goes."""
    return jax.process_index() == 0
