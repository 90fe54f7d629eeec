"""Balanced accuracy of yes/no questions by label: the mean of sensitivity and specificity, which a constant answer
leaves at a half however rare a finding is."""

from collections.abc import Hashable, Sequence

import numpy as np

from chestx_jax.eval.statistics.intervals import RESAMPLES, Interval

MEAN = "mean of labels"


def balanced_accuracy(
    labels: Sequence[str],
    positive: Sequence[bool],
    correct: Sequence[bool],
    groups: Sequence[Hashable],
    seed: int = 0,
) -> dict[str, Interval]:
    """Of each label with questions of either answer, and of their `MEAN`, with percentile bootstrap intervals.

    Args:
      labels, positive, correct: of each question its label, whether yes is right, whether the answer was right.
      groups: questions of one group (a patient) are drawn together, over labels too.
      seed: of the bootstrap.
    """
    names, label_number = np.unique(np.asarray(labels, str), return_inverse=True)
    group_numbers: dict[Hashable, int] = {}
    group_number = np.array([group_numbers.setdefault(group, len(group_numbers)) for group in groups], np.int64)
    cell = 2 * label_number + np.asarray(positive, bool)
    counts_GxC = np.zeros((len(group_numbers), 2 * len(names)))
    right_GxC = np.zeros_like(counts_GxC)
    np.add.at(counts_GxC, (group_number, cell), 1.0)
    np.add.at(right_GxC, (group_number, cell), np.asarray(correct, float))
    questions = counts_GxC.sum(0).reshape(-1, 2)
    known = (questions > 0).all(1)
    if not known.any():
        return {}
    draws = np.random.default_rng(seed).multinomial(
        len(group_numbers), np.full(len(group_numbers), 1 / len(group_numbers)), RESAMPLES
    )
    weights = np.concatenate([np.ones((1, len(group_numbers))), draws])  # the first is the sample itself
    with np.errstate(invalid="ignore"):  # a resample without an answer of a label says nothing of it
        shares = (weights @ right_GxC) / (weights @ counts_GxC)
        by_label = shares.reshape(len(weights), -1, 2).mean(2)[:, known]
        mean = np.nansum(by_label, 1) / np.isfinite(by_label).sum(1)
    totals = [*questions[known].sum(1), questions[known].sum()]
    intervals = [_interval(values, int(n)) for values, n in zip([*by_label.T, mean], totals, strict=True)]
    return dict(zip([*names[known].tolist(), MEAN], intervals, strict=True))


def _interval(values: np.ndarray, n: int) -> Interval:
    low, high = np.nanpercentile(values[1:], [2.5, 97.5])
    return Interval(float(values[0]), float(low), float(high), n)
