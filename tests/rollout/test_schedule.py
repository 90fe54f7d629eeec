"""The host's loop with stand-ins for the programs: every completion is sampled once, to its end, whatever the slots."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chestx_jax.model.decoder import RingCache
from chestx_jax.rollout.loop import Sampler, ring_columns, sample_completions
from chestx_jax.rollout.sampling import SamplingConfig
from chestx_jax.rollout.schedule import HALVINGS, STEPS, lane_shape

STOP = 1


def code(prompt, sample, position):
    """A number of a token's own, in place of its keys and of its id."""
    return 10 + (int(prompt) * 8 + int(sample)) * 512 + int(position)


class Programs:
    """Stand-ins, in numpy, that check what they are given: a slot's ring holds the tokens of its completion so far."""

    def __init__(self, lengths, shards):
        self.lengths, self.shards, self.shapes, self.steps = lengths, shards, set(), 0

    def take(self, x, rows):
        parts = zip(np.split(np.asarray(x), self.shards), np.split(np.asarray(rows), self.shards), strict=True)
        return np.concatenate([part[own] for part, own in parts])

    def prefill(self, params, prompts, rows):
        return self.take(prompts.index, rows)

    def put_lanes(self, lanes, new, rows):
        parts = [np.split(np.asarray(x), self.shards) for x in (lanes, new, rows)]
        for lane, number, row in zip(*parts, strict=True):
            lane[row[row < len(lane)]] = number[row < len(lane)]
        return np.concatenate(parts[0])

    def empty_ring(self, rows, columns):
        return RingCache((Keys(np.full((rows, 1, columns, 1), -1)),), (Keys(np.zeros((rows, 1, columns, 1))),), 0)

    def take_columns(self, x, rows, columns):
        return Keys(self.take(x.array, rows)[:, :, np.asarray(columns)])

    def decode(self, params, vocabulary, step, lanes, ring, slots):
        keys, head = ring.k[0].array, int(ring.head)
        rows, columns = keys.shape[0], keys.shape[2]
        self.shapes.add((len(lanes), rows, columns))
        self.steps += rows * STEPS
        ids = np.zeros((rows, STEPS), np.int32)
        for row in range(rows):
            prompt, sample = lanes[row // (rows // len(lanes))], int(slots.sample_B[row])
            for t in range(STEPS) if sample >= 0 else ():
                position, now = int(slots.position_B[row]) + t, head + t
                if t == 0 and position:
                    held = keys[row, 0, (now - np.arange(1, position)) % columns, 0]
                    expected = code(prompt, sample, position - 2) - np.arange(position - 1)
                    np.testing.assert_array_equal(held, expected)
                keys[row, 0, now % columns, 0] = code(prompt, sample, position - 1) if position else -1
                ends = position + 1 == self.lengths[prompt, sample]
                ids[row, t] = STOP if ends else code(prompt, sample, position)
        return RingCache(ring.k, ring.v, (head + STEPS) % columns), ids, -ids.astype(np.float32)


class Keys(SimpleNamespace):
    """An array of the ring, which may be deleted."""

    def __init__(self, array):
        super().__init__(array=array, shape=array.shape)

    def delete(self):
        self.array = None


def run(lengths, index, shards, slots, limit):
    programs, one = Programs(lengths, shards), jax.sharding.SingleDeviceSharding(jax.devices()[0])
    sampler = Sampler(
        SamplingConfig(length=limit, group=lengths.shape[1]), slots, shards, one, one,
        weights=None, prefill=programs.prefill, decode=programs.decode, empty_ring=programs.empty_ring,
        take_lanes=programs.take, put_lanes=programs.put_lanes, take_columns=programs.take_columns,
    )  # fmt: skip
    vocabulary = SimpleNamespace(stop_ids=np.array([STOP, 2]))
    ended, schedule = [], None
    for state, new in sample_completions(sampler, None, SimpleNamespace(index=index), vocabulary, 0):
        schedule, ended = state, ended + new
    return programs, schedule, ended


@settings(max_examples=60)
@given(data=st.data())
def test_every_completion_is_sampled_once_to_its_end(data):
    shards, group = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 5))
    prompts, limit = shards * data.draw(st.integers(1, 6)), data.draw(st.integers(1, 200))
    slots = data.draw(st.integers(0, prompts * group + 3))
    rng = np.random.default_rng(data.draw(st.integers(0, 10**6)))
    lengths = np.minimum(rng.geometric(1 / data.draw(st.sampled_from([3, 20, 150])), (prompts, group)), limit + 1)
    index = np.where(rng.random(prompts) < data.draw(st.sampled_from([0.0, 0.3])), -1, np.arange(prompts))
    if not (index >= 0).any():
        index[0] = 0
    programs, schedule, ended = run(lengths, index, shards, slots, limit)
    active = np.repeat(index >= 0, group)
    assert sorted(ended) == np.flatnonzero(active).tolist()
    expected = np.where(active, np.minimum(lengths, limit).ravel(), 0)
    np.testing.assert_array_equal(schedule.rollout.length, expected)
    np.testing.assert_array_equal(schedule.rollout.finished, active & (lengths <= limit).ravel())
    for row in np.flatnonzero(active):
        prompt, sample, length = row // group, row % group, expected[row]
        ids = [code(prompt, sample, position) for position in range(length)]
        ids[-1] = STOP if schedule.rollout.finished[row] else ids[-1]
        assert schedule.rollout.ids[row].tolist() == ids + [STOP] * (limit - length)
        assert schedule.rollout.logprobs[row].tolist() == [-id for id in ids] + [0] * (limit - length)
    assert schedule.live_share == expected.sum() / programs.steps
    columns = {ring_columns(needed, limit) for needed in range(1, limit + 1)}
    assert len(programs.shapes) <= (HALVINGS + 1) * len(columns)
    assert min(rows for _, rows, _ in programs.shapes) >= shards


@pytest.mark.parametrize("limit", [1, STEPS - 1, STEPS, STEPS + 1, 2 * STEPS])
def test_what_the_limit_cuts_off_is_not_finished(limit):
    lengths = np.array([[limit, limit + 1], [limit + 2, 1]])
    _, schedule, _ = run(lengths, np.arange(2), 1, 0, limit)
    assert schedule.rollout.finished.tolist() == (lengths <= limit).ravel().tolist()


def released_lengths(count, scale=0.25):
    """Lengths of completions as the released model's (p5, p50, p95, p99, the longest), scaled."""
    at = np.random.default_rng(0).uniform(0, 100, count)
    return np.interp(at, (0, 5, 50, 95, 99, 100), scale * np.array((40, 110, 182, 299, 347, 500))).astype(int)


@pytest.mark.parametrize("slots", [0, 128, 64])
def test_slots_are_in_use_at_real_lengths(slots):
    """At least two thirds of what the slots sample is of use, and three quarters where completions wait for them; until
    the last of them ends, all rows together are 42 % in use."""
    lengths = released_lengths(32 * 8).reshape(32, 8)
    _, schedule, _ = run(lengths, np.arange(32), 1, slots, 512)
    assert lengths.mean() / lengths.max() < 0.45
    assert schedule.live_share > (0.75 if slots else 0.66)


def test_layouts():
    assert lane_shape(16, 8, 0) == lane_shape(16, 8, 999) == (16, 8, 16)  # all at once: a lane a prompt
    assert lane_shape(16, 8, 64) == (16, 4, 16)
    assert lane_shape(16, 8, 16) == (8, 2, 1)
    assert lane_shape(256, 1, 64) == (64, 1, 8)  # questions
    assert lane_shape(4, 8, 1) == (1, 1, 1)
