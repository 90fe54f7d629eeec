"""Metrics one step behind the device: they are fetched while the next step runs, and checked for skipped updates."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from chestx_jax import multihost
from chestx_jax.errors import UserError

LOG = logging.getLogger(__name__)


class PendingStep(NamedTuple):
    """A dispatched step: its number, its metrics on the device, and its inputs. A metric with a value for each of
    several optimizer steps is a list."""

    step: int
    metrics: Mapping[str, jax.Array | float | Sequence[jax.Array]]
    batch: Any


def fetch_metrics(pending: PendingStep, folder: str | Path, max_skipped: int) -> dict[str, float]:
    """The metrics of a dispatched step as host numbers, the mean over its optimizer steps or, of maxima and counters,
    the largest; waits for the step to finish. A step whose update was skipped, its loss or gradient not being finite,
    is logged.

    Raises UserError after `max_skipped` of them in a row, having saved the last one's inputs to `folder`.
    """
    metrics = {name: _over_steps(name, value) for name, value in jax.device_get(pending.metrics).items()}
    in_a_row = round(metrics["skipped_in_a_row"])
    if in_a_row:
        LOG.warning(
            "step %d: no update, the loss is %g and the norm of its gradient %g (%d in a row, %d in all)",
            *(pending.step, metrics["loss"], metrics["grad_norm"], in_a_row, metrics["skipped"]),
        )
    if in_a_row >= max_skipped:
        process = f"_of_process_{jax.process_index()}" if jax.process_count() > 1 else ""
        path = Path(folder, f"bad_batch_{pending.step}{process}.npz")
        leaves = jax.tree_util.tree_flatten_with_path(multihost.local_rows(pending.batch))[0]
        np.savez(path, **{jax.tree_util.keystr(name).strip("."): leaf for name, leaf in leaves})
        raise UserError(
            f"{in_a_row} steps in a row had no finite gradient, the last is step {pending.step} with a loss of "
            f"{metrics['loss']:g}: its batch is in {path}; the last checkpoint is finite, lower the rate or fix the "
            "data and run the command again, or raise optimizer.max_skipped."
        )
    return metrics


def _over_steps(name: str, values) -> float:
    """The mean over a step's optimizer steps; the largest of maxima and of counters."""
    largest = name.endswith("_max") or name.startswith("skipped")
    return float(np.max(values) if largest else np.mean(values))
