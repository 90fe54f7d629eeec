"""Every jitted program of a job, by name: the one place where steps are jitted.

`programs(job, mesh)` needs no weights, tokenizer or network: each program comes with the abstract arguments it will be
called with, so that it can be compiled for a machine that is not there. The loops run exactly these.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import NamedSharding

from chestx_jax import lexicon, sharding
from chestx_jax.errors import UserError
from chestx_jax.model import lora, qwen_vl
from chestx_jax.model.config import ModelConfig, with_compute
from chestx_jax.recipes import GrpoConfig, JobConfig, SftConfig
from chestx_jax.rewards import reward
from chestx_jax.rewards.metrics import group_metrics
from chestx_jax.rollout.engine import generate
from chestx_jax.rollout.sampling import SamplingConfig, Vocabulary
from chestx_jax.tokens.rows import RowsConfig
from chestx_jax.types import Batch, Completion, Images, Prompts, RewardTargets, Rollout, Tokens
from chestx_jax.update import state as states
from chestx_jax.update.advantages import token_advantages
from chestx_jax.update.logprobs import completion_stats
from chestx_jax.update.optimizer import optimizer
from chestx_jax.update.steps import Experience, grpo_step, length_penalty, sft_step, supervised

ROLLOUT_STREAM = 1  # keeps the sampler's randomness apart from any other use of a step's key


@dataclass(frozen=True)
class Program:
    """A pure function with everything needed to compile it: abstract arguments, their shardings, what is donated."""

    function: Callable
    arguments: tuple[Any, ...]
    in_shardings: tuple[Any, ...]
    out_shardings: Any
    donated: tuple[int, ...] = ()

    def jit(self):
        """The compiled-on-first-call function."""
        return jax.jit(
            self.function,
            in_shardings=self.in_shardings,
            out_shardings=self.out_shardings,
            donate_argnums=self.donated,
            compiler_options=_options((self.in_shardings, self.out_shardings)),
        )


# What the TPU compiler does not do by itself: gather whole weights ahead of their products, beside computation, rather
# than pass pieces round a ring within them.
TPU_OPTIONS = {
    "xla_jf_spmd_threshold_for_windowed_einsum_mib": "1000000",
    "xla_enable_async_all_gather": "true",
    "xla_enable_async_all_reduce": "true",
    "xla_enable_async_collective_permute": "true",
    "xla_enable_async_reduce_scatter_fusion": "true",
    "xla_tpu_enable_async_collective_fusion": "true",
    "xla_tpu_enable_async_collective_fusion_fuse_all_gather": "true",
    "xla_tpu_enable_async_collective_fusion_fuse_all_reduce": "true",
    "xla_tpu_enable_async_collective_fusion_multiple_steps": "true",
    "xla_tpu_overlap_compute_collective_tc": "true",
}


def _options(shardings) -> dict[str, str] | None:
    places = jax.tree.leaves(shardings, is_leaf=lambda leaf: isinstance(leaf, NamedSharding))
    return TPU_OPTIONS if any(_platform(at.mesh) == "tpu" for at in places) else None


def _platform(mesh) -> str:
    return mesh.devices.flat[0].platform


def resolved(model: ModelConfig, mesh) -> ModelConfig:
    """The model with the attention of the mesh's platform in place of "auto"."""
    if model.compute.attention != "auto":
        return model
    return with_compute(model, attention="splash" if _platform(mesh) == "tpu" else "xla")


def programs(job: JobConfig, mesh) -> dict[str, Program]:
    """All programs of a job: `NAME/step` and `NAME/validate` per supervised stage, `grpo/…` and `test/generate`."""
    job = replace(job, model=resolved(job.model, mesh))
    found: dict[str, Program] = {}
    stage = job.init
    while isinstance(stage, SftConfig):
        found |= _supervised(job, stage, mesh)
        stage = stage.init
    if job.grpo is not None:
        found |= _grpo(job, job.grpo, mesh)
    if job.evaluation is not None:
        greedy = SamplingConfig(temperature=0.0, length=job.evaluation.length, group=1)
        found["test/generate"] = generation(job.model, job.evaluation.rows, job.evaluation.batch, greedy, 0, mesh)
    return found


def initial(job: JobConfig, seed: int, mesh) -> Program:
    """Random parameters, made where they will live."""
    shardings = qwen_vl.shardings(job.model, mesh)
    return Program(lambda: qwen_vl.init(job.model, jax.random.key(seed)), (), (), shardings)


def fresh_state(job: JobConfig, stage: SftConfig | GrpoConfig, mesh) -> Program:
    """The state before a stage's first step, from parameters that are donated to it."""
    transform = stage_optimizer(job.model, stage)
    out = states.state_shardings(job.model, transform, mesh, stage.optimizer.offload)
    shapes = qwen_vl.shapes(job.model)
    return Program(lambda params: states.fresh(params, transform), (shapes,), (out.params,), out, (0,))


def kept_reference(job: JobConfig, stage: GrpoConfig, mesh) -> Program:
    """The reference model's weights from the policy's first ones: in their own dtype, where they are kept."""
    model, dtype = job.model, jnp.dtype(stage.reference.dtype)
    return Program(
        lambda params: jax.tree.map(lambda x: x.astype(dtype), params),
        (qwen_vl.shapes(model),),
        (qwen_vl.shardings(model, mesh),),
        _reference(job.model, stage, mesh)[1],
    )


def _reference(model: ModelConfig, stage: GrpoConfig, mesh):
    """The reference model's weights as shapes, and where they are kept."""
    at = qwen_vl.shardings(model, mesh)
    shapes = qwen_vl.shapes(with_compute(model, param_dtype=stage.reference.dtype))
    return shapes, sharding.in_host_memory(at) if stage.reference.offload else at


def stage_optimizer(model: ModelConfig, stage: SftConfig | GrpoConfig) -> optax.GradientTransformation:
    """The stage's optimizer over the weights that learn; its schedule counts optimizer steps."""
    updates = stage.updates if isinstance(stage, GrpoConfig) else 1
    transform = optimizer(stage.optimizer, stage.steps * updates)
    if lora.fully_trainable(model):
        return transform
    return optax.masked(transform, partial(lora.trainable_mask, model))  # the others have gradient 0 and no moments


def _supervised(job: JobConfig, stage: SftConfig, mesh) -> dict[str, Program]:
    model, transform = job.model, stage_optimizer(job.model, stage)
    state = states.state_shapes(model, transform)
    state_at = states.state_shardings(model, transform, mesh, stage.optimizer.offload)
    batch = batch_shapes(model, stage.rows, stage.batch)
    batch_at = sharding.batch_shardings(mesh, batch)
    words, words_at = _vocabulary(model, mesh)
    step = partial(sft_step, model, transform, stage.z_weight, stage.micro_batches)

    def validate(params, batch: Batch, vocabulary: Vocabulary):
        tokens = jnp.sum(batch.weights)
        return supervised(model, params, batch, vocabulary.allowed, jnp.float32(1.0)), tokens

    return {
        f"{stage.name}/step": Program(
            _on(mesh, lambda state, batch, words: step(state, batch, words.allowed)),
            (state, batch, words),
            (state_at, batch_at, words_at),
            (state_at, None),
            (0,),
        ),
        f"{stage.name}/validate": Program(
            _on(mesh, validate), (state.params, batch, words), (state_at.params, batch_at, words_at), None
        ),
    }


def _grpo(job: JobConfig, stage: GrpoConfig, mesh) -> dict[str, Program]:
    model, transform, sampling = job.model, stage_optimizer(job.model, stage), stage.sampling
    state = states.state_shapes(model, transform)
    state_at = states.state_shardings(model, transform, mesh, stage.optimizer.offload)
    weights, weights_at = _reference(model, stage, mesh)
    prompts = prompt_shapes(model, stage.rows, stage.prompts)
    prompts_at = sharding.batch_shardings(mesh, prompts)
    rollout = rollout_shapes(stage.prompts * sampling.group, sampling.length)
    rollout_at = sharding.batch_shardings(mesh, rollout)
    per_token, per_row = rollout.logprobs, rollout.finished
    words, words_at = _vocabulary(model, mesh)
    tables, reference = reading_shapes(model, stage)
    step = partial(grpo_step, model, transform, stage.policy, stage.overlong, sampling.temperature, stage.micro_batches)

    def score(tables, reference: RewardTargets, rollout: Rollout):
        owner = jnp.arange(rollout.ids.shape[0], dtype=jnp.int32) // jnp.int32(sampling.group)
        scores = reward.score(stage.rewards, tables, Completion(rollout.ids, rollout.length, owner), reference)
        rewards = scores.sequence - length_penalty(rollout.length, sampling.length, stage.overlong)
        advantages, kept = token_advantages(rewards, scores.credit, scores.credited, sampling.group, stage.advantages)
        lengths = rollout.length.astype(jnp.float32)
        summary = {
            **group_metrics(scores, sampling.group),
            "length": jnp.mean(lengths),
            "finished": jnp.mean(rollout.finished.astype(jnp.float32)),
            "kept": jnp.mean(kept.astype(jnp.float32)),
        }
        return scores, advantages, kept, summary

    def logprobs(params, prompts: Prompts, rollout: Rollout, words: Vocabulary):
        stats = completion_stats(
            model, params, prompts, rollout.ids, rollout.length, words.allowed, sampling.temperature
        )
        return stats.logprob

    def reference_logprobs(weights, prompts: Prompts, rollout: Rollout, words: Vocabulary):
        weights = sharding.to_device_memory(weights) if stage.reference.offload else weights
        return logprobs(weights, prompts, rollout, words)

    experience = Experience(
        prompts=prompts,
        rollout=rollout,
        advantages=per_token,
        loss_mask=per_row,
        ref_logprobs=per_token if stage.policy.kl_weight else None,
        old_logprobs=per_token if stage.updates > 1 else None,
    )
    return {
        "grpo/rollout": generation(
            model,
            stage.rows,
            stage.prompts,
            sampling,
            stage.seed,
            mesh,
            None,
            stage.rollout_tensor,
            stage.rollout_parts,
        ),
        "grpo/score": Program(
            _on(mesh, score),
            (tables, reference, rollout),
            (sharding.replicated(mesh), sharding.batch_shardings(mesh, reference), rollout_at),
            (None, rollout_at.logprobs, rollout_at.finished, None),
        ),
        "grpo/logprobs": Program(
            _on(mesh, logprobs),
            (state.params, prompts, rollout, words),
            (state_at.params, prompts_at, rollout_at, words_at),
            rollout_at.logprobs,
        ),
        "grpo/reference": Program(
            _on(mesh, reference_logprobs),
            (weights, prompts, rollout, words),
            (weights_at, prompts_at, rollout_at, words_at),
            rollout_at.logprobs,
        ),
        "grpo/step": Program(
            _on(mesh, lambda state, experience, words: step(state, experience, words.allowed)),
            (state, experience, words),
            (state_at, sharding.batch_shardings(mesh, experience), words_at),
            (state_at, None),
            (0,),
        ),
    }


def generation(
    model: ModelConfig,
    rows: RowsConfig,
    count: int,
    sampling: SamplingConfig,
    seed: int,
    mesh,
    emit: Callable | None = None,
    tensor: int = 0,
    parts: int = 1,
) -> Program:
    """Completions of `count` prompts: (parameters, prompts, vocabulary, step) → rollout; `emit` as in the engine. With
    `tensor`, the copy of the weights that decodes is split over so many chips, whatever the parameters' own mesh; with
    `parts`, the prompts' completions are sampled in so many parts, one after the other.

    Raises UserError where the prompts do not divide into parts.
    """
    model = resolved(model, mesh)
    if count % parts:
        raise UserError(f"{count} prompts do not divide into rollout_parts={parts} parts: choose a divisor")
    prompts = prompt_shapes(model, rows, count)
    words, words_at = _vocabulary(model, mesh)
    step = jax.ShapeDtypeStruct((), jnp.int32)
    out = sharding.batch_shardings(mesh, rollout_shapes(count * sampling.group, sampling.length))

    axes = qwen_vl.logical_axes(model)

    def run(params, prompts: Prompts, words: Vocabulary, step):
        params = qwen_vl.gather_for_decoding(model, params, axes) if model.compute.decoding == "gathered" else params
        key = states.key_at(seed, step, ROLLOUT_STREAM)
        return generate(model, sampling, params, prompts, words, key, emit, parts)

    return Program(
        _on(sharding.rollout_mesh(mesh, tensor) if tensor else mesh, run),
        (qwen_vl.shapes(model), prompts, words, step),
        (
            qwen_vl.shardings(model, mesh),
            sharding.batch_shardings(mesh, prompts),
            words_at,
            sharding.replicated(mesh),
        ),
        out,
    )


def _on(mesh, function: Callable) -> Callable:
    """`function`, traced with the mesh that its sharding constraints speak of."""

    def traced(*arguments):
        with sharding.use_mesh(mesh):
            return function(*arguments)

    return traced


def _vocabulary(model: ModelConfig, mesh):
    words = Vocabulary(
        allowed=jax.ShapeDtypeStruct((model.vocab_size,), bool), stop_ids=jax.ShapeDtypeStruct((2,), jnp.int32)
    )
    return words, sharding.replicated(mesh)


def reading_shapes(model: ModelConfig, stage: GrpoConfig):
    """The abstract reading tables and references. The tables' true sizes depend on the vocabulary's bytes; without a
    tokenizer they are those of a vocabulary of single bytes, the rest being special tokens."""
    words = [bytes([i]) for i in range(256)] + [b""] * (model.vocab_size - 256)
    known = lexicon.load()
    one = lexicon.reward_targets(known, [("",)], [()], ["A"], ["binary"], stage.rewards.slots)
    count = lambda leaf: jax.ShapeDtypeStruct((stage.prompts, *leaf.shape[1:]), leaf.dtype)  # noqa: E731
    shape = lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)  # noqa: E731
    return jax.tree.map(shape, lexicon.compile_tables(known, words[: model.vocab_size])), jax.tree.map(count, one)


def batch_shapes(model: ModelConfig, rows: RowsConfig, count: int) -> Batch:
    """The abstract supervised batch."""
    return Batch(
        tokens=_token_shapes(count, rows.length),
        images=_image_shapes(model, rows, count),
        weights=jax.ShapeDtypeStruct((count, rows.length), jnp.float32),
    )


def prompt_shapes(model: ModelConfig, rows: RowsConfig, count: int) -> Prompts:
    """The abstract prompts of a rollout."""
    per_row = jax.ShapeDtypeStruct((count,), jnp.int32)
    tokens = _token_shapes(count, rows.length)
    return Prompts(tokens=tokens, images=_image_shapes(model, rows, count), length=per_row, index=per_row)


def rollout_shapes(count: int, length: int) -> Rollout:
    """The abstract completions."""
    return Rollout(
        ids=jax.ShapeDtypeStruct((count, length), jnp.int32),
        length=jax.ShapeDtypeStruct((count,), jnp.int32),
        logprobs=jax.ShapeDtypeStruct((count, length), jnp.float32),
        finished=jax.ShapeDtypeStruct((count,), bool),
    )


def _token_shapes(count: int, length: int) -> Tokens:
    per_token = jax.ShapeDtypeStruct((count, length), jnp.int32)
    positions = jax.ShapeDtypeStruct((count, length, 3), jnp.int32)
    return Tokens(ids=per_token, segments=per_token, positions=positions, visual=per_token)


def _image_shapes(model: ModelConfig, rows: RowsConfig, count: int) -> Images:
    slots = (count, rows.image_slots, rows.patches)
    return Images(
        patches=jax.ShapeDtypeStruct((*slots, model.vision.patch_values), jnp.float32),
        positions=jax.ShapeDtypeStruct((*slots, 2), jnp.int32),
        valid=jax.ShapeDtypeStruct(slots, bool),
    )
