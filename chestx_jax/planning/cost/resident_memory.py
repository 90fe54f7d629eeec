"""What stays in memory from step to step: a stage's state as its checkpoint holds it and as it is restored, and what of
it stays on the devices beside a program that is not given it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import jax

from chestx_jax.programs.program import Program
from chestx_jax.sharding import HOST_MEMORY

# Which parts of the stage's state a program is given, by the second half of its name.
_GIVEN = {
    "step": ("params", "moments"), "validate": ("params",), "weights": ("params",), "logprobs": ("params",),
    "gradients": ("params",), "reference": ("reference",), "fetch": ("reference",),
}  # fmt: skip


@dataclass(frozen=True)
class Layout:
    """Bytes of a stage's params, moments and reference."""

    device: dict[str, float]  # on one device
    host: dict[str, float]  # in the host's memory, of one device's share
    total: dict[str, float]  # over all devices, each element once

    @property
    def checkpoint(self) -> float:
        """Bytes of a checkpoint, which holds no reference."""
        return self.total["params"] + self.total["moments"]


def layout(programs: Mapping[str, Program], stage: str) -> Layout | None:
    """Where a training stage keeps its state; None where the job has no such stage."""
    step = programs.get(f"{stage}/step")
    if step is None:
        return None
    state, shardings = step.arguments["state"]
    parts = {"params": (state.params, shardings.params), "moments": (state.moments, shardings.moments)}
    reference = programs.get(f"{stage}/fetch") or programs.get(f"{stage}/reference")  # the first that is given it
    if reference is not None:
        parts["reference"] = reference.arguments["reference"]
    return Layout(
        {name: _device_bytes(*part, host=False) for name, part in parts.items()},
        {name: _device_bytes(*part, host=True) for name, part in parts.items()},
        {
            name: sum(_bytes(leaf.shape, leaf) for leaf in jax.tree.leaves(shapes))
            for name, (shapes, _) in parts.items()
        },
    )


def resident_bytes(programs: Mapping[str, Program], name: str) -> float:
    """Bytes of its stage's state that a device holds while a program runs that is not given them."""
    stage, _, kind = name.partition("/")
    state = layout(programs, stage)
    return sum(size for part, size in state.device.items() if part not in _GIVEN.get(kind, ())) if state else 0.0


def _device_bytes(shapes, shardings, host: bool) -> float:
    """Bytes of one device's share of a tree: of the leaves in the host's memory, or of the others."""
    leaves = jax.tree.leaves(shapes), jax.tree.leaves(jax.tree.broadcast(shardings, shapes))
    return sum(
        _bytes(sharding.shard_shape(leaf.shape), leaf)
        for leaf, sharding in zip(*leaves, strict=True)
        if (sharding.memory_kind == HOST_MEMORY) is host
    )


def _bytes(shape: tuple[int, ...], leaf) -> float:
    return float(leaf.dtype.itemsize) * math.prod(shape)
