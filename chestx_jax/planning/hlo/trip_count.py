"""How often a loop of a compiled program runs, from its condition, its counter's start and its counter's step."""

import re
from collections.abc import Iterator

from chestx_jax.planning.hlo.parse import Computation, Instruction, Module

_COPIES = ("copy", "bitcast", "convert")


def trip_count(module: Module, body: Computation, condition: Computation, initial: dict[int, int]) -> float:
    """How often a loop with the condition `i < n` runs; `initial` are the known integers of the tuple that enters it.

    Where another condition may end it sooner (all completions are done), the most it can run. 1 where no counter is
    found.
    """
    counts = []
    for test, operands in _comparisons(module, condition):
        (counter, limit), index = (_integer(*operand, initial) for operand in operands), _tuple_index(*operands[0])
        if limit is None or index is None or "direction=L" not in test.attributes:
            continue
        step, start = _step(body, index, initial), initial.get(index, counter if counter is not None else 0)
        stop = limit + (1 if "direction=LE" in test.attributes else 0)
        counts.append(max(0, -(-(stop - start) // step)))
    return float(max(counts, default=1))


def initial_values(computation: Computation, name: str, known: dict[int, int]) -> dict[int, int]:
    """The known integers, by index, of the tuple `name` that enters a loop."""
    elements = computation.instructions[name].operands
    values = {i: _integer(computation, element, known) for i, element in enumerate(elements)}
    return {i: value for i, value in values.items() if value is not None}


def loop_invariants(body: Computation, initial: dict[int, int]) -> dict[int, int]:
    """Those of the `initial` values that the loop passes on unchanged."""
    results = body.instructions[body.root].operands
    return {i: value for i, value in initial.items() if i < len(results) and _tuple_index(body, results[i]) == i}


def _comparisons(module: Module, condition: Computation) -> Iterator[tuple[Instruction, list[tuple[Computation, str]]]]:
    """Comparisons in a loop's condition and in its fusions, each operand with the computation that defines it."""
    for instruction in condition.instructions.values():
        if instruction.opcode == "compare":
            yield instruction, [(condition, name) for name in instruction.operands]
        if instruction.opcode != "fusion":
            continue
        fused = module.fused(instruction)
        for test in fused.instructions.values():
            if test.opcode == "compare":
                operands = [fused.instructions[name] for name in test.operands]
                yield (
                    test,
                    [
                        (condition, instruction.operands[int(operand.literal)])
                        if operand.opcode == "parameter"
                        else (fused, operand.name)
                        for operand in operands
                    ],
                )


def _source(computation: Computation, name: str) -> Instruction | None:
    """The instruction that makes a value, looking through copies."""
    value = computation.instructions.get(name)
    while value is not None and value.opcode in _COPIES:
        value = computation.instructions.get(value.operands[0])
    return value


def _tuple_index(computation: Computation, name: str) -> int | None:
    """Which element of the loop's tuple a value is."""
    value = _source(computation, name)
    if value is None or value.opcode != "get-tuple-element":
        return None
    index = re.search(r"index=(\d+)", value.attributes)
    owner = computation.instructions[value.operands[0]]
    return int(index.group(1)) if index and owner.opcode == "parameter" else None


def _integer(computation: Computation, name: str, known: dict[int, int]) -> int | None:
    """The integer that a value is known to be."""
    value = _source(computation, name)
    if value is None:
        return None
    if value.opcode == "constant":
        return int(value.literal) if re.fullmatch(r"-?\d+", value.literal) else None
    index = _tuple_index(computation, value.name)
    return known.get(index) if index is not None else None


def _step(body: Computation, index: int, initial: dict[int, int]) -> int:
    """What a loop adds to its counter in each iteration."""
    following = body.instructions[body.instructions[body.root].operands[index]]
    while following.opcode in ("copy", "bitcast"):
        following = body.instructions[following.operands[0]]
    if following.opcode != "add":
        return 1  # fused: the loops of `scan` and `while_loop` here count by one
    values = [_integer(body, operand, loop_invariants(body, initial)) for operand in following.operands]
    return next((value for value in values if value is not None), 1)
