"""The arrays of a compiled program by name: its arguments, which of them are updated in place, and its largest
temporaries."""

import re
from dataclasses import dataclass

from chestx_jax.planning.hlo.parse import HBM, Module, leaves

_VIEWS = ("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "conditional", "call")


@dataclass(frozen=True)
class Argument:
    """One array that the program is given, on one device. `reused`: an output takes its place."""

    name: str  # as the program's source calls it: state.params['embedding']
    shape: str  # bf16[152064,112]
    bytes: float
    reused: bool


@dataclass(frozen=True)
class Temporary:
    """An array that the program makes in HBM: `scope` is where its source makes it."""

    shape: str
    bytes: float
    scope: str


def arguments(module: Module, text: str) -> tuple[Argument, ...]:
    """The arguments in order; the head of the module's text says which are reused."""
    head = text[: text.index("\n")]
    found = re.search(r"input_output_alias=\{(.*?)\}, (?:entry|allow|num|frontend|replica)", head)
    reused = {int(number) for number in re.findall(r"\}: \((\d+),", found.group(1))} if found else set()
    entry = module.computations[module.entry]
    known = sorted(entry.parameters.items())
    return tuple(
        Argument(one.scope, array.spelled, array.bytes, number in reused)
        for number, one in known
        for array in leaves(one.shape)
    )


def temporaries(module: Module, most: int = 8) -> tuple[Temporary, ...]:
    """The largest, each shape and place once, loops' bodies included."""
    found: dict[tuple[str, str], Temporary] = {}
    fused = {part.called("calls") for c in module.computations.values() for part in c.instructions.values()}
    for name, computation in module.computations.items():
        if name in fused:
            continue
        for instruction in computation.instructions.values():
            if instruction.opcode in _VIEWS or instruction.opcode.endswith(("-done", "-update")):
                continue
            for array in leaves(instruction.shape):
                if array.space == HBM and array.bytes:
                    one = Temporary(array.spelled, array.bytes, instruction.scope)
                    found.setdefault((one.shape, one.scope), one)
    return tuple(sorted(found.values(), key=lambda one: -one.bytes)[:most])
