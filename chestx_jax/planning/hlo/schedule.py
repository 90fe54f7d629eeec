"""What an executable does, trip counts included: every instruction that runs, with how often, its FLOPs, its bytes of
HBM and the compiler's own estimate of its cycles."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from chestx_jax.planning.hlo.flops import product_flops
from chestx_jax.planning.hlo.parse import HBM, HOST, Array, Computation, Instruction, Module, leaves

COLLECTIVES = (
    "all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute", "collective-broadcast",
    "ragged-all-to-all",
)  # fmt: skip
_FREE = (
    "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "opt-barrier", "partition-id",
    "replica-id", "iota",
)  # fmt: skip


@dataclass(frozen=True)
class Work:
    """One instruction of the schedule. All numbers are per run of it and per device."""

    name: str
    opcode: str
    scope: str
    trips: float  # how often it runs
    loop: str  # the computation it runs in
    flops: float
    hbm: float  # bytes read from and written to HBM
    host: float  # bytes that cross to or from the host's memory
    cycles: float  # the compiler's estimate; 0: it gives none
    collective: "Collective | None" = None
    waits: str = ""  # the transfer from or to the host that ends here, by the name of the work that started it


@dataclass(frozen=True)
class Collective:
    """A transfer between devices. `size` is the bytes of the larger side on one device (the gathered array of an
    all-gather, the array of an all-reduce); `groups` are the device numbers that talk to each other."""

    kind: str
    size: float
    groups: str  # the attribute's text: read it with `chestx_jax.planning.cost.interconnect.members`
    hidden: bool  # runs beside computation
    array: str = ""  # the largest that comes out of it: bf16[152064,112]


def walk(module: Module) -> list[Work]:
    """Every instruction that the executable runs, loops multiplied out."""
    found: list[Work] = []
    _visit(module, module.computations[module.entry], 1.0, {}, found)
    return found


def _visit(module: Module, computation: Computation, trips: float, known: dict[int, int], found: list[Work]) -> None:
    channels: set[str] = set()
    transfers: set[str] = set()  # between host and device, started and not ended
    for instruction in computation.instructions.values():
        opcode = instruction.opcode
        if opcode == "while":
            body, condition = (module.computations[instruction.called(key) or ""] for key in ("body", "condition"))
            start = _start(computation, instruction.operands[0], known)
            told = re.search(r'"known_trip_count":\{"n":"(\d+)"', instruction.attributes)
            times = float(told.group(1)) if told else trip_count(module, body, condition, start)
            _visit(module, body, trips * times, _invariant(body, start), found)
        elif opcode in ("call", "async-start") and (name := instruction.called("to_apply|calls|called_computation")):
            _visit(module, module.computations[name], trips, {}, found)
        elif opcode == "conditional":
            for name in _branches(instruction)[-1:]:  # both rarely cost alike: the last is the one that acts
                _visit(module, module.computations[name], trips, {}, found)
        elif opcode.endswith("-done") and instruction.operands[0] in transfers:
            began = instruction.operands[0]
            found.append(Work(instruction.name, opcode, "", trips, computation.name, 0.0, 0.0, 0.0, 0.0, waits=began))
        elif opcode not in _FREE and not opcode.endswith(("-done", "-update")):
            found.append(_work(module, computation, instruction, trips, channels))
            if opcode.endswith("-start") and found[-1].host:
                transfers.add(instruction.name)
            found.extend(_inner_collectives(module, computation, instruction, trips, channels))


def _work(module: Module, computation: Computation, instruction: Instruction, trips: float, channels: set[str]) -> Work:
    kind = instruction.opcode.removesuffix("-start")
    cycles = re.search(r'"estimated_cycles":"?(\d+)', instruction.attributes)
    collective = None
    if kind in COLLECTIVES:
        channels.add(_channel(instruction))
        collective = _collective(kind, instruction, computation, instruction.opcode.endswith("-start"))
    hbm, host = traffic(module, computation, instruction)
    return Work(
        instruction.name, instruction.opcode, instruction.scope, trips, computation.name,
        flops(module, computation, instruction), hbm, host, float(cycles.group(1)) if cycles else 0.0, collective,
    )  # fmt: skip


def _inner_collectives(
    module: Module, computation: Computation, instruction: Instruction, trips: float, channels: set[str]
) -> Iterator[Work]:
    """Collectives fused with computation. One that runs beside computation starts in one fusion, goes on through
    others, some in loops, and ends in a last: it counts where it starts."""
    if instruction.opcode != "fusion":
        return
    inner = module.computations[instruction.called("calls") or ""]
    hidden = any("AsyncCollectiveStart" in part.attributes for part in inner.instructions.values())
    if _is_async(inner) and not hidden:
        return
    for part in inner.instructions.values():
        kind = part.opcode.removesuffix("-start")
        if kind in COLLECTIVES and _channel(part) not in channels:
            channels.add(_channel(part))
            scattered = kind == "all-reduce" and "scatter" in inner.name  # only a slice of the sum is kept
            collective = _collective("reduce-scatter" if scattered else kind, part, inner, hidden)
            yield Work(part.name, part.opcode, part.scope, trips, computation.name, 0.0, 0.0, 0.0, 0.0, collective)


def _is_async(computation: Computation) -> bool:
    """Whether a fused computation carries a piece of a collective that runs beside it."""
    marks = ("AsyncCollectiveStart", "AsyncCollectiveDone")
    marked = any(mark in part.attributes for part in computation.instructions.values() for mark in marks)
    return marked or computation.name.startswith("async_collective_fusion")


def _channel(instruction: Instruction) -> str:
    found = re.search(r"channel_id=(\d+)", instruction.attributes)
    return found.group(1) if found else instruction.name


def _collective(kind: str, instruction: Instruction, computation: Computation, hidden: bool) -> Collective:
    arrays = list(leaves(instruction.shape))
    if instruction.opcode.endswith("-start") and len(arrays) > 1:
        arrays = arrays[:2] if instruction.opcode.startswith(("all-gather", "collective-permute")) else arrays
    inputs = [array for name in instruction.operands for array in _shapes(computation, name)]
    output = sum(array.bytes for array in arrays if array.dims)
    given = sum(array.bytes for array in inputs)
    size = max(output - given, given) if instruction.opcode.endswith("-start") else max(output, given)
    groups = re.search(
        r"(?:replica_groups|source_target_pairs)=(.*?)(?:, (?:use_global|dimensions|to_apply|frontend|metadata|backend|"
        r"constrain|channel|opcode)|$)",
        instruction.attributes,
    )
    largest = max(arrays, key=lambda array: array.bytes, default=None)
    return Collective(kind, size, groups.group(1) if groups else "", hidden, largest.spelled if largest else "")


def _shapes(computation: Computation, name: str) -> list[Array]:
    instruction = computation.instructions.get(name)
    return list(leaves(instruction.shape)) if instruction else []


def flops(module: Module, computation: Computation, instruction: Instruction) -> float:
    """FLOPs of matrix products, in fusions too; of a Pallas kernel, what it declares."""
    if instruction.opcode == "fusion":
        inner = module.computations[instruction.called("calls") or ""]
        return sum(flops(module, inner, part) for part in inner.instructions.values())
    if instruction.opcode == "custom-call":
        declared = re.search(r'"cost_estimate":\{"flops":"?(\d+)', instruction.attributes)
        return float(declared.group(1)) if declared else splash_flops(instruction, computation)
    operands = [array for name in instruction.operands for array in _shapes(computation, name)]
    return product_flops(instruction, operands)


def splash_flops(instruction: Instruction, computation: Computation) -> float:
    """FLOPs of a splash attention kernel, which declares none: two products forward, five in the fused backward, over
    the share of the square that its name tells (`chestx_jax.model.splash`). 0 for other kernels."""
    share = re.search(r"splash_share_([\d.]+)", instruction.scope)
    arrays = [array for name in instruction.operands for array in _shapes(computation, name)]
    floats = [array for array in arrays if array.dtype in ("bf16", "f16", "f32")]
    if not share or len(floats) < 2:
        return 0.0
    queries, keys = floats[:2]
    products = 5 if "_dkv" in instruction.name else 2
    return products * 2.0 * queries.size * keys.dims[-2] * float(share.group(1))


def traffic(module: Module, computation: Computation, instruction: Instruction) -> tuple[float, float]:
    """Bytes of HBM and of host memory that an instruction reads and writes. What a slice leaves out is not read; what
    an update in place keeps is not written."""
    kind = instruction.opcode
    if kind == "custom-call" and "AllocateBuffer" in instruction.attributes:
        return 0.0, 0.0
    if kind == "fusion":
        inner = module.computations[instruction.called("calls") or ""]
        outer = [computation.instructions[name].shape for name in instruction.operands]
        read = [_read(module, inner, i) for i in range(len(outer))]
        outputs = _outputs(module, inner, inner.root, instruction.shape)
        if _is_async(inner):  # the collective's own buffers only pass through
            passed = re.findall(r"\{(\d*)\}: \((\d+), ", instruction.attributes)
            carried = {int(operand) for _, operand in passed}
            read = [0.0 if i in carried else size for i, size in enumerate(read)]
            out = {int(index or 0) for index, _ in passed}
            outputs = [output for i, output in enumerate(outputs) if i not in out]
        written = [pair for output in outputs for pair in output]
        pairs = [pair for shape, size in zip(outer, read, strict=True) for pair in _spaces(shape, size)] + written
    else:
        shapes = [(computation.instructions[name].shape) for name in instruction.operands]
        parts = instruction.shape if isinstance(instruction.shape, tuple) else ()
        started = parts[1] if kind.endswith("-start") and len(parts) > 1 else None
        if kind.removesuffix("-start") in ("dynamic-slice", "slice", "gather"):
            taken = list(leaves(instruction.shape if started is None else started))
            source = next(leaves(shapes[0])).space
            pairs = [(space, array.bytes) for array in taken for space in (source, array.space)]
        elif kind.removesuffix("-start") == "dynamic-update-slice":
            target = next(leaves(shapes[0])).space
            pairs = [(space, array.bytes) for array in leaves(shapes[1]) for space in (array.space, target)]
        else:
            shapes = list(parts[:2]) if kind == "copy-start" and started else [*shapes, instruction.shape]
            pairs = [(array.space, array.bytes) for shape in shapes for array in leaves(shape)]
    return (
        sum(size for space, size in pairs if space == HBM),
        sum(size for space, size in pairs if space == HOST),
    )


def _spaces(shape, read: float) -> list[tuple[int, float]]:
    arrays = list(leaves(shape))
    return [(arrays[0].space, read)] if len(arrays) == 1 else [(array.space, array.bytes) for array in arrays]


def _read(module: Module, computation: Computation, index: int, name: str | None = None) -> float:
    """Bytes that a fused computation reads of one of its parameters."""
    value = computation.instructions[name] if name else computation.parameters[index]
    whole = sum(array.bytes for array in leaves(value.shape))
    total = 0.0
    for user in computation.users.get(value.name, ()):
        if user.opcode in ("dynamic-slice", "slice", "gather") and user.operands[0] == value.name:
            total += sum(array.bytes for array in leaves(user.shape))
        elif user.opcode == "dynamic-update-slice" and user.operands[0] == value.name:
            continue
        elif user.opcode == "bitcast":
            total += _read(module, computation, 0, user.name)
        elif user.opcode == "fusion":
            inner = module.computations[user.called("calls") or ""]
            total += sum(_read(module, inner, i) for i, operand in enumerate(user.operands) if operand == value.name)
        else:
            return whole
    return min(total, whole)


def _outputs(module: Module, computation: Computation, name: str, shape) -> list[list[tuple[int, float]]]:
    """Space and bytes of what a fused computation writes, by output of its value `name`, which leaves it as `shape`."""
    value = computation.instructions[name]
    parts = shape if isinstance(shape, tuple) else (shape,)
    if value.opcode == "tuple" and len(value.operands) == len(parts):
        return [_written(module, computation, *pair) for pair in zip(value.operands, parts, strict=True)]
    if value.opcode == "fusion":
        inner = module.computations[value.called("calls") or ""]
        return _outputs(module, inner, inner.root, shape)
    if len(parts) == 1:
        return [_written(module, computation, name, parts[0])]
    return [[(array.space, array.bytes) for array in leaves(part)] for part in parts]


def _written(module: Module, computation: Computation, name: str, shape) -> list[tuple[int, float]]:
    """Space and bytes of what a fused computation writes of its value `name`, which leaves it as the array `shape`."""
    value = computation.instructions[name]
    if value.opcode == "bitcast" and value.operands[0] in computation.instructions:
        return _written(module, computation, value.operands[0], shape)
    if value.opcode == "fusion":
        return [pair for output in _outputs(module, computation, name, shape) for pair in output]
    if value.opcode == "dynamic-update-slice" and isinstance(shape, Array):
        return [(shape.space, sum(array.bytes for array in _shapes(computation, value.operands[1])))]
    return [(array.space, array.bytes) for array in leaves(shape)]


def trip_count(module: Module, body: Computation, condition: Computation, start: dict[int, int]) -> float:
    """How often a loop runs, from its condition `i < n`, the counter's start and its step. Where other conditions may
    end it sooner (all completions done), the most it can run. 1 where no counter is found."""
    counts = []
    for test, operands in _comparisons(module, condition):
        (counter, limit), index = (_value(*operand, start) for operand in operands), _element(*operands[0])
        if limit is None or index is None or "direction=L" not in test.attributes:
            continue
        step, begin = _step(body, index, start), start.get(index, counter if counter is not None else 0)
        reach = limit + (1 if "direction=LE" in test.attributes else 0)
        counts.append(max(0, -(-(reach - begin) // step)))
    return float(max(counts, default=1))


def _comparisons(module: Module, condition: Computation) -> Iterator[tuple[Instruction, list[tuple[Computation, str]]]]:
    """Comparisons in a loop's condition and in its fusions, each operand with the computation that knows it."""
    for instruction in condition.instructions.values():
        if instruction.opcode == "compare":
            yield instruction, [(condition, name) for name in instruction.operands]
        if instruction.opcode != "fusion":
            continue
        inner = module.computations[instruction.called("calls") or ""]
        for test in inner.instructions.values():
            if test.opcode == "compare":
                operands = []
                for value in (inner.instructions[name] for name in test.operands):
                    given = value.opcode == "parameter"
                    operands.append(
                        (condition, instruction.operands[int(value.literal)]) if given else (inner, value.name)
                    )
                yield test, operands


def _start(computation: Computation, name: str, known: dict[int, int]) -> dict[int, int]:
    """Which elements of the tuple that enters a loop are known integers."""
    elements = computation.instructions[name].operands
    values = {i: _value(computation, element, known) for i, element in enumerate(elements)}
    return {i: value for i, value in values.items() if value is not None}


def _invariant(body: Computation, start: dict[int, int]) -> dict[int, int]:
    """The known elements that the loop hands on unchanged."""
    kept = body.instructions[body.root].operands
    return {i: value for i, value in start.items() if i < len(kept) and _element(body, kept[i]) == i}


def _element(computation: Computation, name: str) -> int | None:
    """The index of the loop's tuple that a value is, looking through copies."""
    value = computation.instructions.get(name)
    while value is not None and value.opcode in ("copy", "bitcast", "convert"):
        value = computation.instructions.get(value.operands[0])
    if value is None or value.opcode != "get-tuple-element":
        return None
    found = re.search(r"index=(\d+)", value.attributes)
    source = computation.instructions[value.operands[0]]
    return int(found.group(1)) if found and source.opcode == "parameter" else None


def _value(computation: Computation, name: str, known: dict[int, int]) -> int | None:
    """The integer that a value is known to be."""
    value = computation.instructions.get(name)
    while value is not None and value.opcode in ("copy", "bitcast", "convert"):
        value = computation.instructions.get(value.operands[0])
    if value is None:
        return None
    if value.opcode == "constant":
        return int(value.literal) if re.fullmatch(r"-?\d+", value.literal) else None
    index = _element(computation, value.name)
    return known.get(index) if index is not None else None


def _step(body: Computation, index: int, start: dict[int, int]) -> int:
    """What a loop adds to its counter in a turn."""
    following = body.instructions[body.instructions[body.root].operands[index]]
    while following.opcode in ("copy", "bitcast"):
        following = body.instructions[following.operands[0]]
    if following.opcode != "add":
        return 1  # fused: loops of `scan` and `while_loop` here all count by one
    values = [_value(body, operand, _invariant(body, start)) for operand in following.operands]
    return next((value for value in values if value is not None), 1)


def _branches(instruction: Instruction) -> list[str]:
    found = re.search(r"branch_computations=\{([^}]*)\}", instruction.attributes)
    if found:
        return [name.strip().lstrip("%") for name in found.group(1).split(",")]
    return [name for key in ("true_computation", "false_computation") if (name := instruction.called(key))]
