"""Bootstrap intervals and paired comparisons. NumPy, seeded: the same numbers give the same interval."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

RESAMPLES = 1000


@dataclass(frozen=True)
class Interval:
    """A mean with its 95 % percentile bootstrap interval over `n` items; all None where there is no item."""

    mean: float | None
    low: float | None
    high: float | None
    n: int


@dataclass(frozen=True)
class Difference:
    """Mean of second minus first on `n` common items, its 95 % interval, and a two-sided sign-flip p value."""

    mean: float | None
    low: float | None
    high: float | None
    p: float | None
    n: int


def interval(values: Sequence[float | None], seed: int = 0, groups: Sequence[Hashable] | None = None) -> Interval:
    """Bootstraps the mean of `values`, leaving out None and NaN.

    Args:
      values: one number per item.
      groups: items of one group (a patient, a film) are drawn together, since they are not independent.
    """
    kept = [i for i, value in enumerate(values) if value is not None and not np.isnan(value)]
    if not kept:
        return Interval(None, None, None, 0)
    numbers = np.array([values[i] for i in kept], dtype=np.float64)
    sums, counts = _by_group(numbers, [groups[i] for i in kept] if groups is not None else None)
    means = _resampled_means(sums, counts, seed)
    low, high = np.percentile(means, [2.5, 97.5])
    return Interval(float(numbers.mean()), float(low), float(high), len(kept))


def paired(
    first: Mapping[Any, float | None],
    second: Mapping[Any, float | None],
    seed: int = 0,
    groups: Mapping[Any, Hashable] | None = None,
) -> Difference:
    """Second minus first over the keys both have a number for; keys of one group (a film) are drawn and flipped
    together."""
    keys = sorted(key for key in first if first[key] is not None and second.get(key) is not None)
    if not keys:
        return Difference(None, None, None, None, 0)
    deltas = np.array([float(second[key]) - float(first[key]) for key in keys])  # type: ignore[arg-type]
    own = [groups[key] for key in keys] if groups is not None else None
    around = interval(list(deltas), seed, own)
    sums, _ = _by_group(deltas, own)
    flips = np.random.default_rng(seed + 1).choice((-1.0, 1.0), size=(RESAMPLES, len(sums)))
    extreme = np.abs(flips @ sums) >= abs(sums.sum()) - 1e-9
    return Difference(around.mean, around.low, around.high, float((extreme.sum() + 1) / (RESAMPLES + 1)), len(keys))


def _by_group(numbers: np.ndarray, groups: Sequence[Hashable] | None) -> tuple[np.ndarray, np.ndarray]:
    if groups is None:
        return numbers, np.ones_like(numbers)
    index: dict[Hashable, int] = {}
    places = np.array([index.setdefault(group, len(index)) for group in groups])
    return np.bincount(places, numbers), np.bincount(places).astype(np.float64)


def _resampled_means(sums: np.ndarray, counts: np.ndarray, seed: int) -> np.ndarray:
    """Means of the resamples, a block at a time to keep memory small for large sets."""
    rng, size = np.random.default_rng(seed), len(sums)
    block = max(1, min(RESAMPLES, 2_000_000 // size))
    means = []
    for start in range(0, RESAMPLES, block):
        draws = rng.integers(0, size, (min(block, RESAMPLES - start), size))
        means.append(sums[draws].sum(axis=1) / counts[draws].sum(axis=1))
    return np.concatenate(means)
