"""What stays on the devices while a program runs that is not given it: the loops hold a stage's whole state, and the
reference model's weights, from step to step."""

from collections.abc import Mapping

import jax

from chestx_jax.programs import Program
from chestx_jax.sharding import HOST

# Which of the stage's held parts a program is given, by the second half of its name.
_GIVEN = {
    "step": ("params", "moments"), "validate": ("params",), "rollout": ("params",), "logprobs": ("params",),
    "reference": ("reference",),
}  # fmt: skip


def resident(programs: Mapping[str, Program], name: str) -> float:
    """Bytes on one device beside the program's own arguments; 0 where the job has no such stage."""
    stage, _, kind = name.partition("/")
    step = programs.get(f"{stage}/step")
    if step is None:
        return 0.0
    state, at = step.arguments[0], step.in_shardings[0]
    held = {"params": device_bytes(state.params, at.params), "moments": device_bytes(state.moments, at.moments)}
    reference = programs.get(f"{stage}/reference")
    if reference is not None:
        held["reference"] = device_bytes(reference.arguments[0], reference.in_shardings[0])
    return sum(size for part, size in held.items() if part not in _GIVEN.get(kind, ()))


def device_bytes(shapes, shardings) -> float:
    """Bytes of a tree on one device, without what lies in the host's memory."""
    leaves = jax.tree.leaves(shapes), jax.tree.leaves(jax.tree.broadcast(shardings, shapes))
    return sum(
        float(leaf.dtype.itemsize) * _product(at.shard_shape(leaf.shape))
        for leaf, at in zip(*leaves, strict=True)
        if at.memory_kind != HOST
    )


def _product(sizes: tuple[int, ...]) -> float:
    total = 1.0
    for size in sizes:
        total *= size
    return total
