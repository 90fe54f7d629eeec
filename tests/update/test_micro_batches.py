"""Micro-batches sorted by length, each in its own bucket: the update is that of the padded batch."""

import functools
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chestx_jax import sharding
from chestx_jax.buckets import smallest_bucket
from chestx_jax.model import lora, qwen_vl
from chestx_jax.model.config import TuningConfig
from chestx_jax.programs.grpo import select_program
from chestx_jax.sharding import MeshConfig, make_mesh
from chestx_jax.update.losses import PolicyConfig
from chestx_jax.update.micro_batches import Bucket, Logprobs, plan_micro_batches, select
from chestx_jax.update.steps import grpo_gradients
from tests.helpers import mesh_run
from tests.helpers.tiny_rows import CONFIG, LONG, SLOTS, parameters, vocabulary
from tests.update.test_packing import close

BUCKETS = ((10, 16, LONG), (1, SLOTS), (3, 5, mesh_run.LENGTH))
PADDED = tuple((limit,) for limit in Bucket(LONG, SLOTS, mesh_run.LENGTH))
N, G = mesh_run.PROMPTS, mesh_run.GROUP


# The plan


@settings(max_examples=50)
@given(
    data=st.data(),
    shards=st.integers(1, 4),
    minis=st.integers(1, 3),
    micros=st.integers(1, 4),
    share=st.integers(1, 3),
    g=st.integers(1, 3),
)
def test_every_group_is_in_one_micro_batch_and_fits_its_bucket(data, shards, minis, micros, share, g):
    """Group g in the mini-batch g modulo their number, on any mesh; its micro-batches follow each other, the shortest
    first."""
    count = minis * micros
    n = shards * count * share
    draw = lambda limit, size: np.array(data.draw(st.lists(st.integers(1, limit), min_size=size, max_size=size)))  # noqa: E731
    tokens, slots, completions = draw(32, n), draw(2, n), draw(8, n * g)
    planned = plan_micro_batches(tokens, slots, completions, minis, micros, shards, BUCKETS)
    assert sorted(np.concatenate([part.groups for part in planned])) == list(range(n))
    for i, (bucket, groups) in enumerate(planned):
        assert set(groups % minis) == {i // micros}
        by_device = groups.reshape(shards, share) // (count * share)
        np.testing.assert_array_equal(by_device, np.repeat(np.arange(shards)[:, None], share, axis=1))
        longest = tokens[groups].max(), slots[groups].max(), completions.reshape(n, g)[groups].max()
        assert bucket == tuple(map(smallest_bucket, longest, BUCKETS))
    longest = np.reshape([part.bucket.completion for part in planned], (minis, micros))
    np.testing.assert_array_equal(longest, np.sort(longest, axis=1))


# The parts


def lengths_of(experience):
    images = np.asarray(experience.prompts.images.valid)
    lengths = experience.prompts.length, images.any(2).sum(1), experience.rollout.length
    return tuple(map(np.asarray, lengths))


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def select_groups(aggregate, only_finished, mini_batches, bucket, whole, groups):
    return select(aggregate, only_finished, mini_batches, bucket, whole, groups)


def parts_of(whole, count, buckets, aggregate="token", only_finished=False, mini_batches=1):
    """The micro-batches with their buckets, `count` of each mini-batch."""
    planned = plan_micro_batches(*lengths_of(whole), mini_batches, count, 1, buckets)
    take = functools.partial(select_groups, aggregate, only_finished, mini_batches)
    return [(part.bucket, take(part.bucket, whole, jnp.asarray(part.groups))) for part in planned]


@pytest.fixture(scope="module")
def sampled():
    """Half of the prompts have completions of at most three tokens, a quarter of at most five."""
    whole, logprobs = mesh_run.experience()
    length = np.minimum(whole.rollout.length, np.repeat([3, 5, mesh_run.LENGTH], (N, N // 2, N * G - N - N // 2)))
    whole = whole.replace(rollout=whole.rollout.replace(length=length.astype(np.int32)))
    return jax.tree.map(jnp.asarray, (whole, logprobs))


def on_tokens(x, part):
    """What an array [B, L] holds in the loss, sorted."""
    return np.sort(np.asarray(x)[np.asarray(part.mask)])


@pytest.mark.parametrize("aggregate", ["token", "sequence", "constant"])
def test_weights_are_those_of_the_whole_batch(sampled, aggregate):
    """Whatever the loss averages over, and although a row is dropped."""
    whole, _ = sampled
    ((_, padded),) = parts_of(whole, 1, PADDED, aggregate)
    parts = parts_of(whole, 4, BUCKETS, aggregate)
    assert {bucket.completion for bucket, _ in parts} == {3, 5, mesh_run.LENGTH}
    for bucket, part in parts:
        assert part.prompts.tokens.ids.shape == (2, bucket.tokens)
        assert part.prompts.images.valid.shape[:2] == (2, bucket.image_slots)
        assert part.mask.shape == part.rollout.ids.shape == (2 * G, bucket.completion)
    for name in ("advantages", "weights", "mean_weights"):
        joined = np.sort(np.concatenate([on_tokens(getattr(part, name), part) for _, part in parts]))
        np.testing.assert_array_equal(joined, on_tokens(getattr(padded, name), padded))
    assert sum(float(part.mean_weights.sum()) for _, part in parts) == pytest.approx(1.0)


@pytest.mark.parametrize("aggregate", ["token", "sequence", "constant"])
def test_a_mini_batch_is_a_batch_of_its_own(sampled, aggregate):
    """What the whole batch's mini-batches hold is what batches of their groups alone would."""
    whole, _ = sampled
    together = parts_of(whole, 1, PADDED, aggregate, mini_batches=2)
    for number, (_, part) in enumerate(together):
        own = np.arange(number, N, 2)
        rows = (own[:, None] * G + np.arange(G)).ravel()
        alone = whole.replace(
            prompts=jax.tree.map(lambda x, own=own: x[own], whole.prompts),
            **{
                name: jax.tree.map(lambda x, rows=rows: x[rows], getattr(whole, name))
                for name in ("rollout", "advantages", "loss_mask")
            },
        )
        ((_, expected),) = parts_of(alone, 1, PADDED, aggregate)
        jax.tree.map(np.testing.assert_array_equal, part, expected)
        assert float(part.mean_weights.sum()) == pytest.approx(1.0)


def test_a_mini_batch_is_the_same_on_any_mesh(sampled):
    """Its groups and their weights; each device takes from its own share."""
    whole, _ = sampled
    stage = replace(mesh_run.JOB.grpo, mini_batches=2, micro_batches=1, policy=PolicyConfig(aggregate="sequence"))
    parts = {}
    for mesh in (make_mesh(MeshConfig(1, 1, 1), jax.devices()[:1]), make_mesh(MeshConfig(2, 2, 2))):
        bucket = Bucket(LONG, SLOTS, mesh_run.LENGTH)
        program = select_program(mesh_run.JOB, stage, mesh, bucket)
        shards = N // sharding.batch_share(mesh, N)
        placed = sharding.put(whole, program.shardings["experience"])
        for number, (_, groups) in enumerate(plan_micro_batches(*lengths_of(whole), 2, 1, shards, PADDED)):
            part = jax.device_get(program.jit()(placed, sharding.put(groups, program.shardings["groups"])))
            order = np.argsort(groups)
            by_group = jax.tree.map(lambda x, order=order: x.reshape(len(order), -1)[order], part)
            assert sorted(groups % 2) == [number] * (N // 2)
            jax.tree.map(np.testing.assert_array_equal, by_group, parts.setdefault(number, by_group))
    assert len(parts) == 2


def test_a_completion_that_was_cut_off_can_be_left_out(sampled):
    """Masking overlong completions is dropping them."""
    whole, _ = sampled
    cut = np.arange(N * G) % 3 == 0
    marked = whole.replace(rollout=whole.rollout.replace(finished=jnp.asarray(~cut)))
    ((_, masked),) = parts_of(marked, 1, PADDED, only_finished=True)
    ((_, dropped),) = parts_of(marked.replace(loss_mask=whole.loss_mask & ~cut), 1, PADDED)
    jax.tree.map(np.testing.assert_array_equal, masked, dropped)
    assert not np.asarray(masked.mask)[cut].any()


# The update


def test_buckets_change_nothing(sampled):
    """Gradients and metrics of two micro-batches in buckets of their own are those of the padded whole."""
    (whole, logprobs), allowed = sampled, jnp.asarray(vocabulary().allowed)
    gradients = jax.jit(functools.partial(grpo_gradients, CONFIG, PolicyConfig(), 0.9))
    params = parameters()

    def update(count, buckets):
        total = None
        given = zip(
            *(parts_of(whole.replace(advantages=x), count, buckets) for x in (logprobs.reference, logprobs.old)),
            strict=True,
        )
        parts = parts_of(whole, count, buckets)
        for (_, part), ((_, reference), (_, old)) in zip(parts, given, strict=True):
            total = gradients(params, total, part, Logprobs(reference.advantages, old.advantages), allowed)
        return total, {bucket for bucket, _ in parts}

    padded, _ = update(1, PADDED)
    parts, buckets = update(2, BUCKETS)
    assert {bucket.completion for bucket in buckets} == {3, mesh_run.LENGTH}
    close(padded.params, parts.params)
    assert padded.metrics.keys() == parts.metrics.keys() >= {"loss", "kl", "entropy", "clipped", "sampler_drift"}
    assert padded.maxima.keys() == {"ratio_max", "advantage_max", "sampler_drift_max"}
    for name, value in (padded.metrics | padded.maxima).items():
        np.testing.assert_allclose((parts.metrics | parts.maxima)[name], value, rtol=2e-5, atol=1e-7, err_msg=name)


def test_frozen_parameters_have_no_gradient_to_sum(sampled):
    """What is summed holds the trained parameters alone; the optimizer gets 0 for the others."""
    config = replace(CONFIG, tuning=TuningConfig(vision="freeze", merger="train", decoder="freeze"))
    (whole, logprobs), params = sampled, qwen_vl.shapes(CONFIG)
    ((_, part),) = parts_of(whole, 1, PADDED)
    gradients = functools.partial(grpo_gradients, config, PolicyConfig(), 0.9)
    total = jax.eval_shape(gradients, params, None, part, logprobs, jnp.asarray(vocabulary().allowed))
    trained = jax.tree.map(lambda x: jnp.ones(x.shape, x.dtype), total.params)
    params = jax.tree.map(lambda x: jnp.full(x.shape, 2.0, x.dtype), params)
    full = lora.with_frozen_zeros(trained, params)
    assert jax.tree.structure(full) == jax.tree.structure(params)
    names = jax.tree_util.tree_flatten_with_path(full)[0]
    is_merger = lambda path: path[0].key == "vision" and path[1].key.startswith("merger")  # noqa: E731
    assert {float(x.max()) for path, x in names if is_merger(path)} == {1.0}
    assert {float(x.max()) for path, x in names if not is_merger(path)} == {0.0}
