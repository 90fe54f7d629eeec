"""A clean stop on SIGTERM: preempted TPU VMs get it half a minute before they go.

What is lost is bounded: at the worst, where the machine goes before the step that runs has ended and been saved, the
steps since the last checkpoint. A save that is cut off is never restored (see `checkpoint`).
"""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
from jax.experimental import multihost_utils

from chestx_jax import checkpoint, metrics


class Stopped(Exception):
    """The run was asked to stop and has saved its state; the command exits with status 0."""


@contextlib.contextmanager
def stop_on_sigterm(name: str, checkpoints: Path) -> Iterator[Callable[[int], bool]]:
    """Yields a function of a growing number, that of the step or of a point within it: whether to stop there because
    SIGTERM has arrived. When it arrives, a line says at once from which of the `checkpoints` the run goes on if this
    process is killed before it has saved.

    Several processes stop at the same point, whichever of them got the signal: JAX's preemption service, which handles
    the signal in their place, agrees on it.
    """
    if jax.process_count() > 1:
        yield multihost_utils.reached_preemption_sync_point
        return
    received = threading.Event()
    if threading.current_thread() is not threading.main_thread():  # only the main thread may set signal handlers
        yield lambda point: received.is_set()
        return

    def notice() -> None:
        saved = max(checkpoint.steps(checkpoints), default=0)
        print(
            f"\nSIGTERM: {name} stops and saves as soon as the device is done; killed before, it goes on from {saved}",
            flush=True,
        )

    previous_handler = signal.signal(signal.SIGTERM, lambda *_: received.set())
    try:
        with _at_once(signal.SIGTERM, notice):
            yield lambda point: received.is_set()
    finally:
        signal.signal(signal.SIGTERM, previous_handler)


@contextlib.contextmanager
def _at_once(wanted: signal.Signals, act: Callable[[], None]) -> Iterator[None]:
    """Calls `act` in a thread as soon as the signal arrives: its Python handler runs in the main thread, which may wait
    minutes for the device first."""
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)

    def watch() -> None:
        while number := os.read(read_end, 1)[0]:
            if number == wanted:
                act()

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    previous = signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(previous)
        os.write(write_end, b"\0")
        watcher.join()
        os.close(read_end)
        os.close(write_end)


def describe_resume(folder: Path, step: int, steps: int) -> str:
    """Where a stage goes on, and how many of its logged steps were lost and are done again."""
    logged = max((record["step"] for record in metrics.read(folder / f"{folder.name}.jsonl")), default=0)
    lost = f"; {logged - step} later steps were not saved and are done again" if logged > step else ""
    return f"{folder.name} goes on from step {step} of {steps}{lost}"
