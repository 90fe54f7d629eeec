"""What lies where from step to step: a stage's state as a checkpoint holds it and as it is restored, and what of it
stays on the devices while a program runs that is not given it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import jax

from chestx_jax.programs.job import Program
from chestx_jax.sharding import HOST_MEMORY

# Which of the stage's held parts a program is given, by the second half of its name.
_GIVEN = {
    "step": ("params", "moments"), "validate": ("params",), "rollout": ("params",), "logprobs": ("params",),
    "reference": ("reference",),
}  # fmt: skip


@dataclass(frozen=True)
class Layout:
    """Bytes of a stage's parts (params, moments, reference). The checkpoint holds the first two."""

    device: dict[str, float]  # on one device
    host: dict[str, float]  # in the host's memory, of one device's share
    whole: dict[str, float]  # over all devices, each element once

    @property
    def checkpoint(self) -> float:
        return self.whole["params"] + self.whole["moments"]


def layout(programs: Mapping[str, Program], stage: str) -> Layout | None:
    """Where the loop of a training stage restores and keeps what it holds; None where the job has no such stage."""
    step = programs.get(f"{stage}/step")
    if step is None:
        return None
    state, at = step.arguments[0], step.in_shardings[0]
    parts = {"params": (state.params, at.params), "moments": (state.moments, at.moments)}
    reference = programs.get(f"{stage}/reference")
    if reference is not None:
        parts["reference"] = reference.arguments[0], reference.in_shardings[0]
    return Layout(
        {name: _share(*part, host=False) for name, part in parts.items()},
        {name: _share(*part, host=True) for name, part in parts.items()},
        {
            name: sum(_bytes(leaf.shape, leaf) for leaf in jax.tree.leaves(shapes))
            for name, (shapes, _) in parts.items()
        },
    )


def resident(programs: Mapping[str, Program], name: str) -> float:
    """Bytes on one device beside the program's own arguments; 0 where no stage holds anything."""
    stage, _, kind = name.partition("/")
    found = layout(programs, stage)
    return sum(size for part, size in found.device.items() if part not in _GIVEN.get(kind, ())) if found else 0.0


def _share(shapes, shardings, host: bool) -> float:
    leaves = jax.tree.leaves(shapes), jax.tree.leaves(jax.tree.broadcast(shardings, shapes))
    return sum(
        _bytes(at.shard_shape(leaf.shape), leaf)
        for leaf, at in zip(*leaves, strict=True)
        if (at.memory_kind == HOST_MEMORY) is host
    )


def _bytes(shape: tuple[int, ...], leaf) -> float:
    return float(leaf.dtype.itemsize) * math.prod(shape)
