"""A job that compiles in seconds and has the features of the 7B recipe: bf16, recomputed layers in a loop, splash
attention over packed rows, a chunked vocabulary, micro-batches, a group's shared prompt, all mesh axes.

`python -m tests.helpers.planned_job --write` makes what the programs take now their budget.
"""

import json
import math
import re
import sys

from chestx_jax.model.config import ComputeConfig, ModelConfig, VisionConfig
from chestx_jax.planning import budget
from chestx_jax.planning.cost import topology
from chestx_jax.planning.planner import plan
from chestx_jax.recipes import GrpoConfig, JobConfig, ReferenceConfig, SftConfig
from chestx_jax.rollout.sampling import SamplingConfig
from chestx_jax.sharding import MeshConfig
from chestx_jax.tokens.patches import ImageSpec
from chestx_jax.tokens.rows import RowsConfig
from tests.helpers.paths import ROOT

JOB = JobConfig(
    init=SftConfig(rows=RowsConfig(256, 1, 128), batch=8, micro_batches=2, steps=10, init="random"),
    grpo=GrpoConfig(
        prompts=8,
        rows=RowsConfig(128, 1, 128),
        sampling=SamplingConfig(length=128, group=2),
        micro_batches=2,
        reference=ReferenceConfig("float32", offload=False),
        steps=10,
    ),
    model=ModelConfig(
        vocab_size=2048,
        layers=3,
        width=512,
        heads=4,
        kv_heads=2,
        hidden=1024,
        vision=VisionConfig(layers=2, width=160, heads=2, hidden=320),
        compute=ComputeConfig(head_parts=2),
    ),
    image=ImageSpec(max_pixels=128 * 14 * 14),  # as many patches as the rows hold
    mesh=MeshConfig(1, 4, 2),
)
NAMES = {
    "v5e:2x4": ("sft/step", "grpo/prefill", "grpo/decode", "grpo/gradients", "grpo/step"),
    "v5p:2x2x2": ("sft/step",),
    "v6e:2x4": ("sft/step",),
    "h100:8": ("sft/step",),
}
FILE = ROOT / "tests/planning/budgets.json"
ACCEPT = "python -m tests.helpers.planned_job --write"


def measured(name: str) -> dict:
    """What the programs take on a topology."""
    return budget.measured(plan(JOB, topology.find(name), NAMES[name]))


def cut_in_loops(text: str) -> list[int]:
    """Elements of each array that the loops of optimised HLO cut out of another, alone or in a fusion."""
    in_loop = [line for line in text.splitlines() if "while/body" in line]
    assert len(in_loop) > 100
    sizes = [re.search(r"= \w+\[([\d,]*)\]\S* dynamic-slice\(", line) for line in in_loop]
    return [math.prod(map(int, size.group(1).split(","))) for size in sizes if size]


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        sys.exit(f"usage: {ACCEPT}")
    FILE.write_text(json.dumps({name: measured(name) for name in NAMES}, indent=1, sort_keys=True) + "\n")
