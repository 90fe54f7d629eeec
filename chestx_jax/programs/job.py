"""Every jitted program of a job, by name: the one place where steps are jitted.

`programs(job, mesh)` needs no weights, tokenizer or network: each program comes with the abstract arguments it will be
called with, so that it can be compiled for devices that are not there. The loops run exactly these.
"""

from dataclasses import replace

from chestx_jax.model import lora, qwen_vl
from chestx_jax.programs.batches import check_batches
from chestx_jax.programs.generation import WINDOW, generation
from chestx_jax.programs.grpo import grpo_programs
from chestx_jax.programs.program import Program, resolve_attention
from chestx_jax.programs.sft import sft_programs
from chestx_jax.recipes import JobConfig, supervised_stages
from chestx_jax.rollout.sampling import SamplingConfig


def programs(job: JobConfig, mesh) -> dict[str, Program]:
    """All programs of a job: `NAME/step` and `NAME/validate` of each supervised stage, `grpo/…` and `test/…`.

    Raises UserError where a batch does not divide over the mesh, and where adapters are asked for and have no place.
    """
    check_batches(job, mesh.shape)
    lora.check_targets(job.model, qwen_vl.shapes(job.model))
    job = replace(job, model=resolve_attention(job.model, mesh))
    by_name: dict[str, Program] = {}
    for supervised in supervised_stages(job):
        by_name |= sft_programs(job, supervised, mesh)
    if job.grpo is not None:
        by_name |= grpo_programs(job, job.grpo, mesh)
    if job.evaluation is not None:
        test = job.evaluation
        greedy = SamplingConfig(temperature=0.0, length=test.length, group=1)
        sizes, slots, tensor = WINDOW * test.batch, test.batch, test.rollout_tensor
        sample = generation(job.model, job.image, test.rows, sizes, greedy, 0, mesh, slots, tensor)
        by_name |= {f"test/{name}": program for name, program in sample.items()}
    return by_name
