"""One self-contained HTML page: headline figures, training curves, tables, and a browser of all items.

The page opens from file://, asks nothing of the network (a content security policy forbids it), and every text reaches
it escaped: tables and charts through `html.escape`, the items as JSON that the script turns into text nodes.
"""

import json
from collections.abc import Mapping
from html import escape
from importlib.resources import files
from string import Template
from typing import Any

from chestx_jax.eval.report.headlines import headline_tiles
from chestx_jax.eval.report.html_tables import difference_table, score_table, text_table
from chestx_jax.eval.report.items import item_data
from chestx_jax.eval.report.tables import blind_rows, calibration_rows, label_rows, source_names, source_rows
from chestx_jax.eval.report.training import Curves, progress_notes, training_charts
from chestx_jax.eval.statistics.comparison import Comparison

FOLDED = ("Changes", "Without the film", "By source", "By label", "Calibration")  # closed at first on a phone


def report_page(comparison: Comparison, title: str, run: Mapping[str, Any], curves: Curves) -> str:
    """The page as text; `run` as in `scores.json`, `curves` as in `eval.results`."""
    folder = files("chestx_jax.eval.report")
    read = lambda name: (folder / name).read_text(encoding="utf-8")  # noqa: E731
    sections = {
        "Results": headline_tiles(comparison),
        "Training": training_charts(curves),
        "Scores": score_table(comparison.evaluations) if comparison.evaluations else "",
        **_tables(comparison),
    }
    shown = {heading: html for heading, html in sections.items() if html}
    return Template(read("page.html")).substitute(
        title=escape(title),
        subtitle=escape(_subtitle(run)),
        status=_status(run, curves),
        links="".join(f'<a href="#{_anchor(heading)}">{escape(heading)}</a>' for heading in shown),
        css=read("page.css"),
        js=read("page.js"),
        sections="".join(_section(heading, html) for heading, html in shown.items()),
        data=_script_json(item_data(comparison)),
    )


def _tables(comparison: Comparison) -> dict[str, str]:
    """The tables below the scores, by heading; empty text where there is nothing to show."""
    evaluations = comparison.evaluations
    several_sources = len(source_names(evaluations)) > 1
    blind, labels, calibration = blind_rows(comparison), label_rows(evaluations), calibration_rows(evaluations)
    blind_caption = (
        "Accuracy in percent of guessers that never see a film (fitted on letters, labels, order of labels, and all "
        "three), and how many points each model is above the best of them. Where the views of "
        "films are known, also of a guesser that knows the question and the view."
    )
    label_caption = (
        "Percent. Yes/no questions about the label: how many were asked, sensitivity, specificity, and the mean of "
        "both with its interval (by patient, where patients are known). Open questions whose answer names it: how "
        "many, recall, precision."
    )
    calibration_caption = (
        "The probability a model gave its answers against how often they were right (percent), overall and in tenths. "
        "Brier score and calibration error are 0 at best."
    )
    return {
        "Changes": "".join(difference_table(name, table) for name, table in comparison.changes.items()),
        "Without the film": text_table(blind, blind_caption) if len(blind) > 1 else "",
        "By source": text_table(source_rows(evaluations), "Percent with 95 % intervals.", 2) if several_sources else "",
        "By label": text_table(labels, label_caption, 2) if len(labels) > 1 else "",
        "Calibration": text_table(calibration, calibration_caption, 2) if len(calibration) > 1 else "",
    }


def _subtitle(run: Mapping[str, Any]) -> str:
    """How many samples were asked, and which models have not answered them all."""
    asked, answered = run["asked"], run["answered"]
    if asked is None:
        return ", ".join(f"{name}: {count:,} answers" for name, count in answered.items())
    missing = [f"{name} has answered {count:,}" for name, count in answered.items() if count != asked]
    return "; ".join([f"{', '.join(answered) or 'nothing yet'} on {asked:,} samples", *missing])


def _status(run: Mapping[str, Any], curves: Curves) -> str:
    """A line about what is still to come, while a job runs."""
    if not run["awaited"]:
        return ""
    tested = ", ".join(run["answered"]) or "nothing"
    text = f"The job is running: {tested} tested, {', '.join(run['awaited'])} still to come."
    steps = progress_notes(curves)
    text += f" Recorded so far: {steps}." if steps else ""
    return f'<p class="status" role="status">{escape(text)} This page is written anew after each test.</p>'


def _section(heading: str, html: str) -> str:
    anchor = _anchor(heading)
    title = f'<h2 id="{anchor}">{escape(heading)}</h2>'
    if heading in FOLDED:
        html = f'<details class="fold" open><summary>{title}</summary>{html}</details>'
        title = ""
    return f'<section aria-labelledby="{anchor}">{title}{html}</section>\n'


def _anchor(heading: str) -> str:
    return heading.lower().replace(" ", "-")


def _script_json(value: Any) -> str:
    """JSON that may stand inside a script element: no `<` can close it, no line separator can break it."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
