"""How well one accelerator is used: a 2B model's SFT step, prefill, decoding, reference, policy update and reward.

    python -m tests.benchmarks.accelerator            on the first GPU or TPU, in less than five minutes
    python -m tests.benchmarks.accelerator tiny       the same on whatever is there, at a tiny shape

The programs are those of training (`chestx_jax/programs/`), on random weights, with every row as full as it can be, so
that all tokens are real. `% peak` is the share of the chip's bf16 FLOP/s that the model's useful FLOPs reach, `%
bandwidth` (decoding) that of its memory's bandwidth by what must be read at least: the weights, and the keys and values
that exist. Peak memory is what the compiled program holds; the last line has the allocator's. Where torch sees the
card, transformers runs the same shapes after it: the rows of the SFT step as four samples each, and greedy decoding.
"""

import functools
import math
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from chestx_jax import findings, lexicon
from chestx_jax.model import hf
from chestx_jax.model.config import ComputeConfig, ModelConfig, VisionConfig
from chestx_jax.planning.cost import topology
from chestx_jax.planning.cost.chips import GIB, Chip
from chestx_jax.planning.report import markdown
from chestx_jax.planning.stages import program_flops
from chestx_jax.programs.job import programs
from chestx_jax.programs.program import Program, resolve_attention
from chestx_jax.recipes import GrpoConfig, JobConfig, ReferenceConfig, SftConfig
from chestx_jax.rewards.reward import RewardConfig, score
from chestx_jax.rollout.sampling import SamplingConfig
from chestx_jax.rollout.schedule import STEPS
from chestx_jax.sharding import MeshConfig, make_mesh
from chestx_jax.tokens.patches import ImageSpec
from chestx_jax.tokens.rows import RowsConfig
from chestx_jax.types import Completion
from tests.benchmarks.timing import median_seconds
from tests.helpers import tiny_models

NAMES = {
    "SFT step": "sft/step",
    "prefill": "grpo/prefill",
    "decode, a token": "grpo/decode",
    "reference": "grpo/reference",
    "update": "grpo/gradients",
}


@dataclass(frozen=True)
class Case:
    """Shapes to time. Rows of the SFT step hold `samples` samples, each with one film of `film` patches."""

    job: JobConfig
    reward: tuple[int, int]  # completions × tokens
    film: tuple[int, int]
    samples: int
    vocabulary_rows: int  # of the reward's tables


def _job(model: ModelConfig, sft: SftConfig, grpo: GrpoConfig, pixels: int) -> JobConfig:
    one = MeshConfig(data=1, fsdp=1, tensor=1)
    return JobConfig(init=sft, grpo=grpo, model=model, image=ImageSpec(max_pixels=pixels), mesh=one)


# Qwen2-VL-2B's sizes; SFT of 8 rows of 2,048 tokens with 4 films, 16 prompts × 8 completions, 512 tokens each.
TWO_BILLION = Case(
    _job(
        ModelConfig(
            vocab_size=151_936, layers=28, width=1536, heads=12, kv_heads=2, hidden=8960, tied=True,
            vision=VisionConfig(), compute=ComputeConfig(head_parts=8),
        ),
        SftConfig(rows=RowsConfig(2048, 4, 1024), batch=8, steps=100, init="random"),
        GrpoConfig(
            prompts=16, rows=RowsConfig(512, 1, 1024), sampling=SamplingConfig(length=512, group=8), micro_batches=16,
            reference=ReferenceConfig("bfloat16", offload=False), steps=100,
        ),
        448 * 448,
    ),
    reward=(2048, 2048), film=(32, 32), samples=4, vocabulary_rows=151_936,
)  # fmt: skip
TINY = Case(
    _job(
        tiny_models.tiny(layers=1),
        SftConfig(rows=RowsConfig(64, 2, 16), batch=2, steps=100, init="random"),
        GrpoConfig(
            prompts=2, rows=RowsConfig(32, 1, 16), sampling=SamplingConfig(length=16, group=2), micro_batches=2,
            reference=ReferenceConfig("bfloat16", offload=False), steps=100,
        ),
        56 * 56,
    ),
    reward=(8, 64), film=(4, 4), samples=2, vocabulary_rows=300,
)  # fmt: skip


@dataclass(frozen=True)
class Timed:
    """One row of the table. Shares are 0 where they are not asked or the chip's figures are not known."""

    what: str
    seconds: float
    tokens: float
    peak_share: float = 0.0  # of the FLOP/s
    bandwidth_share: float = 0.0
    memory: float = 0.0  # bytes

    def row(self) -> tuple[str, ...]:
        return (
            self.what, f"{self.seconds * 1e3:,.4g} ms", f"{self.tokens / self.seconds:,.0f}",
            f"{self.peak_share:.1%}" if self.peak_share else "–",
            f"{self.bandwidth_share:.1%}" if self.bandwidth_share else "–",
            f"{self.memory / GIB:.1f}" if self.memory else "–",
        )  # fmt: skip


def ours(case: Case, chip: Chip | None, rounds: int) -> Iterator[Timed]:
    """The job's programs on the first device, one after the other, each with memory to itself."""
    mesh = make_mesh(case.job.mesh, jax.devices()[:1])
    by_name, job = programs(case.job, mesh), case.job
    for what, name in NAMES.items():
        program = by_name[name]
        compiled = program.lower().compile()
        memory = compiled.memory_analysis()
        held = memory.argument_size_in_bytes + memory.temp_size_in_bytes
        held += memory.output_size_in_bytes - memory.alias_size_in_bytes
        once = median_seconds(runner(program, compiled), rounds, 1)
        counted = program_flops(job, name, mesh)
        assert counted is not None
        share = counted.useful / once / chip.peak_flops if chip else 0.0
        if name == "grpo/decode":
            step, read = once / STEPS, _read_by_a_token(program)
            bandwidth = read / step / chip.hbm_bandwidth if chip else 0.0
            yield Timed(what, step, counted.tokens / STEPS, bandwidth_share=bandwidth, memory=held)
        else:
            runs = job.grpo.micro_batches if name in ("grpo/reference", "grpo/gradients") and job.grpo else 1
            yield Timed(what, once * runs, counted.tokens * runs, peak_share=share, memory=held)
    count, length = case.reward
    yield Timed("reward", reward_seconds(case, rounds), float(count * length))


def runner(program: Program, compiled: jax.stages.Compiled) -> Callable[[], object]:
    """A run on random numbers: zeros would draw less power than real work, and run faster. Integers are 1: one segment,
    lengths of 1, which costs as much. What is donated is passed from run to run."""

    def filled(number: int, leaf, sharding) -> jax.Array:
        if leaf.dtype == bool or jnp.issubdtype(leaf.dtype, jnp.integer):
            return jax.device_put(np.ones(leaf.shape, leaf.dtype), sharding)
        draw = functools.partial(_normal, number, leaf.shape, leaf.dtype)
        return jax.jit(draw, out_shardings=sharding)()

    arguments = []
    for shapes, shardings in program.arguments.values():
        leaves, tree = jax.tree.flatten(shapes)
        at = jax.tree.leaves(jax.tree.broadcast(shardings, shapes))
        arrays = [filled(number, *pair) for number, pair in enumerate(zip(leaves, at, strict=True))]
        arguments.append(jax.tree.unflatten(tree, arrays))
    donated = [list(program.arguments).index(name) for name in program.donated]

    def once() -> object:
        results = compiled(*arguments)
        for place in donated:  # what it has become is the result, or the first of several
            alone = jax.tree.structure(results) == jax.tree.structure(arguments[place])
            arguments[place] = results if alone else results[0]
        return results

    return once


def _normal(number: int, shape, dtype) -> jax.Array:
    return (0.02 * jax.random.normal(jax.random.key(number), shape)).astype(dtype)


def _read_by_a_token(program: Program) -> float:
    """Bytes of the weights and of all keys and values."""
    read = [leaf for name in ("params", "lanes", "ring") for leaf in jax.tree.leaves(program.shapes[name])]
    return float(sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in read))


def reward_seconds(case: Case, rounds: int) -> float:
    """The reward of completions of random bytes, in groups of eight, against a vocabulary of single bytes whose other
    ids are special tokens."""
    count, length = case.reward
    words = [bytes([i]) for i in range(256)] + [b""] * (case.vocabulary_rows - 256)
    tables = jax.device_put(lexicon.compile_tables(lexicon.load(), words))
    groups = max(count // 8, 1)
    targets = findings.reward_targets(
        lexicon.load(), [["The heart is enlarged."]] * groups, [()] * groups, ["A"] * groups, ["binary"] * groups, 64
    )
    ids = np.random.default_rng(0).integers(32, 127, (count, length)).astype(np.int32)
    prompt = np.arange(count, dtype=np.int32) // 8 % groups
    completion = jax.device_put(Completion(ids, np.full(count, length, np.int32), prompt))
    targets = jax.device_put(targets)
    return median_seconds(lambda: score(RewardConfig(slots=64), tables, completion, targets), rounds, 1)


def theirs(case: Case, device: str, rounds: int) -> Iterator[Timed]:
    """transformers in torch: an SFT step in bf16 with sdpa and checkpointing, and greedy decoding of every prompt's
    group, whose time by token has the prefill in it."""
    import torch
    from transformers import AutoConfig, AutoModelForImageTextToText

    from tests.model.hf.test_parity import torch_inputs

    sft, grpo = case.job.init, case.job.grpo
    assert isinstance(sft, SftConfig)
    assert grpo is not None
    raw = hf.config.to_hf(case.job.model, tiny_models.TOKEN_IDS, "bfloat16")
    config = AutoConfig.for_model(raw.pop("model_type"), **raw)
    with torch.device(device):
        model = AutoModelForImageTextToText.from_config(config, dtype=torch.bfloat16, attn_implementation="sdpa")
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    visual, length = case.film[0] * case.film[1] // 4, sft.rows.length // case.samples
    row = tiny_models.example([case.film], [4, length - visual - 4], 0)
    inputs = {name: x.to(device) for name, x in torch_inputs([row] * (sft.batch * case.samples)).items()}
    inputs["pixel_values"] = inputs["pixel_values"].to(torch.bfloat16)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6)
    model.gradient_checkpointing_enable()
    model.train()

    def step() -> None:
        model(**inputs, labels=inputs["input_ids"]).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        wait()

    memory = lambda: float(torch.cuda.max_memory_allocated()) if device == "cuda" else 0.0  # noqa: E731
    seconds = median_seconds(step, rounds, 1)
    yield Timed("transformers: SFT step", seconds, float(sft.batch * sft.rows.length), memory=memory())
    del optimizer
    model.zero_grad(set_to_none=True)
    model.gradient_checkpointing_disable()
    model.eval()
    count, new = grpo.prompts * grpo.sampling.group, min(grpo.sampling.length, 64)
    row = tiny_models.example([case.film], [4, grpo.rows.length - visual - 4], 1)
    prompts = {name: x.to(device) for name, x in torch_inputs([row] * count).items()}
    prompts["pixel_values"] = prompts["pixel_values"].to(torch.bfloat16)

    def decode() -> None:
        with torch.no_grad():
            model.generate(**prompts, max_new_tokens=new, min_new_tokens=new, do_sample=False, pad_token_id=1)
        wait()

    yield Timed("transformers: decode, a token", median_seconds(decode, 1, 1) / new, float(count))


def table(case: Case, rounds: int, torch_device: str = "") -> list[Timed]:
    """Times everything and prints the table, row by row as they are known."""
    chip = topology.find("local").chip if jax.default_backend() != "cpu" else None
    device, start = jax.devices()[0], time.perf_counter()
    attention = resolve_attention(case.job.model, make_mesh(case.job.mesh, jax.devices()[:1])).compute.attention
    print(f"{device.device_kind}, jax {jax.__version__}, attention {attention}", flush=True)
    header = ("what", "time", "tokens/s", "% peak", "% bandwidth", "peak GiB")
    print(markdown(header, []), flush=True)
    rows = []
    for timed in ours(case, chip, rounds):
        rows.append(timed)
        print(f"| {' | '.join(timed.row())} |", flush=True)
    if torch_device:
        for timed in theirs(case, torch_device, rounds):
            rows.append(timed)
            print(f"| {' | '.join(timed.row())} |", flush=True)
    stats = device.memory_stats() or {}
    allocated = stats.get("peak_bytes_in_use", 0) / GIB
    print(f"{time.perf_counter() - start:.0f} s in all; the allocator's peak {allocated:.1f} GiB")
    return rows


def main() -> None:
    case = {"": TWO_BILLION, "tiny": TINY}.get(" ".join(sys.argv[1:]))
    if case is None:
        sys.exit(__doc__)
    if case is TWO_BILLION and jax.default_backend() == "cpu":
        sys.exit("There is no GPU or TPU here: `python -m tests.benchmarks.accelerator tiny` rehearses on a CPU.")
    table(case, rounds=5, torch_device=_torch_device())


def _torch_device() -> str:
    """ "cuda" where torch is installed and sees a card."""
    try:
        import torch
    except ImportError:
        return ""
    return "cuda" if torch.cuda.is_available() else ""


if __name__ == "__main__":
    main()
