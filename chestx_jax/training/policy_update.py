"""From an iteration's completions to the updated policy, micro-batch by micro-batch, each in its own bucket."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Int32

from chestx_jax import multihost, sharding
from chestx_jax.buckets import BucketUse
from chestx_jax.planning.cost.model_flops import real_flops
from chestx_jax.programs.grpo import select_program
from chestx_jax.programs.program import Program, zeros
from chestx_jax.recipes import GrpoConfig, JobConfig
from chestx_jax.rollout.sampling import Vocabulary
from chestx_jax.types import Array, Prompts
from chestx_jax.update.micro_batches import (
    Bucket,
    Experience,
    Logprobs,
    MicroBatch,
    image_slots_used,
    plan_micro_batches,
)
from chestx_jax.update.state import TrainState


class IterationLengths(NamedTuple):
    """Tokens and image slots of all processes' prompts, and tokens of their completions."""

    prompt: Int32[np.ndarray, " N"]
    image_slots: Int32[np.ndarray, " N"]
    completion: Int32[np.ndarray, " B"]


@dataclass(frozen=True)
class PolicyUpdate:
    """The programs of a GRPO stage that run once for each micro-batch, and in which buckets they have run."""

    job: JobConfig
    stage: GrpoConfig
    mesh: Mesh
    programs: Mapping[str, Program]
    functions: Mapping[str, Callable[..., Any]]  # the programs, jitted
    vocabulary: Vocabulary
    use: BucketUse = field(default_factory=BucketUse)

    def put_prompts(self, prompts: Prompts) -> tuple[Prompts, Int32[Array, " N"]]:
        """This process's rows of a batch of prompts as global arrays, and the image slots that each prompt fills."""
        self.use.add("grpo/prefill", (*prompts.tokens.ids.shape[1:], prompts.images.valid.shape[1]))
        shardings = self.programs["grpo/prefill"].shardings["prompts"]
        return sharding.put(prompts, shardings), sharding.put(image_slots_used(prompts), shardings.length)

    def lengths(self, experience: Experience, image_slots_N: Int32[Array, " N"]) -> IterationLengths:
        """The lengths of all processes' prompts and completions."""
        prompts, rollout = experience.prompts, experience.rollout
        return IterationLengths(*multihost.all_gather((prompts.length, image_slots_N, rollout.length)))

    def split(self, experience: Experience, lengths: IterationLengths) -> list[MicroBatch]:
        """The iteration as micro-batches of similar lengths, the same on all processes; those of a mini-batch follow
        each other."""
        minis, micros = self.stage.mini_batches, self.stage.micro_batches
        shards = self.stage.prompts // sharding.batch_share(self.mesh, self.stage.prompts)
        planned = plan_micro_batches(*lengths, minis, micros, shards, self.stage.buckets)
        by_row = self.programs["grpo/select"].shardings["groups"]
        own = multihost.local_row_indices(by_row, len(planned[0].groups))
        for micro_batch in planned:
            self.use.add("grpo/gradients", micro_batch.bucket)
        return [
            self._select(micro_batch.bucket)(experience, sharding.put(micro_batch.groups[own], by_row))
            for micro_batch in planned
        ]

    def logprobs(self, reference: Any, params: Any, parts: Sequence[MicroBatch]) -> list[Logprobs]:
        """Log-probs of each micro-batch's tokens under the reference model and the policy (None: not needed). Reference
        weights that lie in the host's memory are fetched once for all micro-batches."""
        if reference is not None and "grpo/fetch" in self.functions:
            reference = self.functions["grpo/fetch"](reference)
        of_reference = self._token_logprobs("grpo/reference", reference, parts)
        del reference  # fetched weights need not lie beside what comes next
        of_policy = self._token_logprobs("grpo/logprobs", params, parts)
        return list(map(Logprobs, of_reference, of_policy))

    def _token_logprobs(self, name: str, weights: Any, parts: Sequence[MicroBatch]) -> list[Array | None]:
        if weights is None:
            return [None] * len(parts)
        return [self.functions[name](weights, part.prompts, part.rollout, self.vocabulary) for part in parts]

    def update(
        self, state: TrainState, parts: Sequence[MicroBatch], logprobs: Sequence[Logprobs]
    ) -> tuple[TrainState, dict[str, list[Array]]]:
        """All optimizer steps on an iteration, mini-batch after mini-batch, and the metrics with a value for each step.
        The state is donated."""
        measured, size = [], self.stage.micro_batches
        for _ in range(self.stage.updates):
            for start in range(0, len(parts), size):
                mini_batch = slice(start, start + size)
                state, metrics = self.step(state, parts[mini_batch], logprobs[mini_batch])
                measured.append(metrics)
        return state, {name: [metrics[name] for metrics in measured] for name in measured[0]}

    def step(
        self, state: TrainState, parts: Sequence[MicroBatch], logprobs: Sequence[Logprobs]
    ) -> tuple[TrainState, dict[str, Array]]:
        """One optimizer step on these micro-batches, and its metrics. The state is donated."""
        total = self._zeros() if len(parts) > 1 else None
        for part, given in zip(parts, logprobs, strict=True):
            total = self.functions["grpo/gradients"](state.params, total, part, given, self.vocabulary)
        return self.functions["grpo/step"](state, total)

    def work(self, lengths: IterationLengths, patches: int, parts: Sequence[MicroBatch]) -> dict[str, float]:
        """What an iteration computes: its real `tokens`, the share of computed positions that they are (`filled`), and
        useful `flops`, with `patches` patches a film."""
        completion_NxG = lengths.completion.reshape(len(lengths.prompt), -1)
        tokens = float(lengths.prompt.sum() + lengths.completion.sum())
        films = {patches: int(lengths.image_slots.sum())}
        forward, trained = (
            real_flops(self.job.model, lengths.prompt.tolist(), completion_NxG.tolist(), films, trained=trained)
            for trained in (False, True)
        )
        updates = self.stage.updates
        forwards = 1 + (self.stage.policy.kl_weight > 0) + self.stage.needs_old_logprobs
        padded = sum(part.prompts.tokens.ids.size + part.mask.size for part in parts)
        return {"tokens": tokens, "filled": tokens / padded, "flops": forwards * forward + updates * trained}

    def _select(self, bucket: Bucket) -> Callable[..., MicroBatch]:
        if bucket not in self._selecting:
            self._selecting[bucket] = select_program(self.job, self.stage, self.mesh, bucket).jit()
        return self._selecting[bucket]

    @cached_property
    def _selecting(self) -> dict[Bucket, Callable[..., MicroBatch]]:
        return {}

    @cached_property
    def _zeros(self) -> Callable[[], Any]:
        return zeros(self.programs["grpo/step"].arguments["total"]).jit()
