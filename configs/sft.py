"""Supervised fine-tuning.

Without a preset: the paper's 7B recipe; `configs/sft.py:phantom`: the same code on a laptop.
"""

from ml_collections import ConfigDict

from chestx_jax.config import untyped_field


def get_config(preset: str = "") -> ConfigDict:
    """The job: a first stage and nothing after it."""
    if preset == "phantom":
        return phantom()
    if preset:
        raise ValueError(f"configs/sft.py has no preset {preset!r}: use configs/sft.py or configs/sft.py:phantom")
    return paper()


def paper() -> ConfigDict:
    """Qwen2-VL-7B-Instruct, batch 128, 448×448 films, rate 2e-6 with cosine and 10 % warm-up."""
    stage = {
        "name": "sft",
        "init": "hf:Qwen/Qwen2-VL-7B-Instruct",
        "sources": (
            {"path": "train_reasoning.json", "weight": 1.0, "reasoning": True, "image_root": "images"},
            {"path": "train_answer.json", "weight": 1.0, "reasoning": False, "image_root": "images"},
        ),
        "validation": {"path": "validation.json", "image_root": "images"},
        "validation_batches": 8,
        "rows": {"length": 2048, "image_slots": 4, "patches": 1024},
        "batch": 32,  # packed rows: about the paper's 128 samples of some 500 tokens
        "micro_batches": 1,
        "steps": 5000,
        "optimizer": {
            "rate": 2e-6,
            "schedule": "cosine",
            "warmup": 0.1,
            "weight_decay": 0.0,
            "clip": 1.0,
            "moments": "float32",
            "offload": False,  # True: the moments lie in the host's memory between steps
        },
        "z_weight": 0.0,
        "seed": 0,
        "cadence": {"log": 10, "save": 200, "validate": 200, "keep": 2},
    }
    return ConfigDict(
        {
            "init": untyped_field(ConfigDict(stage)),
            "model": {
                "family": "qwen2_vl",
                "vocab_size": 152064,
                "layers": 28,
                "width": 3584,
                "heads": 28,
                "kv_heads": 4,
                "hidden": 18944,
                "compute": {
                    "dtype": "bfloat16",
                    "param_dtype": "float32",
                    "remat": "layer",
                    "head_parts": 16,
                },
            },
            "image": {"height": 448, "width": 448},
            "mesh": {"data": 1, "fsdp": -1, "tensor": 1},
            "tokenizer": "tokenizer",
            "data_root": "data",
            "max_bad": 0.01,
            "wandb": "offline",
        }
    )


def phantom() -> ConfigDict:
    """A model of 1.4M parameters on drawn 112×112 films: a base stage (seeing regions, going through options: what the
    paper's base model arrives with), then SFT."""
    rows = {"length": 256, "image_slots": 3, "patches": 64}
    optimizer = {
        "rule": "muon",
        "schedule": "cosine",
        "warmup": 0.05,
        "weight_decay": 0.0,
        "clip": 1.0,
        "b2": 0.98,
        "final": 0.05,
    }
    base = {
        "name": "base",
        "init": untyped_field("random"),
        "sources": (
            {"path": "base_regions.jsonl", "weight": 3.0, "reasoning": False, "seen": True},
            {"path": "base_checks.jsonl", "weight": 3.0, "reasoning": False},
            {"path": "base_told_checks.jsonl", "weight": 1.0, "reasoning": False},
            {"path": "base_told.jsonl", "weight": 1.0, "reasoning": True},
        ),
        "rows": {**rows, "image_slots": 4},
        "batch": 8,
        "steps": 400,
        "optimizer": {**optimizer, "rate": 8e-3},
        "seed": 0,
        "cadence": {"log": 20, "save": 300, "validate": 300, "keep": 1},
    }
    sft = {
        "name": "sft",
        "init": untyped_field(ConfigDict(base)),
        "sources": (
            {"path": "train_reasoning.jsonl", "weight": 3.0, "reasoning": True},
            {"path": "train_answer.jsonl", "weight": 0.2, "reasoning": False},
            {"path": "base_regions.jsonl", "weight": 0.7, "reasoning": False, "seen": True},
            {"path": "base_checks.jsonl", "weight": 0.7, "reasoning": False},
        ),
        "validation": {"path": "validation.jsonl"},
        "validation_batches": 4,
        "rows": rows,
        "batch": 8,
        "steps": 300,
        "optimizer": {**optimizer, "rate": 5e-3},
        "seed": 0,
        "cadence": {"log": 20, "save": 200, "validate": 200, "keep": 1},
    }
    return ConfigDict(
        {
            "init": untyped_field(ConfigDict(sft)),
            "evaluation": {
                "source": {"path": "test.jsonl"},
                "rows": {"length": 128, "image_slots": 2, "patches": 64},
                "batch": 64,
                "length": 112,
                "limit": 0,
                "blind": True,
            },
            "model": {
                "family": "qwen2_vl",
                "vocab_size": 1024,
                "layers": 4,
                "width": 128,
                "heads": 4,
                "kv_heads": 4,
                "hidden": 256,
                "mrope_section": (4, 6, 6),
                "tied": True,
                "rope_theta": 1e6,
                "initializer_range": 0.08,
                "residual_range": 0.0,
                "start": "induction",
                "max_positions": 2048,
                "vision": {"layers": 3, "width": 96, "heads": 3, "hidden": 288, "temporal_patch_size": 1},
                "compute": {"dtype": "float32", "param_dtype": "float32", "remat": "none", "unroll": 0},
            },
            "image": {"height": 112, "width": 112, "temporal_patch_size": 1},
            "mesh": {"data": -1, "fsdp": 1, "tensor": 1},
            "tokenizer": "tokenizer",
            "data_root": "",
            "phantom": {"seed": 0},
            "vocabulary": 1024,
            "max_bad": 0.01,
            "wandb": "disabled",
        }
    )
