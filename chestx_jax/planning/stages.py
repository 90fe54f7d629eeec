"""Which programs a job runs, how often, and what a step of each stage costs."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from jax.sharding import Mesh

from chestx_jax.planning.cost.model_flops import ModelFlops, model_flops
from chestx_jax.planning.cost.roofline import Cost
from chestx_jax.planning.hlo.compile import Compiled
from chestx_jax.programs.generation import WINDOW, slot_layout
from chestx_jax.programs.program import resolve_attention
from chestx_jax.recipes import EvaluationConfig, GrpoConfig, JobConfig, SftConfig, supervised_stages
from chestx_jax.rollout.schedule import STEPS, LaneShape

Stage = SftConfig | GrpoConfig | EvaluationConfig


@dataclass(frozen=True)
class PlannedProgram:
    """One program on one topology."""

    compiled: Compiled
    cost: Cost | None  # None where the compiler refused it
    model_flops: ModelFlops | None  # None where no model runs in it
    fits: bool
    resident: float = 0.0  # bytes of state on a device beside the program's own (`resident_bytes`)
    runs: float = 1.0  # in a step of its stage

    @property
    def peak(self) -> float:
        """Most bytes that a device holds while the program runs."""
        return self.compiled.memory.peak + self.resident

    def mfu(self, chips: int, peak_flops: float) -> float:
        """The share of the chips' peak FLOP/s that the model's useful FLOPs reach in the predicted time."""
        if self.cost is None or self.model_flops is None or not self.cost.predicted:
            return 0.0
        return self.model_flops.useful / (self.cost.predicted * chips * peak_flops)


def stages(job: JobConfig) -> dict[str, Stage]:
    """The job's stages in the order they run, by the first part of their programs' names."""
    ordered: dict[str, Stage] = {stage.name: stage for stage in reversed(supervised_stages(job))}
    if job.grpo is not None:
        ordered["grpo"] = job.grpo
    if job.evaluation is not None:
        ordered["test"] = job.evaluation
    return ordered


def program_flops(job: JobConfig, name: str, mesh: Mesh) -> ModelFlops | None:
    """The analytic count of the program called `name`, with the attention of the mesh's platform."""
    stage = stages(job).get(name.split("/")[0])
    layout = None if stage is None else sampling_layout(stage, mesh)
    return None if stage is None else model_flops(name, resolve_attention(job.model, mesh), stage, layout)


def sampling_layout(stage: Stage, mesh: Mesh) -> LaneShape | None:
    """The slots of a stage that samples, over all devices."""
    if isinstance(stage, GrpoConfig):
        return slot_layout(stage.prompts, stage.sampling.group, stage.rollout_slots, mesh, stage.rollout_tensor)
    if isinstance(stage, EvaluationConfig):
        return slot_layout(WINDOW * stage.batch, 1, stage.batch, mesh, stage.rollout_tensor)
    return None


def runs_per_step(stage: Stage, mesh: Mesh) -> dict[str, float]:
    """How often each program runs in one step of a stage, validation included in proportion."""
    if isinstance(stage, SftConfig):
        validations = stage.validation_batches / stage.cadence.validate if stage.validation else 0.0
        return {f"{stage.name}/step": 1.0, f"{stage.name}/validate": validations}
    layout = sampling_layout(stage, mesh)
    assert layout
    if isinstance(stage, GrpoConfig):
        parts = float(stage.parts)
        return {
            **_sampling_runs("grpo", stage.prompts, stage.sampling.group, stage.sampling.length, layout),
            "grpo/score": 1.0,
            "grpo/select": parts,
            **({"grpo/fetch": float(stage.policy.kl_weight > 0)} if stage.reference.offload else {}),
            "grpo/reference": parts if stage.policy.kl_weight else 0.0,
            "grpo/logprobs": parts if stage.needs_old_logprobs else 0.0,
            "grpo/gradients": parts * stage.updates,
            "grpo/step": float(stage.optimizer_steps),
        }
    return _sampling_runs("test", WINDOW * stage.batch, 1, stage.length, layout)


def _sampling_runs(stage: str, prompts: int, group: int, length: int, layout: LaneShape) -> dict[str, float]:
    """Of the programs that sample, where every completion has the full length."""
    turns = prompts * group / (layout.lanes * layout.width)
    return {
        f"{stage}/weights": 1.0,
        f"{stage}/prefill": prompts / layout.admitted,
        f"{stage}/decode": turns * math.ceil(length / STEPS),
    }


def step_seconds(runs_per_step: Mapping[str, float], planned: Mapping[str, PlannedProgram]) -> float | None:
    """Predicted seconds of one step, None while a program of it is not planned or was refused."""
    total = 0.0
    for name, runs in runs_per_step.items():
        if not runs:
            continue
        program = planned.get(name)
        if program is None or program.cost is None:
            return None
        total += runs * program.cost.predicted
    return total


def with_micro_batches(job: JobConfig, count: int) -> JobConfig:
    """The job whose training steps are split into `count` micro-batches.

    Raises UserError where a batch does not divide.
    """
    if job.grpo is not None:
        return replace(job, grpo=replace(job.grpo, micro_batches=count))
    if isinstance(job.init, SftConfig):
        return replace(job, init=replace(job.init, micro_batches=count))
    return job
