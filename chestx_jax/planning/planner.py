"""Plans a job on a topology: each of its programs compiled, counted and timed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from jax.sharding import Mesh

from chestx_jax.errors import UserError, choose
from chestx_jax.planning.advice import advice, available_hbm
from chestx_jax.planning.cost.resident_memory import Layout, layout, resident_bytes
from chestx_jax.planning.cost.roofline import cost
from chestx_jax.planning.cost.topology import Topology
from chestx_jax.planning.hlo.compile import compile_program
from chestx_jax.planning.stages import PlannedProgram, program_flops, runs_per_step, stages, step_seconds
from chestx_jax.programs.job import programs
from chestx_jax.recipes import EvaluationConfig, JobConfig
from chestx_jax.sharding import MeshConfig, make_mesh


@dataclass(frozen=True)
class Plan:
    """A job on a topology."""

    topology: Topology
    sizes: dict[str, int]  # of the mesh's axes
    programs: dict[str, PlannedProgram]
    step_seconds: dict[str, float]  # predicted, by stage
    chip_hours: dict[str, float]  # by training stage
    layouts: dict[str, Layout]  # of each training stage's state
    advice: tuple[str, ...]


def plan(
    job: JobConfig,
    topology: Topology,
    names: Sequence[str] = (),
    save_hlo: Callable[[str, str], object] | None = None,
    log: Callable[[str], object] = lambda line: None,
) -> Plan:
    """Plans the programs called `names` (if empty, all that the job runs). `save_hlo(name, text)` is given the
    optimised HLO of each, and `log` a line before each.

    Raises UserError for a mesh that does not fit the topology, with the axes that would, for a batch that does not
    divide over it, and for an unknown name.
    """
    mesh = mesh_of(job.mesh, topology)
    sizes, placement = dict(mesh.shape), topology.placement(mesh)
    of_job = programs(job, mesh)
    runs_of = {name: runs_per_step(stage, mesh) for name, stage in stages(job).items()}
    runs = {name: runs_of[name.split("/")[0]][name] for name in of_job}
    chosen = {name: choose(of_job, name, "program") for name in names or of_job if names or runs[name]}
    planned: dict[str, PlannedProgram] = {}
    remarks: list[str] = []
    for name, program in chosen.items():
        log(f"compiling {name} for {topology.name} …")
        compiled = compile_program(name, program, save_hlo)
        resident = resident_bytes(of_job, name)
        fits = not compiled.refusal and compiled.memory.peak + resident <= available_hbm(topology.chip)
        priced = None if compiled.refusal else cost(compiled.schedule, placement, compiled.memory.allocated)
        planned[name] = PlannedProgram(compiled, priced, program_flops(job, name, mesh), fits, resident, runs[name])
        if not fits:
            remarks.append(advice(job, planned[name], topology.chip, sizes))
    trained = {name: stage for name, stage in stages(job).items() if not isinstance(stage, EvaluationConfig)}
    predicted = {name: step_seconds(of_stage, planned) for name, of_stage in runs_of.items()}
    seconds = {name: step for name, step in predicted.items() if step is not None}
    hours = {
        name: seconds[name] * stage.steps * topology.count / 3600 for name, stage in trained.items() if name in seconds
    }
    layouts = {name: state for name in trained if (state := layout(of_job, name))}
    return Plan(topology, sizes, planned, seconds, hours, layouts, tuple(remarks))


def mesh_of(config: MeshConfig, topology: Topology) -> Mesh:
    """The mesh on the topology's devices.

    Raises UserError where the axes do not multiply to their number, with the sizes that an axis can have.
    """
    try:
        return make_mesh(config, topology.devices)
    except UserError as error:
        sizes = [size for size in range(1, topology.count + 1) if topology.count % size == 0]
        raise UserError(f"{error}; on {topology.name} an axis can be {', '.join(map(str, sizes))}") from error
