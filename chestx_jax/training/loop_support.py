"""What every training loop owes its user: metrics one step behind the device, a stop on SIGTERM, no silent NaN."""

import contextlib
import math
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils

from chestx_jax import multihost
from chestx_jax.errors import UserError


class Stopped(Exception):
    """The run was asked to stop and has saved its state; the door exits with status 0."""


@contextlib.contextmanager
def stop_on_sigterm() -> Iterator[Callable[[int], bool]]:
    """Yields a function of the step that says whether to stop after it, since SIGTERM has come. (Preempted TPU VMs get
    it half a minute ahead.)

    Processes that work together stop after the same step, wherever the signal came first: JAX's preemption service,
    which hears it in their place, agrees on one.
    """
    if jax.process_count() > 1:
        yield multihost_utils.reached_preemption_sync_point
        return
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield lambda step: asked.is_set()
        return
    before = signal.signal(signal.SIGTERM, lambda *_: asked.set())
    try:
        yield lambda step: asked.is_set()
    finally:
        signal.signal(signal.SIGTERM, before)


class PendingStep(NamedTuple):
    """A step that has been dispatched: its number, its metrics on the device, and what went into it."""

    step: int
    metrics: dict[str, jax.Array]
    batch: Any


def fetch_metrics(flight: PendingStep, workdir: str | Path) -> dict[str, float]:
    """The metrics of a dispatched step, on the host.

    Raises UserError where the loss is not finite, after saving the batch that went into the step.
    """
    metrics = {name: float(value) for name, value in jax.device_get(flight.metrics).items()}
    if not math.isfinite(metrics["loss"]):
        part = f"_of_process_{jax.process_index()}" if jax.process_count() > 1 else ""
        path = Path(workdir, f"bad_batch_{flight.step}{part}.npz")
        leaves = jax.tree_util.tree_flatten_with_path(multihost.local_rows(flight.batch))[0]
        np.savez(path, **{jax.tree_util.keystr(name).strip("."): leaf for name, leaf in leaves})
        raise UserError(
            f"the loss of step {flight.step} is {metrics['loss']}: its batch is in {path}; the last checkpoint "
            "is from before, lower the rate or mend the batch and run the same command again."
        )
    return metrics
