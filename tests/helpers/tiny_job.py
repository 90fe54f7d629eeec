"""The phantom job with everything small: a config file for tests that run the real command."""

from ml_collections import ConfigDict

from chestx_jax.config import from_defaults
from chestx_jax.recipes import JobConfig
from configs import rl

SPLIT = {"patients": 20, "follow_ups": 15, "per_task": 4}
SMALL = {
    "phantom": {"seed": 1, "train": SPLIT, "rl": SPLIT, "validation": SPLIT, "test": SPLIT},
    "vocabulary": 600,
    "model": {
        "layers": 1,
        "width": 32,
        "heads": 2,
        "kv_heads": 1,
        "hidden": 32,
        "mrope_section": (2, 3, 3),
        "start": "random",
        "residual_range": 0.08,
        "vision": {"layers": 1, "width": 32, "heads": 2, "hidden": 32},
    },
    "init": {
        "init": "random",
        "batch": 2,
        "steps": 12,
        "validation_batches": 1,
        "optimizer": {"offload": True},
        "rows": {"length": 384},
        "lengths": {"rows": (256, 384), "image_slots": (3,)},
        "cadence": {"log": 1, "save": 3, "validate": 6},
    },
    "grpo": {
        "prompts": 2,
        "steps": 8,
        "sampling": {"group": 2, "length": 24},
        "sampling_rounds": 2,
        "optimizer": {"offload": True},
        "reference": {"dtype": "bfloat16", "offload": True},
        "rows": {"length": 192},
        "lengths": {"rows": (128, 192)},
        "cadence": {"log": 1, "save": 2, "samples": 4},
    },
    "evaluation": {"batch": 4, "length": 16, "limit": 2, "blind": False, "rows": {"length": 192}},
}


PRESETS = {"": {}, "train": {"evaluation": None}, "sft": {"evaluation": None, "grpo": None}}


def get_config(preset: str = "") -> ConfigDict:
    """Two short stages and a test of each, in well under a minute once compiled; with "train" no tests, with "sft" the
    first alone and no test."""
    return from_defaults(JobConfig, rl.PHANTOM, SMALL, PRESETS[preset])
