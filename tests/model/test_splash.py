"""Splash attention, interpreted on the CPU, against the XLA form of the same blocks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from chestx_jax.model.attention import KeyBlock, attend
from chestx_jax.model.splash import LANES, Segments, dense_mask, splash


@pytest.mark.parametrize("cached", [False, True], ids=["packed", "after a shared cache"])
def test_splash_attention_equals_xla(cached):
    """Packed samples and padding in a row; or completions after their group's prompt, some slots of which are empty."""
    rng = np.random.default_rng(0)
    normal = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)  # noqa: E731
    rows, heads, kv_heads, width = 2, 2, 1, 64
    row = [1] * 100 + [0] * 28 if cached else [1] * 64 + [2] * 40 + [0] * 24
    ids = jnp.asarray([row] * rows, jnp.int32)
    segments = Segments(ids, ids, causal=True)
    keys = lambda rows: (normal(rows, kv_heads, LANES, width), normal(rows, kv_heads, LANES, width))  # noqa: E731
    past = [KeyBlock(*keys(1), jnp.asarray(rng.random((rows, 1, LANES)) < 0.7))] if cached else []
    q, (k, v) = normal(rows, LANES, heads, width), keys(rows)
    out = jax.jit(lambda q, blocks: splash(q, blocks, interpret=True))(q, [*past, KeyBlock(k, v, segments)])
    expected = attend(q, [*past, KeyBlock(k, v, dense_mask(segments))], "xla")
    real = np.asarray(ids) != 0
    np.testing.assert_allclose(np.asarray(out)[real], np.asarray(expected)[real], atol=2e-6)
