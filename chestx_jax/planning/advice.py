"""What to change when a program does not fit, in one or two sentences."""

from chestx_jax.planning.cost.chips import GIB, Chip
from chestx_jax.planning.stages import PlannedProgram, stages
from chestx_jax.recipes import EvaluationConfig, GrpoConfig, JobConfig


def available_hbm(chip: Chip) -> float:
    """Bytes of HBM that programs may use."""
    return chip.hbm_bytes - chip.reserved_bytes


def advice(job: JobConfig, planned: PlannedProgram, chip: Chip, sizes: dict[str, int]) -> str:
    """Advice for a program that does not fit on a mesh of `sizes`; empty where it fits."""
    compiled, limit = planned.compiled, available_hbm(chip)
    if planned.peak <= limit and not compiled.refusal:
        return ""
    given = dict(compiled.argument_bytes)
    state = given["params"] + given["moments"] if "moments" in given else 0.0
    problem = f"{compiled.name} needs {planned.peak / GIB:.1f} of {limit / GIB:.1f} GiB"
    if state > 0.4 * limit:
        problem += f", of it weights and moments {state / GIB:.1f}"
        remedies = _for_state(compiled.name, sizes, 0.4 * limit / state)
    else:
        problem += f", of it temporaries {compiled.memory.temporaries / GIB:.1f}"
        if planned.resident > 0.05 * limit:
            problem += f" and other resident state {planned.resident / GIB:.1f}"
        remedies = _for_temporaries(job, compiled.name, sizes)
    return f"{problem}: {', or '.join(remedies)}."


def _for_state(name: str, sizes: dict[str, int], share: float) -> list[str]:
    stage = name.split("/")[0]
    chips = sizes["data"] * sizes["fsdp"] * sizes["tensor"]
    smaller = (
        f"keep moments in bf16 ({stage}.optimizer.moments=bfloat16) or on the host ({stage}.optimizer.offload=True)"
    )
    if sizes["data"] > 1:
        return [f"set mesh.fsdp={sizes['fsdp'] * sizes['data']} and mesh.data=1", smaller]
    return [f"take a slice of at least {_next_power_of_two(chips / share)} chips", smaller]


def _for_temporaries(job: JobConfig, name: str, sizes: dict[str, int]) -> list[str]:
    stage, _, kind = name.partition("/")
    sampling, remedies = kind in ("weights", "prefill", "decode"), []
    if kind in ("step", "gradients", "reference", "logprobs"):
        remedies.append("split the batch into more micro_batches")
        if kind in ("step", "gradients") and job.model.compute.remat not in ("layer", "offload"):
            remedies.append("set model.compute.remat=layer")
    elif sampling:
        tensor = next((size for size in (8, 4, 2) if job.model.kv_heads % size == 0 and _groups(sizes, size)), 0)
        sampled = stages(job)[stage]
        section = "evaluation" if isinstance(sampled, EvaluationConfig) else stage
        shared = getattr(sampled, "rollout_tensor", 0) or sizes["tensor"]
        if job.model.compute.decoding == "gathered" and tensor > shared:
            remedies.append(
                f"set {section}.rollout_tensor={tensor}, so that {tensor} chips share a copy of the weights"
            )
        if isinstance(sampled, GrpoConfig):
            slots = (sampled.rollout_slots or sampled.prompts * sampled.sampling.group) // 2
            remedies.append(f"set grpo.rollout_slots={slots}, so that fewer completions are sampled at a time")
            remedies.append("sample for fewer prompts")
        else:
            remedies.append("set evaluation.batch to fewer records")
    else:
        remedies.append("use fewer prompts or rows at once")
    if (sampling or kind in ("reference", "logprobs", "gradients", "validate")) and not _offloads(job, stage):
        remedies.append(f"keep moments on the host ({stage}.optimizer.offload=True)")
    if job.model.compute.head_parts < 16:
        remedies.append("set model.compute.head_parts=16, so that logits exist for a part of the vocabulary at a time")
    if not sampling and sizes["tensor"] == 1 and job.model.kv_heads % 2 == 0:
        remedies.append("set mesh.tensor=2")
    return remedies


def _offloads(job: JobConfig, name: str) -> bool:
    stage = stages(job)[name]
    return isinstance(stage, EvaluationConfig) or stage.optimizer.offload


def _groups(sizes: dict[str, int], size: int) -> bool:
    """Whether the mesh can be regrouped into copies of the weights over `size` chips (`sharding.rollout_mesh`)."""
    return size % sizes["tensor"] == 0 and sizes["fsdp"] % (size // sizes["tensor"]) == 0


def _next_power_of_two(count: float) -> int:
    size = 1
    while size < count:
        size *= 2
    return size
