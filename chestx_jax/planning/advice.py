"""What to change when a program does not fit, in one or two sentences."""

from chestx_jax.planning.cost.chips import GIB, Chip
from chestx_jax.planning.stages import Planned, stages
from chestx_jax.recipes import EvaluationConfig, JobConfig


def room(chip: Chip) -> float:
    """Bytes of HBM that programs may use."""
    return chip.hbm_bytes - chip.reserved


def advice(job: JobConfig, planned: Planned, chip: Chip, sizes: dict[str, int]) -> str:
    """Advice for a program that does not fit in a mesh of `sizes`; empty where it fits."""
    compiled, peak, limit = planned.compiled, planned.peak, room(chip)
    if peak <= limit and not compiled.refused:
        return ""
    held = dict(compiled.held)
    state = held.get("params", 0.0) + held.get("moments", 0.0)
    said = f"{compiled.name} needs {peak / GIB:.1f} of {limit / GIB:.1f} GiB"
    if state > 0.4 * limit:
        said += f", of it weights and moments {state / GIB:.1f}"
        ways = _for_state(compiled.name, sizes, 0.4 * limit / state)
    else:
        said += f", of it temporaries {compiled.memory.temporaries / GIB:.1f}"
        said += f" and what stays beside it {planned.resident / GIB:.1f}" if planned.resident > 0.05 * limit else ""
        ways = _for_the_rest(job, compiled.name, sizes)
    return f"{said}: {', or '.join(ways)}."


def _for_state(name: str, sizes: dict[str, int], share: float) -> list[str]:
    stage = name.split("/")[0]
    chips = sizes["data"] * sizes["fsdp"] * sizes["tensor"]
    ways = [
        f"keep moments in bf16 ({stage}.optimizer.moments=bfloat16) or on the host ({stage}.optimizer.offload=True)"
    ]
    if sizes["data"] > 1:
        return [f"set mesh.fsdp={sizes['fsdp'] * sizes['data']} and mesh.data=1", *ways]
    return [f"take a slice of at least {_power_above(chips / share)} chips", *ways]


def _for_the_rest(job: JobConfig, name: str, sizes: dict[str, int]) -> list[str]:
    stage, _, kind = name.partition("/")
    ways = []
    if kind == "step":
        ways.append("split the batch into more micro_batches")
        if job.model.compute.remat not in ("layer", "offload"):
            ways.append("set model.compute.remat=layer")
    elif kind in ("rollout", "generate"):
        shared = next((size for size in (8, 4, 2) if job.model.kv_heads % size == 0 and _splits(sizes, size)), 0)
        if kind == "rollout" and job.model.compute.decoding == "gathered" and shared > _shared(job, sizes):
            ways.append(f"set {stage}.rollout_tensor={shared}, so that {shared} chips share a copy of the weights")
        if kind == "rollout" and job.grpo is not None:
            parts = 2 * job.grpo.rollout_parts
            ways.append(f"set {stage}.rollout_parts={parts}, so that a part of the prompts is sampled at a time")
        ways.append("sample for fewer prompts")
    else:
        ways.append("use fewer prompts or rows at once")
    if kind in ("rollout", "reference", "logprobs", "validate") and not _offloads(job, stage):
        ways.append(f"keep moments on the host ({stage}.optimizer.offload=True)")
    if job.model.compute.head_parts < 16:
        ways.append("set model.compute.head_parts=16, so that scores exist for a part of the vocabulary at a time")
    if kind != "rollout" and sizes["tensor"] == 1 and job.model.kv_heads % 2 == 0:
        ways.append("set mesh.tensor=2")
    return ways


def _offloads(job: JobConfig, name: str) -> bool:
    stage = stages(job)[name]
    return isinstance(stage, EvaluationConfig) or stage.optimizer.offload


def _shared(job: JobConfig, sizes: dict[str, int]) -> int:
    """How many chips share the copy of the weights that samples now."""
    return (job.grpo.rollout_tensor if job.grpo else 0) or sizes["tensor"]


def _splits(sizes: dict[str, int], size: int) -> bool:
    return size % sizes["tensor"] == 0 and sizes["fsdp"] % (size // sizes["tensor"]) == 0


def _power_above(count: float) -> int:
    size = 1
    while size < count:
        size *= 2
    return size
