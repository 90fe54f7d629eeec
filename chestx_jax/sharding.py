"""The mesh and the rules that map logical axes onto it: the only file that names mesh axes.

Parameters and activations carry logical axis names; `spec` turns them into a `PartitionSpec` for a mesh, leaving an
axis unsharded where its size does not divide (2 key/value heads on a tensor axis of 4 are replicated, for instance).
"""

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from chestx_jax.errors import UserError

AXES = ("data", "fsdp", "tensor")
SHARED = ("data", "fsdp", "share", "tensor")  # of `regrouped` meshes: "share" is what sampling takes from fsdp
RULES: dict[str, tuple[str, ...]] = {
    "batch": ("data", "fsdp"),
    "embed": ("fsdp",),
    "vocab": ("tensor", "share"),
    "heads": ("tensor", "share"),
    "kv_heads": ("tensor", "share"),
    "mlp": ("tensor", "share"),
}  # a logical axis that is not listed is replicated
HOST = "pinned_host"  # jax's name for the host memory that devices reach


@dataclass(frozen=True)
class MeshConfig:
    """Devices per mesh axis; one axis may be -1, the rest of the devices."""

    data: int = -1
    fsdp: int = 1
    tensor: int = 1


def make_mesh(config: MeshConfig, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """The device mesh of a configuration.

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


def regrouped(mesh: Mesh, tensor: int) -> Mesh:
    """The same devices in the same order as groups of `tensor`, each with all of the weights: how sampling wants them.
    A chip's part in its group is a part of what it holds of the mesh's own tensor axis, so no chip ever needs more.

    Raises UserError where the devices do not make such groups.
    """
    data, fsdp, kept = (mesh.shape[axis] for axis in AXES)
    share, rest = divmod(tensor, kept)
    if rest or share == 0 or fsdp % share:
        choices = [kept * size for size in range(1, fsdp + 1) if fsdp % size == 0]
        raise UserError(f"rollout_tensor={tensor} does not group fsdp={fsdp} × tensor={kept} devices: choose {choices}")
    devices = mesh.devices.reshape(data, fsdp // share, share, kept)
    return Mesh(devices, SHARED, axis_types=(AxisType.Auto,) * len(SHARED))


def spec(axes: Sequence[str | None], shape: Sequence[int], mesh) -> PartitionSpec:
    """The partition of an array of `shape` whose dimensions have the logical names `axes` (None: replicated)."""
    taken: set[str] = set()
    parts = []
    for name, size in zip(axes, shape, strict=True):
        wanted = tuple(axis for axis in RULES.get(name or "", ()) if mesh.shape.get(axis, 1) > 1)
        if taken.intersection(wanted):
            raise ValueError(f"logical axes {tuple(axes)} ask for mesh axis {wanted} twice")
        fits = wanted and size % math.prod(mesh.shape[axis] for axis in wanted) == 0
        parts.append(wanted if fits else None)
        taken.update(wanted if fits else ())
    return PartitionSpec(*parts)


def named(mesh: Mesh, axes: Sequence[str | None], shape: Sequence[int]) -> NamedSharding:
    """`spec` bound to its mesh."""
    return NamedSharding(mesh, spec(axes, shape, mesh))


def batched(mesh: Mesh, tree):
    """Shardings that split the leading dimension of every leaf of `tree` (arrays or shapes) over the batch axes."""
    return jax.tree.map(lambda leaf: named(mesh, ("batch",) + (None,) * (leaf.ndim - 1), leaf.shape), tree)


def whole(mesh: Mesh) -> NamedSharding:
    """Every device holds all of it; alone in place of a tree of shardings, for every leaf."""
    return NamedSharding(mesh, PartitionSpec())


def on_host(tree):
    """Shardings of the same parts in the host's pinned memory, from which the devices read and write directly.

    Raises UserError where these devices have no such memory.
    """
    try:
        return jax.tree.map(lambda at: at.with_memory_kind(HOST), tree)
    except ValueError as error:
        raise UserError(
            f"the devices of this machine have no {HOST} memory ({error}): set every config field `offload` to False"
        ) from error


def on_devices(tree):
    """Inside a program: arrays that may lie in the host's memory, brought to the devices; the others as they are."""
    return jax.device_put(tree, jax.memory.Space.Device)


def replicated(mesh: Mesh, tree):
    """Shardings that keep every leaf of `tree` whole on every device."""
    return jax.tree.map(lambda leaf: whole(mesh), tree)


@contextlib.contextmanager
def on(mesh: Mesh) -> Iterator[None]:
    """While a program is traced: makes `constrain` mean this mesh."""
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
        yield


def constrain(x: jax.Array, *axes: str | None) -> jax.Array:
    """Fixes the layout of an activation by logical axes; outside of `on` it does nothing."""
    mesh = jax.sharding.get_abstract_mesh()
    return x if mesh.empty else jax.lax.with_sharding_constraint(x, spec(axes, x.shape, mesh))


def dealt(x: jax.Array, parts: int, group: int = 1) -> jax.Array:
    """The rows of `x` [B, …] as parts [P, B / P, …]. Rows that follow each other in a `group` stay together, and part
    i takes every P-th group from the i-th on, so that all devices have their share of each part."""
    x = jnp.swapaxes(x.reshape(-1, parts, group, *x.shape[1:]), 0, 1)
    x = x.reshape(parts, -1, *x.shape[3:])
    return constrain(x, None, "batch", *(None,) * (x.ndim - 2))


def collected(x: jax.Array, group: int = 1) -> jax.Array:
    """The rows [B, …] that `dealt` gave out as parts [P, B / P, …], in their first order."""
    x = jnp.swapaxes(x.reshape(x.shape[0], -1, group, *x.shape[2:]), 0, 1)
    x = x.reshape(-1, *x.shape[3:])
    return constrain(x, "batch", *(None,) * (x.ndim - 1))


def parts(name: str, size: int) -> int:
    """Into how many parts a dimension of `size` with the logical name `name` is split, inside of `on`; else 1."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or spec((name,), (size,), mesh)[0] is None:
        return 1
    return math.prod(mesh.shape.get(axis, 1) for axis in RULES[name])


def mapped(function: Callable, axes: Sequence[tuple[str | None, ...]], *arrays: jax.Array) -> jax.Array:
    """`function` run on each device's share of `arrays`, whose dimensions have the logical names `axes`; its result is
    split as the first array. For what the compiler cannot split by itself (Pallas kernels)."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return function(*arrays)
    specs = tuple(spec(names, x.shape, mesh) for names, x in zip(axes, arrays, strict=True))
    return jax.shard_map(function, mesh=mesh, in_specs=specs, out_specs=specs[0], check_vma=False)(*arrays)


def put(tree, shardings):
    """Host arrays of this process's share of the batch as global arrays (the whole array on a single process).

    The way onto the devices: allowed where the transfer guard forbids what happens unasked.
    """
    with jax.transfer_guard_host_to_device("allow"):
        return jax.tree.map(
            lambda x, sharding: jax.make_array_from_process_local_data(sharding, np.asarray(x)), tree, shardings
        )
