"""95 % intervals of shares, means and paired differences. NumPy, seeded: the same numbers give the same interval.

Shares of items that are right or wrong get Wilson's score interval, which stays inside [0, 1] and has a width even
where all items are right (a bootstrap of 10 of 10 says [100 %, 100 %]). All other means are bootstrapped.
"""

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

RESAMPLES = 1000
Z = 1.959963984540054  # the 97.5 % point of the normal distribution


@dataclass(frozen=True)
class Interval:
    """A mean with its 95 % interval over `n` items; all None where there is no item."""

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


def mean(values: Iterable[float | None]) -> float | None:
    """The mean of the values that are known; None where none is."""
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None


def share_interval(values: Sequence[float | None], seed: int = 0, groups: Sequence[Hashable] | None = None) -> Interval:
    """Mean of scores in [0, 1]: Wilson's interval where each is 0 or 1, else the bootstrap's; None and NaN left out.

    Args:
      values: one score per item.
      groups: items of one group (a patient, a film) are not independent; Wilson's interval then counts the effective
        number of items, n over the design effect (Dean and Pagano 2015, J Surv Stat Methodol 3:484).
    """
    numbers, group_names = _known(values, groups)
    if not len(numbers) or not np.isin(numbers, (0.0, 1.0)).all():
        return mean_interval(values, seed, groups)
    low, high = wilson(float(numbers.mean()), _effective_size(numbers, group_names))
    return Interval(float(numbers.mean()), low, high, len(numbers))


def wilson(share: float, n: float) -> tuple[float, float]:
    """Wilson's score interval of a share of `n` independent items, (low, high) within [0, 1].

    Wilson 1927 (J Am Stat Assoc 22:209); preferred for small n by Brown, Cai and DasGupta 2001 (Stat Sci 16:101).
    """
    centre = (share + Z**2 / (2 * n)) / (1 + Z**2 / n)
    reach = Z / (1 + Z**2 / n) * np.sqrt(share * (1 - share) / n + Z**2 / (4 * n**2))
    return float(min(share, max(0.0, centre - reach))), float(max(share, min(1.0, centre + reach)))


def mean_interval(values: Sequence[float | None], seed: int = 0, groups: Sequence[Hashable] | None = None) -> Interval:
    """Mean with its percentile bootstrap interval; None and NaN are left out, items of one group drawn together."""
    numbers, group_names = _known(values, groups)
    if not len(numbers):
        return Interval(None, None, None, 0)
    low, high = np.percentile(_resampled_means(*_group_sums(numbers, group_names), seed), [2.5, 97.5])
    return Interval(float(numbers.mean()), float(low), float(high), len(numbers))


def paired_difference(
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
    group_names = [groups[key] for key in keys] if groups is not None else None
    bootstrapped = mean_interval(list(deltas), seed, group_names)
    sums, _ = _group_sums(deltas, group_names)
    flips = np.random.default_rng(seed + 1).choice((-1.0, 1.0), size=(RESAMPLES, len(sums)))
    extreme = np.abs(flips @ sums) >= abs(sums.sum()) - 1e-9
    p = float((extreme.sum() + 1) / (RESAMPLES + 1))
    return Difference(bootstrapped.mean, bootstrapped.low, bootstrapped.high, p, len(keys))


def _known(
    values: Sequence[float | None], groups: Sequence[Hashable] | None
) -> tuple[np.ndarray, Sequence[Hashable] | None]:
    """The numbers among `values` with their groups."""
    kept = [i for i, value in enumerate(values) if value is not None and not np.isnan(value)]
    numbers = np.array([values[i] for i in kept], dtype=np.float64)
    return numbers, None if groups is None else [groups[i] for i in kept]


def _effective_size(numbers: np.ndarray, groups: Sequence[Hashable] | None) -> float:
    """How many independent 0/1 items say as much as these: n over the design effect, which is at least 1.

    Where all items agree the effect cannot be estimated and each group counts as one item.
    """
    sums, counts = _group_sums(numbers, groups)
    share, n = numbers.mean(), len(numbers)
    if share in (0.0, 1.0):
        return float(len(sums))
    design_effect = np.sum((sums - share * counts) ** 2) / (share * (1 - share) * n)
    return float(n / max(1.0, design_effect))


def _group_sums(numbers: np.ndarray, groups: Sequence[Hashable] | None) -> tuple[np.ndarray, np.ndarray]:
    """Sum and count of each group's numbers; every number is its own group where none are given."""
    if groups is None:
        return numbers, np.ones_like(numbers)
    index: dict[Hashable, int] = {}
    positions = np.array([index.setdefault(group, len(index)) for group in groups])
    return np.bincount(positions, numbers), np.bincount(positions).astype(np.float64)


def _resampled_means(sums: np.ndarray, counts: np.ndarray, seed: int) -> np.ndarray:
    """Means of the resamples, a block at a time to keep memory small for large sets."""
    rng, size = np.random.default_rng(seed), len(sums)
    block = max(1, min(RESAMPLES, 2_000_000 // size))
    means = []
    for start in range(0, RESAMPLES, block):
        draws = rng.integers(0, size, (min(block, RESAMPLES - start), size))
        means.append(sums[draws].sum(axis=1) / counts[draws].sum(axis=1))
    return np.concatenate(means)
