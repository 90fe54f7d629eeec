"""Plans a job on a topology: every program of it compiled, counted and timed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from chestx_jax.config import choose
from chestx_jax.errors import UserError
from chestx_jax.planning.advice import advice, room
from chestx_jax.planning.compiling import compile_program
from chestx_jax.planning.roofline import cost
from chestx_jax.planning.stages import Planned, Stage, expected_of, stages, step_seconds
from chestx_jax.planning.topology import Topology
from chestx_jax.programs import programs
from chestx_jax.recipes import EvaluationConfig, JobConfig
from chestx_jax.sharding import make_mesh


@dataclass(frozen=True)
class Plan:
    """A job on a topology. `sizes` are the mesh's axes; `hours` are chip-hours of each training stage."""

    topology: Topology
    sizes: dict[str, int]
    programs: dict[str, Planned]
    steps: dict[str, float]  # predicted seconds of one step, by stage
    hours: dict[str, float]
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

    Raises UserError for a mesh that does not fit the topology, a batch that does not fit the mesh, an unknown name.
    """
    mesh = make_mesh(job.mesh, topology.devices)
    sizes = dict(mesh.shape)
    check_batches(stages(job), sizes)
    found = programs(job, mesh)
    wanted = {name: choose(found, name, "program") for name in names} or found
    place = topology.place(mesh)
    planned, said = {}, []
    for name, program in wanted.items():
        tell(f"compiling {name} for {topology.name} …")
        compiled = compile_program(name, program, keep)
        fits = not compiled.refused and compiled.memory.peak <= room(topology.chip)
        planned[name] = Planned(
            compiled, None if compiled.refused else cost(compiled.work, place), expected_of(job, name), fits
        )
        if not fits:
            said.append(advice(job, compiled, topology.chip, sizes))
    steps = {name: step_seconds(stage, planned) for name, stage in stages(job).items()}
    known = {name: seconds for name, seconds in steps.items() if seconds is not None}
    trained = {name: stage for name, stage in stages(job).items() if not isinstance(stage, EvaluationConfig)}
    hours = {
        name: known[name] * stage.steps * topology.count / 3600 for name, stage in trained.items() if name in known
    }
    return Plan(topology, sizes, planned, known, hours, tuple(said))


def check_batches(found: dict[str, Stage], sizes: dict[str, int]) -> None:
    """Raises UserError where a stage's rows do not divide over the mesh: they would be computed on every chip."""
    split = sizes["data"] * sizes["fsdp"]
    for name, stage in found.items():
        rows = stage.prompts if hasattr(stage, "prompts") else stage.batch
        micro = getattr(stage, "micro_batches", 1)
        if rows % micro or (rows // micro) % split:
            kind = "prompts" if hasattr(stage, "prompts") else "batch"
            raise UserError(
                f"{name}: {rows} rows in {micro} micro-batches do not divide over data × fsdp = {split}: set {kind} "
                f"and micro_batches so that each holds a multiple of {split}, or raise mesh.tensor"
            )
