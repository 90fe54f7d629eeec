"""An iteration priced at the lengths of its data: the buckets are those of training."""

import json
import types
from collections import Counter
from dataclasses import replace

import jax
import numpy as np
import pytest

from chestx_jax.buckets import LengthsConfig
from chestx_jax.errors import UserError
from chestx_jax.planning import lengths, report
from chestx_jax.planning.cost import topology
from chestx_jax.planning.stages import PlannedProgram
from chestx_jax.programs.grpo import select_program
from chestx_jax.programs.job import programs
from chestx_jax.rollout.schedule import STEPS
from chestx_jax.sharding import MeshConfig, make_mesh
from chestx_jax.update.micro_batches import Bucket
from tests.helpers import mesh_run

JOB = replace(mesh_run.JOB, mesh=MeshConfig(1, 2, 1))
CPUS = topology.find("cpu:2", cores=2)
TEXT = "prompt=10/12/20,films=1/1/2,completion=2/3/7"


def test_percentiles_are_those_that_were_given():
    drawn = lengths.read_lengths("prompt=330/400/680,films=1/1/2,completion=110/182/299")
    for values, given in ((drawn.prompt, (330, 400, 680)), (drawn.completion, (110, 182, 299))):
        assert np.percentile(values, (5, 50, 95)) == pytest.approx(given, abs=1)
    assert min(drawn.films) == 1
    assert max(drawn.films) == 2


def test_a_file_gives_the_same_as_its_values(tmp_path):
    rows = [{"prompt": 9 + i, "films": 1 + i % 2, "completion": 2 + i} for i in range(5)]
    file = tmp_path / "lengths.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert lengths.read_lengths(str(file)) == lengths.Lengths((9, 10, 11, 12, 13), (1, 1, 1, 2, 2), (2, 3, 4, 5, 6))


@pytest.mark.parametrize(
    "text", ["prompt=1/2/3", "prompt=3/2/1,films=1/1/1,completion=1/2/3", "no/such/file", TEXT + ",x=1/2/3"]
)
def test_what_is_no_distribution_is_one_sentence(text):
    with pytest.raises(UserError, match="--lengths"):
        lengths.read_lengths(text)


@pytest.mark.parametrize("line", ["[1, 2]", '{"prompt": 3, "films": 1}', "{"])
def test_a_bad_file_is_one_sentence(tmp_path, line):
    file = tmp_path / "lengths.jsonl"
    file.write_text(line + "\n")
    with pytest.raises(UserError, match=r"lengths\.jsonl"):
        lengths.read_lengths(str(file))


def planned_at(job):
    """A plan of a program at the job's limits, which tells them."""
    shape = (job.grpo.rows.length, job.grpo.rows.image_slots, job.grpo.sampling.length)
    return PlannedProgram(types.SimpleNamespace(memory=types.SimpleNamespace(peak=1.0), shape=shape), None, None, True)


def test_every_micro_batch_is_priced_in_the_bucket_that_training_takes(monkeypatch):
    """With a fake planner: all runs of an iteration are there, in buckets of the stage; the longest prompts and
    completions are in the largest of them, the rollout holds every prompt, and nothing is planned twice."""
    planned = Counter()

    def fake_plan(job, machine, names, log):
        planned.update(names)
        return types.SimpleNamespace(programs=dict.fromkeys(names, planned_at(job)))

    monkeypatch.setattr(lengths, "plan", fake_plan)
    rows = lengths.plan_lengths(JOB, CPUS, lengths.read_lengths(TEXT), {"grpo/step": planned_at(JOB)})
    runs = Counter()
    for row in rows:
        runs[row.name] += row.runs
        assert row.bucket == "+".join(map(str, row.program.compiled.shape))
        if row.name == "grpo/gradients":
            sizes = [int(size) for size in row.bucket.split("+")]
            assert all(size in of for size, of in zip(sizes, JOB.grpo.buckets, strict=True))
    assert runs["grpo/gradients"] == JOB.grpo.parts * JOB.grpo.updates
    assert runs["grpo/step"] == JOB.grpo.optimizer_steps
    assert runs["grpo/decode"] == 1.0  # all at once, and none is longer than one run of the sampler
    (prefill,) = [row for row in rows if row.name == "grpo/prefill"]
    assert prefill.bucket.split("+")[0] == "32"
    assert not planned["grpo/step"]  # the job's plan has it
    assert planned["grpo/gradients"] == len({row.bucket for row in rows if row.name == "grpo/gradients"})
    assert "bucket" in report.lengths_text(rows, 2, 1e12, 10)
    assert "completions 4, 8" in report.buckets_text(JOB)


def test_slots_take_the_next_completion():
    """By hand: two slots, 3 + 1 + 1 + 1 runs of the sampler."""
    completion_B = np.array([3, 1, 1, 1]) * STEPS
    assert lengths.turns(completion_B, 2) == 3
    assert lengths.turns(completion_B, 4) == 3
    assert lengths.turns(completion_B, 1) == 6


def test_a_bucket_has_the_shapes_of_training():
    """The micro-batch that `grpo/select` cuts to a bucket is what `grpo/gradients` of that bucket is given."""
    bucket, mesh = Bucket(16, 1, 4), make_mesh(JOB.mesh, jax.devices()[:2])
    program = programs(lengths.in_bucket(JOB, bucket), mesh)["grpo/gradients"]
    select = select_program(JOB, JOB.grpo, mesh, bucket)
    cut = jax.eval_shape(select.function, *select.shapes.values())
    assert jax.tree.map(lambda x: x.shape, program.shapes["part"]) == jax.tree.map(lambda x: x.shape, cut)


def test_a_bucket_alone_pads_to_the_limit():
    job = replace(JOB, grpo=replace(JOB.grpo, lengths=LengthsConfig(rows=(32,), completions=(8,))))
    assert lengths.longest(job.grpo) == Bucket(32, 2, 8)
