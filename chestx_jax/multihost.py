"""Several processes that train or answer together, as the hosts of a slice do: who holds which rows of a batch, and how
they wait for each other. On a single process nothing here does anything."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils


def is_primary() -> bool:
    """Whether this process is the one that writes what is written once."""
    return jax.process_index() == 0


def barrier(where: str) -> None:
    """No process goes on before all have come here: what one wrote before is there for the others."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(where)


def local_row_indices(sharding: jax.sharding.Sharding, count: int) -> list[int]:
    """The rows of a batch of `count` that this process's devices hold, ascending: what `sharding.put` takes from it."""
    return list(_rows_by_process(sharding, count)[jax.process_index()])


def data_shard(sharding: jax.sharding.Sharding, count: int) -> tuple[int, int]:
    """Which part of the data this process reads, and of how many: processes whose devices hold the same rows of a batch
    of `count` (a tensor axis that spans them) read the same part."""
    rows = _rows_by_process(sharding, count)
    parts = sorted(set(rows.values()))
    return parts.index(rows[jax.process_index()]), len(parts)


def _rows_by_process(sharding: jax.sharding.Sharding, count: int) -> dict[int, tuple[int, ...]]:
    rows: dict[int, set[int]] = {}
    where: Mapping[Any, Any] = sharding.devices_indices_map((count,))
    for device, index in where.items():
        rows.setdefault(device.process_index, set()).update(range(*index[0].indices(count)))
    return {process: tuple(sorted(numbers)) for process, numbers in rows.items()}


def local_rows(tree: Any) -> Any:
    """Of global arrays, the rows that this process's devices hold, ascending, as numpy: `sharding.put` undone."""

    def rows(x: Any) -> Any:
        if not isinstance(x, jax.Array):
            return x
        pieces = {shard.index[0].start or 0 if x.ndim else 0: shard.data for shard in x.addressable_shards}
        whole = [jax.device_get(pieces[start]) for start in sorted(pieces)]
        return np.concatenate(whole) if x.ndim else whole[0]

    return jax.tree.map(rows, tree)


def all_gather(tree: Any) -> Any:
    """Global arrays as whole numpy arrays, on every process."""
    return multihost_utils.process_allgather(tree, tiled=True) if jax.process_count() > 1 else jax.device_get(tree)


def all_max(numbers: Sequence[int]) -> tuple[int, ...]:
    """The greatest of each number over all processes."""
    if jax.process_count() == 1:
        return tuple(numbers)
    found = multihost_utils.process_allgather(np.asarray(numbers, np.int32))
    return tuple(int(number) for number in found.max(axis=0))
