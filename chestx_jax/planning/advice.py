"""What to change when a program does not fit, in one or two sentences."""

from chestx_jax.planning.chips import GIB, Chip
from chestx_jax.planning.compiling import Compiled
from chestx_jax.recipes import JobConfig


def room(chip: Chip) -> float:
    """Bytes of HBM that programs may use."""
    return chip.hbm_bytes - chip.reserved


def advice(job: JobConfig, compiled: Compiled, chip: Chip, sizes: dict[str, int]) -> str:
    """Advice for a program that does not fit in a mesh of `sizes`; empty where it fits."""
    peak, limit = compiled.memory.peak, room(chip)
    if peak <= limit and not compiled.refused:
        return ""
    held = dict(compiled.held)
    state = held.get("params", 0.0) + held.get("moments", 0.0)
    chips = sizes["data"] * sizes["fsdp"] * sizes["tensor"]
    said = f"{compiled.name} needs {peak / GIB:.1f} of {limit / GIB:.1f} GiB"
    ways = []
    if state > 0.4 * limit:
        said += f", of it weights and moments {state / GIB:.1f}"
        if sizes["data"] > 1:
            ways.append(f"set mesh.fsdp={sizes['fsdp'] * sizes['data']} and mesh.data=1")
        else:
            share = 0.4 * limit / state
            ways.append(f"take a slice of at least {_power_above(chips / share)} chips")
        ways.append("keep moments in bf16 (optimizer.moments=bfloat16)")
    else:
        said += f", of it temporaries {compiled.memory.temporaries / GIB:.1f}"
        if compiled.name.endswith("/step"):
            ways.append("split the batch into more micro_batches")
            if job.model.compute.remat != "layer":
                ways.append("set model.compute.remat=layer")
        else:
            ways.append("use fewer prompts or rows at once")
        if job.model.compute.head_parts < 16:
            ways.append("set model.compute.head_parts=16, so that scores exist for a part of the vocabulary at a time")
        if sizes["tensor"] == 1 and job.model.kv_heads % 2 == 0:
            ways.append("set mesh.tensor=2")
    return f"{said}: {', or '.join(ways)}."


def _power_above(count: float) -> int:
    size = 1
    while size < count:
        size *= 2
    return size
