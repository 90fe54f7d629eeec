"""Sampling from prompts to completions: the host's loop around the programs of `rollout.engine`.

The loop runs on the host, not as one program on the device: so each number of slots and each length of their cache is
compiled when a batch first needs it, and a decision every few tokens costs less than a millisecond.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.sharding import Sharding

from chestx_jax import multihost, sharding
from chestx_jax.buckets import FLOOR
from chestx_jax.model.decoder import RingCache
from chestx_jax.rollout.engine import Lanes, Slots
from chestx_jax.rollout.sampling import SamplingConfig, Vocabulary
from chestx_jax.rollout.schedule import Admission, Move, Schedule
from chestx_jax.types import Prompts, Rollout


@dataclass(frozen=True)
class Sampler:
    """The compiled programs of one way of sampling (made by `programs.generation.sampler`)."""

    sampling: SamplingConfig
    slots: int  # completions sampled at a time, over all devices; 0: all
    shards: int  # parts of a batch on the devices
    by_row: Sharding  # of arrays whose rows are split over the devices
    everywhere: Sharding  # of arrays that every device holds whole
    weights: Callable  # params → params for decoding
    prefill: Callable  # (params, prompts, rows) → lanes
    decode: Callable  # (params, vocabulary, step, lanes, ring, slots) → (ring, ids, logprobs)
    empty_ring: Callable  # (rows, columns) → ring
    take_lanes: Callable  # as `engine.take_lanes`, and so on
    put_lanes: Callable
    take_columns: Callable


def sample_completions(
    sampler: Sampler,
    params: Any,
    prompts: Prompts,
    vocabulary: Vocabulary,
    step: int,
    meanwhile: Callable[[], None] = lambda: None,
) -> Iterator[tuple[Schedule, list[int]]]:
    """Samples `sampling.group` completions of each of N prompts, whose rows are split over the devices; index -1 gets
    none. `params` are for decoding. Draws belong to `step` and to the prompt's index, sample and position.

    Yields every few tokens, with what is sampled so far and the rows of the completions that have ended since then.
    `meanwhile` is called once, while the devices compute the first tokens.
    """
    index, stop_ids = multihost.all_gather((prompts.index, vocabulary.stop_ids))
    group, length = sampler.sampling.group, sampler.sampling.length
    schedule = Schedule(index >= 0, sampler.shards, group, length, stop_ids.tolist(), sampler.slots)
    step_number = sharding.put_global(np.int32(step), sampler.everywhere)
    lanes: Any = None
    ring: Any = None
    head = 0  # the column of the ring that is written next
    while not schedule.done:
        while admission := schedule.admit():
            lanes = _with_prompts(sampler, params, prompts, lanes, schedule.lanes, admission)
        schedule.fill()
        move, columns = schedule.move(), ring_columns(schedule.columns, schedule.length)
        if move:
            lanes = sampler.take_lanes(lanes, sharding.put_global(move.lanes, sampler.by_row))
        if ring is None:
            ring = sampler.empty_ring(sampler.shards * schedule.lanes * schedule.width, columns)
        elif move or columns > ring.k[0].shape[2]:
            ring, head = _moved(sampler, ring, head, move, columns), 0
        slots = Slots(*(x.ravel().astype(np.int32) for x in (schedule.last, schedule.position, schedule.sample)))
        slots = sharding.put_global(slots, sampler.by_row)
        ring, ids, logprobs = sampler.decode(params, vocabulary, step_number, lanes, ring, slots)
        head = (head + ids.shape[1]) % ring.k[0].shape[2]
        meanwhile()
        meanwhile = lambda: None  # noqa: E731
        yield schedule, schedule.record(*jax.device_get((ids, logprobs)))


def ring_columns(needed: int, limit: int) -> int:
    """The columns that hold `needed` tokens: of few lengths, each twice the one before, up to the limit."""
    columns = FLOOR
    while columns < needed:
        columns *= 2
    return min(columns, limit)


def sample_rollout(
    sampler: Sampler,
    params: Any,
    prompts: Prompts,
    vocabulary: Vocabulary,
    step: int,
    shardings: Any,
    meanwhile: Callable[[], None] = lambda: None,
) -> tuple[Rollout, float]:
    """All completions, as `sample_completions` samples them with a copy of the `params`, on the devices as `shardings`
    says; and the share of what the slots sampled that is part of a completion."""
    schedule = sample_with(sampler, sampler.weights(params), prompts, vocabulary, step, meanwhile)
    return sharding.put_global(schedule.rollout, shardings), schedule.live_share


def sample_with(
    sampler: Sampler,
    copy: Any,
    prompts: Prompts,
    vocabulary: Vocabulary,
    step: int,
    meanwhile: Callable[[], None] = lambda: None,
) -> Schedule:
    """The schedule after all completions have been sampled with a `copy` of the parameters for decoding."""
    *_, (schedule, _) = sample_completions(sampler, copy, prompts, vocabulary, step, meanwhile)
    return schedule


def _with_prompts(
    sampler: Sampler, params: Any, prompts: Prompts, lanes: Lanes | None, count: int, admission: Admission
) -> Lanes:
    """The lanes with the admitted prompts in theirs."""
    rows, places = sharding.put_global((admission.prompts, admission.lanes), sampler.by_row)
    fresh = sampler.prefill(params, prompts, rows)
    if lanes is None and len(admission.prompts) == sampler.shards * count:
        return fresh
    if lanes is None:  # copies of the first, to be written over
        first = sharding.put_global(np.zeros(sampler.shards * count, np.int32), sampler.by_row)
        lanes = sampler.take_lanes(fresh, first)
    return sampler.put_lanes(lanes, fresh, places)


def _moved(sampler: Sampler, ring: RingCache, head: int, move: Move | None, columns: int) -> RingCache:
    """The ring after a move, with so many columns: its newest tokens last, so that its head is the first column."""
    old_rows, old_columns = ring.k[0].shape[0] // sampler.shards, ring.k[0].shape[2]
    rows = np.tile(np.arange(old_rows, dtype=np.int32), sampler.shards) if move is None else move.slots
    order = (head + np.arange(columns) - columns) % old_columns
    rows = sharding.put_global(rows, sampler.by_row)
    order, start = sharding.put_global((order.astype(np.int32), np.int32(0)), sampler.everywhere)

    def taken(cached):
        new = sampler.take_columns(cached, rows, order)
        cached.delete()  # one after the other, so that no more than one array exists twice
        return new

    return RingCache(tuple(map(taken, ring.k)), tuple(map(taken, ring.v)), start)
