"""FLOPs of one instruction, as matrix units count them: a multiply and an add for every product, nothing else."""

import re

import numpy as np

from chestx_jax.planning.hlo.parse import Array, Instruction


def product_flops(instruction: Instruction, operands: list[Array]) -> float:
    """FLOPs of a `dot` or `convolution` (XLA writes matrix products as either); 0 for any other instruction."""
    if instruction.opcode == "dot":
        return _dot(instruction, operands[0])
    if instruction.opcode == "convolution":
        return _convolution(instruction, operands)
    return 0.0


def _dot(instruction: Instruction, left: Array) -> float:
    contracted = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", instruction.attributes)
    axes = [int(axis) for axis in contracted.group(1).split(",") if axis] if contracted else []
    assert isinstance(instruction.shape, Array)
    return 2.0 * instruction.shape.size * float(np.prod([left.dims[axis] for axis in axes]))


def _convolution(instruction: Instruction, operands: list[Array]) -> float:
    """Only places where kernel and input truly meet count: the compiler lays batched products out as dilated
    convolutions in which most places meet nothing (the rule of XLA's own HloCostAnalysis)."""
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", instruction.attributes)
    assert labels
    assert isinstance(instruction.shape, Array)
    data, kernel, out = labels.groups()
    window = _window(instruction.attributes, sum(letter.isdigit() for letter in data))
    met = 1.0
    for axis, place in enumerate(window):
        letter = str(axis)
        met *= _meetings(
            operands[0].dims[data.index(letter)],
            operands[1].dims[kernel.index(letter)],
            instruction.shape.dims[out.index(letter)],
            place,
        )
    groups = re.search(r"batch_group_count=(\d+)", instruction.attributes)
    batch = instruction.shape.dims[out.index("b")]
    features = instruction.shape.dims[out.index("f")]
    inputs = operands[1].dims[kernel.index("i")]
    shared = operands[0].dims[data.index("b")] / batch if groups else 1.0
    return 2.0 * batch * features * inputs * met * (shared / int(groups.group(1)) if groups else 1.0)


def _window(attributes: str, count: int) -> list[dict[str, tuple[int, ...]]]:
    """Per spatial axis: stride, padding below, dilation of input and kernel."""
    found = re.search(r"window=\{([^}]*)\}", attributes)
    if not count:
        return []
    fields = dict(part.split("=") for part in found.group(1).split()) if found else {}
    numbers = lambda key, default: [  # noqa: E731
        tuple(int(n) for n in part.split("_")) for part in fields.get(key, "x".join([default] * count)).split("x")
    ]
    keys = (("stride", "1"), ("pad", "0_0"), ("lhs_dilate", "1"), ("rhs_dilate", "1"))
    columns = {key: numbers(key, default) for key, default in keys}
    return [{key: columns[key][axis] for key in columns} for axis in range(count)]


def _meetings(size: int, kernel: int, out: int, place: dict[str, tuple[int, ...]]) -> float:
    """Pairs of an output place and a kernel place whose input place holds a value, along one axis."""
    (stride,), (low, _), (spread,), (dilation,) = (
        place["stride"],
        place["pad"],
        place["lhs_dilate"],
        place["rhs_dilate"],
    )
    at = np.arange(out)[:, None] * stride - low + np.arange(kernel)[None] * dilation
    inside = (at >= 0) & (at <= (size - 1) * spread) & (at % spread == 0)
    return float(inside.sum())
