"""SFT steps and greedy decoding against transformers in torch: same weights, samples and machine, in one run.

`python -m tests.benchmarks.against_torch [rounds [shrink]]`, with the `parity` extra; `shrink` divides the number of
rows and of prompts. A 7M-parameter Qwen2-VL (decoder 6 × 256, 8 query and 4 key/value heads, vocabulary 4,096; vision
4 × 128; a film of 112 × 112); the two libraries take turns in each of `rounds` rounds, after one to warm up. Times are
the best of all rounds, ratios the median over rounds, so that other load on the machine falls on both sides. fp32; the
step is forward, backward, clipping and AdamW.

Samples have 128 tokens each; or lengths that are spread as those of the released model are (48 to 147 tokens), which
this project packs into rows of 256 as its input pipeline does, and transformers' padding collator pads to the longest.
"""

import os
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from functools import partial

import grain
import jax
import jax.numpy as jnp
import numpy as np

from chestx_jax.data.packing import PackedBatches
from chestx_jax.model import hf
from chestx_jax.model.config import ModelConfig, VisionConfig
from chestx_jax.model.qwen_vl import init
from chestx_jax.rollout.sampling import SamplingConfig, Vocabulary
from chestx_jax.tokens.patches import ImageSpec
from chestx_jax.tokens.rows import Example, RowsConfig, pack, prompts
from chestx_jax.update.optimizer import OptimizerConfig, make_optimizer
from chestx_jax.update.state import initial_state
from chestx_jax.update.steps import sft_step
from tests.benchmarks.lengths import completion_lengths
from tests.benchmarks.machine import instruction_sets
from tests.helpers.sampling import generate
from tests.helpers.tiny_models import EOS, FP32, PAD, TOKEN_IDS, example

CONFIG = ModelConfig(
    vocab_size=4096, layers=6, width=256, heads=8, kv_heads=4, hidden=768, mrope_section=(4, 6, 6), tied=True,
    vision=VisionConfig(layers=4, width=128, heads=4, hidden=512), compute=replace(FP32, unroll=0),
)  # fmt: skip
SHRINK = int(sys.argv[2]) if len(sys.argv) > 2 else 1
ROWS, LENGTH, PROMPTS, NEW = 32 // SHRINK, 128, 64 // SHRINK, 64
PACKED = RowsConfig(2 * LENGTH, 3, 64)  # rows that samples of mixed lengths share
WHAT = ("step", "mixed step", "decode")
FILM = (8, 8)  # patches of a 112 × 112 film


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    params = jax.jit(partial(init, CONFIG))(jax.random.key(0))
    training = [example([FILM], [12, LENGTH - 12 - 16], n) for n in range(ROWS)]
    packed = mixed_samples()
    prompted = [example([FILM], [12, 36], n) for n in range(PROMPTS)]
    mixed = [sample for row in packed for sample in row]
    ours, theirs = _ours(params, training, packed, prompted), _theirs(params, training, mixed, prompted)
    sides = {"chestx_jax": ours, "transformers": theirs}
    times: dict[tuple[str, str], list[float]] = {(side, what): [] for side in sides for what in WHAT}
    for number in range(rounds + 1):
        for place, what in enumerate(WHAT):
            for side, runs in sides.items():
                start = time.perf_counter()
                runs[place]()
                seconds = time.perf_counter() - start
                print(f"round {number}: {side} {what} {seconds:.3f} s", file=sys.stderr, flush=True)
                if number:
                    times[side, what].append(seconds)
    tokens = dict(zip(WHAT, (ROWS * LENGTH, sum(len(sample.ids) for sample in mixed), PROMPTS * NEW), strict=True))
    print(f"{os.cpu_count()} cores ({instruction_sets()}), load average {os.getloadavg()[0]:.1f}, {rounds} rounds")
    print(f"{ROWS} samples of {LENGTH} tokens, {len(mixed)} of mixed lengths, {PROMPTS} prompts of {NEW} new tokens")
    print("| | best, s: ours | transformers | real tokens/s: ours | transformers | ours ÷ theirs |\n|" + "---|" * 6)
    for what in WHAT:
        own, other = times["chestx_jax", what], times["transformers", what]
        ratios = [a / b for a, b in zip(own, other, strict=True)]
        spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        speeds = f"{tokens[what] / min(own):.0f} | {tokens[what] / min(other):.0f}"
        print(f"| {what} | {min(own):.3f} | {min(other):.3f} | {speeds} | {spread} |")


def mixed_samples() -> list[list[Example]]:
    """As many samples of mixed lengths as ROWS × LENGTH positions take, as the input pipeline packs them."""
    rng, answers = np.random.default_rng(0), completion_lengths(4 * ROWS) // 2
    stream = [example([FILM], [12, int(rng.integers(40, 86)) - 28, int(answer)], n) for n, answer in enumerate(answers)]
    dataset = grain.MapDataset.source(stream).to_iter_dataset()
    return next(iter(PackedBatches(dataset, ROWS * LENGTH // PACKED.length, PACKED, lambda rows: rows)))


def _ours(params, training, packed, prompted):
    transform = make_optimizer(OptimizerConfig(warmup=0.0), 1000)
    allowed = jnp.ones(CONFIG.vocab_size, bool)
    step = jax.jit(lambda state, batch: sft_step(CONFIG, transform, 0.0, 1, state, batch, allowed), donate_argnums=0)
    rows = RowsConfig(LENGTH, 1, FILM[0] * FILM[1])
    batches = pack([[sample] for sample in training], rows, ImageSpec()), pack(packed, PACKED, ImageSpec())
    batches = jax.tree.map(jnp.asarray, batches)
    state = jax.jit(lambda params: initial_state(params, transform))(jax.tree.map(jnp.copy, params))

    def train(batch) -> None:
        nonlocal state
        state, metrics = step(state, batch)
        jax.block_until_ready(metrics)

    # stop ids that cannot be sampled make every completion as long as the other side's
    stop_ids = jnp.asarray([EOS, PAD], jnp.int32)
    vocabulary = Vocabulary(allowed=allowed.at[stop_ids].set(False), stop_ids=stop_ids)
    sampling = SamplingConfig(temperature=0.0, length=NEW, group=1)
    shape = RowsConfig(len(prompted[0].ids), 1, FILM[0] * FILM[1])
    prompt_batch = prompts(prompted, shape, range(PROMPTS), ImageSpec())
    decode = lambda: generate(CONFIG, sampling, params, prompt_batch, vocabulary)  # noqa: E731
    return *[partial(train, batch) for batch in batches], decode


def _theirs(params, training, mixed, prompted):
    import torch
    from transformers import Qwen2VLForConditionalGeneration

    from tests.model.hf.test_parity import torch_inputs

    with tempfile.TemporaryDirectory() as folder:
        hf.save(f"{folder}/model", CONFIG, params, TOKEN_IDS, {})
        model = Qwen2VLForConditionalGeneration.from_pretrained(f"{folder}/model", dtype=torch.float32)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-6, weight_decay=0.0)
    prompt_inputs = torch_inputs(prompted)

    def learned(samples):
        length = max(len(sample.ids) for sample in samples)
        return torch.tensor(np.stack([np.pad(sample.weights, (0, length - len(sample.ids))) for sample in samples]))

    def train(inputs, learned) -> None:
        scores = model(**inputs).logits[:, :-1].log_softmax(-1)
        picked = scores.gather(-1, inputs["input_ids"][:, 1:, None])[..., 0]
        (-(picked * learned).sum() / learned.sum()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    def decode() -> None:
        with torch.no_grad():
            model.generate(**prompt_inputs, max_new_tokens=NEW, min_new_tokens=NEW, do_sample=False, pad_token_id=PAD)

    steps = [partial(train, torch_inputs(samples), learned(samples)[:, 1:]) for samples in (training, mixed)]
    return *steps, decode


if __name__ == "__main__":
    main()
