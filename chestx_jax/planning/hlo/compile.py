"""A program compiled for a topology: its memory and what it runs, or why the compiler refused it."""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax

from chestx_jax.planning.hlo import parse
from chestx_jax.planning.hlo.buffers import Argument, Temporary, arguments, temporaries
from chestx_jax.planning.hlo.schedule import Work, walk
from chestx_jax.programs.job import Program


@dataclass(frozen=True)
class Memory:
    """Bytes on one device. `aliased` is what outputs reuse of donated arguments; peak = arguments + temporaries +
    outputs − aliased."""

    arguments: float
    outputs: float
    aliased: float
    temporaries: float

    @property
    def peak(self) -> float:
        return self.arguments + self.fresh

    @property
    def fresh(self) -> float:
        """What a run takes beside its arguments."""
        return self.outputs - self.aliased + self.temporaries


@dataclass(frozen=True)
class Compiled:
    """`held` is the bytes of each argument on one device, largest first; `refused` is the compiler's word, and empty
    where it made the program."""

    name: str
    memory: Memory
    work: tuple[Work, ...]
    held: tuple[tuple[str, float], ...]
    arguments: tuple[Argument, ...]
    temporaries: tuple[Temporary, ...]  # the largest
    largest: tuple[str, ...]  # what the compiler lists when it refuses
    refused: str
    seconds: float


def compile_program(name: str, program: Program, keep: Callable[[str, str], Any] | None = None) -> Compiled:
    """Compiles ahead of time; `keep(name, text)` is given the optimised HLO."""
    held = argument_bytes(program)
    start = time.monotonic()
    try:
        executable = program.jit().lower(*program.arguments).compile()
    except jax.errors.JaxRuntimeError as error:
        message = str(error)
        if "RESOURCE_EXHAUSTED" not in message:
            raise
        total = sum(size for _, size in held)
        needed = _used(message)
        memory = Memory(total, 0.0, 0.0, max(needed - total, 0.0))
        took = time.monotonic() - start
        return Compiled(name, memory, (), held, (), (), _listed(message), _reason(message), took)
    taken = executable.memory_analysis()
    memory = Memory(
        taken.argument_size_in_bytes,
        taken.output_size_in_bytes,
        taken.alias_size_in_bytes,
        taken.temp_size_in_bytes,
    )
    text = executable.as_text()
    if keep:
        keep(name, text)
    module = parse.parse(text)
    given, made = arguments(module, text), temporaries(module)
    return Compiled(name, memory, tuple(walk(module)), held, given, made, (), "", time.monotonic() - start)


def argument_bytes(program: Program) -> tuple[tuple[str, float], ...]:
    """Bytes of each argument on one device, largest first; a train state is told apart into its parts."""
    found: dict[str, float] = {}
    shardings = (
        jax.tree.leaves(jax.tree.broadcast(program.in_shardings, program.arguments)) if program.arguments else []
    )
    for (path, leaf), at in zip(jax.tree_util.tree_leaves_with_path(program.arguments), shardings, strict=True):
        name = _group(jax.tree_util.keystr(path))
        size = float(leaf.dtype.itemsize)
        for length in at.shard_shape(leaf.shape):
            size *= length
        found[name] = found.get(name, 0.0) + size
    return tuple(sorted(found.items(), key=lambda item: -item[1]))


def _group(path: str) -> str:
    for part in ("params", "moments", "prompts", "rollout", "reference", "images", "tokens"):
        if f".{part}" in path:
            return part
    return f"argument {path.split(']')[0].lstrip('[')}"


def _used(message: str) -> float:
    found = re.search(r"[Uu]sed ([\d.]+)([KMGT])? of|required[^()]*\(([\d.]+)([KMGT])?\)", message)
    units = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40, None: 1}
    number, unit = (found.group(1) or found.group(3), found.group(2) or found.group(4)) if found else ("0", None)
    return float(number) * units[unit]


def _reason(message: str) -> str:
    found = re.search(r"Used [\d.]+\w? of [\d.]+\w? \w+", message)
    return found.group(0) if found else message.splitlines()[0][:200]


def _listed(message: str) -> tuple[str, ...]:
    """Size, shape and origin of the allocations that the compiler lists in its refusal."""
    blocks = re.findall(r"Size: ([\d.]+\w)(.*?)(?=\n\s*={5,}|\Z)", message, re.S)
    lines = []
    for size, rest in blocks[:5]:
        shape = re.search(r"Shape: (\w+\[[\d,]*\])", rest)
        origin = re.search(r'op_name="([^"]*)"', rest)
        lines.append(f"{size} {shape.group(1) if shape else ''} {origin.group(1) if origin else ''}".strip())
    return tuple(lines)
