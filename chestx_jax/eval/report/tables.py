"""The same rows as console text, CSV and LaTeX: one line per task family and model, percent with 95 % intervals."""

import csv
import io
from collections.abc import Mapping, Sequence

from chestx_jax.eval.statistics.bootstrap import Difference, Interval
from chestx_jax.eval.statistics.scores import LENGTHS, METRICS, Evaluation, Row
from chestx_jax.types import TASKS

ROWS = (*TASKS, "closed", "all")
PERCENT = tuple(metric for metric in METRICS if metric != "claims")
HEADINGS = {
    "accuracy": "accuracy",
    "f1": "label F1",
    "ratescore": "RaTEScore",
    "factuality": "factuality",
    "completeness": "complete",
    "effectiveness": "effective",
    "radrscore": "RadRScore",
    "ground_truth_factuality": "ground-truth factuality",
    "claims": "claims",
    "words": "words",
    "tokens": "tokens",
}


def cell(metric: str, value: Interval) -> str:
    """A mean with its interval, `83.7 [79.4, 87.8]`; a dash where there is none."""
    if value.mean is None:
        return "–"
    scale = 100 if metric in PERCENT else 1
    mean, low, high = (scale * number for number in (value.mean, value.low or 0.0, value.high or 0.0))
    return f"{mean:.1f} [{low:.1f}, {high:.1f}]"


def comparison_table(evaluations: Mapping[str, Evaluation], metrics: Sequence[str] = (*METRICS, *LENGTHS)) -> str:
    """Models side by side, family by family, as aligned text; metrics no model has a value for are left out."""
    shown = [m for m in metrics if _known(evaluations, m)]
    header = ["task", "model", "n", "unparsed", "refused", "cut", *(HEADINGS[m] for m in shown)]
    lines = [[row, *line] for row in ROWS for line in _lines(evaluations, row, shown)]
    return aligned([header, *_grouped(lines)])


def source_table(evaluations: Mapping[str, Evaluation]) -> str:
    """Accuracy, factuality and counts by where the films come from, so that other centres stand apart."""
    metrics = [m for m in ("accuracy", "factuality", "completeness") if _known(evaluations, m)]
    header = ["source", "model", "n", "unparsed", "refused", "cut", *(HEADINGS[m] for m in metrics)]
    names = sorted({name for evaluation in evaluations.values() for name in evaluation.sources})
    rows = [
        [source, name, *_counts(e.sources[source]), *(cell(m, e.sources[source].metrics[m]) for m in metrics)]
        for source in names
        for name, e in evaluations.items()
        if source in e.sources
    ]
    return aligned([header, *_grouped(rows)])


def label_table(evaluations: Mapping[str, Evaluation]) -> str:
    """Yes/no questions and open answers by label: percent, a dash where nothing counts."""
    asked, named = ("sensitivity", "specificity"), ("recall", "precision")
    percent = lambda value: "–" if value is None else f"{100 * value:.0f}"  # noqa: E731
    rows = []
    for label in sorted({label for evaluation in evaluations.values() for label in evaluation.labels}):
        for name, evaluation in evaluations.items():
            if row := evaluation.labels.get(label):
                first = [str(row["asked"]), *(percent(row[key]) for key in asked)]
                rows.append([label, name, *first, str(row["named"]), *(percent(row[key]) for key in named)])
    return aligned([["label", "model", "asked", *asked, "open", *named], *_grouped(rows)])


def calibration_table(evaluations: Mapping[str, Evaluation]) -> str:
    """How sure each model was of its answers and how often it was right, in tenths of the probability it gave them:
    Brier score and expected calibration error (0: as often right as it says)."""
    rows = []
    for name, evaluation in evaluations.items():
        if found := evaluation.calibration:
            rows.append(
                [name, "all", str(found["n"]), f"Brier {found['brier']:.3f}", f"error {found['expected_error']:.3f}"]
            )
            for i, part in enumerate(found["bins"]):
                if part["n"]:
                    shares = (f"{100 * part[key]:.0f}" for key in ("said", "right"))
                    rows.append(["", f"{i / 10:.1f}–{(i + 1) / 10:.1f}", str(part["n"]), *shares])
    return aligned([["model", "probability", "n", "said %", "right %"], *rows])


def difference_table(name: str, table: Mapping[str, Mapping[str, Difference]]) -> str:
    """Paired differences (points, 95 % interval, p) of two models, families down and metrics across."""
    metrics = [m for m in (*METRICS, *LENGTHS) if any(m in row and row[m].n for row in table.values())]
    lines = [
        [row, str(max(d.n for d in cells.values())), *(delta(m, cells[m]) for m in metrics)]
        for row, cells in table.items()
    ]
    return aligned([[name, "n", *(HEADINGS[m] for m in metrics)], *lines])


def delta(metric: str, value: Difference) -> str:
    """A paired difference, `+3.1 [+0.4, +5.8] p=0.021`."""
    if value.mean is None or value.low is None or value.high is None:
        return "–"
    scale = 100 if metric in PERCENT else 1
    return f"{scale * value.mean:+.1f} [{scale * value.low:+.1f}, {scale * value.high:+.1f}] p={value.p:.3f}"


def csv_table(evaluations: Mapping[str, Evaluation]) -> str:
    """One line per model, row and metric: `model,row,metric,mean,low,high,n` in fractions."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["model", "row", "metric", "mean", "low", "high", "n"])
    for name, evaluation in evaluations.items():
        for row, values in evaluation.rows.items():
            for metric, value in values.metrics.items():
                writer.writerow([name, row, metric, value.mean, value.low, value.high, value.n])
    return out.getvalue()


def latex_table(evaluations: Mapping[str, Evaluation], metrics: Sequence[str] = METRICS[:7]) -> str:
    r"""A `booktabs` tabular: families down, models within, percent with the interval as sub- and superscript."""
    shown = [m for m in metrics if _known(evaluations, m)]
    lines = [r"\begin{tabular}{ll" + "r" * (len(shown) + 1) + "}", r"\toprule"]
    lines.append(" & ".join(["Task", "Model", "$n$", *(_latex(HEADINGS[m]) for m in shown)]) + r" \\")
    for row in ROWS:
        present = [(name, e.rows[row]) for name, e in evaluations.items() if row in e.rows]
        lines += [r"\midrule"] if present else []
        for name, values in present:
            cells = [_latex_cell(m, values.metrics[m]) for m in shown]
            lines.append(" & ".join([row, _latex(name), str(values.n), *cells]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def aligned(lines: Sequence[Sequence[str]]) -> str:
    """Columns padded to their widest cell, a rule under the header; the first two columns to the left."""
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    padded = [[text.ljust(w) if i < 2 else text.rjust(w) for i, (text, w) in enumerate(zip(line, widths, strict=True))]
              for line in lines]  # fmt: skip
    rows = ["  ".join(line).rstrip() for line in padded]
    return "\n".join([rows[0], "  ".join("─" * width for width in widths), *rows[1:]]) + "\n"


def _lines(evaluations: Mapping[str, Evaluation], row: str, metrics: Sequence[str]) -> list[list[str]]:
    found = [(name, e.rows[row]) for name, e in evaluations.items() if row in e.rows]
    return [[name, *_counts(r), *(cell(m, r.metrics[m]) for m in metrics)] for name, r in found]


def _counts(row: Row) -> list[str]:
    return [str(count) for count in (row.n, row.n - row.parsed, row.refused, row.truncated)]


def _known(evaluations: Mapping[str, Evaluation], metric: str) -> bool:
    return any(evaluation.rows["all"].metrics[metric].mean is not None for evaluation in evaluations.values())


def _grouped(lines: Sequence[Sequence[str]]) -> list[list[str]]:
    """The family's name once per group."""
    return [["" if i and lines[i - 1][0] == line[0] else line[0], *line[1:]] for i, line in enumerate(lines)]


def _latex_cell(metric: str, value: Interval) -> str:
    if value.mean is None or value.low is None or value.high is None:
        return "--"
    scale = 100 if metric in PERCENT else 1
    return f"${scale * value.mean:.1f}_{{{scale * value.low:.1f}}}^{{{scale * value.high:.1f}}}$"


def _latex(text: str) -> str:
    special = {"&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}"}
    special |= {"~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\\": r"\textbackslash{}"}
    return "".join(special.get(character, character) for character in text)
