"""Advantages of a group-sampled batch: GRPO, Dr.GRPO and RLOO are settings."""

from dataclasses import dataclass
from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from chestx_jax.config import bounded
from chestx_jax.types import StepCredit

EPSILON = 1e-6  # rewards closer than this count as equal; also keeps the division by their spread finite


@dataclass(frozen=True)
class AdvantageConfig:
    """GRPO: group mean and standard deviation. Dr.GRPO: scale "none". RLOO: baseline "others", scale "none"."""

    baseline: Literal["group", "others"] = "group"  # "others": the mean of the other completions of the group
    scale: Literal["std", "none"] = "std"
    equal_groups: Literal["keep", "drop"] = "keep"  # drop: a group whose rewards are all equal leaves the loss (DAPO)
    # "own": a step's credit on its own tokens; "to_go": on each token the credit of the steps from its own on
    step_credit: Literal["own", "to_go"] = "own"
    step_weight: float = bounded(0.0, min=0.0)  # how much of the per-token credit, scaled in the group, is added


def group_advantages(
    rewards_B: Float[Array, " B"], group: int, config: AdvantageConfig
) -> tuple[Float[Array, " B"], Bool[Array, " B"]]:
    """Group-relative advantages (DeepSeekMath, arXiv 2402.03300, section 4.1.2; RLOO, arXiv 2402.14740, for "others")
    of B completions in consecutive groups, and which completions stay in the loss. The standard deviation is the
    sample's (ddof 1), as in verl and TRL."""
    rewards_NxG = rewards_B.reshape(-1, group)
    mean = jnp.mean(rewards_NxG, axis=1, keepdims=True)
    spread = jnp.std(rewards_NxG, axis=1, keepdims=True, ddof=1 if group > 1 else 0)
    differ = groups_differ(rewards_B, group).reshape(-1, group)
    centred = jnp.where(differ, rewards_NxG - mean, 0.0)  # exactly 0, or the mean's rounding error would be scaled up
    if config.baseline == "others":
        centred = centred * jnp.float32(group / max(group - 1, 1))
    if config.scale == "std":
        centred = centred / (spread + jnp.float32(EPSILON))
    kept = differ if config.equal_groups == "drop" else jnp.ones_like(differ)
    return centred.reshape(-1), kept.reshape(-1)


def groups_differ(rewards_B: Float[Array, " B"], group: int) -> Bool[Array, " B"]:
    """Whether a completion's group has rewards that are not all equal, and so an advantage."""
    rewards_NxG = rewards_B.reshape(-1, group)
    spread = jnp.std(rewards_NxG, axis=1, keepdims=True, ddof=1 if group > 1 else 0)
    return jnp.broadcast_to(spread > EPSILON, rewards_NxG.shape).reshape(-1)


def token_advantages(
    rewards_B: Float[Array, " B"],
    steps: StepCredit,
    group: int,
    config: AdvantageConfig,
) -> tuple[Float[Array, "B L"], Bool[Array, " B"]]:
    """The sequence's advantage on every token, plus `step_weight` times the scaled step credit; and which completions
    stay in the loss."""
    sequence_B, kept_B = group_advantages(rewards_B, group, config)
    advantages = jnp.broadcast_to(sequence_B[:, None], steps.value.shape)
    if not config.step_weight:
        return advantages, kept_B
    credit = _own_credit(steps, group) if config.step_credit == "own" else _credit_to_go(steps, group)
    return advantages + jnp.float32(config.step_weight) * credit, kept_B


def _own_credit(credit: StepCredit, group: int) -> Float[Array, "B L"]:
    """The credit over its root mean square on the group's credited tokens. No baseline is subtracted: a step without a
    claim is worth 0."""
    value = _by_group(jnp.where(credit.credited, credit.value, 0.0), group)
    count = jnp.maximum(jnp.sum(_by_group(credit.credited, group), 1, keepdims=True), 1).astype(jnp.float32)
    rms = jnp.sqrt(jnp.sum(jnp.square(value), 1, keepdims=True) / count)
    return (value / (rms + jnp.float32(EPSILON))).reshape(credit.value.shape)


def _credit_to_go(credit: StepCredit, group: int) -> Float[Array, "B L"]:
    """On each token the sum of the credits of its own and the later steps, each normalised by the mean and standard
    deviation over the group's steps (DeepSeekMath, arXiv 2402.03300, section 4.1.3)."""
    ends = _by_group(credit.ends, group)
    count = jnp.maximum(jnp.sum(ends, 1, keepdims=True), 1).astype(jnp.float32)
    value = _by_group(credit.value, group)
    mean = jnp.sum(jnp.where(ends, value, 0.0), 1, keepdims=True) / count
    spread = jnp.sqrt(jnp.sum(jnp.where(ends, jnp.square(value - mean), 0.0), 1, keepdims=True) / count)
    normed = jnp.where(ends, (value - mean) / (spread + jnp.float32(EPSILON)), 0.0).reshape(credit.value.shape)
    return jnp.flip(jnp.cumsum(jnp.flip(normed, 1), 1), 1)


def _by_group(values_BxL: Array, group: int) -> Array:
    return values_BxL.reshape(-1, group * values_BxL.shape[1])
