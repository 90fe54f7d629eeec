"""Three readings compared, in jit, on the host and the oracle's, on many texts:
`python -m tests.benchmarks.rewards_equality [TEXTS] [FILE]`.

Texts (default 100,000) come in chunks of 500, each with its seed: sentences from a grammar of radiology and loose
phrases of the lexicon, odd characters, tags in any order, cut anywhere, in random tokenisations, read in both modes.
Each finished chunk is a line of FILE (default: none), so that a stopped run continues; lines of other code are
ignored.
"""

import hashlib
import json
import random
import sys
import time
from pathlib import Path

import chestx_jax
from chestx_jax import lexicon
from tests.helpers.reward_texts import differences, text, vocabulary

CHUNK, WIDTH, ROOT = 500, 192, Path(chestx_jax.__file__).parent


def version() -> str:
    """Digest of what the result depends on: the lexicon, the readings and the texts' grammar."""
    helpers = Path(__file__).resolve().parents[1] / "helpers"
    folders = (ROOT / "lexicon", ROOT / "findings", helpers / "oracle")
    parts = [*(part for folder in folders for part in sorted(folder.glob("*"))), helpers / "reward_texts.py"]
    return hashlib.sha256(b"".join(part.read_bytes() for part in parts if part.is_file())).hexdigest()[:16]


def main(count: int, file: Path | None) -> int:
    current = version()
    entries = [json.loads(line) for line in file.read_text().splitlines()] if file and file.exists() else []
    done = {entry["chunk"]: entry["differences"] for entry in entries if entry["version"] == current}
    token_bytes = vocabulary(random.Random(7), [text(random.Random(seed)) for seed in range(2000)], 3000)
    tables = lexicon.compile_tables(lexicon.load(), token_bytes)
    start = time.perf_counter()
    for chunk in range(-(-count // CHUNK)):
        if chunk in done:
            continue
        rng = random.Random(1_000_003 * (chunk + 1))
        different = differences([text(rng) for _ in range(CHUNK)], rng, tables, token_bytes, WIDTH)
        done[chunk] = len(different)
        print("\n".join(different[:2]), end="")
        if file:
            with file.open("a") as out:
                out.write(json.dumps({"chunk": chunk, "differences": len(different), "version": current}) + "\n")
        if chunk % 20 == 19:
            total = len(done) * CHUNK
            print(f"{total} texts, {sum(done.values())} differences, {time.perf_counter() - start:.0f} s", flush=True)
    print(f"{len(done) * CHUNK} texts, {sum(done.values())} differences between jit, host and oracle")
    return int(bool(sum(done.values())))


if __name__ == "__main__":
    arguments = sys.argv[1:]
    number = int(arguments.pop(0)) if arguments and arguments[0].isdigit() else 100_000
    sys.exit(main(number, Path(arguments[0]) if arguments else None))
