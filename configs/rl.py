"""The main job: SFT, then GRPO with a process reward, a test after each stage, an export at the end.

`configs/rl.py`: the paper's 7B recipe, which is the defaults in chestx_jax/recipes.py: 256 prompts × 8 samples, one
update a batch, k3 at 0.001, rate 5e-7, 150 steps; and the lengths that the released model's completions have.
`configs/rl.py:mined`: the same recipe on questions mined from a public set, after configs/sft.py:mined.
`configs/rl.py:qwen3_vl_8b`: the same recipe with Qwen3-VL-8B, after configs/sft.py:qwen3_vl_8b.
`configs/rl.py:phantom`: the same code on a laptop, from drawn films to a table in 10 to 15 minutes on two cores; what
it learns is in docs/evaluation.md.
`configs/rl.py:nih`: the same from real films, after configs/sft.py:nih.
"""

from ml_collections import ConfigDict

from chestx_jax.config import from_defaults
from chestx_jax.errors import choose
from chestx_jax.recipes import JobConfig
from configs import sft

FILMS = {"image_slots": 3}  # of a question: 8 % of the studies have three films

PAPER = {
    **sft.COMPUTE,
    "init": "orbax:runs/sft/sft/params",
    "grpo": {
        "source": {"path": "rl.json", "image_root": "images"},
        "rows": FILMS,
        "micro_batches": 8,  # 2,048 completions of up to 2,048 tokens are too many for one backward pass
        # Completions have 182 tokens in the median and 500 at most, the longest of eight mostly less than 320, and
        # three films with their question less than 1,024: two shapes to compile, unless one is longer.
        "lengths": {"rows": (1024,), "image_slots": (3,), "completions": (320, 512, 1024)},
    },
    "evaluation": {"source": {"path": "test.json", "image_root": "images"}, "rows": FILMS},
}

# What `python -m chestx_jax.mine --out=data/mined` wrote, after configs/sft.py:mined.
MINED = {
    **sft.COMPUTE,
    "init": "orbax:runs/sft/sft/params",
    "grpo": {**PAPER["grpo"], "source": {"path": "mined/train.jsonl"}},
    "evaluation": {**PAPER["evaluation"], "source": {"path": "mined/test.jsonl"}},
}

PHANTOM = {
    **sft.PHANTOM,
    "grpo": {
        "source": {"path": "rl.jsonl"},
        "prompts": 16,
        "rows": {"length": 128, "patches": 64},
        "sampling": {"length": 112},
        "rewards": {"process": 3.0, "credit": "step", "slots": 24},
        "advantages": {"step_weight": 0.5},
        "policy": {"entropy_weight": 0.0},
        "reference": {"dtype": "float32", "offload": False},
        "steps": 90,
        "optimizer": {"rate": 2.5e-4, "schedule": "cosine", "warmup": 0.02, "weight_decay": 0.0},
        "cadence": {"log": 5, "save": 50, "samples": 50, "keep": 1},
    },
}

# Real films, as configs/sft.py:nih has them. The process reward compares reasoning with the label vector, which `mine`
# has put into the place of the report.
NIH = {
    **sft.NIH,
    "grpo": {
        **PHANTOM["grpo"],
        "source": {"path": "nih-questions/train.jsonl"},
        "augment": sft.LIGHT,
        "rows": {"length": 160, "patches": 64},
        "sampling": {"length": 160},
        "steps": 40,
        "optimizer": {**PHANTOM["grpo"]["optimizer"], "rate": 1e-4},  # at 2.5e-4 it learns to say little
    },
}


def get_config(preset: str = "") -> ConfigDict:
    """Every field of the job, to be set on the command line."""
    presets = {
        "": (PAPER,),
        "mined": (MINED,),
        "qwen3_vl_8b": (PAPER, sft.QWEN3_VL_8B),
        "phantom": (PHANTOM,),
        "nih": (NIH,),
    }
    return from_defaults(JobConfig, *choose(presets, preset, "preset of configs/rl.py"))
