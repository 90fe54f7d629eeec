"""Scores of one model on one set: every item's verdict and the rows of the tables, one per task family."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from chestx_jax.eval.answers.parsing import reasoning_text
from chestx_jax.eval.judges.lexicon_judge import Judgement, judge_all
from chestx_jax.eval.predictions.accuracy import Outcome, outcome
from chestx_jax.eval.predictions.records import Prediction, independent_group, keys
from chestx_jax.eval.statistics.breakdown import by_label, calibration
from chestx_jax.eval.statistics.intervals import Difference, Interval, mean_interval, paired_difference, share_interval
from chestx_jax.labels import TASKS
from chestx_jax.lexicon import Lexicon

RADRSCORE = ("factuality", "completeness", "effectiveness", "radrscore")
SHARES = ("accuracy", "f1", "ratescore", *RADRSCORE, "process", "ground_truth_factuality")  # in [0, 1]; process from -1
COUNTS = ("claims", "words", "tokens")
METRICS = (*SHARES, *COUNTS)
CENTRES_APART = ("rsna", "siim")  # the cross-centre sets, which test whether a model travels
CLOSED = ("binary", "single", "multiple", "temporal")


@dataclass(frozen=True)
class Item:
    """One scored prediction: what it is known by, its outcome and its judged reasoning."""

    key: Hashable  # the same for every model's answer to this sample
    prediction: Prediction
    outcome: Outcome
    judgement: Judgement
    ratescore: float | None
    words: int  # of the reasoning

    @property
    def group(self) -> Hashable:
        """What items that are not independent share: the patient, or where that is not known the films."""
        return independent_group(self.prediction)

    @property
    def apart(self) -> bool:
        """Whether the film is of a centre that has its own rows."""
        return any(centre in self.prediction.source.lower() for centre in CENTRES_APART)

    def value(self, metric: str) -> float | None:
        """One metric of this item; None where it does not apply."""
        if metric == "accuracy":
            return float(self.outcome.correct)
        if metric == "f1":
            return self.outcome.f1
        if metric == "tokens":
            return self.prediction.tokens
        if metric in ("ratescore", "words"):
            return getattr(self, metric)
        return getattr(self.judgement, metric)


@dataclass(frozen=True)
class Row:
    """One row of the tables: counts, and the mean of each metric with its 95 % interval."""

    n: int
    parsed: int
    truncated: int
    empty: int
    refused: int
    metrics: Mapping[str, Interval]


@dataclass(frozen=True)
class Evaluation:
    """All items in file order; rows by task family, `closed` (macro over closed families) and `all`; rows by source.

    Items of the cross-centre sets (RSNA, SIIM) stand in the rows by source alone, unless there are no others.
    """

    items: tuple[Item, ...]
    rows: Mapping[str, Row]
    sources: Mapping[str, Row]
    labels: Mapping[str, Mapping[str, Any]]
    calibration: Mapping[str, Any] | None

    def to_json(self) -> dict[str, Any]:
        """The rows as plain JSON; items are in the file of predictions."""
        return {
            "tasks": {name: asdict(row) for name, row in self.rows.items()},
            "sources": {name: asdict(row) for name, row in self.sources.items()},
            "labels": dict(self.labels),
            "calibration": self.calibration,
        }

    def mean(self, row: str, metric: str) -> float | None:
        """A cell of the table; None where the row or the metric is missing."""
        return self.rows[row].metrics[metric].mean if row in self.rows else None


def evaluate_predictions(
    predictions: Sequence[Prediction], lexicon: Lexicon, seed: int = 0, ratescores: Sequence[float | None] | None = None
) -> Evaluation:
    """Scores predictions with the strict answer rule and the offline judge.

    Args:
      predictions: one model's answers; repeated samples are scored each on their own.
      lexicon: what `chestx_jax.lexicon` extracts findings with.
      seed: of the bootstrap.
      ratescores: the RaTEScore of each prediction, None where it has none (see `eval.judges.ratescore`).
    """
    judgements = judge_all(predictions, lexicon)
    items = tuple(map(_item, keys(predictions), predictions, judgements, ratescores or [None] * len(predictions)))
    main = _main(items)
    by_task = {task: [item for item in main if item.prediction.task == task] for task in TASKS}
    rows = {task: _row(task_items, seed) for task, task_items in by_task.items() if task_items}
    closed = [rows[task] for task in CLOSED if task in rows]
    if closed:
        rows["closed"] = _macro(closed)
    rows["all"] = _row(main, seed)
    names = sorted({item.prediction.source for item in items})
    sources = {name: _row([item for item in items if item.prediction.source == name], seed) for name in names}
    outcomes = [item.outcome for item in items]
    labels = by_label(predictions, outcomes, seed)
    return Evaluation(items, rows, sources, labels, calibration(predictions, outcomes))


def paired_differences(first: Evaluation, second: Evaluation, seed: int = 0) -> dict[str, dict[str, Difference]]:
    """Second minus first on the samples both answered: {row: {metric: Difference}} for each family, and `all`."""
    table = {}
    for row in (*TASKS, "all"):
        one, other = (
            {item.key: item for item in _main(side.items) if row in ("all", item.prediction.task)}
            for side in (first, second)
        )
        if not one.keys() & other.keys():
            continue
        groups = {key: item.group for key, item in one.items()}
        table[row] = {m: paired_difference(_values(one, m), _values(other, m), seed, groups) for m in METRICS}
    return table


def _values(items: Mapping[Hashable, Item], metric: str) -> dict[Hashable, float | None]:
    return {key: item.value(metric) for key, item in items.items()}


def _item(key: Hashable, prediction: Prediction, judgement: Judgement, ratescore: float | None) -> Item:
    words = len(reasoning_text(prediction.pred).split())
    return Item(key, prediction, outcome(prediction), judgement, ratescore, words)


def _row(items: Sequence[Item], seed: int) -> Row:
    groups = [item.group for item in items]
    values = {metric: [item.value(metric) for item in items] for metric in METRICS}
    reasons = [item.outcome.reason for item in items]
    return Row(
        n=len(items),
        parsed=sum(item.outcome.parsed for item in items),
        truncated=sum(item.prediction.truncated for item in items),
        empty=reasons.count("empty"),
        refused=reasons.count("refused"),
        metrics={metric: share_interval(values[metric], seed, groups) for metric in SHARES}
        | {metric: mean_interval(values[metric], seed, groups) for metric in COUNTS},
    )


def _main(items: Sequence[Item]) -> Sequence[Item]:
    """The items of the rows by task: all but those of centres apart, if there are others."""
    return [item for item in items if not item.apart] or items


def _macro(rows: Sequence[Row]) -> Row:
    """Each family counts alike; the interval treats the families as independent and adds their variances."""
    metrics = {metric: _macro_interval([row.metrics[metric] for row in rows]) for metric in rows[0].metrics}
    total = {name: sum(getattr(row, name) for row in rows) for name in ("n", "parsed", "truncated", "empty", "refused")}
    return Row(**total, metrics=metrics)


def _macro_interval(parts: Sequence[Interval]) -> Interval:
    """Interval of the mean of independent means, from the distances of each mean to its bounds (Zou and Donner 2008,
    Stat Med 27:1693)."""
    known = [part for part in parts if part.mean is not None]
    if not known:
        return Interval(None, None, None, 0)
    mean = float(np.mean([part.mean for part in known]))
    below, above = (
        float(np.sqrt(sum((part.mean - getattr(part, bound)) ** 2 for part in known))) / len(known)
        for bound in ("low", "high")
    )
    return Interval(mean, mean - below, mean + above, sum(part.n for part in known))
