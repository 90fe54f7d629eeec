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
    """An array type; `space` is the memory it lies in."""

    dtype: str
    dims: tuple[int, ...]
    space: int = HBM

    @property
    def size(self) -> int:
        return int(np.prod(self.dims, dtype=np.int64))

    @property
    def bytes(self) -> float:
        return self.size * BITS.get(self.dtype, 0) / 8

    @property
    def spelled(self) -> str:
        """`bf16[4,128]`."""
        return f"{self.dtype}[{','.join(map(str, self.dims))}]"


Shape = Union[Array, tuple["Shape", ...]]  # noqa: UP007 - a name that names itself


def leaves(shape: Shape) -> Iterator[Array]:
    """The arrays of a type, tuples flattened."""
    if isinstance(shape, Array):
        yield shape
    else:
        for part in shape:
            yield from leaves(part)


@dataclass(frozen=True)
class Instruction:
    """`name = shape opcode(operands), attributes`. `literal` is what stands between the parentheses of a constant or
    a parameter."""

    name: str
    shape: Shape
    opcode: str
    operands: tuple[str, ...]
    literal: str
    attributes: str

    def called(self, key: str) -> str | None:
        """The computation named by an attribute such as `calls=%f`."""
        found = re.search(rf"\b{key}=%?([\w.\-]+)", self.attributes)
        return found.group(1) if found else None

    @property
    def scope(self) -> str:
        """Where the program's source made it: `jit(f)/while/body/dot_general`."""
        found = re.search(r'op_name="([^"]*)"', self.attributes)
        return found.group(1) if found else ""


@dataclass
class Computation:
    """Instructions in schedule order; the last `ROOT` is its value."""

    name: str
    instructions: dict[str, Instruction] = field(default_factory=dict)
    root: str = ""

    @cached_property
    def parameters(self) -> dict[int, Instruction]:
        return {int(x.literal): x for x in self.instructions.values() if x.opcode == "parameter"}

    @cached_property
    def users(self) -> dict[str, list[Instruction]]:
        found: dict[str, list[Instruction]] = {}
        for instruction in self.instructions.values():
            for operand in instruction.operands:
                found.setdefault(operand, []).append(instruction)
        return found


@dataclass(frozen=True)
class Module:
    """All computations by name; `entry` is where execution starts."""

    computations: dict[str, Computation]
    entry: str


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
        elif line == "}" or line.startswith("}, execution_thread="):  # the host's part of a program
            computations[current.name] = current
            current = None
        else:
            found = _INSTRUCTION.match(line)
            if found:
                instruction = _instruction(found.group(2), line[found.end() :])
                current.instructions[instruction.name] = instruction
                current.root = instruction.name if found.group(1) else current.root
            elif current.instructions:  # a kernel's metadata has line breaks of its own
                last = next(reversed(current.instructions.values()))
                current.instructions[last.name] = replace(last, attributes=f"{last.attributes}\n{line}")
    if not entry:
        raise ValueError("the text holds no ENTRY computation: is it optimised HLO?")
    return Module(computations, entry)


def _instruction(name: str, text: str) -> Instruction:
    shape, at = _shape(text, 0)
    opening = text.index("(", at)
    closing = _matching(text, opening)
    opcode, inside = text[at:opening].strip(), text[opening + 1 : closing]
    operands = tuple(re.findall(r"%([\w.\-]+)", inside)) if opcode != "constant" else ()
    return Instruction(name, shape, opcode, operands, inside, text[closing + 1 :])


def _shape(text: str, at: int) -> tuple[Shape, int]:
    """The type that starts at `at`, and where it ends."""
    if text[at] != "(":
        found = _ARRAY.match(text, at)
        if not found:
            end = text.index(" ", at)
            return (), end  # token[] and the like
        dtype, dims, layout = found.groups()
        space = re.search(r"S\((\d+)\)", layout or "")
        sizes = tuple(int(size.lstrip("<=")) for size in dims.split(",") if size)
        return Array(dtype, sizes, int(space.group(1)) if space else HBM), found.end()
    parts, at = [], at + 1
    while text[at] != ")":
        comment = re.match(r"[\s,]*(/\*.*?\*/)?\s*", text[at:])
        at += comment.end() if comment else 0
        if text[at] == ")":
            break
        part, at = _shape(text, at)
        parts.append(part)
    return tuple(parts), at + 1


def _matching(text: str, opening: int) -> int:
    depth = 0
    for at in range(opening, len(text)):
        depth += {"(": 1, ")": -1}.get(text[at], 0)
        if depth == 0:
            return at
    raise ValueError(f"unbalanced parentheses in {text[:80]!r}")
