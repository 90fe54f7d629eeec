"""Shares of time by phase, and FLOPs of real tokens."""

import numpy as np
import pytest

from chestx_jax.planning.cost.model_flops import model_flops, real_flops
from chestx_jax.programs.program import resolve_attention
from chestx_jax.sharding import MeshConfig, make_mesh
from chestx_jax.training.speed import Phases, StepTrace, supervised_flops
from tests.helpers import mesh_run, tiny_rows


def test_shares_are_of_the_time_since_the_last_call():
    times = iter([0.0, 1.0, 3.0, 3.0, 4.0, 10.0, 11.0, 12.0, 12.0])
    phases = Phases(lambda: next(times))
    for name in ("input", "rollout"):
        with phases.phase(name):
            pass
    assert phases.shares() == pytest.approx({"time/input": 0.2, "time/rollout": 0.1})
    with phases.phase("rollout"):
        pass
    assert phases.shares() == pytest.approx({"time/rollout": 0.5})


def test_flops_of_full_rows_are_the_analytic_count():
    """Where nothing is padding, real and padded FLOPs are one number."""
    stage, mesh = mesh_run.JOB.grpo, make_mesh(MeshConfig())
    model, count = resolve_attention(mesh_run.JOB.model, mesh), stage.prompts // stage.micro_batches
    films = {stage.rows.patches: count * stage.rows.image_slots}
    prompts, completions = [stage.rows.length] * count, [[stage.sampling.length] * stage.sampling.group] * count
    for name, trained in (("grpo/reference", False), ("grpo/gradients", True)):
        padded = model_flops(name, model, stage)
        assert real_flops(model, prompts, completions, films, trained) == pytest.approx(padded.useful, rel=1e-6)
    shorter = real_flops(model, [8] * count, [[2] * stage.sampling.group] * count, {4: count}, True)
    assert shorter < padded.useful / 3


def test_a_supervised_step_counts_its_samples():
    """A packed sample attends to itself alone, so that packing changes no FLOP; a process's rows stand for all."""
    one, _, _, two = tiny_rows.prompt_examples()
    count = lambda plan, rows: supervised_flops(tiny_rows.CONFIG, tiny_rows.packed(plan, 64), rows)  # noqa: E731
    apart, together = count([[one], [two]], 2), count([[one, two]], 1)
    assert apart == pytest.approx(together)
    assert count([[one], [two]], 8) == pytest.approx(4 * apart)


def test_one_step_is_traced(tmp_path):
    trace = StepTrace(tmp_path, 2)
    for step in (1, 2, 3):
        trace.begin(step)
        trace.end(step, np.ones(3))
    assert list((tmp_path / "trace").rglob("*.xplane.pb"))
    assert list((tmp_path / "trace").rglob("perfetto_trace.json.gz"))
