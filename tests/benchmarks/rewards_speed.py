"""How fast the reward reads.

    python -m tests.benchmarks.rewards_speed [TOKENIZER_FOLDER] [ROWS TOKENS …]     default: 64 × 512 and 64 × 64
    python -m tests.benchmarks.rewards_speed share WORKDIR     share of a GRPO iteration of the job that ran in WORKDIR

The first prints tokens a second of extraction and of the reward, beside a regex labeller and the host's reading, with a
vocabulary of 151,936 rows; the second times the job's reward at its shape with full rows. The texts are made of lexicon
phrases.
"""

import json
import random
import re
import sys
import time
from pathlib import Path

import jax
import numpy as np

from chestx_jax import findings, lexicon
from chestx_jax.config import to_dataclass
from chestx_jax.findings.tokens import extract
from chestx_jax.labels import LABELS
from chestx_jax.rewards.reward import RewardConfig, score
from chestx_jax.tokens.tokenizer import load_tokenizer, token_bytes
from chestx_jax.types import Completion
from tests.benchmarks.timing import median_seconds
from tests.helpers.paths import DATA
from tests.helpers.reward_texts import sentence

TOKENIZER = DATA / "qwen2vl/qwen2-vl-2b"
VOCABULARY_ROWS = 151_936


def completion_ids(tokenizer, count: int, width: int, rng: random.Random) -> np.ndarray:
    """Completions of `width` tokens: as many sentences as fit, a think block and an answer."""
    head, tail = (tokenizer.encode(text) for text in ("<think>", "</think><answer> A </answer>"))
    ids = np.zeros((count, width), np.int32)
    for row in range(count):
        body: list[int] = []
        while len(body) < width:
            body += tokenizer.encode(" " + sentence(rng))
        ids[row] = [*head, *body[: width - len(head) - len(tail)], *tail]
    return ids


def case(loaded, tokenizer, count: int, width: int, slots: int, rng: random.Random):
    """Completions, and the targets of an eighth as many prompts."""
    ids = completion_ids(tokenizer, count, width, rng)
    reports = [[" ".join(sentence(rng) for _ in range(8))] for _ in range(max(count // 8, 1))]
    targets = findings.reward_targets(
        loaded, reports, [[]] * len(reports), ["A"] * len(reports), ["binary"] * len(reports), slots
    )
    prompt = np.arange(count, dtype=np.int32) // 8 % len(reports)
    return jax.device_put(Completion(ids, np.full(count, width, np.int32), prompt)), jax.device_put(targets)


def share(run: Path) -> None:
    """Seconds of the job's reward, of its iteration by the clock in its log, and the ratio."""
    grpo = json.loads((run / "config.json").read_text())["grpo"]
    count, width = grpo["prompts"] * grpo["sampling"]["group"], grpo["sampling"]["length"]
    config = to_dataclass(RewardConfig, grpo["rewards"])
    loaded, tokenizer = lexicon.load(), load_tokenizer(run / "data" / "tokenizer")
    tables = jax.device_put(lexicon.compile_tables(loaded, token_bytes(tokenizer)))
    completion, targets = case(loaded, tokenizer, count, width, config.slots, random.Random(0))
    seconds = median_seconds(lambda: score(config, tables, completion, targets))
    log = [json.loads(line) for line in (run / "grpo" / "grpo.jsonl").read_text().splitlines()]
    first, last = log[0], log[-1]
    step = (last["time"] - first["time"]) / (last["step"] - first["step"])
    print(f"{count} x {width}: reward {seconds * 1e3:.1f} ms of an iteration of {step:.2f} s: {seconds / step:.2%}")


def main(folder: Path, shapes: list[tuple[int, int]]) -> None:
    loaded, rng = lexicon.load(), random.Random(0)
    tokenizer = load_tokenizer(folder)
    words = token_bytes(tokenizer)
    start = time.perf_counter()
    tables = lexicon.compile_tables(loaded, words + [b""] * (VOCABULARY_ROWS - len(words)))
    size = sum(np.asarray(leaf).nbytes for leaf in jax.tree.leaves(tables)) / 1e6
    print(f"tables: {len(tables.head) - 1} rows, {size:.1f} MB, built in {time.perf_counter() - start:.1f} s")
    tables = jax.device_put(tables)
    for count, width in shapes:
        slots = 64 if width > 128 else 24
        completion, targets = case(loaded, tokenizer, count, width, slots, rng)
        texts = [tokenizer.decode(row) for row in np.asarray(completion.ids)]
        for name, seconds in timings(tables, completion, targets, slots, texts).items():
            speed = f"{seconds * 1e3:9.2f} ms  {count * width / seconds / 1e6:7.3f} M tokens/s"
            print(f"{count} x {width} {jax.default_backend()}  {name:36s} {speed}")


def timings(tables, completion, targets, slots: int, texts: list[str]) -> dict[str, float]:
    """Seconds of each way to read or score the completions; `texts` are the same, decoded."""
    config, by_step = RewardConfig(slots=slots), RewardConfig(slots=slots, credit="step")
    patterns = [re.compile(rf"(?:\bno [^.]*)?\b{label.lower()}") for label in LABELS]
    return {
        "extraction": median_seconds(lambda: extract(tables, completion.ids, completion.length, slots=slots)),
        "reward (extraction + verification)": median_seconds(lambda: score(config, tables, completion, targets)),
        "the same with step credit": median_seconds(lambda: score(by_step, tables, completion, targets)),
        "regex labeller": median_seconds(lambda: [p.findall(text.lower()) for text in texts for p in patterns], 1),
        "reading on the host": median_seconds(lambda: findings.read_texts(lexicon.load(), texts), 1),
    }


if __name__ == "__main__":
    arguments = sys.argv[1:]
    if arguments[:1] == ["share"]:
        share(Path(arguments[1]))
        sys.exit()
    folder = Path(arguments.pop(0)) if arguments and not arguments[0].isdigit() else TOKENIZER
    sizes = [int(value) for value in arguments] or [64, 512, 64, 64]
    main(folder, list(zip(sizes[::2], sizes[1::2], strict=True)))
