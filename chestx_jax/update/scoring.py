"""From sampled tokens to the advantages of a policy update."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from chestx_jax.findings import RewardTargets
from chestx_jax.lexicon.token_tables import Tables
from chestx_jax.rewards import reward
from chestx_jax.rewards.metrics import group_metrics
from chestx_jax.rewards.overlong import OverlongConfig, length_penalty
from chestx_jax.rewards.reward import RewardConfig
from chestx_jax.types import Completion, Rollout, Scores
from chestx_jax.update.advantages import AdvantageConfig, groups_differ, token_advantages


class ScoredRollout(NamedTuple):
    """Scores and advantages of B completions of at most L tokens."""

    scores: Scores
    advantages: Float[Array, "B L"]
    loss_mask: Bool[Array, " B"]  # False: the completion is left out of the loss
    differ: Bool[Array, " B"]  # whether the rewards of the completion's group are not all equal
    metrics: dict[str, Float[Array, ""]]


def score_rollout(
    rewards: RewardConfig,
    overlong: OverlongConfig,
    advantages: AdvantageConfig,
    group: int,
    tables: Tables,
    targets: RewardTargets,
    rollout: Rollout,
) -> ScoredRollout:
    """Rewards and advantages of a rollout of B = N · `group` completions, completion b of prompt b // group: the heart
    of group relative policy optimisation (GRPO, DeepSeekMath, arXiv 2402.03300, section 4.1). All arrays are fp32.

    1. Reward [B]: the mix of format, accuracy and process terms that `rewards` weighs, against the `targets` of the N
       prompts, minus the penalty for nearing the length limit (DAPO, arXiv 2503.14476, equation 13).
    2. Advantage [B]: the reward's distance from the mean of its group, over the group's standard deviation
       (section 4.1.2; `advantages` selects Dr.GRPO and RLOO). The group takes the place of a value model.
    3. Per token [B, L]: the completion's advantage on each of its tokens, plus the credit of the reasoning step that a
       token belongs to, where `advantages.step_weight` asks for it (process supervision, section 4.1.3).

    Metrics are means over completions: every reward term, `length` in tokens, the share `finished` before the length
    limit, the share `kept` in the loss, and the `length_penalty` where there is one.
    """
    prompt_B = jnp.arange(rollout.ids.shape[0], dtype=jnp.int32) // jnp.int32(group)
    scores = reward.score(rewards, tables, Completion(rollout.ids, rollout.length, prompt_B), targets)
    penalty_B = length_penalty(rollout.length, rollout.ids.shape[1], overlong)
    rewards_B = scores.sequence - penalty_B
    advantages_BxL, loss_mask_B = token_advantages(rewards_B, scores.steps, group, advantages)
    metrics = {
        **group_metrics(scores, group),
        "length": jnp.mean(rollout.length.astype(jnp.float32)),
        "finished": jnp.mean(rollout.finished.astype(jnp.float32)),
        "kept": jnp.mean(loss_mask_B.astype(jnp.float32)),
    }
    if overlong.rule == "penalise":
        metrics["length_penalty"] = jnp.mean(penalty_B)
    return ScoredRollout(scores, advantages_BxL, loss_mask_B, groups_differ(rewards_B, group), metrics)
