"""A run's speed and remaining time on one console line."""

import collections
import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TextIO


def rates(clock: Callable[[], float], restored_step: int) -> Callable[[int, Mapping[str, float]], dict[str, float]]:
    """A function of the step and its numbers: steps per second over the last 20 calls, and as many `tokens` and `flops`
    per second, where the numbers have them. The first interval, which contains compilation, is left out as soon as
    there are others."""
    start: tuple[float, int, dict[str, float]] = (clock(), restored_step, {})
    recent = collections.deque([start], maxlen=20)

    def measure(step: int, numbers: Mapping[str, float]) -> dict[str, float]:
        _, previous, totals = recent[-1]
        counted = [name for name in ("tokens", "flops") if name in numbers]
        totals = totals | {name: totals.get(name, 0.0) + numbers[name] * (step - previous) for name in counted}
        recent.append((clock(), step, totals))
        if len(recent) == 3 and recent[0][1] == restored_step:
            recent.popleft()  # the first interval contains compilation
        (begun, first, before), (now, last, after) = recent[0], recent[-1]
        seconds = max(now - begun, 1e-9)
        per_second = {f"{name}_per_second": (after[name] - before.get(name, 0.0)) / seconds for name in counted}
        return {"steps_per_second": (last - first) / seconds, **per_second}

    return measure


@contextlib.contextmanager
def progress(
    name: str,
    total_steps: int,
    show: Sequence[str],
    console: TextIO,
    clock: Callable[[], float] = time.monotonic,
    unit: str = "step",
) -> Iterator[Callable[[int, Mapping[str, float]], None]]:
    """Yields a function that shows a step: redrawn in place on a terminal, printed every few seconds elsewhere."""
    in_place = console.isatty()
    interval = 0.2 if in_place else 5.0
    printed_at = -math.inf
    pending = ""

    def show_line(line: str) -> None:
        console.write(f"\r{line}\x1b[K" if in_place else f"{line}\n")
        console.flush()

    def show_step(step: int, numbers: Mapping[str, float]) -> None:
        nonlocal printed_at, pending
        pending = progress_line(name, step, total_steps, numbers, show, unit)
        if clock() - printed_at >= interval:
            show_line(pending)
            printed_at, pending = clock(), ""

    try:
        yield show_step
    finally:
        if pending:
            show_line(pending)
        if in_place:
            console.write("\n")


def progress_line(
    name: str, step: int, total_steps: int, numbers: Mapping[str, float], show: Sequence[str], unit: str = "step"
) -> str:
    """`sft 120/600 20% | loss 1.234 | 3.2 steps/s | 12.3k tokens/s | 2m30s left`; `unit` is what a step is called."""
    parts = [f"{name} {step}/{total_steps} {100 * step // max(total_steps, 1)}%"]
    parts += [f"{key} {numbers[key]:.4g}" for key in show if key in numbers]
    rate = numbers.get("steps_per_second", 0.0)
    parts.append(f"{rate:.3g} {unit}s/s" if rate >= 1 or rate == 0 else f"{1 / rate:.3g} s/{unit}")
    if "tokens_per_second" in numbers:
        tokens = numbers["tokens_per_second"]
        parts.append(f"{tokens / 1000:.3g}k tokens/s" if tokens >= 1000 else f"{tokens:.3g} tokens/s")
    if rate > 0 and step < total_steps:
        parts.append(f"{duration((total_steps - step) / rate)} left")
    return " | ".join(parts)


def duration(seconds: float) -> str:
    """`45s`, `2m30s`, `3h05m`, `2d04h`."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 1:
        return f"{rest}s"
    hours, minutes = divmod(minutes, 60)
    if hours < 1:
        return f"{minutes}m{rest:02d}s"
    days, hours = divmod(hours, 24)
    return f"{days}d{hours:02d}h" if days else f"{hours}h{minutes:02d}m"
