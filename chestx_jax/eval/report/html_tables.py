"""The page's tables as HTML. Wide ones fold into cards on a narrow screen: each cell carries its column's name."""

from collections.abc import Mapping, Sequence
from html import escape
from itertools import groupby

from chestx_jax.eval.report.tables import HEADINGS, Evaluations, Rows, known_metrics, scale, signed
from chestx_jax.eval.statistics.intervals import Difference, Interval
from chestx_jax.eval.statistics.scores import METRICS, SHARES, Row
from chestx_jax.labels import TASKS

FAMILIES = {
    "binary": "yes or no",
    "single": "one finding",
    "multiple": "several findings",
    "anomaly": "open question",
    "temporal": "two films",
    "closed": "mean of the closed",
    "all": "every question",
}


def table(header: Sequence[str], rows: Sequence[Sequence[str]], caption: str, headings: int = 1) -> str:
    """A table of cells that are HTML already; the first `headings` columns head their rows, and the first of two such
    columns is written once for all rows that share it."""
    columns = "".join(f'<th scope="col" role="columnheader">{name}</th>' for name in header)
    bodies = "".join(_body(header, list(group), headings) for _, group in groupby(rows, key=lambda row: row[0]))
    head = f'<thead role="rowgroup"><tr role="row">{columns}</tr></thead>'
    return f'<table class="report" role="table"><caption>{caption}</caption>{head}{bodies}</table>'


def text_table(rows: Rows, caption: str, headings: int = 1) -> str:
    """A table of plain text, header first."""
    cells = [[escape(text) for text in row] for row in rows]
    return table(cells[0], cells[1:], escape(caption), headings)


def score_table(evaluations: Evaluations) -> str:
    """Every family, model and metric: mean, interval, bar."""
    metrics = known_metrics(evaluations)
    longest = {metric: _longest(evaluations, metric) for metric in metrics}
    rows = [
        [
            _family(name),
            escape(model),
            _counts(row),
            *(_score_cell(metric, row.metrics[metric], longest[metric]) for metric in metrics),
        ]
        for name in ("all", "closed", *TASKS)
        for model, evaluation in evaluations.items()
        if (row := evaluation.rows.get(name))
    ]
    caption = (
        "Percent (claims, words and tokens are counts) with the 95&nbsp;% interval: Wilson’s for what is right or "
        "wrong, else bootstrapped. Films of RSNA and SIIM beside others count by source alone."
    )
    return table(["task", "model", "n", *(HEADINGS[metric] for metric in metrics)], rows, caption, headings=2)


def difference_table(name: str, differences: Mapping[str, Mapping[str, Difference]]) -> str:
    """Paired differences of two models; those whose interval leaves out zero stand out."""
    metrics = [m for m in METRICS if any(m in row and row[m].n for row in differences.values())]
    rows = [
        [_family(row), str(max(d.n for d in cells.values())), *(_difference_cell(m, cells[m]) for m in metrics)]
        for row, cells in sorted(differences.items(), key=lambda pair: pair[0] != "all")
    ]
    caption = (
        f"{escape(name)}, paired on the questions that both answered: points (counts for claims, words and tokens), "
        "95&nbsp;% interval, p; bold where the interval leaves out 0."
    )
    return table(["task", "n", *(HEADINGS[metric] for metric in metrics)], rows, caption)


def _body(header: Sequence[str], rows: Sequence[Sequence[str]], headings: int) -> str:
    lines = []
    for number, row in enumerate(rows):
        cells = []
        if headings == 2 and number == 0:
            cells.append(f'<th class="group" scope="rowgroup" role="rowheader" rowspan="{len(rows)}">{row[0]}</th>')
        cells.append(f'<th scope="row" role="rowheader">{row[headings - 1]}</th>')
        for name, cell in zip(header[headings:], row[headings:], strict=True):
            kind = "empty" if cell in ("", "–") else "value"  # a card leaves empty ones out
            cells.append(f'<td role="cell" class="{kind}" data-label="{name}">{cell}</td>')
        lines.append(f'<tr role="row">{"".join(cells)}</tr>')
    return f'<tbody role="rowgroup">{"".join(lines)}</tbody>'


def _family(name: str) -> str:
    note = FAMILIES.get(name, "")
    return f"{escape(name)}<small>{note}</small>" if note else escape(name)


def _counts(row: Row) -> str:
    """The number of items, and what went wrong with some of them."""
    problems = {"unparsed": row.n - row.parsed, "refused": row.refused, "cut off": row.truncated}
    notes = "".join(f"<small>{count} {name}</small>" for name, count in problems.items() if count)
    return f"{row.n}{notes}"


def _longest(evaluations: Evaluations, metric: str) -> float:
    """The value of a full bar: 1 for shares, the largest bound for counts."""
    bounds = [row.metrics[metric].high or 0.0 for e in evaluations.values() for row in e.rows.values()]
    return 1.0 if metric in SHARES else max(bounds, default=0.0) or 1.0


def _score_cell(metric: str, value: Interval, longest: float) -> str:
    if value.mean is None or value.low is None or value.high is None:
        return "–"
    mean, low, high = (scale(metric) * number for number in (value.mean, value.low, value.high))
    bar_mean, bar_low, bar_high = (max(0.0, 100 * x / longest) for x in (value.mean, value.low, value.high))
    bar = (
        '<svg class="bar" viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true">'
        f'<rect class="track" width="100" height="8"/><rect class="mean" width="{bar_mean:.1f}" height="8"/>'
        f'<path class="reach" vector-effect="non-scaling-stroke" d="M{bar_low:.1f} 4H{bar_high:.1f}"/></svg>'
    )
    reach = f"{low:.1f} to {high:.1f}" if low < 0 else f"{low:.1f}–{high:.1f}"
    return f"{mean:.1f}<small>{reach}</small>".replace("-", "−") + bar


def _difference_cell(metric: str, value: Difference) -> str:
    if value.mean is None or value.low is None or value.high is None:
        return "–"
    mean, low, high = (scale(metric) * number for number in (value.mean, value.low, value.high))
    figure = signed(mean) if low <= 0 <= high else f"<b>{signed(mean)}</b>"
    return f"{figure}<small>{signed(low)} to {signed(high)}</small><small>p = {value.p:.3f}</small>"
