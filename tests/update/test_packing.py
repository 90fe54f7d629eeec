"""Packing, micro-batches of a supervised step and chunked heads change no number."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from chestx_jax.model.config import with_compute
from chestx_jax.tokens import rows
from chestx_jax.tokens.patches import ImageSpec
from chestx_jax.update.logprobs import token_stats
from chestx_jax.update.state import initial_state
from chestx_jax.update.steps import sft_loss, sft_step
from tests.helpers import mesh_run
from tests.helpers.tiny_models import examples
from tests.helpers.tiny_rows import CONFIG, parameters, vocabulary


@pytest.fixture(scope="module")
def params():
    return parameters()


def close(one, other, tolerance=1e-5):
    """Every tensor within `tolerance` of its norm."""

    def distance(x, y):
        x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
        return np.linalg.norm(x - y) / max(np.linalg.norm(x), 1e-12)

    distances = jax.tree.map(distance, one, other)
    assert max(jax.tree.leaves(distances)) < tolerance, distances


def total_weight(batch):
    return jnp.sum(jnp.asarray(batch.weights))


differentiate = jax.jit(
    jax.value_and_grad(
        lambda params, batch, total: sft_loss(CONFIG, params, batch, jnp.asarray(vocabulary().allowed), total)
    )
)


def test_packed_equals_unpacked(params):
    """Four samples, alone in their rows and together in two, images and all: one loss, one gradient."""
    one, two, three, four = examples()
    alone = rows.pack([[one], [two], [three], [four]], rows.RowsConfig(64, 3, 120), ImageSpec())
    together = rows.pack([[four, one, three], [two]], rows.RowsConfig(96, 3, 120), ImageSpec())
    loss, gradient = differentiate(params, alone, total_weight(alone))
    packed_loss, packed_gradient = differentiate(params, together, total_weight(together))
    np.testing.assert_allclose(packed_loss, loss, rtol=1e-6)
    close(gradient, packed_gradient)


def test_only_weighted_tokens_are_learned(params):
    """The loss is the mean surprise of the weighted tokens given all before them, and of nothing else."""
    one, _, _, four = examples()
    batch = rows.pack([[one, four]], rows.RowsConfig(64, 3, 120), ImageSpec())
    loss, _ = differentiate(params, batch, total_weight(batch))
    for place in (0, 4, int(batch.weights[0].nonzero()[0][-1]) + 1):  # prompt, prompt, padding
        assert batch.weights[0, place] == 0
    swapped = batch.replace(tokens=batch.tokens.replace(ids=np.where(batch.tokens.segments == 0, 77, batch.tokens.ids)))
    np.testing.assert_array_equal(differentiate(params, swapped, total_weight(batch))[0], loss)
    last = int(batch.weights[0].nonzero()[0][-1])
    ids = batch.tokens.ids.copy()
    ids[0, last] += 1
    changed = batch.replace(tokens=batch.tokens.replace(ids=ids))
    assert differentiate(params, changed, total_weight(batch))[0] != loss


def gradient_recorder() -> optax.GradientTransformationExtraArgs:
    """An optimizer that changes no parameter; its state is the last gradient."""
    zeros = lambda params: jax.tree.map(jnp.zeros_like, params)  # noqa: E731
    return optax.GradientTransformationExtraArgs(zeros, lambda grads, state, params=None, **_: (zeros(grads), grads))


def test_micro_batches_change_nothing_in_a_supervised_step(params):
    batch, allowed = mesh_run.supervised_batch(), jnp.asarray(vocabulary().allowed)
    state = initial_state(params, gradient_recorder())
    steps = [
        jax.jit(lambda state, batch, k=k: sft_step(CONFIG, gradient_recorder(), 1e-3, k, state, batch, allowed))(
            state, batch
        )
        for k in (1, 4)
    ]
    np.testing.assert_allclose(steps[1][1]["loss"], steps[0][1]["loss"], rtol=1e-6)
    close(steps[0][0].moments, steps[1][0].moments)
    assert steps[0][0].step == 1


@pytest.mark.parametrize("tied", [False, True])
def test_a_chunked_head_gives_the_same_statistics_and_gradients(tied):
    """Also where the chunk does not divide the row, or the parts the vocabulary."""

    config = replace(CONFIG, tied=tied)
    rng = np.random.default_rng(0)
    table = jnp.asarray(rng.normal(0, 0.1, (config.vocab_size, config.width)), jnp.float32)
    params = {"embedding": table} if tied else {"embedding": table, "head": jnp.flip(table.T, 0)}
    hidden = jnp.asarray(rng.normal(size=(2, 11, config.width)), jnp.float32)
    targets = jnp.asarray(rng.integers(0, 200, (2, 11)), jnp.int32)
    weights = jnp.asarray(rng.normal(size=(3, 2, 11)), jnp.float32)
    allowed = jnp.asarray(jnp.asarray(vocabulary().allowed))

    def value(pair, field, number):
        params, hidden = pair
        stats = token_stats(with_compute(config, **{field: number}), params, hidden, targets, allowed, 0.8)
        mixed = jnp.sum(weights * jnp.stack([stats.logprob, stats.entropy, stats.logz]))
        return mixed, stats

    run = jax.jit(jax.grad(value, has_aux=True), static_argnums=(1, 2))
    gradient, stats = run((params, hidden), "head_chunk", 0)
    for field, number in (
        ("head_chunk", 4),
        ("head_chunk", 11),
        ("head_chunk", 64),
        ("head_parts", 2),
        ("head_parts", 5),
    ):
        again, other = run((params, hidden), field, number)
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5), other, stats)
        close(gradient, again)
    assert (np.asarray(stats.entropy) > 0).all()
    assert (np.asarray(stats.entropy) < np.log(allowed.sum())).all()
