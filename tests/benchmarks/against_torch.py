"""SFT step and greedy decoding against transformers in torch: same weights, shapes and machine, in one run.

`python -m tests.benchmarks.against_torch [rounds [shrink]]`, with the `parity` extra; `shrink` divides the number of
rows and of prompts. A 7M-parameter Qwen2-VL (decoder 6 × 256, 8 query and 4 key/value heads, vocabulary 4,096; vision
4 × 128; a film of 112 × 112); the two libraries take turns in each of `rounds` rounds, after one to warm up. Times are
the best of all rounds, ratios the median over rounds, so that other load on the machine falls on both sides. fp32; the
step is forward, backward, clipping and AdamW.
"""

import os
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from chestx_jax.model import hf
from chestx_jax.model.config import ModelConfig, VisionConfig
from chestx_jax.model.qwen_vl import init
from chestx_jax.rollout.sampling import SamplingConfig, Vocabulary
from chestx_jax.tokens.patches import ImageSpec
from chestx_jax.tokens.rows import RowsConfig, pack, prompts
from chestx_jax.update.optimizer import OptimizerConfig, make_optimizer
from chestx_jax.update.state import initial_state
from chestx_jax.update.steps import sft_step
from tests.helpers.sampling import generate
from tests.helpers.tiny_models import EOS, FP32, PAD, TOKEN_IDS, example

CONFIG = ModelConfig(
    vocab_size=4096, layers=6, width=256, heads=8, kv_heads=4, hidden=768, mrope_section=(4, 6, 6), tied=True,
    vision=VisionConfig(layers=4, width=128, heads=4, hidden=512), compute=replace(FP32, unroll=0),
)  # fmt: skip
SHRINK = int(sys.argv[2]) if len(sys.argv) > 2 else 1
ROWS, LENGTH, PROMPTS, NEW = 32 // SHRINK, 128, 64 // SHRINK, 64
FILM = (8, 8)  # patches of a 112 × 112 film


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    params = jax.jit(partial(init, CONFIG))(jax.random.key(0))
    training = [example([FILM], [12, LENGTH - 12 - 16], n) for n in range(ROWS)]
    prompted = [example([FILM], [12, 36], n) for n in range(PROMPTS)]
    sides = {"chestx_jax": _ours(params, training, prompted), "transformers": _theirs(params, training, prompted)}
    times: dict[tuple[str, str], list[float]] = {(side, what): [] for side in sides for what in ("step", "decode")}
    for number in range(rounds + 1):
        for place, what in enumerate(("step", "decode")):
            for side, runs in sides.items():
                start = time.perf_counter()
                runs[place]()
                seconds = time.perf_counter() - start
                print(f"round {number}: {side} {what} {seconds:.3f} s", file=sys.stderr, flush=True)
                if number:
                    times[side, what].append(seconds)
    load = os.getloadavg()[0]
    print(f"{ROWS} rows, {PROMPTS} prompts, {rounds} rounds on {os.cpu_count()} cores, load average {load:.1f}")
    print(f"{'':14}{'SFT step, s':>14}{'tokens/s':>12}{'decode, s':>14}{'tokens/s':>12}")
    for side in sides:
        step, decode = min(times[side, "step"]), min(times[side, "decode"])
        print(f"{side:14}{step:14.3f}{ROWS * LENGTH / step:12.0f}{decode:14.3f}{PROMPTS * NEW / decode:12.0f}")
    for name, pick in (("median ratio", statistics.median), ("least", min), ("most", max)):
        step, decode = (
            pick(
                [
                    theirs / ours
                    for theirs, ours in zip(times["transformers", what], times["chestx_jax", what], strict=True)
                ]
            )
            for what in ("step", "decode")
        )
        print(f"{name:14}{step:14.2f}{'':12}{decode:14.2f}")


def _ours(params, training, prompted):
    transform = make_optimizer(OptimizerConfig(warmup=0.0), 1000)
    allowed = jnp.ones(CONFIG.vocab_size, bool)
    step = jax.jit(lambda state, batch: sft_step(CONFIG, transform, 0.0, 1, state, batch, allowed), donate_argnums=0)
    batch = jax.tree.map(
        jnp.asarray, pack([[row] for row in training], RowsConfig(LENGTH, 1, FILM[0] * FILM[1]), ImageSpec())
    )
    state = initial_state(jax.tree.map(jnp.copy, params), transform)

    def train() -> None:
        nonlocal state
        state, metrics = step(state, batch)
        jax.block_until_ready(metrics)

    # stop ids that cannot be sampled make every completion as long as the other side's
    stop_ids = jnp.asarray([EOS, PAD], jnp.int32)
    vocabulary = Vocabulary(allowed=allowed.at[stop_ids].set(False), stop_ids=stop_ids)
    sampling = SamplingConfig(temperature=0.0, length=NEW, group=1)
    shape = RowsConfig(len(prompted[0].ids), 1, FILM[0] * FILM[1])
    prompt_batch = prompts(prompted, shape, range(PROMPTS), ImageSpec())
    return train, lambda: generate(CONFIG, sampling, params, prompt_batch, vocabulary)


def _theirs(params, training, prompted):
    import torch
    from transformers import Qwen2VLForConditionalGeneration

    from tests.model.hf.test_parity import torch_inputs

    with tempfile.TemporaryDirectory() as folder:
        hf.save(f"{folder}/model", CONFIG, params, TOKEN_IDS, {})
        model = Qwen2VLForConditionalGeneration.from_pretrained(f"{folder}/model", dtype=torch.float32)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-6, weight_decay=0.0)
    inputs, prompt_inputs = torch_inputs(training), torch_inputs(prompted)
    learned = torch.tensor(np.stack([row.weights for row in training]))[:, 1:]

    def train() -> None:
        scores = model(**inputs).logits[:, :-1].log_softmax(-1)
        picked = scores.gather(-1, inputs["input_ids"][:, 1:, None])[..., 0]
        (-(picked * learned).sum() / learned.sum()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    def decode() -> None:
        with torch.no_grad():
            model.generate(**prompt_inputs, max_new_tokens=NEW, min_new_tokens=NEW, do_sample=False, pad_token_id=PAD)

    return train, decode


if __name__ == "__main__":
    main()
