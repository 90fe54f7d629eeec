"""The programs compile for TPUs, in their budget. Needs libtpu (`pip install 'chestx-jax[tpu]'`), no TPU."""

import importlib.util
import json
import re
from dataclasses import replace

import pytest

from chestx_jax.cli import load_config
from chestx_jax.config import to_dataclass
from chestx_jax.model import qwen_vl
from chestx_jax.planning import budget
from chestx_jax.planning.cost import topology
from chestx_jax.planning.cost.roofline import cost
from chestx_jax.planning.hlo.compile import compile_program
from chestx_jax.planning.planner import Plan, plan
from chestx_jax.planning.stages import PlannedProgram
from chestx_jax.programs.job import programs
from chestx_jax.recipes import JobConfig
from chestx_jax.sharding import make_mesh
from tests.helpers import planned_job
from tests.helpers.paths import CONFIGS

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="no libtpu: pip install 'chestx-jax[tpu]' brings it"
)
ALLOWED = json.loads(planned_job.FILE.read_text())


@pytest.fixture(scope="module")
def planned():
    """Plans by topology, each made once."""
    return {}


def plan_of(planned, name) -> Plan:
    if name not in planned:
        planned[name] = plan(planned_job.JOB, topology.find(name), planned_job.NAMES[name])
    return planned[name]


@pytest.mark.parametrize("name", [name for name in planned_job.NAMES if name.startswith("v")])
def test_programs_stay_in_their_budget(planned, name):
    """HBM, FLOPs, bytes of collectives, and what is updated in place."""
    actual = json.loads(json.dumps(budget.measured(plan_of(planned, name))))
    lines = budget.differences(name, ALLOWED[name], actual)
    assert not lines, "\n".join([*lines, f"to accept it: {planned_job.ACCEPT}"])


def test_flops_are_the_analytic_count(planned):
    """Trip counts, packed rows, recomputation, shared prompts and splash attention included."""
    whole = plan_of(planned, "v5e:2x4")
    for name, program in whole.programs.items():
        if program.model_flops is None:
            continue
        ratio = program.cost.flops * whole.topology.count / program.model_flops.executed
        assert ratio == pytest.approx(1.0, abs=0.03), name


def test_scores_over_the_whole_vocabulary_never_exist(planned):
    """Of the training steps: no array holds a row's tokens by the vocabulary."""
    job = planned_job.JOB
    for name, program in plan_of(planned, "v5e:2x4").programs.items():
        if name.endswith(("/step", "/gradients")):
            most = 256 * job.model.vocab_size * 4 // job.mesh.tensor
            assert all(
                str(job.model.vocab_size) not in array.shape
                for array in program.compiled.temporaries
                if array.bytes >= most
            )


SHARED = ("mesh.fsdp=16", "mesh.tensor=2", "grpo.micro_batches=16", "grpo.optimizer.offload=True")


@pytest.mark.parametrize(
    ("config", "name", "overrides"), [("sft.py", "sft/step", ()), ("rl.py", "grpo/gradients", SHARED)]
)
def test_the_7b_training_steps_compile_for_a_small_slice(config, name, overrides):
    """The paper's recipe on 32 v5e chips of 16 GB: it fits, runs the FLOPs that it should, and updates its weights in
    place."""
    job = to_dataclass(JobConfig, load_config(str(CONFIGS / config), overrides))
    on_slice = plan(job, topology.find("v5e:4x8"), [name])
    program = on_slice.programs[name]
    assert program.fits, on_slice.advice
    assert program.cost.flops * on_slice.topology.count == pytest.approx(program.model_flops.executed, rel=0.03)
    updated = {"sft/step": "state.params", "grpo/gradients": "total.params"}[name]
    copied = [x.name for x in program.compiled.arguments if updated in x.name and not x.reused and x.bytes > 1e6]
    assert copied == []


def test_decoding_cuts_nothing_out_of_a_stack():
    """At each token no layer's weights, keys or values are sliced out of a stacked array."""
    texts: dict[str, str] = {}
    plan(planned_job.JOB, topology.find("v5e:2x4"), ["grpo/decode"], texts.__setitem__)
    elements = planned_job.cut_in_loops(texts["grpo/decode"])
    assert all(count < planned_job.JOB.model.head_width for count in elements), elements


def test_a_missing_constraint_is_named(planned, monkeypatch):
    """Activations placed by the compiler: the message names the program and the arrays that are moved."""
    monkeypatch.setattr(qwen_vl, "constrain", lambda x, *axes: x)
    unconstrained = plan(planned_job.JOB, topology.find("v5e:2x4"), ["sft/step"])
    allowed = {"sft/step": ALLOWED["v5e:2x4"]["sft/step"]}
    lines = budget.differences("v5e:2x4", allowed, budget.measured(unconstrained))
    assert any(re.search(r"sft/step: all-to-all .*\w+\[[\d,]+\] of ", line) for line in lines), lines


def test_a_missing_donation_is_named(planned):
    """A train state that is not donated: the message names the program and the array."""
    machine = topology.find("v5e:2x4")
    mesh = make_mesh(planned_job.JOB.mesh, machine.devices)
    program = replace(programs(planned_job.JOB, mesh)["sft/step"], donated=())
    compiled = compile_program("sft/step", program)
    priced = cost(compiled.schedule, machine.placement(mesh))
    changed = replace(plan_of(planned, "v5e:2x4"), programs={"sft/step": PlannedProgram(compiled, priced, None, True)})
    lines = budget.differences("v5e:2x4", {"sft/step": ALLOWED["v5e:2x4"]["sft/step"]}, budget.measured(changed))
    assert any("sft/step" in line and "embedding" in line and "in place" in line for line in lines), lines
