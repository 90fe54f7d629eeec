"""How the benchmarks take the time of a call."""

import time
from collections.abc import Callable

import jax


def median_seconds(call: Callable[[], object], repeats: int = 7, warm: int = 2) -> float:
    """Median over `repeats` calls of the seconds until the result is there, after `warm` calls that are not counted."""
    times = []
    for _ in range(warm + repeats):
        start = time.perf_counter()
        jax.block_until_ready(call())
        times.append(time.perf_counter() - start)
    return sorted(times[warm:])[repeats // 2]
