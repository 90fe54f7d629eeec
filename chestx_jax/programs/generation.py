"""The sampling program, of training and of inference."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from chestx_jax import sharding
from chestx_jax.model import qwen_vl
from chestx_jax.model.config import ModelConfig
from chestx_jax.programs.program import Program, batched, replicated, resolve_attention, with_mesh
from chestx_jax.programs.shapes import prompt_shapes, rollout_shapes, vocabulary_shapes
from chestx_jax.programs.state import abstract_params
from chestx_jax.rollout.engine import generate
from chestx_jax.rollout.sampling import SamplingConfig, Vocabulary
from chestx_jax.tokens.rows import RowsConfig
from chestx_jax.types import Prompts
from chestx_jax.update.state import step_key

ROLLOUT_STREAM = 1  # keeps the sampler's randomness apart from any other use of a step's key


def generation(
    model: ModelConfig,
    rows: RowsConfig,
    count: int,
    sampling: SamplingConfig,
    seed: int,
    mesh,
    *,
    emit: Callable | None = None,
    tensor: int = 0,
    parts: int = 1,
) -> Program:
    """Completions of `count` prompts: (params, prompts, vocabulary, step) → rollout.

    `emit` is the engine's callback for each sampled token. With `tensor`, the copy of the weights that decodes is split
    over that many devices, whatever the mesh of the parameters. With `parts`, the prompts are sampled in that many
    parts, one after the other.
    """
    model = resolve_attention(model, mesh)
    axes = qwen_vl.logical_axes(model)

    def rollout(params, prompts: Prompts, vocabulary: Vocabulary, step):
        params = qwen_vl.gather_for_decoding(model, params, axes) if model.compute.decoding == "gathered" else params
        key = step_key(seed, step, ROLLOUT_STREAM)
        return generate(model, sampling, params, prompts, vocabulary, key, emit, parts)

    completions = rollout_shapes(count * sampling.group, sampling.length)
    return Program(
        with_mesh(sharding.rollout_mesh(mesh, tensor) if tensor else mesh, rollout),
        {
            "params": abstract_params(model, mesh),
            "prompts": batched(prompt_shapes(model, rows, count), mesh),
            "vocabulary": replicated(vocabulary_shapes(model), mesh),
            "step": replicated(jax.ShapeDtypeStruct((), jnp.int32), mesh),
        },
        sharding.batch_shardings(mesh, completions),
    )
