"""Moments and the reference model in the host's memory: the same numbers, each in its place.

The whole steps run this way in `tiny_job` (moments) and in test_programs (reference).
"""

from dataclasses import replace

import grain
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from chestx_jax import checkpoint, sharding
from chestx_jax.errors import UserError
from chestx_jax.model import qwen_vl
from chestx_jax.model.config import TuningConfig, with_compute
from chestx_jax.programs.job import programs
from chestx_jax.programs.state import init_reference, init_state
from chestx_jax.recipes import ReferenceConfig
from chestx_jax.sharding import MeshConfig, make_mesh
from chestx_jax.update.optimizer import OptimizerConfig, make_optimizer
from chestx_jax.update.state import state_shapes
from chestx_jax.update.steps import apply_gradients
from tests.helpers import mesh_run

JOB = mesh_run.JOB
CLIPPED = OptimizerConfig(rate=1e-3, schedule="constant", warmup=0.0, weight_decay=0.1)
LORA = TuningConfig(vision="freeze", merger="train", decoder="lora")


@pytest.fixture(scope="module")
def mesh():
    return make_mesh(MeshConfig(2, 2, 2))


@pytest.fixture(scope="module")
def params():
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(leaf.dtype), qwen_vl.shapes(JOB.model))


def initial(offload, mesh, params):
    """The optimizer and the state before the first step."""
    stage = replace(JOB.init, optimizer=replace(CLIPPED, offload=offload))
    program = init_state(JOB, stage, mesh)
    return make_optimizer(stage.optimizer, 10), program.jit()(jax.device_put(params, program.shardings["params"]))


def three_steps(offload, mesh, params):
    """The state after three optimizer steps on made-up gradients, and how often the step was compiled."""
    transform, state = initial(offload, mesh, params)
    shardings = jax.tree.map(lambda x: x.sharding, state)
    step = jax.jit(
        lambda state, grads: apply_gradients(transform, state, grads, jnp.float32(0), 0)[0],
        in_shardings=(shardings, shardings.params), out_shardings=shardings, donate_argnums=0,
    )  # fmt: skip
    grads = jax.device_put(jax.tree.map(np.cos, params), shardings.params)
    with jax.transfer_guard("disallow"):
        for _ in range(3):
            before, state = state, step(state, grads)
            assert all(leaf.is_deleted() for leaf in jax.tree.leaves(before))
    return state, step._cache_size()


@pytest.fixture(scope="module")
def offloaded(mesh, params):
    return three_steps(True, mesh, params)


def memory_kinds(tree):
    """The kinds of memory that hold the arrays."""
    return {leaf.sharding.memory_kind for leaf in jax.tree.leaves(tree)}


def moments(state):
    return optax.tree.get(state.moments, "mu"), optax.tree.get(state.moments, "nu")


def assert_same(one, other):
    for x, y in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y))


def test_offloaded_steps_equal_plain_ones(mesh, params, offloaded):
    state, compiled = offloaded
    plain, _ = three_steps(False, mesh, params)
    assert_same(state, plain)
    assert compiled == 1
    assert memory_kinds(moments(state)) == {"pinned_host"}
    assert memory_kinds((state.params, state.step, plain)) == {"device"}
    assert all(np.any(np.asarray(leaf)) for leaf in jax.tree.leaves(moments(state)))


def test_offloaded_moments_are_saved_and_come_back_to_the_host(offloaded, tmp_path):
    state, _ = offloaded
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), state)
    data = iter(grain.MapDataset.range(3).to_iter_dataset())
    with checkpoint.manager(tmp_path, 1) as checkpoints:
        checkpoint.save(checkpoints, state, data.get_state(), 3, None)
        checkpoints.wait_until_finished()
        back = checkpoint.restore(checkpoints, shapes, jax.tree.map(lambda x: x.sharding, state), data)
    assert back is not None
    assert_same(state, back)
    assert memory_kinds(moments(back)) == {"pinned_host"}
    assert memory_kinds(back.params) == {"device"}


@pytest.mark.parametrize("rule", ["adamw", "muon"])
@pytest.mark.parametrize("tuning", [TuningConfig(), LORA], ids=["all", "lora"])
def test_every_moment_of_any_rule_is_placed(mesh, rule, tuning):
    job = replace(JOB, model=replace(JOB.model, tuning=tuning))
    program = init_state(job, replace(JOB.init, optimizer=OptimizerConfig(rule=rule, offload=True)), mesh)
    shapes = jax.eval_shape(program.function, *program.shapes.values()).moments
    shardings = program.out_shardings.moments
    assert jax.tree.structure(shapes) == jax.tree.structure(shardings)
    pairs = zip(jax.tree.leaves(shapes), jax.tree.leaves(shardings), strict=True)
    large = [sharding.memory_kind for leaf, sharding in pairs if leaf.size > 8]
    assert len(large) > 10
    assert set(large) == {"pinned_host"}


def test_the_reference_has_its_dtype_and_is_on_the_host(mesh, params):
    stage = replace(JOB.grpo, reference=ReferenceConfig("bfloat16", offload=True))
    program = init_reference(JOB, stage, mesh)
    reference = program.jit()(jax.device_put(params, program.shardings["params"]))
    assert memory_kinds(reference) == {"pinned_host"}
    assert_same(reference, jax.tree.map(lambda x: x.astype(jnp.bfloat16), params))
    reader = programs(replace(JOB, grpo=stage), mesh)["grpo/fetch"]
    jax.tree.map(lambda x, shape: np.testing.assert_equal((x.shape, x.dtype), (shape.shape, shape.dtype)),
                 reference, reader.shapes["reference"])  # fmt: skip
    assert jax.tree.map(lambda x: x.sharding, reference) == reader.shardings["reference"]
    fetched = reader.jit()(reference)
    assert memory_kinds(fetched) == {"device"}
    assert_same(fetched, reference)


def test_second_moments_are_float32_whatever_the_weights_are():
    transform = make_optimizer(OptimizerConfig(moments="bfloat16"), 10)
    first, second = moments(state_shapes(with_compute(JOB.model, param_dtype="bfloat16"), transform))
    assert {leaf.dtype for leaf in jax.tree.leaves(first)} == {jnp.dtype("bfloat16")}
    assert {leaf.dtype for leaf in jax.tree.leaves(second)} == {jnp.dtype("float32")}


def test_small_gradients_of_half_precision_weights_are_not_lost():
    """In bfloat16 a second moment near 1 would never fall by a thousandth of itself."""
    transform = make_optimizer(replace(CLIPPED, clip=0.0), 10)
    weights = {"kernel": jnp.ones((2, 3), jnp.bfloat16)}
    state = transform.init(weights)
    for gradient in (1.0, *[0.0] * 9):
        _, state = transform.update({"kernel": jnp.full((2, 3), gradient, jnp.bfloat16)}, state, weights)
    (second,) = jax.tree.leaves(optax.tree.get(state, "nu"))
    np.testing.assert_allclose(second, 1e-3 * 0.999**9, rtol=1e-5)


def test_devices_without_host_memory_are_one_sentence(mesh, monkeypatch):
    monkeypatch.setattr(sharding, "HOST_MEMORY", "no_such_memory")
    offloading = replace(JOB, init=replace(JOB.init, optimizer=replace(CLIPPED, offload=True)))
    with pytest.raises(
        UserError, match=r"no no_such_memory memory.*set every config field `offload` to False"
    ) as caught:
        programs(offloading, mesh)
    assert "\n" not in str(caught.value)
