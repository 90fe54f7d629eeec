"""A batch of prompts, its completions and their scores; sampled again until every group tells the policy something.

A group whose rewards are all equal has no advantage. With `sampling_rounds` above 1 such groups are thrown away, and
the next prompts of the data are sampled in their places, round after round (DAPO's dynamic sampling, arXiv 2503.14476,
section 3.2). What stays is where it was, so that no row moves between devices; which prompts a batch ends with depends
on the place in the data and the seed, not on the mesh or the number of processes.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import numpy as np

from chestx_jax import multihost, sharding
from chestx_jax.data.pipeline import PromptBatch
from chestx_jax.data.prompt_stream import PromptStream, replace_prompts, take_prompts
from chestx_jax.recipes import GrpoConfig
from chestx_jax.rollout.loop import Sampler, sample_with
from chestx_jax.rollout.sampling import Vocabulary
from chestx_jax.training.policy_update import PolicyUpdate
from chestx_jax.training.speed import Phases
from chestx_jax.types import Array, Prompts, Rollout
from chestx_jax.update.scoring import ScoredRollout


class SampledBatch(NamedTuple):
    """What an iteration learns from: `batch` on the host, this process's rows; the rest on the devices."""

    batch: PromptBatch
    prompts: Prompts
    image_slots: Array
    rollout: Rollout
    scored: ScoredRollout
    metrics: dict[str, Any]


@dataclass(frozen=True)
class BatchSampler:
    """Samples the batches of a GRPO stage."""

    stage: GrpoConfig
    data: PromptStream
    own_rows: list[int]  # of a batch, this process's
    sampler: Sampler
    policy: PolicyUpdate
    score: Callable[..., ScoredRollout]  # (targets, rollout)
    shardings: dict[str, Any]  # of `grpo/score`
    vocabulary: Vocabulary
    phases: Phases

    def sample(self, params: Any, step: int, meanwhile: Callable[[], None]) -> SampledBatch:
        """The next batch under the policy `params`. The metrics of the rewards are of the first round, which no choice
        has touched."""
        stage, phases = self.stage, self.phases
        with phases.phase("input"):
            batch = next(self.data)
        with phases.phase("rollout"):
            copy = self.sampler.weights(params)
        rollout, replaced, discarded, live = None, np.ones(stage.prompts, bool), 0, []
        metrics: dict[str, Any] = {}
        for number in range(1, stage.sampling_rounds + 1):
            with phases.phase("input"):
                own = batch if stage.sampling_rounds == 1 else take_prompts(batch, self.own_rows)
                prompts, image_slots = self.policy.put_prompts(own.prompts)
                targets = sharding.put(own.targets, self.shardings["targets"])
            with phases.phase("rollout"):
                schedule = sample_with(
                    self.sampler, copy, self._only(prompts, own, replaced), self.vocabulary, step, meanwhile
                )
                meanwhile = lambda: None  # noqa: E731
                live.append((schedule.rollout.length.sum(), schedule.slot_steps))
                rollout = _with_groups(rollout, schedule.rollout, np.repeat(replaced, stage.sampling.group))
                on_devices = sharding.put_global(rollout, self.shardings["rollout"])
            with phases.phase("reward"):
                scored = jax.block_until_ready(self.score(targets, on_devices))
                metrics = scored.metrics | metrics | {"kept": scored.metrics["kept"]}
            if number == stage.sampling_rounds:
                break
            replaced = ~multihost.all_gather(scored.differ).reshape(stage.prompts, -1)[:, 0]
            if not replaced.any():
                break
            with phases.phase("input"):
                rows = np.flatnonzero(replaced).tolist()
                batch = replace_prompts(batch, rows, self.data.take(len(rows)))
                discarded += len(rows)
        metrics["live_slots"] = float(sum(tokens for tokens, _ in live)) / sum(steps for _, steps in live)
        if stage.sampling_rounds > 1:
            metrics |= {"sampling_rounds": float(number), "discarded_groups": float(discarded)}
        return SampledBatch(own, prompts, image_slots, on_devices, scored, metrics)

    def _only(self, prompts: Prompts, own: PromptBatch, replaced_N: np.ndarray) -> Prompts:
        """The prompts, of which those that are not in `replaced_N` get no completions."""
        if replaced_N.all():
            return prompts
        index = np.where(replaced_N[self.own_rows], own.prompts.index, np.int32(-1))
        return replace(prompts, index=sharding.put(index, prompts.index.sharding))


def _with_groups(rollout: Rollout | None, new: Rollout, replaced_B: np.ndarray) -> Rollout:
    """The rollout with new completions in those rows (on the host)."""
    if rollout is None:
        return new
    where = lambda x, y: np.where(replaced_B.reshape(-1, *[1] * (x.ndim - 1)), y, x)  # noqa: E731
    return jax.tree.map(where, rollout, new)
