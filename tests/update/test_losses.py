"""Losses and advantages against plain numpy versions of their papers' equations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from chestx_jax.types import StepCredit
from chestx_jax.update.advantages import AdvantageConfig, group_advantages, token_advantages
from chestx_jax.update.logprobs import TokenStats
from chestx_jax.update.losses import (
    PolicyConfig,
    cross_entropy,
    kl_estimate,
    policy_loss,
    policy_warnings,
    token_weights,
)
from chestx_jax.update.optimizer import OptimizerConfig, learning_rate
from chestx_jax.update.steps import accumulate_gradients

B, L, G = 6, 5, 3
seeds = st.integers(0, 2**32 - 1)


def random_terms(seed):
    """Current and old log-probs, advantages of both signs, and a mask with an empty row and a full one."""
    rng = np.random.default_rng(seed)
    new = rng.uniform(-4, -0.1, (B, L)).astype(np.float32)
    old = (new + rng.normal(0, 0.4, (B, L))).astype(np.float32)
    advantages = rng.normal(size=(B, L)).astype(np.float32)
    lengths = np.concatenate([[0, L], rng.integers(1, L + 1, B - 2)])
    return tuple(map(jnp.asarray, (new, old, advantages, np.arange(L)[None] < lengths[:, None])))


# KL estimators


def softmax(x):
    return jnp.exp(x - jax.nn.logsumexp(x))


@given(seed=seeds)
@settings(max_examples=20)
def test_kl_estimators(seed):
    """Summed over all ids: k1 and k3 are unbiased, k2 has the divergence's gradient; k2 and k3 are never negative."""
    policy, reference = jnp.asarray(np.random.default_rng(seed).normal(size=(2, 6)), jnp.float32)
    log_p = lambda scores: jax.nn.log_softmax(scores)  # noqa: E731
    p, q = log_p(policy), log_p(reference)
    divergence = float(jnp.sum(jnp.exp(p) * (p - q)))
    estimates = {kind: kl_estimate(p, q, kind) for kind in ("k1", "k2", "k3")}
    for kind in ("k1", "k3"):
        np.testing.assert_allclose(jnp.sum(jnp.exp(p) * estimates[kind]), divergence, rtol=1e-4, atol=1e-6)
    for kind in ("k2", "k3"):
        assert (np.asarray(estimates[kind]) >= -1e-7).all()
    true = jax.grad(lambda s: jnp.sum(softmax(s) * (log_p(s) - q)))(policy)
    sampled = jax.grad(lambda s: jnp.sum(jax.lax.stop_gradient(jnp.exp(p)) * kl_estimate(log_p(s), q, "k2")))(policy)
    np.testing.assert_allclose(sampled, true, rtol=1e-3, atol=1e-5)


def test_kl_of_a_policy_with_itself_is_nothing():
    same = jnp.asarray([[-0.3, -2.0]])
    for kind in ("k1", "k2", "k3"):
        np.testing.assert_array_equal(kl_estimate(same, same, kind), 0.0)


@given(seed=seeds, clamp=st.sampled_from([0.1, 1.0, 10.0]))
@settings(max_examples=10)
def test_a_clamped_k3_is_k3_up_to_the_clamp(seed, clamp):
    """Value and gradient; beyond it there is no gradient, nor anything but a finite number, however far."""
    policy, reference = jnp.asarray(np.random.default_rng(seed).normal(0, 3, (2, 50)), jnp.float32)
    policy = policy.at[:3].set(jnp.asarray([-30.0, -200.0, 200.0]))
    full, full_slope = jax.vmap(jax.value_and_grad(lambda p, q: kl_estimate(p, q, "k3")))(policy, reference)
    value, slope = jax.vmap(jax.value_and_grad(lambda p, q: kl_estimate(p, q, "k3", clamp)))(policy, reference)
    np.testing.assert_allclose(value, np.minimum(full, clamp), rtol=1e-5)
    np.testing.assert_allclose(slope, np.where(full < clamp, full_slope, 0.0), rtol=1e-5)
    assert (np.asarray(full) > clamp).sum() >= 3


def test_the_estimator_without_a_gradient_is_warned_of():
    """The mean of k1's gradient over the policy is 0, and k2's and k3's are not."""
    policy, reference = jnp.asarray(np.random.default_rng(0).normal(size=(2, 6)), jnp.float32)
    log_p = jax.nn.log_softmax
    for kind in ("k1", "k2", "k3"):
        chosen = lambda s, kind=kind: kl_estimate(log_p(s), log_p(reference), kind)  # noqa: E731
        slope = jax.grad(lambda s, f=chosen: jnp.sum(jax.lax.stop_gradient(softmax(s)) * f(s)))(policy)
        assert (np.abs(slope).max() < 1e-6) == bool(policy_warnings(PolicyConfig(kl=kind)))
    assert not policy_warnings(PolicyConfig(kl="k1", kl_weight=0.0))


# The clipped objective


def expected_loss(ratio, advantage, low, high, dual):
    """PPO's min of two, negated; below zero advantage never more than dual times the advantage."""
    objective = min(ratio * advantage, min(max(ratio, 1 - low), 1 + high) * advantage)
    if dual and advantage < 0:
        objective = max(objective, dual * advantage)
    return -objective


@given(
    seed=seeds,
    low=st.sampled_from([0.1, 0.2]),
    high=st.sampled_from([0.2, 0.28]),
    dual=st.sampled_from([0.0, 1.2, 3.0]),
)
@settings(max_examples=25)
def test_clipped_objective_token_by_token(seed, low, high, dual):
    new, old, advantages, mask = random_terms(seed)
    loss, clipped = policy_loss(new, old, advantages, mask, PolicyConfig(clip_low=low, clip_high=high, dual_clip=dual))
    for b, t in zip(*np.nonzero(np.asarray(mask)), strict=True):
        ratio, advantage = float(np.exp(new[b, t] - old[b, t])), float(advantages[b, t])
        np.testing.assert_allclose(loss[b, t], expected_loss(ratio, advantage, low, high, dual), rtol=1e-4, atol=1e-6)
        outside = (advantage > 0 and ratio > 1 + high + 1e-6) or (advantage < 0 and ratio < 1 - low - 1e-6)
        inside = not ((advantage > 0 and ratio > 1 + high - 1e-6) or (advantage < 0 and ratio < 1 - low + 1e-6))
        assert float(clipped[b, t]) == 1.0 if outside else float(clipped[b, t]) == 0.0 or not inside


def gradient(new, old, advantage, **settings_):
    one = lambda x: jnp.full((1, 1), x, jnp.float32)  # noqa: E731
    config = PolicyConfig(**settings_)
    loss = lambda x: policy_loss(one(0.0) + x, one(old), one(advantage), one(1.0) > 0, config)[0][0, 0]  # noqa: E731
    return float(jax.grad(loss)(jnp.float32(new)))


def test_clipping_stops_the_gradient_where_the_step_went_far_enough():
    far, near, back = np.log(1.25), np.log(1.1), np.log(0.7)
    assert gradient(far, 0.0, 1.0) == 0.0
    assert gradient(far, 0.0, 1.0, clip_high=0.28) == pytest.approx(-1.25)  # the asymmetric clip leaves more room
    assert gradient(near, 0.0, 1.0) == pytest.approx(-1.1)
    assert gradient(back, 0.0, -1.0) == 0.0
    assert gradient(back, 0.0, 1.0) == pytest.approx(-0.7)  # a step the wrong way can always be taken back
    assert gradient(np.log(4.0), 0.0, -1.0) == 0.0  # dual clip: no endless push from one token
    assert gradient(np.log(4.0), 0.0, -1.0, dual_clip=0.0) == pytest.approx(4.0)


@given(seed=seeds)
@settings(max_examples=10)
def test_sequence_ratio_is_gspos(seed):
    """(π/π_old)^(1/length) of the full completion, on each of its tokens."""
    new, old, advantages, mask = random_terms(seed)
    loss, _ = policy_loss(new, old, advantages, mask, PolicyConfig(ratio="sequence", dual_clip=0.0))
    for b in range(B):
        places = np.flatnonzero(np.asarray(mask)[b])
        if not len(places):
            continue
        ratio = float(np.prod(np.exp(np.asarray(new - old, np.float64)[b, places])) ** (1 / len(places)))
        expected = [expected_loss(ratio, float(advantages[b, t]), 0.2, 0.2, 0) for t in places]
        np.testing.assert_allclose(loss[b, places], expected, rtol=1e-4, atol=1e-6)


# Aggregation


@given(seed=seeds)
@settings(max_examples=10)
def test_aggregations(seed):
    """Mean over tokens; mean over completions of token means; sum over the room there was."""
    terms, _, _, mask = (np.asarray(x, np.float64) for x in random_terms(seed))
    mask = mask.astype(bool)
    expected = {
        "token": terms[mask].mean(),
        "sequence": np.mean([row[kept].mean() for row, kept in zip(terms, mask, strict=True) if kept.any()]),
        "constant": terms[mask].sum() / (B * L),
    }
    for kind, value in expected.items():
        weights = np.asarray(token_weights(jnp.asarray(mask), kind))
        np.testing.assert_allclose((terms * weights).sum(), value, rtol=1e-5)
        assert (weights[~mask] == 0).all()


def test_nothing_kept_gives_no_loss():
    for kind in ("token", "sequence", "constant"):
        np.testing.assert_array_equal(token_weights(jnp.zeros((B, L), bool), kind), 0.0)


def test_supervised_loss_is_a_weighted_mean_with_z():
    rng = np.random.default_rng(0)
    logprob, logz, weights = (jnp.asarray(rng.uniform(0, 1, (2, 4)), jnp.float32) for _ in range(3))
    stats = TokenStats(-logprob, logz, logz)
    loss = cross_entropy(stats, weights, jnp.sum(weights), 0.1)
    np.testing.assert_allclose(loss, np.average(logprob + 0.1 * np.square(logz), weights=weights), rtol=1e-6)


# Advantages


@given(seed=seeds, group=st.sampled_from([2, 3, 6]))
@settings(max_examples=20)
def test_advantages_by_hand(seed, group):
    rewards = np.random.default_rng(seed).normal(size=B).astype(np.float32)
    groups = rewards.reshape(-1, group).astype(np.float64)
    assume(groups.std(1).min() > 1e-3)  # float32 does not tell closer rewards apart to the tolerance below
    centred = groups - groups.mean(1, keepdims=True)
    others = groups - (groups.sum(1, keepdims=True) - groups) / (group - 1)
    expected = {
        ("group", "std"): centred / groups.std(1, keepdims=True, ddof=1),
        ("group", "none"): centred,
        ("others", "none"): others,
    }
    for (baseline, scale), value in expected.items():
        config = AdvantageConfig(baseline=baseline, scale=scale)
        advantages, kept = group_advantages(jnp.asarray(rewards), group, config)
        np.testing.assert_allclose(advantages, value.reshape(-1), rtol=1e-3, atol=1e-4)
        assert kept.all()


def test_groups_of_equal_rewards():
    rewards = jnp.asarray([0.3, 0.3, 0.3, 0.1, 0.9, 0.1], jnp.float32)
    advantages, kept = group_advantages(rewards, G, AdvantageConfig(equal_groups="keep"))
    np.testing.assert_array_equal(advantages[:G], 0.0)  # although the mean of three 0.3 may round away from 0.3
    assert kept.all()
    _, kept = group_advantages(rewards, G, AdvantageConfig(equal_groups="drop"))
    assert kept.tolist() == [False] * G + [True] * G


def test_a_group_of_one_has_no_advantage():
    advantages, _ = group_advantages(jnp.asarray([0.2, 0.8]), 1, AdvantageConfig())
    np.testing.assert_array_equal(advantages, 0.0)


def test_step_credit_is_scaled_within_its_group():
    """Over the group's credited tokens its root mean square is 1 and its sign is kept; elsewhere there is none."""
    rng = np.random.default_rng(0)
    rewards = jnp.asarray(rng.normal(size=B), jnp.float32)
    credit = jnp.asarray(rng.normal(0.3, 2.0, (B, L)), jnp.float32)
    credited = np.arange(L)[None] < rng.integers(1, L, B)[:, None]
    plain, _ = group_advantages(rewards, G, AdvantageConfig())
    steps = StepCredit(credit, jnp.asarray(credited), jnp.asarray(credited))
    advantages, _ = token_advantages(rewards, steps, G, AdvantageConfig(step_weight=0.5))
    added = np.asarray(advantages) - np.asarray(plain)[:, None]
    for start in (0, G):
        here = slice(start, start + G)
        raw = np.asarray(credit)[here][credited[here]].astype(np.float64)
        expected = raw / np.sqrt((raw**2).mean())
        np.testing.assert_allclose(added[here][credited[here]] / 0.5, expected, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(added[here][~credited[here]], 0.0, atol=1e-6)
    alone, _ = token_advantages(rewards, steps, G, AdvantageConfig(step_weight=0.0))
    np.testing.assert_array_equal(alone, np.broadcast_to(np.asarray(plain)[:, None], (B, L)))


def test_credit_to_go_sums_the_normalised_steps_that_follow():
    """Against DeepSeekMath's equation, one step after the other."""
    value = np.asarray([[1, 1, 0, 3, 3], [2, 0, -4, -4, 0], [0, 0, 0, 0, 0]], np.float32)
    ends = np.asarray([[0, 1, 0, 0, 1], [1, 0, 0, 1, 0], [0] * 5], bool)
    steps = StepCredit(jnp.asarray(value), jnp.asarray(value != 0), jnp.asarray(ends))
    config = AdvantageConfig(step_weight=1.0, step_credit="to_go")
    advantages, _ = token_advantages(jnp.zeros(3), steps, 3, config)
    of_steps = value[ends]
    for row in range(3):
        for token in range(5):
            later = value[row, token:][ends[row, token:]]
            expected = sum((step - of_steps.mean()) / of_steps.std() for step in later)
            np.testing.assert_allclose(advantages[row, token], expected, rtol=1e-4, atol=1e-5)


# Micro-batches and the schedule


@pytest.mark.parametrize("micro_batches", [2, 4])
def test_micro_batches_sum_to_the_batch(micro_batches):
    """Leaves with several rows a prompt stay with their prompt."""
    rng = np.random.default_rng(0)
    prompts = jnp.asarray(rng.normal(size=(4, 3)), jnp.float32)
    rows = jnp.asarray(rng.normal(size=(4 * G, 3)), jnp.float32)
    params = jnp.asarray(rng.normal(size=3), jnp.float32)

    def loss(params, batch):
        prompts, rows = batch
        value = jnp.sum(jnp.square(jnp.repeat(prompts, G, axis=0) @ params) * jnp.tanh(rows @ params))
        return value, {"loss": value}

    full = accumulate_gradients(loss, params, (prompts, rows), 1)
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5),
        accumulate_gradients(loss, params, (prompts, rows), micro_batches),
        full,
    )


def test_schedule_warms_up_and_falls():
    config = OptimizerConfig(rate=2.0, warmup=0.1, final=0.1)
    with jax.numpy_dtype_promotion("standard"):
        rates = [float(learning_rate(config, 100)(step)) for step in (0, 5, 10, 55, 100)]
        constant = learning_rate(OptimizerConfig(rate=2.0, warmup=0.0, schedule="constant"), 9)
        steady = [float(constant(step)) for step in (0, 8)]
    np.testing.assert_allclose(rates, [0.0, 1.0, 2.0, 2.0 * (0.9 * 0.5 + 0.1), 0.2], rtol=1e-5)
    assert steady == [2.0, 2.0]
