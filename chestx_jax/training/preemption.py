"""A clean stop on SIGTERM: preempted TPU VMs get it half a minute before they go."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator

import jax
from jax.experimental import multihost_utils


class Stopped(Exception):
    """The run was asked to stop and has saved its state; the command exits with status 0."""


@contextlib.contextmanager
def stop_on_sigterm() -> Iterator[Callable[[int], bool]]:
    """Yields a function of the step: whether to stop after it because SIGTERM has arrived.

    Several processes stop after the same step, whichever of them got the signal: JAX's preemption service, which
    handles the signal in their place, agrees on the step.
    """
    if jax.process_count() > 1:
        yield multihost_utils.reached_preemption_sync_point
        return
    received = threading.Event()
    if threading.current_thread() is not threading.main_thread():  # only the main thread may set signal handlers
        yield lambda step: received.is_set()
        return
    previous_handler = signal.signal(signal.SIGTERM, lambda *_: received.set())
    try:
        yield lambda step: received.is_set()
    finally:
        signal.signal(signal.SIGTERM, previous_handler)
