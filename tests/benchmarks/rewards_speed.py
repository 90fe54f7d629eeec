"""Tokens a second of extraction and of the whole reward, beside a plain-regex labeller and the plain-Python reading.

`python tests/benchmarks/rewards_speed.py [TOKENIZER_FOLDER] [ROWS TOKENS …]` (default 64 × 512 and 64 × 64). The texts
are made of lexicon phrases; the vocabulary is filled up to 151,936 rows.
"""

import random
import re
import sys
import time
from pathlib import Path

import jax
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from reward_texts import sentence

from chestx_jax import lexicon
from chestx_jax.lexicon.extract import extract as plain
from chestx_jax.rewards.combine import RewardConfig, score
from chestx_jax.rewards.extract import extract
from chestx_jax.tokens.tokenizer import load_tokenizer, token_bytes
from chestx_jax.types import LABELS, Completion

TOKENIZER = Path(__file__).resolve().parents[2].parent / "shared/data/qwen2vl/qwen2-vl-2b"
ROWS = 151_936


def best(function, repeats: int = 7) -> float:
    """Median seconds of a call, after two to warm up."""
    times = []
    for _ in range(repeats + 2):
        start = time.perf_counter()
        jax.block_until_ready(function())
        times.append(time.perf_counter() - start)
    return sorted(times[2:])[repeats // 2]


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


def main(folder: Path, shapes: list[tuple[int, int]]) -> None:
    loaded, rng = lexicon.load(), random.Random(0)
    tokenizer = load_tokenizer(folder)
    words = token_bytes(tokenizer)
    start = time.perf_counter()
    made = lexicon.tables(loaded, words + [b""] * (ROWS - len(words)))
    size = sum(np.asarray(leaf).nbytes for leaf in jax.tree.leaves(made)) / 1e6
    print(f"tables: {len(made.head) - 1} rows, {size:.1f} MB, built in {time.perf_counter() - start:.1f} s")
    tables = jax.device_put(made)
    for count, width in shapes:
        ids = rows(tokenizer, count, width, rng)
        reports = [[" ".join(sentence(rng) for _ in range(8))] for _ in range(max(count // 8, 1))]
        slots = 64 if width > 128 else 24
        reference = lexicon.reference(
            loaded, reports, [[]] * len(reports), ["A"] * len(reports), ["binary"] * len(reports), slots
        )
        completion = jax.device_put(
            Completion(
                ids=ids,
                length=np.full(count, width, np.int32),
                prompt=np.arange(count, dtype=np.int32) // 8 % len(reports),
            )
        )
        reference, config = jax.device_put(reference), RewardConfig(slots=slots)
        texts = [tokenizer.decode(row) for row in ids]
        patterns = [re.compile(rf"(?:\bno [^.]*)?\b{label.lower()}") for label in LABELS]
        timed = {
            "extraction": best(lambda: extract(tables, completion.ids, completion.length, slots=slots)),  # noqa: B023
            "reward (extraction + verification)": best(lambda: score(config, tables, completion, reference)),  # noqa: B023
            "plain regex labeller": best(lambda: [p.findall(text.lower()) for text in texts for p in patterns], 1),  # noqa: B023
            "plain Python reading": best(lambda: [plain(loaded, text) for text in texts], 1),  # noqa: B023
        }
        for name, seconds in timed.items():
            print(
                f"{count} x {width} {jax.default_backend()}  {name:36s} {seconds * 1e3:9.2f} ms  {count * width / seconds / 1e6:7.3f} M tokens/s"  # noqa: E501
            )


if __name__ == "__main__":
    arguments = sys.argv[1:]
    folder = Path(arguments.pop(0)) if arguments and not arguments[0].isdigit() else TOKENIZER
    sizes = [int(value) for value in arguments] or [64, 512, 64, 64]
    main(folder, list(zip(sizes[::2], sizes[1::2], strict=True)))
