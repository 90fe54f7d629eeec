"""What an executable runs: every instruction in schedule order, with its trip count, FLOPs, bytes and collective."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from chestx_jax.planning.hlo.collectives import COLLECTIVES, Collective, channel, fused_collectives, read_collective
from chestx_jax.planning.hlo.flops import instruction_flops
from chestx_jax.planning.hlo.parse import Computation, Instruction, Module
from chestx_jax.planning.hlo.traffic import traffic
from chestx_jax.planning.hlo.trip_count import initial_values, loop_invariants, trip_count

_FREE = (
    "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "opt-barrier", "partition-id",
    "replica-id", "iota",
)  # fmt: skip


@dataclass(frozen=True)
class ScheduledOp:
    """One instruction of the schedule. FLOPs and bytes are those of one run on one device."""

    name: str
    opcode: str
    scope: str  # where the program's source makes it: jit(f)/while/body/dot_general
    trips: float  # how often it runs
    loop: str  # the computation that contains it
    flops: float = 0.0
    hbm_bytes: float = 0.0  # read from and written to HBM
    host_bytes: float = 0.0  # moved to or from the host's memory
    collective: Collective | None = None
    kernel: str = ""  # that a custom call runs
    awaits: str = ""  # name of the op that started the host transfer which ends here


def schedule(module: Module) -> list[ScheduledOp]:
    """Every instruction that the executable runs, loop bodies with their trip counts."""
    return list(_scheduled(module, module.computations[module.entry], 1.0, {}))


def _scheduled(module: Module, computation: Computation, trips: float, known: dict[int, int]) -> Iterator[ScheduledOp]:
    """The ops of a computation that runs `trips` times; `known` are the integers in its argument tuple, by index."""
    counted: set[str] = set()  # channels of collectives
    transfers: set[str] = set()  # between host and device, started and not ended
    for instruction in computation.instructions.values():
        opcode = instruction.opcode
        if opcode == "while":
            body, condition = (module.computations[instruction.called(key) or ""] for key in ("body", "condition"))
            initial = initial_values(computation, instruction.operands[0], known)
            declared = re.search(r'"known_trip_count":\{"n":"(\d+)"', instruction.attributes)
            count = float(declared.group(1)) if declared else trip_count(module, body, condition, initial)
            yield from _scheduled(module, body, trips * count, loop_invariants(body, initial))
        elif opcode in ("call", "async-start") and (name := instruction.called("to_apply|calls|called_computation")):
            yield from _scheduled(module, module.computations[name], trips, {})
        elif opcode == "conditional":
            for name in _branches(instruction)[-1:]:  # branches rarely cost the same: the last one does the work
                yield from _scheduled(module, module.computations[name], trips, {})
        elif opcode.endswith("-done") and instruction.operands[0] in transfers:
            yield ScheduledOp(instruction.name, opcode, "", trips, computation.name, awaits=instruction.operands[0])
        elif opcode not in _FREE and not opcode.endswith(("-done", "-update")):
            op = _op(module, computation, instruction, trips)
            if op.collective is not None:
                counted.add(channel(instruction))
            if opcode.endswith("-start") and op.host_bytes:
                transfers.add(instruction.name)
            yield op
            for part, collective in fused_collectives(module, instruction, counted):
                yield ScheduledOp(part.name, part.opcode, part.scope, trips, computation.name, collective=collective)


def _op(module: Module, computation: Computation, instruction: Instruction, trips: float) -> ScheduledOp:
    opcode = instruction.opcode
    kind = opcode.removesuffix("-start")
    hbm_bytes, host_bytes = traffic(module, computation, instruction)
    return ScheduledOp(
        instruction.name,
        opcode,
        instruction.scope,
        trips,
        computation.name,
        instruction_flops(module, computation, instruction),
        hbm_bytes,
        host_bytes,
        read_collective(kind, instruction, computation, _overlaps(computation, instruction))
        if kind in COLLECTIVES
        else None,
        instruction.target,
    )


def _overlaps(computation: Computation, instruction: Instruction) -> bool:
    """Whether something runs between the start of an instruction and its end."""
    if not instruction.opcode.endswith("-start"):
        return False
    names = list(computation.instructions)
    for other in map(computation.instructions.__getitem__, names[names.index(instruction.name) + 1 :]):
        if other.opcode.endswith("-done") and instruction.name in other.operands:
            return False
        if other.opcode not in _FREE and not other.opcode.endswith(("-start", "-done", "-update")):
            return True
    return True


def _branches(instruction: Instruction) -> list[str]:
    """The computations that a conditional chooses between."""
    listed = re.search(r"branch_computations=\{([^}]*)\}", instruction.attributes)
    if listed:
        return [name.strip().lstrip("%") for name in listed.group(1).split(",")]
    return [name for key in ("true_computation", "false_computation") if (name := instruction.called(key))]
