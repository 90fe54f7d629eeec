"""Scores of one model on one set: every item's verdict and the rows of the tables, one per task family."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from chestx_jax.eval.answers.parsing import reasoning_text
from chestx_jax.eval.judges.lexicon_judge import Judgement, judge_all
from chestx_jax.eval.predictions.accuracy import Outcome, outcome
from chestx_jax.eval.predictions.records import Prediction, keys
from chestx_jax.eval.statistics.bootstrap import Difference, Interval, interval, paired
from chestx_jax.eval.statistics.breakdown import by_label, calibration
from chestx_jax.lexicon import Lexicon
from chestx_jax.types import TASKS

RADRSCORE = ("factuality", "completeness", "effectiveness", "radrscore")
METRICS = ("accuracy", "f1", "ratescore", *RADRSCORE, "ground_truth_factuality", "claims")
LENGTHS = ("words", "tokens")
CENTRES_APART = ("rsna", "siim")  # the cross-centre sets, which test whether a model travels
CLOSED = ("binary", "single", "multiple", "temporal")


@dataclass(frozen=True)
class Item:
    """One scored prediction: what it is known by and whose film it is about, its outcome and its judged reasoning."""

    key: Hashable  # the same for every model's answer to this sample
    film: Hashable  # items of one film are not independent
    task: str
    source: str
    outcome: Outcome
    judgement: Judgement
    ratescore: float | None
    words: int
    tokens: int | None
    truncated: bool

    @property
    def apart(self) -> bool:
        """Whether the film is of a centre that has its own rows."""
        return any(centre in self.source.lower() for centre in CENTRES_APART)

    def value(self, metric: str) -> float | None:
        """One metric of this item; None where it does not apply."""
        if metric == "accuracy":
            return float(self.outcome.correct)
        if metric == "f1":
            return self.outcome.f1
        if metric in ("ratescore", *LENGTHS):
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
        """The rows alone as plain JSON; items travel in the predictions file."""
        breakdown = {"labels": dict(self.labels), "calibration": self.calibration}
        return {"tasks": _plain(self.rows), "sources": _plain(self.sources), **breakdown}

    def mean(self, row: str, metric: str) -> float | None:
        """A cell of the table; None where the row or the metric is missing."""
        return self.rows[row].metrics[metric].mean if row in self.rows else None


def evaluate_predictions(
    predictions: Sequence[Prediction], lexicon: Lexicon, seed: int = 0, rates: Sequence[float | None] | None = None
) -> Evaluation:
    """Scores predictions with the strict answer rule and the offline judge.

    Args:
      predictions: one model's answers; repeated samples are scored each on their own.
      lexicon: what `chestx_jax.lexicon` extracts findings with.
      seed: of the bootstrap.
      rates: the RaTEScore of each prediction, None where it has none (see `eval.ratescore`).
    """
    judgements = judge_all(predictions, lexicon)
    rates = rates or [None] * len(predictions)
    items = tuple(map(_item, keys(predictions), predictions, judgements, rates))
    main = _main(items)
    by_task = {task: [i for i in main if i.task == task] for task in TASKS}
    rows = {task: _row(found, seed) for task, found in by_task.items() if found}
    closed = [task for task in CLOSED if task in rows]
    if closed:
        rows["closed"] = _macro([rows[task] for task in closed])
    rows["all"] = _row(main, seed)
    sources = {source: _row([i for i in items if i.source == source], seed) for source in _sources(items)}
    found = [item.outcome for item in items]
    return Evaluation(items, rows, sources, by_label(predictions, found), calibration(predictions, found))


def compare(first: Evaluation, second: Evaluation, seed: int = 0) -> dict[str, dict[str, Difference]]:
    """Second minus first on the samples both answered: {row: {metric: Difference}} for each family, and `all`."""
    table = {}
    for row in (*TASKS, "all"):
        pairs = [{i.key: i for i in _main(side.items) if row in ("all", i.task)} for side in (first, second)]
        if not pairs[0].keys() & pairs[1].keys():
            continue
        films = {key: item.film for key, item in pairs[0].items()}
        values = lambda side, metric: {key: item.value(metric) for key, item in side.items()}  # noqa: E731
        table[row] = {m: paired(values(pairs[0], m), values(pairs[1], m), seed, films) for m in (*METRICS, *LENGTHS)}
    return table


def _item(key: Hashable, prediction: Prediction, judgement: Judgement, rate: float | None) -> Item:
    words = len(reasoning_text(prediction.pred).split())
    return Item(
        key,
        prediction.images or (prediction.sample_id,),
        prediction.task,
        prediction.source,
        outcome(prediction),
        judgement,
        rate,
        words,
        prediction.tokens,
        prediction.truncated,
    )


def _row(items: Sequence[Item], seed: int) -> Row:
    films = [item.film for item in items]
    metrics = {m: interval([item.value(m) for item in items], seed, films) for m in (*METRICS, *LENGTHS)}
    return Row(len(items), *_counts(items), metrics)


def _main(items: Sequence[Item]) -> Sequence[Item]:
    """The items of the rows by task: all but those of centres apart, if there are others."""
    return [item for item in items if not item.apart] or items


def _counts(items: Sequence[Item]) -> tuple[int, int, int, int]:
    """How many parsed, truncated, empty and refused."""
    parsed, truncated = sum(item.outcome.parsed for item in items), sum(item.truncated for item in items)
    empty, refused = (sum(item.outcome.reason == reason for item in items) for reason in ("empty", "refused"))
    return parsed, truncated, empty, refused


def _macro(rows: Sequence[Row]) -> Row:
    """Each family counts alike; the interval treats the families as independent and adds their variances."""
    metrics = {metric: _macro_interval([row.metrics[metric] for row in rows]) for metric in rows[0].metrics}
    total = {name: sum(getattr(row, name) for row in rows) for name in ("n", "parsed", "truncated", "empty", "refused")}
    return Row(**total, metrics=metrics)


def _macro_interval(parts: Sequence[Interval]) -> Interval:
    known = [part for part in parts if part.mean is not None]
    if not known:
        return Interval(None, None, None, 0)
    mean = float(np.mean([part.mean for part in known]))
    reach = [
        float(np.sqrt(sum((part.mean - getattr(part, end)) ** 2 for part in known))) / len(known)
        for end in ("low", "high")
    ]
    return Interval(mean, mean - reach[0], mean + reach[1], sum(part.n for part in known))


def _sources(items: Sequence[Item]) -> list[str]:
    return sorted({item.source for item in items})


def _plain(rows: Mapping[str, Row]) -> dict[str, Any]:
    return {name: asdict(row) for name, row in rows.items()}
