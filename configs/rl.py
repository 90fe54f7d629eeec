"""The main job: SFT, then GRPO with a process reward, a test after each stage, an export at the end.

Without a preset: the paper's 7B recipe. `configs/rl.py:phantom`: the same code on a laptop, from films to a table.
"""

from ml_collections import ConfigDict

from configs import sft


def get_config(preset: str = "") -> ConfigDict:
    """The whole job."""
    if preset == "phantom":
        return phantom()
    if preset:
        raise ValueError(f"configs/rl.py has no preset {preset!r}: use configs/rl.py or configs/rl.py:phantom")
    return paper()


def paper() -> ConfigDict:
    """GRPO from a supervised checkpoint: 256 prompts × 8 samples, one update a batch, k3 at 0.001, 150 steps."""
    config = sft.paper()
    config.init = "orbax:runs/sft/sft/params"
    config.grpo = {
        "name": "grpo",
        "source": {"path": "rl.json", "image_root": "images"},
        "prompts": 256,
        "rows": {"length": 2048, "image_slots": 2, "patches": 1024},
        "sampling": {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "length": 2048, "group": 8},
        "rewards": {"format": 1.0, "accuracy": 1.0, "process": 1.0, "factuality": 1.0, "credit": "sequence"},
        "advantages": {"baseline": "group", "scale": "std", "equal_groups": "keep", "step_weight": 0.0},
        "policy": {
            "ratio": "token",
            "clip_low": 0.2,
            "clip_high": 0.2,
            "dual_clip": 3.0,
            "aggregate": "token",
            "kl": "k3",
            "kl_weight": 0.001,
            "entropy_weight": 0.001,
        },
        "overlong": {"rule": "keep", "buffer": 0, "penalty": 1.0},
        "updates": 1,
        "micro_batches": 8,
        "rollout_tensor": 0,  # chips that share a copy of the weights while sampling; 0: as mesh.tensor
        "rollout_parts": 1,  # parts of the prompts that are sampled one after the other: less memory, more reading
        "steps": 150,
        "optimizer": {
            "rate": 5e-7,
            "schedule": "constant",
            "warmup": 0.0,
            "weight_decay": 0.01,
            "clip": 1.0,
            "moments": "float32",
            "offload": False,
        },
        "reference": {"dtype": "bfloat16", "offload": True},  # as in the release
        "seed": 0,
        "cadence": {"log": 1, "save": 10, "samples": 10, "keep": 2},
    }
    config.evaluation = {
        "source": {"path": "test.json", "image_root": "images"},
        "rows": {"length": 2048, "image_slots": 2, "patches": 1024},
        "batch": 64,
        "length": 2048,
        "limit": 0,
        "blind": False,
    }
    return config


def phantom() -> ConfigDict:
    """From nothing to a tested reasoner on one CPU."""
    config = sft.phantom()
    config.grpo = {
        "name": "grpo",
        "source": {"path": "rl.jsonl"},
        "prompts": 16,
        "rows": {"length": 128, "image_slots": 2, "patches": 64},
        "sampling": {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "length": 112, "group": 8},
        "rewards": {
            "format": 1.0,
            "accuracy": 1.0,
            "process": 3.0,
            "factuality": 1.0,
            "completeness": 1.3,
            "guards": {"coverage": 0.2},
            "credit": "step",
            "slots": 24,
        },
        "advantages": {"baseline": "group", "scale": "std", "equal_groups": "keep", "step_weight": 0.5},
        "policy": {
            "clip_low": 0.2,
            "clip_high": 0.2,
            "dual_clip": 3.0,
            "aggregate": "token",
            "kl": "k3",
            "kl_weight": 0.001,
            "entropy_weight": 0.0,
        },
        "overlong": {"rule": "keep", "buffer": 0, "penalty": 1.0},
        "updates": 1,
        "micro_batches": 1,
        "steps": 90,
        "optimizer": {"rate": 2.5e-4, "schedule": "cosine", "warmup": 0.02, "weight_decay": 0.0, "clip": 1.0},
        "seed": 0,
        "cadence": {"log": 5, "save": 50, "samples": 50, "keep": 1},
    }
    return config
