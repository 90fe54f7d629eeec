"""How fast a run is: where its time goes, what its devices could do, and a trace of one step."""

import contextlib
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from chestx_jax.errors import UserError
from chestx_jax.model.config import ModelConfig
from chestx_jax.planning.cost import topology
from chestx_jax.planning.cost.model_flops import real_flops
from chestx_jax.types import Batch, Prompts


class Phases:
    """The shares of wall-clock time that a loop's phases take."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock, self._since = clock, clock()
        self._seconds: dict[str, float] = defaultdict(float)

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Counts the time inside for phase `name`. What is dispatched inside must be waited for inside."""
        start = self._clock()
        try:
            yield
        finally:
            self._seconds[name] += self._clock() - start

    def shares(self) -> dict[str, float]:
        """`time/NAME`: each phase's share of the time since the last call."""
        now = self._clock()
        shares = {f"time/{name}": seconds / max(now - self._since, 1e-9) for name, seconds in self._seconds.items()}
        self._seconds.clear()
        self._since = now
        return shares


def peak_flops() -> float:
    """FLOP/s in bfloat16 that all devices can do at most; 0 where nothing is known, as of a CPU."""
    if jax.default_backend() == "cpu":
        return 0.0
    try:
        return topology.find("local").chip.peak_flops * jax.device_count()
    except UserError:
        return 0.0


def supervised_flops(model: ModelConfig, batch: Batch, rows: int) -> float:
    """Useful FLOPs of a supervised step on `rows` packed rows, from those that this process laid out (on the host)."""
    segments, patches_BxI = np.asarray(batch.tokens.segments), np.asarray(batch.images.valid).sum(axis=2)
    lengths = (segments[..., None] == np.arange(1, segments.max() + 1)).sum(axis=1).ravel()
    films = Counter(int(patches) for patches in patches_BxI.ravel() if patches)
    return real_flops(model, lengths.tolist(), None, films, trained=True) * rows / len(segments)


def patches_of_films(prompts: Prompts) -> int:
    """Patches of a film, on average over those of this process's prompts (on the host)."""
    patches = np.asarray(prompts.images.valid).sum(axis=2)
    return round(patches.sum() / max((patches > 0).sum(), 1))


class StepTrace:
    """A trace of one step for TensorBoard or Perfetto, in `folder`/trace; of none where `step` is 0."""

    def __init__(self, folder: Path, step: int) -> None:
        self._folder, self._step = folder / "trace", step

    def begin(self, step: int) -> None:
        """To be called before each step."""
        if step == self._step:
            jax.profiler.start_trace(self._folder, create_perfetto_trace=True)

    def end(self, step: int, results: Any) -> None:
        """To be called after each step: waits for its results and writes the trace."""
        if step == self._step:
            jax.block_until_ready(results)
            jax.profiler.stop_trace()
