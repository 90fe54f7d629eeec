"""FLOPs of an instruction, counted as matrix units do: two for every multiply and add of a product, nothing else."""

import re

import numpy as np

from chestx_jax.planning.hlo.parse import Array, Computation, Instruction, Module, leaves


def instruction_flops(module: Module, computation: Computation, instruction: Instruction) -> float:
    """FLOPs of the matrix products of an instruction, those within a fusion or a kernel included."""
    if instruction.opcode == "fusion":
        fused = module.fused(instruction)
        return sum(instruction_flops(module, fused, part) for part in fused.instructions.values())
    operands = computation.operand_arrays(instruction)
    if instruction.opcode == "custom-call":
        return _kernel_flops(instruction, operands)
    if instruction.opcode == "dot":
        return _dot_flops(instruction, operands[0])
    if instruction.opcode == "convolution":  # XLA writes some matrix products so
        return _convolution_flops(instruction, operands)
    return 0.0


def _kernel_flops(instruction: Instruction, operands: list[Array]) -> float:
    """FLOPs of a kernel that is not XLA's own: a product of cuBLAS, attention, or what it declares."""
    if instruction.target.startswith("__cublas"):
        contracted = re.search(r'"lhs_contracting_dimensions":\["?([\d",]*?)"?\]', instruction.attributes)
        axes = [int(axis) for axis in re.findall(r"\d+", contracted.group(1))] if contracted else []
        return _product_flops(next(leaves(instruction.shape)), operands[0], axes)
    if instruction.target.startswith("__cudnn$fmha"):
        return _fused_attention_flops(instruction, operands)
    declared = re.search(r'"cost_estimate":\{"flops":"?(\d+)', instruction.attributes)
    return float(declared.group(1)) if declared else _pallas_attention_flops(instruction, operands)


def _fused_attention_flops(instruction: Instruction, operands: list[Array]) -> float:
    """FLOPs of cuDNN's fused attention over the whole score matrix, half of it where the kernel is told that it is
    causal: two products forward, five backward. Queries and keys are [B, L, H, E]."""
    queries, keys = operands[:2]
    products = 5 if instruction.target.endswith("Backward") else 2
    share = 0.5 if re.search(r'"mask_type":"\w*CAUSAL', instruction.attributes) else 1.0
    return products * 2.0 * queries.size * keys.dims[1] * share


def _pallas_attention_flops(instruction: Instruction, operands: list[Array]) -> float:
    """FLOPs of Pallas' attention kernels, which declare none, over the share of the score matrix that their scope gives
    (`chestx_jax.model`): two products forward; backward five of splash's, seven of the Triton kernel's. 0 for other
    kernels."""
    share = re.search(r"attention_share_([\d.]+)", instruction.scope)
    floats = [array for array in operands if array.dtype in ("bf16", "f16", "f32")]
    if not share or len(floats) < 2 or "mha_preprocess" in instruction.scope:
        return 0.0
    queries, keys = floats[:2]
    triton = "/mha_" in instruction.scope
    products = 7 if "/mha_backward" in instruction.scope else 5 if "_dkv" in instruction.name else 2
    return products * 2.0 * queries.size * keys.dims[1 if triton else -2] * float(share.group(1))


def _dot_flops(instruction: Instruction, left: Array) -> float:
    contracted = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", instruction.attributes)
    axes = [int(axis) for axis in contracted.group(1).split(",") if axis] if contracted else []
    assert isinstance(instruction.shape, Array)
    return _product_flops(instruction.shape, left, axes)


def _product_flops(result: Array, left: Array, contracted: list[int]) -> float:
    return 2.0 * result.size * float(np.prod([left.dims[axis] for axis in contracted]))


def _convolution_flops(instruction: Instruction, operands: list[Array]) -> float:
    """Counts only where kernel and input overlap: the compiler writes batched products as dilated convolutions, most
    of whose places hold no value (the rule of XLA's own HloCostAnalysis)."""
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", instruction.attributes)
    assert labels
    assert isinstance(instruction.shape, Array)
    data, kernel, out = labels.groups()
    windows = _windows(instruction.attributes, sum(letter.isdigit() for letter in data))
    overlaps = 1.0
    for axis, window in enumerate(windows):
        letter = str(axis)
        overlaps *= _overlaps(
            operands[0].dims[data.index(letter)],
            operands[1].dims[kernel.index(letter)],
            instruction.shape.dims[out.index(letter)],
            window,
        )
    groups = re.search(r"batch_group_count=(\d+)", instruction.attributes)
    batch = instruction.shape.dims[out.index("b")]
    features = instruction.shape.dims[out.index("f")]
    inputs = operands[1].dims[kernel.index("i")]
    shared = operands[0].dims[data.index("b")] / batch if groups else 1.0
    return 2.0 * batch * features * inputs * overlaps * (shared / int(groups.group(1)) if groups else 1.0)


def _windows(attributes: str, count: int) -> list[dict[str, tuple[int, ...]]]:
    """Per spatial axis: stride, padding, dilation of input and kernel."""
    window = re.search(r"window=\{([^}]*)\}", attributes)
    if not count:
        return []
    fields = dict(part.split("=") for part in window.group(1).split()) if window else {}
    numbers = lambda key, default: [  # noqa: E731
        tuple(int(n) for n in part.split("_")) for part in fields.get(key, "x".join([default] * count)).split("x")
    ]
    keys = (("stride", "1"), ("pad", "0_0"), ("lhs_dilate", "1"), ("rhs_dilate", "1"))
    columns = {key: numbers(key, default) for key, default in keys}
    return [{key: columns[key][axis] for key in columns} for axis in range(count)]


def _overlaps(size: int, kernel: int, out: int, window: dict[str, tuple[int, ...]]) -> float:
    """Pairs of an output place and a kernel place whose input place holds a value, along one axis."""
    ((stride,), (low, _), (spread,), (dilation,)) = (
        window[key] for key in ("stride", "pad", "lhs_dilate", "rhs_dilate")
    )
    places = np.arange(out)[:, None] * stride - low + np.arange(kernel)[None] * dilation
    inside = (places >= 0) & (places <= (size - 1) * spread) & (places % spread == 0)
    return float(inside.sum())
