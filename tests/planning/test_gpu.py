"""The programs compile for NVIDIA cards, in their budget. Needs jax's CUDA plugin (`pip install
'chestx-jax[gpu-plan]'`), no card, driver or CUDA."""

import importlib.util
import itertools
import json
import os
import re
from dataclasses import replace

import jax
import pytest

from chestx_jax.errors import UserError
from chestx_jax.model.config import with_compute
from chestx_jax.planning import budget, report
from chestx_jax.planning.cost import topology
from chestx_jax.planning.cost.cards import CARDS, target_config
from chestx_jax.planning.hlo.compile import cache_writes_only_if_attached
from chestx_jax.planning.planner import Plan, mesh_of, plan
from chestx_jax.programs.job import programs
from chestx_jax.sharding import MeshConfig
from tests.helpers import planned_job

# The package of plugins is itself missing where none is installed.
PLUGIN = importlib.util.find_spec("jax_plugins") and importlib.util.find_spec("jax_plugins.xla_cuda13")
needs_plugin = pytest.mark.skipif(
    PLUGIN is None,
    reason="no jax-cuda13-plugin: pip install 'chestx-jax[gpu-plan]' brings it",
)
ALLOWED = json.loads(planned_job.FILE.read_text())
ONE = replace(planned_job.JOB, mesh=MeshConfig(1, 1, 1))


@pytest.fixture(scope="module")
def planned() -> Plan:
    return plan(planned_job.JOB, topology.find("h100:8"), planned_job.NAMES["h100:8"])


@needs_plugin
def test_programs_stay_in_their_budget(planned):
    """Memory, FLOPs, bytes of collectives, and what is updated in place."""
    lines = budget.differences("h100:8", ALLOWED["h100:8"], json.loads(json.dumps(budget.measured(planned))))
    assert not lines, "\n".join([*lines, f"to accept it: {planned_job.ACCEPT}"])


@needs_plugin
def test_flops_are_the_analytic_count(planned):
    for name, program in planned.programs.items():
        ratio = program.cost.flops * planned.topology.count / program.model_flops.executed
        assert ratio == pytest.approx(1.0, abs=0.03), name


@needs_plugin
def test_collectives_run_over_nvlink_in_a_host_and_over_the_network_between_hosts(planned):
    assert planned.programs["sft/step"].cost.ici > 0
    assert planned.programs["sft/step"].cost.dcn == 0
    assert "NVLink GB" in report.text(planned)
    job = replace(planned_job.JOB, mesh=MeshConfig(2, 2, 2))
    between = plan(job, topology.find("h200:2x4"), ["sft/validate"]).programs["sft/validate"].cost
    assert between.dcn > 0  # the loss is summed over both hosts
    assert between.ici > between.dcn  # weights are gathered within each


@needs_plugin
@pytest.mark.parametrize(("attention", "dense"), [("pallas", False), ("xla", True)])
def test_no_scores_or_masks_of_whole_rows_exist_with_the_kernel_for_packed_rows(attention, dense):
    """In the supervised step as it is given to the compiler: no array is [L, L]."""
    length = 384  # no width of the model's
    init = replace(ONE.init, rows=replace(ONE.init.rows, length=length))
    job = replace(ONE, init=init, model=with_compute(ONE.model, attention=attention))
    text = programs(job, mesh_of(ONE.mesh, topology.find("h200:1")))["sft/step"].lower().as_text()
    assert bool(re.search(rf"tensor<(\d+x)*{length}x(\d+x)?{length}x", text)) is dense


# A kept compilation cache may hold the program of an earlier version, which cannot be loaded without the card.
@pytest.mark.filterwarnings("ignore:Error reading persistent compilation cache entry")
@needs_plugin
def test_the_body_of_the_decode_loop_is_one_cuda_graph_that_cuts_nothing_out_of_a_stack(tmp_path):
    """As the compiler's dump of what it launches says: nothing beside the graph runs at each token."""
    program = programs(ONE, mesh_of(ONE.mesh, topology.find("h200:1")))["grpo/decode"]
    with cache_writes_only_if_attached(program):
        compiled = program.lower().compile(compiler_options={"xla_dump_to": str(tmp_path)})
    elements = planned_job.cut_in_loops(compiled.as_text())
    assert all(count < ONE.model.head_width for count in elements), elements
    assert list(tmp_path.glob("*sm_9.0a*"))  # with Hopper's own instructions, which large products need
    (dump,) = tmp_path.glob("*thunk_sequence_after_thunk_passes.txt")
    loop = dump.read_text().split("  body:\n")[1:]
    assert len(loop) == 1  # the tokens are the only loop
    body = itertools.takewhile(lambda line: line.startswith("    "), loop[0].splitlines())
    (launched,) = [line for line in body if not line.startswith("     ")]
    assert "kCommandBuffer" in launched


@pytest.mark.skipif(PLUGIN is not None, reason="the plugin is installed")
def test_without_the_plugin_one_sentence_says_how_to_get_it():
    with pytest.raises(UserError, match=rf"pip install --no-deps jax-cuda13-plugin=={jax.__version__} jax-cuda13-pjrt"):
        topology.find("h100:8")


@pytest.mark.parametrize("name", ["h100:3", "h100:0x8", "h200", "a100:2x2x2", "b300:8"])
def test_a_wrong_card_lists_the_right_ones(name):
    with pytest.raises(UserError, match=r"a100\|h100\|h200:N or HOSTSxN, where N is 1, 2, 4, 8"):
        topology.find(name)


@pytest.mark.parametrize("name", CARDS)
def test_a_card_is_described_in_full(name):
    """Braces match, and the figures are those of the table of chips."""
    text = target_config(CARDS[name])
    assert text.count("{") == text.count("}")
    assert f"device_memory_size: {CARDS[name].chip.hbm_bytes:.0f}\n" in text
    assert f'name: "{CARDS[name].chip.name}"' in text
    assert "driver_version" in text
    assert os.linesep * 2 not in text
