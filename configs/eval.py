"""Evaluation of a model on files of RadR records; `:phantom` is the test split that the phantom job writes:

python -m chestx_jax.evaluate --config=configs/eval.py:phantom --model=orbax:runs/phantom/sft/params --out=runs/eval/sft
"""

from ml_collections import ConfigDict

from chestx_jax.config import from_defaults
from chestx_jax.errors import choose
from chestx_jax.eval.config import EvalConfig

PHANTOM = {
    "files": ("runs/phantom/data/test.jsonl",),
    "train": "runs/phantom/data/train_reasoning.jsonl",
    "length": 192,
}


def get_config(preset: str = "") -> ConfigDict:
    """Every field of the evaluation, to be set on the command line."""
    return from_defaults(EvalConfig, choose({"": {}, "phantom": PHANTOM}, preset, "preset of configs/eval.py"))
