"""Abstract batches: the shapes and dtypes of what the input pipeline and the sampler hand to the programs."""

import jax
import jax.numpy as jnp

from chestx_jax import lexicon
from chestx_jax.findings import RewardTargets, reward_targets
from chestx_jax.model.config import ModelConfig
from chestx_jax.rollout.sampling import Vocabulary
from chestx_jax.tokens.patches import ImageSpec
from chestx_jax.tokens.rows import RowsConfig
from chestx_jax.types import Batch, Images, Prompts, Rollout, Tokens


def batch_shapes(image: ImageSpec, rows: RowsConfig, count: int) -> Batch:
    """A supervised batch of `count` packed rows."""
    return Batch(
        tokens=_token_shapes(count, rows.length),
        images=_image_shapes(image, rows, count),
        weights=jax.ShapeDtypeStruct((count, rows.length), jnp.float32),
    )


def prompt_shapes(image: ImageSpec, rows: RowsConfig, count: int) -> Prompts:
    """`count` prompts of a rollout."""
    per_row = jax.ShapeDtypeStruct((count,), jnp.int32)
    tokens = _token_shapes(count, rows.length)
    return Prompts(tokens=tokens, images=_image_shapes(image, rows, count), length=per_row, index=per_row)


def rollout_shapes(count: int, length: int) -> Rollout:
    """`count` completions of at most `length` tokens."""
    return Rollout(
        ids=jax.ShapeDtypeStruct((count, length), jnp.int32),
        length=jax.ShapeDtypeStruct((count,), jnp.int32),
        logprobs=jax.ShapeDtypeStruct((count, length), jnp.float32),
        finished=jax.ShapeDtypeStruct((count,), bool),
    )


def vocabulary_shapes(model: ModelConfig) -> Vocabulary:
    """The vocabulary with two stop ids."""
    return Vocabulary(
        allowed=jax.ShapeDtypeStruct((model.vocab_size,), bool), stop_ids=jax.ShapeDtypeStruct((2,), jnp.int32)
    )


def lexicon_table_shapes(model: ModelConfig):
    """The lexicon's token tables. Their true sizes depend on the bytes of the vocabulary; without a tokenizer they are
    those of a vocabulary of the 256 single bytes, the other ids being special tokens."""
    token_bytes = [bytes([i]) for i in range(256)] + [b""] * (model.vocab_size - 256)
    tables = lexicon.compile_tables(lexicon.load(), token_bytes[: model.vocab_size])
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), tables)


def target_shapes(prompts: int, slots: int) -> RewardTargets:
    """The reward targets of `prompts` prompts with `slots` finding slots."""
    one = reward_targets(lexicon.load(), [("",)], [()], ["A"], ["binary"], slots)
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((prompts, *leaf.shape[1:]), leaf.dtype), one)


def _token_shapes(count: int, length: int) -> Tokens:
    per_token = jax.ShapeDtypeStruct((count, length), jnp.int32)
    positions = jax.ShapeDtypeStruct((count, length, 3), jnp.int32)
    return Tokens(ids=per_token, segments=per_token, positions=positions, visual=per_token)


def _image_shapes(image: ImageSpec, rows: RowsConfig, count: int) -> Images:
    slots = (count, rows.image_slots, rows.patches)
    return Images(
        patches=jax.ShapeDtypeStruct((*slots, image.patch_pixels), jnp.uint8),
        positions=jax.ShapeDtypeStruct((*slots, 2), jnp.int32),
        valid=jax.ShapeDtypeStruct(slots, bool),
        mean=image.mean,
        std=image.std,
    )
