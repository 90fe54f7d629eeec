"""Which programs a job runs, how often, and what a stage of them costs."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from chestx_jax.errors import UserError
from chestx_jax.planning.cost.model_flops import Expected, expected
from chestx_jax.planning.cost.roofline import Cost
from chestx_jax.planning.hlo.compile import Compiled
from chestx_jax.programs.job import resolved
from chestx_jax.recipes import EvaluationConfig, GrpoConfig, JobConfig, SftConfig

Stage = SftConfig | GrpoConfig | EvaluationConfig


@dataclass(frozen=True)
class Planned:
    """One program on one topology."""

    compiled: Compiled
    cost: Cost | None  # None where the compiler refused it
    expected: Expected | None
    fits: bool
    resident: float = 0.0  # bytes that stay on a device beside the program's own (`resident`)

    @property
    def peak(self) -> float:
        """Bytes that a device holds at most while the program runs."""
        return self.compiled.memory.peak + self.resident

    def mfu(self, chips: int, peak: float) -> float:
        """Share of the chips' peak that the model's useful FLOPs would reach in the predicted time."""
        if self.cost is None or self.expected is None or not self.cost.predicted:
            return 0.0
        return self.expected.useful / (self.cost.predicted * chips * peak)


def stages(job: JobConfig) -> dict[str, Stage]:
    """The job's stages in the order they run, by the first part of their programs' names."""
    found: dict[str, Stage] = {}
    stage = job.init
    while isinstance(stage, SftConfig):
        found = {stage.name: stage, **found}
        stage = stage.init
    if job.grpo is not None:
        found["grpo"] = job.grpo
    if job.evaluation is not None:
        found["test"] = job.evaluation
    return found


def expected_of(job: JobConfig, name: str, mesh) -> Expected | None:
    """The analytic count of a program by its name, with the attention of the mesh's platform."""
    stage = stages(job).get(name.split("/")[0])
    return None if stage is None else expected(name, resolved(job.model, mesh), stage)


def repeats(stage: Stage) -> dict[str, float]:
    """How often each program runs in one step of a stage (validation, once in its cadence)."""
    if isinstance(stage, SftConfig):
        checked = stage.validation_batches / stage.cadence.validate if stage.validation else 0.0
        return {f"{stage.name}/step": 1.0, f"{stage.name}/validate": checked}
    if isinstance(stage, GrpoConfig):
        return {
            "grpo/rollout": 1.0,
            "grpo/score": 1.0,
            "grpo/reference": 1.0 if stage.policy.kl_weight else 0.0,
            "grpo/logprobs": 1.0 if stage.updates > 1 else 0.0,
            "grpo/step": float(stage.updates),
        }
    return {"test/generate": 1.0}


def step_seconds(stage: Stage, planned: Mapping[str, Planned]) -> float | None:
    """Predicted seconds of one step, None while a program of it is unknown or refused."""
    total = 0.0
    for name, times in repeats(stage).items():
        if not times:
            continue
        found = planned.get(name)
        if found is None or found.cost is None:
            return None
        total += times * found.cost.predicted
    return total


def with_micro_batches(job: JobConfig, count: int) -> JobConfig:
    """The job whose training steps are split into `count` micro-batches.

    Raises UserError where a batch does not divide.
    """
    if job.grpo is not None:
        _divides(job.grpo.prompts, count)
        return replace(job, grpo=replace(job.grpo, micro_batches=count))
    if isinstance(job.init, SftConfig):
        _divides(job.init.batch, count)
        return replace(job, init=replace(job.init, micro_batches=count))
    return job


def _divides(batch: int, count: int) -> None:
    if batch % count:
        raise UserError(f"a batch of {batch} does not split into {count} micro-batches: choose a divisor")
