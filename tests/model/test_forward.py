"""One model, four ways in: whole rows, prompts, prompts shared by a group, and one token at a time agree."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chestx_jax.model import qwen_vl
from chestx_jax.model.attention import KeyBlock, attend
from chestx_jax.model.decoder import Cache
from chestx_jax.model.rope import axial_tables, mrope_tables, rotate
from chestx_jax.model.splash import Segments, dense_mask
from chestx_jax.rollout.engine import last_index, next_position
from tests.helpers.tiny_rows import (
    CONFIG,
    LONG,
    completions,
    packed,
    parameters,
    prompt_examples,
    prompt_rows,
    shift_right,
    with_completion,
)

GROUP, LENGTH = 3, 6  # completions per prompt, and their tokens
TOLERANCE = {"rtol": 2e-5, "atol": 2e-5}

forward = jax.jit(lambda params, tokens, images: qwen_vl.forward(CONFIG, params, tokens, images))
prefill = jax.jit(lambda params, tokens, images: qwen_vl.prefill(CONFIG, params, tokens, images))
attending = jax.jit(attend, static_argnums=2)
extend = jax.jit(lambda params, ids, at, segments, past: qwen_vl.extend(CONFIG, params, ids, at, segments, past))


@pytest.fixture(scope="module")
def params():
    return parameters()


@pytest.fixture(scope="module")
def prompts():
    return prompt_rows(prompt_examples())


@pytest.fixture(scope="module")
def expected(params):
    """Hidden states of each completion [B, L, D], from rows that hold prompt and completion together."""
    examples, (ids, _) = prompt_examples(), completions(4 * GROUP, LENGTH)
    rows = [[with_completion(examples[b // GROUP], row)] for b, row in enumerate(ids)]
    batch = packed(rows, LONG + LENGTH)
    hidden = np.asarray(forward(params, batch.tokens, batch.images))
    starts = [len(examples[b // GROUP].ids) for b in range(len(ids))]
    return np.stack([row[start : start + LENGTH] for row, start in zip(hidden, starts, strict=True)])


def following(params, prompts, cache, ids):
    """Hidden states of completions that follow a cache of prompts, all tokens at once."""
    group = len(ids) // cache.valid.shape[0]
    at = np.repeat(np.asarray(next_position(prompts)), group)[:, None] + np.arange(LENGTH, dtype=np.int32)
    return extend(params, ids, at, np.ones_like(ids), (cache,))[0]


def test_prompt_then_completion_equals_one_row(params, prompts, expected):
    ids, _ = completions(4 * GROUP, LENGTH)
    hidden, cache = prefill(params, prompts.tokens, prompts.images)
    np.testing.assert_allclose(following(params, prompts, cache, ids), expected, **TOLERANCE)
    batch = packed([[example] for example in prompt_examples()], LONG)
    np.testing.assert_allclose(hidden, forward(params, batch.tokens, batch.images), **TOLERANCE)


def test_a_shared_prompt_equals_a_repeated_prompt(params, prompts, expected):
    ids, _ = completions(4 * GROUP, LENGTH)
    repeated = jax.tree.map(lambda x: np.repeat(x, GROUP, axis=0), prompts)
    _, own = prefill(params, repeated.tokens, repeated.images)
    assert own.k.shape[1] == 4 * GROUP
    np.testing.assert_allclose(following(params, repeated, own, ids), expected, **TOLERANCE)


def test_decoding_with_a_cache_equals_the_whole_row(params, prompts, expected):
    ids, _ = completions(4 * GROUP, LENGTH)
    _, shared = prefill(params, prompts.tokens, prompts.images)
    shape = (CONFIG.layers, len(ids), CONFIG.kv_heads, LENGTH, CONFIG.head_width)
    # Slots without a token hold values that would show in the result if the mask let them through.
    own = Cache(np.full(shape, 9.0, np.float32), np.full(shape, 9.0, np.float32), np.zeros((len(ids), LENGTH), bool))
    start = np.repeat(np.asarray(next_position(prompts)), GROUP)
    steps = []
    for t in range(LENGTH):
        one = ids[:, t : t + 1]
        hidden, (k, v) = extend(params, one, (start + t)[:, None].astype(np.int32), np.ones_like(one), (shared, own))
        steps.append(hidden)
        own.k[..., t, :], own.v[..., t, :], own.valid[:, t] = k[..., 0, :], v[..., 0, :], True
    np.testing.assert_allclose(np.concatenate(steps, axis=1), expected, **TOLERANCE)


@pytest.mark.parametrize("side", ["left", "both", "none"])
def test_padding_on_either_side_changes_nothing(params, prompts, expected, side):
    ids, _ = completions(4 * GROUP, LENGTH)
    longest = int(prompts.length.max())
    if side == "none":  # the longest prompt alone, in a row of just its length
        chosen = np.array([int(prompts.length.argmax())])
        prompts = jax.tree.map(lambda x: x[chosen], prompts)
        prompts = prompts.replace(tokens=jax.tree.map(lambda x: x[:, :longest], prompts.tokens))
        assert prompts.tokens.segments.all()
    else:
        chosen = np.arange(4)
        by = LONG - longest if side == "left" else (LONG - longest) // 2
        prompts = prompts.replace(tokens=shift_right(prompts.tokens, by))
        assert not prompts.tokens.segments[:, 0].any()
    completion_rows = np.arange(4 * GROUP).reshape(4, GROUP)[chosen].reshape(-1)
    _, cache = prefill(params, prompts.tokens, prompts.images)
    np.testing.assert_allclose(
        following(params, prompts, cache, ids[completion_rows]), expected[completion_rows], **TOLERANCE
    )
    assert (np.asarray(prompts.tokens.segments)[np.arange(len(chosen)), last_index(prompts)] != 0).all()


def test_the_contents_of_padding_change_nothing(params, prompts):
    """Neither ids nor images in padding affect a real token."""
    hidden, _ = prefill(params, prompts.tokens, prompts.images)
    empty = prompts.tokens.segments == 0
    tokens = prompts.tokens.replace(ids=np.where(empty, 77, prompts.tokens.ids).astype(np.int32))
    patches = np.where(prompts.images.valid[..., None], prompts.images.patches, 200).astype(np.uint8)
    again, _ = prefill(params, tokens, prompts.images.replace(patches=patches))
    np.testing.assert_array_equal(hidden[~empty], again[~empty])


def test_every_image_has_an_effect(params, prompts):
    hidden, _ = prefill(params, prompts.tokens, prompts.images)
    blind, _ = prefill(params, prompts.tokens, prompts.images.replace(patches=np.zeros_like(prompts.images.patches)))
    last = np.asarray(last_index(prompts))
    moved = np.abs(np.asarray(hidden - blind))[np.arange(4), last].max(-1)
    has_film = prompts.images.valid.any((1, 2))
    assert (moved[has_film] > 1e-3).all()
    assert (moved[~has_film] == 0).all()


def dense(q, blocks):
    """One softmax over everything, in float64, head by head."""
    rows, length, heads, width = q.shape
    out = np.zeros(q.shape)
    for b in range(rows):
        take = [(block, b // (rows // block.k.shape[0])) for block in blocks]
        mask = np.concatenate([np.broadcast_to(x.mask[b], (length, x.k.shape[2])) for x, _ in take], axis=1)
        for h in range(heads):
            g = h // (heads // blocks[0].k.shape[1])
            k = np.concatenate([block.k[r, g] for block, r in take]).astype(np.float64)
            v = np.concatenate([block.v[r, g] for block, r in take]).astype(np.float64)
            scores = np.where(mask, q[b, :, h].astype(np.float64) @ k.T / np.sqrt(width), -np.inf)
            weights = np.exp(scores - scores.max(-1, keepdims=True))
            out[b, :, h] = weights / weights.sum(-1, keepdims=True) @ v
    return out


@settings(max_examples=15)
@given(
    shape=st.tuples(*[st.sampled_from(x) for x in ((1, 2), (1, 2, 3), (1, 4), (1, 2), (1, 3), (4, 8))]),
    sizes=st.lists(st.tuples(st.integers(1, 5), st.booleans(), st.booleans()), min_size=1, max_size=3),
    seed=st.integers(0, 99),
)
def test_blocks_share_one_softmax(shape, sizes, seed):
    """Blocks of a row's own keys or its prompt's, masks per query or for all queries: one softmax over all of them."""
    prompts, group, length, kv_heads, queries, width = shape
    rng = np.random.default_rng(seed)
    normal = lambda *size: rng.normal(size=size).astype(np.float32)  # noqa: E731
    rows = prompts * group
    blocks = []
    for slots, shared, same_mask in sizes:
        mask = rng.random((rows, 1 if same_mask else length, slots)) < 0.6
        mask[..., 0] |= not blocks  # every query has a key
        shape_of_keys = (prompts if shared else rows, kv_heads, slots, width)
        blocks.append(KeyBlock(normal(*shape_of_keys), normal(*shape_of_keys), mask))
    q = normal(rows, length, kv_heads * queries, width)
    np.testing.assert_allclose(attending(q, blocks, "auto"), dense(q, blocks), rtol=1e-5, atol=1e-5)


def test_a_query_without_keys_gives_numbers():
    one = np.ones((1, 1, 2, 4), np.float32)
    out = attending(one, [KeyBlock(one, one, np.zeros((1, 1, 1), bool))], "xla")
    assert np.isfinite(out).all()


@settings(max_examples=30)
@given(segments=st.lists(st.integers(0, 3), min_size=1, max_size=9))
def test_causal_mask_stays_in_its_segment(segments):
    ids = jnp.asarray([segments], jnp.int32)
    mask = np.asarray(dense_mask(Segments(ids, ids, causal=True)))[0]
    for i, segment in enumerate(segments):
        for j, other in enumerate(segments):
            assert mask[i, j] == (other == segment != 0 and j <= i)


def test_mrope_rotates_each_frequency_by_its_position():
    rng = np.random.default_rng(0)
    positions = rng.integers(0, 500, (2, 5, 3)).astype(np.int32)
    cos, sin = mrope_tables(jnp.asarray(positions), 16, 1e6, (2, 3, 3))
    stream = [0, 0, 1, 1, 1, 2, 2, 2]
    angles = np.stack([positions[..., s] * 1e6 ** (-2 * j / 16) for j, s in enumerate(stream)], axis=-1)
    np.testing.assert_allclose(cos, np.cos(np.concatenate([angles, angles], -1)), atol=1e-4)
    np.testing.assert_allclose(sin, np.sin(np.concatenate([angles, angles], -1)), atol=1e-4)
    with pytest.raises(ValueError, match="half the head width"):
        mrope_tables(jnp.asarray(positions), 16, 1e6, (2, 3, 4))


def test_axial_tables_rotate_by_row_then_column():
    positions = np.array([[[3, 5], [0, 7]]], np.int32)
    cos, _ = axial_tables(jnp.asarray(positions), 8)
    frequencies = 10000.0 ** -np.array([0, 0.5])
    angles = np.concatenate([positions[..., :1] * frequencies, positions[..., 1:] * frequencies], axis=-1)
    np.testing.assert_allclose(cos, np.cos(np.concatenate([angles, angles], -1)), atol=1e-6)


def test_rotation_keeps_norms_and_depends_on_distances_only():
    rng = np.random.default_rng(1)
    q, k = (jnp.asarray(rng.normal(size=(1, 4, 2, 16)), jnp.float32) for _ in range(2))
    at = jnp.repeat(jnp.arange(4, dtype=jnp.int32)[None, :, None], 3, axis=-1)

    def scores(offset):
        tables = mrope_tables(at + offset, 16, 1e4, (2, 3, 3))
        return np.einsum("blhe,bmhe->bhlm", rotate(q, tables), rotate(k, tables))

    np.testing.assert_allclose(scores(0), scores(100), atol=1e-3)
    turned = rotate(q, mrope_tables(at, 16, 1e4, (2, 3, 3)))
    np.testing.assert_allclose(np.linalg.norm(turned, axis=-1), np.linalg.norm(q, axis=-1), rtol=1e-5)
    assert np.abs(turned[:, 1:] - q[:, 1:]).max() > 0.1
