"""Meshes and micro-batches of a training step, tried one after the other and ranked."""

from collections.abc import Callable, Iterator
from dataclasses import replace

from chestx_jax.errors import UserError
from chestx_jax.planning.cost.chips import GIB
from chestx_jax.planning.cost.topology import Topology
from chestx_jax.planning.planner import Plan, plan
from chestx_jax.planning.report import markdown
from chestx_jax.planning.stages import stages, with_micro_batches
from chestx_jax.programs.batches import uneven_batches
from chestx_jax.recipes import EvaluationConfig, GrpoConfig, JobConfig, SftConfig
from chestx_jax.sharding import MeshConfig


def sweep(job: JobConfig, topology: Topology, log: Callable[[str], object], limit: int = 12) -> list[Plan]:
    """At most `limit` plans of the training step: for each mesh, micro-batches are raised until it fits. Plans that fit
    come first, the fastest at the top.

    Raises UserError where no mesh takes the batch.
    """
    name = _training_program(_last_trained(job))
    plans: list[Plan] = []
    fitting: set[MeshConfig] = set()
    for candidate in candidates(job, topology.count):
        mesh = candidate.mesh
        if mesh in fitting or (mesh.data > 1 and mesh.tensor > 1) or len(plans) == limit:
            continue
        log(f"mesh {mesh}, {_last_trained(candidate).micro_batches} micro-batches")
        planned = plan(candidate, topology, [name])
        plans.append(planned)
        if planned.programs[name].fits:
            fitting.add(mesh)
    if not plans:
        raise UserError(f"no mesh of {topology.count} chips takes this batch: change the batch so that it divides")
    return sorted(plans, key=lambda planned: _rank(planned, name))


def candidates(job: JobConfig, chips: int) -> Iterator[JobConfig]:
    """Jobs worth compiling: tensor axes that divide the heads, micro-batches that fill the mesh; the fewest
    micro-batches first."""
    stage = _last_trained(job)
    batch = stage.prompts if isinstance(stage, GrpoConfig) else stage.batch
    for tensor in (1, 2, 4, 8):
        if chips % tensor or job.model.heads % tensor or job.model.hidden % tensor:
            continue
        for data in (1, 2, 4, 8):
            if chips // tensor % data:
                continue
            mesh = MeshConfig(data=data, fsdp=chips // tensor // data, tensor=tensor)
            for micro in (2**power for power in range(batch.bit_length())):
                if batch % micro:
                    continue
                candidate = replace(with_micro_batches(job, micro), mesh=mesh)
                if not any(uneven_batches(candidate, vars(mesh))):
                    yield candidate


def _training_program(stage: SftConfig | GrpoConfig) -> str:
    """The program that takes nearly all of a training step."""
    return "grpo/gradients" if isinstance(stage, GrpoConfig) else f"{stage.name}/step"


def _rank(planned: Plan, name: str) -> tuple[bool, float]:
    program = planned.programs[name]
    return not program.fits, program.cost.predicted * program.runs if program.cost else program.peak


def _last_trained(job: JobConfig) -> SftConfig | GrpoConfig:
    trained = [stage for stage in stages(job).values() if not isinstance(stage, EvaluationConfig)]
    if not trained:
        raise UserError("the job trains nothing: give a config with an SFT or GRPO stage")
    return trained[-1]


def text(plans: list[Plan]) -> str:
    """The ranking as a table."""
    body = []
    for planned in plans:
        ((name, program),) = planned.programs.items()
        cost, chip = program.cost, planned.topology.chip
        row: tuple[str, ...] = (name, " × ".join(map(str, planned.sizes.values())), "yes" if program.fits else "NO")
        row += (f"{program.peak / GIB:.1f}",)
        if cost:
            row += (
                f"{cost.predicted * program.runs:.3g}",
                cost.bound,
                f"{program.mfu(planned.topology.count, chip.peak_flops):.1%}",
            )
        body.append(row if cost else (*row, "–", "–", "–"))
    return markdown(("program", "data × fsdp × tensor", "fits", "peak GiB", "predicted s", "bound", "MFU"), body)
