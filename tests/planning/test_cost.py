"""Times and bytes by hand: collectives, host transfers, resident state; names of topologies."""

import dataclasses
import functools
import math

import jax
import numpy as np
import pytest

from chestx_jax.errors import UserError
from chestx_jax.planning.cost import chips, interconnect, resident_memory, roofline, topology
from chestx_jax.planning.cost.interconnect import collective_seconds
from chestx_jax.planning.hlo.collectives import Collective
from chestx_jax.planning.hlo.parse import parse
from chestx_jax.planning.hlo.schedule import schedule
from chestx_jax.planning.stages import runs_per_step, stages
from chestx_jax.programs.job import programs
from chestx_jax.recipes import EvaluationConfig, GrpoConfig
from chestx_jax.rollout.schedule import STEPS
from chestx_jax.sharding import MeshConfig, make_mesh
from chestx_jax.update.losses import PolicyConfig
from tests.helpers import mesh_run


def placement(chip, *shape):
    return interconnect.Placement(chip, shape, interconnect.row_major(shape), (0,) * math.prod(shape))


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
def test_the_uncovered_part_of_a_host_transfer_is_waited_for(products):
    """32 MB over the host's link, of which each product covers its own time."""
    between = "\n  ".join(PRODUCT.format(i=i) for i in range(products))
    operations = schedule(parse(TRANSFER.replace("\\\n", "").replace("BETWEEN", between)))
    assert sum(op.host_bytes for op in operations) == 2 * 4096**2
    cost = roofline.cost(operations, placement(chips.V5E, 1, 1))
    link, product = 2 * 4096**2 / chips.V5E.host_bandwidth, 2 * 4096**3 / chips.V5E.peak_flops / 0.88
    copied = 2 * 4096**2 / chips.V5E.hbm_bandwidth  # the read on this side
    waited = dict(cost.breakdown)[roofline.WAITING]
    assert waited == pytest.approx(max(0.0, link - products * product), rel=1e-3)
    assert cost.predicted == pytest.approx(copied + products * product + waited, rel=1e-3)


def test_allocation_takes_time_where_memory_is_not_kept():
    """On CPUs; a TPU keeps its memory."""
    plain, faulting = chips.cpu(1e11, 1e10), chips.cpu(1e11, 1e10, allocation_bandwidth=2e9)
    assert roofline.cost([], placement(plain, 1), 4e9).predicted == 0.0
    assert roofline.cost([], placement(faulting, 1), 4e9).predicted == pytest.approx(2.0)


def test_what_stays_on_the_devices_beside_a_program():
    """The moments while the policy samples; the reference is on the host here; eight devices share each part."""
    whole = {name: dataclasses.replace(getattr(mesh_run.JOB, name), micro_batches=1) for name in ("init", "grpo")}
    by_name = programs(dataclasses.replace(mesh_run.JOB, **whole), make_mesh(MeshConfig(1, 8, 1)))
    layout = resident_memory.layout(by_name, "grpo")
    assert layout.host["reference"] > 0
    assert layout.device["reference"] == layout.host["params"] == 0
    assert layout.total["moments"] == pytest.approx(2 * layout.total["params"], rel=1e-3)
    assert layout.total["params"] / 8 <= layout.device["params"] < layout.total["params"] / 4  # vectors are not split
    resident = functools.partial(resident_memory.resident_bytes, by_name)
    assert resident("grpo/weights") == layout.device["moments"]
    assert resident("grpo/decode") == layout.device["moments"] + layout.device["params"]
    assert resident("grpo/score") == layout.device["moments"] + layout.device["params"]
    assert resident("grpo/gradients") == layout.device["moments"]
    assert resident("grpo/step") == resident("test/decode") == 0


GROUPS = ["{{0,1,2,3},{4,5,6,7}}", "[2,4]<=[8]", "mesh['a'=2,'b'=4] {'b'}", "mesh['a'=2,'b'=2,'c'=2] {'b','c'}"]


@pytest.mark.parametrize("text", GROUPS)
def test_groups_are_read_in_every_notation(text):
    assert interconnect.replica_group(text, 8) == (0, 1, 2, 3)


def test_transposed_groups():
    for text in ("[4,2]<=[2,4]T(1,0)", "mesh['a'=2,'b'=4] {'a'}"):
        assert interconnect.replica_group(text, 8) == (0, 4)


def test_collective_times():
    """By hand: lines carry one way, rings both; an all-reduce is a scatter and a gather."""
    gigabyte, everyone = 1e9, "{{" + ",".join(map(str, range(32))) + "}}"
    gather = Collective("all-gather", gigabyte, everyone, False)
    flat = placement(chips.V5E, 4, 8)
    assert collective_seconds(gather, flat) == (pytest.approx(gigabyte * 31 / 32 / (2 * 45e9)), False)
    torus = placement(chips.V5P, 2, 4, 4)
    assert collective_seconds(gather, torus)[0] == pytest.approx(gigabyte * 31 / 32 / ((1 + 2 + 2) * 90e9))
    reduce = Collective("all-reduce", gigabyte, everyone, False)
    assert collective_seconds(reduce, flat)[0] == pytest.approx(2 * collective_seconds(gather, flat)[0])
    near = Collective("collective-permute", gigabyte, "{{0,1},{1,0}}", False)
    far = Collective("collective-permute", gigabyte, "{{0,7},{7,0}}", False)
    assert collective_seconds(far, flat)[0] == pytest.approx(7 * collective_seconds(near, flat)[0])


def test_a_switch_joins_the_cards_of_a_host_and_adapters_the_hosts():
    """By hand: one link a card, whatever the group; between hosts all of a group's adapters at once."""
    gigabyte = 1e9
    hosts = interconnect.Placement(chips.H100, (), ((),) * 16, (0,) * 8 + (1,) * 8)
    gather = lambda group: collective_seconds(Collective("all-gather", gigabyte, group, False), hosts)  # noqa: E731
    assert gather("{{0,1,2,3,4,5,6,7}}") == (pytest.approx(gigabyte * 7 / 8 / 450e9), False)
    assert gather("{{0,4},{1,5}}") == (pytest.approx(gigabyte / 2 / 450e9), False)
    assert gather("[1,16]<=[16]") == (pytest.approx(gigabyte * 15 / 16 / 450e9), True)  # NVLink is the slower here
    assert gather("{{0,1,8,9}}") == (pytest.approx(gigabyte / 2 / (2 * 50e9)), True)
    assert gather("{{0,8},{1,9}}") == (pytest.approx(gigabyte / 2 / 50e9), True)
    swap = Collective("collective-permute", gigabyte, "{{0,7},{7,0}}", False)
    assert collective_seconds(swap, hosts)[0] == pytest.approx(gigabyte / 450e9)


def test_a_kernel_takes_as_long_as_its_launch_at_least():
    lines = (
        "HloModule m",
        "ENTRY %e (a: f32[4]) -> f32[4] {",
        "  %a = f32[4] parameter(0)",
        "  ROOT %c = f32[4] copy(%a)",
    )
    text = "\n".join([*lines, "}"])
    cost = roofline.cost(schedule(parse(text)), interconnect.Placement(chips.H200, (), ((),), (0,)))
    assert cost.predicted == chips.H200.launch
    assert cost.breakdown[0] == (roofline.LAUNCHING, chips.H200.launch)


def test_asynchronous_collectives_cost_what_computation_does_not_cover():
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
    operations = schedule(parse(text))
    cost = roofline.cost(operations, placement(chips.V5E, 2, 4))
    (gather,) = [op.collective for op in operations if op.collective]
    assert gather.asynchronous
    assert cost.interconnect == pytest.approx(512 * 64 * 2 * 7 / 8 / 90e9)
    assert cost.exposed < cost.interconnect
    assert cost.predicted >= max(cost.compute, cost.memory)


@pytest.mark.parametrize("name", ["v5e:3x5", "v7:2x2", "v5p-7", "cpu:x", ""])
def test_a_wrong_topology_lists_the_right_ones(name):
    with pytest.raises(UserError, match=r"v5e:\{2x2,2x4.*v5p:.*cpu:N; local"):
        topology.find(name)


def test_cloud_names_count_cores_on_v5p():
    assert topology._shape_name("v5p-64") == "v5p:2x4x4"
    assert topology._shape_name("v5litepod-32") == topology._shape_name("v5e-32") == "v5e:4x8"


def test_every_figure_is_positive():
    for chip in (*chips.TPUS.values(), *chips.GPUS):
        bandwidths = chip.hbm_bandwidth, chip.link_bandwidth, chip.dcn_bandwidth, chip.host_bandwidth
        assert min(chip.peak_flops, chip.hbm_bytes, *bandwidths) > 0
        assert chip.reserved_bytes < np.float64(0.05) * chip.hbm_bytes


@pytest.mark.parametrize("sizes", [(1, 1, 1), (1, 4, 1), (2, 2, 2)])
def test_runs_of_the_sampling_programs_come_to_all_prompts_and_completions(sizes):
    """Of GRPO, whose prompts are all in at once, and of a test, whose slots are refilled; on any mesh."""
    job = dataclasses.replace(mesh_run.JOB, mesh=MeshConfig(*sizes), evaluation=EvaluationConfig(batch=8, length=16))
    mesh = make_mesh(job.mesh, jax.devices()[: int(np.prod(sizes))])
    of_job = programs(job, mesh)
    for name, prompts, completions, length in (
        ("grpo", job.grpo.prompts, job.grpo.prompts * job.grpo.sampling.group, job.grpo.sampling.length),
        ("test", 4 * 8, 4 * 8, 16),
    ):
        runs = runs_per_step(stages(job)[name], mesh)
        (rows,) = of_job[f"{name}/prefill"].shapes["rows"].shape
        (slots,) = of_job[f"{name}/decode"].shapes["slots"].sample_B.shape
        assert runs[f"{name}/prefill"] * rows == prompts
        assert runs[f"{name}/decode"] * slots == completions * -(-length // STEPS)


def test_a_mini_batch_has_an_optimizer_step_of_its_own():
    """And micro-batches of its own; old log-probs are taken once, whatever goes through them, where they are needed."""
    stage = GrpoConfig(prompts=24, mini_batches=3, micro_batches=2, updates=2)
    mesh = make_mesh(MeshConfig(1, 1, 1), jax.devices()[:1])
    runs = runs_per_step(stage, mesh)
    assert {name: runs[f"grpo/{name}"] for name in ("select", "reference", "logprobs", "gradients", "step")} == {
        "select": 6,
        "reference": 6,
        "logprobs": 6,
        "gradients": 12,
        "step": 6,
    }
    from_sampler = dataclasses.replace(stage, policy=PolicyConfig(old_logprobs="sampler"))
    assert runs_per_step(from_sampler, mesh)["grpo/logprobs"] == 0
