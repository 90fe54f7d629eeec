"""NVIDIA cards that need not be there: the description from which XLA compiles for one.

The fields are those of OpenXLA's `GpuTargetConfigProto`. Sources: the cards' data sheets and architecture whitepapers
(A100: GA100; H100 and H200: GH100, SXM form) for processors, caches and clocks; the table "Technical Specifications per
Compute Capability" of the CUDA C++ Programming Guide for the limits of a block and of a multiprocessor.
"""

import enum
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from chestx_jax.planning.cost.chips import A100, H100, H200, Chip

CUDA, CUDNN = (13, 0, 0), (9, 10, 0)  # versions of the software that a card is taken to run with


class Extension(enum.Enum):
    """Of a compute capability, by its name in the proto."""

    ACCELERATED_FEATURES = enum.auto()  # the instructions that a capability has alone, as Hopper's "9.0a"


_LIMITS = {
    "threads_per_block_limit": 1024,
    "threads_per_warp": 32,
    "threads_per_core_limit": 2048,
    "thread_dim_limit_x": 1024,
    "thread_dim_limit_y": 1024,
    "thread_dim_limit_z": 64,
    "block_dim_limit_x": 2**31 - 1,
    "block_dim_limit_y": 2**16 - 1,
    "block_dim_limit_z": 2**16 - 1,
    "registers_per_core_limit": 2**16,
    "registers_per_block_limit": 2**16,
    "shared_memory_per_block": 48 * 2**10,
    "device_address_bits": 64,
}


@dataclass(frozen=True)
class Card:
    """What the compiler asks of a card beside the figures of its chip."""

    chip: Chip
    capability: tuple[int, int]
    processors: int  # streaming multiprocessors
    lanes: int  # fp32 units of each
    shared_memory: int  # KiB of each; a block may have all but one
    l2_cache: int  # MiB
    clock: float  # GHz, boosted


CARDS = {
    "a100": Card(A100, (8, 0), processors=108, lanes=64, shared_memory=164, l2_cache=40, clock=1.41),
    "h100": Card(H100, (9, 0), processors=132, lanes=128, shared_memory=228, l2_cache=50, clock=1.98),
    "h200": Card(H200, (9, 0), processors=132, lanes=128, shared_memory=228, l2_cache=50, clock=1.98),
}


def target_config(card: Card) -> str:
    """A `GpuTargetConfigProto` in text form."""
    major, minor = card.capability
    accelerated = major >= 9
    device = {
        **_LIMITS,
        "name": card.chip.name,
        "device_vendor": "NVIDIA Corporation",
        "cuda_compute_capability": {"major": major, "minor": minor}
        | ({"feature_extension": Extension.ACCELERATED_FEATURES} if accelerated else {}),
        "platform_version": f"Compute Capability {major}.{minor}{'a' if accelerated else ''}",
        "core_count": card.processors,
        "fpus_per_core": card.lanes,
        "shared_memory_per_core": card.shared_memory * 2**10,
        "shared_memory_per_block_optin": (card.shared_memory - 1) * 2**10,
        "l2_cache_size": card.l2_cache * 2**20,
        "clock_rate_ghz": card.clock,
        "device_memory_size": int(card.chip.hbm_bytes),
        "memory_bandwidth": int(card.chip.hbm_bandwidth),
        "pcie_bandwidth": int(card.chip.host_bandwidth),
        "driver_version": _dotted(CUDA),  # without it slices of arrays stay out of CUDA graphs
        "runtime_version": _dotted(CUDA),
        "compile_time_toolkit_version": _dotted(CUDA),
        "dnn_version": _dotted(CUDNN),
    }
    numbered = lambda version: dict(zip(("major", "minor", "patch"), version, strict=True))  # noqa: E731
    target = {
        "platform_name": "CUDA",
        "device_description_str": card.chip.name,
        "gpu_device_info": device,
        "runtime_version": numbered(CUDA),
        "dnn_version_info": numbered(CUDNN),
    }
    return _text_proto(target)


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


def _text_proto(fields: Mapping[str, Any], indent: str = "") -> str:
    """A message in protobuf's text form, one field a line."""
    lines = []
    for name, value in fields.items():
        if isinstance(value, Mapping):
            lines.append(f"{indent}{name} {{\n{_text_proto(value, indent + '  ')}{indent}}}\n")
        else:
            text = value.name if isinstance(value, enum.Enum) else json.dumps(value)
            lines.append(f"{indent}{name}: {text}\n")
    return "".join(lines)
