"""What is logged of the policy objective."""

import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from chestx_jax.types import Rollout
from chestx_jax.update.importance import log_importance_ratio, truncated_weights
from chestx_jax.update.logprobs import TokenStats
from chestx_jax.update.losses import PolicyConfig, token_weights
from chestx_jax.update.micro_batches import Logprobs, MicroBatch
from chestx_jax.update.policy_objective import policy_objective

B, L = 4, 6
seeds = st.integers(0, 2**32 - 1)


def case(seed):
    """A micro-batch, the policy's log-probs, and the old policy's as the trainer computes them."""
    rng = np.random.default_rng(seed)
    now, old, sampled, advantages = (rng.normal(-2, 0.5, (B, L)).astype(np.float32) for _ in range(4))
    mask = np.arange(L)[None] < rng.integers(1, L + 1, B)[:, None]
    mask[rng.integers(B)] = False
    rollout = Rollout(np.zeros((B, L), np.int32), mask.sum(1), jnp.asarray(sampled), mask.any(1))
    weights = token_weights(jnp.asarray(mask), "token")
    part = MicroBatch(None, rollout, jnp.asarray(advantages), jnp.asarray(mask), weights, weights)
    return part, jnp.asarray(now), jnp.asarray(old), mask


def logged(config, part, now, old):
    metrics = policy_objective(config, TokenStats(now, -now, now), part, Logprobs(None, old))[1]
    return {name: float(value) for name, value in (metrics.means | metrics.maxima).items()}


@given(seed=seeds)
@settings(max_examples=10)
def test_drift_ratio_and_advantage_are_of_the_tokens_in_the_loss(seed):
    """Mean and maximum; the drift is between sampler and trainer, not what the updates have moved since."""
    part, now, old, mask = case(seed)
    assume_any = mask.any()
    metrics = logged(PolicyConfig(), part, now, old)
    expected = {
        "sampler_drift": np.abs(old - part.rollout.logprobs),
        "ratio": np.exp(now - old),
        "advantage": np.asarray(part.advantages),
    }
    for name, values in expected.items():
        inside = values[mask] if assume_any else np.zeros(1)
        np.testing.assert_allclose(metrics[name], inside.mean(), rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(metrics[f"{name}_max"], np.abs(inside).max(), rtol=1e-5)
    against_sampler = logged(PolicyConfig(old_logprobs="sampler"), part, now, None)
    inside = np.exp(now - part.rollout.logprobs)[mask] if assume_any else np.zeros(1)
    np.testing.assert_allclose(against_sampler["ratio"], inside.mean(), rtol=1e-4)


@given(seed=seeds, level=st.sampled_from(["token", "sequence"]), cap=st.sampled_from([0.5, 1.0, 2.0, 100.0]))
@settings(max_examples=15)
def test_importance_is_logged_where_it_corrects(seed, level, cap):
    part, now, old, mask = case(seed)
    metrics = logged(PolicyConfig(correction=level, correction_cap=cap), part, now, old)
    log_ratio = np.where(mask, old - part.rollout.logprobs, 0.0)
    ratio = np.exp(log_ratio.sum(1, keepdims=True).repeat(L, 1) if level == "sequence" else log_ratio)[mask]
    np.testing.assert_allclose(metrics["importance"], np.minimum(ratio, cap).mean(), rtol=1e-4)
    np.testing.assert_allclose(metrics["importance_max"], ratio.max(), rtol=1e-4)
    np.testing.assert_allclose(metrics["importance_truncated"], (ratio > cap).mean(), atol=1e-6)
    assert not any(name.startswith("importance") for name in logged(PolicyConfig(), part, now, old))


def test_a_completion_however_unlikely_has_a_finite_weight():
    far = jnp.full((1, 2000), 5.0)
    for level in ("token", "sequence"):
        for sign in (1.0, -1.0):
            log_ratio = log_importance_ratio(sign * far, 0.0 * far, far > 0, level)
            weights = np.asarray(truncated_weights(log_ratio, 2.0))
            assert np.isfinite(weights).all()
            assert weights.max() <= 2.0
