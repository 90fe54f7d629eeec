"""AdamW with warm-up and clipping, from optax."""

from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
import optax


@dataclass(frozen=True)
class OptimizerConfig:
    """Rates are per optimizer step; `warmup` is a share of all steps; decay skips vectors (norms and biases)."""

    rate: float = 2e-6
    schedule: Literal["cosine", "constant"] = "cosine"
    warmup: float = 0.1
    final: float = 0.0  # share of the rate left at the end of a cosine
    b1: float = 0.9
    b2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 0.0
    clip: float = 1.0  # global gradient norm; 0: off
    moments: Literal["float32", "bfloat16"] = "float32"


def schedule(config: OptimizerConfig, steps: int) -> optax.Schedule:
    """The learning rate by step."""
    warmup = round(config.warmup * steps)
    rise = optax.linear_schedule(0.0 if warmup else config.rate, config.rate, max(warmup, 1))
    if config.schedule == "constant":
        return optax.join_schedules([rise, optax.constant_schedule(config.rate)], [warmup])
    fall = optax.cosine_decay_schedule(config.rate, max(steps - warmup, 1), alpha=config.final)
    return optax.join_schedules([rise, fall], [warmup])


def optimizer(config: OptimizerConfig, steps: int) -> optax.GradientTransformation:
    """Clip by global norm, then AdamW; moments in `config.moments`."""
    clip = optax.clip_by_global_norm(config.clip) if config.clip else optax.identity()
    adamw = optax.adamw(
        schedule(config, steps),
        b1=config.b1,
        b2=config.b2,
        eps=config.epsilon,
        weight_decay=config.weight_decay,
        mask=_matrices,
        mu_dtype=jnp.dtype(config.moments),
    )
    chained = optax.chain(clip, adamw)

    def update(updates, state, params=None):
        # optax mixes Python floats with integer counters, which strict promotion refuses.
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            return chained.update(updates, state, params)

    return optax.GradientTransformation(chained.init, update)


def _matrices(params):
    """True for kernels and tables. Scanned layers stack vectors into matrices, so the name decides, not the rank."""
    named = lambda path, leaf: jax.tree_util.keystr(path[-1:]).strip("[']") not in ("bias", "scale", "qkv_bias")  # noqa: E731
    return jax.tree_util.tree_map_with_path(named, params)
