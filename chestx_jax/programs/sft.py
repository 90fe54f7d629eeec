"""The programs of a supervised stage."""

import jax.numpy as jnp

from chestx_jax.programs.program import Program, batched, replicated, with_mesh
from chestx_jax.programs.shapes import batch_shapes, vocabulary_shapes
from chestx_jax.programs.state import abstract_params, abstract_state, current_rate, stage_optimizer
from chestx_jax.recipes import JobConfig, SftConfig
from chestx_jax.rollout.sampling import Vocabulary
from chestx_jax.types import Batch
from chestx_jax.update.steps import sft_loss, sft_step


def sft_programs(job: JobConfig, stage: SftConfig, mesh) -> dict[str, Program]:
    """`NAME/step`: (state, batch, vocabulary) → (state, metrics), and `NAME/validate`: (params, batch, vocabulary) →
    (loss summed over target tokens, number of target tokens)."""
    model, transform = job.model, stage_optimizer(job.model, stage)
    state = abstract_state(model, stage, mesh)
    inputs = {
        "batch": batched(batch_shapes(job.image, stage.rows, stage.batch), mesh),
        "vocabulary": replicated(vocabulary_shapes(model), mesh),
    }

    def step(state, batch: Batch, vocabulary: Vocabulary):
        rate, allowed = current_rate(stage, state), vocabulary.allowed
        state, metrics = sft_step(model, transform, stage.z_weight, stage.micro_batches, state, batch, allowed)
        return state, {**metrics, "learning_rate": rate}

    def validate(params, batch: Batch, vocabulary: Vocabulary):
        tokens = jnp.sum(batch.weights)
        return sft_loss(model, params, batch, vocabulary.allowed, jnp.float32(1.0)), tokens

    return {
        f"{stage.name}/step": Program(
            with_mesh(mesh, step), {"state": state, **inputs}, (state.shardings, None), donated=("state",)
        ),
        f"{stage.name}/validate": Program(
            with_mesh(mesh, validate), {"params": abstract_params(model, mesh), **inputs}, None
        ),
    }
