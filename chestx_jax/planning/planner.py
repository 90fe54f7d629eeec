"""Plans a job on a topology: every program of it compiled, counted and timed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from chestx_jax.errors import UserError, choose
from chestx_jax.planning.advice import advice, room
from chestx_jax.planning.cost.resident_memory import Layout, layout, resident
from chestx_jax.planning.cost.roofline import cost
from chestx_jax.planning.cost.topology import Topology
from chestx_jax.planning.hlo.compile import compile_program
from chestx_jax.planning.stages import Planned, Stage, expected_of, stages, step_seconds
from chestx_jax.programs.job import programs
from chestx_jax.recipes import EvaluationConfig, GrpoConfig, JobConfig
from chestx_jax.sharding import MeshConfig, make_mesh


@dataclass(frozen=True)
class Plan:
    """A job on a topology. `sizes` are the mesh's axes; `hours` are chip-hours and `layouts` the state of each training
    stage."""

    topology: Topology
    sizes: dict[str, int]
    programs: dict[str, Planned]
    steps: dict[str, float]  # predicted seconds of one step, by stage
    hours: dict[str, float]
    layouts: dict[str, Layout]
    advice: tuple[str, ...]


def plan(
    job: JobConfig,
    topology: Topology,
    names: Sequence[str] = (),
    keep: Callable[[str, str], object] | None = None,
    tell: Callable[[str], object] = lambda line: None,
) -> Plan:
    """Plans the programs called `names` (all, if empty); `keep(name, text)` gets each one's optimised HLO, and `tell`
    a line when one is done.

    Raises UserError for a mesh that does not fit the topology, with the axes that would, and for an unknown name.
    """
    mesh = mesh_of(job.mesh, topology)
    sizes = dict(mesh.shape)
    found = programs(job, mesh)
    wanted = {name: choose(found, name, "program") for name in names} or found
    place = topology.place(mesh)
    planned, said = {}, undivided(stages(job), sizes)
    for name, program in wanted.items():
        tell(f"compiling {name} for {topology.name} …")
        compiled = compile_program(name, program, keep)
        beside = resident(found, name)
        fits = not compiled.refused and compiled.memory.peak + beside <= room(topology.chip)
        priced = None if compiled.refused else cost(compiled.work, place, compiled.memory.fresh)
        planned[name] = Planned(compiled, priced, expected_of(job, name, mesh), fits, beside)
        if not fits:
            said.append(advice(job, planned[name], topology.chip, sizes))
    steps = {name: step_seconds(stage, planned) for name, stage in stages(job).items()}
    known = {name: seconds for name, seconds in steps.items() if seconds is not None}
    trained = {name: stage for name, stage in stages(job).items() if not isinstance(stage, EvaluationConfig)}
    hours = {
        name: known[name] * stage.steps * topology.count / 3600 for name, stage in trained.items() if name in known
    }
    layouts = {name: held for name in trained if (held := layout(found, name))}
    return Plan(topology, sizes, planned, known, hours, layouts, tuple(said))


def undivided(found: dict[str, Stage], sizes: dict[str, int]) -> list[str]:
    """A sentence for each stage whose rows do not divide over the mesh: chips then compute the same rows."""
    split = sizes["data"] * sizes["fsdp"]
    said = []
    for name, stage in found.items():
        rows = stage.prompts if isinstance(stage, GrpoConfig) else stage.batch
        micro = 1 if isinstance(stage, EvaluationConfig) else stage.micro_batches
        if rows % micro or (rows // micro) % split:
            kind = "prompts" if isinstance(stage, GrpoConfig) else "batch"
            said.append(
                f"{name}: {rows} rows in {micro} micro-batches do not divide over data × fsdp = {split}, so chips "
                f"compute the same rows: set {kind} and micro_batches so that each holds a multiple of {split}, or "
                "raise mesh.tensor."
            )
    return said


def mesh_of(config: MeshConfig, topology: Topology):
    """The mesh on the topology's devices.

    Raises UserError where the axes do not make their number, with the sizes that an axis can have.
    """
    try:
        return make_mesh(config, topology.devices)
    except UserError as error:
        sizes = [size for size in range(1, topology.count + 1) if topology.count % size == 0]
        raise UserError(f"{error}; on {topology.name} an axis can be {', '.join(map(str, sizes))}") from error
