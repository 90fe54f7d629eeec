"""Collectives of a compiled program: their kind, size and device groups, also where they are fused with computation."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from chestx_jax.planning.hlo.parse import Computation, Instruction, Module, leaves

COLLECTIVES = (
    "all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute", "collective-broadcast",
    "ragged-all-to-all",
)  # fmt: skip


@dataclass(frozen=True)
class Collective:
    """A transfer between devices. `size` is the bytes of the larger side on one device (the gathered array of an
    all-gather, the array of an all-reduce)."""

    kind: str
    size: float
    groups: str  # the attribute's text, for `cost.interconnect.replica_group`
    asynchronous: bool  # runs beside computation
    array: str = ""  # its largest result: bf16[152064,112]


def read_collective(kind: str, instruction: Instruction, computation: Computation, asynchronous: bool) -> Collective:
    """The collective of the given kind that an instruction of `computation` performs."""
    starts = instruction.opcode.endswith("-start")
    results = list(leaves(instruction.shape))
    if len(results) > 1 and instruction.opcode in ("all-gather-start", "collective-permute-start"):
        results = results[:2]  # the rest are flags
    inputs = sum(array.bytes for array in computation.operand_arrays(instruction))
    outputs = sum(array.bytes for array in results if array.dims)
    if starts:  # the result tuple lists the inputs too
        outputs -= inputs
    groups = re.search(
        r"(?:replica_groups|source_target_pairs)=(.*?)(?:, (?:use_global|dimensions|to_apply|frontend|metadata|backend|"
        r"constrain|channel|opcode)|$)",
        instruction.attributes,
    )
    largest = max(results, key=lambda array: array.bytes, default="")
    return Collective(kind, max(outputs, inputs), groups.group(1) if groups else "", asynchronous, str(largest))


def fused_collectives(
    module: Module, instruction: Instruction, counted: set[str]
) -> Iterator[tuple[Instruction, Collective]]:
    """The collectives that a fusion performs and whose channels are not in `counted`, to which they are added.

    An asynchronous one starts in one fusion, goes on through others (some in loops) and ends in a last one: it counts
    where it starts.
    """
    if instruction.opcode != "fusion":
        return
    fused = module.fused(instruction)
    starts = any("AsyncCollectiveStart" in part.attributes for part in fused.instructions.values())
    if carries_async_collective(fused) and not starts:
        return
    for part in fused.instructions.values():
        kind = part.opcode.removesuffix("-start")
        if kind in COLLECTIVES and channel(part) not in counted:
            counted.add(channel(part))
            scattered = kind == "all-reduce" and "scatter" in fused.name  # only a slice of the sum is kept
            yield part, read_collective("reduce-scatter" if scattered else kind, part, fused, starts)


def carries_async_collective(fused: Computation) -> bool:
    """Whether a fused computation holds a part of a collective that runs beside it."""
    marks = ("AsyncCollectiveStart", "AsyncCollectiveDone")
    marked = any(mark in part.attributes for part in fused.instructions.values() for mark in marks)
    return marked or fused.name.startswith("async_collective_fusion")


def channel(instruction: Instruction) -> str:
    """What identifies a collective: its channel, or its name where it has none."""
    number = re.search(r"channel_id=(\d+)", instruction.attributes)
    return number.group(1) if number else instruction.name
