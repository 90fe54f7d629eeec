"""Validation at its own cadence, the best checkpoint as a place, as a stage's result, and changes between two runs."""

import json
import os
from pathlib import Path

import jax
import numpy as np
import pytest

from chestx_jax import checkpoint, metrics
from chestx_jax.errors import UserError
from chestx_jax.inference.loaded_model import load_model
from chestx_jax.recipes import SftConfig
from chestx_jax.sharding import MeshConfig, make_mesh
from tests.helpers.tiny_runs import finished, parameters, started

# A rate at which the loss soon goes up again.
RATE = ("--config.init.optimizer.rate=3", "--config.init.optimizer.schedule=constant")
FLAGS = ("--config.init.cadence.validate=2", "--config.init.cadence.save=50", *RATE)


def test_validation_has_its_own_cadence_and_a_stage_may_leave_its_best(tmp_path):
    workdir, cache = tmp_path / "run", Path(os.environ["JAX_COMPILATION_CACHE_DIR"])
    finished(started(workdir, cache, "sft", "--config.init.result=best", *FLAGS))
    logged = metrics.read(workdir / "sft" / "sft.jsonl")
    losses = {line["step"]: line["validation_loss"] for line in logged if "validation_loss" in line}
    assert list(losses) == [2, 4, 6, 8, 10, 12]
    best = min(losses, key=losses.__getitem__)
    assert best < 12
    saved = checkpoint.validation_losses(workdir / "sft" / "checkpoints")
    assert saved[best] == losses[best]
    assert checkpoint.steps(workdir / "sft" / "checkpoints") == sorted({best, 12})

    mesh = make_mesh(MeshConfig(1, 1, 1), jax.devices()[:1])
    models = {
        which: load_model(f"orbax:{workdir}/sft{which}", mesh) for which in ("@best", f"@{best}", "@12", "/params")
    }
    leaves = {which: [np.asarray(x) for x in jax.tree.leaves(model.params)] for which, model in models.items()}
    assert sorted(x.tobytes() for x in leaves["/params"]) == sorted(parameters(workdir, "sft"))
    for which in ("@best", f"@{best}"):
        assert models[which].config == models["/params"].config
        assert models[which].encoder.image == models["/params"].encoder.image
        for one, other in zip(leaves[which], leaves["/params"], strict=True):
            np.testing.assert_array_equal(one, other)
    assert any((one != other).any() for one, other in zip(leaves["@12"], leaves["@best"], strict=True))
    with pytest.raises(UserError, match=rf"no checkpoint @7: it has .*@12; @best is @{best}"):
        load_model(f"orbax:{workdir}/sft@7", mesh)

    # The finished stage is left as it is; what comes after it starts from any of its checkpoints.
    again = finished(started(workdir, cache, "sft", "--config.init.result=best", *FLAGS, "--config.init.cadence.log=3"))
    assert "config.init.cadence.log: 1 -> 3 (sft is finished and stays as it is)" in again
    assert json.loads((workdir / "config.json").read_text())["init"]["cadence"]["log"] == 3
    other = tmp_path / "other"
    flags = (f"--config.init=orbax:{workdir}/sft@best", f"--config.data_root={workdir}/data", "--config.phantom=None")
    finished(started(other, cache, "train", *flags, "--config.grpo.steps=1"))
    assert parameters(other, "grpo") != parameters(workdir, "sft")


def test_the_best_needs_a_validation():
    with pytest.raises(UserError, match="needs a validation source"):
        SftConfig(result="best")
