"""Metrics one step behind the device: they are fetched while the next step runs, and checked for a finite loss."""

import math
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from chestx_jax import multihost
from chestx_jax.errors import UserError


class PendingStep(NamedTuple):
    """A dispatched step: its number, its metrics on the device, and its inputs."""

    step: int
    metrics: dict[str, jax.Array]
    batch: Any


def fetch_metrics(pending: PendingStep, folder: str | Path) -> dict[str, float]:
    """The metrics of a dispatched step as host numbers; waits for the step to finish.

    Raises UserError where the loss is not finite, after saving the step's inputs to `folder`.
    """
    metrics = {name: float(value) for name, value in jax.device_get(pending.metrics).items()}
    if not math.isfinite(metrics["loss"]):
        process = f"_of_process_{jax.process_index()}" if jax.process_count() > 1 else ""
        path = Path(folder, f"bad_batch_{pending.step}{process}.npz")
        leaves = jax.tree_util.tree_flatten_with_path(multihost.local_rows(pending.batch))[0]
        np.savez(path, **{jax.tree_util.keystr(name).strip("."): leaf for name, leaf in leaves})
        raise UserError(
            f"the loss of step {pending.step} is {metrics['loss']}: its batch is in {path}; the last checkpoint "
            "is from before, lower the rate or fix the batch and run the same command again."
        )
    return metrics
