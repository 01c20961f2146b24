"""How batches reach the devices; which slices a batch holds is a function of (seed, step) alone.

Data that fit into `resident` bytes are read once and live on every device; a step is given nothing but row
numbers. Larger data stay where they are: each process decodes the slices of its own devices, some batches
ahead of the step, so memory does not grow with the dataset. Both ways give the same batches, bit for bit.
"""

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor

import jax
import numpy as np
from jax.sharding import Mesh

from pixmed_jax.data.pipeline import Arrays, batch_rows
from pixmed_jax.data.sources import Dataset
from pixmed_jax.training import mesh as meshes

_LOOKED_AT = 16  # slices that are read to know what the dataset is like
_AHEAD = 3  # batches that are being decoded while the step runs


class Feed:
    """`feed(step)` -> (arrays, rows): the arguments of the jitted step that follows `step` steps.

    Resident: all slices, replicated, and the batch's rows, sharded. Streamed: the batch's slices, sharded,
    and None. `grey` says that the images have one channel, `limits` the values in the files' units that 0 and
    1 stand for: the median of the slices, or of a few of them where they are streamed.
    """

    def __init__(self, dataset: Dataset, mesh: Mesh, *, seed: int, batch_size: int, resident: float):
        self._dataset, self._mesh = dataset, mesh
        self._seed, self._batch_size = seed, batch_size
        self._train = dataset.rows["train"]
        some = self._train[:: -(-len(self._train) // _LOOKED_AT)]
        arrays, slices = dataset.load(some, dataset.load_size)
        size = len(self._train) / len(some) * sum(np.asarray(x).nbytes for x in arrays)
        self.streamed = size > resident
        if self.streamed:
            if meshes.is_first():
                print(
                    f"{size / 2**30:.1f} GiB of training slices exceed "
                    f"train.resident_gb={resident / 2**30:g}: each batch is decoded when it is needed",
                    flush=True,
                )
            self._pool = ThreadPoolExecutor(_AHEAD)
            self._pending: deque[tuple[int, Future[Arrays]]] = deque()
        else:
            arrays, slices = dataset.load(self._train, dataset.load_size)
            self._arrays = jax.device_put(arrays, meshes.replicated(mesh))
        self.grey = arrays.images.shape[-1] == 1
        low, high = np.median(slices.limits, axis=0)
        self.limits = (float(low), float(high))

    def rows(self, step: int) -> np.ndarray:
        """Rows of the source in the batch that follows `step` steps."""
        return self._train[self._order(step)]

    def _order(self, step: int) -> np.ndarray:
        return batch_rows(self._seed, step, self._batch_size, len(self._train))

    def __call__(self, step: int) -> tuple[Arrays, jax.Array | None]:
        if not self.streamed:
            return self._arrays, meshes.shard(self._order(step), self._mesh)
        if not self._pending or self._pending[0][0] != step:
            for _, future in self._pending:
                future.cancel()
            self._pending.clear()
        while len(self._pending) <= _AHEAD:
            ahead = step + len(self._pending)
            self._pending.append((ahead, self._pool.submit(self._read, ahead)))
        _, future = self._pending.popleft()
        share = future.result()
        return jax.tree.map(lambda x: meshes.shard_local(x, self._mesh, self._batch_size), share), None

    def _read(self, step: int) -> Arrays:
        """This process's share of a batch."""
        rows = self.rows(step)[meshes.local_part(self._mesh, self._batch_size)]
        unique, places = np.unique(rows, return_inverse=True)  # a batch may hold a slice twice
        arrays, _ = self._dataset.load(unique, self._dataset.load_size)
        return Arrays(*(np.asarray(x)[places] for x in arrays))

    def close(self) -> None:
        if self.streamed:
            self._pool.shutdown(cancel_futures=True)
