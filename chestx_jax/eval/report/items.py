"""What the item browser shows: every item with its films, texts, answers and judged findings, as plain data."""

from collections.abc import Hashable, Iterable
from typing import Any

from chestx_jax.data.questions import options, parts
from chestx_jax.data.schema import split_drawn
from chestx_jax.errors import UserError
from chestx_jax.eval.answers.parsing import reasoning_text
from chestx_jax.eval.predictions.records import Prediction
from chestx_jax.eval.report.tables import HEADINGS
from chestx_jax.eval.statistics.comparison import Comparison
from chestx_jax.eval.statistics.scores import Item
from chestx_jax.tokens.data_urls import jpeg_url

ITEM_METRICS = ("factuality", "completeness", "effectiveness", "ground_truth_factuality", "f1", "ratescore")
BUDGET = 12_000_000  # bytes of data URLs a page may spend on films
LADDER = ((168, 70), (168, 45), (112, 45), (84, 35), (56, 30))  # (longer side in pixels, JPEG quality)


def item_data(comparison: Comparison) -> dict[str, Any]:
    """`{models, items, films}`: every item in order of first appearance with each model's answer; films once each."""
    items: dict[Hashable, dict[str, Any]] = {}
    for name, evaluation in comparison.evaluations.items():
        for item in evaluation.items:
            items.setdefault(item.key, _entry(item.prediction))["models"][name] = _answer(item)
    urls = data_urls(film for entry in items.values() for film in entry["films"])
    keys = {film: f"f{number}" for number, film in enumerate(urls)}
    for entry in items.values():
        entry["films"] = [keys.get(film, "") for film in entry["films"]]
    films = {keys[film]: url for film, url in urls.items()}
    return {"models": list(comparison.evaluations), "items": list(items.values()), "films": films}


def data_urls(paths: Iterable[str]) -> dict[str, str]:
    """Data URL by path, at the best size of the ladder at which all fit `BUDGET`; unreadable films are left out.

    The size is chosen on a sample of the films, since neighbours on the ladder differ by a factor and films do not.
    """
    distinct = sorted(set(paths))
    if not distinct:
        return {}
    probe = distinct[:: max(1, len(distinct) // 16)]
    for size, quality in LADDER:
        if sum(len(_data_url(path, size, quality)) for path in probe) * len(distinct) / len(probe) <= BUDGET:
            break
    urls = ((path, _data_url(path, size, quality)) for path in distinct)
    return {path: url for path, url in urls if url}


def _entry(prediction: Prediction) -> dict[str, Any]:
    return {
        "id": prediction.sample_id,
        "task": prediction.task,
        "source": prediction.source,
        "stem": parts(prediction.question).stem,
        "question": prediction.question,
        "options": options(prediction.question),
        "answer": prediction.answer,
        "reports": list(prediction.reports),
        "steps": list(prediction.steps),
        "drawn": None if prediction.drawn is None else [_drawn_finding(text) for text in prediction.drawn],
        "films": list(prediction.images),
        "models": {},
    }


def _drawn_finding(text: str) -> str:
    """`Pleural Effusion|left|worsening` as `left Pleural Effusion, worsening`."""
    drawn = split_drawn(text)
    return f"{drawn.side} {drawn.label}{', ' + drawn.change if drawn.change else ''}".strip()


def _answer(item: Item) -> dict[str, Any]:
    values = {HEADINGS[metric]: item.value(metric) for metric in ITEM_METRICS}
    return {
        "pred": item.prediction.pred,
        "reasoning": reasoning_text(item.prediction.pred),
        "given": list(item.outcome.given),
        "correct": item.outcome.correct,
        "parsed": item.outcome.parsed,
        "truncated": item.prediction.truncated,
        "scores": {name: round(value, 4) for name, value in values.items() if value is not None},
        "marks": [[m.start, m.end, m.verdict, m.label, m.step] for m in item.judgement.marks],
    }


def _data_url(path: str, size: int, quality: int) -> str:
    """Empty for a film that cannot be read: a page shows a note in its place."""
    try:
        return jpeg_url(path, size, "L", quality=quality, optimize=True)
    except UserError:
        return ""
