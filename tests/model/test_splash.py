"""Pallas' attention kernels, interpreted on the CPU, against the XLA form of the same blocks."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from chestx_jax.model.attention import KeyBlock, attend, make_mask, pallas
from chestx_jax.model.splash import LANES, Segments, dense_mask, splash
from chestx_jax.programs.program import resolve_attention
from tests.helpers.tiny_models import tiny


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


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("heads", [2, 4])
def test_the_kernel_for_gpus_equals_xla(causal, heads):
    """Packed samples and padding, shared key heads; outputs, and gradients of queries, keys and values."""
    rng = np.random.default_rng(1)
    normal = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)  # noqa: E731
    ids = jnp.asarray([[1] * 64 + [2] * 40 + [0] * 24, [1] * 128], jnp.int32)
    segments, real = Segments(ids, ids, causal=causal), (ids != 0).astype(jnp.float32)[..., None, None]
    q, k, v, weight = normal(2, 128, heads, 16), normal(2, 2, 128, 16), normal(2, 2, 128, 16), normal(2, 128, heads, 16)
    kernel = lambda q, k, v: pallas(q, KeyBlock(k, v, segments), interpret=True)  # noqa: E731
    xla = lambda q, k, v: attend(q, [KeyBlock(k, v, dense_mask(segments))], "xla")  # noqa: E731

    def both(run):
        loss = lambda *inputs: jnp.sum(run(*inputs) * real * weight)  # noqa: E731
        return run(q, k, v) * real, jax.jit(jax.grad(loss, argnums=(0, 1, 2)))(q, k, v)

    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), both(kernel), both(xla))


def test_what_each_backend_is_told():
    """Segments where its kernel takes them: pallas for whole rows, splash after a cache too; booleans else."""
    ids = jnp.ones((1, LANES), jnp.int32)
    segments = Segments(ids, ids, causal=True)
    assert make_mask(segments, "pallas") is make_mask(segments, "splash", [LANES]) is segments
    for backend, past in (("pallas", [LANES]), ("cudnn", []), ("xla", [])):
        assert make_mask(segments, backend, past).dtype == bool


@pytest.mark.parametrize(
    ("platform", "dtype", "backend"),
    [
        ("tpu", "bfloat16", "splash"),
        ("gpu", "bfloat16", "cudnn"),
        ("gpu", "float32", "xla"),
        ("cpu", "bfloat16", "xla"),
    ],
)
def test_auto_is_the_platform_s_kernel(platform, dtype, backend):
    mesh = types.SimpleNamespace(devices=np.array([types.SimpleNamespace(platform=platform)]))
    model = tiny(attention="auto", dtype=dtype)
    assert resolve_attention(model, mesh).compute.attention == backend
    chosen = tiny(attention="pallas", dtype=dtype)
    assert resolve_attention(chosen, mesh) == chosen


def test_single_queries_and_what_cudnn_refuses_go_to_xla():
    """Decoding, fp32, and odd lengths: nothing of cuDNN is asked for, which is not here."""
    normal = lambda *shape, dtype: jnp.asarray(np.random.default_rng(0).normal(size=shape), dtype)  # noqa: E731
    for length, keys, dtype in ((1, 8, jnp.bfloat16), (8, 8, jnp.float32), (8, 7, jnp.bfloat16)):
        q, k = normal(2, length, 2, 16, dtype=dtype), normal(2, 1, keys, 16, dtype=dtype)
        block = KeyBlock(k, k, jnp.ones((2, 1, keys), bool))
        for backend in ("cudnn", "pallas"):
            assert jnp.array_equal(attend(q, [block], backend), attend(q, [block], "xla"))
