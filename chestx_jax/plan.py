"""`python -m chestx_jax.plan`: whether a job fits a machine, what bounds it and what it costs; the machine need not be
there.

--config=configs/rl.py --topology=v5p:2x2x4 [--set mesh.tensor=4] [--programs grpo/step] [--json OUT] [--sweep]

Topologies: v5e, v6e and v5p slices by shape (v5e:4x8) or Cloud's name (v5p-64), NVIDIA cards (h100:8, h200:8, a100:8;
with several hosts h100:2x8), cpu:8, local.

--lengths prices an iteration of GRPO at the lengths of its data too, in the buckets that training pads them to: a file
of JSON lines with prompt, films and completion, or percentiles (p5/p50/p95):
prompt=330/400/680,films=1/1/2,completion=110/182/299.
"""

import pathlib
from typing import Any

from absl import flags

from chestx_jax import cli, files
from chestx_jax.planning import lengths, planner, report, sweep
from chestx_jax.planning.cost import topology
from chestx_jax.training.read_job import read_job

CONFIG = flags.DEFINE_string(
    "config", None, "the job: configs/sft.py, configs/rl.py or one with a :PRESET", required=True
)
TOPOLOGY = flags.DEFINE_string("topology", None, "v5e:4x8, v5p-64, h100:8, cpu:8, local …", required=True)
SET = flags.DEFINE_multi_string("set", [], "a field of the config: mesh.tensor=4")
PROGRAMS = flags.DEFINE_list("programs", [], "only these: sft/step, grpo/decode … (default: all that the job runs)")
JSON = flags.DEFINE_string("json", None, "file for the plan as JSON")
HLO = flags.DEFINE_string("hlo", None, "folder for the optimised HLO of each program")
LENGTHS = flags.DEFINE_string("lengths", None, f"lengths of the data: a file, or {lengths.FORM}")
SWEEP = flags.DEFINE_bool("sweep", False, "try meshes and micro-batches of the training step and rank those that fit")


def main(_: list[str]) -> None:
    job = read_job(cli.load_config(CONFIG.value, SET.value), note=print)
    machine = topology.find(TOPOLOGY.value)
    document: Any
    if SWEEP.value:
        plans = sweep.sweep(job, machine, log=print)
        print(sweep.text(plans))
        document = [report.to_json(plan) for plan in plans]
    else:
        of_data = lengths.read_lengths(LENGTHS.value) if LENGTHS.value else None
        plan = planner.plan(job, machine, PROGRAMS.value, _save_hlo, log=print)
        print(report.text(plan))
        print(report.buckets_text(job))
        document = report.to_json(plan)
        if of_data and job.grpo:
            rows = lengths.plan_lengths(job, machine, of_data, plan.programs, log=print)
            print(report.lengths_text(rows, machine.count, machine.chip.peak_flops, job.grpo.steps))
            document["at_lengths"] = report.lengths_json(rows)
    if JSON.value:
        files.write_json(JSON.value, document)


def _save_hlo(name: str, text: str) -> None:
    if HLO.value:
        files.write_text(pathlib.Path(HLO.value, f"{name.replace('/', '_')}.hlo"), text)


if __name__ == "__main__":
    cli.run(main)
