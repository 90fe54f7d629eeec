"""bfloat16 parameters: rounded at random they learn what fp32 ones do, the same bits wherever and whenever."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chestx_jax.sharding import MeshConfig, make_mesh, named_sharding
from chestx_jax.update.optimizer import OptimizerConfig, make_optimizer
from chestx_jax.update.rounding import apply_updates, round_randomly
from chestx_jax.update.state import initial_state
from chestx_jax.update.steps import accumulate_gradients, apply_gradients
from tests.benchmarks.bfloat16 import share_reached


@settings(max_examples=60)
@given(x=st.floats(-(2.0**100), 2.0**100, width=32), seed=st.integers(0, 99))
def test_a_number_becomes_one_of_its_neighbours_and_itself_on_average(x, seed):
    if abs(x) < 2.0**-100:
        x = 0.0  # of numbers near 0 the neighbours are below what float32 holds apart
    many = jnp.full((4096,), x, jnp.float32)
    rounded = np.asarray(
        round_randomly(many, jax.random.bits(jax.random.key(seed), many.shape, jnp.uint32)), np.float64
    )
    gap = abs(x) * 2.0**-7
    assert np.abs(rounded - x).max() <= gap
    assert len(set(rounded.tolist())) <= 2
    assert abs(rounded.mean() - x) <= 5 * gap / 2 / np.sqrt(many.size)


def test_what_is_a_bfloat16_already_stays_it():
    every = jax.lax.bitcast_convert_type(jnp.arange(2**16, dtype=jnp.uint16), jnp.bfloat16)
    wide = every.astype(jnp.float32)
    finite = every[jnp.isfinite(wide) & (jnp.abs(wide) >= jnp.float32(2.0**-126))]  # smaller ones are 0 to a device
    same = apply_updates({"w": finite}, {"w": jnp.zeros(finite.shape, jnp.float32)}, jax.random.key(0))["w"]
    np.testing.assert_array_equal(same.astype(jnp.float32), finite.astype(jnp.float32))


def test_fp32_parameters_are_added_to_and_nothing_else():
    rng = np.random.default_rng(0)
    params, updates = ({"w": jnp.float32(rng.normal(size=50))} for _ in range(2))
    added = apply_updates(params, updates, jax.random.key(0))
    np.testing.assert_array_equal(added["w"], optax.apply_updates(params, updates)["w"])


@pytest.mark.parametrize("mesh", [MeshConfig(1, 8, 1), MeshConfig(2, 2, 2)])
def test_the_bits_do_not_depend_on_the_mesh(mesh):
    params = {"a": jnp.ones((16, 8), jnp.bfloat16), "b": {"c": jnp.ones((8,), jnp.bfloat16)}}
    updates = jax.tree.map(lambda x: jnp.full(x.shape, 1e-3, jnp.float32), params)
    alone = jax.jit(apply_updates)(params, updates, jax.random.key(3))
    assert {1.0, 1.0078125} == set(np.asarray(alone["a"], np.float32).ravel().tolist())
    split = named_sharding(make_mesh(mesh), ("embed", "mlp"), (16, 8))
    whole = named_sharding(make_mesh(mesh), (None,), (8,))
    shardings = {"a": split, "b": {"c": whole}}
    step = jax.jit(apply_updates, in_shardings=(shardings, shardings, None), out_shardings=shardings)
    jax.tree.map(np.testing.assert_array_equal, step(params, updates, jax.random.key(3)), alone)
    other = apply_updates(params, updates, jax.random.key(4))
    assert (np.asarray(other["a"]) != np.asarray(alone["a"])).any()


def test_a_resumed_step_rounds_as_an_undisturbed_one():
    transform = make_optimizer(OptimizerConfig(rate=1e-4, schedule="constant", warmup=0.0), 10)
    state = initial_state({"kernel": jnp.ones((64, 64), jnp.bfloat16)}, transform)
    grads = {"kernel": jnp.ones((64, 64), jnp.bfloat16)}
    step = jax.jit(lambda state: apply_gradients(transform, state, grads, jnp.float32(0), 0)[0])
    first, second = step(state), step(step(state))
    jax.tree.map(np.testing.assert_array_equal, step(jax.device_get(first)), second)
    moved = [np.asarray(s.params["kernel"]) != 1 for s in (first, second)]
    assert moved[0].any()
    assert not np.array_equal(moved[0], moved[1])


@pytest.mark.parametrize("rate", [2e-6, 5e-7])  # SFT's and GRPO's of the recipe
def test_bfloat16_weights_reach_the_change_that_is_wanted(rate):
    nearest, randomly = share_reached(rate, steps=150)
    assert nearest < 0.1
    assert randomly == pytest.approx(1.0, abs=0.05)


def test_micro_batches_are_summed_in_fp32():
    """A thousandth of the first part is lost beside it in bfloat16."""

    def loss(params, batch):
        value = jnp.sum(params["w"].astype(jnp.float32)) * jnp.sum(batch)
        return value, {"loss": value}

    parts = jnp.float32([1.0] + [1 / 1024] * 7)
    grads, _ = accumulate_gradients(loss, {"w": jnp.ones((3,), jnp.bfloat16)}, parts, 8)
    assert grads["w"].dtype == jnp.float32
    np.testing.assert_allclose(grads["w"], 1 + 7 / 1024, rtol=1e-6)
