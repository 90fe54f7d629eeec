"""How fast the reward reads.

    python tests/benchmarks/rewards_speed.py [TOKENIZER_FOLDER] [ROWS TOKENS …]     default: 64 × 512 and 64 × 64
    python tests/benchmarks/rewards_speed.py share WORKDIR     share of a GRPO iteration of the job that ran in WORKDIR

The first prints tokens a second of extraction and of the whole reward, beside a plain-regex labeller and the
plain-Python reading, with a vocabulary filled up to 151,936 rows; the second times the job's reward at its shape, every
row full. The texts are made of lexicon phrases.
"""

import json
import random
import re
import sys
import time
from pathlib import Path

import jax
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from chestx_jax import lexicon
from chestx_jax.config import to_dataclass
from chestx_jax.lexicon.extract import extract as plain
from chestx_jax.rewards.extract import extract
from chestx_jax.rewards.reward import RewardConfig, score
from chestx_jax.tokens.tokenizer import load_tokenizer, token_bytes
from chestx_jax.types import LABELS, Completion
from tests.benchmarks.timing import median_seconds
from tests.helpers.reward_texts import sentence

TOKENIZER = Path(__file__).resolve().parents[2].parent / "shared/data/qwen2vl/qwen2-vl-2b"
ROWS = 151_936


def rows(tokenizer, count: int, width: int, rng: random.Random) -> np.ndarray:
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
    """Completions, and the references of an eighth as many prompts."""
    ids = rows(tokenizer, count, width, rng)
    reports = [[" ".join(sentence(rng) for _ in range(8))] for _ in range(max(count // 8, 1))]
    reference = lexicon.reward_targets(
        loaded, reports, [[]] * len(reports), ["A"] * len(reports), ["binary"] * len(reports), slots
    )
    prompt = np.arange(count, dtype=np.int32) // 8 % len(reports)
    return jax.device_put(Completion(ids, np.full(count, width, np.int32), prompt)), jax.device_put(reference)


def share(run: Path) -> None:
    """Seconds of the job's reward, of its iteration by the clock in its log, and the ratio."""
    grpo = json.loads((run / "config.json").read_text())["grpo"]
    count, width = grpo["prompts"] * grpo["sampling"]["group"], grpo["sampling"]["length"]
    config = to_dataclass(RewardConfig, grpo["rewards"])
    loaded, tokenizer = lexicon.load(), load_tokenizer(run / "data" / "tokenizer")
    tables = jax.device_put(lexicon.compile_tables(loaded, token_bytes(tokenizer)))
    completion, reference = case(loaded, tokenizer, count, width, config.slots, random.Random(0))
    took = median_seconds(lambda: score(config, tables, completion, reference))
    log = [json.loads(line) for line in (run / "grpo" / "grpo.jsonl").read_text().splitlines()]
    first, last = log[0], log[-1]
    step = (last["time"] - first["time"]) / (last["step"] - first["step"])
    print(f"{count} x {width}: reward {took * 1e3:.1f} ms of an iteration of {step:.2f} s: {took / step:.2%}")


def main(folder: Path, shapes: list[tuple[int, int]]) -> None:
    loaded, rng = lexicon.load(), random.Random(0)
    tokenizer = load_tokenizer(folder)
    words = token_bytes(tokenizer)
    start = time.perf_counter()
    made = lexicon.compile_tables(loaded, words + [b""] * (ROWS - len(words)))
    size = sum(np.asarray(leaf).nbytes for leaf in jax.tree.leaves(made)) / 1e6
    print(f"tables: {len(made.head) - 1} rows, {size:.1f} MB, built in {time.perf_counter() - start:.1f} s")
    tables = jax.device_put(made)
    for count, width in shapes:
        slots = 64 if width > 128 else 24
        completion, reference = case(loaded, tokenizer, count, width, slots, rng)
        config, by_step = RewardConfig(slots=slots), RewardConfig(slots=slots, credit="step")
        texts = [tokenizer.decode(row) for row in np.asarray(completion.ids)]
        patterns = [re.compile(rf"(?:\bno [^.]*)?\b{label.lower()}") for label in LABELS]
        timed = {
            "extraction": median_seconds(lambda: extract(tables, completion.ids, completion.length, slots=slots)),  # noqa: B023
            "reward (extraction + verification)": median_seconds(lambda: score(config, tables, completion, reference)),  # noqa: B023
            "the same, paid by step": median_seconds(lambda: score(by_step, tables, completion, reference)),  # noqa: B023
            "plain regex labeller": median_seconds(lambda: [p.findall(x.lower()) for x in texts for p in patterns], 1),  # noqa: B023
            "plain Python reading": median_seconds(lambda: [plain(loaded, text) for text in texts], 1),  # noqa: B023
        }
        for name, seconds in timed.items():
            print(
                f"{count} x {width} {jax.default_backend()}  {name:36s} {seconds * 1e3:9.2f} ms  {count * width / seconds / 1e6:7.3f} M tokens/s"  # noqa: E501
            )


if __name__ == "__main__":
    arguments = sys.argv[1:]
    if arguments[:1] == ["share"]:
        share(Path(arguments[1]))
        sys.exit()
    folder = Path(arguments.pop(0)) if arguments and not arguments[0].isdigit() else TOKENIZER
    sizes = [int(value) for value in arguments] or [64, 512, 64, 64]
    main(folder, list(zip(sizes[::2], sizes[1::2], strict=True)))
