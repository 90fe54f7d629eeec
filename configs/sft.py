"""Supervised fine-tuning, as changes of the defaults in chestx_jax/recipes.py, which are the paper's 7B recipe.

`configs/sft.py`: Qwen2-VL-7B-Instruct on films of the area of 448 × 448 pixels at most, 32 packed rows a step, rate
2e-6 with cosine and 10 % warm-up.
`configs/sft.py:mined`: the same recipe on questions mined from a public set (docs/real-data.md).
`configs/sft.py:qwen3_vl_8b`: the same recipe from Qwen3-VL-8B-Instruct.
`configs/sft.py:phantom`: the same code on a laptop, from nothing; configs/rl.py:phantom goes on from here.
`configs/sft.py:nih`: that model on real films, from nothing or from the phantom's weights; so does configs/rl.py:nih.
"""

from ml_collections import ConfigDict

from chestx_jax.config import from_defaults
from chestx_jax.errors import choose
from chestx_jax.recipes import JobConfig

# The recipe itself is the defaults. Here is how a TPU slice computes it, and then the files, under data/.
COMPUTE = {
    "model": {"compute": {"head_parts": 16}},  # the logits of a sixteenth of the vocabulary at a time
    "mesh": {"data": 1, "fsdp": -1},
    "data_root": "data",
    "wandb": "offline",
}

PAPER = {
    **COMPUTE,
    "init": {
        "sources": (
            {"path": "train_reasoning.json", "image_root": "images"},
            {"path": "train_answer.json", "image_root": "images", "reasoning": False},
        ),
        "validation": {"path": "validation.json", "image_root": "images"},
    },
}

# What `python -m chestx_jax.mine --out=data/mined` wrote, with and without its reasoning.
MINED = {
    **COMPUTE,
    "init": {
        "sources": (
            {"path": "mined/train.jsonl"},
            {"path": "mined/train.jsonl", "reasoning": False, "weight": 0.2},
        ),
        "validation": {"path": "mined/validation.jsonl"},
    },
}

# Qwen3-VL-8B-Instruct in place of Qwen2-VL-7B-Instruct: the sizes of its config.json, its image settings, and films of
# as many patches as the recipe's.
QWEN3_VL_8B = {
    "model": {
        "family": "qwen3_vl",
        "vocab_size": 151936,
        "layers": 36,
        "width": 4096,
        "heads": 32,
        "kv_heads": 8,
        "hidden": 12288,
        "rope_theta": 5e6,
        "mrope_section": (24, 20, 20),
        "max_positions": 262144,
        "vision": {"layers": 27, "width": 1152, "hidden": 4304, "patch_size": 16},
    },
    "image": {
        "patch_size": 16,
        "mean": (0.5, 0.5, 0.5),
        "std": (0.5, 0.5, 0.5),
        "min_pixels": 256 * 256,
        "max_pixels": 512 * 512,
    },
}

# For a small model that starts from random weights.
OPTIMIZER = {"rule": "muon", "warmup": 0.05, "b2": 0.98, "final": 0.05}
ROWS = {"length": 256, "patches": 64}

# In place of the paper's pretrained base model: naming what each region of a film shows and how extensive it is, going
# through options, and reasoning about films and changes that are told in words.
BASE = {
    "name": "base",
    "init": "random",
    "sources": (
        {"path": "base_regions.jsonl", "weight": 3.0, "reasoning": False, "targets": "regions"},
        {"path": "base_extents.jsonl", "reasoning": False, "targets": "regions"},
        {"path": "base_checks.jsonl", "weight": 3.0, "reasoning": False},
        {"path": "base_pairs.jsonl", "weight": 1.4, "reasoning": False},
        {"path": "base_told_checks.jsonl", "reasoning": False},
        {"path": "base_told.jsonl"},
        {"path": "base_told_changes.jsonl", "weight": 1.3},
    ),
    "validation_batches": 4,
    "rows": ROWS,
    "lengths": {"image_slots": (4,)},  # three are enough for one batch in four: not worth compiling for
    "batch": 8,
    "steps": 700,
    "optimizer": {**OPTIMIZER, "rate": 8e-3},
    "cadence": {"log": 20, "save": 300, "validate": 300, "keep": 1},
}

# A model of 1.4 million parameters on drawn 112×112 films: the base stage, then SFT, then a test of the model and of
# one that was trained and tested with films of one tone.
PHANTOM = {
    "init": {
        "init": BASE,
        "sources": (
            {"path": "train_reasoning.jsonl", "weight": 3.0},
            {"path": "train_answer.jsonl", "weight": 0.2, "reasoning": False},
            {"path": "base_regions.jsonl", "weight": 0.7, "reasoning": False, "targets": "regions"},
            {"path": "base_extents.jsonl", "weight": 0.4, "reasoning": False, "targets": "regions"},
            {"path": "base_checks.jsonl", "weight": 0.7, "reasoning": False},
            {"path": "base_pairs.jsonl", "weight": 0.9, "reasoning": False},
            {"path": "base_told_changes.jsonl", "weight": 0.6},
        ),
        "validation": {"path": "validation.jsonl"},
        "validation_batches": 4,
        "rows": {**ROWS, "image_slots": 3},
        "batch": 8,
        "steps": 480,
        "optimizer": {**OPTIMIZER, "rate": 5e-3},
        "cadence": {"log": 20, "keep": 1},
    },
    "evaluation": {
        "source": {"path": "test.jsonl"},
        "rows": {"length": 128, "patches": 64},
        "length": 112,
        "blind": True,
    },
    "model": {
        "vocab_size": 1024,
        "layers": 4,
        "width": 128,
        "heads": 4,
        "hidden": 256,
        "mrope_section": (4, 6, 6),
        "tied": True,
        "initializer_range": 0.08,
        "residual_range": 0.0,
        "start": "induction",
        "max_positions": 2048,
        "vision": {
            "layers": 3,
            "width": 96,
            "heads": 3,
            "hidden": 288,
            "temporal_patch_size": 1,
            "table_side": 8,
            "deepstack_layers": (0, 1),
        },
        "compute": {"dtype": "float32", "remat": "none", "unroll": 0},
    },
    "image": {"min_pixels": 112 * 112, "max_pixels": 112 * 112, "temporal_patch_size": 1},
    "phantom": {},  # drawn into the workdir before the first stage, as PhantomSpec has it
    "vocabulary": 1024,
}

# Real films of NIH ChestX-ray14 and what `mine --verdicts` made of their labels (docs/real-data.md), for the phantom's
# small model: from nothing, or from the phantom's weights. Its eyes learn from all labels of a film at once, at the
# film's own tokens. So few films are soon learnt by heart: they are augmented, and the checkpoint that is best on the
# validation patients is what the job goes on with.
LIGHT = {"rotation": 5.0, "shift": 0.05, "scale": 0.1, "exposure": 0.3, "contrast": 0.2}
FILMS = {
    "augment": LIGHT,
    "rows": {"length": 288, "patches": 64},
    "lengths": {"image_slots": (4,)},
    "batch": 8,
    "optimizer": {**OPTIMIZER, "rate": 2e-3, "weight_decay": 0.1},  # at 5e-3 SFT unlearns what base has learnt
}
NIH = {
    "init": {
        **FILMS,
        "init": {
            **FILMS,
            "name": "base",
            "init": "random",
            "sources": (
                {"path": "nih-questions/labels.jsonl", "reasoning": False, "targets": "film"},
                {"path": "nih-questions/checks.jsonl", "reasoning": False},
            ),
            "steps": 600,
            "optimizer": {**OPTIMIZER, "rate": 8e-3, "weight_decay": 0.1},
            "cadence": {"log": 20, "keep": 1},
        },
        "sources": (
            {"path": "nih-questions/labels.jsonl", "reasoning": False, "targets": "film"},
            {"path": "nih-questions/checks.jsonl", "reasoning": False},
            {"path": "nih-questions/train.jsonl", "reasoning": False},
            {"path": "nih-questions/train.jsonl", "weight": 2.0},
        ),
        "validation": {"path": "nih-questions/validation.jsonl", "reasoning": False},
        "steps": 400,
        "cadence": {"log": 20, "validate": 50, "keep": 1},
        "result": "best",
    },
    "evaluation": {
        "source": {"path": "nih-questions/test.jsonl"},
        "rows": {"length": 160, "patches": 64},
        "length": 160,
        "blind": True,
    },
    "model": PHANTOM["model"],
    "image": PHANTOM["image"],
    "data_root": "data",
    "tokenizer": "nih-questions/tokenizer",
    "vocabulary": 1024,
}


def get_config(preset: str = "") -> ConfigDict:
    """Every field of the job, to be set on the command line."""
    start = {"init": {"init": "hf:Qwen/Qwen3-VL-8B-Instruct"}}
    presets = {
        "": (PAPER,),
        "mined": (MINED,),
        "qwen3_vl_8b": (PAPER, QWEN3_VL_8B, start),
        "phantom": (PHANTOM,),
        "nih": (NIH,),
    }
    return from_defaults(JobConfig, *choose(presets, preset, "preset of configs/sft.py"))
