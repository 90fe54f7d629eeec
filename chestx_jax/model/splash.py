"""Pallas' splash attention (TPU) behind `attention.attend`: scores never leave the chip's fast memory, blocks above the
diagonal are not computed, and packed samples, padding and windows are told apart by segment numbers."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import struct
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as kernels
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks
from jaxtyping import Array, Bool, Float, Int

from chestx_jax.sharding import shard_count, shard_map

LANES = 128  # rows and keys come in blocks of a multiple of this
BLOCK = 512


@struct.dataclass
class Segments:
    """Who may look at whom, without a square of booleans: equal numbers see each other, and where `causal`, no key
    after the query. Padding is number 0 and sees itself, which nobody reads."""

    queries: Int[Array, "B L"]
    keys: Int[Array, "B S"]
    causal: bool = struct.field(pytree_node=False)


def fits_kernel(length: int, keys: int) -> bool:
    """Whether rows of `length` queries and blocks of `keys` keys fit the kernel."""
    return length >= LANES and length % LANES == 0 and keys % LANES == 0


def splash(q_BxLxHxE: Float[Array, "B L H E"], blocks: Sequence, interpret: bool = False) -> Float[Array, "B L H E"]:
    """softmax(q · k / √E) · v over `attention.Keys` laid end to end. The last block's mask is `Segments`; blocks before
    it are caches whose valid slots belong to segment 1. Keys shared by a group are repeated for its rows."""
    own = blocks[-1].mask
    rows, length, heads, width = q_BxLxHxE.shape
    repeated = lambda x: jnp.repeat(x, rows // x.shape[0], axis=0)  # noqa: E731
    k = jnp.concatenate([repeated(block.k) for block in blocks], axis=2)
    v = jnp.concatenate([repeated(block.v) for block in blocks], axis=2)
    seen = [jnp.broadcast_to(block.mask[:, 0], (rows, block.k.shape[2])) for block in blocks[:-1]]
    segments = jnp.concatenate([*(x.astype(own.keys.dtype) for x in seen), own.keys], axis=1)
    shape, offset = (length, k.shape[2]), k.shape[2] - own.keys.shape[1]

    def local(q: Array, k: Array, v: Array, queries: Array, keys: Array) -> Array:
        q = jnp.swapaxes(q * jnp.asarray(width**-0.5, q.dtype), 1, 2)
        mask = masks.CausalMask(shape, offset=offset) if own.causal else masks.FullMask(shape)
        kernel = kernels.make_splash_mha(
            mask=masks.MultiHeadMask([mask] * q.shape[1]),
            block_sizes=_sizes(*shape),
            head_shards=1,
            q_seq_shards=1,
            interpret=interpret,
        )
        # The kernel's name in the compiled program says how much of the square it computes: planning reads it.
        with jax.named_scope(f"splash_share_{computed_share(*shape, offset, own.causal):.4f}"):
            out = jax.vmap(kernel)(q, k, v, kernels.SegmentIds(queries, keys))
        return jnp.swapaxes(out, 1, 2)

    # Otherwise a device would lack its queries' keys.
    split = shard_count("heads", heads) == shard_count("kv_heads", k.shape[1])
    axes = ("batch", "kv_heads" if split else None, None, None)
    per_row = ("batch", None)
    first = ("batch", None, "heads" if split else None, None)
    return shard_map(local, (first, axes, axes, per_row, per_row), q_BxLxHxE, k, v, own.queries, segments)


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
    """The share of blocks that are not wholly above the diagonal."""
    if not causal:
        return 1.0
    rows, columns = _block(length), _block(keys)
    used = sum(-(-min(offset + start + rows, keys) // columns) for start in range(0, length, rows))
    return used / (length // rows) / (keys // columns)


def dense_mask(segments: Segments) -> Bool[Array, "B L S"]:
    """The same as booleans, padding seeing nobody."""
    same = segments.queries[:, :, None] == segments.keys[:, None, :]
    seen = same & (segments.keys != 0)[:, None, :]
    if not segments.causal:
        return seen
    return seen & jnp.tril(jnp.ones(seen.shape[1:], bool))[None]
