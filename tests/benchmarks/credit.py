"""How much of a policy gradient is signal, by what it is paid for.

    python tests/benchmarks/credit.py WORKDIR [BATCHES]

WORKDIR is where a job ran: its policy after SFT and the batches of its GRPO are taken.

Each batch is sampled once and its gradient taken for every way of paying (on-policy, so the gradient is linear in the
advantages). Prints the power of the gradient's mean over the power of its noise, both without bias from products of
different batches' gradients, and the cosine of its mean with that of the process reward paid by sequence.
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
from chestx_jax.training.run_context import make_context
from chestx_jax.training.weights import load_weights
from chestx_jax.update.advantages import AdvantageConfig, group_advantages, token_advantages
from chestx_jax.update.logprobs import completion_stats

WAYS = (
    "accuracy, by sequence",
    "process, by sequence",
    "process, by step",
    "whole reward, by sequence",
    "the job's own",
)
PROCESS = WAYS.index("process, by sequence")


def payments(stage, scores, own):
    """The advantages of each way of paying [W, B, L]: rewards less the group's mean, over its spread."""
    group, per_token = stage.sampling.group, scores.credit
    sequences = (scores.terms["accuracy"], scores.terms["process"], scores.sequence)
    paid = [
        jnp.broadcast_to(group_advantages(x, group, AdvantageConfig())[0][:, None], per_token.shape) for x in sequences
    ]
    nothing, only_steps = jnp.zeros_like(scores.sequence), AdvantageConfig(step_weight=1.0)
    steps = token_advantages(nothing, per_token, scores.credited, group, only_steps)[0]
    return jnp.stack([paid[0], paid[1], steps, paid[2], own])


def gradients(workdir: Path, batches: int):
    """Gradients [W, parameters] of each batch in turn."""
    job = to_dataclass(JobConfig, json.loads((workdir / "config.json").read_text()))
    context, stage = make_context(job, workdir), job.grpo
    params = load_weights(context, f"orbax:{workdir}/sft/params")
    data, tables, vocabulary = context.prompt_batches(stage), context.reward_tables(), context.vocabulary
    prompt_shardings = context.programs["grpo/rollout"].shardings["prompts"]
    target_shardings = context.programs["grpo/score"].shardings["targets"]
    pay = jax.jit(lambda scores, own: payments(stage, scores, own))

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
        rollout = context.functions["grpo/rollout"](params, prompts, vocabulary, jnp.int32(number))
        scored = context.functions["grpo/score"](tables, targets, rollout)
        ways = pay(scored.scores, scored.advantages)
        by_way = [gradient(params, prompts, rollout, vocabulary.allowed, way) for way in ways]
        yield np.stack([np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(one)]) for one in by_way])
        print(f"batch {number + 1} of {batches}", file=sys.stderr, flush=True)


def main(workdir: Path, batches: int) -> None:
    found = np.stack(list(gradients(workdir, batches)))
    flat = found.reshape(batches * len(WAYS), -1)
    products = (flat @ flat.T).reshape(batches, len(WAYS), batches, len(WAYS))
    own = np.einsum("iaib->ab", products)
    signal = (products.sum((0, 2)) - own) / (batches * (batches - 1))  # of different batches: the noise drops out
    noise = np.diag(own) / batches - np.diag(signal)
    lines = [["paid for", "signal / noise of a batch", "cosine with process, by sequence"]]
    for way, name in enumerate(WAYS):
        cosine = signal[way, PROCESS] / np.sqrt(max(signal[way, way] * signal[PROCESS, PROCESS], 1e-30))
        lines.append([name, f"{signal[way, way] / noise[way]:.3f}", f"{cosine:.2f}"])
    print(aligned(lines))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 20)
