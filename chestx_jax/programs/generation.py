"""The sampling programs, of training and of inference."""

from collections.abc import Callable, Mapping
from functools import partial

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from chestx_jax import sharding
from chestx_jax.model import qwen_vl
from chestx_jax.model.config import ModelConfig
from chestx_jax.model.decoder import RingCache
from chestx_jax.programs.program import Argument, Program, batched, replicated, resolve_attention, with_mesh
from chestx_jax.programs.shapes import prompt_shapes, vocabulary_shapes
from chestx_jax.programs.state import abstract_params
from chestx_jax.rollout import engine
from chestx_jax.rollout.engine import Lanes, Slots
from chestx_jax.rollout.loop import Sampler
from chestx_jax.rollout.sampling import SamplingConfig, Vocabulary
from chestx_jax.rollout.schedule import STEPS, LaneShape, lane_shape
from chestx_jax.tokens.patches import ImageSpec
from chestx_jax.tokens.rows import RowsConfig
from chestx_jax.types import Prompts
from chestx_jax.update.state import step_key

WINDOW = 4  # batches of questions that are given to the sampler at a time, so that slots are refilled
ROLLOUT_STREAM = 1  # keeps the sampler's randomness apart from any other use of a step's key


def generation(
    model: ModelConfig,
    image: ImageSpec,
    rows: RowsConfig,
    count: int,
    sampling: SamplingConfig,
    seed: int,
    mesh: Mesh,
    slots: int = 0,
    tensor: int = 0,
) -> dict[str, Program]:
    """The programs that sample completions of `count` prompts, `slots` of them at a time (0: all), with the largest
    arguments that they get; how many rows and columns these have is for each call to say.

    weights   params → their copy for decoding
    prefill   (that copy, prompts, rows) → lanes of those rows of each shard's prompts
    decode    (that copy, vocabulary, step, lanes, ring, slots) → (ring, ids, log-probs), of the next few tokens

    With `tensor`, the copy is split over that many devices, whatever the mesh of the parameters.
    """
    model = resolve_attention(model, mesh)
    params, vocabulary = abstract_params(model, mesh), replicated(vocabulary_shapes(model), mesh)
    prompts, axes = batched(prompt_shapes(image, rows, count), mesh), qwen_vl.logical_axes(model)
    mesh = decoding_mesh(mesh, tensor)

    def weights(params):
        return qwen_vl.for_decoding(model, params, axes)

    def prefill(params, prompts: Prompts, rows) -> Lanes:
        return engine.prefill(model, params, engine.take_prompts(prompts, rows))

    def decode(params, vocabulary: Vocabulary, step, lanes: Lanes, ring: RingCache, slots: Slots):
        key = step_key(seed, step, ROLLOUT_STREAM)
        return engine.decode(model, sampling, STEPS, params, vocabulary, key, lanes, ring, slots)

    per_row = lambda size: jax.ShapeDtypeStruct((size,), jnp.int32)  # noqa: E731
    copy = Argument(qwen_vl.decoding_shapes(model), qwen_vl.decoding_shardings(model, mesh))
    shape = slot_layout(count, sampling.group, slots, mesh)
    lane_shapes = jax.eval_shape(prefill, copy.shapes, prompts.shapes, per_row(shape.lanes))
    lanes, slots = _split(lane_shapes, mesh), shape.lanes * shape.width
    ring = _split(jax.eval_shape(partial(engine.empty_ring, model, slots, sampling.length)), mesh)
    return {
        "weights": Program(with_mesh(mesh, weights), {"params": params}, copy.shardings),
        "prefill": Program(
            with_mesh(mesh, prefill),
            {"params": copy, "prompts": prompts, "rows": batched(per_row(shape.admitted), mesh)},
            lanes.shardings,
        ),
        "decode": Program(
            with_mesh(mesh, decode),
            {
                "params": copy,
                "vocabulary": vocabulary,
                "step": replicated(jax.ShapeDtypeStruct((), jnp.int32), mesh),
                "lanes": lanes,
                "ring": ring,
                "slots": batched(Slots(*[per_row(slots)] * 3), mesh),
            },
            (ring.shardings, *[sharding.replicated(mesh)] * 2),  # every process sees every token
            donated=("ring",),
        ),
    }


def sampler(
    model: ModelConfig,
    sampling: SamplingConfig,
    mesh: Mesh,
    functions: Mapping[str, Callable],
    slots: int = 0,
    tensor: int = 0,
) -> Sampler:
    """What `rollout.loop` samples with: the jitted programs of `generation` by name, and what moves rows of caches.

    `slots` completions are sampled at a time, over all devices; 0: all.
    """
    mesh = decoding_mesh(mesh, tensor)

    def empty_ring(slots: int, columns: int) -> RingCache:
        program = partial(engine.empty_ring, model, slots, columns)
        out_shardings = _split(jax.eval_shape(program), mesh).shardings
        return jax.jit(with_mesh(mesh, program), out_shardings=out_shardings)()

    return Sampler(
        sampling=sampling,
        slots=slots,
        shards=batch_shards(mesh),
        by_row=sharding.named_sharding(mesh, ("batch",), (mesh.size,)),
        everywhere=sharding.replicated(mesh),
        **{name: functions[name] for name in ("weights", "prefill", "decode")},
        empty_ring=empty_ring,
        take_lanes=jax.jit(with_mesh(mesh, engine.take_lanes)),
        put_lanes=jax.jit(with_mesh(mesh, engine.put_lanes), donate_argnums=0),
        take_columns=jax.jit(with_mesh(mesh, engine.take_columns)),
    )


def decoding_mesh(mesh: Mesh, tensor: int) -> Mesh:
    """The mesh that completions are sampled on."""
    return sharding.rollout_mesh(mesh, tensor) if tensor else mesh


def slot_layout(prompts: int, group: int, slots: int, mesh: Mesh, tensor: int = 0) -> LaneShape:
    """The slots of all shards together, for completions of `prompts` prompts on the mesh that `tensor` makes."""
    shards = batch_shards(decoding_mesh(mesh, tensor))
    shape = lane_shape(prompts // shards, group, slots // shards)
    return LaneShape(shards * shape.lanes, shape.width, shards * shape.admitted)


def batch_shards(mesh: Mesh) -> int:
    """The parts that a batch is split into."""
    with sharding.use_mesh(mesh):
        return sharding.shard_count("batch", mesh.size)


def _split(shapes, mesh: Mesh) -> Argument:
    """Lanes or a ring, split over batch and heads."""
    shard = lambda leaf: sharding.named_sharding(mesh, engine.cache_axes(leaf), leaf.shape)  # noqa: E731
    return Argument(shapes, jax.tree.map(shard, shapes))
