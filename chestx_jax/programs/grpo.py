"""The programs of a GRPO stage, in the order in which a step runs them."""

from chestx_jax import sharding
from chestx_jax.findings import RewardTargets
from chestx_jax.programs.generation import generation
from chestx_jax.programs.program import Program, batched, replicated, with_mesh
from chestx_jax.programs.shapes import (
    lexicon_table_shapes,
    prompt_shapes,
    rollout_shapes,
    target_shapes,
    vocabulary_shapes,
)
from chestx_jax.programs.state import abstract_params, abstract_reference, abstract_state, stage_optimizer
from chestx_jax.recipes import GrpoConfig, JobConfig
from chestx_jax.rollout.sampling import Vocabulary
from chestx_jax.types import Prompts, Rollout
from chestx_jax.update.logprobs import completion_stats
from chestx_jax.update.scoring import ScoredRollout, score_rollout
from chestx_jax.update.steps import Experience, grpo_step


def grpo_programs(job: JobConfig, stage: GrpoConfig, mesh) -> dict[str, Program]:
    """The five programs of a step; the log-probs are those of the rollout's tokens, [B, L].

    grpo/rollout    (params, prompts, vocabulary, step) → rollout
    grpo/score      (tables, targets, rollout) → ScoredRollout
    grpo/reference  (reference, prompts, rollout, vocabulary) → log-probs under the reference model
    grpo/logprobs   (params, prompts, rollout, vocabulary) → log-probs under the policy
    grpo/step       (state, experience, vocabulary) → (state, metrics)
    """
    model, transform, sampling = job.model, stage_optimizer(job.model, stage), stage.sampling
    params, state = abstract_params(model, mesh), abstract_state(model, stage, mesh)
    prompts = batched(prompt_shapes(model, stage.rows, stage.prompts), mesh)
    rollout = batched(rollout_shapes(stage.prompts * sampling.group, sampling.length), mesh)
    vocabulary = replicated(vocabulary_shapes(model), mesh)
    per_token = rollout.shapes.logprobs
    experience = Experience(
        prompts=prompts.shapes,
        rollout=rollout.shapes,
        advantages=per_token,
        loss_mask=rollout.shapes.finished,
        ref_logprobs=per_token if stage.policy.kl_weight else None,
        old_logprobs=per_token if stage.updates > 1 else None,
    )

    def score(tables, targets: RewardTargets, rollout: Rollout) -> ScoredRollout:
        return score_rollout(stage.rewards, stage.overlong, stage.advantages, sampling.group, tables, targets, rollout)

    def logprobs(params, prompts: Prompts, rollout: Rollout, vocabulary: Vocabulary):
        ids, length, allowed = rollout.ids, rollout.length, vocabulary.allowed
        return completion_stats(model, params, prompts, ids, length, allowed, sampling.temperature).logprob

    def reference_logprobs(reference, prompts: Prompts, rollout: Rollout, vocabulary: Vocabulary):
        reference = sharding.to_device_memory(reference) if stage.reference.offload else reference
        return logprobs(reference, prompts, rollout, vocabulary)

    def step(state, experience: Experience, vocabulary: Vocabulary):
        return grpo_step(
            model, transform, stage.policy, stage.overlong, sampling.temperature, stage.micro_batches,
            state, experience, vocabulary.allowed,
        )  # fmt: skip

    sampled = {"prompts": prompts, "rollout": rollout, "vocabulary": vocabulary}
    return {
        "grpo/rollout": generation(
            model,
            stage.rows,
            stage.prompts,
            sampling,
            stage.seed,
            mesh,
            tensor=stage.rollout_tensor,
            parts=stage.rollout_parts,
        ),
        "grpo/score": Program(
            with_mesh(mesh, score),
            {
                "tables": replicated(lexicon_table_shapes(model), mesh),
                "targets": batched(target_shapes(stage.prompts, stage.rewards.slots), mesh),
                "rollout": rollout,
            },
            ScoredRollout._make((None, rollout.shardings.logprobs, rollout.shardings.finished, None)),
        ),
        "grpo/reference": Program(
            with_mesh(mesh, reference_logprobs),
            {"reference": abstract_reference(model, stage, mesh), **sampled},
            rollout.shardings.logprobs,
        ),
        "grpo/logprobs": Program(with_mesh(mesh, logprobs), {"params": params, **sampled}, rollout.shardings.logprobs),
        "grpo/step": Program(
            with_mesh(mesh, step),
            {"state": state, "experience": batched(experience, mesh), "vocabulary": vocabulary},
            (state.shardings, None),
            donated=("state",),
        ),
    }
