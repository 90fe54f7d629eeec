"""What the item browser shows: every item with its films, texts, answers and judged findings, as plain data."""

from collections.abc import Hashable
from typing import Any

from chestx_jax.data.schema import options, split_drawn
from chestx_jax.eval.answers.parsing import reasoning_text
from chestx_jax.eval.predictions.records import Prediction
from chestx_jax.eval.report.tables import HEADINGS
from chestx_jax.eval.report.thumbnails import data_urls
from chestx_jax.eval.statistics.comparison import Comparison
from chestx_jax.eval.statistics.scores import Item

ITEM_METRICS = ("factuality", "completeness", "effectiveness", "ground_truth_factuality", "f1", "ratescore")


def item_data(comparison: Comparison) -> dict[str, Any]:
    """`{models, items, films}`: every item in order of first appearance with each model's answer; films once each."""
    items: dict[Hashable, dict[str, Any]] = {}
    for name, evaluation in comparison.evaluations.items():
        for prediction, item in zip(comparison.predictions[name], evaluation.items, strict=True):
            entry = items.setdefault(item.key, _entry(prediction))
            entry["models"][name] = _answer(prediction, item)
    urls = data_urls(film for entry in items.values() for film in entry["films"])
    keys = {film: f"f{number}" for number, film in enumerate(urls)}
    for entry in items.values():
        entry["films"] = [keys.get(film, "") for film in entry["films"]]
    films = {keys[film]: url for film, url in urls.items()}
    return {"models": list(comparison.evaluations), "items": list(items.values()), "films": films}


def _entry(prediction: Prediction) -> dict[str, Any]:
    return {
        "id": prediction.sample_id,
        "task": prediction.task,
        "source": prediction.source,
        "stem": prediction.question.partition("Options:")[0].strip(),
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


def _answer(prediction: Prediction, item: Item) -> dict[str, Any]:
    values = {HEADINGS[metric]: item.value(metric) for metric in ITEM_METRICS}
    return {
        "pred": prediction.pred,
        "reasoning": reasoning_text(prediction.pred),
        "given": list(item.outcome.given),
        "correct": item.outcome.correct,
        "parsed": item.outcome.parsed,
        "truncated": item.truncated,
        "scores": {name: round(value, 4) for name, value in values.items() if value is not None},
        "marks": [[m.start, m.end, m.verdict, m.label, m.step] for m in item.judgement.marks],
    }
