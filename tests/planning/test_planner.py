"""A plan agrees with the analytic count; advice and errors name what helps."""

import json
from dataclasses import replace

import pytest

from chestx_jax.config import to_dataclass
from chestx_jax.errors import UserError
from chestx_jax.planning import budget, planner, report, sweep
from chestx_jax.planning.advice import advice
from chestx_jax.planning.cost import topology
from chestx_jax.planning.hlo import compile
from chestx_jax.planning.stages import PlannedProgram
from chestx_jax.programs.batches import uneven_batches
from chestx_jax.programs.job import programs
from chestx_jax.recipes import EvaluationConfig, JobConfig
from chestx_jax.sharding import MeshConfig, make_mesh
from configs import rl, sft
from tests.helpers import mesh_run
from tests.helpers.tiny_models import tiny


def test_the_analytic_count_has_deepstack():
    """The mergers of its features; a decoder whose heads are wider than its width."""
    model = tiny("qwen3_vl", head_width=32, width=48, layers=3)
    model = replace(model, vision=replace(model.vision, patch_size=14))
    job, machine = replace(mesh_run.JOB, mesh=MeshConfig(1, 4, 1), model=model), topology.find("cpu:4", cores=2)
    program = planner.plan(job, machine, ["sft/validate"]).programs["sft/validate"]
    assert program.cost.flops * 4 == pytest.approx(program.model_flops.executed, rel=0.01)


def test_a_tiny_step_agrees_with_the_analytic_count():
    """Micro-batches and films, forward and backward, compiled for the CPU."""
    job, machine = replace(mesh_run.JOB, mesh=MeshConfig(1, 4, 1)), topology.find("cpu:4", cores=2)
    plan = planner.plan(job, machine, ["sft/step"])
    program = plan.programs["sft/step"]
    assert program.cost.flops * 4 == pytest.approx(program.model_flops.executed, rel=0.03)
    assert program.model_flops.useful < program.model_flops.executed
    assert program.compiled.memory.peak < 2**30
    assert "sft/step" in report.text(plan)
    assert json.loads(json.dumps(report.to_json(plan)))["programs"]["sft/step"]["fits"]
    assert plan.advice == ()
    allowed = budget.measured(plan)
    assert budget.differences("cpu:8", allowed, allowed) == []
    worse = {**allowed, "sft/step": {**allowed["sft/step"], "peak": allowed["sft/step"]["peak"] / 2}}
    (line,) = budget.differences("cpu:8", worse, allowed)
    assert "sft/step" in line
    assert "peak" in line


def test_advice_for_a_rollout_names_what_helps():
    job = replace(mesh_run.JOB, mesh=MeshConfig(1, 8, 1), evaluation=EvaluationConfig())
    machine = topology.find("cpu:8", cores=2)
    memory = compile.Memory(arguments=2e9, outputs=0.0, aliased=0.0, temporaries=30e9)
    compiled = compile.Compiled("grpo/decode", memory, (), 0.0)
    program = PlannedProgram(compiled, None, None, False, 1e9)
    sentence = advice(job, program, machine.chip, {"data": 1, "fsdp": 8, "tensor": 1})
    assert sentence.startswith("grpo/decode needs 30.7 of 16.0 GiB")
    assert "grpo.rollout_tensor=2" in sentence
    assert "grpo.rollout_slots=8" in sentence
    assert "grpo.optimizer.offload=True" in sentence
    tested = replace(program, compiled=replace(compiled, name="test/weights"))
    sentence = advice(job, tested, machine.chip, {"data": 1, "fsdp": 8, "tensor": 1})
    assert "evaluation.rollout_tensor=2" in sentence
    assert "evaluation.batch" in sentence


def test_an_impossible_mesh_lists_the_sizes_that_work():
    with pytest.raises(UserError, match="an axis can be 1, 2, 4, 8"):
        planner.mesh_of(MeshConfig(1, 3, -1), topology.find("cpu:8"))


def test_a_batch_that_does_not_divide_over_the_mesh_is_one_sentence():
    """As in training: both take their programs from one place."""
    job = replace(mesh_run.JOB, mesh=MeshConfig(8, 1, 1))
    sentence = (
        r"^config\.init\.batch is 8 in 2 parts, which does not divide over 8 devices .*: set config\.init\.batch and "
        r"config\.init\.micro_batches so that each part is a multiple of 8; config\.grpo\.prompts .*mesh\.tensor\.$"
    )
    with pytest.raises(UserError, match=sentence):
        planner.plan(job, topology.find("cpu:8", cores=2), ["grpo/score"])
    with pytest.raises(UserError, match=sentence):
        programs(job, make_mesh(job.mesh))


def test_the_paper_s_batches_on_meshes():
    paper = to_dataclass(JobConfig, rl.PAPER | {"init": {**sft.PAPER["init"], "batch": 32}})

    def uneven(**sizes):
        return [sentence.split()[0] for sentence in uneven_batches(paper, sizes)]

    assert uneven(data=1, fsdp=32, tensor=1) == []
    assert uneven(data=1, fsdp=64, tensor=1) == ["config.init.batch", "config.grpo.prompts"]  # 8 micro-batches of 32
    assert uneven(data=2, fsdp=16, tensor=2) == []
    assert uneven(data=1, fsdp=3, tensor=1) == ["config.init.batch", "config.grpo.prompts", "config.evaluation.batch"]


def test_a_sweep_raises_micro_batches_until_it_fits(monkeypatch):
    """With a fake planner in which one micro-batch fits on no mesh."""
    job, machine = replace(mesh_run.JOB, mesh=MeshConfig(2, 2, 2)), topology.find("cpu:8", cores=2)
    template = planner.plan(job, machine, ["grpo/score"])
    program = template.programs["grpo/score"]

    def fake_plan(candidate, _, names):
        fitting = replace(program, fits=candidate.grpo.micro_batches >= 2)
        return replace(template, programs={names[0]: fitting}, sizes=vars(candidate.mesh))

    monkeypatch.setattr(sweep, "plan", fake_plan)
    plans = sweep.sweep(job, machine, log=lambda line: None)
    fitting = [plan.programs["grpo/gradients"].fits for plan in plans]
    assert any(fitting)
    assert fitting == sorted(fitting, reverse=True)
    assert len({tuple(plan.sizes.values()) for plan in plans}) > 1
    assert "| grpo/gradients |" in sweep.text(plans)
