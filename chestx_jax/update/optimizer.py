"""AdamW or Muon with warm-up and clipping, from optax."""

from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
import optax
import optax.contrib

from chestx_jax import sharding
from chestx_jax.config import bounded


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW, or Muon for the matrices with AdamW for the rest. Rates are per optimizer step; `warmup` is a share of
    all steps; decay skips vectors (norms and biases)."""

    rule: Literal["adamw", "muon"] = "adamw"
    rate: float = bounded(2e-6, above=0.0)
    schedule: Literal["cosine", "constant"] = "cosine"
    warmup: float = bounded(0.1, min=0.0, max=1.0)
    final: float = bounded(0.0, min=0.0, max=1.0)  # share of the rate left at the end of the cosine
    b1: float = bounded(0.9, min=0.0, below=1.0)
    b2: float = bounded(0.999, min=0.0, below=1.0)
    epsilon: float = bounded(1e-8, above=0.0)
    weight_decay: float = bounded(0.0, min=0.0)
    clip: float = bounded(1.0, min=0.0)  # global gradient norm; 0: off
    moments: Literal["float32", "bfloat16"] = "float32"  # of the first moment; the second is always float32
    offload: bool = False  # the moments are kept in the host's memory between steps
    max_skipped: int = bounded(10, min=1)  # steps in a row without a finite gradient after which the run stops


def learning_rate(config: OptimizerConfig, steps: int) -> optax.Schedule:
    """The learning rate as a function of the optimizer step."""
    warmup = round(config.warmup * steps)
    rise = optax.linear_schedule(0.0 if warmup else config.rate, config.rate, max(warmup, 1))
    if config.schedule == "constant":
        return optax.join_schedules([rise, optax.constant_schedule(config.rate)], [warmup])
    fall = optax.cosine_decay_schedule(config.rate, max(steps - warmup, 1), alpha=config.final)
    return optax.join_schedules([rise, fall], [warmup])


def rate_at(config: OptimizerConfig, steps: int, done: jax.Array) -> jax.Array:
    """The learning rate of the optimizer step that follows `done` updates, fp32."""
    with jax.numpy_dtype_promotion("standard"):
        return jnp.float32(learning_rate(config, steps)(done))


def make_optimizer(config: OptimizerConfig, steps: int) -> optax.GradientTransformationExtraArgs:
    """Clip by global norm, then the rule, computed in fp32 whatever the dtype of the parameters and gradients.
    Offloaded moments are moved to the devices first. Where the extra argument `finite` is False the moments, which hold
    the schedule's place too, are as before, and the updates not to be used."""
    clip = optax.clip_by_global_norm(config.clip) if config.clip else optax.identity()
    chained = optax.chain(clip, _muon(config, steps) if config.rule == "muon" else _adamw(config, steps))

    def init(params):
        return chained.init(optax.tree.cast(params, jnp.float32))

    def update(grads, state, params=None, *, finite: jax.Array | None = None):
        state = sharding.to_device_memory(state) if config.offload else state
        # optax mixes Python floats with integer counters, which strict promotion refuses.
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            updates, new_state = chained.update(optax.tree.cast(grads, jnp.float32), state, params)
        if finite is None:
            return updates, new_state
        return updates, where(finite, new_state, state)

    return optax.GradientTransformationExtraArgs(init, update)


def where(condition: jax.Array, tree, other):
    """`tree` where the condition is True, else `other`, leaf by leaf."""
    return jax.tree.map(lambda x, y: jnp.where(condition, x, y), tree, other)


def _adamw(config: OptimizerConfig, steps: int) -> optax.GradientTransformation:
    return optax.adamw(
        learning_rate(config, steps),
        b1=config.b1,
        b2=config.b2,
        eps=config.epsilon,
        weight_decay=config.weight_decay,
        mask=_decay_mask,
        mu_dtype=jnp.dtype(config.moments),
    )


def _muon(config: OptimizerConfig, steps: int) -> optax.GradientTransformation:
    """Orthogonalised momentum for matrices (Muon, Jordan et al. 2024), scaled so that AdamW's learning rates apply
    (arXiv 2502.16982); AdamW for embeddings and vectors."""
    return optax.contrib.muon(
        learning_rate(config, steps),
        weight_decay=config.weight_decay,
        mu_dtype=jnp.dtype(config.moments),
        adam_b1=config.b1,
        adam_b2=config.b2,
        adam_weight_decay=0.0,
        muon_weight_dimension_numbers=_muon_dimension_numbers,
        consistent_rms=0.2,
    )


def _muon_dimension_numbers(params):
    """The two axes of each parameter's matrix; None for other parameters. Leading layer axes are batch axes."""

    def axes(path, leaf):
        name = jax.tree_util.keystr(path[-1:]).strip("[']")
        if name == "qkv_kernel":
            return optax.contrib.MuonDimensionNumbers(leaf.ndim - 3, leaf.ndim - 1)
        return optax.contrib.MuonDimensionNumbers(leaf.ndim - 2, leaf.ndim - 1) if name == "kernel" else None

    return jax.tree_util.tree_map_with_path(axes, params)


def _decay_mask(params):
    """True for kernels and tables. Scanned layers stack vectors into matrices, so the name decides, not the rank."""
    named = lambda path, leaf: jax.tree_util.keystr(path[-1:]).strip("[']") not in ("bias", "scale", "qkv_bias")  # noqa: E731
    return jax.tree_util.tree_map_with_path(named, params)
