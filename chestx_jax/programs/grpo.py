"""The programs of a GRPO stage, in the order in which a step runs them."""

import jax
import jax.numpy as jnp

from chestx_jax import sharding
from chestx_jax.findings import RewardTargets
from chestx_jax.model import lora
from chestx_jax.programs.generation import generation
from chestx_jax.programs.program import Argument, Program, batched, replicated, with_mesh
from chestx_jax.programs.shapes import (
    lexicon_table_shapes,
    prompt_shapes,
    rollout_shapes,
    target_shapes,
    vocabulary_shapes,
)
from chestx_jax.programs.state import abstract_params, abstract_reference, abstract_state, current_rate, stage_optimizer
from chestx_jax.recipes import GrpoConfig, JobConfig
from chestx_jax.rollout.sampling import Vocabulary
from chestx_jax.types import Prompts, Rollout
from chestx_jax.update.logprobs import completion_stats
from chestx_jax.update.micro_batches import Bucket, Experience, Logprobs, MicroBatch, select
from chestx_jax.update.scoring import ScoredRollout, score_rollout
from chestx_jax.update.steps import Gradients, grpo_gradients, grpo_step


def grpo_programs(job: JobConfig, stage: GrpoConfig, mesh) -> dict[str, Program]:
    """The programs of an iteration, in the order in which it runs them; those from `select` on run once for each
    micro-batch, in the bucket that holds it. Their arguments here are of the longest bucket.

    grpo/weights, grpo/prefill, grpo/decode    sample (`programs.generation`)
    grpo/score      (tables, targets, rollout) → ScoredRollout
    grpo/select     (experience, groups) → micro-batch
    grpo/fetch      (reference) → its weights on the devices, once an iteration, if they lie in the host's memory
    grpo/reference  (reference, prompts, rollout, vocabulary) → log-probs [B, L] under the reference model
    grpo/logprobs   (params, prompts, rollout, vocabulary) → log-probs [B, L] under the policy
    grpo/gradients  (params, total, part, logprobs, vocabulary) → total, with the micro-batch's gradients added
    grpo/step       (state, total) → (state, metrics)
    """
    model, transform, sampling = job.model, stage_optimizer(job.model, stage), stage.sampling
    params, state = abstract_params(model, mesh), abstract_state(model, stage, mesh)
    rollout = batched(rollout_shapes(stage.prompts * sampling.group, sampling.length), mesh)
    vocabulary = replicated(vocabulary_shapes(model), mesh)
    longest = Bucket(stage.rows.length, stage.rows.image_slots, sampling.length)
    select_longest = select_program(job, stage, mesh, longest)
    part = Argument(
        jax.eval_shape(select_longest.function, *select_longest.shapes.values()), select_longest.out_shardings
    )
    per_token = part.shapes.advantages
    logprobs = Logprobs(
        reference=per_token if stage.policy.kl_weight else None, old=per_token if stage.needs_old_logprobs else None
    )

    def score(tables, targets: RewardTargets, rollout: Rollout) -> ScoredRollout:
        return score_rollout(stage.rewards, stage.overlong, stage.advantages, sampling.group, tables, targets, rollout)

    def policy_logprobs(params, prompts: Prompts, rollout: Rollout, vocabulary: Vocabulary):
        ids, length, allowed = rollout.ids, rollout.length, vocabulary.allowed
        return completion_stats(model, params, prompts, ids, length, allowed, sampling.temperature).logprob

    def reference_logprobs(reference, prompts: Prompts, rollout: Rollout, vocabulary: Vocabulary):
        return policy_logprobs(reference, prompts, rollout, vocabulary)

    def fetch_reference(reference):
        return sharding.to_device_memory(reference)

    def gradients(params, total, part: MicroBatch, logprobs: Logprobs, vocabulary: Vocabulary):
        allowed = vocabulary.allowed
        return grpo_gradients(model, stage.policy, sampling.temperature, params, total, part, logprobs, allowed)

    first = jax.eval_shape(gradients, params.shapes, None, part.shapes, logprobs, vocabulary.shapes)
    metrics, maxima = jax.tree.map(lambda _: sharding.replicated(mesh), (first.metrics, first.maxima))
    total = Argument(first, Gradients(lora.trained(model, params.shardings), metrics, maxima))

    def step(state, total):
        rate = current_rate(stage, state)
        state, metrics = grpo_step(model, transform, state, total)
        return state, {**metrics, "learning_rate": rate}

    sampled = {
        "prompts": batched(part.shapes.prompts, mesh),
        "rollout": batched(part.shapes.rollout, mesh),
        "vocabulary": vocabulary,
    }
    kept = abstract_reference(model, stage, mesh)
    reference = Argument(kept.shapes, params.shardings)
    fetch = Program(with_mesh(mesh, fetch_reference), {"reference": kept}, reference.shardings)
    slots, tensor = stage.rollout_slots, stage.rollout_tensor
    sample = generation(model, job.image, stage.rows, stage.prompts, sampling, stage.seed, mesh, slots, tensor)
    return {
        **{f"grpo/{name}": program for name, program in sample.items()},
        "grpo/score": Program(
            with_mesh(mesh, score),
            {
                "tables": replicated(lexicon_table_shapes(model), mesh),
                "targets": batched(target_shapes(stage.prompts, stage.rewards.slots), mesh),
                "rollout": rollout,
            },
            ScoredRollout._make((None, rollout.shardings.logprobs, *[rollout.shardings.finished] * 2, None)),
        ),
        "grpo/select": select_longest,
        **({"grpo/fetch": fetch} if stage.reference.offload else {}),
        "grpo/reference": Program(
            with_mesh(mesh, reference_logprobs), {"reference": reference, **sampled}, part.shardings.advantages
        ),
        "grpo/logprobs": Program(
            with_mesh(mesh, policy_logprobs), {"params": params, **sampled}, part.shardings.advantages
        ),
        "grpo/gradients": Program(
            with_mesh(mesh, gradients),
            {
                "params": params,
                "total": total if stage.micro_batches > 1 else Argument(None, None),
                "part": part,
                "logprobs": batched(logprobs, mesh),
                "vocabulary": vocabulary,
            },
            total.shardings,
            donated=("total",),
        ),
        "grpo/step": Program(
            with_mesh(mesh, step),
            {"state": state, "total": total},
            (state.shardings, None),
            donated=("state",),
        ),
    }


def select_program(job: JobConfig, stage: GrpoConfig, mesh, bucket: Bucket) -> Program:
    """(experience, groups) → the micro-batch of those groups, cut to `bucket`."""
    prompts = prompt_shapes(job.image, stage.rows, stage.prompts)
    rollout = rollout_shapes(stage.prompts * stage.sampling.group, stage.sampling.length)
    experience = Experience(prompts, rollout, rollout.logprobs, rollout.finished)
    groups = jax.ShapeDtypeStruct((stage.prompts // stage.parts,), jnp.int32)

    def select_groups(experience: Experience, groups):
        only_finished = stage.overlong.rule == "mask"
        return select(stage.policy.aggregate, only_finished, stage.mini_batches, bucket, experience, groups)

    return Program(
        with_mesh(mesh, select_groups),
        {"experience": batched(experience, mesh), "groups": batched(groups, mesh)},
        sharding.batch_shardings(mesh, jax.eval_shape(select_groups, experience, groups)),
    )
