"""Bytes that an instruction moves: an array that is sliced or updated in place is not moved as a whole."""

import re

from chestx_jax.planning.hlo.collectives import carries_async_collective
from chestx_jax.planning.hlo.parse import HBM, HOST, Array, Computation, Instruction, Module, Shape, leaves

Moved = list[tuple[int, float]]  # memory space and bytes


def traffic(module: Module, computation: Computation, instruction: Instruction) -> tuple[float, float]:
    """Bytes of HBM and of host memory that one run of an instruction reads and writes."""
    if instruction.opcode == "custom-call" and "AllocateBuffer" in instruction.attributes:
        return 0.0, 0.0
    count = _fusion_traffic if instruction.opcode == "fusion" else _single_traffic
    moved = count(module, computation, instruction)
    return (
        sum(size for space, size in moved if space == HBM),
        sum(size for space, size in moved if space == HOST),
    )


def _single_traffic(_: Module, computation: Computation, instruction: Instruction) -> Moved:
    kind, starts = instruction.opcode.removesuffix("-start"), instruction.opcode.endswith("-start")
    operands = [computation.instructions[name].shape for name in instruction.operands]
    results = instruction.shape if isinstance(instruction.shape, tuple) else ()
    # An asynchronous instruction's type is (operands, result, context).
    result = results[1] if starts and len(results) > 1 else instruction.shape
    if kind in ("dynamic-slice", "slice", "gather"):
        source = next(leaves(operands[0])).space
        return [(space, array.bytes) for array in leaves(result) for space in (source, array.space)]
    if kind == "dynamic-update-slice":
        target = next(leaves(operands[0])).space
        return [(space, array.bytes) for array in leaves(operands[1]) for space in (array.space, target)]
    if instruction.opcode == "copy-start" and len(results) > 1:
        return _whole(results[:2])
    return _whole((*operands, instruction.shape))


def _fusion_traffic(module: Module, computation: Computation, instruction: Instruction) -> Moved:
    fused = module.fused(instruction)
    operands = [computation.instructions[name].shape for name in instruction.operands]
    read = [_bytes_read(module, fused, fused.parameters[i]) for i in range(len(operands))]
    written = _written_by_output(module, fused, fused.root, instruction.shape)
    if carries_async_collective(fused):  # the collective's own buffers only pass through
        aliases = re.findall(r"\{(\d*)\}: \((\d+), ", instruction.attributes)
        inputs, outputs = {int(i) for _, i in aliases}, {int(i or 0) for i, _ in aliases}
        read = [0.0 if i in inputs else size for i, size in enumerate(read)]
        written = [moved for i, moved in enumerate(written) if i not in outputs]
    moved = [pair for shape, size in zip(operands, read, strict=True) for pair in _spread(shape, size)]
    return moved + [pair for output in written for pair in output]


def _whole(shape: Shape) -> Moved:
    return [(array.space, array.bytes) for array in leaves(shape)]


def _spread(shape: Shape, read: float) -> Moved:
    """What is read of an operand: `read` bytes of an array, all of a tuple."""
    arrays = list(leaves(shape))
    return [(arrays[0].space, read)] if len(arrays) == 1 else _whole(shape)


def _bytes_read(module: Module, fused: Computation, value: Instruction) -> float:
    """Bytes that a fused computation reads of one of its parameters, or of a view of it."""
    whole = sum(array.bytes for array in leaves(value.shape))
    total = 0.0
    for user in fused.users.get(value.name, ()):
        if user.opcode in ("dynamic-slice", "slice", "gather") and user.operands[0] == value.name:
            total += sum(array.bytes for array in leaves(user.shape))
        elif user.opcode == "dynamic-update-slice" and user.operands[0] == value.name:
            continue
        elif user.opcode == "bitcast":
            total += _bytes_read(module, fused, user)
        elif user.opcode == "fusion":
            inner = module.fused(user)
            total += sum(
                _bytes_read(module, inner, inner.parameters[i])
                for i, operand in enumerate(user.operands)
                if operand == value.name
            )
        else:
            return whole
    return min(total, whole)


def _written_by_output(module: Module, fused: Computation, name: str, shape: Shape) -> list[Moved]:
    """What a fused computation writes for each output of its value `name`, which leaves it with type `shape`."""
    value = fused.instructions[name]
    outputs = shape if isinstance(shape, tuple) else (shape,)
    if value.opcode == "tuple" and len(value.operands) == len(outputs):
        return [_written(module, fused, *pair) for pair in zip(value.operands, outputs, strict=True)]
    if value.opcode == "fusion":
        inner = module.fused(value)
        return _written_by_output(module, inner, inner.root, shape)
    if len(outputs) == 1:
        return [_written(module, fused, name, outputs[0])]
    return [_whole(output) for output in outputs]


def _written(module: Module, fused: Computation, name: str, shape: Shape) -> Moved:
    """What a fused computation writes of its value `name`, which leaves it with type `shape`."""
    value = fused.instructions[name]
    if value.opcode == "bitcast" and value.operands[0] in fused.instructions:
        return _written(module, fused, value.operands[0], shape)
    if value.opcode == "fusion":
        return [pair for output in _written_by_output(module, fused, name, shape) for pair in output]
    if value.opcode == "dynamic-update-slice" and isinstance(shape, Array):
        return [(shape.space, sum(array.bytes for array in fused.arrays(value.operands[1])))]
    return _whole(shape)
