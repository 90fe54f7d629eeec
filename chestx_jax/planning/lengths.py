"""A GRPO iteration at the lengths that its data has, in the buckets that training pads them to."""

import heapq
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from chestx_jax import files, sharding
from chestx_jax.buckets import smallest_bucket
from chestx_jax.errors import UserError
from chestx_jax.planning.cost.topology import Topology
from chestx_jax.planning.planner import mesh_of, plan
from chestx_jax.planning.stages import PlannedProgram, runs_per_step, sampling_layout
from chestx_jax.recipes import GrpoConfig, JobConfig
from chestx_jax.rewards.overlong import OverlongConfig
from chestx_jax.rollout.loop import ring_columns
from chestx_jax.rollout.schedule import STEPS
from chestx_jax.update.micro_batches import Bucket, plan_micro_batches

FIELDS = ("prompt", "films", "completion")
FORM = "prompt=330/400/680,films=1/1/2,completion=110/182/299"


@dataclass(frozen=True)
class Lengths:
    """Tokens of prompts with their films, films of prompts, and tokens of completions, in ascending order."""

    prompt: tuple[int, ...]
    films: tuple[int, ...]
    completion: tuple[int, ...]


class BucketPlan(NamedTuple):
    """A program in one of its buckets. `bucket` is written prompt+films+completion."""

    name: str
    bucket: str
    runs: float  # in an iteration
    program: PlannedProgram


def read_lengths(text: str) -> Lengths:
    """Lengths from a file of JSON lines with the fields prompt, films and completion, or from their 5th, 50th and 95th
    percentiles as in `FORM`. Between and beyond percentiles lengths change linearly.

    Raises UserError for anything else.
    """
    if "=" not in text:
        rows = _lines(text)
        if not rows or not all(isinstance(row, dict) and isinstance(row.get(n), int) for row in rows for n in FIELDS):
            raise UserError(
                f"--lengths={text}: name a file whose lines are JSON with the whole numbers {', '.join(FIELDS)}, or "
                f"give percentiles as {FORM}."
            )
        return Lengths(*(tuple(sorted(row[name] for row in rows)) for name in FIELDS))
    given = dict(part.partition("=")[::2] for part in text.split(","))
    if given.keys() != set(FIELDS) or not all(re.fullmatch(r"\d+/\d+/\d+", value) for value in given.values()):
        raise UserError(f"--lengths={text}: write p5/p50/p95 of {', '.join(FIELDS)} as {FORM}, or name a file.")
    return Lengths(*(_between([int(number) for number in given[name].split("/")]) for name in FIELDS))


def _lines(path: str) -> list[Any]:
    try:
        return [json.loads(line) for line in files.complete_lines(path)]
    except (OSError, ValueError) as error:
        raise UserError(
            f"--lengths={path} cannot be read ({error}): name a file of JSON lines, or give {FORM}."
        ) from error


def _between(percentiles: Sequence[int], count: int = 1000) -> tuple[int, ...]:
    """`count` values that have these percentiles (5, 50, 95)."""
    low, middle, high = percentiles
    if not low <= middle <= high:
        raise UserError(f"--lengths has {low}/{middle}/{high}: percentiles are ascending.")
    ends = max(low - (middle - low) / 9, 0), high + (high - middle) / 9  # 5 more of 45 percent
    places = (np.arange(count) + 0.5) / count * 100
    return tuple(np.interp(places, (0, 5, 50, 95, 100), (ends[0], low, middle, high, ends[1])).round().astype(int))


def plan_lengths(
    job: JobConfig,
    topology: Topology,
    lengths: Lengths,
    at_limits: Mapping[str, PlannedProgram],
    log: Callable[[str], object] = lambda line: None,
) -> list[BucketPlan]:
    """The programs of a GRPO iteration whose prompts and completions are drawn from `lengths`, each in the buckets that
    training would take; those that have one shape are taken from `at_limits`, the job's plan, if it has them. A rollout
    is priced with all of its slots until the last completion ends, and reads as many keys as the longest needs; what
    ends sooner makes it faster.

    Raises UserError where the job has no GRPO stage, and as `planner.plan` does.
    """
    stage = job.grpo
    if stage is None:
        raise UserError("--lengths prices a GRPO iteration, and the job has none: give a config with a grpo stage.")
    mesh = mesh_of(job.mesh, topology)
    shards = stage.prompts // sharding.batch_share(mesh, stage.prompts)
    prompt_N, films_N, completion_B = draw(stage, lengths)
    planned = plan_micro_batches(
        prompt_N, films_N, completion_B, stage.mini_batches, stage.micro_batches, shards, stage.buckets
    )
    parts = Counter(part.bucket for part in planned)
    runs = {name: count for name, count in runs_per_step(stage, mesh).items() if count}
    by_part = [name for name in ("reference", "logprobs", "gradients") if f"grpo/{name}" in runs]
    columns = ring_columns(int(completion_B.max()), stage.sampling.length)
    prompts, films, _ = stage.buckets
    rollout = Bucket(smallest_bucket(int(prompt_N.max()), prompts), smallest_bucket(int(films_N.max()), films), columns)
    layout = sampling_layout(stage, mesh)
    assert layout
    runs["grpo/decode"] = turns(completion_B, layout.lanes * layout.width)

    def priced(bucket: Bucket | None, names: Sequence[str], share: float = 1.0) -> Iterator[BucketPlan]:
        at = job if bucket is None else in_bucket(job, bucket)
        text = "+".join(map(str, bucket or longest(stage)))
        known = at_limits if bucket in (None, longest(stage)) else {}
        names = [f"grpo/{name}" for name in names]
        missing = [name for name in names if name not in known]
        compiled = plan(at, topology, missing, log=log).programs if missing else {}
        for name in names:
            yield BucketPlan(name, text, runs[name] * share, known.get(name) or compiled[name])

    once = [name for name in ("weights", "fetch") if f"grpo/{name}" in runs]
    rows = [*priced(None, once), *priced(rollout, ("prefill", "decode")), *priced(None, ("score",))]
    for bucket, count in sorted(parts.items()):
        rows += priced(bucket, by_part, count / stage.parts)
    return [*rows, *priced(None, ("step",))]


def draw(stage: GrpoConfig, lengths: Lengths) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tokens and films of an iteration's prompts and tokens of its completions: evenly out of the distribution, in an
    order that is always the same, cut to the stage's limits. Longer prompts have more films."""
    rng = np.random.default_rng(0)

    def evenly(values: Sequence[int], count: int, limit: int) -> np.ndarray:
        places = ((np.arange(count) + 0.5) / count * len(values)).astype(int)
        return np.clip(np.asarray(values)[places], 1, limit).astype(np.int32)

    order = rng.permutation(stage.prompts)
    prompt_N = evenly(lengths.prompt, stage.prompts, stage.rows.length)[order]
    films_N = evenly(lengths.films, stage.prompts, stage.rows.image_slots)[order]
    count = stage.prompts * stage.sampling.group
    return prompt_N, films_N, rng.permutation(evenly(lengths.completion, count, stage.sampling.length))


def turns(completion_B: np.ndarray, slots: int) -> float:
    """How often `STEPS` tokens are sampled until all completions have ended, each slot taking the next one waiting."""
    busy = [0] * min(slots, len(completion_B))
    for length in completion_B.tolist():
        heapq.heapreplace(busy, busy[0] + math.ceil(length / STEPS))
    return float(max(busy))


def in_bucket(job: JobConfig, bucket: Bucket) -> JobConfig:
    """The job whose GRPO programs have the shapes of one bucket."""
    assert job.grpo is not None
    rows = replace(job.grpo.rows, length=bucket.tokens, image_slots=bucket.image_slots)
    sampling, overlong = replace(job.grpo.sampling, length=bucket.completion), OverlongConfig()
    lengths = type(job.grpo.lengths)()
    return replace(job, grpo=replace(job.grpo, rows=rows, sampling=sampling, overlong=overlong, lengths=lengths))


def longest(stage: GrpoConfig) -> Bucket:
    """The bucket of the limits."""
    return Bucket(stage.rows.length, stage.rows.image_slots, stage.sampling.length)
