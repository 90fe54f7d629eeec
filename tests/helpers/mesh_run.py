"""One supervised and one GRPO step of a tiny job on a mesh, as the loops run them.

As a command it is one process of several: `python -m tests.helpers.mesh_run PORT PROCESSES NUMBER FILE`.
"""

import sys

if __name__ == "__main__":
    import os

    os.environ.update({"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_force_host_platform_device_count=4"})

import jax
import jax.numpy as jnp
import numpy as np
import optax

from chestx_jax import sharding
from chestx_jax.buckets import LengthsConfig
from chestx_jax.programs.job import programs
from chestx_jax.programs.state import init_params, init_state
from chestx_jax.recipes import GrpoConfig, JobConfig, ReferenceConfig, SftConfig
from chestx_jax.rollout.sampling import SamplingConfig
from chestx_jax.sharding import MeshConfig
from chestx_jax.tokens.patches import ImageSpec
from chestx_jax.tokens.rows import RowsConfig
from chestx_jax.training.policy_update import PolicyUpdate
from chestx_jax.types import Rollout
from chestx_jax.update.micro_batches import Experience, Logprobs
from chestx_jax.update.optimizer import OptimizerConfig
from tests.helpers import tiny_rows
from tests.helpers.tiny_models import examples
from tests.helpers.tiny_rows import CONFIG, completions, prompt_examples, prompt_rows

LENGTH, GROUP, PROMPTS = 8, 2, 8  # tokens of a completion, completions a prompt, prompts
# Unclipped, so that the moments give the gradients. AdamW's first step moves every element by the whole rate, in the
# direction of a gradient that may be rounding alone; the rate is near the recipes', biases are off 0 (`with_biases`).
PLAIN = OptimizerConfig(rate=1e-5, schedule="constant", warmup=0.0, clip=0.0)
JOB = JobConfig(
    init=SftConfig(
        rows=RowsConfig(64, 3, 120), batch=8, micro_batches=2, steps=1, optimizer=PLAIN, z_weight=1e-4, init="random"
    ),
    grpo=GrpoConfig(
        prompts=PROMPTS,
        rows=RowsConfig(tiny_rows.LONG, tiny_rows.SLOTS, tiny_rows.PATCHES),
        sampling=SamplingConfig(length=LENGTH, group=GROUP, temperature=0.9),
        reference=ReferenceConfig("float32", offload=True),
        updates=2,
        micro_batches=2,
        lengths=LengthsConfig(rows=(10, 16), completions=(4,)),
        steps=1,
        optimizer=PLAIN,
    ),
    model=CONFIG,
    image=ImageSpec(max_pixels=6 * 28 * 28),  # no more patches than the rows hold
)


def supervised_batch():
    """Eight rows, most with several samples, with unequal numbers of target tokens."""
    kinds = examples()
    plan = [[kinds[0]], [kinds[2], kinds[3]], [kinds[3], kinds[0]], [kinds[1]]]
    return tiny_rows.rows.pack([*plan, *plan[::-1]], RowsConfig(64, 3, 120), ImageSpec())


def experience() -> tuple[Experience, Logprobs]:
    """Completions with made-up advantages and log-probs; one completion is left out of the loss."""
    rng = np.random.default_rng(7)
    ids, lengths = completions(PROMPTS * GROUP, LENGTH, seed=7)
    near = lambda: rng.normal(-5.5, 0.3, ids.shape).astype(np.float32)  # noqa: E731
    loss_mask = np.ones(len(ids), bool)
    loss_mask[3] = False
    whole = Experience(
        prompts=prompt_rows([*prompt_examples(), *prompt_examples()[::-1]]),
        rollout=Rollout(ids=ids, length=lengths, logprobs=near(), finished=np.ones(len(ids), bool)),
        advantages=rng.normal(size=ids.shape).astype(np.float32),
        loss_mask=loss_mask,
    )
    return whole, Logprobs(reference=near(), old=near())


def process_rows(tree, number: int, count: int):
    """The rows of a batch that are local to process `number` of `count`."""
    return jax.tree.map(lambda x: x[len(x) // count * number : len(x) // count * (number + 1)], tree)


def with_biases(params):
    """Fresh parameters with biases as large as trained ones: at 0 an updated bias would be its first step and no more,
    and agreement relative to its norm would ask for the sign of rounding."""
    off = lambda path, x: x + jnp.float32(0.02) if "bias" in jax.tree_util.keystr(path[-1:]) else x  # noqa: E731
    return jax.tree_util.tree_map_with_path(off, params)


def run_steps(mesh, number: int = 0, count: int = 1, job: JobConfig = JOB) -> dict[str, np.ndarray]:
    """Metrics, gradients and updated parameters of both steps, each from fresh parameters, by dotted name."""
    job_programs = programs(job, mesh)
    vocabulary = sharding.put(tiny_rows.vocabulary(), job_programs["sft/step"].shardings["vocabulary"])
    step = job_programs["sft/step"]
    batch = sharding.put(process_rows(supervised_batch(), number, count), step.shardings["batch"])
    fresh = lambda stage: init_state(job, stage, mesh).jit()(with_biases(init_params(job, 0, mesh).jit()()))  # noqa: E731
    steps = {
        "sft/step": step.jit()(fresh(job.init), batch, vocabulary),
        "grpo/step": policy_step(job, mesh, job_programs, fresh(job.grpo), vocabulary, number, count),
    }
    results = {}
    for name, (state, metrics) in steps.items():
        gradients = optax.tree.get(state.moments, "mu")
        tree = {"metrics": metrics, "gradients": gradients, "params": state.params}
        tree = jax.jit(lambda x: x, out_shardings=sharding.replicated(mesh))(tree)
        for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
            results[name + jax.tree_util.keystr(path)] = np.asarray(leaf.addressable_data(0))
    return results


def policy_step(job: JobConfig, mesh, job_programs, state, vocabulary, number: int, count: int):
    """One update from `experience`: the state after it, and its metrics."""
    functions = {name: program.jit() for name, program in job_programs.items()}
    policy = PolicyUpdate(job, job.grpo, mesh, job_programs, functions, vocabulary)
    whole, logprobs = process_rows(experience(), number, count)
    prompts, slots = policy.put_prompts(whole.prompts)
    shardings = job_programs["grpo/select"].shardings["experience"]
    put = lambda x: sharding.put(x, shardings.advantages)  # noqa: E731
    rollout, loss_mask = sharding.put((whole.rollout, whole.loss_mask), (shardings.rollout, shardings.loss_mask))
    whole = Experience(prompts, rollout, put(whole.advantages), loss_mask)
    lengths = policy.lengths(whole, slots)
    part_of = lambda x: [part.advantages for part in policy.split(whole.replace(advantages=put(x)), lengths)]  # noqa: E731
    given = map(Logprobs, part_of(logprobs.reference), part_of(logprobs.old))
    return policy.step(state, policy.split(whole, lengths), list(given))


def main(port: str, processes: str, number: str, path: str) -> None:
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(f"localhost:{port}", num_processes=int(processes), process_id=int(number))
    results = run_steps(sharding.make_mesh(MeshConfig(2, 2, 2)), int(number), int(processes))
    if number == "0":
        np.savez(path, **results)


if __name__ == "__main__":
    main(*sys.argv[1:])
