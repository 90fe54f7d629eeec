"""Which completion is in which slot, decided on the host between two runs of `engine.decode`.

Every batch shard of the devices has the same number of lanes, and answers its own prompts in order. A slot whose
completion has ended takes the next one of its lane's prompt; a lane without completions takes the next prompt. When
nothing waits any more, what is left moves to fewer slots. All processes hold the same schedule, since all of them see
every token: none runs a program that another does not.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from chestx_jax.types import Rollout

STEPS = 8  # tokens sampled between two decisions; an ended completion keeps its slot for half of them on average
HALVINGS = 3  # of the number of slots, at most


class Admission(NamedTuple):
    """Prompts to prefill and the lanes that they go to, of every shard, by their numbers within it."""

    prompts: Int[np.ndarray, " N"]
    lanes: Int[np.ndarray, " N"]  # one past the last: nowhere, the row is there to fill up the shape


class Move(NamedTuple):
    """The lanes and slots of every shard that become those of the next run, by their numbers within it."""

    lanes: Int[np.ndarray, " N"]
    slots: Int[np.ndarray, " B"]


class LaneShape(NamedTuple):
    """How a shard's slots are laid out."""

    lanes: int
    width: int  # slots of a lane
    admitted: int  # prompts that are prefilled together


def lane_shape(prompts: int, group: int, slots: int) -> LaneShape:
    """The layout for `group` completions of each of a shard's `prompts`, `slots` of them at a time (0: all).

    Where there are slots enough, every prompt has a lane, as wide as they allow, and all are prefilled together. Else
    lanes have two slots: they share the prompt's keys, and do not wait long for each other.
    """
    slots = min(slots or prompts * group, prompts * group)
    lanes = max(min(prompts, slots // min(group, 2)), 1)
    return LaneShape(lanes, max(slots // lanes, 1), lanes if lanes == prompts else -(-lanes // 8))


@dataclass
class Schedule:
    """`group` completions of each of the `active` prompts, of at most `length` tokens, `slots` of them at a time on
    `shards` shards together (0: all). Arrays of lanes are [shard, lane], of slots [shard, lane, slot]."""

    active: Bool[np.ndarray, " N"]
    shards: int
    group: int
    length: int
    stop_ids: Sequence[int]
    slots: int = 0
    rollout: Rollout = field(init=False)  # as sampled so far
    slot_steps: int = 0  # tokens that the slots have sampled, of use or not

    def __post_init__(self) -> None:
        count = len(self.active) * self.group
        self.rollout = Rollout(
            ids=np.full((count, self.length), self.stop_ids[0], np.int32),
            length=np.zeros(count, np.int32),
            logprobs=np.zeros((count, self.length), np.float32),
            finished=np.zeros(count, bool),
        )
        by_shard = self.active.reshape(self.shards, -1)
        self.prompts = by_shard.shape[1]  # of a shard
        self.waiting = [np.flatnonzero(row).tolist() for row in by_shard]  # prompts that have no lane yet
        self.first = lane_shape(self.prompts, self.group, self.slots // self.shards)
        self.lanes, self.width = self.first.lanes, self.first.width
        self.begun = np.zeros((self.shards, self.prompts), np.int32)  # completions
        self.prompt = np.full((self.shards, self.lanes), -1)
        shape = (self.shards, self.lanes, self.width)
        self.sample, self.position, self.last = np.full(shape, -1), np.zeros(shape, int), np.zeros(shape, int)

    @property
    def done(self) -> bool:
        """Whether every completion has ended."""
        return not any(self.waiting) and not (self.prompt >= 0).any()

    @property
    def live_share(self) -> float:
        """The share of the tokens sampled by the slots so far that are part of a completion."""
        return float(self.rollout.length.sum()) / self.slot_steps

    @property
    def columns(self) -> int:
        """The columns of the ring that the next run needs."""
        return min(int(self.position.max(where=self.sample >= 0, initial=0)) + STEPS, self.length)

    def admit(self) -> Admission | None:
        """The next prompts for the free lanes, once there are enough of both: always as many, for one program."""
        size = self.first.admitted
        free = [np.flatnonzero(row < 0) for row in self.prompt]
        counts = [min(size, len(lanes), len(queue)) for lanes, queue in zip(free, self.waiting, strict=True)]
        if not any(n and n == min(size, len(queue)) for n, queue in zip(counts, self.waiting, strict=True)):
            return None
        prompts = np.zeros((self.shards, size), np.int32)
        lanes = np.full((self.shards, size), self.lanes, np.int32)
        for shard, count in enumerate(counts):
            prompts[shard, :count], lanes[shard, :count] = self.waiting[shard][:count], free[shard][:count]
            del self.waiting[shard][:count]
            self.prompt[shard, lanes[shard, :count]] = prompts[shard, :count]
        return Admission(prompts.ravel(), lanes.ravel())

    def fill(self) -> None:
        """Idle slots take the next completions of their lane's prompt."""
        for shard, lane, slot in np.argwhere((self.sample < 0) & (self.prompt >= 0)[..., None]):
            prompt = self.prompt[shard, lane]
            if self.begun[shard, prompt] < self.group:
                self.sample[shard, lane, slot] = self.begun[shard, prompt]
                self.position[shard, lane, slot] = 0
                self.begun[shard, prompt] += 1

    def move(self) -> Move | None:
        """The fewest slots that hold what is left, once nothing waits: a half, a quarter or an eighth of the first. As
        they get fewer, lanes get narrower, since fewer slots are left that share a prompt."""
        all_begun = np.take_along_axis(self.begun, np.maximum(self.prompt, 0), axis=1) == self.group
        if any(self.waiting) or not (all_begun | (self.prompt < 0)).all():
            return None
        live = [self._slots_by_prompt(shard) for shard in range(self.shards)]
        for halvings in range(HALVINGS, 0, -1):
            size = self.first.lanes * self.first.width >> halvings
            width = max(self.first.width >> 2 * halvings, 1)
            needed = max(sum(-(-len(slots) // width) for slots in prompts.values()) for prompts in live)
            if size < self.lanes * self.width and needed <= size // width:
                return self._rearrange(live, size // width, width)
        return None

    def record(self, ids_BxT: Int[np.ndarray, "B T"], logprobs_BxT: Float[np.ndarray, "B T"]) -> list[int]:
        """Takes down what the slots have sampled; frees those whose completion has ended, and lanes without any left.
        Returns the rows of the completions that have ended."""
        self.slot_steps += ids_BxT.size
        live_B = self.sample.ravel() >= 0
        rows, position = self._rows()[live_B], self.position.ravel()[live_B]
        ids, logprobs = ids_BxT[live_B], logprobs_BxT[live_B]
        stops = np.isin(ids, self.stop_ids)
        room = self.length - position
        until_stop = np.where(stops.any(axis=1), stops.argmax(axis=1) + 1, ids.shape[1] + 1)  # or none
        taken = np.minimum(np.minimum(until_stop, room), ids.shape[1])
        offsets = np.arange(ids.shape[1])
        inside = offsets[None] < taken[:, None]
        places = np.broadcast_to(rows[:, None], ids.shape)[inside], (position[:, None] + offsets[None])[inside]
        self.rollout.ids[places], self.rollout.logprobs[places] = ids[inside], logprobs[inside]
        self.rollout.length[rows] = position + taken
        self.rollout.finished[rows] = stopped = until_stop == taken
        ended = stopped | (taken == room)
        self.position.ravel()[live_B] += taken
        self.last.ravel()[live_B] = ids[:, -1]
        self.sample.ravel()[np.flatnonzero(live_B)[ended]] = -1
        exhausted = np.take_along_axis(self.begun, np.maximum(self.prompt, 0), axis=1) == self.group
        self.prompt[exhausted & ~(self.sample >= 0).any(axis=-1)] = -1
        return rows[ended].tolist()

    def _rows(self) -> Int[np.ndarray, " B"]:
        """The row of each slot's completion in the rollout."""
        prompt = self.prompt + np.arange(self.shards)[:, None] * self.prompts
        return (prompt[..., None] * self.group + self.sample).ravel()

    def _slots_by_prompt(self, shard: int) -> dict[int, list[tuple[int, int]]]:
        """The slots of a shard that sample, as lane and slot, by their prompt."""
        slots: dict[int, list[tuple[int, int]]] = {}
        for lane, slot in np.argwhere(self.sample[shard] >= 0).tolist():
            slots.setdefault(int(self.prompt[shard, lane]), []).append((lane, slot))
        return slots

    def _rearrange(self, live: Sequence[dict[int, list[tuple[int, int]]]], lanes: int, width: int) -> Move:
        old_lanes = np.zeros((self.shards, lanes), np.int32)
        old_slots = np.zeros((self.shards, lanes, width), np.int32)
        prompt, old_width = np.full((self.shards, lanes), -1), self.width
        shape = (self.shards, lanes, width)
        sample, position, last = np.full(shape, -1), np.zeros(shape, int), np.zeros(shape, int)
        for shard, prompts in enumerate(live):
            parts = [(p, slots[i : i + width]) for p, slots in prompts.items() for i in range(0, len(slots), width)]
            for lane, (number, slots) in enumerate(parts):
                prompt[shard, lane], old_lanes[shard, lane] = number, slots[0][0]
                for slot, (old_lane, old_slot) in enumerate(slots):
                    here, there = (shard, lane, slot), (shard, old_lane, old_slot)
                    old_slots[here] = old_lane * old_width + old_slot
                    for new, old in ((sample, self.sample), (position, self.position), (last, self.last)):
                        new[here] = old[there]
        self.prompt, self.sample, self.position, self.last = prompt, sample, position, last
        self.lanes, self.width = lanes, width
        return Move(old_lanes.ravel(), old_slots.ravel())
