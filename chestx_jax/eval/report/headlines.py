"""The three or four figures that a reader wants first, each with its interval and one sentence."""

from collections.abc import Iterator
from dataclasses import dataclass
from html import escape

from chestx_jax.eval.report.tables import signed
from chestx_jax.eval.statistics.comparison import Comparison
from chestx_jax.eval.statistics.intervals import Difference, Interval


@dataclass(frozen=True)
class Headline:
    """One tile: what is measured, the figure with its unit, its 95 % interval, and what it means."""

    title: str
    figure: str
    unit: str
    interval: str
    sentence: str


def headlines(comparison: Comparison) -> list[Headline]:
    """Of the last model: accuracy over what is had without the film, and factuality; and what the last step changed."""
    if not comparison.sighted:
        return []
    return [*_scores(comparison, comparison.sighted[-1]), *_changes(comparison)]


def headline_tiles(comparison: Comparison) -> str:
    """The headlines as HTML."""
    tiles = [
        f'<div class="tile"><h3>{escape(h.title)}</h3>'
        f'<p class="figure">{escape(h.figure)}<span> {escape(h.unit)}</span></p>'
        f'<p class="interval">95&nbsp;% interval {escape(h.interval)}</p><p>{escape(h.sentence)}</p></div>'
        for h in headlines(comparison)
    ]
    return f'<div class="tiles">{"".join(tiles)}</div>' if tiles else ""


def _scores(comparison: Comparison, model: str) -> Iterator[Headline]:
    rows, blind = comparison.evaluations[model].rows, comparison.blind_accuracy.get("closed")
    accuracy = rows["closed" if "closed" in rows else "all"].metrics["accuracy"]
    if accuracy.mean is not None:
        questions = "closed questions" if "closed" in rows else "questions"
        sentence = f"{model} answers {_percent(accuracy.mean)} % of the {questions} right"
        if "closed" in rows and blind is not None:
            sentence += f"; {_percent(blind)} % can be had without seeing the film."
            bounds = (value - blind for value in (accuracy.mean, accuracy.low or 0.0, accuracy.high or 0.0))
            yield Headline("Accuracy over blind", *_points(*bounds), sentence)
        else:
            yield Headline("Accuracy", *_share(accuracy), sentence + ".")
    factuality, truth = (rows["all"].metrics[name] for name in ("factuality", "ground_truth_factuality"))
    if factuality.mean is not None:
        sentence = f"Share of what {model} says that the reports bear out, mean over {factuality.n:,} answers"
        if truth.mean is not None:
            sentence += f"; {_percent(truth.mean)} % agrees with what was drawn"
        yield Headline("Factuality", *_share(factuality), sentence + ".")


def _changes(comparison: Comparison) -> Iterator[Headline]:
    """The paired differences of the last two models that see the films."""
    if len(comparison.sighted) < 2:
        return
    before, after = comparison.sighted[-2:]
    row = comparison.changes.get(f"{after} minus {before}", {}).get("all", {})
    for metric in ("accuracy", "factuality"):
        difference = row.get(metric)
        if difference is not None and difference.mean is not None:
            yield Headline(
                f"What {after} changed: {metric}",
                *_points(difference.mean, difference.low or 0.0, difference.high or 0.0),
                _change_sentence(after, before, difference),
            )


def _change_sentence(after: str, before: str, difference: Difference) -> str:
    """Whether a change is more than chance, by its interval."""
    low, high = difference.low or 0.0, difference.high or 0.0
    verdict = (
        f"{after} is better than" if low > 0 else f"{after} is worse than" if high < 0 else "No clear difference from"
    )
    return f"{verdict} {before} on the same {difference.n:,} questions (p = {difference.p:.3f})."


def _points(mean: float, low: float, high: float) -> tuple[str, str, str]:
    """Figure, unit and interval of a difference of shares."""
    return signed(100 * mean), "points", f"{signed(100 * low)} to {signed(100 * high)}"


def _share(interval: Interval) -> tuple[str, str, str]:
    low, high = interval.low or 0.0, interval.high or 0.0
    return _percent(interval.mean or 0.0), "%", f"{_percent(low)} to {_percent(high)}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"
