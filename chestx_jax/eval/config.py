"""The typed configuration of an evaluation."""

from dataclasses import dataclass
from typing import Literal

from chestx_jax.config import SEED_LIMIT, bounded


@dataclass(frozen=True)
class EvalConfig:
    """What a model is asked, and how. Files hold RadR records; `train` is what the blind baselines are fitted on."""

    files: tuple[str, ...] = ()
    image_root: str = ""
    train: str = ""  # empty: cross-fitted on the files themselves
    limit: int = bounded(0, min=0)  # records per task; 0: all
    blind: bool = False  # films left out (or of one tone)
    length: int = bounded(2048, min=1)  # tokens of an answer
    batch: int = bounded(32, min=1)  # of a local model
    tokenizer: str = ""  # of a local model, where the checkpoint has none
    image_size: int = bounded(0, min=0)  # pixels a side for a local model; 0: by its settings
    dtype: Literal["", "float32", "bfloat16"] = ""  # of a local model; empty: bfloat16, float32 on a CPU
    max_bad: float = bounded(0.01, min=0.0, max=1.0)  # share of records that may be unreadable
    workers: int = bounded(8, min=1)  # calls to an endpoint at a time
    timeout: float = bounded(120.0, min=0.1)  # seconds an endpoint may be silent
    attempts: int = bounded(6, min=1)
    seed: int = bounded(0, min=0, max=SEED_LIMIT)  # of the bootstrap
