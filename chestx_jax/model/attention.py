"""Attention behind one function: queries against one or more blocks of keys under one softmax.

Blocks let a group share its prompt: the prompt's keys exist once per prompt, a completion's own keys once per
completion, and `attend` takes the softmax over both as if they were one row.
"""

from collections.abc import Sequence
from functools import reduce
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from chestx_jax.model.splash import Segments, dense_mask, fits_kernel, splash
from chestx_jax.sharding import shard_map

MASKED = -1e30  # finite, so that a padding query without keys gives numbers rather than NaN


class KeyBlock(NamedTuple):
    """Keys and values in the layout that the products read, so that a cache is used without a copy. Its R rows divide
    the B query rows: query row b attends to key row b // (B / R)."""

    k: Float[Array, "R K S E"]
    v: Float[Array, "R K S E"]
    mask: Bool[Array, "B L S"] | Segments  # True where the query may attend; L is 1 where all queries share it


def make_mask(segments: Segments, backend: str, past: Sequence[int] = ()) -> Bool[Array, "B L S"] | Segments:
    """The mask of a block of keys in the form that `backend` takes: segment numbers for a Pallas kernel that fits the
    lengths (splash attention: those of the caches in `past`, too; pallas: without any), else booleans."""
    lengths = (segments.keys.shape[1], *past)
    fits = all(fits_kernel(segments.queries.shape[1], length) for length in lengths)
    by_segments = backend == "splash" or (backend == "pallas" and not past)
    return segments if by_segments and fits else dense_mask(segments)


def attend(q_BxLxHxE: Float[Array, "B L H E"], blocks: Sequence[KeyBlock], backend: str) -> Float[Array, "B L H E"]:
    """softmax(q · k / √E) · v over all blocks together, with grouped-query heads; logits and softmax in fp32.

    `backend` is one of ComputeConfig.attention, "auto" already resolved for the mesh's platform. A last block masked by
    `Segments` goes to the backend's Pallas kernel; what that of "pallas" does not take, to cuDNN. The XLA form runs
    everywhere, is the reference of the others' tests, and takes rows of one query, whose time is that of reading the
    keys once.
    """
    if isinstance(blocks[-1].mask, Segments):
        return pallas(q_BxLxHxE, blocks[0]) if backend == "pallas" else splash(q_BxLxHxE, blocks)
    if backend in ("cudnn", "pallas") and q_BxLxHxE.shape[1] > 1 and _fits_cudnn(q_BxLxHxE, blocks):
        return _cudnn(q_BxLxHxE, blocks)
    return _xla(q_BxLxHxE, blocks)


def pallas(q_BxLxHxE: Float[Array, "B L H E"], block: KeyBlock, interpret: bool = False) -> Float[Array, "B L H E"]:
    """softmax(q · k / √E) · v within the segments of whole rows, by the Triton kernel that comes with jax (GPU): scores
    and masks stay in the kernel, forward and backward. `block.mask` is `Segments`, the same for queries and keys. Keys
    are repeated for the heads that share them. `interpret` runs the kernel on any platform."""
    from jax.experimental.pallas.ops.gpu.attention import mha  # which needs Triton's part of jax

    segments, heads, width = block.mask, q_BxLxHxE.shape[2], q_BxLxHxE.shape[3]
    assert isinstance(segments, Segments)
    by_head = lambda x: jnp.repeat(jnp.swapaxes(x, 1, 2), heads // x.shape[1], axis=2)  # noqa: E731

    def attend_locally(q: Array, k: Array, v: Array, ids: Array) -> Array:
        with jax.named_scope(f"attention_share_{0.5 if segments.causal else 1.0}"):  # of the scores, for planning
            return mha(q, k, v, ids, sm_scale=width**-0.5, causal=segments.causal, interpret=interpret)

    axes = ("batch", None, "heads", None)
    arrays = (q_BxLxHxE, by_head(block.k), by_head(block.v), segments.keys)
    return shard_map(attend_locally, (axes, axes, axes, ("batch", None)), *arrays)


# In the shapes below, M = L · H / K are the queries of a row that share a key head.


def _xla(q_BxLxHxE: Array, blocks: Sequence[KeyBlock]) -> Array:
    """Both products as plain batched matrix products [R, K] × (M × E)(E × S), which every compiler does well. Blocks
    share their softmax by its maximum and its sum, so that no scores are copied into one array."""
    logits = [_logits(q_BxLxHxE, block) for block in blocks]
    if len(blocks) == 1:
        weights_BxKxMxS = jax.nn.softmax(logits[0], axis=-1).astype(q_BxLxHxE.dtype)
        return _unfold(_fold(weights_BxKxMxS, blocks[0]) @ blocks[0].v, q_BxLxHxE)
    peak = reduce(jnp.maximum, [jnp.max(x, axis=-1, keepdims=True) for x in logits])
    weights = [jnp.exp(x - jax.lax.stop_gradient(peak)) for x in logits]
    total_BxKxMx1 = sum(jnp.sum(x, axis=-1, keepdims=True) for x in weights)
    outputs = [
        _unfold(_fold((x / total_BxKxMx1).astype(q_BxLxHxE.dtype), block) @ block.v, q_BxLxHxE)
        for x, block in zip(weights, blocks, strict=True)
    ]
    return sum(outputs[1:], outputs[0])


def _logits(q_BxLxHxE: Array, block: KeyBlock) -> Array:
    """fp32 attention logits [B, K, M, S], masked ones at MASKED."""
    rows, length, heads, width = q_BxLxHxE.shape
    kv_heads = block.k.shape[1]
    q = q_BxLxHxE * jnp.asarray(width**-0.5, q_BxLxHxE.dtype)
    q_BxKxMxE = jnp.swapaxes(q.reshape(rows, length, kv_heads, -1, width), 1, 2).reshape(rows, kv_heads, -1, width)
    logits = jnp.einsum("rkme,rkse->rkms", _fold(q_BxKxMxE, block), block.k, preferred_element_type=jnp.float32)
    group = rows // block.k.shape[0]
    logits = jnp.swapaxes(logits.reshape(-1, kv_heads, group, length, heads // kv_heads, logits.shape[-1]), 1, 2)
    logits = logits.reshape(rows, kv_heads, length, heads // kv_heads, -1)
    logits = jnp.where(_boolean_mask(block)[:, None, :, None], logits, MASKED)
    return logits.reshape(rows, kv_heads, length * (heads // kv_heads), -1)


def _boolean_mask(block: KeyBlock) -> Array:
    return dense_mask(block.mask) if isinstance(block.mask, Segments) else block.mask


def _fold(x_BxKxMxZ: Array, block: KeyBlock) -> Array:
    """The rows that share a key row, concatenated: [R, K, (B/R)·M, Z]."""
    rows, kv_heads, queries, last = x_BxKxMxZ.shape
    key_rows = block.k.shape[0]
    if rows == key_rows:
        return x_BxKxMxZ
    x = x_BxKxMxZ.reshape(key_rows, rows // key_rows, kv_heads, queries, last)
    return jnp.swapaxes(x, 1, 2).reshape(key_rows, kv_heads, -1, last)


def _unfold(out_RxKxMxE: Array, q_BxLxHxE: Array) -> Array:
    """The inverse of `_fold` after the second product: back to the queries' shape."""
    rows, length, heads, width = q_BxLxHxE.shape
    key_rows, kv_heads = out_RxKxMxE.shape[:2]
    out = out_RxKxMxE.reshape(key_rows, kv_heads, rows // key_rows, length, heads // kv_heads, width)
    return jnp.transpose(out, (0, 2, 3, 1, 4, 5)).reshape(q_BxLxHxE.shape)


def _fits_cudnn(q_BxLxHxE: Array, blocks: Sequence[KeyBlock]) -> bool:
    """Whether cuDNN takes these: two bytes a number, even lengths, heads of a multiple of 8 up to 128."""
    lengths = (q_BxLxHxE.shape[1], sum(block.k.shape[2] for block in blocks))
    width = q_BxLxHxE.shape[3]
    return (
        q_BxLxHxE.dtype.itemsize == 2 and not any(length % 2 for length in lengths) and not width % 8 and width <= 128
    )


def _cudnn(q_BxLxHxE: Array, blocks: Sequence[KeyBlock]) -> Array:
    """cuDNN's fused kernel over the concatenated blocks (bf16 or fp16 on NVIDIA GPUs)."""
    rows, length = q_BxLxHxE.shape[:2]
    repeat = [rows // block.k.shape[0] for block in blocks]
    k = jnp.concatenate([jnp.repeat(block.k, n, axis=0) for block, n in zip(blocks, repeat, strict=True)], axis=2)
    v = jnp.concatenate([jnp.repeat(block.v, n, axis=0) for block, n in zip(blocks, repeat, strict=True)], axis=2)
    k, v = jnp.swapaxes(k, 1, 2), jnp.swapaxes(v, 1, 2)
    mask = jnp.concatenate(
        [jnp.broadcast_to(_boolean_mask(block), (rows, length, block.k.shape[2])) for block in blocks], axis=-1
    )
    return jax.nn.dot_product_attention(q_BxLxHxE, k, v, mask=mask[:, None], implementation="cudnn")
