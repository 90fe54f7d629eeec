"""The reward compiled ahead of time for a TPU slice or NVIDIA cards, and the memory it takes: libtpu or the CUDA
plugin is needed, no accelerator.

`python -m tests.benchmarks.rewards_compiled [v5e:2x4] [TOKENIZER_FOLDER]`: 2,048 completions of 2,048 tokens split over
the chips (`h100:8`: cards), tables of the tokenizer's whole vocabulary on each.
"""

import sys
import time
from pathlib import Path

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from chestx_jax import findings, lexicon
from chestx_jax.lexicon import Tables
from chestx_jax.planning.cost import topology
from chestx_jax.rewards.reward import RewardConfig, score
from chestx_jax.tokens.tokenizer import load_tokenizer, token_bytes
from chestx_jax.types import Completion
from tests.helpers.paths import DATA

TOKENIZER = DATA / "qwen2vl/qwen2-vl-2b"


def compiled(name: str, tables: Tables, rows: int, width: int, credit: str, slots: int = 64) -> jax.stages.Compiled:
    """The reward of `rows` completions of `width` tokens in groups of eight, for the machine called `name`."""
    mesh = Mesh(np.asarray(topology.find(name).devices), ("data",))

    def placed(tree, axes: PartitionSpec):
        sharding = NamedSharding(mesh, axes)
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree)

    count = max(rows // 8, 1)
    targets = findings.reward_targets(
        lexicon.load(), [()] * count, [()] * count, ["A"] * count, ["binary"] * count, slots
    )
    zero_B = np.zeros(rows, np.int32)
    completion = Completion(ids=np.zeros((rows, width), np.int32), length=zero_B, prompt=zero_B)
    config = RewardConfig(slots=slots, credit=credit)
    replicated, split = PartitionSpec(), PartitionSpec("data")
    arguments = placed(tables, replicated), placed(completion, split), placed(targets, replicated)
    return score.lower(config, *arguments).compile()


def main(name: str, folder: Path) -> None:
    words = token_bytes(load_tokenizer(folder))
    tables = lexicon.compile_tables(lexicon.load(), words)
    for credit in ("sequence", "step"):
        start = time.perf_counter()
        program = compiled(name, tables, 2048, 2048, credit)
        seconds = time.perf_counter() - start
        print(f"{name}, {credit} credit: 2048 x 2048 tokens, {len(words)} vocabulary rows, compiled in {seconds:.0f} s")
        memory = program.memory_analysis()
        for part in ("argument", "output", "temp", "generated_code"):
            print(f"{part:15s} {getattr(memory, part + '_size_in_bytes') / 2**20:9.1f} MiB a chip")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "v5e:2x4", Path(sys.argv[2]) if len(sys.argv) > 2 else TOKENIZER)
