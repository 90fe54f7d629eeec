"""A step whose loss or gradient is not finite changes nothing but the counters, whatever rule and precision."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chestx_jax import multihost
from chestx_jax.errors import UserError
from chestx_jax.programs.state import current_rate
from chestx_jax.recipes import GrpoConfig, SftConfig
from chestx_jax.training.step_metrics import PendingStep, fetch_metrics
from chestx_jax.update.optimizer import OptimizerConfig, make_optimizer
from chestx_jax.update.state import initial_state
from chestx_jax.update.steps import accumulate_gradients, apply_gradients

PLAIN = OptimizerConfig(rate=1e-2, schedule="cosine", warmup=0.0, weight_decay=0.1)
RULES = {
    "adamw": PLAIN,
    "muon": replace(PLAIN, rule="muon"),
    "offloaded": replace(PLAIN, offload=True),
    "unclipped": replace(PLAIN, clip=0.0, moments="bfloat16"),
}


def params(dtype="float32"):
    rng = np.random.default_rng(0)
    shapes = {"kernel": (6, 4), "bias": (4,)}
    return {name: jnp.asarray(rng.normal(size=shape), dtype) for name, shape in shapes.items()}


def steps(transform, state, factors, losses=None):
    """The state after a step for each factor of the gradients."""
    step = jax.jit(lambda state, grads, loss: apply_gradients(transform, state, grads, loss, 0))
    for factor, loss in zip(factors, losses or [0.0] * len(factors), strict=True):
        grads = jax.tree.map(lambda x, factor=factor: jnp.full_like(x, 0.1).at[0].set(factor), state.params)
        state, metrics = step(state, grads, jnp.float32(loss))
    return state, metrics


def same(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


@pytest.mark.parametrize("stage", [SftConfig(steps=4), GrpoConfig(prompts=4, steps=2, mini_batches=2)])
def test_the_learning_rate_that_is_logged_is_the_one_that_is_used(stage):
    """Over skipped steps, too: the update of a constant gradient is the rate."""
    rule = OptimizerConfig("adamw", rate=0.1, schedule="cosine", warmup=0.5, clip=0.0)
    stage = replace(stage, optimizer=rule)
    transform = make_optimizer(rule, 4)
    state = initial_state(params(), transform)
    for factor in (0.1, np.nan, 0.1, 0.1):
        rate, before = float(current_rate(stage, state)), state.params["bias"]
        state, _ = steps(transform, state, (factor,))
        if np.isfinite(factor):
            np.testing.assert_allclose(before[1:] - state.params["bias"][1:], rate, rtol=1e-4, atol=1e-6)
    assert rate > 0


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("rule", RULES)
def test_a_gradient_that_is_not_finite_changes_nothing(rule, dtype):
    transform = make_optimizer(RULES[rule], 10)
    good, _ = steps(transform, initial_state(params(dtype), transform), (0.3, 0.2))
    for bad, loss in ((np.nan, 0.0), (np.inf, 0.0), (-np.inf, 0.0), (1e30, 0.0), (0.3, np.nan), (0.3, np.inf)):
        state, metrics = steps(transform, good, (bad,), (loss,))
        same((state.params, state.moments), (good.params, good.moments))
        assert (int(state.step), int(state.skipped), int(state.skipped_in_a_row)) == (3, 1, 1)
        assert float(metrics["update_norm"]) == 0
    if dtype == "float32":  # the schedule's place is among the moments: what follows is as if the step had not been
        skipped, _ = steps(transform, good, (np.nan, 0.1))
        straight, _ = steps(transform, good, (0.1,))
        same((skipped.params, skipped.moments), (straight.params, straight.moments))


@settings(max_examples=15)
@given(bad=st.lists(st.booleans(), min_size=1, max_size=12))
def test_skipped_steps_are_counted(bad):
    transform = make_optimizer(PLAIN, 20)
    state, metrics = steps(transform, initial_state(params(), transform), [np.nan if b else 0.1 for b in bad])
    trailing = len(bad) - max((i + 1 for i, b in enumerate(bad) if not b), default=0)
    assert (int(metrics["skipped"]), int(metrics["skipped_in_a_row"])) == (sum(bad), trailing)
    assert int(state.step) == len(bad)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))


def test_a_finite_loss_with_a_gradient_that_is_not():
    """The gradient of a root at 0, behind a `where` that hides it from the loss."""

    def loss(params, batch):
        value = jnp.sum(jnp.where(batch > 0, jnp.sqrt(batch * params["kernel"][0, 0] ** 2), 0.0))
        return value, {"loss": value}

    transform = make_optimizer(PLAIN, 10)
    state = initial_state(params(), transform)
    grads, metrics = accumulate_gradients(loss, state.params, jnp.float32([0.0, 1.0]), 1)
    assert np.isfinite(metrics["loss"])
    assert not np.isfinite(grads["kernel"]).all()
    after, _ = apply_gradients(transform, state, grads, metrics["loss"], 0)
    same(after.params, state.params)


def test_the_run_stops_after_so_many_in_a_row(tmp_path, caplog):
    metrics = {"loss": jnp.float32(0.7), "grad_norm": jnp.float32(np.nan), "skipped": jnp.int32(5)}
    batch = {"ids": jnp.arange(3)}
    pending = lambda in_a_row: PendingStep(8, {**metrics, "skipped_in_a_row": jnp.int32(in_a_row)}, batch)  # noqa: E731
    fetch_metrics(pending(0), tmp_path, 3)
    assert not caplog.text
    fetch_metrics(pending(2), tmp_path, 3)
    assert "step 8: no update, the loss is 0.7 and the norm of its gradient nan (2 in a row, 5 in all)" in caplog.text
    assert not list(tmp_path.iterdir())
    with pytest.raises(UserError, match=r"3 steps in a row had no finite gradient, the last is step 8 .*max_skipped"):
        fetch_metrics(pending(3), tmp_path, 3)
    with np.load(tmp_path / "bad_batch_8.npz") as saved:
        same(saved["['ids']"], multihost.local_rows(batch)["ids"])
