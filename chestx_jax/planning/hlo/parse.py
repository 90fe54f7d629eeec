"""Optimised HLO text as data: computations of instructions with shapes, operands and attributes."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Union

import numpy as np

HBM, HOST = 0, 5  # memory spaces of a layout, as in `{1,0:T(8,128)S(1)}`; 1 is VMEM, the others are flags and scalars

BITS = {
    "pred": 8, "s4": 4, "u4": 4, "s8": 8, "u8": 8, "s16": 16, "u16": 16, "s32": 32, "u32": 32, "s64": 64, "u64": 64,
    "f8e4m3fn": 8, "f8e5m2": 8, "bf16": 16, "f16": 16, "f32": 32, "f64": 64, "c64": 64, "c128": 128,
}  # fmt: skip


@dataclass(frozen=True)
class Array:
    """An array type; `space` is the memory that holds it. `str` gives `bf16[4,128]`."""

    dtype: str
    dims: tuple[int, ...]
    space: int = HBM

    @property
    def size(self) -> int:
        return int(np.prod(self.dims, dtype=np.int64))

    @property
    def bytes(self) -> float:
        return self.size * BITS.get(self.dtype, 0) / 8

    def __str__(self) -> str:
        return f"{self.dtype}[{','.join(map(str, self.dims))}]"


Shape = Union[Array, tuple["Shape", ...]]  # noqa: UP007 - a recursive alias


def leaves(shape: Shape) -> Iterator[Array]:
    """The arrays of a type, tuples flattened."""
    if isinstance(shape, Array):
        yield shape
    else:
        for part in shape:
            yield from leaves(part)


@dataclass(frozen=True)
class Instruction:
    """`name = shape opcode(operands), attributes`. `literal` is the text between the parentheses, which for a constant
    is its value and for a parameter its number."""

    name: str
    shape: Shape
    opcode: str
    operands: tuple[str, ...]
    literal: str
    attributes: str

    def called(self, key: str) -> str | None:
        """The computation named by an attribute such as `calls=%f`; `key` is a regular expression."""
        match = re.search(rf"\b(?:{key})=%?([\w.\-]+)", self.attributes)
        return match.group(1) if match else None

    @property
    def target(self) -> str:
        """The kernel that a custom call runs; "" for any other instruction."""
        match = re.search(r'custom_call_target="([^"]*)"', self.attributes) if self.opcode == "custom-call" else None
        return match.group(1) if match else ""

    @property
    def scope(self) -> str:
        """Where the program's source makes it: `jit(f)/while/body/dot_general`."""
        match = re.search(r'op_name="([^"]*)"', self.attributes)
        return match.group(1) if match else ""


@dataclass
class Computation:
    """Instructions in schedule order; `root` names the one whose value is the computation's."""

    name: str
    instructions: dict[str, Instruction] = field(default_factory=dict)
    root: str = ""

    @cached_property
    def parameters(self) -> dict[int, Instruction]:
        return {int(x.literal): x for x in self.instructions.values() if x.opcode == "parameter"}

    @cached_property
    def users(self) -> dict[str, list[Instruction]]:
        """The instructions that read each value, by its name."""
        users: dict[str, list[Instruction]] = {}
        for instruction in self.instructions.values():
            for operand in instruction.operands:
                users.setdefault(operand, []).append(instruction)
        return users

    def arrays(self, name: str) -> list[Array]:
        """The arrays of the value `name`; none where another computation defines it."""
        instruction = self.instructions.get(name)
        return list(leaves(instruction.shape)) if instruction else []

    def operand_arrays(self, instruction: Instruction) -> list[Array]:
        """The arrays of all operands of an instruction."""
        return [array for name in instruction.operands for array in self.arrays(name)]


@dataclass(frozen=True)
class Module:
    """All computations by name; `entry` is where execution starts."""

    computations: dict[str, Computation]
    entry: str

    def fused(self, fusion: Instruction) -> Computation:
        """The computation that a fusion instruction runs."""
        return self.computations[fusion.called("calls") or ""]


_INSTRUCTION = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = ")
_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{$")
_ARRAY = re.compile(r"(\w+)\[([^\]]*)\](?:\{([^}]*)\})?")


def parse(text: str) -> Module:
    """The module of an executable's `as_text()`.

    Raises ValueError where the text has no entry computation.
    """
    computations: dict[str, Computation] = {}
    entry, current = "", None
    for line in text.splitlines():
        if current is None:
            header = _HEADER.match(line)
            if header:
                current = Computation(header.group(2))
                entry = current.name if header.group(1) else entry
        elif line == "}" or line.startswith("}, execution_thread="):  # the latter ends a computation of the host
            computations[current.name] = current
            current = None
        else:
            start = _INSTRUCTION.match(line)
            if start:
                instruction = _instruction(start.group(2), line[start.end() :])
                current.instructions[instruction.name] = instruction
                current.root = instruction.name if start.group(1) else current.root
            elif current.instructions:  # a kernel's metadata has line breaks of its own
                last = next(reversed(current.instructions.values()))
                current.instructions[last.name] = replace(last, attributes=f"{last.attributes}\n{line}")
    if not entry:
        raise ValueError("the text has no ENTRY computation: is it optimised HLO?")
    return Module(computations, entry)


def _instruction(name: str, text: str) -> Instruction:
    shape, end = _shape(text, 0)
    opening = text.index("(", end)
    closing = _closing_parenthesis(text, opening)
    opcode, literal = text[end:opening].strip(), text[opening + 1 : closing]
    operands = tuple(re.findall(r"%([\w.\-]+)", literal)) if opcode != "constant" else ()
    return Instruction(name, shape, opcode, operands, literal, text[closing + 1 :])


def _shape(text: str, start: int) -> tuple[Shape, int]:
    """The type that starts at character `start`, and the character after it."""
    if text[start] != "(":
        match = _ARRAY.match(text, start)
        if not match:
            return (), text.index(" ", start)  # token[] and the like
        dtype, dims, layout = match.groups()
        space = re.search(r"S\((\d+)\)", layout or "")
        sizes = tuple(int(size.lstrip("<=")) for size in dims.split(",") if size)
        return Array(dtype, sizes, int(space.group(1)) if space else HBM), match.end()
    parts, position = [], start + 1
    while text[position] != ")":
        separator = re.match(r"[\s,]*(/\*.*?\*/)?\s*", text[position:])
        position += separator.end() if separator else 0
        if text[position] == ")":
            break
        part, position = _shape(text, position)
        parts.append(part)
    return tuple(parts), position + 1


def _closing_parenthesis(text: str, opening: int) -> int:
    depth = 0
    for position in range(opening, len(text)):
        depth += {"(": 1, ")": -1}.get(text[position], 0)
        if depth == 0:
            return position
    raise ValueError(f"unbalanced parentheses in {text[:80]!r}")
