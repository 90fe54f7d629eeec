"""Attention behind one function: queries against one or more blocks of keys under one softmax.

The blocks are what lets a group share its prompt: the prompt's keys exist once per prompt, a completion's own keys
once per completion, and `attend` takes the softmax over both as if they were one row.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

MASKED = -1e30  # finite, so that a padding query that sees nothing gives numbers rather than NaN


class Keys(NamedTuple):
    """A block of keys and values. Its rows R divide the query rows B: query row b reads key row b // (B / R)."""

    k: Float[Array, "R S K E"]
    v: Float[Array, "R S K E"]
    mask: Bool[Array, "B L S"]  # True where the query may look; L may be 1, for all queries alike


def attend(q_BxLxHxE: Float[Array, "B L H E"], blocks: Sequence[Keys], backend: str) -> Float[Array, "B L H E"]:
    """softmax(q · k / √E) · v over all blocks together, grouped-query heads, scores and softmax in fp32.

    `backend` is one of ComputeConfig.attention; "auto" picks by platform. The XLA form runs anywhere and is the
    reference that the others are tested against.
    """
    if backend == "cudnn":
        return _cudnn(q_BxLxHxE, blocks)
    return _xla(q_BxLxHxE, blocks)


def _xla(q_BxLxHxE: Array, blocks: Sequence[Keys]) -> Array:
    rows, length, heads, width = q_BxLxHxE.shape
    scores = [_scores(q_BxLxHxE, block) for block in blocks]
    weights = jax.nn.softmax(jnp.concatenate(scores, axis=-1), axis=-1).astype(q_BxLxHxE.dtype)
    out, start = jnp.zeros((), q_BxLxHxE.dtype), 0
    for block in blocks:
        stop = start + block.k.shape[1]
        shared = weights[..., start:stop].reshape(_grouped(rows, block) + weights.shape[1:4] + (stop - start,))
        part = jnp.einsum("rgkhls,rske->rglkhe", shared, block.v)
        out, start = jnp.expand_dims(out, tuple(range(4 - out.ndim))) + part.reshape(q_BxLxHxE.shape), stop
    return out


def _scores(q_BxLxHxE: Array, block: Keys) -> Array:
    """fp32 scores [B, K, H/K, L, S] with masked places at MASKED."""
    rows, length, heads, width = q_BxLxHxE.shape
    kv_heads = block.k.shape[2]
    q = (q_BxLxHxE * jnp.asarray(width**-0.5, q_BxLxHxE.dtype)).reshape(
        _grouped(rows, block) + (length, kv_heads, heads // kv_heads, width)
    )
    scores = jnp.einsum("rglkhe,rske->rgkhls", q, block.k, preferred_element_type=jnp.float32)
    scores = scores.reshape((rows,) + scores.shape[2:])
    return jnp.where(block.mask[:, None, None], scores, MASKED)


def _grouped(rows: int, block: Keys) -> tuple[int, int]:
    return block.k.shape[0], rows // block.k.shape[0]


def _cudnn(q_BxLxHxE: Array, blocks: Sequence[Keys]) -> Array:
    """cuDNN's fused kernel over the blocks laid end to end (bf16 or fp16 on NVIDIA GPUs)."""
    rows, length = q_BxLxHxE.shape[:2]
    repeat = [rows // block.k.shape[0] for block in blocks]
    k = jnp.concatenate([jnp.repeat(block.k, n, axis=0) for block, n in zip(blocks, repeat, strict=True)], axis=1)
    v = jnp.concatenate([jnp.repeat(block.v, n, axis=0) for block, n in zip(blocks, repeat, strict=True)], axis=1)
    mask = jnp.concatenate(
        [jnp.broadcast_to(block.mask, (rows, length, block.k.shape[1])) for block in blocks], axis=-1
    )
    return jax.nn.dot_product_attention(q_BxLxHxE, k, v, mask=mask[:, None], implementation="cudnn")
