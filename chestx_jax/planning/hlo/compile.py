"""A program compiled for a topology: its memory and its schedule, or why the compiler refused it."""

import contextlib
import math
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jax

from chestx_jax.planning.hlo.buffers import ArgumentBuffer, Temporary, arguments, temporaries
from chestx_jax.planning.hlo.parse import parse
from chestx_jax.planning.hlo.schedule import ScheduledOp, schedule
from chestx_jax.programs.program import Program


@dataclass(frozen=True)
class Memory:
    """Bytes on one device; `aliased` is what outputs reuse of donated arguments."""

    arguments: float
    outputs: float
    aliased: float
    temporaries: float

    @property
    def peak(self) -> float:
        return self.arguments + self.allocated

    @property
    def allocated(self) -> float:
        """What a run takes beside its arguments."""
        return self.outputs - self.aliased + self.temporaries


@dataclass(frozen=True)
class Compiled:
    """A compiled program. Where the compiler refused it, `refusal` is its reason and there is no schedule."""

    name: str
    memory: Memory
    argument_bytes: tuple[tuple[str, float], ...]  # on one device, by group of arguments, largest first
    seconds: float  # of compiling
    schedule: tuple[ScheduledOp, ...] = ()
    arguments: tuple[ArgumentBuffer, ...] = ()
    temporaries: tuple[Temporary, ...] = ()  # the largest
    refusal: str = ""
    allocations: tuple[str, ...] = ()  # that the compiler lists when it refuses


def compile_program(name: str, program: Program, save_hlo: Callable[[str, str], Any] | None = None) -> Compiled:
    """Compiles ahead of time; `save_hlo(name, text)` is given the optimised HLO."""
    given = argument_bytes(program)
    start = time.monotonic()
    try:
        with cache_writes_only_if_attached(program):
            executable = program.lower().compile()
    except jax.errors.JaxRuntimeError as error:
        message = str(error)
        if "RESOURCE_EXHAUSTED" not in message:
            raise
        total = sum(size for _, size in given)
        memory = Memory(total, 0.0, 0.0, max(_needed_bytes(message) - total, 0.0))
        return Compiled(
            name, memory, given, time.monotonic() - start, refusal=_reason(message), allocations=_allocations(message)
        )
    analysis = executable.memory_analysis()
    memory = Memory(
        analysis.argument_size_in_bytes,
        analysis.output_size_in_bytes,
        analysis.alias_size_in_bytes,
        analysis.temp_size_in_bytes,
    )
    text = executable.as_text()
    if save_hlo:
        save_hlo(name, text)
    module = parse(text)
    operations, inputs, largest = tuple(schedule(module)), arguments(module, text), temporaries(module)
    return Compiled(name, memory, given, time.monotonic() - start, operations, inputs, largest)


@contextlib.contextmanager
def cache_writes_only_if_attached(program: Program) -> Iterator[None]:
    """Keeps executables for devices that are not there out of jax's persistent cache, which cannot read them back."""
    setting = "jax_persistent_cache_min_compile_time_secs"
    platforms = {device.platform for s in jax.tree.leaves(program.shardings) for device in s.device_set}
    before = getattr(jax.config, setting)
    jax.config.update(setting, before if platforms <= {jax.default_backend()} else math.inf)
    try:
        yield
    finally:
        jax.config.update(setting, before)


def argument_bytes(program: Program) -> tuple[tuple[str, float], ...]:
    """Bytes of each argument on one device, largest first; a train state is divided into its parts."""
    sizes: dict[str, float] = {}
    for name, (shapes, shardings) in program.arguments.items():
        leaves = jax.tree_util.tree_leaves_with_path(shapes)
        for (path, leaf), sharding in zip(leaves, jax.tree.leaves(jax.tree.broadcast(shardings, shapes)), strict=True):
            part = _part(name, jax.tree_util.keystr(path))
            size = float(leaf.dtype.itemsize) * math.prod(sharding.shard_shape(leaf.shape))
            sizes[part] = sizes.get(part, 0.0) + size
    return tuple(sorted(sizes.items(), key=lambda item: -item[1]))


def _part(argument: str, path: str) -> str:
    parts = ("params", "moments", "prompts", "rollout", "images", "tokens")
    return next((part for part in parts if f".{part}" in path), argument)


def _needed_bytes(message: str) -> float:
    """The memory that a refusal says the program needs, in bytes; 0 where it says none."""
    match = re.search(r"[Uu]sed ([\d.]+)([KMGT])? of|required[^()]*\(([\d.]+)([KMGT])?\)", message)
    units = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40, None: 1}
    number, unit = (match.group(1) or match.group(3), match.group(2) or match.group(4)) if match else ("0", None)
    return float(number) * units[unit]


def _reason(message: str) -> str:
    match = re.search(r"Used [\d.]+\w? of [\d.]+\w? \w+", message)
    return match.group(0) if match else message.splitlines()[0][:200]


def _allocations(message: str) -> tuple[str, ...]:
    """Size, shape and origin of the allocations that the compiler lists in its refusal."""
    blocks = re.findall(r"Size: ([\d.]+\w)(.*?)(?=\n\s*={5,}|\Z)", message, re.S)
    lines = []
    for size, rest in blocks[:5]:
        shape = re.search(r"Shape: (\w+\[[\d,]*\])", rest)
        origin = re.search(r'op_name="([^"]*)"', rest)
        lines.append(f"{size} {shape.group(1) if shape else ''} {origin.group(1) if origin else ''}".strip())
    return tuple(lines)
