"""What to watch in a reward: mean, spread and the share of groups it cannot tell apart, for every term."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from chestx_jax.types import Scores


def group_metrics(scores: Scores, group_size: int) -> dict[str, Float[Array, ""]]:
    """Scalars `reward/<term>/mean`, `/std`, `/flat` over B = N · group_size completions, ordered by prompt.

    Means and standard deviations cover the completions a term applies to; `flat` is the share of applicable groups in
    which all completions score the same (no learning signal). `total` is the sequence reward itself.
    """
    values = {"total": scores.sequence, **scores.terms}
    metrics = {}
    for name, value in values.items():
        mask = scores.masks.get(name, jnp.ones_like(value, bool))
        count = jnp.maximum(mask.sum(), 1).astype(jnp.float32)
        mean = jnp.where(mask, value, 0.0).sum() / count
        spread = jnp.sqrt(jnp.where(mask, (value - mean) ** 2, 0.0).sum() / count)
        groups, applies = value.reshape(-1, group_size), mask.reshape(-1, group_size).all(1)
        flat = applies & (groups.max(1) - groups.min(1) < 1e-6)
        metrics[f"reward/{name}/mean"] = mean
        metrics[f"reward/{name}/std"] = spread
        metrics[f"reward/{name}/flat"] = flat.sum() / jnp.maximum(applies.sum(), 1)
    return metrics
