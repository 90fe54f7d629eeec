"""The completions of an iteration as micro-batches of similar lengths, each padded to its own bucket.

A batch is cut into mini-batches, each the batch of one optimizer step: of n, group g is in the one of number g modulo
n, whatever the mesh. A mini-batch's groups are sorted by length into micro-batches, on the host (`plan_micro_batches`),
which are taken out of the whole batch on the devices (`select`). Each device sorts its own share, so that no row moves
between devices.
"""

import functools
from collections.abc import Sequence
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float, Int, Int32

from chestx_jax.buckets import smallest_bucket
from chestx_jax.sharding import merge_interleaved, split_interleaved, take_rows
from chestx_jax.types import Prompts, Rollout
from chestx_jax.update.losses import token_weights


@struct.dataclass
class Experience:
    """What an iteration has sampled: N prompts with G completions each, completion b of prompt b // G."""

    prompts: Prompts
    rollout: Rollout
    advantages: Float[Array, "B L"]
    loss_mask: Bool[Array, " B"]  # False: the completion is left out of the loss


@struct.dataclass
class MicroBatch:
    """A part of a mini-batch, whose weights these are: sums over its micro-batches are its means."""

    prompts: Prompts
    rollout: Rollout
    advantages: Float[Array, "B L"]
    mask: Bool[Array, "B L"]  # the tokens in the loss
    weights: Float[Array, "B L"]  # of each token in the loss
    mean_weights: Float[Array, "B L"]  # of each token in metrics, which are means over the tokens in the loss


@struct.dataclass
class Logprobs:
    """Log-probs of a micro-batch's sampled tokens, under the reference model (None without a KL term) and, as the
    trainer computes it, under the policy that sampled (None where they are those of the policy that learns, or not
    asked for)."""

    reference: Float[Array, "B L"] | None
    old: Float[Array, "B L"] | None


class Bucket(NamedTuple):
    """The lengths that a micro-batch is padded to."""

    tokens: int  # of a prompt
    image_slots: int
    completion: int  # tokens


class PlannedMicroBatch(NamedTuple):
    """Which groups a micro-batch takes, an equal share of every device's, and the bucket that holds them."""

    bucket: Bucket
    groups: Int32[np.ndarray, " n"]


def plan_micro_batches(
    prompt_tokens_N: Int[np.ndarray, " N"],
    image_slots_N: Int[np.ndarray, " N"],
    completion_B: Int[np.ndarray, " B"],
    mini_batches: int,
    micro_batches: int,
    shards: int,
    buckets: Sequence[Sequence[int]],
) -> list[PlannedMicroBatch]:
    """The micro-batches of each mini-batch in turn, shortest first, of a batch that lies on `shards` devices in equal
    consecutive parts.

    Args:
      prompt_tokens_N, image_slots_N, completion_B: lengths of all prompts and completions of all processes.
      buckets: ascending lengths for each field of `Bucket`.
    """
    longest_N = completion_B.reshape(len(prompt_tokens_N), -1).max(axis=1)
    sizes_Nx3 = np.stack([prompt_tokens_N, image_slots_N, longest_N], axis=1)
    padded_Nx3 = [[smallest_bucket(size, of) for size, of in zip(row, buckets, strict=True)] for row in sizes_Nx3]
    tokens_N, slots_N, longest_N = np.transpose(padded_Nx3)
    # A group's completions are most of its tokens; among equals, films cost more than text.
    by_step_and_shard = np.arange(len(tokens_N)).reshape(shards, -1, mini_batches).transpose(2, 0, 1)
    rank = lambda share: share[np.lexsort((tokens_N[share], slots_N[share], longest_N[share]))]  # noqa: E731
    ranked = np.apply_along_axis(rank, 2, by_step_and_shard).reshape(mini_batches, shards, micro_batches, -1)
    parts = ranked.swapaxes(1, 2).reshape(mini_batches * micro_batches, -1)
    return [
        PlannedMicroBatch(Bucket(*(int(sizes[part].max()) for sizes in (tokens_N, slots_N, longest_N))),
                          part.astype(np.int32))
        for part in parts
    ]  # fmt: skip


def select(
    aggregate: Literal["token", "sequence", "constant"],
    only_finished: bool,
    mini_batches: int,
    bucket: Bucket,
    experience: Experience,
    groups: Int[Array, " n"],
) -> MicroBatch:
    """The completions of `groups` (see `plan_micro_batches`), cut to `bucket`, with the weights that they have in the
    loss of their whole mini-batch (`losses.token_weights`). With `only_finished`, completions that the length limit cut
    off are left out of the loss."""
    rollout, prompts = experience.rollout, experience.prompts
    kept = experience.loss_mask & rollout.finished if only_finished else experience.loss_mask
    mask = (jnp.arange(rollout.ids.shape[1])[None] < rollout.length[:, None]) & kept[:, None]
    group = rollout.ids.shape[0] // prompts.length.shape[0]
    in_parts = split_interleaved(mask, mini_batches, group)
    weights, mean_weights = (
        merge_interleaved(jax.vmap(functools.partial(token_weights, kind=kind))(in_parts), group)
        for kind in (aggregate, "token")
    )
    completions = (rollout, experience.advantages, mask, weights, mean_weights)
    completions = jax.tree.map(lambda x: x[:, : bucket.completion] if x.ndim > 1 else x, completions)
    cut = cut_prompts(prompts, bucket.tokens, bucket.image_slots)
    return MicroBatch(
        jax.tree.map(lambda x: take_rows(x, groups), cut),
        *jax.tree.map(lambda x: take_rows(x, groups, group=group), completions),
    )


def cut_prompts(prompts: Prompts, tokens: int, image_slots: int) -> Prompts:
    """The first `tokens` tokens and `image_slots` image slots of right-padded rows; the rest must be padding."""
    return Prompts(
        tokens=jax.tree.map(lambda x: x[:, :tokens], prompts.tokens),
        images=jax.tree.map(lambda x: x[:, :image_slots], prompts.images),
        length=prompts.length,
        index=prompts.index,
    )


def image_slots_used(prompts: Prompts) -> Int32[np.ndarray, " N"]:
    """How many image slots each prompt fills (on the host)."""
    return np.asarray(prompts.images.valid).any(axis=2).sum(axis=1, dtype=np.int32)
