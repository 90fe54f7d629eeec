"""Runs side by side: one table, paired differences, one page, LaTeX and CSV."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

from chestx_jax.eval.files import write_json
from chestx_jax.eval.records import read_predictions
from chestx_jax.eval.report import write_report
from chestx_jax.eval.scores import compare, evaluate_predictions
from chestx_jax.eval.tables import comparison_table, csv_table, difference_table, latex_table
from chestx_jax.lexicon import load

Say = Callable[[str], None]


def compare_runs(folders: Sequence[str], out: Path, say: Say) -> dict[str, Any]:
    """Runs that `--out` wrote, side by side: the table, the paired differences of neighbours, one page in `out`."""
    names = [Path(folder).name for folder in folders]
    if len(set(names)) < len(names):
        names = [str(folder) for folder in folders]
    lexicon = load()
    found = {
        name: read_predictions(Path(folder) / "predictions.jsonl") for name, folder in zip(names, folders, strict=True)
    }
    evaluations = {name: evaluate_predictions(predictions, lexicon) for name, predictions in found.items()}
    say(comparison_table(evaluations))
    differences = {}
    for first, second in pairwise(names):
        table = compare(evaluations[first], evaluations[second])
        differences[f"{second} - {first}"] = {
            row: {m: asdict(d) for m, d in cells.items()} for row, cells in table.items()
        }
        say(difference_table(f"{second} - {first}", table))
    document = {"models": {name: e.to_json() for name, e in evaluations.items()}, "differences": differences}
    out.mkdir(parents=True, exist_ok=True)
    write_report(
        out / "report.html", {name: (found[name], evaluations[name]) for name in names}, " against ".join(names)
    )
    (out / "table.tex").write_text(latex_table(evaluations), encoding="utf-8")
    (out / "table.csv").write_text(csv_table(evaluations), encoding="utf-8")
    write_json(out / "scores.json", document)
    return document
