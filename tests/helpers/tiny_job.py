"""The phantom job with everything small: a config file for tests that run the real command."""

from ml_collections import ConfigDict

from configs import rl


def get_config(preset: str = "") -> ConfigDict:
    """Two short stages and a test of each, in well under a minute once compiled; with "train" no tests, with "sft" the
    first alone and no test."""
    config = rl.phantom()
    small = {"patients": 20, "follow_ups": 15, "per_task": 4}
    config.phantom = {"seed": 1, "train": small, "rl": small, "validation": small, "test": small}
    config.vocabulary = 600
    config.model.update({"vocab_size": 1024, "layers": 1, "width": 32, "heads": 2, "kv_heads": 1, "hidden": 32})
    config.model.update({"mrope_section": (2, 3, 3), "start": "random", "residual_range": 0.08})
    config.model.vision.update({"layers": 1, "width": 32, "heads": 2, "hidden": 32})
    config.init.init = "random"
    config.init.update({"batch": 2, "steps": 12, "validation_batches": 1})
    config.init.optimizer.offload = True
    config.init.rows.length = 384
    config.init.cadence.update({"log": 1, "save": 3, "validate": 6})
    config.grpo.update({"prompts": 2, "steps": 8})
    config.grpo.sampling.update({"group": 2, "length": 24})
    config.grpo.optimizer.offload = True
    config.grpo.reference = {"dtype": "bfloat16", "offload": True}
    config.grpo.rows.length = 192
    config.grpo.cadence.update({"log": 1, "save": 2, "samples": 4})
    config.evaluation.update({"batch": 4, "length": 16, "limit": 2, "blind": False})
    config.evaluation.rows.length = 192
    if preset:
        config.evaluation = None
    if preset == "sft":
        config.grpo = None
    return config
