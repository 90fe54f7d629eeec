"""What a plan counts: loops multiplied out, FLOPs by hand, bytes on links, and one sentence for what is wrong."""

import json
import math
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chestx_jax.errors import UserError
from chestx_jax.planning import budget, planner, report, sweep
from chestx_jax.planning.advice import advice
from chestx_jax.planning.cost import chips, interconnect, resident_memory, roofline, topology
from chestx_jax.planning.hlo import compile, parse
from chestx_jax.planning.hlo.schedule import Collective, walk
from chestx_jax.planning.stages import Planned, stages
from chestx_jax.programs.job import programs
from chestx_jax.sharding import MeshConfig, make_mesh
from tests.helpers import mesh_run


def counted(function, *shapes):
    """Work of a function compiled for the CPU."""
    arguments = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    return walk(parse.parse(jax.jit(function).lower(*arguments).compile().as_text()))


def flops_of(work):
    return sum(item.trips * item.flops for item in work)


@pytest.mark.parametrize(("outer", "inner"), [(3, 5), (7, 1)])
def test_loops_are_multiplied_out(outer, inner):
    """XLA's own count takes a loop's body once."""

    def looped(x, w):
        step = lambda x, w: (jnp.tanh(x @ w), None)  # noqa: E731
        again = lambda x, _: (jax.lax.scan(step, x, w)[0], None)  # noqa: E731
        return jax.lax.scan(again, x, length=outer)[0]

    assert flops_of(counted(looped, (8, 32), (inner, 32, 32))) == outer * inner * 2 * 8 * 32 * 32


def test_a_loop_that_may_end_sooner_counts_its_most():
    """As in decoding, where all completions may be done before the limit."""

    def decode(x, w):
        go_on = lambda state: (state[0] < 11) & ~jnp.all(state[1] > 1e6)  # noqa: E731
        return jax.lax.while_loop(go_on, lambda s: (s[0] + 1, s[1] @ w), (jnp.int32(1), x))[1]

    assert flops_of(counted(decode, (4, 16), (16, 16))) == 10 * 2 * 4 * 16 * 16


@given(st.integers(1, 4), st.integers(1, 6), st.integers(1, 6), st.integers(1, 6))
def test_dilated_convolutions_count_where_they_meet(batch, rows, inner, columns):
    """A batched product as the TPU compiler writes it: the batch is a spatial axis dilated apart."""
    text = f"""HloModule m

ENTRY %e (a: f32[{batch},{rows},{inner}], b: f32[{batch},{inner},{columns}]) -> f32[{batch},{rows},{columns}] {{
  %a = f32[{batch},{rows},{inner}]{{2,1,0}} parameter(0)
  %b = f32[{batch},{inner},{columns}]{{2,1,0}} parameter(1)
  ROOT %c = f32[{batch},{rows},{columns}]{{2,1,0}} convolution(%a, %b), \
window={{size={batch} stride={max(batch - 1, 1)} pad=0_0 lhs_dilate={batch}}}, dim_labels=0bf_0io->0bf
}}
"""
    assert flops_of(walk(parse.parse(text))) == 2 * batch * rows * inner * columns


def test_a_tiny_step_agrees_with_the_analytic_count():
    """Micro-batches and films, forward and backward, compiled for the CPU; what does not divide is said."""
    job, machine = replace(mesh_run.JOB, mesh=MeshConfig(1, 4, 1)), topology.find("cpu:4", cores=2)
    made = planner.plan(job, machine, ["sft/step"])
    program = made.programs["sft/step"]
    assert program.cost.flops * 4 == pytest.approx(program.expected.executed, rel=0.03)
    assert program.expected.useful < program.expected.executed
    assert program.compiled.memory.peak < 2**30
    assert "sft/step" in report.text(made)
    assert json.loads(json.dumps(report.to_json(made)))["programs"]["sft/step"]["fits"]
    assert made.advice == ()
    assert "the same rows" in planner.undivided(stages(job), {"data": 8, "fsdp": 1, "tensor": 1})[0]
    allowed = budget.measured(made)
    assert budget.differences("cpu:8", allowed, allowed) == []
    worse = {**allowed, "sft/step": {**allowed["sft/step"], "peak": allowed["sft/step"]["peak"] / 2}}
    (line,) = budget.differences("cpu:8", worse, allowed)
    assert "sft/step" in line
    assert "peak" in line


def test_a_computation_of_the_host_ends_where_it_ends():
    """What follows it is a computation of its own."""
    text = """HloModule m

%hosted (a: f32[4]) -> f32[4] {
  ROOT %a = f32[4]{0} parameter(0)
}, execution_thread="host"

%next (b: f32[4]) -> f32[4] {
  ROOT %b = f32[4]{0} parameter(0)
}

ENTRY %e (c: f32[4]) -> f32[4] {
  ROOT %c = f32[4]{0} parameter(0)
}
"""
    assert list(parse.parse(text).computations) == ["hosted", "next", "e"]


def test_an_update_in_place_writes_what_it_updates():
    """Also in a fusion that carries a piece of a running collective, whose own buffers only pass through it."""
    text = """HloModule m

%fused (p0: f32[64,8], p1: f32[8], p2: s32[]) -> (f32[64,8], f32[8]) {
  %p0 = f32[64,8]{1,0} parameter(0)
  %p1 = f32[8]{0} parameter(1)
  %p2 = s32[] parameter(2)
  %row = f32[1,8]{1,0} bitcast(%p1)
  %zero = s32[] constant(0)
  %put = f32[64,8]{1,0} dynamic-update-slice(%p0, %row, %p2, %zero)
  %mark = f32[8]{0} custom-call(%p1), custom_call_target="AsyncCollectiveDone"
  ROOT %both = (f32[64,8]{1,0}, f32[8]{0}) tuple(%put, %mark)
}

ENTRY %e (a: f32[64,8], b: f32[8], c: s32[]) -> (f32[64,8], f32[8]) {
  %a = f32[64,8]{1,0} parameter(0)
  %b = f32[8]{0} parameter(1)
  %c = s32[] parameter(2)
  ROOT %f = (f32[64,8]{1,0}, f32[8]{0}) fusion(%a, %b, %c), kind=kCustom, output_to_operand_aliasing={{1}: (1, {})}, \
calls=%fused
}
"""
    (work,) = walk(parse.parse(text))
    assert work.hbm == 8 * 4 + 4  # the row and the scalar that says where; not the 64 rows


TRANSFER = """HloModule m

ENTRY %e (a: bf16[4096,4096], b: bf16[8,4096,4096], i: s32[]) -> (bf16[4096,4096], bf16[8,4096,4096]) {
  %a = bf16[4096,4096]{1,0} parameter(0)
  %b = bf16[8,4096,4096]{2,1,0:S(5)} parameter(1)
  %i = s32[] parameter(2)
  %row = bf16[1,4096,4096]{2,1,0} bitcast(%a)
  %s = ((bf16[8,4096,4096]{2,1,0:S(5)}, bf16[1,4096,4096]{2,1,0}, s32[], s32[], s32[]), bf16[8,4096,4096]{2,1,0:S(5)}, \
u32[]{:S(2)}) dynamic-update-slice-start(%b, %row, %i, %i, %i)
  BETWEEN
  %d = bf16[8,4096,4096]{2,1,0:S(5)} dynamic-update-slice-done(%s)
  ROOT %t = (bf16[4096,4096]{1,0}, bf16[8,4096,4096]{2,1,0:S(5)}) tuple(%a, %d)
}
"""
PRODUCT = "%p{i} = bf16[4096,4096]{{1,0}} dot(%a, %a), lhs_contracting_dims={{1}}, rhs_contracting_dims={{0}}"


@pytest.mark.parametrize("products", [0, 1, 4])
def test_what_computing_leaves_of_a_transfer_to_the_host_is_waited_for(products):
    """32 MB over the host's link, of which each product covers its own time."""
    between = "\n  ".join(PRODUCT.format(i=i) for i in range(products))
    work = walk(parse.parse(TRANSFER.replace("\\\n", "").replace("BETWEEN", between)))
    assert sum(item.host for item in work) == 2 * 4096**2
    found = roofline.cost(work, slice_of(chips.V5E, 1, 1))
    link, product = 2 * 4096**2 / chips.V5E.host_rate, 2 * 4096**3 / chips.V5E.flops / 0.88
    copied = 2 * 4096**2 / chips.V5E.hbm_rate  # the read on this side
    waited = dict(found.spent)[roofline.WAITING]
    assert waited == pytest.approx(max(0.0, link - products * product), rel=1e-3)
    assert found.predicted == pytest.approx(copied + products * product + waited, rel=1e-3)


def test_memory_from_the_system_takes_its_time_where_it_is_not_kept():
    """On CPUs; a TPU's memory is its own."""
    plain, faulting = chips.cpu(1e11, 1e10), chips.cpu(1e11, 1e10, fresh_rate=2e9)
    assert roofline.cost([], slice_of(plain, 1), 4e9).predicted == 0.0
    assert roofline.cost([], slice_of(faulting, 1), 4e9).predicted == pytest.approx(2.0)


def test_what_stays_on_the_devices_beside_a_program():
    """The moments while the policy samples; the reference lies on the host here; eight devices share each part."""
    found = programs(mesh_run.JOB, make_mesh(MeshConfig(1, 8, 1)))
    held = resident_memory.layout(found, "grpo")
    assert held.host["reference"] > 0
    assert held.device["reference"] == held.host["params"] == 0
    assert held.whole["moments"] == pytest.approx(2 * held.whole["params"], rel=1e-3)
    assert held.whole["params"] / 8 <= held.device["params"] < held.whole["params"] / 4  # vectors are not split
    assert resident_memory.resident(found, "grpo/rollout") == held.device["moments"]
    assert resident_memory.resident(found, "grpo/score") == held.device["moments"] + held.device["params"]
    assert resident_memory.resident(found, "grpo/step") == resident_memory.resident(found, "test/generate") == 0


def test_advice_for_a_rollout_names_what_helps():
    job, machine = replace(mesh_run.JOB, mesh=MeshConfig(1, 8, 1)), topology.find("cpu:8", cores=2)
    memory = compile.Memory(arguments=2e9, outputs=0.0, aliased=0.0, temporaries=30e9)
    compiled = compile.Compiled("grpo/rollout", memory, (), (), (), (), (), "", 0.0)
    said = advice(job, Planned(compiled, None, None, False, 1e9), machine.chip, {"data": 1, "fsdp": 8, "tensor": 1})
    assert said.startswith("grpo/rollout needs 30.7 of 16.0 GiB")
    assert "grpo.rollout_tensor=2" in said
    assert "grpo.rollout_parts=2" in said
    assert "grpo.optimizer.offload=True" in said


GROUPS = ["{{0,1,2,3},{4,5,6,7}}", "[2,4]<=[8]", "mesh['a'=2,'b'=4] {'b'}", "mesh['a'=2,'b'=2,'c'=2] {'b','c'}"]


@pytest.mark.parametrize("text", GROUPS)
def test_groups_read_alike_in_every_spelling(text):
    assert interconnect.members(text, 8) == (0, 1, 2, 3)


def test_transposed_groups():
    assert interconnect.members("[4,2]<=[2,4]T(1,0)", 8) == interconnect.members("mesh['a'=2,'b'=4] {'a'}", 8) == (0, 4)


def slice_of(chip, *shape):
    return interconnect.Slice(chip, shape, interconnect.positions(shape), (0,) * math.prod(shape))


def test_collectives_take_what_their_links_take():
    """By hand: lines carry one way, rings both; an all-reduce is a scatter and a gather."""
    gigabyte, everyone = 1e9, "{{" + ",".join(map(str, range(32))) + "}}"
    gather = Collective("all-gather", gigabyte, everyone, False)
    flat = slice_of(chips.V5E, 4, 8)
    assert interconnect.seconds(gather, flat) == (pytest.approx(gigabyte * 31 / 32 / (2 * 45e9)), False)
    torus = slice_of(chips.V5P, 2, 4, 4)
    assert interconnect.seconds(gather, torus)[0] == pytest.approx(gigabyte * 31 / 32 / ((1 + 2 + 2) * 90e9))
    reduce = Collective("all-reduce", gigabyte, everyone, False)
    assert interconnect.seconds(reduce, flat)[0] == pytest.approx(2 * interconnect.seconds(gather, flat)[0])
    near = Collective("collective-permute", gigabyte, "{{0,1},{1,0}}", False)
    far = Collective("collective-permute", gigabyte, "{{0,7},{7,0}}", False)
    assert interconnect.seconds(far, flat)[0] == pytest.approx(7 * interconnect.seconds(near, flat)[0])


def test_hidden_collectives_cost_what_computation_leaves_over():
    text = """HloModule m

%start (p: bf16[64,64]) -> bf16[512,64] {
  %p = bf16[64,64]{1,0} parameter(0)
  %g = bf16[512,64]{1,0} all-gather(%p), channel_id=1, replica_groups={{0,1,2,3,4,5,6,7}}, dimensions={0}
  ROOT %s = bf16[512,64]{1,0} custom-call(%g), custom_call_target="AsyncCollectiveStart"
}

ENTRY %e (a: bf16[64,64]) -> bf16[512,64] {
  %a = bf16[64,64]{1,0} parameter(0)
  %big = bf16[64,64]{1,0} dot(%a, %a), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  ROOT %f = bf16[512,64]{1,0} fusion(%a), kind=kCustom, calls=%start
}
"""
    work = walk(parse.parse(text))
    found = roofline.cost(work, slice_of(chips.V5E, 2, 4))
    (gather,) = [item.collective for item in work if item.collective]
    assert gather.hidden
    assert found.interconnect == pytest.approx(512 * 64 * 2 * 7 / 8 / 90e9)
    assert found.exposed < found.interconnect
    assert found.predicted >= max(found.compute, found.memory)


@pytest.mark.parametrize("name", ["v5e:3x5", "v7:2x2", "v5p-7", "cpu:x", ""])
def test_a_wrong_topology_gets_the_right_ones(name):
    with pytest.raises(UserError, match=r"v5e:\{2x2,2x4.*v5p:.*cpu:N; local"):
        topology.find(name)


def test_an_impossible_mesh_gets_the_sizes_that_work():
    with pytest.raises(UserError, match="an axis can be 1, 2, 4, 8"):
        planner.mesh_of(MeshConfig(1, 3, -1), topology.find("cpu:8"))


def test_cloud_names_count_cores_on_v5p():
    assert topology._spelled("v5p-64") == "v5p:2x4x4"
    assert topology._spelled("v5litepod-32") == topology._spelled("v5e-32") == "v5e:4x8"


def test_every_figure_is_positive():
    for chip in (*chips.TPUS.values(), *chips.GPUS):
        assert min(chip.flops, chip.hbm_bytes, chip.hbm_rate, chip.link_rate, chip.dcn_rate, chip.host_rate) > 0
        assert chip.reserved < np.float64(0.05) * chip.hbm_bytes


def test_a_sweep_raises_micro_batches_until_it_fits(monkeypatch):
    """With a made-up compiler: two micro-batches are too few on any mesh."""
    job, machine = mesh_run.JOB, topology.find("cpu:8", cores=2)
    made = planner.plan(job, machine, ["grpo/score"])
    program = made.programs["grpo/score"]

    def pretended(tried, _, names):
        found = replace(program, fits=tried.grpo.micro_batches >= 2)
        return replace(made, programs={names[0]: found}, sizes=vars(tried.mesh))

    monkeypatch.setattr(sweep, "plan", pretended)
    plans = sweep.sweep(job, machine, tell=lambda line: None)
    fitting = [plan.programs["grpo/step"].fits for plan in plans]
    assert any(fitting)
    assert fitting == sorted(fitting, reverse=True)
    assert len({tuple(plan.sizes.values()) for plan in plans}) > 1
    assert "| grpo/step |" in sweep.text(plans)
