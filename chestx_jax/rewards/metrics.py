"""Metrics of each reward term: mean, standard deviation, and share of groups without a learning signal."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from chestx_jax.types import Scores


def group_metrics(scores: Scores, group_size: int) -> dict[str, Float[Array, ""]]:
    """Scalars `reward/<term>/mean`, `/std`, `/flat` over B = N · group_size completions, ordered by prompt.

    Means and standard deviations cover the completions that a term applies to; `flat` is the share of groups, among
    those it applies to, in which all completions score the same. `total` is the sequence reward.
    """
    values = {"total": scores.sequence, **scores.terms}
    metrics = {}
    for name, value_B in values.items():
        mask_B = scores.masks.get(name, jnp.ones_like(value_B, bool))
        count = jnp.maximum(mask_B.sum(), 1).astype(jnp.float32)
        mean = jnp.where(mask_B, value_B, 0.0).sum() / count
        deviation = jnp.sqrt(jnp.where(mask_B, (value_B - mean) ** 2, 0.0).sum() / count)
        value_NxG, applies = value_B.reshape(-1, group_size), mask_B.reshape(-1, group_size).all(1)
        flat = applies & (value_NxG.max(1) - value_NxG.min(1) < 1e-6)
        metrics[f"reward/{name}/mean"] = mean
        metrics[f"reward/{name}/std"] = deviation
        metrics[f"reward/{name}/flat"] = flat.sum() / jnp.maximum(applies.sum(), 1)
    return metrics
