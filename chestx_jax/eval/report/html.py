"""One self-contained HTML page: overview with bars and intervals, paired differences, and a browser of all items.

The page opens from file://, asks nothing of the network (a content security policy forbids it), and every text reaches
it escaped: the tables through `html.escape`, the items as JSON that the script turns into text nodes.
"""

import json
from collections.abc import Hashable, Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from chestx_jax.data.schema import options
from chestx_jax.eval.answers.parsing import reasoning_text
from chestx_jax.eval.predictions.records import Prediction
from chestx_jax.eval.report.tables import (
    HEADINGS,
    ROW_NAMES,
    Rows,
    blind_rows,
    calibration_rows,
    cell,
    difference_rows,
    grouped,
    known_metrics,
    label_rows,
    source_rows,
)
from chestx_jax.eval.report.thumbnails import data_urls
from chestx_jax.eval.statistics.comparison import Comparison
from chestx_jax.eval.statistics.intervals import Interval
from chestx_jax.eval.statistics.scores import SHARES, Evaluation, Item
from chestx_jax.files import write_text

Curves = Mapping[str, Sequence[Mapping[str, Any]]]
SHOWN = ("factuality", "completeness", "effectiveness", "ground_truth_factuality", "f1", "ratescore")


def write_report(path: str | Path, comparison: Comparison, title: str, run: Mapping[str, Any], curves: Curves) -> None:
    """Writes the page, whole or not at all; `run` and `curves` as in `eval.results`."""
    write_text(path, page(comparison, title, run, curves))


def page(comparison: Comparison, title: str, run: Mapping[str, Any], curves: Curves) -> str:
    """The page as text."""
    folder = files("chestx_jax.eval.report")
    read = lambda name: (folder / name).read_text(encoding="utf-8")  # noqa: E731
    counts = ", ".join(f"{name}: {len(predictions)} items" for name, predictions in comparison.predictions.items())
    tables = {
        "By source": source_rows(comparison.evaluations),
        "Without the film": blind_rows(comparison),
        "By label": label_rows(comparison.evaluations),
        "Calibration of the answer's probability": calibration_rows(comparison.evaluations),
    }
    return Template(read("page.html")).substitute(
        title=escape(title),
        subtitle=escape(counts),
        css=read("page.css"),
        js=read("page.js"),
        overview=_overview(comparison.evaluations) + _differences(comparison),
        notes="".join(_section(heading, rows) for heading, rows in tables.items() if len(rows) > 1),
        data=_script_json(page_data(comparison)),
    )


def _section(heading: str, rows: Rows) -> str:
    return f'<section><h2>{escape(heading)}</h2><div class="scroll">{_table(grouped(rows))}</div></section>\n'


def _table(rows: Rows, caption: str = "") -> str:
    head = "".join(f'<th scope="col">{escape(text)}</th>' for text in rows[0])
    body = "".join("<tr>" + "".join(f"<td>{escape(text)}</td>" for text in row) + "</tr>" for row in rows[1:])
    caption = f"<caption>{escape(caption)}</caption>" if caption else ""
    return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def page_data(comparison: Comparison) -> dict[str, Any]:
    """What the item browser shows: every item in order of first appearance, films once each."""
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
        "drawn": None if prediction.drawn is None else [_drawn(text) for text in prediction.drawn],
        "films": list(prediction.images),
        "models": {},
    }


def _drawn(text: str) -> str:
    """`Pleural Effusion|left|worsening` as `left Pleural Effusion, worsening`."""
    label, side, change = [*text.split("|"), "", ""][:3]
    return f"{side} {label}{', ' + change if change else ''}".strip()


def _answer(prediction: Prediction, item: Item) -> dict[str, Any]:
    marks = [[m.start, m.end, m.verdict, m.label, m.step] for m in item.judgement.marks]
    values = {HEADINGS[metric]: item.value(metric) for metric in SHOWN}
    return {
        "pred": prediction.pred,
        "reasoning": reasoning_text(prediction.pred),
        "given": list(item.outcome.given),
        "correct": item.outcome.correct,
        "parsed": item.outcome.parsed,
        "truncated": item.truncated,
        "scores": {name: round(value, 4) for name, value in values.items() if value is not None},
        "marks": marks,
    }


def _script_json(value: Any) -> str:
    """JSON that may stand inside a script element: no `<` can close it, no line separator can break it."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _overview(evaluations: Mapping[str, Evaluation]) -> str:
    metrics = known_metrics(evaluations)
    head = "".join(
        f'<th scope="col">{escape(text)}</th>' for text in ("task", "model", "n", "unparsed", "refused", "cut")
    )
    head += "".join(f'<th scope="col">{escape(HEADINGS[metric])}</th>' for metric in metrics)
    tops = {metric: _top(evaluations, metric) for metric in metrics}
    body = "".join(_overview_rows(evaluations, row, metrics, tops) for row in ROW_NAMES)
    caption = (
        "<caption>Every task family; “closed” is the macro average over the closed families. Films of RSNA and SIIM "
        "beside others count by source alone.</caption>"
    )
    table = f"{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody>"
    return f'<div class="scroll"><table id="overview">{table}</table></div>'


def _overview_rows(
    evaluations: Mapping[str, Evaluation], row: str, metrics: Sequence[str], tops: Mapping[str, float]
) -> str:
    lines: list[str] = []
    for name, evaluation in evaluations.items():
        if row not in evaluation.rows:
            continue
        values = evaluation.rows[row]
        counts = (values.n, values.n - values.parsed, values.refused, values.truncated)
        cells = "".join(f"<td>{count}</td>" for count in counts)
        cells += "".join(_bar_cell(metric, values.metrics[metric], tops[metric]) for metric in metrics)
        first = ' class="first"' if not lines else ""
        lines.append(f'<tr{first}><th scope="row">{row}</th><th scope="row">{escape(name)}</th>{cells}</tr>')
    return "".join(lines)


def _top(evaluations: Mapping[str, Evaluation], metric: str) -> float:
    """Full length of a metric's bars: 1 for shares, the largest bound for counts."""
    if metric in SHARES:
        return 1.0
    return (
        max((r.metrics[metric].high or 0.0 for e in evaluations.values() for r in e.rows.values()), default=1.0) or 1.0
    )


def _bar_cell(metric: str, value: Interval, top: float) -> str:
    if value.mean is None or value.low is None or value.high is None:
        return '<td class="number">–</td>'
    mean, low, high = (max(0.0, min(100.0, 100 * number / top)) for number in (value.mean, value.low, value.high))
    svg = (
        '<svg class="bar" viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true">'
        f'<rect class="track" width="100" height="8"/><rect class="mean" width="{mean:.1f}" height="8"/>'
        '<path class="reach" vector-effect="non-scaling-stroke" '
        f'd="M{low:.1f} 4H{high:.1f}M{low:.1f} 1V7M{high:.1f} 1V7"/></svg>'
    )
    return f'<td class="number">{escape(cell(metric, value))}{svg}</td>'


def _differences(comparison: Comparison) -> str:
    """Each model against the one before it, on the items both answered."""
    captions = {name: f"{name}, paired on common items: points, 95 % interval, p" for name in comparison.changes}
    return "".join(
        f'<div class="scroll">{_table(difference_rows("task", table), captions[name])}</div>'
        for name, table in comparison.changes.items()
    )
