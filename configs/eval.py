"""Evaluation of a model on files of RadR records; `:phantom` is the test split that the phantom job writes:

python -m chestx_jax.evaluate --config=configs/eval.py:phantom --model=orbax:runs/phantom/sft/params --out=runs/eval/sft
"""

from ml_collections import ConfigDict

from chestx_jax.config import to_dict
from chestx_jax.eval.config import EvalConfig


def get_config(preset: str = "") -> ConfigDict:
    """Every field with its default; the preset `phantom` names the files under runs/phantom."""
    config = ConfigDict({**to_dict(EvalConfig()), "files": ()})
    if preset == "phantom":
        config.files = ("runs/phantom/data/test.jsonl",)
        config.train = "runs/phantom/data/train_reasoning.jsonl"
        config.length = 192
    elif preset:
        raise ValueError(f"configs/eval.py has no preset {preset!r}; it has phantom")
    return config
