"""How much of a policy gradient is signal, by the reward and the credit assignment that it is computed from.

    python -m tests.benchmarks.credit WORKDIR [BATCHES]

WORKDIR is where a job ran: its policy after SFT and the batches of its GRPO are taken.

Each batch is sampled once and its gradient computed with each kind of advantages (on-policy, so the gradient is linear
in the advantages). Prints the power of the gradient's mean over the power of its noise, both without bias from products
of different batches' gradients, and the cosine of its mean with that of the process reward by sequence.
"""

import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from chestx_jax import sharding
from chestx_jax.config import to_dataclass
from chestx_jax.eval.report.tables import aligned
from chestx_jax.recipes import JobConfig
from chestx_jax.rollout.loop import sample_rollout
from chestx_jax.training.run_context import make_context
from chestx_jax.update.advantages import AdvantageConfig, group_advantages, token_advantages
from chestx_jax.update.logprobs import completion_stats

KINDS = (
    "accuracy, by sequence",
    "process, by sequence",
    "process, by step",
    "whole reward, by sequence",
    "the job's own",
)
PROCESS = KINDS.index("process, by sequence")


def advantages_by_kind(stage, scores, job_advantages_BxL):
    """The advantages of each kind [W, B, L]: rewards less the group's mean, over its standard deviation."""
    group, shape = stage.sampling.group, scores.steps.value.shape

    def by_sequence(reward_B):
        advantages_B = group_advantages(reward_B, group, AdvantageConfig())[0]
        return jnp.broadcast_to(advantages_B[:, None], shape)

    zeros_B, steps_only = jnp.zeros_like(scores.sequence), AdvantageConfig(step_weight=1.0)
    return jnp.stack(
        [
            by_sequence(scores.terms["accuracy"]),
            by_sequence(scores.terms["process"]),
            token_advantages(zeros_B, scores.steps, group, steps_only)[0],
            by_sequence(scores.sequence),
            job_advantages_BxL,
        ]
    )


def gradients(workdir: Path, batches: int):
    """Gradients [W, parameters] of each batch in turn."""
    job = to_dataclass(JobConfig, json.loads((workdir / "config.json").read_text()))
    context, stage = make_context(job, workdir), job.grpo
    params = context.load_params(f"orbax:{workdir}/sft/params")
    data, tables, vocabulary = context.prompt_batches(stage), context.reward_tables(), context.vocabulary
    prompt_shardings = context.programs["grpo/prefill"].shardings["prompts"]
    target_shardings = context.programs["grpo/score"].shardings["targets"]
    sampler = context.sampler("grpo", stage.sampling, stage.rollout_slots)
    rollout_shardings = context.programs["grpo/score"].shardings["rollout"]
    advantages_of = jax.jit(lambda scores, job_advantages: advantages_by_kind(stage, scores, job_advantages))

    @jax.jit
    def gradient(params, prompts, rollout, allowed, advantages):
        written = jnp.arange(rollout.ids.shape[1])[None] < rollout.length[:, None]

        def loss(params):
            stats = completion_stats(job.model, params, prompts, rollout.ids, rollout.length, allowed, 1.0)
            return -jnp.sum(jnp.where(written, advantages * stats.logprob, 0.0)) / jnp.sum(written).astype(jnp.float32)

        return jax.grad(loss)(params)

    for number in range(batches):
        batch = next(data)
        prompts = sharding.put(batch.prompts, prompt_shardings)
        targets = sharding.put(batch.targets, target_shardings)
        rollout, _ = sample_rollout(sampler, params, prompts, vocabulary, number, rollout_shardings)
        scored = context.functions["grpo/score"](tables, targets, rollout)
        trees = [
            gradient(params, prompts, rollout, vocabulary.allowed, advantages)
            for advantages in advantages_of(scored.scores, scored.advantages)
        ]
        yield np.stack([np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)]) for tree in trees])
        print(f"batch {number + 1} of {batches}", file=sys.stderr, flush=True)


def main(workdir: Path, batches: int) -> None:
    flat = np.stack(list(gradients(workdir, batches))).reshape(batches * len(KINDS), -1)
    products = (flat @ flat.T).reshape(batches, len(KINDS), batches, len(KINDS))
    same_batch = np.einsum("iaib->ab", products)
    signal = (products.sum((0, 2)) - same_batch) / (batches * (batches - 1))  # noise cancels between batches
    noise = np.diag(same_batch) / batches - np.diag(signal)
    lines = [["advantages of", "signal / noise of a batch", "cosine with process, by sequence"]]
    for kind, name in enumerate(KINDS):
        cosine = signal[kind, PROCESS] / np.sqrt(max(signal[kind, kind] * signal[PROCESS, PROCESS], 1e-30))
        lines.append([name, f"{signal[kind, kind] / noise[kind]:.3f}", f"{cosine:.2f}"])
    print(aligned(lines))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 20)
