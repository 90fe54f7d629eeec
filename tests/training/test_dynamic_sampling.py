"""Batches sampled again until every group is of use, with stand-ins for the model and the rewards."""

from types import SimpleNamespace

import jax
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from chestx_jax import sharding
from chestx_jax.data.prompt_stream import PromptStream
from chestx_jax.recipes import GrpoConfig
from chestx_jax.rollout.sampling import SamplingConfig
from chestx_jax.training import dynamic_sampling
from chestx_jax.training.dynamic_sampling import BatchSampler
from chestx_jax.training.speed import Phases
from chestx_jax.types import Rollout
from tests.helpers.prompt_batches import SIZE, Batches, check
from tests.helpers.sampling import one_device

G, L = 2, 3


class Run:
    """A stage whose prompts of the numbers `useful` have groups with different rewards."""

    def __init__(self, useful, rounds, place=None):
        everywhere = sharding.replicated(one_device())
        self.sampled, self.useful, self.data = [], useful, PromptStream(Batches())
        if place is not None:
            self.data.set_state(place)
        put = lambda prompts: (sharding.put(prompts, everywhere), sharding.put(prompts.length, everywhere))  # noqa: E731
        self.sampler = BatchSampler(
            stage=GrpoConfig(prompts=SIZE, sampling_rounds=rounds, sampling=SamplingConfig(group=G, length=L)),
            data=self.data,
            own_rows=list(range(SIZE)),
            sampler=SimpleNamespace(weights=lambda params: params),
            policy=SimpleNamespace(put_prompts=put),
            score=self.score,
            shardings={"targets": everywhere, "rollout": everywhere},
            vocabulary=None,
            phases=Phases(),
        )

    def sample_with(self, sampler, copy, prompts, vocabulary, step, meanwhile):
        """Every token of a completion is its prompt's number; what has no number is not sampled."""
        numbers = np.repeat(jax.device_get(prompts.index), G)
        self.sampled += [int(number) for number in numbers[::G] if number >= 0]
        ids = np.where(numbers[:, None] >= 0, numbers[:, None], -7) * np.ones((1, L), np.int32)
        length = np.where(numbers >= 0, L, 0).astype(np.int32)
        rollout = Rollout(ids.astype(np.int32), length, np.zeros(ids.shape, np.float32), length > 0)
        return SimpleNamespace(rollout=rollout, slot_steps=ids.size)

    def score(self, targets, rollout):
        ids, worth = jax.device_get((rollout.ids, targets["worth"]))
        np.testing.assert_array_equal(ids, np.repeat(worth, G)[:, None] * np.ones((1, L), int))
        differ = np.isin(ids[:, 0], list(self.useful))
        return SimpleNamespace(differ=differ, metrics={"reward/total/mean": worth.mean(), "kept": differ.mean()})


def expected(useful, rounds, start):
    """The numbers that a batch ends with, prompt after prompt; how many rounds, how many are thrown away, and the next
    prompt."""
    numbers, done, discarded = list(range(start, start + SIZE)), start + SIZE, 0
    for number in range(1, rounds + 1):
        if number == rounds or all(n in useful for n in numbers):
            return numbers, number, discarded, done
        for row in range(SIZE):
            if numbers[row] not in useful:
                numbers[row], done, discarded = done, done + 1, discarded + 1


@settings(max_examples=20, deadline=None)
@given(useful=st.sets(st.integers(0, 60)), rounds=st.integers(1, 4), steps=st.integers(1, 3), stop=st.integers(0, 2))
def test_groups_of_equal_rewards_give_way_to_the_next_prompts(useful, rounds, steps, stop):
    """Each prompt is sampled once, in the order of the data, over a restart too; at most so many rounds; the batch's
    completions, targets and samples are those of its prompts, and the rewards logged those of the first round."""
    run, start, seen = Run(useful, rounds), 0, []
    for step in range(steps):
        if step == stop:
            seen, run = seen + run.sampled, Run(useful, rounds, run.data.get_state())
        original, dynamic_sampling.sample_with = dynamic_sampling.sample_with, run.sample_with
        try:
            with jax.transfer_guard("disallow"):
                sampled = run.sampler.sample({}, step, lambda: None)
        finally:
            dynamic_sampling.sample_with = original
        numbers, taken, discarded, done = expected(useful, rounds, start)
        check(sampled.batch, numbers)
        np.testing.assert_array_equal(jax.device_get(sampled.prompts.index), numbers)
        np.testing.assert_array_equal(jax.device_get(sampled.rollout.ids)[::G, 0], numbers)
        assert (jax.device_get(sampled.rollout.length) == L).all()
        metrics = sampled.metrics
        assert metrics["reward/total/mean"] == np.mean(range(start, start + SIZE))
        assert metrics["kept"] == np.mean([number in useful for number in numbers])
        if rounds > 1:
            assert (metrics["sampling_rounds"], metrics["discarded_groups"]) == (taken, discarded)
        start = done
    assert seen + run.sampled == list(range(start))
