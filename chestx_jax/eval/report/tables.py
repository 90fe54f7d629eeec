"""The tables of a comparison as rows of cells (header first), and rows as console text, CSV and LaTeX."""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from chestx_jax.eval.statistics.blind_baselines import GUESSERS, VIEW
from chestx_jax.eval.statistics.comparison import BLIND, Comparison
from chestx_jax.eval.statistics.intervals import Difference, Interval
from chestx_jax.eval.statistics.scores import METRICS, SHARES, Evaluation, Row
from chestx_jax.labels import TASKS

Evaluations = Mapping[str, Evaluation]
Rows = list[list[str]]
ROW_NAMES = (*TASKS, "closed", "all")
# Of the tables a run prints; its page has all metrics.
PRINTED = (
    "accuracy", "f1", "ratescore", "factuality", "completeness", "radrscore", "process",
    "ground_truth_factuality", "words",
)  # fmt: skip
HEADINGS = {metric: metric for metric in METRICS} | {
    "f1": "label F1",
    "ratescore": "RaTEScore",
    "radrscore": "RadRScore",
    "ground_truth_factuality": "ground-truth factuality",
}


def cell(metric: str, value: Interval) -> str:
    """A mean with its interval, `83.7 [79.4, 87.8]`; a dash where there is none."""
    if value.mean is None:
        return "–"
    mean, low, high = (scale(metric) * number for number in (value.mean, value.low or 0.0, value.high or 0.0))
    return f"{mean:.1f} [{low:.1f}, {high:.1f}]"


def delta(metric: str, value: Difference) -> str:
    """A paired difference, `+3.1 [+0.4, +5.8] p=0.021`."""
    if not (numbers := _scaled(metric, value)):
        return "–"
    mean, low, high = numbers
    return f"{mean:+.1f} [{low:+.1f}, {high:+.1f}] p={value.p:.3f}"


def signed(value: float) -> str:
    """A difference with its sign: `+3.1`, `−0.4`, `0.0`."""
    text = f"{value:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text.replace("-", "−")


def scale(metric: str) -> int:
    """What a metric is multiplied with to be shown: shares are percent."""
    return 100 if metric in SHARES else 1


def closing_tables(comparison: Comparison) -> str:
    """All that a run prints at its end: scores by task and by source, what is had without the film, the changes."""
    evaluations = comparison.evaluations
    tables = [aligned(grouped(task_rows(evaluations, PRINTED)))]
    if len(source_names(evaluations)) > 1:
        tables.append(aligned(grouped(source_rows(evaluations))))
    if comparison.guessers or comparison.blind_accuracy:
        heading = "accuracy without the film (percent), and how many points above the best of it each model is"
        tables.append(f"{heading}\n{aligned(blind_rows(comparison))}")
    tables += [aligned(difference_rows(name, table, PRINTED)) for name, table in comparison.changes.items()]
    return "\n".join(tables)


def task_rows(evaluations: Evaluations, metrics: Sequence[str] = METRICS) -> Rows:
    """Models side by side, family by family; metrics that no model has a value for are left out."""
    metrics = [m for m in known_metrics(evaluations) if m in metrics]
    return _score_rows("task", {name: e.rows for name, e in evaluations.items()}, ROW_NAMES, metrics)


def source_rows(evaluations: Evaluations) -> Rows:
    """Accuracy, factuality and counts by where the films come from, so that other centres stand apart."""
    metrics = [m for m in ("accuracy", "factuality", "completeness") if m in known_metrics(evaluations)]
    sources = source_names(evaluations)
    return _score_rows("source", {name: e.sources for name, e in evaluations.items()}, sources, metrics)


def source_names(evaluations: Evaluations) -> list[str]:
    """Where the films come from."""
    return sorted({source for evaluation in evaluations.values() for source in evaluation.sources})


def blind_rows(comparison: Comparison) -> Rows:
    """Accuracy without the film by task: of each guesser, of the model trained blind, the best of these (percent); of
    the guesser that knows the views, where they are known; and how many points each model is above the best."""
    guessers, best, models = comparison.guessers, comparison.blind_accuracy, comparison.sighted
    viewed = [VIEW] if any(VIEW in row for row in guessers.values()) else []
    blind_model = comparison.evaluations.get(BLIND)
    rows = []
    for task in (task for task in ROW_NAMES if task in guessers or task in best):
        guessed = [_percent(guessers.get(task, {}).get(guesser)) for guesser in GUESSERS]
        trained = [_percent(blind_model.mean(task, "accuracy"))] if blind_model else []
        by_view = [_percent(guessers.get(task, {}).get(name)) for name in viewed]
        above = [_above(comparison, m, task) for m in models]
        rows.append([task, *guessed, *trained, _percent(best.get(task)), *by_view, *above])
    trained_heading = ["blind model"] if blind_model else []
    return [["task", *GUESSERS, *trained_heading, "best", *viewed, *(f"{name} above" for name in models)], *rows]


def label_rows(evaluations: Evaluations) -> Rows:
    """Yes/no questions and open answers by label: percent, a dash where nothing counts; balanced accuracy with its
    interval, also of the mean over labels."""
    labels = sorted({label for evaluation in evaluations.values() for label in evaluation.labels})
    rows = [
        [label, name, *_label_cells(row)]
        for label in labels
        for name, evaluation in evaluations.items()
        if (row := evaluation.labels.get(label))
    ]
    columns = ("yes/no asked", "sensitivity", "specificity", "balanced accuracy", "open named", "recall", "precision")
    return [["label", "model", *columns], *rows]


def _label_cells(row: Mapping[str, Any]) -> list[str]:
    balanced = row["balanced_accuracy"]
    yes_no = [str(row["asked"]), *(_percent(row[key], 0) for key in ("sensitivity", "specificity"))]
    yes_no.append(cell("accuracy", Interval(**balanced)) if balanced else "–")
    return [*yes_no, str(row["named"]), *(_percent(row[key], 0) for key in ("recall", "precision"))]


def calibration_rows(evaluations: Evaluations) -> Rows:
    """How sure each model was of its answers and how often it was right, overall and in tenths of the probability it
    gave them: Brier score and expected calibration error (0: as often right as it says)."""
    rows = []
    for name, evaluation in evaluations.items():
        if calibration := evaluation.calibration:
            tenths = [(f"{i / 10:.1f}–{(i + 1) / 10:.1f}", bin) for i, bin in enumerate(calibration["bins"])]
            errors = [f"{calibration[key]:.3f}" for key in ("brier", "expected_error")]
            rows.append([name, "all", *_calibration_cells(calibration["bins"]), *errors])
            rows += [[name, tenth, *_calibration_cells([bin]), "", ""] for tenth, bin in tenths if bin["n"]]
    header = ["model", "probability", "n", "mean probability", "accuracy", "Brier score", "calibration error"]
    return [header, *rows]


def _calibration_cells(bins: Sequence[Mapping[str, Any]]) -> list[str]:
    """Number of answers in the bins, their mean probability and accuracy in percent."""
    filled = [bin for bin in bins if bin["n"]]
    n = sum(bin["n"] for bin in filled)
    return [str(n), *(_percent(sum(b["n"] * b[key] for b in filled) / n, 0) for key in ("probability", "accuracy"))]


def difference_rows(name: str, table: Mapping[str, Mapping[str, Difference]], metrics: Sequence[str] = METRICS) -> Rows:
    """Paired differences (points, 95 % interval, p) of two models, families down and metrics across."""
    metrics = [m for m in metrics if any(m in row and row[m].n for row in table.values())]
    rows = [
        [row, str(max(d.n for d in cells.values())), *(delta(m, cells[m]) for m in metrics)]
        for row, cells in table.items()
    ]
    return [[name, "n", *(HEADINGS[m] for m in metrics)], *rows]


def csv_table(evaluations: Evaluations) -> str:
    """One line per model, row and metric: `model,row,metric,mean,low,high,n` in fractions."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["model", "row", "metric", "mean", "low", "high", "n"])
    for name, evaluation in evaluations.items():
        for row, values in evaluation.rows.items():
            for metric, value in values.metrics.items():
                writer.writerow([name, row, metric, value.mean, value.low, value.high, value.n])
    return out.getvalue()


def latex_table(evaluations: Evaluations) -> str:
    r"""A `booktabs` tabular: families down, models within, percent with the interval as sub- and superscript."""
    metrics = [m for m in known_metrics(evaluations) if m in SHARES and m != "ground_truth_factuality"]
    lines = [r"\begin{tabular}{ll" + "r" * (len(metrics) + 1) + "}", r"\toprule"]
    lines.append(" & ".join(["Task", "Model", "$n$", *(_latex(HEADINGS[m]) for m in metrics)]) + r" \\")
    for row in ROW_NAMES:
        present = [(name, e.rows[row]) for name, e in evaluations.items() if row in e.rows]
        lines += [r"\midrule"] if present else []
        for name, values in present:
            cells = [_latex_cell(m, values.metrics[m]) for m in metrics]
            lines.append(" & ".join([row, _latex(name), str(values.n), *cells]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def file_table(document: Mapping[str, Any], columns: Sequence[str]) -> str:
    """The files of a scores document and their macro and micro means, one row each."""
    rows = [(file["file"], file) for file in document["files"]] + [(key, document[key]) for key in ("macro", "micro")]
    return aligned([["file", *columns], *([name, *(number(row.get(c)) for c in columns)] for name, row in rows)])


def number(value: float | None) -> str:
    """A cell of a file's scores: fractions as percent, counts as they are, a dash for None."""
    return _percent(value, 2) if value is None or isinstance(value, float) else str(value)


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Columns padded to their widest cell, a rule under the header; the first two columns to the left."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    padded = [[text.ljust(w) if i < 2 else text.rjust(w) for i, (text, w) in enumerate(zip(row, widths, strict=True))]
              for row in rows]  # fmt: skip
    lines = ["  ".join(row).rstrip() for row in padded]
    return "\n".join([lines[0], "  ".join("─" * width for width in widths), *lines[1:]]) + "\n"


def grouped(rows: Sequence[Sequence[str]]) -> Rows:
    """The first cell once per group of rows that share it."""
    return [["" if i and rows[i - 1][0] == row[0] else row[0], *row[1:]] for i, row in enumerate(rows)]


def known_metrics(evaluations: Evaluations) -> list[str]:
    """The metrics that some model has a value for."""
    return [m for m in METRICS if any(e.rows["all"].metrics[m].mean is not None for e in evaluations.values())]


def _score_rows(
    heading: str, scores: Mapping[str, Mapping[str, Row]], names: Sequence[str], metrics: Sequence[str]
) -> Rows:
    """One row per name (a task, a source) and model: counts, then the metrics with their intervals."""
    rows = [[heading, "model", "n", "unparsed", "refused", "cut", *(HEADINGS[m] for m in metrics)]]
    for name in names:
        for model, model_rows in scores.items():
            if row := model_rows.get(name):
                counts = [str(count) for count in (row.n, row.n - row.parsed, row.refused, row.truncated)]
                rows.append([name, model, *counts, *(cell(m, row.metrics[m]) for m in metrics)])
    return rows


def _above(comparison: Comparison, model: str, task: str) -> str:
    accuracy, blind = comparison.evaluations[model].mean(task, "accuracy"), comparison.blind_accuracy.get(task)
    return "–" if accuracy is None or blind is None else signed(100 * (accuracy - blind))


def _percent(share: float | None, digits: int = 1) -> str:
    return "–" if share is None else f"{100 * share:.{digits}f}"


def _scaled(metric: str, value: Interval | Difference) -> tuple[float, float, float] | None:
    """Mean and bounds as they are shown; None where one is missing."""
    if value.mean is None or value.low is None or value.high is None:
        return None
    return scale(metric) * value.mean, scale(metric) * value.low, scale(metric) * value.high


def _latex_cell(metric: str, value: Interval) -> str:
    if not (numbers := _scaled(metric, value)):
        return "--"
    mean, low, high = numbers
    return f"${mean:.1f}_{{{low:.1f}}}^{{{high:.1f}}}$"


def _latex(text: str) -> str:
    special = {character: f"\\{character}" for character in "&%$#_{}"}
    special |= {"~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\\": r"\textbackslash{}"}
    return "".join(special.get(character, character) for character in text)
