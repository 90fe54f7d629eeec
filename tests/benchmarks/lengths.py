"""What padding costs: a GRPO iteration's phases padded to the limits and in length buckets, in one run, same results.

`python -m tests.benchmarks.lengths [PROMPTS [LIMIT …]]`, 16 prompts and a limit of 512 tokens by default. Lengths are
those that the released model's answers have (completions p5/p50/p95/p99/max 110/182/299/347/500 tokens of 2,048,
prompts of 330 to 680), scaled by a quarter, whatever the limit; 8 completions a prompt. A decoder of 6 × 256 behind a
small vision tower, fp32; both sides run the stage's own programs with two prompts a micro-batch.
"""

import sys

import jax
import numpy as np
import optax

from chestx_jax import sharding
from chestx_jax.buckets import LengthsConfig, slot_buckets, smallest_bucket, token_buckets
from chestx_jax.model.config import ModelConfig, VisionConfig
from chestx_jax.programs.generation import sampler
from chestx_jax.programs.job import programs
from chestx_jax.programs.state import init_params, init_state
from chestx_jax.recipes import GrpoConfig, JobConfig, ReferenceConfig
from chestx_jax.rollout.loop import sample_rollout
from chestx_jax.rollout.sampling import SamplingConfig, Vocabulary
from chestx_jax.sharding import MeshConfig, make_mesh
from chestx_jax.tokens.patches import ImageSpec
from chestx_jax.tokens.rows import RowsConfig, prompts
from chestx_jax.training.policy_update import PolicyUpdate
from chestx_jax.types import Prompts, Rollout
from chestx_jax.update.micro_batches import Experience
from chestx_jax.update.optimizer import OptimizerConfig
from tests.benchmarks.timing import median_seconds
from tests.helpers.forced_lengths import forced_lengths
from tests.helpers.tiny_models import FIRST_TEXT, FP32, example

MODEL = ModelConfig(
    vocab_size=4096, layers=6, width=256, heads=8, kv_heads=4, hidden=768, mrope_section=(4, 6, 6), tied=True,
    vision=VisionConfig(layers=4, width=128, heads=4, hidden=512), compute=FP32,
)  # fmt: skip
PHASES = ("rollout", "split", "reference", "update")
GROUP, PER_PART, FILM = 8, 2, (16, 16)  # completions a prompt, prompts a micro-batch, patches of a film
QUANTILES = ((0, 5, 50, 95, 99, 100), (16, 28, 46, 75, 87, 125))  # of the completions' lengths
TWO_FILMS = 0.3  # share of prompts


def completion_lengths(count: int) -> np.ndarray:
    """Lengths with the quantiles above, in random order."""
    places = (np.arange(count) + 0.5) / count * 100
    return np.random.default_rng(0).permutation(np.interp(places, *QUANTILES).round().astype(np.int32))


def prompt_batch(count: int, rows: RowsConfig) -> Prompts:
    """Prompts of 80 to 170 tokens, most with one film of 64, the others with two."""
    rng = np.random.default_rng(1)
    examples = []
    for number in range(count):
        films = 1 + (number < round(TWO_FILMS * count))
        text = rng.integers(80, 107) - 64 if films == 1 else rng.integers(150, 171) - 128
        examples.append(example([FILM] * films, [4] * films + [int(text) - 4 * films], number))
    return prompts(examples, rows, range(count), ImageSpec())


def job_of(count: int, limit: int, lengths: LengthsConfig) -> JobConfig:
    """A GRPO stage whose prompts and completions may have `limit` tokens."""
    stage = GrpoConfig(
        prompts=count,
        rows=RowsConfig(limit, 3, FILM[0] * FILM[1]),
        sampling=SamplingConfig(length=limit, group=GROUP),
        micro_batches=count // PER_PART,
        lengths=lengths,
        reference=ReferenceConfig("float32", offload=False),
        optimizer=OptimizerConfig(rate=1e-6, schedule="constant", warmup=0.0),
    )
    return JobConfig(init="random", grpo=stage, model=MODEL, image=ImageSpec(max_pixels=224 * 224))


class Side:
    """An iteration's phases in the buckets of a job; the rollout samples completions of the same lengths."""

    def __init__(self, count: int, limit: int, lengths: LengthsConfig):
        job, mesh = job_of(count, limit, lengths), make_mesh(MeshConfig())
        by_name = programs(job, mesh)
        functions = {name: program.jit() for name, program in by_name.items()}
        vocabulary = Vocabulary(allowed=np.ones(MODEL.vocab_size, bool), stop_ids=np.array([1, 3], np.int32))
        vocabulary = sharding.put(vocabulary, sharding.replicated(mesh))
        self.policy = PolicyUpdate(job, job.grpo, mesh, by_name, functions, vocabulary)
        self.params = init_params(job, 0, mesh).jit()()
        self.state = init_state(job, job.grpo, mesh).jit()(jax.tree.map(lambda x: x + 0, self.params))
        place, self.slots = self.policy.put_prompts(prompt_batch(count, job.grpo.rows))
        self.experience = Experience(place, *self._completions(count, limit))
        self.padded, self.live_share = lengths.rows == (limit,), 0.0
        longest = smallest_bucket(int(jax.device_get(place.length).max()), token_buckets(limit, lengths.rows))
        rows = RowsConfig(longest, smallest_bucket(2, slot_buckets(3, lengths.image_slots)), FILM[0] * FILM[1])
        self.prompts = sharding.put(prompt_batch(count, rows), by_name["grpo/prefill"].shardings["prompts"])
        sampling = {name: functions[f"grpo/{name}"] for name in ("weights", "prefill", "decode")}
        self.sampler = sampler(job.model, job.grpo.sampling, mesh, sampling)
        self.parts = self.split()
        self.logprobs = self.reference()
        self.metrics: dict = {}

    def _completions(self, count: int, limit: int):
        rng, length = np.random.default_rng(2), completion_lengths(count * GROUP)
        ids = rng.integers(FIRST_TEXT, MODEL.vocab_size, (len(length), limit)).astype(np.int32)
        near = rng.normal(-8.0, 0.1, ids.shape).astype(np.float32)
        whole = Rollout(ids=ids, length=length, logprobs=near, finished=np.ones(len(length), bool))
        advantages = np.repeat(rng.normal(size=(len(length), 1)).astype(np.float32), limit, axis=1)
        given = whole, advantages, np.ones(len(length), bool)
        return sharding.put(given, sharding.batch_shardings(self.policy.mesh, given))

    def rollout(self):
        policy, length = self.policy, completion_lengths(len(self.experience.loss_mask))
        allowed = np.ones(MODEL.vocab_size, bool)
        allowed[[1, 3]] = False
        vocabulary = Vocabulary(allowed=allowed, stop_ids=np.array([1, 3], np.int32))
        vocabulary = sharding.put(vocabulary, sharding.replicated(policy.mesh))
        split = policy.programs["grpo/score"].shardings["rollout"]
        with forced_lengths(length, self.padded):
            rollout, self.live_share = sample_rollout(self.sampler, self.params, self.prompts, vocabulary, 0, split)
        return rollout

    def split(self):
        return self.policy.split(self.experience, self.policy.lengths(self.experience, self.slots))

    def reference(self):
        return self.policy.logprobs(self.params, None, self.parts)

    def update(self):
        self.state, self.metrics = self.policy.step(self.state, self.parts, self.logprobs)
        return self.metrics

    def buckets(self) -> str:
        runs = {bucket for program, bucket in self.policy.use.runs if program == "grpo/gradients"}
        return ", ".join("+".join(map(str, bucket)) for bucket in sorted(runs))


def compare(count: int, limit: int) -> None:
    """Prints the table of one limit."""
    padded = LengthsConfig(rows=(limit,), image_slots=(3,), completions=(limit,))
    sides = {"padded": Side(count, limit, padded), "buckets": Side(count, limit, LengthsConfig())}
    once = lambda call: median_seconds(call, 1, 1)  # noqa: E731 (padded, a run takes minutes)
    times = {name: {phase: once(getattr(side, phase)) for phase in PHASES} for name, side in sides.items()}
    for side in times.values():
        side["all"] = sum(side.values())
    buckets = sides["buckets"].buckets()
    print(f"\nlimit {limit}, {count} prompts × {GROUP}; buckets (prompt + films + completion): {buckets}")
    print("| phase | padded, s | buckets, s | times faster |\n|---|---|---|---|")
    for phase, seconds in times["padded"].items():
        ours = times["buckets"][phase]
        print(f"| {phase} | {seconds:.3f} | {ours:.3f} | {seconds / ours:.1f} |")
    shares = " and ".join(f"{side.live_share:.0%}" for side in sides.values())
    ids = [jax.device_get(side.rollout().ids) for side in sides.values()]
    print(f"of what slots sample {shares} are of use; of all tokens {np.mean(ids[0] == ids[1]):.2%} are the same")
    params = [side.state.params for side in sides.values()]
    moved = optax.tree.norm(optax.tree.sub(params[0], sides["padded"].params))
    apart = float(optax.tree.norm(optax.tree.sub(*params)) / moved)
    losses = [float(side.metrics["loss"]) for side in sides.values()]
    print(
        f"the two updates are {apart:.1e} of the update apart, the losses {losses[0]:.7f} and {losses[1]:.7f}",
        flush=True,
    )


def main() -> None:
    count, *limits = [int(argument) for argument in sys.argv[1:]] or [16]
    for limit in limits or [512]:
        compare(count, limit)


if __name__ == "__main__":
    main()
