"""Several devices as one: a mesh of all of them with the single axis "data".

A jitted step whose batch is sharded over that axis and whose state is replicated computes exactly what one
device would, batch statistics included; the compiler adds the communication.
"""

from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

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


def like(tree: Any, sharding: NamedSharding) -> Any:
    """The tree's shapes and types, all with one sharding: a target for restoring a checkpoint."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree)
