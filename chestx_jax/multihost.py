"""Several processes that train or answer together, as the hosts of a slice do: which rows of a batch are local to each,
and collectives between them. With a single process these are the trivial cases."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils


def is_primary() -> bool:
    """Whether this process is the one that writes files and prints."""
    return jax.process_index() == 0


def barrier(name: str) -> None:
    """Barrier across processes: files that one wrote before it can be read by the others after it."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def local_row_indices(sharding: jax.sharding.Sharding, count: int) -> list[int]:
    """The rows of a batch of `count` on this process's devices, ascending: those that it passes to `sharding.put`."""
    rows: set[int] = set()
    index_by_device: Mapping[Any, Any] = sharding.devices_indices_map((count,))
    for device, index in index_by_device.items():
        if device.process_index == jax.process_index():
            rows.update(range(*index[0].indices(count)))
    return sorted(rows)


def local_rows(tree: Any) -> Any:
    """The rows of global arrays that are on this process's devices, ascending, as numpy arrays: the inverse of
    `sharding.put`. Other leaves are returned as they are."""

    def rows(x: Any) -> Any:
        if not isinstance(x, jax.Array):
            return x
        shards = {shard.index[0].start or 0 if x.ndim else 0: shard.data for shard in x.addressable_shards}
        arrays = [jax.device_get(shards[start]) for start in sorted(shards)]
        return np.concatenate(arrays) if x.ndim else arrays[0]

    return jax.tree.map(rows, tree)


def all_gather(tree: Any) -> Any:
    """Global arrays as numpy arrays of all rows, on every process."""
    return multihost_utils.process_allgather(tree, tiled=True) if jax.process_count() > 1 else jax.device_get(tree)


def all_max(numbers: Sequence[int]) -> tuple[int, ...]:
    """The elementwise maximum over all processes."""
    if jax.process_count() == 1:
        return tuple(numbers)
    gathered = multihost_utils.process_allgather(np.asarray(numbers, np.int32))
    return tuple(int(number) for number in gathered.max(axis=0))
