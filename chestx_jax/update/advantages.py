"""Advantages of a group-sampled batch: GRPO, Dr.GRPO and RLOO are settings."""

from dataclasses import dataclass
from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from chestx_jax.config import bounded

EPSILON = 1e-6  # rewards closer than this count as equal; also keeps the division by their spread finite


@dataclass(frozen=True)
class AdvantageConfig:
    """GRPO: group mean and standard deviation. Dr.GRPO: scale "none". RLOO: baseline "others", scale "none"."""

    baseline: Literal["group", "others"] = "group"  # "others": the mean of the other completions of the group
    scale: Literal["std", "none"] = "std"
    equal_groups: Literal["keep", "drop"] = "keep"  # drop: a group whose rewards are all equal leaves the loss (DAPO)
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
    differ = spread > EPSILON
    centred = jnp.where(differ, rewards_NxG - mean, 0.0)  # exactly 0, or the mean's rounding error would be scaled up
    if config.baseline == "others":
        centred = centred * jnp.float32(group / max(group - 1, 1))
    if config.scale == "std":
        centred = centred / (spread + jnp.float32(EPSILON))
    kept = differ if config.equal_groups == "drop" else jnp.ones_like(differ)
    return centred.reshape(-1), jnp.broadcast_to(kept, rewards_NxG.shape).reshape(-1)


def token_advantages(
    rewards_B: Float[Array, " B"],
    credit_BxL: Float[Array, "B L"],
    credited_BxL: Bool[Array, "B L"],
    group: int,
    config: AdvantageConfig,
) -> tuple[Float[Array, "B L"], Bool[Array, " B"]]:
    """The sequence's advantage on every token, plus `step_weight` times the step credit over its root mean square on
    the group's credited tokens; and which completions stay in the loss. The credit has no baseline subtracted: it
    already is the difference from what the text earns without the step."""
    sequence_B, kept_B = group_advantages(rewards_B, group, config)
    advantages = jnp.broadcast_to(sequence_B[:, None], credit_BxL.shape)
    if not config.step_weight:
        return advantages, kept_B
    rows, length = credit_BxL.shape
    credit = jnp.where(credited_BxL, credit_BxL, 0.0).reshape(-1, group * length)
    count = jnp.maximum(jnp.sum(credited_BxL.reshape(credit.shape), axis=1, keepdims=True), 1).astype(jnp.float32)
    rms = jnp.sqrt(jnp.sum(jnp.square(credit), axis=1, keepdims=True) / count)
    steps = (credit / (rms + jnp.float32(EPSILON))).reshape(rows, length)
    return advantages + jnp.float32(config.step_weight) * steps, kept_B
