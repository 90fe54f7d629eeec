"""The mesh and the rules that map logical axes onto it: the only file that names mesh axes.

Parameters and activations carry logical axis names; `partition_spec` turns them into a `PartitionSpec` for a mesh,
leaving an axis unsharded where its size does not divide (2 key/value heads on a tensor axis of 4 are replicated).
"""

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from chestx_jax.config import bounded
from chestx_jax.errors import UserError

AXES = ("data", "fsdp", "tensor")
ROLLOUT_AXES = ("data", "fsdp", "fsdp_as_tensor", "tensor")  # of `rollout_mesh`
RULES: dict[str, tuple[str, ...]] = {
    "batch": ("data", "fsdp"),
    "embed": ("fsdp",),
    "vocab": ("tensor", "fsdp_as_tensor"),
    "heads": ("tensor", "fsdp_as_tensor"),
    "kv_heads": ("tensor", "fsdp_as_tensor"),
    "mlp": ("tensor", "fsdp_as_tensor"),
}  # logical axis → mesh axes; a logical axis that is not listed is replicated
HOST_MEMORY = "pinned_host"  # JAX's name for the host memory that devices read and write directly


@dataclass(frozen=True)
class MeshConfig:
    """Devices per mesh axis; one axis may be -1, the rest of the devices."""

    data: int = bounded(-1, min=-1)
    fsdp: int = bounded(1, min=-1)
    tensor: int = bounded(1, min=-1)


def make_mesh(config: MeshConfig, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """The device mesh of a configuration, of all devices unless `devices` are given.

    Raises UserError where the axes do not multiply to the number of devices.
    """
    devices = list(jax.devices() if devices is None else devices)
    sizes = [config.data, config.fsdp, config.tensor]
    known = math.prod(size for size in sizes if size != -1)
    if sizes.count(-1) > 1 or known <= 0 or any(size < 1 and size != -1 for size in sizes):
        raise UserError(f"mesh: {config} needs positive sizes with at most one -1 (the rest of the devices)")
    sizes = [len(devices) // known if size == -1 else size for size in sizes]
    if math.prod(sizes) != len(devices):
        raise UserError(
            f"mesh: data × fsdp × tensor = {' × '.join(map(str, sizes))} does not make {len(devices)} devices; "
            "change one axis or set it to -1"
        )
    return Mesh(np.asarray(devices).reshape(sizes), AXES, axis_types=(AxisType.Auto,) * len(AXES))


def rollout_mesh(mesh: Mesh, tensor: int) -> Mesh:
    """The same devices in the same order as groups of `tensor` devices that hold a full copy of the weights between
    them, as sampling wants it: a factor of the fsdp axis becomes tensor parallelism. Each device's part of the weights
    is a part of its group's tensor shard, so that no device needs more than the tensor shard that it gathers anyway.

    Raises UserError where the devices do not make such groups.
    """
    data, fsdp, own_tensor = (mesh.shape[axis] for axis in AXES)
    from_fsdp, rest = divmod(tensor, own_tensor)
    if rest or from_fsdp == 0 or fsdp % from_fsdp:
        choices = [own_tensor * size for size in range(1, fsdp + 1) if fsdp % size == 0]
        raise UserError(
            f"rollout_tensor={tensor} does not group fsdp={fsdp} × tensor={own_tensor} devices: choose {choices}"
        )
    devices = mesh.devices.reshape(data, fsdp // from_fsdp, from_fsdp, own_tensor)
    return Mesh(devices, ROLLOUT_AXES, axis_types=(AxisType.Auto,) * len(ROLLOUT_AXES))


def partition_spec(axes: Sequence[str | None], shape: Sequence[int], mesh) -> PartitionSpec:
    """The partition of an array of `shape` whose dimensions have the logical names `axes` (None: replicated)."""
    taken: set[str] = set()
    partitions = []
    for name, size in zip(axes, shape, strict=True):
        wanted = tuple(axis for axis in RULES.get(name or "", ()) if mesh.shape.get(axis, 1) > 1)
        if taken.intersection(wanted):
            raise ValueError(f"logical axes {tuple(axes)} ask for mesh axis {wanted} twice")
        divides = wanted and size % math.prod(mesh.shape[axis] for axis in wanted) == 0
        partitions.append(wanted if divides else None)
        taken.update(wanted if divides else ())
    return PartitionSpec(*partitions)


def named_sharding(mesh: Mesh, axes: Sequence[str | None], shape: Sequence[int]) -> NamedSharding:
    """`partition_spec` bound to its mesh."""
    return NamedSharding(mesh, partition_spec(axes, shape, mesh))


def batch_shardings(mesh: Mesh, tree):
    """Shardings that split the leading dimension of every leaf of `tree` (arrays or shapes) over the batch axes."""
    return jax.tree.map(lambda leaf: named_sharding(mesh, ("batch",) + (None,) * (leaf.ndim - 1), leaf.shape), tree)


def replicated(mesh: Mesh) -> NamedSharding:
    """A full copy on every device; it may stand for a whole tree of shardings."""
    return NamedSharding(mesh, PartitionSpec())


def in_host_memory(shardings):
    """The same shardings in the host's pinned memory, which the devices read and write directly.

    Raises UserError where these devices have no such memory.
    """
    try:
        return jax.tree.map(lambda sharding: sharding.with_memory_kind(HOST_MEMORY), shardings)
    except ValueError as error:
        raise UserError(
            f"the devices of this machine have no {HOST_MEMORY} memory ({error}): set every config field `offload` "
            "to False"
        ) from error


def to_device_memory(tree):
    """Inside a program: arrays that may be in the host's memory, moved to the devices; the others as they are."""
    return jax.device_put(tree, jax.memory.Space.Device)


@contextlib.contextmanager
def use_mesh(mesh: Mesh) -> Iterator[None]:
    """While a program is traced: the mesh that `constrain`, `shard_count` and `shard_map` refer to."""
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
        yield


def constrain(x: jax.Array, *axes: str | None) -> jax.Array:
    """Fixes the layout of an activation by logical axes; without `use_mesh` it does nothing."""
    mesh = jax.sharding.get_abstract_mesh()
    return x if mesh.empty else jax.lax.with_sharding_constraint(x, partition_spec(axes, x.shape, mesh))


def split_interleaved(x: jax.Array, parts: int, group: int = 1) -> jax.Array:
    """The rows of `x` [B, …] as parts [P, B / P, …]: part i takes every P-th group of `group` consecutive rows from the
    i-th group on, so that every device holds an equal share of each part."""
    x = jnp.swapaxes(x.reshape(-1, parts, group, *x.shape[1:]), 0, 1)
    x = x.reshape(parts, -1, *x.shape[3:])
    return constrain(x, None, "batch", *(None,) * (x.ndim - 2))


def merge_interleaved(x: jax.Array, group: int = 1) -> jax.Array:
    """The inverse of `split_interleaved`: parts [P, B / P, …] → rows [B, …] in their original order."""
    x = jnp.swapaxes(x.reshape(x.shape[0], -1, group, *x.shape[2:]), 0, 1)
    x = x.reshape(-1, *x.shape[3:])
    return constrain(x, "batch", *(None,) * (x.ndim - 1))


def batch_share(mesh: Mesh, count: int) -> int:
    """How many consecutive rows of a batch of `count` a device holds."""
    return named_sharding(mesh, ("batch",), (count,)).shard_shape((count,))[0]


def shard_count(name: str, size: int) -> int:
    """Number of shards of a dimension of `size` with the logical name `name`; 1 without `use_mesh`."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or partition_spec((name,), (size,), mesh)[0] is None:
        return 1
    return math.prod(mesh.shape.get(axis, 1) for axis in RULES[name])


def shard_map(function: Callable, axes: Sequence[tuple[str | None, ...]], *arrays: jax.Array) -> jax.Array:
    """`function` run on each device's shards of `arrays`, whose dimensions have the logical names `axes`; its result is
    split as the first array. For what the compiler cannot partition by itself (Pallas kernels)."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return function(*arrays)
    specs = tuple(partition_spec(names, x.shape, mesh) for names, x in zip(axes, arrays, strict=True))
    return jax.shard_map(function, mesh=mesh, in_specs=specs, out_specs=specs[0], check_vma=False)(*arrays)


def put(tree, shardings):
    """Host arrays of this process's rows of the batch as global device arrays (of one process: the whole arrays).
    `shardings` is a tree like `tree` or a prefix of it.

    An explicit transfer, allowed under a transfer guard that disallows implicit ones.
    """
    with jax.transfer_guard_host_to_device("allow"):
        return jax.tree.map(
            lambda x, sharding: jax.make_array_from_process_local_data(sharding, np.asarray(x)),
            tree,
            jax.tree.broadcast(shardings, tree),
        )


def put_global(tree, shardings):
    """Host arrays that every process holds whole as global device arrays; otherwise as `put`."""
    with jax.transfer_guard_host_to_device("allow"):
        return jax.tree.map(
            lambda x, sharding: jax.make_array_from_callback(x.shape, sharding, lambda index: np.asarray(x)[index]),
            tree,
            jax.tree.broadcast(shardings, tree),
        )


def take_rows(x: jax.Array, rows_N: jax.Array, axes: tuple[str | None, ...] | None = None, group: int = 1) -> jax.Array:
    """Rows of each device's own part of `x`, whose dimensions have the logical names `axes` (None: "batch" and no
    others): shard d of the result holds the rows of shard d of `x` that shard d of `rows_N` names, counted from its
    first or, where each is in its own shard (`batch_share`), from that of the whole array. With `group`, that many
    consecutive rows for each one named."""

    def take(x, rows):
        groups = x.reshape(-1, group, *x.shape[1:])
        return groups[rows % groups.shape[0]].reshape(-1, *x.shape[1:])

    return shard_map(take, [axes or ("batch", *(None,) * (x.ndim - 1)), ("batch",)], x, rows_N)


def put_rows(x: jax.Array, new: jax.Array, rows_N: jax.Array, axes: tuple[str | None, ...]) -> jax.Array:
    """`x` with `new` in place of rows of each device's own part, named as for `take_rows`; a row that is not there is
    left out."""
    put = lambda x, new, rows: x.at[rows].set(new, mode="drop")  # noqa: E731
    return shard_map(put, (axes, axes, ("batch",)), x, new, rows_N)
