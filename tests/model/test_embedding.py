"""Embeddings and logits in half precision: operands bfloat16, sums fp32, in both directions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

from chestx_jax.model.embedding import embed_tokens, head_logits

V, D, B, L = 50, 16, 8, 512


def relative(x, y):
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    return np.linalg.norm(x - y) / np.linalg.norm(y)


def values(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(1.0, 1.0, shape), jnp.float32)


def rounded(x):
    return x.astype(jnp.bfloat16).astype(jnp.float32)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_gradient_of_a_common_id_does_not_stop_growing(dtype):
    """Two thousand positions of one id: a sum in bfloat16 ends at 256 times a term."""
    table, ids = values(V, D), jnp.where(jnp.arange(B * L) % 2 == 0, 7, jnp.arange(B * L) % V).reshape(B, L)
    weights = values(B, L, D, seed=1)
    loss = lambda table: jnp.sum(weights.astype(dtype) * embed_tokens(table, ids, dtype), dtype=jnp.float32)  # noqa: E731
    gradient = jax.grad(loss)(table)
    exact = np.zeros((V, D))
    np.add.at(exact, np.asarray(ids), np.asarray(weights.astype(dtype), np.float64))
    assert gradient.dtype == jnp.float32
    assert relative(gradient, exact) < 1e-5
    np.testing.assert_array_equal(embed_tokens(table, ids, dtype), table.astype(dtype)[ids])


def test_in_fp32_nothing_changes():
    table, ids, hidden, head = values(V, D), jnp.arange(24).reshape(2, 12) % V, values(2, 12, D), values(D, V, seed=3)

    def ours(table, hidden, head):
        return jnp.sum(jnp.sin(head_logits(hidden + embed_tokens(table, ids, "float32"), head, "float32")))

    def plain(table, hidden, head):
        return jnp.sum(jnp.sin((hidden + table[ids]) @ head))

    arguments = table, hidden, head
    np.testing.assert_allclose(ours(*arguments), plain(*arguments), rtol=1e-5)
    gradients = (jax.grad(f, argnums=(0, 1, 2))(*arguments) for f in (ours, plain))
    for one, other in zip(*gradients, strict=True):
        assert relative(one, other) < 1e-5


def test_products_over_the_vocabulary_have_half_precision_operands():
    """And fp32 sums: gradients of fp32 weights are off by the rounding of the operands alone."""
    hidden, head, weights = values(B, L, D).astype(jnp.bfloat16), values(D, V, seed=3), values(B, L, V, seed=4)
    loss = lambda hidden, head: jnp.sum(weights * head_logits(hidden, head, "bfloat16"))  # noqa: E731
    of_hidden, of_head = jax.grad(loss, argnums=(0, 1))(hidden, head)
    assert (of_hidden.dtype, of_head.dtype) == (jnp.bfloat16, jnp.float32)
    hidden32, weights32 = (np.asarray(rounded(x), np.float64) for x in (hidden, weights))
    assert relative(of_head, np.einsum("bld,blv->dv", hidden32, weights32)) < 1e-5
    assert relative(of_hidden, np.einsum("blv,dv->bld", weights32, np.asarray(rounded(head), np.float64))) < 4e-3
    jaxpr = jax.make_jaxpr(jax.grad(loss, argnums=(0, 1)))(hidden, head)
    products = [eqn for eqn in _equations(jaxpr.jaxpr) if eqn.primitive.name == "dot_general"]
    sizes = [tuple(x.aval.dtype for x in eqn.invars) for eqn in products if eqn.outvars[0].aval.shape != ()]
    assert len(sizes) >= 2
    assert {dtype for pair in sizes for dtype in pair} == {jnp.dtype("bfloat16")}


def _equations(jaxpr):
    """Those of a jaxpr and of the jaxprs in it."""
    for eqn in jaxpr.eqns:
        yield eqn
        for inner in jaxprs_in_params(eqn.params):
            yield from _equations(inner)
