"""Meshes and micro-batches of a training step, tried one after the other and ranked."""

from collections.abc import Callable, Iterator
from dataclasses import replace

from chestx_jax.errors import UserError
from chestx_jax.planning.cost.chips import GIB
from chestx_jax.planning.cost.topology import Topology
from chestx_jax.planning.planner import Plan, plan, undivided
from chestx_jax.planning.report import markdown
from chestx_jax.planning.stages import stages, with_micro_batches
from chestx_jax.recipes import EvaluationConfig, GrpoConfig, JobConfig
from chestx_jax.sharding import MeshConfig


def candidates(job: JobConfig, chips: int) -> Iterator[JobConfig]:
    """Jobs worth compiling: tensor axes that divide the heads, micro-batches that fill the mesh; the fewest
    micro-batches first."""
    stage = _trained(job)
    rows = stage.prompts if isinstance(stage, GrpoConfig) else stage.batch
    for tensor in (1, 2, 4, 8):
        if chips % tensor or job.model.heads % tensor or job.model.hidden % tensor:
            continue
        for data in (1, 2, 4, 8):
            if chips // tensor % data:
                continue
            mesh = MeshConfig(data=data, fsdp=chips // tensor // data, tensor=tensor)
            sizes = {"data": data, "fsdp": mesh.fsdp, "tensor": tensor}
            for micro in (2**power for power in range(rows.bit_length())):
                if rows % micro:
                    continue
                tried = replace(with_micro_batches(job, micro), mesh=mesh)
                if not undivided({stage.name: _trained(tried)}, sizes):
                    yield tried


def sweep(
    job: JobConfig, topology: Topology, tell: Callable[[str], object], most: int = 12, wide: tuple[int, ...] = (1, 2, 4)
) -> list[Plan]:
    """Plans of the training step, at most `most` of them: per mesh micro-batches are raised until it fits. Those that
    fit come first, the quickest of them at the top.

    Raises UserError where no mesh takes the batch.
    """
    name = f"{_trained(job).name}/step"
    found: list[Plan] = []
    settled: set[MeshConfig] = set()
    for tried in candidates(job, topology.count):
        if tried.mesh in settled or (tried.mesh.data > 1 and tried.mesh.tensor > 1) or len(found) == most:
            continue
        micro = _trained(tried).micro_batches
        tell(f"mesh {tried.mesh}, {micro} micro-batches")
        planned = plan(tried, topology, [name])
        found.append(planned)
        if planned.programs[name].fits:
            settled.add(tried.mesh)
    if not found:
        raise UserError(f"no mesh of {topology.count} chips takes this batch: change the batch so that it divides")
    return sorted(found, key=lambda one: _rank(one, name))


def _rank(planned: Plan, name: str) -> tuple[bool, float]:
    program = planned.programs[name]
    return not program.fits, program.cost.predicted if program.cost else program.peak


def _trained(job: JobConfig):
    last = [stage for stage in stages(job).values() if not isinstance(stage, EvaluationConfig)]
    if not last:
        raise UserError("the job trains nothing: give a config with an SFT or GRPO stage")
    return last[-1]


def text(plans: list[Plan]) -> str:
    """The ranking as a table."""
    body = []
    for planned in plans:
        ((name, program),) = planned.programs.items()
        cost, chip = program.cost, planned.topology.chip
        row: tuple[str, ...] = (name, " × ".join(map(str, planned.sizes.values())), "yes" if program.fits else "NO")
        row += (f"{program.peak / GIB:.1f}",)
        if cost:
            row += (f"{cost.predicted:.3g}", cost.bound, f"{program.mfu(planned.topology.count, chip.flops):.1%}")
        body.append(row if cost else (*row, "–", "–", "–"))
    return markdown(("program", "data × fsdp × tensor", "fits", "peak GiB", "predicted s", "bound", "MFU"), body)
