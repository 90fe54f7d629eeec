"""The sampler: its log-probs are the trainer's; stop ids, lengths and the truncation rules."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from chestx_jax.buckets import FLOOR
from chestx_jax.model import qwen_vl
from chestx_jax.rollout.sampling import SamplingConfig, next_token_logprobs, sample
from chestx_jax.sharding import MeshConfig, make_mesh
from chestx_jax.update.logprobs import completion_stats
from tests.helpers.sampling import generate
from tests.helpers.tiny_models import EOS, IMAGE_PAD, PAD, VOCABULARY
from tests.helpers.tiny_rows import (
    CONFIG,
    KNOWN,
    LONG,
    parameters,
    prompt_examples,
    prompt_rows,
    shift_right,
    vocabulary,
)

SAMPLING = SamplingConfig(temperature=0.7, length=12, group=4)
TRUNCATED = replace(SAMPLING, top_k=20, top_p=0.8)
LONGER = replace(SAMPLING, length=100)
GREEDY = replace(SAMPLING, temperature=0.0)


@pytest.fixture(scope="module")
def params():
    """A model with likely stop ids, and whose forbidden ids would be sampled if they were allowed."""
    initial = parameters()
    return {**initial, "head": initial["head"].at[:, EOS].multiply(3.0).at[:, IMAGE_PAD].multiply(9.0)}


@pytest.fixture(scope="module")
def prompts():
    return prompt_rows(prompt_examples())


def generating(sampling, params, prompts, step=0, **where):
    return generate(CONFIG, sampling, params, prompts, vocabulary(), step, **where)


def stats(params, prompts, rollout, allowed, temperature):
    return completion_stats(CONFIG, params, prompts, rollout.ids, rollout.length, allowed, temperature).logprob


compiled_stats = jax.jit(stats, static_argnums=4)


def trainer_logprobs(params, prompts, rollout, temperature):
    return np.asarray(compiled_stats(params, prompts, rollout, vocabulary().allowed, temperature))


def completion_mask(rollout):
    return np.arange(rollout.ids.shape[1])[None] < rollout.length[:, None]


@pytest.mark.parametrize("rule", [SAMPLING, TRUNCATED, GREEDY], ids=["plain", "truncated", "greedy"])
def test_sampler_and_trainer_agree(params, prompts, rule):
    """At any temperature, and whatever truncation cut away: log-probs are of the whole distribution on both sides."""
    rollout = generating(rule, params, prompts)
    inside = completion_mask(rollout)
    expected = trainer_logprobs(params, prompts, rollout, rule.temperature)
    np.testing.assert_allclose(rollout.logprobs[inside], expected[inside], rtol=1e-5, atol=1e-5)
    assert (rollout.logprobs[~inside] == 0).all()
    assert rollout.logprobs[inside].max() < 0


def test_padding_side_of_the_prompt_changes_nothing(params, prompts):
    left = prompts.replace(tokens=shift_right(prompts.tokens, LONG - int(prompts.length.max())))
    one, other = generating(SAMPLING, params, prompts), generating(SAMPLING, params, left)
    np.testing.assert_array_equal(one.ids, other.ids)
    np.testing.assert_allclose(one.logprobs, other.logprobs, rtol=1e-5, atol=1e-5)


def test_rows_end_with_a_stop_id_or_at_the_limit(params, prompts):
    rollout = generating(SAMPLING, params, prompts)
    assert rollout.finished.any()
    assert not rollout.finished.all()
    for ids, length, finished in zip(rollout.ids, rollout.length, rollout.finished, strict=True):
        ends = np.flatnonzero(np.isin(ids[:length], (EOS, PAD)))
        assert ends.tolist() == ([length - 1] if finished else [])
        assert finished or length == SAMPLING.length
        assert (ids[length:] == EOS).all()


def test_either_stop_id_ends_a_row(params, prompts):
    """The second stop id ends a row too, and is part of it."""
    second_likely = {**params, "head": params["head"].at[:, PAD].set(params["head"][:, EOS]).at[:, EOS].set(0.0)}
    rollout = generating(SAMPLING, second_likely, prompts)
    last_ids = rollout.ids[np.arange(len(rollout.ids)), rollout.length - 1]
    assert (last_ids[rollout.finished] == PAD).any()


def test_forbidden_ids_are_never_sampled(params, prompts):
    """The head prefers image pads by far, and padding rows of the vocabulary as much as any other."""
    for rule in (SAMPLING, GREEDY):
        ids = np.concatenate([generating(rule, params, prompts, step).ids for step in range(4)])
        assert not (ids == IMAGE_PAD).any()
        assert ids.max() < KNOWN


def test_completions_belong_to_their_prompt(params, prompts):
    """Completion b is for prompt b // G: greedy groups repeat one completion, wherever in the batch their prompt is."""
    groups = generating(GREEDY, params, prompts).ids.reshape(4, GREEDY.group, -1)
    np.testing.assert_array_equal(groups, np.repeat(groups[:, :1], GREEDY.group, axis=1))
    assert len({tuple(row) for row in groups[:, 0]}) > 1
    turned = jax.tree.map(lambda x: np.roll(x, 1, axis=0), prompts)
    moved = generating(GREEDY, params, turned).ids.reshape(groups.shape)
    np.testing.assert_array_equal(moved, np.roll(groups, 1, axis=0))


def test_draws_are_a_function_of_the_step(params, prompts):
    one, same = (generating(SAMPLING, params, prompts, step=3).ids for _ in range(2))
    np.testing.assert_array_equal(one, same)
    assert (generating(SAMPLING, params, prompts, step=4).ids != one).any()
    assert len({tuple(row) for row in one}) > len(one) // 2  # the group does not repeat one completion


def test_a_prompt_that_comes_twice_draws_twice(params, prompts):
    """Draws belong to the place in the data, not to what is asked there."""
    twice = jax.tree.map(lambda x: x[[0, 0, 1, 1]], prompts).replace(index=prompts.index)
    groups = generating(SAMPLING, params, twice).ids.reshape(4, SAMPLING.group, -1)
    assert (groups[0] != groups[1]).any()
    assert (groups[2] != groups[3]).any()
    alone = generating(SAMPLING, params, jax.tree.map(lambda x: x[3:], twice)).ids
    np.testing.assert_array_equal(alone, groups[3])


@settings(max_examples=5)
@given(slots=st.integers(1, 16))
@example(slots=5)
def test_slots_do_not_matter(params, prompts, slots):
    """Draws belong to prompt, sample and position: whatever the number of slots, and wherever a prompt is."""
    all_at_once = generating(SAMPLING, params, prompts)
    rollout = generating(SAMPLING, params, prompts, slots=slots)
    np.testing.assert_array_equal(rollout.ids, all_at_once.ids)
    np.testing.assert_array_equal(rollout.finished, all_at_once.finished)
    np.testing.assert_allclose(rollout.logprobs, all_at_once.logprobs, rtol=1e-5, atol=1e-5)


def test_devices_do_not_matter(params, prompts):
    """Nor does the mesh; and the cache grows past its first columns there, too."""
    mesh = make_mesh(MeshConfig(1, 4, 2))
    turned = jax.tree.map(lambda x: np.roll(x, 1, axis=0), prompts)
    placed = jax.tree.map(jax.device_put, params, qwen_vl.shardings(CONFIG, mesh))
    one, many = generating(LONGER, params, prompts), generating(LONGER, placed, turned, slots=8, mesh=mesh)
    assert one.length.max() > FLOOR
    np.testing.assert_array_equal(np.roll(one.ids, LONGER.group, axis=0), many.ids)
    np.testing.assert_allclose(np.roll(one.logprobs, LONGER.group, axis=0), many.logprobs, rtol=1e-5, atol=1e-5)


def test_greedy_takes_the_likeliest(params, prompts):
    """Whatever the step, and the trainer finds no id more likely than the one taken first."""
    rollout = generating(GREEDY, params, prompts)
    np.testing.assert_array_equal(rollout.ids, generating(GREEDY, params, prompts, step=9).ids)
    others = [rollout.replace(ids=changed_first(rollout.ids, by)) for by in (1, 50, 100)]
    best = trainer_logprobs(params, prompts, rollout, 0.0)[:, 0]
    for other in others:
        assert (trainer_logprobs(params, prompts, other, 0.0)[:, 0] < best).all()


def changed_first(ids, by):
    return np.concatenate([(ids[:, :1] + by) % np.int32(KNOWN), ids[:, 1:]], axis=1)


def test_distribution_is_the_tempered_softmax_of_what_is_allowed():
    scores = np.random.default_rng(0).normal(size=(2, 3, VOCABULARY)).astype(np.float32)
    allowed = vocabulary().allowed
    logprobs = np.asarray(next_token_logprobs(jnp.asarray(scores), jnp.asarray(allowed), 0.5))
    tempered = np.where(allowed, np.exp(scores.astype(np.float64) / 0.5), 0)
    np.testing.assert_allclose(np.exp(logprobs), tempered / tempered.sum(-1, keepdims=True), rtol=1e-5, atol=1e-12)


def kept_ids(logprobs, top_k, top_p):
    """The ids of one row that may be drawn, by sorting: the k likeliest, of these the fewest whose mass reaches p."""
    ranked = np.argsort(-logprobs)[: top_k or None]
    mass = np.exp(logprobs[ranked].astype(np.float64))
    before = np.cumsum(mass / mass.sum()) - mass / mass.sum()
    return set(ranked[before < top_p].tolist())


compiled_sample = jax.jit(sample, static_argnums=2)


@settings(max_examples=20)
@given(mass=st.lists(st.sampled_from([0.0, 1e-30, 1e-9, 1e-3, 0.3]), min_size=48, max_size=48).filter(any))
def test_what_has_no_probability_is_never_drawn(mass):
    keys = jax.random.split(jax.random.key(sum(value > 0 for value in mass)), 500)
    logprobs = jnp.log(jnp.asarray([mass] * 500, jnp.float32))
    ids = np.asarray(compiled_sample(logprobs, keys, SamplingConfig())[0])
    assert (np.asarray(mass)[ids] > 0).all()


@pytest.mark.parametrize(("top_k", "top_p"), [(0, 1.0), (3, 1.0), (0, 0.5), (0, 0.01), (4, 0.9), (50, 0.8)])
def test_truncation_keeps_what_a_plain_reading_keeps(top_k, top_p):
    rng = np.random.default_rng(top_k)
    logprobs = np.log(rng.dirichlet(np.full(9, 0.7), size=8) + 1e-6).astype(np.float32)
    logprobs -= np.log(np.exp(logprobs).sum(-1, keepdims=True))
    rule = SamplingConfig(temperature=1.0, top_k=top_k, top_p=top_p)
    keys = jax.random.split(jax.random.key(5), 16000)
    ids, chosen = compiled_sample(np.repeat(logprobs, 2000, axis=0), keys, rule)
    ids, chosen = np.asarray(ids).reshape(8, -1), np.asarray(chosen).reshape(8, -1)
    for row in range(8):
        kept = kept_ids(logprobs[row], top_k, top_p)
        drawn = np.bincount(ids[row], minlength=9) / ids.shape[1]
        assert set(np.flatnonzero(drawn).tolist()) <= kept
        target = np.where(np.isin(np.arange(9), list(kept)), np.exp(logprobs[row]), 0)
        np.testing.assert_allclose(drawn, target / target.sum(), atol=0.06)
        np.testing.assert_array_equal(chosen[row], logprobs[row][ids[row]])
