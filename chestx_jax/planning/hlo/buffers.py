"""The arrays of a compiled program by name: its arguments, which of them are updated in place, its largest
temporaries."""

import re
from dataclasses import dataclass

from chestx_jax.planning.hlo.parse import HBM, Module, leaves

_VIEWS = ("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "conditional", "call")


@dataclass(frozen=True)
class ArgumentBuffer:
    """One array that the program is given, on one device. `reused`: an output takes its memory."""

    name: str  # as the program's source calls it: state.params['embedding']
    shape: str  # bf16[152064,112]
    bytes: float
    reused: bool


@dataclass(frozen=True)
class Temporary:
    """An array that the program makes in HBM; `scope` is where its source makes it."""

    shape: str
    bytes: float
    scope: str


def arguments(module: Module, text: str) -> tuple[ArgumentBuffer, ...]:
    """The arguments in order. The first line of the module's text says which are reused."""
    header = text[: text.index("\n")]
    aliases = re.search(r"input_output_alias=\{(.*?)\}, (?:entry|allow|num|frontend|replica)", header)
    reused = {int(number) for number in re.findall(r"\}: \((\d+),", aliases.group(1))} if aliases else set()
    return tuple(
        ArgumentBuffer(parameter.scope, str(array), array.bytes, number in reused)
        for number, parameter in sorted(module.computations[module.entry].parameters.items())
        for array in leaves(parameter.shape)
    )


def temporaries(module: Module, count: int = 8) -> tuple[Temporary, ...]:
    """The `count` largest, each shape and scope once, loop bodies included."""
    largest: dict[tuple[str, str], Temporary] = {}
    fused = {part.called("calls") for c in module.computations.values() for part in c.instructions.values()}
    for name, computation in module.computations.items():
        if name in fused:
            continue
        for instruction in computation.instructions.values():
            if instruction.opcode in _VIEWS or instruction.opcode.endswith(("-done", "-update")):
                continue
            for array in leaves(instruction.shape):
                if array.space == HBM and array.bytes:
                    temporary = Temporary(str(array), array.bytes, instruction.scope)
                    largest.setdefault((temporary.shape, temporary.scope), temporary)
    return tuple(sorted(largest.values(), key=lambda temporary: -temporary.bytes)[:count])
