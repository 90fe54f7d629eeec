"""Pallas' splash attention (TPU) behind `attention.attend`: logits never leave the chip's fast memory, blocks above the
diagonal are not computed, and segment numbers separate packed samples, padding and windows."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import struct
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as kernels
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks
from jaxtyping import Array, Bool, Float, Int

from chestx_jax.sharding import shard_count, shard_map

LANES = 128  # lengths must be multiples of this
BLOCK = 512  # queries or keys of a block, where the length divides


@struct.dataclass
class Segments:
    """A mask in linear memory: a query attends to the keys of its own segment and, where `causal`, to none after it.
    Padding is segment 0 and attends to itself; its output is not used."""

    queries: Int[Array, "B L"]
    keys: Int[Array, "B S"]
    causal: bool = struct.field(pytree_node=False)


def fits_kernel(length: int, keys: int) -> bool:
    """Whether the kernel takes rows of `length` queries and `keys` keys."""
    return length >= LANES and length % LANES == 0 and keys % LANES == 0


def splash(q_BxLxHxE: Float[Array, "B L H E"], blocks: Sequence, interpret: bool = False) -> Float[Array, "B L H E"]:
    """softmax(q · k / √E) · v over concatenated `attention.KeyBlock`s. The last block's mask is `Segments`; the blocks
    before it are caches whose valid slots belong to segment 1. Keys that a group shares are repeated for its rows.
    `interpret` runs the kernel on any platform."""
    last: Segments = blocks[-1].mask
    rows, length, heads, width = q_BxLxHxE.shape
    repeat = lambda x: jnp.repeat(x, rows // x.shape[0], axis=0)  # noqa: E731
    k = jnp.concatenate([repeat(block.k) for block in blocks], axis=2)
    v = jnp.concatenate([repeat(block.v) for block in blocks], axis=2)
    cached = [jnp.broadcast_to(block.mask[:, 0], (rows, block.k.shape[2])) for block in blocks[:-1]]
    segments = jnp.concatenate([*(x.astype(last.keys.dtype) for x in cached), last.keys], axis=1)
    shape, offset = (length, k.shape[2]), k.shape[2] - last.keys.shape[1]

    def attend_locally(q: Array, k: Array, v: Array, queries: Array, keys: Array) -> Array:
        q = jnp.swapaxes(q * jnp.asarray(width**-0.5, q.dtype), 1, 2)
        mask = masks.CausalMask(shape, offset=offset) if last.causal else masks.FullMask(shape)
        kernel = kernels.make_splash_mha(
            mask=masks.MultiHeadMask([mask] * q.shape[1]),
            block_sizes=_sizes(*shape),
            head_shards=1,
            q_seq_shards=1,
            interpret=interpret,
        )
        # The kernel's name in the compiled program gives the share of the logits that it computes, for planning.
        with jax.named_scope(f"attention_share_{computed_share(*shape, offset, last.causal):.4f}"):
            out = jax.vmap(kernel)(q, k, v, kernels.SegmentIds(queries, keys))
        return jnp.swapaxes(out, 1, 2)

    # Heads are sharded only where each device then has its queries' keys.
    split = shard_count("heads", heads) == shard_count("kv_heads", k.shape[1])
    queries = ("batch", None, "heads" if split else None, None)
    keys = ("batch", "kv_heads" if split else None, None, None)
    axes = (queries, keys, keys, ("batch", None), ("batch", None))
    return shard_map(attend_locally, axes, q_BxLxHxE, k, v, last.queries, segments)


def _block(length: int) -> int:
    return next(size for size in (BLOCK, 384, 256, LANES) if length % size == 0)


def _sizes(length: int, keys: int) -> kernels.BlockSizes:
    rows, columns = _block(length), _block(keys)
    return kernels.BlockSizes(
        block_q=rows, block_kv=columns, block_kv_compute=columns,
        block_q_dkv=rows, block_kv_dkv=columns, block_kv_dkv_compute=columns,
        use_fused_bwd_kernel=True,
    )  # fmt: skip


def computed_share(length: int, keys: int, offset: int, causal: bool) -> float:
    """The share of blocks that the kernel computes: those not wholly above the diagonal, which is at `offset`."""
    if not causal:
        return 1.0
    rows, columns = _block(length), _block(keys)
    used = sum(-(-min(offset + start + rows, keys) // columns) for start in range(0, length, rows))
    return used / (length // rows) / (keys // columns)


def dense_mask(segments: Segments) -> Bool[Array, "B L S"]:
    """The same as booleans, but that padding attends to nothing."""
    same = segments.queries[:, :, None] == segments.keys[:, None, :]
    mask = same & (segments.keys != 0)[:, None, :]
    if not segments.causal:
        return mask
    return mask & jnp.tril(jnp.ones(mask.shape[1:], bool))[None]
